// SPDX-License-Identifier: MPL-2.0
//! Several stores side by side, chunks among them by their tag, recordings by their owner.
//!
//! A look-up, a registration and an opening of a tag go to one store, and the others know nothing
//! of it. A segment is committed as one part in each store that has chunks of it, then, with head
//! and manifest, in its owner's store: that last part is what makes it a segment. Until then the
//! chunks are held, so a kill in between loses nothing, and the parts, committed again, change
//! nothing.

use super::measure::Sealed;
use super::{Result, START, bytes, expect, item, number, reference, segment, user_key};
use gstcamvault::identity::RecordingId;
use gstcamvault::ownership::Leaf;
use gstcamvault::protocol::{Commit, Committed, Outcome};
use gstcamvault::store::{Hash, Item, Metadata};
use std::sync::Arc;
use std::time::Instant;

/// What so many stores carry.
#[derive(Clone, Copy, Debug)]
pub struct Partitioned {
    pub partitions: usize,
    pub clients: u64,
    /// Look-ups, registrations and references of chunks, each through all three.
    pub chunks_per_s: f64,
    /// Transactions that write, over all stores.
    pub transactions_per_s: f64,
    /// Stores that a segment's commit touched, on average.
    pub touched: f64,
}

/// A load on each client.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub clients: u64,
    pub segments: u64,
    pub tags: u64,
    pub batch: usize,
}

type Stores = Arc<Vec<Arc<dyn Metadata>>>;

fn place(tag: &Hash, partitions: usize) -> usize {
    // The highest bits, so that a partition is a range of keys and can be cut in two.
    usize::from(tag[0]) * partitions / 256
}

/// Puts a load on stores, which keep nothing yet.
pub async fn measure(stores: Vec<Arc<dyn Metadata>>, load: Load) -> Result<Partitioned> {
    let stores: Stores = Arc::new(stores);
    let mut leaves = Vec::new();
    for client in 0..load.clients {
        let mut leaf = None;
        for store in stores.iter() {
            let this = store.enroll(user_key(client), bytes(&[8, client])).await?;
            expect(*leaf.get_or_insert(this) == this, || "other leaves".into())?;
        }
        leaves.extend(leaf);
    }
    let began = Instant::now();
    let work = |(client, leaf): (u64, &Leaf)| {
        tokio::spawn(record(Arc::clone(&stores), client, *leaf, load))
    };
    let tasks: Vec<_> = (0..).zip(&leaves).map(work).collect();
    let (mut transactions, mut touched) = (0, 0);
    for task in tasks {
        let (these, parts) = task.await??;
        transactions += these;
        touched += parts;
    }
    let took = began.elapsed().as_secs_f64();
    check(&stores, load, &leaves).await?;
    let segments = load.clients * load.segments;
    Ok(Partitioned {
        partitions: stores.len(),
        clients: load.clients,
        chunks_per_s: (segments * load.tags) as f64 / took,
        transactions_per_s: transactions as f64 / took,
        touched: touched as f64 / segments as f64,
    })
}

/// The smallest transactions, enrolments, that one store makes durable in a second.
pub async fn syncs(store: Arc<dyn Metadata>, clients: u64) -> Result<f64> {
    const EACH: u64 = 200;
    let began = Instant::now();
    let enroll = |client| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for n in 0..EACH {
                let user = client * EACH + n;
                store.enroll(user_key(user), bytes(&[8, user])).await?;
            }
            Ok::<_, gstcamvault::store::Error>(())
        })
    };
    let tasks: Vec<_> = (0..clients).map(enroll).collect();
    for task in tasks {
        task.await??;
    }
    Ok((clients * EACH) as f64 / began.elapsed().as_secs_f64())
}

fn recording(client: u64) -> RecordingId {
    bytes(&[17, client])
}

fn chunk(client: u64, seq: u64, n: u64) -> Item {
    item(&[18, client, seq, n], 48_000, true)
}

/// A client's segments; the transactions and the parts of segments that it took.
async fn record(stores: Stores, client: u64, leaf: Leaf, load: Load) -> Result<(u64, u64)> {
    let count = stores.len();
    let (mut transactions, mut touched) = (0, 0);
    let sealed = Sealed::of(load.tags as usize, 3)?;
    let nothing = Sealed {
        head: 0,
        manifest: 0,
        summary: 0,
    };
    // Number of the next part of this recording in each store.
    let mut next = vec![0; count];
    for seq in 0..load.segments {
        let items: Vec<Item> = (0..load.tags).map(|n| chunk(client, seq, n)).collect();
        for batch in items.chunks(load.batch) {
            for (store, part) in stores.iter().zip(split(batch, count)) {
                if part.is_empty() {
                    continue;
                }
                let tags = part.iter().map(|item| item.tag).collect();
                let found = store.lookup(leaf, tags).await?;
                expect(found.iter().all(Vec::is_empty), || "not new".into())?;
                let outcomes = store.register(leaf, part, None, START).await?;
                expect(outcomes.iter().all(|o| *o == Outcome::Added), || {
                    format!("{outcomes:?}")
                })?;
                transactions += 1;
            }
        }
        let home = number(&[19, client]) as usize % count;
        let mut parts: Vec<(usize, Commit)> = Vec::new();
        for (at, part) in split(&items, count).into_iter().enumerate() {
            if at == home {
                let mut whole = segment(&part, &sealed, seq);
                whole.chunks = part.iter().map(reference).collect();
                parts.push((at, whole));
            } else if !part.is_empty() {
                parts.insert(0, (at, segment(&part, &nothing, seq)));
            }
        }
        for (at, part) in parts {
            let done = stores[at].commit(leaf, recording(client), next[at], part, START);
            expect(done.await? == Committed::Done, || "not committed".into())?;
            next[at] += 1;
            touched += 1;
            transactions += 1;
        }
    }
    Ok((transactions, touched))
}

fn split(items: &[Item], partitions: usize) -> Vec<Vec<Item>> {
    let mut parts = vec![Vec::new(); partitions];
    for item in items {
        parts[place(&item.tag, partitions)].push(item.clone());
    }
    parts
}

/// Every chunk is in its store and in no other, and opens there alone.
async fn check(stores: &Stores, load: Load, leaves: &[Leaf]) -> Result<()> {
    let mut known = 0;
    for store in stores.iter() {
        known += store.stats().await?.chunks;
    }
    let all = load.clients * load.segments * load.tags;
    expect(known == all, || format!("{known} chunks of {all}"))?;
    for (client, leaf) in (0..).zip(leaves) {
        let item = chunk(client, 0, 0);
        for (at, store) in stores.iter().enumerate() {
            let found = store.lookup(*leaf, vec![item.tag]).await?;
            let opened = store.open(*leaf, vec![reference(&item)], None).await?;
            let here = at == place(&item.tag, stores.len());
            expect(
                here == opened[0].is_some() && here != found[0].is_empty(),
                || "a chunk is not where its tag says".into(),
            )?;
        }
    }
    Ok(())
}
