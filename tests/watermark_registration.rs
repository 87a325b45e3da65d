// SPDX-License-Identifier: MPL-2.0
//! Where the original is, found in two seconds of video that was cut, resized, mirrored, inverted or
//! turned and compressed by x264 at CRF 28; and every frame's mark erased again bit for bit.

mod common;

use gstcamvault::luma::{Luma, LumaMut, Shape};
use gstcamvault::watermark::{Detector, Key, Layout, Settings, Trace, Word, embed, erase};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

const WORD: Word = Word(0x5476_0033_89ab_5577_eddd_98ba_0123_4567);
/// Without optimisation a search takes twenty times as long: smaller pictures, fewer of them.
const SMALL: bool = cfg!(debug_assertions);
const WIDTH: usize = if SMALL { 480 } else { 768 };
const HEIGHT: usize = if SMALL { 270 } else { 432 };
const RATE: usize = if SMALL { 4 } else { 10 };

fn key() -> Key {
    Key::from_bytes([9; 32])
}

/// The luma of a file's video, changed by a filter.
fn decode(file: &Path, filter: &str, seconds: &str) -> Vec<u8> {
    let output = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-t", seconds, "-i"])
        .arg(file)
        .args(["-vf", filter, "-f", "rawvideo", "-pix_fmt", "gray", "-"])
        .output()
        .expect("ffmpeg is installed by tests/run.sh");
    assert!(output.status.success(), "{}", file.display());
    output.stdout
}

/// Two seconds of a file, marked.
fn marked(file: &Path) -> Vec<u8> {
    let mut frames = decode(file, &format!("fps={RATE},scale={WIDTH}:{HEIGHT}"), "2");
    let layout = Layout::new(&key(), 0, &Settings::default(), WIDTH, HEIGHT);
    for frame in frames.chunks_exact_mut(WIDTH * HEIGHT) {
        let picture = &mut LumaMut::new(frame, Shape::plane(WIDTH, HEIGHT)).unwrap();
        embed(picture, &layout, WORD, None);
    }
    frames
}

/// What a detector finds after `filter` and x264: the score and wrong bits, if anything.
fn found(marked: &[u8], filter: &str, [w, h]: [usize; 2], known: bool) -> Option<(f64, u32)> {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("marked.gray");
    let coded = folder.path().join("coded.mkv");
    std::fs::write(&raw, marked).unwrap();
    // No word of it has a space: temporary folders and filters have none.
    let arguments = format!(
        "-f rawvideo -pix_fmt gray -s {WIDTH}x{HEIGHT} -r {RATE} -i {} -vf {filter} -pix_fmt yuv420p \
         -c:v libx264 -preset veryfast -crf 28",
        raw.display()
    );
    common::ffmpeg(&arguments, &coded);
    let data = decode(&coded, "null", "9");
    let original = known.then_some([WIDTH, HEIGHT]);
    let mut detector = Detector::new(key(), Settings::default(), original);
    for frame in data.chunks_exact(w * h) {
        detector.frame(&Luma::new(frame, Shape::plane(w, h)).unwrap());
    }
    if !detector.is_registered() {
        let found = detector.search().run(&AtomicBool::new(false))?;
        detector.register(found.registration);
    }
    let votes = detector.votes();
    Some((votes.score(), votes.word().distance(WORD)))
}

/// Tries a case and says how it went; whether it was found with few of 128 bits wrong: a small picture
/// has fewer marks.
fn case(marked: &[u8], name: &str, filter: &str, size: [usize; 2], known: bool) -> bool {
    let start = Instant::now();
    let found = found(marked, filter, size, known);
    println!(
        "{name}, {filter}, size known: {known}: {found:.1?} in {:.1?}",
        start.elapsed()
    );
    let most = if SMALL { 13 } else { 3 };
    found.is_some_and(|(_, errors)| errors <= most)
}

/// So many percent of the size, even.
fn part(percent: usize) -> [usize; 2] {
    [WIDTH, HEIGHT].map(|side| side * percent / 200 * 2)
}

