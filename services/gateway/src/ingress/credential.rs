//! Who asks: a key, or a link in a header, the query or a cookie. All of ours is
//! taken off the request here, used or not, so that no target ever sees it.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, COOKIE};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, HeaderValue};
use secrecy::SecretString;
use wolfpack_rpc::auth::LINK_PREFIX;
use wolfpack_rpc::client::Bearer;
use wolfpack_types::{Fault, Reason};

use super::address::Form;

/// Where a first request carries a link.
pub(super) const QUERY: &str = "wp_link";
/// The cookie that later ones carry it in, over TLS: the prefix makes browsers
/// refuse it from a neighbour's page.
pub(super) const SECURE_COOKIE: &str = "__Host-wp_link";
/// The same without TLS, where the prefix is not allowed.
pub(super) const PLAIN_COOKIE: &str = "wp_link";
/// What an api key begins with.
const KEY_PREFIX: &str = "wp_";

const LINK_BY_PATH: &str = "a link opens its port by host, {port}--{id} before the domain, and not by path; send an api key as \"authorization: Bearer wp_...\" here";

/// Where a credential was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    /// In `authorization`: a program sent it.
    Header,
    /// In the query.
    Query,
    /// In a cookie: a browser sends it, whoever's page asks.
    Cookie,
}

/// A credential of the caller's.
pub(super) struct Credential {
    text: String,
    pub(super) via: Via,
}

impl Credential {
    /// The link, or the key.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Names it without being it.
    pub(super) fn digest(&self) -> [u8; 32] {
        *blake3::hash(self.text.as_bytes()).as_bytes()
    }

    /// To dial with.
    pub(super) fn bearer(&self) -> Bearer {
        SecretString::from(self.text.clone()).into()
    }
}

/// Takes all credentials of ours off a request and returns the one that counts:
/// that of the header, else of the query, else of the cookie. By path only an
/// api key in the header counts, and no cookie passes.
///
/// # Errors
/// `REQUEST_INVALID` for more than one `authorization`. Where nothing counts
/// `CREDENTIAL_MISSING`, but `API_KEY_INVALID` or `LINK_INVALID` for who has sent
/// something else. By host only a bearer is that: any other authorization is for
/// the page there.
pub(super) fn take(
    headers: &mut HeaderMap,
    uri: &mut Uri,
    form: Form,
    encrypted: bool,
) -> Result<Credential, Fault> {
    let by_host = form == Form::Host;
    let sent = headers
        .get(AUTHORIZATION)
        .is_some_and(|value| !by_host || bearer(value.as_bytes()).is_some());
    let header = from_header(headers)?;
    let query = from_query(uri);
    let cookie = if by_host {
        from_cookies(headers, if encrypted { SECURE_COOKIE } else { PLAIN_COOKIE })
    } else {
        headers.remove(COOKIE);
        None
    };
    let found = |text: Option<String>, via| text.map(|text| Credential { text, via });
    if !by_host {
        let is_link = |text: &String| text.starts_with(LINK_PREFIX);
        let link = header.as_ref().is_some_and(is_link) || (!sent && query.is_some());
        let key = header.filter(|text| !is_link(text));
        return found(key, Via::Header).ok_or_else(|| match link {
            true => Fault::new(Reason::LinkInvalid, LINK_BY_PATH),
            false => nothing(form, sent),
        });
    }
    found(header, Via::Header)
        .or_else(|| found(query, Via::Query))
        .or_else(|| found(cookie, Via::Cookie))
        .ok_or_else(|| nothing(form, sent))
}

/// Nothing counts; whether an `authorization` was `sent` that should have.
fn nothing(form: Form, sent: bool) -> Fault {
    let key = "an api key as \"authorization: Bearer wp_...\"";
    let todo = match form {
        Form::Host => format!(
            "open the sandbox's link (wolfpack sandbox link ID PORT makes one), or send {key}"
        ),
        Form::Path { .. } => format!("send {key}"),
    };
    match sent {
        true => Fault::new(
            Reason::ApiKeyInvalid,
            format!("the authorization that was sent is neither an api key nor a link; {todo}"),
        ),
        false => Fault::new(Reason::CredentialMissing, todo),
    }
}

/// A bearer of ours. Any other authorization is the target's own and stays.
fn from_header(headers: &mut HeaderMap) -> Result<Option<String>, Fault> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Fault::new(
            Reason::RequestInvalid,
            "there is more than one authorization header; send one",
        ));
    }
    let ours = our_bearer(value.as_bytes()).map(ToOwned::to_owned);
    if ours.is_some() {
        headers.remove(AUTHORIZATION);
    }
    // What is not text is no credential, and is off the request all the same.
    Ok(ours.and_then(|token| String::from_utf8(token).ok()))
}

