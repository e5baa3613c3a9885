//! Running programs: the caller's stream joined to the agent's, frame by frame.
//!
//! Nothing is buffered in between: a frame is taken from one side when the
//! other asks for one, so a slow reader slows the program and nothing else. The
//! caller going away ends the agent's call, and that ends the program.

use std::time::Duration;

use futures::future::Either;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, Streaming};
use wolfpack_proto::agent::v1 as agent;
use wolfpack_proto::sandbox::v1::{
    ExecInput, ExecRequest, ExecResponse, ExecStarted, SandboxExecStart, TunnelPath, exec_input,
    exec_request, exec_response,
};
use wolfpack_rpc::{Caller, check, to_status};
use wolfpack_types::{Fault, Reason};

use super::Api;

/// How long a caller may take to say what to run.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);

impl Api {
    /// Runs a program in a sandbox of the caller's project.
    pub(super) async fn run(
        &self,
        caller: &Caller,
        mut input: Streaming<ExecRequest>,
    ) -> Result<BoxStream<'static, Result<ExecResponse, Status>>, Status> {
        let start = first(&mut input).await?;
        let route = self.enter(caller, &start.sandbox).await?;
        // Cancelled when this future or the stream it answers is dropped.
        let token = CancellationToken::new();
        let held = token.clone().drop_guard();
        let (mut agent, via) = self.parts.reach.open(&route, token).await.map_err(to_status)?;
        let exec = start.exec.unwrap_or_default();
        let (broken, breaks) = oneshot::channel();
        let first = agent::ExecRequest { frame: Some(agent::exec_request::Frame::Start(exec)) };
        let frames = stream::iter([first]).chain(inputs(input, broken));
        // From here on nothing is repeated: the program may run already.
        let output = agent.exec(frames).await?.into_inner();
        Ok(outputs(output, breaks, via, held).boxed())
    }
}

/// The first message, which must say what to run.
async fn first(input: &mut Streaming<ExecRequest>) -> Result<SandboxExecStart, Status> {
    let missing = || {
        to_status(Fault::new(
            Reason::FirstMessageMissing,
            "the first message must be start, within 10 seconds",
        ))
    };
    let message =
        tokio::time::timeout(FIRST_MESSAGE, input.message()).await.map_err(|_| missing())??;
    match message.and_then(|message| message.frame) {
        Some(exec_request::Frame::Start(start)) => {
            check(&start)?;
            Ok(start)
        }
        Some(exec_request::Frame::Input(_)) | None => Err(missing()),
    }
}

/// The caller's later messages as the agent takes them. The stream ends when
/// the caller half-closes, and only then: when the caller breaks a rule or goes
/// away, `broken` hears of it, and the program must not mistake it for the end
/// of its input. A request that is cancelled is an error here and never an end:
/// the server sees to that for every call.
fn inputs(
    input: Streaming<ExecRequest>,
    broken: oneshot::Sender<Status>,
) -> impl Stream<Item = agent::ExecRequest> + Send + 'static {
    stream::unfold((input, Some(broken)), |(mut input, mut broken)| async move {
        let status = match input.message().await {
            Ok(Some(message)) => match later(message) {
                Ok(frame) => return Some((frame, (input, broken))),
                Err(status) => status,
            },
            Err(status) => status,
            Ok(None) => return None,
        };
        if let Some(broken) = broken.take() {
            let _ = broken.send(status);
        }
        std::future::pending().await
    })
}

fn later(message: ExecRequest) -> Result<agent::ExecRequest, Status> {
    match message.frame {
        Some(exec_request::Frame::Input(input)) => {
            checked_input(&input)?;
            Ok(agent::ExecRequest { frame: Some(agent::exec_request::Frame::Input(input)) })
        }
        Some(exec_request::Frame::Start(_)) => {
            Err(invalid("only the first message may be start; send input"))
        }
        None => Err(invalid("a message without a frame; send input")),
    }
}

/// The rules of an input: those of the messages inside its oneof.
fn checked_input(input: &ExecInput) -> Result<(), Status> {
    match &input.input {
        Some(exec_input::Input::Resize(size)) => check(size),
        Some(exec_input::Input::Signal(signal)) => check(signal),
        Some(exec_input::Input::Stdin(_) | exec_input::Input::CloseStdin(_)) => Ok(()),
        None => Err(invalid("an input without content; send stdin, close_stdin, resize or signal")),
    }
}

fn invalid(message: &str) -> Status {
    to_status(Fault::new(Reason::RequestInvalid, message))
}

/// The agent's answers as the caller takes them, until the exit, an error, or
/// the caller's own mistake.
fn outputs(
    output: Streaming<agent::ExecResponse>,
    breaks: oneshot::Receiver<Status>,
    via: TunnelPath,
    held: DropGuard,
) -> impl Stream<Item = Result<ExecResponse, Status>> + Send + 'static {
    // A caller that half-closed drops the sender: then only the agent counts.
    let breaks = async move {
        match breaks.await {
            Ok(status) => status,
            Err(_) => std::future::pending().await,
        }
    };
    stream::unfold(Some((output, Box::pin(breaks), held)), move |state| async move {
        let (mut output, mut breaks, held) = state?;
        let next = {
            let message = std::pin::pin!(output.message());
            match futures::future::select(message, &mut breaks).await {
                Either::Left((message, _)) => message,
                Either::Right((status, _)) => Err(status),
            }
        };
        match next {
            Ok(None) => None,
            Ok(Some(message)) => Some((Ok(mapped(message, via)), Some((output, breaks, held)))),
            Err(status) => Some((Err(status), None)),
        }
    })
}

fn mapped(message: agent::ExecResponse, via: TunnelPath) -> ExecResponse {
    let frame = message.frame.map(|frame| match frame {
        agent::exec_response::Frame::Started(_) => {
            exec_response::Frame::Started(ExecStarted { via: via.into() })
        }
        agent::exec_response::Frame::Output(output) => exec_response::Frame::Output(output),
    });
    ExecResponse { frame }
}
