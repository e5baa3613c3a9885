//! W3C trace context as text, for what crosses by other means than gRPC
//! headers: rows of a store, a tunnel's first message.

use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The current span as a `traceparent` value; `None` outside any span.
#[must_use]
pub fn current_traceparent() -> Option<String> {
    traceparent_of(&tracing::Span::current())
}

/// A span as a `traceparent` value; `None` when it is not traced.
#[must_use]
pub fn traceparent_of(span: &tracing::Span) -> Option<String> {
    let context = span.context();
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| {
        format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8())
    })
}

/// Makes `span` a child of `traceparent`. A value that does not parse is
/// ignored: it came from outside. Call it before the span is first entered.
pub fn set_parent(span: &tracing::Span, traceparent: &str) {
    let Some(parent) = parse(traceparent) else { return };
    // It fails only where spans are not traced at all, or the span has begun.
    let _ = span.set_parent(Context::new().with_remote_span_context(parent));
}

/// Reads a `traceparent`: version, trace id, span id, flags. Versions after 00
/// may carry more fields, which are ignored as the specification says.
fn parse(value: &str) -> Option<SpanContext> {
    let mut parts = value.trim().split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    if !hex(version, 2) || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    if !hex(trace, 32) || !hex(span, 16) || !hex(flags, 2) {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()? & 1),
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Telemetry, TelemetryConfig};

    #[test]
    fn damaged_values_are_refused() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(parse(good).is_some());
        assert!(parse(&good.replacen("00", "01", 1).replace("-01", "-01-more")).is_some());
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_trace_goes_on_through_text() {
        let telemetry = Telemetry::new("here", &TelemetryConfig::default()).unwrap();
        tracing::dispatcher::with_default(&telemetry.dispatch(), || {
            assert_eq!(current_traceparent(), None);
            let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
            let span = tracing::info_span!("work");
            set_parent(&span, parent);
            let own = span.in_scope(current_traceparent).unwrap();
            assert_eq!(own[..36], parent[..36], "same trace");
            assert_ne!(own, parent, "another span");
        });
    }
}
