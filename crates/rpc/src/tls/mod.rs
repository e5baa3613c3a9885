//! TLS by rustls with ring, from files that are read again while we run:
//! certificates and roots. A set of files that does not load leaves the old
//! one in use, and is logged and counted.

mod client;
mod files;
pub(crate) mod identity;
mod pinned;
mod server;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::CipherSuite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::CryptoProvider;

pub use client::ClientTls;
pub(crate) use client::Expect;
pub(crate) use files::not_after;
pub use server::ServerTls;

/// How often files are looked at for changes.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

/// The files of one identity and of whom it trusts, all PEM.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificate chain, leaf first. Servers include the root where agents
    /// join by its hash.
    pub certificate_file: PathBuf,
    /// Private key of the leaf.
    pub key_file: PathBuf,
    /// Roots that peers are verified against.
    pub roots_file: PathBuf,
}

/// Whether a server asks its clients for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// Never; TLS 1.2 is spoken too.
    #[default]
    Off,
    /// A certificate is verified when there is one. TLS 1.3 only.
    Optional,
    /// Nobody without a certificate of our roots gets in. TLS 1.3 only.
    Required,
}

/// TLS files do not make a usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}; check the path and its permissions")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds something else.
    #[error("{path} is not {expected}: {detail}; write it as PEM")]
    Content {
        /// The file.
        path: PathBuf,
        /// What was expected in it.
        expected: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// The parts do not fit together.
    #[error(
        "the tls configuration is not usable: {0}; check that key and certificate belong together"
    )]
    Unusable(String),
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self::Unusable(error.to_string())
    }
}

/// The one provider of cryptography.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    // What TLS 1.3 asks everybody to have, first: of ten rounds, not fourteen.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}