fn cut(x: usize, y: usize) -> (String, [usize; 2]) {
    let [w, h] = part(70);
    (format!("crop={w}:{h}:{x}:{y}:exact=1"), [w, h])
}

const CORNERS: [[usize; 2]; 4] = [[0, 0], [232, 130], [101, 90], [33, 17]];

#[test]
fn made_video_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("made.mkv");
    let source = format!("gradients=s={WIDTH}x{HEIGHT}:r=10:d=2:n=6,noise=alls=6,eq=contrast=0.8");
    common::ffmpeg(&format!("-f lavfi -i {source} -c:v ffv1"), &file);
    let marked = marked(&file);
    let mut missed = Vec::new();
    let [w, h] = part(72);
    let mut cases = vec![
        ("hflip".to_owned(), [WIDTH, HEIGHT]),
        ("negate".to_owned(), [WIDTH, HEIGHT]),
        (format!("scale={w}:{h}"), [w, h]),
    ];
    let corners = if SMALL { 1 } else { 2 };
    cases.extend(CORNERS[..corners].iter().map(|&[x, y]| cut(x, y)));
    for (filter, size) in cases {
        // One of the two where it takes long.
        for known in [false, true] {
            if SMALL && known != filter.starts_with("scale") {
                continue;
            }
            if !case(&marked, "made", &filter, size, known) {
                missed.push((filter.clone(), known));
            }
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}

#[test]
fn real_video_is_found() {
    let Some(folder) = common::footage() else {
        println!("NOT RUN: registration of real clips");
        return;
    };
    if cfg!(debug_assertions) {
        println!("NOT RUN: registration of real clips takes too long without --release");
        return;
    }
    let mut missed = Vec::new();
    for name in [
        "cam_static_h264_768x432_10fps_60s.mp4",
        "cam_busy_h264_768x432_12.5fps_30s.mp4",
        "cam_night_noise_h264_768x432_10fps_40s.mp4",
    ] {
        let marked = marked(&folder.join(name));
        let mut cases: Vec<(String, [usize; 2])> = [
            ("hflip", [768, 432]),
            ("negate", [768, 432]),
            ("scale=384:216", [384, 216]),
            ("scale=552:310", [552, 310]),
            ("scale=1152:648", [1152, 648]),
        ]
        .map(|(filter, size)| (filter.to_owned(), size))
        .to_vec();
        cases.extend(CORNERS.map(|[x, y]| cut(x, y)));
        for (filter, size) in cases {
            if !case(&marked, name, &filter, size, false) {
                missed.push(format!("{name}: {filter}"));
            }
        }
        // Aimed at, not promised.
        for degrees in [1.0, -2.7] {
            let filter = format!("rotate={degrees}*PI/180");
            case(&marked, name, &filter, [WIDTH, HEIGHT], false);
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}

#[test]
fn every_frame_of_real_video_comes_back() {
    let Some(folder) = common::footage() else {
        println!("NOT RUN: erasing on real clips");
        return;
    };
    for file in common::walk(&folder) {
        if !file.extension().is_some_and(|e| e == "mp4" || e == "mkv") {
            continue;
        }
        // Odd sizes, which end in part of a block.
        let [w, h] = [317, 233];
        for format in ["gray", "yuv420p"] {
            let filter = format!("format={format},crop={w}:{h}:3:1:exact=1");
            let original = decode(&file, &filter, "600");
            let mut frames = 0;
            for (frame, original) in original.chunks_exact(w * h).enumerate() {
                let layout = Layout::new(&key(), frame as u32 / 20 % 4, &Settings::default(), w, h);
                let (mut data, mut trace) = (original.to_vec(), Trace::default());
                let picture = &mut LumaMut::new(&mut data, Shape::plane(w, h)).unwrap();
                embed(picture, &layout, WORD, Some(&mut trace));
                erase(picture, &layout, &trace);
                assert!(data == original, "{}: frame {frame}", file.display());
                frames += 1;
            }
            println!("{} as {format}: {frames} frames", file.display());
            assert!(frames > 0);
        }
    }
}
