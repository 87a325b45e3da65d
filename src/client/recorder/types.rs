// SPDX-License-Identifier: MPL-2.0
//! Types of the recorder: what goes in, what it reports.

use crate::identity::Identity;
use crate::manifest::{Framing, TimeSegment, UnitInfo};
use crate::protocol::RecordingUrl;
use crate::rce::ChunkId;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// How a stored copy is checked before it is relied on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// `C3` and, by encrypting again, the blob's name `d1`: a garbage blob is found.
    #[default]
    Deep,
    /// `C3` alone, as in [KL19].
    Tag,
}

/// A recorder's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to.
    pub url: RecordingUrl,
    /// Whose.
    pub identity: Arc<Identity>,
    /// How duplicates are checked.
    pub verify: Verify,
    /// Where chunks wait, encrypted, while the vault cannot be reached.
    pub spool_dir: Option<PathBuf>,
    /// Bytes that the spool may hold.
    pub spool_max_bytes: u64,
    /// Bytes of chunks that may wait in memory.
    pub max_size_bytes: u64,
    /// Time of chunks that may wait in memory, ns; 0: no bound.
    pub max_size_time: u64,
    /// Length of a segment, ns.
    pub segment_duration: u64,
}

/// One chunk of a track, as `rcededuppay` cut it.
#[derive(Clone)]
pub struct StreamChunk {
    /// Number of the track.
    pub track: u32,
    /// Key, tag and hash state of `content`.
    pub id: ChunkId,
    /// Whether `id` was made under a domain secret.
    pub in_domain: bool,
    /// Piece of the content stream, in the clear.
    pub content: Vec<u8>,
    /// Its envelope.
    pub envelope: Vec<u8>,
    /// Key, tag and hash state of `envelope`, if it is too large for the manifest.
    pub envelope_id: Option<ChunkId>,
    /// How `content` is framed.
    pub framing: Framing,
    /// Access units that begin here.
    pub units: Vec<UnitInfo>,
    /// Playback can begin here.
    pub gop_start: bool,
    /// Packets were lost in this group of pictures.
    pub suspect: bool,
    /// … in the group before, which was sent on unmarked.
    pub prev_suspect: bool,
    /// Caps from this chunk's first unit on, if they changed (always with a track's first chunk).
    pub caps: Option<String>,
    /// Time segment from this chunk's first unit on, if it changed (likewise).
    pub time: Option<TimeSegment>,
    /// Tags, if there are new ones.
    pub tags: Option<String>,
    /// Running time of the first and the end of the last unit, ns, as far as known.
    pub running: Option<(u64, u64)>,
    /// A running time and its Unix time, ns, if known.
    pub clock: Option<(u64, i64)>,
}

/// What a recorder tells while it works.
#[derive(Debug)]
pub enum Event {
    /// A segment is durable.
    Segment(SegmentReport),
    /// Chunks were dropped because neither memory nor spool had room; the first of a series, and
    /// at most one in ten seconds after it.
    Dropped {
        /// Chunks dropped since the recorder began.
        chunks: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// The vault cannot be reached, or has refused for some seconds because it is busy: why. Once,
    /// until [`Event::Online`].
    Offline(String),
    /// Everything that has failed works again.
    Online,
    /// Something is wrong that the recorder gets over: a damaged spool file, no room for the
    /// spool, a segment that the vault has lost.
    Warning(String),
    /// The recorder cannot go on: identity not enrolled, quota used up, spool unusable…
    Failed(super::Error),
}

/// A committed segment.
#[derive(Clone, Debug)]
pub struct SegmentReport {
    /// Number of the segment.
    pub seq: u64,
    /// Running time of its start, ns.
    pub running_time: u64,
    /// Unix time of its start, ns.
    pub utc: i64,
    /// Duration, ns.
    pub duration: u64,
    /// Chunks.
    pub chunks: u64,
    /// Bytes of chunks that this recorder stored first.
    pub new_bytes: u64,
    /// Bytes of chunks that were there already.
    pub duplicate_bytes: u64,
}

/// Totals since the recorder began.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Chunks taken in.
    pub chunks: u64,
    /// Chunks that were there already.
    pub hits: u64,
    /// Chunks stored first by this recorder.
    pub misses: u64,
    /// Copies found that failed the check.
    pub poisoned: u64,
    /// Bytes of chunks taken in.
    pub bytes_in: u64,
    /// Bytes of blobs sent.
    pub bytes_sent: u64,
    /// Bytes in the spool now.
    pub spool_bytes: u64,
    /// Chunks dropped.
    pub dropped: u64,
    /// Segments committed.
    pub segments: u64,
    /// Retries by reason.
    pub retries: BTreeMap<&'static str, u64>,
    /// The last error, in words.
    pub last_error: Option<String>,
}
