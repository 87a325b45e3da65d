// SPDX-License-Identifier: MPL-2.0
//! [`Metadata`] and [`Registry`](super::Registry) in embedded databases (fjall).
//!
//! One writer at a time under a mutex; every transaction is one atomic batch, synced to disk
//! before the answer. Readers take no part in the mutex. A database that fails in the middle of a
//! write refuses all further ones (it cannot know what reached the disk): it is then closed and
//! opened again, which drops what was not written whole.

mod audit;
mod chunks;
mod engine;
mod owners;
mod recordings;
mod registry;
mod trash;
mod tx;

use super::{Audit, Error, Hash, Item, Metadata, Opening, Owner, Place, Room, Via};
use crate::identity::RecordingId;
use crate::ownership::{Leaf, Tree};
use crate::protocol::{
    ChunkRef, Commit, Committed, Outcome, Recording, RecordingEntry, Stats, Variant,
};
use async_trait::async_trait;
use engine::{Engine, Needs};
pub use registry::EmbeddedRegistry;
use std::path::Path;
use tx::{Space, Tx};

/// The embedded metadata store. Clones share one database.
#[derive(Clone)]
pub struct Embedded {
    engine: Engine,
    tree: Tree,
}

impl Embedded {
    /// Opens or creates the store in `dir`. `tree` wraps the group keys; writes that add
    /// something stop while the file system has less than `room`'s reserve free.
    pub fn open(dir: &Path, tree: Tree, room: Room) -> Result<Self, Error> {
        let engine = Engine::open(dir, Space::METADATA, room)?;
        Ok(Self { engine, tree })
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tx<'_>, &Tree) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let tree = self.tree.clone();
        self.engine.read(move |tx| work(tx, &tree)).await
    }

    async fn write<T: Send + 'static>(
        &self,
        needs: Needs,
        work: impl FnOnce(&mut Tx<'_>, &Tree) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let tree = self.tree.clone();
        self.engine.write(needs, move |tx| work(tx, &tree)).await
    }
}

#[async_trait]
impl Metadata for Embedded {
    async fn enroll(&self, key: Hash, agree: Hash) -> Result<Leaf, Error> {
        self.write(Needs::Room, move |tx, _| owners::enroll(tx, key, agree))
            .await
    }

    async fn owner(&self, key: Hash) -> Result<Option<Owner>, Error> {
        self.read(move |tx, _| owners::owner(tx, &key)).await
    }

    async fn lookup(&self, owner: Leaf, tags: Vec<Hash>) -> Result<Vec<Vec<Variant>>, Error> {
        self.read(move |tx, tree| {
            let look = |tag| chunks::lookup(tx, tree, owner, tag);
            tags.iter().map(look).collect()
        })
        .await
    }

    async fn register(
        &self,
        owner: Leaf,
        items: Vec<Item>,
        now: u64,
    ) -> Result<Vec<Outcome>, Error> {
        self.write(Needs::Room, move |tx, tree| {
            let mut register = |item| chunks::register(tx, tree, owner, item, now);
            items.iter().map(&mut register).collect()
        })
        .await
    }

    async fn commit(
        &self,
        owner: Leaf,
        id: RecordingId,
        seq: u64,
        commit: Commit,
    ) -> Result<Committed, Error> {
        self.write(Needs::Room, move |tx, _| {
            recordings::commit(tx, owner, &id, seq, commit)
        })
        .await
    }

    async fn recordings(&self, owner: Leaf, key: Hash) -> Result<Vec<RecordingEntry>, Error> {
        self.read(move |tx, _| recordings::list(tx, owner, &key))
            .await
    }

    async fn recording(
        &self,
        owner: Leaf,
        id: RecordingId,
        from: u64,
    ) -> Result<Option<Recording>, Error> {
        self.read(move |tx, _| recordings::recording(tx, owner, &id, from))
            .await
    }

    async fn segment(
        &self,
        owner: Leaf,
        id: RecordingId,
        seq: u64,
    ) -> Result<Option<Vec<u8>>, Error> {
        self.read(move |tx, _| {
            let segment = recordings::segment(tx, owner, &id, seq)?;
            Ok(segment.map(|s| s.manifest.into()))
        })
        .await
    }

