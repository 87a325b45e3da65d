// SPDX-License-Identifier: MPL-2.0
//! What all requests share, and what is done around each of them.

use super::auth::{self, Binds, Freshness, Once, header};
use super::body;
use super::config::{Config, Role};
use super::hints::Hints;
use super::jobs::Jobs;
use super::metrics::{Counted, Limit, Metrics};
use super::rates::Rates;
use super::refusal::Refusal;
use super::secrets::{self, Secret};
use super::tokens::Link;
use super::ttp::{self, TtpRole};
use super::{Kept, gateway, health, internal, metadata, ops, recordings, storage, trace};
use crate::ownership::{Leaf, Tree};
use crate::protocol::{self, Code, signature::content_digest};
use crate::store::{
    Allowance, BlobPlace, Blobs, Embedded, Error as StoreError, Hash, Metadata, Postgres, Remote,
    Room, Upkeep, now_ms,
};
use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, header as fields};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post, put};
use bytes::Bytes;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tracing::Instrument as _;

/// Longest wait for a share of the memory for bodies.
const MEMORY_WAIT: Duration = Duration::from_secs(10);
/// Unit in which the memory for bodies is handed out.
const MEMORY_UNIT: u64 = 4096;
/// A server takes such a part of what an owner may do in a second at a time.
const PIECES: u64 = 8;
/// Leaves remembered.
const MAX_KNOWN: usize = 100_000;

/// Address of the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// What the metadata role has.
pub struct MetadataRole {
    /// The store.
    pub store: Arc<dyn Metadata>,
    /// What the store is.
    pub engine: &'static str,
    /// Where its blobs are looked after.
    pub upkeep: Arc<dyn Upkeep>,
    /// For path keys.
    pub tree: Tree,
    /// Who uploads what.
    pub hints: Hints,
    /// Needed to enrol, where a token is needed.
    pub enroll_token: Option<zeroize::Zeroizing<String>>,
    /// Work shared with other servers.
    pub jobs: Jobs,
    /// There may be something to do.
    pub wake: Notify,
    known: RwLock<HashMap<Hash, Leaf>>,
}

/// What the storage role has.
pub struct StorageRole {
    /// The store.
    pub store: Arc<dyn Blobs>,
    /// What the store is.
    pub engine: &'static str,
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
    /// How the engines were.
    pub examined: health::Last,
    /// When it was opened.
    pub began: Instant,
    /// Connections that may still be opened.
    pub connections: Arc<Semaphore>,
    phase: AtomicU8,
    /// What owners may do in a second, and under a put token.
    pub rates: Rates,
    freshness: Freshness,
    requests: Semaphore,
    memory: Semaphore,
}

/// How far a server is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Not at all.
    Serving,
    /// It does everything, and asks to be left.
    Leaving,
    /// It ends what it does, and takes nothing more.
    Ending,
}

/// A signed request from an enrolled owner.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// Signing key.
    pub key: Hash,
    /// Place in the tree.
    pub leaf: Leaf,
    /// The request.
    pub once: Once,
}

