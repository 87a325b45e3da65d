// SPDX-License-Identifier: MPL-2.0
//! [`Metadata`] and [`Registry`](super::Registry) over ordered key spaces in which transactions are
//! atomic: the same logic for every [`Engine`].

mod audit;
mod chunks;
mod copy;
mod members;
mod owners;
mod recordings;
mod registry;
mod servers;
mod trash;
mod tx;

use super::{
    Allowance, Audit, Error, Forgotten, Hash, Item, Listed, Mark, Metadata, Opening, Owner, Place,
    Via,
};
use crate::identity::RecordingId;
use crate::ownership::{Leaf, Tree};
use crate::protocol::{
    ChunkRef, Commit, Committed, Holder, Job, Outcome, Recording, Recordings, Retention, Stats,
    Variant,
};
use async_trait::async_trait;
pub use registry::TableRegistry;
pub use tx::{Changes, Delta, Pair, Source, Space, Tx, behind, following, parse};

/// What a write may do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Adds something: only while there is room.
    Room,
    /// Makes room.
    Reserve,
    /// Likewise, and must not be done twice: if nobody knows whether it was done, it fails.
    Once,
}

/// What keeps the key spaces.
///
/// Work may be done several times before its last result counts (see [`Source`]). Except for
/// [`Needs::Once`] it may also be done again after it was done, where nobody knows whether it was.
pub trait Engine: Clone + Send + Sync + 'static {
    /// See [`Engine::snapshot`].
    type Snapshot: Snapshot;

    /// Looks something up.
    fn read<T: Send + 'static>(
        &self,
        work: impl Fn(&Tx<'_>) -> Result<T, Error> + Send + Sync + 'static,
    ) -> impl Future<Output = Result<T, Error>> + Send;

    /// Does one transaction, as if there was no other at the time; it is durable when this
    /// returns. Only what [`Tx::walk`] reads may be changed by others meanwhile.
    fn write<T: Send + 'static>(
        &self,
        needs: Needs,
        work: impl Fn(&mut Tx<'_>) -> Result<T, Error> + Send + Sync + 'static,
    ) -> impl Future<Output = Result<T, Error>> + Send;

    /// The totals.
    fn totals(&self) -> impl Future<Output = Result<Stats, Error>> + Send;

    /// A view of this moment. Who asks for a second one waits until the first is dropped, on
    /// whichever server.
    fn snapshot(&self) -> impl Future<Output = Result<Self::Snapshot, Error>> + Send;
}

/// What a database held at one moment.
pub trait Snapshot: Send {
    /// The totals as they are recorded: sums of changes, which may have gone wrong.
    fn totals(&self) -> Delta;

    /// The first `limit` pairs from `from` up to and without `to`, in order.
    fn page(
        &mut self,
        space: Space,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Pair>, Error>> + Send;
}

/// A metadata store over an engine. Clones share it.
#[derive(Clone)]
pub struct Tables<E> {
    engine: E,
    tree: Tree,
}

impl<E: Engine> Tables<E> {
    /// Over an open database; `tree` wraps the group keys.
    pub(super) fn new(engine: E, tree: Tree) -> Self {
        Self { engine, tree }
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl Fn(&Tx<'_>, &Tree) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<T, Error> {
        let tree = self.tree.clone();
        self.engine.read(move |tx| work(tx, &tree)).await
    }

    async fn write<T: Send + 'static>(
        &self,
        needs: Needs,
        work: impl Fn(&mut Tx<'_>, &Tree) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<T, Error> {
        let tree = self.tree.clone();
        self.engine.write(needs, move |tx| work(tx, &tree)).await
    }

    /// Makes counts wrong, for tests of [`Metadata::audit`]: of members in records, in rows, and
    /// numbers of rows; how many each.
    #[cfg(test)]
    pub(super) async fn spoil(&self) -> [u64; 3] {
        use super::record::{Group, Member, VariantRecord};
        let spoil = |tx: &mut Tx<'_>, _: &Tree| {
            let mut spoilt = [0; 3];
            for (key, value) in tx.walk(Space::Variants, &[], &behind(&[]), usize::MAX)? {
                let mut record: VariantRecord = parse(&value)?;
                match &mut record.group {
                    Group::Here(members) => {
                        members.values_mut().for_each(|m| m.refs += 3);
                        spoilt[0] += members.len() as u64;
                    }
                    Group::Rows(number) => {
                        *number -= 2;
                        spoilt[2] += 1;
                    }
                }
                tx.put(Space::Variants, key, &record);
            }
            for (key, value) in tx.walk(Space::Members, &[], &behind(&[]), usize::MAX)? {
                let mut member: Member = parse(&value)?;
                member.refs += 3;
                tx.put(Space::Members, key, &member);
                spoilt[1] += 1;
            }
            tx.put(Space::Owners, owners::usage_of(0), &77u64);
            tx.count(|t| t.chunks -= 3);
            Ok(spoilt)
        };
        self.write(Needs::Reserve, spoil).await.unwrap()
    }
}

#[async_trait]
impl<E: Engine> Metadata for Tables<E> {
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
        quota: Option<u64>,
        now: u64,
    ) -> Result<Vec<Outcome>, Error> {
        self.write(Needs::Room, move |tx, tree| {
            // Read ahead too, so that the chunks' records and this come at once.
            let used = owners::usage(tx, owner)?;
            let mut register = |item| chunks::register(tx, tree, owner, item, now);
            let outcomes = items.iter().map(&mut register).collect::<Result<_, _>>()?;
            // What adds nothing is not refused.
            let after = owners::usage(tx, owner)?;
            match quota.filter(|quota| after > used && after > *quota) {
                Some(quota) => Err(Error::Quota { used, quota }),
                None => Ok(outcomes),
            }
        })
        .await
    }

