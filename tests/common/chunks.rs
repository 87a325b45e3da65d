// SPDX-License-Identifier: MPL-2.0
//! Chunks to record, events of recorders, and a player for what was recorded.

use crate::common::TestVault;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use gstcamvault::client::recorder::{Config, Event, Push, Recorder, SegmentReport, StreamChunk};
use gstcamvault::identity::Identity;
use gstcamvault::manifest::{Chunk, Framing, Head, Sealer, Summary, TimeSegment, UnitInfo};
use gstcamvault::ownership::Wrapped;
use gstcamvault::protocol::{
    ChunkRef, Found, GetBlob, Receipts, Registration, Wanted, decode, encode,
};
use gstcamvault::rce::{self, ChunkId, Key, Record};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

pub const CHUNK: usize = 20_000;
const SECOND: u64 = 1_000_000_000;

impl TestVault {
    pub fn config(&self, identity: &Arc<Identity>) -> Config {
        Config {
            url: self.recording("yard").parse().unwrap(),
            identity: identity.clone(),
            verify: Default::default(),
            spool_dir: None,
            spool_max_bytes: 1 << 30,
            max_size_bytes: 64 << 20,
            max_size_time: 0,
            segment_duration: 10 * SECOND,
        }
    }

    pub fn record(
        &self,
        identity: &Arc<Identity>,
        change: impl FnOnce(&mut Config),
    ) -> (Recorder, Arc<Events>) {
        let mut config = self.config(identity);
        change(&mut config);
        open(config)
    }

    /// Fetches, decrypts and checks the whole recording.
    pub fn play(&self, identity: &Arc<Identity>) -> Played {
        self.block(self.fetch(identity))
    }

    async fn fetch(&self, identity: &Arc<Identity>) -> Played {
        let vault = self.connect(identity);
        let id = identity.recording_id("yard");
        let sealer = Sealer {
            id,
            key: identity.recording_key(&id),
        };
        let keys = vault.path_keys().await.unwrap();
        let recording = vault.recording(&id, None, 0).await.unwrap();
        let mut played = Played {
            summary: sealer.open_summary(&recording.summary).unwrap(),
            heads: Vec::new(),
            chunks: Vec::new(),
        };
        let mut previous = [0; 32].into();
        for (seq, head) in (0..).zip(&recording.heads) {
            let head = sealer.open_head(seq, head).unwrap();
            assert_eq!(head.previous, previous);
            previous = head.manifest;
            let body = vault.segment(&id, None, seq).await.unwrap();
            let manifest = sealer.open_manifest(seq, &body.manifest).unwrap();
            for track in manifest.tracks {
                assert_eq!(track.caps[0].0, 0);
                for chunk in track.chunks {
                    let key = Key::from_bytes(*chunk.content.key);
                    let named = ChunkRef {
                        tag: key.tag().into(),
                        d1: chunk.content.d1,
                    };
                    let opened = vault.open(vec![named], None).await.unwrap();
                    let record = opened.chunks[0].clone().unwrap();
                    let get = GetBlob {
                        d1: chunk.content.d1,
                        capability: record.capability,
                    };
                    let blobs = vec![(get, chunk.content.len)];
                    let mut blobs = vault.get_blobs(opened.expires, blobs).await.unwrap();
                    let mut blob = blobs.next().await.unwrap().unwrap().unwrap();
                    assert!(blobs.next().await.unwrap().is_none());
                    let wrapped = Wrapped {
                        epoch: *record.epoch,
                        c2: *record.c2,
                        node: record.node,
                        gk: *record.gk,
                    };
                    let record = Record {
                        c2: keys.unwrap_c2(&wrapped).unwrap(),
                        c3: *record.c3,
                        d1: *chunk.content.d1,
                    };
                    rce::open(&key, false, None, &record, &mut blob).unwrap();
                    played.chunks.push(PlayedChunk {
                        seq,
                        track: track.id,
                        content: blob,
                        chunk,
                    });
                }
            }
            played.heads.push(head);
        }
        played
    }

    /// Stores a copy of a chunk that is wrong.
    pub fn poison(&self, identity: &Arc<Identity>, chunk: &StreamChunk, how: Poison) {
        let vault = self.connect(identity);
        let mut c1 = chunk.content.clone();
        let mut record = rce::seal(&chunk.id, &mut c1).unwrap();
        match how {
            Poison::Blob => {
                c1[0] ^= 1;
                record.d1 = *blake3::hash(&c1).as_bytes();
            }
            Poison::C3 => record.c3 = [7; 32],
        }
        self.block(async {
            let wanted = Wanted {
                tag: (*chunk.id.tag()).into(),
                len: c1.len() as u32,
            };
            let found = vault.lookup(vec![wanted]).await.unwrap();
            let len = c1.len() as u32;
            let blobs = [(record.d1, c1.into())];
            let receipts = vault.upload_blobs(&found.put_token, &blobs).await.unwrap();
            let registration = Registration {
                tag: (*chunk.id.tag()).into(),
                c2: record.c2.into(),
                c3: record.c3.into(),
                d1: record.d1.into(),
                len,
                receipt: receipts.into_iter().next(),
                refused: Vec::new(),
            };
            vault.register(vec![registration]).await.unwrap();
        });
    }
}

