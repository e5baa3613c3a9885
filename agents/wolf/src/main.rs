//! `wolfpack-wolf-agent`: the agent of a wolf as a process of its own.

use std::process::ExitCode;

use wolfpack_runtime::process;
use wolfpack_wolf_agent::superseded::Watched;
use wolfpack_wolf_agent::{App, Config};

/// One stream at full speed allocates a block for every other read; glibc asks
/// the kernel for each of them.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    if let Some(code) = wolfpack_wolf_agent::inventory::command::main(std::env::args()) {
        return code;
    }
    let watched = Watched::default();
    let watch = watched.clone();
    let serve = |config, context| async move {
        let app = App::build(config, context).await?;
        watch.see(app.run().await)
    };
    watched.code(process::run::<Config, _, _>("wolf-agent", "WOLFPACK_WOLF", serve))
}
