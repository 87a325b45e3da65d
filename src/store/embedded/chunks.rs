// SPDX-License-Identifier: MPL-2.0
//! Variants: offering, joining, adding, leaving.

use super::owners::charge;
use super::recordings;
use super::trash;
use super::tx::{Space, Tx, parse};
use crate::ownership::{Leaf, Tree};
use crate::protocol::{ChunkRef, MAX_VARIANTS, Outcome, Variant};
use crate::store::record::{Member, VariantRecord, epoch};
use crate::store::{Error, HOLD_MS, Hash, Item, Opening, Place, Via};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use subtle::ConstantTimeEq as _;

const HOUR_MS: u64 = 3600 * 1000;
/// Holds ended in one transaction.
const EXPIRE_BATCH: usize = 4096;

/// Key of a variant.
pub fn key(tag: &Hash, d1: &Hash) -> Vec<u8> {
    [*tag, *d1].concat()
}

/// Tag and d1 of a key.
pub fn split(key: &[u8]) -> Result<(Hash, Hash), Error> {
    let wrong = || Error::Corrupt("variant key");
    let (tag, d1) = key.split_first_chunk::<32>().ok_or_else(wrong)?;
    Ok((*tag, d1.try_into().map_err(|_| wrong())?))
}

/// The healthy variants of a tag, oldest first.
fn healthy(tx: &Tx<'_>, tag: &Hash) -> Result<Vec<(Hash, VariantRecord)>, Error> {
    let mut found = Vec::new();
    for (key, value) in tx.prefix(Space::Variants, tag)? {
        let record: VariantRecord = parse(&value)?;
        if !record.damaged {
            found.push((split(&key)?.1, record));
        }
    }
    found.sort_by_key(|(_, record)| record.order);
    Ok(found)
}

/// Those that an owner has to look at: the oldest ones, a bounded number, and of those it holds
/// or has added at least the oldest. (Others could have filled the tag before it.)
fn considered(mut all: Vec<(Hash, VariantRecord)>, owner: Leaf) -> Vec<(Hash, VariantRecord)> {
    let own = |(_, r): &(Hash, VariantRecord)| r.members.contains_key(&owner);
    match all.iter().position(own).filter(|at| *at >= MAX_VARIANTS) {
        Some(at) => {
            all.swap(MAX_VARIANTS - 1, at);
            all.truncate(MAX_VARIANTS);
        }
        None => all.truncate(MAX_VARIANTS),
    }
    all
}

/// See [`Metadata::lookup`](crate::store::Metadata::lookup).
pub fn lookup(tx: &Tx<'_>, tree: &Tree, owner: Leaf, tag: &Hash) -> Result<Vec<Variant>, Error> {
    let found = considered(healthy(tx, tag)?, owner);
    let shown = found.iter().map(|(d1, r)| r.shown(tree, tag, d1));
    Ok(shown.collect())
}

fn hold_key(until: u64, tag: &Hash, d1: &Hash, leaf: Leaf) -> Vec<u8> {
    let (until, leaf) = (until.to_be_bytes(), leaf.to_be_bytes());
    [b"h", until.as_slice(), tag, d1, &leaf].concat()
}

/// Writes a variant whose member `owner` has changed from `before`, with its hold and its charge.
fn put_member(
    tx: &mut Tx<'_>,
    (tag, d1): (&Hash, &Hash),
    record: &VariantRecord,
    owner: Leaf,
    before: Option<Member>,
) -> Result<(), Error> {
    let after = record.members.get(&owner).copied();
    let hold = |m: Option<Member>| m.map_or(0, |m| m.hold_until);
    let len = u64::from(record.len);
    if hold(before) != hold(after) {
        if hold(before) != 0 {
            tx.remove(Space::Queues, hold_key(hold(before), tag, d1, owner));
        }
        if hold(after) != 0 {
            let key = hold_key(hold(after), tag, d1, owner);
            tx.put_bytes(Space::Queues, key, Vec::new());
        }
    }
    let charged = |m: Option<Member>| m.map_or(0, |m| m.charged() * len);
    charge(tx, owner, charged(before), charged(after))?;
    let refs = |m: Option<Member>| m.map_or(0, |m| m.refs * len);
    tx.count(|t| {
        let logical = &mut t.stats.bytes_logical;
        *logical = logical.saturating_sub(refs(before)) + refs(after);
    })?;
    tx.put(Space::Variants, key(tag, d1), record);
    Ok(())
}

/// Makes `owner` hold a variant that exists.
fn hold(
    tx: &mut Tx<'_>,
    tree: &Tree,
    (tag, d1): (&Hash, &Hash),
    mut record: VariantRecord,
    owner: Leaf,
    until: u64,
) -> Result<(), Error> {
    let before = record.members.get(&owner).copied();
    match before {
        Some(member) if member.refs > 0 || member.hold_until == until => return Ok(()),
        Some(_) => {
            record.members.insert(owner, held(until));
        }
        None => record.join(tree, (tag, d1), owner, held(until))?,
    }
    put_member(tx, (tag, d1), &record, owner, before)
}

