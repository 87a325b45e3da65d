// SPDX-License-Identifier: MPL-2.0
//! Properties of `dedupsink`, and how errors and totals look on the bus.

use super::Verify;
use crate::client;
use crate::client::recorder::{Config, DEFAULT_FINISH_TIMEOUT, Stats};
use crate::elements::support::files;
use crate::protocol::{RecordingUrl, Window};
use gst::glib;
use gst::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

const DEFAULT_VERIFY: Verify = Verify::Deep;
const DEFAULT_SPOOL_MAX_BYTES: u64 = 1 << 30;
const DEFAULT_MAX_SIZE_BYTES: u64 = 32 << 20;
const DEFAULT_MAX_SIZE_TIME: u64 = 0;
const DEFAULT_SEGMENT_DURATION: u64 = 60_000_000_000;
const DEFAULT_COMMIT_ON_STOP: bool = true;
const DEFAULT_EOS_TIMEOUT: u64 = DEFAULT_FINISH_TIMEOUT.as_nanos() as u64;

#[derive(Clone, Debug)]
pub(super) struct Settings {
    uri: Option<String>,
    identity: Option<String>,
    verify: Verify,
    spool_dir: Option<PathBuf>,
    spool_max_bytes: u64,
    max_size_bytes: u64,
    max_size_time: u64,
    segment_duration: u64,
    eos_timeout: u64,
    commit_on_stop: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            uri: None,
            identity: None,
            verify: DEFAULT_VERIFY,
            spool_dir: None,
            spool_max_bytes: DEFAULT_SPOOL_MAX_BYTES,
            max_size_bytes: DEFAULT_MAX_SIZE_BYTES,
            max_size_time: DEFAULT_MAX_SIZE_TIME,
            segment_duration: DEFAULT_SEGMENT_DURATION,
            eos_timeout: DEFAULT_EOS_TIMEOUT,
            commit_on_stop: DEFAULT_COMMIT_ON_STOP,
        }
    }
}

impl Settings {
    /// The recorder's settings, checked.
    pub fn config(&self) -> Result<Config, gst::ErrorMessage> {
        let wrong = |e: String| gst::error_msg!(gst::LibraryError::Settings, ("Property uri: {e}"));
        let url: RecordingUrl = self
            .uri
            .as_deref()
            .ok_or_else(|| wrong("not set: expected camvault://HOST:PORT/NAME".into()))?
            .parse()
            .map_err(|e: crate::protocol::UrlError| wrong(e.to_string()))?;
        if url.window != Window::default() {
            return Err(wrong(
                "from and to are for playing: a recording is made as a whole".into(),
            ));
        }
        if let Some(dir) = &self.spool_dir {
            check_spool(dir)?;
        }
        Ok(Config {
            url,
            identity: files::identity(self.identity.as_deref())?,
            verify: self.verify.into(),
            spool_dir: self.spool_dir.clone(),
            spool_max_bytes: self.spool_max_bytes,
            max_size_bytes: self.max_size_bytes,
            max_size_time: self.max_size_time,
            segment_duration: self.segment_duration,
        })
    }

    /// How long the end of the stream waits for a vault that cannot be reached.
    pub fn eos_timeout(&self) -> Duration {
        Duration::from_nanos(self.eos_timeout)
    }

    /// Whether what is open is committed when the element stops before the end of the stream.
    pub fn commit_on_stop(&self) -> bool {
        self.commit_on_stop
    }

    /// Sets a property; `false` if there is none of that name. GObject has checked types and ranges.
    pub fn set(&mut self, name: &str, value: &glib::Value) -> bool {
        let text = || value.get::<Option<String>>().ok().flatten();
        let number = || value.get::<u64>().unwrap_or_default();
        match name {
            "uri" => self.uri = text(),
            "identity" => self.identity = text(),
            "verify" => self.verify = value.get().unwrap_or_default(),
            "spool-dir" => {
                self.spool_dir = text().filter(|dir| !dir.is_empty()).map(PathBuf::from);
            }
            "spool-max-bytes" => self.spool_max_bytes = number(),
            "max-size-bytes" => self.max_size_bytes = number(),
            "max-size-time" => self.max_size_time = number(),
            "segment-duration" => self.segment_duration = number(),
            "eos-timeout" => self.eos_timeout = number(),
            "commit-on-stop" => {
                self.commit_on_stop = value.get().unwrap_or(DEFAULT_COMMIT_ON_STOP);
            }
            _ => return false,
        }
        true
    }

    /// A property's value.
    pub fn get(&self, name: &str) -> Option<glib::Value> {
        Some(match name {
            "uri" => self.uri.to_value(),
            "identity" => self.identity.to_value(),
            "verify" => self.verify.to_value(),
            "spool-dir" => {
                let dir = self.spool_dir.as_ref();
                dir.map(|dir| dir.display().to_string()).to_value()
            }
            "spool-max-bytes" => self.spool_max_bytes.to_value(),
            "max-size-bytes" => self.max_size_bytes.to_value(),
            "max-size-time" => self.max_size_time.to_value(),
            "segment-duration" => self.segment_duration.to_value(),
            "eos-timeout" => self.eos_timeout.to_value(),
            "commit-on-stop" => self.commit_on_stop.to_value(),
            _ => return None,
        })
    }
}

