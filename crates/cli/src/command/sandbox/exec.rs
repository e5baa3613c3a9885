//! `wolfpack sandbox exec`.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;
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
use crate::exit::{self, Exit};
use crate::failure::Failure;
use crate::terminal::{self, RawMode};

/// What is read of stdin at once.
const CHUNK: usize = 32 * 1024;
/// How many messages may wait for the connection before stdin is not read.
const QUEUE: usize = 16;
/// How long the program may take to end after a signal that asks it to.
const GRACE: Duration = Duration::from_secs(2);

pub(super) async fn run(api: &Api, arguments: ExecArgs) -> Result<ExitCode, Failure> {
    let (interactive, tty) = (arguments.interactive, arguments.tty);
    // A terminal never ends by itself: the program would wait for ever.
    if interactive && tty && !std::io::stdin().is_terminal() {
        return Err(Failure::usage("stdin is not a terminal; leave out -t"));
    }
    let sandbox = resolve::sandbox(api, &arguments.sandbox).await?;
    let (send, inputs) = mpsc::channel(QUEUE);
    let start = pb::SandboxExecStart { sandbox, exec: Some(start(arguments)) };
    // The queue is empty and its reader is here.
    let _ = send.try_send(frame(pb::exec_request::Frame::Start(start)));
    let mut answers = api.io().exec(ReceiverStream::new(inputs)).await?.into_inner();

    // Only now: a call that was refused must not touch the terminal.
    let raw = if tty && interactive { RawMode::enter()? } else { None };
    let tasks = Supervisor::new(Telemetry::disabled("wolfpack"));
    let signals = Signals::listen()?;
    let left = signals.forward(send.clone(), tty);
    if interactive {
        tasks.spawn("stdin", pump(send));
    } else {
        // A full queue would need 16 signals before the program began.
        let _ = send.try_send(input(Input::CloseStdin(pb::CloseStdin {})));
    }
    let result = tokio::select! {
        result = Screen::default().show(&mut answers) => result,
        // Dropping the call kills the program.
        code = left => Ok(code.into()),
    };
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

    /// Passes them on, and ends when this side is to leave before the program:
    /// at the second interrupt, and at the second signal that asks to end or
    /// [`GRACE`] after the first.
    async fn forward(mut self, send: mpsc::Sender<pb::ExecRequest>, tty: bool) -> Exit {
        let mut interrupted = false;
        let mut leave: Option<(Exit, Instant)> = None;
        loop {
            let late = leave.map(|(_, at)| at);
            let message = tokio::select! {
                _ = self.interrupt.recv() => {
                    if std::mem::replace(&mut interrupted, true) {
                        return exit::INTERRUPTED;
                    }
                    number(SignalKind::interrupt())
                }
                _ = self.terminate.recv() => {
                    if let Some((code, _)) = leave {
                        return code;
                    }
                    leave = Some((exit::TERMINATED, Instant::now() + GRACE));
                    number(SignalKind::terminate())
                }
                _ = self.hang_up.recv() => {
                    if let Some((code, _)) = leave {
                        return code;
                    }
                    leave = Some((exit::HUNG_UP, Instant::now() + GRACE));
                    number(SignalKind::hangup())
                }
                () = until(late) => return leave.map_or(exit::TERMINATED, |(code, _)| code),
                _ = self.resize.recv() => match terminal::size() {
                    Some(size) if tty => Input::Resize(size),
                    _ => continue,
                },
            };
            // A connection that takes nothing must not hold the next signal, and
            // one that is closed is told by its answers.
            let _ = send.send_timeout(input(message), GRACE).await;
        }
    }
}

fn number(signal: SignalKind) -> Input {
    Input::Signal(pb::Signal { number: signal.as_raw_value() })
}

/// Waits for the instant; for ever without one.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
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
                Some(Output::Exit(ended)) => return Ok(exit_code(ended.code)),
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
