//! `wolfpack sandbox exec`.

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use wolfpack_proto::sandbox::v1 as pb;
use wolfpack_proto::sandbox::v1::exec_input::Input;
use wolfpack_proto::sandbox::v1::exec_output::Output;
use wolfpack_runtime::{Supervisor, Telemetry};
use wolfpack_types::{Fault, Reason};

use crate::args::sandbox::ExecArgs;
use crate::args::values::map;
use crate::command::resolve;
use crate::connect::Api;
use crate::failure::Failure;
use crate::terminal::{self, RawMode};

/// What is read of stdin at once.
const CHUNK: usize = 32 * 1024;
/// How many messages may wait for the connection before stdin is not read.
const QUEUE: usize = 16;

pub(super) async fn run(api: &Api, arguments: ExecArgs) -> Result<ExitCode, Failure> {
    let sandbox = resolve::sandbox(api, &arguments.sandbox).await?;
    let (interactive, tty) = (arguments.interactive, arguments.tty);
    let (send, inputs) = mpsc::channel(QUEUE);
    let start = pb::SandboxExecStart { sandbox, exec: Some(start(arguments)) };
    // The queue is empty and its reader is here.
    let _ = send.try_send(frame(pb::exec_request::Frame::Start(start)));
    let mut answers = api.io().exec(ReceiverStream::new(inputs)).await?.into_inner();

    // Only now: a call that was refused must not touch the terminal.
    let raw = if tty && interactive { RawMode::enter()? } else { None };
    let tasks = Supervisor::new(Telemetry::disabled("wolfpack"));
    let signals = Signals::listen()?;
    tasks.spawn("signals", signals.forward(send.clone(), tty));
    if interactive {
        tasks.spawn("stdin", pump(send));
    } else {
        // A full queue would need 16 signals before the program began.
        let _ = send.try_send(input(Input::CloseStdin(pb::CloseStdin {})));
    }
    let result = Screen::default().show(&mut answers).await;
    tasks.shutdown(Duration::ZERO).await;
    drop(raw);
    result
}

fn start(arguments: ExecArgs) -> pb::ExecStart {
    pb::ExecStart {
        env: map(&arguments.env),
        argv: arguments.command,
        cwd: arguments.cwd.unwrap_or_default(),
        tty: arguments.tty,
        size: arguments.tty.then(terminal::size).flatten(),
        user: arguments.user.unwrap_or_default(),
    }
}

fn frame(frame: pb::exec_request::Frame) -> pb::ExecRequest {
    pb::ExecRequest { frame: Some(frame) }
}

fn input(input: Input) -> pb::ExecRequest {
    frame(pb::exec_request::Frame::Input(pb::ExecInput { input: Some(input) }))
}

/// Sends stdin on until it ends; waits while the connection is slower.
async fn pump(send: mpsc::Sender<pb::ExecRequest>) {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; CHUNK];
    loop {
        let message = match stdin.read(&mut buffer).await {
            // What cannot be read has ended.
            Ok(0) | Err(_) => Input::CloseStdin(pb::CloseStdin {}),
            Ok(count) => Input::Stdin(Bytes::copy_from_slice(&buffer[..count])),
        };
        let last = matches!(message, Input::CloseStdin(_));
        if send.send(input(message)).await.is_err() || last {
            return;
        }
    }
}

/// The signals that concern the program in the sandbox.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    resize: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            resize: signal(SignalKind::window_change())?,
        })
    }

    /// Passes them on. The second interrupt ends this side at once: dropping
    /// the call kills the program.
    async fn forward(mut self, send: mpsc::Sender<pb::ExecRequest>, tty: bool) {
        let mut interrupts = 0;
        loop {
            let message = tokio::select! {
                _ = self.interrupt.recv() => {
                    interrupts += 1;
                    if interrupts > 1 {
                        std::process::exit(i32::from(crate::exit::INTERRUPTED.0));
                    }
                    Input::Signal(pb::Signal { number: SignalKind::interrupt().as_raw_value() })
                }
                _ = self.terminate.recv() => {
                    Input::Signal(pb::Signal { number: SignalKind::terminate().as_raw_value() })
                }
                _ = self.hang_up.recv() => {
                    Input::Signal(pb::Signal { number: SignalKind::hangup().as_raw_value() })
                }
                _ = self.resize.recv() => match terminal::size() {
                    Some(size) if tty => Input::Resize(size),
                    _ => continue,
                },
            };
            if send.send(input(message)).await.is_err() {
                return;
            }
        }
    }
}

/// Writes what the program says, and checks that nothing is missing.
#[derive(Default)]
struct Screen {
    stdout: u64,
    stderr: u64,
}

impl Screen {
    async fn show(
        mut self,
        answers: &mut tonic::Streaming<pb::ExecResponse>,
    ) -> Result<ExitCode, Failure> {
        let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
        while let Some(answer) = answers.message().await? {
            let Some(pb::exec_response::Frame::Output(output)) = answer.frame else { continue };
            match output.output {
                Some(Output::Stdout(chunk)) => {
                    advance(&mut self.stdout, &chunk)?;
                    stdout.write_all(&chunk.data).await?;
                    stdout.flush().await?;
                }
                Some(Output::Stderr(chunk)) => {
                    advance(&mut self.stderr, &chunk)?;
                    stderr.write_all(&chunk.data).await?;
                    stderr.flush().await?;
                }
                Some(Output::Exit(exit)) => return Ok(exit_code(exit.code)),
                None => {}
            }
        }
        Err(Fault::new(
            Reason::ConnectionReset,
            "the call ended before the program did; it may have been killed",
        )
        .into())
    }
}

fn advance(seen: &mut u64, chunk: &pb::ExecChunk) -> Result<(), Failure> {
    if chunk.offset != *seen {
        let words =
            format!("output is missing: {} bytes came, then those from {}", seen, chunk.offset);
        return Err(Fault::new(Reason::Internal, words).into());
    }
    *seen += chunk.data.len() as u64;
    Ok(())
}

fn exit_code(code: i32) -> ExitCode {
    // A code outside of a byte is cut by every kernel; never to success.
    ExitCode::from(u8::try_from(code & 0xff).ok().filter(|cut| *cut != 0 || code == 0).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_kept_and_never_become_success() {
        let same = |code, expected: u8| {
            assert_eq!(format!("{:?}", exit_code(code)), format!("{:?}", ExitCode::from(expected)));
        };
        same(0, 0);
        same(5, 5);
        same(137, 137);
        same(-1, 255);
        same(256, 1);
    }

    #[test]
    fn missing_output_is_an_error() {
        let mut seen = 0;
        let chunk =
            |offset, data: &'static [u8]| pb::ExecChunk { offset, data: Bytes::from_static(data) };
        advance(&mut seen, &chunk(0, b"abc")).unwrap();
        advance(&mut seen, &chunk(3, b"d")).unwrap();
        assert!(advance(&mut seen, &chunk(9, b"e")).is_err());
    }
}
