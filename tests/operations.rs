// SPDX-License-Identifier: MPL-2.0
//! What those who run a server see of it: health, numbers, the log, and that it leaves in order.

mod common;

use common::serve::Program;
use common::{camvault, camvault_with};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Status, headers in lower case, and body of an answer.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

fn read(mut stream: TcpStream) -> Answer {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let all = String::from_utf8_lossy(&all).into_owned();
    let (head, body) = all.split_once("\r\n\r\n").expect(&all);
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

fn send(authority: &str, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(authority).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    write!(stream, "{head}\r\nhost: {authority}\r\n").unwrap();
    stream
}

fn get(authority: &str, path: &str) -> Answer {
    let mut stream = send(authority, &format!("GET {path} HTTP/1.1"));
    stream.write_all(b"connection: close\r\n\r\n").unwrap();
    read(stream)
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// An identity's file, enrolled.
fn owner(dir: &Path, url: &str) -> String {
    let identity = dir.join("owner").display().to_string();
    assert_eq!(camvault(&["keygen", "--out", &identity]).0, 0);
    let enrolled = camvault(&["enroll", "--identity", &identity, "--vault", url]);
    assert_eq!(enrolled.0, 0);
    identity
}

/// Stores bytes under a name.
fn store(dir: &Path, identity: &str, authority: &str, name: &str) {
    let file = dir.join(name);
    std::fs::write(&file, name.repeat(1000)).unwrap();
    let (file, url) = (
        file.display().to_string(),
        format!("camvault://{authority}/{name}"),
    );
    let stored = camvault(&["put", "--identity", identity, &file, &url]);
    assert_eq!(stored.0, 0, "{}", stored.1);
}

#[test]
fn health_has_a_line_for_each_engine() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path(), &[]);
    let at = program.authority();
    assert_eq!(get(at, "/livez").status, 200);
    let health = get(at, "/healthz");
    assert_eq!((health.status, health.body.as_str()), (200, "ok\n"));
    let verbose = get(at, "/healthz?verbose").body;
    for line in [
        "metadata embedded: ok (",
        "metadata blobs: ok (",
        "storage directory: ok (",
        "ttp registry: ok (",
    ] {
        assert!(verbose.lines().any(|l| l.starts_with(line)), "{verbose}");
    }
    let storage = get(at, "/healthz/storage");
    assert_eq!(storage.status, 200);
    assert_eq!(storage.body.lines().count(), 1, "{}", storage.body);
    for no_role in ["gateway", "nonsense"] {
        assert_eq!(get(at, &format!("/healthz/{no_role}")).status, 404);
    }
    let status = get(at, "/status");
    assert_eq!(status.status, 200);
    assert!(status.body.contains("embedded"), "{}", status.body);
    assert!(!status.body.contains("<script"));
}

/// The balancer is told, the orchestrator not: a restart would mend nothing.
#[test]
fn an_engine_that_is_away_is_named_and_does_not_stop_the_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link").display().to_string();
    let storage = [
        "--role",
        "storage",
        "--link-secret",
        &link,
        "--reserve",
        "0",
    ];
    let storage = Program::start(&dir.path().join("storage"), &storage);
    let url = storage.url.clone();
    let metadata = [
        "--role",
        "metadata",
        "--link-secret",
        &link,
        "--storage-url",
        &url,
    ];
    let metadata = Program::start(&dir.path().join("metadata"), &metadata);
    let at = metadata.authority();
    assert_eq!(get(at, "/healthz").status, 200);
    drop(storage);
    assert_eq!(get(at, "/livez").status, 200);
    let health = get(at, "/healthz");
    assert_eq!(health.status, 503);
    assert!(
        health.body.starts_with("metadata blobs: storage server: "),
        "{}",
        health.body
    );
    let verbose = get(at, "/healthz/metadata");
    assert_eq!(verbose.status, 503);
    assert!(
        verbose.body.contains("metadata embedded: ok"),
        "{}",
        verbose.body
    );
    let metrics = get(at, "/metrics");
    assert_eq!(metrics.status, 200);
    for line in [
        "camvault_ready{role=\"metadata\",engine=\"embedded\"} 1",
        "camvault_ready{role=\"metadata\",engine=\"blobs\"} 0",
        "camvault_blobs_operations_total{operation=\"ready\",outcome=\"remote\"}",
    ] {
        assert!(metrics.body.contains(line), "{line}: {}", metrics.body);
    }
}

