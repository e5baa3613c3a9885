//! `wolfpack tunnel …`.

use std::time::Duration;

use prost_types::Timestamp;
use serde_json::json;
use wolfpack_proto::tunnel::v1 as pb;
use wolfpack_proto::tunnel::v1::watch_tunnels_response::Event;
use wolfpack_types::Reason;

use super::resolve;
use super::retry::retry;
use super::standing;
use crate::args::tunnel::{TunnelCloseArgs, TunnelCommand, TunnelGetArgs};
use crate::connect::Api;
use crate::failure::Failure;
use crate::output;

const TUNNEL: &str = "wolfpack.tunnel.v1.Tunnel";
const CLOSED: &str = "wolfpack.tunnel.v1.CloseTunnelResponse";
/// A watch that breaks is made again this often in a row, with a pause between.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(500);

pub(crate) async fn run(api: &Api, command: TunnelCommand) -> Result<(), Failure> {
    match command {
        TunnelCommand::List(format) => list(api, format.is_json()).await,
        TunnelCommand::Get(arguments) => get(api, &arguments).await,
        TunnelCommand::Close(arguments) => close(api, arguments).await,
        TunnelCommand::Watch(format) => watch(api, format.is_json()).await,
    }
}

async fn list(api: &Api, json: bool) -> Result<(), Failure> {
    let tunnels = super::pages(async |page_token| {
        let request = pb::ListTunnelsRequest { page_token, ..Default::default() };
        let page =
            retry(async || Ok(api.tunnels().list_tunnels(request.clone()).await?.into_inner()))
                .await?;
        Ok((page.tunnels, page.next_page_token))
    })
    .await?;
    if json {
        let tunnels = tunnels
            .iter()
            .map(|tunnel| output::json(TUNNEL, tunnel))
            .collect::<Result<Vec<_>, _>>()?;
        return output::print_json(&json!({ "tunnels": tunnels }));
    }
    output::print_table(
        ["ENDPOINT", "TARGETS", "AGENT", "ATTACHED", "CONNECTIONS", "PARKED"],
        tunnels.iter().map(row),
    )
}

fn row(tunnel: &pb::Tunnel) -> [String; 6] {
    [
        tunnel.endpoint.clone(),
        tunnel.targets.join(","),
        tunnel.agent_version.clone(),
        output::age(tunnel.attach_time.as_ref()),
        tunnel.connections.to_string(),
        tunnel.parked.to_string(),
    ]
}

async fn get(api: &Api, arguments: &TunnelGetArgs) -> Result<(), Failure> {
    let endpoint = resolve::endpoint(api, &arguments.endpoint).await?;
    let request = pb::GetTunnelRequest { endpoint: endpoint.to_string() };
    let asked =
        retry(async || Ok(api.tunnels().get_tunnel(request.clone()).await?.into_inner())).await;
    let answer = match asked {
        Ok(answer) => answer,
        // The broker knows those that are attached, and no others.
        Err(failure) => return Err(standing::explain(api, &endpoint, failure).await),
    };
    let tunnel = resolve::present(answer.tunnel)?;
    if arguments.output.is_json() {
        return output::print_json(&output::json(TUNNEL, &tunnel)?);
    }
    let limits = tunnel.limits.unwrap_or_default();
    let rate = match limits.bytes_per_second {
        0 => String::new(),
        rate => format!("{}/s each way", output::amount(rate)),
    };
    output::print_facts(&[
        ("endpoint", tunnel.endpoint),
        ("session", tunnel.session_id),
        ("project", tunnel.project),
        ("agent", tunnel.agent_version),
        ("instance", tunnel.instance_id),
        ("boot", tunnel.execution_id),
        ("attached", output::instant(tunnel.attach_time.as_ref())),
        ("targets", tunnel.targets.join(",")),
        ("connections", format!("{} of {}", tunnel.connections, limits.max_connections)),
        ("parked", tunnel.parked.to_string()),
        ("bytes up", output::amount(tunnel.bytes_up)),
        ("bytes down", output::amount(tunnel.bytes_down)),
        ("dials", format!("{}/s at most", limits.dials_per_second)),
        ("rate", rate),
    ])
}

