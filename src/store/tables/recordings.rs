// SPDX-License-Identifier: MPL-2.0
//! Recordings, their segments, and who else may read them.

use super::owners;
use super::tx::signed;
use super::{Space, Tx, chunks, parse};
use crate::identity::RecordingId;
use crate::ownership::{Leaf, Tree};
use crate::protocol::{self, ChunkRef, Commit, Committed, Recording, RecordingEntry};
use crate::store::record::{RecordingRecord, SegmentRecord};
use crate::store::{Error, Hash};
use std::collections::BTreeMap;

/// Heads in one answer.
const MAX_HEADS: usize = 1000;
/// Chunks released in one transaction, roughly.
const FORGET_CHUNKS: usize = 4096;
/// Segments forgotten in one transaction.
const FORGET_SEGMENTS: u64 = 64;

fn record_key(owner: Leaf, id: &RecordingId) -> Vec<u8> {
    [b"r", owner.to_be_bytes().as_slice(), id].concat()
}

fn head_key(owner: Leaf, id: &RecordingId, seq: u64) -> Vec<u8> {
    [b"h", segment_key(owner, id, seq).as_slice()].concat()
}

fn segment_key(owner: Leaf, id: &RecordingId, seq: u64) -> Vec<u8> {
    [&owner.to_be_bytes(), id.as_slice(), &seq.to_be_bytes()].concat()
}

/// Under the recording: whom it is shared with.
fn share_key(owner: Leaf, id: &RecordingId, reader: &Hash) -> Vec<u8> {
    [b"s", owner.to_be_bytes().as_slice(), id, reader].concat()
}

/// Under the reader: what is shared with it.
fn inbox_key(reader: &Hash, owner: Leaf, id: &RecordingId) -> Vec<u8> {
    [b"i", reader.as_slice(), &owner.to_be_bytes(), id].concat()
}

fn record(tx: &Tx<'_>, owner: Leaf, id: &RecordingId) -> Result<Option<RecordingRecord>, Error> {
    tx.get(Space::Records, &record_key(owner, id))
}

/// Whether there is such a recording.
pub fn known(tx: &Tx<'_>, owner: Leaf, id: &RecordingId) -> Result<bool, Error> {
    Ok(record(tx, owner, id)?.is_some())
}

/// A segment without its head.
pub fn segment(
    tx: &Tx<'_>,
    owner: Leaf,
    id: &RecordingId,
    seq: u64,
) -> Result<Option<SegmentRecord>, Error> {
    tx.get(Space::Segments, &segment_key(owner, id, seq))
}

/// See [`Metadata::commit`](crate::store::Metadata::commit).
pub fn commit(
    tx: &mut Tx<'_>,
    owner: Leaf,
    id: &RecordingId,
    seq: u64,
    commit: &Commit,
) -> Result<Committed, Error> {
    let digest = *blake3::hash(&protocol::encode(commit)).as_bytes();
    let known = record(tx, owner, id)?;
    let mut recording = known.clone().unwrap_or_else(|| RecordingRecord {
        segments: 0,
        summary: Vec::new().into(),
    });
    if seq != recording.segments {
        let before = segment(tx, owner, id, seq)?;
        return Ok(match before.is_some_and(|s| *s.digest == digest) {
            true => Committed::Done,
            false => Committed::NextIs(recording.segments),
        });
    }
    // Read ahead, so that the chunks' records and this come at once.
    owners::usage(tx, owner)?;
    let mut named: BTreeMap<&ChunkRef, u64> = BTreeMap::new();
    for chunk in &commit.chunks {
        *named.entry(chunk).or_default() += 1;
    }
    let mut missing = Vec::new();
    for (chunk, refs) in named {
        if !chunks::refer(tx, chunk, owner, refs)? {
            missing.push(chunk);
        }
    }
    if !missing.is_empty() {
        let index = (0u32..).zip(&commit.chunks);
        let not_held = index.filter(|(_, c)| missing.binary_search(c).is_ok());
        let answer = Committed::NotHeld(not_held.map(|(i, _)| i).collect());
        tx.abandon();
        return Ok(answer);
    }
    let sizes = [&commit.head, &commit.manifest, &commit.summary].map(|part| part.len() as u64);
    let summary_before = recording.summary.len() as u64;
    tx.count(|t| {
        t.recordings += i64::from(known.is_none());
        t.segments += 1;
        t.bytes_manifests += signed(sizes.iter().sum()) - signed(summary_before);
    });
    recording.segments += 1;
    recording.summary = commit.summary.clone();
    tx.put(Space::Records, record_key(owner, id), &recording);
    tx.put_bytes(
        Space::Records,
        head_key(owner, id, seq),
        commit.head.to_vec(),
    );
    let segment = SegmentRecord {
        digest: digest.into(),
        manifest: commit.manifest.clone(),
        chunks: commit.chunks.clone(),
        head_len: sizes[0],
    };
    tx.put(Space::Segments, segment_key(owner, id, seq), &segment);
    Ok(Committed::Done)
}