fn held(hold_until: u64) -> Member {
    let refs = 0;
    Member { refs, hold_until }
}

/// See [`Metadata::register`](crate::store::Metadata::register).
pub fn register(
    tx: &mut Tx<'_>,
    tree: &Tree,
    owner: Leaf,
    item: &Item,
    now: u64,
) -> Result<Outcome, Error> {
    let (tag, d1) = (&item.tag, &item.d1);
    // Whole hours, so that registering again within one changes nothing and writes nothing.
    let until = (now + HOLD_MS).next_multiple_of(HOUR_MS);
    let stored = match item.stored_ms {
        Some(at) => trash::counts(tx, d1, at)?,
        None => false,
    };
    if let Some(mut record) = tx.get::<VariantRecord>(Space::Variants, &key(tag, d1))? {
        let right = bool::from(record.c3.ct_eq(&item.c3)) && record.len == item.len;
        if !right || (record.damaged && !stored) {
            return Ok(Outcome::NoBlob);
        }
        if record.damaged {
            // The same bytes have just been stored again.
            record.damaged = false;
            tx.put(Space::Variants, key(tag, d1), &record);
        }
        let added = stored && record.creator == owner;
        hold(tx, tree, (tag, d1), record, owner, until)?;
        return Ok(if added {
            Outcome::Added
        } else {
            Outcome::Joined
        });
    }
    let all = healthy(tx, tag)?;
    let first_of_tag = all.is_empty();
    let added_before = all.iter().any(|(_, r)| r.creator == owner);
    let unseen: Vec<Variant> = considered(all, owner)
        .iter()
        .filter(|(d1, _)| !item.refused.contains(d1))
        .map(|(d1, r)| r.shown(tree, tag, d1))
        .collect();
    let refusal = match (unseen.is_empty(), stored) {
        (false, _) => Some(Outcome::Unseen(unseen)),
        (true, false) => Some(Outcome::NoBlob),
        (true, true) => added_before.then_some(Outcome::SecondVariant),
    };
    if let Some(refusal) = refusal {
        if stored {
            trash::discard(tx, d1, now)?;
        }
        return Ok(refusal);
    }
    // Damaged variants of the tag may still be there.
    let new_tag = first_of_tag && tx.prefix(Space::Variants, tag)?.is_empty();
    let epoch = epoch()?;
    let order = tx.count(|t| {
        t.stats.chunks += u64::from(new_tag);
        t.stats.variants += 1;
        t.stats.bytes_stored += u64::from(item.len);
        t.next_order += 1;
        t.next_order
    })?;
    let record = VariantRecord {
        order,
        epoch,
        c2: tree.admit(tag, d1, &epoch, &item.c2),
        c3: item.c3,
        len: item.len,
        creator: owner,
        created_ms: now,
        damaged: false,
        members: [(owner, held(until))].into(),
    };
    trash::use_blob(tx, d1)?;
    put_member(tx, (tag, d1), &record, owner, None)?;
    Ok(Outcome::Added)
}

/// Adds `refs` references of an owner that holds the variant; `false` if it does not.
pub fn refer(tx: &mut Tx<'_>, chunk: &ChunkRef, owner: Leaf, refs: u64) -> Result<bool, Error> {
    let (tag, d1): (&Hash, &Hash) = (&chunk.tag, &chunk.d1);
    let record = tx.get::<VariantRecord>(Space::Variants, &key(tag, d1))?;
    let Some(mut record) = record.filter(|r| !r.damaged) else {
        return Ok(false);
    };
    let Some(member) = record.members.get_mut(&owner) else {
        return Ok(false);
    };
    let before = *member;
    member.refs += refs;
    member.hold_until = 0;
    put_member(tx, (tag, d1), &record, owner, Some(before))?;
    Ok(true)
}

/// Changes an owner's part in a variant; a part that is empty afterwards makes it leave.
pub fn release(
    tx: &mut Tx<'_>,
    tree: &Tree,
    (tag, d1): (&Hash, &Hash),
    owner: Leaf,
    now: u64,
    change: impl FnOnce(&mut Member),
) -> Result<(), Error> {
    let record = tx.get::<VariantRecord>(Space::Variants, &key(tag, d1))?;
    let Some(mut record) = record else {
        return Ok(());
    };
    let Some(member) = record.members.get_mut(&owner) else {
        return Ok(());
    };
    let before = *member;
    change(member);
    let gone = member.refs == 0 && member.hold_until == 0;
    let remains = !gone || record.leave(tree, (tag, d1), owner)?;
    put_member(tx, (tag, d1), &record, owner, Some(before))?;
    match remains {
        true => Ok(()),
        false => remove(tx, (tag, d1), &record, now),
    }
}

