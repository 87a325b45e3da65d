// SPDX-License-Identifier: MPL-2.0
//! Reads and pending writes of one transaction over the database's key spaces.

use crate::protocol::Stats;
use crate::store::Error;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use minicbor::{Decode, Encode};
use std::collections::BTreeMap;
use std::path::Path;

/// The key spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Space {
    /// Signing key → owner; leaf → signing key; totals.
    Owners,
    /// Tag, d1 → variant.
    Variants,
    /// d1 → state.
    Blobs,
    /// Recordings, heads and shares.
    Records,
    /// Owner, recording, number → segment.
    Segments,
    /// Holds and trash in the order of time.
    Queues,
    /// Signing key → party of the third party.
    Parties,
    /// Contract → its record.
    Contracts,
    /// Contract, number → ticket.
    Tickets,
    /// Words that were given away, under a keyed hash.
    Words,
    /// Index → receipt of a deletion; the end of the log.
    Log,
}

impl Space {
    /// Those of a metadata server.
    pub const METADATA: &[Self] = &[
        Self::Owners,
        Self::Variants,
        Self::Blobs,
        Self::Records,
        Self::Segments,
        Self::Queues,
    ];
    /// Those of a third party.
    pub const REGISTRY: &[Self] = &[
        Self::Parties,
        Self::Contracts,
        Self::Tickets,
        Self::Words,
        Self::Log,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Owners => "owners",
            Self::Variants => "variants",
            Self::Blobs => "blobs",
            Self::Records => "records",
            Self::Segments => "segments",
            Self::Queues => "queues",
            Self::Parties => "parties",
            Self::Contracts => "contracts",
            Self::Tickets => "tickets",
            Self::Words => "words",
            Self::Log => "log",
        }
    }
}

/// An open database.
pub struct Db {
    database: Database,
    spaces: Vec<(Space, Keyspace)>,
}

pub(super) fn engine(error: fjall::Error) -> Error {
    match error {
        fjall::Error::Io(error) => Error::io("database", error),
        fjall::Error::Storage(fjall::LsmError::Io(error)) => Error::io("database", error),
        // An earlier write failed in the background; this one has not begun.
        fjall::Error::Poisoned => Error::Again,
        fjall::Error::Locked => Error::Engine("another process has it open".into()),
        other => Error::Engine(other.to_string()),
    }
}

impl Db {
    /// Opens or creates the database in `dir`; what a killed process was writing is dropped.
    pub fn open(dir: &Path, spaces: &[Space]) -> Result<Self, Error> {
        let database = Database::builder(dir)
            .worker_threads(2)
            .cache_size(64 << 20)
            .open()
            .map_err(engine)?;
        let open = |&space: &Space| {
            // Small tables in memory: they have to find room on the disk when they are written.
            let options = KeyspaceCreateOptions::default().max_memtable_size(8 << 20);
            let separate = (space == Space::Segments).then(KvSeparationOptions::default);
            database
                .keyspace(space.name(), || options.with_kv_separation(separate))
                .map(|keyspace| (space, keyspace))
                .map_err(engine)
        };
        let spaces = spaces.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { database, spaces })
    }

    fn space(&self, space: Space) -> &Keyspace {
        match self.spaces.iter().find(|(this, _)| *this == space) {
            Some((_, keyspace)) => keyspace,
            None => unreachable!("a store opens the spaces that it uses"),
        }
    }
}

const TOTALS: &[u8] = b"totals";

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// One transaction. Reads see its own writes; nothing is written before [`Tx::commit`].
pub struct Tx<'a> {
    db: &'a Db,
    changes: BTreeMap<(Space, Vec<u8>), Option<Vec<u8>>>,
    totals: Option<Totals>,
}

/// Running totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Totals {
    /// What is reported.
    #[n(0)]
    pub stats: Stats,
    /// The next owner's leaf.
    #[n(1)]
    pub next_leaf: u64,
    /// The next variant's place in order.
    #[n(2)]
    pub next_order: u64,
}

impl<'a> Tx<'a> {
    /// Begins a transaction.
    pub fn new(db: &'a Db) -> Self {
        Self {
            db,
            changes: BTreeMap::new(),
            totals: None,
        }
    }

    /// The bytes under a key.
    pub fn bytes(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        if let Some(value) = self.changes.get(&(space, key.to_vec())) {
            return Ok(value.clone());
        }
        let value = self.db.space(space).get(key).map_err(engine)?;
        Ok(value.map(|v| v.to_vec()))
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
        let mut found = BTreeMap::new();
        for guard in self.db.space(space).prefix(prefix) {
            let (key, value) = guard.into_inner().map_err(engine)?;
            found.insert(key.to_vec(), value.to_vec());
        }
        let own = self.changes.range((space, prefix.to_vec())..);
        for ((_, key), value) in own.take_while(|((s, k), _)| *s == space && k.starts_with(prefix))
        {
            match value {
                Some(value) => found.insert(key.clone(), value.clone()),
                None => found.remove(key),
            };
        }
        Ok(found.into_iter().collect())
    }

    /// The committed pairs from `from` up to and without `to`, in order; a lazy walk that does
    /// not see this transaction's writes.
    pub fn walk(
        &self,
        space: Space,
        from: Vec<u8>,
        to: Vec<u8>,
    ) -> impl Iterator<Item = Result<Pair, Error>> + use<> {
        let range = self.db.space(space).range(from..to);
        range.map(|guard| {
            let (key, value) = guard.into_inner().map_err(engine)?;
            Ok((key.to_vec(), value.to_vec()))
        })
    }

    /// The totals.
    pub fn totals(&self) -> Result<Totals, Error> {
        match self.totals {
            Some(totals) => Ok(totals),
            None => Ok(self.get(Space::Owners, TOTALS)?.unwrap_or_default()),
        }
    }

    /// Changes the totals.
    pub fn count<T>(&mut self, change: impl FnOnce(&mut Totals) -> T) -> Result<T, Error> {
        let mut totals = self.totals()?;
        let out = change(&mut totals);
        self.totals = Some(totals);
        Ok(out)
    }

    /// Takes back all that this transaction would have written.
    pub fn abandon(&mut self) {
        self.changes.clear();
        self.totals = None;
    }

    /// Writes everything at once; durable when it returns.
    pub fn commit(mut self) -> Result<(), Error> {
        if let Some(totals) = self.totals {
            self.put(Space::Owners, TOTALS.to_vec(), &totals);
        }
        if self.changes.is_empty() {
            return Ok(());
        }
        let durable = Some(PersistMode::SyncAll);
        let mut batch = self.db.database.batch().durability(durable);
        for ((space, key), value) in self.changes {
            match value {
                Some(value) => batch.insert(self.db.space(space), key, value),
                None => batch.remove(self.db.space(space), key),
            }
        }
        batch.commit().map_err(engine)
    }
}

/// Reads a stored record.
pub fn parse<T: for<'b> Decode<'b, ()>>(bytes: &[u8]) -> Result<T, Error> {
    crate::protocol::decode(bytes).map_err(|_| Error::Corrupt("record"))
}
