// SPDX-License-Identifier: MPL-2.0
//! Against a vault in memory, over HTTP.

use crate::client::reader::testing::*;
use gst::ClockTime;
use gst::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

const SECOND: u64 = 1_000_000_000;

fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        gst::init().unwrap();
        crate::plugin_register_static().unwrap();
    });
}

/// A buffer or event as it arrived at a pad.
#[derive(Clone, Debug)]
enum Seen {
    Buffer(gst::Buffer),
    Segment(gst::FormattedSegment<ClockTime>),
    Other(gst::EventType),
}

/// A pipeline `dedupsrc ! fakesink …`, with all that passed.
struct Player {
    pipeline: gst::Pipeline,
    source: gst::Element,
    seen: Arc<Mutex<Vec<(String, Seen)>>>,
    exposed: Arc<AtomicBool>,
    _identity: tempfile::TempDir,
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

impl Player {
    fn new(fake: &Arc<Fake>, query: &str) -> Self {
        init();
        let dir = tempfile::tempdir().unwrap();
        let identity = dir.path().join("id");
        fake.identity.save_new(&identity).unwrap();
        let uri = format!("camvault://{}/yard{query}", serve(fake.clone()));
        let source = gst::ElementFactory::make("dedupsrc")
            .property("uri", uri)
            .property("identity", identity.to_str().unwrap())
            .build()
            .unwrap();
        let pipeline = gst::Pipeline::new();
        pipeline.add(&source).unwrap();
        let seen: Arc<Mutex<Vec<_>>> = Arc::default();
        let (weak, log) = (pipeline.downgrade(), seen.clone());
        source.connect_pad_added(move |_, pad| {
            let Some(pipeline) = weak.upgrade() else {
                return;
            };
            let name = pad.name().to_string();
            let log = log.clone();
            let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
            pad.add_probe(kinds | gst::PadProbeType::EVENT_FLUSH, move |_, info| {
                let seen = match &info.data {
                    Some(gst::PadProbeData::Buffer(buffer)) => Seen::Buffer(buffer.clone()),
                    Some(gst::PadProbeData::Event(event)) => match event.view() {
                        gst::EventView::Segment(segment) => {
                            Seen::Segment(segment.segment().downcast_ref().unwrap().clone())
                        }
                        _ => Seen::Other(event.type_()),
                    },
                    _ => return gst::PadProbeReturn::Ok,
                };
                log.lock().unwrap().push((name.clone(), seen));
                gst::PadProbeReturn::Ok
            });
            let sink = gst::ElementFactory::make("fakesink").build().unwrap();
            sink.set_property("sync", false);
            // Without it the task would stay in one sink and never bring the other its data.
            let queue = gst::ElementFactory::make("queue").build().unwrap();
            pipeline.add_many([&queue, &sink]).unwrap();
            queue.link(&sink).unwrap();
            for element in [&sink, &queue] {
                element.sync_state_with_parent().unwrap();
            }
            pad.link(&queue.static_pad("sink").unwrap()).unwrap();
        });
        let exposed: Arc<AtomicBool> = Arc::default();
        let flag = exposed.clone();
        source.connect_no_more_pads(move |_| flag.store(true, Ordering::SeqCst));
        Self {
            pipeline,
            source,
            seen,
            exposed,
            _identity: dir,
        }
    }

    /// Plays to the end; the error if there was one.
    fn run(&self) -> Option<gst::glib::Error> {
        self.pipeline.set_state(gst::State::Playing).unwrap();
        self.finish()
    }

    fn finish(&self) -> Option<gst::glib::Error> {
        let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
        let bus = self.pipeline.bus().unwrap();
        let message = bus.timed_pop_filtered(ClockTime::from_seconds(20), &kinds);
        match message.expect("EOS or an error").view() {
            gst::MessageView::Error(error) => Some(error.error()),
            _ => None,
        }
    }

    /// Waits until the pipeline is in a state.
    fn go(&self, state: gst::State) {
        self.pipeline.set_state(state).unwrap();
        // Without a sink a pipeline is ready at once.
        while !self.exposed.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let (changed, now, _) = self.pipeline.state(ClockTime::from_seconds(10));
        assert_eq!((changed.is_ok(), now), (true, state));
    }