    async fn forget(&self, owner: Leaf, id: RecordingId, now: u64) -> Result<bool, Error> {
        let mut known = false;
        loop {
            let step = move |tx: &mut Tx<'_>, tree: &Tree| {
                recordings::forget_some(tx, tree, owner, &id, now)
            };
            match self.write(Needs::Reserve, step).await? {
                recordings::Forgotten::Unknown => return Ok(known),
                recordings::Forgotten::All => return Ok(true),
                recordings::Forgotten::Some => known = true,
            }
        }
    }

    async fn open(
        &self,
        reader: Leaf,
        chunks: Vec<ChunkRef>,
        via: Option<Via>,
    ) -> Result<Vec<Option<Opening>>, Error> {
        self.read(move |tx, tree| chunks::open(tx, tree, reader, &chunks, via))
            .await
    }

    async fn share(
        &self,
        owner: Leaf,
        id: RecordingId,
        reader: Hash,
        sealed: Vec<u8>,
    ) -> Result<bool, Error> {
        self.write(Needs::Room, move |tx, _| {
            recordings::share(tx, owner, &id, &reader, sealed)
        })
        .await
    }

    async fn unshare(&self, owner: Leaf, id: RecordingId, reader: Hash) -> Result<bool, Error> {
        self.write(Needs::Reserve, move |tx, _| {
            recordings::unshare(tx, owner, &id, &reader)
        })
        .await
    }

    async fn shared(
        &self,
        owner: Hash,
        id: RecordingId,
        reader: Hash,
    ) -> Result<Option<Leaf>, Error> {
        self.read(move |tx, _| recordings::shared(tx, &owner, &id, &reader))
            .await
    }

    async fn expire_holds(&self, now: u64) -> Result<usize, Error> {
        self.write(Needs::Reserve, move |tx, tree| {
            chunks::expire(tx, tree, now)
        })
        .await
    }

    async fn claim_trash(&self, before: u64, max: usize) -> Result<Vec<Hash>, Error> {
        self.write(Needs::Reserve, move |tx, _| trash::claim(tx, before, max))
            .await
    }

    async fn claim_orphans(&self, blobs: Vec<Hash>) -> Result<Vec<Hash>, Error> {
        self.write(Needs::Reserve, move |tx, _| trash::claim_orphans(tx, blobs))
            .await
    }

    async fn deleted(&self, blobs: Vec<Hash>, at: u64) -> Result<(), Error> {
        self.write(Needs::Reserve, move |tx, _| trash::deleted(tx, &blobs, at))
            .await
    }

    async fn stats(&self) -> Result<Stats, Error> {
        self.read(|tx, _| Ok(tx.totals()?.stats)).await
    }

    async fn variants(&self, after: Option<(Hash, Hash)>, max: usize) -> Result<Vec<Place>, Error> {
        self.read(move |tx, _| chunks::places(tx, after, max)).await
    }

    async fn mark(&self, tag: Hash, d1: Hash, damaged: bool) -> Result<bool, Error> {
        self.write(Needs::Reserve, move |tx, _| {
            chunks::mark(tx, &tag, &d1, damaged)
        })
        .await
    }

    async fn audit(&self, now: u64) -> Result<Audit, Error> {
        let pass = move |tx: &mut Tx<'_>, tree: &Tree| audit::audit(tx, tree, now);
        let members = self.write(Needs::Reserve, pass).await?;
        if members.mended == 0 {
            return Ok(members);
        }
        let mut audit = self.write(Needs::Reserve, pass).await?;
        audit.mended += members.mended;
        Ok(audit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{conformance, record::VariantRecord};

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
        let spoil = |tx: &mut Tx<'_>, _: &Tree| {
            for (key, value) in tx.prefix(Space::Variants, &[])? {
                let mut record: VariantRecord = tx::parse(&value)?;
                record.members.values_mut().for_each(|m| m.refs += 3);
                tx.put(Space::Variants, key, &record);
            }
            tx.put(Space::Owners, owners::usage_of(0), &77u64);
            tx.count(|t| t.stats.chunks = 9)
        };
        store.write(Needs::Room, spoil).await.unwrap();
        drop(store);
        let store = open(dir.path());
        assert!(store.audit(0).await.unwrap().mended > 10);
        assert_eq!(store.audit(0).await.unwrap().mended, 0);
        assert_eq!(store.stats().await.unwrap(), right);
    }
}
