//! What a peer sees of the windows.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use http::{Request, Response};
use tokio::time::timeout;
use tonic::body::Body;

use super::client::Client;
use super::{ByteBudget, Settings, Times, serve};

const MIB: usize = 1024 * 1024;
/// Of the paused clock: well over the time for which windows stay small.
const SOON: Duration = Duration::from_secs(30);

pub(super) fn settings() -> Settings {
    Settings {
        connection_window: (1 << 31) - 1,
        max_frame: 64 * 1024,
        header_list_size: 16 * 1024,
        max_streams: 100,
        local_resets: 100,
        pending_resets: 100,
        keepalive: Duration::from_secs(10),
        keepalive_timeout: Duration::from_secs(5),
    }
}

/// A connection that ends by itself or after `leave`.
pub(super) fn leaving(leave: impl Future<Output = ()> + Send + 'static) -> Times {
    Times { leave: Box::pin(leave), end: Box::pin(pending()) }
}

/// What may be sent on a stream before anything of it was read.
fn room(stream: &mut SendStream<Bytes>) -> usize {
    stream.reserve_capacity(64 * MIB);
    stream.capacity()
}

async fn comes_to(stream: &mut SendStream<Bytes>, bytes: usize) {
    let grown = async {
        while room(stream) != bytes {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(timeout(SOON, grown).await.is_ok(), "{} and not {bytes}", room(stream));
}

/// The window goes down and up again for a stream that is there, with changes
/// that come faster than they are acknowledged.
async fn follows(budget: &ByteBudget, stream: &mut SendStream<Bytes>) {
    comes_to(stream, MIB).await;
    let held: Vec<_> = (0..1000).map(|_| budget.hold()).collect();
    comes_to(stream, 64 * 1024).await;
    drop(held);
    comes_to(stream, MIB).await;
    for _ in 0..20 {
        let held: Vec<_> = (0..1000).map(|_| budget.hold()).collect();
        tokio::task::yield_now().await;
        drop(held);
        tokio::task::yield_now().await;
    }
    budget.set_largest(u32::try_from(4 * MIB).unwrap());
    comes_to(stream, 4 * MIB).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_is_told_of_the_windows() {
    let (near, far) = tokio::io::duplex(256 * 1024);
    let budget = ByteBudget::new(30 * MIB as u64, u32::try_from(MIB).unwrap());
    let own = budget.clone();
    let server = tokio::spawn(async move {
        let never = |_| Box::pin(std::future::pending::<Response<Body>>());
        let spawn = |stream: super::Stream<_>| drop(tokio::spawn(stream.run()));
        serve(far, &settings(), &own, never, spawn, leaving(pending())).await
    });
    let (mut client, connection) = h2::client::Builder::new()
        .max_send_buffer_size(64 * MIB)
        .handshake::<_, Bytes>(near)
        .await
        .unwrap();
    let driver = tokio::spawn(connection);
    let (_answer, mut stream) = client.send_request(Request::new(()), false).unwrap();
    follows(&budget, &mut stream).await;
    driver.abort();
    assert!(timeout(SOON, server).await.is_ok(), "it ends with its connection");
}

#[tokio::test(start_paused = true)]
async fn a_server_is_told_of_the_windows() {
    let (near, far) = tokio::io::duplex(256 * 1024);
    let budget = ByteBudget::new(30 * MIB as u64, u32::try_from(MIB).unwrap());
    let near = Arc::new(parking_lot::Mutex::new(Some(near)));
    let connect = Box::new(move || {
        let io = near.lock().take();
        Box::pin(async move {
            let io: crate::server::BoxIo = Box::new(io.ok_or("only once")?);
            Ok(io)
        }) as futures::future::BoxFuture<'static, _>
    });
    let authority = http::uri::Authority::from_static("test");
    let scheme = http::uri::Scheme::HTTP;
    let client = Client::new(scheme, authority, connect, settings(), budget.clone());
    let calling = client.clone();
    let answer = tokio::spawn(async move { calling.call(Request::new(Body::empty())).await });
    let mut server = h2::server::Builder::new()
        .max_send_buffer_size(64 * MIB)
        .handshake::<_, Bytes>(far)
        .await
        .unwrap();
    let (_request, mut respond) = server.accept().await.unwrap().unwrap();
    let driver = tokio::spawn(async move { while server.accept().await.is_some() {} });
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    let answer = answer.await.unwrap();
    assert!(answer.is_ok());
    follows(&budget, &mut stream).await;
    driver.abort();
}
