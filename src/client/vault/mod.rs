// SPDX-License-Identifier: MPL-2.0
//! A vault as one identity uses it: every request of the protocol, signed.

use super::http::{self, Payload, Server, Signer};
use super::{Error, hex};
use crate::identity::{Identity, PublicId, RecordingId};
use crate::ownership::PathKeys;
use crate::protocol::{
    BlobList, ChunkRef, Commit, Committed, Enroll, Enrolled, Found, GetBlob, GetBlobs, Limits,
    Lookup, Open, Opened, PATH_KEYS_INFO, Problem, Receipts, Recording, Recordings, Register,
    Registered, Registration, ScrubReport, SegmentBody, Share, SharedSegment, Stats, UrlError,
    VaultInfo, Wanted, decode, encode, vault_base,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Buf as _, Bytes, BytesMut};
use minicbor::Decode;
use minicbor::bytes::ByteVec;
use reqwest::{Method, Response};
use std::sync::{Arc, Mutex, PoisonError};

/// Has a vault check all that it stores and mend what it can; `admin_token` is needed from another
/// machine. There is no time limit: reading all blobs of a large vault takes hours.
pub async fn scrub(
    base_url: &str,
    orphan_age_s: u64,
    admin_token: Option<&str>,
) -> Result<ScrubReport, Error> {
    let base = vault_base(base_url)?;
    let url = format!("{base}/v1/scrub?orphan_age={orphan_age_s}");
    let url: ::url::Url = url.parse().map_err(|_| UrlError::Vault(base.clone()))?;
    let mut request = http::client(&url)?.post(url);
    if let Some(token) = admin_token {
        request = request.bearer_auth(token);
    }
    let lost = |e: reqwest::Error| http::lost(&base, &e);
    let what = || String::from("POST /v1/scrub");
    let answer = request.send().await.map_err(lost)?;
    let status = answer.status();
    let body = answer.bytes().await.map_err(lost)?;
    if status.is_success() {
        return decode(&body).map_err(|e| Error::Answer {
            vault: base.clone(),
            what: what(),
            reason: e.to_string(),
        });
    }
    Err(match decode::<Problem>(&body) {
        Ok(problem) => Error::Refused {
            vault: base.clone(),
            what: what(),
            code: problem.code,
            message: problem.message,
        },
        Err(_) => Error::Answer {
            vault: base.clone(),
            what: what(),
            reason: format!("status {status}"),
        },
    })
}

/// Bytes of an answer that is not a sequence of blobs, at most.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

/// A signed connection to a vault. Clones share connections and what was learnt.
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

    /// Makes the identity known to the vault; again is harmless.
    pub async fn enroll(&self, token: Option<&str>) -> Result<Arc<PathKeys>, Error> {
        let enroll = Enroll {
            agree: self.identity().public().agree.into(),
            token: token.map(str::to_owned),
        };
        let enrolled = self
            .ask(Method::POST, "/v1/enroll", true, encode(&enroll))
            .await?;
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

    /// The identity's recordings and those shared with it.
    pub async fn recordings(&self) -> Result<Recordings, Error> {
        self.ask(Method::GET, "/v1/recordings", true, Vec::new())
            .await
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
        self.done(Method::DELETE, &share_path(id, to), Vec::new())
            .await
    }

    /// Leaves every group that the recording is in, and deletes it.
    pub async fn forget(&self, id: &RecordingId) -> Result<(), Error> {
        let path = format!("/v1/recordings/{}", hex(id));
        self.done(Method::DELETE, &path, Vec::new()).await
    }

    /// The vault's totals.
    pub async fn stats(&self) -> Result<Stats, Error> {
        self.ask(Method::GET, "/v1/stats", false, Vec::new()).await
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
        self.send(&self.0.metadata, method, path, &payload)
            .await
            .map(drop)
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