fn our_bearer(value: &[u8]) -> Option<&[u8]> {
    let token = bearer(value)?;
    let ours = [KEY_PREFIX, LINK_PREFIX].iter().any(|prefix| token.starts_with(prefix.as_bytes()));
    ours.then_some(token)
}

/// What an authorization of the scheme Bearer carries, which may be nothing.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.trim_ascii().split_at_checked("bearer".len())?;
    let whole = token.first().is_none_or(|next| matches!(next, b' ' | b'\t'));
    (whole && scheme.eq_ignore_ascii_case(b"bearer")).then(|| token.trim_ascii())
}

/// Takes the link out of the query.
fn from_query(uri: &mut Uri) -> Option<String> {
    let query = uri.query()?;
    if !query.contains(QUERY) {
        return None;
    }
    let link = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name == QUERY).then(|| value.to_owned())
    };
    let found = query.split('&').find_map(link);
    found.as_ref()?;
    let rest: Vec<&str> = query.split('&').filter(|pair| link(pair).is_none()).collect();
    let (path, query) = (uri.path(), rest.join("&"));
    let whole = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    let mut parts = std::mem::take(uri).into_parts();
    // A part of what was one is one.
    parts.path_and_query =
        PathAndQuery::try_from(whole).ok().or_else(|| Some(PathAndQuery::from_static("/")));
    *uri = Uri::from_parts(parts).unwrap_or_default();
    found.filter(|link| !link.is_empty())
}

