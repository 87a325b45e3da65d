// SPDX-License-Identifier: MPL-2.0
//! Backups of a server with its own stores, and what comes back from them.

mod common;

use common::camvault;
use common::serve::Program;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_camvault");

struct Place {
    dir: tempfile::TempDir,
    address: String,
    identity: String,
}

impl Place {
    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn url(&self, name: &str) -> String {
        format!("camvault://{}/{name}", self.address)
    }

    fn runs(&self, command: &str, arguments: &[&str]) -> (i32, serde_json::Value) {
        camvault(&[&[command, "--identity", &self.identity], arguments].concat())
    }

    /// A file of random bytes, its content the same for the same name.
    fn file(&self, name: &str) -> String {
        let path = self.dir.path().join(name);
        let mut bytes = vec![0; 300_000];
        let mut hasher = blake3::Hasher::new();
        hasher.update(name.as_bytes());
        hasher.finalize_xof().fill(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }

    fn store(&self, name: &str) {
        let stored = self.runs("put", &[&self.file(name), &self.url(name)]);
        assert_eq!(stored.0, 0, "{}", stored.1);
    }

    fn verifies(&self, name: &str) -> i32 {
        self.runs("verify", &[&self.url(name)]).0
    }

    fn script(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        let head = "#!/usr/bin/env bash\nset -euo pipefail\n";
        std::fs::write(&path, format!("{head}{text}\n")).unwrap();
        let all = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, all).unwrap();
        path.display().to_string()
    }
}

/// A server with its data and an enrolled owner.
fn place() -> (Place, Program) {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(&dir.path().join("data"), &["--reserve", "0"]);
    let identity = dir.path().join("owner").display().to_string();
    assert_eq!(camvault(&["keygen", "--out", &identity]).0, 0);
    let address = program.authority().to_owned();
    let place = Place {
        dir,
        address,
        identity,
    };
    let enrolled = place.runs("enroll", &["--vault", &program.url]);
    assert_eq!(enrolled.0, 0);
    (place, program)
}

fn scrub(data: &Path) -> serde_json::Value {
    let (code, report) = camvault(&["scrub", &data.display().to_string()]);
    assert_eq!(code, 0, "{report}");
    report
}

#[test]
fn a_copy_of_a_stopped_servers_directory_is_a_server() {
    let (place, program) = place();
    place.store("one");
    program.terminate();
    assert_eq!(program.exit_code(), Some(0));
    let copied = Command::new("cp")
        .arg("-a")
        .args([&place.data(), &place.dir.path().join("copy")])
        .status();
    assert!(copied.unwrap().success());
    std::fs::remove_dir_all(place.data()).unwrap();
    let copy = place.dir.path().join("copy");
    let report = scrub(&copy);
    assert_eq!(report["missing"].as_array().unwrap().len(), 0, "{report}");
    let _again = Program::listen(&place.address, &copy, &[]);
    assert_eq!(place.verifies("one"), 0);
}

/// Backs up while the server runs, as an operator does. Between the copies an owner stores a
/// recording and, when the server is there again, forgets it.
fn backup(place: &Place, program: Program, grace: u32, wait: u32) -> Output {
    let (data, identity) = (place.data(), &place.identity);
    let (late, url) = (place.file("late"), place.url("late"));
    let pid = program.child.id();
    // It ends at the script's signal; the handle's would come later.
    let ended = std::thread::spawn(move || program.exit_code());
    let stop = place.script(
        "stop",
        &format!(
            "{PROGRAM} put --identity {identity} {late} {url} >/dev/null\n\
             kill -TERM {pid}\nwhile kill -0 {pid} 2>/dev/null; do sleep 0.05; done"
        ),
    );
    let start = place.script(
        "start",
        &format!(
            "{PROGRAM} serve --listen {} --data {} --reserve 0 --grace {grace} --collect-every 1 \
             >{}/out 2>&1 & echo $! >{}/pid\n\
             until {PROGRAM} ls --identity {identity} {url} >/dev/null 2>&1; do sleep 0.05; done\n\
             {PROGRAM} forget --identity {identity} {url} >/dev/null\nsleep {wait}",
            place.address,
            data.display(),
            place.dir.path().display(),
            place.dir.path().display(),
        ),
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/backup.sh");
    let done = Command::new(script)
        .args(["--stop", &stop, "--start", &start, "--data"])
        .arg(&data)
        .arg("--to")
        .arg(place.dir.path().join("backup"))
        .output()
        .unwrap();
    assert_eq!(ended.join().unwrap(), Some(0));
    let pid = std::fs::read_to_string(place.dir.path().join("pid")).unwrap();
    let killed = Command::new("kill").args(["-KILL", pid.trim()]).status();
    assert!(killed.unwrap().success());
    done
}

fn restore(place: &Place) -> PathBuf {
    let (from, to) = (
        place.dir.path().join("backup"),
        place.dir.path().join("restored"),
    );
    let copy = "cp -a \"$1/state\" \"$2\" && cp -a \"$1/blobs\" \"$2/blobs\"";
    let copied = Command::new("bash")
        .args(["-c", copy, "restore"])
        .args([&from, &to])
        .status();
    assert!(copied.unwrap().success());
    to
}

#[test]
fn a_backup_of_a_running_server_has_all_that_its_metadata_names() {
    let (place, program) = place();
    place.store("one");
    let done = backup(&place, program, 60, 3);
    assert!(done.status.success(), "{done:?}");
    let restored = restore(&place);
    // The owner's later wish is not in it: the recording is there again, whole.
    let report = scrub(&restored);
    assert_eq!(report["missing"].as_array().unwrap().len(), 0, "{report}");
    assert_eq!(report["orphans_removed"], 0, "{report}");
    let _again = Program::listen(&place.address, &restored, &[]);
    assert_eq!(place.verifies("one"), 0);
    assert_eq!(place.verifies("late"), 0);
}

/// With less grace than the copy takes the backup would lack blobs: it says so, and is none.
#[test]
fn a_backup_that_takes_longer_than_the_grace_is_refused() {
    let (place, program) = place();
    place.store("one");
    let done = backup(&place, program, 0, 4);
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    assert!(said.contains("--grace is too short"), "{said}");
    assert!(!place.dir.path().join("backup/state").exists());
}
