//! A wolf's identity on disk: key, certificate, roots, and where it attaches.
//! Blocking: call from a blocking thread.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rcgen::{CertificateParams, KeyPair};
use serde::{Deserialize, Serialize};
use wolfpack_rpc::TlsConfig;
use wolfpack_types::WolfId;
use x509_parser::pem::Pem;

use crate::sandbox::directory::make_dir;

const KEY: &str = "wolf.key";
const CERTIFICATE: &str = "wolf.crt";
const ROOTS: &str = "ca.crt";
const ABOUT: &str = "wolf.json";

/// Who this wolf is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WolfIdentity {
    /// Its id.
    pub wolf: WolfId,
    /// Where agents attach, as it was told when it joined: `host:port`, or
    /// `:port` on the host it joined at.
    pub agent_endpoint: String,
    /// Roots to trust, PEM.
    pub trust_roots: String,
    /// The certificate's life.
    pub valid: (SystemTime, SystemTime),
}

impl WolfIdentity {
    /// When to renew: at two thirds of the certificate's life.
    #[must_use]
    pub fn renew_time(&self) -> SystemTime {
        let (begin, end) = self.valid;
        begin + end.duration_since(begin).unwrap_or(Duration::ZERO) * 2 / 3
    }
}

#[derive(Serialize, Deserialize)]
struct About {
    wolf: WolfId,
    agent_endpoint: String,
}

/// A certificate as the registry gives it.
#[derive(Debug, Clone)]
pub struct Issued {
    /// Chain, leaf first, PEM.
    pub certificate_chain: String,
    /// Roots, PEM.
    pub trust_roots: String,
}

/// The identity's files; cheap to clone.
#[derive(Debug, Clone)]
pub struct IdentityStore {
    dir: PathBuf,
    current: Arc<ArcSwap<Option<WolfIdentity>>>,
}

impl IdentityStore {
    /// Opens the folder and reads the identity, if there is one.
    ///
    /// # Errors
    /// When there is one and it cannot be read.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let dir = data_dir.join("identity");
        make_dir(&dir, 0o700)?;
        let store = Self { dir, current: Arc::new(ArcSwap::from_pointee(None)) };
        // The certificate is written last: without it nothing was joined.
        if store.file(CERTIFICATE).exists() {
            store.current.store(Arc::new(Some(store.read()?)));
        }
        Ok(store)
    }

    /// The identity; `None` before it joined.
    #[must_use]
    pub fn current(&self) -> Option<WolfIdentity> {
        self.current.load().as_ref().clone()
    }

    /// The roots to trust, PEM; empty before it joined.
    #[must_use]
    pub fn trust_roots(&self) -> String {
        self.current.load().as_ref().as_ref().map(|own| own.trust_roots.clone()).unwrap_or_default()
    }

    /// The files for mutual TLS.
    #[must_use]
    pub fn tls_files(&self) -> TlsConfig {
        TlsConfig {
            certificate_file: self.file(CERTIFICATE),
            key_file: self.file(KEY),
            roots_file: self.file(ROOTS),
        }
    }

    /// A certificate request of this wolf's key, DER; the key is made at the
    /// first call and kept.
    ///
    /// # Errors
    /// When the key cannot be read or written.
    pub fn certificate_request(&self) -> io::Result<Vec<u8>> {
        let key = match fs::read_to_string(self.file(KEY)) {
            Ok(pem) => KeyPair::from_pem(&pem).map_err(|error| self.damaged(KEY, &error))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = KeyPair::generate().map_err(io::Error::other)?;
                self.write(KEY, &key.serialize_pem())?;
                key
            }
            Err(error) => return Err(error),
        };
        let request = CertificateParams::default().serialize_request(&key);
        Ok(request.map_err(io::Error::other)?.der().to_vec())
    }

    /// Keeps the identity of a wolf that has joined.
    ///
    /// # Errors
    /// When a file cannot be written, or the certificate not be read.
    pub fn joined(&self, wolf: &WolfId, agent_endpoint: &str, issued: &Issued) -> io::Result<()> {
        let about = About { wolf: wolf.clone(), agent_endpoint: agent_endpoint.to_owned() };
        self.write(ABOUT, &serde_json::to_string_pretty(&about).map_err(io::Error::other)?)?;
        self.renewed(issued)
    }

    /// Keeps a fresh certificate of the same key.
    ///
    /// # Errors
    /// When a file cannot be written, or the certificate not be read; then the
    /// old one stays.
    pub fn renewed(&self, issued: &Issued) -> io::Result<()> {
        life(&issued.certificate_chain).map_err(|error| self.damaged(CERTIFICATE, &error))?;
        self.write(ROOTS, &issued.trust_roots)?;
        self.write(CERTIFICATE, &issued.certificate_chain)?;
        self.current.store(Arc::new(Some(self.read()?)));
        Ok(())
    }

    fn read(&self) -> io::Result<WolfIdentity> {
        let about: About = serde_json::from_str(&fs::read_to_string(self.file(ABOUT))?)
            .map_err(|error| self.damaged(ABOUT, &error))?;
        let chain = fs::read_to_string(self.file(CERTIFICATE))?;
        Ok(WolfIdentity {
            wolf: about.wolf,
            agent_endpoint: about.agent_endpoint,
            trust_roots: fs::read_to_string(self.file(ROOTS))?,
            valid: life(&chain).map_err(|error| self.damaged(CERTIFICATE, &error))?,
        })
    }

    fn damaged(&self, name: &str, error: &dyn std::fmt::Display) -> io::Error {
        let words = format!(
            "{}: {error}; restore it, or remove {} and join again with a new token",
            self.file(name).display(),
            self.dir.display()
        );
        io::Error::new(io::ErrorKind::InvalidData, words)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Replaces a file as a whole, readable by us only.
    fn write(&self, name: &str, content: &str) -> io::Result<()> {
        let mut staged = tempfile::NamedTempFile::new_in(&self.dir)?;
        staged.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
        staged.write_all(content.as_bytes())?;
        staged.as_file().sync_all()?;
        staged.persist(self.file(name)).map_err(|error| error.error)?;
        fs::File::open(&self.dir)?.sync_all()
    }
}

