// SPDX-License-Identifier: MPL-2.0
//! Access units into content, which every recorder of a camera has alike, and envelope, which
//! is all the rest; content into pieces that are the same for every recorder.
//!
//! Slices of one stream are bit-identical over every transport, muxer and session. Start codes,
//! delimiters, parameter sets and SEI are not. [`split`] takes an access unit apart, [`Joiner`]
//! puts it together **bit for bit**, whatever the bytes were. [`Chunker`] decides where pieces
//! end by their content alone (and keyframes), so that two recorders that joined at different
//! times cut alike from the next keyframe on, and after a loss again from a near cut on.
//!
//! This module knows neither GStreamer nor I/O, and no keys.

mod cut;
mod envelope;
mod jpeg;
mod nal;
mod pieces;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

pub use envelope::{EnvelopeWriter, Joiner};
pub use pieces::{Chunker, Dropped, DroppedCount};

use envelope::Item;

/// Longest access unit, in bytes (256 MiB: a raw 8K picture in 16-bit 4:4:4 has 199 MB).
pub const MAX_AU_BYTES: usize = 256 << 20;

/// How the NAL units of an access unit are separated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// Start codes of 3 or 4 bytes (`stream-format=byte-stream`).
    AnnexB,
    /// A big-endian length of 1 to 4 bytes before each (`stream-format=avc`, `hvc1` and others;
    /// the size is in the `codec_data`). With any other size nothing is taken apart.
    LengthPrefixed(u8),
}

/// What the access units of a track are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// H.264; content is the slices.
    H264(Framing),
    /// H.265; content is the slice segments.
    H265(Framing),
    /// JPEG pictures; content is the quantisation tables and the scans.
    Jpeg,
    /// AAC, one ADTS frame per access unit; content is the payload.
    AacAdts,
    /// Anything else that comes in access units: raw AAC, raw video. All of it is content.
    Opaque,
    /// A plain file: no access units, no records; the content is the bytes and the envelope is
    /// empty.
    Bytes,
}

impl Codec {
    /// Whether most access units need earlier ones, so that the stream has groups of pictures
    /// that begin at keyframes.
    pub fn has_delta_units(&self) -> bool {
        matches!(self, Codec::H264(_) | Codec::H265(_))
    }

    /// The content of an access unit: in order, not overlapping, within `au`. What is malformed
    /// is one item.
    fn items(&self, au: &[u8]) -> Vec<Item> {
        match *self {
            Codec::H264(framing) => nal::slices(au, framing, nal::h264_slice),
            Codec::H265(framing) => nal::slices(au, framing, nal::h265_slice),
            Codec::Jpeg => jpeg::items(au),
            Codec::AacAdts => nal::adts(au).map(|item| vec![item]),
            Codec::Opaque | Codec::Bytes => None,
        }
        .unwrap_or_else(|| vec![Item::whole(au)])
    }
}

/// Takes one access unit apart: appends its content record to `content` and its envelope record
/// to `envelope`. With [`Codec::Bytes`] the bytes are appended to `content`, and that is all.
///
/// [`Joiner::next`] is the inverse for access units of up to [`MAX_AU_BYTES`].
pub fn split(codec: &Codec, au: &[u8], content: &mut Vec<u8>, envelope: &mut EnvelopeWriter) {
    if *codec == Codec::Bytes {
        content.extend_from_slice(au);
        return;
    }
    let mut record = Vec::new();
    envelope::write_records(au, &codec.items(au), content, &mut record);
    envelope.push(&record);
}

/// Why an access unit was refused, or could not be put together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The record ends early.
    #[error("frame record ends early: the envelope or content is damaged or incomplete")]
    Truncated,
    /// A number takes more than 64 bits.
    #[error("frame record holds a number above 64 bits")]
    Varint,
    /// An envelope record begins with a byte other than 0 and 1.
    #[error("envelope record begins with {0}, expected 0 or 1")]
    Marker(u8),
    /// The first envelope record of a piece repeats one that is not there.
    #[error("first envelope record of a piece refers to a record before it")]
    NoPrevious,
    /// Unknown kind of prefix.
    #[error("envelope record holds prefix kind {0}, known are 0 to 7")]
    Prefix(u8),
    /// The item is too long for its kind of prefix, or the stored prefix is not empty.
    #[error("item of {len} bytes does not fit its prefix of kind {kind}")]
    PrefixOverflow {
        /// The value that the prefix would have.
        len: u64,
        /// The kind of prefix.
        kind: u8,
    },
    /// More padding than is ever stored.
    #[error("envelope record holds {0} bytes of padding for one item, at most 65536 are written")]
    Padding(u64),
    /// Content and envelope do not belong together.
    #[error("content has {content} items where the envelope has {envelope}: not the same unit")]
    ItemCount {
        /// Items in the content record.
        content: u64,
        /// Items in the envelope record.
        envelope: u64,
    },
    /// The content record goes on after its last item.
    #[error("{0} bytes follow the last item of a content record")]
    Trailing(usize),
    /// The access unit is longer than [`MAX_AU_BYTES`].
    #[error("access unit is longer than {MAX_AU_BYTES} bytes")]
    TooLarge,
}

