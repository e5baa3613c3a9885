//! The helper: this binary started as `wolfpack-sandbox-agent spawn ...`. It
//! becomes what the program shall be, then becomes the program. It has one
//! thread and starts nothing, so its process id is the program's.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use rustix::fd::AsFd;
use rustix::thread::CapabilitySet;

use super::refusal::Refusal;

/// The subcommand that makes this binary the helper.
pub const SUBCOMMAND: &str = "spawn";

/// What the helper is told.
#[derive(Debug, clap::Args)]
pub struct ChildArgs {
    /// Descriptor of the pipe on which a failure is told; closed by success.
    #[arg(long)]
    pub report: i32,
    /// User id to take on.
    #[arg(long)]
    pub uid: u32,
    /// Group id to take on.
    #[arg(long)]
    pub gid: u32,
    /// Supplementary group ids.
    #[arg(long, value_delimiter = ',')]
    pub groups: Vec<u32>,
    /// Directory to work in.
    #[arg(long)]
    pub cwd: PathBuf,
    /// Whether stdin is a terminal that shall control the session.
    #[arg(long)]
    pub tty: bool,
    /// Program and arguments.
    #[arg(last = true, required = true)]
    pub argv: Vec<OsString>,
}

/// Becomes the program; returns only when that failed, after it was told.
#[must_use]
pub fn run(args: &ChildArgs) -> ExitCode {
    let mut report = match report_pipe(args.report) {
        Ok(report) => report,
        Err(error) => {
            let _ = writeln!(
                io::stderr(),
                "wolfpack-sandbox-agent spawn is started by the agent only: {error}"
            );
            return ExitCode::from(126);
        }
    };
    let refusal = become_program(args);
    if let Ok(text) = serde_json::to_vec(&refusal) {
        // Whoever would read it is gone when this fails.
        let _ = report.write_all(&text);
    }
    ExitCode::from(refusal.exit_code())
}

/// The report pipe as a descriptor that exec closes. It was inherited, so only
/// its number is known; opening it anew gives one that is owned here. All else
/// that was inherited is closed: a descriptor that whoever started the agent
/// left open would be a way out of the sandbox.
fn report_pipe(number: i32) -> io::Result<File> {
    let file = OpenOptions::new().write(true).open(format!("/proc/self/fd/{number}"))?;
    let keep = 0..=2;
    let inherited: Vec<i32> = std::fs::read_dir("/proc/self/fd")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|fd| !keep.contains(fd) && *fd != file.as_raw_fd())
        .collect();
    for fd in inherited {
        // The listing's own is closed by now.
        let _ = nix::unistd::close(fd);
    }
    Ok(file)
}

fn become_program(args: &ChildArgs) -> Refusal {
    let Err(refusal) = session(args).and_then(|()| identity(args)).and_then(|()| directory(args))
    else {
        // exec also gives SIGPIPE and the signal mask back their defaults.
        let error = Command::new(&args.argv[0]).args(&args.argv[1..]).exec();
        let name = args.argv[0].to_string_lossy().into_owned();
        return Refusal::Program { name, errno: errno_of(&error) };
    };
    refusal
}

/// Its own session and process group, so that all of it can be signalled, and
/// the terminal if there is one.
fn session(args: &ChildArgs) -> Result<(), Refusal> {
    let failed = |step: &str, errno: rustix::io::Errno| Refusal::Session {
        step: step.to_owned(),
        errno: errno.raw_os_error(),
    };
    rustix::process::setsid().map_err(|errno| failed("setsid", errno))?;
    if args.tty {
        let terminal = rustix::stdio::stdin();
        rustix::process::ioctl_tiocsctty(terminal).map_err(|errno| failed("TIOCSCTTY", errno))?;
        // Writable by the terminals' group, as login leaves it.
        let _ = rustix::fs::fchmod(terminal, rustix::fs::Mode::from_raw_mode(0o620));
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    Ok(())
}

fn identity(args: &ChildArgs) -> Result<(), Refusal> {
    let failed = |step: &str, errno: i32| Refusal::Identity { step: step.to_owned(), errno };
    let own = rustix::process::geteuid().as_raw();
    if own != 0 && own == args.uid {
        // An agent without privileges runs programs as itself, with its groups.
        return Ok(());
    }
    give_stdio(args.uid);
    let kernel =
        |step: &'static str| move |errno: rustix::io::Errno| failed(step, errno.raw_os_error());
    let mut sets = rustix::thread::capabilities(None).map_err(kernel("capget"))?;
    sets.inheritable = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, sets).map_err(kernel("capset"))?;
    if args.uid != 0 {
        empty_bounding_set().map_err(kernel("bounding set"))?;
    }
    let groups: Vec<_> = args.groups.iter().map(|gid| nix::unistd::Gid::from_raw(*gid)).collect();
    let library = |step: &'static str| move |errno: nix::errno::Errno| failed(step, errno as i32);
    nix::unistd::setgroups(&groups).map_err(library("setgroups"))?;
    let gid = nix::unistd::Gid::from_raw(args.gid);
    nix::unistd::setresgid(gid, gid, gid).map_err(library("setresgid"))?;
    let uid = nix::unistd::Uid::from_raw(args.uid);
    // Leaving uid 0 also empties the permitted, effective and ambient sets.
    nix::unistd::setresuid(uid, uid, uid).map_err(library("setresuid"))
}

/// Without it a set-uid program would get capabilities back where the engine
/// does not forbid new privileges.
fn empty_bounding_set() -> rustix::io::Result<()> {
    for bit in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // Past the last one that this kernel knows.
            Err(rustix::io::Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Gives the program its own stdin, stdout and stderr: a program that opens
/// `/dev/stdout` anew is checked against their owner. It is a courtesy, so a
/// failure (a file of another user, a read-only one) is not one of the start.
fn give_stdio(uid: u32) {
    let owner = Some(rustix::fs::Uid::from_raw(uid));
    let give = |fd: rustix::fd::BorrowedFd<'_>| {
        let null = rustix::fs::makedev(1, 3);
        if rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_rdev != null) {
            let _ = rustix::fs::fchown(fd, owner, None);
        }
    };
    give(rustix::stdio::stdin().as_fd());
    give(rustix::stdio::stdout().as_fd());
    give(rustix::stdio::stderr().as_fd());
}

/// As the user, so that it counts what that user may enter.
fn directory(args: &ChildArgs) -> Result<(), Refusal> {
    rustix::process::chdir(&args.cwd).map_err(|errno| Refusal::Directory {
        path: args.cwd.to_string_lossy().into_owned(),
        errno: errno.raw_os_error(),
    })
}

fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or_else(|| rustix::io::Errno::INVAL.raw_os_error())
}
