// SPDX-License-Identifier: MPL-2.0
//! The two records of an access unit, and how they become the access unit again.
//!
//! `varint` is unsigned LEB128 of at most 64 bits.
//!
//! Content record: `varint(items) { varint(length) ‖ bytes }*`.
//!
//! Envelope record: one byte 0 when it equals the record before it in the same piece, otherwise
//! one byte 1 followed by
//! `varint(items) { varint(length) ‖ literal, kind, kind's bytes, varint(pad) }* varint(length) ‖ tail`.
//!
//! Access unit: `{ literal ‖ prefix ‖ item ‖ pad zero bytes }* ‖ tail`.

use super::{Codec, FrameError, MAX_AU_BYTES};

/// Envelope record that repeats the one before it.
const SAME: u8 = 0;
/// Envelope record that is written out.
const EXPLICIT: u8 = 1;

/// Most zero bytes that are taken off the end of one item; an item with more keeps all of them.
///
/// It bounds what a hostile envelope can make of a few bytes.
pub(super) const MAX_PAD: usize = 64 * 1024;

/// Bytes in front of an item that follow from the item, or from a few stored bytes and the item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prefix {
    /// Nothing.
    None,
    /// `00 00 01`.
    Start3,
    /// `00 00 00 01`.
    Start4,
    /// Big-endian number of 1 to 4 bytes: length of the item and its padding.
    Length(u8),
    /// ADTS header with its frame length set to zero, and its CRC if it has one.
    Adts([u8; 7], Option<[u8; 2]>),
}

impl Prefix {
    fn write(self, out: &mut Vec<u8>) {
        match self {
            Prefix::None => out.push(0),
            Prefix::Start3 => out.push(1),
            Prefix::Start4 => out.push(2),
            Prefix::Length(size) => out.push(2 + size),
            Prefix::Adts(header, crc) => {
                out.push(7);
                out.extend_from_slice(&header);
                out.extend_from_slice(crc.as_ref().map_or(&[], |crc| crc));
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, FrameError> {
        Ok(match from.byte()? {
            0 => Prefix::None,
            1 => Prefix::Start3,
            2 => Prefix::Start4,
            kind @ 3..=6 => Prefix::Length(kind - 2),
            7 => {
                let header: [u8; 7] = from.array()?;
                let crc = adts_has_crc(&header).then(|| from.array()).transpose()?;
                Prefix::Adts(header, crc)
            }
            kind => return Err(FrameError::Prefix(kind)),
        })
    }

    /// Appends the prefix of an item of `len` bytes with `pad` zero bytes behind it.
    fn build(self, len: usize, pad: usize, out: &mut Vec<u8>) -> Result<(), FrameError> {
        match self {
            Prefix::None => {}
            Prefix::Start3 => out.extend_from_slice(&[0, 0, 1]),
            Prefix::Start4 => out.extend_from_slice(&[0, 0, 0, 1]),
            Prefix::Length(size) => {
                let len = (len + pad) as u64;
                let bytes = len.to_be_bytes();
                let (head, tail) = bytes.split_at(8 - usize::from(size.min(4)));
                if head.iter().any(|&b| b != 0) {
                    return Err(FrameError::PrefixOverflow {
                        len,
                        kind: 2 + size,
                    });
                }
                out.extend_from_slice(tail);
            }
            Prefix::Adts(mut header, crc) => {
                let len = (len + 7 + crc.map_or(0, |crc| crc.len())) as u64;
                if len >= 1 << 13 || adts_length(&header) != 0 {
                    return Err(FrameError::PrefixOverflow { len, kind: 7 });
                }
                header[3] |= (len >> 11) as u8;
                header[4] = (len >> 3) as u8;
                header[5] |= (len << 5) as u8;
                out.extend_from_slice(&header);
                out.extend_from_slice(crc.as_ref().map_or(&[], |crc| crc));
            }
        }
        Ok(())
    }
}

/// Whether an ADTS header is followed by a CRC of 2 bytes.
pub(super) fn adts_has_crc(header: &[u8; 7]) -> bool {
    header[1] & 1 == 0
}

/// The 13-bit frame length of an ADTS header: header, CRC and payload, in bytes.
pub(super) fn adts_length(header: &[u8; 7]) -> usize {
    usize::from(header[3] & 3) << 11 | usize::from(header[4]) << 3 | usize::from(header[5]) >> 5
}

/// One item of content found in an access unit, as offsets into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// First byte of the prefix.
    pub at: usize,
    pub prefix: Prefix,
    /// First byte of the item and the byte after its last.
    pub start: usize,
    pub end: usize,
    /// Zero bytes from `end` on that belong to the item's envelope.
    pub pad: usize,
}

impl Item {
    /// The whole access unit as one item without a prefix.
    pub fn whole(au: &[u8]) -> Self {
        Item {
            at: 0,
            prefix: Prefix::None,
            start: 0,
            end: au.len(),
            pad: 0,
        }
    }
}

/// Appends the content record to `content` and the explicit envelope record (without the byte
/// that says that it is explicit) to `envelope`.
///
/// `items` are in order, do not overlap and lie within `au`: what the scanners return.
pub(super) fn write_records(
    au: &[u8],
    items: &[Item],
    content: &mut Vec<u8>,
    envelope: &mut Vec<u8>,
) {
    put_varint(content, items.len() as u64);
    put_varint(envelope, items.len() as u64);
    let mut done = 0;
    for item in items {
        put_bytes(content, &au[item.start..item.end]);
        put_bytes(envelope, &au[done..item.at]);
        item.prefix.write(envelope);
        put_varint(envelope, item.pad as u64);
        done = item.end + item.pad;
    }
    put_bytes(envelope, &au[done..]);
}

/// The envelope of one piece while it is written: knows the record before.
#[derive(Debug, Default)]
pub struct EnvelopeWriter {
    bytes: Vec<u8>,
    /// The last explicit record; `None` at the start of a piece.
    previous: Option<Vec<u8>>,
}

impl EnvelopeWriter {
    /// An empty envelope.
    pub fn new() -> Self {
        Self::default()
    }

    /// Length in bytes of what was written since the last [`take`](Self::take).
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written since the last [`take`](Self::take).
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The envelope written so far. The next record begins a new one.
    pub fn take(&mut self) -> Vec<u8> {
        self.previous = None;
        std::mem::take(&mut self.bytes)
    }

    /// Appends one record.
    pub(super) fn push(&mut self, record: &[u8]) {
        if self.previous.as_deref() == Some(record) {
            self.bytes.push(SAME);
            return;
        }
        self.bytes.push(EXPLICIT);
        self.bytes.extend_from_slice(record);
        let previous = self.previous.get_or_insert_default();
        previous.clear();
        previous.extend_from_slice(record);
    }
}

/// Puts the access units of one piece together again, from its envelope and their content records.
///
/// An envelope and content records from anywhere are safe: an access unit never takes more than
/// its two records, 64 KiB of padding for each item, and [`MAX_AU_BYTES`] in all.
#[derive(Debug, Clone)]
pub struct Joiner<'a> {
    rest: Reader<'a>,
    previous: Option<&'a [u8]>,
    plain: bool,
}

impl<'a> Joiner<'a> {
    /// Begins at the first unit of a piece of a track of `codec`. Pieces of [`Codec::Bytes`] have
    /// an empty envelope and their content is handed back as it is.
    pub fn new(codec: &Codec, envelope: &'a [u8]) -> Self {
        Joiner {
            rest: Reader(envelope),
            previous: None,
            plain: *codec == Codec::Bytes,
        }
    }

