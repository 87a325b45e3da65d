// SPDX-License-Identifier: MPL-2.0
//! What becomes of blobs that no variant names.
//!
//! A blob is used, in the trash, claimed for deletion, or deleted. A receipt says that a blob was
//! stored at some time; it must not count once the blob has been deleted after that, or a variant
//! could be added whose blob is gone. So deletions are remembered for as long as receipts live.
//! Nor must a later one count: a server that claimed the blob too may delete it at any time, and
//! nobody can tell how late. From its claim on a name cannot be used until its deletion is
//! forgotten.

use super::{Space, Tx};
use crate::store::record::BlobState;
use crate::store::{Error, Hash, RECEIPT_MS};

/// For as long as this a deletion is remembered: receipts' life and some difference of clocks.
const REMEMBER_MS: u64 = RECEIPT_MS + 3600 * 1000;
/// Old deletions forgotten in one transaction.
const FORGET_BATCH: usize = 256;

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

/// Whether a blob of this name can be used: nobody has begun to delete it.
pub fn usable(tx: &Tx<'_>, d1: &Hash) -> Result<bool, Error> {
    Ok(match state(tx, d1)? {
        Some(BlobState::Claimed(_) | BlobState::Deleted(_)) => false,
        Some(BlobState::Used(_) | BlobState::Trash(_)) | None => true,
    })
}

/// Takes a blob's place in the queues away.
fn unqueue(tx: &mut Tx<'_>, d1: &Hash, state: Option<BlobState>) {
    match state {
        Some(BlobState::Trash(since) | BlobState::Claimed(since)) => {
            tx.remove(Space::Queues, trash_key(since, d1));
            tx.count(|t| t.blobs -= 1);
        }
        Some(BlobState::Deleted(at)) => tx.remove(Space::Queues, deleted_key(at, d1)),
        Some(BlobState::Used(_)) | None => (),
    }
}

fn queue(tx: &mut Tx<'_>, d1: &Hash, state: BlobState) {
    tx.put(Space::Blobs, d1.to_vec(), &state);
    match state {
        BlobState::Trash(since) | BlobState::Claimed(since) => {
            tx.put_bytes(Space::Queues, trash_key(since, d1), Vec::new());
            tx.count(|t| t.blobs += 1);
        }
        BlobState::Deleted(at) => tx.put_bytes(Space::Queues, deleted_key(at, d1), Vec::new()),
        BlobState::Used(_) => (),
    }
}

/// One more variant names a blob.
pub fn use_blob(tx: &mut Tx<'_>, d1: &Hash) -> Result<(), Error> {
    let before = state(tx, d1)?;
    let uses = match before {
        Some(BlobState::Used(uses)) => uses + 1,
        _ => {
            unqueue(tx, d1, before);
            tx.count(|t| t.blobs += 1);
            1
        }
    };
    queue(tx, d1, BlobState::Used(uses));
    Ok(())
}

/// One variant fewer names a blob; the last one makes it trash.
pub fn free_blob(tx: &mut Tx<'_>, d1: &Hash, now: u64) -> Result<(), Error> {
    match state(tx, d1)? {
        Some(BlobState::Used(uses)) if uses > 1 => queue(tx, d1, BlobState::Used(uses - 1)),
        Some(BlobState::Used(_)) => {
            tx.count(|t| t.blobs -= 1);
            queue(tx, d1, BlobState::Trash(now));
        }
        _ => (),
    }
    Ok(())
}

/// A blob arrived that is not needed now.
pub fn discard(tx: &mut Tx<'_>, d1: &Hash, now: u64) -> Result<(), Error> {
    match state(tx, d1)? {
        Some(BlobState::Used(_) | BlobState::Claimed(_) | BlobState::Deleted(_)) => (),
        before => {
            unqueue(tx, d1, before);
            queue(tx, d1, BlobState::Trash(now));
        }
    }
    Ok(())
}

/// See [`Metadata::claim_trash`](crate::store::Metadata::claim_trash).
pub fn claim(tx: &mut Tx<'_>, before: u64, max: usize) -> Result<Vec<Hash>, Error> {
    let mut claimed = Vec::new();
    for (key, _) in tx.queue(Space::Queues, b"t", &trash_key(before, &[0; 32]), max)? {
        let (since, d1) = parts(&key)?;
        match state(tx, &d1)? {
            Some(BlobState::Claimed(at)) if at == since => claimed.push(d1),
            Some(BlobState::Trash(at)) if at == since => {
                tx.put(Space::Blobs, d1.to_vec(), &BlobState::Claimed(since));
                claimed.push(d1);
            }
            // Used again meanwhile.
            _ => (),
        }
    }
    Ok(claimed)
}

/// See [`Metadata::claim_orphans`](crate::store::Metadata::claim_orphans).
pub fn claim_orphans(tx: &mut Tx<'_>, blobs: &[Hash]) -> Result<Vec<Hash>, Error> {
    let mut claimed = Vec::new();
    for d1 in blobs {
        // What is in the trash already waits there for its time; what has been claimed as an
        // orphan is given again.
        match state(tx, d1)? {
            before @ (None | Some(BlobState::Deleted(_))) => {
                unqueue(tx, d1, before);
                queue(tx, d1, BlobState::Claimed(0));
            }
            Some(BlobState::Claimed(0)) => (),
            _ => continue,
        }
        claimed.push(*d1);
    }
    Ok(claimed)
}

/// See [`Metadata::deleted`](crate::store::Metadata::deleted).
pub fn deleted(tx: &mut Tx<'_>, blobs: &[Hash], at: u64) -> Result<(), Error> {
    for d1 in blobs {
        if let before @ Some(BlobState::Claimed(_)) = state(tx, d1)? {
            unqueue(tx, d1, before);
            queue(tx, d1, BlobState::Deleted(at));
        }
    }
    let end = deleted_key(at.saturating_sub(REMEMBER_MS), &[0; 32]);
    for (key, _) in tx.queue(Space::Queues, b"d", &end, FORGET_BATCH)? {
        let (at, d1) = parts(&key)?;
        if state(tx, &d1)? == Some(BlobState::Deleted(at)) {
            unqueue(tx, &d1, Some(BlobState::Deleted(at)));
            tx.remove(Space::Blobs, d1.to_vec());
        }
    }
    Ok(())
}

/// Corrects by how many variants a blob is named, if it is still recorded as it was. One that is
/// named by none is an orphan again, found by its name among the blobs.
pub fn mend(
    tx: &mut Tx<'_>,
    d1: &Hash,
    recorded: Option<BlobState>,
    counted: u32,
) -> Result<bool, Error> {
    if state(tx, d1)? != recorded {
        return Ok(false);
    }
    let was_used = matches!(recorded, Some(BlobState::Used(_)));
    unqueue(tx, d1, recorded);
    match counted {
        0 => tx.remove(Space::Blobs, d1.to_vec()),
        uses => queue(tx, d1, BlobState::Used(uses)),
    }
    tx.count(|t| t.blobs += i64::from(counted > 0) - i64::from(was_used));
    Ok(true)
}

fn parts(key: &[u8]) -> Result<(u64, Hash), Error> {
    let wrong = || Error::Corrupt("queue");
    let rest = key.get(1..).ok_or_else(wrong)?;
    let (at, d1) = rest.split_first_chunk::<8>().ok_or_else(wrong)?;
    let d1 = d1.try_into().map_err(|_| wrong())?;
    Ok((u64::from_be_bytes(*at), d1))
}
