// SPDX-License-Identifier: MPL-2.0
//! Stores that are timed and counted: around any backend, so that all are measured alike.

use super::metrics::buckets;
use crate::identity::{Identity, RecordingId};
use crate::ownership::Leaf;
use crate::protocol::{
    ChunkRef, Commit, Committed, Holder, Job, Outcome, Recording, Recordings, Retention, Signed,
    Stats, Variant,
};
use crate::store::{
    Allowance, Audit, AuditOutcome, Blob, BlobInfo, Blobs, ContractRecord, Error, Forgotten, Hash,
    Health, Issued, Item, Listed, Lot, Mark, Metadata, Opening, Owner, PartyRecord, Place,
    Received, Registering, Registry, Reported, Ticket, TicketAudit, TicketId, Upkeep, Used, Via,
    Wanted,
};
use async_trait::async_trait;
use bytes::Bytes;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use std::sync::Arc;
use std::time::Instant;
use tracing::Instrument as _;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Ended {
    operation: &'static str,
    outcome: &'static str,
}

/// The numbers of an engine. Clones are the same.
#[derive(Clone)]
pub struct Engine {
    name: &'static str,
    seconds: Family<Operation, Histogram>,
    operations: Family<Ended, Counter>,
}

impl Engine {
    /// `NAME_seconds{operation}` and `NAME_operations{operation,outcome}`.
    pub fn register(
        registry: &mut prometheus_client::registry::Registry,
        name: &'static str,
        what: &str,
    ) -> Self {
        let engine = Self {
            name,
            seconds: Family::new_with_constructor(buckets),
            operations: Family::default(),
        };
        registry.register(
            format!("{name}_seconds"),
            format!("Time that {what} took"),
            engine.seconds.clone(),
        );
        registry.register(
            format!("{name}_operations"),
            format!("What came of operations of {what}: ok, or the kind of error"),
            engine.operations.clone(),
        );
        engine
    }

    /// `store`, measured.
    pub fn over<S: ?Sized>(&self, store: Arc<S>) -> Arc<Measured<S>> {
        Arc::new(Measured {
            engine: self.clone(),
            store,
        })
    }

    /// Operations whose caller has gone are not counted.
    async fn time<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let began = Instant::now();
        let span =
            tracing::debug_span!(target: "camvault::engine", "engine", name = self.name, operation);
        let done = work.instrument(span).await;
        let seconds = self.seconds.get_or_create_owned(&Operation { operation });
        seconds.observe(began.elapsed().as_secs_f64());
        let outcome = done.as_ref().map_or_else(kind, |_| "ok");
        let ended = Ended { operation, outcome };
        self.operations.get_or_create(&ended).inc();
        done
    }
}

fn kind(error: &Error) -> &'static str {
    match error {
        Error::Full => "full",
        Error::Io(..) => "io",
        Error::Engine(_) => "engine",
        Error::Bucket(..) => "bucket",
        Error::Again => "again",
        Error::Away(_) => "away",
        Error::Quota { .. } => "quota",
        Error::Corrupt(_) => "corrupt",
        Error::Random => "random",
        Error::Remote(_) => "remote",
    }
}

/// A store with its numbers.
pub struct Measured<S: ?Sized> {
    engine: Engine,
    store: Arc<S>,
}

// Methods with a default in the trait have to be listed too: the default would not reach the store.
macro_rules! measured {
    ($trait:ident { $(fn $name:ident($($arg:ident: $kind:ty),*) -> $out:ty;)* }) => {
        #[async_trait]
        impl<S: $trait + ?Sized> $trait for Measured<S> {
            $(async fn $name(&self, $($arg: $kind),*) -> Result<$out, Error> {
                let work = self.store.$name($($arg),*);
                self.engine.time(stringify!($name), work).await
            })*
        }
    };
}