    /// The next access unit of the piece, bit for bit, from its whole content record, which may
    /// have been stored over several pieces.
    ///
    /// # Errors
    /// The envelope has no further record, a record is malformed, or the two do not belong
    /// together. The envelope cannot be read on after an error.
    pub fn next(&mut self, content_record: &[u8]) -> Result<Vec<u8>, FrameError> {
        if self.plain {
            return Ok(content_record.to_vec());
        }
        let record = match self.rest.byte()? {
            SAME => self.previous.ok_or(FrameError::NoPrevious)?,
            EXPLICIT => self.rest.record()?,
            marker => return Err(FrameError::Marker(marker)),
        };
        self.previous = Some(record);
        join(content_record, record)
    }

    /// Whether every envelope record has been used. Always true for [`Codec::Bytes`].
    pub fn is_done(&self) -> bool {
        self.rest.0.is_empty()
    }
}

fn join(content: &[u8], record: &[u8]) -> Result<Vec<u8>, FrameError> {
    // All lengths are checked against the records before the bytes are taken, so that this is
    // what an honest pair needs but for padding.
    let mut au = Vec::with_capacity((content.len() + record.len()).min(MAX_AU_BYTES));
    let (mut content, mut record) = (Reader(content), Reader(record));
    let (items, expected) = (content.varint()?, record.varint()?);
    if items != expected {
        return Err(FrameError::ItemCount {
            content: items,
            envelope: expected,
        });
    }
    for _ in 0..items {
        let literal = record.bytes()?;
        let prefix = Prefix::read(&mut record)?;
        let pad = record.pad()?;
        let item = content.bytes()?;
        if au.len() + literal.len() + item.len() + pad > MAX_AU_BYTES {
            return Err(FrameError::TooLarge);
        }
        au.extend_from_slice(literal);
        prefix.build(item.len(), pad, &mut au)?;
        au.extend_from_slice(item);
        au.resize(au.len() + pad, 0);
    }
    au.extend_from_slice(record.bytes()?);
    if !content.0.is_empty() {
        return Err(FrameError::Trailing(content.0.len()));
    }
    if au.len() > MAX_AU_BYTES {
        return Err(FrameError::TooLarge);
    }
    Ok(au)
}

/// Appends unsigned LEB128.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes values off the front of untrusted bytes.
#[derive(Debug, Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, FrameError> {
        let (&byte, rest) = self.0.split_first().ok_or(FrameError::Truncated)?;
        self.0 = rest;
        Ok(byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(FrameError::Truncated)?;
        self.0 = rest;
        Ok(*array)
    }

    fn varint(&mut self) -> Result<u64, FrameError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(FrameError::Varint);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(FrameError::Varint)
    }

    /// `varint(length) ‖ bytes`.
    fn bytes(&mut self) -> Result<&'a [u8], FrameError> {
        let len = usize::try_from(self.varint()?).map_err(|_| FrameError::Truncated)?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(FrameError::Truncated)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn pad(&mut self) -> Result<usize, FrameError> {
        let pad = self.varint()?;
        usize::try_from(pad)
            .ok()
            .filter(|&pad| pad <= MAX_PAD)
            .ok_or(FrameError::Padding(pad))
    }

    /// One explicit envelope record, taken off whole.
    fn record(&mut self) -> Result<&'a [u8], FrameError> {
        let all = self.0;
        for _ in 0..self.varint()? {
            self.bytes()?;
            Prefix::read(self)?;
            self.pad()?;
        }
        self.bytes()?;
        Ok(&all[..all.len() - self.0.len()])
    }
}