/// The last owner has left: `C2` and `C3` are gone with the record, and the blob is trash.
fn remove(
    tx: &mut Tx<'_>,
    (tag, d1): (&Hash, &Hash),
    record: &VariantRecord,
    now: u64,
) -> Result<(), Error> {
    tx.remove(Space::Variants, key(tag, d1));
    let last_of_tag = tx.prefix(Space::Variants, tag)?.is_empty();
    tx.count(|t| {
        let s = &mut t.stats;
        s.chunks = s.chunks.saturating_sub(u64::from(last_of_tag));
        s.variants = s.variants.saturating_sub(1);
        s.bytes_stored = s.bytes_stored.saturating_sub(record.len.into());
    })?;
    trash::free_blob(tx, d1, now)
}

/// See [`Metadata::expire_holds`](crate::store::Metadata::expire_holds).
pub fn expire(tx: &mut Tx<'_>, tree: &Tree, now: u64) -> Result<usize, Error> {
    let end = [b"h", now.to_be_bytes().as_slice()].concat();
    let due = tx.walk(Space::Queues, b"h".to_vec(), end);
    let due: Vec<_> = due.take(EXPIRE_BATCH).collect::<Result<_, _>>()?;
    for (hold, _) in &due {
        let wrong = || Error::Corrupt("hold");
        let (variant, leaf) = hold
            .get(9..)
            .and_then(|k| k.split_last_chunk::<4>())
            .ok_or_else(wrong)?;
        let (tag, d1) = split(variant)?;
        tx.remove(Space::Queues, hold.clone());
        let end = |member: &mut Member| {
            if member.hold_until <= now {
                member.hold_until = 0;
            }
        };
        release(tx, tree, (&tag, &d1), Leaf::from_be_bytes(*leaf), now, end)?;
    }
    Ok(due.len())
}

/// See [`Metadata::open`](crate::store::Metadata::open).
pub fn open(
    tx: &Tx<'_>,
    tree: &Tree,
    reader: Leaf,
    chunks: &[ChunkRef],
    via: Option<Via>,
) -> Result<Vec<Option<Opening>>, Error> {
    let granted: Option<BTreeSet<ChunkRef>> = match via {
        None => None,
        Some(via) => {
            let segment = recordings::segment(tx, via.owner, &via.id, via.seq)?;
            Some(segment.map_or_else(BTreeSet::new, |s| s.chunks.into_iter().collect()))
        }
    };
    let open = |chunk: &ChunkRef| {
        let (tag, d1): (&Hash, &Hash) = (&chunk.tag, &chunk.d1);
        let holder = via.map_or(reader, |via| via.owner);
        if granted.as_ref().is_some_and(|g| !g.contains(chunk)) {
            return Ok(None);
        }
        let record = tx.get::<VariantRecord>(Space::Variants, &key(tag, d1))?;
        let held = record.filter(|r| r.members.contains_key(&holder));
        Ok(held.map(|r| Opening {
            wrapped: r.wrapped(tree, tag, d1, reader),
            c3: r.c3,
        }))
    };
    chunks.iter().map(open).collect()
}

/// See [`Metadata::variants`](crate::store::Metadata::variants).
pub fn places(tx: &Tx<'_>, after: Option<(Hash, Hash)>, max: usize) -> Result<Vec<Place>, Error> {
    let mut found = Vec::new();
    let read = |place: Place, _: VariantRecord| {
        found.push(place);
        match found.len() < max {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    };
    each(tx, after, read)?;
    Ok(found)
}

/// Walks over all variants behind `after`, in order, until told to break off.
pub fn each(
    tx: &Tx<'_>,
    after: Option<(Hash, Hash)>,
    mut read: impl FnMut(Place, VariantRecord) -> ControlFlow<()>,
) -> Result<(), Error> {
    let from = after.map_or_else(Vec::new, |(tag, d1)| [key(&tag, &d1), vec![0]].concat());
    for pair in tx.walk(Space::Variants, from, vec![0xff; 65]) {
        let (key, value) = pair?;
        let (tag, d1) = split(&key)?;
        let record: VariantRecord = parse(&value)?;
        let place = Place {
            tag,
            d1,
            len: record.len,
            damaged: record.damaged,
        };
        if read(place, record).is_break() {
            break;
        }
    }
    Ok(())
}

/// See [`Metadata::mark`](crate::store::Metadata::mark).
pub fn mark(tx: &mut Tx<'_>, tag: &Hash, d1: &Hash, damaged: bool) -> Result<bool, Error> {
    let Some(mut record) = tx.get::<VariantRecord>(Space::Variants, &key(tag, d1))? else {
        return Ok(false);
    };
    if record.damaged != damaged {
        record.damaged = damaged;
        tx.put(Space::Variants, key(tag, d1), &record);
    }
    Ok(true)
}
