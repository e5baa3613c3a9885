//! One call over two tunnels, the second a little later.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tonic::Status;
use wolfpack_rpc::error::from_status;
use wolfpack_types::{Fault, Reason};

use crate::reach::Path;

/// What became of one try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TryResult {
    /// The agent answered, well or badly.
    Answered,
    /// The tunnel did not bring the call there or the answer back.
    Failed(Reason),
    /// The other tunnel, begun later, answered first.
    Overtaken,
    /// The time was over.
    TimedOut,
}

impl TryResult {
    /// Its name in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed(_) => "failed",
            Self::Overtaken => "overtaken",
            Self::TimedOut => "timed_out",
        }
    }
}

/// One try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Try {
    /// Over which tunnel.
    pub(super) path: Path,
    /// What became of it.
    pub(super) result: TryResult,
}

/// How the race ended.
pub(super) struct Raced<T> {
    /// What the agent answered, and over which tunnel; `None` when neither
    /// brought an answer.
    pub(super) answer: Option<(Path, Result<T, Status>)>,
    /// What was tried.
    pub(super) tries: Vec<Try>,
}

impl<T> Raced<T> {
    fn end(path: Path, answer: Result<T, Status>, mut tries: Vec<Try>) -> Self {
        tries.push(Try { path, result: TryResult::Answered });
        Self { answer: Some((path, answer)), tries }
    }
}

/// Calls over the first path; over the second, too, when the first fails or has
/// not answered after `hedge`. The first answer ends it, at the latest after
/// `deadline`.
pub(super) async fn race<T, F, Fut>(
    [first, second]: [Path; 2],
    hedge: Duration,
    deadline: Duration,
    call: F,
) -> Raced<T>
where
    F: Fn(Path) -> Fut,
    Fut: Future<Output = Result<T, Status>>,
{
    let begin = Instant::now();
    let end = begin + deadline;
    let mut tries = Vec::with_capacity(2);
    let one = call(first);
    tokio::pin!(one);
    // A tunnel that fails early leaves the second one all the time there is.
    let early = tokio::select! {
        answer = &mut one => Some(answer),
        () = sleep_until((begin + hedge).min(end)) => None,
    };
    let mut one_runs = early.is_none();
    if let Some(answer) = early {
        match lost(&answer) {
            None => return Raced::end(first, answer, tries),
            Some(reason) => tries.push(Try { path: first, result: TryResult::Failed(reason) }),
        }
    }
    let two = call(second);
    tokio::pin!(two);
    let mut two_runs = true;
    while one_runs || two_runs {
        let (path, answer) = tokio::select! {
            answer = &mut one, if one_runs => { one_runs = false; (first, answer) }
            answer = &mut two, if two_runs => { two_runs = false; (second, answer) }
            () = sleep_until(end) => break,
        };
        match lost(&answer) {
            Some(reason) => tries.push(Try { path, result: TryResult::Failed(reason) }),
            None => {
                if one_runs {
                    tries.push(Try { path: first, result: TryResult::Overtaken });
                }
                return Raced::end(path, answer, tries);
            }
        }
    }
    for (path, runs) in [(first, one_runs), (second, two_runs)] {
        if runs {
            tries.push(Try { path, result: TryResult::TimedOut });
        }
    }
    Raced { answer: None, tries }
}

/// Why the tunnel and not the agent failed the call; `None` for an answer of
/// the agent.
fn lost<T>(answer: &Result<T, Status>) -> Option<Reason> {
    let fault = from_status(answer.as_ref().err()?);
    is_lost(&fault).then_some(fault.reason)
}

/// Whether a call did not reach the agent, or its answer did not come back.
pub(crate) fn is_lost(fault: &Fault) -> bool {
    let by_transport = matches!(
        fault.metadata.get("grpc_code").map(String::as_str),
        Some("Unavailable" | "Unknown" | "Internal" | "Cancelled" | "DeadlineExceeded")
    );
    by_transport
        || matches!(
            fault.reason,
            Reason::EndpointNotFound
                | Reason::TargetForbidden
                | Reason::TargetUnreachable
                | Reason::DialTimeout
                | Reason::DialsLimited
                | Reason::ConnectionReset
                | Reason::TunnelLost
                | Reason::BrokerDraining
                | Reason::DependencyUnavailable
                | Reason::DeadlineExceeded
                | Reason::ServerStopping
                | Reason::Overloaded
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use wolfpack_rpc::error::to_status;

    const HEDGE: Duration = Duration::from_secs(1);
    const DEADLINE: Duration = Duration::from_secs(10);
    const ORDER: [Path; 2] = [Path::Sandbox, Path::Wolf];

    fn status(reason: Reason) -> Status {
        to_status(Fault::new(reason, "x"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_good_first_tunnel_is_the_only_one_used() {
        let raced = race(ORDER, HEDGE, DEADLINE, |path| async move {
            assert_eq!(path, Path::Sandbox);
            Ok(7)
        })
        .await;
        assert!(matches!(raced.answer, Some((Path::Sandbox, Ok(7)))));
        assert_eq!(raced.tries, [Try { path: Path::Sandbox, result: TryResult::Answered }]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_first_tunnel_falls_back_at_once() {
        let begin = Instant::now();
        let raced = race(ORDER, HEDGE, DEADLINE, |path| async move {
            match path {
                Path::Sandbox => Err(status(Reason::TunnelLost)),
                Path::Wolf => Ok(1),
            }
        })
        .await;
        assert!(matches!(raced.answer, Some((Path::Wolf, Ok(1)))));
        assert_eq!(begin.elapsed(), Duration::ZERO, "nothing was waited for");
        assert_eq!(raced.tries[0].result, TryResult::Failed(Reason::TunnelLost));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_that_swallows_everything_is_overtaken_after_the_hedge() {
        let begin = Instant::now();
        let raced = race(ORDER, HEDGE, DEADLINE, |path| async move {
            if path == Path::Sandbox {
                std::future::pending::<()>().await;
            }
            Ok(())
        })
        .await;
        assert!(matches!(raced.answer, Some((Path::Wolf, Ok(())))));
        assert_eq!(begin.elapsed(), HEDGE);
        assert_eq!(raced.tries[0].result, TryResult::Overtaken);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_agent_says_is_an_answer_even_when_it_is_no() {
        let raced = race(ORDER, HEDGE, DEADLINE, |path| async move {
            assert_eq!(path, Path::Sandbox);
            Err::<(), _>(status(Reason::DesktopAbsent))
        })
        .await;
        let Some((Path::Sandbox, Err(answer))) = raced.answer else { panic!("must be an answer") };
        assert_eq!(from_status(&answer).reason, Reason::DesktopAbsent);
    }

    #[tokio::test(start_paused = true)]
    async fn two_dead_tunnels_end_at_the_deadline() {
        let begin = Instant::now();
        let raced = race(ORDER, HEDGE, DEADLINE, |path| async move {
            if path == Path::Sandbox {
                return Err(status(Reason::EndpointNotFound));
            }
            std::future::pending::<Result<(), Status>>().await
        })
        .await;
        assert!(raced.answer.is_none());
        assert_eq!(begin.elapsed(), DEADLINE);
        assert_eq!(
            raced.tries,
            [
                Try { path: Path::Sandbox, result: TryResult::Failed(Reason::EndpointNotFound) },
                Try { path: Path::Wolf, result: TryResult::TimedOut },
            ]
        );
    }
}
