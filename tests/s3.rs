// SPDX-License-Identifier: MPL-2.0
//! Servers whose blobs are in a bucket.

#[path = "common/raw.rs"]
mod common;
#[path = "common/s3.rs"]
mod s3;
#[path = "common/serve.rs"]
mod serve;

use common::*;
use gstcamvault::protocol::*;
use s3::{Network, Service, State, VARIABLES};
use serve::Program;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const BLOBS: &str = "s3://vault/p";

/// A server over the bucket behind an endpoint.
fn server(data: &Path, endpoint: &str, arguments: &[&str]) -> Program {
    let places = ["--blobs", BLOBS, "--s3-endpoint", endpoint];
    let all = [&places[..], arguments].concat();
    Program::listen_with("127.0.0.1:0", data, &all, &VARIABLES)
}

/// The program with the credentials.
fn camvault(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_camvault"));
    let output = command.args(arguments).envs(VARIABLES).output().unwrap();
    println!("{arguments:?}: {output:?}");
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_finds_what_is_deleted_and_damaged() {
    let service = Service::start();
    let dir = tempfile::tempdir().unwrap();
    let program = server(dir.path(), &service.url(), &[]);
    let mut client = Client::new(&program.url);
    client.enroll(None).await.unwrap();
    let chunks: Vec<_> = (0..6)
        .map(|i| bytes(&format!("chunk {i}"), 100_000 * i + 1))
        .collect();
    let all: Vec<&[u8]> = chunks.iter().map(|c| &c[..]).collect();
    let refs = client.record("cam", &all).await.unwrap();
    for (chunk, reference) in chunks.iter().zip(&refs) {
        assert!(client.fetches(chunk, reference).await);
    }
    assert!(!dir.path().join("blobs").exists(), "nothing is kept here");
    let place = |i: usize| service.blob("p", refs[i].d1.as_slice());
    assert_eq!(service.request("DELETE", &place(1), b"").0, 204);
    assert_eq!(service.request("PUT", &place(2), b"garbage").0, 200);
    let orphan = service.blob("p", &[7; 32]);
    assert_eq!(service.request("PUT", &orphan, b"orphan").0, 200);
    let report = client.scrub(0).await;
    assert_eq!(report.missing, [refs[1].d1]);
    assert_eq!(report.damaged, [refs[2].d1]);
    assert_eq!((report.variants, report.orphans_removed), (6, 1));
    assert_eq!(service.request("GET", &orphan, b"").0, 404);
    // Who has the bytes mends it.
    let again = client.store(&chunks[1]).await.unwrap();
    assert!(client.fetches(&chunks[1], &again).await);
    // Forgotten is gone.
    let kept = place(4);
    client.forget("cam").await.unwrap();
    let gone = || async { service.request("GET", &kept, b"").0 == 404 };
    eventually("the object goes", gone).await;

    // The same when the server does not run, and not with another place of blobs.
    let extra = bytes("extra", 1000);
    let extra = client.record("extra", &[&extra]).await.unwrap();
    program.terminate();
    assert_eq!(program.exit_code(), Some(0));
    let url = service.url();
    let data = dir.path().to_str().unwrap();
    let scrub = ["scrub", data, "--blobs", BLOBS, "--s3-endpoint", &url];
    assert_eq!(camvault(&scrub).status.code(), Some(0));
    let path = service.blob("p", extra[0].d1.as_slice());
    assert_eq!(service.request("DELETE", &path, b"").0, 204);
    let scrubbed = camvault(&scrub);
    assert_eq!(scrubbed.status.code(), Some(3));
    assert!(text(&scrubbed.stdout).contains(&format!("missing: {}", hex(&extra[0].d1[..]))));
}

#[test]
fn a_wrong_configuration_ends_the_server_at_once() {
    let service = Service::start();
    let dir = tempfile::tempdir().unwrap();
    let (data, url) = (dir.path().to_str().unwrap(), service.url());
    for (arguments, said) in [
        (
            ["--blobs", "s3://nowhere", "--s3-endpoint", &url],
            "make it, or correct --blobs",
        ),
        (
            ["--blobs", "s3://", "--s3-endpoint", &url],
            "no s3://BUCKET",
        ),
        (
            ["--blobs", "elsewhere", "--s3-endpoint", &url],
            "needs --blobs s3://",
        ),
    ] {
        let serve = ["serve", "--data", data, "--listen", "127.0.0.1:0"];
        let ended = camvault(&[&serve[..], &arguments].concat());
        assert!(!ended.status.success());
        assert!(text(&ended.stderr).contains(said));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_in_another_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (data, other) = (dir.path().join("data"), dir.path().join("other"));
    let place = ["--blobs", other.to_str().unwrap()];
    let program = Program::start(&data, &place);
    let mut client = Client::new(&program.url);
    client.enroll(None).await.unwrap();
    let chunk = bytes("elsewhere", 300_000);
    let refs = client.record("cam", &[&chunk]).await.unwrap();
    assert!(client.fetches(&chunk, &refs[0]).await);
    let name = hex(&refs[0].d1[..]);
    let blob = other.join("blobs").join(&name[..2]).join(&name);
    assert!(blob.exists() && !data.join("blobs").exists());
    program.terminate();
    assert_eq!(program.exit_code(), Some(0));
    std::fs::remove_file(blob).unwrap();
    let scrub = [&["scrub", data.to_str().unwrap()][..], &place].concat();
    assert_eq!(camvault(&scrub).status.code(), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_share_a_bucket() {
    let service = Service::start();
    let dir = tempfile::tempdir().unwrap();
    let secrets = dir.path().join("secrets");
    let secrets = ["--secrets", secrets.to_str().unwrap()];
    let storage = |name: &str| {
        let role = [&secrets[..], &["--role", "storage"]].concat();
        server(&dir.path().join(name), &service.url(), &role)
    };
    let (first, second) = (storage("first"), storage("second"));
    let role = ["--role", "metadata", "--storage-url", &first.url];
    let arguments = [&secrets[..], &role].concat();
    let metadata = Program::start(&dir.path().join("metadata"), &arguments);
    for name in ["first", "second"] {
        assert!(
            !dir.path().join(name).exists(),
            "a storage server keeps nothing"
        );
    }
    let mut client = Client::new(&metadata.url);
    client.enroll(None).await.unwrap();
    let mut all = vec![];
    for i in 0..10 {
        let here = [&first, &second][i % 2];
        client.storage = here.url.clone();
        let chunk = bytes(&format!("shared {i}"), 50_000);
        let refs = client.record(&format!("cam {i}"), &[&chunk]).await.unwrap();
        all.push((chunk, refs[0].clone()));
    }
    for storage in [&first, &second] {
        client.storage = storage.url.clone();
        for (chunk, reference) in &all {
            assert!(client.fetches(chunk, reference).await);
        }
    }
    let report = client.scrub(0).await;
    assert_eq!(
        (
            report.variants,
            report.missing.len(),
            report.orphans_removed
        ),
        (10, 0, 0)
    );
    for i in 0..10 {
        client.forget(&format!("cam {i}")).await.unwrap();
    }
    eventually("the blobs go", || async { client.stats().await.blobs == 0 }).await;
    for (_, reference) in &all {
        let path = service.blob("p", reference.d1.as_slice());
        assert_eq!(service.request("GET", &path, b"").0, 404);
    }
    // What was forgotten can be recorded again.
    let refs = client.record("again", &[&all[0].0]).await.unwrap();
    assert!(client.fetches(&all[0].0, &refs[0]).await);
}

/// What a writer was told is durable.
type Acknowledged = Arc<Mutex<Vec<(Vec<u8>, ChunkRef)>>>;

/// Records until it is told to stop; what is refused is tried again.
async fn write(writer: usize, client: Client, stop: Arc<AtomicBool>, done: Acknowledged) -> usize {
    let mut refused = 0;
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let chunk = bytes(&format!("{writer} {number}"), 60_000);
        loop {
            match client.store(&chunk).await {
                Ok(reference) => {
                    let commit = commit_of(vec![reference.clone()], &format!("{number}"));
                    let name = format!("{writer} {number}");
                    let committed = client.commit(&name, 0, &commit).await.unwrap();
                    assert_eq!(committed, Committed::Done);
                    done.lock().unwrap().push((chunk, reference));
                    break;
                }
                Err(problem) => {
                    assert!(
                        matches!(problem.code, Code::Internal | Code::Busy),
                        "{problem:?}"
                    );
                    refused += 1;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }
    refused
}

/// Writers, and the program storing a file, while the network to the service is as `weather`
/// makes it. Nothing acknowledged is lost, and all ends without help.
async fn under_load(weather: impl AsyncFnOnce(&Network, &Acknowledged)) {
    let service = Service::start();
    let network = Network::to(service.address);
    let dir = tempfile::tempdir().unwrap();
    let program = server(&dir.path().join("data"), &network.url(), &[]);
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (identity, file, back) = (at("me"), at("file"), at("back"));
    std::fs::write(&file, bytes("file", 20_000_000)).unwrap();
    assert!(camvault(&["keygen", "--out", &identity]).status.success());
    let enroll = ["enroll", "--identity", &identity, "--vault", &program.url];
    assert!(camvault(&enroll).status.success());
    let (stop, done) = (Arc::new(AtomicBool::default()), Acknowledged::default());
    let mut writers = vec![];
    for writer in 0..4 {
        let mut client = Client::new(&program.url);
        client.enroll(None).await.unwrap();
        let work = write(writer, client, stop.clone(), done.clone());
        writers.push(tokio::spawn(work));
    }
    let url = format!("camvault://{}/file", program.authority());
    let mut put = Command::new(env!("CARGO_BIN_EXE_camvault"))
        .args(["put", "--identity", &identity, &file, &url])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    weather(&network, &done).await;
    network.set(State::Good);
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop.store(true, Ordering::SeqCst);
    let mut refused = 0;
    for writer in writers {
        refused += writer.await.unwrap();
    }
    assert!(put.wait().unwrap().success());
    let get = ["get", "--identity", &identity, &url, "--out", &back];
    assert!(camvault(&get).status.success());
    assert!(std::fs::read(&file).unwrap() == std::fs::read(&back).unwrap());
    let client = Client::new(&program.url);
    let report = client.scrub(3600).await;
    assert!(
        report.missing.is_empty() && report.damaged.is_empty(),
        "{report:?}"
    );
    assert_eq!(report.counts_mended, 0);
    let acknowledged = done.lock().unwrap().clone();
    for (chunk, reference) in &acknowledged {
        // Sealed, so that its own bytes are nowhere.
        let (status, body) = service.request("GET", &service.blob("p", &reference.d1[..]), b"");
        assert_eq!((status, body.len()), (200, chunk.len()));
        assert_eq!(blake3::hash(&body), *reference.d1);
    }
    println!(
        "{} recordings acknowledged, all there; {refused} tries refused; {} connections spoiled",
        acknowledged.len(),
        network.spoiled.load(Ordering::SeqCst)
    );
    assert!(acknowledged.len() > 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_stops_and_starts_again_loses_nothing() {
    under_load(async |network, done| {
        let wait = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        wait(2).await;
        for outage in [2, 15] {
            network.set(State::Down);
            wait(outage).await;
            let before = done.lock().unwrap().len();
            network.set(State::Good);
            let began = Instant::now();
            while done.lock().unwrap().len() == before {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let pause = began.elapsed();
            println!("after {outage} s: the next recording {pause:?} after the return");
            assert!(pause < Duration::from_secs(10));
            wait(2).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_fails_and_is_slow_is_survived() {
    let long = std::env::var_os("CAMVAULT_LONG").is_some();
    under_load(async |network, _| {
        network.set(State::Bad);
        let seconds = if long { 120 } else { 15 };
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        assert!(network.spoiled.load(Ordering::SeqCst) > 20);
    })
    .await;
}
