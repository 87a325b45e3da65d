// SPDX-License-Identifier: MPL-2.0
//! What the sealed codec makes of real clips: bytes of rest and candidates beside MJPEG, lost marks.
//! `FRAMES=40 cargo run --release --example sealed_measure -- FILE...`; ffmpeg decodes. With
//! `NOJPEG=1` without MJPEG.

use gstcamvault::sealed::{Chroma, Geometry, Joiner, NARROW, Picture, Split, Splitter, WIDE};
use gstcamvault::watermark::{Key, Layout, Settings};
use std::io::Read;
use std::process::{Command, Stdio};

fn probe(file: &str) -> [usize; 2] {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", "v:0", "-show_entries"])
        .args(["stream=width,height", "-of", "csv=p=0", file])
        .output()
        .expect("ffprobe");
    let text = String::from_utf8_lossy(&out.stdout);
    let mut sides = text.trim().split(',').map(|side| side.parse().unwrap());
    [sides.next().unwrap(), sides.next().unwrap()]
}

/// Bytes a frame of MJPEG and its PSNR of luma, at the coarsest quality of 45 dB or more.
fn mjpeg(file: &str, frames: usize) -> (f64, f64) {
    let mut best = (0.0, 0.0);
    let folder = tempfile::tempdir().expect("a folder for a while");
    let film = folder.path().join("film.avi");
    let film = film.display();
    for q in 1..12 {
        let script = format!(
            "ffmpeg -v error -y -i '{file}' -frames:v {frames} -c:v mjpeg -huffman optimal -qmin 1 -q:v {q} -pix_fmt yuvj420p -f avi {film} && \
             ffmpeg -v info -i {film} -i '{file}' -frames:v {frames} -lavfi '[1:v]format=yuvj420p[r];[0:v]format=yuvj420p[a];[a][r]psnr' -f null - 2>&1 | grep -o 'PSNR y:[0-9.]*'; stat -c %s {film}"
        );
        let out = Command::new("sh").args(["-c", &script]).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let mut lines = text.lines();
        let psnr: f64 = lines
            .next()
            .and_then(|l| l.strip_prefix("PSNR y:"))
            .and_then(|l| l.parse().ok())
            .unwrap_or(0.0);
        let bytes: f64 = lines.next().and_then(|l| l.parse().ok()).unwrap_or(0.0);
        if psnr < 45.0 && best.0 > 0.0 {
            break;
        }
        best = (bytes / frames as f64, psnr);
    }
    best
}

fn main() {
    let most: usize = std::env::var("FRAMES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(100);
    for file in std::env::args().skip(1) {
        let [width, height] = probe(&file);
        let geometry = Geometry::new(width, height, Chroma::I420).unwrap();
        let mut child = Command::new("ffmpeg")
            .args(["-v", "error", "-i", &file, "-f", "rawvideo", "-pix_fmt"])
            .args(["yuvj420p", "-"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = child.stdout.take().unwrap();
        let settings = Settings::default();
        let layout = Layout::new(&Key::from_bytes([3; 32]), 0, &settings, width, height);
        let mut splitter = Splitter::new(geometry, &settings, Some(&layout)).unwrap();
        let mut joiner = Joiner::new(geometry, &settings.classes).unwrap();
        let mut picture = Picture::new(geometry);
        let (mut rest, mut wide, mut narrow, mut blocks, mut frames) = (0, 0, 0, 0, 0);
        let (mut marks, mut lost, mut intra) = (0, 0, 0);
        'all: while frames < most {
            for i in 0..3 {
                if out.read_exact(picture.plane_mut(i)).is_err() {
                    break 'all;
                }
            }
            let split = splitter.split(&picture, false).unwrap();
            joiner.read(&split.rest).unwrap();
            joiner.join(&split.values).unwrap();
            if frames == 0 {
                intra = split.rest.len();
            }
            frames += 1;
            rest += split.rest.len();
            blocks += split.values.len() / settings.classes.len();
            wide += split.widths.iter().filter(|&&w| w == WIDE).count();
            narrow += split.widths.iter().filter(|&&w| w == NARROW).count();
            marks += split.remainders.len();
            lost += split
                .remainders
                .iter()
                .filter(|&&r| r == Split::NONE)
                .count();
        }
        let _ = child.kill();
        let _ = child.wait();
        let n = frames as f64;
        let candidates = 2 * (usize::from(NARROW) * narrow + usize::from(WIDE) * wide) / 8;
        let (jpeg, psnr) = match std::env::var("NOJPEG") {
            Ok(_) => (f64::NAN, f64::NAN),
            Err(_) => mjpeg(&file, frames),
        };
        println!(
            "{:40} {frames} frames, sent {:.1}% of blocks; first rest {intra}; per frame rest {:.0} + candidates {:.0} = {:.0} B, MJPEG {jpeg:.0} B ({psnr:.2} dB) ratio {:.2}; rest {:.3} bpp of sent, wide {:.1}%, lost {:.2}%",
            file.rsplit('/').next().unwrap(),
            100.0 * blocks as f64 / n / geometry.blocks() as f64,
            rest as f64 / n,
            candidates as f64 / n,
            (rest + candidates) as f64 / n,
            (rest + candidates) as f64 / n / jpeg,
            rest as f64 * 8.0 / (blocks as f64 * 64.0),
            100.0 * wide as f64 / (wide + narrow) as f64,
            100.0 * lost as f64 / marks as f64,
        );
    }
}