#[test]
fn a_server_that_stops_tells_balancers_first() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path(), &["--drain-notice", "2"]);
    let at = program.authority().to_owned();
    let began = Instant::now();
    program.terminate();
    while get(&at, "/healthz").status == 200 {
        assert!(began.elapsed() < Duration::from_secs(1));
    }
    // Whoever has not heard is still served, once.
    let vault = get(&at, "/v1/vault");
    assert_eq!(vault.status, 200);
    assert!(vault.head.contains("connection: close"), "{}", vault.head);
    assert_eq!(get(&at, "/livez").status, 200);
    assert_eq!(get(&at, "/healthz/metadata").status, 503);
    assert_eq!(program.exit_code(), Some(0));
    assert!(began.elapsed() >= Duration::from_secs(2));
}

#[test]
fn while_it_finishes_what_it_began_it_takes_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path(), &[]);
    let at = program.authority().to_owned();
    let mut slow = send(&at, "POST /v1/internal/blobs HTTP/1.1");
    let rest = "camvault-internal: 1.aaaaaaaa.bbbb\r\ncontent-length: 100\r\n\r\n";
    slow.write_all(rest.as_bytes()).unwrap();
    slow.write_all(&[0; 50]).unwrap();
    // It is there, and waits for the rest.
    let busy = "camvault_in_use{kind=\"requests\"} 2";
    while !get(&at, "/metrics").body.contains(busy) {
        std::thread::sleep(Duration::from_millis(10));
    }
    program.terminate();
    // Balancers are told first; however short that time is, a request may fall into it. And a
    // connection whose request is still on its way may be closed when that time ends.
    let refused = |path: &str| {
        let ask = |_| {
            std::thread::sleep(Duration::from_millis(10));
            let answer = std::panic::catch_unwind(|| get(&at, path)).ok();
            answer.filter(|answer| answer.status != 200)
        };
        (0..1000).find_map(ask).unwrap()
    };
    assert_eq!(refused("/healthz").status, 503);
    let refused = refused("/v1/vault");
    assert_eq!(refused.status, 503);
    assert!(
        refused.head.contains("retry-after: 1"),
        "clients come again: {}",
        refused.head
    );
    assert_eq!(get(&at, "/livez").status, 200);
    slow.write_all(&[0; 50]).unwrap();
    assert_eq!(read(slow).status, 401, "the answer to what was begun");
    assert_eq!(program.exit_code(), Some(0));
}

#[test]
fn routes_are_told_apart_and_paths_are_not_told() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path(), &[]);
    let at = program.authority();
    for path in [
        "/v1/recordings/0123/segments/7",
        "/v1/recordings/0123/shares/45",
        "/v1/ttp/contracts/0123",
        "/v1/gateway/contracts/0123",
        "/healthz/storage",
        "/nonsense/0123",
    ] {
        get(at, path);
    }
    let metrics = get(at, "/metrics").body;
    let routes: BTreeSet<&str> = metrics
        .split("route=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    let wanted = [
        "/healthz/{role}",
        "/v1/recordings/{id}/segments/{seq}",
        "/v1/recordings/{id}/shares/{key}",
        "/v1/ttp/contracts/{id}",
        // Unknown, and of a role that this process does not have.
        "other",
    ];
    assert_eq!(routes, BTreeSet::from(wanted), "{metrics}");
    assert!(!metrics.contains("0123"), "{metrics}");
}

/// Names in what a dashboard or a rule asks for.
fn names(text: &str) -> BTreeSet<String> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let words = text.split(word);
    let ours = words.filter(|w| w.starts_with("camvault_") || w.starts_with("process_"));
    ours.map(str::to_owned).collect()
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// Dashboard and alerts ask for nothing that a server with all roles does not have.
#[test]
fn dashboard_and_alerts_know_the_servers_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let all = [
        "--role",
        "metadata,storage,ttp,gateway",
        "--paillier-bits",
        "2048",
        "--sealed-listen",
        "127.0.0.1:0",
    ];
    let address = format!("127.0.0.1:{}", free_port());
    let program = Program::listen(&address, &dir.path().join("data"), &all);
    let identity = owner(dir.path(), &program.url);
    store(dir.path(), &identity, program.authority(), "something");
    assert_eq!(camvault(&["scrub", &program.url]).0, 0);
    let metrics = get(program.authority(), "/metrics").body;
    let there: BTreeSet<&str> = metrics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(['{', ' ']).next().unwrap())
        // A histogram is also called by the name that its three have in common.
        .flat_map(|name| [name, name.strip_suffix("_count").unwrap_or(name)])
        .collect();
    let dashboard = std::fs::read_to_string(deploy().join("grafana/camvault.json")).unwrap();
    let panels: Value = serde_json::from_str(&dashboard).unwrap();
    let expressions: String = panels["panels"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten())
        .map(|target| format!("{}\n", target["expr"].as_str().unwrap()))
        .collect();
    let alerts = std::fs::read_to_string(deploy().join("prometheus/alerts.yml")).unwrap();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    for (file, text) in [
        ("grafana", &expressions),
        ("alerts", &alerts),
        ("docs", &docs),
    ] {
        let asked = names(text);
        assert!(asked.len() > 3, "{file}: {asked:?}");
        for name in asked {
            assert!(there.contains(name.as_str()), "{file}: {name}: {metrics}");
        }
    }
    // And each alert is explained.
    for line in alerts.lines() {
        if let Some(alert) = line.trim().strip_prefix("- alert: ") {
            assert!(docs.contains(&format!("`{alert}`")), "{alert}");
        }
    }
}

