//! What goes wrong, as a person and as a program reads it.

use std::io::Write as _;
use std::process::ExitCode;

use serde_json::json;
use tonic::Status;
use wolfpack_rpc::client;
use wolfpack_types::{Fault, Reason};

use crate::exit::{self, Exit};

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server, or the channel to it, said so.
    Fault(Box<Fault>),
    /// The arguments or the context are at fault.
    Usage(String),
    /// Something of this machine.
    Local(String),
    /// A sandbox did not come up.
    Sandbox(Box<SandboxFailure>),
    /// It took longer than the user allows.
    Timeout(String),
    /// The user did not wait for the end.
    Interrupted(String),
    /// Nobody reads the output any more, such as after `| head`: no error.
    ReaderGone,
}

/// How a sandbox ended instead of coming up.
#[derive(Debug)]
pub(crate) struct SandboxFailure {
    pub(crate) name: String,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) last_logs: String,
    /// Of its main process, where that ran.
    pub(crate) exit_code: Option<i32>,
}

impl SandboxFailure {
    /// The reason, where this build knows it.
    fn reason(&self) -> Option<Reason> {
        Reason::parse(&self.reason)
    }

    /// What happened to it.
    fn words(&self) -> String {
        match (self.reason(), self.exit_code) {
            (Some(Reason::SandboxExited), Some(code)) => {
                format!(
                    "{} ended at once with code {code}: its command must keep running",
                    self.name
                )
            }
            (Some(Reason::SandboxExited), None) => {
                format!("{} ended at once: its command must keep running", self.name)
            }
            _ => format!("{} did not start: {}: {}", self.name, self.reason, self.message),
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        wolfpack_rpc::from_status(&status).into()
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(Box::new(fault))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::ReaderGone;
        }
        Self::Local(error.to_string())
    }
}

impl Failure {
    pub(crate) fn usage(words: impl Into<String>) -> Self {
        Self::Usage(words.into())
    }

    /// A failure about a file.
    pub(crate) fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::Local(format!("{}: {error}", path.display()))
    }

    pub(crate) fn is(&self, reason: Reason) -> bool {
        matches!(self, Self::Fault(fault) if fault.reason == reason)
    }

    /// Whether the same call may succeed when it is sent again.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Fault(fault)
            if fault.reason.code() == wolfpack_types::Code::Unavailable && !is_stranger(fault))
    }

    /// Names the server where the fault is its TLS.
    pub(crate) fn of_server(mut self, server: &str) -> Self {
        if let Self::Fault(fault) = &mut self
            && is_of_gateway(fault)
            && let Some(words) = tls_words(fault, server)
        {
            fault.message = words;
            // It will not be another one in a moment.
            fault.retry_after = None;
        }
        self
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Fault(fault) => exit::of(fault.reason),
            Self::Usage(_) => exit::USAGE,
            Self::Local(_) => exit::IO,
            Self::Sandbox(failure) => failure.reason().map_or(exit::STATE, exit::of),
            Self::Timeout(_) => exit::TIMEOUT,
            Self::Interrupted(_) => exit::INTERRUPTED,
            Self::ReaderGone => exit::READER_GONE,
        }
    }

    /// Prints it on stderr and answers the exit code.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        let text = match self {
            Self::ReaderGone => String::new(),
            _ if json => format!("{}\n", self.as_json()),
            _ => self.as_text(),
        };
        // Nobody is left to tell when stderr is closed, too.
        let _ = std::io::stderr().write_all(text.as_bytes());
        self.exit().into()
    }

    fn as_json(&self) -> serde_json::Value {
        let error = match self {
            Self::Fault(fault) => json!({
                "reason": fault.reason.as_str(),
                "message": fault.message,
                "metadata": fault.metadata,
                "resource": fault.resource,
                "violations": fault.violations.iter()
                    .map(|violation| json!({"field": violation.field, "description": violation.description}))
                    .collect::<Vec<_>>(),
                "retryAfterSeconds": fault.retry_after.map(|after| after.as_secs_f64()),
            }),
            Self::Usage(words) => json!({"reason": "USAGE", "message": words}),
            Self::Local(words) => json!({"reason": "LOCAL", "message": words}),
            Self::Timeout(words) => json!({"reason": "TIMEOUT", "message": words}),
            Self::Interrupted(words) => json!({"reason": "INTERRUPTED", "message": words}),
            Self::ReaderGone => json!({"reason": "READER_GONE"}),
            Self::Sandbox(failure) => json!({
                "reason": failure.reason,
                "message": failure.message,
                "resource": failure.name,
                "lastLogs": failure.last_logs,
                "exitCode": failure.exit_code,
            }),
        };
        json!({ "error": error })
    }

    pub(crate) fn as_text(&self) -> String {
        let mut text = String::new();
        let mut line = |words: &str| {
            text.push_str(words);
            text.push('\n');
        };
        match self {
            Self::Usage(words) | Self::Local(words) | Self::Timeout(words) => {
                line(&format!("error: {words}"));
            }
            Self::Interrupted(words) => line(&format!("interrupted: {words}")),
            Self::ReaderGone => {}
            Self::Sandbox(failure) => {
                line(&format!("error: {}", failure.words()));
                if !failure.last_logs.is_empty() {
                    line("its last words:");
                    failure.last_logs.lines().for_each(|words| line(&format!("  {words}")));
                }
                if let Some(hint) = failure.reason().and_then(hint) {
                    line(&format!("  to do: {hint}"));
                }
                line(&format!(
                    "  it stays to be looked at; `wolfpack sandbox delete {}` ends it",
                    failure.name
                ));
            }
            Self::Fault(fault) => {
                line(&format!("error: {}: {}", fault.reason, fault.message));
                for violation in &fault.violations {
                    line(&format!("  {}: {}", violation.field, violation.description));
                }
                for (key, value) in &fault.metadata {
                    line(&format!("  {key}: {value}"));
                }
                if let Some(after) = fault.retry_after {
                    line(&format!("  try again in {}", humantime::format_duration(after)));
                }
                let hint = match fault.reason {
                    Reason::DependencyUnavailable => unreachable_hint(fault),
                    reason => hint(reason),
                };
                if let Some(hint) = hint {
                    line(&format!("  to do: {hint}"));
                }
            }
        }
        text
    }
}

