// SPDX-License-Identifier: MPL-2.0
//! Chunks out of the vault: asked for in batches, unwrapped, decrypted and checked.

use super::origin::patiently;
use super::{Fetched, Reader};
use crate::client::Error;
use crate::manifest::{Chunk, Envelope, Manifest, Stored};
use crate::ownership::{PathKeys, Wrapped};
use crate::protocol::{ChunkRef, GetBlob, OpenedChunk, SharedSegment};
use crate::rce::{self, Key, Record};
use std::ops::Range;
use std::sync::atomic::Ordering;

/// Bytes that one request asks for, unless a single chunk has more.
pub(super) const BATCH_BYTES: u64 = 4 << 20;
/// Stored pieces that one request asks for, at most; a server allows no fewer.
pub(super) const BATCH_ITEMS: usize = 256;

/// Index of the chunk that a stored piece belongs to, and the piece.
type Piece<'a> = (usize, &'a Stored);

/// The stored pieces of a chunk: its content, and its envelope if that is stored too.
pub(super) fn pieces(chunk: &Chunk) -> impl Iterator<Item = &Stored> {
    let envelope = match &chunk.envelope {
        Envelope::Stored(stored) => Some(stored),
        Envelope::Inline(_) => None,
    };
    std::iter::once(&chunk.content).chain(envelope)
}

/// Name of a stored piece at the server.
pub(super) fn reference(stored: &Stored) -> ChunkRef {
    ChunkRef {
        tag: Key::from_bytes(*stored.key).tag().into(),
        d1: stored.d1,
    }
}

impl Reader {
    /// Contents and envelopes of some chunks of a track, which is given by its place in the
    /// manifest.
    ///
    /// # Errors
    /// [`Error::Damaged`] if anything about a chunk is not as recorded.
    pub async fn fetch(
        &self,
        seq: u64,
        manifest: &Manifest,
        track: usize,
        chunks: Range<usize>,
    ) -> Result<Vec<Fetched>, Error> {
        let all = manifest.tracks.get(track).map_or(&[][..], |t| &t.chunks);
        let wanted: Vec<_> = chunks.filter_map(|at| Some((at, all.get(at)?))).collect();
        let mut fetched = Vec::with_capacity(wanted.len());
        for batch in batches(wanted.iter().map(|(_, chunk)| *chunk)) {
            fetched.extend(self.fetch_batch(seq, &wanted[batch]).await?);
        }
        Ok(fetched)
    }

    /// As [`Reader::fetch`], in one request. `wanted` are chunks with their indices.
    pub(super) async fn fetch_batch(
        &self,
        seq: u64,
        wanted: &[(usize, &Chunk)],
    ) -> Result<Vec<Fetched>, Error> {
        let stored: Vec<Piece<'_>> = wanted
            .iter()
            .flat_map(|(at, chunk)| pieces(chunk).map(|stored| (*at, stored)))
            .collect();
        let mut clear = patiently(self.patience, || self.fetch_stored(seq, &stored))
            .await?
            .into_iter();
        let mut next = || clear.next().unwrap_or_default();
        let fetched = |(_, chunk): &(usize, &Chunk)| match &chunk.envelope {
            Envelope::Inline(envelope) => (next(), envelope.to_vec()),
            Envelope::Stored(_) => (next(), next()),
        };
        Ok(wanted.iter().map(fetched).collect())
    }

    async fn fetch_stored(&self, seq: u64, stored: &[Piece<'_>]) -> Result<Vec<Vec<u8>>, Error> {
        let keys = self.origin.path_keys().await?;
        let shared = self.owner.map(|owner| SharedSegment {
            owner,
            id: self.sealer.id.into(),
            seq,
        });
        let references = stored.iter().map(|(_, stored)| reference(stored));
        let opened = self.origin.open(references.collect(), shared).await?;
        let mut records = Vec::with_capacity(stored.len());
        let mut wanted = Vec::with_capacity(stored.len());
        for (i, (chunk, stored)) in stored.iter().enumerate() {
            let damaged = |reason: &str| damaged(seq, *chunk, reason);
            let opened = opened.chunks.get(i).and_then(Option::as_ref);
            let opened = opened.ok_or_else(|| damaged("the server has no record of it for us"))?;
            let record = record(&keys, stored, opened);
            records.push(record.ok_or_else(|| damaged("its key is not wrapped for us"))?);
            let blob = GetBlob {
                d1: stored.d1,
                capability: opened.capability,
            };
            wanted.push((blob, stored.len));
        }
        let mut blobs = self
            .origin
            .get_blobs(opened.expires, wanted)
            .await?
            .into_iter();
        let mut clear = Vec::with_capacity(stored.len());
        for ((chunk, stored), record) in stored.iter().zip(&records) {
            let damaged = |reason: String| damaged(seq, *chunk, &reason);
            let mut blob = match blobs.next() {
                Some(blob) => blob.map_err(damaged)?,
                None => return Err(damaged("the server does not send its blob".into())),
            };
            if blob.len() as u64 != u64::from(stored.len) {
                return Err(damaged(format!("its blob has {} bytes", blob.len())));
            }
            let key = Key::from_bytes(*stored.key);
            rce::open(
                &key,
                stored.in_domain,
                self.domain.as_ref(),
                record,
                &mut blob,
            )
            .map_err(|e| damaged(e.to_string()))?;
            self.fetched.0.fetch_add(1, Ordering::Relaxed);
            self.fetched
                .1
                .fetch_add(blob.len() as u64, Ordering::Relaxed);
            clear.push(blob);
        }
        Ok(clear)
    }
}

fn record(keys: &PathKeys, stored: &Stored, opened: &OpenedChunk) -> Option<Record> {
    let wrapped = Wrapped {
        epoch: *opened.epoch,
        c2: *opened.c2,
        node: opened.node,
        gk: *opened.gk,
    };
    Some(Record {
        c2: keys.unwrap_c2(&wrapped)?,
        c3: *opened.c3,
        d1: *stored.d1,
    })
}

pub(super) fn damaged(seq: u64, chunk: usize, reason: &str) -> Error {
    Error::Damaged {
        seq,
        chunk,
        reason: reason.to_owned(),
    }
}

/// Parts a list of chunks into what is asked for at once.
pub(super) fn batches<'a>(chunks: impl Iterator<Item = &'a Chunk>) -> Vec<Range<usize>> {
    let mut batches = Vec::new();
    let (mut start, mut bytes, mut count) = (0, 0u64, 0);
    let mut end = 0;
    for (index, chunk) in chunks.enumerate() {
        let sizes = pieces(chunk).map(|stored| u64::from(stored.len));
        let (size, more) = sizes.fold((0, 0), |(size, n), len| (size + len, n + 1));
        if index > start && (bytes + size > BATCH_BYTES || count + more > BATCH_ITEMS) {
            batches.push(start..index);
            (start, bytes, count) = (index, 0, 0);
        }
        bytes += size;
        count += more;
        end = index + 1;
    }
    if start < end {
        batches.push(start..end);
    }
    batches
}
