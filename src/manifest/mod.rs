// SPDX-License-Identifier: MPL-2.0
//! What a recording consists of, as its owner reads it: segments, tracks, chunks and the times of
//! every access unit. All of it is sealed under the recording's key before it leaves the process.
//!
//! | sealed object | context (authenticated) | plaintext |
//! |---|---|---|
//! | manifest | `camvault manifest v1` ‖ id ‖ seq | zlib (RFC 1950) of the CBOR of [`Manifest`] |
//! | head | `camvault head v1` ‖ id ‖ seq | CBOR of [`Head`] |
//! | summary | `camvault summary v1` ‖ id | CBOR of [`Summary`] |
//!
//! `id` is the 16-byte recording id, `seq` 8 bytes big-endian.

mod units;

pub use units::{UnitInfo, Units};

use crate::identity::{AeadKey, RecordingId};
use crate::protocol::{B32, decode, encode};
use flate2::Compression;
use flate2::read::{ZlibDecoder, ZlibEncoder};
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use std::io::Read as _;

/// Bytes of a manifest before compression, at most.
pub const MAX_MANIFEST_BYTES: u64 = 64 << 20;
/// Envelopes up to this many bytes are kept in the manifest; larger ones are chunks of their own.
pub const MAX_INLINE_ENVELOPE: usize = 1024;

/// One segment of a recording.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Manifest {
    /// The run of the recorder that this segment belongs to; timestamps are comparable within it.
    #[n(0)]
    pub session: ByteArray<8>,
    /// Running time of the session's first access unit, ns.
    #[n(1)]
    pub origin_running: u64,
    /// Time in the recording of the session's first access unit, ns:
    /// recording time = running time - `origin_running` + `origin`.
    #[n(2)]
    pub origin: u64,
    /// The tracks that have anything in this segment.
    #[n(3)]
    pub tracks: Vec<Track>,
}

/// One track's part of a segment.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Track {
    /// Number of the track in the recording, the same in all its segments.
    #[n(0)]
    pub id: u32,
    /// How the content stream is framed.
    #[n(1)]
    pub framing: Framing,
    /// Caps, in GStreamer's text form, from a unit of this segment on (the first from unit 0).
    #[n(2)]
    pub caps: Vec<(u32, String)>,
    /// GStreamer time segments, from a unit on (the first from unit 0).
    #[n(3)]
    pub times: Vec<(u32, TimeSegment)>,
    /// The chunks, in order.
    #[n(4)]
    pub chunks: Vec<Chunk>,
    /// The access units, in order.
    #[n(5)]
    pub units: Units,
    /// Absolute time: running time and Unix time, ns each; between two points time goes on evenly.
    #[n(6)]
    pub clock: Vec<(u64, i64)>,
    /// Tags (language, bitrate…), in GStreamer's text form.
    #[n(7)]
    pub tags: Option<String>,
}

/// How a track's content stream is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Framing {
    /// A record per access unit, rebuilt with the envelope.
    #[n(0)]
    Records,
    /// The bytes themselves.
    #[n(1)]
    Bytes,
}

/// A GStreamer segment in time format with rate 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TimeSegment {
    /// Start, ns.
    #[n(0)]
    pub start: u64,
    /// Stop, ns.
    #[n(1)]
    pub stop: Option<u64>,
    /// Stream time of `start`, ns.
    #[n(2)]
    pub time: u64,
    /// Running time of `start`, ns.
    #[n(3)]
    pub base: u64,
}

/// A stored piece of a track's content stream.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Chunk {
    /// The content.
    #[n(0)]
    pub content: Stored,
    /// Access units that begin in this chunk.
    #[n(1)]
    pub units: u32,
    /// What surrounds the content.
    #[n(2)]
    pub envelope: Envelope,
    /// Playback can begin here.
    #[n(3)]
    pub gop_start: bool,
    /// Packets were lost somewhere in this group of pictures.
    #[n(4)]
    pub suspect: bool,
}

/// Key and name of stored bytes. The tag is `t = SHA-256(K)`.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Stored {
    /// `K`.
    #[n(0)]
    pub key: B32,
    /// `d1` of the variant.
    #[n(1)]
    pub d1: B32,
    /// Bytes.
    #[n(2)]
    pub len: u32,
    /// Whether `K` was made under a domain secret.
    #[n(3)]
    pub in_domain: bool,
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stored({} bytes)", self.len)
    }
}

/// The envelope of a chunk.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Envelope {
    /// In the manifest; empty with [`Framing::Bytes`].
    #[n(0)]
    Inline(#[n(0)] ByteVec),
    /// A chunk of its own.
    #[n(1)]
    Stored(#[n(0)] Stored),
}

/// What a segment holds, in few bytes, so that a recording of days can be searched.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Head {
    /// Start in recording time, ns.
    #[n(0)]
    pub start: u64,
    /// End of the last access unit, ns after `start`.
    #[n(1)]
    pub duration: u64,
    /// Unix time of the start, ns.
    #[n(2)]
    pub start_utc: i64,
    /// Bytes of all chunks.
    #[n(3)]
    pub bytes: u64,
    /// Number of chunks.
    #[n(4)]
    pub chunks: u32,
    /// The session, see [`Manifest`].
    #[n(5)]
    pub session: ByteArray<8>,
    /// SHA-256 of the sealed manifest.
    #[n(6)]
    pub manifest: B32,
    /// [`Head::manifest`] of the segment before; zeros in the first. A missing or exchanged
    /// segment shows.
    #[n(7)]
    pub previous: B32,
    /// Chunks with loss.
    #[n(8)]
    pub suspect: u32,
}

