//! What is there before an agent runs: its folders, who it is, where it goes.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use wolfpack_runtime::config::secret_from;
use wolfpack_runtime::{BoxError, Context};

use crate::admission::EpochFile;
use crate::config::{Config, HostPort};
use crate::join::{self, IdentityStore, WolfIdentity};
use crate::sandbox::directory;

/// What was found or made in the data directory.
pub(super) struct Folders {
    pub(super) store: IdentityStore,
    /// The data directory, without links.
    pub(super) data_dir: PathBuf,
    pub(super) root: PathBuf,
    pub(super) bin_dir: PathBuf,
    pub(super) epoch: (EpochFile, i64),
}

pub(super) async fn prepare(config: &Config) -> Result<Folders, BoxError> {
    let (data_dir, binary) = (config.data_dir.clone(), config.sandbox_agent_binary.clone());
    let prepared = tokio::task::spawn_blocking(move || {
        // Until the engine said whether it remaps users; see Setup.
        directory::close(&data_dir, None)?;
        let data_dir = data_dir.canonicalize()?;
        let root = directory::root(&data_dir);
        let bin_dir = install(&data_dir, &binary)?;
        let epoch_file = EpochFile::in_dir(&data_dir);
        let epoch = epoch_file.read()?;
        Ok::<_, io::Error>(Folders {
            store: IdentityStore::open(&data_dir)?,
            data_dir,
            root,
            bin_dir,
            epoch: (epoch_file, epoch),
        })
    });
    Ok(prepared.await??)
}

fn install(data_dir: &Path, binary: &Path) -> io::Result<PathBuf> {
    directory::install_agent(data_dir, binary).map_err(|error| {
        let words = format!(
            "the sandbox agent's binary {} cannot be installed: {error}; set sandbox_agent_binary",
            binary.display()
        );
        io::Error::new(error.kind(), words)
    })
}

pub(super) async fn identity(
    config: &Config,
    store: &IdentityStore,
    context: &Context,
) -> Result<WolfIdentity, BoxError> {
    if let Some(identity) = store.current() {
        return Ok(identity);
    }
    let token: Option<SecretString> =
        secret_from(config.join_token.clone(), config.join_token_file.as_deref())?;
    let token =
        token.ok_or("this wolf has not joined: set join_token_file (see CreateJoinToken)")?;
    let stop = context.supervisor.token();
    join::join(store, &config.server, &token, &config.display_name, &stop).await?;
    let identity = store.current().ok_or("the wolf joined and its identity is not there")?;
    tracing::info!(wolf = %identity.wolf, "joined");
    Ok(identity)
}

/// Where to attach: what the operator says, else what was told at joining.
pub(super) fn agent_endpoint(
    config: &Config,
    identity: &WolfIdentity,
    server: &HostPort,
) -> Result<HostPort, BoxError> {
    let said = config.agent_endpoint.as_deref().unwrap_or(&identity.agent_endpoint);
    let mut endpoint = HostPort::parse(said, None)?;
    let unspecified = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::from([0u16; 8])];
    let nowhere = endpoint.host.parse().is_ok_and(|address| unspecified.contains(&address));
    if endpoint.host.is_empty() || nowhere {
        endpoint.host.clone_from(&server.host);
    }
    Ok(endpoint)
}

pub(super) fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.chars().take(128).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn the_data_directory_is_closed_before_anything_is_in_it() {
        let above = tempfile::tempdir().unwrap();
        let binary = above.path().join("agent");
        std::fs::write(&binary, "agent").unwrap();
        let data_dir = above.path().join("data");
        directory::make_dir(&data_dir, 0o755).unwrap();
        let config = Config { data_dir, sandbox_agent_binary: binary, ..Config::default() };
        let folders = prepare(&config).await.unwrap();
        for folder in [&config.data_dir, &folders.root] {
            let mode = std::fs::metadata(folder).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o700, "{}", folder.display());
        }
    }
}
