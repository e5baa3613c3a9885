//! What heartbeats tell beside being alive: what was measured of GPUs, images,
//! want of disk. Measurements are kept with the beat and take no revision; what
//! changes where sandboxes can go (a GPU that failed, images, want of disk)
//! does, once when it changes.

use prost::Message as _;
use wolfpack_proto::registry::v1::{HeartbeatRequest, Wolf, WolfCapacity, WolfImages};
use wolfpack_proto::types::v1::{GpuTelemetry, TelemetryState};
use wolfpack_types::WolfId;

use super::wolf_liveness::judge_and_write;
use super::wolves::live;
use super::{Database, Result, WolfRow, damaged};
use crate::domain::health::{Timing, WolfState};
use crate::domain::time::Micros;

/// What a beat says that placement must know.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct News {
    /// Ids of the GPUs that failed, sorted.
    pub(crate) gpus_failed: Vec<String>,
    /// The images, when the beat names them.
    pub(crate) images: Option<WolfImages>,
    /// Empty when there is enough disk.
    pub(crate) disk_pressure: String,
}

impl News {
    /// The news of a beat.
    pub(crate) fn of(beat: &HeartbeatRequest) -> Self {
        let mut gpus_failed: Vec<String> = beat
            .gpus
            .iter()
            .filter(|gpu| gpu.state() == TelemetryState::Failed)
            .map(|gpu| gpu.id.clone())
            .collect();
        gpus_failed.sort();
        gpus_failed.dedup();
        let disk_pressure = beat.disk_pressure.clone();
        Self { gpus_failed, images: beat.images.clone(), disk_pressure }
    }

    /// These news and, where they say nothing of images, those of older ones.
    pub(crate) fn over(mut self, older: Option<Self>) -> Self {
        self.images = self.images.or_else(|| older.and_then(|older| older.images));
        self
    }

    /// Whether all of these are among news that were told.
    pub(crate) fn is_within(&self, told: &Self) -> bool {
        self.gpus_failed == told.gpus_failed
            && self.disk_pressure == told.disk_pressure
            && (self.images.is_none() || self.images == told.images)
    }

    fn gpus_failed_json(&self) -> String {
        serde_json::json!(self.gpus_failed).to_string()
    }

    fn images_bytes(&self) -> Option<Vec<u8>> {
        self.images.as_ref().map(WolfImages::encode_to_vec)
    }

    /// Whether a row does not know these news yet.
    pub(super) fn differs_from(&self, row: &WolfRow) -> bool {
        self.gpus_failed_json() != row.gpus_failed
            || self.disk_pressure != row.disk_pressure
            || (self.images.is_some() && self.images_bytes() != row.images)
    }
}

impl Database {
    /// Writes news of a stream that still holds the lease; the state, and
    /// whether anything changed. `None` when the wolf is gone.
    pub(super) async fn tell(
        &self,
        id: &WolfId,
        stream: i64,
        news: &News,
        timing: Timing,
    ) -> Result<Option<(WolfState, bool)>> {
        self.tx((id.clone(), news.clone()), move |t, (id, news)| {
            Box::pin(async move {
                let Some(row) = live(t.tx, &id).await? else { return Ok(None) };
                let mut after = row.clone();
                // A newer stream has told its own meanwhile.
                if row.heartbeat_stream == stream {
                    after.gpus_failed = news.gpus_failed_json();
                    after.images = news.images_bytes().or(after.images);
                    after.disk_pressure = news.disk_pressure;
                }
                judge_and_write(&t, row, after, timing).await.map(Some)
            })
        })
        .await
    }
}

/// Measurements as they are kept.
pub(super) fn telemetry(gpus: Vec<GpuTelemetry>) -> Option<Vec<u8>> {
    let kept = HeartbeatRequest { gpus, ..HeartbeatRequest::default() };
    (!kept.gpus.is_empty()).then(|| kept.encode_to_vec())
}

impl WolfRow {
    pub(super) fn images(&self) -> Result<Option<WolfImages>> {
        let images = self.images.as_deref().map(WolfImages::decode).transpose();
        images.map_err(|error| damaged("wolf images", error))
    }

    /// The measurements of the devices that the wolf has.
    fn telemetry(&self, capacity: Option<&WolfCapacity>) -> Result<Vec<GpuTelemetry>> {
        let kept = self.gpu_telemetry.as_deref().map(HeartbeatRequest::decode).transpose();
        let kept = kept.map_err(|error| damaged("wolf telemetry", error))?.unwrap_or_default();
        let has = |id: &str| {
            capacity.is_some_and(|capacity| capacity.gpus.iter().any(|gpu| gpu.id == id))
        };
        Ok(kept.gpus.into_iter().filter(|gpu| has(&gpu.id)).collect())
    }

    /// The states of the devices without any value.
    pub(super) fn gpu_states(&self, capacity: Option<&WolfCapacity>) -> Result<Vec<GpuTelemetry>> {
        let failed: Vec<String> = serde_json::from_str(&self.gpus_failed)
            .map_err(|error| damaged("wolf failed gpus", error))?;
        let away = WolfState::parse(&self.state) == WolfState::Offline;
        let mut states: Vec<GpuTelemetry> = self
            .telemetry(capacity)?
            .into_iter()
            .map(|gpu| {
                let kept = if failed.contains(&gpu.id) {
                    TelemetryState::Failed
                } else if away || gpu.state() != TelemetryState::Ok {
                    TelemetryState::Stale
                } else {
                    TelemetryState::Ok
                };
                // A failure is said as it was when it was told.
                without_values(gpu, kept)
            })
            .collect();
        // One that failed and is not measured any more has failed still.
        for id in failed {
            if !states.iter().any(|gpu| gpu.id == id) {
                let state = TelemetryState::Failed.into();
                states.push(GpuTelemetry { id, state, ..GpuTelemetry::default() });
            }
        }
        Ok(states)
    }

    /// On the wire, with the values that were measured, while they are fresh:
    /// once three beats were missed they are absent and STALE.
    pub(crate) fn with_telemetry(&self, now: Micros, timing: Timing) -> Result<Wolf> {
        let mut wolf = self.to_proto()?;
        let last = self.last_heartbeat_time.map(Micros);
        let fresh = last.is_some_and(|last| now.since(last) < timing.offline_after());
        let measured = self.telemetry(wolf.capacity.as_ref())?;
        for state in &mut wolf.gpu_telemetry {
            let Some(gpu) = measured.iter().find(|gpu| gpu.id == state.id) else { continue };
            *state = match gpu.state() {
                TelemetryState::Ok if fresh => gpu.clone(),
                TelemetryState::Failed => without_values(gpu.clone(), TelemetryState::Failed),
                TelemetryState::Stale | TelemetryState::Unspecified if fresh => {
                    without_values(gpu.clone(), TelemetryState::Stale)
                }
                _ => GpuTelemetry {
                    id: gpu.id.clone(),
                    state: TelemetryState::Stale.into(),
                    message: "the wolf missed three heartbeats".to_owned(),
                    ..GpuTelemetry::default()
                },
            };
        }
        Ok(wolf)
    }
}

fn without_values(gpu: GpuTelemetry, state: TelemetryState) -> GpuTelemetry {
    GpuTelemetry {
        id: gpu.id,
        state: state.into(),
        message: gpu.message,
        ..GpuTelemetry::default()
    }
}

#[cfg(test)]
#[path = "wolf_news_tests.rs"]
mod tests;
