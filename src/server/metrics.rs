// SPDX-License-Identifier: MPL-2.0
//! Numbers for Prometheus.

use super::gateway::Activity;
use super::health::Finding;
use super::measured::Engine;
use super::upkeep::JOBS;
use crate::protocol::{Job, Stats};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Part {
    role: &'static str,
    engine: &'static str,
}

/// What is counted while the server runs.
pub struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    seconds: Family<Route, Histogram>,
    stored: Family<Kind, Gauge>,
    ready: Family<Part, Gauge>,
    in_use: Family<Kind, Gauge>,
    scrub_found: Family<Kind, Gauge>,
    scrub_finished: Gauge,
    resident: Gauge,
    open_files: Gauge,
    gateway: GatewayNumbers,
    /// Blob bytes that arrived and were stored.
    pub bytes_in: Counter,
    /// Blob bytes handed out.
    pub bytes_out: Counter,
    /// Blobs deleted because nobody owns them any more.
    pub collected: Counter,
    jobs_failed: Family<Kind, Counter>,
    /// Requests being worked on.
    pub in_flight: Gauge,
    /// Connections that are open.
    pub connections: Gauge,
    /// Operations of the metadata engine.
    pub metadata: Engine,
    /// Operations of the blobs' engine.
    pub blobs: Engine,
    /// Operations of the third party's registry.
    pub ttp: Engine,
    /// Tickets issued by the third party.
    pub tickets: Counter,
    /// Contracts that it signed.
    pub contracts: Counter,
    /// Contracts deleted.
    pub deletions: Counter,
    /// Requests for masks that it answered.
    pub retrievals: Counter,
    arbitrations: Family<Kind, Counter>,
}

/// What a scrub finds.
const SCRUB: [&str; 5] = [
    "missing",
    "damaged",
    "orphans_removed",
    "leftovers_removed",
    "counts_mended",
];

/// A gateway's numbers. It counts them itself: the counters here take them over.
#[derive(Default)]
struct GatewayNumbers {
    open: Gauge,
    streams: Counter,
    failed: Counter,
    frames: Counter,
    bytes: Counter,
    archives: Counter,
    playing: Gauge,
    retrievals: Counter,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics(..)")
    }
}

/// Upper bounds of buckets, in seconds: 0.5 ms to 33 s.
pub fn buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 4.0, 9))
}

fn gauge(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

/// The limits that a server keeps, and how much of them is taken.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Of what.
    pub kind: &'static str,
    /// Taken.
    pub in_use: usize,
    /// At most.
    pub limit: usize,
}

/// What a gauge counts as long as it lives.
pub struct Counted(Gauge);

