// SPDX-License-Identifier: MPL-2.0
//! Two servers over one PostgreSQL database and one bucket, one of which dies.

#[path = "common/raw.rs"]
mod common;
#[path = "common/postgres.rs"]
mod postgres;
#[path = "common/s3.rs"]
mod s3;
#[path = "common/serve.rs"]
mod serve;

use common::*;
use gstcamvault::protocol::*;
use postgres::PostgresServer;
use s3::{Service, VARIABLES};
use serve::Program;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const WRITERS: usize = 4;

/// A writer's first segments: what it was told is durable.
type Written = Vec<(Vec<u8>, ChunkRef)>;

/// Records at the server of its number until the end, at the other one as soon as that does not
/// answer; also how often it had to try again.
async fn write(
    mut client: Client,
    number: usize,
    urls: [String; 2],
    stop: Arc<AtomicBool>,
) -> (Client, Written, usize) {
    let (mut at, mut done, mut again) = (number % 2, vec![], 0);
    while !stop.load(Ordering::Relaxed) {
        let seq = done.len();
        // Every third is all writers'.
        let name = match seq % 3 {
            0 => format!("{seq}"),
            _ => format!("{seq} of {number}"),
        };
        let chunk = bytes(&name, 20_000);
        let stored = async {
            let reference = client.store(&chunk).await?;
            let commit = commit_of(vec![reference.clone()], &name);
            let committed = client.commit("cam", seq as u64, &commit).await?;
            assert_eq!(committed, Committed::Done);
            Ok::<_, Problem>(reference)
        };
        match stored.await {
            Ok(reference) => {
                done.push((chunk, reference));
                // All of it is fetched in the end.
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            Err(problem) => {
                assert!(
                    matches!(problem.code, Code::Internal | Code::Busy),
                    "{problem:?}"
                );
                again += 1;
                at = 1 - at;
                client.base = urls[at].clone();
                client.storage = urls[at].clone();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    (client, done, again)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_dies_and_the_other_goes_on() {
    let (database, service) = (PostgresServer::start(), Service::start());
    let dir = tempfile::tempdir().unwrap();
    let (url, endpoint) = (database.database("vault"), service.url());
    let secrets = dir.path().join("secrets");
    let start = |name: &str| {
        let arguments = [
            ["--role", "metadata,storage"],
            ["--secrets", secrets.to_str().unwrap()],
            ["--metadata", &url],
            ["--blobs", "s3://vault/p"],
            ["--s3-endpoint", &endpoint],
        ];
        let data = dir.path().join(name);
        Program::listen_with("127.0.0.1:0", &data, &arguments.concat(), &VARIABLES)
    };
    let (mut first, second) = (start("first"), start("second"));
    let urls = [first.url.clone(), second.url.clone()];
    let stop = Arc::new(AtomicBool::default());
    let mut writers = vec![];
    for number in 0..WRITERS {
        let mut client = Client::new(&urls[number % 2]);
        client.enroll(None).await.unwrap();
        let work = write(client, number, urls.clone(), stop.clone());
        writers.push(tokio::spawn(work));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    first.kill();
    tokio::time::sleep(Duration::from_secs(5)).await;
    stop.store(true, Ordering::Relaxed);
    let (mut written, mut all) = (vec![], 0);
    for writer in writers {
        let (client, done, again) = writer.await.unwrap();
        println!("{} segments, {again} tries again", done.len());
        assert!(done.len() > 3);
        all += done.len();
        written.push((client, done));
    }
    let report = Client::new(&second.url).scrub(3600).await;
    assert!(
        report.missing.is_empty() && report.damaged.is_empty(),
        "{report:?}"
    );
    assert_eq!((report.segments, report.counts_mended), (all as u64, 0));
    // All of it at the one that was dead meanwhile.
    first.again();
    for (client, done) in &mut written {
        client.base = first.url.clone();
        client.storage = first.url.clone();
        for (chunk, reference) in done.iter() {
            assert!(client.fetches(chunk, reference).await);
        }
        client.forget("cam").await.unwrap();
        for (_, reference) in done.iter() {
            let opened = client.open(vec![reference.clone()]).await.unwrap();
            assert!(opened.chunks[0].is_none());
        }
    }
    // At once, unless the lease to delete is still that of the server that was killed.
    let (began, client) = (Instant::now(), &written[0].0);
    while client.stats().await.blobs > 0 {
        assert!(began.elapsed() < Duration::from_secs(240), "blobs stay");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // What the killed one had put and not registered.
    client.scrub(0).await;
    let report = client.scrub(0).await;
    assert_eq!((report.variants, report.orphans_removed), (0, 0));
    for (_, done) in &written {
        for (_, reference) in done {
            let path = service.blob("p", &reference.d1[..]);
            assert_eq!(service.request("GET", &path, b"").0, 404);
        }
    }
}
