// SPDX-License-Identifier: MPL-2.0
//! Who owns a variant. Up to [`HERE`] members stand in its record; if there are more, each has a
//! row, so that one who joins, names it or leaves costs the same however many there are.
//!
//! Once in rows, a group stays there until its last member leaves.

use super::tx::{Tx, following};
use super::{Space, chunks};
use crate::ownership::{self, Leaf};
use crate::store::record::{Group, Member};
use crate::store::{Error, Hash};
use std::collections::BTreeSet;

/// Members that a record has room for: a few bytes each, and read with it. A row has some 80.
const HERE: usize = 64;

fn row((tag, d1): (&Hash, &Hash), leaf: Leaf) -> Vec<u8> {
    [chunks::key(tag, d1).as_slice(), &leaf.to_be_bytes()].concat()
}

/// Whose row it is.
pub fn leaf_of(row: &[u8]) -> Result<Leaf, Error> {
    let (_, leaf) = row.split_last_chunk().ok_or(Error::Corrupt("member"))?;
    Ok(Leaf::from_be_bytes(*leaf))
}

/// An owner's part in a variant, if it is a member.
pub fn get(
    tx: &Tx<'_>,
    variant: (&Hash, &Hash),
    group: &Group,
    owner: Leaf,
) -> Result<Option<Member>, Error> {
    match group {
        Group::Here(members) => Ok(members.get(&owner).copied()),
        Group::Rows(_) => tx.get(Space::Members, &row(variant, owner)),
    }
}

/// The members next to a reader, for [`Tree::wrap`](ownership::Tree::wrap).
pub fn near(
    tx: &Tx<'_>,
    variant: (&Hash, &Hash),
    group: &Group,
    reader: Leaf,
) -> Result<BTreeSet<Leaf>, Error> {
    match group {
        Group::Here(members) => Ok(members.keys().copied().collect()),
        Group::Rows(_) => {
            let leaves = ownership::near(reader);
            let from = row(variant, *leaves.start());
            let to = following(&row(variant, *leaves.end()));
            let rows = tx.walk(Space::Members, &from, &to, usize::MAX)?;
            rows.iter().map(|(row, _)| leaf_of(row)).collect()
        }
    }
}

/// Changes an owner's part from `before` to `after`; `None`: it is not a member.
pub fn put(
    tx: &mut Tx<'_>,
    variant: (&Hash, &Hash),
    group: &mut Group,
    owner: Leaf,
    (before, after): (Option<Member>, Option<Member>),
) -> Result<(), Error> {
    match group {
        Group::Here(members) => {
            match after {
                Some(member) => members.insert(owner, member),
                None => members.remove(&owner),
            };
            if members.len() > HERE {
                for (leaf, member) in &*members {
                    tx.put(Space::Members, row(variant, *leaf), member);
                }
                *group = Group::Rows(members.len() as u64);
            }
        }
        Group::Rows(number) => {
            match after {
                Some(member) => tx.put(Space::Members, row(variant, owner), &member),
                None => tx.remove(Space::Members, row(variant, owner)),
            }
            let more = i64::from(after.is_some()) - i64::from(before.is_some());
            *number = number.saturating_add_signed(more);
            if *number == 0 {
                // Looked at, so that a wrong number does not end a group that has members.
                let (tag, d1) = variant;
                let left = tx.prefix(Space::Members, &chunks::key(tag, d1))?;
                *number = left.len() as u64;
            }
        }
    }
    Ok(())
}
