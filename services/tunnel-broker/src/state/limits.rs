//! The bounds of a broker.

use std::time::Duration;

/// What the agent port takes of one agent, less what is parked and the control
/// stream.
const MOST_STREAMS: u32 = 3_800;
/// A connection at a lower rate waits for minutes after each frame.
const LEAST_RATE: u64 = 1024;
/// Windows below it hold no frame, and above it help nobody.
const WINDOWS: std::ops::RangeInclusive<u32> = 64 * 1024..=16 * 1024 * 1024;

/// How much of everything, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// How often each side of a session asks when it heard nothing; a peer that
    /// stays silent for half of it more is dead.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// Streams an agent keeps parked at rest.
    pub parked_target: u32,
    /// Dials of one agent that wait for a stream, and as many that wait for one
    /// agent to come.
    pub pending_dials: usize,
    /// Dials that wait for an agent to come, over all agents.
    pub waiting_dials: usize,
    /// How long a dial may take when the caller does not say.
    #[serde(with = "humantime_serde")]
    pub dial_timeout: Duration,
    /// How long a dial may take at most.
    #[serde(with = "humantime_serde")]
    pub max_dial_timeout: Duration,
    /// How long a dial id is good.
    #[serde(with = "humantime_serde")]
    pub dial_id_lifetime: Duration,
    /// How long the first message of a stream may take.
    #[serde(with = "humantime_serde")]
    pub first_message: Duration,
    /// Agents that may attach in a second; as many again at once.
    pub attaches_per_second: u32,
    /// The most connections at once, over all agents.
    pub max_connections: u32,
    /// The most connections of one tunnel at once; an agent may take fewer. One
    /// HTTP/2 connection carries all of them, and what is parked.
    pub connections_per_tunnel: u32,
    /// Dials to one tunnel in a second.
    pub dials_per_second: u32,
    /// Dials to one tunnel at once, after a rest.
    pub dials_burst: u32,
    /// Bytes a second of one tunnel, up and as many down, over all of its
    /// connections; 0 for no bound. 100 ms of it may pass at once.
    pub bytes_per_second: u64,
    /// Bytes that one connection may send ahead, each way; more where the way to
    /// the agents is long: at 40 ms a round trip 16 MiB are worth 400 MiB/s.
    pub stream_window: u32,
    /// Bytes of payload that all connections may send ahead together: the more
    /// there are, the less each may, down to 64 KiB. That much is what readers who
    /// stop can pin, and 64 KiB for each connection beyond some 4 a MiB.
    pub byte_budget: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(10),
            parked_target: 2,
            pending_dials: 100,
            waiting_dials: 10_000,
            dial_timeout: Duration::from_secs(30),
            max_dial_timeout: Duration::from_secs(600),
            dial_id_lifetime: Duration::from_secs(10),
            first_message: Duration::from_secs(5),
            attaches_per_second: 500,
            max_connections: 100_000,
            connections_per_tunnel: 3_800,
            dials_per_second: 20_000,
            dials_burst: 20_000,
            bytes_per_second: 0,
            stream_window: 2 * 1024 * 1024,
            byte_budget: 1024 * 1024 * 1024,
        }
    }
}

impl Limits {
    /// Every limit that makes no sense.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut need = |ok: bool, fault: &str| {
            if !ok {
                faults.push(format!("limits.{fault}"));
            }
        };
        need(self.heartbeat >= Duration::from_millis(100), "heartbeat must be at least 100ms");
        need(
            self.heartbeat <= Duration::from_secs(40),
            "heartbeat must be at most 40s, or balancers cut quiet agents",
        );
        need((1..=64).contains(&self.parked_target), "parked_target must be 1 to 64");
        need(self.pending_dials >= 1, "pending_dials must be at least 1");
        need(self.waiting_dials >= 1, "waiting_dials must be at least 1");
        need(!self.dial_timeout.is_zero(), "dial_timeout must not be zero");
        need(
            self.max_dial_timeout >= self.dial_timeout,
            "max_dial_timeout must not be below dial_timeout",
        );
        need(!self.dial_id_lifetime.is_zero(), "dial_id_lifetime must not be zero");
        need(!self.first_message.is_zero(), "first_message must not be zero");
        need(self.attaches_per_second >= 1, "attaches_per_second must be at least 1");
        need(self.max_connections >= 1, "max_connections must be at least 1");
        need(
            (1..=MOST_STREAMS).contains(&self.connections_per_tunnel),
            "connections_per_tunnel must be 1 to 3800: the agent port takes 4,000 streams of an agent",
        );
        need(self.dials_per_second >= 1, "dials_per_second must be at least 1");
        need(self.dials_burst >= 1, "dials_burst must be at least 1");
        need(
            self.bytes_per_second == 0 || self.bytes_per_second >= LEAST_RATE,
            "bytes_per_second must be 0 for no bound, or at least 1024",
        );
        need(
            WINDOWS.contains(&self.stream_window),
            "stream_window must be 65536 to 16777216 bytes",
        );
        need(
            self.byte_budget >= u64::from(self.stream_window),
            "byte_budget must not be below stream_window",
        );
        faults
    }
}
