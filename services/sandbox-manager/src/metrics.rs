//! What this service counts.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter, UpDownCounter};

/// The instruments. Labels are of small, fixed sets.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    reach: Counter<u64>,
    steps: Counter<u64>,
    starts: Histogram<f64>,
    orphans: Counter<u64>,
    watchers: UpDownCounter<i64>,
}

/// Counts a watcher for as long as it lives.
#[derive(Debug)]
pub(crate) struct Watching(Metrics);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.watchers.add(-1, &[]);
    }
}

impl Metrics {
    /// Makes the instruments.
    #[must_use]
    pub(crate) fn new(meter: &Meter) -> Self {
        Self {
            reach: meter
                .u64_counter("wolfpack_sandbox_reach")
                .with_description("Tries to reach a sandbox's agent, by tunnel and result")
                .build(),
            steps: meter
                .u64_counter("wolfpack_sandbox_reconcile_steps")
                .with_description("Steps of the reconciler, by step and result")
                .build(),
            starts: meter
                .f64_histogram("wolfpack_sandbox_start")
                .with_description("Time from the create call to RUNNING or FAILED")
                .with_unit("s")
                .with_boundaries(vec![
                    0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0,
                ])
                .build(),
            orphans: meter
                .u64_counter("wolfpack_sandbox_orphans_removed")
                .with_description("Containers of no sandbox that were removed from wolves")
                .build(),
            watchers: meter
                .i64_up_down_counter("wolfpack_sandbox_watchers")
                .with_description("Open watches of sandboxes")
                .build(),
        }
    }

    /// One try over a tunnel: `sandbox` or `wolf`.
    pub(crate) fn reached(&self, via: &'static str, result: &'static str) {
        self.reach.add(1, &[KeyValue::new("via", via), KeyValue::new("result", result)]);
    }

    /// One step of the reconciler.
    pub(crate) fn stepped(&self, step: &'static str, result: &'static str) {
        self.steps.add(1, &[KeyValue::new("step", step), KeyValue::new("result", result)]);
    }

    /// A sandbox came up, or failed to.
    pub(crate) fn started(&self, took: Duration, state: &'static str) {
        self.starts.record(took.as_secs_f64(), &[KeyValue::new("state", state)]);
    }

    /// A container of nobody was removed.
    pub(crate) fn orphan_removed(&self) {
        self.orphans.add(1, &[]);
    }

    /// Counts a watcher until the answer is dropped.
    #[must_use]
    pub(crate) fn watching(&self) -> Watching {
        self.watchers.add(1, &[]);
        Watching(self.clone())
    }
}
