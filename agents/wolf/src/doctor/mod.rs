//! Whether a wolf is well: small checks, each of one thing, over a [`Place`].
//! They change nothing for keeps. On the wolf itself ([`run_checks`]), and for
//! the sandbox-manager through the tunnel.

mod cgroup;
mod check;
mod clock;
mod dns;
mod encoder;
mod engine;
mod gpu;
mod init;
mod iptables;
mod kernel;
mod network;
mod place;
mod program;
mod service;
mod space;
mod storage;
mod vulnerabilities;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, Stream, StreamExt as _};

use check::Found;
use place::Look;

pub use check::{Check, Outcome};
pub use place::Place;
pub(crate) use service::{Doctor, ECHO_MESSAGE};

/// How long one check may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// How many are under way at a time.
const AT_A_TIME: usize = 4;

type Run = for<'a> fn(&'a Look) -> BoxFuture<'a, Found>;

/// Every check, in the order of its results. An id never changes its meaning.
const CHECKS: &[(&str, Run)] = &[
    ("init.status", |look| Box::pin(async { init::status(look) })),
    ("kernel.version", |look| Box::pin(async { kernel::version(look) })),
    ("kernel.user-namespaces", |look| Box::pin(async { kernel::user_namespaces(look) })),
    ("cgroup.version", |look| Box::pin(async { cgroup::version(look) })),
    ("cgroup.delegation", |look| Box::pin(async { cgroup::delegation(look) })),
    ("engine.version", |look| Box::pin(async { engine::version(look) })),
    ("engine.vulnerabilities", |look| Box::pin(async { engine::vulnerabilities(look) })),
    ("engine.user-remap", |look| Box::pin(async { engine::user_remap(look) })),
    ("storage.driver", |look| Box::pin(async { storage::driver(look) })),
    ("storage.overlay-depth", |look| Box::pin(async { storage::overlay_depth(look) })),
    ("storage.space", |look| Box::pin(async { space::bytes(look) })),
    ("storage.inodes", |look| Box::pin(async { space::inodes(look) })),
    ("network.iptables", |look| Box::pin(iptables::backends(look))),
    ("network.pools", |look| Box::pin(async { network::pools(look) })),
    ("network.mtu", |look| Box::pin(async { network::mtu(look) })),
    ("dns.wolf", |look| Box::pin(dns::wolf(look))),
    ("dns.bridge", |look| Box::pin(dns::bridge(look))),
    ("gpu.toolkit", |look| Box::pin(gpu::toolkit(look))),
    ("gpu.encoder", |look| Box::pin(encoder::tried(look))),
    ("clock.gateway", |look| Box::pin(clock::gateway(look))),
];

/// Runs every check and gives each result as it is there, always in the same
/// order. A check that takes longer than half a minute fails. Dropping the
/// stream ends what is under way.
pub async fn run_checks(place: Place) -> impl Stream<Item = Check> + Send + 'static {
    let look = Arc::new(Look::at(place).await);
    let checks = CHECKS.iter().map(move |(id, run)| {
        let look = look.clone();
        async move { within(DEADLINE, &look, *run).await.named(id) }
    });
    stream::iter(checks).buffered(AT_A_TIME)
}

async fn within(deadline: Duration, look: &Look, run: Run) -> Found {
    tokio::time::timeout(deadline, run(look)).await.unwrap_or_else(|_| {
        Found::fail(
            format!("it could not be told within {deadline:?}"),
            "look what keeps this machine busy, then run the doctor again",
        )
    })
}

#[cfg(test)]
mod tests;
