// SPDX-License-Identifier: MPL-2.0
//! One transaction: what it reads, over what it is about to write.

use crate::protocol::Stats;
use crate::store::Error;
use minicbor::{Decode, Encode};
use std::collections::BTreeMap;

/// The key spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Space {
    /// Signing key → owner; leaf → signing key, usage, retention; the next leaf.
    Owners,
    /// Tag, d1 → variant.
    Variants,
    /// Tag, d1, leaf → an owner's part in a variant that has many.
    Members,
    /// d1 → state.
    Blobs,
    /// Recordings, heads and shares.
    Records,
    /// Owner, recording, number → segment.
    Segments,
    /// Holds and trash in the order of time.
    Queues,
    /// What servers keep for each other.
    Servers,
    /// Signing key → party of the third party; its parameters.
    Parties,
    /// Contract → its record.
    Contracts,
    /// Contract, number → ticket.
    Tickets,
    /// Words that were given away, under a keyed hash.
    Words,
    /// Index → receipt of a deletion; the end of the log.
    Log,
    /// Strand, number → tickets or a report, with their hashes; strand → the next number.
    Features,
}

impl Space {
    /// Those of a metadata server.
    pub const METADATA: &[Self] = &[
        Self::Owners,
        Self::Variants,
        Self::Members,
        Self::Blobs,
        Self::Records,
        Self::Segments,
        Self::Queues,
        Self::Servers,
    ];
    /// Those of a third party.
    pub const REGISTRY: &[Self] = &[
        Self::Parties,
        Self::Contracts,
        Self::Tickets,
        Self::Words,
        Self::Log,
        Self::Features,
        Self::Servers,
    ];

    /// Its name in a database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owners => "owners",
            Self::Variants => "variants",
            Self::Members => "members",
            Self::Blobs => "blobs",
            Self::Records => "records",
            Self::Segments => "segments",
            Self::Queues => "queues",
            Self::Servers => "servers",
            Self::Parties => "parties",
            Self::Contracts => "contracts",
            Self::Tickets => "tickets",
            Self::Words => "words",
            Self::Log => "log",
            Self::Features => "features",
        }
    }
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// What a transaction reads: what is committed.
///
/// A source that has not got something may answer that there is nothing, and note that it was
/// asked: its engine then fetches that and does the work again. So work changes nothing but its
/// [`Tx`], can be done any number of times, and comes to an end whatever it reads.
pub trait Source {
    /// The value under a key.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    /// The first `limit` pairs from `from` up to and without `to`, in order.
    fn range(&self, space: Space, from: &[u8], to: &[u8], limit: usize)
    -> Result<Vec<Pair>, Error>;

    /// The same for the keys that begin with `queue`: a source may know up to where there are
    /// none.
    fn queue(
        &self,
        space: Space,
        queue: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, Error> {
        self.range(space, queue, to, limit)
    }
}

/// Signed changes of the fields of [`Stats`]: they can be added in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    pub bytes_logical: i64,
    pub bytes_stored: i64,
    pub chunks: i64,
    pub variants: i64,
    pub blobs: i64,
    pub recordings: i64,
    pub owners: i64,
    pub bytes_manifests: i64,
    pub segments: i64,
}

impl Delta {
    /// From nothing to `stats`.
    pub fn of(stats: &Stats) -> Self {
        Self {
            bytes_logical: signed(stats.bytes_logical),
            bytes_stored: signed(stats.bytes_stored),
            chunks: signed(stats.chunks),
            variants: signed(stats.variants),
            blobs: signed(stats.blobs),
            recordings: signed(stats.recordings),
            owners: signed(stats.owners),
            bytes_manifests: signed(stats.bytes_manifests),
            segments: signed(stats.segments),
        }
    }

    /// What leads from `before` to this.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            bytes_logical: self.bytes_logical - before.bytes_logical,
            bytes_stored: self.bytes_stored - before.bytes_stored,
            chunks: self.chunks - before.chunks,
            variants: self.variants - before.variants,
            blobs: self.blobs - before.blobs,
            recordings: self.recordings - before.recordings,
            owners: self.owners - before.owners,
            bytes_manifests: self.bytes_manifests - before.bytes_manifests,
            segments: self.segments - before.segments,
        }
    }

    /// What `stats` become.
    pub fn applied(&self, stats: &Stats) -> Stats {
        Stats {
            bytes_logical: stats
                .bytes_logical
                .saturating_add_signed(self.bytes_logical),
            bytes_stored: stats.bytes_stored.saturating_add_signed(self.bytes_stored),
            chunks: stats.chunks.saturating_add_signed(self.chunks),
            variants: stats.variants.saturating_add_signed(self.variants),
            blobs: stats.blobs.saturating_add_signed(self.blobs),
            recordings: stats.recordings.saturating_add_signed(self.recordings),
            owners: stats.owners.saturating_add_signed(self.owners),
            bytes_manifests: stats
                .bytes_manifests
                .saturating_add_signed(self.bytes_manifests),
            segments: stats.segments.saturating_add_signed(self.segments),
        }
    }
}

