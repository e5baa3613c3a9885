//! `wolfpack port-forward`.

mod carry;
mod gone;
mod listener;
mod room;
mod told;

use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use wolfpack_runtime::{Supervisor, Telemetry};
use wolfpack_types::{Code, Endpoint, Reason, Target};

use super::resolve;
use super::standing::{self, Standing};
use crate::args::forward::PortForwardArgs;
use crate::connect::Api;
use crate::failure::Failure;
use crate::output;
use carry::Forward;
use listener::Listener;
use room::Room;

/// How long the first look at a target may take.
const LOOK: Duration = Duration::from_secs(10);
/// How long connections may go on after Ctrl-C.
const GRACE: Duration = Duration::from_secs(5);
/// Those that are about to end are not worth a word.
const AT_ONCE: Duration = Duration::from_millis(100);

pub(super) async fn run(api: &Api, arguments: PortForwardArgs) -> Result<(), Failure> {
    let endpoint = resolve::endpoint(api, &arguments.endpoint).await?;
    let most = usize::from(arguments.connections);
    // The first one shares the connection of all other calls.
    let mut dialers = vec![api.dialer()];
    while dialers.len() < room::dialers_for(most) {
        dialers.push(api.dialer_apart()?);
    }
    let mut listeners = Vec::new();
    for forward in &arguments.forward {
        listeners.push((Listener::open(&forward.local).await?, forward.target.clone()));
    }
    if !arguments.no_check {
        // Before anybody connects: what is not allowed never will be.
        for (_, target) in &listeners {
            look(api, &endpoint, target)
                .await
                .map_err(|failure| failure.of_server(api.server()))?;
        }
    }
    let mut ends = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .into_iter()
        .map(signal)
        .collect::<std::io::Result<Vec<_>>>()?;
    for (listener, target) in &listeners {
        say(listener, &endpoint, target, arguments.output.is_json())?;
    }
    let tasks = Supervisor::new(Telemetry::disabled("wolfpack"));
    let room = Room::new(most, listeners.len(), dialers);
    let stop = CancellationToken::new();
    let (doubt, doubts) = gone::doubts();
    for (listener, target) in listeners {
        let forward =
            Forward::new(endpoint.clone(), target, api.server().to_owned(), doubt.clone());
        let accepting = carry::accept(listener, forward, room.port(), stop.clone(), tasks.clone());
        tasks.spawn("port_forward", accepting);
    }
    let outcome = tokio::select! {
        () = signalled(&mut ends) => Ok(()),
        failure = doubts.gone(api, &endpoint) => Err(failure),
    };
    // Nobody new; sockets of ours are removed with their listeners.
    stop.cancel();
    if outcome.is_ok() {
        leave(&room, &mut ends).await;
    }
    // What is still open is cut, with a reset.
    tasks.shutdown(Duration::ZERO).await;
    outcome
}

async fn signalled(ends: &mut [Signal]) {
    let ended = ends.iter_mut().map(|signal| Box::pin(signal.recv()));
    futures::future::select_all(ended).await;
}

/// Lets connections come to their end for a while, or until the next signal.
async fn leave(room: &Room, ends: &mut [Signal]) {
    if tokio::time::timeout(AT_ONCE, room.empty()).await.is_ok() {
        return;
    }
    told::warn(&format!(
        "{} connections are open and may end within {} s; once more cuts them\n",
        room.open(),
        GRACE.as_secs()
    ));
    tokio::select! {
        () = room.empty() => {}
        () = tokio::time::sleep(GRACE) => {}
        () = signalled(ends) => {}
    }
}

/// Dials once: nothing but a dial tells what may be dialed, as the agent has the
/// final say. What is refused for good ends the command; what may come yet is
/// told, and waited for.
async fn look(api: &Api, endpoint: &Endpoint, target: &Target) -> Result<(), Failure> {
    let Err(fault) = api.dialer().dial(endpoint, target, LOOK).await else { return Ok(()) };
    if fault.reason == Reason::EndpointNotFound {
        return match standing::of(api, endpoint).await {
            // Whoever may not dial it is told so, so it is its agent that is not there.
            Ok(Standing::There(words)) => {
                told::warn(&format!(
                    "{words}, but no agent of it is attached; connections get through once one is\n"
                ));
                Ok(())
            }
            Ok(Standing::Gone(gone)) => Err(gone.into()),
            Err(_) => Err(fault.into()),
        };
    }
    match fault.reason.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted
            if !fault.metadata.contains_key("peer") =>
        {
            told::warn(&format!(
                "{target} does not answer yet: {}: {}\n",
                fault.reason, fault.message
            ));
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
