//! The agent in a sandbox, with a handful of programs.

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use wolfpack_proto::agent::v1::sandbox_agent_service_server::SandboxAgentService;
use wolfpack_proto::agent::v1::*;
use wolfpack_proto::sandbox::v1::{
    ExecChunk, ExecExit, ExecInput, ExecOutput, ExecStart, exec_input, exec_output,
};
use wolfpack_types::Reason;

use super::{Effect, World, fault};

pub(crate) struct Agent {
    world: World,
    execution: String,
    via: &'static str,
}

type Output = mpsc::Sender<Result<ExecResponse, Status>>;

impl Agent {
    /// The agent of the sandbox, if its container runs.
    pub(crate) fn find(world: &World, sandbox: &str, via: &'static str) -> Result<Self, Status> {
        let execution = world.with(|state| {
            let container = state.containers.iter().find(|((_, name), _)| name == sandbox);
            container
                .filter(|(_, it)| it.state() == ContainerState::Running)
                .map(|(_, it)| it.execution_id.clone())
        });
        let execution =
            execution.ok_or_else(|| fault(Reason::TargetUnreachable, "no container"))?;
        Ok(Self { world: world.clone(), execution, via })
    }
}

fn out(frame: exec_output::Output) -> Result<ExecResponse, Status> {
    let output = ExecOutput { output: Some(frame) };
    Ok(ExecResponse { frame: Some(exec_response::Frame::Output(output)) })
}

fn exit(code: i32) -> Result<ExecResponse, Status> {
    out(exec_output::Output::Exit(ExecExit { code, signal: 0 }))
}

/// `cat` copies, `yes BYTES` writes, `exit CODE` exits, `sleep` never ends.
async fn run(world: World, start: ExecStart, mut input: Streaming<ExecRequest>, output: Output) {
    let started = exec_response::Frame::Started(ExecStarted { pid: 7 });
    let _ = output.send(Ok(ExecResponse { frame: Some(started) })).await;
    let chunk = |offset: usize, data: bytes::Bytes| {
        out(exec_output::Output::Stdout(ExecChunk { offset: offset as u64, data }))
    };
    match start.argv[0].as_str() {
        "cat" => {
            let mut offset = 0;
            loop {
                match input.message().await {
                    Ok(None) => break,
                    Ok(Some(message)) => match message.frame {
                        Some(exec_request::Frame::Input(ExecInput {
                            input: Some(exec_input::Input::Stdin(data)),
                        })) => {
                            let len = data.len();
                            let _ = output.send(chunk(offset, data)).await;
                            offset += len;
                        }
                        Some(exec_request::Frame::Input(ExecInput {
                            input: Some(exec_input::Input::CloseStdin(_)),
                        })) => break,
                        _ => {}
                    },
                    Err(_) => {
                        world.inner.cancelled_execs.send_modify(|count| *count += 1);
                        return;
                    }
                }
            }
            let _ = output.send(exit(0)).await;
        }
        "yes" => {
            let total: usize = start.argv[1].parse().unwrap();
            let piece = bytes::Bytes::from(vec![b'y'; 32 * 1024]);
            let mut offset = 0;
            while offset < total {
                let data = piece.slice(..piece.len().min(total - offset));
                let len = data.len();
                if output.send(chunk(offset, data)).await.is_err() {
                    world.inner.cancelled_execs.send_modify(|count| *count += 1);
                    return;
                }
                offset += len;
                world.with(|state| state.counts.insert("yes", offset));
            }
            let _ = output.send(exit(0)).await;
        }
        "exit" => drop(output.send(exit(start.argv[1].parse().unwrap())).await),
        "sleep" => {
            output.closed().await;
            world.inner.cancelled_execs.send_modify(|count| *count += 1);
        }
        _ => drop(output.send(Err(fault(Reason::ExecFailed, "no such program"))).await),
    }
}

#[tonic::async_trait]
impl SandboxAgentService for Agent {
    type ExecStream = BoxStream<'static, Result<ExecResponse, Status>>;

    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        let ready = self.world.with(|state| {
            *state.counts.entry("status").or_default() += 1;
            state.agents_ready
        });
        self.world.after(Effect::Status).await;
        Ok(Response::new(GetStatusResponse {
            execution_id: self.execution.clone(),
            ready,
            message: String::new(),
        }))
    }

    async fn exec(
        &self,
        request: Request<Streaming<ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        let mut input = request.into_inner();
        let Some(exec_request::Frame::Start(start)) = input.message().await?.and_then(|m| m.frame)
        else {
            return Err(fault(Reason::FirstMessageMissing, "start first"));
        };
        let (output, answers) = mpsc::channel(2);
        tokio::spawn(run(self.world.clone(), start, input, output));
        Ok(Response::new(ReceiverStream::new(answers).boxed()))
    }

    async fn get_screenshot(
        &self,
        _: Request<GetScreenshotRequest>,
    ) -> Result<Response<GetScreenshotResponse>, Status> {
        let image = format!("a picture that came through {}", self.via).into();
        Ok(Response::new(GetScreenshotResponse { image, width: 640, height: 480 }))
    }

    async fn get_clipboard(
        &self,
        _: Request<GetClipboardRequest>,
    ) -> Result<Response<GetClipboardResponse>, Status> {
        let text = self.world.with(|state| state.clipboard.clone());
        Ok(Response::new(GetClipboardResponse { text }))
    }

    async fn set_clipboard(
        &self,
        request: Request<SetClipboardRequest>,
    ) -> Result<Response<SetClipboardResponse>, Status> {
        let text = request.into_inner().text;
        if text == "broken" {
            return Err(fault(Reason::DesktopAbsent, "no desktop"));
        }
        self.world.with(|state| state.clipboard = text);
        Ok(Response::new(SetClipboardResponse {}))
    }
}