pub enum Poison {
    /// `C1` is not what it should be, everything else is right.
    Blob,
    /// `C3` is wrong.
    C3,
}

pub struct Played {
    pub summary: Summary,
    pub heads: Vec<Head>,
    pub chunks: Vec<PlayedChunk>,
}

pub struct PlayedChunk {
    pub seq: u64,
    pub track: u32,
    pub content: Vec<u8>,
    pub chunk: Chunk,
}

impl Played {
    pub fn of(&self, track: u32) -> Vec<Vec<u8>> {
        let chunks = self.chunks.iter().filter(|c| c.track == track);
        chunks.map(|c| c.content.clone()).collect()
    }
}

impl Played {
    /// Which chunks of the camera were played, in order.
    pub fn seconds(&self) -> Vec<u64> {
        let known: HashMap<_, _> = (0..300).map(|n| (content(n), n)).collect();
        self.of(0).iter().map(|c| known[c]).collect()
    }
}

/// What a recorder told.
#[derive(Default)]
pub struct Events(Mutex<Vec<Event>>, Condvar);

impl Events {
    pub fn wait(&self, what: &str, wanted: impl Fn(&Event) -> bool) {
        let until = Instant::now() + Duration::from_secs(20);
        let mut events = self.0.lock().unwrap();
        while !events.iter().any(&wanted) {
            assert!(Instant::now() < until, "no {what} in {events:?}");
            events = self
                .1
                .wait_timeout(events, Duration::from_millis(100))
                .unwrap()
                .0;
        }
    }

    pub fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.0.lock().unwrap().iter().filter(|e| wanted(e)).count()
    }

    pub fn none(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.count(wanted) == 0
    }

    pub fn segments(&self) -> Vec<SegmentReport> {
        let events = self.0.lock().unwrap();
        let segments = events.iter().filter_map(|e| match e {
            Event::Segment(report) => Some(report.clone()),
            _ => None,
        });
        segments.collect()
    }
}

pub fn open(config: Config) -> (Recorder, Arc<Events>) {
    let events = Arc::new(Events::default());
    let told = events.clone();
    let on_event = move |event| {
        told.0.lock().unwrap().push(event);
        told.1.notify_all();
    };
    (Recorder::open(config, Box::new(on_event)).unwrap(), events)
}

