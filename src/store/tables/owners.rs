// SPDX-License-Identifier: MPL-2.0
//! Enrolled identities and what each one's chunks add up to.

use super::{Space, Tx};
use crate::ownership::Leaf;
use crate::protocol::Retention;
use crate::store::{Error, Hash, Owner};
use minicbor::{Decode, Encode};

#[derive(Encode, Decode)]
#[cbor(map)]
struct OwnerRecord {
    #[n(0)]
    leaf: Leaf,
    #[cbor(n(1), with = "minicbor::bytes")]
    agree: Hash,
}

/// Where the next owner's leaf is.
pub const NEXT_LEAF: &[u8] = b"next leaf";

fn key_of(leaf: Leaf) -> Vec<u8> {
    [b"l".as_slice(), &leaf.to_be_bytes()].concat()
}

pub(super) fn usage_of(leaf: Leaf) -> Vec<u8> {
    [b"u".as_slice(), &leaf.to_be_bytes()].concat()
}

fn retention_of(leaf: Leaf) -> Vec<u8> {
    [b"r".as_slice(), &leaf.to_be_bytes()].concat()
}

/// See [`Metadata::retention`](crate::store::Metadata::retention).
pub fn retention(tx: &Tx<'_>, leaf: Leaf) -> Result<Retention, Error> {
    let set = tx.get(Space::Owners, &retention_of(leaf))?;
    Ok(set.unwrap_or_default())
}

/// See [`Metadata::set_retention`](crate::store::Metadata::set_retention).
pub fn set_retention(tx: &mut Tx<'_>, leaf: Leaf, retention: &Retention) {
    tx.put(Space::Owners, retention_of(leaf), retention);
}

/// Bytes charged to an owner.
pub fn usage(tx: &Tx<'_>, leaf: Leaf) -> Result<u64, Error> {
    Ok(tx.get(Space::Owners, &usage_of(leaf))?.unwrap_or(0))
}

/// Changes what is charged to an owner.
pub fn charge(tx: &mut Tx<'_>, leaf: Leaf, before: u64, after: u64) -> Result<(), Error> {
    if before != after {
        let bytes = usage(tx, leaf)?
            .saturating_sub(before)
            .saturating_add(after);
        tx.put(Space::Owners, usage_of(leaf), &bytes);
    }
    Ok(())
}

/// See [`Metadata::enroll`](crate::store::Metadata::enroll).
pub fn enroll(tx: &mut Tx<'_>, key: Hash, agree: Hash) -> Result<Leaf, Error> {
    if let Some(record) = tx.get::<OwnerRecord>(Space::Owners, &key)? {
        return Ok(record.leaf);
    }
    let leaf: Leaf = tx.get(Space::Owners, NEXT_LEAF)?.unwrap_or(0);
    let next = leaf.checked_add(1).ok_or(Error::Full)?;
    tx.put(Space::Owners, NEXT_LEAF.to_vec(), &next);
    tx.count(|t| t.owners += 1);
    tx.put(Space::Owners, key.to_vec(), &OwnerRecord { leaf, agree });
    tx.put_bytes(Space::Owners, key_of(leaf), key.to_vec());
    Ok(leaf)
}

/// See [`Metadata::owner`](crate::store::Metadata::owner).
pub fn owner(tx: &Tx<'_>, key: &Hash) -> Result<Option<Owner>, Error> {
    let Some(OwnerRecord { leaf, agree }) = tx.get(Space::Owners, key)? else {
        return Ok(None);
    };
    let bytes = usage(tx, leaf)?;
    Ok(Some(Owner { leaf, agree, bytes }))
}

/// The signing key of a leaf.
pub fn key(tx: &Tx<'_>, leaf: Leaf) -> Result<Option<Hash>, Error> {
    let key = tx.bytes(Space::Owners, &key_of(leaf))?;
    key.map(|k| Hash::try_from(k.as_slice()).map_err(|_| Error::Corrupt("owner")))
        .transpose()
}
