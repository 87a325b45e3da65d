// SPDX-License-Identifier: MPL-2.0
//! The real program killed, stopped, out of disk, and split into two processes.

#[path = "common/raw.rs"]
mod common;
#[path = "common/serve.rs"]
mod serve;
#[path = "common/small.rs"]
mod small;

use common::*;
use gstcamvault::identity::Identity;
use gstcamvault::protocol::*;
use serve::Program;
use small::Small;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What a writer was told is durable.
type Acknowledged = Arc<Mutex<Vec<(usize, u64, Vec<ChunkRef>)>>>;

fn chunk(writer: usize, number: u64) -> Vec<u8> {
    // Every third chunk is another writer's too.
    match number % 3 {
        0 => bytes(&format!("common {number}"), 30_000),
        _ => bytes(&format!("{writer} {number}"), 30_000),
    }
}

/// Records segment after segment until the server is gone.
async fn write(writer: usize, client: Arc<Client>, next: u64, done: Acknowledged) {
    let mut seq = next;
    loop {
        let mut refs = vec![];
        for i in 0..2 {
            match client.store(&chunk(writer, seq * 2 + i)).await {
                Ok(reference) => refs.push(reference),
                Err(problem) if problem.code == Code::Internal => return,
                Err(problem) => panic!("{problem:?}"),
            }
        }
        let commit = commit_of(refs.clone(), &format!("{writer} {seq}"));
        match client.commit("cam", seq, &commit).await {
            Ok(Committed::Done) => done.lock().unwrap().push((writer, seq, refs)),
            // The commit before the kill had been done, unheard.
            Ok(Committed::NextIs(n)) if n == seq + 1 => (),
            Ok(other) => panic!("{other:?}"),
            Err(problem) if problem.code == Code::Internal => return,
            Err(problem) => panic!("{problem:?}"),
        }
        seq += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_instant_it_keeps_what_it_acknowledged() {
    const WRITERS: usize = 3;
    let long = std::env::var_os("CAMVAULT_LONG").is_some();
    let rounds = if long { 50 } else { 5 };
    let dir = tempfile::tempdir().unwrap();
    let identities: Vec<[u8; 32]> = (0..WRITERS).map(|i| [i as u8 + 1; 32]).collect();
    let done = Acknowledged::default();
    for round in 0..rounds {
        let mut program = Program::start(dir.path(), &[]);
        let mut writers = vec![];
        for (writer, secret) in identities.iter().enumerate() {
            let id = Identity::from_secret(*secret).unwrap();
            let mut client = Client::with(&program.url, id);
            client.enroll(None).await.unwrap();
            let acknowledged = done.lock().unwrap();
            let mine = acknowledged.iter().filter(|(w, ..)| *w == writer);
            let next = mine.map(|(_, seq, _)| seq + 1).max().unwrap_or(0);
            drop(acknowledged);
            writers.push(tokio::spawn(write(
                writer,
                client.into(),
                next,
                done.clone(),
            )));
        }
        let instant = bytes(&format!("instant {round}"), 2);
        let instant = u64::from(instant[0]) * 4 + u64::from(instant[1]) % 4;
        tokio::time::sleep(Duration::from_millis(100 + instant)).await;
        program.child.kill().unwrap();
        for writer in writers {
            writer.await.unwrap();
        }
    }
    let program = Program::start(dir.path(), &[]);
    let acknowledged = done.lock().unwrap().clone();
    assert!(acknowledged.len() > rounds);
    for (writer, seq, refs) in &acknowledged {
        let id = Identity::from_secret(identities[*writer]).unwrap();
        let mut client = Client::with(&program.url, id);
        client.enroll(None).await.unwrap();
        for (i, reference) in (0..).zip(refs) {
            let readable = client
                .fetches(&chunk(*writer, seq * 2 + i), reference)
                .await;
            assert!(readable, "writer {writer} segment {seq}");
        }
        let id = hex(&client.id.recording_id("cam"));
        let path = format!("/v1/recordings/{id}/segments/{seq}");
        let segment: SegmentBody = client.fetch(&path).await.unwrap();
        let manifest = format!("manifest {writer} {seq}");
        assert_eq!(segment.manifest.as_slice(), manifest.as_bytes());
    }
    let client = Client::new(&program.url);
    let report = client.scrub(0).await;
    assert!(
        report.missing.is_empty() && report.damaged.is_empty(),
        "{report:?}"
    );
    assert_eq!(report.counts_mended, 0);
    let report = client.scrub(0).await;
    assert_eq!((report.orphans_removed, report.leftovers_removed), (0, 0));
    println!(
        "{rounds} kills, {} segments acknowledged and readable",
        acknowledged.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_requests_end() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path(), &[]);
    let mut client = Client::new(&program.url);
    client.enroll(None).await.unwrap();
    let chunk = sealed(&bytes("drain", 200_000));
    let token = client.lookup(vec![chunk.wanted()]).await.unwrap().put_token;
    let list = BlobList(vec![(chunk.record.d1, chunk.c1.len() as u32)]);
    let out = client.put_request(&list, &token, vec![]);
    // Half of the body, the signal, the other half.
    let parts = chunk.c1.clone();
    let term = program.child.id().to_string();
    let slow = futures::stream::unfold(0, move |at| {
        let (parts, term) = (parts.clone(), term.clone());
        async move {
            if at == 1 {
                tokio::time::sleep(Duration::from_millis(300)).await;
                Command::new("kill")
                    .args(["-TERM", &term])
                    .status()
                    .unwrap();
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            let part = parts.chunks(100_000).nth(at)?.to_vec();
            Some((Ok::<_, std::io::Error>(part), at + 1))
        }
    });
    let mut socket = RawPut::open(&program.url).await;
    let answer = socket.put(&out, chunk.c1.len(), Box::pin(slow)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let began = Instant::now();
    let url = program.url.clone();
    assert_eq!(program.exit_code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5));
    let refused = client.http.get(format!("{url}/healthz")).send().await;
    assert!(refused.is_err());
}

/// An upload over a plain socket, whose body comes when it comes.
struct RawPut {
    socket: tokio::net::TcpStream,
    authority: String,
}

impl RawPut {
    async fn open(url: &str) -> Self {
        let authority = url.strip_prefix("http://").unwrap().to_owned();
        let socket = tokio::net::TcpStream::connect(&authority).await.unwrap();
        Self { socket, authority }
    }

    async fn put(
        &mut self,
        out: &Outgoing,
        len: usize,
        mut parts: impl futures::Stream<Item = std::io::Result<Vec<u8>>> + Unpin,
    ) -> String {
        use futures::StreamExt as _;
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut head = format!("PUT {} HTTP/1.1\r\nhost: {}\r\n", out.path, self.authority);
        for (name, value) in &out.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("content-length: {len}\r\n\r\n");
        self.socket.write_all(head.as_bytes()).await.unwrap();
        while let Some(part) = parts.next().await {
            self.socket.write_all(&part.unwrap()).await.unwrap();
        }
        let mut answer = vec![];
        self.socket.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

async fn fill_and_recover(reserve: &str) {
    let Some(small) = Small::mount(48) else {
        return;
    };
    let data = small.path().join("data");
    let program = Program::start(&data, &["--reserve", reserve]);
    let mut client = Client::new(&program.url);
    client.enroll(None).await.unwrap();
    let first = bytes("first", 500_000);
    let kept = client.record("first", &[&first]).await.unwrap();
    let mut stored = 0;
    let full = loop {
        let chunk = bytes(&format!("fill {stored}"), 1_000_000);
        match client.record(&format!("fill {stored}"), &[&chunk]).await {
            Ok(_) => stored += 1,
            Err(problem) => break problem,
        }
        assert!(stored < 100, "48 MB hold no 100");
    };
    assert_eq!(full.code, Code::Full, "{}", full.message);
    assert!(stored > 20);
    // Something else takes the very last byte.
    let ballast = small.fill();
    let health = format!("{}/healthz", program.url);
    let health = client.http.get(&health).send().await.unwrap();
    assert_eq!(health.status().as_u16(), 503);
    let mut held = 0;
    for i in 0..5 {
        // The database may have made a little room by tidying up: then it fits, which is right too.
        match client.store(&bytes(&format!("more {i}"), 2000)).await {
            Ok(_) => held += 1,
            Err(problem) => assert_eq!(problem.code, Code::Full, "{}", problem.message),
        }
    }
    assert!(held < 5, "the disk is full");
    assert!(client.fetches(&first, &kept[0]).await);
    // A little room, in which a write fails half-way.
    let len = std::fs::metadata(&ballast).unwrap().len();
    let file = std::fs::File::options().write(true).open(&ballast).unwrap();
    file.set_len(len - 65_536).unwrap();
    for i in 0..5 {
        let mut large = commit_of(vec![kept[0].clone()], &format!("large {i}"));
        large.manifest = bytes("manifest", 1_000_000).into();
        let problem = client.commit("first", 1, &large).await.unwrap_err();
        assert_eq!(problem.code, Code::Full, "{}", problem.message);
        assert!(client.fetches(&first, &kept[0]).await);
    }
    std::fs::remove_file(ballast).unwrap();
    // Forgetting makes room.
    for i in 0..stored {
        let forgotten = client.forget(&format!("fill {i}")).await;
        assert!(forgotten.is_ok(), "{forgotten:?}");
    }
    let left = || async { client.stats().await.blobs == 1 + held };
    eventually("blobs go", left).await;
    let again = bytes("again", 1_000_000);
    let refs = client.record("again", &[&again]).await.unwrap();
    assert!(client.fetches(&again, &refs[0]).await);
    assert!(client.fetches(&first, &kept[0]).await);
    let report = client.scrub(0).await;
    assert!(
        report.missing.is_empty() && report.damaged.is_empty(),
        "{report:?}"
    );
    drop(program);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_survived() {
    fill_and_recover("8000000").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn even_without_any_reserve() {
    fill_and_recover("0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_a_link_secret() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("link.secret");
    let secret = secret.to_str().unwrap();
    let link = ["--link-secret", secret];
    let of_storage = [&["--role", "storage"], link.as_slice()].concat();
    let storage = Program::start(&dir.path().join("storage"), &of_storage);
    let url = ["--role", "metadata", "--storage-url", &storage.url];
    let of_metadata = [url.as_slice(), link.as_slice()].concat();
    let metadata = Program::start(&dir.path().join("metadata"), &of_metadata);
    let mut a = Client::new(&metadata.url);
    let info = a
        .http
        .get(format!("{}/v1/vault", metadata.url))
        .send()
        .await
        .unwrap();
    let info: VaultInfo = decode(&info.bytes().await.unwrap()).unwrap();
    assert_eq!(info.storage.as_deref(), Some(storage.url.as_str()));
    a.storage = storage.url.clone();
    a.enroll(None).await.unwrap();
    let chunk = bytes("apart", 100_000);
    let refs = a.record("cam", &[&chunk]).await.unwrap();
    assert!(a.fetches(&chunk, &refs[0]).await);
    assert!(a.put(&[], &[]).await.is_err());
    let health = a
        .http
        .get(format!("{}/healthz", metadata.url))
        .send()
        .await
        .unwrap();
    assert_eq!(health.status().as_u16(), 200);
    let report = a.scrub(0).await;
    assert_eq!((report.variants, report.missing.len()), (1, 0));
    a.forget("cam").await.unwrap();
    eventually("the blob goes", || async { a.stats().await.blobs == 0 }).await;
    let name = hex(refs[0].d1.as_slice());
    let blob = dir.path().join("storage/blobs").join(&name[..2]).join(name);
    assert!(!blob.exists());
    // The inner endpoint is closed to others.
    let inner = format!("{}/v1/internal/blobs", storage.url);
    let request = a
        .http
        .post(inner)
        .header("camvault-internal", "1.aaaaaaaa.bbbb");
    assert_eq!(request.send().await.unwrap().status().as_u16(), 401);
    // Without the storage server the other one is not healthy.
    drop(storage);
    let health = a
        .http
        .get(format!("{}/healthz", metadata.url))
        .send()
        .await
        .unwrap();
    assert_eq!(health.status().as_u16(), 503);
}

#[test]
fn scrub_on_the_directory_of_a_stopped_server() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path(), &[]);
    let scrub = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_camvault"));
        command.arg("scrub").arg(dir.path()).arg("--json");
        command.output().unwrap()
    };
    assert_eq!(scrub().status.code(), Some(1), "the server holds the lock");
    program.terminate();
    assert_eq!(program.exit_code(), Some(0));
    let done = scrub();
    assert_eq!(done.status.code(), Some(0));
    assert!(
        String::from_utf8(done.stdout)
            .unwrap()
            .contains("\"variants\":0")
    );
}