pub fn push(recorder: &Recorder, chunk: StreamChunk) {
    let mut chunk = chunk;
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match recorder.push(chunk) {
            Push::Accepted => return,
            Push::Full(back) => chunk = *back,
            Push::Closed => panic!("closed: {:?}", recorder.stats()),
        }
        assert!(Instant::now() < until, "no room: {:?}", recorder.stats());
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn content(n: u64) -> Vec<u8> {
    let mut out = vec![0; CHUNK];
    blake3::Hasher::new()
        .update(&n.to_be_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}

/// One second of a camera: a group of pictures.
pub fn video(n: u64) -> StreamChunk {
    let content = content(n);
    let envelope = vec![n as u8; if n % 10 == 3 { 5000 } else { 10 }];
    StreamChunk {
        track: 0,
        id: ChunkId::of(&content, None),
        in_domain: false,
        units: vec![UnitInfo {
            content_len: content.len() as u32,
            pts: Some(n * SECOND),
            duration: Some(SECOND),
            ..UnitInfo::default()
        }],
        content,
        envelope_id: (envelope.len() > 1024).then(|| ChunkId::of(&envelope, None)),
        envelope,
        framing: Framing::Records,
        gop_start: true,
        suspect: false,
        prev_suspect: false,
        caps: Some("video/x-h264".into()),
        time: Some(TimeSegment {
            start: 0,
            stop: None,
            time: 0,
            base: 0,
        }),
        tags: None,
        running: Some((n * SECOND, (n + 1) * SECOND)),
        clock: Some((n * SECOND, 1_700_000_000_000_000_000 + (n * SECOND) as i64)),
    }
}

/// One second of sound.
pub fn audio(n: u64) -> StreamChunk {
    let content = blake3::hash(&(n + 1_000_000).to_be_bytes())
        .as_bytes()
        .repeat(20);
    StreamChunk {
        track: 1,
        id: ChunkId::of(&content, None),
        units: vec![UnitInfo {
            content_len: content.len() as u32,
            pts: Some(n * SECOND),
            ..UnitInfo::default()
        }],
        content,
        envelope: Vec::new(),
        envelope_id: None,
        caps: Some("audio/mpeg".into()),
        ..video(n)
    }
}

/// Stands before a server and spoils some of its answers, refuses uploads, or is late.
pub struct Liar {
    address: std::net::SocketAddr,
    behind: Arc<Behind>,
}

struct Behind {
    host: String,
    client: reqwest::Client,
    /// How many answers it could have spoilt, uploads it has refused, commits it has kept.
    count: AtomicU32,
    kind: Kind,
}

enum Kind {
    Spoils,
    /// Whether it has no time for uploads.
    Busy(AtomicBool),
    /// The commits that it keeps, by path; none: it has passed that one on.
    Late(Mutex<HashMap<String, Option<(HeaderMap, bytes::Bytes)>>>),
}

impl Liar {
    pub fn before(vault: &TestVault) -> Self {
        Self::serve(vault, Kind::Spoils)
    }

    /// Says the truth, but has no time for uploads while [`Liar::set_busy`] says so.
    pub fn busy(vault: &TestVault) -> Self {
        Self::serve(vault, Kind::Busy(AtomicBool::new(false)))
    }

    /// Lets every segment's first commit arrive just before its second one.
    pub fn late(vault: &TestVault) -> Self {
        Self::serve(vault, Kind::Late(Mutex::default()))
    }

    /// How many uploads were refused, or commits kept.
    pub fn count(&self) -> u32 {
        self.behind.count.load(Ordering::Relaxed)
    }

    pub fn set_busy(&self, now: bool) {
        if let Kind::Busy(busy) = &self.behind.kind {
            busy.store(now, Ordering::Relaxed);
        }
    }

    fn serve(vault: &TestVault, kind: Kind) -> Self {
        let behind = Arc::new(Behind {
            host: vault.authority(),
            client: reqwest::Client::builder()
                .no_proxy()
                .tls_certs_only([])
                .build()
                .unwrap(),
            count: AtomicU32::new(0),
            kind,
        });
        let app = Router::new().fallback(spoil).with_state(behind.clone());
        let address = vault.block(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move { axum::serve(listener, app).await });
            address
        });
        Self { address, behind }
    }

    pub fn authority(&self) -> String {
        self.address.to_string()
    }
}

async fn spoil(State(behind): State<Arc<Behind>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let path = parts.uri.path_and_query().unwrap().as_str();
    let later = |status| {
        let later = Response::builder().status(status);
        let later = later.header("retry-after", "1");
        later.body(Body::from("later")).unwrap()
    };
    let count = || behind.count.fetch_add(1, Ordering::Relaxed);
    match &behind.kind {
        Kind::Busy(busy) if path == "/v1/blobs" && busy.load(Ordering::Relaxed) => {
            count();
            return later(503);
        }
        Kind::Late(kept) if parts.method == Method::PUT && path.contains("/segments/") => {
            let late = match kept.lock().unwrap().entry(path.into()) {
                Entry::Occupied(mut kept) => kept.get_mut().take(),
                Entry::Vacant(first) => {
                    count();
                    first.insert(Some((parts.headers, body)));
                    return later(502);
                }
            };
            if let Some((headers, body)) = late {
                behind.pass(Method::PUT, path, headers, body).await;
            }
        }
        _ => (),
    }
    let (status, mut body) = behind.pass(parts.method, path, parts.headers, body).await;
    if matches!(behind.kind, Kind::Spoils) && status.is_success() && path != "/v1/vault" {
        match count() {
            2 => return later(503),
            4 => body = bytes::Bytes::from_static(b"<html>It works!</html>"),
            6 => body = body.slice(..body.len() / 2),
            n if n >= 8 => body = fewer(path, body, n),
            _ => (),
        }
    }
    (status, body).into_response()
}

impl Behind {
    /// The server's answer. The signature covers the authority, so that of the request is kept.
    async fn pass(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: bytes::Bytes,
    ) -> (StatusCode, bytes::Bytes) {
        let url = format!("http://{}{path}", self.host);
        let sent = self.client.request(method, url).headers(headers).body(body);
        let answer = sent.send().await.unwrap();
        (answer.status(), answer.bytes().await.unwrap())
    }
}

/// The same answer with an entry too few, now and then.
fn fewer(path: &str, body: bytes::Bytes, n: u32) -> bytes::Bytes {
    match path {
        "/v1/lookup" if n == 8 => {
            let mut found: Found = decode(&body).unwrap();
            found.chunks.pop();
            encode(&found).into()
        }
        "/v1/blobs" if n < 12 => {
            let mut receipts: Receipts = decode(&body).unwrap();
            receipts.receipts.pop();
            encode(&receipts).into()
        }
        _ => body,
    }
}
