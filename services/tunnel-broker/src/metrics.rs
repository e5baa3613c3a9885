//! What the broker counts.

use std::sync::{Arc, Weak};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram};
use wolfpack_runtime::Telemetry;
use wolfpack_tunnel::splice::Direction;
use wolfpack_types::Fault;

use crate::exposure::Exposures;
use crate::state::Broker;

/// Instruments of the data path.
pub struct Metrics {
    dials: Counter<u64>,
    dial_seconds: Histogram<f64>,
    ended: Counter<u64>,
}

impl Metrics {
    /// Instruments under the broker's own meter; gauges read `broker` as long
    /// as it lives.
    #[must_use]
    pub fn new(telemetry: &Telemetry, broker: &Arc<Broker>) -> Self {
        let meter = telemetry.meter();
        type Count = fn(&Broker) -> u64;
        let gauges: [(&'static str, &'static str, Count); 4] = [
            ("tunnel_attached", "Tunnels that are attached.", Broker::attached),
            ("tunnel_parked_streams", "Streams that are parked.", Broker::parked),
            ("tunnel_connections", "Connections open or being opened.", Broker::connected),
            ("tunnel_waiting_dials", "Dials that wait for an agent or a stream.", Broker::waiting),
        ];
        for (name, description, count) in gauges {
            let broker = Arc::downgrade(broker);
            meter
                .u64_observable_gauge(name)
                .with_description(description)
                .with_callback(move |gauge| {
                    if let Some(broker) = broker.upgrade() {
                        gauge.observe(count(&broker), &[]);
                    }
                })
                .build();
        }
        let weak: Weak<Broker> = Arc::downgrade(broker);
        meter
            .u64_observable_counter("tunnel_carried")
            .with_unit("By")
            .with_description("Bytes passed on, by direction: up to the agent, down to the caller.")
            .with_callback(move |counter| {
                if let Some(broker) = weak.upgrade() {
                    for direction in [Direction::Up, Direction::Down] {
                        let label = KeyValue::new("direction", direction.as_str());
                        counter.observe(broker.totals.bytes(direction), &[label]);
                    }
                }
            })
            .build();
        let weak: Weak<Broker> = Arc::downgrade(broker);
        meter
            .u64_observable_counter("tunnel_throttled")
            .with_description("Waits of connections for the rate of their tunnel, by direction.")
            .with_callback(move |counter| {
                if let Some(broker) = weak.upgrade() {
                    for direction in [Direction::Up, Direction::Down] {
                        let label = KeyValue::new("direction", direction.as_str());
                        counter.observe(broker.totals.throttled(direction), &[label]);
                    }
                }
            })
            .build();
        Self {
            dials: meter.u64_counter("tunnel_dials").with_description("Dials by result.").build(),
            dial_seconds: meter
                .f64_histogram("tunnel_dial")
                .with_unit("s")
                .with_description("Time from a dial to its result.")
                .with_boundaries(vec![
                    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0, 30.0,
                ])
                .build(),
            ended: meter
                .u64_counter("tunnel_connections_ended")
                .with_description("Connections that ended, by reason; OK when both sides finished.")
                .build(),
        }
    }

    /// Adds a gauge of the exposures, as long as they live.
    pub fn watch_exposures(&self, telemetry: &Telemetry, exposures: &Arc<Exposures>) {
        let weak = exposures.downgrade();
        telemetry
            .meter()
            .u64_observable_gauge("tunnel_exposures")
            .with_description("Ports of the broker that lead to targets.")
            .with_callback(move |gauge| {
                if let Some(exposures) = weak.upgrade() {
                    gauge.observe(exposures.len() as u64, &[]);
                }
            })
            .build();
    }

    /// A dial has its result: `OK` or a reason of the table.
    pub fn dialed(&self, result: &'static str, took: Duration) {
        let labels = [KeyValue::new("result", result)];
        self.dials.add(1, &labels);
        self.dial_seconds.record(took.as_secs_f64(), &labels);
    }

    /// A connection is over.
    pub fn connection_ended(&self, fault: Option<&Fault>) {
        let reason = fault.map_or("OK", |fault| fault.reason.as_str());
        self.ended.add(1, &[KeyValue::new("reason", reason)]);
    }
}
