//! What is measured by our own clients: the latency of one, and connections.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::quantiles::quantile;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n";

/// Median and 99th percentile, in microseconds, of one client's requests over
/// one connection, each sent when the one before was answered.
pub(super) fn one_client(to: SocketAddr, time: Duration) -> anyhow::Result<(f64, f64)> {
    let mut socket = open(to)?;
    let mut sample = Vec::new();
    let mut buffer = vec![0; 4096];
    let length = exchange(&mut socket, &mut buffer, None)?;
    let begin = Instant::now();
    while begin.elapsed() < time {
        let sent = Instant::now();
        exchange(&mut socket, &mut buffer, Some(length))?;
        sample.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    // The first tenth warms up.
    let warm = &sample[sample.len() / 10..];
    Ok((quantile(warm, 0.5), quantile(warm, 0.99)))
}

/// Sends a request and reads its answer, of this many bytes if that is known.
fn exchange(
    socket: &mut TcpStream,
    buffer: &mut [u8],
    length: Option<usize>,
) -> anyhow::Result<usize> {
    socket.write_all(REQUEST)?;
    let mut read = 0;
    loop {
        let count = socket.read(&mut buffer[read..])?;
        anyhow::ensure!(count > 0, "the connection ended");
        read += count;
        if read >= length.unwrap_or(200) {
            return Ok(read);
        }
    }
}

/// Connections in a second, of so many clients that each dial, send a byte,
/// wait for it to come back, and close.
pub(super) fn connections(to: SocketAddr, clients: usize, time: Duration) -> anyhow::Result<f64> {
    let begin = Instant::now();
    let threads: Vec<_> = (0..clients)
        .map(|_| {
            std::thread::spawn(move || -> anyhow::Result<u64> {
                let mut count = 0;
                while begin.elapsed() < time {
                    first_byte(to)?;
                    count += 1;
                }
                Ok(count)
            })
        })
        .collect();
    let mut total = 0;
    for thread in threads {
        total += thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
    }
    Ok(total as f64 / begin.elapsed().as_secs_f64())
}

/// The time from the connect to the byte that came back.
pub(super) fn first_byte(to: SocketAddr) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    let mut socket = open(to)?;
    socket.write_all(b"x")?;
    let mut byte = [0];
    socket.read_exact(&mut byte)?;
    Ok(begin.elapsed())
}

/// Seconds of so many round trips of a byte over one connection to an echo.
pub(super) fn round_trips(to: SocketAddr, count: usize) -> anyhow::Result<Vec<f64>> {
    let mut socket = open(to)?;
    let mut byte = [0];
    (0..count)
        .map(|_| {
            let begin = Instant::now();
            socket.write_all(b"x")?;
            socket.read_exact(&mut byte)?;
            Ok(begin.elapsed().as_secs_f64())
        })
        .collect()
}

/// A connection on which nothing takes longer than 10 s.
pub(super) fn open(to: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = TcpStream::connect(to)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.set_write_timeout(Some(Duration::from_secs(10)))?;
    Ok(socket)
}
