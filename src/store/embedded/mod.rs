// SPDX-License-Identifier: MPL-2.0
//! The embedded engine (fjall): one process has the database.
//!
//! One writer at a time under a mutex; every transaction is one atomic batch, synced to disk
//! before the answer. Readers take no part in the mutex. A database that fails in the middle of a
//! write refuses all further ones (it cannot know what reached the disk): it is then closed and
//! opened again, which drops what was not written whole.

mod queues;

use super::tables::{
    Changes, Delta, Engine, Needs, Pair, Snapshot, Source, Space, TableRegistry, Tables, Tx, parse,
};
use super::{Error, Room};
use crate::identity::AeadKey;
use crate::ownership::Tree;
use crate::protocol::{self, Stats};
use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode, Readable as _,
};
use queues::Queues;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;
use tokio::sync::OwnedMutexGuard;

/// The embedded metadata store. Clones share one database.
pub type Embedded = Tables<Fjall>;

impl Embedded {
    /// Opens or creates the store in `dir`. `tree` wraps the group keys; writes that add
    /// something stop while the file system has less than `room`'s reserve free.
    pub fn open(dir: &Path, tree: Tree, room: Room) -> Result<Self, Error> {
        Ok(Self::new(Fjall::open(dir, Space::METADATA, room)?, tree))
    }
}

/// The embedded store of a third party. Clones share one database.
pub type EmbeddedRegistry = TableRegistry<Fjall>;

impl EmbeddedRegistry {
    /// Opens or creates the store in `dir`. `key` seals the secrets of tickets; writes that add
    /// something stop while the file system has less than `room`'s reserve free.
    pub async fn open(dir: &Path, key: AeadKey, room: Room) -> Result<Self, Error> {
        Self::new(Fjall::open(dir, Space::REGISTRY, room)?, key).await
    }
}

/// An open database.
struct Db {
    opened: Instant,
    database: Database,
    spaces: Vec<(Space, Keyspace)>,
    queues: Mutex<Queues>,
}

fn failed(error: fjall::Error) -> Error {
    match error {
        fjall::Error::Io(error) => Error::io("database", error),
        fjall::Error::Storage(fjall::LsmError::Io(error)) => Error::io("database", error),
        // An earlier write failed in the background; this one has not begun.
        fjall::Error::Poisoned => Error::Again,
        fjall::Error::Locked => Error::Engine("another process has it open".into()),
        other => Error::Engine(other.to_string()),
    }
}

/// Where the totals are.
const TOTALS: (Space, &[u8]) = (Space::Servers, b"totals");

impl Db {
    /// Opens or creates the database in `dir`; what a killed process was writing is dropped.
    fn open(dir: &Path, spaces: &[Space]) -> Result<Self, Error> {
        let database = Database::builder(dir)
            .worker_threads(2)
            .cache_size(64 << 20)
            .open()
            .map_err(failed)?;
        let open = |&space: &Space| {
            // Small tables in memory: they have to find room on the disk when they are written.
            let options = KeyspaceCreateOptions::default().max_memtable_size(8 << 20);
            let separate = (space == Space::Segments).then(KvSeparationOptions::default);
            database
                .keyspace(space.name(), || options.with_kv_separation(separate))
                .map(|keyspace| (space, keyspace))
                .map_err(failed)
        };
        let spaces = spaces.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self {
            opened: Instant::now(),
            database,
            spaces,
            queues: Mutex::default(),
        })
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn space(&self, space: Space) -> &Keyspace {
        match self.spaces.iter().find(|(this, _)| *this == space) {
            Some((_, keyspace)) => keyspace,
            None => unreachable!("a store opens the spaces that it uses"),
        }
    }

    fn totals(&self) -> Result<Stats, Error> {
        let totals = self.get(TOTALS.0, TOTALS.1)?;
        Ok(totals.map(|t| parse(&t)).transpose()?.unwrap_or_default())
    }

