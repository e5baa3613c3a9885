//! The one place that waits for children. Whoever starts a process asks here
//! for its end; what nobody asked for is an orphan that PID 1 inherited, and is
//! reaped without a word. No other code of the agent may wait, or statuses
//! would be lost.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// A signal of this number ended it.
    Signal(i32),
}

impl Exit {
    /// The code a shell gives it: 128 + signal for one that was killed.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// The signal that ended it; zero for none.
    #[must_use]
    pub fn signal(self) -> i32 {
        match self {
            Self::Code(_) => 0,
            Self::Signal(signal) => signal,
        }
    }
}

/// Whose ends the reaper collects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adopts {
    /// Everything: for PID 1.
    Orphans,
    /// Only what was started through it: for a process that shares its children
    /// with others, such as a test.
    Nothing,
}

/// The children that somebody waits for. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reaper {
    adopts: Adopts,
    waiting: Arc<Mutex<HashMap<Pid, oneshot::Sender<Exit>>>>,
}

impl Reaper {
    /// An empty table. Nothing is reaped until [`Reaper::run`] runs.
    #[must_use]
    pub fn new(adopts: Adopts) -> Self {
        Self { adopts, waiting: Arc::default() }
    }

    /// Starts a process by `start`, which returns its pid, and returns where its
    /// end will be told. Nothing is reaped meanwhile, so even a child that ends
    /// at once keeps its status for its owner. One start runs at a time, which
    /// also keeps descriptors opened for one child away from another.
    ///
    /// # Errors
    /// What `start` returns.
    pub fn start(
        &self,
        start: impl FnOnce() -> io::Result<u32>,
    ) -> io::Result<(Pid, oneshot::Receiver<Exit>)> {
        let mut waiting = self.waiting.lock();
        let pid = start()?;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the kernel returned an odd process id"))?;
        let (told, end) = oneshot::channel();
        waiting.insert(pid, told);
        Ok((pid, end))
    }

    /// Signals the process group of a child that was started here and has not
    /// been reaped. Whether there was one: its number cannot have gone to
    /// another process meanwhile.
    pub fn signal_group(&self, leader: Pid, signal: Signal) -> bool {
        let waiting = self.waiting.lock();
        waiting.contains_key(&leader) && rustix::process::kill_process_group(leader, signal).is_ok()
    }

    /// As [`Reaper::signal_group`], for the child alone.
    pub fn signal(&self, child: Pid, signal: Signal) -> bool {
        let waiting = self.waiting.lock();
        waiting.contains_key(&child) && rustix::process::kill_process(child, signal).is_ok()
    }

    /// Reaps until the process ends. Every SIGCHLD stands for any number of
    /// ends, so each one sweeps until nothing is left.
    ///
    /// # Errors
    /// When SIGCHLD cannot be listened to.
    pub async fn run(self) -> io::Result<()> {
        let mut ended = signal(SignalKind::child())?;
        loop {
            self.sweep();
            if ended.recv().await.is_none() {
                return Err(io::Error::other("the runtime stopped to deliver SIGCHLD"));
            }
        }
    }

    /// Collects every end there is now; the number of orphans among them.
    pub fn sweep(&self) -> usize {
        let mut waiting = self.waiting.lock();
        let mut orphans = 0;
        match self.adopts {
            Adopts::Orphans => {
                while let Some((pid, exit)) = reap(None) {
                    match waiting.remove(&pid) {
                        // The owner may have gone away; the end is reaped all the same.
                        Some(told) => drop(told.send(exit)),
                        None => orphans += 1,
                    }
                }
            }
            Adopts::Nothing => {
                let children: Vec<Pid> = waiting.keys().copied().collect();
                for child in children {
                    if let Some((_, exit)) = reap(Some(child))
                        && let Some(told) = waiting.remove(&child)
                    {
                        let _ = told.send(exit);
                    }
                }
            }
        }
        orphans
    }
}

/// One child that has ended: this one, or any.
fn reap(whom: Option<Pid>) -> Option<(Pid, Exit)> {
    loop {
        let ended = match whom {
            Some(pid) => rustix::process::waitpid(Some(pid), WaitOptions::NOHANG),
            None => rustix::process::wait(WaitOptions::NOHANG),
        };
        match ended {
            Ok(Some((pid, status))) => {
                let exit = status.exit_status().map(Exit::Code);
                let exit = exit.or_else(|| status.terminating_signal().map(Exit::Signal));
                // Stops and continuations were not asked for.
                if let Some(exit) = exit {
                    return Some((pid, exit));
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            // None has ended, or there are no children at all.
            Ok(None) | Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn shell(script: &str) -> io::Result<u32> {
        Command::new("/bin/sh").args(["-c", script]).stdin(Stdio::null()).spawn().map(|c| c.id())
    }

    #[tokio::test]
    async fn every_owner_learns_the_end_of_its_own_child() {
        let reaper = Reaper::new(Adopts::Nothing);
        let task = tokio::spawn(reaper.clone().run());
        let mut ends = Vec::new();
        for code in 0..40 {
            let (_, end) = reaper.start(|| shell(&format!("exit {code}"))).unwrap();
            ends.push((Exit::Code(code), end));
        }
        let (_, end) = reaper.start(|| shell("kill -KILL $$")).unwrap();
        ends.push((Exit::Signal(9), end));
        // A signal without a name ends a process too.
        let (_, end) = reaper.start(|| shell("kill -40 $$")).unwrap();
        ends.push((Exit::Signal(40), end));
        for (expected, end) in ends {
            assert_eq!(end.await.unwrap(), expected);
        }
        task.abort();
    }

    #[tokio::test]
    async fn a_group_is_signalled_only_while_its_leader_is_not_reaped() {
        let reaper = Reaper::new(Adopts::Nothing);
        let task = tokio::spawn(reaper.clone().run());
        let (pid, end) = reaper
            .start(|| {
                use std::os::unix::process::CommandExt as _;
                Command::new("/bin/sleep").arg("60").process_group(0).spawn().map(|c| c.id())
            })
            .unwrap();
        assert!(reaper.signal_group(pid, Signal::TERM));
        let exit = end.await.unwrap();
        assert_eq!((exit, exit.code(), exit.signal()), (Exit::Signal(15), 143, 15));
        assert!(!reaper.signal_group(pid, Signal::TERM));
        task.abort();
    }
}
