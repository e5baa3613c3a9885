//! `wolfpack port-forward`.

mod carry;
mod listener;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use wolfpack_runtime::{Supervisor, Telemetry};
use wolfpack_tunnel::Dialer;
use wolfpack_types::{Code, Endpoint, Fault, Target};

use super::resolve;
use crate::args::forward::{EndpointArg, PortForwardArgs};
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

pub(super) async fn run(api: &Api, arguments: PortForwardArgs) -> Result<(), Failure> {
    let endpoint = endpoint(api, &arguments.endpoint).await?;
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
    for (listener, target) in listeners {
        let forward =
            Forward::new(dialer.clone(), endpoint.clone(), target, api.server().to_owned());
        tasks.spawn("port_forward", carry::accept(listener, forward, room.clone(), tasks.clone()));
    }
    let ended = ends.iter_mut().map(|signal| Box::pin(signal.recv()));
    futures::future::select_all(ended).await;
    // Connections that are open are cut: that is what was asked for. Sockets of
    // ours are removed with their listeners.
    tasks.shutdown(Duration::ZERO).await;
    Ok(())
}

async fn endpoint(api: &Api, given: &EndpointArg) -> Result<Endpoint, Failure> {
    let name = match given {
        EndpointArg::Wolf(id) => resolve::wolf(api, id).await?.name,
        EndpointArg::Sandbox(id) => resolve::sandbox(api, id).await?,
    };
    Ok(Endpoint::parse(&name).map_err(Fault::from)?)
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