    /// Takes away what was behind the pads of the last run.
    fn clear(&self) {
        for element in self.pipeline.children() {
            if element != self.source {
                element.set_state(gst::State::Null).unwrap();
                self.pipeline.remove(&element).unwrap();
            }
        }
        self.exposed.store(false, Ordering::SeqCst);
    }

    /// Forgets messages of what was played before.
    fn forget(&self) {
        let bus = self.pipeline.bus().unwrap();
        bus.set_flushing(true);
        bus.set_flushing(false);
    }

    fn take(&self, pad: &str) -> Vec<Seen> {
        let mut seen = self.seen.lock().unwrap();
        let (mine, others) = seen.drain(..).partition(|(name, _)| name == pad);
        *seen = others;
        let mine: Vec<(String, Seen)> = mine;
        mine.into_iter().map(|(_, seen)| seen).collect()
    }

    fn seek(&self, flags: gst::SeekFlags, at: u64) -> bool {
        self.pipeline
            .seek_simple(flags, ClockTime::from_nseconds(at))
            .is_ok()
    }
}

fn buffers(seen: &[Seen]) -> Vec<gst::Buffer> {
    seen.iter()
        .filter_map(|seen| match seen {
            Seen::Buffer(buffer) => Some(buffer.clone()),
            _ => None,
        })
        .collect()
}

fn segments(seen: &[Seen]) -> Vec<gst::FormattedSegment<ClockTime>> {
    seen.iter()
        .filter_map(|seen| match seen {
            Seen::Segment(segment) => Some(segment.clone()),
            _ => None,
        })
        .collect()
}

fn assert_same(buffers: &[gst::Buffer], expected: &[Au]) {
    assert_eq!(buffers.len(), expected.len());
    for (buffer, au) in buffers.iter().zip(expected) {
        assert_eq!(buffer.map_readable().unwrap().as_slice(), au.data);
        assert_eq!(buffer.pts().map(|t| t.nseconds()), au.info.pts);
        assert_eq!(buffer.dts().map(|t| t.nseconds()), au.info.dts);
        assert_eq!(buffer.duration().map(|t| t.nseconds()), au.info.duration);
        let flags = buffer.flags() - gst::BufferFlags::TAG_MEMORY;
        assert_eq!(flags.bits(), au.info.flags);
    }
}

#[test]
fn buffers_come_back_as_they_were() {
    let player = Player::new(&Arc::new(sample()), "");
    assert_eq!(player.run(), None);
    let picture = player.take("src_0");
    assert_same(&buffers(&picture), &video(0..120, 10));
    assert_same(&buffers(&player.take("src_1")), &sound(0..400));
    let [segment] = &segments(&picture)[..] else {
        panic!("one segment");
    };
    assert_eq!(segment.start(), Some(ClockTime::from_seconds(10)));
    assert_eq!(segment.time(), Some(ClockTime::ZERO));
    assert_eq!(segment.base(), Some(ClockTime::ZERO));
    let buffer = &buffers(&picture)[7];
    let meta = buffer.meta::<gst::ReferenceTimestampMeta>().unwrap();
    let utc = 1_700_000_000 * SECOND + 700_000_000 - SECOND;
    assert_eq!(meta.timestamp().nseconds(), utc);
    let duration = player.pipeline.query_duration::<ClockTime>();
    assert_eq!(duration, Some(ClockTime::from_seconds(12)));
    let stats = player.source.property::<gst::Structure>("stats");
    assert_eq!(stats.get::<u64>("units"), Ok(520));
    assert!(stats.get::<u64>("bytes").unwrap() > 100_000);
}

#[test]
fn a_window_begins_and_ends_where_it_says() {
    for (query, from, to) in [
        ("?from=4.35&to=7", None, None),
        ("?from=1&to=2", Some("4.35"), Some("7")),
        // The start was at 1,700,000,000 s.
        (
            "",
            Some("2023-11-14T22:13:24.35Z"),
            Some("2023-11-14T22:13:27Z"),
        ),
    ] {
        let player = Player::new(&Arc::new(sample()), query);
        player.source.set_property("from", from);
        player.source.set_property("to", to);
        assert_eq!(player.run(), None);
        let picture = player.take("src_0");
        let expected = video(40..70, 10);
        let found = buffers(&picture);
        assert!(found[0].flags().contains(gst::BufferFlags::DISCONT));
        assert_same(&found[1..], &expected[1..]);
        let segment = &segments(&picture)[0];
        assert_eq!(
            segment.start().unwrap().nseconds(),
            14 * SECOND + 350_000_000
        );
        assert_eq!(segment.stop(), Some(ClockTime::from_seconds(17)));
        assert_eq!(segment.time().unwrap().nseconds(), 4 * SECOND + 350_000_000);
        assert_eq!(segment.base(), Some(ClockTime::ZERO));
    }
}

#[test]
fn seeks_find_the_frame() {
    use gst::SeekFlags as F;
    let player = Player::new(&Arc::new(sample()), "");
    player.go(gst::State::Paused);
    let at = 4 * SECOND + 350_000_000;
    for (flags, start, first) in [
        (F::ACCURATE, at, 40),
        (F::empty(), at, 40),
        (F::KEY_UNIT, 4 * SECOND, 40),
        (F::KEY_UNIT | F::SNAP_BEFORE, 4 * SECOND, 40),
        (F::KEY_UNIT | F::SNAP_AFTER, 5 * SECOND, 50),
        (F::KEY_UNIT | F::SNAP_NEAREST, 4 * SECOND, 40),
        (F::ACCURATE, 0, 0),
        (F::ACCURATE, 11 * SECOND, 110),
    ] {
        player.take("src_0");
        let at = if first == 40 || first == 50 {
            at
        } else {
            start
        };
        assert!(player.seek(F::FLUSH | flags, at));
        player.go(gst::State::Paused);
        let position = player.pipeline.query_position::<ClockTime>().unwrap();
        assert!(
            position.nseconds().abs_diff(start) <= SECOND,
            "{flags:?} {position}"
        );
        let mut seen = player.take("src_0");
        let flush = |seen: &Seen| matches!(seen, Seen::Other(gst::EventType::FlushStart));
        seen.drain(..seen.iter().rposition(flush).unwrap());
        let segment = segments(&seen).pop().unwrap();
        assert_eq!(segment.time().unwrap().nseconds(), start, "{flags:?}");
        assert_eq!(segment.start().unwrap().nseconds(), start + 10 * SECOND);
        assert_eq!(segment.base(), Some(ClockTime::ZERO));
        // What was on its way when the flush began may still be seen before its end.
        let flushed = |seen: &Seen| matches!(seen, Seen::Other(gst::EventType::FlushStop));
        let found = buffers(&seen[seen.iter().rposition(flushed).unwrap()..]);
        assert!(found[0].flags().contains(gst::BufferFlags::DISCONT));
        let au = &video(first..first + 1, 10)[0];
        assert_eq!(found[0].pts().unwrap().nseconds(), au.info.pts.unwrap());
        let in_order: Vec<_> = seen
            .iter()
            .filter_map(|seen| match seen {
                Seen::Other(gst::EventType::FlushStart | gst::EventType::FlushStop) => Some(0),
                Seen::Segment(_) => Some(1),
                _ => None,
            })
            .collect();
        assert_eq!(in_order, [0, 0, 1], "{flags:?}");
    }
    // Backwards there is nothing.
    let seek = player.pipeline.seek(
        -1.0,
        F::FLUSH,
        gst::SeekType::Set,
        ClockTime::ZERO,
        gst::SeekType::Set,
        ClockTime::from_seconds(5),
    );
    assert!(seek.is_err());
    // To the end from the last position, at twice the rate.
    let seek = player.pipeline.seek(
        2.0,
        F::FLUSH | F::ACCURATE,
        gst::SeekType::Set,
        ClockTime::from_seconds(9),
        gst::SeekType::Set,
        ClockTime::from_seconds(10),
    );
    assert!(seek.is_ok());
    player.take("src_0");
    assert_eq!(player.run(), None);
    let found = buffers(&player.take("src_0"));
    assert_eq!(
        found.last().unwrap().pts(),
        Some(ClockTime::from_mseconds(19_900))
    );
}

#[test]
fn a_seek_without_flush_goes_on_in_running_time() {
    let player = Player::new(&Arc::new(sample()), "?to=2");
    let (weak, done) = (player.source.downgrade(), Arc::new(Once::new()));
    player.source.connect_pad_added(move |_, pad| {
        let (weak, done) = (weak.clone(), done.clone());
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let late = info.buffer().and_then(|b| b.pts()) >= Some(ClockTime::from_seconds(11));
            if let (true, Some(source)) = (late, weak.upgrade()) {
                done.call_once(|| {
                    let seek = gst::event::Seek::new(
                        1.0,
                        gst::SeekFlags::ACCURATE,
                        gst::SeekType::Set,
                        ClockTime::from_seconds(8),
                        gst::SeekType::Set,
                        ClockTime::from_seconds(9),
                    );
                    // Not from the streaming thread, which it waits for.
                    std::thread::spawn(move || assert!(source.send_event(seek)));
                });
                std::thread::sleep(Duration::from_millis(20));
            }
            gst::PadProbeReturn::Ok
        });
    });
    assert_eq!(player.run(), None);
    let seen = player.take("src_0");
    let segment = segments(&seen).pop().unwrap();
    assert_eq!(segment.time(), Some(ClockTime::from_seconds(8)));
    let base = segment.base().unwrap();
    assert!(
        base >= ClockTime::SECOND && base <= ClockTime::from_mseconds(2000),
        "{base}"
    );
    assert_eq!(
        buffers(&seen).last().unwrap().pts(),
        Some(ClockTime::from_mseconds(18_900))
    );
    assert!(
        !seen
            .iter()
            .any(|seen| matches!(seen, Seen::Other(gst::EventType::FlushStart)))
    );
}

