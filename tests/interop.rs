// SPDX-License-Identifier: MPL-2.0
//! A client in another language, written from docs/protocol.md, reads a recording.

mod common;

use common::{Pipeline, TestVault, units_at};
use gst::prelude::*;
use std::process::Command;
use std::time::Duration;

#[test]
fn a_python_client_downloads_decrypts_and_verifies() {
    common::init();
    let vault = TestVault::start();
    let owner = vault.owner("owner").display().to_string();
    // Two segments, two tracks; a big SEI-free stream so that all envelopes are inline, and MJPEG
    // with tables, whose envelopes are large enough to be chunks of their own.
    let recording = Pipeline::launch(&format!(
        "videotestsrc num-buffers=60 ! video/x-raw,width=320,height=240,framerate=25/1 ! x264enc tune=zerolatency \
           key-int-max=10 bitrate=400 ! h264parse ! rcededuppay name=video \
           ! dedupsink name=sink uri={} identity={owner} segment-duration=1000000000 \
         audiotestsrc num-buffers=60 samplesperbuffer=1764 ! audio/x-raw,rate=44100 ! avenc_aac ! aacparse \
           ! rcededuppay name=audio ! sink.",
        vault.recording("street")
    ));
    let video = units_at(&recording.element("video").static_pad("sink").unwrap());
    let audio = units_at(&recording.element("audio").static_pad("sink").unwrap());
    recording.run(Duration::from_secs(60)).unwrap();

    let out = vault.dir.path().join("units");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/download.py");
    let output = Command::new("/usr/bin/python3")
        .args([
            script,
            &owner,
            &vault.recording("street"),
            &out.display().to_string(),
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let text = std::fs::read_to_string(out).unwrap();
    let number = |t: Option<u64>| t.map_or_else(|| "None".to_owned(), |t| t.to_string());
    for (track, units) in [&video, &audio].into_iter().enumerate() {
        let units = units.lock().unwrap();
        let expected: Vec<String> = units
            .iter()
            .map(|u| {
                let hash: String = u.hash.iter().map(|b| format!("{b:02x}")).collect();
                format!(
                    "{track} {} {} {} {} {hash}",
                    number(u.pts),
                    number(u.dts),
                    number(u.duration),
                    u.flags
                )
            })
            .collect();
        let prefix = format!("{track} ");
        let found: Vec<&str> = text.lines().filter(|l| l.starts_with(&prefix)).collect();
        assert_eq!(found, expected, "track {track}");
    }
}
