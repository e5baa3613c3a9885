//! The fleet's own certificate authority: one ECDSA P-256 root in a folder,
//! that names services and wolves by SPIFFE URIs.
//!
//! It is not a general CA: it signs nothing but `spiffe://wolfpack/svc/{name}`
//! and `spiffe://wolfpack/wolf/{id}`, and takes from a certificate request
//! nothing but the public key.

mod authority;
mod csr;
mod files;

pub use authority::{CertificateAuthority, IssuedCertificate, SignedCertificate};
pub use csr::CsrError;
pub use files::{write_private, write_public};

use std::path::PathBuf;

/// The CA could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file could not be read or written.
    #[error("could not read or write {path}; check the folder and its owner")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The files of the folder do not make a CA.
    #[error(
        "{path} holds no usable CA ({problem}); restore its ca.crt and ca.key from the same backup"
    )]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A name that a service certificate should carry is not one.
    #[error(
        "{0:?} cannot stand in a certificate; service and host names are of a-z, 0-9, - and dots"
    )]
    Name(String),
    /// A certificate could not be made.
    #[error("could not sign a certificate")]
    Sign(#[from] rcgen::Error),
}