measured!(Metadata {
    fn enroll(key: Hash, agree: Hash) -> Leaf;
    fn owner(key: Hash) -> Option<Owner>;
    fn lookup(owner: Leaf, tags: Vec<Hash>) -> Vec<Vec<Variant>>;
    fn register(owner: Leaf, items: Vec<Item>, quota: Option<u64>, now: u64) -> Vec<Outcome>;
    fn commit(owner: Leaf, id: RecordingId, seq: u64, commit: Commit, now: u64) -> Committed;
    fn recordings(owner: Leaf, key: Hash, after: Option<Listed>) -> Recordings;
    fn recording(owner: Leaf, id: RecordingId, from: u64) -> Option<Recording>;
    fn segment(owner: Leaf, id: RecordingId, seq: u64) -> Option<Vec<u8>>;
    fn forget(owner: Leaf, id: RecordingId, now: u64) -> Forgotten;
    fn hold(owner: Leaf, id: RecordingId, by: Holder, on: bool) -> bool;
    fn retention(owner: Leaf) -> Retention;
    fn set_retention(owner: Leaf, retention: Retention) -> ();
    fn trim(owner: Leaf, oldest: u64, now: u64) -> u64;
    fn open(reader: Leaf, chunks: Vec<ChunkRef>, via: Option<Via>) -> Vec<Option<Opening>>;
    fn share(owner: Leaf, id: RecordingId, reader: Hash, sealed: Vec<u8>) -> bool;
    fn unshare(owner: Leaf, id: RecordingId, reader: Hash) -> bool;
    fn shared(owner: Hash, id: RecordingId, reader: Hash) -> Option<Leaf>;
    fn expire_holds(now: u64) -> usize;
    fn claim_trash(before: u64, max: usize) -> Vec<Hash>;
    fn claim_orphans(blobs: Vec<Hash>) -> Vec<Hash>;
    fn deleted(blobs: Vec<Hash>, at: u64) -> ();
    fn stats() -> Stats;
    fn variants(after: Option<(Hash, Hash)>, max: usize) -> Vec<Place>;
    fn mark(tag: Hash, d1: Hash, damaged: bool) -> bool;
    fn audit(now: u64) -> Audit;
    fn jobs() -> Vec<Job>;
    fn save_job(job: Job) -> bool;
    fn once(what: Mark, until: u64, now: u64) -> bool;
    fn spend(from: Mark, amount: u64, allowance: Allowance, now: u64) -> Option<u64>;
});

measured!(Upkeep {
    fn delete(blobs: &[Hash]) -> u64;
    fn list(first: u8) -> Vec<BlobInfo>;
    fn check(blobs: &[Hash]) -> Vec<Health>;
    fn clean(age_ms: u64) -> u64;
    fn ready() -> ();
});

measured!(Blobs {
    fn put(blobs: Vec<Blob>) -> ();
    fn get(d1: &Hash) -> Option<Bytes>;
});

measured!(Registry {
    fn register(sign: Hash, party: PartyRecord) -> Registering;
    fn party(sign: Hash) -> Option<PartyRecord>;
    fn add_contract(id: Hash, signed: Signed) -> Signed;
    fn contract(id: Hash) -> Option<ContractRecord>;
    fn issue(wanted: Wanted) -> Issued;
    fn tickets(ids: Vec<TicketId>) -> Vec<Option<Ticket>>;
    fn ticket(id: TicketId) -> Option<Ticket>;
    fn report(id: TicketId, used: Used, lot: Lot) -> (Reported, Option<TicketAudit>);
    fn received(id: TicketId, received: Received) -> Reported;
    fn demand(contract: Hash) -> Reported;
    fn audited(id: TicketId, outcome: AuditOutcome, now: u64) -> Reported;
    fn retrieved(id: TicketId, now: u64) -> Reported;
    fn near(hashes: Vec<u64>, radius: u32, max: usize) -> Vec<TicketId>;
    fn registered() -> u64;
    fn delete(contract: Hash, now: u64, ttp: Arc<Identity>) -> Option<Signed>;
    fn deletions(from: u64, max: usize) -> Vec<Signed>;
    fn parameters() -> Option<Vec<u8>>;
    fn add_parameters(made: Vec<u8>) -> Vec<u8>;
    fn once(what: Mark, until: u64, now: u64) -> bool;
});