    async fn commit(
        &self,
        owner: Leaf,
        id: RecordingId,
        seq: u64,
        commit: Commit,
        now: u64,
    ) -> Result<Committed, Error> {
        self.write(Needs::Room, move |tx, _| {
            recordings::commit(tx, owner, &id, seq, &commit, now)
        })
        .await
    }

    async fn recordings(
        &self,
        owner: Leaf,
        key: Hash,
        after: Option<Listed>,
    ) -> Result<Recordings, Error> {
        self.read(move |tx, _| recordings::list(tx, owner, &key, after))
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

    async fn forget(&self, owner: Leaf, id: RecordingId, now: u64) -> Result<Forgotten, Error> {
        // Asked first: a step whose fate nobody knew is done again, and then finds nothing.
        let mut known = self
            .read(move |tx, _| recordings::known(tx, owner, &id))
            .await?;
        loop {
            let step = move |tx: &mut Tx<'_>, tree: &Tree| {
                recordings::forget_some(tx, tree, owner, &id, now)
            };
            match self.write(Needs::Reserve, step).await? {
                recordings::Step::Held => return Ok(Forgotten::Held),
                recordings::Step::Unknown if !known => return Ok(Forgotten::Unknown),
                recordings::Step::Unknown | recordings::Step::All => return Ok(Forgotten::Done),
                recordings::Step::Some => known = true,
            }
        }
    }

    async fn hold(
        &self,
        owner: Leaf,
        id: RecordingId,
        by: Holder,
        on: bool,
    ) -> Result<bool, Error> {
        self.write(Needs::Reserve, move |tx, _| {
            recordings::hold(tx, owner, &id, by, on)
        })
        .await
    }

    async fn retention(&self, owner: Leaf) -> Result<Retention, Error> {
        self.read(move |tx, _| owners::retention(tx, owner)).await
    }

    async fn set_retention(&self, owner: Leaf, retention: Retention) -> Result<(), Error> {
        self.write(Needs::Reserve, move |tx, _| {
            owners::set_retention(tx, owner, &retention);
            Ok(())
        })
        .await
    }

    async fn trim(&self, owner: Leaf, oldest: u64, now: u64) -> Result<u64, Error> {
        self.write(Needs::Reserve, move |tx, tree| {
            recordings::trim(tx, tree, owner, oldest, now)
        })
        .await
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
            recordings::share(tx, owner, &id, &reader, &sealed)
        })
        .await
    }

    async fn unshare(&self, owner: Leaf, id: RecordingId, reader: Hash) -> Result<bool, Error> {
        // Asked first, as in `forget`.
        let known = self
            .read(move |tx, _| recordings::is_shared(tx, owner, &id, &reader))
            .await?;
        let unshare = move |tx: &mut Tx<'_>, _: &Tree| recordings::unshare(tx, owner, &id, &reader);
        Ok(self.write(Needs::Reserve, unshare).await? || known)
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
        self.write(Needs::Reserve, move |tx, _| {
            trash::claim_orphans(tx, &blobs)
        })
        .await
    }

    async fn deleted(&self, blobs: Vec<Hash>, at: u64) -> Result<(), Error> {
        self.write(Needs::Reserve, move |tx, _| trash::deleted(tx, &blobs, at))
            .await
    }

    async fn stats(&self) -> Result<Stats, Error> {
        self.engine.totals().await
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
        audit::audit(&self.engine, &self.tree, now).await
    }

    async fn jobs(&self) -> Result<Vec<Job>, Error> {
        self.read(|tx, _| servers::jobs(tx)).await
    }

    async fn save_job(&self, job: Job) -> Result<bool, Error> {
        self.write(Needs::Reserve, move |tx, _| servers::save_job(tx, &job))
            .await
    }

    async fn once(&self, what: Mark, until: u64, now: u64) -> Result<bool, Error> {
        self.write(Needs::Once, move |tx, _| {
            servers::once(tx, &what, until, now)
        })
        .await
    }

    async fn spend(
        &self,
        from: Mark,
        amount: u64,
        allowance: Allowance,
        now: u64,
    ) -> Result<Option<u64>, Error> {
        self.write(Needs::Reserve, move |tx, _| {
            servers::spend(tx, &from, amount, &allowance, now)
        })
        .await
    }
}
