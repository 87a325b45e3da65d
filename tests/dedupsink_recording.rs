// SPDX-License-Identifier: MPL-2.0
//! `dedupsink` against a vault in the same process.

mod common;
#[path = "common/small.rs"]
mod small;

use common::{Pipeline, Place, units_at};
use gst::prelude::*;
use gstcamvault::identity::Identity;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const VIDEO: &str = "videotestsrc num-buffers=90 ! video/x-raw,width=160,height=120,framerate=30/1 \
    ! x264enc threads=1 key-int-max=15 speed-preset=ultrafast tune=zerolatency ! h264parse";
const LIVE: &str = "videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=30/1 \
    ! x264enc threads=1 key-int-max=5 speed-preset=ultrafast tune=zerolatency ! h264parse";

fn sink(place: &Place, name: &str) -> String {
    place.element("dedupsink name=sink", name)
}

/// A pipeline and what it told.
struct Run {
    pipeline: Pipeline,
    messages: Vec<gst::Message>,
}

impl Run {
    fn new(text: &str) -> Self {
        Self {
            pipeline: Pipeline::launch(text),
            messages: Vec::new(),
        }
    }

    fn play(text: &str) -> Self {
        let run = Self::new(text);
        run.pipeline.play();
        run
    }

    /// Waits for EOS or ERROR; the error's text.
    fn end(&mut self, seconds: u64) -> Result<(), String> {
        let timeout = Duration::from_secs(seconds);
        self.pipeline.end(timeout, &mut self.messages)
    }

    /// Collects messages for a while.
    fn wait(&mut self, time: Duration) {
        assert!(
            self.pipeline
                .end(time, &mut self.messages)
                .unwrap_err()
                .starts_with("no EOS")
        );
    }

    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !done(self) {
            assert!(Instant::now() < deadline, "{what}");
            self.wait(Duration::from_millis(100));
        }
    }

    fn elements(&self, name: &str) -> Vec<gst::Structure> {
        let structures = self.messages.iter().filter_map(|m| m.structure());
        structures
            .filter(|structure| structure.name() == name)
            .map(ToOwned::to_owned)
            .collect()
    }

    /// The texts of warnings.
    fn warnings(&self) -> Vec<String> {
        let texts = self.messages.iter().filter_map(|m| match m.view() {
            gst::MessageView::Warning(w) => Some(w.error().to_string()),
            _ => None,
        });
        texts.collect()
    }

    fn stat(&self, name: &str) -> u64 {
        common::stat(&self.pipeline.element("sink"), name)
    }
}

#[test]
fn every_segment_is_announced_before_eos_and_a_second_recorder_finds_all_there() {
    let mut place = Place::new();
    let text = format!(
        "{VIDEO} ! rcededuppay ! {} segment-duration=1000000000",
        sink(&place, "a")
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
        assert_eq!(uri, place.vault.recording("a"));
        assert!(segment.get::<gst::ClockTime>("duration").is_ok());
    }
    assert_eq!(place.segments(), segments.len() as u64);

    place.identity = place.vault.owner("second");
    let mut second = Run::play(&format!("{VIDEO} ! rcededuppay ! {}", sink(&place, "b")));
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
        sink(&place, "both")
    ));
    run.end(30).unwrap();
    assert!(run.stat("segments") >= 1);
    assert_eq!(run.stat("dropped"), 0);
}

#[test]
fn a_file_is_recorded_whole_through_little_memory() {
    let place = Place::new();
    let path = place.vault.dir.path().join("file");
    let mut data = vec![0; 8 << 20];
    getrandom::fill(&mut data).unwrap();
    std::fs::write(&path, &data).unwrap();
    let mut run = Run::play(&format!(
        "filesrc location={} ! rcededuppay target-chunk-bytes=65536 ! {} max-size-bytes=1000000",
        path.display(),
        sink(&place, "file")
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
        sink(&place, "sealed")
    ));
    run.end(30).unwrap();
    let mut clear = Run::play(&format!(
        "{VIDEO} ! rcededuppay ! {}",
        sink(&place, "clear")
    ));
    clear.end(30).unwrap();
    assert_eq!(clear.stat("hits"), run.stat("chunks"));
}

