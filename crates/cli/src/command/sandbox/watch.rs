//! `wolfpack sandbox watch`, and the watching that create and delete do.

use std::time::Duration;

use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_proto::sandbox::v1::watch_sandboxes_response::Event;
use wolfpack_types::Reason;

use super::{SANDBOX, list};
use crate::args::sandbox::WatchArgs;
use crate::command::resolve;
use crate::connect::Api;
use crate::failure::Failure;
use crate::output;

/// A watch that breaks is made again this often in a row, with a pause between.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(300);

/// A watch that goes on through broken connections.
pub(super) struct Watch {
    api: Api,
    name: String,
    revision: i64,
    stream: Option<tonic::Streaming<pb::WatchSandboxesResponse>>,
}

impl Watch {
    /// Of one sandbox, or of all with an empty name.
    pub(super) fn new(api: &Api, name: &str) -> Self {
        Self { api: api.clone(), name: name.to_owned(), revision: 0, stream: None }
    }

    /// The next event. After a break it resumes where it was; where that is
    /// too long ago, it begins with a snapshot again.
    pub(super) async fn next(&mut self) -> Result<Event, Failure> {
        let mut attempt = 0;
        loop {
            match self.step().await {
                Ok(Some(response)) => {
                    self.revision = self.revision.max(response.revision);
                    if let Some(event) = response.event {
                        return Ok(event);
                    }
                }
                // The server closed it, as it does when it drains.
                Ok(None) => self.stream = None,
                Err(failure) if failure.is(Reason::RevisionCompacted) => {
                    (self.revision, self.stream) = (0, None);
                }
                Err(failure)
                    if failure.is_passing()
                        || failure.is(Reason::WatcherTooSlow)
                        // Opened with a higher role than the key has now: that one may do.
                        || failure.is(Reason::RoleTooLow) && self.stream.is_some() =>
                {
                    self.stream = None;
                    attempt += 1;
                    if attempt >= ATTEMPTS {
                        return Err(failure);
                    }
                }
                Err(failure) => return Err(failure),
            }
            if self.stream.is_none() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn step(&mut self) -> Result<Option<pb::WatchSandboxesResponse>, Failure> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let request = pb::WatchSandboxesRequest {
                    name: self.name.clone(),
                    resume_revision: self.revision,
                };
                let opened =
                    self.api.sandbox_watches().watch_sandboxes(request).await?.into_inner();
                self.stream.insert(opened)
            }
        };
        Ok(stream.message().await?)
    }
}

pub(super) async fn run(api: &Api, arguments: &WatchArgs) -> Result<(), Failure> {
    let name = match &arguments.sandbox {
        Some(given) => resolve::sandbox(api, given).await?,
        None => String::new(),
    };
    let mut watch = Watch::new(api, &name);
    loop {
        match (watch.next().await?, arguments.output.is_json()) {
            (Event::Upserted(sandbox), true) => {
                let value = serde_json::json!({ "upserted": output::json(SANDBOX, &sandbox)? });
                output::line(&value.to_string())?;
            }
            (Event::Upserted(sandbox), false) => output::line(&list::line(&sandbox))?,
            (Event::Removed(name), true) => {
                output::line(&serde_json::json!({ "removed": name }).to_string())?;
            }
            (Event::Removed(name), false) => output::line(&format!("{name}  removed"))?,
            (Event::Bookmark(_), _) => {}
        }
    }
}
