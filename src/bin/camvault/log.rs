// SPDX-License-Identifier: MPL-2.0
//! The server's log on standard error, and its spans to a collector.

use crate::common::Failure;
use std::io::IsTerminal as _;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

/// How lines look.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// An object a line.
    Json,
}

/// What is logged, and how.
#[derive(clap::Args)]
pub struct LogArgs {
    /// What is logged: a level, or levels by target as in RUST_LOG, which counts where this is
    /// missing; camvault::request=debug has a line for every request [default: info].
    #[arg(long, value_name = "FILTER", env = "CAMVAULT_LOG")]
    log: Option<String>,
    /// How lines look.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: Format,
    /// Collector that spans go to, over OTLP/HTTP: http://HOST:4318.
    #[cfg(feature = "otel")]
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
}

/// The log, until [`Log::end`].
pub struct Log {
    #[cfg(feature = "otel")]
    spans: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

impl Log {
    /// Sends what has not been sent.
    pub fn end(self) {
        #[cfg(feature = "otel")]
        if let Some(Err(error)) = self.spans.map(|spans| spans.shutdown()) {
            tracing::warn!(%error, "the last spans");
        }
    }
}

/// Starts to log.
pub fn start(args: &LogArgs) -> Result<Log, Failure> {
    let filter = args.log.clone();
    let filter = filter.or_else(|| std::env::var(EnvFilter::DEFAULT_ENV).ok());
    let filter = filter.unwrap_or_else(|| "info".into());
    let filter: EnvFilter = filter
        .parse()
        .map_err(|e| Failure::usage(format!("what to log, {filter:?}: {e}")))?;
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match args.log_format {
        Format::Json => lines
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .boxed(),
        Format::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    let log = tracing_subscriber::registry().with(lines.with_filter(filter));
    #[cfg(feature = "otel")]
    let (log, spans) = {
        let spans = args.otlp.as_deref().map(otlp::provider).transpose()?;
        (log.with(spans.as_ref().map(otlp::layer)), spans)
    };
    // Only a second log in one process fails.
    log.try_init().map_err(|e| Failure::new(e.to_string()))?;
    Ok(Log {
        #[cfg(feature = "otel")]
        spans,
    })
}

#[cfg(feature = "otel")]
mod otlp {
    use super::*;
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing::Subscriber;
    use tracing_subscriber::filter::{LevelFilter, Targets};
    use tracing_subscriber::registry::LookupSpan;

    /// What sends spans to a collector, from a thread of its own.
    pub fn provider(url: &str) -> Result<SdkTracerProvider, Failure> {
        // The exporter's client takes the installed one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let wrong = |e: &dyn std::fmt::Display| Failure::usage(format!("--otlp {url}: {e}"));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/traces", url.trim_end_matches('/')))
            .build()
            .map_err(|e| wrong(&e))?;
        let resource = Resource::builder().with_service_name("camvault").build();
        Ok(SdkTracerProvider::builder()
            .with_resource(resource)
            .with_batch_exporter(exporter)
            .build())
    }

    /// Requests, and below them what the engines did. Not lines: those are for the log.
    pub fn layer<S>(provider: &SdkTracerProvider) -> impl tracing_subscriber::Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let wanted = Targets::new()
            .with_target("camvault::request", LevelFilter::INFO)
            .with_target("camvault::engine", LevelFilter::DEBUG);
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("camvault"))
            .with_location(false)
            .with_threads(false)
            .with_filter(wanted)
    }
}
