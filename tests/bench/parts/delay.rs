//! A path between two ends that is long and wide: a relay that holds what comes
//! for a time and bounds nothing else. Threads and no runtime, whose timers are
//! a millisecond coarse.
#![allow(clippy::disallowed_methods, reason = "a thread that sleeps is what this is made of")]

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Bytes that may be under way, each way of each connection: what 12 GiB/s are
/// in 20 ms, so the path has no bandwidth of its own.
const UNDER_WAY: usize = 256 * 1024 * 1024;
const READ: usize = 256 * 1024;

/// A relay from `listen` to `to`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Delay {
    pub(crate) listen: SocketAddr,
    pub(crate) to: SocketAddr,
    /// How long each byte takes, each way, in milliseconds.
    pub(crate) one_way_ms: u64,
}

/// Relays until the process is killed.
pub(super) fn run(part: &Delay) -> anyhow::Result<()> {
    let listener = TcpListener::bind(part.listen)?;
    let delay = Duration::from_millis(part.one_way_ms);
    for near in listener.incoming() {
        let near = near?;
        // To connect takes no time here: it has no round trip on loopback, and the
        // tunnel's own was made before.
        let Ok(far) = TcpStream::connect(part.to) else { continue };
        for (from, to) in [(&near, &far), (&far, &near)] {
            from.set_nodelay(true)?;
            one_way(from.try_clone()?, to.try_clone()?, delay)?;
        }
    }
    Ok(())
}

/// Starts the two threads of one direction; they end with the connection.
fn one_way(mut from: TcpStream, mut to: TcpStream, delay: Duration) -> io::Result<()> {
    let line = Arc::new(Line::default());
    let fed = line.clone();
    thread::Builder::new().name("delay-in".to_owned()).spawn(move || {
        let mut buffer = vec![0; READ];
        loop {
            let read = from.read(&mut buffer).unwrap_or(0);
            let due = Instant::now() + delay;
            if !fed.put(due, &buffer[..read]) || read == 0 {
                return;
            }
        }
    })?;
    thread::Builder::new().name("delay-out".to_owned()).spawn(move || {
        while let Some((due, chunk)) = line.take() {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if chunk.is_empty() || to.write_all(&chunk).is_err() {
                break;
            }
        }
        line.close();
        let _ = to.shutdown(Shutdown::Write);
    })?;
    Ok(())
}

/// What is under way.
#[derive(Default)]
struct Line {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    chunks: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    closed: bool,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Waits for room, and puts a chunk in; an empty one is the end. `false` when
    /// nobody takes any more.
    fn put(&self, due: Instant, chunk: &[u8]) -> bool {
        let mut state = self.lock();
        while state.bytes >= UNDER_WAY && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        state.bytes += chunk.len();
        state.chunks.push_back((due, chunk.to_vec()));
        self.changed.notify_all();
        !state.closed
    }

    /// Waits for the next chunk.
    fn take(&self) -> Option<(Instant, Vec<u8>)> {
        let mut state = self.lock();
        loop {
            if let Some((due, chunk)) = state.chunks.pop_front() {
                state.bytes -= chunk.len();
                self.changed.notify_all();
                return Some((due, chunk));
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_whole_late_and_to_its_end() {
        let (target, listen) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), crate::processes::free());
        let to = target.local_addr().unwrap();
        thread::spawn(move || run(&Delay { listen, to, one_way_ms: 20 }));
        let echo = thread::spawn(move || {
            // The first one finds out whether the relay listens.
            let (mut socket, _) = target.accept().unwrap();
            let mut all = Vec::new();
            socket.read_to_end(&mut all).unwrap();
            socket.write_all(&all).unwrap();
        });
        let mut socket = loop {
            match TcpStream::connect(listen) {
                Ok(socket) => break socket,
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        };
        let sent: Vec<u8> = (0..3_000_000_u32).map(|at| at.to_le_bytes()[1]).collect();
        let begun = Instant::now();
        socket.write_all(&sent).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let mut back = Vec::new();
        socket.read_to_end(&mut back).unwrap();
        assert!(back == sent, "{} bytes came back", back.len());
        assert!(begun.elapsed() >= Duration::from_millis(40));
        echo.join().unwrap();
    }
}
