//! Exec: from the messages of the call to a session and back.

use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::{Instrument as _, info};
use wolfpack_proto::agent::v1::{
    ExecRequest, ExecResponse, ExecStarted, exec_request, exec_response,
};
use wolfpack_proto::sandbox::v1::{
    ExecChunk, ExecExit, ExecInput, ExecOutput, ExecStart, TerminalSize, exec_input, exec_output,
};
use wolfpack_rpc::error::{from_status, to_status};
use wolfpack_rpc::request::check;
use wolfpack_runtime::Supervisor;
use wolfpack_types::{Fault, Reason};

use crate::exec::{Execs, Input, Output, Start};
use crate::process::Size;

/// What the caller receives.
pub(super) type Responses = BoxStream<'static, Result<ExecResponse, Status>>;

/// The call must say what to run by then.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);

/// Messages that wait for a caller that reads slowly; then the program waits.
const QUEUE: usize = 8;

/// Starts what the first message names and hands the rest to its session. An
/// error means that nothing runs.
pub(super) async fn exec(
    execs: &Execs,
    supervisor: &Supervisor,
    mut requests: Streaming<ExecRequest>,
) -> Result<Responses, Status> {
    let start = first(&mut requests).await?;
    let program = start.argv.first().cloned().unwrap_or_default();
    let started = execs.start(&start).await.map_err(to_status)?;
    let pid = started.pid();
    let (sender, receiver) = mpsc::channel(QUEUE);
    let input = requests.map(|request| input_of(request.map_err(|status| from_status(&status))?));
    let session = async move {
        match started.drive(input, sender).await {
            Some(exit) => {
                info!(program, pid, code = exit.code(), signal = exit.signal(), "exec ended");
            }
            None => {
                info!(program, pid, "exec was ended because its caller went away");
            }
        }
    };
    // The span is that of the call: it lasts until the program has ended.
    supervisor.spawn("exec", session.in_current_span());
    let started = exec_response::Frame::Started(ExecStarted { pid });
    let first = futures::stream::once(std::future::ready(Ok(response(started))));
    Ok(first.chain(responses(receiver)).boxed())
}

fn responses(
    receiver: mpsc::Receiver<Result<Output, Fault>>,
) -> impl Stream<Item = Result<ExecResponse, Status>> + Send + 'static {
    ReceiverStream::new(receiver).map(|output| {
        let output = output.map_err(to_status)?;
        Ok(response(exec_response::Frame::Output(ExecOutput { output: Some(output_of(output)) })))
    })
}

fn response(frame: exec_response::Frame) -> ExecResponse {
    ExecResponse { frame: Some(frame) }
}

async fn first(requests: &mut Streaming<ExecRequest>) -> Result<Start, Status> {
    let missing = |what: &str| {
        let words = format!("{what}; the first message of an exec must be start");
        to_status(Fault::new(Reason::FirstMessageMissing, words))
    };
    let first = tokio::time::timeout(FIRST_MESSAGE, requests.next()).await;
    match first.map_err(|_elapsed| missing("no message came in time"))? {
        None => Err(missing("the call ended without a message")),
        Some(Err(status)) => Err(status),
        Some(Ok(ExecRequest { frame: Some(exec_request::Frame::Start(start)) })) => {
            // The rules of a message inside a oneof are not checked with the outer one.
            check(&start)?;
            Ok(start_of(start))
        }
        Some(Ok(_)) => Err(missing("another message came first")),
    }
}

fn start_of(start: ExecStart) -> Start {
    let ExecStart { argv, env, cwd, tty, size, user } = start;
    let terminal = tty.then(|| size.map(size_of).unwrap_or_default());
    Start { argv, env, cwd, user, terminal }
}

/// Zero stands for "unknown" and is left at what programs assume.
fn size_of(size: TerminalSize) -> Size {
    let or = |given: u32, otherwise: u16| {
        u16::try_from(given).ok().filter(|size| *size > 0).unwrap_or(otherwise)
    };
    let default = Size::default();
    Size { rows: or(size.rows, default.rows), columns: or(size.columns, default.columns) }
}

fn input_of(request: ExecRequest) -> Result<Input, Fault> {
    let invalid = |words: &str| Fault::new(Reason::RequestInvalid, words);
    let checked = |checked: Result<(), Status>| checked.map_err(|status| from_status(&status));
    let Some(exec_request::Frame::Input(ExecInput { input: Some(input) })) = request.frame else {
        return Err(invalid("after start, every message must be an input"));
    };
    Ok(match input {
        exec_input::Input::Stdin(bytes) => Input::Stdin(bytes),
        exec_input::Input::CloseStdin(_) => Input::CloseStdin,
        exec_input::Input::Resize(size) => {
            checked(check(&size))?;
            Input::Resize(size_of(size))
        }
        exec_input::Input::Signal(signal) => {
            checked(check(&signal))?;
            let signal = Signal::from_named_raw(signal.number);
            Input::Signal(
                signal.ok_or_else(|| {
                    invalid("real-time signals cannot be sent; send one of 1 to 31")
                })?,
            )
        }
    })
}

fn output_of(output: Output) -> exec_output::Output {
    match output {
        Output::Stdout(offset, data) => exec_output::Output::Stdout(ExecChunk { offset, data }),
        Output::Stderr(offset, data) => exec_output::Output::Stderr(ExecChunk { offset, data }),
        Output::Exit(exit) => {
            exec_output::Output::Exit(ExecExit { code: exit.code(), signal: exit.signal() })
        }
    }
}

#[cfg(test)]
mod tests {
    use wolfpack_proto::sandbox::v1;

    use super::*;

    fn input(input: exec_input::Input) -> ExecRequest {
        ExecRequest { frame: Some(exec_request::Frame::Input(ExecInput { input: Some(input) })) }
    }

    #[test]
    fn inputs_are_checked_one_by_one() {
        let signal = |number| input_of(input(exec_input::Input::Signal(v1::Signal { number })));
        assert!(matches!(signal(15), Ok(Input::Signal(signal)) if signal == Signal::TERM));
        for bad in [-1, 0, 34, 64, 65] {
            assert_eq!(signal(bad).unwrap_err().reason, Reason::RequestInvalid, "{bad}");
        }
        let resize =
            |rows| input_of(input(exec_input::Input::Resize(TerminalSize { rows, columns: 0 })));
        assert!(matches!(resize(50), Ok(Input::Resize(Size { rows: 50, columns: 80 }))));
        assert_eq!(resize(65536).unwrap_err().reason, Reason::RequestInvalid);
        let again = ExecRequest { frame: Some(exec_request::Frame::Start(ExecStart::default())) };
        assert_eq!(input_of(again).unwrap_err().reason, Reason::RequestInvalid);
        assert_eq!(
            input_of(ExecRequest { frame: None }).unwrap_err().reason,
            Reason::RequestInvalid
        );
    }
}