/// A recording as a list shows it.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Summary {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Unix time of the first access unit, ns.
    #[n(1)]
    pub start_utc: i64,
    /// Length of the whole, ns.
    #[n(2)]
    pub duration: u64,
    /// Bytes of all chunks.
    #[n(3)]
    pub bytes: u64,
    /// Caps of each track as it began, by track number; empty if nothing was recorded under it.
    #[n(4)]
    pub tracks: Vec<String>,
    /// Whether a recorder closed it; one that is open may still grow.
    #[n(5)]
    pub closed: bool,
}

impl Summary {
    /// Number and caps of each track of which something was recorded.
    pub fn recorded(&self) -> impl Iterator<Item = (u32, &str)> {
        let tracks = (0..).zip(self.tracks.iter().map(String::as_str));
        tracks.filter(|(_, caps)| !caps.is_empty())
    }
}

/// Why a sealed object could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Changed, cut, or not where it belongs.
    #[error("sealed {0}: {1}")]
    Sealed(&'static str, #[source] crate::identity::OpenError),
    /// Opened, but not understood.
    #[error("{0} cannot be read: {1}: it was written by a newer version, or by a faulty one")]
    Content(&'static str, String),
}

/// Seals and opens the objects of one recording.
#[derive(Clone, Debug)]
pub struct Sealer {
    /// The recording.
    pub id: RecordingId,
    /// Its key.
    pub key: AeadKey,
}

impl Sealer {
    fn context(&self, what: &str, seq: Option<u64>) -> Vec<u8> {
        let mut context = format!("camvault {what} v1").into_bytes();
        context.extend_from_slice(&self.id);
        context.extend(seq.into_iter().flat_map(u64::to_be_bytes));
        context
    }

    fn seal(&self, what: &'static str, seq: Option<u64>, clear: &[u8]) -> Result<Vec<u8>, Error> {
        self.key
            .seal(&self.context(what, seq), clear)
            .map_err(|e| Error::Sealed(what, e))
    }

    fn open(
        &self,
        what: &'static str,
        seq: Option<u64>,
        sealed: &[u8],
    ) -> Result<zeroize::Zeroizing<Vec<u8>>, Error> {
        self.key
            .open(&self.context(what, seq), sealed)
            .map_err(|e| Error::Sealed(what, e))
    }

    /// Seals a segment's manifest.
    pub fn seal_manifest(&self, seq: u64, manifest: &Manifest) -> Result<Vec<u8>, Error> {
        let clear = zeroize::Zeroizing::new(encode(manifest));
        let mut packed = zeroize::Zeroizing::new(Vec::new());
        ZlibEncoder::new(clear.as_slice(), Compression::fast())
            .read_to_end(&mut packed)
            .map_err(|e| Error::Content("manifest", e.to_string()))?;
        self.seal("manifest", Some(seq), &packed)
    }

    /// Opens a segment's manifest.
    pub fn open_manifest(&self, seq: u64, sealed: &[u8]) -> Result<Manifest, Error> {
        let packed = self.open("manifest", Some(seq), sealed)?;
        let wrong = |e: String| Error::Content("manifest", e);
        let mut clear = zeroize::Zeroizing::new(Vec::new());
        ZlibDecoder::new(packed.as_slice())
            .take(MAX_MANIFEST_BYTES)
            .read_to_end(&mut clear)
            .map_err(|e| wrong(e.to_string()))?;
        decode(&clear).map_err(|e| wrong(e.to_string()))
    }

    /// Seals a segment's head.
    pub fn seal_head(&self, seq: u64, head: &Head) -> Result<Vec<u8>, Error> {
        self.seal("head", Some(seq), &encode(head))
    }

    /// Opens a segment's head.
    pub fn open_head(&self, seq: u64, sealed: &[u8]) -> Result<Head, Error> {
        let clear = self.open("head", Some(seq), sealed)?;
        decode(&clear).map_err(|e| Error::Content("head", e.to_string()))
    }

    /// Seals a recording's summary.
    pub fn seal_summary(&self, summary: &Summary) -> Result<Vec<u8>, Error> {
        self.seal("summary", None, &encode(summary))
    }

    /// Opens a recording's summary.
    pub fn open_summary(&self, sealed: &[u8]) -> Result<Summary, Error> {
        let clear = self.open("summary", None, sealed)?;
        decode(&clear).map_err(|e| Error::Content("summary", e.to_string()))
    }
}

#[cfg(test)]
mod tests;
