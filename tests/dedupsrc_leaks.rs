// SPDX-License-Identifier: MPL-2.0
//! Nothing is alive after 20 times READY→PLAYING→READY, seeks and playing to the end, by what
//! GStreamer's own `leaks` tracer counts in a process of its own.

#[path = "common/leaks.rs"]
mod leaks;

use gst::prelude::*;
use gstcamvault::client::{Vault, runtime};
use gstcamvault::identity::Identity;
use gstcamvault::server::{Config, Server};
use std::sync::Arc;
use std::time::Duration;

fn cycles() {
    gst::init().unwrap();
    gstcamvault::plugin_register_static().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        reserve: 0,
        ..Config::new(dir.path().join("vault"))
    };
    let server = runtime().unwrap().block_on(Server::start(config)).unwrap();
    let path = dir.path().join("id");
    let identity = Identity::generate().unwrap();
    identity.save_new(&path).unwrap();
    let vault = Vault::connect(&server.url(), Arc::new(identity)).unwrap();
    runtime().unwrap().block_on(vault.enroll(None)).unwrap();

    let place = format!(
        "uri=camvault://{}/yard identity={}",
        server.address(),
        path.display()
    );
    let to_the_end = |pipeline: &gst::Element| {
        pipeline.set_state(gst::State::Playing).unwrap();
        let types = [gst::MessageType::Eos, gst::MessageType::Error];
        let timeout = gst::ClockTime::from_seconds(30);
        let end = pipeline.bus().unwrap().timed_pop_filtered(timeout, &types);
        assert_eq!(end.map(|m| m.type_()), Some(gst::MessageType::Eos));
    };
    let recorder = gst::parse::launch(&format!(
        "videotestsrc num-buffers=90 ! video/x-raw,width=64,height=64 \
         ! x264enc key-int-max=15 tune=zerolatency ! h264parse ! rcededuppay ! dedupsink {place}"
    ));
    let recorder = recorder.unwrap();
    to_the_end(&recorder);
    recorder.set_state(gst::State::Null).unwrap();
    let text = format!("dedupsrc name=source {place} queue name=queue ! fakesink");
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
    drop((recorder, source, player, vault));
    runtime().unwrap().block_on(server.shutdown());
}

#[test]
fn nothing_is_alive_at_the_end() {
    leaks::nothing_is_alive_after("nothing_is_alive_at_the_end", cycles);
}
