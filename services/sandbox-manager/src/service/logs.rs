//! The output of a sandbox's main process: from its wolf while the container is
//! there, else what was kept of it.

use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use tonic::Status;
use wolfpack_proto::agent::v1 as agent;
use wolfpack_proto::sandbox::v1::{StreamLogsRequest, StreamLogsResponse};
use wolfpack_rpc::{from_status, to_status};
use wolfpack_types::{Fault, Reason, SandboxState};

use super::Api;
use crate::reach::is_lost;
use crate::store::Sandbox;

type Logs = BoxStream<'static, Result<StreamLogsResponse, Status>>;

impl Api {
    pub(super) async fn logs(
        &self,
        sandbox: &Sandbox,
        request: StreamLogsRequest,
    ) -> Result<Logs, Status> {
        let boot = sandbox.record.live_boot().filter(|boot| boot.started);
        let Some(boot) = boot else { return kept_or(sandbox, request.tail_lines, none_yet) };
        if !boot.holds.container {
            return kept_or(sandbox, request.tail_lines, none_kept);
        }
        let asked = agent::StreamLogsRequest {
            sandbox: request.sandbox,
            follow: request.follow,
            tail_lines: request.tail_lines,
        };
        let mut stream = match self.parts.peers.runtime_stream(&boot.wolf).stream_logs(asked).await
        {
            Ok(stream) => stream.into_inner(),
            Err(status) => return instead(sandbox, request.tail_lines, &status),
        };
        // The first piece shows whether the wolf has the container at all.
        match stream.message().await {
            Ok(None) => Ok(stream::empty().boxed()),
            Ok(Some(first)) => Ok(stream::iter([Ok(first)])
                .chain(stream)
                .map_ok(|piece| StreamLogsResponse { stderr: piece.stderr, data: piece.data })
                .boxed()),
            Err(status) => instead(sandbox, request.tail_lines, &status),
        }
    }
}

/// What there is when the wolf does not give the output.
fn instead(sandbox: &Sandbox, tail_lines: u32, status: &Status) -> Result<Logs, Status> {
    let fault = from_status(status);
    if fault.reason == Reason::SandboxNotFound {
        return kept_or(sandbox, tail_lines, none_kept);
    }
    if is_lost(&fault) {
        return Err(to_status(
            Fault::new(
                Reason::SandboxUnreachable,
                "the wolf of the sandbox does not answer; try again shortly",
            )
            .about(sandbox.id.name())
            .with("wolf", fault.reason.as_str()),
        ));
    }
    Err(to_status(fault))
}

/// The kept output, or the fault that says why there is none.
fn kept_or(
    sandbox: &Sandbox,
    tail_lines: u32,
    otherwise: fn(&Sandbox) -> Fault,
) -> Result<Logs, Status> {
    let over = matches!(
        sandbox.record.state,
        SandboxState::Failed | SandboxState::Deleting | SandboxState::Deleted
    );
    if !over {
        return Err(to_status(otherwise(sandbox)));
    }
    let text = tail(&sandbox.record.last_logs, tail_lines).to_owned();
    if text.is_empty() {
        return Ok(stream::empty().boxed());
    }
    let piece = StreamLogsResponse { stderr: false, data: text.into() };
    Ok(stream::iter([Ok(piece)]).boxed())
}

fn none_yet(sandbox: &Sandbox) -> Fault {
    Fault::new(
        Reason::SandboxNotRunning,
        "the sandbox has no container yet; watch it to see it start",
    )
    .about(sandbox.id.name())
    .with("state", sandbox.record.state.as_str())
}

fn none_kept(sandbox: &Sandbox) -> Fault {
    Fault::new(Reason::SandboxNotRunning, "the container is gone and its output with it")
        .about(sandbox.id.name())
        .with("state", sandbox.record.state.as_str())
}

/// The last so many lines; all of them for zero.
fn tail(text: &str, lines: u32) -> &str {
    if lines == 0 {
        return text;
    }
    let lines = usize::try_from(lines).unwrap_or(usize::MAX);
    let body = text.strip_suffix('\n').unwrap_or(text);
    let start = body.rmatch_indices('\n').nth(lines - 1).map_or(0, |(at, _)| at + 1);
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::tail;

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        let text = "one\ntwo\nthree\n";
        assert_eq!(tail(text, 0), text);
        assert_eq!(tail(text, 1), "three\n");
        assert_eq!(tail(text, 2), "two\nthree\n");
        assert_eq!(tail(text, 9), text);
        assert_eq!(tail("no newline", 1), "no newline");
        assert_eq!(tail("", 3), "");
    }
}
