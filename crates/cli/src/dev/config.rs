//! What `wolfpack dev` runs with: arguments, then `WOLFPACK_DEV__...` for what
//! has no argument.

use std::fs::{DirBuilder, File, TryLockError};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wolfpack_runtime::config::{self, Validate};
use wolfpack_runtime::{BoxError, HasTelemetry, TelemetryConfig};

use super::arguments::DevArgs;
use super::engine;

/// What only the environment says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Environment {
    /// Logs, traces, metrics of every part.
    telemetry: TelemetryConfig,
}

impl Default for Environment {
    fn default() -> Self {
        // A person wants the banner, not a line for each call; what goes wrong is still told.
        let telemetry = TelemetryConfig { filter: "warn".to_owned(), ..TelemetryConfig::default() };
        Self { telemetry }
    }
}

impl Environment {
    fn read(
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, config::ConfigError> {
        config::load_from("WOLFPACK_DEV", None, variables)
    }
}

impl Validate for Environment {
    fn faults(&self) -> Vec<String> {
        self.telemetry.faults()
    }
}

/// Everything `wolfpack dev` was told, with defaults filled in.
pub(super) struct DevConfig {
    pub(super) arguments: DevArgs,
    pub(super) data: PathBuf,
    /// Folders that sandboxes may mount from, without symbolic links.
    pub(super) mount_roots: Vec<PathBuf>,
    telemetry: TelemetryConfig,
}

impl DevConfig {
    pub(super) fn load(arguments: DevArgs) -> Result<Self, BoxError> {
        let telemetry = Environment::read(config::variables())?.telemetry;
        let data = match &arguments.data {
            Some(folder) => folder.clone(),
            None => default_data()?,
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&data).map_err(|error| {
            format!("cannot make {}: {error}; choose a folder with --data", data.display())
        })?;
        let data = data.canonicalize()?;
        if let Some(http) = arguments.http
            && !http.ip().is_loopback()
        {
            return Err("--http must be a loopback address: it has no TLS".into());
        }
        let mount_roots =
            arguments.mount_root.iter().map(|root| mount_root(root)).collect::<Result<_, _>>()?;
        engine::check(&arguments)?;
        Ok(Self { arguments, data, mount_roots, telemetry })
    }

    /// The agent that runs in every sandbox of this machine's own engine; the
    /// wolf image brings its own.
    pub(super) fn sandbox_agent(&self) -> Result<PathBuf, BoxError> {
        let file = match &self.arguments.sandbox_agent {
            Some(file) => file.clone(),
            None => find_sandbox_agent()?,
        };
        file.canonicalize().map_err(|error| {
            format!("{}: {error}; build it with scripts/build-sandbox-agent", file.display()).into()
        })
    }

    /// Where a part listens: the argument, a free port for scripts, or the port everybody knows.
    pub(super) fn listen(&self, argument: Option<SocketAddr>, port: u16) -> SocketAddr {
        let port = if self.arguments.ephemeral { 0 } else { port };
        argument.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    /// A name of its own for the bridge of this folder's sandboxes.
    pub(super) fn network(&self) -> String {
        let hash = blake3::hash(self.data.as_os_str().as_encoded_bytes());
        format!("wolfpack-{}", &hash.to_hex()[..12])
    }

    /// Two fleets on one folder would fight over it; the lock ends with the process.
    pub(super) fn lock_data(&self) -> Result<File, BoxError> {
        let path = self.data.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(format!(
                "another wolfpack dev runs with {}; stop it or choose another folder with --data",
                self.data.display()
            )
            .into()),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }
}

impl HasTelemetry for DevConfig {
    fn telemetry(&self) -> &TelemetryConfig {
        &self.telemetry
    }

    fn drain(&self) -> Duration {
        // The parts drain one after the other, each within its own bound.
        Duration::from_secs(45)
    }
}

fn default_data() -> Result<PathBuf, BoxError> {
    let base = match (std::env::var_os("XDG_DATA_HOME"), std::env::var_os("HOME")) {
        (Some(data), _) if !data.is_empty() => PathBuf::from(data),
        (_, Some(home)) if !home.is_empty() => Path::new(&home).join(".local/share"),
        _ => {
            return Err("neither XDG_DATA_HOME nor HOME is set; choose a folder with --data".into());
        }
    };
    Ok(base.join("wolfpack"))
}

fn mount_root(root: &Path) -> Result<PathBuf, BoxError> {
    let unusable = |why: &dyn std::fmt::Display| {
        format!("--mount-root {}: {why}; name a folder of this machine", root.display())
    };
    let path = root.canonicalize().map_err(|error| unusable(&error))?;
    if !path.is_dir() {
        return Err(unusable(&"it is no folder").into());
    }
    if path == Path::new("/") {
        return Err(unusable(&"sandboxes may not have all of it").into());
    }
    Ok(path)
}

fn find_sandbox_agent() -> Result<PathBuf, BoxError> {
    const NAME: &str = "wolfpack-sandbox-agent";
    let beside = std::env::current_exe()?.with_file_name(NAME);
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(beside)
        .chain(std::env::split_paths(&path).map(|folder| folder.join(NAME)))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            format!("no {NAME} beside this program or in PATH; build it with scripts/build-sandbox-agent and pass --sandbox-agent FILE").into()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_given_counts_even_where_it_is_the_services_default() {
        let filter = |given: Option<&str>| {
            let name = "WOLFPACK_DEV__TELEMETRY__FILTER".to_owned();
            let variables = given.map(|filter| (name, filter.to_owned())).into_iter();
            Environment::read(variables).unwrap().telemetry.filter
        };
        assert_eq!(filter(None), "warn");
        for given in ["info", "warn", "wolfpack=debug,info"] {
            assert_eq!(filter(Some(given)), given);
        }
    }
}
