// SPDX-License-Identifier: MPL-2.0
//! What the sealed codec makes of real clips, in Mbit/s at 25 frames per second: rest, candidates
//! and remainders, beside MJPEG and H.264 (x264 veryfast) of the same PSNR as the marked frames.
//! `FRAMES=100 cargo run --release --example sealed_measure -- FILE...`; ffmpeg decodes and encodes.
//! With `ALONE=1` without the others; `LOSS=0 PER_BLOCK=5` for other settings than a contract's
//! defaults. The first frame is whole; a ticket's own bytes (some KiB) are
//! not counted.

use gstcamvault::protocol::{DEFAULT_LOSS, DEFAULT_PER_BLOCK};
use gstcamvault::sealed::{Chroma, Geometry, Joiner, NARROW, Picture, Split, Splitter, WIDE};
use gstcamvault::watermark::{Key, Layout, Settings, Word, position};
use std::collections::HashMap;
use std::io::Read;
use std::process::{Command, Stdio};

/// A frame's header, tag and lengths, and the tag of its remainders.
const AROUND: usize = 12 + 24 + 16 + 8 + 28;

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

/// Bytes a frame of ffmpeg's encoder at `wanted` dB of luma, between the two settings around it, from
/// fine to coarse; the finest, and its PSNR, where none is as good.
fn equal(file: &str, frames: usize, wanted: f64, settings: &[String]) -> (f64, f64) {
    let folder = tempfile::tempdir().expect("a folder for a while");
    let film = folder.path().join("film.mkv");
    let mut last: Option<(f64, f64)> = None;
    for setting in settings {
        let film = film.display();
        let script = format!(
            "ffmpeg -v error -y -i '{file}' -frames:v {frames} -an -fps_mode passthrough {setting} {film} && \
             ffmpeg -v info -i {film} -i '{file}' -frames:v {frames} -lavfi '[1:v]settb=1/25,setpts=N,format=yuvj420p[r];[0:v]settb=1/25,setpts=N,format=yuvj420p[a];[a][r]psnr=shortest=1' -f null - 2>&1 | grep -o 'PSNR y:[0-9.]*'; stat -c %s {film}"
        );
        let out = Command::new("sh").args(["-c", &script]).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let mut lines = text.lines();
        let psnr = lines.next().and_then(|l| l.strip_prefix("PSNR y:"));
        let psnr: f64 = psnr.and_then(|l| l.parse().ok()).unwrap_or(99.0);
        let bytes: f64 = lines.next().and_then(|l| l.parse().ok()).unwrap_or(0.0);
        let this = (bytes / frames as f64, psnr);
        let Some(before) = last.replace(this) else {
            if psnr < wanted {
                return this;
            }
            continue;
        };
        if psnr < wanted {
            let part = (before.1 - wanted) / (before.1 - psnr);
            let log = before.0.ln() + part * (this.0.ln() - before.0.ln());
            return (log.exp(), wanted);
        }
    }
    last.unwrap_or((f64::NAN, f64::NAN))
}

/// Bytes of a frame's remainders beside [`AROUND`]: a digest, and a byte a mark if luma has changed.
fn remainder(split: &Split) -> usize {
    16 + match split.positions.is_empty() {
        true => 0,
        false => split.remainders.len(),
    }
}

fn setting(name: &str, default: usize) -> usize {
    let set = std::env::var(name).ok();
    set.map_or(default, |text| text.parse().expect(name))
}

