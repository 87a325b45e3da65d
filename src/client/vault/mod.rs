// SPDX-License-Identifier: MPL-2.0
//! A vault as one identity uses it: every request of the protocol, signed.

use super::http::{self, Payload, Server, Signer};
use super::patience::while_busy;
use super::{Error, hex};
use crate::identity::{Identity, PublicId, RecordingId};
use crate::ownership::PathKeys;
use crate::protocol::{
    BlobList, ChunkRef, Code, Commit, Committed, Enroll, Enrolled, Found, GetBlob, GetBlobs, Job,
    Jobs, Limits, Lookup, Open, Opened, PATH_KEYS_INFO, Problem, Receipts, Recording, Recordings,
    Register, Registered, Registration, Retention, RetentionInfo, ScrubReport, SegmentBody, Share,
    SharedSegment, Stats, UrlError, VaultInfo, Wanted, decode, encode, vault_base,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Buf as _, Bytes, BytesMut};
use minicbor::Decode;
use minicbor::bytes::ByteVec;
use reqwest::{Method, Response};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use zeroize::Zeroizing;

/// How often it is asked how far a job is.
const POLL: Duration = Duration::from_millis(300);

/// A vault as the one who runs it uses it: with its admin token, or from its own machine.
pub struct Operator {
    base: String,
    http: reqwest::Client,
    token: Option<Zeroizing<String>>,
}

impl Operator {
    /// A vault at a URL. Nothing is sent yet.
    pub fn connect(base_url: &str, token: Option<Zeroizing<String>>) -> Result<Self, Error> {
        let base = vault_base(base_url)?;
        let url: ::url::Url = base.parse().map_err(|_| UrlError::Vault(base.clone()))?;
        let http = http::client(&url)?;
        Ok(Self { base, http, token })
    }

    /// Has all servers of the vault check what it stores and mend what they can, or joins the
    /// scrub that runs. `progress` hears how far it is. Blobs that nobody has registered are
    /// removed when they are `orphan_age_s` old. Reading all blobs of a large vault takes hours;
    /// dropping this does not end it.
    pub async fn scrub(
        &self,
        orphan_age_s: u64,
        mut progress: impl FnMut(&Job),
    ) -> Result<ScrubReport, Error> {
        let path = format!("/v1/scrub?orphan_age={orphan_age_s}");
        let mut job: Job = self.answer(Method::POST, &path).await?;
        let name = job.name.clone();
        loop {
            progress(&job);
            match (job.finished_ms, job.error.take()) {
                (Some(_), _) => return Ok(job.report.unwrap_or_default()),
                (None, Some(error)) => {
                    return Err(Error::Refused {
                        vault: self.base.clone(),
                        what: path,
                        code: Code::Internal,
                        message: format!("{error}: its servers will try again"),
                        retry_after: None,
                    });
                }
                (None, None) => tokio::time::sleep(POLL).await,
            }
            let jobs = self.jobs().await?;
            let found = jobs.jobs.into_iter().find(|job| job.name == name);
            job = found.ok_or_else(|| Error::Answer {
                vault: self.base.clone(),
                what: "/v1/jobs".into(),
                reason: "the scrub is missing".into(),
            })?;
        }
    }

    /// What the vault's servers do and have done besides requests.
    pub async fn jobs(&self) -> Result<Jobs, Error> {
        self.answer(Method::GET, "/v1/jobs").await
    }

    /// Puts an owner's recording under the operator's hold, or ends that.
    pub async fn hold(&self, owner: &[u8; 32], id: &RecordingId, on: bool) -> Result<(), Error> {
        let path = format!("{}?owner={}", hold_path(id), hex(owner));
        self.ask(hold_method(on), &path).await.map(drop)
    }

    async fn answer<T: for<'b> Decode<'b, ()>>(
        &self,
        method: Method,
        path: &str,
    ) -> Result<T, Error> {
        let body = self.ask(method, path).await?;
        decode(&body).map_err(|e| Error::Answer {
            vault: self.base.clone(),
            what: path.to_owned(),
            reason: e.to_string(),
        })
    }

