//! From a client's connection to the engine and back.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tracing::debug;
use wolfpack_runtime::Supervisor;

use super::gate::Gate;
use super::refusal::refuse;
use super::restricted;

/// Connections at a time; the next one waits in the socket's queue.
const CLIENTS: usize = 1024;
/// An accept that failed for want of descriptors fails again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes on their way, each way.
const BUFFER: usize = 64 * 1024;
/// How often a half-closed connection is looked at.
const LINGER_POLL: Duration = Duration::from_secs(1);
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Serves clients until the supervisor's token.
pub fn serve(listener: UnixListener, gate: Gate, supervisor: &Supervisor) {
    let (stop, spawner) = (supervisor.token(), supervisor.clone());
    let accepting = async move {
        let permits = Arc::new(Semaphore::new(CLIENTS));
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (gate, stop) = (gate.clone(), spawner.token());
                    spawner.spawn("docker client", async move {
                        tokio::select! {
                            () = attend(stream, &gate) => {}
                            () = stop.cancelled() => {}
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    debug!(%error, "a docker client was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    supervisor.spawn("docker socket", async move {
        tokio::select! {
            () = accepting => {}
            () = stop.cancelled() => {}
        }
    });
}

/// One client. Nothing starts before it says something: whoever only looks
/// whether somebody listens shall not start an engine.
async fn attend(client: UnixStream, gate: &Gate) {
    if !says_something(&client).await {
        return;
    }
    match gate.engine().await {
        Ok(ready) if ready.restricted.borrow().is_some() => {
            restricted::serve(client, ready).await;
        }
        Ok(ready) => {
            let connecting = UnixStream::connect(&ready.socket);
            match tokio::time::timeout(CONNECT_DEADLINE, connecting).await {
                Ok(Ok(engine)) => splice(client, engine).await,
                Ok(Err(error)) => {
                    refuse(
                        client,
                        &format!("the sandbox's engine has just gone: {error}; try again"),
                    )
                    .await;
                }
                Err(_elapsed) => refuse(client, "the sandbox's engine takes no connections").await,
            }
        }
        Err(refusal) => refuse(client, &refusal.message).await,
    }
}

/// Waits for the client's first byte, and leaves it unread; false when there
/// is none to come.
async fn says_something(client: &UnixStream) -> bool {
    let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
    let peek = || {
        let (count, _) = rustix::net::recv(client, &mut [0_u8; 1][..], flags)?;
        Ok(count)
    };
    matches!(client.async_io(Interest::READABLE, peek).await, Ok(1..))
}

/// Copies both ways until both have ended. An end is passed on, so the other
/// way goes on: attached streams live half closed.
pub(super) async fn splice(client: UnixStream, engine: UnixStream) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_engine, mut to_engine) = engine.into_split();
    let mut up = Box::pin(copy(&mut from_client, &mut to_engine));
    let mut down = Box::pin(copy(&mut from_engine, &mut to_client));
    let up_first = tokio::select! {
        () = &mut up => true,
        () = &mut down => false,
    };
    // What one side still sends has a reader, unless the other side is gone.
    if up_first {
        drop(up);
        tokio::select! {
            () = down => {}
            () = hung_up(from_client.as_ref()) => {}
        }
    } else {
        drop(down);
        tokio::select! {
            () = up => {}
            () = hung_up(from_engine.as_ref()) => {}
        }
    }
}

async fn copy(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// Waits until nobody holds the other end any more.
async fn hung_up(stream: &UnixStream) {
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        tokio::time::sleep(LINGER_POLL).await;
        let mut poll = [rustix::event::PollFd::new(stream, rustix::event::PollFlags::empty())];
        let asked = rustix::event::poll(&mut poll, Some(&now));
        if asked.is_ok() && poll[0].revents().contains(rustix::event::PollFlags::HUP) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(stream: &mut UnixStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        bytes
    }

    #[tokio::test]
    async fn whoever_only_looks_says_nothing() {
        let (user, client) = UnixStream::pair().unwrap();
        drop(user);
        assert!(!says_something(&client).await);
        let (mut user, client) = UnixStream::pair().unwrap();
        user.write_all(b"G").await.unwrap();
        drop(user);
        assert!(says_something(&client).await);
    }

    #[tokio::test]
    async fn a_half_that_has_ended_leaves_the_other_open() {
        let (mut user, client) = UnixStream::pair().unwrap();
        let (engine, mut docker) = UnixStream::pair().unwrap();
        let splicing = tokio::spawn(splice(client, engine));
        user.write_all(b"in").await.unwrap();
        user.shutdown().await.unwrap();
        assert_eq!(all(&mut docker).await, b"in");
        // More than fits into the sockets, so it is written while it is read.
        let answering = tokio::spawn(async move {
            docker.write_all(&vec![9; 1 << 20]).await.unwrap();
            docker.shutdown().await.unwrap();
        });
        assert_eq!(all(&mut user).await.len(), 1 << 20);
        answering.await.unwrap();
        splicing.await.unwrap();
    }

    #[tokio::test]
    async fn the_other_half_too() {
        let (mut user, client) = UnixStream::pair().unwrap();
        let (engine, mut docker) = UnixStream::pair().unwrap();
        let splicing = tokio::spawn(splice(client, engine));
        docker.write_all(b"out").await.unwrap();
        docker.shutdown().await.unwrap();
        assert_eq!(all(&mut user).await, b"out");
        tokio::time::sleep(LINGER_POLL * 2).await;
        user.write_all(b"late").await.unwrap();
        user.shutdown().await.unwrap();
        assert_eq!(all(&mut docker).await, b"late");
        splicing.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_has_gone_ends_the_connection() {
        let (user, client) = UnixStream::pair().unwrap();
        let (engine, mut docker) = UnixStream::pair().unwrap();
        let splicing = tokio::spawn(splice(client, engine));
        drop(user);
        let limit = Duration::from_secs(20);
        tokio::time::timeout(limit, splicing).await.expect("it ends").unwrap();
        assert!(all(&mut docker).await.is_empty());
    }

    #[tokio::test]
    async fn an_engine_that_has_gone_ends_the_connection() {
        let (mut user, client) = UnixStream::pair().unwrap();
        let (engine, docker) = UnixStream::pair().unwrap();
        let splicing = tokio::spawn(splice(client, engine));
        drop(docker);
        assert!(all(&mut user).await.is_empty());
        let limit = Duration::from_secs(20);
        tokio::time::timeout(limit, splicing).await.expect("it ends").unwrap();
    }
}
