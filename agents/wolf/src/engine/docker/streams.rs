//! The engine's long answers: pulls, events, logs. Each is read to its end,
//! and an error inside it is an error of the call.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::models::{CreateImageInfo, EventMessage};
use bollard::query_parameters::{
    CreateImageOptionsBuilder, EventsOptionsBuilder, LogsOptionsBuilder,
};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::mpsc;

use super::map;
use crate::engine::{EngineError, EngineEvent, LogChunk, PullProgress, image};

/// A pull that says nothing for so long hangs.
const PULL_SILENCE: Duration = Duration::from_secs(120);
/// The longest a pull may take.
const PULL: Duration = Duration::from_secs(3_600);
/// How far back events reach: a caller that lists after it asked for events
/// misses none.
const EVENTS_BEFORE_SECONDS: i64 = 10;
/// What changes where a container is in its life.
const ACTIONS: [&str; 5] = ["start", "die", "oom", "destroy", "create"];

pub(super) async fn pull(
    client: &Docker,
    reference: &str,
    progress: mpsc::Sender<PullProgress>,
) -> Result<(), EngineError> {
    let reference = image::with_tag(reference);
    let options = CreateImageOptionsBuilder::new().from_image(&reference).build();
    let mut steps = client.create_image(Some(options), None, None).boxed();
    let mut layers = Layers::default();
    let reading = async {
        loop {
            let deadline =
                EngineError::Deadline { doing: "go on with a pull", within: PULL_SILENCE };
            let next = tokio::time::timeout(PULL_SILENCE, steps.next());
            match next.await.map_err(|_| deadline)? {
                None => return Ok(()),
                Some(step) => {
                    let step = step.map_err(map::error)?;
                    if let Some(failed) = step.error_detail {
                        let words = failed.message.unwrap_or_default();
                        return Err(EngineError::Stream(EngineError::words(&words)));
                    }
                    // A reader that is behind takes the next step instead.
                    let _ = progress.try_send(layers.take(step));
                }
            }
        }
    };
    match tokio::time::timeout(PULL, reading).await {
        Ok(Err(EngineError::Stream(words))) if says_not_found(&words) => {
            Err(EngineError::NotFound(words))
        }
        Ok(result) => result,
        Err(_) => Err(EngineError::Deadline { doing: "pull an image", within: PULL }),
    }
}

/// Registries say that an image is not there in the stream, in words.
fn says_not_found(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    ["not found", "manifest unknown", "does not exist", "repository name not known"]
        .iter()
        .any(|phrase| words.contains(phrase))
}

/// Sums what the engine says of each layer.
#[derive(Default)]
struct Layers {
    downloaded: BTreeMap<String, (u64, u64)>,
}

impl Layers {
    fn take(&mut self, step: CreateImageInfo) -> PullProgress {
        let message = step.status.unwrap_or_default();
        let amount = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        if let (Some(layer), Some(detail)) = (step.id, step.progress_detail)
            && let (Some(current), Some(total)) = (amount(detail.current), amount(detail.total))
            && message == "Downloading"
        {
            self.downloaded.insert(layer, (current, total));
        } else if message == "Download complete" || message == "Pull complete" {
            self.downloaded
                .values_mut()
                .filter(|(now, all)| now >= all)
                .for_each(|(now, all)| *now = *all);
        }
        PullProgress {
            message: EngineError::words(&message),
            current_bytes: self.downloaded.values().map(|(current, _)| current).sum(),
            total_bytes: self.downloaded.values().map(|(_, total)| total).sum(),
        }
    }
}

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
