// SPDX-License-Identifier: MPL-2.0
//! What an engine for metadata carries when it is full: look-ups of 100 chunks, and commits of 100
//! new ones (registered, then named by a segment, both durable), by 1, 4 and 16 clients at once;
//! bytes on disk. `benches/engines.sh --metadata` runs it for each engine.
//!
//! ```text
//! cargo run --release --example engines_measure -- --metadata DIR|postgres://… [--tags N]
//! ```

#[allow(dead_code)]
#[path = "simulate/simulation/mod.rs"]
mod simulation;

use clap::Parser;
use gstcamvault::ownership::{Leaf, Tree};
use gstcamvault::protocol::{Committed, Outcome};
use gstcamvault::store::{Item, Metadata, Postgres};
use simulation::measure::{Disk, Sealed};
use simulation::{MASTER, Result, START, bytes, expect, item, number, open, segment, user_key};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Chunks of a request.
const CHUNKS: u64 = 100;
/// Clients that fill the store, with so many chunks a request: no more than the locks of a
/// transaction that runs beside others.
const FILLERS: u64 = 16;
const FILLING: u64 = 200;

/// Fills an empty store and measures it.
#[derive(Debug, Parser)]
struct Options {
    /// A directory, or an empty PostgreSQL database that no password is needed for.
    #[arg(long, value_name = "DIR|URL")]
    metadata: String,
    /// Chunks that the store has before anything is measured.
    #[arg(long, default_value_t = 1_000_000)]
    tags: u64,
    /// Length of each measurement.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

type Store = Arc<dyn Metadata>;

async fn store(options: &Options) -> Result<Store> {
    if !options.metadata.contains("://") {
        return open(Path::new(&options.metadata));
    }
    let url = options.metadata.parse()?;
    let store = Postgres::open(&url, Tree::new(MASTER), [1; 32]).await?;
    Ok(Arc::new(store))
}

/// Bytes of tables and of journals; the database's log is its server's.
async fn disk(options: &Options) -> Result<[u64; 2]> {
    if !options.metadata.contains("://") {
        let disk = Disk::of(Path::new(&options.metadata))?;
        return Ok([disk.tables, disk.journals]);
    }
    let connected = tokio_postgres::connect(&options.metadata, tokio_postgres::NoTls);
    let (client, connection) = connected.await?;
    tokio::spawn(connection);
    let size = "select pg_database_size(current_database())";
    let size: i64 = client.query_one(size, &[]).await?.try_get(0)?;
    Ok([size.unsigned_abs(), 0])
}

/// The chunk `n` of `of`: 0 is what the store is filled with.
fn chunk(of: u64, n: u64) -> Item {
    item(&[20, of, n], 48_000, true)
}

/// Registers chunks and commits a segment that names them.
async fn record(
    store: &Store,
    leaf: Leaf,
    id: u64,
    seq: u64,
    items: Vec<Item>,
    sealed: &Sealed,
) -> Result<()> {
    let commit = segment(&items, sealed, seq);
    let outcomes = store.register(leaf, items, None, START).await?;
    expect(outcomes.iter().all(|o| *o == Outcome::Added), || {
        format!("{outcomes:?}")
    })?;
    let done = store
        .commit(leaf, bytes(&[21, id]), seq, commit, START)
        .await?;
    expect(done == Committed::Done, || format!("{done:?}"))
}

/// Requests a second and the longest one, of `clients` that do `work` with their numbers and the
/// request's for a while.
async fn rate<W, F>(clients: u64, seconds: u64, work: W) -> Result<(f64, Duration)>
where
    W: Fn(u64, u64) -> F + Send + Sync + 'static,
    F: Future<Output = Result<()>> + Send,
{
    let (work, began) = (Arc::new(work), Instant::now());
    let client = |client| {
        let work = Arc::clone(&work);
        tokio::spawn(async move {
            let (mut done, mut longest) = (0, Duration::ZERO);
            while began.elapsed() < Duration::from_secs(seconds) {
                let asked = Instant::now();
                work(client, done).await?;
                longest = longest.max(asked.elapsed());
                done += 1;
            }
            Result::Ok((done, longest))
        })
    };
    let tasks: Vec<_> = (0..clients).map(client).collect();
    let (mut all, mut longest) = (0, Duration::ZERO);
    for task in tasks {
        let (done, slowest) = task.await??;
        all += done;
        longest = longest.max(slowest);
    }
    Ok((all as f64 / began.elapsed().as_secs_f64(), longest))
}

/// Puts the chunks in that are there before anything is measured.
async fn fill(store: &Store, leaves: &[Leaf], tags: u64, sealed: Sealed) -> Result<()> {
    let next = Arc::new(AtomicU64::new(0));
    let filler = |(id, &leaf): (u64, &Leaf)| {
        let (store, next) = (Arc::clone(store), Arc::clone(&next));
        tokio::spawn(async move {
            for seq in 0.. {
                let from = next.fetch_add(FILLING, Ordering::Relaxed);
                if from >= tags {
                    break;
                }
                let to = tags.min(from + FILLING);
                let items = (from..to).map(|n| chunk(0, n)).collect();
                record(&store, leaf, id, seq, items, &sealed).await?;
            }
            Result::Ok(())
        })
    };
    let tasks: Vec<_> = (0..).zip(leaves).map(filler).collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let (tags, seconds) = (options.tags, options.seconds);
    let store = store(&options).await?;
    let mut leaves = Vec::new();
    for user in 0..FILLERS {
        leaves.push(store.enroll(user_key(user), bytes(&[8, user])).await?);
    }
    let before = disk(&options).await?;
    let began = Instant::now();
    fill(&store, &leaves, tags, Sealed::of(FILLING as usize, 3)?).await?;
    let filled = began.elapsed().as_secs_f64();
    expect(store.stats().await?.chunks == tags, || {
        "not all are there".into()
    })?;
    let [tables, journals] = disk(&options).await?;
    println!(
        "{tags} chunks in {filled:.0} s; {:.0} bytes of tables a chunk, its part of a segment among \
         them, and {} MB of journals",
        tables.saturating_sub(before[0]) as f64 / tags as f64,
        journals / 1_000_000
    );
    let leaves = Arc::new(leaves);
    for clients in [1, 4, 16] {
        let (reader, owners) = (Arc::clone(&store), Arc::clone(&leaves));
        let (lookups, slowest) = rate(clients, seconds, move |client, done| {
            let store = Arc::clone(&reader);
            let leaf = owners[client as usize];
            async move {
                let any = |n| chunk(0, number(&[22, client, done, n]) % tags).tag;
                let found = store.lookup(leaf, (0..CHUNKS).map(any).collect()).await?;
                let all = found.iter().all(|variants| variants.len() == 1);
                expect(all, || "a chunk is not there".into())
            }
        })
        .await?;
        let (writer, owners) = (Arc::clone(&store), Arc::clone(&leaves));
        let sealed = Sealed::of(CHUNKS as usize, 3)?;
        let (commits, longest) = rate(clients, seconds, move |client, done| {
            let store = Arc::clone(&writer);
            let leaf = owners[client as usize];
            async move {
                let id = 100 * clients + client;
                let items = (0..CHUNKS).map(|n| chunk(id, CHUNKS * done + n)).collect();
                record(&store, leaf, id, done, items, &sealed).await
            }
        })
        .await?;
        println!(
            "{clients:>2} clients: {lookups:7.1} look-ups/s (longest {slowest:.0?}), \
             {commits:6.1} commits/s (longest {longest:.0?})"
        );
    }
    Ok(())
}
