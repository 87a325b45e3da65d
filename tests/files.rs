// SPDX-License-Identifier: MPL-2.0
//! One stream in many containers, brought in with `camvault put`, is stored once.

mod common;

use common::{TestVault, camvault, ffmpeg};
use std::path::{Path, PathBuf};

fn gst(description: &str) {
    common::Pipeline::launch(description)
        .run(std::time::Duration::from_secs(60))
        .unwrap();
}

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

#[test]
fn h264() {
    common::init();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let made = at("made.mp4");
    let scene = [
        "-f",
        "lavfi",
        "-i",
        "mandelbrot=size=640x360:rate=25",
        "-t",
        "8",
        "-pix_fmt",
        "yuv420p",
    ];
    ffmpeg(
        &[
            &scene[..],
            &[
                "-c:v", "libx264", "-g", "50", "-bf", "2", "-b:v", "1500k", "-threads", "1",
            ],
        ]
        .concat(),
        &made,
    );
    let from = made.display().to_string();
    let copy = ["-i", &from, "-c", "copy"];
    let mut files = vec![made.clone()];
    for (name, more) in [
        ("ff.mkv", &[][..]),
        ("ff.ts", &[]),
        (
            "ff-fragments.mp4",
            &["-movflags", "frag_keyframe+empty_moov"],
        ),
        ("ff.h264", &["-bsf:v", "h264_mp4toannexb"]),
    ] {
        files.push(at(name));
        ffmpeg(&[&copy[..], more].concat(), &at(name));
    }
    for (name, mux) in [
        ("gst.mp4", "h264timestamper ! mp4mux"),
        (
            "gst-fragments.mp4",
            "h264timestamper ! mp4mux fragment-duration=1000",
        ),
        ("gst.mkv", "matroskamux"),
        (
            "gst.ts",
            "video/x-h264,alignment=au,stream-format=byte-stream ! mpegtsmux",
        ),
    ] {
        files.push(at(name));
        let out = at(name).display().to_string();
        gst(&format!(
            "filesrc location={from} ! qtdemux ! h264parse ! {mux} ! filesink location={out}"
        ));
    }
    stored_once(&files);
}

#[test]
fn h265() {
    common::init();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let made = at("made.mp4");
    let scene = [
        "-f",
        "lavfi",
        "-i",
        "mandelbrot=size=640x360:rate=25",
        "-t",
        "6",
        "-pix_fmt",
        "yuv420p",
    ];
    let code = [
        "-c:v",
        "libx265",
        "-x265-params",
        "keyint=50:bframes=0:pools=1:frame-threads=1:log-level=error",
        "-b:v",
        "1M",
    ];
    ffmpeg(&[&scene[..], &code].concat(), &made);
    let from = made.display().to_string();
    let copy = ["-i", &from, "-c", "copy"];
    let mut files = vec![made.clone()];
    for name in ["ff.mkv", "ff.ts"] {
        files.push(at(name));
        ffmpeg(&copy, &at(name));
    }
    for (name, mux) in [
        ("gst.mkv", "matroskamux"),
        ("gst.ts", "mpegtsmux"),
        ("gst.mp4", "h265timestamper ! mp4mux"),
    ] {
        files.push(at(name));
        let out = at(name).display().to_string();
        let au = "h265parse ! video/x-h265,alignment=au";
        gst(&format!(
            "filesrc location={from} ! qtdemux ! {au} ! {mux} ! filesink location={out}"
        ));
    }
    stored_once(&files);
}

#[test]
fn mjpeg() {
    common::init();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    // Long, because qtmux leaves out the last picture, and with it the last piece differs.
    let made = at("made.mkv");
    let scene = [
        "-f",
        "lavfi",
        "-i",
        "mandelbrot=size=640x360:rate=25",
        "-t",
        "16",
        "-pix_fmt",
        "yuvj420p",
    ];
    ffmpeg(
        &[
            &scene[..],
            &["-c:v", "mjpeg", "-huffman", "default", "-q:v", "5"],
        ]
        .concat(),
        &made,
    );
    let from = made.display().to_string();
    let files = [
        made.clone(),
        at("ff.mp4"),
        at("ff.avi"),
        at("gst.mkv"),
        at("gst.mov"),
    ];
    ffmpeg(&["-i", &from, "-c", "copy"], &files[1]);
    ffmpeg(&["-i", &from, "-c", "copy"], &files[2]);
    for (out, mux) in [(&files[3], "matroskamux"), (&files[4], "qtmux")] {
        let out = out.display();
        gst(&format!(
            "filesrc location={from} ! matroskademux ! jpegparse ! {mux} ! filesink location={out}"
        ));
    }
    stored_once(&files);
}

#[test]
fn aac() {
    common::init();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let made = at("made.m4a");
    let sound = [
        "-f",
        "lavfi",
        "-i",
        "anoisesrc=d=60:c=pink",
        "-c:a",
        "aac",
        "-b:a",
        "128k",
    ];
    ffmpeg(&sound, &made);
    let from = made.display().to_string();
    let files = [
        made.clone(),
        at("ff.mkv"),
        at("ff.ts"),
        at("ff.aac"),
        at("gst.mkv"),
        at("gst.ts"),
    ];
    for out in &files[1..4] {
        ffmpeg(&["-i", &from, "-c", "copy"], out);
    }
    for (out, mux) in [(&files[4], "matroskamux"), (&files[5], "mpegtsmux")] {
        let out = out.display();
        gst(&format!(
            "filesrc location={from} ! qtdemux ! aacparse ! {mux} ! filesink location={out}"
        ));
    }
    stored_once(&files);
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
