// SPDX-License-Identifier: MPL-2.0
//! `phashtag` in pipelines.

#[path = "common/leaks.rs"]
mod leaks;

use gst::prelude::*;
use gstcamvault::elements::phashtag::feature;
use gstcamvault::feature::{Feature, Observer, PHash};
use gstcamvault::luma::{Luma, Shape};

fn init() {
    gst::init().unwrap();
    gstcamvault::plugin_register_static().unwrap();
}

struct Running(gst::Pipeline);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
    }
}

impl Running {
    fn new(description: &str) -> Self {
        init();
        let pipeline = gst::parse::launch(description).unwrap();
        Self(pipeline.downcast().unwrap())
    }

    fn get<T: IsA<gst::Element>>(&self, name: &str) -> T {
        let element = self.0.by_name(name).unwrap();
        element.downcast::<T>().unwrap()
    }

    /// Plays to the end; the element's messages.
    fn messages(&self) -> Vec<gst::Structure> {
        self.0.set_state(gst::State::Playing).unwrap();
        let mut found = Vec::new();
        for message in self.0.bus().unwrap().iter_timed(gst::ClockTime::NONE) {
            match message.view() {
                gst::MessageView::Eos(_) => break,
                gst::MessageView::Error(e) => panic!("{} {:?}", e.error(), e.debug()),
                gst::MessageView::Element(e) => found.extend(
                    e.structure()
                        .filter(|s| s.name() == "camvault-phash")
                        .map(|s| s.to_owned()),
                ),
                _ => (),
            }
        }
        found
    }

    /// Plays to the end; what reaches the app sink `out`.
    fn samples(&self) -> Vec<gst::Sample> {
        let out: gst_app::AppSink = self.get("out");
        self.0.set_state(gst::State::Playing).unwrap();
        std::iter::from_fn(|| out.pull_sample().ok()).collect()
    }
}

fn features(samples: &[gst::Sample]) -> Vec<(Feature, Option<gst::ClockTime>)> {
    let buffers = samples.iter().filter_map(|sample| sample.buffer());
    buffers.filter_map(feature).collect()
}

const OUT: &str = "appsink name=out sync=false max-buffers=0";

#[test]
fn the_same_grey_picture_has_the_same_hash_in_every_format() {
    let mut first = None;
    for format in gstcamvault::elements::support::video::FORMATS {
        let found = Running::new(&format!(
            "videotestsrc num-buffers=1 pattern=ball ! video/x-raw,format=GRAY8,width=123,height=77,\
             colorimetry=1:3:0:0 ! videoconvert dither=none ! \
             video/x-raw,format={format},colorimetry=1:3:0:0 ! phashtag ! {OUT}",
        ))
        .samples();
        let (found, _) = features(&found)[0];
        let expected: &mut Feature = first.get_or_insert(found);
        assert_eq!(found.phash, expected.phash, "{format}");
        assert!((found.mean - expected.mean).abs() < 1.0, "{format}");
    }
}

#[test]
fn it_is_what_the_library_computes_and_frames_stay_as_they_are() {
    let running = Running::new(&format!(
        "videotestsrc num-buffers=5 pattern=snow ! video/x-raw,format=I420,width=322,height=178 ! \
         tee name=t t. ! queue ! phashtag interval=0 ! {OUT} \
         t. ! queue ! appsink name=plain sync=false max-buffers=0"
    ));
    let tagged = running.samples();
    let plain: gst_app::AppSink = running.get("plain");
    assert_eq!(tagged.len(), 5);
    for sample in tagged {
        let (tagged, plain) = (sample.buffer().unwrap(), plain.pull_sample().unwrap());
        let plain = plain.buffer().unwrap();
        // The memory is shared, though the buffers are two.
        assert_eq!(
            tagged.peek_memory(0).as_ptr(),
            plain.peek_memory(0).as_ptr()
        );
        assert!(feature(plain).is_none());
        let data = plain.map_readable().unwrap();
        let shape = Shape {
            stride: 324,
            ..Shape::plane(322, 178)
        };
        let luma = Luma::new(&data, shape).unwrap();
        let expected = Observer::default().look(&luma).unwrap();
        assert_eq!(feature(tagged), Some((expected, plain.pts())));
    }
}

#[test]
fn the_meta_survives_encoders_and_parsers() {
    for rest in [
        "videoconvert ! video/x-raw,format=I420 ! x264enc tune=zerolatency ! h264parse",
        "videoconvert ! x264enc bframes=2 ! h264parse ! video/x-h264,stream-format=avc",
        "videoscale ! video/x-raw,width=160,height=120 ! jpegenc",
    ] {
        let samples = Running::new(&format!(
            "videotestsrc num-buffers=30 pattern=snow ! \
             video/x-raw,format=NV12,width=320,height=240,framerate=30/1 ! \
             phashtag interval=100000000 ! {rest} ! {OUT}"
        ))
        .samples();
        assert_eq!(samples.len(), 30);
        let found = features(&samples);
        assert_eq!(found.len(), 10, "{rest}");
        let mut times: Vec<_> = found.iter().map(|f| f.1.unwrap().mseconds()).collect();
        times.sort();
        assert_eq!(times, [0, 100, 200, 300, 400, 500, 600, 700, 800, 900]);
    }
}