#[test]
fn clear_chunks_do_not_leave_the_process() {
    let place = Place::new();
    let mut run = Run::new(&format!(
        "{VIDEO} ! rcededuppay name=pay ! {}",
        sink(&place, "clear")
    ));
    let pay = run.pipeline.element("pay");
    let src = pay.static_pad("src").unwrap();
    src.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        // What a transport leaves of a buffer: its bytes.
        if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data {
            let bytes = buffer.map_readable().unwrap().to_vec();
            *buffer = gst::Buffer::from_slice(bytes);
        }
        gst::PadProbeReturn::Ok
    });
    run.pipeline.play();
    assert!(run.end(30).unwrap_err().contains("seal=true"));
}

#[test]
fn another_identity_cannot_open_sealed_chunks() {
    let place = Place::new();
    let mut run = Run::play(&format!(
        "{VIDEO} ! rcededuppay seal=true identity={} ! {}",
        place.vault.owner("other").display(),
        sink(&place, "sealed")
    ));
    assert!(run.end(30).unwrap_err().contains("another identity"));
}

/// The error that a sink gives on its way to PLAYING.
fn refusal(sink: &str) -> String {
    let mut run = Run::new(&format!("{VIDEO} ! rcededuppay ! {sink}"));
    assert!(run.pipeline.0.set_state(gst::State::Playing).is_err());
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
            format!("{} spool-dir=/proc/none", sink(&place, "x")),
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
    place.identity = place.vault.dir.path().join("stranger");
    Identity::generate()
        .unwrap()
        .save_new(&place.identity)
        .unwrap();
    let text = refusal(&sink(&place, "x"));
    assert!(text.contains("camvault enroll"), "{text}");
}

#[test]
fn stopping_without_eos_commits_what_is_there() {
    let place = Place::new();
    let mut run = Run::play(&format!("{LIVE} ! rcededuppay ! {}", sink(&place, "live")));
    run.wait(Duration::from_millis(1500));
    let begin = Instant::now();
    run.pipeline.0.set_state(gst::State::Null).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(3));
    assert_eq!(place.segments(), 1);
    assert!(run.stat("chunks") > 0);
}

#[test]
fn without_a_vault_a_live_stream_loses_groups_and_says_so() {
    let place = Place::away();
    let mut run = Run::play(&format!(
        "{LIVE} ! rcededuppay ! {} max-size-bytes=8000",
        sink(&place, "live")
    ));
    run.wait(Duration::from_secs(4));
    assert!(run.stat("dropped") > 0);
    assert!(!run.warnings().is_empty());
    let network = run.elements("camvault-network");
    assert!(network.iter().any(|s| s.get::<bool>("online") == Ok(false)));
    let begin = Instant::now();
    run.pipeline.0.set_state(gst::State::Null).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(4));
}

#[test]
fn without_a_vault_another_stream_waits_and_can_be_stopped() {
    let place = Place::away();
    let mut run = Run::play(&format!(
        "{VIDEO} ! rcededuppay ! {} max-size-bytes=8000",
        sink(&place, "file")
    ));
    run.wait(Duration::from_secs(1));
    assert_eq!(run.stat("dropped"), 0);
    let sink = run.pipeline.element("sink");
    let pad = sink.static_pad("sink_0").unwrap();
    assert!(pad.send_event(gst::event::FlushStart::new()));
    let begin = Instant::now();
    run.pipeline.0.set_state(gst::State::Null).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(4));
}

