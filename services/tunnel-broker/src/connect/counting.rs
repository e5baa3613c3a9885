//! The result of a dial, for metrics.

use std::time::Instant;

use wolfpack_types::{Fault, Reason};

use crate::metrics::Metrics;

/// Counts a dial once, one that was given up included.
pub(crate) struct Counting<'a> {
    metrics: &'a Metrics,
    began: Instant,
    result: &'static str,
}

impl<'a> Counting<'a> {
    /// A dial that begins now.
    pub(crate) fn of(metrics: &'a Metrics) -> Self {
        Self { metrics, began: Instant::now(), result: Reason::Cancelled.as_str() }
    }

    /// It has its result.
    pub(crate) fn end(mut self, fault: Option<&Fault>) {
        self.result = fault.map_or("OK", |fault| fault.reason.as_str());
    }
}

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        self.metrics.dialed(self.result, self.began.elapsed());
    }
}
