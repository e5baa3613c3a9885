//! The heartbeat stream: one answer per beat, in order. Its end marks nothing;
//! the lease in the database decides.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::Stream;
use tonic::{Status, Streaming};
use wolfpack_proto::registry::v1::{HeartbeatRequest, HeartbeatResponse};
use wolfpack_rpc::error::{from_status, to_status};
use wolfpack_rpc::request::check;
use wolfpack_types::{Fault, InstanceId, Reason, WolfId};

use super::Registry;
use super::streams::OpenStream;
use crate::domain::access::wolf_not_found;
use crate::domain::health::WolfState;
use crate::store::{Beat, Measurement, News};

pub(crate) type Answers = Pin<Box<dyn Stream<Item = Result<HeartbeatResponse, Status>> + Send>>;

/// A stream without a beat for this many intervals has lost its lease long ago
/// and only holds memory.
const ABANDONED: u32 = 30;

/// Beats that say nothing new are written this many times an interval at most.
const WRITES_PER_INTERVAL: u32 = 8;

struct Run {
    registry: Arc<Registry>,
    wolf: WolfId,
    beats: Streaming<HeartbeatRequest>,
    open: Option<(OpenStream, InstanceId)>,
    /// What was written last, and when.
    written: Option<(Instant, Measurement)>,
    /// News that were not told yet.
    news: Option<News>,
    /// What was told last, and when: news are told so often at most.
    told: Option<(Instant, News)>,
    ended: bool,
}

/// Answers the beats of a wolf until the stream ends or its lease is another's.
pub(crate) fn answers(
    registry: Arc<Registry>,
    wolf: WolfId,
    beats: Streaming<HeartbeatRequest>,
) -> Answers {
    let run = Run {
        registry,
        wolf,
        beats,
        open: None,
        written: None,
        news: None,
        told: None,
        ended: false,
    };
    Box::pin(futures::stream::unfold(run, |mut run| async move {
        if run.ended {
            return None;
        }
        let answer = run.next().await?;
        run.ended = answer.is_err();
        run.registry.metrics.heartbeat(answer.is_ok());
        Some((answer, run))
    }))
}

impl Run {
    async fn next(&mut self) -> Option<Result<HeartbeatResponse, Status>> {
        let wait = self.registry.timing.interval.saturating_mul(ABANDONED);
        let superseded = self.open.as_ref().map(|(open, _)| open.superseded.clone());
        let beat = tokio::select! {
            beat = tokio::time::timeout(wait, self.beats.message()) => beat,
            () = async {
                match superseded {
                    Some(superseded) => superseded.cancelled().await,
                    None => std::future::pending().await,
                }
            } => return Some(Err(to_status(taken_over(&self.wolf)))),
        };
        match beat {
            Ok(Ok(Some(beat))) => Some(self.answer(beat).await),
            Ok(Ok(None)) => None,
            // A wolf that goes is no heartbeat that failed.
            Ok(Err(status)) if from_status(&status).reason == Reason::Cancelled => None,
            Ok(Err(status)) => Some(Err(status)),
            Err(_) => Some(Err(to_status(Fault::new(
                Reason::DeadlineExceeded,
                "no heartbeat came for many intervals; open a new stream",
            )))),
        }
    }

    async fn answer(&mut self, beat: HeartbeatRequest) -> Result<HeartbeatResponse, Status> {
        check(&beat)?;
        let sequence = beat.sequence;
        let state = self.keep(beat).await.map_err(to_status)?;
        let interval = self.registry.timing.interval;
        Ok(HeartbeatResponse {
            sequence,
            interval: Some(proto_duration(interval)),
            state: state.to_proto().into(),
        })
    }

    async fn keep(&mut self, beat: HeartbeatRequest) -> Result<WolfState, Fault> {
        let instance = InstanceId::parse(&beat.instance_id)?;
        let number = match &self.open {
            Some((open, opened_by)) if *opened_by == instance => open.number,
            Some(_) => {
                return Err(Fault::new(
                    Reason::RequestInvalid,
                    "the instance id changed within the stream; open a new stream",
                ));
            }
            None => {
                let number = self.registry.database.open_heartbeat(&self.wolf, &instance).await?;
                let open = self.registry.streams.open(&self.wolf, number);
                self.open = Some((open, instance));
                number
            }
        };
        let registry = &self.registry;
        let often = registry.timing.interval / WRITES_PER_INTERVAL;
        let news = News::of(&beat).over(self.news.take());
        let due = match &self.told {
            Some((at, before)) => at.elapsed() >= often && !news.is_within(before),
            None => true,
        };
        let measured = measured(beat);
        if !due
            && let Some((at, before)) = &self.written
            && at.elapsed() < often
            && *before == measured
            && let Some(known) = registry.wolves.get(self.wolf.as_str())
        {
            self.news = Some(news);
            return Ok(known.wolf.state().into());
        }
        self.written = Some((Instant::now(), measured.clone()));
        let telling = due.then_some(&news);
        let beat = registry.database.beat(&self.wolf, number, measured, telling, registry.timing);
        let kept = beat.await?;
        if due {
            let all = news.over(self.told.take().map(|(_, before)| before));
            self.told = Some((Instant::now(), all));
        } else {
            self.news = Some(news);
        }
        match kept {
            Beat::Kept(state, changed) => {
                if changed {
                    registry.wolves.wake();
                }
                Ok(state)
            }
            Beat::Unknown => Err(wolf_not_found(&self.wolf)),
            Beat::Superseded => Err(taken_over(&self.wolf)),
        }
    }
}

fn taken_over(wolf: &WolfId) -> Fault {
    Fault::new(
        Reason::Superseded,
        "a newer heartbeat stream or instance of this wolf took over; stop, or register again \
         if there should be no other",
    )
    .about(wolf.name())
}

fn measured(beat: HeartbeatRequest) -> Measurement {
    let used = beat.used.unwrap_or_default();
    let large = |value: Option<u64>| value.map(|value| i64::try_from(value).unwrap_or(i64::MAX));
    Measurement {
        cpu_milli: used.cpu_milli.map(i64::from),
        memory_bytes: large(used.memory_bytes),
        disk_bytes: large(used.disk_bytes),
        pids: used.pids.map(i64::from),
        running_sandboxes: beat.running_sandboxes.map(i64::from),
        engine_fault: beat.engine_fault,
        gpus: beat.gpus,
    }
}

/// A duration on the wire.
pub(super) fn proto_duration(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0),
    }
}