    /// Writes everything at once; durable when it returns. For the writer alone.
    fn write(&self, mut changes: Changes, delta: Delta) -> Result<(), Error> {
        if delta != Delta::default() {
            let totals = protocol::encode(&delta.applied(&self.totals()?));
            changes.insert((TOTALS.0, TOTALS.1.to_vec()), Some(totals));
        }
        if changes.is_empty() {
            return Ok(());
        }
        let durable = Some(PersistMode::SyncAll);
        let mut batch = self.database.batch().durability(durable);
        let mut queues = self.queues();
        for ((space, key), value) in changes {
            match value {
                Some(value) => {
                    queues.added(space, &key);
                    batch.insert(self.space(space), key, value);
                }
                None => batch.remove(self.space(space), key),
            }
        }
        batch.commit().map_err(failed)
    }
}

fn pairs(found: fjall::Iter, limit: usize) -> Result<Vec<Pair>, Error> {
    let pair = |guard: fjall::Guard| {
        let (key, value) = guard.into_inner().map_err(failed)?;
        Ok((key.to_vec(), value.to_vec()))
    };
    found.take(limit).map(pair).collect()
}

impl Source for Db {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let value = self.space(space).get(key).map_err(failed)?;
        Ok(value.map(|v| v.to_vec()))
    }

    fn range(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, Error> {
        pairs(self.space(space).range(from..to), limit)
    }
}

/// What the writer reads.
struct Writer<'a>(&'a Db);

