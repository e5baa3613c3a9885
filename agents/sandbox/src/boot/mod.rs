//! The directory that the wolf's agent mounts at `/run/wolfpack`.

mod log;
mod token;

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use wolfpack_types::sandbox_boot::{
    AGENT_SOCKET, BOOT_DIR, CA_FILE, CONFIG_FILE, SandboxBoot, TOKEN_FILE,
};

pub use log::Log;
pub use token::{Token, TokenError};

/// None of its files is larger; the environment of an image is most of it.
const LIMIT: u64 = 16 << 20;

/// The directory, by its path.
#[derive(Debug, Clone)]
pub struct BootDir {
    path: PathBuf,
}

/// The directory does not hold what a start needs.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A file cannot be read.
    #[error(
        "cannot read {path}: {source}; the directory of the boot must be mounted at {BOOT_DIR}"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The configuration is not one.
    #[error("{path} is not a boot's configuration: {source}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The token is not one.
    #[error("{path} does not hold a sandbox token: {source}")]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: TokenError,
    },
}

impl Default for BootDir {
    fn default() -> Self {
        Self::at(BOOT_DIR)
    }
}

impl BootDir {
    /// The directory at another path than [`BOOT_DIR`].
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the agent's socket is to be.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path.join(AGENT_SOCKET)
    }

    /// Reads what the wolf's agent says about this boot.
    ///
    /// # Errors
    /// When the file is not there or not what it should be.
    pub fn config(&self) -> Result<SandboxBoot, BootError> {
        let path = self.path.join(CONFIG_FILE);
        let text = read(&path)?;
        serde_json::from_slice(&text).map_err(|source| BootError::Config { path, source })
    }

    /// The roots that broker and gateway are verified by, PEM.
    ///
    /// # Errors
    /// When the file is not there.
    pub fn roots(&self) -> Result<Vec<u8>, BootError> {
        read(&self.path.join(CA_FILE))
    }

    /// The token as it is on disk now.
    ///
    /// # Errors
    /// When the file is not there or not a token.
    pub fn token(&self) -> Result<Token, BootError> {
        let path = self.path.join(TOKEN_FILE);
        let text = read(&path)?;
        Token::parse(&String::from_utf8_lossy(&text))
            .map_err(|source| BootError::Token { path, source })
    }

    /// Replaces the token on disk in one step; a reader sees the old one or the
    /// new one. Mode 0600.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn store_token(&self, token: &Token) -> io::Result<()> {
        token::store(&self.path, TOKEN_FILE, token)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, BootError> {
    let failed = |source| BootError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(failed)?
        .take(LIMIT)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}
