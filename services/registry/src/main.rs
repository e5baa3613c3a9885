//! `wolfpack-registry`: the registry as a process, and `issue`, which makes the
//! certificates of the other services.

use std::process::ExitCode;

use wolfpack_registry::{App, Config, issue};

fn main() -> ExitCode {
    if let Some(code) = issue::run(std::env::args_os()) {
        return code;
    }
    wolfpack_runtime::process::run::<Config, _, _>(
        "registry",
        "WOLFPACK_REGISTRY",
        |config, context| async move { App::build(config, context).await?.run().await },
    )
}
