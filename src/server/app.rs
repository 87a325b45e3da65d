// SPDX-License-Identifier: MPL-2.0
//! What all requests share, and what is done around each of them.

use super::auth::{self, Binds, Freshness, header};
use super::body;
use super::config::{Config, Role};
use super::hints::Hints;
use super::metrics::Metrics;
use super::refusal::Refusal;
use super::secrets::{self, Secret};
use super::tokens::{Link, PutCounts};
use super::ttp::{self, TtpRole};
use super::upkeep::Sweeping;
use super::{gateway, internal, metadata, ops, recordings, storage};
use crate::ownership::{Leaf, Tree};
use crate::protocol::{self, Code, signature::content_digest};
use crate::store::{
    Blobs, Embedded, Error as StoreError, Hash, Metadata, Remote, Room, Upkeep, now_ms,
};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post, put};
use bytes::Bytes;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Longest wait for a share of the memory for bodies.
const MEMORY_WAIT: Duration = Duration::from_secs(10);
/// Unit in which the memory for bodies is handed out.
const MEMORY_UNIT: u64 = 4096;
/// Leaves remembered.
const MAX_KNOWN: usize = 100_000;

/// Address of the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// What the metadata role has.
pub struct MetadataRole {
    /// The store.
    pub store: Arc<dyn Metadata>,
    /// Where its blobs are looked after.
    pub upkeep: Arc<dyn Upkeep>,
    /// For path keys.
    pub tree: Tree,
    /// Who uploads what.
    pub hints: Hints,
    /// Needed to enrol, where a token is needed.
    pub enroll_token: Option<zeroize::Zeroizing<String>>,
    /// One deletes at a time.
    pub sweeping: Sweeping,
    known: RwLock<HashMap<Hash, Leaf>>,
}

/// What the storage role has.
pub struct StorageRole {
    /// The store.
    pub store: Arc<dyn Blobs>,
    /// Bytes uploaded under each put token.
    pub counts: PutCounts,
}

/// What all requests share.
pub struct App {
    /// How the server is set up.
    pub config: Config,
    /// Keys shared by the roles.
    pub link: Link,
    /// The metadata role, if this process has it.
    pub metadata: Option<MetadataRole>,
    /// The storage role, if this process has it.
    pub storage: Option<StorageRole>,
    /// The third party, if this process is it.
    pub ttp: Option<TtpRole>,
    /// Allows scrubs from elsewhere.
    pub admin_token: zeroize::Zeroizing<String>,
    /// Numbers.
    pub metrics: Metrics,
    freshness: Freshness,
    requests: Semaphore,
    memory: Semaphore,
}

/// A signed request from an enrolled owner.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// Signing key.
    pub key: Hash,
    /// Place in the tree.
    pub leaf: Leaf,
}

impl App {
    /// Opens the other stores. Returns for how long to wait before the first request is taken.
    pub fn open(
        config: Config,
        blobs: Option<Arc<dyn Blobs>>,
        open_enrolment: bool,
    ) -> Result<(Arc<Self>, Duration), super::Error> {
        let dir = config.secrets_dir();
        let fresh_data = !dir.exists();
        secrets::prepare(&dir)?;
        let make = |name: &str| secrets::read_or_make(&dir.join(name));
        let link: Secret = match &config.link_secret {
            Some(path) => secrets::read_or_make(path)?,
            None => make("link")?,
        };
        let link = Link::new(&link);
        let admin_token = secrets::as_token(&make("admin.token")?);
        let room = Room::new(&config.data, config.reserve);
        let ttp = match config.has(Role::Ttp) {
            true => {
                let room = room.clone();
                Some(TtpRole::open(&config.data, &dir, room, open_enrolment)?)
            }
            false => None,
        };
        let metadata = match config.has(Role::Metadata) {
            false => None,
            true => {
                let tree = Tree::new(*make("master")?);
                let token = make("enroll.token")?;
                let store = Embedded::open(&config.data.join("metadata"), tree.clone(), room)?;
                let upkeep: Arc<dyn Upkeep> = match (&blobs, &config.storage_url) {
                    (Some(blobs), None) => blobs.clone(),
                    (_, Some(url)) => Arc::new(remote(url, &config, &dir)?),
                    (None, None) => return Err(super::Error::NoStorage),
                };
                Some(MetadataRole {
                    store: Arc::new(store),
                    upkeep,
                    tree,
                    hints: Hints::default(),
                    enroll_token: (!open_enrolment).then(|| secrets::as_token(&token)),
                    sweeping: Sweeping::default(),
                    known: RwLock::default(),
                })
            }
        };
        let storage = blobs.map(|store| StorageRole {
            store,
            counts: PutCounts::default(),
        });
        let (freshness, wait) = match fresh_data {
            true => (Freshness::first_start(), Duration::ZERO),
            false => Freshness::restarted(),
        };
        let permits = usize::try_from(config.memory / MEMORY_UNIT).unwrap_or(usize::MAX);
        let app = Self {
            requests: Semaphore::new(config.max_requests),
            memory: Semaphore::new(permits.min(Semaphore::MAX_PERMITS)),
            config,
            link,
            metadata,
            storage,
            ttp,
            admin_token,
            metrics: Metrics::default(),
            freshness,
        };
        Ok((Arc::new(app), wait))
    }

