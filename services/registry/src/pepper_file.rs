//! The pepper on disk: 32 random bytes, 0600, made once.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use wolfpack_types::Fault;

use crate::ca::write_private;
use crate::domain::pepper::Pepper;

/// Reads the pepper, or makes one where there is none.
pub(crate) fn create_or_load(path: &Path) -> Result<Pepper, Fault> {
    let failed = |error: io::Error| {
        Fault::internal(format!("the pepper file {} cannot be used: {error}", path.display()))
    };
    if let Some(folder) = path.parent()
        && !folder.exists()
    {
        fs::create_dir_all(folder).map_err(failed)?;
        fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(failed)?;
    }
    match fs::read(path) {
        Ok(bytes) => {
            let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
            if mode & 0o077 != 0 {
                return Err(failed(io::Error::other("others may read it; chmod 600 it")));
            }
            let bytes = bytes.as_slice().try_into().map_err(|_| {
                failed(io::Error::other("it is not 32 bytes; restore it from a backup"))
            })?;
            Ok(Pepper::new(bytes))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let bytes: [u8; 32] = rand::random();
            write_private(path, &bytes).map_err(failed)?;
            Ok(Pepper::new(bytes))
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pepper_is_made_once_and_kept_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data").join("pepper");
        let hash = |pepper: Pepper| pepper.hash("", "", &[]);
        let first = hash(create_or_load(&path).unwrap());
        assert_eq!(hash(create_or_load(&path).unwrap()), first);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(create_or_load(&path).is_err());
        write_private(&path, b"short").unwrap();
        assert!(create_or_load(&path).is_err());
    }
}
