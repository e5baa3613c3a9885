//! Placement: which wolf, which GPUs, and the reservation that holds them.

use std::process::ExitCode;

use wolfpack_scheduler::{App, Config};

fn main() -> ExitCode {
    wolfpack_runtime::process::run::<Config, _, _>(
        "scheduler",
        "WOLFPACK_SCHEDULER",
        |config, context| async { App::build(config, context).await?.run().await },
    )
}
