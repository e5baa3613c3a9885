//! The client's side. There is no task: files are looked at again before a
//! handshake when the last look is older than [`RELOAD_INTERVAL`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::files::{self, Contents};
use super::pinned::Pin;
use super::verify::{Anchor, Verifier};
use super::{RELOAD_INTERVAL, TlsConfig, TlsError, provider};

/// Whom a client trusts and, for mutual TLS, who it is. Clones share one state.
#[derive(Clone)]
pub struct ClientTls {
    shared: Arc<Shared>,
}

struct Shared {
    files: Option<TlsConfig>,
    state: Mutex<State>,
    current: ArcSwap<Identity>,
    failures: AtomicU64,
}

struct State {
    contents: Option<Contents>,
    looked: Instant,
}

struct Identity {
    anchor: Anchor,
    own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    expires: Option<SystemTime>,
}

/// Which peer a handshake must end at.
#[derive(Debug, Clone)]
pub(crate) enum Expect {
    /// `spiffe://wolfpack/svc/{name}`; no host name is looked at.
    Service(String),
    /// The host's DNS name or address, or the service's SPIFFE URI.
    Host { or_service: Option<&'static str> },
}

impl ClientTls {
    /// An identity of our own and roots, from files that are reloaded.
    ///
    /// # Errors
    /// When a file cannot be read or the three do not make a configuration.
    pub fn load(files: &TlsConfig) -> Result<Self, TlsError> {
        let contents = Contents::read(files)?;
        let identity = identity(&contents, files)?;
        let tls = Self::with(identity, Some(files.clone()), Some(contents));
        // A key that does not fit its certificate shows up here, not at the first call.
        tls.config(&Expect::Host { or_service: None })?;
        Ok(tls)
    }

    /// Roots only, PEM; the client has no certificate.
    ///
    /// # Errors
    /// When the text holds no usable certificate.
    pub fn roots_only(pem: &[u8]) -> Result<Self, TlsError> {
        let roots = files::roots(pem, &files::given())?;
        Ok(Self::with(bare(Anchor::Roots(Arc::new(roots))), None, None))
    }

    /// Only the root certificate whose DER has this SHA-256, which the server
    /// must send as part of its chain.
    #[must_use]
    pub fn pinned_ca(sha256: [u8; 32]) -> Self {
        Self::with(bare(Anchor::Pin(Pin(sha256))), None, None)
    }

    fn with(identity: Identity, files: Option<TlsConfig>, contents: Option<Contents>) -> Self {
        Self {
            shared: Arc::new(Shared {
                files,
                state: Mutex::new(State { contents, looked: Instant::now() }),
                current: ArcSwap::from_pointee(identity),
                failures: AtomicU64::new(0),
            }),
        }
    }

    /// Reads the files again; says whether they changed. Connections that are
    /// open stay as they are, new ones use the new files. Blocks on the disk
    /// for a moment.
    ///
    /// # Errors
    /// As [`ClientTls::load`]; what was in use stays.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let Some(files) = &self.shared.files else { return Ok(false) };
        let mut state = self.shared.state.lock();
        state.looked = Instant::now();
        let fresh = Contents::read(files)?;
        if state.contents.as_ref() == Some(&fresh) {
            return Ok(false);
        }
        let identity = identity(&fresh, files)?;
        own_config(&identity, &Expect::Host { or_service: None })?;
        self.shared.current.store(Arc::new(identity));
        state.contents = Some(fresh);
        Ok(true)
    }

    /// How many reloads failed since the start.
    #[must_use]
    pub fn reload_failures(&self) -> u64 {
        self.shared.failures.load(Ordering::Relaxed)
    }

    /// When our own certificate ends; `None` without one.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        self.shared.current.load().expires
    }

    /// Prepares a handshake, looking at the files when it is time.
    pub(crate) fn handshake(&self, expect: &Expect) -> Result<Arc<ClientConfig>, TlsError> {
        let due = self.shared.files.is_some()
            && self.shared.state.lock().looked.elapsed() >= RELOAD_INTERVAL;
        if due {
            match self.reload() {
                Ok(true) => tracing::info!("client certificate and roots reloaded"),
                Ok(false) => {}
                Err(error) => {
                    self.shared.failures.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%error, "client certificate and roots not reloaded; the old ones stay in use");
                }
            }
        }
        Ok(Arc::new(self.config(expect)?))
    }

    fn config(&self, expect: &Expect) -> Result<ClientConfig, TlsError> {
        own_config(&self.shared.current.load(), expect)
    }
}

fn bare(anchor: Anchor) -> Identity {
    Identity { anchor, own: None, expires: None }
}

fn identity(contents: &Contents, files: &TlsConfig) -> Result<Identity, TlsError> {
    let material = contents.parse(files)?;
    let roots: RootCertStore = material.roots;
    Ok(Identity {
        anchor: Anchor::Roots(Arc::new(roots)),
        expires: Some(material.expires),
        own: Some((material.chain, material.key)),
    })
}

fn own_config(identity: &Identity, expect: &Expect) -> Result<ClientConfig, TlsError> {
    let verifier =
        Verifier { anchor: identity.anchor.clone(), expect: expect.clone(), provider: provider() };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &identity.own {
        Some((chain, key)) => builder.with_client_auth_cert(chain.clone(), key.clone_key())?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Each connection is long and proves itself anew.
    config.resumption = Resumption::disabled();
    config.enable_sni = matches!(expect, Expect::Host { .. });
    Ok(config)
}
