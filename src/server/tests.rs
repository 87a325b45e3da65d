// SPDX-License-Identifier: MPL-2.0
//! Two servers over one metadata store. Each test takes the store, so that every backend that
//! servers can share passes them.

use super::jobs::{Jobs, Task};
use super::upkeep::{Collect, Scrub};
use super::{Config, Server};
use crate::client::Vault;
use crate::client::vault::Operator;
use crate::identity::Identity;
use crate::ownership::Tree;
use crate::protocol::signature::{Covered, content_digest, nonce, sign};
use crate::protocol::*;
use crate::rce::{self, ChunkId, Record};
use crate::store::conformance::{self, MASTER};
use crate::store::postgres_server::PostgresServer;
use crate::store::{
    BlobInfo, Blobs as _, Directory, Embedded, Error, Hash, Health, Item, Metadata, Postgres, Room,
    Upkeep, hex, now_ms,
};
use async_trait::async_trait;
use minicbor::bytes::ByteVec;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

const LEASE: Duration = Duration::from_millis(400);

/// What two servers have of one store.
type Stores = [Arc<dyn Metadata>; 2];

/// A kind of store.
trait Kind {
    fn new() -> Self;
    /// A new store; what it keeps may be in a directory.
    fn stores(&self, dir: &Path) -> Stores;
}

/// One process has it.
struct OverEmbedded;

impl Kind for OverEmbedded {
    fn new() -> Self {
        Self
    }

    fn stores(&self, dir: &Path) -> Stores {
        let room = Room::new(dir, 0);
        let store = Embedded::open(&dir.join("metadata"), Tree::new(MASTER), room).unwrap();
        [Arc::new(store.clone()), Arc::new(store)]
    }
}

/// Each server has connections of its own.
struct OverPostgres(PostgresServer, AtomicU64);

impl Kind for OverPostgres {
    fn new() -> Self {
        Self(PostgresServer::start(), AtomicU64::new(0))
    }

    fn stores(&self, _: &Path) -> Stores {
        let number = self.1.fetch_add(1, Ordering::Relaxed);
        let url = self.0.database(&format!("vault{number}"));
        let url = url.parse().unwrap();
        let open = || -> Arc<dyn Metadata> {
            let opening = Postgres::open(&url, Tree::new(MASTER), [1; 32]);
            let open = || tokio::runtime::Handle::current().block_on(opening);
            Arc::new(tokio::task::block_in_place(open).unwrap())
        };
        [open(), open()]
    }
}

/// Two servers with the same secrets, blobs and metadata.
struct Two {
    servers: [Server; 2],
    store: Arc<dyn Metadata>,
    identity: Arc<Identity>,
    http: reqwest::Client,
    _dir: tempfile::TempDir,
}

