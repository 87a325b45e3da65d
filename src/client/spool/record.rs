// SPDX-License-Identifier: MPL-2.0
//! A batch of chunks as it lies in a spool file. A file stands alone: it names the caps and time
//! segments of its chunks.

use crate::client::Error;
use crate::client::recorder::{Format, Item, Surround};
use crate::client::uploader::{Held, Job};
use crate::manifest::{Framing, TimeSegment, Units};
use crate::protocol::{B32, decode, encode};
use crate::rce::{ChunkId, Key};
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use std::sync::Arc;

#[derive(Encode, Decode)]
#[cbor(map)]
struct Batch {
    #[n(0)]
    formats: Vec<(String, TimeSegment)>,
    #[n(1)]
    items: Vec<Record>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Record {
    #[n(0)]
    session: ByteArray<8>,
    #[n(1)]
    number: u64,
    #[n(2)]
    track: u32,
    #[n(3)]
    format: u32,
    #[n(4)]
    content: Piece,
    #[n(5)]
    inline: Option<ByteVec>,
    #[n(6)]
    envelope: Option<Piece>,
    #[n(7)]
    framing: Framing,
    #[n(8)]
    units: Units,
    #[n(9)]
    gop_start: bool,
    #[n(10)]
    suspect: bool,
    #[n(11)]
    prev_suspect: bool,
    #[n(12)]
    tags: Option<String>,
    #[n(13)]
    running: Option<(u64, u64)>,
    #[n(14)]
    clock: Option<(u64, i64)>,
    #[n(15)]
    arrived: i64,
}

/// A chunk: its content, or the copy that is already owned, with what identifies it.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Piece {
    #[n(0)]
    key: B32,
    #[n(1)]
    in_domain: bool,
    #[n(2)]
    len: u32,
    #[n(3)]
    content: Option<ByteVec>,
    #[n(4)]
    d1: Option<B32>,
    #[n(5)]
    new: bool,
}

impl Piece {
    fn of(job: &mut Job) -> Result<Self, Error> {
        let held = job.holding();
        let content = match held {
            Some(_) => None,
            None => Some(job.clear()?.to_vec().into()),
        };
        Ok(Self {
            key: (*job.id.key().expose()).into(),
            in_domain: job.in_domain,
            len: job.len(),
            content,
            d1: held.map(|h| h.d1),
            new: held.is_some_and(|h| h.new),
        })
    }

    fn job(self) -> Option<Job> {
        let key = Key::from_bytes(*self.key);
        match (self.content, self.d1) {
            (Some(content), _) => {
                let id = ChunkId::with_key(key, &content);
                Some(Job::new(id, self.in_domain, content.into()))
            }
            (None, Some(d1)) => {
                let held = Held { d1, new: self.new };
                // Only key and tag are used of a chunk that is stored.
                let id = ChunkId::with_key(key, &[]);
                Some(Job::held(id, self.in_domain, self.len, held))
            }
            (None, None) => None,
        }
    }
}

/// Writes a batch.
pub(super) fn write(items: &mut [&mut Item]) -> Result<Vec<u8>, Error> {
    let mut formats: Vec<Arc<Format>> = Vec::new();
    let mut records = Vec::with_capacity(items.len());
    for item in items {
        let known = formats.iter().position(|f| Arc::ptr_eq(f, &item.format));
        let format = known.unwrap_or_else(|| {
            formats.push(item.format.clone());
            formats.len() - 1
        });
        let (inline, envelope) = match &mut item.envelope {
            Surround::Inline(bytes) => (Some(bytes.clone().into()), None),
            Surround::Chunk(job) => (None, Some(Piece::of(job)?)),
        };
        records.push(Record {
            session: item.session.into(),
            number: item.number,
            track: item.track,
            format: format as u32,
            content: Piece::of(&mut item.content)?,
            inline,
            envelope,
            framing: item.framing,
            units: item.units.iter().copied().collect(),
            gop_start: item.gop_start,
            suspect: item.suspect,
            prev_suspect: item.prev_suspect,
            tags: item.tags.clone(),
            running: item.running,
            clock: item.clock,
            arrived: item.arrived,
        });
    }
    let formats = formats.iter().map(|f| (f.caps.clone(), f.time)).collect();
    Ok(encode(&Batch {
        formats,
        items: records,
    }))
}

/// Reads a batch; `None` if it is not one.
pub(super) fn read(clear: &[u8]) -> Option<Vec<Item>> {
    let batch: Batch = decode(clear).ok()?;
    let formats = batch.formats.into_iter();
    let formats: Vec<_> = formats
        .map(|(caps, time)| Arc::new(Format { caps, time }))
        .collect();
    let item = |record: Record| {
        Some(Item {
            session: *record.session,
            number: record.number,
            track: record.track,
            format: formats.get(record.format as usize)?.clone(),
            content: record.content.job()?,
            envelope: match (record.inline, record.envelope) {
                (Some(bytes), _) => Surround::Inline(bytes.into()),
                (None, Some(piece)) => Surround::Chunk(Box::new(piece.job()?)),
                (None, None) => return None,
            },
            framing: record.framing,
            units: record.units.iter().collect(),
            gop_start: record.gop_start,
            suspect: record.suspect,
            prev_suspect: record.prev_suspect,
            tags: record.tags,
            running: record.running,
            clock: record.clock,
            arrived: record.arrived,
            counted: 0,
            spooled: None,
        })
    };
    batch.items.into_iter().map(item).collect()
}
