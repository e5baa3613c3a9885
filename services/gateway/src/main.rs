//! The users' public port: gRPC by path, reflection, health, screenshots for curl.

use std::process::ExitCode;

use wolfpack_gateway::{App, Config};

/// Every request through the ingress allocates its head; glibc's allocator is
/// slower at that.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    wolfpack_runtime::process::run::<Config, _, _>(
        "gateway",
        "WOLFPACK_GATEWAY",
        |config, context| async { App::build(config, context).await?.run().await },
    )
}
