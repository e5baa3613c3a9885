//! The server's side: one `rustls::ServerConfig` at a time, exchanged when the
//! files change.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};

use super::files::{Contents, Material};
use super::{ClientAuth, TlsConfig, TlsError, provider};

/// Certificates, key and roots of a listener. Clones share one state.
#[derive(Clone)]
pub struct ServerTls {
    shared: Arc<Shared>,
}

struct Shared {
    files: TlsConfig,
    client_auth: ClientAuth,
    protocols: Mutex<Vec<Vec<u8>>>,
    contents: Mutex<Contents>,
    current: ArcSwap<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    expires: SystemTime,
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// When a file cannot be read or the three do not make a configuration.
    pub fn load(files: &TlsConfig, client_auth: ClientAuth) -> Result<Self, TlsError> {
        let contents = Contents::read(files)?;
        let protocols = vec![b"h2".to_vec()];
        let current = build(contents.parse(files)?, client_auth, &protocols)?;
        Ok(Self {
            shared: Arc::new(Shared {
                files: files.clone(),
                client_auth,
                protocols: Mutex::new(protocols),
                contents: Mutex::new(contents),
                current: ArcSwap::from_pointee(current),
            }),
        })
    }

    /// Reads the files again and uses them for new connections when they
    /// changed. Says whether they did. Blocks on the disk for a moment.
    ///
    /// # Errors
    /// As [`ServerTls::load`]; the old configuration stays in use.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let fresh = Contents::read(&self.shared.files)?;
        let mut contents = self.shared.contents.lock();
        if *contents == fresh {
            return Ok(false);
        }
        let material = fresh.parse(&self.shared.files)?;
        let protocols = self.shared.protocols.lock().clone();
        let current = build(material, self.shared.client_auth, &protocols)?;
        self.shared.current.store(Arc::new(current));
        *contents = fresh;
        Ok(true)
    }

    /// When the certificate in use ends.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.shared.current.load().expires
    }

    /// Which protocols the listener speaks, best first.
    pub(crate) fn speak(&self, protocols: &[&[u8]]) {
        let protocols: Vec<Vec<u8>> = protocols.iter().map(|p| p.to_vec()).collect();
        let current = self.shared.current.load();
        let mut config = (*current.config).clone();
        config.alpn_protocols.clone_from(&protocols);
        *self.shared.protocols.lock() = protocols;
        self.shared
            .current
            .store(Arc::new(Current { config: Arc::new(config), expires: current.expires }));
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.shared.current.load().config)
    }

    pub(crate) fn name(&self) -> String {
        self.shared.files.certificate_file.display().to_string()
    }
}

fn build(
    material: Material,
    client_auth: ClientAuth,
    protocols: &[Vec<u8>],
) -> Result<Current, TlsError> {
    let versions: &[&'static rustls::SupportedProtocolVersion] = match client_auth {
        ClientAuth::Off => &[&rustls::version::TLS13, &rustls::version::TLS12],
        ClientAuth::Optional | ClientAuth::Required => &[&rustls::version::TLS13],
    };
    let builder =
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions)?;
    let verifier = |roots| WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let unusable =
        |error: rustls::server::VerifierBuilderError| TlsError::Unusable(error.to_string());
    let builder = match client_auth {
        ClientAuth::Off => builder.with_no_client_auth(),
        ClientAuth::Optional => builder.with_client_cert_verifier(
            verifier(material.roots).allow_unauthenticated().build().map_err(unusable)?,
        ),
        ClientAuth::Required => {
            builder.with_client_cert_verifier(verifier(material.roots).build().map_err(unusable)?)
        }
    };
    let mut config = builder.with_single_cert(material.chain, material.key)?;
    config.alpn_protocols = protocols.to_vec();
    if client_auth != ClientAuth::Off {
        // A resumed session would skip the look at the client's certificate,
        // and so outlive a change of roots.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(Current { config: Arc::new(config), expires: material.expires })
}
