//! The engine's long answers: events and logs. Each is read to its end,
//! and an error inside it is an error of the call.

use std::collections::HashMap;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::models::EventMessage;
use bollard::query_parameters::{EventsOptionsBuilder, LogsOptionsBuilder};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};

use super::map;
use crate::engine::{EngineError, EngineEvent, LogChunk};

/// How far back events reach: a caller that lists after it asked for events
/// misses none.
const EVENTS_BEFORE_SECONDS: i64 = 10;
/// What changes where a container is in its life.
const ACTIONS: [&str; 5] = ["start", "die", "oom", "destroy", "create"];

pub(super) fn events(
    client: &Docker,
    label: &str,
    value: &str,
) -> BoxStream<'static, Result<EngineEvent, EngineError>> {
    let filters = HashMap::from([
        ("type", vec!["container".to_owned()]),
        ("label", vec![format!("{label}={value}")]),
        ("event", ACTIONS.map(str::to_owned).to_vec()),
    ]);
    let since = chrono::DateTime::<chrono::Utc>::from(wolfpack_runtime::clock::now()).timestamp();
    let since = since.saturating_sub(EVENTS_BEFORE_SECONDS).to_string();
    let options = EventsOptionsBuilder::new().filters(&filters).since(&since).build();
    let event = |message: EventMessage| EngineEvent {
        container: message.actor.and_then(|actor| actor.id).unwrap_or_default(),
    };
    client.events(Some(options)).map_ok(event).map_err(map::error).boxed()
}

pub(super) fn logs(
    client: &Docker,
    container: &str,
    follow: bool,
    tail: Option<u32>,
) -> BoxStream<'static, Result<LogChunk, EngineError>> {
    let tail = tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
    let options =
        LogsOptionsBuilder::new().follow(follow).stdout(true).stderr(true).tail(&tail).build();
    client
        .logs(container, Some(options))
        .map_err(map::error)
        .and_then(|output| std::future::ready(chunk(output)))
        .boxed()
}

fn chunk(output: LogOutput) -> Result<LogChunk, EngineError> {
    match output {
        LogOutput::StdOut { message } => Ok(LogChunk { stderr: false, data: message }),
        LogOutput::StdErr { message } => Ok(LogChunk { stderr: true, data: message }),
        // Our containers have no terminal: bytes without a frame are the rest
        // of one that was cut off.
        LogOutput::StdIn { .. } | LogOutput::Console { .. } => {
            Err(EngineError::Stream("the log broke off in the middle of a line".to_owned()))
        }
    }
}
