//! Where sources are bound for the engine: `mounts/{sandbox}/{n}` in the data
//! directory, a folder that only we write. Blocking: call from a blocking
//! thread.
//!
//! A bind mount is of one file system: what is mounted below a source is not
//! in it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use tokio::net::UnixStream;
use wolfpack_types::SandboxId;

use super::held::Held;
use crate::sandbox::directory::make_dir;

/// The folder of the staged mounts in the data directory.
const FOLDER: &str = "mounts";
/// How long reaching the engine may take.
const CONNECT: Duration = Duration::from_secs(5);

/// The staged mounts of all sandboxes.
#[derive(Debug, Clone)]
pub struct Stage {
    root: PathBuf,
}

impl Stage {
    /// Those in this data directory.
    #[must_use]
    pub fn in_dir(data_dir: &Path) -> Self {
        Self { root: data_dir.join(FOLDER) }
    }

    /// The folder that they are below.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Binds what is held and returns the path for the engine.
    ///
    /// # Errors
    /// When a folder cannot be made or the mount fails.
    pub fn bind(
        &self,
        sandbox: &SandboxId,
        at: usize,
        held: &Held,
        remapped: Option<(u32, u32)>,
    ) -> io::Result<PathBuf> {
        let folder = self.root.join(sandbox.as_str());
        // Passed through by a remapped root, looked into by nobody.
        for path in [&self.root, &folder] {
            make_dir(path, if remapped.is_some() { 0o710 } else { 0o700 })?;
            chown(path, None, remapped.map(|(_, gid)| gid))?;
        }
        let target = folder.join(at.to_string());
        if held.is_folder() {
            make_dir(&target, 0o700)?;
        } else {
            File::create_new(&target)?;
        }
        mount_bind(held.own_path(), &target)?;
        // Taking it away must take nothing away elsewhere.
        mount_change(&target, MountPropagationFlags::PRIVATE)?;
        Ok(target)
    }

    /// Takes a sandbox's mounts away, never what is in them; one that has none
    /// is clear.
    ///
    /// # Errors
    /// When one stays.
    pub fn clear(&self, sandbox: &SandboxId) -> io::Result<()> {
        let folder = self.root.join(sandbox.as_str());
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            // Mounted over more than once when an agent ended in between.
            loop {
                match unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                    Ok(()) => {}
                    Err(Errno::INVAL) => break,
                    // Without the right to unmount nothing was mounted.
                    Err(Errno::PERM) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            // Fails on what is still mounted; never removes what is inside.
            if fs::symlink_metadata(&path)?.is_dir() {
                fs::remove_dir(&path)?;
            } else {
                fs::remove_file(&path)?;
            }
        }
        fs::remove_dir(&folder)
    }

    /// The sandboxes that have some.
    ///
    /// # Errors
    /// When the folder cannot be read; one that is not there has none.
    pub fn list(&self) -> io::Result<Vec<SandboxId>> {
        crate::sandbox::directory::list(&self.root)
    }
}

/// Whether folders can be staged for the engine behind this socket: we may
/// mount, and it sees our mounts.
pub async fn stages(socket: &Path) -> bool {
    may_mount() && shares_mounts(socket).await
}

/// Whether `CAP_SYS_ADMIN` is in effect, which binding asks for.
fn may_mount() -> bool {
    const SYS_ADMIN: u32 = 21;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .is_some_and(|set| set >> SYS_ADMIN & 1 == 1)
}

