//! Where the data plane runs: on threads with a runtime each that does not
//! move tasks about. A connection's frames then pass from socket to socket on
//! one core, which a work-stealing runtime did not match in any measurement.

use std::thread;

use futures::future::{join_all, try_join_all};
use tokio::sync::oneshot;
use wolfpack_rpc::Server;
use wolfpack_runtime::BoxError;

/// Runs a set of servers on each thread, until all have ended; `shares` has one
/// set for each. With none set aside (`threads` false) they run right here.
///
/// # Errors
/// When a thread cannot be made, or the first error of a server.
pub(crate) async fn run(shares: Vec<Vec<Server>>, threads: bool) -> Result<(), BoxError> {
    if !threads {
        let all = shares.into_iter().flatten().map(Server::serve);
        return try_join_all(all).await.map(drop);
    }
    let mut running = Vec::with_capacity(shares.len());
    for (at, servers) in shares.into_iter().enumerate() {
        let (ended, end) = oneshot::channel();
        thread::Builder::new().name(format!("tunnel-data-{at}")).spawn(move || {
            let _ = ended.send(serve(servers));
        })?;
        running.push(end);
    }
    for end in join_all(running).await {
        end.map_err(|_| "a thread of the data plane panicked")??;
    }
    Ok(())
}

fn serve(servers: Vec<Server>) -> Result<(), BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(try_join_all(servers.into_iter().map(Server::serve))).map(drop)
}
