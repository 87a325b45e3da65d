// SPDX-License-Identifier: MPL-2.0
//! Nothing is alive after 20 times READY→PLAYING→READY, seeks and playing to the end, by what
//! GStreamer's own `leaks` tracer counts in a process of its own.

mod common;
#[path = "common/leaks.rs"]
mod leaks;

use common::Place;
use gst::prelude::*;
use std::time::Duration;

fn cycles() {
    let place = Place::new();
    let to_the_end = |pipeline: &gst::Element| {
        pipeline.set_state(gst::State::Playing).unwrap();
        let types = [gst::MessageType::Eos, gst::MessageType::Error];
        let timeout = gst::ClockTime::from_seconds(30);
        let end = pipeline.bus().unwrap().timed_pop_filtered(timeout, &types);
        assert_eq!(end.map(|m| m.type_()), Some(gst::MessageType::Eos));
    };
    let recorder = gst::parse::launch(&format!(
        "videotestsrc num-buffers=90 ! video/x-raw,width=64,height=64 \
         ! x264enc key-int-max=15 tune=zerolatency ! h264parse ! rcededuppay ! {}",
        place.element("dedupsink", "yard")
    ));
    let recorder = recorder.unwrap();
    to_the_end(&recorder);
    recorder.set_state(gst::State::Null).unwrap();
    let text = place.element("queue name=queue ! fakesink dedupsrc name=source", "yard");
    let player = gst::parse::launch(&text).unwrap();
    let bin = player.downcast_ref::<gst::Bin>().unwrap();
    let queue = bin.by_name("queue").unwrap().downgrade();
    let source = bin.by_name("source").unwrap();
    // `dedupsrc ! queue` of a parsed text links only once.
    source.connect_pad_added(move |_, pad| {
        let queue = queue.upgrade().unwrap();
        pad.link(&queue.static_pad("sink").unwrap()).unwrap();
    });
    for round in 0..20 {
        player.set_state(gst::State::Playing).unwrap();
        std::thread::sleep(Duration::from_millis(5 * round));
        let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT;
        // Before there is a pad it goes nowhere.
        let _ = player.seek_simple(flags, gst::ClockTime::SECOND);
        player.set_state(gst::State::Ready).unwrap();
    }
    to_the_end(&player);
    player.set_state(gst::State::Null).unwrap();
}

#[test]
fn nothing_is_alive_at_the_end() {
    leaks::nothing_is_alive_after("nothing_is_alive_at_the_end", cycles);
}
