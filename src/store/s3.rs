// SPDX-License-Identifier: MPL-2.0
//! [`Blobs`] in a bucket of any S3 service: `PREFIX/ab/<64 hex digits>`.
//!
//! A key is the hash of what is there, so putting it twice is harmless and no request is ever
//! conditional: services differ in what they make of a condition. A put counts when the service
//! has acknowledged it. Any number of servers may use one bucket.
//!
//! **When a receipt of before a deletion counts no more.** Several servers have several clocks,
//! and a deletion may still be on its way when its answer was given up. So [`S3::delete`] returns
//! a time [`MARGIN`] ahead of its own clock. S3 refuses what was signed more than 15 minutes off
//! its clock: a deletion signed at `x` on one server takes effect before `x` + 15 min of the
//! service's clock; a put that began at `y` on another, after `y` − 15 min. A receipt counts only
//! if `y` > `x` + 30 min, and then its put came behind the deletion.

use super::{Blob, BlobInfo, Blobs, Error, Hash, Health, Upkeep, hex, now_ms, unhex};
use crate::trust;
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::{HttpClient, HttpConnector, HttpError};
use object_store::list::{PaginatedListOptions, PaginatedListStore as _};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, ObjectStore as _, ObjectStoreExt as _, PutPayload, RetryConfig,
};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// How far ahead of its clock a server dates a deletion: twice what S3 lets clocks differ.
const MARGIN: Duration = Duration::from_secs(30 * 60);
/// Requests at once, by all that a server does.
const REQUESTS: usize = 64;
/// Blobs of one call that are put or checked at once.
const PARALLEL: usize = 16;
/// No new attempt is made after this.
const RETRY_TIME: Duration = Duration::from_secs(10);
/// Longest attempt.
const ATTEMPT_TIME: Duration = Duration::from_secs(20);
/// Longest wait for a whole put or one read: clients give up after 30 s of silence.
const LIMIT: Duration = Duration::from_secs(27);
/// Longest wait at the start, and of [`S3::ready`].
const START_LIMIT: Duration = Duration::from_secs(15);
const READY_LIMIT: Duration = Duration::from_secs(4);
/// Where objects are put to try whether that works.
const PROBES: &str = "probe";

/// Which bucket, and where. Credentials come from the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// What all keys begin with; may be empty.
    pub prefix: String,
    /// The service's URL; `None`: what the environment says, or AWS.
    pub endpoint: Option<String>,
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.name)?;
        match self.prefix.is_empty() {
            true => Ok(()),
            false => write!(f, "/{}", self.prefix),
        }
    }
}

impl FromStr for Bucket {
    type Err = String;

    /// Reads `s3://BUCKET[/PREFIX]`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no s3://BUCKET[/PREFIX]");
        let rest = text.strip_prefix("s3://").ok_or_else(wrong)?;
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if name.is_empty() || !name.chars().all(plain) {
            return Err(wrong());
        }
        let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|_| wrong())?;
        if !prefix.as_ref().chars().all(|c| plain(c) || c == '/') {
            return Err(wrong());
        }
        Ok(Self {
            name: name.to_owned(),
            prefix: prefix.to_string(),
            endpoint: None,
        })
    }
}

/// A bucket of blobs. Clones share it.
#[derive(Clone)]
pub struct S3(Arc<Inner>);

struct Inner {
    store: AmazonS3,
    at: Bucket,
    turns: Semaphore,
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3({})", self.0.at)
    }
}

/// Makes clients that trust what every other connection of this program trusts.
#[derive(Debug)]
struct Connector {
    tls: bool,
    loopback: bool,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = trust::client(self.tls, |builder| {
            // A pool of connections carries blobs faster than the streams of one.
            let builder = builder
                .http1_only()
                .connect_timeout(Duration::from_secs(5))
                .timeout(ATTEMPT_TIME)
                .pool_max_idle_per_host(REQUESTS);
            match self.loopback {
                true => builder.no_proxy(),
                false => builder,
            }
        });
        let failed = |e: trust::Unusable| object_store::Error::Generic {
            store: "S3",
            source: format!("certificates to trust, {e}").into(),
        };
        client.map(HttpClient::new).map_err(failed)
    }
}

