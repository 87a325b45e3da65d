// SPDX-License-Identifier: MPL-2.0
//! Requests in the log: one span for each, with the caller's trace if it names one.
//!
//! Method, route, status and time are in it. Never paths, queries, bodies, keys or tokens: a
//! recording's id, a tag or a capability would be in them.

use axum::http::{HeaderMap, StatusCode};
use std::time::Duration;
use tracing::Span;
use tracing::field::Empty;

/// Of spans and lines about requests.
pub const TARGET: &str = "camvault::request";
/// Name under which an answer tells its request's id.
pub const ID_HEADER: &str = "x-request-id";

/// What W3C Trace Context calls a parent.
struct Parent<'a> {
    trace: &'a str,
    span: &'a str,
    #[cfg_attr(not(feature = "otel"), allow(dead_code))]
    sampled: bool,
}

impl<'a> Parent<'a> {
    /// Reads `traceparent` of version 00; what has another form is as good as none.
    fn read(headers: &'a HeaderMap) -> Option<Self> {
        let text = headers.get("traceparent")?.to_str().ok()?;
        let mut parts = text.split('-');
        let mut part = |digits: usize| {
            let part = parts.next()?;
            let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
            (part.len() == digits && part.bytes().all(hex)).then_some(part)
        };
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        let some = |id: &str| id.bytes().any(|b| b != b'0');
        let good = version == "00" && some(trace) && some(span) && parts.next().is_none();
        let flags = u8::from_str_radix(flags, 16).ok()?;
        good.then_some(Self {
            trace,
            span,
            sampled: flags & 1 == 1,
        })
    }
}

/// The span of a request. `status` and `ms` are recorded when it is answered.
pub fn span(method: &'static str, route: &str, id: &str, headers: &HeaderMap) -> Span {
    let parent = Parent::read(headers);
    let span = tracing::info_span!(
        target: TARGET,
        "request",
        otel.name = Empty,
        otel.kind = Empty,
        method,
        route,
        id,
        trace = Empty,
        parent = Empty,
        status = Empty,
        ms = Empty,
    );
    if cfg!(feature = "otel") {
        span.record("otel.name", format_args!("{method} {route}"));
        span.record("otel.kind", "server");
    }
    if let Some(parent) = parent {
        span.record("trace", parent.trace);
        span.record("parent", parent.span);
        #[cfg(feature = "otel")]
        adopt(&span, &parent);
    }
    span
}

/// Puts the exported span below the caller's.
#[cfg(feature = "otel")]
fn adopt(span: &Span, parent: &Parent<'_>) {
    use opentelemetry::trace::{
        SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    };
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;
    let (Ok(trace), Ok(id)) = (
        TraceId::from_hex(parent.trace),
        SpanId::from_hex(parent.span),
    ) else {
        return;
    };
    let flags = TraceFlags::default().with_sampled(parent.sampled);
    let remote = SpanContext::new(trace, id, flags, true, TraceState::default());
    let context = opentelemetry::Context::new().with_remote_span_context(remote);
    // Without an exporter there is nothing to put it in.
    let _ = span.set_parent(context);
}

/// Notes what came of a request.
pub fn answered(span: &Span, status: StatusCode, took: Duration) {
    span.record("status", status.as_u16());
    span.record("ms", u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    // A busy server says so by numbers; lines would make it busier.
    let failed = status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE;
    span.in_scope(|| match failed {
        true => tracing::warn!(target: TARGET, "answered"),
        false => tracing::debug!(target: TARGET, "answered"),
    });
}

/// A new id for a request: for finding its lines, not secret.
pub fn new_id() -> String {
    let mut bytes = [0; 8];
    // An id of zeros harms nobody.
    let _ = getrandom::fill(&mut bytes);
    crate::store::hex(&bytes)
}

/// What stands for an owner in the log: tells owners apart, and does not say who they are.
pub fn short(key: &crate::store::Hash) -> String {
    crate::store::hex(&blake3::hash(key).as_bytes()[..4])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_read_as_the_standard_has_them() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", text.parse().unwrap());
            Parent::read(&headers).map(|p| (p.trace.to_owned(), p.span.to_owned(), p.sampled))
        };
        let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        let good = Some((trace.to_owned(), span.to_owned(), true));
        assert_eq!(read(&format!("00-{trace}-{span}-01")), good);
        assert!(!read(&format!("00-{trace}-{span}-02")).unwrap().2);
        for bad in [
            String::new(),
            "00".into(),
            format!("01-{trace}-{span}-01"),
            format!("00-{trace}-{span}"),
            format!("00-{trace}-{span}-01-00"),
            format!("00-{trace}-{span}-0g"),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
        ] {
            assert_eq!(read(&bad), None, "{bad}");
        }
    }
}
