//! The one place where a [`Fault`] becomes a gRPC status and back.
//!
//! Every status that leaves a server carries `google.rpc.ErrorInfo` with a
//! reason of the table and the domain [`DOMAIN`], and the other `google.rpc`
//! details where they apply, each at most once.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use http::HeaderMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use wolfpack_types::{Fault, FieldViolation, Reason};

/// The domain of every `ErrorInfo` we send.
pub const DOMAIN: &str = "wolfpack.dev";

/// Trailers share 8 to 16 KiB with everything else; these bounds keep a status
/// well inside.
const MAX_VIOLATIONS: usize = 20;
const MAX_TEXT: usize = 1024;
const MAX_METADATA: usize = 16;

/// Turns a fault into the status that the caller sees and logs its cause.
#[must_use]
#[allow(
    clippy::needless_pass_by_value,
    reason = "a fault ends here; `map_err(to_status)` reads well"
)]
pub fn to_status(fault: Fault) -> Status {
    log(&fault);
    status_of(&fault)
}

/// As [`to_status`], for what was said already and goes on.
pub(crate) fn to_status_again(fault: &Fault) -> Status {
    let cause = fault.source.as_deref().map(|source| chain(source));
    tracing::debug!(reason = %fault.reason, cause, "{}", fault.message);
    status_of(fault)
}

/// What a handler reads where the caller's stream should have gone on. The
/// reason is CANCELLED; the code is not, because tonic takes a request stream
/// that is CANCELLED for one that has ended well.
pub(crate) fn broken_off() -> Status {
    let info = ErrorDetails::with_error_info(Reason::Cancelled.as_str(), DOMAIN, HashMap::new());
    let message = "the request broke off before its end; send it again";
    Status::with_error_details(Code::Aborted, message, info)
}

fn status_of(fault: &Fault) -> Status {
    let reason = fault.reason;
    let metadata: HashMap<String, String> = fault
        .metadata
        .iter()
        .take(MAX_METADATA)
        .map(|(key, value)| (key.clone(), cut(value, MAX_TEXT / 4)))
        .collect();
    let mut details = ErrorDetails::with_error_info(reason.as_str(), DOMAIN, metadata);
    for violation in fault.violations.iter().take(MAX_VIOLATIONS) {
        details.add_bad_request_violation(
            cut(&violation.field, MAX_TEXT / 8),
            cut(&violation.description, MAX_TEXT / 8),
        );
    }
    if let Some(after) = fault.retry_after {
        details.set_retry_info(Some(after));
    }
    if let Some(name) = &fault.resource {
        let kind = name.split('/').next().unwrap_or_default();
        details.set_resource_info(kind, cut(name, MAX_TEXT / 4), "", "");
    }
    let subject = fault.resource.as_deref().unwrap_or_default();
    match reason.code() {
        wolfpack_types::Code::FailedPrecondition => {
            details.add_precondition_failure_violation(
                reason.as_str(),
                subject,
                cut(&fault.message, MAX_TEXT / 4),
            );
        }
        wolfpack_types::Code::ResourceExhausted => {
            details.add_quota_failure_violation(subject, cut(&fault.message, MAX_TEXT / 4));
        }
        _ => {}
    }
    Status::with_error_details(code(reason), cut(&fault.message, MAX_TEXT), details)
}

/// Reads a status that a service answered. One without our `ErrorInfo` (it came
/// from the transport or from a foreign server) maps by its code.
#[must_use]
pub fn from_status(status: &Status) -> Fault {
    let details = status.check_error_details().unwrap_or_default();
    let info = details.error_info().filter(|info| info.domain == DOMAIN);
    let known = info.and_then(|info| Reason::parse(&info.reason));
    let mut fault = Fault::new(known.unwrap_or_else(|| by_code(status.code())), status.message());
    if let Some(info) = info {
        fault.metadata =
            info.metadata.iter().map(|(k, v)| (k.clone(), v.clone())).collect::<BTreeMap<_, _>>();
        if known.is_none() {
            // A newer server knows reasons that we do not; programs may.
            fault = fault.with("reason", info.reason.clone());
        }
    } else {
        fault = fault.with("grpc_code", format!("{:?}", status.code()));
    }
    if let Some(bad_request) = details.bad_request() {
        fault.violations = bad_request
            .field_violations
            .iter()
            .map(|v| FieldViolation { field: v.field.clone(), description: v.description.clone() })
            .collect();
    }
    fault.retry_after = details.retry_info().and_then(|info| info.retry_delay);
    fault.resource = details.resource_info().map(|info| info.resource_name.clone());
    fault
}

