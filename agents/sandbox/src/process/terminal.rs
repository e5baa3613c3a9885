//! The agent's end of a terminal.

use std::io;
use std::os::fd::OwnedFd;

use rustix::pty::OpenptFlags;
use rustix::termios::{InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Winsize};
use tokio::io::unix::AsyncFd;

/// Size of a terminal in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

impl Default for Size {
    /// What programs assume when nobody says.
    fn default() -> Self {
        Self { rows: 24, columns: 80 }
    }
}

/// The master side of a pseudoterminal.
#[derive(Debug)]
pub struct Terminal {
    master: AsyncFd<OwnedFd>,
}

impl Terminal {
    /// Opens a pair; the second is the program's side. It needs `/dev/pts`,
    /// which every engine mounts.
    ///
    /// # Errors
    /// When the sandbox has no pseudoterminals left.
    pub fn open(size: Size) -> io::Result<(Self, OwnedFd)> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags)?;
        rustix::pty::unlockpt(&master)?;
        let program = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
        let mut modes = rustix::termios::tcgetattr(&program)?;
        // Backspace in a line deletes a character, not a byte of it.
        modes.input_modes |= InputModes::IUTF8;
        rustix::termios::tcsetattr(&program, OptionalActions::Now, &modes)?;
        rustix::io::ioctl_fionbio(&master, true)?;
        let terminal = Self { master: register(master)? };
        terminal.resize(size)?;
        Ok((terminal, program))
    }

    /// Changes its size; the program hears of it by SIGWINCH.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn resize(&self, size: Size) -> io::Result<()> {
        let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(&self.master, size)?)
    }

    /// Reads what the program wrote; zero when its side is closed everywhere.
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.master.readable().await?;
            let read = ready.try_io(|master| Ok(rustix::io::read(master, &mut *buffer)?));
            match read {
                // That is how Linux says that no program holds the other side.
                Ok(Err(error))
                    if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) =>
                {
                    return Ok(0);
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }

    /// Types bytes in; waits while the program does not read.
    ///
    /// # Errors
    /// When the program's side is closed.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.master.writable().await?;
            match ready.try_io(|master| Ok(rustix::io::write(master, bytes)?)) {
                Ok(Ok(written)) => bytes = &bytes[written..],
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
        Ok(())
    }

    /// The bytes that end the program's input, as a person would type them: the
    /// end-of-file character, twice when the line has begun (the first then only
    /// hands over the line). Empty while the program reads keys itself: nothing
    /// a terminal can say means "the end" to it.
    #[must_use]
    pub fn end_of_input(&self, line_has_begun: bool) -> Vec<u8> {
        let Ok(modes) = rustix::termios::tcgetattr(&self.master) else { return Vec::new() };
        if !modes.local_modes.contains(LocalModes::ICANON) {
            return Vec::new();
        }
        let end = modes.special_codes[SpecialCodeIndex::VEOF];
        if line_has_begun { vec![end, end] } else { vec![end] }
    }
}

/// An `OwnedFd` keeps its descriptor open and the same for as long as it lives,
/// which is what the new, unsafe constructor asks its caller to promise.
#[expect(
    deprecated,
    reason = "the replacement is unsafe, and what it asks for holds for an OwnedFd"
)]
fn register(master: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(master)
}
