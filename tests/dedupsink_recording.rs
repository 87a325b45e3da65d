// SPDX-License-Identifier: MPL-2.0
//! `dedupsink` against a vault in the same process.

use gst::glib;
use gst::prelude::*;
use gstcamvault::client::{Vault, runtime};
use gstcamvault::identity::Identity;
use gstcamvault::server::{Config, Server};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

const VIDEO: &str = "videotestsrc num-buffers=90 ! video/x-raw,width=160,height=120,framerate=30/1 \
    ! x264enc threads=1 key-int-max=15 speed-preset=ultrafast tune=zerolatency ! h264parse";
const LIVE: &str = "videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=30/1 \
    ! x264enc threads=1 key-int-max=5 speed-preset=ultrafast tune=zerolatency ! h264parse";

fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        gst::init().unwrap();
        glib::log_set_always_fatal(
            glib::LogLevels::LEVEL_CRITICAL | glib::LogLevels::LEVEL_WARNING,
        );
        gstcamvault::plugin_register_static().unwrap();
    });
}

/// A vault and an identity that is enrolled there.
struct Place {
    dir: tempfile::TempDir,
    server: Option<Server>,
    address: String,
    identity: PathBuf,
}

impl Place {
    fn new() -> Self {
        init();
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            reserve: 0,
            ..Config::new(dir.path().join("vault"))
        };
        let server = runtime().unwrap().block_on(Server::start(config)).unwrap();
        let mut place = Self {
            address: server.address().to_string(),
            server: Some(server),
            identity: PathBuf::new(),
            dir,
        };
        place.identity = place.owner("owner");
        place
    }

    /// A vault that nobody can reach.
    fn away() -> Self {
        let mut place = Self::new();
        let server = place.server.take().unwrap();
        runtime().unwrap().block_on(server.shutdown());
        place
    }

    fn owner(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        let identity = Identity::generate().unwrap();
        identity.save_new(&path).unwrap();
        let vault = self.vault(identity);
        runtime().unwrap().block_on(vault.enroll(None)).unwrap();
        path
    }

    fn vault(&self, identity: Identity) -> Vault {
        Vault::connect(&format!("http://{}", self.address), Arc::new(identity)).unwrap()
    }

    fn segments(&self) -> u64 {
        let vault = self.vault(Identity::load(&self.identity).unwrap());
        let list = runtime().unwrap().block_on(vault.recordings()).unwrap();
        list.recordings.iter().map(|entry| entry.segments).sum()
    }

    fn sink(&self, name: &str) -> String {
        format!(
            "dedupsink name=sink uri=camvault://{}/{name} identity={}",
            self.address,
            self.identity.display()
        )
    }
}

/// A pipeline that stops when it is dropped.
struct Run {
    pipeline: gst::Pipeline,
    messages: Vec<gst::Message>,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.pipeline.set_state(gst::State::Null).unwrap();
    }
}

impl Run {
    fn new(text: &str) -> Self {
        let pipeline = gst::parse::launch(text).unwrap();
        Self {
            pipeline: pipeline.downcast().unwrap(),
            messages: Vec::new(),
        }
    }

    fn play(text: &str) -> Self {
        let run = Self::new(text);
        run.pipeline.set_state(gst::State::Playing).unwrap();
        run
    }

    /// Waits for EOS or ERROR; the error's text.
    fn end(&mut self, seconds: u64) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let bus = self.pipeline.bus().unwrap();
        while Instant::now() < deadline {
            let Some(message) = bus.timed_pop(gst::ClockTime::from_mseconds(50)) else {
                continue;
            };
            self.messages.push(message.clone());
            match message.view() {
                gst::MessageView::Eos(_) => return Ok(()),
                gst::MessageView::Error(e) => return Err(e.error().to_string()),
                _ => (),
            }
        }
        panic!("neither EOS nor ERROR in {seconds} s");
    }

    /// Collects messages for a while.
    fn wait(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        let bus = self.pipeline.bus().unwrap();
        while Instant::now() < deadline {
            self.messages
                .extend(bus.timed_pop(gst::ClockTime::from_mseconds(20)));
        }
    }

    fn elements(&self, name: &str) -> Vec<gst::Structure> {
        let structures = self.messages.iter().filter_map(|m| m.structure());
        structures
            .filter(|structure| structure.name() == name)
            .map(ToOwned::to_owned)
            .collect()
    }

    fn warnings(&self) -> usize {
        let all = self.messages.iter();
        all.filter(|m| m.type_() == gst::MessageType::Warning)
            .count()
    }

    fn stat(&self, name: &str) -> u64 {
        let sink = self.pipeline.by_name("sink").unwrap();
        let stats = sink.property::<gst::Structure>("stats");
        stats.get(name).unwrap()
    }
}

