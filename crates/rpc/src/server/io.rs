//! One type for every byte stream that a server serves.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// A byte stream, whatever carries it.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Io for T {}

/// Boxed, so that the HTTP machinery is compiled once.
pub(crate) type BoxIo = Box<dyn Io>;

/// Which protocol a peer began to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// The whole preface was there.
    Http2,
    /// Something else was; HTTP/1.1 if anything.
    Other,
}

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads the first bytes until it is clear what is spoken. Cancel-safe only in
/// that the connection must then be closed.
///
/// # Errors
/// When the peer closes or breaks first.
pub(crate) async fn sniff(mut io: BoxIo) -> io::Result<(Protocol, Rewound)> {
    let mut first = [0; PREFACE.len()];
    let mut filled = 0;
    while filled < first.len() {
        let read = io.read(&mut first[filled..]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        if first[..filled] != PREFACE[..filled] {
            return Ok((Protocol::Other, Rewound::new(&first[..filled], io)));
        }
    }
    Ok((Protocol::Http2, Rewound::new(&first, io)))
}

/// A stream with the bytes put back that were read from it.
pub(crate) struct Rewound {
    first: Bytes,
    io: BoxIo,
}

impl Rewound {
    fn new(first: &[u8], io: BoxIo) -> Self {
        Self { first: Bytes::copy_from_slice(first), io }
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.first.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let n = this.first.len().min(buf.remaining());
        buf.put_slice(&this.first[..n]);
        this.first.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    async fn sniffed(chunks: &[&[u8]]) -> (Protocol, Vec<u8>) {
        let (mut far, near) = tokio::io::duplex(64);
        let chunks: Vec<Vec<u8>> = chunks.iter().map(|c| c.to_vec()).collect();
        let writer = tokio::spawn(async move {
            for chunk in chunks {
                far.write_all(&chunk).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let (protocol, mut io) = sniff(Box::new(near)).await.unwrap();
        let mut all = Vec::new();
        io.read_to_end(&mut all).await.unwrap();
        writer.await.unwrap();
        (protocol, all)
    }

    #[tokio::test]
    async fn nothing_of_what_was_read_is_lost() {
        let (protocol, all) = sniffed(&[&PREFACE[..3], &PREFACE[3..], b"rest"]).await;
        assert_eq!(protocol, Protocol::Http2);
        assert_eq!(all, [PREFACE.as_slice(), b"rest"].concat());
        let (protocol, all) = sniffed(&[b"P", b"OST / HTTP/1.1\r\n"]).await;
        assert_eq!(protocol, Protocol::Other);
        assert_eq!(all, b"POST / HTTP/1.1\r\n");
    }
}
