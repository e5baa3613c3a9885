//! What the desktop shows, by `grim`.

use std::time::Duration;

use super::{DesktopError, Screenshot, png};
use crate::init::Exit;
use crate::process::{Captured, Launch, Launcher, Limits, capture};

const LIMITS: Limits = Limits { deadline: Duration::from_secs(10), stdout: 32 << 20 };

/// Takes a picture; `launch` is a program of the desktop's user whose arguments
/// are filled in here. One output pixel is one pixel of the picture.
pub(super) async fn take(launcher: &Launcher, launch: Launch) -> Result<Screenshot, DesktopError> {
    let argv = ["grim", "-s", "1", "-t", "png", "-"].map(str::to_owned).to_vec();
    let Captured { exit, stdout, stderr } =
        capture(launcher, Launch { argv, ..launch }, &[], LIMITS).await?;
    if exit != Exit::Code(0) {
        let message =
            if stderr.is_empty() { format!("it ended with {}", exit.code()) } else { stderr };
        return Err(DesktopError::Program { program: "grim", message });
    }
    let (width, height) = png::size(&stdout).map_err(DesktopError::Picture)?;
    Ok(Screenshot { image: stdout, width, height })
}