/// What a piece is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UnitMode {
    /// Some access units, cut where their content says. For [`Codec::Bytes`]: as `Cdc`.
    #[default]
    Structure,
    /// A group of pictures. As `Structure` for codecs that have none.
    Gop,
    /// An access unit, or what was pushed at once of [`Codec::Bytes`].
    Au,
    /// So many bytes of content, at least 1.
    Fixed(u32),
    /// FastCDC over the content, begun anew at each keyframe.
    Cdc,
}

impl fmt::Display for UnitMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnitMode::Structure => f.write_str("structure"),
            UnitMode::Gop => f.write_str("gop"),
            UnitMode::Au => f.write_str("au"),
            UnitMode::Fixed(bytes) => write!(f, "fixed:{bytes}"),
            UnitMode::Cdc => f.write_str("cdc"),
        }
    }
}

/// The text is no [`UnitMode`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown unit '{0}': expected structure, gop, au, fixed:BYTES (from 1 up) or cdc")]
pub struct UnitModeError(String);

impl FromStr for UnitMode {
    type Err = UnitModeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "structure" => UnitMode::Structure,
            "gop" => UnitMode::Gop,
            "au" => UnitMode::Au,
            "cdc" => UnitMode::Cdc,
            _ => text
                .strip_prefix("fixed:")
                .and_then(|bytes| bytes.parse().ok())
                .filter(|&bytes| bytes > 0)
                .map(UnitMode::Fixed)
                .ok_or_else(|| UnitModeError(text.to_owned()))?,
        })
    }
}

/// Default of [`Config::target_bytes`]: automatic.
pub const DEFAULT_TARGET_BYTES: u32 = 0;
/// Default of [`Config::max_bytes`]: 4 MiB.
pub const DEFAULT_MAX_BYTES: u32 = 4 << 20;
/// Default of [`Config::max_time_ns`]: 10 s.
pub const DEFAULT_MAX_TIME_NS: u64 = 10_000_000_000;
/// Default of [`Config::drop_damaged`]: keep and mark.
pub const DEFAULT_DROP_DAMAGED: bool = false;

/// How a track is cut. Recorders that shall store a stream once must have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What a piece is.
    pub unit: UnitMode,
    /// Length of a piece to aim at with `Structure` and `Cdc`, in bytes of content. 0 is automatic:
    /// 3 access units but 6 (sound: 3) to 96 KiB for `Structure`, 1 MiB for `Cdc`.
    pub target_bytes: u32,
    /// Longest piece in bytes of content, at least 1024; a longer record goes over several pieces.
    pub max_bytes: u32,
    /// A piece ends before an access unit whose time is this far from that of its first, in
    /// nanoseconds. 0 is no limit.
    pub max_time_ns: u64,
    /// Whether a group of pictures with losses is dropped instead of marked.
    pub drop_damaged: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            unit: UnitMode::default(),
            target_bytes: DEFAULT_TARGET_BYTES,
            max_bytes: DEFAULT_MAX_BYTES,
            max_time_ns: DEFAULT_MAX_TIME_NS,
            drop_damaged: DEFAULT_DROP_DAMAGED,
        }
    }
}

/// One access unit, or some bytes of a [`Codec::Bytes`] track.
#[derive(Clone, Debug)]
pub struct AccessUnit<'a, T> {
    /// Its bytes, at most [`MAX_AU_BYTES`] except with [`Codec::Bytes`].
    pub data: &'a [u8],
    /// Decoding can begin here. Without meaning for codecs without delta units.
    pub keyframe: bool,
    /// Something was lost before it, or of it.
    pub discont: bool,
    /// Its time in nanoseconds on any one clock.
    pub time_ns: Option<u64>,
    /// What the caller wants to find in [`Unit::info`].
    pub info: T,
}

/// A unit whose record begins in a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit<T> {
    /// From [`AccessUnit::info`]; with [`Codec::Bytes`] a clone from the push that began the piece.
    pub info: T,
    /// Length in bytes of the whole content record, also where it goes on in later pieces. With
    /// [`Codec::Bytes`] the length of the piece.
    pub content_len: u32,
}

/// What becomes one content chunk, and the envelope that goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece<T> {
    /// Part of the stream of content records.
    pub content: Vec<u8>,
    /// The envelope records of `units`, for [`Joiner`].
    pub envelope: Vec<u8>,
    /// The units whose records begin here. Without any, `content` continues the last unit before.
    pub units: Vec<Unit<T>>,
    /// Length of the head of `content` that continues a unit of an earlier piece, in bytes.
    pub lead: u32,
    /// The first piece of a group of pictures; without delta units, any in which a unit begins.
    pub gop_start: bool,
    /// What is in it may be damaged: there was a loss in its group of pictures.
    pub suspect: bool,
    /// The group of pictures before this piece is suspect, and that was not known when (some of)
    /// its pieces were cut.
    pub prev_suspect: bool,
}
