// SPDX-License-Identifier: MPL-2.0
//! A raw client for tests: it signs requests and follows the protocol by hand, and can do every
//! step of it wrong.
#![allow(dead_code)]

use bytes::Bytes;
use gstcamvault::identity::Identity;
use gstcamvault::ownership::{PathKeys, Wrapped};
use gstcamvault::protocol::signature::{Covered, content_digest, nonce, sign};
use gstcamvault::protocol::*;
use gstcamvault::rce::{self, ChunkId};
use gstcamvault::server::{Config, Server};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use gstcamvault::protocol::Code;

/// A server for a test in a directory: everything quick, and little room kept free.
pub fn config(dir: &std::path::Path) -> Config {
    let mut config = Config::new(dir);
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.grace = Duration::from_millis(200);
    config.collect_every = Duration::from_millis(100);
    config.reserve = 1 << 20;
    config.drain = Duration::from_secs(10);
    config
}

pub struct Vault {
    pub server: Server,
    pub dir: tempfile::TempDir,
}

pub async fn vault() -> Vault {
    vault_with(|_| ()).await
}

pub async fn vault_with(change: impl FnOnce(&mut Config)) -> Vault {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    change(&mut config);
    let server = Server::start(config).await.unwrap();
    Vault { server, dir }
}

impl Vault {
    pub async fn owner(&self) -> Client {
        let mut client = Client::new(&self.server.url());
        client.enroll(None).await.unwrap();
        client
    }
}

pub fn now_s() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs()
}

/// Pseudo-random bytes, the same for the same seed.
pub fn bytes(seed: &str, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(seed.as_bytes());
    hasher.finalize_xof().fill(&mut out);
    out
}

pub type Answer<T> = Result<T, Problem>;

/// A request as it goes out, open to changes after it was signed.
pub struct Outgoing {
    pub method: &'static str,
    pub path: String,
    pub query: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

pub struct Client {
    pub http: reqwest::Client,
    pub base: String,
    pub storage: String,
    pub id: Identity,
    pub keys: Option<PathKeys>,
    pub skew: i64,
}

/// A chunk sealed for upload.
#[derive(Clone)]
pub struct Sealed {
    pub chunk: Vec<u8>,
    pub tag: [u8; 32],
    pub c1: Vec<u8>,
    pub record: rce::Record,
}

pub fn sealed(chunk: &[u8]) -> Sealed {
    let id = ChunkId::of(chunk, None);
    let mut c1 = chunk.to_vec();
    let record = rce::seal(&id, &mut c1).unwrap();
    Sealed {
        chunk: chunk.to_vec(),
        tag: *id.tag(),
        c1,
        record,
    }
}

impl Sealed {
    pub fn registration(&self, receipt: Option<ByteVec_>) -> Registration {
        Registration {
            tag: self.tag.into(),
            c2: self.record.c2.into(),
            c3: self.record.c3.into(),
            d1: self.record.d1.into(),
            len: self.chunk.len() as u32,
            receipt,
            refused: vec![],
        }
    }

    pub fn wanted(&self) -> Wanted {
        Wanted {
            tag: self.tag.into(),
            len: self.chunk.len() as u32,
        }
    }

    pub fn reference(&self) -> ChunkRef {
        ChunkRef {
            tag: self.tag.into(),
            d1: self.record.d1.into(),
        }
    }
}

pub type ByteVec_ = minicbor::bytes::ByteVec;

/// What joins a variant that exists.
pub fn join(chunk: &[u8], variant: &Variant) -> Registration {
    let id = ChunkId::of(chunk, None);
    Registration {
        tag: (*id.tag()).into(),
        c2: variant.c2,
        c3: rce::expected_c3(&id, &variant.c2).into(),
        d1: variant.d1,
        len: chunk.len() as u32,
        receipt: None,
        refused: vec![],
    }
}

pub fn commit_of(chunks: Vec<ChunkRef>, mark: &str) -> Commit {
    Commit {
        head: format!("head {mark}").into_bytes().into(),
        manifest: format!("manifest {mark}").into_bytes().into(),
        summary: format!("summary {mark}").into_bytes().into(),
        chunks,
    }
}

impl Client {
    pub fn new(base: &str) -> Self {
        Self::with(base, Identity::generate().unwrap())
    }