impl S3 {
    /// Opens a bucket with the credentials of the environment, and tries whether objects can be
    /// listed, put, read and deleted there.
    pub async fn open(at: Bucket) -> Result<Self, Error> {
        Self::open_as(AmazonS3Builder::from_env(), at).await
    }

    async fn open_as(settings: AmazonS3Builder, at: Bucket) -> Result<Self, Error> {
        let store = Self(Arc::new(Inner {
            store: client(settings, &at)?,
            at,
            turns: Semaphore::new(REQUESTS),
        }));
        store.within(START_LIMIT, store.try_out()).await?;
        Ok(store)
    }

    async fn try_out(&self) -> Result<(), Error> {
        let inner = &*self.0;
        let credentials = inner.store.credentials().get_credential().await;
        credentials.map_err(|e| {
            inner.error(format!(
                "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where the \
                 machine has a role that gives them ({})",
                cause(&e)
            ))
        })?;
        let mut content = [0; 16];
        getrandom::fill(&mut content).map_err(|_| Error::Random)?;
        let probe = inner.key(&[PROBES, &hex(&content)]);
        let work = async {
            self.list_one().await?;
            let payload = PutPayload::from(content.to_vec());
            inner.store.put(&probe, payload).await?;
            let back = inner.store.get(&probe).await?.bytes().await?;
            inner.store.delete(&probe).await?;
            Ok(back)
        };
        match work.await {
            Ok(back) if back[..] == content => Ok(()),
            Ok(_) => Err(inner.error("what was put does not come back".into())),
            Err(e) => Err(inner.failed(&e)),
        }
    }

    async fn list_one(&self) -> object_store::Result<()> {
        let options = PaginatedListOptions {
            max_keys: Some(1),
            ..PaginatedListOptions::default()
        };
        let prefix = format!("{}/", self.0.key(&[]));
        let prefix = prefix.strip_prefix('/').unwrap_or(&prefix);
        let listed = self.0.store.list_paginated(Some(prefix), options).await;
        listed.map(|_| ())
    }

    /// Ends work that takes too long.
    async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let late = |_| {
            let waited = format!("no answer within {} s", limit.as_secs());
            self.0.error(unreachable(&waited))
        };
        tokio::time::timeout(limit, work).await.map_err(late)?
    }

    async fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Error> {
        let turn = self.0.turns.acquire().await;
        turn.map_err(|e| Error::Engine(e.to_string()))
    }

    async fn put_one(&self, blob: Blob) -> Result<(), Error> {
        let _turn = self.turn().await?;
        let payload: PutPayload = blob.data.into_iter().collect();
        let put = self.0.store.put(&self.0.blob(&blob.d1), payload).await;
        put.map(|_| ()).map_err(|e| self.0.failed(&e))
    }

    /// The answer to a read; `None`: the service says that there is no such object.
    async fn open_one(&self, d1: &Hash) -> Result<Option<object_store::GetResult>, Error> {
        match self.0.store.get(&self.0.blob(d1)).await {
            Ok(found) => Ok(Some(found)),
            // A bucket that is not there, or a proxy's page, is no answer about the blob.
            Err(e @ object_store::Error::NotFound { .. }) if says(&e, "NoSuchKey") => Ok(None),
            Err(e) => Err(self.0.failed(&e)),
        }
    }

    async fn check_one(&self, d1: Hash) -> Result<Health, Error> {
        let _turn = self.turn().await?;
        let Some(found) = self.open_one(&d1).await? else {
            return Ok(Health::Missing);
        };
        let mut hasher = blake3::Hasher::new();
        let mut parts = found.into_stream();
        while let Some(part) = parts.try_next().await.map_err(|e| self.0.failed(&e))? {
            hasher.update(&part);
        }
        match hasher.finalize() == d1 {
            true => Ok(Health::Fine),
            false => Ok(Health::Damaged),
        }
    }

    async fn delete_all(&self, keys: Vec<Path>) -> Result<(), Error> {
        let _turn = self.turn().await?;
        let keys = stream::iter(keys.into_iter().map(Ok)).boxed();
        let mut deleted = self.0.store.delete_stream(keys);
        while let Some(key) = deleted.next().await {
            match key {
                Ok(_) => (),
                Err(e) if says(&e, "NoSuchKey") => (),
                Err(e) => return Err(self.0.failed(&e)),
            }
        }
        Ok(())
    }

    /// What lies below a part of the keys.
    async fn list_below(&self, part: &str) -> Result<Vec<object_store::ObjectMeta>, Error> {
        let _turn = self.turn().await?;
        let mut listed = self.0.store.list(Some(&self.0.key(&[part])));
        let mut found = Vec::new();
        loop {
            let next = async { listed.try_next().await.map_err(|e| self.0.failed(&e)) };
            match self.within(LIMIT, next).await? {
                Some(object) => found.push(object),
                None => return Ok(found),
            }
        }
    }
}

