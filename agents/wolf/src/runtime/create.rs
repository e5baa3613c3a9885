//! The steps of a create, as the caller sees them.

use futures::{Stream, stream};
use tokio::sync::watch;
use tonic::Status;
use wolfpack_proto::agent::v1::create_sandbox_response::Step;
use wolfpack_proto::agent::v1::{Admitted, CreateSandboxResponse};
use wolfpack_rpc::to_status;
use wolfpack_types::{Fault, Reason};

use super::map;
use crate::engine::PullProgress;
use crate::lifecycle::Progress;

struct Told {
    progress: watch::Receiver<Progress>,
    admitted: bool,
    pulling: Option<PullProgress>,
    ended: bool,
}

/// Every step once, in order; of a pull only the newest word, so a slow reader
/// is never behind. Ends with the container or the fault.
pub(super) fn steps(
    progress: watch::Receiver<Progress>,
) -> impl Stream<Item = Result<CreateSandboxResponse, Status>> + Send {
    let told = Told { progress, admitted: false, pulling: None, ended: false };
    stream::unfold(told, |mut told| async move {
        if told.ended {
            return None;
        }
        loop {
            if let Some(step) = told.next() {
                return Some((step, told));
            }
            if told.progress.changed().await.is_err() {
                // The last word may have come with the end.
                let step = told.next().unwrap_or_else(|| {
                    told.ended = true;
                    Err(to_status(Fault::new(
                        Reason::ServerStopping,
                        "the wolf's agent is stopping; ask again",
                    )))
                });
                return Some((step, told));
            }
        }
    })
}

impl Told {
    /// What was not told yet.
    fn next(&mut self) -> Option<Result<CreateSandboxResponse, Status>> {
        let now = self.progress.borrow_and_update();
        let step = |step| Some(Ok(CreateSandboxResponse { step: Some(step) }));
        if now.admitted && !self.admitted {
            self.admitted = true;
            return step(Step::Admitted(Admitted {}));
        }
        if now.pulling.is_some() && now.pulling != self.pulling {
            self.pulling.clone_from(&now.pulling);
            let pulling = self.pulling.clone().unwrap_or_default();
            return step(Step::Pulling(map::pulling(pulling)));
        }
        let outcome = now.outcome.as_ref()?;
        self.ended = true;
        match outcome {
            Ok(container) => step(Step::Started(map::status(container))),
            Err(fault) => Some(Err(to_status(fault.clone()))),
        }
    }
}