#[test]
fn what_is_damaged_is_an_error_on_the_bus() {
    let fake = Arc::new(sample());
    fake.state().blobs.values_mut().for_each(|b| b[0] ^= 1);
    let player = Player::new(&fake, "");
    let error = player.run().unwrap();
    assert!(error.matches(gst::StreamError::Decrypt), "{error}");
    assert!(buffers(&player.take("src_0")).is_empty());
    let fake = Arc::new(sample());
    fake.state().blobs.values_mut().for_each(|b| b.truncate(9));
    let error = Player::new(&fake, "").run().unwrap();
    assert!(error.matches(gst::StreamError::Decrypt), "{error}");
    let player = Player::new(&fake, "/else");
    let error = player.run().unwrap();
    assert!(error.matches(gst::ResourceError::NotFound), "{error}");
}

#[test]
fn settings_are_checked_before_anything_is_sent() {
    let wrong: [(&str, Option<&str>); 5] = [
        ("uri", None),
        ("uri", Some("http://127.0.0.1/x")),
        ("from", Some("yesterday")),
        ("identity", Some("/nonexistent")),
        ("identity", Some("/etc/hostname")),
    ];
    for (property, value) in wrong {
        let player = Player::new(&Arc::new(sample()), "");
        player.source.set_property(property, value);
        assert!(player.pipeline.set_state(gst::State::Ready).is_err());
        let bus = player.pipeline.bus().unwrap();
        let message = bus.pop_filtered(&[gst::MessageType::Error]);
        assert!(message.is_some(), "{property}");
    }
    let player = Player::new(&Arc::new(sample()), "?from=7&to=3");
    let error = player.run().unwrap();
    assert!(error.matches(gst::LibraryError::Settings), "{error}");
}