impl Inner {
    fn key(&self, parts: &[&str]) -> Path {
        let prefix = Some(self.at.prefix.as_str()).filter(|prefix| !prefix.is_empty());
        let segments = prefix.iter().flat_map(|prefix| prefix.split('/'));
        Path::from_iter(segments.chain(parts.iter().copied()))
    }

    fn blob(&self, d1: &Hash) -> Path {
        self.key(&[&hex(&d1[..1]), &hex(d1)])
    }

    fn error(&self, reason: String) -> Error {
        Error::Bucket(self.at.to_string(), reason)
    }

    /// What went wrong and what to do. An answer's body is never shown: it may repeat what was
    /// signed, a session token among it.
    fn failed(&self, error: &object_store::Error) -> Error {
        let one_of = |codes: &[&str]| codes.iter().any(|code| says(error, code));
        if one_of(&["QuotaExceeded", "StorageFull", "507 Insufficient"]) {
            return Error::Full;
        }
        let name = &self.at.name;
        self.error(if one_of(&["NoSuchBucket"]) {
            format!("there is no bucket {name}: make it, or correct --blobs")
        } else if one_of(&["RequestTimeTooSkewed", "RequestExpired"]) {
            "this machine's clock differs from the service's by more than 15 minutes: set it".into()
        } else if one_of(&[
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "InvalidToken",
            "ExpiredToken",
            "401 Unauthorized",
        ]) {
            "the credentials are refused: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and \
             AWS_SESSION_TOKEN"
                .into()
        } else if one_of(&[
            "AuthorizationHeaderMalformed",
            "PermanentRedirect",
            "redirect without LOCATION",
        ]) {
            format!("bucket {name} is in another region: set AWS_REGION")
        } else if one_of(&["AccessDenied", "403 Forbidden"]) {
            "access denied: the credentials need s3:ListBucket, s3:GetObject, s3:PutObject and \
             s3:DeleteObject there"
                .into()
        } else {
            match lost(error) {
                Some(_) => unreachable(&cause(error)),
                None => format!("the service answers {}", answered(error)),
            }
        })
    }
}

fn unreachable(reason: &str) -> String {
    format!("the service cannot be reached ({reason}): check --s3-endpoint and the network")
}

/// The client for a bucket.
fn client(settings: AmazonS3Builder, at: &Bucket) -> Result<AmazonS3, Error> {
    let failed = |e: &object_store::Error| Error::Bucket(at.to_string(), cause(e));
    let mut builder = settings.with_bucket_name(&at.name).with_retry(RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: 100,
        retry_timeout: RETRY_TIME,
    });
    if let Some(endpoint) = &at.endpoint {
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    let endpoint = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint]
        .iter()
        .find_map(|key| builder.get_config_value(key));
    let endpoint = match &endpoint {
        None => None,
        Some(text) => match url::Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Some(url),
            _ => {
                let reason = format!("the endpoint {text:?} is no http:// or https:// URL");
                return Err(Error::Bucket(at.to_string(), reason));
            }
        },
    };
    let connector = Connector {
        tls: endpoint.as_ref().is_none_or(|url| url.scheme() == "https"),
        loopback: endpoint.as_ref().is_some_and(trust::is_loopback),
    };
    let store = builder.with_http_connector(connector).build();
    store.map_err(|e| failed(&e))
}

fn chain(error: &object_store::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |e| {
        e.source()
    })
}