    /// The routes of this process's roles.
    pub fn router(self: &Arc<Self>) -> Router {
        let mut router = Router::new()
            .route("/healthz", get(ops::health))
            .route("/metrics", get(ops::metrics))
            .route("/v1/vault", get(ops::vault));
        if self.metadata.is_some() {
            router = router
                .route("/v1/stats", get(ops::stats))
                .route("/v1/scrub", post(ops::scrub))
                .route("/v1/enroll", post(metadata::enroll))
                .route("/v1/me", get(metadata::me))
                .route("/v1/lookup", post(metadata::lookup))
                .route("/v1/register", post(metadata::register))
                .route("/v1/open", post(metadata::open))
                .route("/v1/recordings", get(recordings::list))
                .route(
                    "/v1/recordings/{id}",
                    get(recordings::one).delete(recordings::forget),
                )
                .route(
                    "/v1/recordings/{id}/segments/{seq}",
                    get(recordings::segment).put(recordings::commit),
                )
                .route(
                    "/v1/recordings/{id}/shares/{key}",
                    put(recordings::share).delete(recordings::unshare),
                );
        }
        if self.storage.is_some() {
            router = router
                .route("/v1/blobs", put(storage::put))
                .route("/v1/blobs/get", post(storage::get))
                .route(internal::PATH, post(internal::ask));
        }
        if self.config.gateway.is_some() {
            router = router
                .route("/v1/gateway", get(gateway::info))
                .route("/v1/gateway/contracts", post(gateway::contract))
                .route(
                    "/v1/gateway/contracts/{id}",
                    get(gateway::archives).delete(gateway::forget),
                )
                .route(
                    "/v1/gateway/contracts/{id}/archives/{name}",
                    get(gateway::remainders).post(gateway::retrieve),
                );
        }
        if self.ttp.is_some() {
            router = router
                .route("/v1/ttp", get(ttp::info))
                .route("/v1/ttp/parameters", get(ttp::parameters))
                .route("/v1/ttp/party", put(ttp::register))
                .route("/v1/ttp/keys/{key}", get(ttp::key))
                .route("/v1/ttp/contracts", post(ttp::add))
                .route("/v1/ttp/contracts/{id}", get(ttp::one))
                .route("/v1/ttp/tickets", post(ttp::issue))
                .route("/v1/ttp/features", post(ttp::features))
                .route("/v1/ttp/openings", post(ttp::open))
                .route("/v1/ttp/receipts", post(ttp::receive))
                .route("/v1/ttp/audits", post(ttp::demand))
                .route("/v1/ttp/retrievals", post(ttp::retrieve))
                .route("/v1/ttp/arbitrations", post(ttp::arbitrate))
                .route("/v1/ttp/deletions", get(ttp::deletions).post(ttp::delete));
        }
        router
            .fallback(ops::not_found)
            .method_not_allowed_fallback(ops::not_found)
            .layer(middleware::from_fn_with_state(self.clone(), around))
            .with_state(self.clone())
    }

    /// The metadata role; its routes exist only where it does.
    pub fn metadata(&self) -> Result<&MetadataRole, Refusal> {
        self.metadata
            .as_ref()
            .ok_or_else(|| Refusal::not_found("path"))
    }

    /// The storage role, likewise.
    pub fn storage(&self) -> Result<&StorageRole, Refusal> {
        self.storage
            .as_ref()
            .ok_or_else(|| Refusal::not_found("path"))
    }

    /// The third party, likewise.
    pub fn ttp(&self) -> Result<&TtpRole, Refusal> {
        self.ttp.as_ref().ok_or_else(|| Refusal::not_found("path"))
    }

    /// Who signed a request whose body has not been read.
    pub fn signer(&self, parts: &Parts, binds: Binds) -> Result<Hash, Refusal> {
        auth::signer(parts, binds, &self.freshness, &self.config.names)
    }

    /// Accepts an internal request once.
    pub fn fresh_internal(&self, created: u64, nonce: &str) -> Result<(), Refusal> {
        self.freshness.check(created, b"internal", nonce)
    }