impl Counted {
    /// One more.
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Of a server with these limits; `gateway`: it has that role.
    pub fn new(limits: &[Limit], gateway: bool) -> Self {
        let mut registry = Registry::default();
        let started = Gauge::default();
        started.set(gauge(super::app::now_s()));
        let (resident, open_files, most_files) =
            (Gauge::default(), Gauge::default(), Gauge::default());
        most_files.set(gauge(process::most_files()));
        for (name, help, metric) in [
            (
                "process_start_time_seconds",
                "Start of the process, Unix seconds",
                &started,
            ),
            (
                "process_resident_memory_bytes",
                "Memory of the process",
                &resident,
            ),
            (
                "process_open_fds",
                "Open files and connections",
                &open_files,
            ),
            ("process_max_fds", "At most so many of them", &most_files),
        ] {
            registry.register(name, help, metric.clone());
        }
        let own = registry.sub_registry_with_prefix("camvault");
        own.register(
            "build",
            "This program",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let seconds = Family::<Route, Histogram>::new_with_constructor(buckets);
        own.register(
            "request_seconds",
            "Time until the answer began",
            seconds.clone(),
        );
        let requests = Family::default();
        own.register("requests", "Requests answered", requests.clone());
        let ready = Family::default();
        own.register(
            "ready",
            "1 if the engine of a role does its work",
            ready.clone(),
        );
        let [stored, in_use, limit, scrub_found] = [
            ("stored", "Totals of what is stored, as in /v1/stats"),
            ("in_use", "What is taken of camvault_limit"),
            ("limit", "What this server does at most at once"),
            ("scrub_found", "What the last scrub found"),
        ]
        .map(|(name, help)| {
            let family = Family::<Kind, Gauge>::default();
            own.register(name, help, family.clone());
            family
        });
        for each in limits {
            let kind = Kind { kind: each.kind };
            limit.get_or_create(&kind).set(gauge(each.limit));
        }
        let [in_flight, scrub_finished] = [
            ("requests_in_flight", "Requests in work"),
            (
                "scrub_finished_time_seconds",
                "When the last scrub of this process ended, Unix seconds; 0: none did",
            ),
        ]
        .map(|(name, help)| {
            let gauge = Gauge::default();
            own.register(name, help, gauge.clone());
            gauge
        });
        let [
            bytes_in,
            bytes_out,
            collected,
            tickets,
            contracts,
            deletions,
            retrievals,
        ] = [
            ("blob_bytes_in", "Blob bytes stored"),
            ("blob_bytes_out", "Blob bytes handed out"),
            ("blobs_collected", "Blobs without owners deleted"),
            ("ttp_tickets", "Tickets issued by the third party"),
            ("ttp_contracts", "Contracts signed by the third party"),
            ("ttp_deletions", "Contracts deleted by the third party"),
            (
                "ttp_retrievals",
                "Requests for masks answered by the third party",
            ),
        ]
        .map(|(name, help)| counter(own, name, help));
        let arbitrations = Family::<Kind, Counter>::default();
        own.register(
            "ttp_arbitrations",
            "Arbitrations, by what came of them",
            arbitrations.clone(),
        );
        let jobs_failed = Family::<Kind, Counter>::default();
        own.register(
            "jobs_failed",
            "Steps of jobs that failed on this server",
            jobs_failed.clone(),
        );
        // There from the start, so that rates and alerts see the first one.
        for kind in JOBS {
            jobs_failed.get_or_create(&Kind { kind }).inc_by(0);
        }
        for kind in ["named", "nobody"] {
            arbitrations.get_or_create(&Kind { kind }).inc_by(0);
        }
        for kind in SCRUB {
            scrub_found.get_or_create(&Kind { kind }).set(0);
        }
        let engine = |own: &mut Registry, name, help: &str| Engine::register(own, name, help);
        Self {
            metadata: engine(own, "metadata", "the metadata engine"),
            blobs: engine(own, "blobs", "the blobs' engine"),
            ttp: engine(own, "registry", "the third party's registry"),
            gateway: match gateway {
                true => GatewayNumbers::register(own),
                false => GatewayNumbers::default(),
            },
            registry,
            requests,
            seconds,
            stored,
            ready,
            in_use,
            scrub_found,
            scrub_finished,
            resident,
            open_files,
            bytes_in,
            bytes_out,
            collected,
            jobs_failed,
            in_flight,
            connections: Gauge::default(),
            tickets,
            contracts,
            deletions,
            retrievals,
            arbitrations,
        }
    }

    /// Counts an answer.
    pub fn answered(&self, method: &'static str, route: &str, status: u16, took: Duration) {
        let route = route.to_owned();
        let histogram = self.seconds.get_or_create_owned(&Route {
            route: route.clone(),
        });
        histogram.observe(took.as_secs_f64());
        let labels = Answered {
            method,
            route,
            status,
        };
        self.requests.get_or_create(&labels).inc();
    }

    /// Counts an arbitration: whether it named anybody.
    pub fn arbitrated(&self, named: bool) {
        let kind = if named { "named" } else { "nobody" };
        self.arbitrations.get_or_create(&Kind { kind }).inc();
    }

    /// Counts a job's step that failed.
    pub fn job_failed(&self, kind: &'static str) {
        self.jobs_failed.get_or_create(&Kind { kind }).inc();
    }

    /// Notes what the last scrub found, whichever server did it.
    pub fn scrubbed(&self, job: &Job) {
        let (Some(report), Some(finished_ms)) = (&job.report, job.finished_ms) else {
            return;
        };
        let found = [
            report.missing.len() as u64,
            report.damaged.len() as u64,
            report.orphans_removed,
            report.leftovers_removed,
            report.counts_mended,
        ];
        for (kind, value) in SCRUB.into_iter().zip(found) {
            let found = self.scrub_found.get_or_create(&Kind { kind });
            found.set(gauge(value));
        }
        self.scrub_finished.set(gauge(finished_ms / 1000));
    }

    /// Notes how the engines are.
    pub fn found(&self, findings: &[Finding]) {
        for finding in findings {
            let part = Part {
                role: finding.role,
                engine: finding.engine,
            };
            let ready = i64::from(finding.trouble.is_none());
            self.ready.get_or_create(&part).set(ready);
        }
    }

    /// Everything as text.
    pub fn text(
        &self,
        stats: Option<&Stats>,
        limits: &[Limit],
        activity: Option<Activity>,
    ) -> Result<String, std::fmt::Error> {
        if let Some(s) = stats {
            for (kind, value) in [
                ("bytes_logical", s.bytes_logical),
                ("bytes_stored", s.bytes_stored),
                ("bytes_manifests", s.bytes_manifests),
                ("chunks", s.chunks),
                ("variants", s.variants),
                ("blobs", s.blobs),
                ("recordings", s.recordings),
                ("segments", s.segments),
                ("owners", s.owners),
            ] {
                self.stored.get_or_create(&Kind { kind }).set(gauge(value));
            }
        }
        for limit in limits {
            let kind = Kind { kind: limit.kind };
            self.in_use.get_or_create(&kind).set(gauge(limit.in_use));
        }
        if let Some(activity) = activity {
            self.gateway.set(&activity);
        }
        self.resident.set(gauge(process::resident_bytes()));
        self.open_files.set(gauge(process::open_files()));
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

impl GatewayNumbers {
    fn register(registry: &mut Registry) -> Self {
        let numbers = Self::default();
        for (name, help, gauge) in [
            (
                "gateway_streams_open",
                "Sealed streams that come in",
                &numbers.open,
            ),
            (
                "gateway_archives_playing",
                "Archives that are played for their owners",
                &numbers.playing,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        for (name, help, counter) in [
            (
                "gateway_streams",
                "Sealed streams that have ended",
                &numbers.streams,
            ),
            (
                "gateway_streams_failed",
                "Sealed streams that ended with an error",
                &numbers.failed,
            ),
            ("gateway_frames", "Frames opened", &numbers.frames),
            (
                "gateway_bytes",
                "Bytes of sealed streams taken",
                &numbers.bytes,
            ),
            ("gateway_archives", "Archives begun", &numbers.archives),
            (
                "gateway_retrievals",
                "Requests for frames without their mark",
                &numbers.retrievals,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        numbers
    }

    fn set(&self, activity: &Activity) {
        self.open.set(gauge(activity.streams_open));
        self.playing.set(gauge(activity.archives_playing));
        for (counter, value) in [
            (&self.streams, activity.streams_ended),
            (&self.failed, activity.streams_failed),
            (&self.frames, activity.frames),
            (&self.bytes, activity.bytes),
            (&self.archives, activity.archives),
            (&self.retrievals, activity.retrievals),
        ] {
            counter.inner().store(value, Ordering::Relaxed);
        }
    }
}

/// What the kernel says of this process; 0 where it says nothing.
mod process {
    pub fn resident_bytes() -> u64 {
        let pages = std::fs::read_to_string("/proc/self/statm").ok();
        let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
        pages.unwrap_or(0) * rustix::param::page_size() as u64
    }

    pub fn open_files() -> usize {
        // One of them is the listing itself.
        std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count().saturating_sub(1))
    }

    pub fn most_files() -> u64 {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        limit.current.unwrap_or(u64::MAX)
    }
}
