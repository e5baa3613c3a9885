//! dockerd's output: kept in two files of a bounded size, the last lines in
//! memory for whoever has to say why it ended.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use super::LogOptions;

/// How many lines are kept in memory.
const LINES: usize = 40;
/// The longest line kept in memory, in bytes; the file has it whole.
const LINE: usize = 4 << 10;
/// How much is read at once.
const CHUNK: usize = 16 << 10;

/// The last lines of what an engine said. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct LastLines(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    whole: VecDeque<String>,
    begun: Vec<u8>,
}

impl LastLines {
    fn push(&self, bytes: &[u8]) {
        let mut lines = self.0.lock();
        for byte in bytes {
            if *byte == b'\n' {
                let line = String::from_utf8_lossy(&lines.begun).trim_end().to_owned();
                lines.begun.clear();
                if lines.whole.len() == LINES {
                    lines.whole.pop_front();
                }
                lines.whole.push_back(line);
            } else if lines.begun.len() < LINE {
                lines.begun.push(*byte);
            }
        }
    }

    /// The lines, oldest first; one without its end comes last.
    pub(super) fn get(&self) -> Vec<String> {
        let lines = self.0.lock();
        let begun = String::from_utf8_lossy(&lines.begun).into_owned();
        lines.whole.iter().cloned().chain((!begun.is_empty()).then_some(begun)).collect()
    }
}

/// A file that is set aside when it is full.
#[derive(Debug)]
pub(super) struct RotatingFile {
    path: PathBuf,
    max_bytes: u64,
    file: File,
    written: u64,
}

impl RotatingFile {
    /// Goes on with the file that is there.
    pub(super) async fn open(options: &LogOptions) -> io::Result<Self> {
        let file = append(&options.file).await?;
        let written = file.metadata().await?.len();
        Ok(Self { path: options.file.clone(), max_bytes: options.max_bytes, file, written })
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.written > 0 && self.written + bytes.len() as u64 > self.max_bytes {
            let mut aside = self.path.clone().into_os_string();
            aside.push(".1");
            tokio::fs::rename(&self.path, aside).await?;
            self.file = append(&self.path).await?;
            self.written = 0;
        }
        self.file.write_all(bytes).await?;
        self.file.flush().await?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

async fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path).await
}

/// Keeps what comes from `output` until it ends. A file that cannot be written
/// must not stop the engine: its pipe is emptied all the same.
pub(super) async fn keep(
    mut output: impl AsyncRead + Unpin,
    mut file: RotatingFile,
    last: LastLines,
) {
    let mut buffer = vec![0; CHUNK];
    let mut told = false;
    loop {
        let read = match output.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => &buffer[..read],
        };
        last.push(read);
        if let Err(error) = file.write(read).await
            && !told
        {
            told = true;
            tracing::warn!(%error, file = %file.path.display(), "the engine's log is not kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_log_never_grows_beyond_two_files() {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions { file: dir.path().join("log"), max_bytes: 1_000 };
        let last = LastLines::default();
        let text: String = (0..2_000).map(|n| format!("line {n} of many\n")).collect();
        for part in text.as_bytes().chunks(CHUNK) {
            // Small reads, so that it rotates often.
            for piece in part.chunks(100) {
                let file = RotatingFile::open(&options).await.unwrap();
                keep(piece, file, last.clone()).await;
            }
        }
        let sizes: Vec<u64> =
            dir.path().read_dir().unwrap().map(|e| e.unwrap().metadata().unwrap().len()).collect();
        assert_eq!(sizes.len(), 2, "{sizes:?}");
        assert!(sizes.iter().all(|size| *size <= 1_000), "{sizes:?}");
        let lines = last.get();
        assert_eq!(lines.len(), LINES);
        assert_eq!(lines.last().unwrap(), "line 1999 of many");
        let kept = std::fs::read_to_string(&options.file).unwrap();
        assert!(kept.ends_with("line 1999 of many\n"));
    }

    #[test]
    fn an_unended_and_an_endless_line_are_kept_bounded() {
        let last = LastLines::default();
        last.push(b"whole\nbegun");
        assert_eq!(last.get(), ["whole", "begun"]);
        last.push(&vec![b'x'; 3 * LINE]);
        assert!(last.get().iter().all(|line| line.len() <= LINE));
    }
}
