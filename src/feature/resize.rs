// SPDX-License-Identifier: MPL-2.0
//! Pillow's `resize((32, 32), Resampling.LANCZOS)` of an 8-bit grey picture, to the last bit.
//!
//! Two passes, over rows and over columns. Each is a weighted sum of 8-bit samples with integer
//! weights of 22 fractional bits, rounded and clipped to 8 bits; a pass that would keep the size is
//! left out (`Resample.c` of Pillow). Rows come first, unless the height shrinks by more than twice
//! as many pixels as the width does: so since Pillow 13 (python-pillow#9549; the threshold was
//! measured at 3,000 sizes). Earlier ones always began with the rows, so their pictures of more
//! than twice the height of their width may differ in single grey levels.
//!
//! A sum over 16-bit weights costs half of one over the full weights. How far it can be off is
//! known for each output, so it decides wherever the result cannot round to another sample, and
//! the full weights are summed for the two in a hundred that remain. The result is the same.

use crate::luma::Luma;

/// Width and height of the result.
pub const SIZE: usize = 32;

/// Fractional bits of a weight.
const PRECISION: u32 = 32 - 8 - 2;
/// Half width of the kernel, in output pixels.
const SUPPORT: f64 = 3.0;
/// Weights are padded with zeros to a multiple of this many.
const LANES: usize = 8;
/// Lines that are summed side by side, so that a weight is loaded once for all of them.
const LINES: usize = 4;

/// One output sample: which input samples it sums, and how.
#[derive(Debug)]
struct Tap {
    start: usize,
    /// The weights.
    weights: Vec<i32>,
    /// The weights over 2^`shift`, rounded, zeros behind.
    narrow: Vec<i16>,
    shift: u32,
    /// What a sum of `narrow` must have added at least and at most to be the sum of `weights`.
    error: [i32; 2],
}

impl Tap {
    fn new(output: usize, inputs: usize) -> Self {
        let scale = inputs as f64 / SIZE as f64;
        let filter_scale = scale.max(1.0);
        let support = SUPPORT * filter_scale;
        let centre = (output as f64 + 0.5) * scale;
        // Truncation, as in C.
        let start = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5) as usize).min(inputs);
        let inverse = 1.0 / filter_scale;
        let kernel: Vec<f64> = (start..end)
            .map(|x| lanczos((x as f64 - centre + 0.5) * inverse))
            .collect();
        // In this order, as a sum of floating-point numbers depends on it.
        let sum: f64 = kernel.iter().sum();
        let one = f64::from(1 << PRECISION);
        let weights: Vec<i32> = kernel
            .iter()
            .map(|k| if sum == 0.0 { *k } else { k / sum } * one)
            .map(|k| (k + 0.5f64.copysign(k)) as i32)
            .collect();
        let largest = weights.iter().map(|w| w.unsigned_abs()).max().unwrap_or(0);
        let shift = (0..).find(|s| (largest >> s) < (1 << 15) - 1).unwrap_or(0);
        let half = (1 << shift) >> 1;
        let mut narrow: Vec<i16> = weights
            .iter()
            .map(|w| ((w + half) >> shift) as i16)
            .collect();
        let mut error = [0, 0];
        for (&full, &narrow) in weights.iter().zip(&narrow) {
            let off = 255 * (full - (i32::from(narrow) << shift));
            error[usize::from(off > 0)] += off;
        }
        narrow.resize(weights.len().next_multiple_of(LANES), 0);
        Self {
            start,
            weights,
            narrow,
            shift,
            error,
        }
    }

    /// The output sample of each of `lines`, `stride` samples apart.
    fn sum(&self, lines: &[i16], stride: usize) -> [u8; LINES] {
        let lines: [&[i16]; LINES] =
            std::array::from_fn(|i| &lines[i * stride + self.start..][..self.narrow.len()]);
        let sums = dots(&self.narrow, lines);
        std::array::from_fn(|i| {
            let sum = sums[i] << self.shift;
            let [low, high] = self.error.map(|error| round(sum + error));
            match low == high {
                true => low,
                false => round(
                    self.weights
                        .iter()
                        .zip(lines[i])
                        .map(|(&weight, &sample)| weight * i32::from(sample))
                        .sum(),
                ),
            }
        })
    }
}

/// Σ weight × sample for each line.
fn dots(weights: &[i16], lines: [&[i16]; LINES]) -> [i32; LINES] {
    // One plain sum for each line, written out: this is what compilers turn into sums of pairs of
    // products (`pmaddwd`, in SSE2 already); nested loops they do not, and take ten times as long.
    let [a, b, c, d] = lines.map(|line| &line[..weights.len()]);
    let mut sums = [0; LINES];
    for i in 0..weights.len() {
        let weight = i32::from(weights[i]);
        sums[0] += weight * i32::from(a[i]);
        sums[1] += weight * i32::from(b[i]);
        sums[2] += weight * i32::from(c[i]);
        sums[3] += weight * i32::from(d[i]);
    }
    sums
}

/// The sample that a sum of weighted samples is.
#[inline]
fn round(sum: i32) -> u8 {
    ((sum + (1 << (PRECISION - 1))) >> PRECISION).clamp(0, 255) as u8
}

fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| match x * std::f64::consts::PI {
        0.0 => 1.0,
        x => x.sin() / x,
    };
    match (-SUPPORT..SUPPORT).contains(&x) {
        true => sinc(x) * sinc(x / SUPPORT),
        false => 0.0,
    }
}

