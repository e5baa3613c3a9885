//! The escape probe: `wolfpack-sandbox-agent probe`, run inside a sandbox, asks
//! what a program there could reach beyond it.
//!
//! A check opens a file and closes it, calls and is refused, connects and hangs
//! up: it never writes, loads, stops a process or mounts for keeps. What must
//! be mounted to be asked for is mounted in a namespace that ends with the
//! check. Checks whose system call has no safe form in Rust observe what the
//! kernel says instead, and their evidence says so.
//!
//! Run it as root of the sandbox: what root is refused, everyone is.

mod cgroups;
mod devices;
mod facts;
mod kernel;
mod namespaces;
mod neighbours;
mod network;
mod opening;
mod private;
mod report;
mod target;

use std::net::Ipv4Addr;
use std::process::ExitCode;

use clap::ValueEnum;

pub use facts::Facts;
pub use report::{Finding, Report, Verdict};

/// The subcommand.
pub const SUBCOMMAND: &str = "probe";

/// What the sandbox was created with, and so what it may be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Expect {
    /// No Docker: nothing at all is allowed.
    None,
    /// An engine of its own: only what stays in its own namespaces.
    Nested,
}

/// What the probe is told.
#[derive(Debug, clap::Args)]
pub struct ProbeArgs {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Run these checks only; may be given more than once.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Docker mode of the sandbox: with none, what is allowed in its own
    /// namespaces fails the probe too.
    #[arg(long, value_enum, default_value = "nested")]
    expect: Expect,
    /// Ports of the wolf that the sandbox may reach; by default those of the
    /// boot's broker and gateway.
    #[arg(long, value_name = "PORT")]
    relay_port: Vec<u16>,
    /// Addresses of the wolf, where they are known: tried beside the way out.
    #[arg(long, value_name = "ADDRESS")]
    wolf_address: Vec<Ipv4Addr>,
    /// List the names of the checks and do nothing.
    #[arg(long)]
    list: bool,
}

/// One question.
pub(crate) struct Check {
    name: &'static str,
    question: &'static str,
    ask: fn(&Facts) -> Finding,
}

const CHECKS: &[Check] = &[
    Check {
        name: "core_pattern",
        question: "set the program that the host runs for core dumps",
        ask: kernel::core_pattern,
    },
    Check {
        name: "kernel_helpers",
        question: "set another program that the host's kernel runs",
        ask: kernel::helpers,
    },
    Check { name: "sysrq", question: "command the host's kernel by sysrq", ask: kernel::sysrq },
    Check {
        name: "kernel_memory",
        question: "read the memory of the host's kernel",
        ask: kernel::memory,
    },
    Check { name: "module_load", question: "load a kernel module", ask: kernel::module_load },
    Check { name: "bpf", question: "load programs into the host's kernel", ask: kernel::bpf },
    Check {
        name: "devices_allow",
        question: "allow itself devices by its cgroup",
        ask: cgroups::devices_allow,
    },
    Check {
        name: "release_agent",
        question: "set the program that the host runs for empty cgroups",
        ask: cgroups::release_agent,
    },
    Check {
        name: "mknod_disk",
        question: "make and open a node of a host disk",
        ask: devices::mknod,
    },
    Check { name: "disk_nodes", question: "open a disk whose node is there", ask: devices::nodes },
    Check { name: "mount_disk", question: "mount a disk of the host", ask: devices::mount },
    Check { name: "mount", question: "mount anything at all", ask: namespaces::mount },
    Check {
        name: "host_pid",
        question: "see processes that are not its own",
        ask: namespaces::pid,
    },
    Check { name: "host_ipc", question: "share memory with the host", ask: namespaces::ipc },
    Check { name: "host_network", question: "sit in the host's network", ask: namespaces::network },
    Check {
        name: "host_ptrace",
        question: "read the memory of processes that are not its own",
        ask: namespaces::ptrace,
    },
    Check {
        name: "neighbour_processes",
        question: "see the agents of other sandboxes",
        ask: neighbours::processes,
    },
    Check {
        name: "neighbour_sockets",
        question: "see sockets of other sandboxes or of engines",
        ask: neighbours::sockets,
    },
    Check {
        name: "neighbour_volumes",
        question: "read the files of other sandboxes",
        ask: neighbours::volumes,
    },
    Check {
        name: "docker_socket",
        question: "speak to an engine that is not its own",
        ask: neighbours::docker_socket,
    },
    Check {
        name: "neighbour_ports",
        question: "connect to other sandboxes",
        ask: network::neighbour_ports,
    },
    Check {
        name: "wolf_ports",
        question: "connect to the wolf beyond its relay",
        ask: network::wolf_ports,
    },
    Check {
        name: "metadata",
        question: "reach the metadata service of a cloud",
        ask: network::metadata,
    },
];

/// Asks; the exit code is 0 when nothing is allowed that must not be, 1 when
/// something is, 64 for a name that is no check.
#[must_use]
pub fn run(args: &ProbeArgs) -> ExitCode {
    if args.list {
        for check in CHECKS {
            println!("{:20} {}", check.name, check.question);
        }
        return ExitCode::SUCCESS;
    }
    if let Some(name) = args.only.iter().find(|name| CHECKS.iter().all(|c| c.name != **name)) {
        eprintln!("there is no check {name:?}; see probe --list");
        return ExitCode::from(64);
    }
    let facts = Facts::gather(&args.relay_port, &args.wolf_address);
    let chosen = |check: &&Check| args.only.is_empty() || args.only.iter().any(|n| n == check.name);
    let rows = CHECKS.iter().filter(chosen).map(|check| {
        let finding = (check.ask)(&facts);
        (check.name, check.question, finding)
    });
    let report = Report::new(&facts, args.expect, rows.collect());
    if args.json {
        report.print_json();
    } else {
        report.print_table();
    }
    if report.failed() { ExitCode::from(1) } else { ExitCode::SUCCESS }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_different_and_plain() {
        let mut names: Vec<_> = CHECKS.iter().map(|check| check.name).collect();
        assert!(names.iter().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CHECKS.len());
    }

    /// That its verdicts are those of a real wolf is the end-to-end suite's to
    /// show, `wolf_image::probe` and `wolf_image::shared`.
    #[test]
    fn the_documented_table_has_every_check_with_its_question() {
        let text = include_str!("../../../../docs/wolf.md");
        let rows: Vec<(&str, &str)> = text
            .lines()
            .skip_while(|line| !line.starts_with("| check | asks to |"))
            .skip(2)
            .take_while(|line| line.starts_with('|'))
            .map(|line| {
                let mut cells = line.split('|').map(str::trim).skip(1);
                let name = cells.next().unwrap().trim_matches('`');
                (name, cells.next().unwrap())
            })
            .collect();
        let names: Vec<&str> = rows.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, CHECKS.iter().map(|check| check.name).collect::<Vec<_>>());
        for ((name, asks), check) in rows.iter().zip(CHECKS) {
            assert!(asks.starts_with(check.question), "{name}: {asks}");
        }
    }
}