fn main() {
    let most = setting("FRAMES", 100);
    let loss = setting("LOSS", DEFAULT_LOSS.into()) as u8;
    let settings = Settings {
        per_block: Some(setting("PER_BLOCK", DEFAULT_PER_BLOCK as usize)),
        ..Settings::default()
    };
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
        let layout = Layout::new(&Key::from_bytes([3; 32]), 0, &settings, width, height);
        let splitter = Splitter::new(geometry, &settings, Some(&layout)).unwrap();
        let mut splitter = splitter.with_loss(loss).unwrap();
        let joiner = Joiner::new(geometry, &settings).unwrap();
        let mut joiner = joiner.with_loss(loss).unwrap();
        let mut picture = Picture::new(geometry);
        let (mut rest, mut wide, mut narrow, mut blocks, mut frames) = (0, 0, 0, 0, 0);
        let (mut marks, mut lost, mut intra) = (0, 0, 0);
        let (mut remainders, mut squares, mut lossy) = (0, 0.0, 0.0);
        let word = Word(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834);
        let place = |mark| position(&settings, width, mark).unwrap() as u32;
        let all = layout.marks().iter();
        let bits: HashMap<u32, u8> = all.map(|mark| (place(mark), mark.bit)).collect();
        'all: while frames < most {
            for i in 0..3 {
                if out.read_exact(picture.plane_mut(i)).is_err() {
                    break 'all;
                }
            }
            let split = splitter.split(&picture, false).unwrap();
            joiner.read(&split.rest).unwrap();
            let carried = |i: usize| match split.deltas[i] {
                0 => split.values[i],
                by => {
                    let bit = word.bit(bits[&split.positions[i]].into());
                    split.values[i] + by * i16::from(bit)
                }
            };
            let values: Vec<i16> = (0..split.values.len()).map(carried).collect();
            let marked = joiner.join(&values).unwrap();
            let luma = marked.planes()[0].iter().zip(&picture.planes()[0]);
            squares += luma
                .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
                .sum::<f64>();
            remainders += remainder(&split) + AROUND;
            lossy += split.squares as f64;
            if frames == 0 {
                intra = split.rest.len();
            }
            frames += 1;
            rest += split.rest.len();
            blocks += split.values.len() / settings.each();
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
        let psnr = |squares: f64| {
            10.0 * (255.0 * 255.0 * n * (width * height) as f64 / squares.max(1e-9)).log10()
        };
        let (psnr, sealed) = (psnr(squares), psnr(lossy));
        let (jpeg, h264) = match std::env::var("ALONE") {
            Ok(_) => ((f64::NAN, f64::NAN), (f64::NAN, f64::NAN)),
            Err(_) => {
                let mjpeg: Vec<String> = (1..32)
                    .map(|q| {
                        format!("-c:v mjpeg -huffman optimal -qmin 1 -q:v {q} -pix_fmt yuvj420p")
                    })
                    .collect();
                let x264: Vec<String> = (4..34)
                    .step_by(3)
                    .map(|q| format!("-c:v libx264 -preset veryfast -crf {q} -pix_fmt yuv420p"))
                    .collect();
                let of = |settings: &[String]| equal(&file, frames, psnr, settings);
                (of(&mjpeg), of(&x264))
            }
        };
        let rate = |bytes: f64| bytes * 8.0 * 25.0 / 1e6;
        let all = (rest + candidates + remainders) as f64 / n;
        println!(
            "{} {width}x{height}, {frames} frames: sealed {:.2} Mbit/s = rest {:.2} + candidates {:.2} + remainders and headers {:.2}; sealed {sealed:.2} dB, marked {psnr:.2} dB; MJPEG {:.2} Mbit/s ({:.2} dB), {:.2} x; x264 {:.2} ({:.2} dB), {:.1} x; blocks sent {:.1} %, first rest {intra} B, rest {:.3} bit a sample of luma sent, wide {:.1} %, lost {:.2} %",
            file.rsplit('/').next().unwrap(),
            rate(all),
            rate(rest as f64 / n),
            rate(candidates as f64 / n),
            rate(remainders as f64 / n),
            rate(jpeg.0),
            jpeg.1,
            all / jpeg.0,
            rate(h264.0),
            h264.1,
            all / h264.0,
            100.0 * blocks as f64 / n / geometry.blocks() as f64,
            rest as f64 * 8.0 / (blocks as f64 * 64.0),
            100.0 * wide as f64 / (wide + narrow) as f64,
            100.0 * lost as f64 / marks as f64,
        );
    }
}
