//! The agent's own log, apart from what the sandbox's programs write.
//!
//! The log lines of every part go to stderr as in all our processes. Here that
//! is turned into a pipe, and a thread copies the pipe to a file that never
//! grows beyond a bound. The thread has no runtime to wait for, so a line that
//! is logged in distress still gets out.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Bytes of one file; there are two, so the log takes at most twice that.
pub(super) const FILE_LIMIT: u64 = 1 << 20;

/// Name of the file in the directory of the boot; the one before it has `.1`
/// at its end.
pub(super) const FILE: &str = "agent.log";

/// Where this process's stderr goes.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    written: u64,
}

impl Log {
    /// Makes this process's stderr lead to the log in `folder` from here on.
    ///
    /// # Errors
    /// When the file cannot be written; stderr stays as it is then.
    pub fn take_stderr(folder: &Path) -> io::Result<()> {
        let mut log = Self::open(folder)?;
        let (mut lines, writer) = io::pipe()?;
        rustix::stdio::dup2_stderr(&writer)?;
        drop(writer);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            let mut chunk = vec![0_u8; 16 * 1024];
            // It ends with the process, whose stderr is the only writer.
            while let Ok(read @ 1..) = lines.read(&mut chunk) {
                // A full disk must not stop the agent.
                let _ = log.append(&chunk[..read]);
            }
        })?;
        Ok(())
    }

    fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(FILE);
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        let written = file.metadata()?.len();
        Ok(Self { path, file, written })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.written + bytes.len() as u64 > FILE_LIMIT {
            let mut before = self.path.clone().into_os_string();
            before.push(".1");
            std::fs::rename(&self.path, before)?;
            let folder = self.path.parent().unwrap_or_else(|| Path::new("/")).to_owned();
            *self = Self::open(&folder)?;
        }
        self.file.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_grows_beyond_two_files() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path()).unwrap();
        let line = [b'x'; 1000];
        for _ in 0..(5 * FILE_LIMIT / 1000) {
            log.append(&line).unwrap();
        }
        let sizes: Vec<u64> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().metadata().unwrap().len())
            .collect();
        assert_eq!(sizes.len(), 2);
        assert!(sizes.iter().all(|size| *size <= FILE_LIMIT && *size > 0), "{sizes:?}");
        // A restart goes on where the file ends.
        let again = Log::open(folder.path()).unwrap();
        assert_eq!(again.written, again.file.metadata().unwrap().len());
    }
}