/// Takes our cookies out of all others and joins these to one header, as
/// HTTP/1.1 wants them.
fn from_cookies(headers: &mut HeaderMap, name: &str) -> Option<String> {
    let all = headers.get_all(COOKIE);
    let mut values = all.iter();
    let first = values.next()?;
    let joined: Cow<'_, [u8]> = if values.next().is_none() {
        if !contains(first.as_bytes(), PLAIN_COOKIE.as_bytes()) {
            return None;
        }
        first.as_bytes().into()
    } else {
        let values: Vec<&[u8]> = all.iter().map(HeaderValue::as_bytes).collect();
        values.join(b"; ".as_slice()).into()
    };
    let mut found = None;
    let mut rest: Vec<&[u8]> = Vec::new();
    for pair in joined.split(|b| *b == b';') {
        let pair = pair.trim_ascii();
        let end = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
        let (its, value) = pair.split_at(end);
        let its = its.trim_ascii();
        if its == name.as_bytes() && found.is_none() {
            let value = value.strip_prefix(b"=").unwrap_or(value).trim_ascii();
            found = String::from_utf8(value.to_vec()).ok();
        }
        if its != PLAIN_COOKIE.as_bytes() && its != SECURE_COOKIE.as_bytes() && !pair.is_empty() {
            rest.push(pair);
        }
    }
    let rest = (!rest.is_empty())
        .then(|| HeaderValue::from_bytes(&rest.join(b"; ".as_slice())).ok())
        .flatten();
    match rest {
        Some(rest) => drop(headers.insert(COOKIE, rest)),
        None => drop(headers.remove(COOKIE)),
    }
    found.filter(|link| !link.is_empty())
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(
        uri: &str,
        pairs: &[(&'static str, &str)],
        form: Form,
        encrypted: bool,
    ) -> (Option<(String, Via)>, String, HeaderMap) {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        let mut uri: Uri = uri.parse().unwrap();
        let found = take(&mut headers, &mut uri, form, encrypted).ok();
        (found.map(|found| (found.text, found.via)), uri.to_string(), headers)
    }

    #[test]
    fn ours_is_taken_and_the_targets_own_stays() {
        let host = |pairs: &[(&'static str, &str)]| taken("/x?a=1", pairs, Form::Host, true);
        for key in ["Bearer wp_k", "bearer  wp_k ", "BEARER\twp_k"] {
            let (found, _, headers) = host(&[("authorization", key)]);
            assert_eq!(found, Some(("wp_k".to_owned(), Via::Header)), "{key}");
            assert!(headers.is_empty(), "{key}");
        }
        for own in ["Basic wp_k", "Bearer a.b.c", "Bearer", "wp_k"] {
            let (found, _, headers) = host(&[("authorization", own)]);
            assert_eq!(found, None, "{own}");
            assert_eq!(headers[AUTHORIZATION], own);
        }
        let both = [("authorization", "Basic x"), ("cookie", "a=1; __Host-wp_link=wpl_t; b=2")];
        let (found, _, headers) = host(&both);
        assert_eq!(found, Some(("wpl_t".to_owned(), Via::Cookie)));
        assert_eq!(headers[AUTHORIZATION], "Basic x");
        assert_eq!(headers[COOKIE], "a=1; b=2");
        let mut two = HeaderMap::new();
        two.append(AUTHORIZATION, HeaderValue::from_static("Basic x"));
        two.append(AUTHORIZATION, HeaderValue::from_static("Bearer wp_k"));
        let error = take(&mut two, &mut Uri::default(), Form::Host, true).err().unwrap();
        assert_eq!(error.reason, Reason::RequestInvalid);
    }

    #[test]
    fn a_link_leaves_the_query_wherever_it_stands() {
        for (uri, rest) in [
            ("/x?wp_link=wpl_t", "/x"),
            ("/x?a=1&wp_link=wpl_t&b=%20", "/x?a=1&b=%20"),
            ("/x?wp_link=wpl_t&wp_link=other&c", "/x?c"),
            ("http://80--a.localhost/x?wp_link=wpl_t&d", "http://80--a.localhost/x?d"),
        ] {
            let (found, left, _) = taken(uri, &[], Form::Host, true);
            assert_eq!(found, Some(("wpl_t".to_owned(), Via::Query)), "{uri}");
            assert_eq!(left, rest);
        }
        let (found, left, _) = taken("/x?not_wp_link=1&wp_linked=2", &[], Form::Host, true);
        assert_eq!((found, left.as_str()), (None, "/x?not_wp_link=1&wp_linked=2"));
    }

    #[test]
    fn cookies_are_joined_and_both_of_ours_go() {
        let cookies = [("cookie", "wp_link=wpl_plain"), ("cookie", "a=b"), ("cookie", "c")];
        let (found, _, headers) = taken("/", &cookies, Form::Host, false);
        assert_eq!(found, Some(("wpl_plain".to_owned(), Via::Cookie)));
        assert_eq!(headers[COOKIE], "a=b; c");
        let (found, _, headers) = taken("/", &cookies[..1], Form::Host, true);
        assert_eq!(found, None, "over TLS only the name with the prefix counts");
        assert!(headers.is_empty());
    }

    #[test]
    fn who_sent_something_is_not_told_that_nothing_came() {
        let (host, path) = (Form::Host, Form::Path { prefix: 0 });
        for (sent, uri, form, reason) in [
            (None, "/", host, Reason::CredentialMissing),
            (None, "/", path, Reason::CredentialMissing),
            (Some("Bearer bad"), "/", host, Reason::ApiKeyInvalid),
            (Some("Bearer bad"), "/", path, Reason::ApiKeyInvalid),
            (Some("bearer"), "/", host, Reason::ApiKeyInvalid),
            (Some("Basic dTpw"), "/", host, Reason::CredentialMissing),
            (Some("Bearers bad"), "/", host, Reason::CredentialMissing),
            (Some("Basic dTpw"), "/?wp_link=wpl_t", path, Reason::ApiKeyInvalid),
            (Some("Bearer wpl_t"), "/", path, Reason::LinkInvalid),
            (None, "/?wp_link=wpl_t", path, Reason::LinkInvalid),
        ] {
            let mut headers = HeaderMap::new();
            sent.map(|sent| headers.insert(AUTHORIZATION, HeaderValue::from_static(sent)));
            let mut uri: Uri = uri.parse().unwrap();
            let fault = take(&mut headers, &mut uri, form, true).err().unwrap();
            assert_eq!(fault.reason, reason, "{sent:?} {form:?}");
            assert!(fault.message.contains("Bearer wp_..."), "what is taken: {fault}");
        }
    }

    #[test]
    fn by_path_only_a_key_counts_and_no_cookie_passes() {
        let path = |pairs: &[(&'static str, &str)]| {
            taken("/?wp_link=wpl_t&q", pairs, Form::Path { prefix: 0 }, true)
        };
        let (found, left, headers) =
            path(&[("cookie", "a=1; __Host-wp_link=wpl_t"), ("authorization", "Bearer wpl_t")]);
        assert_eq!(found, None);
        assert!(headers.is_empty());
        assert_eq!(left, "/?q");
        let (found, ..) = path(&[("authorization", "Bearer wp_k")]);
        assert_eq!(found, Some(("wp_k".to_owned(), Via::Header)));
    }
}
