//! Pulls: read to their end, and an error inside one is an error of the call.
//! Says of each layer how far it is, and how fast it all goes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::StreamExt as _;
use tokio::sync::mpsc;

use super::map;
use crate::engine::{EngineError, LayerProgress, PullProgress, image};

/// A pull that says nothing for so long hangs.
const PULL_SILENCE: Duration = Duration::from_secs(120);
/// The longest a pull may take.
const PULL: Duration = Duration::from_secs(3_600);
/// The most layers an image has.
const LAYERS: usize = 128;
/// Over how long speed is measured.
const SPEED: Duration = Duration::from_secs(5);

/// Fetches an image; a reader of `progress` that is behind misses steps.
pub(super) async fn run(
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
                    let _ = progress.try_send(layers.take(step, Instant::now()));
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

/// What the engine said of each layer, in the image's order.
#[derive(Default)]
struct Layers {
    layers: Vec<LayerProgress>,
    speed: Speed,
}

impl Layers {
    fn take(&mut self, step: CreateImageInfo, now: Instant) -> PullProgress {
        let message = step.status.unwrap_or_default();
        // The first word of a pull has the tag in place of a layer.
        if let Some(id) = step.id.filter(|_| !message.starts_with("Pulling from"))
            && let Some(layer) = self.layer(id)
        {
            layer.state = EngineError::words(&message);
            let amount = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
            let detail = step.progress_detail.unwrap_or_default();
            match (message.as_str(), amount(detail.current), amount(detail.total)) {
                ("Downloading", Some(current), Some(total)) => {
                    (layer.current_bytes, layer.total_bytes) = (current, total);
                }
                (
                    "Verifying Checksum" | "Download complete" | "Extracting" | "Pull complete",
                    ..,
                ) => {
                    layer.current_bytes = layer.total_bytes;
                }
                _ => {}
            }
        }
        let current_bytes = self.layers.iter().map(|layer| layer.current_bytes).sum();
        PullProgress {
            message: EngineError::words(&message),
            current_bytes,
            total_bytes: self.layers.iter().map(|layer| layer.total_bytes).sum(),
            bytes_per_second: self.speed.of(current_bytes, now),
            layers: self.layers.clone(),
        }
    }

    fn layer(&mut self, id: String) -> Option<&mut LayerProgress> {
        let at = match self.layers.iter().position(|layer| layer.id == id) {
            Some(at) => at,
            None if self.layers.len() == LAYERS => return None,
            None => {
                self.layers.push(LayerProgress { id, ..LayerProgress::default() });
                self.layers.len() - 1
            }
        };
        self.layers.get_mut(at)
    }
}

/// Bytes a second over the last seconds.
#[derive(Default)]
struct Speed {
    seen: VecDeque<(Instant, u64)>,
}

impl Speed {
    fn of(&mut self, bytes: u64, now: Instant) -> u64 {
        // Several layers speak many times a second.
        let dense = |last: &(Instant, u64)| now.duration_since(last.0) < SPEED / 50;
        if !self.seen.back().is_some_and(dense) {
            self.seen.push_back((now, bytes));
        }
        while self.seen.len() > 2
            && self.seen.front().is_some_and(|(then, _)| now.duration_since(*then) > SPEED)
        {
            self.seen.pop_front();
        }
        let Some((then, before)) = self.seen.front() else { return 0 };
        let millis = u64::try_from(now.duration_since(*then).as_millis()).unwrap_or(u64::MAX);
        bytes.saturating_sub(*before).saturating_mul(1_000).checked_div(millis).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::ProgressDetail;

    fn step(id: &str, status: &str, detail: Option<(i64, i64)>) -> CreateImageInfo {
        CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: detail.map(|(current, total)| ProgressDetail {
                current: Some(current),
                total: Some(total),
            }),
            ..CreateImageInfo::default()
        }
    }

    #[test]
    fn layers_come_in_order_and_count_what_was_downloaded() {
        let mut layers = Layers::default();
        let begin = Instant::now();
        layers.take(step("latest", "Pulling from library/x", None), begin);
        layers.take(step("one", "Pulling fs layer", None), begin);
        layers.take(step("two", "Pulling fs layer", None), begin);
        layers.take(step("two", "Downloading", Some((100, 400))), begin);
        let after = begin + Duration::from_secs(1);
        let told = layers.take(step("one", "Downloading", Some((500, 600))), after);
        let seen: Vec<_> =
            told.layers.iter().map(|it| (it.id.as_str(), it.current_bytes)).collect();
        assert_eq!(seen, [("one", 500), ("two", 100)]);
        assert_eq!((told.current_bytes, told.total_bytes), (600, 1_000));
        assert_eq!(told.bytes_per_second, 600);
        layers.take(step("one", "Download complete", None), after);
        // Unpacking counts the same bytes anew: they are not downloaded twice.
        let told = layers.take(step("one", "Extracting", Some((10, 600))), after);
        assert_eq!((told.current_bytes, told.layers[0].state.as_str()), (700, "Extracting"));
        let later = after + 3 * SPEED;
        layers.take(step("two", "Waiting", None), later);
        assert_eq!(layers.take(step("two", "Waiting", None), later + SPEED).bytes_per_second, 0);
    }

    #[test]
    fn an_image_with_more_layers_than_there_can_be_is_bounded() {
        let mut layers = Layers::default();
        for id in 0..300 {
            layers.take(step(&id.to_string(), "Waiting", None), Instant::now());
        }
        assert_eq!(layers.layers.len(), LAYERS);
    }
}
