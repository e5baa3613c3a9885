//! The place where programs look for Docker.

use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::Mode;
use tokio::net::UnixListener;

/// Listens there; every user of the sandbox may connect. What an image or an
/// earlier boot left is replaced.
///
/// # Errors
/// When it cannot be made there.
pub fn listen(place: &Path) -> io::Result<UnixListener> {
    clear(place)?;
    let listener = UnixListener::bind(place)?;
    // The sandbox's users are one tenant, and its root is nobody outside.
    rustix::fs::chmod(place, Mode::from_raw_mode(0o666))?;
    Ok(listener)
}

/// Makes a link there that leads to `target`, which may come later.
///
/// # Errors
/// When it cannot be made there.
pub fn link(place: &Path, target: &Path) -> io::Result<()> {
    clear(place)?;
    symlink(target, place)
}

/// Makes the folder, open to all users to pass, and removes what stands there.
fn clear(place: &Path) -> io::Result<()> {
    if let Some(folder) = place.parent()
        && !folder.exists()
    {
        std::fs::create_dir_all(folder)?;
        // The agent's umask would keep the sandbox's users out.
        for made in folder.ancestors().take_while(|made| made.parent().is_some()).take(2) {
            let _ = rustix::fs::chmod(made, Mode::from_raw_mode(0o755));
        }
    }
    match std::fs::remove_file(place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn it_replaces_what_is_there_and_lets_all_users_in() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("run/docker.sock");
        link(&place, Path::new("/nowhere/docker.sock")).unwrap();
        assert_eq!(std::fs::read_link(&place).unwrap(), Path::new("/nowhere/docker.sock"));
        for _ in 0..2 {
            let listener = listen(&place).unwrap();
            let mode = std::fs::symlink_metadata(&place).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o666);
            drop(listener);
        }
        let mode = std::fs::metadata(place.parent().unwrap()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
    }
}
