//! The few arguments that every service takes.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command, value_parser};

use super::EXIT_CONFIG;

pub(super) struct Arguments {
    pub(super) config: Option<PathBuf>,
    pub(super) dump_config: bool,
    pub(super) check_config: bool,
    pub(super) health: Option<SocketAddr>,
}

impl Arguments {
    /// Reads them. Help and version end the process with 0, nonsense with 64.
    pub(super) fn parse(
        name: &'static str,
        env_prefix: &'static str,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, ExitCode> {
        let command = Command::new(name)
            .bin_name(format!("wolfpack-{name}"))
            .version(env!("CARGO_PKG_VERSION"))
            .after_help(format!(
                "Every key of the file is also a variable: {env_prefix}__SECTION__KEY.\n\
                 Exit codes: 0 stopped as told, 1 failed, 64 bad arguments or configuration, \
                 130 second signal."
            ))
            .arg(
                Arg::new("config")
                    .long("config")
                    .value_name("FILE")
                    .help("Reads this TOML file over the defaults")
                    .value_parser(value_parser!(PathBuf)),
            )
            .arg(
                Arg::new("dump-config")
                    .long("dump-config")
                    .help("Prints the whole configuration, secrets masked, and exits")
                    .action(ArgAction::SetTrue),
            )
            .arg(
                Arg::new("check-config")
                    .long("check-config")
                    .help("Checks the configuration and exits")
                    .action(ArgAction::SetTrue)
                    .conflicts_with("dump-config"),
            )
            .arg(
                Arg::new("health")
                    .long("health")
                    .value_name("ADDRESS")
                    .help("Asks the process whose metrics are served there whether it serves: exits with 0 or 1")
                    .value_parser(value_parser!(SocketAddr))
                    .conflicts_with_all(["config", "dump-config", "check-config"]),
            );
        match command.try_get_matches_from(arguments) {
            Ok(matches) => Ok(Self {
                config: matches.get_one("config").cloned(),
                dump_config: matches.get_flag("dump-config"),
                check_config: matches.get_flag("check-config"),
                health: matches.get_one("health").copied(),
            }),
            Err(error) => {
                // Nothing is left to do when even stderr is closed.
                let _ = error.print();
                Err(if error.use_stderr() {
                    ExitCode::from(EXIT_CONFIG)
                } else {
                    ExitCode::SUCCESS
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, ExitCode> {
        let arguments = std::iter::once("x").chain(arguments.iter().copied()).map(OsString::from);
        Arguments::parse("x", "X", arguments)
    }

    #[test]
    fn arguments_are_read_and_nonsense_is_64() {
        let read = parse(&["--config", "/a", "--check-config"]).ok().unwrap();
        assert_eq!(read.config, Some("/a".into()));
        assert!(read.check_config && !read.dump_config);
        let read = parse(&["--health", "127.0.0.1:9"]).ok().unwrap();
        assert_eq!(read.health, "127.0.0.1:9".parse().ok());
        for bad in [
            &["--nonsense"][..],
            &["--config"],
            &["extra"],
            &["--check-config", "--dump-config"],
            &["--health", "nowhere"],
        ] {
            let code = parse(bad).err().unwrap();
            assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(64)), "{bad:?}");
        }
    }
}
