// SPDX-License-Identifier: MPL-2.0
//! Pictures that `mark` and `detect` leave to look at.

use crate::common::Failure;
use gst_video::{VideoFormat, VideoInfo};
use std::fmt::Write as _;
use std::path::Path;

/// How much a difference is magnified.
const MAGNIFIED: i32 = 16;

/// A frame as a grey PNG.
pub fn write_png(file: &Path, width: u32, height: u32, luma: &[u8]) -> Result<(), Failure> {
    let at = |e: &dyn std::fmt::Display| Failure::new(format!("{}: {e}", file.display()));
    let info = VideoInfo::builder(VideoFormat::Gray8, width, height).build()?;
    let mut bytes = vec![0; info.size()];
    let stride = info.stride()[0] as usize;
    let rows = luma.chunks_exact(width as usize);
    for (to, from) in bytes.chunks_mut(stride).zip(rows) {
        to[..from.len()].copy_from_slice(from);
    }
    let caps = info.to_caps()?;
    let buffer = gst::Buffer::from_mut_slice(bytes);
    let sample = gst::Sample::builder().buffer(&buffer).caps(&caps).build();
    let png = gst::Caps::builder("image/png").build();
    let timeout = gst::ClockTime::from_seconds(20);
    let sample = gst_video::convert_sample(&sample, &png, Some(timeout)).map_err(|e| at(&e))?;
    let buffer = sample.buffer().ok_or_else(|| at(&"no picture came out"))?;
    let bytes = buffer.map_readable().map_err(|e| at(&e))?;
    std::fs::write(file, &bytes).map_err(|e| at(&e))
}

/// What was changed, magnified, on grey.
pub fn difference(before: &[u8], after: &[u8]) -> Vec<u8> {
    let pairs = before.iter().zip(after);
    let magnified = |(b, a): (&u8, &u8)| 128 + MAGNIFIED * (i32::from(*a) - i32::from(*b));
    pairs
        .map(|pair| magnified(pair).clamp(0, 255) as u8)
        .collect()
}

/// How sure each of the bits is, as bars; those in `wrong` in another colour.
pub fn write_confidence(
    file: &Path,
    title: &str,
    confidence: &[f64],
    wrong: impl Fn(usize) -> bool,
) -> Result<(), Failure> {
    const BAR: usize = 7;
    const HEIGHT: f64 = 160.0;
    let width = confidence.len() * BAR + 60;
    let mut svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='230' font-family='sans-serif' font-size='12'>\n\
         <rect width='100%' height='100%' fill='white'/>\n<text x='40' y='18'>{title}</text>\n"
    );
    for (percent, label) in [(0.0, "0"), (0.5, "0.5"), (1.0, "1")] {
        let y = 200.0 - percent * HEIGHT;
        let right = width - 20;
        let _ = writeln!(
            svg,
            "<line x1='40' x2='{right}' y1='{y}' y2='{y}' stroke='#ccc'/><text x='10' y='{y}'>{label}</text>"
        );
    }
    for (bit, confidence) in confidence.iter().enumerate() {
        let (x, height) = (40 + bit * BAR, confidence.clamp(0.0, 1.0) * HEIGHT);
        let colour = if wrong(bit) { "#c0392b" } else { "#2c7fb8" };
        let _ = writeln!(
            svg,
            "<rect x='{x}' y='{:.1}' width='{}' height='{height:.1}' fill='{colour}'/>",
            200.0 - height,
            BAR - 1
        );
    }
    let _ = writeln!(
        svg,
        "<text x='40' y='220'>bit 0 to 127; height: confidence; red: not as expected</text>\n</svg>"
    );
    std::fs::write(file, svg).map_err(|e| Failure::new(format!("{}: {e}", file.display())))
}
