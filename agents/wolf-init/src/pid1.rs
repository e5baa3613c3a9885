//! The outer process. It gives the container namespaces of its own, so that
//! `docker exec` finds them too, then reaps whatever ends and passes signals
//! on to the inner process. It ends when that one does, and the kernel ends
//! everything else with it.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::time::Instant;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};
use wolfpack_dockerd::place::{StepFailed, prepare};
use wolfpack_dockerd::status::Outcome;

use crate::record::Record;
use crate::{Config, exit};

/// Runs the container.
pub(crate) fn run(config: &Config) -> ExitCode {
    let record = Record::fresh(&config.run_dir);
    let begun = Instant::now();
    // Before there is a runtime: its threads would stay outside.
    if let Err(failed) = prepare::isolate() {
        record.failed(&failed);
        return ExitCode::from(exit::code(&failed.step));
    }
    record.step(
        "isolate",
        Outcome::Done,
        "cgroup and mount namespaces of its own",
        begun.elapsed(),
    );
    let ran = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(keep()));
    match ran {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let fix = "give the container memory and processes to start one";
            record.failed(&StepFailed::new("init", error, fix));
            ExitCode::from(exit::INTERNAL)
        }
    }
}

/// Starts the inner process and serves it until it ends; its exit code.
async fn keep() -> io::Result<u8> {
    let mut ended = signal(SignalKind::child())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    // A terminal's signals come here and are passed on, not twice. This is the
    // one place that waits for children, so std's handle is not kept.
    let inner = Command::new("/proc/self/exe")
        .arg0("wolfpack-wolf-init")
        .arg("supervise")
        .process_group(0)
        .spawn()?
        .id();
    let inner = i32::try_from(inner).ok().and_then(Pid::from_raw);
    let inner = inner.ok_or_else(|| io::Error::other("the kernel returned an odd process id"))?;
    // Only reaping frees the number, and only this loop reaps.
    let pass_on = |signal| {
        let _ = kill_process(inner, signal);
    };
    loop {
        if let Some(code) = reap(inner) {
            return Ok(code);
        }
        tokio::select! {
            _ = ended.recv() => {}
            _ = terminate.recv() => pass_on(Signal::TERM),
            _ = interrupt.recv() => pass_on(Signal::TERM),
            _ = hang_up.recv() => pass_on(Signal::HUP),
        }
    }
}

/// Reaps all that has ended; the exit code when the inner process was among it.
fn reap(inner: Pid) -> Option<u8> {
    let mut code = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == inner => {
                let killed = status.terminating_signal().map(|signal| 128 + signal);
                if let Some(ended) = status.exit_status().or(killed) {
                    code = Some(u8::try_from(ended).unwrap_or(exit::INTERNAL));
                }
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(_) => return code,
        }
    }
}
