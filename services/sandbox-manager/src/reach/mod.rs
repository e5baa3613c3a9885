//! Reaching the agent inside a sandbox: over the sandbox's own tunnel first,
//! over its wolf's when that is down.
//!
//! A call goes over the first tunnel; when no answer has come after a while the
//! same call goes over the second one beside it, and the first answer counts. A
//! tunnel that failed, or was overtaken, is tried last for a few seconds. So an
//! own tunnel that is attached but carries nothing costs one hedge, once.

mod agents;
mod cancel;
mod hedge;
mod route;

use std::time::Duration;

use moka::sync::Cache;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use wolfpack_proto::agent::v1::{GetStatusRequest, ListContainersRequest};
use wolfpack_proto::sandbox::v1::{Container, TunnelPath};
use wolfpack_rpc::error::from_status;
use wolfpack_types::{Fault, Reason, SandboxId};

use crate::config::ReachConfig;
use crate::fleet::Fleet;
use crate::metrics::Metrics;
use crate::peers::Peers;
use agents::Agents;
pub(crate) use agents::{Agent, LastingAgent};
pub(crate) use cancel::Cancelling;
pub(crate) use hedge::is_lost;
pub(crate) use route::{Path, Route};

/// Reaches agents; cheap to clone.
#[derive(Clone)]
pub(crate) struct Reach {
    agents: Agents,
    fleet: Fleet,
    metrics: Metrics,
    config: ReachConfig,
    /// Tunnels that failed a moment ago.
    bad: Cache<(SandboxId, Path), ()>,
}

impl Reach {
    pub(crate) fn new(peers: &Peers, fleet: Fleet, metrics: Metrics, config: ReachConfig) -> Self {
        Self {
            agents: Agents::new(peers.dialer().clone(), &config),
            bad: Cache::builder()
                .max_capacity(config.channels)
                .time_to_live(config.bad_path)
                .build(),
            fleet,
            metrics,
            config,
        }
    }

    /// The agent over one tunnel; each call has `deadline` by default.
    pub(crate) fn agent(&self, route: &Route, path: Path, deadline: Duration) -> Agent {
        self.agents.over(route, path, deadline)
    }

    /// Drops the connection over one tunnel: the next call dials anew.
    pub(crate) fn forget(&self, route: &Route, path: Path) {
        self.agents.forget(route, path);
    }

    /// Drops all connections to a sandbox.
    pub(crate) fn forget_all(&self, route: &Route) {
        for path in [Path::Sandbox, Path::Wolf] {
            self.agents.forget(route, path);
        }
    }

    /// Makes one call that is harmless to repeat, over whichever tunnel answers
    /// within `deadline`.
    ///
    /// # Errors
    /// What the agent answered, or `SANDBOX_UNREACHABLE` when neither tunnel
    /// brings an answer.
    pub(crate) async fn call<T, F, Fut>(
        &self,
        route: &Route,
        deadline: Duration,
        call: F,
    ) -> Result<(T, TunnelPath), Fault>
    where
        F: Fn(Agent) -> Fut + Sync,
        Fut: Future<Output = Result<T, Status>> + Send,
        T: Send,
    {
        self.call_over(route, deadline, |path| call(self.agents.over(route, path, deadline))).await
    }

    /// As [`Reach::call`], of the containers on the sandbox's own engine.
    ///
    /// # Errors
    /// As [`Reach::call`].
    pub(crate) async fn containers(
        &self,
        route: &Route,
        deadline: Duration,
    ) -> Result<Vec<Container>, Fault> {
        let listed = self.call_over(route, deadline, |path| {
            let mut agent = self.agents.containers(route, path, deadline);
            let request = ListContainersRequest { sandbox: route.sandbox.name() };
            async move { agent.list_containers(request).await.map(tonic::Response::into_inner) }
        });
        Ok(listed.await?.0.containers)
    }

    async fn call_over<T, F, Fut>(
        &self,
        route: &Route,
        deadline: Duration,
        call: F,
    ) -> Result<(T, TunnelPath), Fault>
    where
        F: Fn(Path) -> Fut + Sync,
        Fut: Future<Output = Result<T, Status>> + Send,
        T: Send,
    {
        let order = self.order(route);
        let raced = hedge::race(order, self.config.hedge, deadline, call).await;
        self.learn(route, &raced.tries);
        match raced.answer {
            Some((path, Ok(answer))) => Ok((answer, path.into())),
            Some((_, Err(status))) => Err(from_status(&status)),
            None => Err(self.unreachable(route, &raced.tries)),
        }
    }

    /// An agent that answers now, for a call that must not be repeated: which
    /// tunnel works is found out by a probe first. The agent's calls have no
    /// deadline; cancelling the token resets them.
    ///
    /// # Errors
    /// `SANDBOX_UNREACHABLE` when neither tunnel brings an answer.
    pub(crate) async fn open(
        &self,
        route: &Route,
        token: CancellationToken,
    ) -> Result<(LastingAgent, TunnelPath), Fault> {
        let probe = |mut agent: Agent| async move {
            agent.get_status(GetStatusRequest {}).await.map(tonic::Response::into_inner)
        };
        let (status, via) = self.call(route, self.config.probe, probe).await?;
        if status.execution_id != route.execution.as_str() {
            return Err(Fault::new(
                Reason::SandboxUnreachable,
                "another boot of the sandbox answered; try again shortly",
            )
            .about(route.sandbox.name()));
        }
        let path = if via == TunnelPath::Wolf { Path::Wolf } else { Path::Sandbox };
        Ok((self.agents.lasting(route, path, token), via))
    }

    /// The tunnels in the order to try: the sandbox's own first, unless it is
    /// not attached or has just failed.
    fn order(&self, route: &Route) -> [Path; 2] {
        let bad = |path| self.bad.contains_key(&(route.sandbox.clone(), path));
        let detached = self.fleet.tunnels.attached(&route.sandbox, &route.execution) == Some(false);
        if detached || (bad(Path::Sandbox) && !bad(Path::Wolf)) {
            [Path::Wolf, Path::Sandbox]
        } else {
            [Path::Sandbox, Path::Wolf]
        }
    }

    /// Counts what was tried and remembers what did not work.
    fn learn(&self, route: &Route, tries: &[hedge::Try]) {
        for tried in tries {
            self.metrics.reached(tried.path.as_str(), tried.result.as_str());
            let key = (route.sandbox.clone(), tried.path);
            match tried.result {
                hedge::TryResult::Answered => self.bad.invalidate(&key),
                hedge::TryResult::Failed(_) => {
                    self.bad.insert(key, ());
                }
                hedge::TryResult::Overtaken | hedge::TryResult::TimedOut => {
                    self.bad.insert(key, ());
                    self.agents.forget(route, tried.path);
                }
            }
        }
    }

    fn unreachable(&self, route: &Route, tries: &[hedge::Try]) -> Fault {
        let mut fault = Fault::new(
            Reason::SandboxUnreachable,
            "neither the sandbox's own tunnel nor its wolf's brings an answer; try again shortly",
        )
        .about(route.sandbox.name())
        .retry_in(self.config.bad_path);
        for tried in tries {
            let reason = match &tried.result {
                hedge::TryResult::Failed(reason) => reason.as_str(),
                other => other.as_str(),
            };
            fault = fault.with(tried.path.as_str(), reason);
        }
        fault
    }
}
