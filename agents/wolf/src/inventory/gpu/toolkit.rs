//! Which version of NVIDIA's container toolkit brings GPUs into containers.
//! Old ones let a container's environment run code on the host, so they are
//! refused; so is one whose version nobody tells.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// The newest version with a known way out: CVE-2024-0132 (up to 1.16.1) and
/// CVE-2025-23266 (up to 1.17.7).
const REFUSED_UP_TO: (u32, u32, u32) = (1, 17, 7);
/// How long a program may take to say its version.
const DEADLINE: Duration = Duration::from_secs(5);

/// Programs of the toolkit that say its version, in the order they are asked.
#[must_use]
pub fn default_programs() -> Vec<PathBuf> {
    ["nvidia-ctk", "nvidia-container-runtime", "nvidia-container-cli"].map(PathBuf::from).to_vec()
}

/// What is known of the toolkit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Toolkit {
    /// It may be used.
    Usable(String),
    /// It must not, and why.
    Refused(String),
}

/// Asks the first program that is there.
pub async fn look(programs: &[PathBuf]) -> Toolkit {
    for program in programs {
        let Some(told) = run(program, &["--version"]).await else { continue };
        return match version(&told) {
            Some(version) => judge(version),
            None => Toolkit::Refused(format!(
                "{} does not say its version, so it is not known to be safe",
                program.display()
            )),
        };
    }
    Toolkit::Refused(
        "NVIDIA's container toolkit was not found beside the agent; install 1.17.8 or later, or \
         set gpu.toolkit_programs"
            .to_owned(),
    )
}

fn judge(version: (u32, u32, u32)) -> Toolkit {
    let (major, minor, patch) = version;
    let words = format!("{major}.{minor}.{patch}");
    if version <= REFUSED_UP_TO {
        Toolkit::Refused(format!(
            "NVIDIA's container toolkit {words} lets containers out (CVE-2024-0132, \
             CVE-2025-23266); install 1.17.8 or later"
        ))
    } else {
        Toolkit::Usable(words)
    }
}

/// The first `x.y.z` in a text.
fn version(text: &str) -> Option<(u32, u32, u32)> {
    text.split(|c: char| !c.is_ascii_digit() && c != '.').find_map(|word| {
        let mut parts = word.split('.').map(str::parse);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => {
                Some((major, minor, patch))
            }
            _ => None,
        }
    })
}

/// What a program prints, when it is there and ends well and in time.
pub(super) async fn run(program: &Path, arguments: &[&str]) -> Option<String> {
    let running = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE, running).await.ok()?.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_refused_by_name() {
        for (told, usable) in [
            (
                "NVIDIA Container Toolkit CLI version 1.17.8\ncommit: f202b80a9b9d0db00d9b1d73c0128c8962c55f4d",
                true,
            ),
            ("NVIDIA Container Toolkit CLI version 1.18.0\n", true),
            ("NVIDIA Container Toolkit CLI version 2.0.0-rc.1\n", true),
            ("NVIDIA Container Toolkit CLI version 1.17.7\n", false),
            ("cli-version: 1.14.3\nlib-version: 1.14.3\n", false),
            ("NVIDIA Container Runtime version 1.16.1\ncommit: x\nspec: 1.2.0\n", false),
        ] {
            let found = judge(version(told).unwrap());
            assert_eq!(matches!(found, Toolkit::Usable(_)), usable, "{told}");
        }
        assert_eq!(version("no version"), None);
    }

    #[tokio::test]
    async fn the_first_program_that_is_there_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let program = |name: &str, body: &str| {
            use std::os::unix::fs::PermissionsExt as _;
            let path = dir.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        let absent = dir.path().join("absent");
        let old = program("old", "echo version 1.17.7");
        let new = program("new", "echo version 1.17.8");
        let mute = program("mute", "echo hello");
        let broken = program("broken", "exit 1");
        let asked = async |programs: &[&PathBuf]| {
            let programs: Vec<PathBuf> = programs.iter().map(|path| (*path).clone()).collect();
            look(&programs).await
        };
        assert_eq!(asked(&[&absent, &new, &old]).await, Toolkit::Usable("1.17.8".into()));
        let refused = |found: Toolkit, word: &str| match found {
            Toolkit::Refused(why) => assert!(why.contains(word), "{why}"),
            Toolkit::Usable(_) => panic!("{word}"),
        };
        refused(asked(&[&old, &new]).await, "CVE-2025-23266");
        refused(asked(&[&mute, &new]).await, "does not say");
        refused(asked(&[&absent, &broken]).await, "was not found");
        refused(asked(&[]).await, "was not found");
    }
}
