//! A place to try mounts in: a mount namespace of one thread, which ends with
//! the thread and all that was mounted in it.

use nix::mount::MsFlags;
use nix::sched::CloneFlags;

/// Why there is no such place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused(pub(super) String);

/// Runs `work` in a thread with its own mount namespace, from which nothing
/// propagates, and with its own cgroup namespace if `cgroup`.
///
/// # Errors
/// When the kernel does not give one.
pub(super) fn mounts<T: Send>(cgroup: bool, work: impl FnOnce() -> T + Send) -> Result<T, Refused> {
    let trying = || {
        let mut flags = CloneFlags::CLONE_NEWNS;
        if cgroup {
            flags |= CloneFlags::CLONE_NEWCGROUP;
        }
        nix::sched::unshare(flags)
            .map_err(|errno| Refused(format!("unshare: {}", errno.desc())))?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        // Without it a mount could reach the host, so then nothing is tried.
        nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
            .map_err(|errno| Refused(format!("making mounts private: {}", errno.desc())))?;
        Ok(work())
    };
    std::thread::scope(|scope| {
        scope.spawn(trying).join().unwrap_or_else(|_| Err(Refused("the try failed".to_owned())))
    })
}