/// From `len` samples to [`SIZE`].
#[derive(Debug)]
struct Pass {
    len: usize,
    /// None where the size stays.
    taps: Vec<Tap>,
}

impl Pass {
    fn new(len: usize) -> Self {
        let taps = match len {
            SIZE => Vec::new(),
            _ => (0..SIZE).map(|output| Tap::new(output, len)).collect(),
        };
        Self { len, taps }
    }

    /// Samples from one line to the next: behind each there is room for padded weights.
    fn stride(&self) -> usize {
        self.len + LANES
    }

    /// The outputs of [`LINES`] lines, one after the other.
    fn apply(&self, lines: &[i16], mut out: impl FnMut(usize, [u8; LINES])) {
        if self.taps.is_empty() {
            for x in 0..SIZE {
                out(
                    x,
                    std::array::from_fn(|i| lines[i * self.stride() + x] as u8),
                );
            }
        }
        for (x, tap) in self.taps.iter().enumerate() {
            out(x, tap.sum(lines, self.stride()));
        }
    }
}

/// Resizes pictures of one size.
#[derive(Debug)]
pub struct Resizer {
    width: usize,
    height: usize,
    /// Whether columns come first: the picture is turned over its diagonal.
    turned: bool,
    first: Pass,
    second: Pass,
    line: Vec<u8>,
    /// [`LINES`] lines of the picture.
    lines: Vec<i16>,
    /// What lies between the passes, line by line of the second.
    between: Vec<i16>,
}

impl Resizer {
    /// For pictures of `width` × `height`; `None` if there is nothing in them.
    pub fn new(width: usize, height: usize) -> Option<Self> {
        if width == 0 || height == 0 {
            return None;
        }
        let turned = height > SIZE && height + SIZE > 2 * width;
        let (first, second) = match turned {
            false => (width, height),
            true => (height, width),
        };
        let (first, second) = (Pass::new(first), Pass::new(second));
        Some(Self {
            width,
            height,
            turned,
            line: vec![0; first.len],
            lines: vec![0; LINES * first.stride()],
            between: vec![0; SIZE * second.stride()],
            first,
            second,
        })
    }

    /// Whether it was made for pictures of this size.
    pub fn is_for(&self, picture: &Luma<'_>) -> bool {
        (self.width, self.height) == (picture.width(), picture.height())
    }

    /// The small picture in raster order. `each` sees all pixels of the large one, a line at a
    /// time.
    ///
    /// # Panics
    /// If the picture has another size.
    pub fn resize(&mut self, picture: &Luma<'_>, each: impl FnMut(&[i16])) -> [u8; SIZE * SIZE] {
        assert!(self.is_for(picture));
        if !self.turned {
            return self.passes(|y, line| picture.read(0, y, line), each);
        }
        // Rare, so simple.
        let plane = picture.to_plane();
        let width = self.width;
        let column = |x: usize, line: &mut [u8]| {
            for (sample, row) in line.iter_mut().zip(plane.data().chunks_exact(width)) {
                *sample = row[x];
            }
        };
        let small = self.passes(column, each);
        std::array::from_fn(|i| small[i % SIZE * SIZE + i / SIZE])
    }

    fn passes(
        &mut self,
        read: impl Fn(usize, &mut [u8]),
        mut each: impl FnMut(&[i16]),
    ) -> [u8; SIZE * SIZE] {
        let (long, tall) = (self.first.stride(), self.second.stride());
        for top in (0..self.second.len).step_by(LINES) {
            let count = LINES.min(self.second.len - top);
            for (i, wide) in self.lines.chunks_exact_mut(long).take(count).enumerate() {
                read(top + i, &mut self.line);
                let wide = &mut wide[..self.line.len()];
                for (wide, &sample) in wide.iter_mut().zip(&self.line) {
                    *wide = i16::from(sample);
                }
                each(wide);
            }
            let between = &mut self.between;
            self.first.apply(&self.lines, |x, samples| {
                let column = &mut between[x * tall + top..][..count];
                for (place, sample) in column.iter_mut().zip(samples) {
                    *place = i16::from(sample);
                }
            });
        }
        let mut small = [0; SIZE * SIZE];
        for left in (0..SIZE).step_by(LINES) {
            self.second
                .apply(&self.between[left * tall..], |y, samples| {
                    small[y * SIZE + left..][..LINES].copy_from_slice(&samples);
                });
        }
        small
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The weights of every size sum to one, nearly, and the sums of the narrow ones, to which the
    /// error is added, stay within 32 bits.
    #[test]
    fn sums_fit() {
        for inputs in (1..200).chain([432, 768, 1080, 1920, 4096, 7680, 65535]) {
            for output in 0..SIZE {
                let tap = Tap::new(output, inputs);
                let sum: i64 = tap.weights.iter().map(|&w| i64::from(w)).sum();
                assert!((sum - (1 << PRECISION)).abs() <= tap.weights.len() as i64);
                let positive: i64 = tap.weights.iter().map(|&w| i64::from(w.max(0))).sum();
                let most = 255 * positive + i64::from(tap.error[1] - tap.error[0]);
                assert!(most + (1 << PRECISION) < 1 << 31, "{inputs}");
                assert!(tap.start + tap.narrow.len() <= inputs + LANES);
            }
        }
    }
}