impl App {
    /// Opens the other stores, on a thread of a runtime that may block; `shared` is a metadata store that
    /// others have open too. Returns for how long to wait before the first request is taken.
    pub fn open(
        config: Config,
        blobs: Option<Arc<dyn Blobs>>,
        open_enrolment: bool,
        shared: Option<Arc<dyn Metadata>>,
    ) -> Result<(Arc<Self>, Duration), super::Error> {
        let dir = config.secrets_dir();
        let fresh_data = !dir.exists();
        secrets::prepare(&dir)?;
        let make = |name: &str| secrets::read_or_make(&dir.join(name));
        let link_secret = secrets::read_or_make(&config.link_file())?;
        let link = Link::new(&link_secret);
        let admin_token = secrets::as_token(&make("admin.token")?);
        let room = Room::new(&config.data, config.reserve);
        let permits = usize::try_from(config.memory / MEMORY_UNIT).unwrap_or(usize::MAX);
        let requests = Semaphore::new(config.max_requests);
        let memory = Semaphore::new(permits.min(Semaphore::MAX_PERMITS));
        let limits = limits(&config, &requests, &memory, 0);
        let metrics = Metrics::new(&limits, config.gateway.is_some());
        let ttp = match config.has(Role::Ttp) {
            true => {
                let opening = TtpRole::open(&config, room.clone(), open_enrolment, &metrics.ttp);
                Some(Handle::current().block_on(opening)?)
            }
            false => None,
        };
        let metadata = match config.has(Role::Metadata) {
            false => None,
            true => {
                let master = make("master")?;
                let tree = Tree::new(*master);
                let token = make("enroll.token")?;
                super::check_place(&config.data, Kept::Metadata, config.metadata.is_some())?;
                let store: Arc<dyn Metadata> = match (shared, &config.metadata) {
                    (Some(store), _) => store,
                    (None, None) => {
                        let dir = Kept::Metadata.below(&config.data);
                        Arc::new(Embedded::open(&dir, tree.clone(), room)?)
                    }
                    (None, Some(url)) => {
                        let shared = secrets::fingerprint(&[&master, &link_secret]);
                        Handle::current().block_on(async {
                            let store = Postgres::open(url, tree.clone(), shared).await?;
                            store.check_whole().await?;
                            Ok::<_, StoreError>(Arc::new(store))
                        })?
                    }
                };
                let upkeep: Arc<dyn Upkeep> = match (&blobs, &config.storage_url) {
                    (Some(blobs), None) => blobs.clone(),
                    (_, Some(url)) => Arc::new(remote(url, &link_secret)?),
                    (None, None) => return Err(super::Error::NoStorage),
                };
                let store: Arc<dyn Metadata> = metrics.metadata.over(store);
                Some(MetadataRole {
                    jobs: Jobs::new(store.clone(), config.lease)?,
                    wake: Notify::new(),
                    store,
                    engine: match config.metadata {
                        None => "embedded",
                        Some(_) => "postgres",
                    },
                    upkeep: metrics.blobs.over(upkeep),
                    tree,
                    hints: Hints::default(),
                    enroll_token: (!open_enrolment).then(|| secrets::as_token(&token)),
                    known: RwLock::default(),
                })
            }
        };
        let storage = blobs.map(|store| StorageRole {
            store: metrics.blobs.over(store),
            engine: match config.blob_place() {
                BlobPlace::Directory(_) => "directory",
                BlobPlace::Bucket(_) => "s3",
            },
        });
        let (freshness, wait) = match fresh_data {
            true => (Freshness::first_start(), Duration::ZERO),
            false => Freshness::restarted(),
        };
        let rates = Rates::new(metadata.as_ref().map(|role| role.store.clone()));
        let app = Self {
            requests,
            memory,
            link,
            metadata,
            storage,
            ttp,
            admin_token,
            metrics,
            examined: health::Last::default(),
            began: Instant::now(),
            connections: Arc::new(Semaphore::new(config.max_connections)),
            phase: AtomicU8::new(Phase::Serving as u8),
            rates,
            freshness,
            config,
        };
        Ok((Arc::new(app), wait))
    }

