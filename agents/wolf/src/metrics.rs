//! What the agent counts. Every label has a bounded set of values.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter, UpDownCounter};

/// The agent's instruments; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    creates: Counter<u64>,
    create_seconds: Histogram<f64>,
    pull_seconds: Histogram<f64>,
    removals: Counter<u64>,
    refusals: Counter<u64>,
    relayed: UpDownCounter<i64>,
    relay_bytes: Counter<u64>,
    relay_refusals: Counter<u64>,
    metadata_blocked: Gauge<u64>,
    disk_ends: Counter<u64>,
}

impl Metrics {
    /// Instruments of this meter.
    #[must_use]
    pub fn new(meter: &Meter) -> Self {
        Self {
            creates: meter
                .u64_counter("wolfpack.wolf.creates")
                .with_description("Sandboxes that were to be created, by outcome.")
                .build(),
            create_seconds: meter
                .f64_histogram("wolfpack.wolf.create.duration")
                .with_unit("s")
                .with_description("From the turn of a create to its container's start.")
                .build(),
            pull_seconds: meter
                .f64_histogram("wolfpack.wolf.pull.duration")
                .with_unit("s")
                .with_description("Time to fetch an image.")
                .build(),
            removals: meter
                .u64_counter("wolfpack.wolf.removals")
                .with_description("Sandboxes that were removed.")
                .build(),
            refusals: meter
                .u64_counter("wolfpack.wolf.refusals")
                .with_description("Calls that admission refused, by rule.")
                .build(),
            relayed: meter
                .i64_up_down_counter("wolfpack.wolf.relay.connections")
                .with_description("Connections of sandboxes that are relayed now, by target.")
                .build(),
            relay_bytes: meter
                .u64_counter("wolfpack.wolf.relay.bytes")
                .with_unit("By")
                .with_description("Bytes that were relayed, by target and direction.")
                .build(),
            relay_refusals: meter
                .u64_counter("wolfpack.wolf.relay.refusals")
                .with_description(
                    "Connections of sandboxes that were not relayed, by target and why.",
                )
                .build(),
            disk_ends: meter
                .u64_counter("wolfpack.wolf.disk_ends")
                .with_description("Sandboxes that were ended for what they wrote, by rule.")
                .build(),
            metadata_blocked: meter
                .u64_gauge("wolfpack.wolf.metadata_blocked")
                .with_description(
                    "1 when this host drops what sandboxes send to 169.254.0.0/16 and other addresses of metadata, else 0.",
                )
                .build(),
        }
    }

    pub(crate) fn created(&self, took: Duration) {
        self.creates.add(1, &[KeyValue::new("outcome", "OK")]);
        self.create_seconds.record(took.as_secs_f64(), &[]);
    }

    pub(crate) fn create_failed(&self, reason: &'static str) {
        self.creates.add(1, &[KeyValue::new("outcome", reason)]);
    }

    pub(crate) fn pulled(&self, took: Duration, worked: bool) {
        self.pull_seconds.record(took.as_secs_f64(), &[KeyValue::new("ok", worked)]);
    }

    pub(crate) fn removed(&self) {
        self.removals.add(1, &[]);
    }

    pub(crate) fn refused(&self, rule: &'static str) {
        self.refusals.add(1, &[KeyValue::new("rule", rule)]);
    }

    pub(crate) fn ended_for_disk(&self, rule: &'static str) {
        self.disk_ends.add(1, &[KeyValue::new("rule", rule)]);
    }

    pub(crate) fn metadata_blocked(&self, blocked: bool) {
        self.metadata_blocked.record(u64::from(blocked), &[]);
    }

    pub(crate) fn relay_opened(&self, target: &'static str) {
        self.relayed.add(1, &[KeyValue::new("target", target)]);
    }

    pub(crate) fn relay_closed(&self, target: &'static str, up: u64, down: u64) {
        self.relayed.add(-1, &[KeyValue::new("target", target)]);
        for (direction, bytes) in [("up", up), ("down", down)] {
            let labels = [KeyValue::new("target", target), KeyValue::new("direction", direction)];
            self.relay_bytes.add(bytes, &labels);
        }
    }

    pub(crate) fn relay_refused(&self, target: &'static str, why: &'static str) {
        self.relay_refusals.add(1, &[KeyValue::new("target", target), KeyValue::new("why", why)]);
    }
}