async fn close(api: &Api, arguments: TunnelCloseArgs) -> Result<(), Failure> {
    let TunnelCloseArgs { endpoint, session, reason, output } = arguments;
    let endpoint = resolve::endpoint(api, &endpoint).await?.to_string();
    let request =
        pb::CloseTunnelRequest { endpoint: endpoint.clone(), session_id: session.clone(), reason };
    // Sent once: a session that came meanwhile is not the one that was meant.
    let closed = api.tunnels().close_tunnel(request).await?.into_inner();
    if output.is_json() {
        return output::print_json(&output::json(CLOSED, &closed)?);
    }
    output::line(&close_words(&endpoint, &session, &closed))
}

/// What became of it; `named` is the session that was meant, if one was.
fn close_words(endpoint: &str, named: &str, closed: &pb::CloseTunnelResponse) -> String {
    match (closed.session_id.as_str(), closed.attached_session_id.as_str(), named) {
        ("", "", "") => format!("nothing was closed: no agent of {endpoint} is attached"),
        ("", "", named) => format!("nothing was closed: {endpoint} has no session {named}"),
        ("", attached, "") => {
            format!("nothing was closed: session {attached} of {endpoint} came only now")
        }
        ("", attached, named) => {
            format!("nothing was closed: {endpoint} has session {attached}, not {named}")
        }
        (session, _, _) => format!("{endpoint} closed, session {session}"),
    }
}

/// Goes on through broken connections, each time with a snapshot: revisions of
/// a broker do not outlive it.
async fn watch(api: &Api, json: bool) -> Result<(), Failure> {
    if !json {
        output::line(&columns(
            ["TIME", "EVENT", "ENDPOINT", "SESSION", "TARGETS", "INSTANCE"].map(str::to_owned),
        ))?;
    }
    let mut attempt = 0;
    loop {
        match follow(api, json, &mut attempt).await {
            Ok(()) => {}
            Err(failure)
                if attempt < ATTEMPTS
                    && (failure.is_passing() || failure.is(Reason::WatcherTooSlow)) => {}
            // The key's role was lowered since, and may still do.
            Err(failure) if attempt == 0 && failure.is(Reason::RoleTooLow) => {}
            Err(failure) => return Err(failure),
        }
        attempt += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow(api: &Api, json: bool, attempt: &mut u32) -> Result<(), Failure> {
    let request = pb::WatchTunnelsRequest {};
    let mut events = api.tunnel_watches().watch_tunnels(request).await?.into_inner();
    while let Some(response) = events.message().await? {
        *attempt = 0;
        let now = Timestamp::from(wolfpack_runtime::clock::now());
        let (word, tunnel, time) = match response.event {
            // Those that are there already attached before.
            Some(Event::Attached(tunnel)) => {
                let time = tunnel.attach_time.unwrap_or(now);
                ("attached", tunnel, time)
            }
            Some(Event::Detached(tunnel)) => ("detached", tunnel, now),
            Some(Event::Bookmark(_)) | None => continue,
        };
        let time = output::instant(Some(&time));
        if json {
            let line = json!({
                word: output::json(TUNNEL, &tunnel)?,
                "revision": response.revision.to_string(),
                "time": time,
            });
            output::line(&line.to_string())?;
        } else {
            output::line(&columns([
                time,
                word.to_owned(),
                tunnel.endpoint,
                tunnel.session_id,
                tunnel.targets.join(","),
                tunnel.instance_id,
            ]))?;
        }
    }
    Ok(())
}

/// A line of the watch. Nobody knows yet how wide those to come are: times and
/// names have their usual widths, and what is wider moves the rest of its line.
fn columns([time, word, endpoint, session, targets, instance]: [String; 6]) -> String {
    let dash = |cell: String| if cell.is_empty() { "-".to_owned() } else { cell };
    let [session, targets, instance] = [session, targets, instance].map(dash);
    format!("{time:20}  {word:8}  {endpoint:36}  {session:26}  {targets:24}  {instance}")
}
