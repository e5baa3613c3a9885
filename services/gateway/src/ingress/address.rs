//! Which port of which sandbox a request is for, by its host or its path.

use std::num::NonZeroU16;

use http::uri::PathAndQuery;
use http::{HeaderMap, Uri, header};
use wolfpack_types::{Fault, Reason, SandboxId};

/// What a request asks for.
pub(super) enum Asked {
    /// Something of the gateway's own.
    Own,
    /// A port of a sandbox.
    Port(Address),
    /// Something behind, but nothing that there is.
    Wrong(Fault),
}

/// A port of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) sandbox: SandboxId,
    pub(super) port: NonZeroU16,
    pub(super) form: Form,
}

/// How it was named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// By the host.
    Host,
    /// By the path, whose first so many bytes are not the target's.
    Path { prefix: usize },
}

/// What to write where a sandbox is named.
pub(super) const BY_ID: &str =
    "use the sandbox's id, which `wolfpack sandbox list` shows, not its display name";

/// The domains whose every subdomain is a sandbox's, each with its leading dot.
pub(super) struct Domains(Vec<String>);

impl Domains {
    pub(super) fn new(names: &[String]) -> Self {
        Self(names.iter().map(|name| format!(".{name}")).collect())
    }

    /// Whom a request is for. A name under one of the domains is never the
    /// gateway's own, whatever else the request says: where its names differ it
    /// is refused, so that no part of the way reads another one than we did.
    pub(super) fn find(&self, uri: &Uri, headers: &HeaderMap) -> Asked {
        let target = uri.authority().map(|authority| authority.as_str().as_bytes());
        let hosts = || headers.get_all(header::HOST).iter().map(http::HeaderValue::as_bytes);
        let mut names = target.into_iter().chain(hosts());
        let Some(host) = names.next() else { return by_path(uri.path()) };
        if self.label(host).is_none() && !hosts().any(|name| self.label(name).is_some()) {
            return by_path(uri.path());
        }
        if hosts().count() > 1 || names.any(|name| !name.eq_ignore_ascii_case(host)) {
            return Asked::Wrong(Fault::new(
                Reason::RequestInvalid,
                "the request names more than one host; send one Host, the same as in its target",
            ));
        }
        match self.label(host).map(by_label) {
            Some(Ok((sandbox, port))) => Asked::Port(Address { sandbox, port, form: Form::Host }),
            Some(Err(fault)) => Asked::Wrong(fault),
            None => Asked::Own,
        }
    }

    /// The sandbox that a page's origin, `scheme://host`, belongs to.
    pub(super) fn sandbox_of(&self, origin: &[u8]) -> Option<SandboxId> {
        let host = &origin[origin.windows(3).position(|three| three == b"://")? + 3..];
        self.label(host).and_then(|label| by_label(label).ok()).map(|(sandbox, _)| sandbox)
    }

    /// What stands before one of the domains in `name` or `name:port`.
    fn label<'a>(&self, host: &'a [u8]) -> Option<&'a [u8]> {
        let end = host.iter().position(|b| *b == b':').unwrap_or(host.len());
        let (name, port) = host.split_at(end);
        let name = name.strip_suffix(b".").unwrap_or(name);
        self.0.iter().find_map(|domain| {
            let at = name.len().checked_sub(domain.len())?;
            let (label, suffix) = name.split_at(at);
            // An odd port is kept with the label, which then is none.
            let odd = port.len() > 6 || !port.iter().skip(1).all(u8::is_ascii_digit);
            suffix.eq_ignore_ascii_case(domain.as_bytes()).then_some(if odd { host } else { label })
        })
    }
}

/// `{port}--{id}`.
fn by_label(label: &[u8]) -> Result<(SandboxId, NonZeroU16), Fault> {
    let parts = std::str::from_utf8(label).ok().and_then(|label| label.split_once("--"));
    let found = parts.and_then(|(number, id)| {
        Some((SandboxId::parse(&id.to_ascii_lowercase()).ok()?, port(number)?))
    });
    found.ok_or_else(|| {
        let words = format!(
            "there is nothing at this host; write {{port}}--{{id}} before the domain: {BY_ID}"
        );
        Fault::new(Reason::RouteNotFound, words)
    })
}

/// `/v1/sandboxes/{id}/ports/{port}`, and all below it.
fn by_path(path: &str) -> Asked {
    let parts = path.strip_prefix("/v1/sandboxes/").and_then(|rest| rest.split_once("/ports/"));
    let Some((id, rest)) = parts.filter(|(id, _)| !id.contains('/')) else { return Asked::Own };
    let number = rest.split_once('/').map_or(rest, |(number, _)| number);
    let prefix = path.len() - rest.len() + number.len();
    match (SandboxId::parse(id), port(number)) {
        (Ok(sandbox), Some(port)) => {
            Asked::Port(Address { sandbox, port, form: Form::Path { prefix } })
        }
        (Err(error), _) => Asked::Wrong(
            Fault::new(Reason::RequestInvalid, format!("{error}; {BY_ID}"))
                .violates("sandbox", "must be 1 to 64 characters of a-z, 0-9 and -"),
        ),
        (_, None) => Asked::Wrong(
            Fault::new(Reason::RequestInvalid, "the port in the path is none; write 1 to 65535")
                .violates("port", "must be 1 to 65535, without zeros before it"),
        ),
    }
}

/// One way to write each port, so that no two hosts are one.
fn port(number: &str) -> Option<NonZeroU16> {
    let plain = number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
    if plain { number.parse().ok() } else { None }
}