    async fn ask(&self, method: Method, path: &str) -> Result<Bytes, Error> {
        let ask = || self.ask_once(method.clone(), path);
        while_busy(ask).await
    }

    async fn ask_once(&self, method: Method, path: &str) -> Result<Bytes, Error> {
        let what = format!("{method} {path}");
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.trim());
        }
        let vault = self.base.clone();
        let lost = |e: reqwest::Error| http::lost(&vault, &e);
        let answer = request.send().await.map_err(lost)?;
        let (status, retry_after) = (answer.status(), http::retry_after(&answer));
        let body = answer.bytes().await.map_err(lost)?;
        if status.is_success() {
            return Ok(body);
        }
        Err(match decode::<Problem>(&body) {
            Ok(problem) => Error::Refused {
                vault,
                what,
                code: problem.code,
                message: problem.message,
                retry_after,
            },
            Err(_) => Error::Answer {
                vault,
                what,
                reason: format!("status {status}"),
            },
        })
    }
}

fn hold_path(id: &RecordingId) -> String {
    format!("/v1/recordings/{}/hold", hex(id))
}

fn hold_method(on: bool) -> Method {
    if on { Method::PUT } else { Method::DELETE }
}

/// A recording in a list: its id and, if it is another's, the owner's signing key.
pub type ListPlace = (RecordingId, Option<[u8; 32]>);

/// Bytes of an answer that is not a sequence of blobs, at most.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

/// A signed connection to a vault. Clones share connections and what was learnt.
///
/// What recorders and readers ask for is asked once: they have their own way of asking again.
/// The rest is asked again for up to 30 s while the server says that it is busy.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

struct Inner {
    metadata: Arc<Server>,
    signer: Signer,
    known: Mutex<Known>,
}

/// What was learnt from the server.
#[derive(Default)]
struct Known {
    limits: Option<Limits>,
    storage: Option<Arc<Server>>,
    path_keys: Option<Arc<PathKeys>>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vault({})", self.0.metadata.base)
    }
}

impl Vault {
    /// A vault at a URL such as `http://127.0.0.1:7420`. Nothing is sent yet.
    pub fn connect(base_url: &str, identity: Arc<Identity>) -> Result<Self, Error> {
        Ok(Self(Arc::new(Inner {
            metadata: Arc::new(Server::new(vault_base(base_url)?)?),
            signer: Signer::new(identity),
            known: Mutex::default(),
        })))
    }

