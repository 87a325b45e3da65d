// SPDX-License-Identifier: MPL-2.0
//! Variants: offering, joining, adding, leaving.

use super::owners::charge;
use super::tx::{behind, following, signed};
use super::{Space, Tx, members, parse, recordings, trash};
use crate::ownership::{Leaf, Tree};
use crate::protocol::{ChunkRef, MAX_VARIANTS, Outcome, Variant};
use crate::store::record::{Group, Member, VariantRecord, epoch};
use crate::store::{Error, HOLD_MS, Hash, Item, Opening, Place, Via};
use std::collections::{BTreeMap, BTreeSet};
use subtle::ConstantTimeEq as _;

const HOUR_MS: u64 = 3600 * 1000;
/// Holds ended in one transaction.
const EXPIRE_BATCH: usize = 64;

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

/// The variants of a tag, oldest first.
fn of_tag(tx: &Tx<'_>, tag: &Hash) -> Result<Vec<(Hash, VariantRecord)>, Error> {
    let mut found = Vec::new();
    for (key, value) in tx.prefix(Space::Variants, tag)? {
        found.push((split(&key)?.1, parse::<VariantRecord>(&value)?));
    }
    found.sort_by_key(|(_, record)| record.order);
    Ok(found)
}

fn healthy(mut all: Vec<(Hash, VariantRecord)>) -> Vec<(Hash, VariantRecord)> {
    all.retain(|(_, record)| !record.damaged);
    all
}

/// Those that an owner has to look at: the oldest ones, a bounded number, and of those it holds
/// or has added at least the oldest. (Others could have filled the tag before it.)
fn considered(
    tx: &Tx<'_>,
    tag: &Hash,
    mut all: Vec<(Hash, VariantRecord)>,
    owner: Leaf,
) -> Result<Vec<(Hash, VariantRecord)>, Error> {
    if all.len() > MAX_VARIANTS {
        for (at, (d1, record)) in all.iter().enumerate() {
            if members::get(tx, (tag, d1), &record.group, owner)?.is_some() {
                all.swap(at.min(MAX_VARIANTS - 1), at);
                break;
            }
        }
        all.truncate(MAX_VARIANTS);
    }
    Ok(all)
}

/// See [`Metadata::lookup`](crate::store::Metadata::lookup).
pub fn lookup(tx: &Tx<'_>, tree: &Tree, owner: Leaf, tag: &Hash) -> Result<Vec<Variant>, Error> {
    let found = considered(tx, tag, healthy(of_tag(tx, tag)?), owner)?;
    let shown = found.iter().map(|(d1, r)| r.shown(tree, tag, d1));
    Ok(shown.collect())
}

fn hold_key(until: u64, tag: &Hash, d1: &Hash, leaf: Leaf) -> Vec<u8> {
    let (until, leaf) = (until.to_be_bytes(), leaf.to_be_bytes());
    [b"h", until.as_slice(), tag, d1, &leaf].concat()
}

/// Changes `owner`'s part in a variant from `before` to `after`, with its hold and its charge.
fn put_member(
    tx: &mut Tx<'_>,
    (tag, d1): (&Hash, &Hash),
    record: &mut VariantRecord,
    owner: Leaf,
    (before, after): (Option<Member>, Option<Member>),
) -> Result<(), Error> {
    // Else all that changes is a row.
    let write = matches!(record.group, Group::Here(_)) || before.is_some() != after.is_some();
    members::put(tx, (tag, d1), &mut record.group, owner, (before, after))?;
    if write {
        tx.put(Space::Variants, key(tag, d1), record);
    }
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
    tx.count(|t| t.bytes_logical += signed(refs(after)) - signed(refs(before)));
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
    let before = members::get(tx, (tag, d1), &record.group, owner)?;
    match before {
        Some(member) if member.refs > 0 || member.hold_until == until => return Ok(()),
        Some(_) => (),
        None => record.renew(tree, (tag, d1))?,
    }
    let change = (before, Some(held(until)));
    put_member(tx, (tag, d1), &mut record, owner, change)
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
    let stored = item.stored && trash::usable(tx, d1)?;
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
    let all = of_tag(tx, tag)?;
    // Damaged variants are in the order, too.
    let order = all
        .last()
        .map_or(1, |(_, last)| last.order.saturating_add(1));
    let new_tag = all.is_empty();
    let all = healthy(all);
    let added_before = all.iter().any(|(_, r)| r.creator == owner);
    let unseen: Vec<Variant> = considered(tx, tag, all, owner)?
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
    let epoch = epoch()?;
    tx.count(|t| {
        t.chunks += i64::from(new_tag);
        t.variants += 1;
        t.bytes_stored += i64::from(item.len);
    });
    let mut record = VariantRecord {
        order,
        epoch,
        c2: tree.admit(tag, d1, &epoch, &item.c2),
        c3: item.c3,
        len: item.len,
        creator: owner,
        created_ms: now,
        damaged: false,
        group: Group::Here(BTreeMap::new()),
    };
    trash::use_blob(tx, d1)?;
    let change = (None, Some(held(until)));
    put_member(tx, (tag, d1), &mut record, owner, change)?;
    Ok(Outcome::Added)
}

