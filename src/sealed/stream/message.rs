// SPDX-License-Identifier: MPL-2.0
//! Messages of a sealed stream, one after the other in any transport of bytes:
//!
//! ```text
//! "CVS1"  kind u8  0 0 0  length u32  payload
//! ```
//! Numbers are big endian. Kinds: 1 the head of a segment (CBOR, a signed
//! [`SegmentHead`](crate::protocol::SegmentHead)); 2 a frame ([`FrameHeader`] and what is under the
//! segment's key); 3 the end of a segment (a signed [`SegmentEnd`]).

use super::Error;
use crate::protocol::{B32, Document};
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

const MAGIC: &[u8; 4] = b"CVS1";
const HEADER: usize = 12;

/// Payload of one message at most: a 4K frame of noise in the packed mode.
pub const MAX_PAYLOAD: usize = 256 << 20;

/// Kinds of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A segment begins.
    Segment,
    /// A frame.
    Frame,
    /// A segment ends.
    End,
}

/// What is known of a frame without the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Which frame of its segment, from 0.
    pub number: u64,
    /// Presentation time in nanoseconds of the stream.
    pub pts: Option<u64>,
    /// How long it is shown, in nanoseconds.
    pub duration: Option<u64>,
}

impl FrameHeader {
    /// Bytes of a header.
    pub const BYTES: usize = 24;

    /// Its bytes, which are authenticated with the frame.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let time = |time: Option<u64>| time.unwrap_or(u64::MAX);
        let mut out = [0; Self::BYTES];
        let numbers = [self.number, time(self.pts), time(self.duration)];
        for (out, number) in out.chunks_exact_mut(8).zip(numbers) {
            out.copy_from_slice(&number.to_be_bytes());
        }
        out
    }

    /// Reads the header and what follows.
    pub fn split(payload: &[u8]) -> Result<(Self, &[u8]), Error> {
        let short = Error::Form("a frame without a header");
        let (header, rest) = payload.split_at_checked(Self::BYTES).ok_or(short)?;
        let mut numbers = header.chunks_exact(8).map(|bytes| {
            bytes
                .iter()
                .fold(0u64, |number, &byte| number << 8 | u64::from(byte))
        });
        let mut next = || numbers.next().unwrap_or(u64::MAX);
        let (number, pts, duration) = (next(), next(), next());
        let time = |time: u64| (time != u64::MAX).then_some(time);
        let header = Self {
            number,
            pts: time(pts),
            duration: time(duration),
        };
        Ok((header, rest))
    }
}

/// What a segment was; signed by the owner.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SegmentEnd {
    /// The run of the owner's element.
    #[n(0)]
    pub stream: ByteArray<16>,
    /// Which segment.
    #[n(1)]
    pub segment: u32,
    /// How many frames it has.
    #[n(2)]
    pub frames: u64,
    /// What the owner commits to: [`Promised::digest`](crate::protocol::Promised::digest).
    #[n(3)]
    pub commitment: B32,
    /// Id of the contract.
    #[n(4)]
    pub contract: B32,
    /// The ticket.
    #[n(5)]
    pub ticket: u64,
}

impl Document for SegmentEnd {
    const KIND: &'static str = "end of a sealed segment";
}

/// Appends a message.
pub fn write(out: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    let start = begin(out, kind);
    out.extend_from_slice(payload);
    end(out, start);
}

/// Begins a message, whose payload is then appended: where the payload begins.
pub(super) fn begin(out: &mut Vec<u8>, kind: Kind) -> usize {
    let code = match kind {
        Kind::Segment => 1,
        Kind::Frame => 2,
        Kind::End => 3,
    };
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[code, 0, 0, 0, 0, 0, 0, 0]);
    out.len()
}

/// Ends the message whose payload begins at `start`.
pub(super) fn end(out: &mut [u8], start: usize) {
    // Never longer than MAX_PAYLOAD.
    let length = (out.len() - start) as u32;
    out[start - 4..start].copy_from_slice(&length.to_be_bytes());
}

/// A message in bytes of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// What it is.
    pub kind: Kind,
    /// What is in it.
    pub payload: &'a [u8],
    /// Bytes that it has in the stream.
    pub length: usize,
}

/// The first message in `bytes`; `None` if it is not whole yet.
pub fn read(bytes: &[u8]) -> Result<Option<Message<'_>>, Error> {
    read_within(bytes, |_| MAX_PAYLOAD)
}

/// … whose payload may be so long, by its kind: a longer one is an error as soon as its length is
/// there.
pub fn read_within(
    bytes: &[u8],
    most: impl FnOnce(Kind) -> usize,
) -> Result<Option<Message<'_>>, Error> {
    let magic = bytes.len().min(MAGIC.len());
    if bytes[..magic] != MAGIC[..magic] {
        return Err(Error::Form("a message does not begin as one"));
    }
    let Some(header) = bytes.get(..HEADER) else {
        return Ok(None);
    };
    let kind = match header[4..8] {
        [1, 0, 0, 0] => Kind::Segment,
        [2, 0, 0, 0] => Kind::Frame,
        [3, 0, 0, 0] => Kind::End,
        _ => return Err(Error::Form("a message of an unknown kind")),
    };
    let length = header[8..]
        .iter()
        .fold(0usize, |length, &byte| length << 8 | usize::from(byte));
    if length > most(kind).min(MAX_PAYLOAD) {
        return Err(Error::Form("a message that is too long"));
    }
    let end = HEADER + length;
    Ok(bytes.get(HEADER..end).map(|payload| Message {
        kind,
        payload,
        length: end,
    }))
}

/// Appends the three parts of a frame under the key: each but the last with its length (u32) before
/// it.
pub(super) fn join_parts(out: &mut Vec<u8>, parts: [&[u8]; 3]) {
    let [rest, masked, remainder] = parts;
    for part in [rest, masked] {
        out.extend_from_slice(&(part.len() as u32).to_be_bytes());
        out.extend_from_slice(part);
    }
    out.extend_from_slice(remainder);
}

/// Reads what [`join_parts`] made.
pub(super) fn split_parts(bytes: &[u8]) -> Option<[&[u8]; 3]> {
    let part = |bytes| -> Option<(&[u8], &[u8])> {
        let (length, rest): (&[u8; 4], &[u8]) = <[u8]>::split_first_chunk(bytes)?;
        rest.split_at_checked(u32::from_be_bytes(*length) as usize)
    };
    let (rest, more) = part(bytes)?;
    let (masked, remainder) = part(more)?;
    Some([rest, masked, remainder])
}