impl Two {
    async fn start(kind: &impl Kind, change: impl Fn(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [store, other] = kind.stores(dir.path());
        let mut config = Config::new(dir.path());
        config.listen = ([127, 0, 0, 1], 0).into();
        config.roles.retain(|role| *role != super::Role::Ttp);
        config.reserve = 0;
        config.lease = LEASE;
        config.collect_every = Duration::from_millis(100);
        config.retain_every = Duration::from_millis(100);
        config.grace = Duration::ZERO;
        change(&mut config);
        let one = Server::start_over(config.clone(), Some(store.clone())).await;
        let two = Server::start_over(config, Some(other)).await;
        let servers = [one.unwrap(), two.unwrap()];
        let identity = Arc::new(Identity::generate().unwrap());
        let two = Self {
            servers,
            store,
            identity,
            http: reqwest::Client::new(),
            _dir: dir,
        };
        two.vault(0).enroll(None).await.unwrap();
        two
    }

    fn vault(&self, server: usize) -> Vault {
        Vault::connect(&self.servers[server].url(), self.identity.clone()).unwrap()
    }

    /// A request, signed for a name that both servers answer to.
    fn sign(&self, method: &'static str, path: &str, body: Vec<u8>) -> Outgoing {
        let digest = content_digest(&body);
        let covered = Covered {
            method,
            authority: "vault.example",
            path,
            query: "",
            body_field: "content-digest",
            body_value: &digest,
        };
        let (input, signature) = sign(&self.identity, &covered, now_ms() / 1000, &nonce().unwrap());
        let headers = [
            ("host", "vault.example".into()),
            ("content-digest", digest),
            ("signature-input", input),
            ("signature", signature),
        ];
        Outgoing {
            method,
            path: path.to_owned(),
            headers,
            body,
        }
    }

    /// Sends it to one of them: the refusal, if it is one, and after how many seconds to go on.
    async fn send(&self, server: usize, request: &Outgoing) -> Option<(Code, u64)> {
        let url = format!("{}{}", self.servers[server].url(), request.path);
        let method = request.method.parse().unwrap();
        let mut out = self.http.request(method, url).body(request.body.clone());
        for (name, value) in &request.headers {
            out = out.header(*name, value);
        }
        let answer = out.send().await.unwrap();
        if answer.status().is_success() {
            return None;
        }
        let retry = answer.headers().get("retry-after");
        let retry = retry.map_or(0, |v| v.to_str().unwrap().parse().unwrap());
        let problem: Problem = decode(&answer.bytes().await.unwrap()).unwrap();
        Some((problem.code, retry))
    }

    /// Uploads and registers a chunk.
    async fn hold(&self, chunk: &[u8]) -> ChunkRef {
        let (id, record, blob) = seal(chunk);
        let vault = self.vault(0);
        let len = chunk.len() as u32;
        let tag = (*id.tag()).into();
        let found = vault.lookup(vec![Wanted { tag, len }]).await.unwrap();
        let receipts = vault
            .upload_blobs(&found.put_token, &[(record.d1, blob.into())])
            .await;
        let registration = Registration {
            tag,
            c2: record.c2.into(),
            c3: record.c3.into(),
            d1: record.d1.into(),
            len,
            receipt: receipts.unwrap().pop(),
            refused: vec![],
        };
        let outcome = vault.register(vec![registration]).await.unwrap();
        assert_eq!(outcome.chunks, [Outcome::Added]);
        let d1 = record.d1.into();
        ChunkRef { tag, d1 }
    }
}

/// A request as it was signed once.
struct Outgoing {
    method: &'static str,
    path: String,
    headers: [(&'static str, String); 4],
    body: Vec<u8>,
}

fn seal(chunk: &[u8]) -> (ChunkId, Record, Vec<u8>) {
    let id = ChunkId::of(chunk, None);
    let mut blob = chunk.to_vec();
    let record = rce::seal(&id, &mut blob).unwrap();
    (id, record, blob)
}

fn commit(chunks: Vec<ChunkRef>) -> Commit {
    Commit {
        head: b"head".to_vec().into(),
        manifest: b"manifest".to_vec().into(),
        summary: b"summary".to_vec().into(),
        chunks,
    }
}

async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    for _ in 0..200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("in vain: {what}");
}

/// Whatever has an effect that may since have been taken back counts at one server only.
async fn replays(kind: &impl Kind) {
    let two = Two::start(kind, |_| ()).await;
    let chunk = two.hold(b"a chunk").await;
    let id = hex(&[7; 16]);
    let path = |rest: &str| format!("/v1/recordings/{id}{rest}");
    let reader = path(&format!("/shares/{}", hex(&[9; 32])));
    let sealed = ByteVec::from(b"sealed".to_vec());
    let retention = Retention {
        age_ms: Some(3_600_000),
        bytes: None,
    };
    let committed = encode(&commit(vec![chunk]));
    let commit = two.sign("PUT", &path("/segments/0"), committed);
    assert_eq!(two.send(0, &commit).await, None);
    let share = two.sign("PUT", &reader, encode(&Share { sealed }));
    let unshare = two.sign("DELETE", &reader, vec![]);
    let hold = two.sign("PUT", &path("/hold"), vec![]);
    let release = two.sign("DELETE", &path("/hold"), vec![]);
    let keep = two.sign("PUT", "/v1/retention", encode(&retention));
    let forget = two.sign("DELETE", &path(""), vec![]);
    // Reading may be repeated elsewhere.
    let list = two.sign("GET", "/v1/recordings", vec![]);
    assert_eq!(two.send(0, &list).await, None);
    assert_eq!(two.send(1, &list).await, None);
    assert_eq!(two.send(0, &list).await.unwrap().0, Code::Replay);
    for request in [&share, &unshare, &hold, &release, &keep, &forget] {
        assert_eq!(two.send(0, request).await, None, "{}", request.path);
    }
    for request in [&share, &unshare, &hold, &release, &keep, &forget, &commit] {
        let (code, _) = two.send(1, request).await.unwrap();
        assert_eq!(code, Code::Replay, "{} {}", request.method, request.path);
    }
    assert_eq!(
        two.vault(1)
            .recordings(None)
            .await
            .unwrap()
            .recordings
            .len(),
        0
    );
}

/// Together the servers allow as much as one would.
async fn rates(kind: &impl Kind) {
    const RATE: u64 = 20;
    let two = Two::start(kind, |config| config.rate = Some(RATE)).await;
    // Another owner's requests do not count.
    let began = Instant::now();
    let (mut passed, mut refused) = (0, 0);
    for i in 0..200 {
        let request = two.sign("GET", "/v1/recordings", vec![]);
        match two.send(i % 2, &request).await {
            None => passed += 1,
            Some((code, retry)) => {
                assert_eq!((code, retry), (Code::Busy, 1));
                refused += 1;
            }
        }
    }
    let most = RATE + RATE * began.elapsed().as_millis() as u64 / 1000 + 1;
    assert!(passed <= most && passed + 8 >= RATE, "{passed} of {most}");
    assert!(refused > 0);
    // Who waits goes on.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let request = two.sign("GET", "/v1/recordings", vec![]);
    assert_eq!(two.send(1, &request).await, None);
}

/// So do they with bytes: uploads that are too many are refused, downloads take their time.
async fn byte_rates(kind: &impl Kind) {
    const BLOB: u64 = 10_000;
    const RATE: u64 = 20_000;
    let two = Two::start(kind, |config| {
        config.rate_bytes = Some(RATE);
        config.limits.blob_bytes = BLOB;
        config.limits.batch_bytes = RATE;
    })
    .await;
    let mut next = 0u64;
    let mut upload = async |vault: &Vault| {
        next += 1;
        let mut blob = vec![0; BLOB as usize];
        blob[..8].copy_from_slice(&next.to_be_bytes());
        let wanted = Wanted {
            tag: [1; 32].into(),
            len: BLOB as u32,
        };
        let token = vault.lookup(vec![wanted]).await.unwrap().put_token;
        let d1 = *blake3::hash(&blob).as_bytes();
        vault.upload_blobs(&token, &[(d1, blob.into())]).await
    };
    let began = Instant::now();
    let (mut passed, mut refused) = (0, 0);
    for i in 0..12 {
        match upload(&two.vault(i % 2)).await {
            Ok(_) => passed += BLOB,
            Err(crate::client::Error::Refused {
                code, retry_after, ..
            }) => {
                assert_eq!(
                    (code, retry_after),
                    (Code::Busy, Some(Duration::from_secs(1)))
                );
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let most = RATE + RATE * began.elapsed().as_millis() as u64 / 1000 + 1;
    assert!((RATE..=most).contains(&passed), "{passed} of {most}");
    assert!(refused > 0);
    // Another owner's do not count, and who waits goes on.
    let other = Arc::new(Identity::generate().unwrap());
    let other = Vault::connect(&two.servers[1].url(), other).unwrap();
    other.enroll(None).await.unwrap();
    upload(&other).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    upload(&two.vault(1)).await.unwrap();

    let chunk = vec![7; BLOB as usize];
    tokio::time::sleep(Duration::from_secs(1)).await;
    let held = two.hold(&chunk).await;
    let opened = two.vault(0).open(vec![held.clone()], None).await.unwrap();
    let capability = opened.chunks[0].as_ref().unwrap().capability;
    let d1 = held.d1;
    let fetch = async |server| {
        let blob = GetBlob { d1, capability };
        let blobs = vec![(blob, BLOB as u32); 3];
        let mut blobs = two
            .vault(server)
            .get_blobs(opened.expires, blobs)
            .await
            .unwrap();
        for _ in 0..3 {
            assert_eq!(
                blobs.next().await.unwrap().unwrap().unwrap().len(),
                chunk.len()
            );
        }
    };
    let began = Instant::now();
    tokio::join!(fetch(0), fetch(1));
    // What is not there at once comes in two seconds.
    let took = began.elapsed().as_secs_f64();
    let least = (6 * BLOB - RATE) as f64 / RATE as f64;
    assert!((least - 0.1..10.0).contains(&took), "{took} s");
}

/// A put token counts once, however many servers it is taken to.
async fn put_tokens(kind: &impl Kind) {
    let two = Two::start(kind, |_| ()).await;
    let len = 100_000;
    let wanted = Wanted {
        tag: [1; 32].into(),
        len,
    };
    let token = two.vault(0).lookup(vec![wanted]).await.unwrap().put_token;
    let mut stored = 0u64;
    for i in 0..8u8 {
        let blob = vec![i; len as usize];
        let d1 = *blake3::hash(&blob).as_bytes();
        let vault = two.vault(usize::from(i % 2));
        match vault.upload_blobs(&token, &[(d1, blob.into())]).await {
            Ok(_) => stored += u64::from(len),
            Err(crate::client::Error::Refused { code, .. }) => assert_eq!(code, Code::Capability),
            Err(error) => panic!("{error}"),
        }
    }
    // Twice what was asked for, and 64 KiB.
    assert_eq!(stored, 200_000);
}

/// Counts to ten, a number a step, and stops to think before one of them.
struct Count {
    stops_at: Option<u64>,
    /// Numbers, by who counted them.
    counted: Arc<Mutex<Vec<(&'static str, u64)>>>,
    who: &'static str,
    thinking: Arc<Semaphore>,
    go_on: Mutex<Option<std::sync::mpsc::Receiver<()>>>,
}

impl Count {
    fn new(who: &'static str, counted: &Arc<Mutex<Vec<(&'static str, u64)>>>) -> Self {
        Self {
            stops_at: None,
            counted: counted.clone(),
            who,
            thinking: Arc::new(Semaphore::new(0)),
            go_on: Mutex::new(None),
        }
    }
}

#[async_trait]
impl Task for Count {
    fn name(&self) -> &'static str {
        "count"
    }

    fn begin(&self, last: &Job, _: u64) -> Option<ByteVec> {
        last.finished_ms.is_none().then(|| vec![0].into())
    }

    async fn step(&self, job: &mut Job) -> Result<(), Error> {
        let number = u64::from(job.cursor.as_ref().unwrap()[0]);
        if self.stops_at == Some(number) {
            self.thinking.add_permits(1);
            // The whole thread: nothing renews the lease.
            if let Some(go_on) = self.go_on.lock().unwrap().take() {
                let _ = go_on.recv();
            }
        }
        self.counted.lock().unwrap().push((self.who, number));
        job.done += 1;
        job.cursor = (number < 9).then(|| vec![number as u8 + 1].into());
        Ok(())
    }
}

/// A server that freezes in a step is followed by another, and writes over nothing when it wakes.
async fn frozen_holder([store, other]: Stores) {
    let counted = Arc::default();
    let (wake, go_on) = std::sync::mpsc::channel();
    let mut first = Count::new("first", &counted);
    first.stops_at = Some(3);
    *first.go_on.lock().unwrap() = Some(go_on);
    let thinking = first.thinking.clone();
    let jobs = Jobs::new(store.clone(), LEASE).unwrap();
    let frozen = std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(jobs.run(&first))
    });
    thinking.acquire().await.unwrap().forget();
    let second = Count::new("second", &counted);
    let jobs = Jobs::new(other, LEASE).unwrap();
    // Not while the lease runs.
    jobs.run(&second).await.unwrap();
    assert_eq!(counted.lock().unwrap().len(), 3);
    assert_eq!(jobs.find("count").await.unwrap().done, 3);
    tokio::time::sleep(LEASE * 2).await;
    jobs.run(&second).await.unwrap();
    let after = jobs.find("count").await.unwrap();
    assert!(after.finished_ms.is_some() && after.done == 10);
    wake.send(()).unwrap();
    tokio::task::spawn_blocking(move || frozen.join().unwrap().unwrap())
        .await
        .unwrap();
    assert_eq!(jobs.find("count").await.unwrap(), after);
    let counted = counted.lock().unwrap().clone();
    let by = |name| counted.iter().filter(move |(who, _)| *who == name);
    // The first had begun number 3, which the second did again, and did no other after it.
    let first: Vec<u64> = by("first").map(|(_, n)| *n).collect();
    let second: Vec<u64> = by("second").map(|(_, n)| *n).collect();
    assert_eq!(first, [0, 1, 2, 3]);
    assert_eq!(second, [3, 4, 5, 6, 7, 8, 9]);
}

/// A server that renews its lease keeps a job, however long a step takes; one that is gone is
/// followed after its lease.
async fn slow_and_killed_holder(stores: Stores) {
    struct Slow(AtomicU64);
    #[async_trait]
    impl Task for Slow {
        fn name(&self) -> &'static str {
            "slow"
        }
        fn begin(&self, last: &Job, _: u64) -> Option<ByteVec> {
            last.finished_ms.is_none().then(|| vec![].into())
        }
        async fn step(&self, job: &mut Job) -> Result<(), Error> {
            self.0.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(LEASE * 4).await;
            job.cursor = None;
            Ok(())
        }
    }
    let task = Arc::new(Slow(AtomicU64::new(0)));
    let [one, two] = stores.map(|store| Jobs::new(store, LEASE).unwrap());
    let (other, slow) = (task.clone(), one.clone());
    let slow = tokio::spawn(async move { slow.run(&*other).await });
    tokio::time::sleep(LEASE * 2).await;
    two.run(&*task).await.unwrap();
    assert_eq!(task.0.load(Ordering::Relaxed), 1);
    slow.abort();
    let _ = slow.await;
    let began = Instant::now();
    eventually("the other takes it over", || async {
        two.run(&*task).await.unwrap();
        task.0.load(Ordering::Relaxed) == 2
    })
    .await;
    assert!(began.elapsed() >= LEASE / 3);
    assert!(one.find("slow").await.unwrap().finished_ms.is_some());
    // A step that fails leaves its reason, and the job to whoever is next.
    struct Fails;
    #[async_trait]
    impl Task for Fails {
        fn name(&self) -> &'static str {
            "fails"
        }
        fn begin(&self, _: &Job, _: u64) -> Option<ByteVec> {
            Some(vec![1].into())
        }
        async fn step(&self, job: &mut Job) -> Result<(), Error> {
            job.cursor = None;
            Err(Error::Again)
        }
    }
    assert!(one.run(&Fails).await.is_err());
    let job = two.find("fails").await.unwrap();
    assert!(job.error.is_some() && job.cursor.is_some() && job.holder.is_none());
}