impl Source for Writer<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.0.get(space, key)
    }

    fn range(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, Error> {
        self.0.range(space, from, to, limit)
    }

    fn queue(
        &self,
        space: Space,
        queue: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, Error> {
        let range = |from: &[u8]| self.0.range(space, from, to, limit);
        let mut queues = self.0.queues();
        queues.walk((space, queue), to, limit, range)
    }
}

/// A database with one writer at a time. Clones share it.
#[derive(Clone)]
pub struct Fjall(Arc<Inner>);

/// Lock order: `writer`, then `db`, then its `queues`.
struct Inner {
    dir: PathBuf,
    spaces: &'static [Space],
    room: Room,
    writer: Mutex<()>,
    db: RwLock<Option<Db>>,
    snapshots: Arc<tokio::sync::Mutex<()>>,
}

impl Fjall {
    /// Opens or creates the database in `dir`; writes that add something stop while the file
    /// system has less than `room`'s reserve free.
    fn open(dir: &Path, spaces: &'static [Space], room: Room) -> Result<Self, Error> {
        let db = Some(Db::open(dir, spaces)?);
        Ok(Self(Arc::new(Inner {
            dir: dir.to_owned(),
            spaces,
            room,
            writer: Mutex::new(()),
            db: RwLock::new(db),
            snapshots: Arc::default(),
        })))
    }
}

impl Engine for Fjall {
    type Snapshot = FjallSnapshot;

    async fn read<T: Send + 'static>(
        &self,
        work: impl Fn(&Tx<'_>) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<T, Error> {
        let inner = self.0.clone();
        blocking(move || inner.with(|db| work(&Tx::new(db)))).await
    }

    async fn write<T: Send + 'static>(
        &self,
        needs: Needs,
        work: impl Fn(&mut Tx<'_>) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<T, Error> {
        let inner = self.0.clone();
        blocking(move || inner.write(needs, work)).await
    }

    async fn totals(&self) -> Result<Stats, Error> {
        let inner = self.0.clone();
        blocking(move || inner.with(Db::totals)).await
    }

    async fn snapshot(&self) -> Result<FjallSnapshot, Error> {
        let alone = self.0.snapshots.clone().lock_owned().await;
        let inner = self.0.clone();
        blocking(move || {
            // Totals and view of the same moment: no write is half-way.
            let writer = inner.writer();
            inner.open_again(&writer)?;
            let (totals, view, opened) = inner.with(|db| {
                let view = db.database.snapshot();
                Ok((db.totals()?, view, db.opened))
            })?;
            drop(writer);
            Ok(FjallSnapshot {
                totals,
                view,
                opened,
                inner,
                _alone: alone,
            })
        })
        .await
    }
}

/// What the database held at one moment.
pub struct FjallSnapshot {
    totals: Stats,
    view: fjall::Snapshot,
    opened: Instant,
    inner: Arc<Inner>,
    _alone: OwnedMutexGuard<()>,
}

impl Snapshot for FjallSnapshot {
    fn totals(&self) -> Delta {
        Delta::of(&self.totals)
    }

    async fn page(
        &mut self,
        space: Space,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, Error> {
        let (view, opened, inner) = (self.view.clone(), self.opened, self.inner.clone());
        let range = from.to_vec()..to.to_vec();
        let read = move |db: &Db| match db.opened == opened {
            true => pairs(view.range(db.space(space), range), limit),
            false => Err(Error::Again),
        };
        blocking(move || inner.with(read)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|e| Error::Engine(e.to_string()))?
}

impl Inner {
    fn db(&self) -> RwLockReadGuard<'_, Option<Db>> {
        self.db.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the database. Not to be called by the writer while it is closed.
    fn with<T>(&self, work: impl FnOnce(&Db) -> Result<T, Error>) -> Result<T, Error> {
        if self.db().is_none() {
            self.open_again(&self.writer())?;
        }
        match &*self.db() {
            Some(db) => work(db),
            None => Err(Error::Again),
        }
    }

    fn write<T>(
        &self,
        needs: Needs,
        work: impl Fn(&mut Tx<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let writer = self.writer();
        if needs == Needs::Room {
            self.room.check(0)?;
        }
        self.open_again(&writer)?;
        let written = match &*self.db() {
            None => return Err(Error::Again),
            Some(db) => {
                let source = Writer(db);
                let mut tx = Tx::new(&source);
                let value = work(&mut tx)?;
                let (changes, delta) = tx.finish();
                db.write(changes, delta).map(|()| value)
            }
        };
        if written.is_err() {
            *self.db.write().unwrap_or_else(PoisonError::into_inner) = None;
            self.open_again(&writer)?;
        }
        written
    }

    /// Opens the database if it is closed, which it is only after a write has failed.
    fn open_again(&self, _writer: &MutexGuard<'_, ()>) -> Result<(), Error> {
        if self.db().is_some() {
            return Ok(());
        }
        let opened = Db::open(&self.dir, self.spaces)?;
        *self.db.write().unwrap_or_else(PoisonError::into_inner) = Some(opened);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Metadata as _, Registry as _, conformance};
    use std::collections::BTreeSet;

    fn open(dir: &Path) -> Embedded {
        Embedded::open(dir, Tree::new(conformance::MASTER), Room::new(dir, 0)).unwrap()
    }

    #[tokio::test]
    async fn conforms() {
        let dir = tempfile::tempdir().unwrap();
        conformance::metadata(&open(dir.path())).await;
    }

    #[tokio::test]
    async fn wrong_counts_are_mended_and_everything_is_there_after_opening_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        conformance::metadata(&store).await;
        let right = store.stats().await.unwrap();
        let spoilt = store.spoil().await;
        drop(store);
        let store = open(dir.path());
        conformance::mended(&store, spoilt, right).await;
    }

    /// A queue, and the same in a plain set.
    struct Twin {
        engine: Fjall,
        entries: BTreeSet<Vec<u8>>,
    }

    impl Twin {
        fn key(at: u64) -> Vec<u8> {
            [b"q", at.to_be_bytes().as_slice()].concat()
        }

        async fn add(&mut self, at: u64) {
            let key = Self::key(at);
            self.entries.insert(key.clone());
            let add = move |tx: &mut Tx<'_>| {
                // Of no queue.
                tx.put_bytes(Space::Queues, b"p".to_vec(), vec![]);
                tx.put_bytes(Space::Queues, key.clone(), vec![]);
                Ok(())
            };
            self.engine.write(Needs::Reserve, add).await.unwrap();
        }

        /// Takes out the first entries before a time, if that goes well.
        async fn take(&mut self, before: u64, limit: usize, fails: bool) {
            let take = move |tx: &mut Tx<'_>| {
                let found = tx.queue(Space::Queues, b"q", &Self::key(before), limit)?;
                for (key, _) in &found {
                    tx.remove(Space::Queues, key.clone());
                }
                match fails {
                    true => Err(Error::Again),
                    false => Ok(found),
                }
            };
            let to = Self::key(before);
            let due: Vec<_> = self.entries.range(..to).take(limit).cloned().collect();
            match self.engine.write(Needs::Reserve, take).await {
                Ok(found) => {
                    let found: Vec<_> = found.into_iter().map(|(key, _)| key).collect();
                    assert_eq!(found, due);
                    self.entries.retain(|key| !found.contains(key));
                }
                Err(_) => assert!(fails),
            }
        }
    }

    #[tokio::test]
    async fn no_entry_of_a_queue_is_passed_over_wherever_it_is_added() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Fjall::open(dir.path(), Space::METADATA, Room::new(dir.path(), 0)).unwrap();
        let mut twin = Twin {
            engine: open(),
            entries: BTreeSet::new(),
        };
        let mut drawn = blake3::Hasher::new().finalize_xof();
        let mut draw = |below: u8| {
            let mut byte = [0];
            drawn.fill(&mut byte);
            byte[0] % below
        };
        for step in 0..1500 {
            match draw(4) {
                // Before and behind what was walked.
                0 | 1 => twin.add(draw(100).into()).await,
                _ => {
                    let limit = usize::from(draw(4));
                    twin.take(draw(120).into(), limit, draw(8) == 0).await;
                }
            }
            if step % 500 == 499 {
                drop(twin.engine);
                twin.engine = open();
            }
        }
        assert!(twin.entries.len() < 100);
        for _ in 0..2 {
            twin.take(u64::MAX, usize::MAX, false).await;
            assert!(twin.entries.is_empty());
        }
        // What is empty is not walked again.
        let begins = || {
            let db = twin.engine.0.db();
            let mut queues = db.as_ref().unwrap().queues();
            let mut begins = Vec::new();
            let note = |from: &[u8]| {
                begins = from.to_vec();
                Ok(vec![])
            };
            queues.walk((Space::Queues, b"q"), b"r", 1, note).unwrap();
            begins
        };
        assert_eq!(begins(), Twin::key(u64::MAX));
    }

    const KEY: [u8; 32] = [7; 32];

    async fn registry(dir: &Path) -> EmbeddedRegistry {
        let room = Room::new(dir, 0);
        let opened = EmbeddedRegistry::open(dir, AeadKey::new(KEY), room);
        opened.await.unwrap()
    }

    #[tokio::test]
    async fn the_registry_conforms_and_everything_is_there_after_opening_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = registry(dir.path()).await;
        conformance::registry(&store).await;
        let near = store.near(vec![conformance::FEATURE], 10, 9).await.unwrap();
        assert!(!near.is_empty());
        let registered = store.registered().await.unwrap();
        let log = store.deletions(0, 9).await.unwrap();
        drop(store);
        // As it is, and as it was before there was a log of features.
        for old in [false, true] {
            let store = registry(dir.path()).await;
            assert_eq!(
                store.near(vec![conformance::FEATURE], 10, 9).await.unwrap(),
                near,
                "{old}"
            );
            assert_eq!(store.registered().await.unwrap(), registered);
            assert_eq!(store.deletions(0, 9).await.unwrap(), log);
            store.forget_log().await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_registry_is_shared_by_threads() {
        let dir = tempfile::tempdir().unwrap();
        let store = registry(dir.path()).await;
        conformance::registries(&store, &store.clone(), true).await;
    }

    #[tokio::test]
    async fn secrets_of_tickets_are_not_on_the_disk_in_the_clear() {
        let dir = tempfile::tempdir().unwrap();
        let store = registry(dir.path()).await;
        conformance::registry(&store).await;
        let ticket = store.ticket((conformance::CONTRACT, 0)).await.unwrap();
        let seed = *ticket.unwrap().secret.expose_seed();
        drop(store);
        let mut dirs = vec![dir.path().to_owned()];
        let mut bytes = 0;
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                    continue;
                }
                let content = std::fs::read(path).unwrap();
                bytes += content.len();
                assert!(!content.windows(32).any(|w| w == seed));
            }
        }
        assert!(bytes > 100);
        // With another key nothing opens.
        let (other, room) = (AeadKey::new([8; 32]), Room::new(dir.path(), 0));
        let store = EmbeddedRegistry::open(dir.path(), other, room).await;
        let ticket = store.unwrap().ticket((conformance::CONTRACT, 0)).await;
        assert!(ticket.is_err());
    }
}
