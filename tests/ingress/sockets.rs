//! WebSockets (RFC 6455), as much of them as a client and an echo need: frames
//! of text of less than 64 KiB, and the close.

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::fleet::{Fleet, SOON};
use crate::program::bare;

const TEXT: u8 = 1;
const CLOSE: u8 = 8;

fn accept(key: &str) -> String {
    let key = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes()))
}

/// One end of a socket.
struct Socket {
    io: TokioIo<Upgraded>,
    /// Clients mask what they send.
    mask: Option<[u8; 4]>,
}

impl Socket {
    async fn send(&mut self, kind: u8, payload: &[u8]) -> std::io::Result<()> {
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        let length = u16::try_from(payload.len()).expect("short");
        let mut frame = vec![0x80 | kind];
        match u8::try_from(length) {
            Ok(short) if short < 126 => frame.push(masked | short),
            _ => {
                frame.push(masked | 126);
                frame.extend(length.to_be_bytes());
            }
        }
        let mask = self.mask.unwrap_or_default();
        frame.extend(self.mask.iter().flatten());
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.io.write_all(&frame).await
    }

    async fn receive(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        let (kind, length) = (self.io.read_u8().await?, self.io.read_u8().await?);
        assert_eq!(kind & 0xf0, 0x80, "whole, and nothing that was not agreed on");
        let masked = length & 0x80 != 0;
        assert_ne!(masked, self.mask.is_some(), "only a client masks");
        let length = match length & 0x7f {
            126 => self.io.read_u16().await?.into(),
            127 => panic!("not that long"),
            short => short.into(),
        };
        let mut mask = [0; 4];
        if masked {
            self.io.read_exact(&mut mask).await?;
        }
        let mut payload = vec![0; length];
        self.io.read_exact(&mut payload).await?;
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        Ok((kind & 0xf, payload))
    }
}

/// The program's side: gives back what it gets, the close included.
pub(crate) async fn serve(request: Request) -> Response {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let (Some("websocket"), Some(key)) = (header("upgrade"), header("sec-websocket-key")) else {
        return bare(StatusCode::UPGRADE_REQUIRED);
    };
    let mut response = bare(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert("upgrade", "websocket".parse().unwrap());
    headers.insert("connection", "upgrade".parse().unwrap());
    headers.insert("sec-websocket-accept", accept(key).parse().unwrap());
    tokio::spawn(async move {
        let io = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
        let mut socket = Socket { io, mask: None };
        while let Ok((kind, payload)) = socket.receive().await {
            if socket.send(kind, &payload).await.is_err() || kind == CLOSE {
                return;
            }
        }
    });
    response
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_socket_gives_back_what_it_gets_and_closes() {
    let fleet = Fleet::start().await;
    let sandbox = fleet.sandbox().await;
    let link = fleet.link(&sandbox).await;
    // Of a page of the sandbox's own; the program asks for more than a GET.
    let by_link = fleet
        .by_host(&sandbox, "/socket")
        .header("cookie", format!("wp_link={link}"))
        .header("origin", format!("http://{}", sandbox.host()));
    assert_eq!(fleet.ask(fleet.by_path(&sandbox, "/socket")).await.status, 426);
    for request in [fleet.by_path(&sandbox, "/socket"), by_link] {
        let key = STANDARD.encode(b"sixteen bytes !!");
        let request = request
            .header("upgrade", "websocket")
            .header("connection", "Upgrade")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", &key)
            .body(Body::empty())
            .unwrap();
        let response = fleet.send(request).await;
        assert_eq!(response.status(), 101, "{response:?}");
        assert_eq!(response.headers()["sec-websocket-accept"], accept(&key));
        let io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        let mut socket = Socket { io, mask: Some([7, 250, 0, 91]) };
        for length in [0, 1, 125, 126, 4096, 65_535] {
            let text = vec![b'a' + u8::try_from(length % 26).unwrap(); length];
            socket.send(TEXT, &text).await.unwrap();
            let back = timeout(SOON, socket.receive()).await.expect("it echoes").unwrap();
            assert_eq!(back, (TEXT, text));
        }
        // Both close, and then the connection is over.
        socket.send(CLOSE, &1000_u16.to_be_bytes()).await.unwrap();
        let back = timeout(SOON, socket.receive()).await.expect("it closes").unwrap();
        assert_eq!(back, (CLOSE, 1000_u16.to_be_bytes().to_vec()));
        let end = timeout(SOON, socket.io.read(&mut [0; 1])).await.expect("it ends");
        assert_eq!(end.unwrap(), 0);
    }
}
