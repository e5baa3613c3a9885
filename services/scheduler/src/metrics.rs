//! What the scheduler counts.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram};
use wolfpack_runtime::Telemetry;

use crate::domain::Change;

/// Instruments of the writer.
#[derive(Debug, Clone)]
pub struct Metrics {
    placements: Counter<u64>,
    transitions: Counter<u64>,
    batch_rows: Histogram<u64>,
    commit_seconds: Histogram<f64>,
    leading: Gauge<u64>,
    wolves: Gauge<u64>,
    live: Gauge<u64>,
}

impl Metrics {
    /// Instruments under the service's own meter.
    #[must_use]
    pub fn new(telemetry: &Telemetry) -> Self {
        let meter = telemetry.meter();
        Self {
            placements: meter
                .u64_counter("scheduler_placements")
                .with_description("Decisions by outcome: placed or refused.")
                .build(),
            transitions: meter
                .u64_counter("scheduler_reservations")
                .with_description("Reservations that reached a state.")
                .build(),
            batch_rows: meter
                .u64_histogram("scheduler_batch_rows")
                .with_description("Rows of a committed batch.")
                .with_boundaries(vec![1.0, 2.0, 8.0, 32.0, 128.0, 512.0])
                .build(),
            commit_seconds: meter
                .f64_histogram("scheduler_commit")
                .with_unit("s")
                .with_description("Time of a batch's commit.")
                .with_boundaries(vec![0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0])
                .build(),
            leading: meter
                .u64_gauge("scheduler_leading")
                .with_description("1 while this process leads.")
                .build(),
            wolves: meter
                .u64_gauge("scheduler_wolves")
                .with_description("Wolves that are known.")
                .build(),
            live: meter
                .u64_gauge("scheduler_live_reservations")
                .with_description("Reservations that hold goods.")
                .build(),
        }
    }

    /// A decision was made.
    pub fn decided(&self, placed: bool) {
        let outcome = if placed { "placed" } else { "refused" };
        self.placements.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    /// A batch was written.
    pub fn committed(&self, changes: &[Change], took: Duration) {
        self.batch_rows.record(changes.len() as u64, &[]);
        self.commit_seconds.record(took.as_secs_f64(), &[]);
        for change in changes {
            self.transitions.add(1, &[KeyValue::new("state", change.after.state.as_str())]);
        }
    }

    /// How things stand.
    pub fn gauges(&self, leading: bool, wolves: usize, live: usize) {
        self.leading.record(u64::from(leading), &[]);
        self.wolves.record(wolves as u64, &[]);
        self.live.record(live as u64, &[]);
    }
}
