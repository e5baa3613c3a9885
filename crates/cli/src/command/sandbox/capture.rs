//! A program in a sandbox whose output is for us, not for the user's screen.

use tokio_stream::StreamExt as _;
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_proto::sandbox::v1::exec_output::Output;
use wolfpack_types::{Fault, Reason};

use crate::connect::Api;
use crate::failure::Failure;

/// More output than that is none of a program of ours.
const MOST: usize = 4 << 20;
/// The longest it may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

/// How it ended.
#[derive(Debug, Default)]
pub(in crate::command) struct Ran {
    pub(in crate::command) stdout: Vec<u8>,
    pub(in crate::command) stderr: Vec<u8>,
    pub(in crate::command) code: i32,
}

/// Runs it to its end, without stdin; giving up kills it.
pub(in crate::command) async fn capture(
    api: &Api,
    sandbox: &str,
    start: pb::ExecStart,
) -> Result<Ran, Failure> {
    match tokio::time::timeout(PATIENCE, run(api, sandbox, start)).await {
        Ok(ran) => ran,
        Err(_) => Err(Failure::Timeout(format!(
            "the program in {sandbox} did not end within {} s",
            PATIENCE.as_secs()
        ))),
    }
}

async fn run(api: &Api, sandbox: &str, start: pb::ExecStart) -> Result<Ran, Failure> {
    let start = pb::SandboxExecStart { sandbox: sandbox.to_owned(), exec: Some(start) };
    let start = pb::ExecRequest { frame: Some(pb::exec_request::Frame::Start(start)) };
    let close = pb::exec_input::Input::CloseStdin(pb::CloseStdin {});
    let close = pb::ExecInput { input: Some(close) };
    let close = pb::ExecRequest { frame: Some(pb::exec_request::Frame::Input(close)) };
    // The request stays open: its end would be taken for a call given up.
    let requests = tokio_stream::iter([start, close]).chain(tokio_stream::pending());
    let mut answers = api.io().exec(requests).await?.into_inner();
    let mut ran = Ran::default();
    while let Some(answer) = answers.message().await? {
        let Some(pb::exec_response::Frame::Output(output)) = answer.frame else { continue };
        match output.output {
            Some(Output::Stdout(chunk)) => ran.stdout.extend_from_slice(&chunk.data),
            Some(Output::Stderr(chunk)) => ran.stderr.extend_from_slice(&chunk.data),
            Some(Output::Exit(ended)) => {
                ran.code = ended.code;
                return Ok(ran);
            }
            None => {}
        }
        if ran.stdout.len() + ran.stderr.len() > MOST {
            let words = "the program in the sandbox says more than it should; was it replaced?";
            return Err(Fault::new(Reason::ExecFailed, words).into());
        }
    }
    let words = "the call ended before the program did; it may have been killed";
    Err(Fault::new(Reason::ConnectionReset, words).into())
}
