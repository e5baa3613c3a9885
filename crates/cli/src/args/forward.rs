//! `wolfpack port-forward`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use wolfpack_types::{Target, port_set};

use super::OutputArgs;

/// `wolfpack port-forward`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each connection to LOCAL becomes one to TARGET, until Ctrl-C. LOCAL is a port of
127.0.0.1, HOST:PORT, or the path of a unix socket (with a / in it), which only
you can use; a free port of 127.0.0.1 without it. TARGET is a name that
`wolfpack tunnel get` shows, tcp:PORT, or PORT alone for the same.

At its start it dials each TARGET once, so that what is not allowed is told at
once: a server that takes only one connection (nc -l) needs --no-check. It ends by
itself when the wolf or the sandbox is gone for good; by Ctrl-C or SIGTERM with 0.

  wolfpack port-forward sandbox/box 8081:80 5432        two ports of a sandbox

  wolfpack port-forward wolf/ID wolf-api                the API of games-on-whales Wolf
  wolfpack port-forward wolf/ID 8081:moonlight-web      http://127.0.0.1:8081
  wolfpack port-forward wolf/ID ./wolf.sock:wolf-api    curl --unix-socket wolf.sock")]
pub struct PortForwardArgs {
    /// wolf/ID or sandbox/ID; a display name will do for ID
    #[arg(value_name = "wolf/ID|sandbox/ID")]
    pub endpoint: EndpointArg,
    /// What to reach there, and where to listen for it
    #[arg(required = true, value_name = "[LOCAL:]TARGET")]
    pub forward: Vec<ForwardArg>,
    /// Do not dial the targets at the start: what is not allowed or not there is told with the
    /// first connection
    #[arg(long)]
    pub no_check: bool,
    /// The most connections at once, over all ports; those beyond wait, and it is told
    #[arg(long, value_name = "COUNT", default_value_t = 800, value_parser = clap::value_parser!(u16).range(1..=800))]
    pub connections: u16,
    /// How to print where it listens: a line or a JSON object for each.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Whose target it is, as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointArg {
    /// An id, a display name or wolves/{id}.
    Wolf(String),
    /// An id, a display name or sandboxes/{id}.
    Sandbox(String),
}

impl FromStr for EndpointArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // `wolf/` is followed by whatever people call it, `wolves/` by an id.
        match text.split_once('/') {
            Some(("wolf", id)) if !id.is_empty() => Ok(Self::Wolf(id.to_owned())),
            Some(("wolves", id)) if !id.is_empty() => Ok(Self::Wolf(text.to_owned())),
            Some(("sandbox", id)) if !id.is_empty() => Ok(Self::Sandbox(id.to_owned())),
            Some(("sandboxes", id)) if !id.is_empty() => Ok(Self::Sandbox(text.to_owned())),
            _ => Err("write wolf/ID or sandbox/ID".to_owned()),
        }
    }
}

/// Where connections are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local {
    /// A host of this machine and a port; 0 for a free one.
    Port(String, u16),
    /// A unix socket.
    Socket(PathBuf),
}

/// One forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardArg {
    /// Where connections are taken.
    pub local: Local,
    /// What each of them reaches.
    pub target: Target,
}

const LOOPBACK: &str = "127.0.0.1";

impl FromStr for ForwardArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (local, target) = split(text)?;
        Ok(Self { local, target: target_of(target)? })
    }
}

/// A target by its name, or a port for `tcp:PORT`.
pub(super) fn target_of(text: &str) -> Result<Target, String> {
    let no_port = || format!("{text:?} is not a port; it is one from 1 to 65535");
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return port_set::port(text).map(Target::tcp).ok_or_else(no_port);
    }
    let target = Target::parse(text).map_err(|_| {
        format!("{text:?} is not a target; write one such as wolf-api, tcp:8080 or 8080")
    })?;
    match target.service() == Target::TCP && target.tcp_port().is_none() {
        true => Err(no_port()),
        false => Ok(target),
    }
}