    /// The memory for a body, while it is worked on.
    pub async fn memory(&self, parts: &Parts, limit: u64) -> Result<SemaphorePermit<'_>, Refusal> {
        let bytes = body::announced(&parts.headers).unwrap_or(limit).min(limit);
        let all = self.config.memory / MEMORY_UNIT;
        let units = bytes.div_ceil(MEMORY_UNIT).min(all);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let busy = || Refusal::new(Code::Busy, "the server is busy: try again");
        let permit = tokio::time::timeout(MEMORY_WAIT, self.memory.acquire_many(units)).await;
        permit.map_err(|_| busy())?.map_err(|_| busy())
    }

    /// Reads a body whose digest was signed.
    pub async fn body(&self, parts: &Parts, body: Body, limit: u64) -> Result<Bytes, Refusal> {
        let bytes = body::read(&parts.headers, body, limit, self.config.pace).await?;
        match header(&parts.headers, "content-digest")? == content_digest(&bytes) {
            true => Ok(bytes),
            false => Err(Refusal::new(
                Code::Signature,
                "the request's body is not the one that was signed",
            )),
        }
    }

    /// The enrolled owner that signed a request, and its message.
    pub async fn signed<T: for<'b> minicbor::Decode<'b, ()>>(
        &self,
        request: Request,
    ) -> Result<(Caller, Parts, T), Refusal> {
        let (parts, body) = request.into_parts();
        let caller = self.caller(&parts).await?;
        let limit = self.config.limits.body_bytes;
        let _memory = self.memory(&parts, limit).await?;
        let bytes = self.body(&parts, body, limit).await?;
        Ok((caller, parts, parse(&bytes)?))
    }

    /// Likewise of a request that has no body.
    pub async fn signed_empty(&self, request: Request) -> Result<(Caller, Parts), Refusal> {
        let (parts, body) = request.into_parts();
        let caller = self.caller(&parts).await?;
        self.body(&parts, body, 0).await?;
        Ok((caller, parts))
    }

    async fn caller(&self, parts: &Parts) -> Result<Caller, Refusal> {
        let key = self.signer(parts, Binds::Digest)?;
        let leaf = self.metadata()?.leaf(key).await?;
        let not = || Refusal::new(Code::NotEnrolled, "not enrolled: run `camvault enroll`");
        leaf.map(|leaf| Caller { key, leaf }).ok_or_else(not)
    }
}

impl MetadataRole {
    /// The leaf of a signing key, if it is enrolled.
    pub async fn leaf(&self, key: Hash) -> Result<Option<Leaf>, StoreError> {
        let known = || {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            known.get(&key).copied()
        };
        if let Some(leaf) = known() {
            return Ok(Some(leaf));
        }
        let leaf = self.store.owner(key).await?.map(|owner| owner.leaf);
        if let Some(leaf) = leaf {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= MAX_KNOWN {
                known.clear();
            }
            known.insert(key, leaf);
        }
        Ok(leaf)
    }
}

/// Reads a message body.
pub fn parse<T: for<'b> minicbor::Decode<'b, ()>>(bytes: &[u8]) -> Result<T, Refusal> {
    protocol::decode(bytes)
        .map_err(|e| Refusal::malformed(format!("the request's body is not understood: {e}")))
}

fn remote(url: &str, config: &Config, secrets: &std::path::Path) -> Result<Remote, super::Error> {
    let base = protocol::vault_base(url).map_err(|e| super::Error::StorageUrl(e.to_string()))?;
    let path = config
        .link_secret
        .clone()
        .unwrap_or_else(|| secrets.join("link"));
    let link = Link::new(&*secrets::read(&path)?);
    let seal = move |body: &[u8], created: u64| {
        let sealed = link
            .seal_internal(body, created)
            .ok_or(StoreError::Random)?;
        Ok((super::tokens::INTERNAL_HEADER, sealed))
    };
    Ok(Remote::new(
        format!("{base}{}", internal::PATH),
        Box::new(seal),
    )?)
}

/// Around every request: how many at once, and the numbers.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let always = matches!(path.as_str(), "/healthz" | "/metrics");
    app.metrics.in_flight.inc();
    let permit = app.requests.try_acquire();
    let response = match permit.is_ok() || always {
        true => next.run(request).await,
        false => Refusal::new(Code::Busy, "too many requests at once: try again").into_response(),
    };
    app.metrics.in_flight.dec();
    let status = response.status().as_u16();
    app.metrics
        .answered(method.as_str(), &path, status, began.elapsed());
    response
}

/// The server's clock, Unix seconds.
pub fn now_s() -> u64 {
    now_ms() / 1000
}