    /// The routes of this process's roles.
    pub fn router(self: &Arc<Self>) -> Router {
        let mut router = Router::new()
            .route("/livez", get(health::live))
            .route("/healthz", get(health::health))
            .route("/healthz/{role}", get(health::of_role))
            .route("/metrics", get(health::metrics))
            .route("/status", get(health::status))
            .route("/v1/vault", get(ops::vault));
        if self.metadata.is_some() {
            router = router
                .route("/v1/stats", get(ops::stats))
                .route("/v1/scrub", post(ops::scrub))
                .route("/v1/jobs", get(ops::jobs))
                .route("/v1/enroll", post(metadata::enroll))
                .route("/v1/me", get(metadata::me))
                .route("/v1/lookup", post(metadata::lookup))
                .route("/v1/register", post(metadata::register))
                .route("/v1/open", post(metadata::open))
                .route(
                    "/v1/retention",
                    get(recordings::retention).put(recordings::set_retention),
                )
                .route("/v1/recordings", get(recordings::list))
                .route(
                    "/v1/recordings/{id}",
                    get(recordings::one).delete(recordings::forget),
                )
                .route(
                    "/v1/recordings/{id}/hold",
                    put(recordings::hold).delete(recordings::release),
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
        Ok(self.verified(parts, binds)?.0)
    }

    /// … and the request.
    pub fn verified(&self, parts: &Parts, binds: Binds) -> Result<(Hash, Once), Refusal> {
        let verified = auth::signer(parts, binds, &self.freshness, &self.config.names)?;
        tracing::debug!(target: trace::TARGET, signer = trace::short(&verified.0), "signed");
        Ok(verified)
    }

    /// Goes on to a phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Whether it has been asked to stop.
    pub fn stopping(&self) -> bool {
        self.phase.load(Ordering::Relaxed) > Phase::Serving as u8
    }

    /// The limits, and what of them is in use.
    pub fn limits(&self) -> [Limit; 3] {
        let connections = usize::try_from(self.metrics.connections.get()).unwrap_or(0);
        limits(&self.config, &self.requests, &self.memory, connections)
    }

    /// Accepts an internal request once.
    pub fn fresh_internal(&self, created: u64, nonce: &str) -> Result<(), Refusal> {
        self.freshness.check(created, b"internal", nonce).map(drop)
    }

    /// Makes sure that no other server over the same stores has done a request or will do it:
    /// before it is done, if doing it twice would change something (`docs/security.md`). Should
    /// this server fail in between, the request is lost, and its sender signs another.
    pub async fn once(&self, caller: &Caller) -> Result<(), Refusal> {
        let Once { mark, until } = caller.once;
        let store = &self.metadata()?.store;
        match store.once(mark, until, now_ms()).await? {
            true => Ok(()),
            false => Err(auth::replayed()),
        }
    }

    /// Counts a request of an owner against its rate.
    pub async fn count_request(&self, owner: &Hash) -> Result<(), Refusal> {
        match self
            .take(owner, b"requests", 1, self.config.rate, 1)
            .await?
        {
            None => Ok(()),
            Some(wait) => Err(Refusal::too_fast(wait)),
        }
    }

    /// Counts bytes of an owner's blobs that come in (`way` is `up`) or go out (`down`): `None`,
    /// or for how many milliseconds they are too many.
    pub async fn count_bytes(
        &self,
        owner: &Hash,
        way: &str,
        bytes: u64,
    ) -> Result<Option<u64>, StoreError> {
        // One upload, or one blob, is never too much by itself.
        let limits = self.config.limits;
        let least = limits.batch_bytes.max(limits.blob_bytes);
        let rate = self.config.rate_bytes;
        self.take(owner, way.as_bytes(), bytes, rate, least).await
    }

    async fn take(
        &self,
        owner: &Hash,
        what: &[u8],
        amount: u64,
        rate: Option<u64>,
        least: u64,
    ) -> Result<Option<u64>, StoreError> {
        let Some(per_s) = rate.map(|rate| rate.max(1)) else {
            return Ok(None);
        };
        let mut mark = [0; 16];
        let mut hasher = blake3::Hasher::new();
        hasher.update(owner).update(what);
        hasher.finalize_xof().fill(&mut mark);
        let burst = per_s.max(least);
        let allowance = Allowance {
            burst,
            per_s,
            // It is full again by then.
            until: now_ms() + (burst / per_s + 2) * 1000,
        };
        let piece = burst.div_ceil(PIECES);
        self.rates.take(mark, amount, allowance, piece).await
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
        let (key, once) = self.verified(parts, Binds::Digest)?;
        let leaf = self.metadata()?.leaf(key).await?;
        let not = || Refusal::new(Code::NotEnrolled, "not enrolled: run `camvault enroll`");
        let leaf = leaf.ok_or_else(not)?;
        self.count_request(&key).await?;
        Ok(Caller { key, leaf, once })
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

fn remote(url: &str, link_secret: &Secret) -> Result<Remote, super::Error> {
    let base = protocol::vault_base(url).map_err(|e| super::Error::StorageUrl(e.to_string()))?;
    let link = Link::new(link_secret);
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

fn limits(
    config: &Config,
    requests: &Semaphore,
    memory: &Semaphore,
    connections: usize,
) -> [Limit; 3] {
    let bytes = |units: usize| units.saturating_mul(MEMORY_UNIT as usize);
    let memory_limit = usize::try_from(config.memory).unwrap_or(usize::MAX);
    [
        Limit {
            kind: "requests",
            in_use: config
                .max_requests
                .saturating_sub(requests.available_permits()),
            limit: config.max_requests,
        },
        Limit {
            kind: "connections",
            in_use: connections,
            limit: config.max_connections,
        },
        Limit {
            kind: "memory_bytes",
            in_use: memory_limit.saturating_sub(bytes(memory.available_permits())),
            limit: memory_limit,
        },
    ]
}

/// Requests that are answered whatever the load: those that ask how the server is.
const ALWAYS: [&str; 5] = [
    "/livez",
    "/healthz",
    "/healthz/{role}",
    "/metrics",
    "/status",
];

fn method(method: &Method) -> &'static str {
    ["GET", "PUT", "POST", "DELETE", "HEAD"]
        .into_iter()
        .find(|name| *name == method.as_str())
        .unwrap_or("other")
}

/// Around every request: how many at once, the numbers, and the log.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = method(request.method());
    // The route and not the path, which names recordings.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("other", MatchedPath::as_str);
    let id = trace::new_id();
    let span = trace::span(method, route, &id, request.headers());
    let _counted = Counted::new(&app.metrics.in_flight);
    let phase = app.phase.load(Ordering::Relaxed);
    let always = ALWAYS.contains(&route);
    let permit = app.requests.try_acquire();
    let busy = |why: &str| Refusal::new(Code::Busy, why).into_response();
    let mut response = match (&permit, phase == Phase::Ending as u8) {
        _ if always => next.run(request).instrument(span.clone()).await,
        (_, true) => busy("the server is stopping: try again"),
        (Err(_), _) => busy("too many requests at once: try again"),
        (Ok(_), _) => next.run(request).instrument(span.clone()).await,
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(trace::ID_HEADER, id);
    }
    if app.stopping() {
        // The next request goes to another server.
        headers.insert(fields::CONNECTION, HeaderValue::from_static("close"));
    }
    let status = response.status();
    app.metrics
        .answered(method, route, status.as_u16(), began.elapsed());
    trace::answered(&span, status, began.elapsed());
    response
}

/// The server's clock, Unix seconds.
pub fn now_s() -> u64 {
    now_ms() / 1000
}
