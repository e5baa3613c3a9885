//! The limits of a listener. Every one is set on purpose: what is left to
//! tonic's defaults is off there (resets, streams), and peers find out.

use std::time::Duration;

use crate::h2::ByteBudget;

/// How much a principal may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Calls a second in the long run.
    pub per_second: u32,
    /// Calls at once.
    pub burst: u32,
}

/// The limits of one listener. Begin with one of the constructors and change
/// what is different.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Whether HTTP/1.1 is spoken too, upgrades included.
    pub http1: bool,
    /// Connections at once; more are closed at once.
    pub max_connections: usize,
    /// Of these, how many one address may have (one /64 of IPv6); `None` where
    /// many peers stand behind one.
    pub connections_per_address: Option<usize>,
    /// Streams of one connection at once.
    pub max_concurrent_streams: u32,
    /// Bytes a stream may send ahead, where no budget says.
    pub stream_window: u32,
    /// What all streams of all listeners with the same one may send ahead; with
    /// it the listener is of the data plane, and has no ingress.
    pub budget: Option<ByteBudget>,
    /// Bytes a connection may send ahead. One far above the stream's keeps a
    /// stalled reader from stopping the others.
    pub connection_window: u32,
    /// Largest HTTP/2 frame, bytes.
    pub max_frame: u32,
    /// How often a silent connection is pinged.
    pub keepalive_interval: Duration,
    /// How long the ping's answer may take.
    pub keepalive_timeout: Duration,
    /// From the accept (or the end of the TLS handshake) to a whole HTTP/2
    /// preface.
    pub first_byte_deadline: Duration,
    /// From the preface to the first call of somebody known, on a listener of the data
    /// plane: whoever sends a large frame there, a byte at a time, pins it meanwhile.
    /// Longer than it may take to find out who calls. What is open to all, as health
    /// is, does not count.
    pub stranger_deadline: Duration,
    /// From the accept to the end of the TLS handshake.
    pub handshake_deadline: Duration,
    /// TLS handshakes that compute at once.
    pub concurrent_handshakes: usize,
    /// Resets a peer may make us send in the life of a connection.
    pub local_reset_streams: usize,
    /// Streams a peer may reset before they were looked at.
    pub pending_reset_streams: usize,
    /// Bytes of headers of one request.
    pub header_list_size: u32,
    /// What a unary call gets when the client sets no deadline.
    pub default_deadline: Duration,
    /// What a unary call gets at most, whatever the client asks for.
    pub longest_call: Duration,
    /// Unary calls at once, over all connections; more are shed.
    pub max_calls: usize,
    /// Streaming calls at once, over all connections; more are shed.
    pub max_streams: usize,
    /// Unary calls at once of callers that show no credential. They have these
    /// places and no others.
    pub max_stranger_calls: usize,
    /// The same for streams, and for all that the fallback answers.
    pub max_stranger_streams: usize,
    /// Of these calls, and of these streams, how many one address may have.
    pub strangers_per_address: Option<usize>,
    /// How long the message of a stranger's unary call may take to arrive.
    pub stranger_message: Duration,
    /// Per principal; where there is none per bearer that is passed on, and eight
    /// times as much per address. Services are exempt: they carry the calls of many.
    pub rate_limit: Option<RateLimit>,
    /// How long streams go on after a drain began; then they end with
    /// `SERVER_STOPPING`.
    pub stream_drain: Duration,
    /// How long a drain takes at most; then connections are dropped.
    pub drain: Duration,
}

const KIB: u32 = 1024;
const MIB: u32 = 1024 * KIB;
/// The largest that HTTP/2 can say.
const MAX_WINDOW: u32 = (1 << 31) - 1;

impl Profile {
    /// Between services: few, known peers that carry many calls.
    #[must_use]
    pub fn internal() -> Self {
        Self {
            http1: false,
            max_connections: 4096,
            connections_per_address: None,
            max_concurrent_streams: 4000,
            stream_window: MIB,
            budget: None,
            connection_window: MAX_WINDOW,
            max_frame: 64 * KIB,
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(5),
            first_byte_deadline: Duration::from_secs(5),
            stranger_deadline: Duration::from_secs(20),
            handshake_deadline: Duration::from_secs(5),
            concurrent_handshakes: 64,
            local_reset_streams: 16_384,
            pending_reset_streams: 1024,
            header_list_size: 16 * KIB,
            default_deadline: Duration::from_secs(30),
            // Nothing of ours asks for more than one minute; the rest is for
            // those who configure more.
            longest_call: Duration::from_secs(120),
            max_calls: 2048,
            max_streams: 65_536,
            max_stranger_calls: 256,
            max_stranger_streams: 1024,
            strangers_per_address: Some(64),
            stranger_message: Duration::from_secs(5),
            rate_limit: Some(RateLimit { per_second: 2000, burst: 4000 }),
            stream_drain: Duration::from_secs(1),
            drain: Duration::from_secs(20),
        }
    }

    /// For anyone on the network.
    #[must_use]
    pub fn public() -> Self {
        Self {
            http1: true,
            max_connections: 8192,
            connections_per_address: Some(1024),
            max_concurrent_streams: 256,
            connection_window: 16 * MIB,
            concurrent_handshakes: 32,
            local_reset_streams: 1024,
            pending_reset_streams: 20,
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            longest_call: Duration::from_secs(60),
            max_calls: 1024,
            max_streams: 16_384,
            rate_limit: Some(RateLimit { per_second: 500, burst: 2000 }),
            ..Self::internal()
        }
    }

    /// For agents: one connection each, thousands of streams, all
    /// authenticated.
    #[must_use]
    pub fn agent() -> Self {
        Self {
            max_connections: 16_384,
            // A wolf's sandboxes all come from its address, and a whole fleet
            // from that of its balancer: only so much that one cannot have all.
            connections_per_address: Some(12_288),
            max_streams: 262_144,
            // A chunk of a fast connection.
            max_frame: 256 * KIB,
            rate_limit: Some(RateLimit { per_second: 1000, burst: 8000 }),
            stream_drain: Duration::from_secs(600),
            drain: Duration::from_secs(610),
            ..Self::internal()
        }
    }

    /// gRPC inside a tunnel: the outer stream has a window too, so the inner
    /// ones are small.
    #[must_use]
    pub fn tunnelled() -> Self {
        Self {
            stream_window: 256 * KIB,
            connection_window: 4 * MIB,
            max_frame: 32 * KIB,
            ..Self::internal()
        }
    }

    /// Plain HTTP for scrapers and probes.
    pub(crate) fn admin() -> Self {
        Self {
            http1: true,
            max_connections: 64,
            max_concurrent_streams: 16,
            local_reset_streams: 64,
            pending_reset_streams: 20,
            rate_limit: None,
            stream_drain: Duration::ZERO,
            drain: Duration::from_secs(2),
            ..Self::internal()
        }
    }
}
