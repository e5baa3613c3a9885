//! What is about one hop and not about the message (RFC 9110, 7.6.1).

use http::header::{
    CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    HTTP2_SETTINGS,
];

/// Removes all of it, what `connection` names included. How long a body is says
/// the body itself.
pub(super) fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
            .filter_map(|name| HeaderName::from_bytes(name).ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Whether the client takes trailers.
pub(super) fn takes_trailers(headers: &HeaderMap) -> bool {
    tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case(b"trailers"))
}

/// What an HTTP/1.1 client asks to go on with, if that may pass: not another
/// HTTP or TLS, in which later requests would pass unread, ours on them.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    if !tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case(b"upgrade")) {
        return None;
    }
    let mut values = headers.get_all(UPGRADE).iter();
    let value = values.next()?;
    let odd = tokens(headers, &UPGRADE).any(|protocol| {
        let name = protocol.split(|b| *b == b'/').next().unwrap_or_default();
        [b"h2c".as_slice(), b"h2", b"http", b"tls"].iter().any(|odd| name.eq_ignore_ascii_case(odd))
    });
    (values.next().is_none() && !odd).then(|| value.clone())
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let values = headers.get_all(name).into_iter();
    values.flat_map(|value| value.as_bytes().split(|b| *b == b',')).map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_connection_names_goes_with_it() {
        let mut all = headers(&[
            ("connection", "close, x-hop"),
            ("connection", "Upgrade"),
            ("x-hop", "1"),
            ("upgrade", "websocket"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "Basic x"),
            ("x-kept", "1"),
            ("trailer", "x-sum"),
        ]);
        strip(&mut all);
        let left: Vec<&str> = all.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-kept", "trailer"]);
    }

    #[test]
    fn no_other_http_is_gone_on_with() {
        let asked = |upgrade: &'static str| {
            super::upgrade(&headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", upgrade)]))
        };
        assert_eq!(asked("websocket").unwrap(), "websocket");
        for odd in ["h2c", "H2C", "websocket, h2c", "HTTP/2.0", "TLS/1.0"] {
            assert_eq!(asked(odd), None, "{odd}");
        }
        assert_eq!(super::upgrade(&headers(&[("upgrade", "websocket")])), None);
        assert_eq!(super::upgrade(&headers(&[("connection", "upgrade")])), None);
    }
}
