//! `wolfpack port-forward`.

mod carry;
mod listener;
mod told;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use wolfpack_runtime::{Supervisor, Telemetry};
use wolfpack_tunnel::Dialer;
use wolfpack_types::{Code, Endpoint, Target};

use super::resolve;
use crate::args::forward::PortForwardArgs;
use crate::connect::Api;
use crate::failure::Failure;
use crate::output;
use carry::Forward;
use listener::Listener;

/// Connections at a time, over all forwards. The gateway takes 256 calls on a
/// connection of ours; the rest wait to be accepted.
const CONNECTIONS: usize = 128;
/// How long the first look at a target may take.
const LOOK: Duration = Duration::from_secs(10);
/// How long connections may go on after Ctrl-C.
const GRACE: Duration = Duration::from_secs(5);
/// Those that are about to end are not worth a word.
const AT_ONCE: Duration = Duration::from_millis(100);

pub(super) async fn run(api: &Api, arguments: PortForwardArgs) -> Result<(), Failure> {
    let endpoint = resolve::endpoint(api, &arguments.endpoint).await?;
    let dialer = api.dialer();
    let mut listeners = Vec::new();
    for forward in &arguments.forward {
        listeners.push((Listener::open(&forward.local).await?, forward.target.clone()));
    }
    // Before anybody connects: what is not allowed never will be.
    for (_, target) in &listeners {
        look(&dialer, &endpoint, target)
            .await
            .map_err(|failure| failure.of_server(api.server()))?;
    }
    let mut ends = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .into_iter()
        .map(signal)
        .collect::<std::io::Result<Vec<_>>>()?;
    for (listener, target) in &listeners {
        say(listener, &endpoint, target, arguments.output.is_json())?;
    }
    let tasks = Supervisor::new(Telemetry::disabled("wolfpack"));
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let stop = CancellationToken::new();
    for (listener, target) in listeners {
        let forward =
            Forward::new(dialer.clone(), endpoint.clone(), target, api.server().to_owned());
        let accepting = carry::accept(listener, forward, room.clone(), stop.clone(), tasks.clone());
        tasks.spawn("port_forward", accepting);
    }
    signalled(&mut ends).await;
    // Nobody new; sockets of ours are removed with their listeners.
    stop.cancel();
    leave(&room, &mut ends).await;
    // What is still open is cut, with a reset.
    tasks.shutdown(Duration::ZERO).await;
    Ok(())
}

async fn signalled(ends: &mut [Signal]) {
    let ended = ends.iter_mut().map(|signal| Box::pin(signal.recv()));
    futures::future::select_all(ended).await;
}

/// Lets connections come to their end for a while, or until the next signal.
async fn leave(room: &Semaphore, ends: &mut [Signal]) {
    let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
    if tokio::time::timeout(AT_ONCE, room.acquire_many(all)).await.is_ok() {
        return;
    }
    told::warn(&format!(
        "{} connections are open and may end within {} s; once more cuts them\n",
        CONNECTIONS - room.available_permits(),
        GRACE.as_secs()
    ));
    tokio::select! {
        _ = room.acquire_many(all) => {}
        () = tokio::time::sleep(GRACE) => {}
        () = signalled(ends) => {}
    }
}

/// Dials once. What is refused for good ends the command; what may come yet is
/// told, and waited for.
async fn look(dialer: &Dialer, endpoint: &Endpoint, target: &Target) -> Result<(), Failure> {
    let Err(fault) = dialer.dial(endpoint, target, LOOK).await else { return Ok(()) };
    match fault.reason.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted
            if !fault.metadata.contains_key("peer") =>
        {
            eprintln!("{target} does not answer yet: {}: {}", fault.reason, fault.message);
            Ok(())
        }
        _ => Err(fault.into()),
    }
}

fn say(
    listener: &Listener,
    endpoint: &Endpoint,
    target: &Target,
    json: bool,
) -> Result<(), Failure> {
    if listener.is_open_to_others() {
        eprintln!(
            "warning: whoever reaches {} of this machine reaches {target} of {endpoint} with your key",
            listener.place()
        );
    }
    if json {
        let value = json!({
            "listen": listener.place(),
            "endpoint": endpoint.to_string(),
            "target": target.as_str(),
        });
        return output::line(&value.to_string());
    }
    output::line(&format!("{} -> {endpoint} {target}", listener.place()))
}
