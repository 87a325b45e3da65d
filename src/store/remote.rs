// SPDX-License-Identifier: MPL-2.0
//! [`Upkeep`] of blobs that another process stores, over its internal endpoint.

use super::{BlobInfo, Error, Hash, Health, Upkeep, now_ms};
use crate::protocol::{self, Problem};
use crate::trust::{self, Lost};
use async_trait::async_trait;
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Longest wait for one answer: a check reads many blobs.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Blobs in one request.
const BATCH: usize = 256;

/// What the metadata role asks of the storage role.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Ask {
    /// [`Upkeep::delete`].
    #[n(0)]
    Delete(#[n(0)] Vec<ByteArray<32>>),
    /// [`Upkeep::list`].
    #[n(1)]
    List(#[n(0)] u8),
    /// [`Upkeep::check`].
    #[n(2)]
    Check(#[n(0)] Vec<ByteArray<32>>),
    /// [`Upkeep::clean`].
    #[n(3)]
    Clean(#[n(0)] u64),
    /// [`Upkeep::ready`].
    #[n(4)]
    Ready,
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// Deleted: the storage server's clock.
    #[n(0)]
    Deleted(#[n(0)] u64),
    /// The blobs.
    #[n(1)]
    Listed(#[n(0)] Vec<BlobInfo>),
    /// How they are.
    #[n(2)]
    Checked(#[n(0)] Vec<Health>),
    /// Leftovers removed.
    #[n(3)]
    Cleaned(#[n(0)] u64),
    /// Ready.
    #[n(4)]
    Ready,
}

/// Makes the header that proves knowledge of the link secret for a body at a time (Unix seconds).
pub type Seal = dyn Fn(&[u8], u64) -> Result<(&'static str, String), Error> + Send + Sync;

/// The storage server of another process.
pub struct Remote {
    url: String,
    seal: Box<Seal>,
    http: reqwest::Client,
    /// What to add to this clock for the storage server's, in milliseconds.
    clock_ms: AtomicI64,
}

impl Remote {
    /// Talks to the endpoint at `url`; `seal` makes the headers that authenticate a body.
    pub fn new(url: String, seal: Box<Seal>) -> Result<Self, Error> {
        let http = trust::client(url.starts_with("https:"), |builder| {
            builder
                .connect_timeout(Duration::from_secs(10))
                .timeout(TIMEOUT)
        })
        .map_err(|e| Error::Remote(format!("certificates to trust, {e}")))?;
        Ok(Self {
            url,
            seal,
            http,
            clock_ms: AtomicI64::new(0),
        })
    }

    async fn ask(&self, ask: &Ask) -> Result<Reply, Error> {
        let body = protocol::encode(ask);
        match self.send(&body).await? {
            Ok(reply) => Ok(reply),
            Err(problem) => {
                let Some(theirs) = problem.time_ms else {
                    return Err(Error::Remote(problem.message));
                };
                let clock = i64::try_from(i128::from(theirs) - i128::from(now_ms()));
                self.clock_ms.store(clock.unwrap_or(0), Ordering::Relaxed);
                let again = self.send(&body).await?;
                again.map_err(|problem| Error::Remote(problem.message))
            }
        }
    }

    async fn send(&self, body: &[u8]) -> Result<Result<Reply, Problem>, Error> {
        let now = now_ms().saturating_add_signed(self.clock_ms.load(Ordering::Relaxed));
        let (name, value) = (self.seal)(body, now / 1000)?;
        let request = self.http.post(&self.url).header(name, value);
        let failed = |e: reqwest::Error| Error::Remote(Lost::of(&e).reason);
        let answer = request.body(body.to_vec()).send().await.map_err(failed)?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(failed)?;
        if status.is_success() {
            return protocol::decode(&bytes).map(Ok).map_err(|_| unexpected());
        }
        let problem = protocol::decode::<Problem>(&bytes);
        problem
            .map(Err)
            .map_err(|_| Error::Remote(status.to_string()))
    }
}

fn unexpected() -> Error {
    Error::Remote("an answer that does not fit the question".into())
}

#[async_trait]
impl Upkeep for Remote {
    async fn delete(&self, blobs: &[Hash]) -> Result<u64, Error> {
        let mut last = 0;
        for batch in blobs.chunks(BATCH) {
            let batch = batch.iter().map(|d1| (*d1).into()).collect();
            match self.ask(&Ask::Delete(batch)).await? {
                Reply::Deleted(at) => last = at,
                _ => return Err(unexpected()),
            }
        }
        Ok(last)
    }

    async fn list(&self, first: u8) -> Result<Vec<BlobInfo>, Error> {
        match self.ask(&Ask::List(first)).await? {
            Reply::Listed(blobs) => Ok(blobs),
            _ => Err(unexpected()),
        }
    }

    async fn check(&self, blobs: &[Hash]) -> Result<Vec<Health>, Error> {
        let mut all = Vec::new();
        for batch in blobs.chunks(BATCH) {
            let names = batch.iter().map(|d1| (*d1).into()).collect();
            match self.ask(&Ask::Check(names)).await? {
                Reply::Checked(found) if found.len() == batch.len() => all.extend(found),
                _ => return Err(unexpected()),
            }
        }
        Ok(all)
    }

    async fn clean(&self, age_ms: u64) -> Result<u64, Error> {
        match self.ask(&Ask::Clean(age_ms)).await? {
            Reply::Cleaned(count) => Ok(count),
            _ => Err(unexpected()),
        }
    }

    async fn ready(&self) -> Result<(), Error> {
        match self.ask(&Ask::Ready).await? {
            Reply::Ready => Ok(()),
            _ => Err(unexpected()),
        }
    }
}

/// Answers an [`Ask`] from a store at hand: the other end of [`Remote`].
pub async fn answer(store: &dyn Upkeep, ask: Ask) -> Result<Reply, Error> {
    let names = |blobs: Vec<ByteArray<32>>| blobs.iter().map(|d1| **d1).collect::<Vec<Hash>>();
    Ok(match ask {
        Ask::Delete(blobs) => Reply::Deleted(store.delete(&names(blobs)).await?),
        Ask::List(first) => Reply::Listed(store.list(first).await?),
        Ask::Check(blobs) => Reply::Checked(store.check(&names(blobs)).await?),
        Ask::Clean(age_ms) => Reply::Cleaned(store.clean(age_ms).await?),
        Ask::Ready => {
            store.ready().await?;
            Reply::Ready
        }
    })
}
