// SPDX-License-Identifier: MPL-2.0
//! One picture in and out, as `benches/peers.py` needs it.

use crate::{Result, ffmpeg};
use clap::Args;
use gstcamvault::luma::{Luma, LumaMut, Samples, Shape};
use gstcamvault::watermark::{Key, Layout, Settings, Word, embed, read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Marks IN into OUT, or reads the mark of IN. Prints a line: the word, and the milliseconds that one
/// picture takes, reading and writing the files not counted.
#[derive(Args)]
pub struct Options {
    /// Picture to read.
    input: PathBuf,
    /// PNG to write. Without: the mark is read.
    output: Option<PathBuf>,
    /// Watermark, 32 hexadecimal digits.
    #[arg(long, default_value = "0123456789abcdeffedcba9876543210")]
    word: Word,
    /// Times that it is done, for the speed.
    #[arg(long, default_value_t = 1)]
    repeat: u32,
}

pub fn run(options: &Options) -> Result<()> {
    let ([width, height], mut pixels) = load(&options.input)?;
    let shape = Shape {
        width,
        height,
        stride: 3 * width,
        samples: Samples::Rgb {
            step: 3,
            offsets: [0, 1, 2],
        },
    };
    let wrong = "a picture without pixels";
    let key = Key::from_bytes([9; 32]);
    let layout = Layout::new(&key, 0, &Settings::default(), width, height);
    let repeat = options.repeat.max(1);
    let (word, took) = match &options.output {
        Some(output) => {
            let plain = pixels.clone();
            let mut took = 0.0;
            for _ in 0..repeat {
                pixels.copy_from_slice(&plain);
                let begin = Instant::now();
                let mut picture = LumaMut::new(&mut pixels, shape).ok_or(wrong)?;
                embed(&mut picture, &layout, options.word, None);
                took += begin.elapsed().as_secs_f64();
            }
            save(output, [width, height], pixels)?;
            (options.word, took)
        }
        None => {
            let begin = Instant::now();
            let mut word = Word::default();
            for _ in 0..repeat {
                word = read(&Luma::new(&pixels, shape).ok_or(wrong)?, &layout).word();
            }
            (word, begin.elapsed().as_secs_f64())
        }
    };
    println!("{word} {:.4}", 1000.0 * took / f64::from(repeat));
    Ok(())
}

fn load(path: &Path) -> Result<([usize; 2], Vec<u8>)> {
    let file = path.to_str().ok_or("a file name that is not UTF-8")?;
    let size = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", "v:0"])
        .args(["-show_entries", "stream=width,height", "-of", "csv=p=0"])
        .arg(file)
        .output()?;
    let size = String::from_utf8_lossy(&size.stdout).trim().to_owned();
    let (width, height) = size
        .split_once(',')
        .ok_or_else(|| format!("{file}: not a picture"))?;
    let size: [usize; 2] = [width.parse()?, height.parse()?];
    let pixels = ffmpeg::run(
        &["-i", file, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
        &[],
    )?;
    match pixels.len() == 3 * size[0] * size[1] {
        true => Ok((size, pixels)),
        false => Err(format!("{file}: more or less than one picture").into()),
    }
}

fn save(path: &Path, [width, height]: [usize; 2], pixels: Vec<u8>) -> Result<()> {
    let file = path.to_str().ok_or("a file name that is not UTF-8")?;
    let size = format!("{width}x{height}");
    let input = [
        "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", &size, "-i", "-",
    ];
    let output = ["-frames:v", "1", "-c:v", "png", "-update", "1", "-y", file];
    ffmpeg::run(&[&input[..], &output].concat(), &[pixels])?;
    Ok(())
}
