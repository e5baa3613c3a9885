//! `wolfpack-wolf-agent`: the agent of a wolf as a process of its own.

use std::process::ExitCode;

use wolfpack_runtime::process;
use wolfpack_wolf_agent::{App, Config};

fn main() -> ExitCode {
    if let Some(code) = wolfpack_wolf_agent::inventory::command::main(std::env::args()) {
        return code;
    }
    process::run::<Config, _, _>("wolf-agent", "WOLFPACK_WOLF", |config, context| async move {
        App::build(config, context).await?.run().await
    })
}
