// SPDX-License-Identifier: MPL-2.0
//! A recording that never ends as a ring, played while it is trimmed; legal hold; both as their
//! user sees them.

mod common;

use common::*;
use gst::prelude::*;
use gstcamvault::client::reader::Reader;
use gstcamvault::identity::Identity;
use gstcamvault::protocol::Retention;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// A vault that looks at retention all the time, and an owner.
fn place() -> (TestVault, PathBuf, Arc<Identity>) {
    init();
    let vault = TestVault::start_with(|config| {
        config.retain_every = Duration::from_millis(100);
        config.collect_every = Duration::from_millis(100);
        config.grace = Duration::ZERO;
    });
    let file = vault.owner("owner");
    let identity = Arc::new(Identity::load(&file).unwrap());
    (vault, file, identity)
}

/// A camera of 320×180 at 10 frames a second with a keyframe each second, and a segment each.
fn camera(place: &(TestVault, PathBuf, Arc<Identity>), live: bool, frames: u32) -> String {
    format!(
        "videotestsrc is-live={live} num-buffers={frames} pattern=snow ! \
         video/x-raw,width=320,height=180,framerate=10/1 ! \
         x264enc tune=zerolatency key-int-max=10 speed-preset=ultrafast ! h264parse ! \
         rcededuppay ! dedupsink name=sink segment-duration=1000000000 uri={} identity={}",
        place.0.recording("yard"),
        place.1.display()
    )
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + MINUTE;
    while !holds() {
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn first_segment(vault: &TestVault, identity: &Arc<Identity>) -> u64 {
    let list = vault
        .block(vault.connect(identity).recordings(None))
        .unwrap();
    list.recordings.first().map_or(0, |entry| entry.first)
}

#[test]
fn a_recording_that_never_ends_is_a_ring_that_can_be_played_meanwhile() {
    let place = place();
    let (vault, file, identity) = &place;
    let client = vault.connect(identity);
    let keep = Retention {
        age_ms: Some(4000),
        bytes: None,
    };
    vault.block(client.set_retention(&keep)).unwrap();
    let recorder = Pipeline::launch(&camera(&place, true, 250));
    recorder.play();
    until("the beginning goes", || first_segment(vault, identity) >= 2);

    // From the first that is kept on, with the times of the whole, and on while more goes.
    let player = Pipeline::launch(&format!(
        "dedupsrc name=source follow=true uri={} identity={} ! h264parse name=parser ! \
         fakesink name=sink sync=true",
        vault.recording("yard"),
        file.display()
    ));
    let source = player.element("source");
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let times = seen.clone();
    let pad = player.element("parser").static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let segment = pad.sticky_event::<gst::event::Segment>(0).unwrap();
        let segment = segment.segment().downcast_ref::<gst::ClockTime>().cloned();
        let pts = info.buffer().and_then(|buffer| buffer.pts());
        let time = segment.and_then(|s| s.to_stream_time(pts));
        times.lock().unwrap().push(time.unwrap().nseconds());
        gst::PadProbeReturn::Ok
    });
    player.play();
    until("it plays", || seen.lock().unwrap().len() > 20);
    let begun = first_segment(vault, identity);
    until("more goes", || first_segment(vault, identity) >= begun + 4);
    let everything = Retention::default();
    vault.block(client.set_retention(&everything)).unwrap();
    recorder.wait(MINUTE).unwrap();
    assert_eq!(stat(&recorder.element("sink"), "dropped"), 0);
    player.wait(MINUTE).unwrap();
    let times = seen.lock().unwrap().clone();
    assert!(times[0] >= 1_900_000_000, "{}", times[0]);
    assert!(times.is_sorted(), "{times:?}");
    assert!(stat(&source, "units") > 60);

    // What is left of a ring that is no longer written goes too, and with it the recording.
    vault.block(client.set_retention(&keep)).unwrap();
    until("all goes", || {
        let stats = vault.stats();
        (stats.recordings, stats.segments, stats.blobs) == (0, 0, 0)
    });
}