/// The gRPC code of a reason.
#[must_use]
pub fn code(reason: Reason) -> Code {
    use wolfpack_types::Code as C;
    match reason.code() {
        C::Cancelled => Code::Cancelled,
        C::Unknown => Code::Unknown,
        C::InvalidArgument => Code::InvalidArgument,
        C::DeadlineExceeded => Code::DeadlineExceeded,
        C::NotFound => Code::NotFound,
        C::AlreadyExists => Code::AlreadyExists,
        C::PermissionDenied => Code::PermissionDenied,
        C::ResourceExhausted => Code::ResourceExhausted,
        C::FailedPrecondition => Code::FailedPrecondition,
        C::Aborted => Code::Aborted,
        C::OutOfRange => Code::OutOfRange,
        C::Internal => Code::Internal,
        C::Unavailable => Code::Unavailable,
        C::Unauthenticated => Code::Unauthenticated,
        C::Unimplemented => Code::Unimplemented,
    }
}

/// The nearest reason of a bare code.
fn by_code(code: Code) -> Reason {
    match code {
        Code::InvalidArgument => Reason::RequestInvalid,
        Code::Unauthenticated => Reason::CredentialMissing,
        Code::PermissionDenied => Reason::CallerForbidden,
        Code::NotFound | Code::Unimplemented => Reason::RouteNotFound,
        Code::ResourceExhausted => Reason::Overloaded,
        Code::DeadlineExceeded => Reason::DeadlineExceeded,
        Code::Cancelled => Reason::Cancelled,
        Code::Unavailable => Reason::DependencyUnavailable,
        _ => Reason::Internal,
    }
}

/// Gives a failed answer that something below us made (a codec, generated code)
/// the details that every answer of ours has. Answers that have them stay.
pub(crate) fn complete(headers: &mut HeaderMap) {
    let failed = headers.get(Status::GRPC_STATUS).is_some_and(|value| value.as_bytes() != b"0");
    if !failed || headers.contains_key(Status::GRPC_STATUS_DETAILS) {
        return;
    }
    let Some(status) = Status::from_header_map(headers) else { return };
    let message = status.message();
    let reason = match status.code() {
        Code::OutOfRange if message.contains("message length too large") => Reason::MessageTooLarge,
        // A message that does not decode is the caller's doing.
        Code::Internal if message.contains("decode") => Reason::RequestInvalid,
        other => by_code(other),
    };
    let fault = if reason == Reason::Internal {
        tracing::error!(code = ?status.code(), message, "a call failed without a reason");
        Fault::new(
            reason,
            "an internal error occurred; try again, and tell the operator if it stays",
        )
    } else {
        Fault::new(reason, message)
    };
    // Both are made of valid header bytes: percent-encoded text and base64.
    let _ = to_status(fault).add_header(headers);
}

/// Logs what the caller does not see. Peers come and go: that alone is no
/// warning.
fn log(fault: &Fault) {
    let cause = fault.source.as_deref().map(|source| chain(source));
    match (fault.reason, cause) {
        (Reason::Internal, cause) => tracing::error!(
            reason = %fault.reason,
            cause = cause.as_deref().unwrap_or("unknown"),
            "{}", fault.message
        ),
        (reason, Some(cause)) if reason == Reason::Cancelled || left(fault) => {
            tracing::debug!(%reason, cause, "{}", fault.message);
        }
        (reason, Some(cause)) => tracing::warn!(%reason, cause, "{}", fault.message),
        (reason, None) => tracing::debug!(%reason, "{}", fault.message),
    }
}

fn left(fault: &Fault) -> bool {
    fault.source.as_deref().is_some_and(|source| peer_left(source))
}

/// Whether an error says no more than that the peer took its stream back or
/// closed its connection.
fn peer_left(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind as Io;
    let gone = |error: &std::io::Error| {
        matches!(
            error.kind(),
            Io::UnexpectedEof | Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe
        )
    };
    let mut next = Some(error);
    while let Some(error) = next {
        let left = if let Some(error) = error.downcast_ref::<std::io::Error>() {
            gone(error)
        } else if let Some(error) = error.downcast_ref::<h2::Error>() {
            error.reason() == Some(h2::Reason::CANCEL) || error.get_io().is_some_and(gone)
        } else if let Some(error) = error.downcast_ref::<hyper::Error>() {
            error.is_canceled() || error.is_closed() || error.is_incomplete_message()
        } else if let Some(status) = error.downcast_ref::<Status>() {
            matches!(status.code(), Code::Cancelled | Code::Aborted)
                && from_status(status).reason == Reason::Cancelled
        } else {
            false
        };
        if left {
            return true;
        }
        next = error.source();
    }
    false
}

/// An error with everything below it, on one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let part = error.to_string();
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        next = error.source();
    }
    cut(&text, 4 * MAX_TEXT)
}