    /// The identity that signs.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.0.signer.identity
    }

    /// What a client has to know first. Limits and the storage server are remembered.
    pub async fn info(&self) -> Result<VaultInfo, Error> {
        let info: VaultInfo = self
            .ask(Method::GET, "/v1/vault", false, Vec::new())
            .await?;
        let storage = match &info.storage {
            Some(url) => Arc::new(Server::new(vault_base(url)?)?),
            None => self.0.metadata.clone(),
        };
        let mut known = self.known();
        known.limits = Some(info.limits);
        known.storage = Some(storage);
        Ok(info)
    }

    /// Bounds on requests, asked for once.
    pub async fn limits(&self) -> Result<Limits, Error> {
        let known = self.known().limits;
        match known {
            Some(limits) => Ok(limits),
            None => Ok(self.info().await?.limits),
        }
    }

    async fn storage(&self) -> Result<Arc<Server>, Error> {
        if self.known().storage.is_none() {
            self.info().await?;
        }
        let storage = self.known().storage.clone();
        Ok(storage.unwrap_or_else(|| self.0.metadata.clone()))
    }

    /// Finds out whether the vault can be used, now: one that is away is not waited for.
    pub async fn reach(&self) -> Result<(), Error> {
        while_busy(|| self.path_keys()).await.map(drop)
    }

    /// Makes the identity known to the vault; again is harmless.
    pub async fn enroll(&self, token: Option<&str>) -> Result<Arc<PathKeys>, Error> {
        let enroll = Enroll {
            agree: self.identity().public().agree.into(),
            token: token.map(str::to_owned),
        };
        let message = encode(&enroll);
        let ask = || self.ask(Method::POST, "/v1/enroll", true, message.clone());
        let enrolled = while_busy(ask).await?;
        self.take_path_keys("/v1/enroll", &enrolled)
    }

    /// The keys of this identity's place in the ownership tree, asked for once.
    pub async fn path_keys(&self) -> Result<Arc<PathKeys>, Error> {
        if let Some(keys) = self.known().path_keys.clone() {
            return Ok(keys);
        }
        let enrolled = self.ask(Method::GET, "/v1/me", true, Vec::new()).await?;
        self.take_path_keys("/v1/me", &enrolled)
    }

    fn take_path_keys(&self, path: &str, enrolled: &Enrolled) -> Result<Arc<PathKeys>, Error> {
        let clear = self.identity().open(PATH_KEYS_INFO, &enrolled.path_keys)?;
        let keys = PathKeys::from_bytes(enrolled.leaf, &clear)
            .ok_or_else(|| self.wrong(path, "path keys of a wrong length"))?;
        let keys = Arc::new(keys);
        self.known().path_keys = Some(keys.clone());
        Ok(keys)
    }

    /// What is stored of these chunks; one entry for each.
    pub async fn lookup(&self, chunks: Vec<Wanted>) -> Result<Found, Error> {
        let wanted = chunks.len();
        let path = "/v1/lookup";
        let found: Found = self.post(path, encode(&Lookup { chunks })).await?;
        self.counted(path, wanted, found.chunks.len())?;
        Ok(found)
    }

    /// Joins or adds variants; one outcome for each.
    pub async fn register(&self, chunks: Vec<Registration>) -> Result<Registered, Error> {
        let wanted = chunks.len();
        let path = "/v1/register";
        let registered: Registered = self.post(path, encode(&Register { chunks })).await?;
        self.counted(path, wanted, registered.chunks.len())?;
        Ok(registered)
    }

    /// Sends blobs by name; one receipt for each. All are durable then.
    pub async fn upload_blobs(
        &self,
        put_token: &[u8],
        blobs: &[([u8; 32], Bytes)],
    ) -> Result<Vec<ByteVec>, Error> {
        let list = blobs.iter().map(|(d1, b)| (*d1, b.len() as u32)).collect();
        let payload = Payload::Blobs {
            list: BlobList(list).encode(),
            token: BASE64.encode(put_token),
            parts: blobs.iter().map(|(_, blob)| blob.clone()).collect(),
        };
        let path = "/v1/blobs";
        let storage = self.storage().await?;
        let response = self.send(&storage, Method::PUT, path, &payload).await?;
        let receipts: Receipts = read(&storage, path, response).await?;
        self.counted(path, blobs.len(), receipts.receipts.len())?;
        Ok(receipts.receipts)
    }

    /// Appends a segment to a recording.
    pub async fn commit(
        &self,
        id: &RecordingId,
        seq: u64,
        commit: &Commit,
    ) -> Result<Committed, Error> {
        let path = format!("/v1/recordings/{}/segments/{seq}", hex(id));
        self.ask(Method::PUT, &path, true, encode(commit)).await
    }

    /// The identity's recordings and those shared with it, behind `after`: one page of the list.
    pub async fn recordings(&self, after: Option<ListPlace>) -> Result<Recordings, Error> {
        let mut path = String::from("/v1/recordings");
        if let Some((id, owner)) = after {
            path.push_str(&format!("?after={}", hex(&id)));
            if let Some(owner) = owner {
                path.push_str(&format!("&owner={}", hex(&owner)));
            }
        }
        self.ask(Method::GET, &path, true, Vec::new()).await
    }

    /// A recording and the heads of its segments from `from` on, at most 1000.
    pub async fn recording(
        &self,
        id: &RecordingId,
        owner: Option<&[u8; 32]>,
        from: u64,
    ) -> Result<Recording, Error> {
        let owner = owner.map_or(String::new(), |key| format!("&owner={}", hex(key)));
        let path = format!("/v1/recordings/{}?from={from}{owner}", hex(id));
        self.ask(Method::GET, &path, true, Vec::new()).await
    }

    /// A segment's sealed manifest.
    pub async fn segment(
        &self,
        id: &RecordingId,
        owner: Option<&[u8; 32]>,
        seq: u64,
    ) -> Result<SegmentBody, Error> {
        let owner = owner.map_or(String::new(), |key| format!("?owner={}", hex(key)));
        let path = format!("/v1/recordings/{}/segments/{seq}{owner}", hex(id));
        self.ask(Method::GET, &path, true, Vec::new()).await
    }

    /// Records and capabilities of stored chunks; one entry for each.
    pub async fn open(
        &self,
        chunks: Vec<ChunkRef>,
        shared: Option<SharedSegment>,
    ) -> Result<Opened, Error> {
        let wanted = chunks.len();
        let path = "/v1/open";
        let opened: Opened = self.post(path, encode(&Open { chunks, shared })).await?;
        self.counted(path, wanted, opened.chunks.len())?;
        Ok(opened)
    }

    /// Fetches blobs; each comes with the number of bytes that it must have.
    pub async fn get_blobs(
        &self,
        expires: u64,
        blobs: Vec<(GetBlob, u32)>,
    ) -> Result<BlobStream, Error> {
        let (blobs, lengths): (Vec<_>, Vec<_>) = blobs.into_iter().unzip();
        let message = encode(&GetBlobs { expires, blobs });
        let storage = self.storage().await?;
        let payload = Payload::Message(message.into());
        let response = self
            .send(&storage, Method::POST, BlobStream::PATH, &payload)
            .await?;
        Ok(BlobStream {
            server: storage,
            response,
            pending: BytesMut::new(),
            lengths: lengths.into_iter(),
        })
    }

    /// Lets another identity read a recording; `sealed` is a [`crate::protocol::SharedKey`].
    pub async fn share(
        &self,
        id: &RecordingId,
        to: &PublicId,
        sealed: Vec<u8>,
    ) -> Result<(), Error> {
        let share = Share {
            sealed: sealed.into(),
        };
        self.done(Method::PUT, &share_path(id, to), encode(&share))
            .await
    }

    /// Takes a share back.
    pub async fn unshare(&self, id: &RecordingId, to: &PublicId) -> Result<(), Error> {
        self.gone(&share_path(id, to)).await
    }

    /// Leaves every group that the recording is in, and deletes it.
    pub async fn forget(&self, id: &RecordingId) -> Result<(), Error> {
        self.gone(&format!("/v1/recordings/{}", hex(id))).await
    }

    /// Puts a recording under the owner's hold, or ends that: while it is held nothing of it is
    /// deleted.
    pub async fn hold(&self, id: &RecordingId, on: bool) -> Result<(), Error> {
        self.done(hold_method(on), &hold_path(id), Vec::new()).await
    }

    /// For how long the identity's footage is kept.
    pub async fn retention(&self) -> Result<RetentionInfo, Error> {
        let ask = || self.ask(Method::GET, "/v1/retention", true, Vec::new());
        while_busy(ask).await
    }

    /// Sets that.
    pub async fn set_retention(&self, retention: &Retention) -> Result<(), Error> {
        self.done(Method::PUT, "/v1/retention", encode(retention))
            .await
    }

    /// The vault's totals.
    pub async fn stats(&self) -> Result<Stats, Error> {
        let ask = || self.ask(Method::GET, "/v1/stats", false, Vec::new());
        while_busy(ask).await
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(
        &self,
        server: &Server,
        method: Method,
        path: &str,
        payload: &Payload,
    ) -> Result<Response, Error> {
        let sent = server
            .send(Some(&self.0.signer), method, path, payload)
            .await;
        if matches!(sent, Err(Error::Network { .. })) {
            // It may come back with other limits, or with its blobs elsewhere.
            self.known().limits = None;
            self.known().storage = None;
        }
        sent
    }

    async fn post<T: for<'b> Decode<'b, ()>>(
        &self,
        path: &str,
        message: Vec<u8>,
    ) -> Result<T, Error> {
        self.ask(Method::POST, path, true, message).await
    }

    async fn ask<T: for<'b> Decode<'b, ()>>(
        &self,
        method: Method,
        path: &str,
        signed: bool,
        message: Vec<u8>,
    ) -> Result<T, Error> {
        let payload = Payload::Message(message.into());
        let server = &self.0.metadata;
        let response = match signed {
            true => self.send(server, method, path, &payload).await?,
            false => server.send(None, method, path, &payload).await?,
        };
        read(server, path, response).await
    }

    /// A request whose answer says nothing but that it is done.
    async fn done(&self, method: Method, path: &str, message: Vec<u8>) -> Result<(), Error> {
        let payload = Payload::Message(message.into());
        let server = &self.0.metadata;
        let send = || self.send(server, method.clone(), path, &payload);
        while_busy(send).await.map(drop)
    }

    /// A deletion. A busy server's database may have done it all the same: what is not there when
    /// it is asked again is gone.
    async fn gone(&self, path: &str) -> Result<(), Error> {
        let payload = Payload::Message(Bytes::new());
        let mut asked = false;
        let send = || {
            let again = std::mem::replace(&mut asked, true);
            let payload = &payload;
            async move {
                let server = &self.0.metadata;
                match self.send(server, Method::DELETE, path, payload).await {
                    Err(Error::Refused {
                        code: Code::NotFound,
                        ..
                    }) if again => Ok(()),
                    outcome => outcome.map(drop),
                }
            }
        };
        while_busy(send).await
    }

    fn wrong(&self, path: &str, reason: &str) -> Error {
        self.0.metadata.answer(path.to_owned(), reason.to_owned())
    }

    fn counted(&self, path: &str, wanted: usize, found: usize) -> Result<(), Error> {
        match wanted == found {
            true => Ok(()),
            false => Err(self.wrong(path, &format!("{found} entries for {wanted} chunks"))),
        }
    }
}

