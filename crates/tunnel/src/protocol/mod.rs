//! The pure core of the tunnel: bytes and clocks go in, decisions come out. No
//! IO, no tasks, no clock of its own, so that it can be tested by properties.

pub mod backoff;
pub mod chunk;
pub mod decode;
pub mod dials;
pub mod drain;
pub mod encode;
pub mod heartbeat;
pub mod instances;
pub mod pace;
pub mod pool;
pub mod routes;

pub use backoff::Backoff;
pub use chunk::{CHUNK, Chunk, MOST_CHUNK};
pub use decode::{DataMode, DecodeError, Decoder, Event};
pub use dials::{DialId, DialTable};
pub use heartbeat::{Heartbeat, Life};
pub use instances::{AHEAD_MICROS, Admitted, InstanceLedger, Process, Refused};
pub use pace::Pace;
pub use pool::PoolSize;
pub use routes::{Forwarding, Next, Route, RouteTable, Stale};

/// The largest frame we take from a peer; data of other clients may come in
/// larger pieces than ours.
pub const MAX_FRAME: usize = 4 * 1024 * 1024;

/// The largest message that is not data: an `Open` with 16 KiB of early data
/// and room for its other fields.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// The most bytes of early data.
pub const MAX_EARLY_DATA: usize = 16 * 1024;

/// The tag byte of `data`, which has field 2 in all four messages of a
/// connection: length-delimited.
pub(crate) const DATA_TAG: u8 = 2 << 3 | 2;

/// A gRPC frame header: the compression flag and a length of 32 bits.
pub(crate) const GRPC_HEADER: usize = 5;
