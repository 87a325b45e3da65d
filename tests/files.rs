// SPDX-License-Identifier: MPL-2.0
//! One stream in many containers, brought in with `camvault put`, is stored once.

mod common;

use common::{TestVault, camvault, ffmpeg};
use std::path::{Path, PathBuf};

/// Puts every file, each for another owner, and checks that all but the first are duplicates.
fn stored_once(files: &[PathBuf]) {
    let vault = TestVault::start();
    for (i, file) in files.iter().enumerate() {
        let owner = vault.owner(&format!("owner {i}"));
        let (url, file) = (vault.recording("file"), file.display().to_string());
        let (code, put) = camvault(&[
            "put",
            "--identity",
            &owner.display().to_string(),
            &file,
            &url,
        ]);
        assert_eq!(code, 0);
        let (new, duplicate) = (
            put["new_bytes"].as_u64().unwrap(),
            put["duplicate_bytes"].as_u64().unwrap(),
        );
        println!("{file}: {new} new, {duplicate} duplicate bytes");
        assert!(new + duplicate > 50_000, "something was stored");
        if i > 0 {
            let part = duplicate as f64 / (new + duplicate) as f64;
            assert!(
                part >= 0.99,
                "{file}: only {part} of its bytes are duplicates"
            );
        }
    }
}

/// A moving picture.
const SCENE: &str = "-f lavfi -i mandelbrot=size=640x360:rate=25";

/// Makes a file with ffmpeg, the same stream in other containers with ffmpeg (more arguments) and
/// with GStreamer (demuxer and parser, then muxer), and checks that all are stored once.
fn containers(made: (&str, &str), ff: &[(&str, &str)], parse: &str, gst: &[(&str, &str)]) {
    common::init();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mut files = vec![at(made.0)];
    ffmpeg(made.1, &files[0]);
    let from = files[0].display().to_string();
    for (name, more) in ff {
        files.push(at(name));
        ffmpeg(&format!("-i {from} -c copy {more}"), &at(name));
    }
    for (name, mux) in gst {
        files.push(at(name));
        let out = at(name).display().to_string();
        let text = format!("filesrc location={from} ! {parse} ! {mux} ! filesink location={out}");
        let run = common::Pipeline::launch(&text).run(std::time::Duration::from_secs(60));
        run.unwrap();
    }
    stored_once(&files);
}

#[test]
fn h264() {
    let code = "-t 8 -pix_fmt yuv420p -c:v libx264 -g 50 -bf 2 -b:v 1500k -threads 1";
    let annexb = "video/x-h264,alignment=au,stream-format=byte-stream";
    containers(
        ("made.mp4", &format!("{SCENE} {code}")),
        &[
            ("ff.mkv", ""),
            ("ff.ts", ""),
            ("ff-fragments.mp4", "-movflags frag_keyframe+empty_moov"),
            ("ff.h264", "-bsf:v h264_mp4toannexb"),
        ],
        "qtdemux ! h264parse",
        &[
            ("gst.mp4", "h264timestamper ! mp4mux"),
            (
                "gst-fragments.mp4",
                "h264timestamper ! mp4mux fragment-duration=1000",
            ),
            ("gst.mkv", "matroskamux"),
            ("gst.ts", &format!("{annexb} ! mpegtsmux")),
        ],
    );
}

#[test]
fn h265() {
    let code = "-t 6 -pix_fmt yuv420p -c:v libx265 -b:v 1M \
        -x265-params keyint=50:bframes=0:pools=1:frame-threads=1:log-level=error";
    containers(
        ("made.mp4", &format!("{SCENE} {code}")),
        &[("ff.mkv", ""), ("ff.ts", "")],
        "qtdemux ! h265parse ! video/x-h265,alignment=au",
        &[
            ("gst.mkv", "matroskamux"),
            ("gst.ts", "mpegtsmux"),
            ("gst.mp4", "h265timestamper ! mp4mux"),
        ],
    );
}

#[test]
fn mjpeg() {
    // Long, because qtmux leaves out the last picture, and with it the last piece differs.
    let code = "-t 16 -pix_fmt yuvj420p -c:v mjpeg -huffman default -q:v 5";
    containers(
        ("made.mkv", &format!("{SCENE} {code}")),
        &[("ff.mp4", ""), ("ff.avi", "")],
        "matroskademux ! jpegparse",
        &[("gst.mkv", "matroskamux"), ("gst.mov", "qtmux")],
    );
}

#[test]
fn aac() {
    let sound = "-f lavfi -i anoisesrc=d=60:c=pink -c:a aac -b:a 128k";
    containers(
        ("made.m4a", sound),
        &[("ff.mkv", ""), ("ff.ts", ""), ("ff.aac", "")],
        "qtdemux ! aacparse",
        &[("gst.mkv", "matroskamux"), ("gst.ts", "mpegtsmux")],
    );
}

/// Any file, media or not, comes back as it was.
#[test]
fn bytes_come_back() {
    common::init();
    let vault = TestVault::start();
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = vec![0u8; 5_000_000];
    getrandom::fill(&mut bytes).unwrap();
    let (file, back) = (dir.path().join("file.bin"), dir.path().join("back.bin"));
    std::fs::write(&file, &bytes).unwrap();
    let text = |p: &Path| p.display().to_string();
    let (url, id) = (vault.recording("a file"), text(&vault.owner("owner")));
    assert_eq!(
        camvault(&["put", "--identity", &id, &text(&file), &url]).0,
        0
    );
    assert_eq!(
        camvault(&["get", "--identity", &id, &url, "--out", &text(&back)]).0,
        0
    );
    assert!(
        std::fs::read(&back).unwrap() == bytes,
        "the bytes are the same"
    );
    let (code, again) = camvault(&[
        "put",
        "--identity",
        &text(&vault.owner("other")),
        &text(&file),
        &url,
    ]);
    assert_eq!((code, again["new_bytes"].as_u64()), (0, Some(0)));
}