    pub fn with(base: &str, id: Identity) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            http: reqwest::Client::new(),
            base: base.to_owned(),
            storage: base.to_owned(),
            id,
            keys: None,
            skew: 0,
        }
    }

    pub fn key(&self) -> [u8; 32] {
        self.id.public().sign
    }

    pub fn authority(&self, base: &str) -> String {
        base.split("://").nth(1).unwrap().to_owned()
    }

    /// Signs a request.
    pub fn prepare(
        &self,
        base: &str,
        method: &'static str,
        path_and_query: &str,
        body: Vec<u8>,
        binds: Option<(&'static str, String)>,
    ) -> Outgoing {
        let (path, query) = path_and_query
            .split_once('?')
            .unwrap_or((path_and_query, ""));
        let (field, value) = binds.unwrap_or_else(|| ("content-digest", content_digest(&body)));
        let covered = Covered {
            method,
            authority: &self.authority(base),
            path,
            query,
            body_field: field,
            body_value: &value,
        };
        let created = now_s().saturating_add_signed(self.skew);
        let (input, signature) = sign(&self.id, &covered, created, &nonce().unwrap());
        Outgoing {
            method,
            path: path.to_owned(),
            query: query.to_owned(),
            headers: vec![
                (field, value),
                ("signature-input", input),
                ("signature", signature),
            ],
            body,
        }
    }

    pub async fn send(&self, base: &str, out: &Outgoing) -> Answer<Bytes> {
        let mut url = format!("{base}{}", out.path);
        if !out.query.is_empty() {
            url = format!("{url}?{}", out.query);
        }
        let mut request = self.http.request(out.method.parse().unwrap(), url);
        for (name, value) in &out.headers {
            request = request.header(*name, value);
        }
        let lost = |_| Problem {
            code: Code::Internal,
            message: "no answer".into(),
            time_ms: None,
        };
        let answer = request.body(out.body.clone()).send().await.map_err(lost)?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(lost)?;
        match status.is_success() {
            true => Ok(bytes),
            false => Err(decode(&bytes).unwrap_or_else(|_| panic!("{status}: {bytes:?}"))),
        }
    }

    pub async fn raw(&self, method: &'static str, path: &str, body: Vec<u8>) -> Answer<Bytes> {
        let out = self.prepare(&self.base, method, path, body, None);
        self.send(&self.base, &out).await
    }

    pub async fn call<R: for<'b> minicbor::Decode<'b, ()>>(
        &self,
        method: &'static str,
        path: &str,
        message: &impl minicbor::Encode<()>,
    ) -> Answer<R> {
        let bytes = self.raw(method, path, encode(message)).await?;
        Ok(decode(&bytes).unwrap())
    }

    pub async fn fetch<R: for<'b> minicbor::Decode<'b, ()>>(&self, path: &str) -> Answer<R> {
        Ok(decode(&self.raw("GET", path, vec![]).await?).unwrap())
    }

    pub async fn enroll(&mut self, token: Option<String>) -> Answer<u32> {
        let agree = self.id.public().agree.into();
        let enrolled: Enrolled = self
            .call("POST", "/v1/enroll", &Enroll { agree, token })
            .await?;
        let keys = self.id.open(PATH_KEYS_INFO, &enrolled.path_keys).unwrap();
        self.keys = PathKeys::from_bytes(enrolled.leaf, &keys);
        assert!(self.keys.is_some());
        Ok(enrolled.leaf)
    }

    pub async fn lookup(&self, chunks: Vec<Wanted>) -> Answer<Found> {
        self.call("POST", "/v1/lookup", &Lookup { chunks }).await
    }

    pub async fn register(&self, chunks: Vec<Registration>) -> Answer<Vec<Outcome>> {
        let answer: Registered = self
            .call("POST", "/v1/register", &Register { chunks })
            .await?;
        Ok(answer.chunks)
    }

    pub fn put_request(&self, list: &BlobList, token: &[u8], body: Vec<u8>) -> Outgoing {
        use base64::Engine as _;
        let token = base64::engine::general_purpose::STANDARD.encode(token);
        let binds = Some((BLOBS_HEADER, list.encode()));
        let mut out = self.prepare(&self.storage, "PUT", "/v1/blobs", body, binds);
        out.headers.push((TOKEN_HEADER, token));
        out
    }

    pub async fn put(&self, token: &[u8], chunks: &[Sealed]) -> Answer<Vec<ByteVec_>> {
        let list = |s: &Sealed| (s.record.d1, s.c1.len() as u32);
        let list = BlobList(chunks.iter().map(list).collect());
        let body = chunks.iter().flat_map(|s| s.c1.iter().copied()).collect();
        let out = self.put_request(&list, token, body);
        let bytes = self.send(&self.storage, &out).await?;
        Ok(decode::<Receipts>(&bytes).unwrap().receipts)
    }

    /// Uploads chunks and registers them, whatever there is: the outcomes.
    pub async fn upload(&self, chunks: &[Sealed]) -> Answer<Vec<Outcome>> {
        let wanted = chunks.iter().map(Sealed::wanted).collect();
        let found = self.lookup(wanted).await?;
        let receipts = self.put(&found.put_token, chunks).await?;
        let with = chunks.iter().zip(receipts);
        let registrations = with.map(|(s, r)| s.registration(Some(r))).collect();
        self.register(registrations).await
    }

    /// Stores a chunk as an honest client does: joins what is right, else adds its own.
    pub async fn store(&self, chunk: &[u8]) -> Answer<ChunkRef> {
        let mine = sealed(chunk);
        let mut refused: Vec<B32> = vec![];
        let mut receipt = None;
        let found = self.lookup(vec![mine.wanted()]).await?;
        let mut unseen = found.chunks[0].variants.clone();
        loop {
            let id = ChunkId::of(chunk, None);
            let right = |v: &Variant| {
                c3_check(&rce::expected_c3(&id, &v.c2)) == v.c3_check
                    && rce::expected_d1(&id, chunk, &v.c2) == *v.d1
            };
            let good = unseen.iter().find(|v| right(v)).cloned();
            refused.extend(unseen.iter().filter(|v| !right(v)).map(|v| v.d1));
            let mut registration = match &good {
                Some(variant) => join(chunk, variant),
                None => {
                    if receipt.is_none() {
                        let put = self
                            .put(&found.put_token, std::slice::from_ref(&mine))
                            .await?;
                        receipt = put.into_iter().next();
                    }
                    mine.registration(receipt.clone())
                }
            };
            registration.refused = refused.clone();
            let reference = ChunkRef {
                tag: registration.tag,
                d1: registration.d1,
            };
            match self.register(vec![registration]).await?.remove(0) {
                Outcome::Added | Outcome::Joined => return Ok(reference),
                Outcome::Unseen(variants) => unseen = variants,
                other => panic!("{other:?}"),
            }
        }
    }

    pub async fn commit(&self, name: &str, seq: u64, commit: &Commit) -> Answer<Committed> {
        let id = hex(&self.id.recording_id(name));
        let path = format!("/v1/recordings/{id}/segments/{seq}");
        self.call("PUT", &path, commit).await
    }

    pub async fn forget(&self, name: &str) -> Answer<()> {
        let id = hex(&self.id.recording_id(name));
        let path = format!("/v1/recordings/{id}");
        self.raw("DELETE", &path, vec![]).await.map(|_| ())
    }

    /// Stores chunks and commits them as the first segment of a recording.
    pub async fn record(&self, name: &str, chunks: &[&[u8]]) -> Answer<Vec<ChunkRef>> {
        let mut refs = vec![];
        for chunk in chunks {
            refs.push(self.store(chunk).await?);
        }
        let committed = self.commit(name, 0, &commit_of(refs.clone(), name)).await?;
        assert_eq!(committed, Committed::Done);
        Ok(refs)
    }

    pub async fn open(&self, chunks: Vec<ChunkRef>) -> Answer<Opened> {
        let shared = None;
        self.call("POST", "/v1/open", &Open { chunks, shared })
            .await
    }

    pub async fn get(&self, ask: &GetBlobs) -> Answer<Vec<Option<Bytes>>> {
        let path = "/v1/blobs/get";
        let out = self.prepare(&self.storage, "POST", path, encode(ask), None);
        let mut body = self.send(&self.storage, &out).await?;
        let mut blobs = vec![];
        while !body.is_empty() {
            blobs.push(read_blob_frame(&mut body).unwrap());
        }
        assert_eq!(blobs.len(), ask.blobs.len());
        Ok(blobs)
    }

    /// Fetches a chunk that the caller knows and checks that it comes back.
    pub async fn fetches(&self, chunk: &[u8], reference: &ChunkRef) -> bool {
        let opened = self.open(vec![reference.clone()]).await.unwrap();
        self.reads(chunk, reference, &opened).await
    }

    pub async fn reads(&self, chunk: &[u8], reference: &ChunkRef, opened: &Opened) -> bool {
        let Some(open) = &opened.chunks[0] else {
            return false;
        };
        let wrapped = Wrapped {
            epoch: *open.epoch,
            c2: *open.c2,
            node: open.node,
            gk: *open.gk,
        };
        let Some(c2) = self.keys.as_ref().unwrap().unwrap_c2(&wrapped) else {
            return false;
        };
        let ask = GetBlobs {
            expires: opened.expires,
            blobs: vec![GetBlob {
                d1: reference.d1,
                capability: open.capability,
            }],
        };
        let blobs = self.get(&ask).await.unwrap();
        let Some(blob) = &blobs[0] else {
            return false;
        };
        let record = rce::Record {
            c2,
            c3: *open.c3,
            d1: *reference.d1,
        };
        let mut c1 = blob.to_vec();
        let key = ChunkId::of(chunk, None).key().clone();
        rce::open(&key, false, None, &record, &mut c1).is_ok() && c1 == chunk
    }

    pub async fn stats(&self) -> Stats {
        let url = format!("{}/v1/stats", self.base);
        let bytes = self.http.get(url).send().await.unwrap().bytes().await;
        decode(&bytes.unwrap()).unwrap()
    }

    pub async fn scrub(&self, orphan_age: u64) -> ScrubReport {
        let operator = gstcamvault::client::vault::Operator::connect(&self.base, None).unwrap();
        operator.scrub(orphan_age, |_| ()).await.unwrap()
    }
}

/// Waits until something holds, at most 10 s.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    for _ in 0..200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("in vain: {what}");
}
