//! PID 1 of the wolf image.

use std::process::ExitCode;

fn main() -> ExitCode {
    wolfpack_wolf_init::main()
}
