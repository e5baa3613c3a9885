//! Each connection of this machine as one through a tunnel.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wolfpack_runtime::Supervisor;
use wolfpack_tunnel::protocol::MAX_EARLY_DATA;
use wolfpack_tunnel::{Dialer, TunnelStream};
use wolfpack_types::{Endpoint, Fault, Reason, Target};

use super::gone::Doubt;
use super::listener::{Listener, Near};
use super::room::{Place, Port};
use super::told::{Kind, Told, warn};
use crate::failure::Failure;

/// How long a target may take to be reached; an endpoint that is away, or a
/// broker, is waited for as long.
const DIAL: Duration = Duration::from_secs(30);
/// How long an agent may take to attach at a broker that was started anew.
const COMES_BACK: Duration = Duration::from_secs(10);
/// Between dials while the way there is away; doubled each time.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long the first bytes of a local program are waited for, so that they
/// travel with the dial. Those that wait for the target to speak lose as much.
const FIRST_BYTES: Duration = Duration::from_millis(3);
/// After an accept that failed: no file descriptors left, mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
const COPY_BUFFER: usize = 32 * 1024;
/// How long what was written last may take to arrive after both sides finished.
const LAST: Duration = Duration::from_secs(60);

/// Where the connections of one listener go.
#[derive(Clone)]
pub(super) struct Forward {
    endpoint: Endpoint,
    target: Target,
    server: String,
    told: Arc<Told>,
    doubt: Doubt,
}

impl Forward {
    pub(super) fn new(endpoint: Endpoint, target: Target, server: String, doubt: Doubt) -> Self {
        Self { endpoint, target, server, told: Arc::default(), doubt }
    }

    fn tell(&self, from: &str, fault: Fault) {
        let reason = fault.reason;
        self.doubt.raise(reason);
        let text = Failure::from(fault).of_server(&self.server).as_text();
        self.told.tell(Kind::Fault(reason), || format!("{from}: {text}"));
    }

    /// A connection waits for a place; whether that was told.
    fn tell_full(&self, place: &str, port: &Port) -> bool {
        let room = port.room();
        self.told.tell(Kind::Full, || {
            format!(
                "{place}: new connections wait until others end, as {} of at most {} are open (--connections)\n",
                room.open(),
                room.most()
            )
        })
    }

    /// Dials, and again while it is the way there that is away: a server that is
    /// started anew costs a connection time, and not its life.
    async fn dial(&self, dialer: &Dialer, first: &Bytes) -> Result<TunnelStream, Fault> {
        let began = Instant::now();
        let mut pause = PAUSE;
        loop {
            let left = DIAL.saturating_sub(began.elapsed());
            let mut early = first.clone();
            let dialed = dialer.dial_keeping(&self.endpoint, &self.target, left, &mut early);
            let fault = match dialed.await {
                Ok(stream) => return Ok(stream),
                Err(fault) => fault,
            };
            self.doubt.raise(fault.reason);
            let wait = fault.retry_after.unwrap_or_default().max(pause);
            // Nothing is said to the target twice.
            let unsaid = early.len() == first.len();
            if began.elapsed() + wait >= patience(&fault, unsaid) {
                return Err(fault);
            }
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// How long a dial that failed so is tried again: not at all, unless the same
/// dial may succeed in a moment. `unsaid` says that the first bytes have not
/// left, or that there are none.
fn patience(fault: &Fault, unsaid: bool) -> Duration {
    match fault.reason {
        // Refused by the broker itself, which gave nothing to an agent.
        Reason::BrokerDraining => DIAL,
        // It was there when the command began: a broker that has just begun
        // knows nobody yet.
        Reason::EndpointNotFound => COMES_BACK,
        Reason::ServerStopping if unsaid => DIAL,
        Reason::DependencyUnavailable if unsaid && Failure::from(fault.clone()).is_passing() => {
            DIAL
        }
        _ => Duration::ZERO,
    }
}

/// Takes connections until it is told to stop. What is open then goes on. Where
/// there is no place for one it waits, and those that follow behind it.
pub(super) async fn accept(
    listener: Listener,
    forward: Forward,
    port: Port,
    stop: CancellationToken,
    tasks: Supervisor,
) {
    let accepting = async {
        // Whether it was told that connections wait.
        let mut full = false;
        loop {
            let near = match listener.accept().await {
                Ok(near) => near,
                Err(error) => {
                    warn(&format!("cannot take a connection at {}: {error}\n", listener.place()));
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let place = match port.take() {
                Some(place) => {
                    if std::mem::take(&mut full) {
                        let at = listener.place();
                        warn(&format!("{at}: connections do not wait any more\n"));
                    }
                    place
                }
                None => {
                    full |= forward.tell_full(&listener.place(), &port);
                    let Some(place) = port.wait().await else { return };
                    place
                }
            };
            let forward = forward.clone();
            tasks.spawn("port_forward_connection", async move {
                carry(near, &forward, place).await;
            });
        }
    };
    stop.run_until_cancelled(accepting).await;
}

/// One connection to its end. Half-close passes through both ways; what breaks
/// on one side is a reset on the other, never an end of file.
async fn carry(mut near: Near, forward: &Forward, place: Place) {
    let from = near.name();
    let Some(dialer) = place.dialer() else { return };
    // A program that is gone before it said a word is nobody's news.
    let Ok(first) = near.first_bytes(MAX_EARLY_DATA, FIRST_BYTES).await else { return };
    let mut far = match forward.dial(dialer, &first).await {
        Ok(far) => far,
        Err(fault) => return forward.tell(&from, fault),
    };
    drop(first);
    let copied = {
        let mut near = near.io();
        tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, COPY_BUFFER, COPY_BUFFER)
            .await
    };
    let ended = match copied {
        Ok(_) => settle(far).await,
        Err(error) => Err(error),
    };
    match ended {
        Ok(()) => near.finish(),
        // One of our own side, such as a program that was killed, is nobody's news.
        Err(error) => {
            if let Some(fault) = fault_of(&error) {
                forward.tell(&from, fault);
            }
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

fn fault_of(error: &io::Error) -> Option<Fault> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>()).cloned()
}