/// Blobs whose deletion waits for a permit.
struct Freezing {
    blobs: Directory,
    deleting: Semaphore,
    permits: Semaphore,
}

#[async_trait]
impl Upkeep for Freezing {
    async fn delete(&self, blobs: &[Hash]) -> Result<u64, Error> {
        self.deleting.add_permits(1);
        self.permits.acquire().await.unwrap().forget();
        self.blobs.delete(blobs).await
    }
    async fn list(&self, first: u8) -> Result<Vec<BlobInfo>, Error> {
        self.blobs.list(first).await
    }
    async fn check(&self, blobs: &[Hash]) -> Result<Vec<Health>, Error> {
        self.blobs.check(blobs).await
    }
    async fn clean(&self, age_ms: u64) -> Result<u64, Error> {
        self.blobs.clean(age_ms).await
    }
    async fn ready(&self) -> Result<(), Error> {
        self.blobs.ready().await
    }
}

/// A sweeper that is frozen between claim and deletion, and wakes up when others have deleted the
/// blob, and its owner has sent it again, takes nothing away that anybody owns.
async fn frozen_sweeper([store, other]: Stores, dir: &Path) {
    let blobs = Directory::open(dir, Room::new(dir, 0)).unwrap();
    let frozen = Arc::new(Freezing {
        blobs: blobs.clone(),
        deleting: Semaphore::new(0),
        permits: Semaphore::new(0),
    });
    let collect = |metadata: &Arc<dyn Metadata>, upkeep: Arc<dyn Upkeep>| Collect {
        metadata: metadata.clone(),
        blobs: upkeep,
        grace: Duration::ZERO,
        every: Duration::ZERO,
        collected: Default::default(),
    };
    let owner = store.enroll([1; 32], [2; 32]).await.unwrap();
    let (id, record, blob) = seal(b"footage");
    let item = |record: &Record| Item {
        tag: *id.tag(),
        c2: record.c2,
        c3: record.c3,
        d1: record.d1,
        len: 7,
        stored: true,
        refused: vec![],
    };
    let put = |name, bytes: &[u8]| {
        assert_eq!(*blake3::hash(bytes).as_bytes(), name);
        blobs.put(vec![conformance::blob(bytes)])
    };
    let register = |record| {
        let items = vec![item(record)];
        let store = store.clone();
        async move { store.register(owner, items, None, now_ms()).await.unwrap() }
    };
    put(record.d1, &blob).await.unwrap();
    assert_eq!(register(&record).await, [Outcome::Added]);
    let reference = ChunkRef {
        tag: (*id.tag()).into(),
        d1: record.d1.into(),
    };
    let chunks = commit(vec![reference]);
    store.commit(owner, [3; 16], 0, chunks, 1).await.unwrap();
    store.forget(owner, [3; 16], 1).await.unwrap();

    let first = collect(&other, frozen.clone());
    let first = tokio::spawn(async move {
        let mut job = Job {
            cursor: Some(vec![].into()),
            ..Job::default()
        };
        first.step(&mut job).await
    });
    frozen.deleting.acquire().await.unwrap().forget();
    // Another server does it meanwhile.
    let mut job = Job {
        cursor: Some(vec![].into()),
        ..Job::default()
    };
    collect(&store, Arc::new(blobs.clone()))
        .step(&mut job)
        .await
        .unwrap();
    assert_eq!((job.done, job.cursor), (1, None));
    assert_eq!(blobs.get(&record.d1).await.unwrap(), None);
    // The owner sends the very same blob again, then, as that has no effect, another.
    put(record.d1, &blob).await.unwrap();
    assert_eq!(register(&record).await, [Outcome::NoBlob]);
    let (_, fresh, fresh_blob) = seal(b"footage");
    put(fresh.d1, &fresh_blob).await.unwrap();
    assert_eq!(register(&fresh).await, [Outcome::Added]);
    frozen.permits.add_permits(1);
    first.await.unwrap().unwrap();
    // What was deleted late is what nobody owns.
    assert_eq!(blobs.get(&record.d1).await.unwrap(), None);
    let scrub = Scrub {
        metadata: store.clone(),
        blobs: Arc::new(blobs.clone()),
    };
    let report = scrub.run(Duration::ZERO).await.unwrap();
    assert_eq!((report.variants, report.bad), (1, 0));
    assert_eq!(report.counts_mended + report.orphans_removed, 0);
}