/// Whether the engine behind this socket sees our mounts: it is a process that
/// we see, in our mount namespace. An engine that does not answer now is one
/// that does not.
pub async fn shares_mounts(socket: &Path) -> bool {
    let connecting = tokio::time::timeout(CONNECT, UnixStream::connect(socket)).await;
    let Ok(Ok(stream)) = connecting else { return false };
    let Some(engine) = stream.peer_cred().ok().and_then(|peer| peer.pid()) else { return false };
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let ours = namespace("self");
    ours.is_some() && namespace(&engine.to_string()) == ours
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::mounts::MountRequest;

    /// Needs the right to mount; a test that lacks it says so.
    #[test]
    fn what_is_held_is_bound_and_taken_away_without_a_trace() {
        let data = tempfile::tempdir().unwrap();
        let source = tempfile::tempdir().unwrap();
        fs::write(source.path().join("file"), "before").unwrap();
        let find = |rest: &str| {
            let request = MountRequest {
                source: source.path().join(rest),
                target: "/w".into(),
                read_only: false,
            };
            Held::find(request, &[source.path().to_owned()]).unwrap()
        };
        let stage = Stage::in_dir(data.path());
        let sandbox = SandboxId::parse("s1").unwrap();
        let folder = find("");
        if !may_mount() {
            eprintln!("NOT RUN: it takes the right to mount");
            assert!(stage.bind(&sandbox, 0, &folder, None).is_err());
            stage.clear(&sandbox).unwrap();
            assert!(stage.list().unwrap().is_empty());
            return;
        }
        let bound = stage.bind(&sandbox, 0, &folder, None).unwrap();
        let file = stage.bind(&sandbox, 1, &find("file"), None).unwrap();
        // Hot reload: what changes outside is seen.
        fs::write(source.path().join("file"), "after").unwrap();
        assert_eq!(fs::read_to_string(bound.join("file")).unwrap(), "after");
        assert_eq!(fs::read_to_string(&file).unwrap(), "after");
        assert_eq!(stage.list().unwrap(), std::slice::from_ref(&sandbox));
        // An agent that ended in between binds again.
        stage.clear(&sandbox).unwrap();
        stage.bind(&sandbox, 0, &folder, None).unwrap();
        rustix::mount::mount_bind(source.path(), &bound).unwrap();
        stage.clear(&sandbox).unwrap();
        stage.clear(&sandbox).unwrap();
        assert!(stage.list().unwrap().is_empty());
        assert_eq!(fs::read_to_string(source.path().join("file")).unwrap(), "after");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&*data.path().to_string_lossy()), "{mounts}");
    }

    /// A sandbox that may write there puts a link in the folder's place and
    /// takes it away, as fast as it can.
    #[test]
    fn a_link_that_comes_and_goes_is_never_bound() {
        if !may_mount() {
            eprintln!("NOT RUN: it takes the right to mount");
            return;
        }
        let (data, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("theirs"), "").unwrap();
        let (here, aside) = (source.path().join("a/b"), source.path().join("a/c"));
        fs::create_dir_all(&here).unwrap();
        fs::write(here.join("mine"), "").unwrap();
        let stage = Stage::in_dir(data.path());
        let sandbox = SandboxId::parse("s1").unwrap();
        let over = AtomicBool::new(false);
        let (mut bound, mut refused) = (0, 0);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    fs::rename(&here, &aside).unwrap();
                    std::os::unix::fs::symlink(outside.path(), &here).unwrap();
                    fs::remove_file(&here).unwrap();
                    fs::rename(&aside, &here).unwrap();
                }
            });
            let begun = std::time::Instant::now();
            while (bound < 50 || refused < 50) && begun.elapsed() < Duration::from_secs(30) {
                let (source, allow) = (here.clone(), [source.path().to_owned()]);
                let request = MountRequest { source, target: "/w".into(), read_only: false };
                let Ok(held) = Held::find(request, &allow) else {
                    refused += 1;
                    continue;
                };
                bound += 1;
                let at = stage.bind(&sandbox, 0, &held, None).unwrap();
                let names: Vec<_> =
                    fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().file_name()).collect();
                stage.clear(&sandbox).unwrap();
                if names != ["mine"] {
                    over.store(true, Ordering::Relaxed);
                }
                assert_eq!(names, ["mine"]);
            }
            over.store(true, Ordering::Relaxed);
        });
        assert!(bound >= 50 && refused >= 50, "{bound} bound, {refused} refused");
    }

    #[tokio::test]
    async fn an_engine_in_this_process_shares_its_mounts() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        assert!(!shares_mounts(&socket).await, "nobody is there");
        let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
        assert!(shares_mounts(&socket).await);
    }
}
