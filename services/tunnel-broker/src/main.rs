//! The broker as its own process.

use wolfpack_tunnel_broker::{App, Config};

/// One stream at full speed allocates a block for every other read; glibc asks
/// the kernel for each of them.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    wolfpack_tunnel_broker::files::raise_limit();
    wolfpack_runtime::process::run::<Config, _, _>(
        "tunnel-broker",
        "WOLFPACK_TUNNEL_BROKER",
        |config, context| async { App::build(config, context).await?.run().await },
    )
}
