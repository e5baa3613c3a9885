//! From a dial to an open stream: wait for the agent, take what is parked or
//! ask for a stream, and try again when a parked one turns out to be dying.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use wolfpack_proto::tunnel::v1::Open;
use wolfpack_tunnel::splice::{CarryAnswer, CarryStream, Opening};
use wolfpack_types::{Endpoint, Fault, Reason, Target};

use super::head::Head;
use crate::domain::target::not_offered;
use crate::state::{Broker, Permit, Session};

/// Streams that may die under one dial; each is a fresh one, so more than a few
/// mean that the agent is broken.
const ATTEMPTS: usize = 8;
/// A pause after a stream died, so that a broken agent is not hammered.
const PAUSE: Duration = Duration::from_millis(20);

/// Says by whose the endpoint is now whether a dial is allowed.
pub(crate) type Allowed<'a> = dyn Fn() -> Result<(), Fault> + Send + Sync + 'a;

/// One dial.
pub(crate) struct Dialing<'a> {
    pub(crate) broker: &'a Broker,
    pub(crate) endpoint: Endpoint,
    /// Whether it may be dialed still, which is asked once its agent is there.
    pub(crate) allowed: &'a Allowed<'a>,
    pub(crate) target: Target,
    pub(crate) deadline: Instant,
    pub(crate) caller: String,
    pub(crate) connection_id: String,
    pub(crate) traceparent: String,
}

/// A stream whose agent has reached the target.
pub(crate) struct Opened {
    pub(crate) session: Arc<Session>,
    pub(crate) permit: Permit,
    pub(crate) carry: CarryStream,
    /// `parked` or `asked`.
    pub(crate) via: &'static str,
}

/// How one try went, when it was not refused.
enum Attempt {
    /// The agent reached the target; over a stream that was parked or asked for.
    Opened(CarryStream, &'static str),
    /// The stream or the session died without an answer: another try may help.
    Died(Fault),
}

impl Dialing<'_> {
    /// Opens the connection within the deadline. Dropping the future takes the
    /// dial back, from the agent too. What is read of `head` meanwhile goes with
    /// it; there is no other try once some of it may have reached an agent, whose
    /// target would hear it twice.
    ///
    /// # Errors
    /// Those of `DialService.Dial`, and `CANCELLED` when the caller's socket breaks.
    pub(crate) async fn run(&self, head: &mut Head<'_>) -> Result<Opened, Fault> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            // A client that leaves gives its place among those that wait to others.
            let session = tokio::select! {
                biased;
                session = self.broker.wait_for(&self.endpoint, self.deadline, self.allowed) => session?,
                fault = head.broken() => return Err(fault),
            };
            // It may have waited for minutes.
            (self.allowed)()?;
            if !session.offers(&self.target) {
                return Err(not_offered(&self.endpoint, &self.target));
            }
            let permit = session.admit()?;
            let mut opening = None;
            match self.attempt(&session, head, &mut opening).await? {
                Attempt::Opened(carry, via) => return Ok(Opened { session, permit, carry, via }),
                Attempt::Died(fault) => {
                    if !head.is_empty() && opening.is_some_and(|it| !it.take_back()) {
                        return Err(self.said_once(fault));
                    }
                    tracing::debug!(
                        endpoint = %self.endpoint,
                        "a stream died under a dial; trying another: {}", fault.message
                    );
                    last = Some(fault);
                }
            }
            tokio::time::sleep_until(self.deadline.min(Instant::now() + PAUSE)).await;
        }
        let fault = Fault::new(Reason::TunnelLost, "the agent's streams break; try again later")
            .about(self.endpoint.to_string());
        Err(match last {
            Some(cause) => fault.caused_by(cause),
            None => fault,
        })
    }

    /// One try on one session; over as soon as the session is.
    async fn attempt(
        &self,
        session: &Arc<Session>,
        head: &mut Head<'_>,
        opening: &mut Option<Opening>,
    ) -> Result<Attempt, Fault> {
        tokio::select! {
            biased;
            () = session.closed().cancelled() => {
                Ok(Attempt::Died(Fault::new(Reason::TunnelLost, "the session ended")))
            }
            attempt = timeout_at(self.deadline, self.open(session, head, opening)) => {
                attempt.map_err(|_| self.late())?
            }
        }
    }

    /// Dropping it takes the dial back, from the agent too. `opening` tells what
    /// became of it then.
    async fn open(
        &self,
        session: &Arc<Session>,
        head: &mut Head<'_>,
        opening: &mut Option<Opening>,
    ) -> Result<Attempt, Fault> {
        let (mut carry, via) = match session.take_parked() {
            Some(carry) => (carry, "parked"),
            None => match self.asked(session, head).await? {
                Some(carry) => (carry, "asked"),
                None => {
                    let fault =
                        Fault::new(Reason::TunnelLost, "the agent opened no stream in time");
                    return Ok(Attempt::Died(fault));
                }
            },
        };
        let left = self.deadline.saturating_duration_since(Instant::now());
        let open = Open {
            connection_id: self.connection_id.clone(),
            target: self.target.to_string(),
            timeout: prost_types::Duration::try_from(left).ok(),
            traceparent: self.traceparent.clone(),
            caller: self.caller.clone(),
            early_data: head.bytes(),
            may_park_again: true,
        };
        *opening = carry.open(open);
        let answer = loop {
            tokio::select! {
                biased;
                answer = carry.answer() => break answer,
                // Half a round trip: they are at the target when it is reached.
                more = head.more() => carry.send_early(more?),
            }
        };
        match answer {
            CarryAnswer::Opened => Ok(Attempt::Opened(carry, via)),
            CarryAnswer::Refused(fault) => Err(fault.about(self.endpoint.to_string())),
            CarryAnswer::Died(fault) => Ok(Attempt::Died(fault)),
        }
    }

    /// A stream that the agent opens when it is asked; `None` when it does not.
    async fn asked(
        &self,
        session: &Arc<Session>,
        head: &mut Head<'_>,
    ) -> Result<Option<CarryStream>, Fault> {
        let mut asked = session.ask(self.broker.limits.dial_id_lifetime)?;
        tokio::select! {
            biased;
            answer = asked.stream() => answer.transpose(),
            fault = head.broken() => Err(fault),
        }
    }

    /// Nobody can say whether the target has heard the first bytes, and another try
    /// would say them again.
    fn said_once(&self, cause: Fault) -> Fault {
        Fault::new(
            Reason::TunnelLost,
            "the tunnel broke when the first bytes were on their way; the target may have them: \
             dial again if they may be said twice",
        )
        .about(self.endpoint.to_string())
        .caused_by(cause)
    }

    fn late(&self) -> Fault {
        Fault::new(
            Reason::DialTimeout,
            "the agent did not answer the dial in time; try again later",
        )
        .about(self.endpoint.to_string())
    }
}