#[test]
fn owners_set_retention_and_holds_and_see_them() {
    let place = place();
    let (vault, file, identity) = &place;
    Pipeline::launch(&camera(&place, false, 60))
        .run(MINUTE)
        .unwrap();
    let file = file.display().to_string();
    let recording = vault.recording("yard");
    let at = |command: &str, url: &str, options: &[&str]| {
        camvault(&[&[command, "--identity", &file, url], options].concat())
    };
    let all = vault.stats();
    assert!(all.segments >= 5, "{all:?}");

    // Held: nothing goes, whoever wants it.
    assert_eq!(at("hold", &recording, &[]).0, 0);
    let (code, said) = at("forget", &recording, &[]);
    assert_eq!(code, 5);
    let why = said["error"].as_str().unwrap();
    assert!(why.contains("legal hold"), "{why}");
    let (code, shown) = at("retention", &vault.url, &["--age", "1s", "--bytes", "500G"]);
    assert_eq!((code, &shown["age_ms"]), (0, &1000.into()));
    assert_eq!(shown["bytes"], (500u64 << 30));
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(vault.stats().segments, all.segments);
    let (_, list) = at("ls", &vault.url, &[]);
    assert_eq!(list[0]["held_by"][0], "owner");
    let (code, off) = at("retention", &vault.url, &["--off"]);
    assert_eq!((code, off["age_ms"].is_null()), (0, true));

    // The operator's hold needs its token and outlasts the owner's.
    let token = vault.dir.path().join("vault/secrets/admin.token");
    let token = token.display().to_string();
    let (id, public) = (
        list[0]["id"].as_str().unwrap(),
        identity.public().to_string(),
    );
    let operator = ["--owner", &public, "--id", id];
    assert_eq!(at("hold", &vault.url, &operator).0, 2);
    let operator = [&operator[..], &["--admin-token", &token]].concat();
    assert_eq!(at("hold", &vault.url, &operator).0, 0);
    assert_eq!(at("hold", &recording, &["--release"]).0, 0);
    assert_eq!(at("forget", &recording, &[]).0, 5);
    let release = [&operator[..], &["--release"]].concat();
    assert_eq!(at("hold", &vault.url, &release).0, 0);

    // By bytes, down to half: what is left verifies, and says what is not there.
    let half = (all.bytes_logical / 2).to_string();
    assert_eq!(at("retention", &vault.url, &["--bytes", &half]).0, 0);
    until("half of it goes", || {
        vault.stats().bytes_logical <= all.bytes_logical / 2
    });
    let (code, checked) = at("verify", &recording, &[]);
    assert_eq!(code, 0);
    let removed = checked["removed_segments"].as_u64().unwrap();
    assert!(removed > 0 && removed < all.segments);
    assert_eq!(
        checked["segments"].as_u64().unwrap(),
        all.segments - removed
    );
    let out = vault.dir.path().join("out.mkv").display().to_string();
    let (code, got) = at("get", &recording, &["--out", &out]);
    assert_eq!(
        (code, &got["removed_segments"]),
        (0, &checked["removed_segments"])
    );
    assert!(got["starts_ns"].as_u64().unwrap() > 0);
    let (_, list) = at("ls", &vault.url, &[]);
    assert_eq!(list[0]["first_segment"], checked["removed_segments"]);
    let url = recording.parse().unwrap();
    let reader = vault.block(Reader::open(&url, identity)).unwrap();
    assert_eq!(reader.timeline().first(), removed);

    let (code, jobs) = camvault(&["jobs", &vault.url]);
    assert_eq!((code, &jobs[0]["name"]), (0, &"collect".into()));
    let (code, report) = camvault(&["scrub", &vault.url, "--orphan-age", "0"]);
    assert_eq!((code, &report["counts_mended"]), (0, &0.into()), "{report}");
    assert_eq!(at("forget", &recording, &[]).0, 0);
}

#[test]
fn a_recorder_that_is_too_fast_waits_and_goes_on() {
    let vault = TestVault::start_with(|config| config.rate = Some(6));
    let file = vault.owner("owner");
    let identity = Arc::new(Identity::load(&file).unwrap());
    let place = (vault, file, identity);
    let recorder = Pipeline::launch(&camera(&place, false, 120));
    recorder.run(MINUTE).unwrap();
    let retries: gst::Structure = recorder
        .element("sink")
        .property::<gst::Structure>("stats")
        .get("retries")
        .unwrap();
    assert!(retries.get::<u64>("busy").unwrap() > 0, "{retries}");
    assert!(place.0.stats().segments >= 11);
    std::thread::sleep(Duration::from_millis(1500));
    let url = place.0.recording("yard").parse().unwrap();
    let reader = place.0.block(Reader::open(&url, &place.2)).unwrap();
    let report = place.0.block(reader.verify(|_| ())).unwrap();
    assert_eq!((report.units, report.errors.len()), (120, 0));
}
