// SPDX-License-Identifier: MPL-2.0
//! Recordings, their segments, and who else may read them.

use super::owners;
use super::tx::{behind, following, signed};
use super::{Space, Tx, chunks, parse};
use crate::identity::RecordingId;
use crate::ownership::{Leaf, Tree};
use crate::protocol::{
    self, ChunkRef, Commit, Committed, Held, Holder, Recording, RecordingEntry, Recordings,
};
use crate::store::record::{RecordingRecord, SegmentRecord};
use crate::store::{Error, Hash, Listed};
use std::collections::BTreeMap;

/// Heads in one answer.
const MAX_HEADS: usize = 1000;
/// Recordings in one page of a list.
const MAX_LISTED: usize = 1000;
/// A page ends behind the recording with which summaries and sealed names in it are so many bytes.
const MAX_LISTED_BYTES: usize = 1 << 20;
/// Chunks released in one transaction, roughly.
const FORGET_CHUNKS: usize = 4096;
/// Segments forgotten in one transaction.
const FORGET_SEGMENTS: u64 = 64;
/// Likewise where it is to be seen after each whether there are more: few, for whatever is looked
/// at has to be read.
const TRIM_SEGMENTS: u64 = 8;

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
    now: u64,
) -> Result<Committed, Error> {
    let digest = *blake3::hash(&protocol::encode(commit)).as_bytes();
    let known = record(tx, owner, id)?;
    let mut recording = known.clone().unwrap_or_else(|| RecordingRecord {
        segments: 0,
        summary: Vec::new().into(),
        first: 0,
        oldest_ms: now,
        held: Held::new(),
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
        committed_ms: now,
    };
    tx.put(Space::Segments, segment_key(owner, id, seq), &segment);
    Ok(Committed::Done)
}

/// See [`Metadata::recordings`](crate::store::Metadata::recordings).
pub fn list(
    tx: &Tx<'_>,
    owner: Leaf,
    reader: &Hash,
    after: Option<Listed>,
) -> Result<Recordings, Error> {
    let own = [b"r", owner.to_be_bytes().as_slice()].concat();
    let inbox = [b"i", reader.as_slice()].concat();
    let (own_from, inbox_from) = match after {
        None => (own.clone(), inbox.clone()),
        Some(Listed::Own(id)) => (following(&record_key(owner, &id)), inbox.clone()),
        Some(Listed::Shared(leaf, id)) => (behind(&own), following(&inbox_key(reader, leaf, &id))),
    };
    let mut page = Page::default();
    for (key, value) in tx.walk(Space::Records, &own_from, &behind(&own), MAX_LISTED + 1)? {
        let recording: RecordingRecord = parse(&value)?;
        if !page.push(*id_of(&key)?, recording, None) {
            return Ok(page.into());
        }
    }
    let mut from = inbox_from;
    loop {
        // What may fit, and one more.
        let wanted = MAX_LISTED - page.recordings.len() + 1;
        let found = tx.walk(Space::Records, &from, &behind(&inbox), wanted)?;
        let are_all = found.len() < wanted;
        for (key, _) in found {
            from = following(&key);
            let id = id_of(&key)?;
            let (_, leaf) = key[..key.len() - id.len()]
                .split_last_chunk::<4>()
                .ok_or(WRONG_KEY)?;
            let leaf = Leaf::from_be_bytes(*leaf);
            let sealed = tx.bytes(Space::Records, &share_key(leaf, id, reader))?;
            // Read while the recording is being forgotten, parts may be gone already.
            let (Some(owner), Some(recording), Some(sealed)) =
                (owners::key(tx, leaf)?, record(tx, leaf, id)?, sealed)
            else {
                continue;
            };
            if !page.push(*id, recording, Some((owner, sealed))) {
                return Ok(page.into());
            }
        }
        if are_all {
            return Ok(page.into());
        }
    }
}

const WRONG_KEY: Error = Error::Corrupt("recording key");

fn id_of(key: &[u8]) -> Result<&RecordingId, Error> {
    key.last_chunk::<16>().ok_or(WRONG_KEY)
}

/// A part of a list of recordings.
#[derive(Default)]
struct Page {
    recordings: Vec<RecordingEntry>,
    bytes: usize,
    more: bool,
}

impl Page {
    /// Adds an entry, with its owner's key and sealed name if it is shared; `false` if there was
    /// no room.
    fn push(
        &mut self,
        id: RecordingId,
        recording: RecordingRecord,
        shared: Option<(Hash, Vec<u8>)>,
    ) -> bool {
        self.more = self.recordings.len() >= MAX_LISTED || self.bytes >= MAX_LISTED_BYTES;
        if self.more {
            return false;
        }
        let (owner, sealed) = shared.unzip();
        self.bytes += recording.summary.len() + sealed.as_ref().map_or(0, Vec::len);
        self.recordings.push(RecordingEntry {
            id: id.into(),
            owner: owner.map(Into::into),
            shared: sealed.map(Into::into),
            segments: recording.segments,
            summary: recording.summary,
            first: recording.first,
            held: recording.held,
        });
        true
    }
}

impl From<Page> for Recordings {
    fn from(page: Page) -> Self {
        Self {
            recordings: page.recordings,
            more: page.more,
        }
    }
}

/// See [`Metadata::recording`](crate::store::Metadata::recording).
pub fn recording(
    tx: &Tx<'_>,
    owner: Leaf,
    id: &RecordingId,
    from: u64,
) -> Result<Option<Recording>, Error> {
    let Some(recording) = record(tx, owner, id)? else {
        return Ok(None);
    };
    let RecordingRecord {
        segments, first, ..
    } = recording;
    let from = from.max(first);
    let mut heads = Vec::new();
    if from < segments {
        let (from, to) = (head_key(owner, id, from), head_key(owner, id, segments));
        let found = tx.walk(Space::Records, &from, &to, MAX_HEADS)?;
        heads.extend(found.into_iter().map(|(_, head)| head.into()));
    }
    Ok(Some(Recording {
        segments,
        summary: recording.summary,
        heads,
        first,
        held: recording.held,
    }))
}

/// How far one step of forgetting came.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// There is no such recording.
    Unknown,
    /// It is under hold.
    Held,
    /// Segments are left.
    Some,
    /// Everything is gone.
    All,
}

