//! A caller of `SandboxAgentService` over a unix socket, for both suites.

#![allow(dead_code, reason = "each suite uses a part")]

use std::path::PathBuf;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use wolfpack_proto::agent::v1::sandbox_agent_service_client::SandboxAgentServiceClient;
use wolfpack_proto::agent::v1::{ExecRequest, ExecResponse, exec_request, exec_response};
use wolfpack_proto::sandbox::v1::{
    CloseStdin, ExecInput, ExecStart, Signal, TerminalSize, exec_input, exec_output,
};
use wolfpack_rpc::{RpcChannel, from_status};
use wolfpack_types::Fault;

/// Nothing in these suites takes longer, or it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A client of the agent behind a socket.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) client: SandboxAgentServiceClient<RpcChannel>,
}

impl Caller {
    pub(crate) fn at(socket: PathBuf) -> Self {
        let channel =
            RpcChannel::over("sandbox-agent", move || UnixStream::connect(socket.clone()));
        let client = SandboxAgentServiceClient::new(channel.without_deadline());
        Self { client: client.max_decoding_message_size(64 << 20) }
    }

    /// Sends `start`; the answer is what comes before anything runs.
    pub(crate) async fn start(&self, start: ExecStart) -> Result<Run, Fault> {
        self.send_first(exec_request::Frame::Start(start)).await
    }

    pub(crate) async fn send_first(&self, frame: exec_request::Frame) -> Result<Run, Fault> {
        let (requests, receiver) = mpsc::channel(4);
        requests.send(ExecRequest { frame: Some(frame) }).await.unwrap();
        let mut client = self.client.clone();
        let call = client.exec(ReceiverStream::new(receiver));
        let answered = tokio::time::timeout(PATIENCE, call).await.expect("exec answers");
        let mut responses = answered.map_err(|status| from_status(&status))?.into_inner();
        let first = responses.message().await.map_err(|status| from_status(&status))?;
        match first.and_then(|response| response.frame) {
            Some(exec_response::Frame::Started(started)) => {
                Ok(Run { pid: started.pid, requests: Some(requests), responses })
            }
            other => panic!("started comes first, not {other:?}"),
        }
    }

    /// Runs a shell script without stdin to its end.
    pub(crate) async fn sh(&self, script: &str) -> Outcome {
        self.run(shell(script)).await
    }

    pub(crate) async fn run(&self, start: ExecStart) -> Outcome {
        let mut run = self.start(start).await.unwrap();
        run.end_requests();
        run.finish().await
    }
}

pub(crate) fn shell(script: &str) -> ExecStart {
    ExecStart { argv: ["sh", "-c", script].map(str::to_owned).to_vec(), ..ExecStart::default() }
}

/// A program that runs.
pub(crate) struct Run {
    pub(crate) pid: i32,
    requests: Option<mpsc::Sender<ExecRequest>>,
    pub(crate) responses: Streaming<ExecResponse>,
}

/// How a program ended.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) code: i32,
    pub(crate) signal: i32,
}

impl Outcome {
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

impl Run {
    async fn input(&self, input: exec_input::Input) {
        let frame = exec_request::Frame::Input(ExecInput { input: Some(input) });
        let request = ExecRequest { frame: Some(frame) };
        // A program that has ended takes no more.
        let _ = self.requests.as_ref().expect("requests are open").send(request).await;
    }

    pub(crate) async fn stdin(&self, bytes: impl Into<bytes::Bytes>) {
        self.input(exec_input::Input::Stdin(bytes.into())).await;
    }

    pub(crate) async fn close_stdin(&self) {
        self.input(exec_input::Input::CloseStdin(CloseStdin {})).await;
    }

    pub(crate) async fn signal(&self, number: i32) {
        self.input(exec_input::Input::Signal(Signal { number })).await;
    }

    pub(crate) async fn resize(&self, rows: u32, columns: u32) {
        self.input(exec_input::Input::Resize(TerminalSize { rows, columns })).await;
    }

    pub(crate) fn end_requests(&mut self) {
        self.requests = None;
    }

    /// The next piece of output; `None` at the end of the call.
    pub(crate) async fn next(&mut self) -> Result<Option<exec_output::Output>, Status> {
        let message = tokio::time::timeout(PATIENCE, self.responses.message()).await;
        let Some(message) = message.expect("the program says something or ends")? else {
            return Ok(None);
        };
        match message.frame {
            Some(exec_response::Frame::Output(output)) => Ok(output.output),
            other => panic!("an output was expected, not {other:?}"),
        }
    }

    /// Reads until `text` has come on stdout; what came until then.
    pub(crate) async fn until(&mut self, text: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(text) {
            match self.next().await.unwrap() {
                Some(exec_output::Output::Stdout(chunk)) => {
                    seen.push_str(&String::from_utf8_lossy(&chunk.data));
                }
                other => panic!("{text:?} was expected after {seen:?}, not {other:?}"),
            }
        }
        seen
    }

    /// Reads to the end. Offsets leave no gap and nothing follows the exit.
    pub(crate) async fn finish(mut self) -> Outcome {
        let mut outcome = Outcome::default();
        let (mut out, mut err) = (None, None);
        loop {
            match self.next().await.unwrap().expect("an exit comes last") {
                exec_output::Output::Stdout(chunk) => {
                    assert_eq!(chunk.offset, *out.get_or_insert(chunk.offset));
                    out = Some(chunk.offset + chunk.data.len() as u64);
                    outcome.stdout.extend_from_slice(&chunk.data);
                }
                exec_output::Output::Stderr(chunk) => {
                    assert_eq!(chunk.offset, *err.get_or_insert(chunk.offset));
                    err = Some(chunk.offset + chunk.data.len() as u64);
                    outcome.stderr.extend_from_slice(&chunk.data);
                }
                exec_output::Output::Exit(exit) => {
                    (outcome.code, outcome.signal) = (exit.code, exit.signal);
                    break;
                }
            }
        }
        assert!(self.next().await.unwrap().is_none(), "nothing follows the exit");
        outcome
    }
}