/// Adds `refs` references of an owner that holds the variant; `false` if it does not.
pub fn refer(tx: &mut Tx<'_>, chunk: &ChunkRef, owner: Leaf, refs: u64) -> Result<bool, Error> {
    let (tag, d1): (&Hash, &Hash) = (&chunk.tag, &chunk.d1);
    let record = tx.get::<VariantRecord>(Space::Variants, &key(tag, d1))?;
    let Some(mut record) = record.filter(|r| !r.damaged) else {
        return Ok(false);
    };
    let Some(before) = members::get(tx, (tag, d1), &record.group, owner)? else {
        return Ok(false);
    };
    let after = Member {
        refs: before.refs + refs,
        hold_until: 0,
    };
    let change = (Some(before), Some(after));
    put_member(tx, (tag, d1), &mut record, owner, change)?;
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
    let Some(before) = members::get(tx, (tag, d1), &record.group, owner)? else {
        return Ok(());
    };
    let mut after = before;
    change(&mut after);
    let stays = after.refs > 0 || after.hold_until > 0;
    if !stays {
        record.renew(tree, (tag, d1))?;
    }
    let change = (Some(before), stays.then_some(after));
    put_member(tx, (tag, d1), &mut record, owner, change)?;
    match record.group.is_empty() {
        true => remove(tx, (tag, d1), &record, now),
        false => Ok(()),
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
        t.chunks -= i64::from(last_of_tag);
        t.variants -= 1;
        t.bytes_stored -= i64::from(record.len);
    });
    trash::free_blob(tx, d1, now)
}

/// See [`Metadata::expire_holds`](crate::store::Metadata::expire_holds).
pub fn expire(tx: &mut Tx<'_>, tree: &Tree, now: u64) -> Result<usize, Error> {
    let end = [b"h", now.to_be_bytes().as_slice()].concat();
    let due = tx.queue(Space::Queues, b"h", &end, EXPIRE_BATCH)?;
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
        let Some(record) = record else {
            return Ok(None);
        };
        // Both at once.
        let near = members::near(tx, (tag, d1), &record.group, reader)?;
        let held = members::get(tx, (tag, d1), &record.group, holder)?;
        Ok(held.map(|_| Opening {
            wrapped: record.wrapped(tree, (tag, d1), &near, reader),
            c3: record.c3,
        }))
    };
    chunks.iter().map(open).collect()
}

/// See [`Metadata::variants`](crate::store::Metadata::variants).
pub fn places(tx: &Tx<'_>, after: Option<(Hash, Hash)>, max: usize) -> Result<Vec<Place>, Error> {
    let from = after.map_or_else(Vec::new, |(tag, d1)| following(&key(&tag, &d1)));
    let mut found = Vec::new();
    for (key, value) in tx.walk(Space::Variants, &from, &behind(&[]), max)? {
        let (tag, d1) = split(&key)?;
        let record: VariantRecord = parse(&value)?;
        found.push(Place {
            tag,
            d1,
            len: record.len,
            damaged: record.damaged,
        });
    }
    Ok(found)
}

/// Corrects how often an owner's recordings name a variant, if it is still recorded as it was.
pub fn mend(
    tx: &mut Tx<'_>,
    tree: &Tree,
    (tag, d1): (&Hash, &Hash),
    owner: Leaf,
    now: u64,
    (recorded, counted): (u64, u64),
) -> Result<bool, Error> {
    let record = tx.get::<VariantRecord>(Space::Variants, &key(tag, d1))?;
    let member = match record {
        Some(record) => members::get(tx, (tag, d1), &record.group, owner)?,
        None => None,
    };
    let as_it_was = member.is_some_and(|m| m.refs == recorded);
    if as_it_was {
        release(tx, tree, (tag, d1), owner, now, |m| m.refs = counted)?;
    }
    Ok(as_it_was)
}

/// Corrects how many members a variant has in rows, if it is still recorded as it was.
pub fn mend_number(
    tx: &mut Tx<'_>,
    (tag, d1): (&Hash, &Hash),
    now: u64,
    (recorded, counted): (u64, u64),
) -> Result<bool, Error> {
    let record = tx.get::<VariantRecord>(Space::Variants, &key(tag, d1))?;
    let as_it_was = |r: &VariantRecord| matches!(r.group, Group::Rows(n) if n == recorded);
    let Some(mut record) = record.filter(as_it_was) else {
        return Ok(false);
    };
    match counted {
        0 => remove(tx, (tag, d1), &record, now)?,
        _ => {
            record.group = Group::Rows(counted);
            tx.put(Space::Variants, key(tag, d1), &record);
        }
    }
    Ok(true)
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