/// See [`Metadata::recordings`](crate::store::Metadata::recordings).
pub fn list(tx: &Tx<'_>, owner: Leaf, key: &Hash) -> Result<Vec<RecordingEntry>, Error> {
    let wrong = || Error::Corrupt("recording key");
    let mut entries = Vec::new();
    let own = [b"r", owner.to_be_bytes().as_slice()].concat();
    for (key, value) in tx.prefix(Space::Records, &own)? {
        let (_, id) = key.split_last_chunk::<16>().ok_or_else(wrong)?;
        let recording: RecordingRecord = parse(&value)?;
        entries.push(RecordingEntry {
            id: (*id).into(),
            owner: None,
            shared: None,
            segments: recording.segments,
            summary: recording.summary,
        });
    }
    let inbox = [b"i", key.as_slice()].concat();
    for (inbox_key, _) in tx.prefix(Space::Records, &inbox)? {
        let (rest, id) = inbox_key.split_last_chunk::<16>().ok_or_else(wrong)?;
        let (_, leaf) = rest.split_last_chunk::<4>().ok_or_else(wrong)?;
        let leaf = Leaf::from_be_bytes(*leaf);
        let sealed = tx.bytes(Space::Records, &share_key(leaf, id, key))?;
        // Read while the recording is being forgotten, parts may be gone already.
        let (Some(owner), Some(recording), Some(sealed)) =
            (owners::key(tx, leaf)?, record(tx, leaf, id)?, sealed)
        else {
            continue;
        };
        entries.push(RecordingEntry {
            id: (*id).into(),
            owner: Some(owner.into()),
            shared: Some(sealed.into()),
            segments: recording.segments,
            summary: recording.summary,
        });
    }
    Ok(entries)
}

/// See [`Metadata::recording`](crate::store::Metadata::recording).
pub fn recording(
    tx: &Tx<'_>,
    owner: Leaf,
    id: &RecordingId,
    from: u64,
) -> Result<Option<Recording>, Error> {
    let Some(RecordingRecord { segments, summary }) = record(tx, owner, id)? else {
        return Ok(None);
    };
    let (first, last) = (head_key(owner, id, from), head_key(owner, id, segments));
    let mut heads = Vec::new();
    if from < segments {
        let found = tx.walk(Space::Records, &first, &last, MAX_HEADS)?;
        heads.extend(found.into_iter().map(|(_, head)| head.into()));
    }
    Ok(Some(Recording {
        segments,
        summary,
        heads,
    }))
}

/// How far one step of forgetting came.
#[derive(Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// There is no such recording.
    Unknown,
    /// Segments are left.
    Some,
    /// Everything is gone.
    All,
}

