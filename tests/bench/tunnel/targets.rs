//! What the tunnels lead to: a web server with one short answer, and an echo of
//! one byte. Plain sockets, so that they cost as little as may be.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// 200 bytes of body.
const BODY: [u8; 200] = [b'x'; 200];

/// Serves both until the process ends.
pub(super) async fn serve(http: SocketAddr, echo: SocketAddr) -> anyhow::Result<()> {
    let (http, echo) = (TcpListener::bind(http).await?, TcpListener::bind(echo).await?);
    tokio::try_join!(accept(http, answer), accept(echo, one_byte))?;
    Ok(())
}

async fn accept<F, Fut>(listener: TcpListener, each: F) -> io::Result<()>
where
    F: Fn(TcpStream) -> Fut,
    Fut: Future<Output = io::Result<()>> + Send + 'static,
{
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        tokio::spawn(each(socket));
    }
}

/// Answers each request, which has no body, in the order they come.
async fn answer(mut socket: TcpStream) -> io::Result<()> {
    let mut response =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", BODY.len()).into_bytes();
    response.extend_from_slice(&BODY);
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        if socket.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        let mut out = Vec::new();
        let mut begin = 0;
        while let Some(length) = end_of_head(&buffer[begin..]) {
            begin += length;
            out.extend_from_slice(&response);
        }
        buffer.drain(..begin);
        if !out.is_empty() {
            socket.write_all(&out).await?;
        }
    }
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

async fn one_byte(mut socket: TcpStream) -> io::Result<()> {
    let mut byte = [0];
    while socket.read(&mut byte).await? > 0 {
        socket.write_all(&byte).await?;
    }
    Ok(())
}