/// From when to when the first certificate of a chain is valid.
fn life(chain: &str) -> Result<(SystemTime, SystemTime), String> {
    let pem = Pem::iter_from_buffer(chain.as_bytes()).next().ok_or("it holds no certificate")?;
    let pem = pem.map_err(|error| error.to_string())?;
    let leaf = pem.parse_x509().map_err(|error| error.to_string())?;
    let time = |seconds: i64| {
        let seconds = u64::try_from(seconds).map_err(|_| "its dates are before 1970")?;
        Ok::<_, String>(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    };
    let validity = leaf.validity();
    Ok((time(validity.not_before.timestamp())?, time(validity.not_after.timestamp())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::join::tests::issue;

    #[test]
    fn an_identity_is_kept_reused_and_renewed_with_the_same_key() {
        wolfpack_runtime::install_crypto_provider();
        let dir = tempfile::tempdir().unwrap();
        let store = IdentityStore::open(dir.path()).unwrap();
        assert_eq!(store.current(), None);
        let request = store.certificate_request().unwrap();
        let wolf = WolfId::new();
        let issued = issue(&request, 3);
        store.joined(&wolf, ":8444", &issued).unwrap();
        for file in [KEY, CERTIFICATE, ROOTS, ABOUT] {
            let mode = fs::metadata(store.file(file)).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{file}");
        }
        let again = IdentityStore::open(dir.path()).unwrap();
        let identity = again.current().unwrap();
        assert_eq!((identity.wolf.clone(), identity.agent_endpoint.as_str()), (wolf, ":8444"));
        let day = Duration::from_secs(86_400);
        assert_eq!(identity.renew_time(), identity.valid.0 + day * 2);
        wolfpack_rpc::ClientTls::load(&again.tls_files()).unwrap();

        again.renewed(&issue(&again.certificate_request().unwrap(), 30)).unwrap();
        let renewed = again.current().unwrap();
        assert_eq!(renewed.valid.1, identity.valid.0 + day * 30);
        wolfpack_rpc::ClientTls::load(&again.tls_files()).unwrap();
    }

    #[test]
    fn a_damaged_identity_is_told_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let store = IdentityStore::open(dir.path()).unwrap();
        let garbage = Issued { certificate_chain: "x".into(), trust_roots: "y".into() };
        assert!(store.joined(&WolfId::new(), ":1", &garbage).is_err());
        assert_eq!(IdentityStore::open(dir.path()).unwrap().current(), None);
        fs::write(store.file(CERTIFICATE), "x").unwrap();
        fs::write(store.file(ROOTS), "y").unwrap();
        let told = IdentityStore::open(dir.path()).unwrap_err().to_string();
        assert!(told.contains("join again"), "{told}");
    }
}
