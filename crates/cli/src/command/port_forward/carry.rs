//! Each connection of this machine as one through a tunnel.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore};
use wolfpack_runtime::Supervisor;
use wolfpack_tunnel::{Dialer, TunnelStream};
use wolfpack_types::{Endpoint, Fault, Target};

use super::listener::{Listener, Near};
use crate::failure::Failure;

/// How long a target may take to be reached; an endpoint that is away is
/// waited for as long.
const DIAL: Duration = Duration::from_secs(30);
/// After an accept that failed: no file descriptors left, mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
const COPY_BUFFER: usize = 32 * 1024;
/// How long what was written last may take to arrive after both sides finished.
const LAST: Duration = Duration::from_secs(60);

/// Where the connections of one listener go.
#[derive(Clone)]
pub(super) struct Forward {
    dialer: Dialer,
    endpoint: Endpoint,
    target: Target,
    server: String,
    /// What was told last: a program that tries again and again is told once.
    told: Arc<Mutex<String>>,
}

impl Forward {
    pub(super) fn new(dialer: Dialer, endpoint: Endpoint, target: Target, server: String) -> Self {
        Self { dialer, endpoint, target, server, told: Arc::default() }
    }

    async fn tell(&self, from: &str, fault: Fault) {
        let text = Failure::from(fault).of_server(&self.server).as_text();
        let mut told = self.told.lock().await;
        if *told != text {
            warn(&format!("{from}: {text}"));
            *told = text;
        }
    }
}

/// Takes connections until it is dropped, as long as there is room.
pub(super) async fn accept(
    listener: Listener,
    forward: Forward,
    room: Arc<Semaphore>,
    tasks: Supervisor,
) {
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok(near) => {
                let forward = forward.clone();
                tasks.spawn("port_forward_connection", async move {
                    carry(near, &forward).await;
                    drop(permit);
                });
            }
            Err(error) => {
                warn(&format!("cannot take a connection at {}: {error}\n", listener.place()));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection to its end. Half-close passes through both ways; what breaks
/// on one side is a reset on the other, never an end of file.
async fn carry(mut near: Near, forward: &Forward) {
    let from = near.name();
    let dialed = forward.dialer.dial(&forward.endpoint, &forward.target, DIAL).await;
    let mut far = match dialed {
        Ok(far) => far,
        Err(fault) => {
            near.reset();
            return forward.tell(&from, fault).await;
        }
    };
    forward.told.lock().await.clear();
    let copied = {
        let mut near = near.io();
        tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, COPY_BUFFER, COPY_BUFFER)
            .await
    };
    let ended = match copied {
        Ok(_) => settle(far).await,
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        near.reset();
        // One of our own side, such as a program that was killed, is nobody's news.
        if let Some(fault) = fault_of(&error) {
            forward.tell(&from, fault).await;
        }
    }
}

/// Lets what was written last arrive.
async fn settle(far: TunnelStream) -> io::Result<()> {
    match tokio::time::timeout(LAST, far.close()).await {
        Ok(closed) => closed,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// On stderr; a reader that has gone does not end the forwarding.
fn warn(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn fault_of(error: &io::Error) -> Option<Fault> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>()).cloned()
}
