//! One running program and its caller.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use rustix::process::{Pid, Signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wolfpack_types::Fault;

use super::drain::{Source, drain};
use super::input::{Sink, feed};
use super::{Input, Output};
use crate::init::{Exit, Reaper};
use crate::process::launch::{Ends, KillOnDrop};
use crate::process::tree;

/// How long a program may take to end after SIGTERM when its caller is gone.
pub(super) const TERM_GRACE: Duration = Duration::from_secs(2);

const POLL: Duration = Duration::from_millis(20);

/// See [`super::Started::drive`].
pub(super) async fn drive(
    reaper: &Reaper,
    leader: Pid,
    mut end: oneshot::Receiver<Exit>,
    ends: Ends,
    input: impl Stream<Item = Result<Input, Fault>> + Send,
    output: mpsc::Sender<Result<Output, Fault>>,
) -> Option<Exit> {
    let ended = CancellationToken::new();
    let (mut sink, stdout, stderr) = split(ends)?;
    let mut carried = Box::pin(async {
        let fed = async {
            tokio::select! {
                fed = feed(&mut sink, input, reaper, leader) => fed,
                () = ended.cancelled() => Ok(()),
            }
        };
        let waited = async {
            let exit = (&mut end).await;
            ended.cancel();
            Ok(exit.ok())
        };
        let drained = async {
            let stdout = drain(stdout, Output::Stdout, ended.clone(), output.clone());
            match stderr {
                Some(stderr) => {
                    let stderr = drain(stderr, Output::Stderr, ended.clone(), output.clone());
                    tokio::join!(stdout, stderr);
                }
                None => stdout.await,
            }
            Ok(())
        };
        tokio::try_join!(waited, fed, drained).map(|(exit, (), ())| exit)
    });
    // However this future ends, the program does not stay behind; nor do its pipes
    // close before it is killed, as they are dropped after this.
    let ending = KillOnDrop::new(reaper, leader);
    let outcome = tokio::select! {
        outcome = &mut carried => outcome,
        () = output.closed() => Ok(None),
    };
    match outcome {
        Ok(Some(exit)) => {
            let _ = output.send(Ok(Output::Exit(exit))).await;
            Some(exit)
        }
        gone => {
            // Before its pipes close: half of its input is not to look like all of
            // it to a program that ends when it is told to.
            terminate(reaper, leader);
            drop(carried);
            drop(sink);
            end_tree(leader, &mut end).await;
            drop(ending);
            if let Err(fault) = gone {
                let _ = output.send(Err(fault)).await;
            }
            None
        }
    }
}

fn split(ends: Ends) -> Option<(Sink, Source, Option<Source>)> {
    match ends {
        Ends::None => None,
        Ends::Pipes(pipes) => {
            let stderr = Some(Source::Pipe(pipes.stderr));
            Some((Sink::Pipe(Some(pipes.stdin)), Source::Pipe(pipes.stdout), stderr))
        }
        Ends::Terminal(terminal) => {
            let terminal = Arc::new(terminal);
            Some((Sink::Terminal(Arc::clone(&terminal), false), Source::Terminal(terminal), None))
        }
    }
}

/// Asks a session to end. By session and not only by group, because a shell gives
/// each of its jobs a group of its own.
fn terminate(reaper: &Reaper, leader: Pid) {
    // The number is the session's as long as one of its processes lives.
    reaper.signal_group(leader, Signal::TERM);
    tree::signal_session(leader, Signal::TERM);
    tree::signal_session(leader, Signal::CONT);
}

/// Waits [`TERM_GRACE`] for the end of a session that was asked to, then kills it.
async fn end_tree(leader: Pid, end: &mut oneshot::Receiver<Exit>) {
    let deadline = Instant::now() + TERM_GRACE;
    let _ = tokio::time::timeout_at(deadline, end).await;
    while !tree::session_members(leader).is_empty() {
        if Instant::now() >= deadline {
            tree::signal_session(leader, Signal::KILL);
            return;
        }
        tokio::time::sleep(POLL).await;
    }
}
