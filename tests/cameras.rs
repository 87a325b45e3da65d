// SPDX-License-Identifier: MPL-2.0
//! Sixteen cameras in one process keep real time.

mod common;

use common::{Pipeline, TestVault, stat};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

#[test]
fn sixteen_cameras_keep_real_time() {
    common::init();
    let dir = tempfile::tempdir().unwrap();
    let footage = dir.path().join("camera.mp4").display().to_string();
    Pipeline::launch(&format!(
        "videotestsrc num-buffers=250 pattern=snow ! video/x-raw,width=640,height=360,framerate=25/1 \
         ! x264enc speed-preset=ultrafast bitrate=2000 key-int-max=50 ! h264parse ! mp4mux ! filesink location={footage}"
    ))
    .run(Duration::from_secs(60))
    .unwrap();

    let vault = TestVault::start();
    let owner = vault.owner("owner").display().to_string();
    let mut description = String::new();
    for i in 0..16 {
        write!(
            description,
            "filesrc location={footage} ! qtdemux ! h264parse ! identity sync=true ! rcededuppay \
             ! dedupsink name=sink{i} uri={} identity={owner} segment-duration=4000000000 ",
            vault.recording(&format!("camera {i}")).replace(' ', "%20")
        )
        .unwrap();
    }
    let pipeline = Pipeline::launch(&description);
    let start = Instant::now();
    pipeline.run(Duration::from_secs(40)).unwrap();
    let took = start.elapsed();
    println!("10 s of 16 cameras took {took:?}");
    assert!(took < Duration::from_millis(12_500), "{took:?}");
    for i in 0..16 {
        let sink = pipeline.element(&format!("sink{i}"));
        assert_eq!(stat(&sink, "dropped"), 0);
        assert!(stat(&sink, "segments") >= 2);
    }
    let stats = vault.stats();
    assert_eq!(stats.recordings, 16);
    assert!(
        stats.bytes_logical > 15 * stats.bytes_stored,
        "equal footage is stored once: {stats:?}"
    );
}