#[test]
fn only_the_first_frame_of_an_interval_is_hashed() {
    for (interval, count) in [("", 2), ("interval=0", 40), ("interval=500000000", 4)] {
        let running = Running::new(&format!(
            "videotestsrc num-buffers=40 ! video/x-raw,framerate=20/1 ! phashtag {interval} ! {OUT}"
        ));
        assert_eq!(features(&running.samples()).len(), count);
    }
}

#[test]
fn scenes_are_announced() {
    let scenes = "concat name=c ! phashtag interval=0 name=tag ! fakesink \
        videotestsrc pattern=smpte num-buffers=10 ! video/x-raw,width=320,height=240,format=I420,framerate=10/1 ! c. \
        videotestsrc pattern=circular num-buffers=10 ! video/x-raw,width=320,height=240,format=I420,framerate=10/1 ! c.";
    let running = Running::new(scenes);
    let tag: gst::Element = running.get("tag");
    assert_eq!(tag.property::<Option<String>>("last-phash"), None);
    let found = running.messages();
    assert_eq!(found.len(), 2, "{found:?}");
    let hash =
        |s: &gst::Structure, name| -> PHash { s.get::<&str>(name).unwrap().parse().unwrap() };
    assert!(!found[0].has_field("previous") && !found[0].has_field("distance"));
    let (before, after) = (hash(&found[0], "phash"), hash(&found[1], "phash"));
    assert_eq!(hash(&found[1], "previous"), before);
    let distance: u32 = found[1].get("distance").unwrap();
    assert_eq!(distance, after.distance(before));
    assert!(distance >= 16);
    let running_time: gst::ClockTime = found[1].get("running-time").unwrap();
    assert_eq!(running_time, gst::ClockTime::from_seconds(1));
    let last: Option<String> = tag.property("last-phash");
    assert_eq!(last, Some(after.to_string()));
    running.0.set_state(gst::State::Ready).unwrap();
    assert_eq!(tag.property::<Option<String>>("last-phash"), None);

    let never = Running::new(scenes);
    let tag: gst::Element = never.get("tag");
    tag.set_property("scene-distance", 0u32);
    assert!(never.messages().is_empty());
}

#[test]
fn a_flush_begins_anew() {
    init();
    let mut harness = gst_check::Harness::new_parse("phashtag name=tag interval=500000000");
    harness.set_src_caps_str("video/x-raw,format=GRAY8,width=64,height=64,framerate=25/1");
    let push = |harness: &mut gst_check::Harness, pts: Option<u64>| {
        let mut buffer = gst::Buffer::from_slice([7; 64 * 64]);
        let b = buffer.get_mut().unwrap();
        b.set_pts(pts.map(gst::ClockTime::from_mseconds));
        harness.push_and_pull(buffer).unwrap()
    };
    let tagged = |buffer: gst::Buffer| feature(&buffer).is_some();
    assert!(tagged(push(&mut harness, Some(600))));
    assert!(!tagged(push(&mut harness, Some(900))));
    assert!(tagged(push(&mut harness, Some(1000))));
    // Time that goes back is another interval; without time there are none.
    assert!(tagged(push(&mut harness, Some(10))));
    assert!(tagged(push(&mut harness, None)));
    assert!(tagged(push(&mut harness, Some(20))));
    assert!(!tagged(push(&mut harness, Some(30))));
    harness.push_event(gst::event::FlushStart::new());
    harness.push_event(gst::event::FlushStop::new(true));
    let segment = gst::FormattedSegment::<gst::ClockTime>::new();
    harness.push_event(gst::event::Segment::new(&segment));
    let bin = harness.element().unwrap();
    let element = bin
        .downcast_ref::<gst::Bin>()
        .unwrap()
        .by_name("tag")
        .unwrap();
    assert_eq!(element.property::<Option<String>>("last-phash"), None);
    assert!(tagged(push(&mut harness, Some(40))));
    assert_eq!(
        element.property::<Option<String>>("last-phash").as_deref(),
        Some("8000000000000000")
    );
}

/// `grey.png` was made and hashed by Pillow and `ImageHash`.
#[test]
fn the_program_prints_the_hash_of_imagehash() {
    let picture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/phash_grey.png");
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_camvault"))
        .args(["--json", "phash", picture, "--compare", "aa2f2a2a6ad59536"])
        .env("G_DEBUG", "fatal_warnings")
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let said: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let hashes = said["files"][0]["hashes"].as_array().unwrap();
    assert_eq!(hashes.len(), 1);
    assert_eq!(hashes[0]["phash"], "aa2f2a2a6ad59535");
    assert_eq!(hashes[0]["distance"], 2);
}

#[test]
fn nothing_is_alive_at_the_end() {
    leaks::nothing_is_alive_after("nothing_is_alive_at_the_end", || {
        for _ in 0..3 {
            let running = Running::new(
                "videotestsrc num-buffers=20 pattern=snow ! tee name=t t. ! queue ! phashtag \
                 interval=0 scene-distance=1 ! fakesink t. ! queue ! fakesink",
            );
            assert!(!running.messages().is_empty());
        }
    });
}
