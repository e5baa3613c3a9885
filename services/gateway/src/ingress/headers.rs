//! The headers of a request as the target gets them, and those of its answer as
//! the client does.

use http::header::{
    ALT_SVC, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY_REPORT_ONLY, FORWARDED,
    HOST, SET_COOKIE, STRICT_TRANSPORT_SECURITY, TE, UPGRADE, VIA, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};

use super::address::{Address, Form};
use super::credential::{PLAIN_COOKIE, SECURE_COOKIE};
use super::hop;
use super::serve::Visitor;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// What targets read as a proxy's word on whom it speaks for. It is ours to give.
const CLAIMS: [HeaderName; 7] = [FOR, PROTO, FORWARDED_HOST, PORT, PREFIX, REAL_IP, FORWARDED];

/// What an answer could do to the gateway's own origin, on which it is seen when
/// it was asked for by path.
const OF_THE_ORIGIN: [HeaderName; 6] = [
    SET_COOKIE,
    ALT_SVC,
    STRICT_TRANSPORT_SECURITY,
    CONTENT_SECURITY_POLICY_REPORT_ONLY,
    HeaderName::from_static("clear-site-data"),
    HeaderName::from_static("service-worker-allowed"),
];

/// Makes a request's headers the target's. `uri` is the one the client sent,
/// `upgrade` what it may go on with.
pub(super) fn to_target(
    headers: &mut HeaderMap,
    uri: &Uri,
    version: Version,
    address: &Address,
    visitor: &Visitor,
    upgrade: Option<HeaderValue>,
) {
    let trailers = hop::takes_trailers(headers);
    hop::strip(headers);
    for name in CLAIMS {
        headers.remove(name);
    }
    let asked = uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    let asked = asked.or_else(|| headers.get(HOST).cloned());
    let host = match address.form {
        Form::Host => asked.clone(),
        Form::Path { prefix } => {
            let prefix = uri.path().get(..prefix).and_then(|path| path.parse().ok());
            prefix.map(|prefix: HeaderValue| headers.insert(PREFIX, prefix));
            HeaderValue::from_str(&format!("localhost:{}", address.port)).ok()
        }
    };
    // HTTP/1.1 wants one; a request of the path form may have come without.
    headers.insert(HOST, host.unwrap_or_else(|| HeaderValue::from_static("localhost")));
    if let Some(asked) = asked {
        headers.insert(FORWARDED_HOST, asked);
    }
    if let Some(ip) = visitor.ip.and_then(|ip| HeaderValue::from_str(&ip.to_string()).ok()) {
        headers.insert(FOR, ip);
    }
    headers.insert(PROTO, HeaderValue::from_static(visitor.scheme()));
    let via = if version == Version::HTTP_2 { "2.0 wolfpack" } else { "1.1 wolfpack" };
    headers.append(VIA, HeaderValue::from_static(via));
    let connection = match (trailers, &upgrade) {
        (true, Some(_)) => "te, upgrade",
        (true, None) => "te",
        (false, Some(_)) => "upgrade",
        (false, None) => return,
    };
    headers.insert(CONNECTION, HeaderValue::from_static(connection));
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(upgrade) = upgrade {
        headers.insert(UPGRADE, upgrade);
    }
}

/// Makes an answer's headers the client's.
pub(super) fn to_client(headers: &mut HeaderMap, form: Form) {
    hop::strip(headers);
    match form {
        Form::Host => own_cookies(headers),
        Form::Path { .. } => {
            for name in OF_THE_ORIGIN {
                headers.remove(name);
            }
            headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        }
    }
}

/// A target's cookies are its own host's: not its neighbours', as a domain would
/// make them, and none of ours.
fn own_cookies(headers: &mut HeaderMap) {
    if !headers.contains_key(SET_COOKIE) {
        return;
    }
    let cookies: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().cloned().collect();
    headers.remove(SET_COOKIE);
    for cookie in cookies {
        if let Some(cookie) = own_cookie(cookie) {
            headers.append(SET_COOKIE, cookie);
        }
    }
}

fn own_cookie(cookie: HeaderValue) -> Option<HeaderValue> {
    let name_of = |part: &[u8]| {
        let end = part.iter().position(|b| *b == b'=').unwrap_or(part.len());
        part[..end].trim_ascii().to_ascii_lowercase()
    };
    let mut parts = cookie.as_bytes().split(|b| *b == b';');
    let name = name_of(parts.next().unwrap_or_default());
    if [PLAIN_COOKIE, SECURE_COOKIE].iter().any(|ours| ours.as_bytes().eq_ignore_ascii_case(&name))
    {
        return None;
    }
    if !parts.any(|part| name_of(part) == b"domain") {
        return Some(cookie);
    }
    let mut parts = cookie.as_bytes().split(|b| *b == b';');
    let first = parts.next().into_iter();
    let rest: Vec<&[u8]> = first.chain(parts.filter(|part| name_of(part) != b"domain")).collect();
    HeaderValue::from_bytes(&rest.join(b";".as_slice())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wolfpack_types::SandboxId;

    fn sent(pairs: &[(&'static str, &'static str)], uri: &str, form: Form) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let address =
            Address { sandbox: SandboxId::parse("a").unwrap(), port: 80.try_into().unwrap(), form };
        let visitor = Visitor { ip: Some([10, 0, 0, 9].into()), encrypted: true };
        let uri = uri.parse().unwrap();
        to_target(&mut headers, &uri, Version::HTTP_11, &address, &visitor, None);
        headers
    }

    #[test]
    fn whom_we_speak_for_is_ours_to_say() {
        let forged = [
            ("host", "80--a.localhost"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-real-ip", "1.1.1.1"),
            ("forwarded", "for=1.1.1.1"),
            ("x-forwarded-prefix", "/evil"),
            ("connection", "x-forwarded-proto"),
            ("via", "1.1 front"),
        ];
        let headers = sent(&forged, "/", Form::Host);
        let all = |name| headers.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(all("x-forwarded-for"), ["10.0.0.9"]);
        assert_eq!(all("x-forwarded-host"), ["80--a.localhost"]);
        assert_eq!(all("x-forwarded-proto"), ["https"]);
        assert_eq!(all("host"), ["80--a.localhost"]);
        assert_eq!(all("via"), ["1.1 front", "1.1 wolfpack"]);
        for gone in ["x-real-ip", "forwarded", "x-forwarded-prefix", "connection"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
    }

    #[test]
    fn by_path_the_target_is_at_its_own_port() {
        let form = Form::Path { prefix: 26 };
        let headers = sent(&[("host", "gw:8443")], "/v1/sandboxes/a/ports/80/x", form);
        assert_eq!(headers["host"], "localhost:80");
        assert_eq!(headers["x-forwarded-host"], "gw:8443");
        assert_eq!(headers["x-forwarded-prefix"], "/v1/sandboxes/a/ports/80/x");
    }

    #[test]
    fn a_targets_cookies_stay_its_own_hosts() {
        for (set, expected) in [
            ("a=1; Path=/", Some("a=1; Path=/")),
            ("a=1; Domain=.localhost; Secure", Some("a=1; Secure")),
            ("a=1;DOMAIN=x;domain=y", Some("a=1")),
            ("domain=1; Path=/", Some("domain=1; Path=/")),
            ("wp_link=x", None),
            ("__Host-WP_link=x; Secure", None),
        ] {
            let cookie = own_cookie(HeaderValue::from_static(set));
            assert_eq!(cookie.as_ref().map(HeaderValue::as_bytes), expected.map(str::as_bytes));
        }
    }
}
