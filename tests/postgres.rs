// SPDX-License-Identifier: MPL-2.0
//! Several metadata servers over one PostgreSQL database, and what happens when it is killed.

#[path = "common/raw.rs"]
mod common;
#[path = "common/postgres.rs"]
mod postgres;
#[path = "common/serve.rs"]
mod serve;

use common::*;
use gstcamvault::identity::Identity;
use gstcamvault::protocol::*;
use gstcamvault::server::{Role, Server};
use postgres::PostgresServer;
use serve::Program;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A storage server and two metadata servers over one database.
struct Servers {
    storage: Server,
    metadata: [Server; 2],
    database: Arc<PostgresServer>,
    _dir: tempfile::TempDir,
}

impl Servers {
    async fn start() -> Self {
        let database = PostgresServer::start();
        let url = database.database("vault");
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        let mut config = config(&dir.path().join("storage"));
        config.roles = vec![Role::Storage];
        config.link_secret = Some(link.clone());
        let storage = Server::start(config.clone()).await.unwrap();
        config.roles = vec![Role::Metadata];
        config.storage_url = Some(storage.url());
        config.metadata = Some(url.parse().unwrap());
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        config.data = one.clone();
        let first = Server::start(config.clone()).await.unwrap();
        // One with other secrets does not start.
        config.data = two.clone();
        let refused = Server::start(config.clone()).await.unwrap_err().to_string();
        assert!(refused.contains("other secrets"), "{refused}");
        std::fs::copy(one.join("secrets/master"), two.join("secrets/master")).unwrap();
        let second = Server::start(config).await.unwrap();
        Self {
            storage,
            metadata: [first, second],
            database: Arc::new(database),
            _dir: dir,
        }
    }

    async fn owner(&self, number: usize) -> Client {
        let id = Identity::from_secret([number as u8 + 1; 32]).unwrap();
        let mut client = Client::with(&self.metadata[number % 2].url(), id);
        client.storage = self.storage.url();
        client.enroll(None).await.unwrap();
        client
    }
}

