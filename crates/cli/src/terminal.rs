//! The terminal of this side: raw mode, size, and its changes.

use std::io::IsTerminal as _;

use rustix::termios::{self, OptionalActions, Termios};
use wolfpack_proto::sandbox::v1::TerminalSize;

/// Raw mode of stdin while it lives; what was before comes back when it is
/// dropped, also by a panic.
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// `None` when stdin is no terminal.
    pub(crate) fn enter() -> std::io::Result<Option<Self>> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = termios::tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&stdin, OptionalActions::Drain, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// The size of the terminal; `None` when there is none.
pub(crate) fn size() -> Option<TerminalSize> {
    let found = termios::tcgetwinsize(std::io::stdout())
        .or_else(|_| termios::tcgetwinsize(std::io::stdin()))
        .ok()?;
    let (rows, columns) = (u32::from(found.ws_row), u32::from(found.ws_col));
    (rows > 0 && columns > 0).then_some(TerminalSize { rows, columns })
}
