//! What the ingress counts. Labels are bounded: forms, classes of status, and
//! reasons.

use std::time::Instant;

use http::StatusCode;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter, UpDownCounter};

use super::address::Form;

/// Instruments; clones share them.
#[derive(Clone)]
pub(super) struct Metrics {
    requests: Counter<u64>,
    duration: Histogram<f64>,
    active: UpDownCounter<i64>,
    upgraded: UpDownCounter<i64>,
    connections: Counter<u64>,
}

impl Metrics {
    pub(super) fn new(meter: &Meter) -> Self {
        Self {
            requests: meter
                .u64_counter("gateway.ingress.requests")
                .with_description("Requests for ports of sandboxes that were answered")
                .build(),
            duration: meter
                .f64_histogram("gateway.ingress.answer.duration")
                .with_unit("s")
                .with_description("From a request to the head of its answer")
                .with_boundaries(vec![
                    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
                    60.0,
                ])
                .build(),
            active: meter
                .i64_up_down_counter("gateway.ingress.waiting_requests")
                .with_description("Requests that wait for the head of their answer now")
                .build(),
            upgraded: meter
                .i64_up_down_counter("gateway.ingress.upgraded_connections")
                .with_description("WebSockets and the like that are open now")
                .build(),
            connections: meter
                .u64_counter("gateway.ingress.connections")
                .with_description("How requests got their connection: reused, or dialed, by result")
                .build(),
        }
    }

    /// A request that came; dropped unanswered it was given up.
    pub(super) fn request(&self, form: Option<&Form>) -> Counted {
        self.active.add(1, &[]);
        let form = match form {
            Some(Form::Host) => "host",
            Some(Form::Path { .. }) => "path",
            None => "none",
        };
        Counted { metrics: self.clone(), form, began: Instant::now(), class: "given_up" }
    }

    /// A connection was used again.
    pub(super) fn reused(&self) {
        self.connections.add(1, &[KeyValue::new("result", "REUSED")]);
    }

    /// A connection was dialed: `OK`, or the reason why not.
    pub(super) fn dialed(&self, result: &'static str) {
        self.connections.add(1, &[KeyValue::new("result", result)]);
    }

    /// A connection that is bytes from now on.
    pub(super) fn upgraded(&self) -> Upgraded {
        self.upgraded.add(1, &[]);
        Upgraded(self.upgraded.clone())
    }
}

/// A request under way.
pub(super) struct Counted {
    metrics: Metrics,
    form: &'static str,
    began: Instant,
    class: &'static str,
}

impl Counted {
    pub(super) fn answered(mut self, status: StatusCode) {
        self.class = match status.as_u16() {
            0..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let labels = [KeyValue::new("form", self.form), KeyValue::new("class", self.class)];
        self.metrics.active.add(-1, &[]);
        self.metrics.requests.add(1, &labels);
        self.metrics.duration.record(self.began.elapsed().as_secs_f64(), &labels);
    }
}

/// Counts an upgraded connection as long as it is there.
pub(super) struct Upgraded(UpDownCounter<i64>);

impl Drop for Upgraded {
    fn drop(&mut self) {
        self.0.add(-1, &[]);
    }
}
