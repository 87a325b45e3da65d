// SPDX-License-Identifier: MPL-2.0
//! Nothing is alive after 20 times READY→PLAYING→READY and two recordings to their end, by what
//! GStreamer's own `leaks` tracer counts in a process of its own.

mod common;
#[path = "common/leaks.rs"]
mod leaks;

use common::Place;
use gst::prelude::*;
use std::time::Duration;

fn cycles() {
    let place = Place::new();
    let launch = |source: &str, name: &str| {
        let text = format!(
            "{source} ! video/x-raw,width=64,height=64 ! x264enc key-int-max=5 tune=zerolatency \
            ! h264parse ! rcededuppay ! {}",
            place.element("dedupsink", name)
        );
        gst::parse::launch(&text).unwrap()
    };
    let live = launch("videotestsrc is-live=true", "live");
    for _ in 0..20 {
        live.set_state(gst::State::Playing).unwrap();
        std::thread::sleep(Duration::from_millis(80));
        live.set_state(gst::State::Ready).unwrap();
    }
    live.set_state(gst::State::Null).unwrap();
    for name in ["a", "b"] {
        let whole = launch("videotestsrc num-buffers=30", name);
        whole.set_state(gst::State::Playing).unwrap();
        let types = [gst::MessageType::Eos, gst::MessageType::Error];
        let timeout = gst::ClockTime::from_seconds(30);
        let end = whole.bus().unwrap().timed_pop_filtered(timeout, &types);
        assert_eq!(end.map(|m| m.type_()), Some(gst::MessageType::Eos));
        whole.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn nothing_is_alive_at_the_end() {
    leaks::nothing_is_alive_after("nothing_is_alive_at_the_end", cycles);
}