#[test]
fn it_stops_at_once_while_nothing_answers() {
    for seeking in [false, true] {
        let fake = Arc::new(sample());
        let player = Player::new(&fake, "");
        if seeking {
            player.go(gst::State::Paused);
        }
        fake.state().hangs = true;
        player.pipeline.set_state(gst::State::Playing).unwrap();
        if seeking {
            assert!(player.seek(gst::SeekFlags::FLUSH, 9 * SECOND));
        }
        std::thread::sleep(Duration::from_millis(200));
        let begun = Instant::now();
        player.pipeline.set_state(gst::State::Null).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
}

#[test]
fn it_can_be_started_and_stopped_many_times() {
    let fake = Arc::new(sample());
    let player = Player::new(&fake, "");
    let weak = player.source.downgrade();
    for round in 0..20 {
        if round % 2 == 0 {
            player.go(gst::State::Playing);
        } else {
            player.pipeline.set_state(gst::State::Playing).unwrap();
        }
        player.pipeline.set_state(gst::State::Ready).unwrap();
        assert!(player.source.src_pads().is_empty());
        player.clear();
    }
    player.take("src_0");
    assert_eq!(player.run(), None);
    assert_same(&buffers(&player.take("src_0")), &video(0..120, 10));
    drop(player);
    assert!(weak.upgrade().is_none(), "nothing keeps the element");
}

#[test]
fn seeks_while_it_starts_and_plays_lose_nothing() {
    let player = Player::new(&Arc::new(sample()), "");
    player.pipeline.set_state(gst::State::Paused).unwrap();
    for n in 0..30 {
        player.seek(
            gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE,
            (n % 10) * SECOND,
        );
        std::thread::sleep(Duration::from_millis(n));
        if n == 15 {
            player.pipeline.set_state(gst::State::Playing).unwrap();
        }
    }
    player.go(gst::State::Paused);
    player.forget();
    assert!(player.seek(gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE, 3 * SECOND));
    assert_eq!(player.run(), None);
    let mut seen = player.take("src_0");
    let flush = |seen: &Seen| matches!(seen, Seen::Other(gst::EventType::FlushStart));
    seen.drain(..seen.iter().rposition(flush).unwrap());
    let found = buffers(&seen);
    assert_same(&found[1..], &video(30..120, 10)[1..]);
}

#[test]
fn following_plays_what_is_recorded_meanwhile() {
    let fake = Arc::new(sample());
    fake.state().summary.closed = false;
    let player = Player::new(&fake, "");
    player.source.set_property("follow", true);
    let recorder = fake.clone();
    let later = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(700));
        let config = crate::chunk::Config::default();
        let mut more = manifest(vec![recorder.track(VIDEO, &config, &video(0..20, 10))]);
        // Another run of the recorder, whose clock stood elsewhere.
        more.session = [2; 8].into();
        more.tracks[0].times[0].1.base = 7 * SECOND;
        more.origin_running = 7 * SECOND;
        more.origin = 12 * SECOND;
        recorder.commit(&more, (12 * SECOND, 2 * SECOND));
        recorder.state().summary.closed = true;
    });
    assert_eq!(player.run(), None);
    later.join().unwrap();
    let picture = player.take("src_0");
    let expected = [video(0..120, 10), video(0..20, 10)].concat();
    assert_same(&buffers(&picture), &expected);
    let [_, second] = &segments(&picture)[..] else {
        panic!("two sessions, two segments");
    };
    assert_eq!(second.time(), Some(ClockTime::from_seconds(12)));
    assert_eq!(second.base(), Some(ClockTime::from_seconds(12)));
    let gaps = player.take("src_1");
    assert!(
        gaps.iter()
            .any(|seen| matches!(seen, Seen::Other(gst::EventType::Gap)))
    );
}

#[test]
fn it_ends_in_order_when_it_is_told_to() {
    let fake = Arc::new(sample());
    fake.state().summary.closed = false;
    let player = Player::new(&fake, "");
    player.source.set_property("follow", true);
    player.go(gst::State::Playing);
    std::thread::sleep(Duration::from_millis(300));
    assert!(player.source.send_event(gst::event::Eos::new()));
    assert_eq!(player.finish(), None);
    player.forget();
    // And goes on when it is told to.
    assert!(player.seek(gst::SeekFlags::FLUSH, 11 * SECOND));
    std::thread::sleep(Duration::from_millis(300));
    player.take("src_0");
    assert!(player.source.send_event(gst::event::Eos::new()));
    assert_eq!(player.finish(), None);
}