impl Address {
    /// The target's own path and query.
    pub(super) fn path(&self, uri: &Uri) -> Option<PathAndQuery> {
        let whole = uri.path_and_query();
        match self.form {
            Form::Host => Some(whole.cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))),
            Form::Path { prefix } => {
                let rest = whole?.as_str().get(prefix..)?;
                if rest.starts_with('/') { rest.parse() } else { format!("/{rest}").parse() }.ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn find(target: &str, hosts: &[&str]) -> Asked {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, host.parse().unwrap());
        }
        let domains = Domains::new(&["localhost".to_owned(), "box.example".to_owned()]);
        domains.find(&target.parse().unwrap(), &headers)
    }

    fn said(asked: &Asked) -> String {
        match asked {
            Asked::Own => "own".to_owned(),
            Asked::Port(to) => format!("{}:{}", to.sandbox, to.port),
            Asked::Wrong(fault) => fault.reason.to_string(),
        }
    }

    #[test]
    fn a_host_under_a_domain_is_never_our_own() {
        for (host, expected) in [
            ("8080--a1.localhost", "a1:8080"),
            ("8080--a1.localhost:8443", "a1:8080"),
            ("8080--A1.LocalHost", "a1:8080"),
            ("8080--a1.localhost.", "a1:8080"),
            ("1--a-b.box.example", "a-b:1"),
            ("localhost", "own"),
            ("localhost:8080", "own"),
            ("box.example", "own"),
            ("notbox.example", "own"),
            ("127.0.0.1:8080", "own"),
            ("[::1]:8080", "own"),
            ("x.localhost", "ROUTE_NOT_FOUND"),
            ("0--a1.localhost", "ROUTE_NOT_FOUND"),
            ("08080--a1.localhost", "ROUTE_NOT_FOUND"),
            ("65536--a1.localhost", "ROUTE_NOT_FOUND"),
            ("+80--a1.localhost", "ROUTE_NOT_FOUND"),
            ("80--.localhost", "ROUTE_NOT_FOUND"),
            ("80--a1.x.localhost", "ROUTE_NOT_FOUND"),
            ("u@80--a1.localhost", "ROUTE_NOT_FOUND"),
            ("80--a1.localhost:@evil.example", "ROUTE_NOT_FOUND"),
        ] {
            for path in ["/", "/wolfpack.sandbox.v1.SandboxService/CreateSandbox", "/healthz"] {
                assert_eq!(said(&find(path, &[host])), expected, "{host} {path}");
            }
        }
        assert_eq!(said(&find("/", &[])), "own");
    }

    #[test]
    fn names_that_differ_are_refused() {
        let inside = "80--a1.localhost";
        for (target, hosts) in [
            ("/", vec![inside, inside]),
            ("/", vec![inside, "localhost"]),
            ("/", vec!["localhost", inside]),
            ("http://localhost/", vec![inside]),
            ("http://80--a1.localhost/", vec!["localhost"]),
            ("http://80--a1.localhost/", vec!["81--a1.localhost"]),
        ] {
            assert_eq!(said(&find(target, &hosts)), "REQUEST_INVALID", "{target} {hosts:?}");
        }
        assert_eq!(said(&find("http://80--a1.localhost/", &[inside])), "a1:80");
        assert_eq!(said(&find("http://80--a1.localhost/", &[])), "a1:80");
    }

    #[test]
    fn a_path_names_a_port_and_the_rest_is_the_targets() {
        let rest = |path: &str| match find(path, &["localhost"]) {
            Asked::Port(to) => {
                format!("{}:{} {}", to.sandbox, to.port, to.path(&path.parse().unwrap()).unwrap())
            }
            other => said(&other),
        };
        for (path, expected) in [
            ("/v1/sandboxes/a1/ports/80", "a1:80 /"),
            ("/v1/sandboxes/a1/ports/80/", "a1:80 /"),
            ("/v1/sandboxes/a1/ports/80?x=1", "a1:80 /?x=1"),
            (
                "/v1/sandboxes/a1/ports/80/v1/sandboxes/b/ports/1/x?q",
                "a1:80 /v1/sandboxes/b/ports/1/x?q",
            ),
            ("/v1/sandboxes/a1/ports/80//x", "a1:80 //x"),
            ("/v1/sandboxes/a1/ports/0/", "REQUEST_INVALID"),
            ("/v1/sandboxes/a1/ports/", "REQUEST_INVALID"),
            ("/v1/sandboxes/A%2F/ports/80/", "REQUEST_INVALID"),
            ("/v1/sandboxes/a1/ports", "own"),
            ("/v1/sandboxes/a1/screenshot", "own"),
            ("/v1/sandboxes/a/b/ports/80/", "own"),
            ("//v1/sandboxes/a1/ports/80/", "own"),
        ] {
            assert_eq!(rest(path), expected, "{path}");
        }
    }

    #[test]
    fn an_origin_is_a_sandboxs_or_nobodys() {
        let domains = Domains::new(&["localhost".to_owned()]);
        let of = |origin: &str| domains.sandbox_of(origin.as_bytes()).map(|id| id.to_string());
        assert_eq!(of("http://3000--a1.localhost:8080").as_deref(), Some("a1"));
        for nobodys in ["null", "http://localhost:8080", "https://a1.example", "3000--a1.localhost"]
        {
            assert_eq!(of(nobodys), None, "{nobodys}");
        }
    }

    proptest! {
        /// Whatever a host looks like: what ends in a domain of ours never
        /// passes as the gateway's own.
        #[test]
        fn nothing_under_a_domain_is_our_own(label in "[!-~]{1,30}", port in "(:[0-9]{1,5})?") {
            let host = format!("{label}.localhost{port}");
            prop_assume!(!label.contains(':'));
            let asked = find("/wolfpack.sandbox.v1.SandboxService/GetSandbox", &[&host]);
            prop_assert!(!matches!(asked, Asked::Own), "{}", host);
        }
    }
}
