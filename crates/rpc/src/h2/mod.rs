//! HTTP/2 of the data plane, straight on the h2 crate. Tunnels need what hyper
//! does not hand out: windows that change while a connection lives (the byte
//! budget), how much waits to be sent, and the shortest way of a frame. All
//! other listeners and channels keep hyper (ADR 20).

mod alive;
mod budget;
mod chores;
mod client;
mod receive;
mod send;
mod server;

pub use budget::{ByteBudget, Hold};
pub(crate) use client::Client;
pub(crate) use server::{Stream, Times, serve};

use std::time::Duration;

/// Bytes of one stream that wait to be written to the connection when it is
/// looked at. What is more in one piece, as a full chunk of a tunnel is, goes when
/// nothing waits: then a congested connection holds it and the next for each stream.
const SEND_BUFFER: usize = 32 * 1024;
/// Streams that we reset and still remember, so that what was under way to them
/// is no fault of the peer.
const REMEMBERED_RESETS: usize = 1024;

/// What a connection is bound by; the same at both ends.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Bytes all streams together may send ahead.
    pub(crate) connection_window: u32,
    /// Largest frame that is taken, bytes.
    pub(crate) max_frame: u32,
    /// Bytes of the headers of one message.
    pub(crate) header_list_size: u32,
    /// Streams at once that the peer may open.
    pub(crate) max_streams: u32,
    /// Resets a peer may make us send.
    pub(crate) local_resets: usize,
    /// Streams a peer may reset before they were looked at.
    pub(crate) pending_resets: usize,
    /// How long nothing may be heard before the peer is asked.
    pub(crate) keepalive: Duration,
    /// How long its answer may take.
    pub(crate) keepalive_timeout: Duration,
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod withheld;
