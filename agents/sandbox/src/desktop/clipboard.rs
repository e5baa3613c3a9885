//! The clipboard, by `wl-paste` and `wl-copy`.

use std::time::Duration;

use super::{CLIPBOARD_LIMIT, DesktopError};
use crate::init::Exit;
use crate::process::capture::CaptureError;
use crate::process::{Captured, Launch, Launcher, Limits, capture};

const DEADLINE: Duration = Duration::from_secs(5);

/// What `wl-paste` says when there is no text: nothing at all (by version), or
/// only something else, such as a picture.
const NO_TEXT: [&str; 3] =
    ["No selection", "Nothing is copied", "No suitable type of content copied"];

/// Reads it; `launch` is a program of the desktop's user whose arguments are
/// filled in here.
pub(super) async fn get(launcher: &Launcher, launch: Launch) -> Result<String, DesktopError> {
    let argv = ["wl-paste", "--no-newline", "--type", "text"].map(str::to_owned).to_vec();
    let limits = Limits { deadline: DEADLINE, stdout: CLIPBOARD_LIMIT };
    let captured = match capture(launcher, Launch { argv, ..launch }, &[], limits).await {
        Err(CaptureError::TooLong { .. }) => return Err(DesktopError::TooLong),
        captured => captured?,
    };
    match captured {
        Captured { exit: Exit::Code(0), stdout, .. } => {
            Ok(String::from_utf8_lossy(&stdout).into_owned())
        }
        Captured { stderr, .. } if NO_TEXT.iter().any(|said| stderr.starts_with(said)) => {
            Ok(String::new())
        }
        captured => Err(failed("wl-paste", captured)),
    }
}

/// Fills it. `wl-copy` leaves a child behind that hands the text out until
/// somebody else copies; the main program ends once that one is in place.
pub(super) async fn set(
    launcher: &Launcher,
    launch: Launch,
    text: &str,
) -> Result<(), DesktopError> {
    let argv: &[&str] = if text.is_empty() {
        &["wl-copy", "--clear"]
    } else {
        &["wl-copy", "--type", "text/plain"]
    };
    let argv = argv.iter().map(ToString::to_string).collect();
    let limits = Limits { deadline: DEADLINE, stdout: 4096 };
    match capture(launcher, Launch { argv, ..launch }, text.as_bytes(), limits).await? {
        Captured { exit: Exit::Code(0), .. } => Ok(()),
        captured => Err(failed("wl-copy", captured)),
    }
}

fn failed(program: &'static str, captured: Captured) -> DesktopError {
    let Captured { exit, stderr, .. } = captured;
    let message = if stderr.is_empty() { format!("it ended with {}", exit.code()) } else { stderr };
    DesktopError::Program { program, message }
}
