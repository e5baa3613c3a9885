//! `wolfpack-registry issue`: certificates of services, for deployments whose
//! services are processes of their own.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use wolfpack_runtime::process::EXIT_CONFIG;

use crate::ca::{CertificateAuthority, write_private, write_public};

/// Answers `issue` as the first argument; `None` for anything else. Writes
/// `{NAME}.crt` (the chain with the root), `{NAME}.key` (0600) and `ca.crt`
/// into the folder, and makes the CA where there is none.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let arguments: Vec<OsString> = arguments.into_iter().skip(1).collect();
    if arguments.first().is_none_or(|first| first != "issue") {
        return None;
    }
    Some(match command().try_get_matches_from(arguments) {
        Ok(matches) => match issue(&matches) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("wolfpack-registry issue: {error:#}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            // Nothing is left to do when even stderr is closed.
            let _ = error.print();
            if error.use_stderr() { ExitCode::from(EXIT_CONFIG) } else { ExitCode::SUCCESS }
        }
    })
}

fn command() -> Command {
    let path = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("DIR")
            .required(true)
            .value_parser(value_parser!(PathBuf))
            .help(help)
    };
    Command::new("issue")
        .bin_name("wolfpack-registry issue")
        .about("Issues the certificate of a service")
        .arg(path("ca", "The folder of the CA; one is made where there is none"))
        .arg(path("out", "The folder to write NAME.crt, NAME.key and ca.crt into"))
        .arg(
            Arg::new("service")
                .long("service")
                .value_name("NAME")
                .required(true)
                .help("registry, scheduler, tunnel-broker, sandbox-manager or gateway"),
        )
        .arg(
            Arg::new("dns")
                .long("dns")
                .value_name("NAME")
                .action(ArgAction::Append)
                .help("A host name that clients know the service by; may be repeated"),
        )
        .arg(
            Arg::new("ip")
                .long("ip")
                .value_name("ADDRESS")
                .action(ArgAction::Append)
                .value_parser(value_parser!(IpAddr))
                .help("An address that clients know the service by; may be repeated"),
        )
}

fn issue(matches: &ArgMatches) -> anyhow::Result<()> {
    let one = |name: &str| matches.get_one::<PathBuf>(name).cloned().unwrap_or_default();
    let service = matches.get_one::<String>("service").cloned().unwrap_or_default();
    let dns: Vec<String> = matches.get_many("dns").unwrap_or_default().cloned().collect();
    let ips: Vec<IpAddr> = matches.get_many("ip").unwrap_or_default().copied().collect();
    let ca = CertificateAuthority::create_or_load(&one("ca"))?;
    let issued = ca.issue_service(&service, &dns, &ips)?;
    let out = one("out");
    std::fs::create_dir_all(&out)?;
    write_private(&out.join(format!("{service}.key")), issued.key_pem.as_bytes())?;
    write_public(&out.join(format!("{service}.crt")), issued.certificate_pem.as_bytes())?;
    write_public(&out.join("ca.crt"), ca.root_pem().as_bytes())?;
    println!("wrote {service}.crt, {service}.key and ca.crt to {}", out.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &[&str]) -> Vec<OsString> {
        std::iter::once("wolfpack-registry")
            .chain(line.iter().copied())
            .map(OsString::from)
            .collect()
    }

    #[test]
    fn only_issue_is_answered() {
        assert!(run(args(&[])).is_none());
        assert!(run(args(&["--config", "x"])).is_none());
        assert_eq!(run(args(&["issue"])), Some(ExitCode::from(EXIT_CONFIG)));
        assert_eq!(run(args(&["issue", "--help"])), Some(ExitCode::SUCCESS));
    }

    #[test]
    fn files_are_written_and_the_ca_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let line = |service| {
            args(&[
                "issue",
                "--ca",
                at("ca").to_str().unwrap(),
                "--service",
                service,
                "--dns",
                "gateway.example",
                "--ip",
                "127.0.0.1",
                "--out",
                at("out").to_str().unwrap(),
            ])
        };
        assert_eq!(run(line("gateway")), Some(ExitCode::SUCCESS));
        assert_eq!(run(line("scheduler")), Some(ExitCode::SUCCESS));
        assert_eq!(run(line("No/Name")), Some(ExitCode::FAILURE));
        let root = std::fs::read_to_string(at("out/ca.crt")).unwrap();
        for service in ["gateway", "scheduler"] {
            let chain = std::fs::read_to_string(at(&format!("out/{service}.crt"))).unwrap();
            assert!(chain.ends_with(&root));
        }
    }
}
