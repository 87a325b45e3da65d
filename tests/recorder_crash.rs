// SPDX-License-Identifier: MPL-2.0
//! Recorders in their own processes, killed with what they had not sent, and servers killed under
//! recorders that go on.

mod common;

use common::serve::Program;
use common::{Pipeline, camvault, units_at, walk};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
/// Length of a frame, ns.
const FRAME: u64 = 40_000_000;

struct Place {
    server: Program,
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Program::start(&dir.path().join("data"), &[]);
        let place = Self { server, dir };
        let identity = place.at("me");
        assert_eq!(camvault(&["keygen", "--out", &identity]).0, 0);
        let vault = ["enroll", "--identity", &identity, "--vault"];
        let enrolled = camvault(&[&vault[..], &[&place.server.url]].concat());
        assert_eq!(enrolled.0, 0);
        let plugins = place.dir.path().join("plugins");
        std::fs::create_dir(&plugins).unwrap();
        std::os::unix::fs::symlink(plugin(), plugins.join("libgstcamvault.so")).unwrap();
        place
    }

    fn at(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn ends(&self) -> [String; 2] {
        [
            format!("uri=camvault://{}/door", self.server.authority()),
            format!("identity={}", self.at("me")),
        ]
    }

    /// A recorder of a camera whose every frame is another.
    fn recorder(&self) -> Recorder {
        let camera = "videotestsrc is-live=true pattern=snow \
            ! video/x-raw,width=160,height=120,framerate=25/1 \
            ! x264enc tune=zerolatency speed-preset=ultrafast threads=1 key-int-max=10 \
            ! h264parse ! rcededuppay ! dedupsink segment-duration=2000000000";
        let child = Command::new("gst-launch-1.0")
            .args(["-q", "-e"])
            .args(camera.split_whitespace())
            .args(self.ends())
            .arg(format!("spool-dir={}", self.at("spool")))
            .env("GST_PLUGIN_PATH", self.at("plugins"))
            .env("GST_REGISTRY", self.at("registry"))
            .env_remove("G_DEBUG")
            .stdout(Stdio::null())
            .spawn()
            .expect("gst-launch-1.0 is installed by tests/run.sh");
        Recorder(child)
    }

    fn spooled(&self) -> u64 {
        let files = walk(Path::new(&self.at("spool")));
        let files = files
            .iter()
            .filter(|f| f.extension().is_some_and(|e| e == "spool"));
        // A file may go between the two looks.
        files
            .filter_map(|f| f.metadata().ok())
            .map(|m| m.len())
            .sum()
    }

    fn segments(&self) -> u64 {
        let identity = self.at("me");
        let (code, list) = camvault(&["ls", "--identity", &identity, &self.server.url]);
        assert_eq!(code, 0);
        list[0]["segments"].as_u64().unwrap_or(0)
    }

    fn wait(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let until = Instant::now() + 40 * SECOND;
        while !done(self) {
            assert!(Instant::now() < until, "not within 40 s: {what}");
            sleep(Duration::from_millis(100));
        }
    }

    /// Frame numbers of what is recorded, in order, by recorder; and that it all verifies.
    fn sessions(&self) -> Vec<Vec<u64>> {
        let [uri, identity] = self.ends();
        let url = uri.strip_prefix("uri=").unwrap();
        let (code, report) = camvault(&["verify", "--identity", &self.at("me"), url]);
        assert_eq!(
            (code, &report["errors"]),
            (0, &serde_json::json!([])),
            "{report}"
        );
        let player = Pipeline::launch(&format!("dedupsrc {uri} {identity} ! fakesink name=sink"));
        let sink = gst::prelude::ElementExt::static_pad(&player.element("sink"), "sink").unwrap();
        let units = units_at(&sink);
        player.run(60 * SECOND).unwrap();
        let times: Vec<u64> = units
            .lock()
            .unwrap()
            .iter()
            .map(|u| u.pts.unwrap())
            .collect();
        assert_eq!(report["units"], times.len());
        let mut sessions: Vec<Vec<u64>> = Vec::new();
        for time in times {
            match sessions.last_mut() {
                // A recorder begins anew a little after the start of its own time.
                Some(last) if last.last().is_some_and(|l| *l < time) => last.push(time),
                _ => sessions.push(vec![time]),
            }
        }
        for session in &mut sessions {
            let first = session[0];
            let frame = |time: &u64| (time - first + FRAME / 2) / FRAME;
            *session = session.iter().map(frame).collect();
        }
        sessions
    }
}