fn check_spool(dir: &Path) -> Result<(), gst::ErrorMessage> {
    std::fs::create_dir_all(dir)
        .and_then(|()| tempfile::tempfile_in(dir))
        .map(drop)
        .map_err(|e| {
            gst::error_msg!(
                gst::ResourceError::OpenWrite,
                ("spool-dir {}: {e}", dir.display())
            )
        })
}

/// What the element can be told.
pub(super) fn properties() -> &'static [glib::ParamSpec] {
    static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
        vec![
                glib::ParamSpecString::builder("uri")
                    .nick("URI")
                    .blurb("Recording to write, camvault://HOST:PORT/NAME (camvaults over TLS); one that exists goes on")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder("identity")
                    .nick("Identity")
                    .blurb("Identity file of the owner (none = the one that CAMVAULT_IDENTITY names)")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecEnum::builder_with_default("verify", DEFAULT_VERIFY)
                    .nick("Verify")
                    .blurb("How copies that the vault has already are checked before they are relied on")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder("spool-dir")
                    .nick("Spool directory")
                    .blurb("Where chunks wait, encrypted, while the vault cannot be reached; of this recording alone (none = in memory only)")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt64::builder("spool-max-bytes")
                    .nick("Maximum spool bytes")
                    .blurb("Bytes that may wait in spool-dir")
                    .default_value(DEFAULT_SPOOL_MAX_BYTES)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt64::builder("max-size-bytes")
                    .nick("Maximum size in bytes")
                    .blurb("Bytes of chunks that may wait in memory")
                    .minimum(1)
                    .default_value(DEFAULT_MAX_SIZE_BYTES)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt64::builder("max-size-time")
                    .nick("Maximum size in time")
                    .blurb("Time of chunks that may wait in memory, in nanoseconds (0 = no limit)")
                    .default_value(DEFAULT_MAX_SIZE_TIME)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt64::builder("segment-duration")
                    .nick("Segment duration")
                    .blurb("Time after which what was recorded is committed, in nanoseconds; what is not committed yet is lost with the process")
                    .minimum(1)
                    .default_value(DEFAULT_SEGMENT_DURATION)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt64::builder("eos-timeout")
                    .nick("End-of-stream timeout")
                    .blurb("How long the end of the stream, without spool-dir, waits for a vault that cannot be reached before it becomes an error, and with spool-dir for one that answers but is busy, full or failing before the rest stays in the spool, in nanoseconds (0 = not at all)")
                    .default_value(DEFAULT_EOS_TIMEOUT)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecBoolean::builder("commit-on-stop")
                    .nick("Commit on stop")
                    .blurb("Whether what is not committed yet is committed when the element stops before the end of the stream (false = it is let go)")
                    .default_value(DEFAULT_COMMIT_ON_STOP)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb("Totals since READY: chunks, hits, misses, poisoned, bytes-in, bytes-sent, spool-bytes, dropped, segments, retries (by reason), last-error")
                    .read_only()
                    .build(),
            ]
    });
    &PROPERTIES
}

/// How a recorder's error is posted.
pub(super) fn error_message(e: &client::Error) -> gst::ErrorMessage {
    use client::Error::{Identity, Network, Refused, Spool, Untrusted, Url};
    match e {
        Network { .. } | Untrusted { .. } => {
            gst::error_msg!(gst::ResourceError::OpenReadWrite, ("{e}"))
        }
        Refused { .. } => gst::error_msg!(gst::ResourceError::NotAuthorized, ("{e}")),
        Spool { .. } => gst::error_msg!(gst::ResourceError::NoSpaceLeft, ("{e}")),
        Identity(_) | Url(_) => gst::error_msg!(gst::ResourceError::Settings, ("{e}")),
        _ => gst::error_msg!(gst::ResourceError::Write, ("{e}")),
    }
}

/// `stats`.
pub(super) fn structure(stats: &Stats) -> gst::Structure {
    let mut retries = gst::Structure::new_empty("retries");
    for (reason, count) in &stats.retries {
        retries.set(*reason, *count);
    }
    gst::Structure::builder("camvault-stats")
        .field("chunks", stats.chunks)
        .field("hits", stats.hits)
        .field("misses", stats.misses)
        .field("poisoned", stats.poisoned)
        .field("bytes-in", stats.bytes_in)
        .field("bytes-sent", stats.bytes_sent)
        .field("spool-bytes", stats.spool_bytes)
        .field("dropped", stats.dropped)
        .field("segments", stats.segments)
        .field("retries", retries)
        .field("last-error", stats.last_error.as_deref())
        .build()
}
