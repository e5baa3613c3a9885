//! Certificates of the services, made at each start by the fleet's own CA.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use wolfpack_registry::ca::{CertificateAuthority, write_private, write_public};
use wolfpack_rpc::tls::TlsConfig;
use wolfpack_runtime::BoxError;

use super::config::DevConfig;

/// The CA and where the certificates it makes are.
pub(super) struct Certificates {
    authority: CertificateAuthority,
    folder: PathBuf,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Certificates {
    pub(super) fn open(config: &DevConfig) -> Result<Self, BoxError> {
        let folder = config.data.join("certificates");
        std::fs::create_dir_all(&folder)?;
        let authority = CertificateAuthority::create_or_load(&ca_dir(config))?;
        write_public(&folder.join("ca.crt"), authority.root_pem().as_bytes())?;
        let mut names = vec!["localhost".to_owned(), "wolfpack.internal".to_owned()];
        let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        for host in &config.arguments.host {
            match host.parse() {
                Ok(address) => addresses.push(address),
                Err(_) => names.push(host.clone()),
            }
        }
        Ok(Self { authority, folder, names, addresses })
    }

    /// The root, a file that anybody may read.
    pub(super) fn root(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// A fresh certificate for a service, good at every name of this machine.
    pub(super) fn issue(&self, service: &str) -> Result<TlsConfig, BoxError> {
        let issued = self.authority.issue_service(service, &self.names, &self.addresses)?;
        let files = TlsConfig {
            certificate_file: self.folder.join(format!("{service}.crt")),
            key_file: self.folder.join(format!("{service}.key")),
            roots_file: self.root(),
        };
        write_private(&files.key_file, issued.key_pem.as_bytes())?;
        write_public(&files.certificate_file, issued.certificate_pem.as_bytes())?;
        Ok(files)
    }
}

/// The folder of the CA: the registry's own.
pub(super) fn ca_dir(config: &DevConfig) -> PathBuf {
    config.data.join("registry").join("ca")
}
