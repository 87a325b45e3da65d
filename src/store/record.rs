// SPDX-License-Identifier: MPL-2.0
//! What is stored of a variant, of a blob, of recordings and segments.

use super::{Allowance, Error, Hash};
use crate::ownership::{Copy, Epoch, Leaf, Tree, Wrapped};
use crate::protocol::{self, ChunkRef, Held, Variant};
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::data::Type;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use std::collections::{BTreeMap, BTreeSet};

/// An owner's part in a variant: named by recordings, or else held for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Member {
    /// How often its recordings name the chunk.
    #[n(0)]
    pub refs: u64,
    /// Until when it is held without being named; 0: not held.
    #[n(1)]
    pub hold_until: u64,
}

impl Member {
    /// How many times the chunk's length counts against the owner's quota.
    pub fn charged(&self) -> u64 {
        self.refs.max(1)
    }
}

/// One stored copy of a chunk.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct VariantRecord {
    /// Rises with each variant of a tag: the order in which they are offered.
    #[n(0)]
    pub order: u64,
    /// Names the group key.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub epoch: Epoch,
    /// `C2'`.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub c2: Hash,
    /// `C3`.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub c3: Hash,
    /// Bytes of the chunk.
    #[n(4)]
    pub len: u32,
    /// Who added it.
    #[n(5)]
    pub creator: Leaf,
    /// When.
    #[n(6)]
    pub created_ms: u64,
    /// The blob is missing or damaged.
    #[n(7)]
    pub damaged: bool,
    /// The owner group.
    #[n(8)]
    pub group: Group,
}

/// The owners of a variant. Stored as a map or as a number.
#[derive(Clone, Debug)]
pub enum Group {
    /// All of them.
    Here(BTreeMap<Leaf, Member>),
    /// So many, each in a row of its own.
    Rows(u64),
}

impl Group {
    /// Whether nobody is left.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Here(members) => members.is_empty(),
            Self::Rows(number) => *number == 0,
        }
    }
}

impl<C> Encode<C> for Group {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        match self {
            Self::Here(members) => members.encode(e, ctx),
            Self::Rows(number) => number.encode(e, ctx),
        }
    }
}

impl<'b, C> Decode<'b, C> for Group {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, decode::Error> {
        match d.datatype()? {
            Type::Map | Type::MapIndef => Ok(Self::Here(Decode::decode(d, ctx)?)),
            _ => Ok(Self::Rows(Decode::decode(d, ctx)?)),
        }
    }
}

/// Draws an epoch.
pub fn epoch() -> Result<Epoch, Error> {
    let mut epoch = [0u8; 16];
    getrandom::fill(&mut epoch).map_err(|_| Error::Random)?;
    Ok(epoch)
}

impl VariantRecord {
    fn copy<'a>(&'a self, tag: &'a Hash, d1: &'a Hash) -> Copy<'a> {
        Copy {
            tag,
            d1,
            epoch: self.epoch,
            c2_sealed: &self.c2,
        }
    }

    /// What a would-be joiner sees.
    pub fn shown(&self, tree: &Tree, tag: &Hash, d1: &Hash) -> Variant {
        Variant {
            c2: tree.c2(&self.copy(tag, d1)).into(),
            c3_check: protocol::c3_check(&self.c3),
            d1: (*d1).into(),
        }
    }

    /// A new group key, for whenever an owner joins or leaves.
    pub fn renew(&mut self, tree: &Tree, (tag, d1): (&Hash, &Hash)) -> Result<(), Error> {
        let fresh = epoch()?;
        self.c2 = tree.renew(&self.copy(tag, d1), fresh);
        self.epoch = fresh;
        Ok(())
    }

    /// What a member or an invited reader gets; `near` are at least the members
    /// [near](crate::ownership::near) it.
    pub fn wrapped(
        &self,
        tree: &Tree,
        (tag, d1): (&Hash, &Hash),
        near: &BTreeSet<Leaf>,
        reader: Leaf,
    ) -> Wrapped {
        tree.wrap(&self.copy(tag, d1), near, reader)
    }
}

/// State of a blob's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum BlobState {
    /// So many variants name it.
    #[n(0)]
    Used(#[n(0)] u32),
    /// In the trash since.
    #[n(1)]
    Trash(#[n(0)] u64),
    /// Being deleted; in the trash since.
    #[n(2)]
    Claimed(#[n(0)] u64),
    /// Deleted at, on the storage server's clock.
    #[n(3)]
    Deleted(#[n(0)] u64),
}

/// A recording.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct RecordingRecord {
    /// Number of segments, those that are no longer kept among them.
    #[n(0)]
    pub segments: u64,
    /// Sealed summary.
    #[n(1)]
    pub summary: ByteVec,
    /// The first segment that is kept.
    #[n(2)]
    pub first: u64,
    /// No segment that is kept was committed before.
    #[n(3)]
    pub oldest_ms: u64,
    /// Who holds it.
    #[n(4)]
    pub held: Held,
}

/// A segment without its head.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct SegmentRecord {
    /// BLAKE3 of the whole commit.
    #[n(0)]
    pub digest: ByteArray<32>,
    /// Sealed manifest.
    #[n(1)]
    pub manifest: ByteVec,
    /// The chunks that it names.
    #[n(2)]
    pub chunks: Vec<ChunkRef>,
    /// Bytes of its head.
    #[n(3)]
    pub head_len: u64,
    /// When it was committed.
    #[n(4)]
    pub committed_ms: u64,
}

/// How much of an [`Allowance`] is left.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Balance {
    #[n(0)]
    left: u64,
    /// When that was so.
    #[n(1)]
    at: u64,
    /// When it may be forgotten.
    #[n(2)]
    pub until: u64,
}

impl Balance {
    /// All of it.
    pub fn full(allowance: &Allowance, now: u64) -> Self {
        Self {
            left: allowance.burst,
            at: now,
            until: allowance.until,
        }
    }

    /// See [`Metadata::spend`](super::Metadata::spend).
    pub fn take(&mut self, amount: u64, allowance: &Allowance, now: u64) -> Option<u64> {
        let Allowance {
            burst,
            per_s,
            until,
        } = *allowance;
        let passed = now.saturating_sub(self.at);
        let gained = passed.saturating_mul(per_s) / 1000;
        // Less than a whole one is not lost: its time counts from the last whole one on.
        self.at += gained
            .saturating_mul(1000)
            .checked_div(per_s)
            .unwrap_or(0)
            .min(passed);
        self.left = self.left.saturating_add(gained).min(burst);
        match self.left.checked_sub(amount) {
            Some(left) => {
                (self.left, self.until) = (left, until);
                None
            }
            None => {
                let lacking = (amount - self.left).saturating_mul(1000);
                Some(lacking.checked_div(per_s).map_or(u64::MAX, |ms| ms + 1))
            }
        }
    }
}
