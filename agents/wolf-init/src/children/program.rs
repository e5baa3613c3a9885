//! Which agent is run: the image's, or a newer one that was brought.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// One that ends sooner does not work.
const STEADY: Duration = Duration::from_secs(10);
/// So often a brought one may end soon before the image's is taken again.
const CHANCES: u32 = 3;

/// Chooses, and remembers a brought one that does not work.
#[derive(Debug)]
pub(super) struct Programs {
    image: PathBuf,
    brought: PathBuf,
    soon: u32,
    /// When the one that does not work was written.
    distrusted: Option<SystemTime>,
}

impl Programs {
    pub(super) fn new(image: &Path, brought: PathBuf) -> Self {
        Self { image: image.to_owned(), brought, soon: 0, distrusted: None }
    }

    /// The brought one where it is newer than the image's, can be run, and is
    /// not known to fail.
    pub(super) fn choose(&self) -> PathBuf {
        let brought = written(&self.brought);
        let newer = brought.is_some() && brought > written(&self.image);
        if newer && brought != self.distrusted { self.brought.clone() } else { self.image.clone() }
    }

    /// One has ended by itself after this long.
    pub(super) fn ended(&mut self, program: &Path, ran: Duration) {
        if program != self.brought {
            return;
        }
        self.soon = if ran < STEADY { self.soon + 1 } else { 0 };
        if self.soon >= CHANCES {
            tracing::error!(program = %program.display(), "does not work, the image's is taken");
            self.distrusted = written(program);
            self.soon = 0;
        }
    }
}

/// When a program was written; `None` when there is none that can be run.
fn written(program: &Path) -> Option<SystemTime> {
    let metadata = std::fs::metadata(program).ok()?;
    let runs = metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
    runs.then(|| metadata.modified().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(path: &Path, mode: u32, age: u64) {
        let file = std::fs::File::create(path).unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
    }

    #[test]
    fn a_newer_one_is_taken_while_it_works() {
        let dir = tempfile::tempdir().unwrap();
        let (image, brought) = (dir.path().join("image"), dir.path().join("brought"));
        program(&image, 0o755, 100);
        let mut programs = Programs::new(&image, brought.clone());
        assert_eq!(programs.choose(), image, "none was brought");
        program(&brought, 0o644, 0);
        assert_eq!(programs.choose(), image, "it cannot be run");
        program(&brought, 0o755, 200);
        assert_eq!(programs.choose(), image, "it is older");
        program(&brought, 0o755, 50);
        assert_eq!(programs.choose(), brought);

        programs.ended(&brought, STEADY);
        programs.ended(&brought, Duration::ZERO);
        programs.ended(&image, Duration::ZERO);
        programs.ended(&brought, Duration::ZERO);
        assert_eq!(programs.choose(), brought, "it has one chance more");
        programs.ended(&brought, Duration::ZERO);
        assert_eq!(programs.choose(), image, "it does not work");
        program(&brought, 0o755, 10);
        assert_eq!(programs.choose(), brought, "another one was brought");
    }
}
