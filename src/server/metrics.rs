// SPDX-License-Identifier: MPL-2.0
//! Numbers for Prometheus.

use crate::protocol::Stats;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::time::Duration;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    method: &'static str,
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Route {
    route: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

/// What is counted while the server runs.
pub struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    seconds: Family<Route, Histogram>,
    stats: Family<Kind, Gauge>,
    /// Blob bytes that arrived and were stored.
    pub bytes_in: Counter,
    /// Blob bytes handed out.
    pub bytes_out: Counter,
    /// Blobs deleted because nobody owns them any more.
    pub collected: Counter,
    /// Requests being worked on.
    pub in_flight: Gauge,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics(..)")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("camvault");
        let requests = Family::default();
        let buckets = || Histogram::new(exponential_buckets(0.0005, 4.0, 9));
        let seconds = Family::<Route, Histogram>::new_with_constructor(buckets);
        let stats = Family::default();
        let bytes_in = Counter::default();
        let bytes_out = Counter::default();
        let collected = Counter::default();
        let in_flight = Gauge::default();
        registry.register("requests", "Requests answered", requests.clone());
        registry.register(
            "request_seconds",
            "Time until the answer began",
            seconds.clone(),
        );
        registry.register(
            "stored",
            "Totals of what is stored, as in /v1/stats",
            stats.clone(),
        );
        registry.register("blob_bytes_in", "Blob bytes stored", bytes_in.clone());
        registry.register("blob_bytes_out", "Blob bytes handed out", bytes_out.clone());
        registry.register(
            "blobs_collected",
            "Blobs without owners deleted",
            collected.clone(),
        );
        registry.register("requests_in_flight", "Requests in work", in_flight.clone());
        Self {
            registry,
            requests,
            seconds,
            stats,
            bytes_in,
            bytes_out,
            collected,
            in_flight,
        }
    }
}

/// The route of a path, with its variable parts taken out.
fn route(path: &str) -> &'static str {
    let mut parts = path.split('/').skip(1);
    let mut next = || parts.next().unwrap_or_default();
    match (next(), next(), next(), next(), next()) {
        ("healthz", "", ..) => "/healthz",
        ("metrics", "", ..) => "/metrics",
        ("v1", "vault", "", ..) => "/v1/vault",
        ("v1", "enroll", "", ..) => "/v1/enroll",
        ("v1", "me", "", ..) => "/v1/me",
        ("v1", "lookup", "", ..) => "/v1/lookup",
        ("v1", "register", "", ..) => "/v1/register",
        ("v1", "open", "", ..) => "/v1/open",
        ("v1", "stats", "", ..) => "/v1/stats",
        ("v1", "scrub", "", ..) => "/v1/scrub",
        ("v1", "jobs", "", ..) => "/v1/jobs",
        ("v1", "retention", "", ..) => "/v1/retention",
        ("v1", "blobs", "", ..) => "/v1/blobs",
        ("v1", "blobs", "get", ..) => "/v1/blobs/get",
        ("v1", "internal", ..) => "/v1/internal",
        ("v1", "recordings", "", ..) => "/v1/recordings",
        ("v1", "recordings", _, "", _) => "/v1/recordings/{id}",
        ("v1", "recordings", _, "hold", "") => "/v1/recordings/{id}/hold",
        ("v1", "recordings", _, "segments", _) => "/v1/recordings/{id}/segments/{seq}",
        ("v1", "recordings", _, "shares", _) => "/v1/recordings/{id}/shares/{key}",
        ("v1", "ttp", "", ..) => "/v1/ttp",
        ("v1", "ttp", "party", "", _) => "/v1/ttp/party",
        ("v1", "ttp", "keys", ..) => "/v1/ttp/keys/{key}",
        ("v1", "ttp", "contracts", "", _) => "/v1/ttp/contracts",
        ("v1", "ttp", "contracts", ..) => "/v1/ttp/contracts/{id}",
        ("v1", "ttp", "tickets", "", _) => "/v1/ttp/tickets",
        ("v1", "ttp", "features", "", _) => "/v1/ttp/features",
        ("v1", "ttp", "retrievals", "", _) => "/v1/ttp/retrievals",
        ("v1", "ttp", "deletions", "", _) => "/v1/ttp/deletions",
        ("v1", "ttp", "arbitrations", "", _) => "/v1/ttp/arbitrations",
        _ => "other",
    }
}

fn method(name: &str) -> &'static str {
    ["GET", "PUT", "POST", "DELETE", "HEAD"]
        .into_iter()
        .find(|m| *m == name)
        .unwrap_or("other")
}

impl Metrics {
    /// Counts an answer.
    pub fn answered(&self, name: &str, path: &str, status: u16, took: Duration) {
        let route = route(path);
        let labels = Answered {
            method: method(name),
            route,
            status,
        };
        self.requests.get_or_create(&labels).inc();
        let histogram = self.seconds.get_or_create(&Route { route });
        histogram.observe(took.as_secs_f64());
    }

    /// Everything as text.
    pub fn text(&self, stats: Option<&Stats>) -> Result<String, std::fmt::Error> {
        let set = |kind, value: u64| {
            let gauge = self.stats.get_or_create(&Kind { kind });
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        if let Some(s) = stats {
            set("bytes_logical", s.bytes_logical);
            set("bytes_stored", s.bytes_stored);
            set("bytes_manifests", s.bytes_manifests);
            set("chunks", s.chunks);
            set("variants", s.variants);
            set("blobs", s.blobs);
            set("recordings", s.recordings);
            set("segments", s.segments);
            set("owners", s.owners);
        }
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}