/// This build's plugin, from where cargo puts it for this test.
fn plugin() -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_camvault")).parent().unwrap();
    let built = target.join("deps/libgstcamvault.so");
    assert!(built.exists(), "{}", built.display());
    built
}

struct Recorder(Child);

impl Recorder {
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// SIGINT, which `gst-launch-1.0 -e` turns into EOS.
    fn finish(mut self) {
        let pid = self.0.id().to_string();
        Command::new("kill").args(["-INT", &pid]).status().unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn without_gap(frames: &[u64]) {
    let wanted: Vec<u64> = (0..frames.len() as u64).collect();
    assert_eq!(frames, wanted);
}

#[test]
fn a_recorder_killed_while_offline_leaves_its_spool_to_the_next() {
    let mut place = Place::new();
    let mut recorder = place.recorder();
    place.wait("two segments", |p| p.segments() >= 2);
    let committed = place.segments();
    place.server.kill();
    let away = Instant::now();
    place.wait("a spool", |p| p.spooled() > 0);
    let begun = away.elapsed();
    sleep(5 * SECOND);
    recorder.kill();
    // What may be lost is what was not written yet: it is written about every second.
    let kept = away.elapsed().saturating_sub(3 * SECOND);
    println!("spooled after {begun:?}, killed after {:?}", away.elapsed());
    let left = place.spooled();
    assert!(left > 0);

    place.server.again();
    assert_eq!(place.segments(), committed, "what was durable still is");
    let recorder = place.recorder();
    place.wait("an empty spool", |p| p.spooled() == 0);
    sleep(3 * SECOND);
    recorder.finish();
    assert_eq!(place.spooled(), 0);

    let sessions = place.sessions();
    let counts: Vec<usize> = sessions.iter().map(Vec::len).collect();
    println!("{counts:?} frames");
    assert_eq!(sessions.len(), 2, "{counts:?}");
    sessions.iter().for_each(|s| without_gap(s));
    let least = (committed - 1) * 50 + kept.as_secs() * 25;
    assert!(counts[0] as u64 >= least, "{counts:?}, {least} wanted");
    assert!(counts[1] >= 70, "{counts:?}");
}

#[test]
fn recorders_killed_while_they_drain_a_spool_repeat_nothing() {
    let mut place = Place::new();
    let mut recorder = place.recorder();
    place.wait("a segment", |p| p.segments() >= 1);
    place.server.kill();
    place.wait("a spool", |p| p.spooled() > 0);
    sleep(8 * SECOND);
    recorder.kill();
    place.server.again();
    for instant in [250, 350, 500, 700] {
        let mut recorder = place.recorder();
        sleep(Duration::from_millis(instant));
        recorder.kill();
        println!("after {instant} ms {} bytes in the spool", place.spooled());
    }
    let recorder = place.recorder();
    place.wait("an empty spool", |p| p.spooled() == 0);
    sleep(3 * SECOND);
    recorder.finish();
    let sessions = place.sessions();
    let counts: Vec<usize> = sessions.iter().map(Vec::len).collect();
    println!("{counts:?} frames");
    sessions.iter().for_each(|s| without_gap(s));
    assert!((2..=6).contains(&counts.len()), "{counts:?}");
    assert!(
        counts[0] >= 25 * 14 && counts[counts.len() - 1] >= 70,
        "{counts:?}"
    );
}

#[test]
fn a_recorder_goes_on_when_its_server_is_killed() {
    let mut place = Place::new();
    let recorder = place.recorder();
    let began = Instant::now();
    // Away for less, and for longer than it takes until the spool is used.
    for away in [1, 8] {
        let before = place.segments();
        place.wait("a segment", |p| p.segments() > before);
        // In the middle of a segment, and of an upload perhaps.
        sleep(Duration::from_millis(700));
        place.server.kill();
        sleep(away * SECOND);
        place.server.again();
    }
    let before = place.segments();
    place.wait("a segment", |p| p.segments() > before + 1);
    let ran = began.elapsed();
    recorder.finish();
    assert_eq!(place.spooled(), 0);
    let sessions = place.sessions();
    let counts: Vec<usize> = sessions.iter().map(Vec::len).collect();
    println!("{counts:?} frames in {ran:?}");
    assert_eq!(sessions.len(), 1, "{counts:?}");
    without_gap(&sessions[0]);
    // The camera takes a moment to start.
    assert!(counts[0] as u64 >= (ran.as_secs() - 2) * 25, "{counts:?}");
}