/// A scrub that is begun at one server is done by whichever takes it, and both say how far it is.
async fn shared_scrub(kind: &impl Kind) {
    let two = Two::start(kind, |_| ()).await;
    for i in 0..5u8 {
        two.hold(&[i; 1000]).await;
    }
    let [one, other] = [0, 1].map(|i| Operator::connect(&two.servers[i].url(), None).unwrap());
    let mut shown = 0;
    let (a, b) = tokio::join!(one.scrub(0, |_| shown += 1), other.scrub(0, |_| ()));
    let report = a.unwrap();
    assert_eq!(
        (report.variants, report.bad, report.orphans_removed),
        (5, 0, 0)
    );
    assert_eq!(b.unwrap().variants, 5);
    assert!(shown > 0);
    let jobs = other.jobs().await.unwrap().jobs;
    let names: Vec<_> = jobs.iter().map(|job| job.name.as_str()).collect();
    assert_eq!(names, ["collect", "retain", "scrub"]);
    assert!(jobs[2].finished_ms.is_some() && jobs[2].done == 5);
}

/// Retention works at whichever server, and an operator's hold against it.
async fn shared_retention(kind: &impl Kind) {
    let two = Two::start(kind, |config| {
        config.retention_age = Some(Duration::from_secs(1));
    })
    .await;
    let vault = two.vault(0);
    for id in [[1; 16], [2; 16]] {
        let chunk = two.hold(&id).await;
        let done = vault.commit(&id, 0, &commit(vec![chunk])).await.unwrap();
        assert_eq!(done, Committed::Done);
    }
    let operator = |token: Option<&str>| {
        let token = token.map(|t| zeroize::Zeroizing::new(t.to_owned()));
        Operator::connect(&two.servers[1].url(), token).unwrap()
    };
    let token = std::fs::read_to_string(two._dir.path().join("secrets/admin.token")).unwrap();
    let key = two.identity.public().sign;
    assert!(operator(None).hold(&key, &[1; 16], true).await.is_err());
    let operator = operator(Some(token.trim()));
    operator.hold(&key, &[1; 16], true).await.unwrap();
    eventually("the other goes", || async {
        two.store.stats().await.unwrap().recordings == 1
    })
    .await;
    let refused = vault.forget(&[1; 16]).await;
    assert!(matches!(
        refused,
        Err(crate::client::Error::Refused {
            code: Code::Held,
            ..
        })
    ));
    // The owner cannot end it.
    vault.hold(&[1; 16], false).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let list = two.vault(1).recordings(None).await.unwrap().recordings;
    assert_eq!(list[0].held, [Holder::Operator].into());
    operator.hold(&key, &[1; 16], false).await.unwrap();
    eventually("it goes too", || async {
        two.store.stats().await.unwrap().recordings == 0
    })
    .await;
    let info = vault.retention().await.unwrap();
    assert_eq!((info.longest_ms, info.bytes), (Some(1000), 0));
}

/// All of it over one kind of store.
macro_rules! over {
    ($module:ident, $kind:ty) => {
        mod $module {
            use super::*;

            #[tokio::test(flavor = "multi_thread")]
            async fn requests_are_not_replayed_to_another_server() {
                replays(&<$kind>::new()).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn limits_hold_for_all_servers_together() {
                let kind = <$kind>::new();
                rates(&kind).await;
                byte_rates(&kind).await;
                put_tokens(&kind).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn jobs_are_followed_up_and_not_done_twice() {
                let (kind, dir) = (<$kind>::new(), tempfile::tempdir().unwrap());
                let stores = kind.stores(dir.path());
                frozen_holder(stores.clone()).await;
                slow_and_killed_holder(stores).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_frozen_sweeper_takes_nothing_away() {
                let (kind, dir) = (<$kind>::new(), tempfile::tempdir().unwrap());
                frozen_sweeper(kind.stores(dir.path()), dir.path()).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn servers_share_scrubs_and_retention() {
                let kind = <$kind>::new();
                shared_scrub(&kind).await;
                shared_retention(&kind).await;
            }
        }
    };
}

over!(embedded, OverEmbedded);
over!(postgres, OverPostgres);
