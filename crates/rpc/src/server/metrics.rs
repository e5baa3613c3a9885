//! What a server counts. Labels are bounded: methods are those of the policy
//! table or `_OTHER`, everything else is one of a few words.

use std::time::{Duration, SystemTime};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter, UpDownCounter};

/// Instruments of one server; clones share them.
#[derive(Clone)]
pub(crate) struct Metrics {
    calls: Counter<u64>,
    duration: Histogram<f64>,
    active: UpDownCounter<i64>,
    panics: Counter<u64>,
    connections: UpDownCounter<i64>,
    refused: Counter<u64>,
    reloads: Counter<u64>,
    expires: Gauge<u64>,
}

/// Why a connection ended before its first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Too many connections.
    ConnectionLimit,
    /// Too many connections of one address.
    AddressLimit,
    /// No whole preface in time, or another protocol.
    Preface,
    /// No whole TLS handshake in time.
    HandshakeTimeout,
    /// The handshake failed: no certificate, a wrong one, no common protocol.
    HandshakeFailed,
    /// The system would not accept, for lack of descriptors mostly.
    Accept,
}

impl Refusal {
    fn as_str(self) -> &'static str {
        match self {
            Self::ConnectionLimit => "connection_limit",
            Self::AddressLimit => "address_limit",
            Self::Preface => "preface",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HandshakeFailed => "handshake_failed",
            Self::Accept => "accept",
        }
    }
}

impl Metrics {
    pub(crate) fn new(meter: &Meter) -> Self {
        Self {
            calls: meter
                .u64_counter("rpc.server.calls")
                .with_description("Calls that ended, refused ones included")
                .build(),
            duration: meter
                .f64_histogram("rpc.server.call.duration")
                .with_unit("s")
                .with_description("From the headers of a call to its status")
                .with_boundaries(vec![
                    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
                    30.0, 60.0,
                ])
                .build(),
            active: meter
                .i64_up_down_counter("rpc.server.active_calls")
                .with_description("Calls that run now")
                .build(),
            panics: meter
                .u64_counter("rpc.server.panics")
                .with_description("Handlers that panicked")
                .build(),
            connections: meter
                .i64_up_down_counter("rpc.server.connections")
                .with_description("Open connections")
                .build(),
            refused: meter
                .u64_counter("rpc.server.connections.refused")
                .with_description("Connections that ended before their first request, by reason")
                .build(),
            reloads: meter
                .u64_counter("tls.reloads")
                .with_description("Times that changed TLS files were taken or could not be")
                .build(),
            expires: meter
                .u64_gauge("tls.certificate.remaining")
                .with_unit("s")
                .with_description("Time left of the certificate in use")
                .build(),
        }
    }

    pub(crate) fn call_began(&self, method: &'static str) {
        self.active.add(1, &[KeyValue::new("rpc.method", method)]);
    }

    pub(crate) fn call_ended(&self, method: &'static str, code: &'static str, took: Duration) {
        let method = KeyValue::new("rpc.method", method);
        self.active.add(-1, std::slice::from_ref(&method));
        let labels = [method, KeyValue::new("rpc.response.status_code", code)];
        self.calls.add(1, &labels);
        self.duration.record(took.as_secs_f64(), &labels);
    }

    pub(crate) fn panicked(&self, method: &'static str) {
        self.panics.add(1, &[KeyValue::new("rpc.method", method)]);
    }

    pub(crate) fn connected(&self) {
        self.connections.add(1, &[]);
    }

    pub(crate) fn disconnected(&self) {
        self.connections.add(-1, &[]);
    }

    pub(crate) fn refused(&self, why: Refusal) {
        self.refused.add(1, &[KeyValue::new("reason", why.as_str())]);
    }

    pub(crate) fn reloaded(&self, worked: bool) {
        self.reloads.add(1, &[KeyValue::new("result", if worked { "taken" } else { "failed" })]);
    }

    pub(crate) fn certificate(&self, file: &str, expires: SystemTime) {
        let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
        self.expires.record(left.as_secs(), &[KeyValue::new("file", file.to_owned())]);
    }
}

/// The name of a status code as gRPC writes it.
pub(crate) fn code_name(code: &[u8]) -> &'static str {
    match code {
        b"0" => "OK",
        b"1" => "CANCELLED",
        b"3" => "INVALID_ARGUMENT",
        b"4" => "DEADLINE_EXCEEDED",
        b"5" => "NOT_FOUND",
        b"6" => "ALREADY_EXISTS",
        b"7" => "PERMISSION_DENIED",
        b"8" => "RESOURCE_EXHAUSTED",
        b"9" => "FAILED_PRECONDITION",
        b"10" => "ABORTED",
        b"11" => "OUT_OF_RANGE",
        b"12" => "UNIMPLEMENTED",
        b"13" => "INTERNAL",
        b"14" => "UNAVAILABLE",
        b"15" => "DATA_LOSS",
        b"16" => "UNAUTHENTICATED",
        _ => "UNKNOWN",
    }
}
