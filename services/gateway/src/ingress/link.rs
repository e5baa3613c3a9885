//! A link that came in the query becomes a cookie of its host, and leaves the
//! address bar.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Response, StatusCode, header};
use tonic::body::Body;
use wolfpack_rpc::auth::LinkClaims;
use wolfpack_types::{Fault, Reason};

use super::address::Address;
use super::credential::{PLAIN_COOKIE, SECURE_COOKIE};

/// Sends a browser to the same address without the link, which it will bring as
/// a cookie for as long as the link lives. What the link says is looked at, and
/// not verified: whoever sends this has asked the broker first, as a cookie takes
/// the place of a good one that may be there.
///
/// # Errors
/// `LINK_INVALID` for a link that cannot be good here.
pub(super) fn to_cookie(
    link: &str,
    address: &Address,
    location: &str,
    encrypted: bool,
) -> Result<Response<Body>, Fault> {
    let claims = LinkClaims::unverified(link)?;
    // Nothing may end the value and say more of the cookie.
    let plain = link.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let left = claims.exp.saturating_sub(now);
    let here = claims.sub == address.sandbox.name() && claims.prt == address.port.get();
    if !plain || !here || left == 0 {
        return Err(Fault::new(
            Reason::LinkInvalid,
            "the link has ended, or is for another port or sandbox; ask for a fresh one",
        ));
    }
    let unreadable = |_| Fault::new(Reason::RequestInvalid, "the address cannot be sent back");
    let location = HeaderValue::from_str(location).map_err(unreadable)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    headers.insert(header::SET_COOKIE, cookie(link, left, encrypted).map_err(unreadable)?);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(response)
}

/// Makes a browser forget a link that is not good any more.
pub(super) fn forget(encrypted: bool) -> Option<HeaderValue> {
    cookie("", 0, encrypted).ok()
}

fn cookie(
    link: &str,
    seconds: u64,
    encrypted: bool,
) -> Result<HeaderValue, header::InvalidHeaderValue> {
    let longest = wolfpack_rpc::auth::MAX_LINK_LIFE + Duration::from_secs(60);
    let seconds = seconds.min(longest.as_secs());
    let (name, secure) = if encrypted { (SECURE_COOKIE, "; Secure") } else { (PLAIN_COOKIE, "") };
    let text = format!("{name}={link}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    let mut value = HeaderValue::from_str(&text)?;
    value.set_sensitive(true);
    Ok(value)
}
