//! The desktop of a sandbox: kept running, looked at, and its clipboard.

mod clipboard;
mod ipc;
mod png;
mod screenshot;
mod sway;

use async_trait::async_trait;
use tokio::sync::watch;
use wolfpack_types::{Fault, Reason};

use crate::process::capture::CaptureError;
use crate::process::environment::Environment;

pub use sway::Sway;

/// The most text a clipboard is read for or given, in bytes.
pub const CLIPBOARD_LIMIT: usize = 1 << 20;

/// How the desktop does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not up yet, or up no more; in words.
    Down(String),
    /// It answers.
    Up,
}

/// A picture of the desktop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screenshot {
    /// PNG.
    pub image: Vec<u8>,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
}

/// Why the desktop did not do it.
#[derive(Debug, thiserror::Error)]
pub enum DesktopError {
    /// It is not up.
    #[error("the desktop is not up: {0}; try again in a moment")]
    Down(String),
    /// One of its programs did not do its work.
    #[error("the desktop's {program} failed: {message}")]
    Program {
        /// Which one.
        program: &'static str,
        /// What it said.
        message: String,
    },
    /// A program of the desktop did not run to its end.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// What came back is no picture.
    #[error("the desktop's screenshot is damaged: {0}")]
    Picture(&'static str),
    /// The text is longer than [`CLIPBOARD_LIMIT`].
    #[error("the clipboard holds more than 1 MiB of text; read it by a program in the sandbox")]
    TooLong,
}

impl From<DesktopError> for Fault {
    fn from(error: DesktopError) -> Self {
        Self::new(Reason::DesktopFailed, error.to_string())
    }
}

/// A kind of desktop. Every call has a deadline of its own, a few seconds, and
/// waits for a desktop that is starting.
#[async_trait]
pub trait DesktopBackend: Send + Sync {
    /// Runs the desktop; restarts it with back-off when it ends. Never returns;
    /// what it started ends with the future.
    async fn run(&self);

    /// How it does, now and from now on.
    fn state(&self) -> watch::Receiver<State>;

    /// What programs must have in their environment to appear on it.
    fn environment(&self) -> Environment;

    /// What it shows, in its own pixels.
    ///
    /// # Errors
    /// When it is not up or does not answer.
    async fn screenshot(&self) -> Result<Screenshot, DesktopError>;

    /// The text on its clipboard; empty when there is none.
    ///
    /// # Errors
    /// When it is not up, does not answer or the text is too long.
    async fn clipboard(&self) -> Result<String, DesktopError>;

    /// Puts text on its clipboard; empty text clears it.
    ///
    /// # Errors
    /// When it is not up or does not answer.
    async fn set_clipboard(&self, text: &str) -> Result<(), DesktopError>;
}
