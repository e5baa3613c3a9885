//! Finding and ending everything that a program started.

use std::path::Path;

use rustix::process::{Pid, Signal};

/// Processes of a session but zombies, as `/proc` shows them now. A shell with
/// job control gives every job a group of its own, but all stay in its session.
#[must_use]
pub fn session_members(leader: Pid) -> Vec<Pid> {
    let session = leader.as_raw_nonzero().get();
    all().into_iter().filter(|p| p.session == session && !p.zombie).map(|p| p.pid).collect()
}

/// Every process but zombies, the kernel's own and this one.
#[must_use]
pub fn others() -> Vec<Pid> {
    let own = rustix::process::getpid();
    all()
        .into_iter()
        .filter(|p| p.pid != own && p.session != 0 && !p.zombie)
        .map(|p| p.pid)
        .collect()
}

/// Signals every process of a session. How many there were.
pub fn signal_session(leader: Pid, signal: Signal) -> usize {
    let members = session_members(leader);
    for member in &members {
        // One that ended meanwhile needs no signal.
        let _ = rustix::process::kill_process(*member, signal);
    }
    members.len()
}

#[derive(Debug, PartialEq, Eq)]
struct Process {
    pid: Pid,
    session: i32,
    zombie: bool,
}

fn all() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| {
            entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit)
        })
        .filter_map(|entry| read(&entry.path()))
        .collect()
}

fn read(folder: &Path) -> Option<Process> {
    // A process that has ended since the listing has no file any more.
    let stat = std::fs::read(folder.join("stat")).ok()?;
    parse(&String::from_utf8_lossy(&stat))
}

/// `pid (name) state parent group session ...`; the name may hold anything.
fn parse(stat: &str) -> Option<Process> {
    let (pid, rest) = stat.split_once(" (")?;
    let (_, rest) = rest.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    let session = fields.nth(2)?.parse().ok()?;
    Some(Process {
        pid: Pid::from_raw(pid.parse().ok()?)?,
        session,
        zombie: matches!(state, "Z" | "X"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_programs_do_not_confuse() {
        let process = parse("41 (a) b (c) S 1 40 39 0 -1 4194304 1").unwrap();
        assert_eq!(
            (process.pid.as_raw_nonzero().get(), process.session, process.zombie),
            (41, 39, false)
        );
        assert!(parse("42 (x) Z 1 42 42 0").unwrap().zombie);
        assert_eq!(parse("no process"), None);
    }

    #[tokio::test]
    async fn a_session_is_found_with_its_leader_and_this_process_is_never_an_other() {
        // Not this process's own session: its leader may stand outside of this pid namespace.
        let mut leader = std::process::Command::new("setsid")
            .args(["--fork", "--wait", "sleep", "60"])
            .spawn()
            .unwrap();
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let sleeper = loop {
            if let Some(sleeper) = child_of(leader.id()) {
                break sleeper;
            }
            assert!(std::time::Instant::now() < limit, "no session was started");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        };
        assert_eq!(session_members(sleeper), [sleeper]);
        assert_eq!(signal_session(sleeper, Signal::KILL), 1);
        leader.wait().unwrap();
        assert!(session_members(sleeper).is_empty());
        assert!(!others().contains(&rustix::process::getpid()));
    }

    /// The child that leads a session of its own already.
    fn child_of(parent: u32) -> Option<Pid> {
        let children =
            std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
        let child = Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)?;
        session_members(child).contains(&child).then_some(child)
    }
}
