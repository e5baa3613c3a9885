//! The part of the Docker API that the agent speaks.

use std::collections::HashMap;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::{Call, FakeContainer, FakeEngine, Fault, images};

const BODY_LIMIT: usize = 1 << 20;

pub(super) fn router(engine: FakeEngine) -> Router {
    Router::new().fallback(move |request: Request| {
        let engine = engine.clone();
        async move { answer(&engine, request).await }
    })
}

async fn answer(engine: &FakeEngine, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let path = match path.split_once("/v1.") {
        Some(("", rest)) => rest.split_once('/').map_or("", |(_, rest)| rest).to_owned(),
        _ => path.trim_start_matches('/').to_owned(),
    };
    let method = request.method().clone();
    let Some(call) = kind(&method, &path) else {
        return match path.as_str() {
            "version" => ok(&json!({"ApiVersion": "1.41", "Version": "20.10.0-fake"})),
            _ => error(404, &format!("the fake engine has no {method} {path}")),
        };
    };
    let fault = engine.state.lock().enter(call);
    match fault {
        Some(Fault::Status(status, words)) => {
            // As engines do, which do not close a connection on who still sends:
            // the answer would be lost with it.
            let _ = axum::body::to_bytes(request.into_body(), images::ARCHIVE).await;
            return error(status, words);
        }
        Some(Fault::Slow(by)) => tokio::time::sleep(by).await,
        Some(Fault::DoneAnd(status, words)) => {
            perform(engine, call, &path, request, None).await;
            return error(status, words);
        }
        _ => {}
    }
    perform(engine, call, &path, request, fault).await
}

fn kind(method: &Method, path: &str) -> Option<Call> {
    let get = *method == Method::GET;
    let post = *method == Method::POST;
    match path {
        "info" => Some(Call::Info),
        "events" => Some(Call::Events),
        "networks" if get => Some(Call::ListNetworks),
        "networks/create" => Some(Call::CreateNetwork),
        "volumes" if get => Some(Call::ListVolumes),
        "volumes/create" => Some(Call::CreateVolume),
        "images/create" => Some(Call::Pull),
        "images/json" => Some(Call::ListImages),
        "images/load" => Some(Call::LoadImage),
        _ if *method == Method::DELETE && path.starts_with("images/") => Some(Call::RemoveImage),
        "system/df" => Some(Call::Usage),
        "containers/create" => Some(Call::Create),
        "containers/json" => Some(Call::List),
        _ if get && path.starts_with("networks/") => Some(Call::InspectNetwork),
        _ if *method == Method::DELETE && path.starts_with("networks/") => {
            Some(Call::RemoveNetwork)
        }
        _ if *method == Method::DELETE && path.starts_with("volumes/") => Some(Call::RemoveVolume),
        _ if get && path.starts_with("images/") => Some(Call::InspectImage),
        _ if !path.starts_with("containers/") => None,
        _ if post && path.ends_with("/start") => Some(Call::Start),
        _ if post && path.ends_with("/kill") => Some(Call::Kill),
        _ if get && path.ends_with("/logs") => Some(Call::Logs),
        _ if get && path.ends_with("/json") => Some(Call::Inspect),
        _ if *method == Method::DELETE => Some(Call::Remove),
        _ => None,
    }
}

