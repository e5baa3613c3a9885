//! The context: where the server is and which key to show it, so that a person
//! need not say it each time. `wolfpack dev` writes it.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

use crate::failure::Failure;

/// `context.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// The gateway.
    pub server: String,
    /// The key, for this server only.
    #[serde(serialize_with = "revealed", skip_serializing_if = "Option::is_none")]
    pub api_key: Option<SecretString>,
    /// The CA certificates that the server is checked against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

/// The file is private: it is where the key is kept.
#[allow(clippy::ref_option, reason = "the signature serde asks for")]
fn revealed<S: Serializer>(key: &Option<SecretString>, to: S) -> Result<S::Ok, S::Error> {
    key.as_ref().map(ExposeSecret::expose_secret).serialize(to)
}

/// `$XDG_CONFIG_HOME/wolfpack/context.toml`, or under `~/.config`.
#[must_use]
pub fn path() -> Option<PathBuf> {
    let given =
        std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let folder =
        given.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))?;
    Some(folder.join("wolfpack/context.toml"))
}

impl Context {
    /// Reads it; `None` when there is none.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, Failure> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::file(path, &error)),
        };
        let mode = std::fs::metadata(path)
            .map_err(|error| Failure::file(path, &error))?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            return Err(Failure::Local(format!(
                "{0} holds a key and others can read it; run: chmod 600 {0}",
                path.display()
            )));
        }
        toml::from_str(&text)
            .map(Some)
            .map_err(|error| Failure::Local(format!("{}: {error}", path.display())))
    }

    /// Writes it whole or not at all, readable by its owner only; where to.
    ///
    /// # Errors
    /// When there is no home folder, or the file cannot be written.
    pub fn save(&self) -> io::Result<PathBuf> {
        let path = path().ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "neither XDG_CONFIG_HOME nor HOME is set")
        })?;
        self.write(&path)?;
        Ok(path)
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        wolfpack_registry::ca::write_private(path, text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_private_round_trips_and_is_refused_when_others_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/context.toml");
        assert!(Context::read(&path).unwrap().is_none());
        let context = Context {
            server: "https://localhost:1".into(),
            api_key: Some("wp_x".into()),
            ca: Some("/ca.pem".into()),
        };
        context.write(&path).unwrap();
        context.write(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = Context::read(&path).unwrap().unwrap();
        assert_eq!((read.server, read.ca), (context.server, context.ca));
        assert_eq!(read.api_key.unwrap().expose_secret(), "wp_x");
        assert!(!format!("{:?}", Context::read(&path)).contains("wp_x"));
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(
            matches!(Context::read(&path), Err(Failure::Local(words)) if words.contains("chmod 600"))
        );
    }
}