/// Forgets the last segments of a recording, at most [`FORGET_SEGMENTS`] with about
/// [`FORGET_CHUNKS`] chunks, and the recording itself with its first one.
pub fn forget_some(
    tx: &mut Tx<'_>,
    tree: &Tree,
    owner: Leaf,
    id: &RecordingId,
    now: u64,
) -> Result<Forgotten, Error> {
    let Some(mut recording) = record(tx, owner, id)? else {
        return Ok(Forgotten::Unknown);
    };
    let mut named: BTreeMap<ChunkRef, u64> = BTreeMap::new();
    let mut freed = 0;
    let before = recording.segments;
    let least = before.saturating_sub(FORGET_SEGMENTS);
    while recording.segments > least && named.len() < FORGET_CHUNKS {
        recording.segments -= 1;
        let seq = recording.segments;
        let Some(segment) = segment(tx, owner, id, seq)? else {
            continue;
        };
        freed += segment.manifest.len() as u64 + segment.head_len;
        for chunk in segment.chunks {
            *named.entry(chunk).or_default() += 1;
        }
        tx.remove(Space::Segments, segment_key(owner, id, seq));
        tx.remove(Space::Records, head_key(owner, id, seq));
    }
    for (chunk, refs) in named {
        let (tag, d1): (&Hash, &Hash) = (&chunk.tag, &chunk.d1);
        chunks::release(tx, tree, (tag, d1), owner, now, |member| {
            member.refs = member.refs.saturating_sub(refs);
            member.hold_until = 0;
        })?;
    }
    drop_shares(tx, owner, id)?;
    let all = recording.segments == 0;
    match all {
        true => {
            freed += recording.summary.len() as u64;
            tx.remove(Space::Records, record_key(owner, id));
        }
        false => tx.put(Space::Records, record_key(owner, id), &recording),
    }
    tx.count(|t| {
        t.recordings -= i64::from(all);
        t.segments -= signed(before - recording.segments);
        t.bytes_manifests -= signed(freed);
    });
    Ok(if all { Forgotten::All } else { Forgotten::Some })
}

fn drop_shares(tx: &mut Tx<'_>, owner: Leaf, id: &RecordingId) -> Result<(), Error> {
    let shares = [b"s", owner.to_be_bytes().as_slice(), id].concat();
    for (key, _) in tx.prefix(Space::Records, &shares)? {
        if let Some((_, reader)) = key.split_last_chunk::<32>() {
            unshare(tx, owner, id, reader)?;
        }
    }
    Ok(())
}

/// See [`Metadata::share`](crate::store::Metadata::share).
pub fn share(
    tx: &mut Tx<'_>,
    owner: Leaf,
    id: &RecordingId,
    reader: &Hash,
    sealed: &[u8],
) -> Result<bool, Error> {
    let known = known(tx, owner, id)?;
    if known {
        tx.put_bytes(
            Space::Records,
            share_key(owner, id, reader),
            sealed.to_vec(),
        );
        tx.put_bytes(Space::Records, inbox_key(reader, owner, id), Vec::new());
    }
    Ok(known)
}

/// See [`Metadata::unshare`](crate::store::Metadata::unshare).
pub fn unshare(
    tx: &mut Tx<'_>,
    owner: Leaf,
    id: &RecordingId,
    reader: &Hash,
) -> Result<bool, Error> {
    let key = share_key(owner, id, reader);
    let known = tx.bytes(Space::Records, &key)?.is_some();
    if known {
        tx.remove(Space::Records, key);
        tx.remove(Space::Records, inbox_key(reader, owner, id));
    }
    Ok(known)
}

/// Whether a recording is shared with a signing key.
pub fn is_shared(tx: &Tx<'_>, owner: Leaf, id: &RecordingId, reader: &Hash) -> Result<bool, Error> {
    Ok(tx
        .bytes(Space::Records, &share_key(owner, id, reader))?
        .is_some())
}

/// See [`Metadata::shared`](crate::store::Metadata::shared).
pub fn shared(
    tx: &Tx<'_>,
    owner: &Hash,
    id: &RecordingId,
    reader: &Hash,
) -> Result<Option<Leaf>, Error> {
    let Some(owner) = owners::owner(tx, owner)? else {
        return Ok(None);
    };
    let shared = is_shared(tx, owner.leaf, id, reader)?;
    Ok(shared.then_some(owner.leaf))
}
