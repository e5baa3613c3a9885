//! Whether the endpoint is still there, once dials say that it may not be.

use std::time::Duration;

use tokio::sync::mpsc;
use wolfpack_types::{Endpoint, Reason};

use super::told::{Kind, Told};
use crate::command::standing::{self, Standing};
use crate::connect::Api;
use crate::failure::Failure;

/// Between two questions: many connections may fail at once, and again.
const PAUSE: Duration = Duration::from_secs(5);

/// Where connections tell why they failed; cheap to clone.
#[derive(Clone)]
pub(super) struct Doubt(mpsc::Sender<Reason>);

/// The other end.
pub(super) struct Doubts(mpsc::Receiver<Reason>);

/// Both ends. One doubt is enough to ask, so more are not kept.
pub(super) fn doubts() -> (Doubt, Doubts) {
    let (sender, receiver) = mpsc::channel(1);
    (Doubt(sender), Doubts(receiver))
}

impl Doubt {
    /// A connection failed so; what cannot come of an endpoint that is gone is
    /// passed over.
    pub(super) fn raise(&self, reason: Reason) {
        if matches!(
            reason,
            Reason::EndpointNotFound
                | Reason::DialTimeout
                | Reason::SandboxTokenRevoked
                | Reason::TunnelLost
        ) {
            // Another one is on its way.
            let _ = self.0.try_send(reason);
        }
    }
}

impl Doubts {
    /// Waits until the endpoint is gone for good, and says so. One that is away,
    /// or of which nobody knows, is told of, and waited for.
    pub(super) async fn gone(mut self, api: &Api, endpoint: &Endpoint) -> Failure {
        let told = Told::default();
        while let Some(reason) = self.0.recv().await {
            match standing::of(api, endpoint).await {
                Ok(Standing::Gone(mut fault)) => {
                    fault.message.push_str("; nothing is forwarded to it any more");
                    return fault.into();
                }
                known if reason == Reason::EndpointNotFound => {
                    told.tell(Kind::Away, || away(endpoint, known));
                }
                // The connection tells it itself.
                _ => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
        // Only when nobody is left who could raise one.
        std::future::pending().await
    }
}

fn away(endpoint: &Endpoint, known: Result<Standing, Failure>) -> String {
    match known {
        Ok(Standing::There(words)) => {
            format!("{words}, but no agent of it is attached; forwarding goes on once one is\n")
        }
        _ => format!(
            "no agent of {endpoint} is attached, and nobody says whether it is gone for good; forwarding goes on\n"
        ),
    }
}