/// Whether some part of an error has a word in it.
fn says(error: &object_store::Error, word: &str) -> bool {
    chain(error).any(|e| e.to_string().contains(word))
}

/// The part of an error that says that a request or its answer was lost.
fn lost(error: &object_store::Error) -> Option<&HttpError> {
    chain(error).find_map(|e| e.downcast_ref())
}

/// The innermost cause; the outer ones repeat it and the URL.
fn cause(error: &object_store::Error) -> String {
    let innermost = chain(error).last().map(ToString::to_string);
    let text = innermost.unwrap_or_default();
    // An answer's body comes behind the first line or tag.
    let end = text.find(['<', '\n']).unwrap_or(text.len());
    text.get(..end)
        .unwrap_or_default()
        .trim_end_matches([':', ' '])
        .to_owned()
}

/// Status and code of an answer that refuses.
fn answered(error: &object_store::Error) -> String {
    let all = chain(error).map(ToString::to_string).collect::<Vec<_>>();
    let code = all.iter().find_map(|text| {
        let (_, rest) = text.split_once("<Code>")?;
        Some(rest.split_once("</Code>")?.0)
    });
    match code {
        Some(code) => format!("{} ({code})", cause(error)),
        None => cause(error),
    }
}

#[async_trait]
impl Upkeep for S3 {
    async fn delete(&self, blobs: &[Hash]) -> Result<u64, Error> {
        for some in blobs.chunks(1000) {
            let keys = some.iter().map(|d1| self.0.blob(d1)).collect();
            self.within(LIMIT, self.delete_all(keys)).await?;
        }
        Ok(now_ms().saturating_add(MARGIN.as_secs() * 1000))
    }

    async fn list(&self, first: u8) -> Result<Vec<BlobInfo>, Error> {
        let listed = self.list_below(&hex(&[first])).await?;
        let info = |object: object_store::ObjectMeta| {
            // Whatever else lies there is not ours.
            let d1 = object.location.filename().and_then(unhex)?;
            let written_ms = object.last_modified.timestamp_millis();
            Some(BlobInfo {
                d1,
                len: object.size,
                written_ms: u64::try_from(written_ms).unwrap_or(0),
            })
        };
        Ok(listed.into_iter().filter_map(info).collect())
    }

    async fn check(&self, blobs: &[Hash]) -> Result<Vec<Health>, Error> {
        let one = |d1: Hash| self.within(LIMIT, self.check_one(d1));
        let checks = stream::iter(blobs.to_vec()).map(one);
        checks.buffered(PARALLEL).try_collect().await
    }

    async fn clean(&self, age_ms: u64) -> Result<u64, Error> {
        let before = i64::try_from(now_ms().saturating_sub(age_ms)).unwrap_or(i64::MAX);
        let listed = self.list_below(PROBES).await?;
        let old = listed.into_iter();
        let old = old.filter(|object| object.last_modified.timestamp_millis() <= before);
        let keys: Vec<Path> = old.map(|object| object.location).collect();
        let count = keys.len() as u64;
        self.within(LIMIT, self.delete_all(keys)).await?;
        Ok(count)
    }

    async fn ready(&self) -> Result<(), Error> {
        let listed = async { self.list_one().await.map_err(|e| self.0.failed(&e)) };
        self.within(READY_LIMIT, listed).await
    }
}

#[async_trait]
impl Blobs for S3 {
    async fn put(&self, blobs: Vec<Blob>) -> Result<(), Error> {
        let puts = stream::iter(blobs.into_iter().map(Ok));
        let puts = puts.try_for_each_concurrent(PARALLEL, |blob| self.put_one(blob));
        self.within(LIMIT, puts).await
    }

    async fn get(&self, d1: &Hash) -> Result<Option<Bytes>, Error> {
        let read = async {
            let _turn = self.turn().await?;
            match self.open_one(d1).await? {
                None => Ok(None),
                Some(found) => {
                    let bytes = found.bytes().await;
                    bytes.map(Some).map_err(|e| self.0.failed(&e))
                }
            }
        };
        self.within(LIMIT, read).await
    }
}

#[cfg(test)]
mod tests;