/// Targets have a colon themselves (`tcp:80`), so the local part is known by
/// its form: a path has a `/`, an address a port.
fn split(text: &str) -> Result<(Local, &str), String> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|_| !text.starts_with('+'));
    if let Some(rest) = text.strip_prefix('[') {
        let found = rest.split_once("]:").and_then(|(host, rest)| {
            let (at, target) = rest.split_once(':')?;
            Some((Local::Port(host.to_owned(), port(at)?), target))
        });
        return found.ok_or_else(|| "write [ADDRESS]:PORT:TARGET".to_owned());
    }
    let Some((first, rest)) = text.split_once(':') else {
        return Ok((Local::Port(LOOPBACK.to_owned(), 0), text));
    };
    if first.contains('/') {
        return Ok((Local::Socket(first.into()), rest));
    }
    if first.bytes().all(|b| b.is_ascii_digit()) {
        let number = port(first).ok_or_else(|| format!("{first:?} is not a port"))?;
        return Ok((Local::Port(LOOPBACK.to_owned(), number), rest));
    }
    match rest.split_once(':') {
        Some((at, target)) if port(at).is_some() => {
            Ok((Local::Port(first.to_owned(), port(at).unwrap_or_default()), target))
        }
        _ => Ok((Local::Port(LOOPBACK.to_owned(), 0), text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_local_part_is_known_by_its_form() {
        let local = |text: &str| {
            let read = text.parse::<ForwardArg>().unwrap_or_else(|error| panic!("{text}: {error}"));
            match read.local {
                Local::Port(host, port) => format!("{host} {port} {}", read.target),
                Local::Socket(path) => format!("{} {}", path.display(), read.target),
            }
        };
        for (text, read) in [
            ("wolf-api", "127.0.0.1 0 wolf-api"),
            ("8080:wolf-api", "127.0.0.1 8080 wolf-api"),
            ("0:wolf-api", "127.0.0.1 0 wolf-api"),
            ("tcp:80", "127.0.0.1 0 tcp:80"),
            ("8080:tcp:80", "127.0.0.1 8080 tcp:80"),
            ("localhost:8080:tcp:80", "localhost 8080 tcp:80"),
            ("0.0.0.0:8080:moonlight-web", "0.0.0.0 8080 moonlight-web"),
            ("[::1]:8080:tcp:80", "::1 8080 tcp:80"),
            ("/tmp/w.sock:wolf-api", "/tmp/w.sock wolf-api"),
            ("./w.sock:tcp:80", "./w.sock tcp:80"),
            ("a/b:wolf-api", "a/b wolf-api"),
            ("8080", "127.0.0.1 0 tcp:8080"),
            ("8080:80", "127.0.0.1 8080 tcp:80"),
            ("0:80", "127.0.0.1 0 tcp:80"),
            ("0.0.0.0:8080:80", "0.0.0.0 8080 tcp:80"),
            ("[::1]:8080:80", "::1 8080 tcp:80"),
            ("./w.sock:80", "./w.sock tcp:80"),
        ] {
            assert_eq!(local(text), read, "{text}");
        }
        for bad in [
            "",
            "0",
            "70000",
            "080",
            "8080:0",
            "8080:70000",
            "tcp",
            "tcp:0",
            "tcp:http",
            "8080:",
            "99999:wolf-api",
            "[::1]:wolf-api",
            "[::1]",
            "/tmp/w.sock",
            "/tmp/x:",
            "host:wolf-api:x:y",
            "UP",
        ] {
            assert!(bad.parse::<ForwardArg>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_are_targets() {
        for (text, read) in [("22", "tcp:22"), ("tcp:22", "tcp:22"), ("wolf-api", "wolf-api")] {
            assert_eq!(target_of(text).unwrap().as_str(), read);
        }
        for bad in ["0", "70000", "022", "tcp:0"] {
            assert!(target_of(bad).unwrap_err().contains("1 to 65535"), "{bad}");
        }
    }

    #[test]
    fn an_endpoint_says_what_it_is() {
        let read = |text: &str| text.parse::<EndpointArg>();
        assert_eq!(read("wolf/a"), Ok(EndpointArg::Wolf("a".into())));
        assert_eq!(read("wolves/a"), Ok(EndpointArg::Wolf("wolves/a".into())));
        assert_eq!(read("sandbox/box"), Ok(EndpointArg::Sandbox("box".into())));
        assert_eq!(read("sandboxes/a"), Ok(EndpointArg::Sandbox("sandboxes/a".into())));
        for bad in ["a", "wolf/", "users/a", ""] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
