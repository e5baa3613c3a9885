//! The `wolfpack-sandbox-manager` binary.

use std::process::ExitCode;

use wolfpack_sandbox_manager::{App, Config};

fn main() -> ExitCode {
    wolfpack_runtime::process::run::<Config, _, _>(
        "sandbox-manager",
        "WOLFPACK_SANDBOX_MANAGER",
        |config, context| async move { App::build(config, context).await?.run().await },
    )
}
