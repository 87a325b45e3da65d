// SPDX-License-Identifier: MPL-2.0
//! A chunk on its way through the recorder.

use super::StreamChunk;
use crate::client::uploader::Job;
use crate::manifest::{Envelope, Framing, MAX_INLINE_ENVELOPE, TimeSegment, UnitInfo};
use crate::rce::ChunkId;
use std::sync::Arc;

/// The run of a recorder that a chunk belongs to.
pub(crate) type Session = [u8; 8];

/// What holds for a track from a chunk on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Format {
    pub caps: String,
    pub time: TimeSegment,
}

impl Default for Format {
    fn default() -> Self {
        let time = TimeSegment {
            start: 0,
            stop: None,
            time: 0,
            base: 0,
        };
        Self {
            caps: String::new(),
            time,
        }
    }
}

/// A chunk with all that is needed to store it and to name it in a manifest.
pub(crate) struct Item {
    pub session: Session,
    /// Order of arrival in this process.
    pub number: u64,
    pub track: u32,
    pub format: Arc<Format>,
    pub content: Job,
    pub envelope: Surround,
    pub framing: Framing,
    pub units: Vec<UnitInfo>,
    pub gop_start: bool,
    pub suspect: bool,
    pub prev_suspect: bool,
    pub tags: Option<String>,
    pub running: Option<(u64, u64)>,
    pub clock: Option<(u64, i64)>,
    /// Unix time of arrival, ns.
    pub arrived: i64,
    /// Bytes that it counts against the memory bound; 0 once it is stored or came from disk.
    pub counted: u64,
    /// File and place in it, if the chunk lies in the spool.
    pub spooled: Option<(u64, u32)>,
}

/// What surrounds a chunk.
pub(crate) enum Surround {
    Inline(Vec<u8>),
    Chunk(Box<Job>),
}

impl Surround {
    fn len(&self) -> u64 {
        match self {
            Self::Chunk(job) => u64::from(job.len()),
            Self::Inline(bytes) => bytes.len() as u64,
        }
    }
}

impl Item {
    /// Takes a chunk; its caps and time are those of `format`.
    pub fn new(
        chunk: StreamChunk,
        session: Session,
        number: u64,
        format: Arc<Format>,
        arrived: i64,
    ) -> Self {
        let envelope = match chunk.envelope_id {
            _ if chunk.envelope.len() <= MAX_INLINE_ENVELOPE => Surround::Inline(chunk.envelope),
            Some(id) => Surround::Chunk(Box::new(Job::new(id, chunk.in_domain, chunk.envelope))),
            None => {
                let id = ChunkId::of(&chunk.envelope, None);
                Surround::Chunk(Box::new(Job::new(id, false, chunk.envelope)))
            }
        };
        let counted = chunk.content.len() as u64 + envelope.len();
        Self {
            session,
            number,
            track: chunk.track,
            format,
            counted,
            content: Job::new(chunk.id, chunk.in_domain, chunk.content),
            envelope,
            framing: chunk.framing,
            units: chunk.units,
            gop_start: chunk.gop_start,
            suspect: chunk.suspect,
            prev_suspect: chunk.prev_suspect,
            tags: chunk.tags,
            running: chunk.running,
            clock: chunk.clock,
            arrived,
            spooled: None,
        }
    }

    /// Everything of it that is a stored chunk.
    pub fn jobs(&mut self) -> impl Iterator<Item = &mut Job> {
        let envelope = match &mut self.envelope {
            Surround::Chunk(job) => Some(&mut **job),
            Surround::Inline(_) => None,
        };
        std::iter::once(&mut self.content).chain(envelope)
    }

    /// Whether everything of it is stored.
    pub fn is_stored(&self) -> bool {
        let envelope = match &self.envelope {
            Surround::Chunk(job) => job.holding().is_some(),
            Surround::Inline(_) => true,
        };
        self.content.holding().is_some() && envelope
    }

    /// Bytes of content and envelope.
    pub fn bytes(&self) -> u64 {
        u64::from(self.content.len()) + self.envelope.len()
    }

    /// How the manifest names its envelope, once that is stored.
    pub fn manifest_envelope(&self) -> Option<Envelope> {
        Some(match &self.envelope {
            Surround::Inline(bytes) => Envelope::Inline(bytes.clone().into()),
            Surround::Chunk(job) => Envelope::Stored(job.stored()?),
        })
    }

    /// Bytes of units that begin here less bytes of content: 0 in sum where a unit ends with a
    /// chunk.
    pub fn balance(&self) -> i64 {
        let units: i64 = self.units.iter().map(|u| i64::from(u.content_len)).sum();
        units - i64::from(self.content.len())
    }
}
