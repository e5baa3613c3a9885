//! The directory of a sandbox that becomes `/run/wolfpack` in it. Blocking:
//! call from a blocking thread.
//!
//! Its content is the sandbox's to change once it runs, so nothing here ever
//! follows a link in it or trusts what it reads back.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use wolfpack_types::SandboxId;
use wolfpack_types::sandbox_boot::{
    AGENT_BINARY, BIN_DIR, CA_FILE, CONFIG_FILE, SandboxBoot, TOKEN_FILE,
};

/// The folder of installed sandbox agents in the data directory.
const INSTALLED: &str = "bin";

/// What the directory is filled with at a boot.
#[derive(Debug, Clone, Copy)]
pub struct BootFiles<'a> {
    /// What the sandbox's agent is told.
    pub boot: &'a SandboxBoot,
    /// The token of this boot.
    pub token: &'a str,
    /// Roots to trust, PEM.
    pub trust_roots: &'a str,
    /// Uid and gid on the host of root in the sandbox, when they are not ours.
    pub owner: Option<(u32, u32)>,
}

/// The directory of a sandbox under `root`.
#[must_use]
pub fn path(root: &Path, sandbox: &SandboxId) -> PathBuf {
    root.join(sandbox.as_str())
}

/// The folder of the sandboxes' directories in the data directory.
#[must_use]
pub fn root(data_dir: &Path) -> PathBuf {
    data_dir.join("sandboxes")
}

/// Makes the folders that lead to the sandboxes' directories, ours and closed
/// to everybody else. Root in a sandbox is root on a host whose engine does not
/// remap users, and a set-id program that it leaves in its directory would make
/// every account of the host root.
///
/// An engine that remaps users enters as its `remapped` root: that group may
/// pass through, and not look.
///
/// # Errors
/// When a folder cannot be made, or given to us or the group.
pub fn close(data_dir: &Path, remapped: Option<(u32, u32)>) -> io::Result<()> {
    let us = rustix::process::geteuid().as_raw();
    for folder in [data_dir, &root(data_dir)] {
        make_dir(folder, 0o700)?;
        chown(folder, Some(us), remapped.map(|(_, gid)| gid))?;
        if remapped.is_some() {
            fs::set_permissions(folder, Permissions::from_mode(0o710))?;
        }
    }
    Ok(())
}

/// Makes a sandbox's directory afresh and fills it; what an older boot left
/// there is gone.
///
/// # Errors
/// When a file cannot be written or given to its owner.
pub fn write(root: &Path, files: &BootFiles<'_>) -> io::Result<PathBuf> {
    let path = path(root, &files.boot.sandbox);
    remove(root, &files.boot.sandbox)?;
    make_dir(&path, 0o755)?;
    make_dir(&path.join(BIN_DIR), 0o755)?;
    let config = serde_json::to_vec(files.boot).map_err(io::Error::other)?;
    for (name, mode, content) in [
        (TOKEN_FILE, 0o600, files.token.as_bytes()),
        (CA_FILE, 0o644, files.trust_roots.as_bytes()),
        // The environment may hold the user's secrets.
        (CONFIG_FILE, 0o600, &config),
    ] {
        let file = path.join(name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(mode).open(&file)?.write_all(content)?;
        if let Some((uid, gid)) = files.owner {
            chown(&file, Some(uid), Some(gid))?;
        }
    }
    if let Some((uid, gid)) = files.owner {
        chown(&path, Some(uid), Some(gid))?;
    }
    Ok(path)
}

/// Removes a sandbox's directory; one that is not there is removed. Links in
/// it are removed, never followed.
///
/// # Errors
/// When something in it cannot be removed.
pub fn remove(root: &Path, sandbox: &SandboxId) -> io::Result<()> {
    absent_is_ok(fs::remove_dir_all(path(root, sandbox)))
}

/// The sandboxes that have a directory.
///
/// # Errors
/// When `root` cannot be read; one that is not there has none.
pub fn list(root: &Path) -> io::Result<Vec<SandboxId>> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        found.extend(name.to_str().and_then(|name| SandboxId::parse(name).ok()));
    }
    Ok(found)
}

/// Copies the sandbox agent's binary to a directory of its own under
/// `data_dir`, named by its content, and returns that directory. Sandboxes mount the directory, so a
/// newer binary never changes under one that runs.
///
/// # Errors
/// When the binary cannot be read or the copy not be written.
pub fn install_agent(data_dir: &Path, binary: &Path) -> io::Result<PathBuf> {
    let content = fs::read(binary)?;
    let dir = data_dir.join(INSTALLED).join(&blake3::hash(&content).to_hex()[..32]);
    let file = dir.join(AGENT_BINARY);
    if fs::metadata(&file).is_ok_and(|found| found.len() == content.len() as u64) {
        return Ok(dir);
    }
    make_dir(&data_dir.join(INSTALLED), 0o755)?;
    make_dir(&dir, 0o755)?;
    let mut staged = tempfile::NamedTempFile::new_in(&dir)?;
    staged.write_all(&content)?;
    staged.as_file().set_permissions(Permissions::from_mode(0o755))?;
    staged.as_file().sync_all()?;
    staged.persist(&file).map_err(|error| error.error)?;
    Ok(dir)
}