#[test]
fn every_segment_is_announced_before_eos_and_a_second_recorder_finds_all_there() {
    let mut place = Place::new();
    let text = format!(
        "{VIDEO} ! rcededuppay ! {} segment-duration=1000000000",
        place.sink("a")
    );
    let mut first = Run::play(&text);
    first.end(30).unwrap();
    let segments = first.elements("camvault-segment");
    assert!(segments.len() >= 3, "{segments:?}");
    let sum = |name| {
        segments
            .iter()
            .map(|s| s.get::<u64>(name).unwrap())
            .sum::<u64>()
    };
    assert_eq!(sum("chunks"), first.stat("chunks"));
    assert_eq!(first.stat("segments"), segments.len() as u64);
    assert_eq!(first.stat("hits"), 0);
    assert!(sum("new-bytes") > 0 && first.stat("bytes-sent") > 0);
    for (seq, segment) in segments.iter().enumerate() {
        assert_eq!(segment.get::<u64>("seq"), Ok(seq as u64));
        let uri = segment.get::<String>("recording").unwrap();
        assert_eq!(uri, format!("camvault://{}/a", place.address));
        assert!(segment.get::<gst::ClockTime>("duration").is_ok());
    }
    assert_eq!(place.segments(), segments.len() as u64);

    place.identity = place.owner("second");
    let mut second = Run::play(&format!("{VIDEO} ! rcededuppay ! {}", place.sink("b")));
    second.end(30).unwrap();
    assert_eq!(second.stat("hits"), first.stat("chunks"));
    assert_eq!(second.stat("misses"), 0);
}

#[test]
fn tracks_share_a_recording() {
    let place = Place::new();
    let mut run = Run::play(&format!(
        "{} {VIDEO} ! rcededuppay ! sink.sink_0 \
        audiotestsrc num-buffers=130 ! avenc_aac ! aacparse ! rcededuppay ! sink.sink_1",
        place.sink("both")
    ));
    run.end(30).unwrap();
    assert!(run.stat("segments") >= 1);
    assert_eq!(run.stat("dropped"), 0);
}

#[test]
fn a_file_is_recorded_whole_through_little_memory() {
    let place = Place::new();
    let path = place.dir.path().join("file");
    let mut data = vec![0; 8 << 20];
    getrandom::fill(&mut data).unwrap();
    std::fs::write(&path, &data).unwrap();
    let mut run = Run::play(&format!(
        "filesrc location={} ! rcededuppay target-chunk-bytes=65536 ! {} max-size-bytes=1000000",
        path.display(),
        place.sink("file")
    ));
    run.end(60).unwrap();
    assert_eq!(run.stat("bytes-in"), data.len() as u64);
    assert_eq!(run.stat("dropped"), 0);
}

#[test]
fn sealed_chunks_arrive_over_a_socket_protocol() {
    let place = Place::new();
    let mut run = Run::play(&format!(
        "{VIDEO} ! rcededuppay seal=true identity={} ! gdppay ! gdpdepay ! {}",
        place.identity.display(),
        place.sink("sealed")
    ));
    run.end(30).unwrap();
    let mut clear = Run::play(&format!("{VIDEO} ! rcededuppay ! {}", place.sink("clear")));
    clear.end(30).unwrap();
    assert_eq!(clear.stat("hits"), run.stat("chunks"));
}