fn chunk(number: usize) -> Vec<u8> {
    bytes(&format!("chunk {number}"), 5_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_two_servers_race_for_the_same_chunks() {
    const OWNERS: usize = 8;
    const CHUNKS: usize = 40;
    let servers = Servers::start().await;
    let mut racing = vec![];
    for number in 0..OWNERS {
        let client = servers.owner(number).await;
        racing.push(tokio::spawn(async move {
            let mut order: Vec<usize> = (0..CHUNKS).collect();
            // Half of them in the same order, close on each other's heels.
            order.rotate_left(number / 4 * CHUNKS / 2);
            let mut refs = vec![];
            for i in order {
                refs.push((i, client.store(&chunk(i)).await.unwrap()));
            }
            let commit = commit_of(refs.iter().map(|(_, r)| r.clone()).collect(), "race");
            assert_eq!(
                client.commit("race", 0, &commit).await.unwrap(),
                Committed::Done
            );
            (client, refs)
        }));
    }
    let mut clients = vec![];
    for racer in racing {
        clients.push(racer.await.unwrap());
    }
    let (first, _) = &clients[0];
    let stats = first.stats().await;
    assert_eq!(
        (stats.chunks, stats.variants),
        (40, 40),
        "one variant a chunk"
    );
    assert_eq!((stats.owners, stats.recordings, stats.segments), (8, 8, 8));
    assert_eq!(stats.bytes_stored, 40 * 5_000);
    assert_eq!(stats.bytes_logical, 8 * 40 * 5_000);
    eventually("blobs that lost the race go", || async {
        clients[1].0.stats().await.blobs == 40
    })
    .await;
    for (client, refs) in &clients {
        let opened = client
            .open(refs.iter().map(|(_, r)| r.clone()).collect())
            .await;
        assert!(opened.unwrap().chunks.iter().all(Option::is_some));
        let (i, reference) = &refs[7];
        assert!(client.fetches(&chunk(*i), reference).await);
    }
    // Both scrub at once.
    let (one, two) = futures::join!(clients[0].0.scrub(0), clients[1].0.scrub(0));
    for report in [one, two] {
        assert_eq!((report.orphans_removed, report.counts_mended), (0, 0));
        assert!(report.missing.is_empty() && report.damaged.is_empty());
        assert_eq!((report.variants, report.segments), (40, 8));
    }
    for (client, _) in &clients {
        client.forget("race").await.unwrap();
    }
    eventually("all blobs go", || async {
        clients[1].0.stats().await.blobs == 0
    })
    .await;
    assert_eq!(clients[0].0.stats().await.variants, 0);
    assert_eq!(clients[0].0.scrub(0).await.orphans_removed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_is_killed_under_load_and_nothing_acknowledged_is_lost() {
    const WRITERS: usize = 4;
    let long = std::env::var_os("CAMVAULT_LONG").is_some();
    let kills = if long { 20 } else { 4 };
    let servers = Servers::start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = vec![];
    for number in 0..WRITERS {
        let client = servers.owner(number).await;
        let stop = stop.clone();
        writers.push(tokio::spawn(async move {
            let (mut done, mut busy) = (vec![], 0);
            let mut seq = 0;
            while !stop.load(Ordering::Relaxed) {
                // Every third is another writer's too.
                let i = match seq % 3 {
                    0 => seq,
                    _ => 1_000_000 * (number + 1) + seq,
                };
                let stored = async {
                    let reference = client.store(&chunk(i)).await?;
                    let commit = commit_of(vec![reference.clone()], &format!("{number} {seq}"));
                    let committed = client.commit("cam", seq as u64, &commit).await?;
                    Ok::<_, Problem>((reference, committed))
                };
                match stored.await {
                    Ok((reference, committed)) => {
                        assert_eq!(committed, Committed::Done);
                        done.push((i, reference));
                        seq += 1;
                    }
                    // As clients do: once more.
                    Err(problem) if problem.code == Code::Busy => busy += 1,
                    Err(problem) => panic!("{problem:?}"),
                }
            }
            (client, done, busy)
        }));
    }
    let database = servers.database.clone();
    let killing = tokio::task::spawn_blocking(move || {
        let mut longest = Duration::ZERO;
        for kill in 0..kills {
            std::thread::sleep(Duration::from_millis(700 + 130 * kill));
            let began = Instant::now();
            database.kill();
            database.again();
            longest = longest.max(began.elapsed());
        }
        longest
    });
    let away = killing.await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Relaxed);
    let (mut acknowledged, mut busy) = (0, 0);
    for writer in writers {
        let (client, done, refused) = writer.await.unwrap();
        busy += refused;
        acknowledged += done.len();
        let recording = hex(&client.id.recording_id("cam"));
        let all: Recording = client
            .fetch(&format!("/v1/recordings/{recording}"))
            .await
            .unwrap();
        assert_eq!(all.segments, done.len() as u64);
        for (i, reference) in &done {
            assert!(client.fetches(&chunk(*i), reference).await, "chunk {i}");
        }
    }
    let client = servers.owner(0).await;
    let report = client.scrub(0).await;
    assert!(
        report.missing.is_empty() && report.damaged.is_empty(),
        "{report:?}"
    );
    assert_eq!(report.counts_mended, 0);
    let stats = client.stats().await;
    assert_eq!(stats.segments, acknowledged as u64);
    assert_eq!(stats.chunks, stats.variants);
    println!(
        "{kills} kills, away for at most {away:?}: {acknowledged} segments acknowledged and \
         readable, {busy} requests told to come again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_says_what_is_wrong_and_no_password() {
    let database = PostgresServer::start();
    let url = database.database("vault");
    let dir = tempfile::tempdir().unwrap();
    let serve = |arguments: &[&str]| Program::refused(dir.path(), arguments);
    let wrong = serve(&["--metadata", "postgres://me:s3cret@127.0.0.1:x/db"]);
    assert!(
        wrong.contains("--metadata") && !wrong.contains("s3cret"),
        "{wrong}"
    );
    let mut program = Program::start(dir.path(), &["--metadata", &url]);
    let mut client = Client::new(&program.url);
    client.enroll(None).await.unwrap();
    let refs = client.record("cam", &[&chunk(1)]).await.unwrap();
    // Without the database, every blob would look like an orphan.
    program.kill();
    let elsewhere = serve(&[]);
    assert!(elsewhere.contains("give --metadata"), "{elsewhere}");
    let mut scrub = Command::new(env!("CARGO_BIN_EXE_camvault"));
    let scrubbed = scrub.arg("scrub").arg(dir.path()).output().unwrap();
    assert_eq!(scrubbed.status.code(), Some(1));
    program.again();
    client = Client::with(&program.url, client.id);
    client.enroll(None).await.unwrap();
    assert!(client.fetches(&chunk(1), &refs[0]).await);
}