async fn perform(
    engine: &FakeEngine,
    call: Call,
    path: &str,
    request: Request,
    fault: Option<Fault>,
) -> Response {
    let query: HashMap<String, String> =
        Query::try_from_uri(request.uri()).map(|Query(query)| query).unwrap_or_default();
    let text = |key: &str| query.get(key).cloned().unwrap_or_default();
    let name = path.split('/').nth(1).unwrap_or_default().to_owned();
    match call {
        Call::Info => ok(&engine.state.lock().info()),
        Call::InspectNetwork => match engine.state.lock().networks.get(&name) {
            Some(network) => ok(network),
            None => error(404, &format!("network {name} not found")),
        },
        Call::CreateNetwork | Call::CreateVolume => {
            let asked = body(request).await;
            let mut state = engine.state.lock();
            let made = if call == Call::CreateVolume {
                Ok(state.create_volume(&asked))
            } else {
                state.create_network(&asked)
            };
            made.map_or_else(|(status, words)| error(status, &words), |made| created(&made))
        }
        Call::RemoveNetwork | Call::RemoveVolume => {
            let mut state = engine.state.lock();
            let removed = if call == Call::RemoveVolume {
                state.remove_volume(&name)
            } else {
                state.remove_network(&name)
            };
            match removed {
                Ok(()) => StatusCode::NO_CONTENT.into_response(),
                Err((status, words)) => error(status, &words),
            }
        }
        Call::ListNetworks => {
            let state = engine.state.lock();
            ok(&json!(labelled(state.networks.values(), &text("filters"))))
        }
        Call::ListVolumes => {
            let state = engine.state.lock();
            ok(&json!({"Volumes": labelled(state.volumes.values(), &text("filters"))}))
        }
        Call::InspectImage => {
            let name = path.trim_start_matches("images/").trim_end_matches("/json");
            images::inspect(engine, name)
        }
        Call::Pull => {
            let account = request.headers().get("x-registry-auth");
            let account = account.and_then(|account| account.to_str().ok()).map(str::to_owned);
            engine.state.lock().account = account;
            pull(engine, &text("fromImage"), fault.as_ref())
        }
        Call::ListImages => ok(&images::list(engine)),
        Call::LoadImage => images::load(engine, request.into_body()).await,
        Call::RemoveImage => images::remove(engine, path.trim_start_matches("images/")),
        Call::Create => {
            let asked = body(request).await;
            match engine.state.lock().create(&text("name"), asked) {
                Ok(id) => created(&json!({"Id": id, "Warnings": []})),
                Err((status, words)) => error(status, &words),
            }
        }
        Call::Start => {
            let started = engine.state.lock().start(&name);
            match started {
                Ok(Some(container)) => {
                    let _ = engine.started.send(container);
                    StatusCode::NO_CONTENT.into_response()
                }
                Ok(None) => StatusCode::NOT_MODIFIED.into_response(),
                Err((status, words)) => error(status, &words),
            }
        }
        Call::Kill => match engine.state.lock().kill(&name) {
            Ok(()) => StatusCode::NO_CONTENT.into_response(),
            Err((status, words)) => error(status, &words),
        },
        Call::Usage => ok(&engine.state.lock().usage()),
        Call::Remove if engine.state.lock().remove(&name) => StatusCode::NO_CONTENT.into_response(),
        Call::Remove => error(404, &format!("No such container: {name}")),
        Call::List => {
            let shown: Vec<Value> = engine
                .containers()
                .iter()
                .map(|container| {
                    json!({
                        "Id": container.id, "State": container.state,
                        "Names": [format!("/{}", container.name)], "Created": container.made,
                        "Image": container.request["Image"],
                        "ImageID": images::id(container.request["Image"].as_str().unwrap_or_default()),
                        "Labels": container.request["Labels"],
                    })
                })
                .collect();
            ok(&json!(labelled(shown.iter(), &text("filters"))))
        }
        Call::Inspect => {
            let state = engine.state.lock();
            match state.find(&name) {
                Some(container) => ok(&inspected(container, state.data_of(container))),
                None => error(404, &format!("No such container: {name}")),
            }
        }
        Call::Events => events(engine, fault.as_ref()),
        Call::Logs => logs(engine, &name, text("follow") == "true", fault.as_ref()),
    }
}

fn inspected(container: &FakeContainer, (mounts, driver): (Value, Value)) -> Value {
    json!({
        "Id": container.id, "Name": format!("/{}", container.name),
        "Config": {"Labels": container.request["Labels"]},
        "HostConfig": container.request["HostConfig"],
        "Mounts": mounts, "GraphDriver": driver,
        "State": {
            "Status": container.state, "Running": container.state == "running",
            "ExitCode": container.exit_code, "OOMKilled": container.out_of_memory,
            "StartedAt": if container.state == "created" {
                "0001-01-01T00:00:00Z"
            } else {
                "2026-01-01T00:00:00Z"
            },
        },
    })
}

