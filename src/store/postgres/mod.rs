// SPDX-License-Identifier: MPL-2.0
//! The PostgreSQL engine: any number of servers over one database.
//!
//! Work runs over a [`Cache`] of what it has read. What it wants beyond that is locked and
//! fetched, all of it in one go, and the work is done again, until nothing is wanting; then all
//! changes are sent and committed in another go. Nearly every write takes two round trips.
//!
//! Writers lock what they read (advisory locks, held until the end of the transaction) before
//! they read it, so that each sees the last state of all that it changes, under READ COMMITTED.
//! At first they wait for locks, in order; for later ones they do not wait, but begin again with
//! all locks that are known by then. So nobody waits in a circle.

mod cache;
mod connect;
mod schema;
mod statements;

use super::Error;
use super::tables::{
    Changes, Delta, Engine, Needs, Pair, Snapshot, Space, TableRegistry, Tables, Tx,
};
use crate::identity::AeadKey;
use crate::ownership::Tree;
use crate::protocol::Stats;
use cache::{Cache, Wanted, named_lock};
use connect::{ConnectError, Connection, Connector, said};
pub use connect::{PostgresUrl, UrlError};
use deadpool::Runtime;
use deadpool::managed::{Object, Pool, PoolError};
use statements::STRIPES;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_postgres::error::SqlState;

/// A metadata store in a PostgreSQL database. Clones share its connections.
pub type Postgres = Tables<PostgresEngine>;

/// Connections of a role of one server.
const CONNECTIONS: usize = 16;
/// For so long a request waits for a database that fails over.
const PATIENCE: Duration = Duration::from_secs(30);
/// One round trip; longer than the database's own timeout of a statement.
const ROUND_TRIP: Duration = Duration::from_secs(15);
/// A writer with more locks than this takes one that keeps all others out instead: the database
/// has room for a limited number of locks.
const MANY_LOCKS: usize = 512;
/// Begins a transaction beside others, or with no other.
const TOGETHER: &str = "begin; select pg_advisory_xact_lock_shared(7420)";
const ALONE: &str = "begin; select pg_advisory_xact_lock(7420)";
/// The transaction of an audit idles while others mend what it has found.
const AUDIT: &str = "set idle_in_transaction_session_timeout = '1h'; set statement_timeout = '60s'";

impl Postgres {
    /// Opens the store, and makes its tables if they are not there. `fingerprint` is of the
    /// secrets that all servers of the database share; another one is refused.
    pub async fn open(url: &PostgresUrl, tree: Tree, fingerprint: [u8; 32]) -> Result<Self, Error> {
        let engine = PostgresEngine::open(url, &METADATA, fingerprint).await?;
        Ok(Self::new(engine, tree))
    }
}

/// A third party's store in a PostgreSQL database, also in one that holds metadata. Clones share
/// its connections.
pub type PostgresRegistry = TableRegistry<PostgresEngine>;

impl PostgresRegistry {
    /// Opens the store, and makes its tables if they are not there. `key` seals the secrets of
    /// tickets; `fingerprint` is of all secrets that third parties of the database share: other
    /// ones are refused.
    pub async fn open(
        url: &PostgresUrl,
        key: AeadKey,
        fingerprint: [u8; 32],
    ) -> Result<Self, Error> {
        let engine = PostgresEngine::open(url, &REGISTRY, fingerprint).await?;
        Self::new(engine, key).await
    }
}