/// What to do about a reason, where it is more than its message says.
fn hint(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::CredentialMissing | Reason::ApiKeyInvalid => {
            "give a key with WOLFPACK_API_KEY, or run `wolfpack dev`, which writes one into the context"
        }
        Reason::SandboxNotFound => {
            "`wolfpack sandbox list` shows the sandboxes of this key's project"
        }
        Reason::WolfNotFound => "`wolfpack wolf list` shows the wolves",
        Reason::NoWolfFits => {
            "`wolfpack explain` with the same flags says of every wolf why it does not fit"
        }
        Reason::DisplayNameTaken => "choose another --name, or delete the sandbox that has it",
        Reason::DesktopAbsent => "create the sandbox with --desktop",
        Reason::SandboxNotRunning => "`wolfpack sandbox get` says what state it is in, and why",
        // What is not for this kind of caller is for no higher role either.
        Reason::RoleTooLow => "use a key with a higher role",
        Reason::EndpointNotFound => {
            "`wolfpack tunnel list` shows what is attached and yours to reach"
        }
        Reason::DockerAbsent => {
            "create the sandbox with --docker nested and an image with an engine, such as the default one"
        }
        Reason::DockerModeUnsupported | Reason::MountForbidden => {
            "`wolfpack wolf get` shows the Docker modes and mount paths of a wolf"
        }
        Reason::ImageInUse => "delete the sandboxes that stand on it first",
        Reason::WolfAway => "`wolfpack wolf list` shows which wolves are here",
        _ => return None,
    })
}

/// Whether it is our own connection to the gateway that failed, and not one
/// that a service behind it needs.
fn is_of_gateway(fault: &Fault) -> bool {
    fault.metadata.get("peer").is_some_and(|peer| peer == "gateway")
}

/// What was wrong with the gateway's TLS.
fn tls_fault(fault: &Fault) -> Option<&str> {
    fault.metadata.get(client::TLS).map(String::as_str).filter(|_| is_of_gateway(fault))
}

/// Whether the gateway's certificate is none that we believe: trying again
/// does not change that.
fn is_stranger(fault: &Fault) -> bool {
    // A server that hangs up on TLS may be one that starts.
    tls_fault(fault).is_some_and(|what| what != client::NOT_TLS)
}

/// What to do about the server's TLS. A server without TLS where we speak it,
/// and the other way round, look alike from here: both hang up.
fn tls_words(fault: &Fault, server: &str) -> Option<String> {
    let plain = server.strip_prefix("http://");
    Some(match tls_fault(fault) {
        Some(client::UNKNOWN_ISSUER) => {
            format!("the certificate of {server} is not trusted; give its CA with --ca")
        }
        Some(client::SELF_SIGNED) => format!(
            "{server} shows a CA's own certificate, as self-signed ones are, and that proves no server; let a CA sign one for it (`openssl x509 -req -CA ...` with CA:FALSE and its name) and give that CA with --ca"
        ),
        Some(client::NAME_DIFFERS) => format!(
            "the certificate of {server} is for another name; use a name that is in it (`openssl x509 -noout -ext subjectAltName` shows them)"
        ),
        Some(client::CERTIFICATE_EXPIRED) => format!(
            "the certificate of {server} has ended; renew it, or set this machine's clock right"
        ),
        Some(client::NOT_TLS) => format!(
            "{server} hangs up on TLS; if it listens without TLS there, write http:// (on this machine only), else give the port with TLS"
        ),
        _ => format!(
            "http://{} cannot be reached, or does not speak gRPC without TLS; if it listens with TLS there, write https://{0}",
            plain?
        ),
    })
}

