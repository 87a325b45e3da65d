// SPDX-License-Identifier: MPL-2.0
//! What becomes of blobs that no variant names.
//!
//! A blob is used, in the trash, claimed for deletion, or deleted. A receipt says that a blob was
//! stored at some time; it must not count once the blob has been deleted after that, or a variant
//! could be added whose blob is gone. So deletions are remembered for as long as receipts live.

use super::tx::{Space, Tx};
use crate::store::record::BlobState;
use crate::store::{Error, Hash, RECEIPT_MS};

/// For as long as this a deletion is remembered: receipts' life and some difference of clocks.
const REMEMBER_MS: u64 = RECEIPT_MS + 3600 * 1000;
/// Old deletions forgotten in one transaction.
const FORGET_BATCH: usize = 4096;

fn state(tx: &Tx<'_>, d1: &Hash) -> Result<Option<BlobState>, Error> {
    tx.get(Space::Blobs, d1)
}

fn queue_key(queue: u8, at: u64, d1: &Hash) -> Vec<u8> {
    [&[queue], at.to_be_bytes().as_slice(), d1].concat()
}

fn trash_key(since: u64, d1: &Hash) -> Vec<u8> {
    queue_key(b't', since, d1)
}

fn deleted_key(at: u64, d1: &Hash) -> Vec<u8> {
    queue_key(b'd', at, d1)
}

/// Whether a receipt for a blob stored from `stored_ms` on still counts.
pub fn counts(tx: &Tx<'_>, d1: &Hash, stored_ms: u64) -> Result<bool, Error> {
    Ok(match state(tx, d1)? {
        Some(BlobState::Claimed(_)) => false,
        Some(BlobState::Deleted(at)) => stored_ms > at,
        Some(BlobState::Used(_) | BlobState::Trash(_)) | None => true,
    })
}

/// Takes a blob's place in the queues away.
fn unqueue(tx: &mut Tx<'_>, d1: &Hash, state: Option<BlobState>) -> Result<(), Error> {
    match state {
        Some(BlobState::Trash(since) | BlobState::Claimed(since)) => {
            tx.remove(Space::Queues, trash_key(since, d1));
            tx.count(|t| t.stats.blobs = t.stats.blobs.saturating_sub(1))
        }
        Some(BlobState::Deleted(at)) => {
            tx.remove(Space::Queues, deleted_key(at, d1));
            Ok(())
        }
        Some(BlobState::Used(_)) | None => Ok(()),
    }
}

fn queue(tx: &mut Tx<'_>, d1: &Hash, state: BlobState) -> Result<(), Error> {
    tx.put(Space::Blobs, d1.to_vec(), &state);
    match state {
        BlobState::Trash(since) | BlobState::Claimed(since) => {
            tx.put_bytes(Space::Queues, trash_key(since, d1), Vec::new());
            tx.count(|t| t.stats.blobs += 1)
        }
        BlobState::Deleted(at) => {
            tx.put_bytes(Space::Queues, deleted_key(at, d1), Vec::new());
            Ok(())
        }
        BlobState::Used(_) => Ok(()),
    }
}

/// One more variant names a blob.
pub fn use_blob(tx: &mut Tx<'_>, d1: &Hash) -> Result<(), Error> {
    let before = state(tx, d1)?;
    let uses = match before {
        Some(BlobState::Used(uses)) => uses + 1,
        _ => {
            unqueue(tx, d1, before)?;
            tx.count(|t| t.stats.blobs += 1)?;
            1
        }
    };
    queue(tx, d1, BlobState::Used(uses))
}

/// One variant fewer names a blob; the last one makes it trash.
pub fn free_blob(tx: &mut Tx<'_>, d1: &Hash, now: u64) -> Result<(), Error> {
    match state(tx, d1)? {
        Some(BlobState::Used(uses)) if uses > 1 => queue(tx, d1, BlobState::Used(uses - 1)),
        Some(BlobState::Used(_)) => {
            tx.count(|t| t.stats.blobs = t.stats.blobs.saturating_sub(1))?;
            queue(tx, d1, BlobState::Trash(now))
        }
        _ => Ok(()),
    }
}

/// A blob arrived that is not needed now.
pub fn discard(tx: &mut Tx<'_>, d1: &Hash, now: u64) -> Result<(), Error> {
    match state(tx, d1)? {
        Some(BlobState::Used(_) | BlobState::Claimed(_)) => Ok(()),
        before => {
            unqueue(tx, d1, before)?;
            queue(tx, d1, BlobState::Trash(now))
        }
    }
}

/// See [`Metadata::claim_trash`](crate::store::Metadata::claim_trash).
pub fn claim(tx: &mut Tx<'_>, before: u64, max: usize) -> Result<Vec<Hash>, Error> {
    let mut claimed = Vec::new();
    for pair in tx.walk(Space::Queues, b"t".to_vec(), trash_key(before, &[0; 32])) {
        let (since, d1) = parts(&pair?.0)?;
        claimed.push((since, d1));
        if claimed.len() >= max {
            break;
        }
    }
    for (since, d1) in &claimed {
        if state(tx, d1)? != Some(BlobState::Claimed(*since)) {
            tx.put(Space::Blobs, d1.to_vec(), &BlobState::Claimed(*since));
        }
    }
    Ok(claimed.into_iter().map(|(_, d1)| d1).collect())
}

/// See [`Metadata::claim_orphans`](crate::store::Metadata::claim_orphans).
pub fn claim_orphans(tx: &mut Tx<'_>, blobs: Vec<Hash>) -> Result<Vec<Hash>, Error> {
    let mut claimed = Vec::new();
    for d1 in blobs {
        // What is in the trash already waits there for its time.
        if let before @ (None | Some(BlobState::Deleted(_))) = state(tx, &d1)? {
            unqueue(tx, &d1, before)?;
            queue(tx, &d1, BlobState::Claimed(0))?;
            claimed.push(d1);
        }
    }
    Ok(claimed)
}

/// See [`Metadata::deleted`](crate::store::Metadata::deleted).
pub fn deleted(tx: &mut Tx<'_>, blobs: &[Hash], at: u64) -> Result<(), Error> {
    for d1 in blobs {
        if let before @ Some(BlobState::Claimed(_)) = state(tx, d1)? {
            unqueue(tx, d1, before)?;
            queue(tx, d1, BlobState::Deleted(at))?;
        }
    }
    let end = deleted_key(at.saturating_sub(REMEMBER_MS), &[0; 32]);
    let old = tx.walk(Space::Queues, b"d".to_vec(), end);
    for pair in old.take(FORGET_BATCH).collect::<Vec<_>>() {
        let (at, d1) = parts(&pair?.0)?;
        if state(tx, &d1)? == Some(BlobState::Deleted(at)) {
            unqueue(tx, &d1, Some(BlobState::Deleted(at)))?;
            tx.remove(Space::Blobs, d1.to_vec());
        }
    }
    Ok(())
}

fn parts(key: &[u8]) -> Result<(u64, Hash), Error> {
    let wrong = || Error::Corrupt("queue");
    let rest = key.get(1..).ok_or_else(wrong)?;
    let (at, d1) = rest.split_first_chunk::<8>().ok_or_else(wrong)?;
    let d1 = d1.try_into().map_err(|_| wrong())?;
    Ok((u64::from_be_bytes(*at), d1))
}