/// For differences.
pub fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Values to put and keys to take out (`None`).
pub type Changes = BTreeMap<(Space, Vec<u8>), Option<Vec<u8>>>;

/// One transaction. Reads see its own writes; nothing is written before an engine writes it.
pub struct Tx<'a> {
    source: &'a dyn Source,
    changes: Changes,
    delta: Delta,
}

impl<'a> Tx<'a> {
    /// Begins a transaction.
    pub fn new(source: &'a dyn Source) -> Self {
        Self {
            source,
            changes: BTreeMap::new(),
            delta: Delta::default(),
        }
    }

    /// The bytes under a key.
    pub fn bytes(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match self.changes.get(&(space, key.to_vec())) {
            Some(value) => Ok(value.clone()),
            None => self.source.get(space, key),
        }
    }

    /// The record under a key.
    pub fn get<T: for<'b> Decode<'b, ()>>(
        &self,
        space: Space,
        key: &[u8],
    ) -> Result<Option<T>, Error> {
        self.bytes(space, key)?.map(|v| parse(&v)).transpose()
    }

    /// Puts bytes under a key.
    pub fn put_bytes(&mut self, space: Space, key: Vec<u8>, value: Vec<u8>) {
        self.changes.insert((space, key), Some(value));
    }

    /// Puts a record under a key.
    pub fn put<T: Encode<()>>(&mut self, space: Space, key: Vec<u8>, value: &T) {
        self.put_bytes(space, key, crate::protocol::encode(value));
    }

    /// Takes a key out.
    pub fn remove(&mut self, space: Space, key: Vec<u8>) {
        self.changes.insert((space, key), None);
    }

    /// The pairs whose key begins with `prefix`, in order.
    pub fn prefix(&self, space: Space, prefix: &[u8]) -> Result<Vec<Pair>, Error> {
        let to = behind(prefix);
        let committed = self.source.range(space, prefix, &to, usize::MAX)?;
        let mut found: BTreeMap<_, _> = committed.into_iter().collect();
        for ((_, key), value) in self.changes.range((space, prefix.to_vec())..(space, to)) {
            match value {
                Some(value) => found.insert(key.clone(), value.clone()),
                None => found.remove(key),
            };
        }
        Ok(found.into_iter().collect())
    }

    /// The first `limit` committed pairs from `from` up to and without `to`, in order; without
    /// this transaction's writes. Others may change what it finds before this transaction ends:
    /// look at each record again before you change it.
    pub fn walk(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, Error> {
        self.source.range(space, from, to, limit)
    }

    /// Walks a queue from its head: keys that begin with `queue`, up to and without `to`, which
    /// are taken out where they are the smallest. See [`Tx::walk`].
    pub fn queue(
        &self,
        space: Space,
        queue: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, Error> {
        self.source.queue(space, queue, to, limit)
    }

    /// Changes the totals.
    pub fn count(&mut self, change: impl FnOnce(&mut Delta)) {
        change(&mut self.delta);
    }

    /// Takes back all that this transaction would have written.
    pub fn abandon(&mut self) {
        self.changes.clear();
        self.delta = Delta::default();
    }

    /// What is to be written.
    pub fn finish(self) -> (Changes, Delta) {
        (self.changes, self.delta)
    }
}

/// The first key behind all that begin with `prefix`. (No key is as long as 128 bytes.)
pub fn behind(prefix: &[u8]) -> Vec<u8> {
    let mut key = prefix.to_vec();
    while key.pop_if(|byte| *byte == u8::MAX).is_some() {}
    match key.last_mut() {
        Some(last) => *last += 1,
        None => key = vec![u8::MAX; 128],
    }
    key
}

/// The first key behind this one.
pub fn following(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// Reads a stored record.
pub fn parse<T: for<'b> Decode<'b, ()>>(bytes: &[u8]) -> Result<T, Error> {
    crate::protocol::decode(bytes).map_err(|_| Error::Corrupt("record"))
}