#[test]
fn clear_chunks_do_not_leave_the_process() {
    let place = Place::new();
    let mut run = Run::new(&format!(
        "{VIDEO} ! rcededuppay name=pay ! {}",
        place.sink("clear")
    ));
    let pay = run.pipeline.by_name("pay").unwrap();
    let src = pay.static_pad("src").unwrap();
    src.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        // What a transport leaves of a buffer: its bytes.
        if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data {
            let bytes = buffer.map_readable().unwrap().to_vec();
            *buffer = gst::Buffer::from_slice(bytes);
        }
        gst::PadProbeReturn::Ok
    });
    run.pipeline.set_state(gst::State::Playing).unwrap();
    assert!(run.end(30).unwrap_err().contains("seal=true"));
}

#[test]
fn another_identity_cannot_open_sealed_chunks() {
    let place = Place::new();
    let mut run = Run::play(&format!(
        "{VIDEO} ! rcededuppay seal=true identity={} ! {}",
        place.owner("other").display(),
        place.sink("sealed")
    ));
    assert!(run.end(30).unwrap_err().contains("another identity"));
}

/// The error that a sink gives on its way to PLAYING.
fn refusal(sink: &str) -> String {
    let mut run = Run::new(&format!("{VIDEO} ! rcededuppay ! {sink}"));
    assert!(run.pipeline.set_state(gst::State::Playing).is_err());
    run.end(1).unwrap_err()
}

#[test]
fn what_is_wrong_is_said_before_data() {
    let place = Place::new();
    let id = place.identity.display();
    for (sink, words) in [
        ("dedupsink".to_owned(), "uri"),
        ("dedupsink uri=http://h/x".into(), "not a recording URL"),
        (
            format!("dedupsink uri=camvault://h/x?from=1 identity={id}"),
            "for playing",
        ),
        ("dedupsink uri=camvault://h/x".into(), "camvault keygen"),
        (
            "dedupsink uri=camvault://h/x identity=/none".into(),
            "/none",
        ),
        (
            format!("{} spool-dir=/proc/none", place.sink("x")),
            "spool-dir /proc/none",
        ),
    ] {
        let text = refusal(&sink);
        assert!(text.contains(words), "{sink}: {text}");
    }
}

#[test]
fn an_identity_that_is_not_enrolled_is_told_what_to_do() {
    let mut place = Place::new();
    place.identity = place.dir.path().join("stranger");
    Identity::generate()
        .unwrap()
        .save_new(&place.identity)
        .unwrap();
    let text = refusal(&place.sink("x"));
    assert!(text.contains("camvault enroll"), "{text}");
}

#[test]
fn stopping_without_eos_commits_what_is_there() {
    let place = Place::new();
    let mut run = Run::play(&format!("{LIVE} ! rcededuppay ! {}", place.sink("live")));
    run.wait(Duration::from_millis(1500));
    let begin = Instant::now();
    run.pipeline.set_state(gst::State::Null).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(3));
    assert_eq!(place.segments(), 1);
    assert!(run.stat("chunks") > 0);
}

#[test]
fn without_a_vault_a_live_stream_loses_groups_and_says_so() {
    let place = Place::away();
    let mut run = Run::play(&format!(
        "{LIVE} ! rcededuppay ! {} max-size-bytes=8000",
        place.sink("live")
    ));
    run.wait(Duration::from_secs(4));
    assert!(run.stat("dropped") > 0);
    assert!(run.warnings() >= 1);
    let network = run.elements("camvault-network");
    assert!(network.iter().any(|s| s.get::<bool>("online") == Ok(false)));
    let begin = Instant::now();
    run.pipeline.set_state(gst::State::Null).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(4));
}

#[test]
fn without_a_vault_another_stream_waits_and_can_be_stopped() {
    let place = Place::away();
    let mut run = Run::play(&format!(
        "{VIDEO} ! rcededuppay ! {} max-size-bytes=8000",
        place.sink("file")
    ));
    run.wait(Duration::from_secs(1));
    assert_eq!(run.stat("dropped"), 0);
    let sink = run.pipeline.by_name("sink").unwrap();
    let pad = sink.static_pad("sink_0").unwrap();
    assert!(pad.send_event(gst::event::FlushStart::new()));
    let begin = Instant::now();
    run.pipeline.set_state(gst::State::Null).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(4));
}