fn share_path(id: &RecordingId, to: &PublicId) -> String {
    format!("/v1/recordings/{}/shares/{}", hex(id), hex(&to.sign))
}

async fn read<T: for<'b> Decode<'b, ()>>(
    server: &Server,
    path: &str,
    response: Response,
) -> Result<T, Error> {
    let body = server.body(response, MAX_ANSWER_BYTES).await?;
    decode(&body).map_err(|e| server.answer(path.to_owned(), e.to_string()))
}

/// Blobs as they arrive, in the order asked for.
pub struct BlobStream {
    server: Arc<Server>,
    response: Response,
    pending: BytesMut,
    lengths: std::vec::IntoIter<u32>,
}

impl BlobStream {
    const PATH: &str = "/v1/blobs/get";

    /// The next blob, `Some(None)` if the server does not have it; `None` behind the last.
    pub async fn next(&mut self) -> Result<Option<Option<Vec<u8>>>, Error> {
        let Some(wanted) = self.lengths.next() else {
            return Ok(None);
        };
        self.fill(4).await?;
        let mut header = self.pending.split_to(4).freeze();
        if matches!(
            crate::protocol::read_blob_frame(&mut header.clone()),
            Some(None)
        ) {
            return Ok(Some(None));
        }
        let length = header.get_u32();
        if length != wanted {
            let reason = format!("a blob of {length} bytes, expected {wanted}");
            return Err(self.server.answer(Self::PATH.to_owned(), reason));
        }
        let wanted = wanted as usize;
        let mut blob = Vec::with_capacity(wanted);
        while blob.len() < wanted {
            self.fill(1).await?;
            let piece = self.pending.len().min(wanted - blob.len());
            blob.extend_from_slice(&self.pending.split_to(piece));
        }
        Ok(Some(Some(blob)))
    }

    async fn fill(&mut self, bytes: usize) -> Result<(), Error> {
        while self.pending.len() < bytes {
            match self.server.piece(&mut self.response).await? {
                Some(piece) => self.pending.extend_from_slice(&piece),
                None => {
                    let reason = "ends too early".to_owned();
                    return Err(self.server.answer(Self::PATH.to_owned(), reason));
                }
            }
        }
        Ok(())
    }
}