fn unreachable_hint(fault: &Fault) -> Option<&'static str> {
    (is_of_gateway(fault) && tls_fault(fault).is_none())
        .then_some("is the server running there? `--server` and WOLFPACK_SERVER say where it is")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_with_reason_message_facts_and_what_to_do() {
        let failure = Failure::from(
            Fault::new(Reason::NoWolfFits, "no wolf has room")
                .with("CPU_SHORT", "2")
                .violates("a.b", "is bad")
                .retry_in(std::time::Duration::from_secs(3)),
        );
        let text = failure.as_text();
        for part in [
            "NO_WOLF_FITS: no wolf has room",
            "CPU_SHORT: 2",
            "a.b: is bad",
            "in 3s",
            "wolfpack explain",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let value = failure.as_json();
        assert_eq!(value["error"]["reason"], "NO_WOLF_FITS");
        assert_eq!(value["error"]["retryAfterSeconds"], 3.0);
        assert_eq!(failure.exit(), exit::EXHAUSTED);
    }

    #[test]
    fn a_sandbox_that_did_not_start_exits_by_its_reason_and_says_its_last_words() {
        let failed = |reason: &str| {
            Failure::Sandbox(Box::new(SandboxFailure {
                name: "sandboxes/a".into(),
                reason: reason.into(),
                message: "why".into(),
                last_logs: "one\ntwo".into(),
                exit_code: Some(0),
            }))
        };
        assert_eq!(failed("NO_WOLF_FITS").exit(), exit::EXHAUSTED);
        assert_eq!(failed("SANDBOX_EXITED").exit(), exit::STATE);
        assert_eq!(failed("OF_A_LATER_VERSION").exit(), exit::STATE);
        let text = failed("NO_WOLF_FITS").as_text();
        for part in [
            "sandboxes/a",
            "NO_WOLF_FITS: why",
            "  one\n  two",
            "wolfpack explain",
            "sandbox delete",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let text = failed("SANDBOX_EXITED").as_text();
        assert!(text.contains("a ended at once with code 0: its command must keep"), "{text}");
    }

    #[test]
    fn only_the_gateway_is_looked_for_and_only_its_certificate_is_told() {
        let fault =
            |peer: &str| Fault::new(Reason::DependencyUnavailable, "away").with("peer", peer);
        let stranger =
            |peer: &str| Failure::from(fault(peer).with(client::TLS, client::UNKNOWN_ISSUER));
        assert!(Failure::from(fault("gateway")).as_text().contains("--server"));
        assert!(!Failure::from(fault("registry")).as_text().contains("--server"));
        let told = stranger("gateway").of_server("https://far:1").as_text();
        assert!(told.contains("the certificate of https://far:1 is not trusted"), "{told}");
        assert!(told.contains("--ca") && !told.contains("--server"), "{told}");
        assert!(!stranger("gateway").is_passing() && stranger("registry").is_passing());
        assert!(!stranger("registry").of_server("https://far:1").as_text().contains("--ca"));
    }

    #[test]
    fn each_fault_of_tls_says_what_to_do() {
        let fault = || Fault::new(Reason::DependencyUnavailable, "away").with("peer", "gateway");
        let told = |kind: &str, server: &str| {
            Failure::from(fault().with(client::TLS, kind)).of_server(server).as_text()
        };
        for (kind, words) in [
            (client::SELF_SIGNED, "let a CA sign one"),
            (client::NAME_DIFFERS, "is for another name"),
            (client::CERTIFICATE_EXPIRED, "has ended"),
            (client::NOT_TLS, "write http://"),
        ] {
            let text = told(kind, "https://far:1");
            assert!(text.contains(words) && text.contains("https://far:1"), "{kind}: {text}");
        }
        assert!(Failure::from(fault().with(client::TLS, client::NOT_TLS)).is_passing());
        let plain = Failure::from(fault()).of_server("http://localhost:1").as_text();
        assert!(plain.contains("write https://localhost:1"), "{plain}");
        let away = Failure::from(fault()).of_server("https://far:1").as_text();
        assert!(away.contains("--server") && !away.contains("http://"), "{away}");
    }
}