#[test]
fn without_a_vault_the_spool_is_durable_enough_for_eos() {
    let place = Place::away();
    let spool = place.dir.path().join("spool");
    let mut run = Run::play(&format!(
        "{VIDEO} ! rcededuppay ! {} spool-dir={}",
        place.sink("file"),
        spool.display()
    ));
    run.end(20).unwrap();
    assert!(run.stat("spool-bytes") > 0);
}

#[test]
fn without_vault_and_spool_eos_becomes_an_error() {
    let place = Place::away();
    for (timeout, least) in [(0, 0), (3_000_000_000u64, 3)] {
        let mut run = Run::play(&format!(
            "{VIDEO} ! rcededuppay ! {} eos-timeout={timeout}",
            place.sink("file")
        ));
        let begin = Instant::now();
        let text = run.end(20).unwrap_err();
        assert!(text.contains("not stored"), "{text}");
        assert!(begin.elapsed() >= Duration::from_secs(least));
    }
}

#[test]
fn starting_and_stopping_again_and_again_leaves_nothing() {
    let place = Place::new();
    let run = Run::new(&format!("{LIVE} ! rcededuppay ! {}", place.sink("again")));
    let sink = run.pipeline.by_name("sink").unwrap();
    for _ in 0..20 {
        run.pipeline.set_state(gst::State::Playing).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        run.pipeline.set_state(gst::State::Ready).unwrap();
    }
    let weak = sink.downgrade();
    drop(sink);
    drop(run);
    assert!(weak.upgrade().is_none());
}

#[test]
fn queries_and_eos_sent_to_the_pipeline() {
    let place = Place::new();
    let mut run = Run::play(&format!("{LIVE} ! rcededuppay ! {}", place.sink("live")));
    run.wait(Duration::from_millis(800));
    let sink = run.pipeline.by_name("sink").unwrap();
    assert!(sink.query_position::<gst::ClockTime>().is_some());
    let mut latency = gst::query::Latency::new();
    assert!(sink.query(&mut latency) && latency.result().0);
    run.pipeline.send_event(gst::event::Eos::new());
    run.end(10).unwrap();
}

#[test]
fn a_sealed_chunk_that_was_changed_costs_its_group_of_pictures() {
    let place = Place::new();
    let mut run = Run::new(&format!(
        "{VIDEO} ! rcededuppay name=pay unit=au seal=true identity={} ! {}",
        place.identity.display(),
        place.sink("changed")
    ));
    let pad = run
        .pipeline
        .by_name("pay")
        .unwrap()
        .static_pad("src")
        .unwrap();
    let seen = AtomicU32::new(0);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if seen.fetch_add(1, Ordering::Relaxed) == 20 {
            let buffer = info.buffer_mut().unwrap().make_mut();
            let mut map = buffer.map_writable().unwrap();
            *map.last_mut().unwrap() ^= 1;
        }
        gst::PadProbeReturn::Ok
    });
    run.pipeline.set_state(gst::State::Playing).unwrap();
    run.end(30).unwrap();
    assert_eq!(run.warnings(), 2, "one for the chunk, one for the drop");
    assert_eq!(run.stat("chunks"), 80);
    assert_eq!(run.stat("dropped"), 9, "up to unit 30, the next keyframe");
}

#[test]
fn two_vaults_may_stand_behind_a_tee() {
    let (one, other) = (Place::new(), Place::new());
    let second = other.sink("b").replace("name=sink", "name=other");
    let mut run = Run::play(&format!(
        "{VIDEO} ! rcededuppay ! tee name=t ! queue ! {} t. ! queue ! {second}",
        one.sink("a")
    ));
    run.end(30).unwrap();
    assert_eq!((one.segments(), other.segments()), (1, 1));
    assert_eq!(run.stat("dropped"), 0);
}