impl<E: Engine> TableRegistry<E> {
    /// Copies everything into a PostgreSQL database, which holds no registry or what an interrupted
    /// copy has left; then compares both. Nobody may serve this one meanwhile. `told` hears how
    /// many rows there are by now.
    pub async fn copy_to(
        &self,
        url: &PostgresUrl,
        fingerprint: [u8; 32],
        told: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Error> {
        let engine = PostgresEngine::open(url, &REGISTRY, fingerprint).await?;
        self.copy_into(&engine, told).await
    }
}

/// What a store has in a database.
struct Part {
    spaces: &'static [Space],
    /// Column of the fingerprint of its secrets.
    fingerprint: &'static str,
    /// The files of these secrets.
    secrets: &'static str,
}

const METADATA: Part = Part {
    spaces: Space::METADATA,
    fingerprint: "secrets",
    secrets: "`master` and `link`",
};
const REGISTRY: Part = Part {
    spaces: Space::REGISTRY,
    fingerprint: "registry_secrets",
    secrets: "`ttp.key` and `ttp.identity`",
};

/// A database that other servers may use at the same time. Clones share its connections.
#[derive(Clone)]
pub struct PostgresEngine(Pool<Connector>);

/// Why an attempt came to nothing.
enum Failure {
    /// Trying again would change nothing.
    Final(Error),
    /// The database is away, or another transaction was in the way. What was done is undone.
    Passing(String),
    /// Nobody knows whether it was committed.
    Unknown(String),
    /// A lock was not free: begin again, with all that are known now.
    Contended,
    /// The database has no room for so many locks.
    TooManyLocks,
}

/// What an attempt has found out for the next one.
#[derive(Default)]
struct Plan {
    wanted: Wanted,
    alone: bool,
}

impl Failure {
    fn of(error: &tokio_postgres::Error) -> Self {
        let text = said(error);
        let Some(code) = error.code() else {
            return Self::Passing(text);
        };
        match *code {
            SqlState::DISK_FULL => Self::Final(Error::Full),
            SqlState::OUT_OF_MEMORY => Self::TooManyLocks,
            SqlState::T_R_SERIALIZATION_FAILURE
            | SqlState::T_R_DEADLOCK_DETECTED
            | SqlState::LOCK_NOT_AVAILABLE
            | SqlState::QUERY_CANCELED
            | SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
            | SqlState::READ_ONLY_SQL_TRANSACTION
            | SqlState::TOO_MANY_CONNECTIONS
            | SqlState::ADMIN_SHUTDOWN
            | SqlState::CRASH_SHUTDOWN
            | SqlState::CANNOT_CONNECT_NOW => Self::Passing(text),
            _ if code.code().starts_with("08") => Self::Passing(text),
            _ => Self::Final(Error::Engine(text)),
        }
    }
}

impl From<PoolError<ConnectError>> for Failure {
    fn from(error: PoolError<ConnectError>) -> Self {
        match error {
            PoolError::Backend(ConnectError::Database(error)) => Self::of(&error),
            PoolError::Timeout(_) => Self::Passing("all connections are in use".into()),
            error => Self::Passing(error.to_string()),
        }
    }
}

/// A round trip that may take too long. A connection on which one failed, or was given up, is not
/// used again.
async fn round_trip<T>(
    connection: &Connection,
    trip: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Failure> {
    let whole = connection.in_use();
    match tokio::time::timeout(ROUND_TRIP, trip).await {
        Ok(Ok(done)) => {
            whole.done();
            Ok(done)
        }
        Ok(Err(error)) => {
            if error.code().is_none() {
                connection.failed();
            }
            Err(Failure::of(&error))
        }
        Err(_) => {
            connection.failed();
            Err(Failure::Passing("no answer within 15 s".into()))
        }
    }
}

/// Tries again, with growing pauses, for a while.
struct Retry {
    until: Instant,
    pause: Duration,
    once: bool,
}

impl Retry {
    fn new(once: bool) -> Self {
        Self {
            until: Instant::now() + PATIENCE,
            pause: Duration::from_millis(10),
            once,
        }
    }

    /// Waits before the next attempt, if there is to be one.
    async fn after(&mut self, failure: Failure, plan: &mut Plan) -> Result<(), Error> {
        let why = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Unknown(why) if self.once => return Err(Error::Away(why)),
            Failure::Contended if Instant::now() < self.until => return Ok(()),
            Failure::Contended => "too many writers at once".into(),
            Failure::TooManyLocks => {
                plan.alone = true;
                "it has no room for locks".into()
            }
            Failure::Passing(why) | Failure::Unknown(why) => why,
        };
        if Instant::now() + self.pause > self.until {
            return Err(Error::Away(why));
        }
        tokio::time::sleep(self.pause.mul_f64(0.5 + f64::from(random()) / 255.0)).await;
        self.pause = (self.pause * 2).min(Duration::from_secs(1));
        Ok(())
    }
}

/// For pauses and stripes; how random it is does not matter.
fn random() -> u8 {
    let mut byte = [0];
    // Left as it is if there are none.
    let _ = getrandom::fill(&mut byte);
    byte[0]
}

/// What work came to.
struct Ran<T> {
    value: Result<T, Error>,
    changes: Changes,
    delta: Delta,
    cache: Cache,
}

/// Does the work once, over what has been read.
async fn run<T, W>(cache: Cache, work: Arc<W>) -> Result<Ran<T>, Failure>
where
    T: Send + 'static,
    W: Fn(&mut Tx<'_>) -> Result<T, Error> + Send + Sync + 'static,
{
    let run = move || {
        let mut tx = Tx::new(&cache);
        let value = work(&mut tx);
        let (changes, delta) = tx.finish();
        Ran {
            value,
            changes,
            delta,
            cache,
        }
    };
    let ran = tokio::task::spawn_blocking(run).await;
    ran.map_err(|e| Failure::Final(Error::Engine(e.to_string())))
}

impl PostgresEngine {
    async fn open(url: &PostgresUrl, part: &Part, fingerprint: [u8; 32]) -> Result<Self, Error> {
        let failed = |e: UrlError| Error::Engine(e.to_string());
        let connector = Connector::new(url, part.spaces).map_err(failed)?;
        let until = Instant::now() + PATIENCE;
        let mut client = loop {
            match connector.connect().await {
                Ok(client) => break client,
                Err(error) if error.is_final() || Instant::now() > until => {
                    return Err(Error::Engine(error.to_string()));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        };
        schema::migrate(&mut client).await?;
        schema::check_secrets(&client, part, &fingerprint).await?;
        let pool = Pool::builder(connector)
            .max_size(CONNECTIONS)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(ROUND_TRIP))
            .build()
            .map_err(|e| Error::Engine(e.to_string()))?;
        Ok(Self(pool))
    }

    async fn attempt_read<T, W>(&self, work: &Arc<W>) -> Result<T, Failure>
    where
        T: Send + 'static,
        W: Fn(&mut Tx<'_>) -> Result<T, Error> + Send + Sync + 'static,
    {
        let mut ran = run(Cache::default(), work.clone()).await?;
        let mut wanted = ran.cache.take_wanted();
        if wanted.is_empty() {
            return ran.value.map_err(Failure::Final);
        }
        let connection = self.0.get().await?;
        loop {
            round_trip(&connection, ran.cache.fetch(&connection, &wanted)).await?;
            ran = run(ran.cache, work.clone()).await?;
            wanted = ran.cache.take_wanted();
            if wanted.is_empty() {
                return ran.value.map_err(Failure::Final);
            }
        }
    }

    async fn attempt_write<T, W>(&self, plan: &mut Plan, work: &Arc<W>) -> Result<T, Failure>
    where
        T: Send + 'static,
        W: Fn(&mut Tx<'_>) -> Result<T, Error> + Send + Sync + 'static,
    {
        if plan.wanted.is_empty() {
            // What it wants is known before there is a connection.
            let mut ran = run(Cache::default(), work.clone()).await?;
            plan.wanted = ran.cache.take_wanted();
        }
        let connection = self.0.get().await?;
        // Until the transaction has come to its end.
        let whole = connection.in_use();
        let mut locks = plan.wanted.locks();
        let alone = plan.alone || locks.len() > MANY_LOCKS;
        let mut cache = Cache::default();
        let (client, statements) = (&connection.client, &connection.statements);
        let sorted: Vec<i64> = match alone {
            true => Vec::new(),
            false => locks.iter().copied().collect(),
        };
        round_trip(&connection, async {
            let (begun, locked, fetched) = futures::join!(
                client.batch_execute(if alone { ALONE } else { TOGETHER }),
                statements.lock(client, &sorted),
                cache.fetch(&connection, &plan.wanted),
            );
            begun.and(locked).and(fetched)
        })
        .await?;
        loop {
            let mut ran = run(cache, work.clone()).await?;
            let wanted = ran.cache.take_wanted();
            if wanted.is_empty() {
                let value = match ran.value {
                    Ok(value) if !ran.changes.is_empty() || ran.delta != Delta::default() => {
                        commit(&connection, &ran.changes, &ran.delta).await?;
                        Ok(value)
                    }
                    other => {
                        round_trip(&connection, client.batch_execute("rollback")).await?;
                        other
                    }
                };
                whole.done();
                return value.map_err(Failure::Final);
            }
            cache = ran.cache;
            let new: Vec<i64> = match alone {
                true => Vec::new(),
                false => wanted.locks().difference(&locks).copied().collect(),
            };
            plan.wanted.add(wanted.clone());
            let free = locks.len() + new.len() <= MANY_LOCKS || alone;
            let free = free
                && round_trip(&connection, async {
                    let (free, fetched) = futures::join!(
                        statements.try_lock(client, &new),
                        cache.fetch(&connection, &wanted),
                    );
                    fetched.and(free)
                })
                .await?;
            if !free {
                round_trip(&connection, client.batch_execute("rollback")).await?;
                whole.done();
                return Err(Failure::Contended);
            }
            locks.extend(new);
        }
    }
}

/// Writes all changes and commits.
async fn commit(connection: &Connection, changes: &Changes, delta: &Delta) -> Result<(), Failure> {
    let client = &connection.client;
    let stripe = i16::from(random()) % STRIPES;
    let done = round_trip(connection, async {
        let (written, endless, committed) = futures::join!(
            connection.statements.write(client, changes, delta, stripe),
            // If the time ran out while a standby has not confirmed, the database would say that
            // it is done.
            client.batch_execute("set local statement_timeout = 0"),
            client.batch_execute("commit"),
        );
        written.and(endless).and(committed)
    });
    done.await.map_err(|failure| match failure {
        Failure::Passing(why) => Failure::Unknown(why),
        other => other,
    })
}

impl Engine for PostgresEngine {
    type Snapshot = PostgresSnapshot;

    async fn read<T: Send + 'static>(
        &self,
        work: impl Fn(&Tx<'_>) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<T, Error> {
        let work = Arc::new(move |tx: &mut Tx<'_>| work(tx));
        let mut retry = Retry::new(false);
        loop {
            match self.attempt_read(&work).await {
                Ok(value) => return Ok(value),
                Err(failure) => retry.after(failure, &mut Plan::default()).await?,
            }
        }
    }

    async fn write<T: Send + 'static>(
        &self,
        needs: Needs,
        work: impl Fn(&mut Tx<'_>) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<T, Error> {
        let work = Arc::new(work);
        let (mut plan, mut retry) = (Plan::default(), Retry::new(needs == Needs::Once));
        loop {
            match self.attempt_write(&mut plan, &work).await {
                Ok(value) => return Ok(value),
                Err(failure) => retry.after(failure, &mut plan).await?,
            }
        }
    }

    async fn totals(&self) -> Result<Stats, Error> {
        let mut retry = Retry::new(false);
        loop {
            let attempt = async {
                let connection = self.0.get().await?;
                round_trip(&connection, statements::totals(&connection.client)).await
            };
            match attempt.await {
                Ok(totals) => return Ok(totals.applied(&Stats::default())),
                Err(failure) => retry.after(failure, &mut Plan::default()).await?,
            }
        }
    }

    async fn snapshot(&self) -> Result<PostgresSnapshot, Error> {
        let away = |why: String| Error::Away(why);
        let connection = self.0.get().await.map_err(|e| away(e.to_string()))?;
        // Of this snapshot alone: with it the lock goes.
        let connection = Object::take(connection);
        let client = &connection.client;
        let lock = named_lock(b"camvault audit");
        let begin = async {
            client.batch_execute(AUDIT).await?;
            let try_lock = "select pg_try_advisory_lock($1)";
            while !client.query_one(try_lock, &[&lock]).await?.try_get(0)? {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            client
                .batch_execute("begin isolation level repeatable read read only")
                .await?;
            statements::totals(client).await
        };
        let totals = begin.await.map_err(|e| away(said(&e)))?;
        Ok(PostgresSnapshot { connection, totals })
    }
}

/// What a database held at one moment.
pub struct PostgresSnapshot {
    connection: Connection,
    totals: Delta,
}

impl Snapshot for PostgresSnapshot {
    fn totals(&self) -> Delta {
        self.totals
    }

    async fn page(
        &mut self,
        space: Space,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, Error> {
        let Connection {
            client, statements, ..
        } = &self.connection;
        let ranges = [(from, to, limit)];
        let page = statements.ranges(client, space, &ranges);
        let page = tokio::time::timeout(ROUND_TRIP * 4, page).await;
        let page = page.map_err(|_| Error::Away("an audit was too slow".into()))?;
        let mut pages = page.map_err(|e| Error::Away(said(&e)))?;
        Ok(pages.pop().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
