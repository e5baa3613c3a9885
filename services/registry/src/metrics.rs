//! What the registry counts.

use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};
use parking_lot::Mutex;

use crate::domain::health::WolfState;
use crate::store::Census;

/// The instruments; clones share them.
#[derive(Clone)]
pub(crate) struct Metrics {
    heartbeats: Counter<u64>,
    census: Arc<Mutex<Vec<Census>>>,
}

type Sum = fn(&Census) -> Option<i64>;

/// What wolves measure, summed over those that measured it.
const SUMS: [(&str, &str, &str, Sum); 5] = [
    ("registry_running_sandboxes", "{sandbox}", "Containers of sandboxes that run.", |row| {
        row.running_sandboxes
    }),
    ("registry_used_cpu_milli", "{millicore}", "Processor time in use.", |row| row.cpu_milli),
    ("registry_used_memory", "By", "Memory in use.", |row| row.memory_bytes),
    ("registry_used_disk", "By", "Disk in use.", |row| row.disk_bytes),
    ("registry_used_pids", "{pid}", "Processes in use.", |row| row.pids),
];

impl Metrics {
    pub(crate) fn new(meter: &Meter) -> Self {
        let census = Arc::new(Mutex::new(Vec::<Census>::new()));
        let rows = Arc::clone(&census);
        meter
            .i64_observable_gauge("registry_wolves")
            .with_unit("{wolf}")
            .with_description("Wolves by state.")
            .with_callback(move |gauge| {
                let rows = rows.lock();
                for state in WolfState::ALL {
                    let row = rows.iter().find(|row| row.state == state.as_str());
                    let wolves = row.map_or(0, |row| row.wolves);
                    gauge.observe(wolves, &[KeyValue::new("state", state.as_str())]);
                }
            })
            .build();
        for (name, unit, description, sum) in SUMS {
            let rows = Arc::clone(&census);
            meter
                .i64_observable_gauge(name)
                .with_unit(unit)
                .with_description(description)
                .with_callback(move |gauge| {
                    // Unknown is not zero: nothing is observed then.
                    let known = rows.lock().iter().filter_map(sum).reduce(i64::saturating_add);
                    if let Some(known) = known {
                        gauge.observe(known, &[]);
                    }
                })
                .build();
        }
        let heartbeats = meter
            .u64_counter("registry_heartbeats")
            .with_description("Heartbeats by whether they were kept.")
            .build();
        Self { heartbeats, census }
    }

    /// Observes how many streams and watchers are open.
    pub(crate) fn observe_open(
        meter: &Meter,
        name: &'static str,
        description: &'static str,
        count: impl Fn() -> usize + Send + Sync + 'static,
    ) {
        meter
            .u64_observable_gauge(name)
            .with_description(description)
            .with_callback(move |gauge| gauge.observe(count() as u64, &[]))
            .build();
    }

    pub(crate) fn heartbeat(&self, kept: bool) {
        let result = if kept { "kept" } else { "refused" };
        self.heartbeats.add(1, &[KeyValue::new("result", result)]);
    }

    pub(crate) fn census(&self, rows: Vec<Census>) {
        *self.census.lock() = rows;
    }
}