/// Removes what [`install_agent`] installed beside `current`.
///
/// # Errors
/// When one cannot be removed; those after it stay too.
pub fn remove_other_agents(current: &Path) -> io::Result<()> {
    let Some(root) = current.parent().filter(|root| root.ends_with(INSTALLED)) else {
        return Ok(());
    };
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if path != current {
            absent_is_ok(fs::remove_dir_all(path))?;
        }
    }
    Ok(())
}

/// Makes a directory with exactly this mode; one that is there gets it. Those
/// above it that are not there are made for us alone.
///
/// # Errors
/// When it cannot be made.
pub fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode & 0o700).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn absent_is_ok(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    fn boot(sandbox: &str) -> SandboxBoot {
        serde_json::from_value(serde_json::json!({
            "sandbox": sandbox, "project": "p", "execution": "e", "argv": ["true"], "user": "",
            "env": {"SECRET": "x"}, "cwd": "/", "desktop": false, "broker": "https://b:1",
            "gateway": "https://g:1", "socket_uid": 0
        }))
        .unwrap()
    }

    fn fill(root: &Path, token: &str) -> PathBuf {
        let boot = boot("s1");
        write(root, &BootFiles { boot: &boot, token, trust_roots: "roots", owner: None }).unwrap()
    }

    #[test]
    fn secrets_are_readable_by_their_owner_only() {
        let root = tempfile::tempdir().unwrap();
        let path = fill(root.path(), "t1");
        let mode = |name: &str| fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(TOKEN_FILE), 0o600);
        assert_eq!(mode(CONFIG_FILE), 0o600);
        assert_eq!(mode(CA_FILE), 0o644);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn nobody_else_passes_to_what_sandboxes_leave() {
        let above = tempfile::tempdir().unwrap();
        let data_dir = above.path().join("a/data");
        let state = |path: &Path| {
            let found = fs::metadata(path).unwrap();
            (found.permissions().mode() & 0o7777, found.uid(), found.gid())
        };
        let (uid, gid) = (fs::metadata(above.path()).unwrap().uid(), 100_000);
        close(&data_dir, None).unwrap();
        let paths = [data_dir.clone(), root(&data_dir)];
        assert_eq!(state(&above.path().join("a")).0, 0o700);
        for path in &paths {
            assert_eq!((state(path).0, state(path).1), (0o700, uid));
            // As an older agent left it.
            fs::set_permissions(path, Permissions::from_mode(0o711)).unwrap();
        }
        if uid == 0 {
            close(&data_dir, Some((gid, gid))).unwrap();
            for path in &paths {
                assert_eq!(state(path), (0o710, 0, gid));
                chown(path, Some(1_000), None).unwrap();
            }
        }
        // The engine no longer remaps, and another account owned them meanwhile.
        close(&data_dir, None).unwrap();
        for path in &paths {
            assert_eq!((state(path).0, state(path).1), (0o700, uid));
        }
    }

    #[test]
    fn a_boot_starts_afresh_and_links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let kept = outside.path().join("kept");
        fs::write(&kept, "kept").unwrap();
        let path = fill(root.path(), "t1");
        fs::remove_file(path.join(TOKEN_FILE)).unwrap();
        symlink(&kept, path.join(TOKEN_FILE)).unwrap();
        symlink(outside.path(), path.join("dir")).unwrap();
        fill(root.path(), "t2");
        assert_eq!(fs::read_to_string(path.join(TOKEN_FILE)).unwrap(), "t2");
        assert!(fs::symlink_metadata(path.join("dir")).is_err());
        remove(root.path(), &SandboxId::parse("s1").unwrap()).unwrap();
        remove(root.path(), &SandboxId::parse("s1").unwrap()).unwrap();
        assert_eq!(fs::read_to_string(&kept).unwrap(), "kept");
        assert!(list(root.path()).unwrap().is_empty());
    }

    #[test]
    fn a_new_binary_gets_a_directory_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        let binary = root.path().join("agent");
        fs::write(&binary, "one").unwrap();
        let first = install_agent(root.path(), &binary).unwrap();
        assert_eq!(install_agent(root.path(), &binary).unwrap(), first);
        fs::write(&binary, "two").unwrap();
        let second = install_agent(root.path(), &binary).unwrap();
        assert_ne!(first, second);
        assert_eq!(fs::read_to_string(first.join(AGENT_BINARY)).unwrap(), "one");
        let mode = fs::metadata(second.join(AGENT_BINARY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        remove_other_agents(&second).unwrap();
        assert!(!first.exists() && second.join(AGENT_BINARY).exists());
        remove_other_agents(Path::new("/elsewhere/x")).unwrap();
    }
}