/// Forgets some of the first segments of a recording, and the recording itself with its last one.
pub fn forget_some(
    tx: &mut Tx<'_>,
    tree: &Tree,
    owner: Leaf,
    id: &RecordingId,
    now: u64,
) -> Result<Step, Error> {
    let Some(recording) = record(tx, owner, id)? else {
        return Ok(Step::Unknown);
    };
    if !recording.held.is_empty() {
        return Ok(Step::Held);
    }
    drop_shares(tx, owner, id)?;
    let before = recording.segments - recording.first;
    let most = FORGET_SEGMENTS;
    let dropped = drop_first(tx, tree, (owner, id), recording, most, now, |_, _| Ok(true))?;
    Ok(if dropped == before {
        Step::All
    } else {
        Step::Some
    })
}

/// See [`Metadata::trim`](crate::store::Metadata::trim).
pub fn trim(
    tx: &mut Tx<'_>,
    tree: &Tree,
    owner: Leaf,
    oldest: u64,
    now: u64,
) -> Result<u64, Error> {
    let keep = owners::retention(tx, owner)?;
    let wanted = keep.age_ms.map_or(0, |age| now.saturating_sub(age));
    let oldest = oldest.max(wanted);
    let bytes = keep.bytes.unwrap_or(u64::MAX);
    let own = [b"r", owner.to_be_bytes().as_slice()].concat();
    let mut found: Option<(u64, RecordingId)> = None;
    for (key, value) in tx.walk(Space::Records, &own, &behind(&own), usize::MAX)? {
        let recording: RecordingRecord = parse(&value)?;
        let this = (recording.oldest_ms, *id_of(&key)?);
        if recording.held.is_empty() && found.is_none_or(|found| this < found) {
            found = Some(this);
        }
    }
    let over = |tx: &Tx<'_>| Ok::<_, Error>(owners::usage(tx, owner)? > bytes);
    let Some((since, id)) = found else {
        return Ok(0);
    };
    if since >= oldest && !over(tx)? {
        return Ok(0);
    }
    // Looked at again: others may have changed it.
    let recording = record(tx, owner, &id)?.filter(|recording| recording.held.is_empty());
    let Some(recording) = recording else {
        return Ok(0);
    };
    let goes = |tx: &Tx<'_>, committed| Ok(committed < oldest || over(tx)?);
    drop_first(tx, tree, (owner, &id), recording, TRIM_SEGMENTS, now, goes)
}

/// Forgets the first segments of a recording as long as `goes` says so of the next one, by when it
/// was committed: at most `most` with about [`FORGET_CHUNKS`] chunks. The recording goes with its
/// last one. How many.
fn drop_first(
    tx: &mut Tx<'_>,
    tree: &Tree,
    (owner, id): (Leaf, &RecordingId),
    mut recording: RecordingRecord,
    most: u64,
    now: u64,
    goes: impl Fn(&Tx<'_>, u64) -> Result<bool, Error>,
) -> Result<u64, Error> {
    let (before, mut freed, mut chunks) = (recording.first, 0, 0);
    let most = recording.segments.min(before + most);
    while recording.first < most && chunks < FORGET_CHUNKS {
        let seq = recording.first;
        let Some(segment) = segment(tx, owner, id, seq)? else {
            recording.first += 1;
            continue;
        };
        recording.oldest_ms = segment.committed_ms;
        if !goes(tx, segment.committed_ms)? {
            break;
        }
        recording.first += 1;
        freed += segment.manifest.len() as u64 + segment.head_len;
        let mut named: BTreeMap<ChunkRef, u64> = BTreeMap::new();
        for chunk in segment.chunks {
            *named.entry(chunk).or_default() += 1;
        }
        chunks += named.len();
        for (chunk, refs) in named {
            let (tag, d1): (&Hash, &Hash) = (&chunk.tag, &chunk.d1);
            chunks::release(tx, tree, (tag, d1), owner, now, |member| {
                member.refs = member.refs.saturating_sub(refs);
                member.hold_until = 0;
            })?;
        }
        tx.remove(Space::Segments, segment_key(owner, id, seq));
        tx.remove(Space::Records, head_key(owner, id, seq));
    }
    let dropped = recording.first - before;
    let all = recording.first == recording.segments;
    match all {
        true => {
            freed += recording.summary.len() as u64;
            drop_shares(tx, owner, id)?;
            tx.remove(Space::Records, record_key(owner, id));
        }
        false => tx.put(Space::Records, record_key(owner, id), &recording),
    }
    tx.count(|t| {
        t.recordings -= i64::from(all);
        t.segments -= signed(dropped);
        t.bytes_manifests -= signed(freed);
    });
    Ok(dropped)
}

/// See [`Metadata::hold`](crate::store::Metadata::hold).
pub fn hold(
    tx: &mut Tx<'_>,
    owner: Leaf,
    id: &RecordingId,
    by: Holder,
    on: bool,
) -> Result<bool, Error> {
    let Some(mut recording) = record(tx, owner, id)? else {
        return Ok(false);
    };
    let changed = match on {
        true => recording.held.insert(by),
        false => recording.held.remove(&by),
    };
    if changed {
        tx.put(Space::Records, record_key(owner, id), &recording);
    }
    Ok(true)
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
