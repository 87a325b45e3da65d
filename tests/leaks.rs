// SPDX-License-Identifier: MPL-2.0
//! Twenty times READY → PLAYING → READY, recording and playing, leaves no object behind.

mod common;

use common::{Pipeline, TestVault};
use gst::prelude::*;
use std::process::Command;
use std::time::Duration;

const CHILD: &str = "CAMVAULT_LEAKS_CHILD";

#[test]
fn nothing_is_left_behind() {
    // The tracer reports when GStreamer is shut down, which only a process of its own can do.
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cycles", "--nocapture"])
        .env(CHILD, "1")
        .env("GST_TRACERS", "leaks")
        .env("GST_DEBUG", "GST_TRACER:7")
        .env("GST_DEBUG_NO_COLOR", "1")
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}{log}",
        String::from_utf8_lossy(&output.stdout)
    );
    let alive: Vec<&str> = log
        .lines()
        .filter(|l| l.contains("TRACER :0:: object-alive,"))
        .collect();
    assert!(
        alive.is_empty(),
        "{} objects: {:#?}",
        alive.len(),
        &alive[..alive.len().min(20)]
    );
    assert!(log.contains("GST_TRACER"), "the tracer was on");
}

#[test]
fn cycles() {
    if std::env::var_os(CHILD).is_none() {
        return; // The child of the test above.
    }
    common::init();
    {
        let vault = TestVault::start();
        let owner = vault.owner("owner").display().to_string();
        let url = vault.recording("cycles");
        let recording = Pipeline::launch(&format!(
            "videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=25/1 \
             ! x264enc tune=zerolatency key-int-max=5 ! h264parse ! rcededuppay \
             ! dedupsink uri={url} identity={owner}"
        ));
        let ready = |p: &Pipeline| p.0.set_state(gst::State::Ready).map(drop).unwrap();
        for _ in 0..20 {
            recording.play();
            std::thread::sleep(Duration::from_millis(300));
            ready(&recording);
        }
        drop(recording);
        let playing = Pipeline::launch(&format!(
            "dedupsrc uri={url} identity={owner} ! h264parse ! avdec_h264 ! fakesink"
        ));
        for _ in 0..20 {
            playing.play();
            std::thread::sleep(Duration::from_millis(100));
            ready(&playing);
        }
    }
    // SAFETY: every GStreamer object of this process is gone, and no thread of it uses GStreamer.
    unsafe { gst::deinit() };
}