/// A line of JSON for every request, with its route, its id and its caller's trace; and nothing
/// in it that names an owner, a recording or a blob, or that opens anything.
#[test]
fn the_log_tells_what_happened_and_gives_nothing_away() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut child = Command::new(env!("CARGO_BIN_EXE_camvault"))
        .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"])
        .args(["--log", "trace", "--data"])
        .arg(&data)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let out = child.stdout.take().unwrap();
    std::io::BufReader::new(out).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("listening on ").unwrap();
    let mut errors = child.stderr.take().unwrap();
    let log = std::thread::spawn(move || {
        let mut log = String::new();
        errors.read_to_string(&mut log).unwrap();
        log
    });
    let authority = url.strip_prefix("http://").unwrap();
    let identity = owner(dir.path(), url);
    store(dir.path(), &identity, authority, "veryprivatename");
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let mut traced = send(authority, "GET /v1/vault?secret=hush HTTP/1.1");
    let parent =
        format!("traceparent: 00-{trace}-b7ad6b7169203331-01\r\nconnection: close\r\n\r\n");
    traced.write_all(parent.as_bytes()).unwrap();
    let traced = read(traced);
    let (code, listed) = camvault(&["ls", "--identity", &identity, url]);
    assert_eq!(code, 0);
    let pid = child.id().to_string();
    Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    assert!(child.wait().unwrap().success());
    let log = log.join().unwrap();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    let of = |route: &str| {
        let found = lines
            .iter()
            .find(|l| l["message"] == "answered" && l["span"]["route"] == route);
        found.unwrap_or_else(|| panic!("{route}: {log}"))
    };
    let put = &of("/v1/blobs")["span"];
    assert_eq!(
        (&put["method"], &put["status"]),
        (&"PUT".into(), &200.into())
    );
    assert!(put["ms"].is_u64(), "{put}");
    let vault = lines
        .iter()
        .find(|l| l["span"]["trace"] == trace)
        .expect(&log);
    let id = vault["span"]["id"].as_str().unwrap();
    assert!(traced.head.contains(&format!("x-request-id: {id}")));
    // What must not be there.
    let secret = |name: &str| {
        let text = std::fs::read_to_string(data.join("secrets").join(name)).unwrap();
        text.trim().to_owned()
    };
    let owner = gstcamvault::identity::Identity::load(Path::new(&identity)).unwrap();
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let mut hidden = vec![
        ("name", "veryprivatename".to_owned()),
        ("query", "hush".to_owned()),
        ("signing key", hex(&owner.public().sign)),
        ("public identity", owner.public().to_string()),
        ("signature", "sig1=".to_owned()),
        ("keyid", "keyid".to_owned()),
        ("recording", hex(&owner.recording_id("veryprivatename"))),
    ];
    for name in ["master", "link", "admin.token", "enroll.token", "ttp.key"] {
        hidden.push(("secret", secret(name)));
    }
    for blob in common::blobs(&data) {
        hidden.push(("blob", blob.file_name().unwrap().to_string_lossy().into()));
    }
    for (what, text) in hidden {
        assert!(!log.contains(&text), "{what} {text}: {log}");
    }
    assert!(listed.to_string().contains("veryprivatename"));
}

#[test]
fn a_filter_that_makes_no_sense_is_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().display().to_string();
    let wrong = [("CAMVAULT_LOG", "camvault=[[nonsense")];
    let (code, said) = camvault_with(&["serve", "--data", &data], &wrong);
    assert_eq!(code, 2, "{said}");
}
