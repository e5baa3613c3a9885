//! A peer that is told to open no more streams, or to send less far ahead, and never
//! says that it heard: frames by hand, as libraries answer every ping.

use std::time::Duration;

use http::Response;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::{sleep, timeout};
use tonic::body::Body;

use super::tests::{leaving, settings};
use super::{ByteBudget, serve};

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const REFUSED_STREAM: u32 = 7;

struct Peer(DuplexStream);

impl Peer {
    async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).await.unwrap();
    }

    /// `GET http:///` with nothing behind it.
    async fn open(&mut self, stream: u32) {
        self.frame(HEADERS, 0x5, stream, &[0x82, 0x86, 0x84]).await;
    }

    /// For a hundred seconds, as far as pings tell, or until it is ended.
    async fn lives<T>(&mut self, server: &tokio::task::JoinHandle<T>) {
        for _ in 0..20 {
            sleep(Duration::from_secs(5)).await;
            if server.is_finished() {
                return;
            }
            self.frame(PING, 0, 0, &[0; 8]).await;
        }
    }

    /// The next frame of a kind: its stream and its payload.
    async fn next(&mut self, kind: u8) -> (u32, Vec<u8>) {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            self.0.read_exact(&mut payload).await.unwrap();
            if head[3] == kind {
                let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                return (stream, payload);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_say_that_it_heard_opens_streams_for_seconds_and_no_longer() {
    let (near, far) = tokio::io::duplex(256 * 1024);
    let server = tokio::spawn(async move {
        let handle = |_| Box::pin(async { Response::new(Body::empty()) });
        let spawn = |stream: super::Stream<_>| drop(tokio::spawn(stream.run()));
        let times = leaving(sleep(Duration::from_secs(1)));
        serve(far, &settings(), &ByteBudget::default(), handle, spawn, times).await
    });
    let mut peer = Peer(near);
    peer.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    peer.frame(SETTINGS, 0, 0, &[]).await;
    peer.open(1).await;
    assert_eq!(peer.next(HEADERS).await.0, 1);
    // Told to go, and what it opens may have been on its way.
    peer.next(GOAWAY).await;
    peer.open(3).await;
    assert_eq!(peer.next(HEADERS).await.0, 3);
    sleep(Duration::from_secs(6)).await;
    for stream in [5, 7] {
        peer.open(stream).await;
        let refused = timeout(Duration::from_secs(1), peer.next(RST_STREAM)).await.unwrap();
        assert_eq!(refused, (stream, REFUSED_STREAM.to_be_bytes().to_vec()));
    }
    drop(peer);
    let _ = timeout(Duration::from_secs(1), server).await.expect("it ends with its peer");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_take_a_smaller_window_is_ended() {
    for acknowledges in [true, false] {
        let (near, far) = tokio::io::duplex(256 * 1024);
        let budget = ByteBudget::new(30 << 20, 1 << 20);
        let own = budget.clone();
        let server = tokio::spawn(async move {
            let never = |_| Box::pin(std::future::pending::<Response<Body>>());
            let spawn = |stream: super::Stream<_>| drop(tokio::spawn(stream.run()));
            let times = leaving(std::future::pending());
            serve(far, &settings(), &own, never, spawn, times).await
        });
        let mut peer = Peer(near);
        peer.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        peer.frame(SETTINGS, 0, 0, &[]).await;
        // It needs this one to send ahead at all.
        peer.next(SETTINGS).await;
        peer.frame(SETTINGS, ACK, 0, &[]).await;
        let held: Vec<_> = (0..1000).map(|_| budget.hold()).collect();
        while peer.next(SETTINGS).await.1.is_empty() {
            // That is an acknowledgement.
        }
        if acknowledges {
            peer.frame(SETTINGS, ACK, 0, &[]).await;
        }
        peer.lives(&server).await;
        assert_eq!(server.is_finished(), !acknowledges);
        if acknowledges {
            // Nor may it leave the question open that was asked to find out.
            drop(held);
            peer.lives(&server).await;
        }
        assert!(server.is_finished());
        let error = server.await.unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(h2::Reason::SETTINGS_TIMEOUT));
    }
}