fn cut(text: &str, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// A fault with a hint to come back, for refusals that pass.
pub(crate) fn busy(reason: Reason, message: &str, after: Duration) -> Fault {
    Fault::new(reason, message).retry_in(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_round_trips_with_its_details() {
        for reason in Reason::ALL {
            let fault = Fault::new(*reason, "words for people")
                .with("key", "value")
                .about("wolves/abc")
                .violates("wolf.name", "must not be empty")
                .retry_in(Duration::from_millis(1500));
            let status = to_status(fault.clone());
            assert_eq!(status.code(), code(*reason), "{reason}");
            let mut headers = HeaderMap::new();
            status.add_header(&mut headers).unwrap();
            let total: usize = headers.iter().map(|(k, v)| k.as_str().len() + v.len()).sum();
            assert!(total < 4096, "{reason}: {total}");
            let back = from_status(&Status::from_header_map(&headers).unwrap());
            assert_eq!(back.reason, *reason);
            assert_eq!(back.message, fault.message);
            assert_eq!(back.metadata, fault.metadata);
            assert_eq!(back.violations, fault.violations);
            assert_eq!(back.resource, fault.resource);
            assert_eq!(back.retry_after, fault.retry_after);
        }
    }

    #[test]
    fn causes_stay_inside_and_long_texts_are_cut() {
        let status = to_status(Fault::internal("password=hunter2 in /var/lib"));
        let text = format!("{status:?} {}", String::from_utf8_lossy(status.details()));
        assert!(!text.contains("hunter2"), "{text}");

        let mut fault = Fault::new(Reason::RequestInvalid, "ä".repeat(5000));
        for i in 0..100 {
            fault = fault
                .violates(format!("f{i}"), "x".repeat(5000))
                .with(&format!("k{i}"), "y".repeat(5000));
        }
        let mut headers = HeaderMap::new();
        to_status(fault).add_header(&mut headers).unwrap();
        let total: usize = headers.iter().map(|(k, v)| k.as_str().len() + v.len()).sum();
        assert!(total < 16 * 1024, "{total}");
    }

    #[test]
    fn foreign_answers_get_a_reason() {
        let cases = [
            (
                Status::out_of_range("Error, decoded message length too large: found 5 bytes"),
                Reason::MessageTooLarge,
            ),
            (Status::internal("failed to decode Protobuf message: x"), Reason::RequestInvalid),
            (Status::unimplemented(""), Reason::RouteNotFound),
            (Status::unknown("SELECT secret"), Reason::Internal),
        ];
        for (status, reason) in cases {
            let mut headers = HeaderMap::new();
            status.add_header(&mut headers).unwrap();
            complete(&mut headers);
            let completed = Status::from_header_map(&headers).unwrap();
            assert_eq!(from_status(&completed).reason, reason);
            assert_eq!(completed.code(), code(reason));
            assert!(!completed.message().contains("SELECT"), "{completed}");
        }
        let mut fine = HeaderMap::new();
        fine.insert("grpc-status", http::HeaderValue::from_static("0"));
        complete(&mut fine);
        assert_eq!(fine.len(), 1);
    }

    #[test]
    fn who_only_left_is_told_from_what_went_wrong() {
        use std::io::{Error, ErrorKind};
        let status = |error: Error| Status::from_error(Box::new(error));
        let left = |error: &(dyn std::error::Error + 'static)| peer_left(error);
        // As rustls says it.
        let eof = || Error::new(ErrorKind::UnexpectedEof, "peer closed connection");
        assert!(left(&eof()) && left(&status(eof())));
        assert!(left(&broken_off()) && left(&Status::cancelled("")));
        assert!(left(&h2::Error::from(h2::Reason::CANCEL)));
        assert!(!left(&h2::Error::from(h2::Reason::PROTOCOL_ERROR)));
        assert!(!left(&Error::from(ErrorKind::ConnectionRefused)));
        assert!(!left(&Status::internal("a bug")) && !left(&Status::aborted("a conflict")));
    }

    #[test]
    fn a_request_that_breaks_off_is_cancelled_by_reason_and_not_by_code() {
        let status = broken_off();
        assert_eq!(status.code(), Code::Aborted);
        assert_eq!(from_status(&status).reason, Reason::Cancelled);
        assert_eq!(to_status(from_status(&status)).code(), Code::Cancelled);
    }

    #[test]
    fn a_bare_status_maps_by_its_code() {
        let fault = from_status(&Status::unavailable("tcp connect error"));
        assert_eq!(fault.reason, Reason::DependencyUnavailable);
        assert_eq!(fault.metadata.get("grpc_code").map(String::as_str), Some("Unavailable"));
    }
}
