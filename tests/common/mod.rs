// SPDX-License-Identifier: MPL-2.0
//! A vault in this process, owners, and pipelines that are stopped when they go out of scope.
#![allow(dead_code)]

pub mod serve;

use gst::glib;
use gst::prelude::*;
use gstcamvault::client::Vault;
use gstcamvault::identity::Identity;
use gstcamvault::protocol::Stats;
use gstcamvault::server::{Config, Server};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

/// GStreamer with the elements of this build; its warnings end the test.
pub fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        gst::init().unwrap();
        glib::log_set_always_fatal(
            glib::LogLevels::LEVEL_CRITICAL | glib::LogLevels::LEVEL_WARNING,
        );
        gstcamvault::plugin_register_static().unwrap();
    });
}

/// A vault on 127.0.0.1 with its data in a folder that goes with it. It can be stopped and started
/// again with the same data on the same port.
pub struct TestVault {
    pub dir: tempfile::TempDir,
    pub url: String,
    config: Config,
    server: Option<Server>,
    runtime: tokio::runtime::Runtime,
}

impl TestVault {
    pub fn start() -> Self {
        Self::start_with(|_| ())
    }

    /// … set up otherwise.
    pub fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let mut config = Config::new(dir.path().join("vault"));
        config.listen = ([127, 0, 0, 1], 0).into();
        config.reserve = 0;
        config.drain = Duration::from_millis(200);
        change(&mut config);
        let server = runtime.block_on(Server::start(config.clone())).unwrap();
        config.listen = server.address();
        Self {
            url: server.url(),
            dir,
            config,
            server: Some(server),
            runtime,
        }
    }

    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            self.block(server.shutdown());
        }
    }

    pub fn restart(&mut self) {
        let until = Instant::now() + Duration::from_secs(10);
        self.server = loop {
            match self.block(Server::start(self.config.clone())) {
                Ok(server) => break Some(server),
                Err(e) if Instant::now() > until => panic!("{e}"),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        };
    }

    pub fn block<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub fn connect(&self, identity: &Arc<Identity>) -> Vault {
        Vault::connect(&self.url, identity.clone()).unwrap()
    }

    /// A new identity, enrolled.
    pub fn enrolled(&self) -> Arc<Identity> {
        let identity = Arc::new(Identity::generate().unwrap());
        self.block(self.connect(&identity).enroll(None)).unwrap();
        identity
    }

    /// … and its file.
    pub fn owner(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        self.enrolled().save_new(&path).unwrap();
        path
    }

    /// `HOST:PORT`.
    pub fn authority(&self) -> String {
        self.config.listen.to_string()
    }

    /// URL of a recording.
    pub fn recording(&self, name: &str) -> String {
        format!("camvault://{}/{name}", self.authority())
    }

    pub fn stats(&self) -> Stats {
        let nobody = Arc::new(Identity::generate().unwrap());
        self.block(self.connect(&nobody).stats()).unwrap()
    }
}

impl Drop for TestVault {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A vault and an identity's file that is enrolled there.
pub struct Place {
    pub vault: TestVault,
    pub identity: PathBuf,
}

impl Place {
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    /// … with a server that is set up otherwise.
    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        init();
        let vault = TestVault::start_with(change);
        let identity = vault.owner("owner");
        Self { vault, identity }
    }

    /// A vault that nobody can reach.
    pub fn away() -> Self {
        let mut place = Self::new();
        place.vault.stop();
        place
    }

    /// An element with its recording and identity, for a pipeline's description.
    pub fn element(&self, element: &str, recording: &str) -> String {
        let (uri, identity) = (self.vault.recording(recording), self.identity.display());
        format!("{element} uri={uri} identity={identity}")
    }

    /// Segments of the identity's recordings.
    pub fn segments(&self) -> u64 {
        let identity = Arc::new(Identity::load(&self.identity).unwrap());
        let vault = self.vault.connect(&identity);
        let list = self.vault.block(vault.recordings(None)).unwrap();
        list.recordings.iter().map(|entry| entry.segments).sum()
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
        Self(element.downcast().unwrap_or_else(|element| {
            let pipeline = gst::Pipeline::new();
            pipeline.add(&element).unwrap();
            pipeline
        }))
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
        let mut messages = Vec::new();
        self.end(timeout, &mut messages).map(|()| messages)
    }

    /// … appends it to `messages`, also before an error.
    pub fn end(&self, timeout: Duration, messages: &mut Vec<gst::Message>) -> Result<(), String> {
        let bus = self.0.bus().unwrap();
        let end = Instant::now() + timeout;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            let Some(message) =
                bus.timed_pop(gst::ClockTime::from_nseconds(left.as_nanos() as u64))
            else {
                break;
            };
            match message.view() {
                gst::MessageView::Eos(_) => return Ok(()),
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

/// Makes a file with ffmpeg; spaces part its arguments.
pub fn ffmpeg(arguments: &str, out: &Path) {
    let status = std::process::Command::new("ffmpeg")
        .args(["-loglevel", "error", "-y"])
        .args(arguments.split_whitespace())
        .arg(out)
        .status()
        .expect("ffmpeg is installed by tests/run.sh");
    assert!(status.success(), "ffmpeg {arguments}");
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