#[test]
fn without_a_vault_the_spool_is_durable_enough_for_eos() {
    let place = Place::away();
    let spool = place.vault.dir.path().join("spool");
    let mut run = Run::play(&format!(
        "{VIDEO} ! rcededuppay ! {} spool-dir={}",
        sink(&place, "file"),
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
            sink(&place, "file")
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
    let run = Run::new(&format!("{LIVE} ! rcededuppay ! {}", sink(&place, "again")));
    let sink = run.pipeline.element("sink");
    for _ in 0..20 {
        run.pipeline.play();
        std::thread::sleep(Duration::from_millis(100));
        run.pipeline.0.set_state(gst::State::Ready).unwrap();
    }
    let weak = sink.downgrade();
    drop(sink);
    drop(run);
    assert!(weak.upgrade().is_none());
}

#[test]
fn queries_and_eos_sent_to_the_pipeline() {
    let place = Place::new();
    let mut run = Run::play(&format!("{LIVE} ! rcededuppay ! {}", sink(&place, "live")));
    run.wait(Duration::from_millis(800));
    let sink = run.pipeline.element("sink");
    assert!(sink.query_position::<gst::ClockTime>().is_some());
    let mut latency = gst::query::Latency::new();
    assert!(sink.query(&mut latency) && latency.result().0);
    run.pipeline.0.send_event(gst::event::Eos::new());
    run.end(10).unwrap();
}

#[test]
fn a_sealed_chunk_that_was_changed_costs_its_group_of_pictures() {
    let place = Place::new();
    let mut run = Run::new(&format!(
        "{VIDEO} ! rcededuppay name=pay unit=au seal=true identity={} ! {}",
        place.identity.display(),
        sink(&place, "changed")
    ));
    let pad = run.pipeline.element("pay").static_pad("src").unwrap();
    let seen = AtomicU32::new(0);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if seen.fetch_add(1, Ordering::Relaxed) == 20 {
            let buffer = info.buffer_mut().unwrap().make_mut();
            let mut map = buffer.map_writable().unwrap();
            *map.last_mut().unwrap() ^= 1;
        }
        gst::PadProbeReturn::Ok
    });
    run.pipeline.play();
    run.end(30).unwrap();
    assert_eq!(
        run.warnings().len(),
        2,
        "one for the chunk, one for the drop"
    );
    assert_eq!(run.stat("chunks"), 80);
    assert_eq!(run.stat("dropped"), 9, "up to unit 30, the next keyframe");
}

#[test]
fn two_vaults_may_stand_behind_a_tee() {
    let (one, other) = (Place::new(), Place::new());
    let second = sink(&other, "b").replace("name=sink", "name=other");
    let mut run = Run::play(&format!(
        "{VIDEO} ! rcededuppay ! tee name=t ! queue ! {} t. ! queue ! {second}",
        sink(&one, "a")
    ));
    run.end(30).unwrap();
    assert_eq!((one.segments(), other.segments()), (1, 1));
    assert_eq!(run.stat("dropped"), 0);
}

#[test]
fn a_spool_on_a_full_disk_is_said_and_used_again_when_there_is_room() {
    let Some(small) = small::Small::mount(2) else {
        return;
    };
    let mut place = Place::away();
    let mut run = Run::new(&format!(
        "{LIVE} ! rcededuppay name=pay unit=au ! {} max-size-bytes=40000 spool-dir={}",
        sink(&place, "full"),
        small.path().join("spool").display()
    ));
    let put = units_at(&run.pipeline.element("pay").static_pad("sink").unwrap());
    run.pipeline.play();
    run.until("nothing is spooled", |run| run.stat("spool-bytes") > 0);
    let ballast = small.fill();
    run.until("nothing is dropped", |run| run.stat("dropped") > 20);
    run.until("nothing is said", |run| {
        let said = run.warnings();
        let has = |words: &str| said.iter().any(|text| text.contains(words));
        has("No space left on device") && has("No room for new chunks")
    });
    std::fs::remove_file(ballast).unwrap();
    let before = run.stat("spool-bytes");
    run.until("the room is not used", |run| {
        run.stat("spool-bytes") > before
    });
    // Up to the next keyframe.
    run.wait(Duration::from_secs(1));
    let dropped = run.stat("dropped");
    run.wait(Duration::from_secs(1));
    assert_eq!(run.stat("dropped"), dropped, "there is room again");

    place.vault.restart();
    run.pipeline.0.send_event(gst::event::Eos::new());
    run.end(30).unwrap();
    assert_eq!((run.stat("spool-bytes"), run.stat("dropped")), (0, dropped));
    let put = put.lock().unwrap().clone();
    let player = place.element("dedupsrc", "full");
    let player = Pipeline::launch(&format!("{player} ! fakesink name=end"));
    let got = units_at(&player.element("end").static_pad("sink").unwrap());
    player.run(Duration::from_secs(30)).unwrap();
    let got = got.lock().unwrap().clone();
    assert_eq!(got.len() as u64, put.len() as u64 - dropped);
    // Everything else came back, in order, and after each gap it begins with a keyframe.
    let mut expected = put.iter();
    for unit in &got {
        let skipped = expected.position(|e| e.pts == unit.pts && e.hash == unit.hash);
        let skipped = skipped.expect("recorded in order");
        let delta = unit.flags & gst::BufferFlags::DELTA_UNIT.bits() != 0;
        assert!(
            skipped == 0 || !delta,
            "{skipped} units are missing before {unit:?}"
        );
    }
}