fn pull(engine: &FakeEngine, reference: &str, fault: Option<&Fault>) -> Response {
    let step = |value: Value| Ok::<_, std::io::Error>(Bytes::from(format!("{value}\n")));
    let mut steps = vec![
        step(json!({"status": "Pulling from fake", "id": "latest"})),
        step(json!({"status": "Downloading", "id": "layer",
                    "progressDetail": {"current": 512, "total": 1024}})),
    ];
    match fault {
        Some(Fault::BreaksOff) => steps.push(Err(std::io::Error::other("broken on purpose"))),
        Some(Fault::InBand(words)) => {
            steps.push(step(json!({"errorDetail": {"message": words}, "error": words})));
        }
        _ => {
            let mut state = engine.state.lock();
            match state.remote.get(reference).cloned() {
                Some(config) => {
                    state.images.insert(reference.to_owned(), config);
                    steps.push(step(json!({"status": "Download complete", "id": "layer"})));
                }
                None => return error(404, &format!("manifest for {reference} not found")),
            }
        }
    }
    streamed(stream::iter(steps))
}

fn events(engine: &FakeEngine, fault: Option<&Fault>) -> Response {
    let (past, coming) = engine.state.lock().follow();
    if matches!(fault, Some(Fault::BreaksOff)) {
        return streamed(stream::iter([Err(std::io::Error::other("broken on purpose"))]));
    }
    let line = |event: &Value| Ok::<_, std::io::Error>(Bytes::from(format!("{event}\n")));
    let past: Vec<_> = past.iter().map(line).collect();
    let coming = stream::unfold(coming, move |mut coming| async move {
        match coming.recv().await {
            Ok(event) => Some((line(&event), coming)),
            Err(_) => None,
        }
    });
    streamed(stream::iter(past).chain(coming))
}

fn logs(engine: &FakeEngine, name: &str, follow: bool, fault: Option<&Fault>) -> Response {
    let state = engine.state.lock();
    let Some((kept, coming)) = state.read_log(name) else {
        return error(404, &format!("No such container: {name}"));
    };
    let runs = state.find(name).is_some_and(|container| container.state == "running");
    let kept = stream::iter([Ok::<_, std::io::Error>(kept)]);
    if matches!(fault, Some(Fault::BreaksOff)) {
        return streamed(
            kept.chain(stream::iter([Err(std::io::Error::other("broken on purpose"))])),
        );
    }
    if matches!(fault, Some(Fault::Hangs)) {
        return streamed(kept.chain(stream::pending()));
    }
    if !follow || !runs {
        return streamed(kept);
    }
    let coming = stream::unfold(coming, |mut coming| async move {
        match coming.recv().await {
            Ok(Some(piece)) => Some((Ok(piece), coming)),
            Ok(None) | Err(broadcast::error::RecvError::Closed) => None,
            Err(error) => Some((Err(std::io::Error::other(error)), coming)),
        }
    });
    streamed(kept.chain(coming))
}

/// Those that have the one label that a list is filtered by.
fn labelled<'a>(all: impl Iterator<Item = &'a Value>, filters: &str) -> Vec<&'a Value> {
    let filters: Value = serde_json::from_str(filters).unwrap_or_default();
    let Some(wanted) = filters["label"][0].as_str() else { return all.collect() };
    let (key, value) =
        wanted.split_once('=').map_or((wanted, None), |(key, value)| (key, Some(value)));
    all.filter(|one| {
        let found = one["Labels"][key].as_str();
        found.is_some() && value.is_none_or(|value| found == Some(value))
    })
    .collect()
}

async fn body(request: Request) -> Value {
    let read = axum::body::to_bytes(request.into_body(), BODY_LIMIT).await.unwrap_or_default();
    serde_json::from_slice(&read).unwrap_or_default()
}

pub(super) fn streamed(
    items: impl futures::Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static,
) -> Response {
    Response::new(Body::from_stream(items))
}

pub(super) fn ok(value: &Value) -> Response {
    (StatusCode::OK, value.to_string()).into_response()
}

fn created(value: &Value) -> Response {
    (StatusCode::CREATED, value.to_string()).into_response()
}

pub(super) fn error(status: u16, words: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, json!({"message": words}).to_string()).into_response()
}
