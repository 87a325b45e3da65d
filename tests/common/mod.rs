// SPDX-License-Identifier: MPL-2.0
//! A vault in this process, owners, and pipelines that are stopped when they go out of scope.
#![allow(dead_code)]

pub mod serve;

use gst::prelude::*;
use gstcamvault::client::Vault;
use gstcamvault::identity::Identity;
use gstcamvault::protocol::Stats;
use gstcamvault::server::{Config, Server};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

/// GStreamer with the elements of this build.
pub fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        gst::init().unwrap();
        gstcamvault::plugin_register_static().unwrap();
    });
}

/// A vault on 127.0.0.1 with its data in a folder that goes with it.
pub struct TestVault {
    pub dir: tempfile::TempDir,
    pub server: Option<Server>,
    pub runtime: tokio::runtime::Runtime,
    pub url: String,
}

impl TestVault {
    pub fn start() -> Self {
        Self::start_with(|_| ())
    }

    pub fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let mut config = Config::new(dir.path().join("vault"));
        config.listen = ([127, 0, 0, 1], 0).into();
        change(&mut config);
        let server = runtime.block_on(Server::start(config)).unwrap();
        Self {
            url: server.url(),
            dir,
            server: Some(server),
            runtime,
        }
    }

    /// A new identity's file, enrolled.
    pub fn owner(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        let identity = Identity::generate().unwrap();
        identity.save_new(&path).unwrap();
        self.runtime
            .block_on(
                Vault::connect(&self.url, Arc::new(identity))
                    .unwrap()
                    .enroll(None),
            )
            .unwrap();
        path
    }

    /// URL of a recording.
    pub fn recording(&self, name: &str) -> String {
        format!("{}/{name}", self.url.replacen("http", "camvault", 1))
    }

    pub fn stats(&self) -> Stats {
        let vault = Vault::connect(&self.url, Arc::new(Identity::generate().unwrap())).unwrap();
        self.runtime.block_on(vault.stats()).unwrap()
    }
}

impl Drop for TestVault {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.shutdown());
        }
    }
}

/// A pipeline from a description.
pub struct Pipeline(pub gst::Pipeline);

impl Drop for Pipeline {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
    }
}

impl Pipeline {
    pub fn launch(description: &str) -> Self {
        init();
        let element =
            gst::parse::launch(description).unwrap_or_else(|e| panic!("{description}: {e}"));
        Self(element.downcast().unwrap())
    }

    pub fn play(&self) -> &Self {
        self.0.set_state(gst::State::Playing).unwrap();
        self
    }

    pub fn element(&self, name: &str) -> gst::Element {
        self.0
            .by_name(name)
            .unwrap_or_else(|| panic!("no element {name}"))
    }

    /// Waits for EOS and returns what was on the bus before it; an error is the `Err`.
    pub fn wait(&self, timeout: Duration) -> Result<Vec<gst::Message>, String> {
        let bus = self.0.bus().unwrap();
        let end = Instant::now() + timeout;
        let mut messages = Vec::new();
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            let Some(message) =
                bus.timed_pop(gst::ClockTime::from_nseconds(left.as_nanos() as u64))
            else {
                break;
            };
            match message.view() {
                gst::MessageView::Eos(_) => return Ok(messages),
                gst::MessageView::Error(e) => {
                    return Err(format!("{} ({:?})", e.error(), e.debug()));
                }
                _ => messages.push(message),
            }
        }
        Err(format!("no EOS within {timeout:?}"))
    }

    /// Plays to EOS.
    pub fn run(&self, timeout: Duration) -> Result<Vec<gst::Message>, String> {
        self.play().wait(timeout)
    }

    /// Sends EOS and waits for it.
    pub fn finish(&self, timeout: Duration) -> Result<Vec<gst::Message>, String> {
        self.0.send_event(gst::event::Eos::new());
        self.wait(timeout)
    }
}

/// Everything of a buffer that playback has to give back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    pub pts: Option<u64>,
    pub dts: Option<u64>,
    pub duration: Option<u64>,
    pub flags: u32,
    pub hash: [u8; 32],
}

impl Unit {
    pub fn of(buffer: &gst::BufferRef) -> Self {
        let ns = |t: Option<gst::ClockTime>| t.map(|t| t.nseconds());
        let mut flags = buffer.flags();
        flags.remove(gst::BufferFlags::TAG_MEMORY);
        Self {
            pts: ns(buffer.pts()),
            dts: ns(buffer.dts()),
            duration: ns(buffer.duration()),
            flags: flags.bits(),
            hash: Sha256::digest(buffer.map_readable().unwrap()).into(),
        }
    }
}

/// The units that pass a pad from now on.
pub fn units_at(pad: &gst::Pad) -> Arc<Mutex<Vec<Unit>>> {
    let units = Arc::new(Mutex::new(Vec::new()));
    let seen = units.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer() {
            seen.lock().unwrap().push(Unit::of(buffer));
        }
        gst::PadProbeReturn::Ok
    });
    units
}

/// A field of an element's `stats`.
pub fn stat(element: &gst::Element, name: &str) -> u64 {
    element
        .property::<gst::Structure>("stats")
        .get(name)
        .unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Every file below a folder.
pub fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => walk(&path),
            false => vec![path],
        })
        .collect()
}

/// Blobs that a server keeps in its data directory.
pub fn blobs(data: &Path) -> Vec<PathBuf> {
    let mut found = walk(data);
    found.retain(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.len() >= 60 && name.bytes().all(|b| b.is_ascii_hexdigit())
    });
    assert!(!found.is_empty(), "{:?}", walk(data));
    found
}

/// Makes a file with ffmpeg.
pub fn ffmpeg(arguments: &[&str], out: &Path) {
    let status = std::process::Command::new("ffmpeg")
        .args(["-loglevel", "error", "-y"])
        .args(arguments)
        .arg(out)
        .status()
        .expect("ffmpeg is installed by tests/run.sh");
    assert!(status.success(), "ffmpeg {arguments:?}");
}

/// The program of this build; its output as JSON.
pub fn camvault(arguments: &[&str]) -> (i32, serde_json::Value) {
    camvault_with(arguments, &[])
}

/// … with variables in its environment.
pub fn camvault_with(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, serde_json::Value) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_camvault"))
        .arg("--json")
        .args(arguments)
        .env_remove("CAMVAULT_CA_FILE")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = serde_json::from_str(text.trim()).unwrap_or(serde_json::Value::Null);
    if !output.status.success() {
        eprintln!(
            "camvault {arguments:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    (output.status.code().unwrap_or(-1), value)
}

/// Folder of real footage beside the checkout, if it is there; says so if not.
pub fn footage() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/footage");
    if !folder.is_dir() {
        println!("no footage folder beside the project: tests on real footage are not run");
        return None;
    }
    Some(folder)
}
