// SPDX-License-Identifier: MPL-2.0
//! Which part of wrong bits to take for a match: the owner's own attacks decide ([RTBF]
//! Algorithm 1).
//!
//! The owner lists what a thief might do, says after which of it the picture would still be of use,
//! and measures how many bits are wrong then. The threshold is the most that a useful picture had,
//! and one standard error; but never more than [`MAX_BER`], beyond which innocents are accused.
//!
//! [`Battery`] does so in memory with the attacks on a single picture; [`Report::new`] takes what was
//! measured elsewhere, after a video codec for instance.

use super::basis::exact;
use super::code::Seeded;
use super::evidence::MAX_BER;
use super::{BITS, Class, Layout, Word, embed, read};
use crate::luma::{Luma, Shape};

/// Something done to a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Attack {
    /// Normal noise.
    Noise {
        /// Standard deviation.
        sigma: f64,
    },
    /// Gaussian filter.
    Blur {
        /// Side of the kernel in pixels, odd.
        size: usize,
        /// Standard deviation in pixels.
        sigma: f64,
    },
    /// 255·(y/255)^γ.
    Gamma(f64),
    /// 128 + factor·(y − 128).
    Contrast(f64),
    /// Quantised as JPEG does at this quality (1 to 100): the luminance table of ITU-T T.81 K.1,
    /// scaled as the Independent JPEG Group's library does.
    Jpeg(u8),
    /// Resized by the factor (at most 4) and back, bilinear; averaging where it shrinks.
    Resize(f64),
}

/// Whether a thief still has use for a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Use {
    /// Always: it looks good however far its numbers are from the original's.
    Always,
    /// Never.
    Never,
    /// With at least this PSNR in dB to the marked picture.
    Psnr(f64),
}

impl std::fmt::Display for Attack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Noise { sigma } => write!(f, "noise, sigma {sigma}"),
            Self::Blur { size, sigma } => write!(f, "Gaussian blur {size}x{size}, sigma {sigma}"),
            Self::Gamma(gamma) => write!(f, "gamma {gamma}"),
            Self::Contrast(factor) => write!(f, "contrast {factor}"),
            Self::Jpeg(quality) => write!(f, "JPEG quality {quality}"),
            Self::Resize(factor) => write!(f, "resize to {factor} and back"),
        }
    }
}

impl Attack {
    /// The attacked luma, a plane of the same size. The same for the same `seed`. Parameters that
    /// make no sense are taken as the nearest that do.
    pub fn apply(&self, picture: &Luma, seed: u64) -> Vec<u8> {
        let plane = Plane {
            width: picture.width(),
            height: picture.height(),
            data: picture
                .to_plane()
                .data()
                .iter()
                .copied()
                .map(f64::from)
                .collect(),
        };
        if plane.data.is_empty() {
            return Vec::new();
        }
        let changed = match *self {
            Self::Noise { sigma } => {
                let mut random = Seeded::new(seed);
                plane.map(|y| y + sigma * random.normal())
            }
            Self::Blur { size, sigma } => plane.blurred(size, sigma),
            Self::Gamma(gamma) => plane.map(|y| 255.0 * (y / 255.0).powf(gamma)),
            Self::Contrast(factor) => plane.map(|y| 128.0 + factor * (y - 128.0)),
            Self::Jpeg(quality) => plane.quantised(quality),
            Self::Resize(factor) => {
                let side =
                    |side: usize| ((side as f64 * factor).round() as usize).clamp(1, 4 * side);
                let resized = plane
                    .resized(side(plane.width), side(plane.height))
                    .rounded();
                resized.resized(plane.width, plane.height)
            }
        };
        changed.rounded().data.iter().map(|&y| y as u8).collect()
    }
}

/// PSNR in dB of two planes of the same size; infinite where they are the same.
pub fn psnr(a: &[u8], b: &[u8]) -> f64 {
    let squares = a
        .iter()
        .zip(b)
        .map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
    10.0 * (255.0f64.powi(2) * a.len() as f64 / squares.sum::<f64>()).log10()
}

struct Plane {
    width: usize,
    height: usize,
    data: Vec<f64>,
}

impl Plane {
    fn map(mut self, change: impl FnMut(f64) -> f64) -> Self {
        self.data = self.data.into_iter().map(change).collect();
        self
    }

    /// What fits into 8 bits.
    fn rounded(self) -> Self {
        self.map(|y| (y + 0.5).floor().clamp(0.0, 255.0))
    }

    /// Sums of neighbours in rows, weighted; then rows and columns change places. Done twice, both
    /// directions are summed. `terms` says for each pixel of a row of `length` where its first
    /// neighbour is and what the weights are; the edge goes on outside.
    fn summed(&self, length: usize, terms: impl Fn(usize) -> (isize, Vec<f64>)) -> Self {
        let mut data = vec![0.0; length * self.height];
        for x in 0..length {
            let (first, weights) = terms(x);
            for (y, row) in self.data.chunks_exact(self.width).enumerate() {
                let neighbour =
                    |i: usize| row[(first + i as isize).clamp(0, self.width as isize - 1) as usize];
                let terms = weights.iter().enumerate();
                data[x * self.height + y] = terms.map(|(i, weight)| weight * neighbour(i)).sum();
            }
        }
        Self {
            width: self.height,
            height: length,
            data,
        }
    }

    fn blurred(&self, size: usize, sigma: f64) -> Self {
        let half = (size / 2).min(self.width.max(self.height)) as isize;
        let weight = |i: isize| match sigma > 0.0 {
            true => (-((i * i) as f64) / (2.0 * sigma * sigma)).exp(),
            false => f64::from(u8::from(i == 0)),
        };
        let sum: f64 = (-half..=half).map(weight).sum();
        let kernel: Vec<f64> = (-half..=half).map(|i| weight(i) / sum).collect();
        let terms = |x: usize| (x as isize - half, kernel.clone());
        self.summed(self.width, terms).summed(self.height, terms)
    }

    /// Each pixel the mean under a triangle as wide as two pixels of the coarser grid.
    fn resized(&self, width: usize, height: usize) -> Self {
        let terms = |from: usize, to: usize| {
            let scale = from as f64 / to as f64;
            let reach = scale.max(1.0);
            move |x: usize| {
                let centre = (x as f64 + 0.5) * scale - 0.5;
                let first = (centre - reach).ceil();
                let count = (centre + reach).floor() - first;
                let triangle = |i: usize| 1.0 - (first + i as f64 - centre).abs() / reach;
                let weights: Vec<f64> = (0..=count as usize).map(triangle).collect();
                let sum: f64 = weights.iter().sum();
                let weights = weights.into_iter().map(|weight| weight / sum).collect();
                (first as isize, weights)
            }
        };
        let across = self.summed(width, terms(self.width, width));
        across.summed(height, terms(self.height, height))
    }

    fn quantised(mut self, quality: u8) -> Self {
        let table = quantisers(quality);
        for y in (0..self.height).step_by(8) {
            for x in (0..self.width).step_by(8) {
                self.quantise(x, y, &table);
            }
        }
        self
    }

    /// One block; at the edges the last row and column go on.
    fn quantise(&mut self, x: usize, y: usize, table: &[u16; 64]) {
        let (width, height) = (self.width, self.height);
        let place = |i: usize| (y + i / 8).min(height - 1) * width + (x + i % 8).min(width - 1);
        let block: [f64; 64] = std::array::from_fn(|i| self.data[place(i)] - 128.0);
        // a_k(n): the basis picture of (k, 0) in column 0, a_k(n)·√(1/8).
        let a = |k: usize, n: usize| {
            Class::new(k as u8, 0).map_or(0.0, |class| exact(class)[8 * n] * 8f64.sqrt())
        };
        let a: [f64; 64] = std::array::from_fn(|i| a(i / 8, i % 8));
        let sum = |term: &dyn Fn(usize) -> f64| (0..8).map(term).sum::<f64>();
        let by_rows: [f64; 64] =
            std::array::from_fn(|i| sum(&|n| block[i / 8 * 8 + n] * a[i % 8 * 8 + n]));
        let coefficients: [f64; 64] = std::array::from_fn(|i| {
            let c = sum(&|n| by_rows[8 * n + i % 8] * a[i / 8 * 8 + n]);
            let step = f64::from(table[i]);
            (c / step).round() * step
        });
        let by_columns: [f64; 64] =
            std::array::from_fn(|i| sum(&|k| coefficients[8 * k + i % 8] * a[8 * k + i / 8]));
        for i in 0..64 {
            if y + i / 8 < height && x + i % 8 < width {
                self.data[place(i)] =
                    128.0 + sum(&|k| by_columns[i / 8 * 8 + k] * a[8 * k + i % 8]);
            }
        }
    }
}

/// ITU-T T.81, Table K.1, for a quality of 50.
const LUMINANCE: [u16; 64] = [
    16, 11, 10, 16, 24, 40, 51, 61, //
    12, 12, 14, 19, 26, 58, 60, 55, //
    14, 13, 16, 24, 40, 57, 69, 56, //
    14, 17, 22, 29, 51, 87, 80, 62, //
    18, 22, 37, 56, 68, 109, 103, 77, //
    24, 35, 55, 64, 81, 104, 113, 92, //
    49, 64, 78, 87, 103, 121, 120, 101, //
    72, 92, 95, 98, 112, 100, 103, 99,
];

fn quantisers(quality: u8) -> [u16; 64] {
    let quality = u32::from(quality.clamp(1, 100));
    let percent = match quality {
        ..50 => 5000 / quality,
        _ => 200 - 2 * quality,
    };
    LUMINANCE.map(|q| ((u32::from(q) * percent + 50) / 100).clamp(1, 255) as u16)
}

/// What an attack did.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Which attack.
    pub attack: String,
    /// PSNR in dB to the marked picture.
    pub psnr: f64,
    /// Whether a thief still has use for the picture.
    pub usable: bool,
    /// Bits read wrong.
    pub errors: u32,
    /// Bits read.
    pub bits: u32,
}

impl Outcome {
    /// Part of the bits that were read wrong.
    pub fn ber(&self) -> f64 {
        f64::from(self.errors) / f64::from(self.bits.max(1))
    }

    /// [`Outcome::ber`] and one standard error. That of none wrong is not 0: half an error is added
    /// to both sides.
    fn with_margin(&self) -> f64 {
        let bits = f64::from(self.bits.max(1));
        let rate = (f64::from(self.errors) + 0.5) / (bits + 1.0);
        self.ber() + (rate * (1.0 - rate) / bits).sqrt()
    }
}

/// What a battery found.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Greatest part of wrong bits to be taken for a match.
    pub threshold: f64,
    /// All attacks.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// The threshold for what was measured. Of no usable picture it is 0.
    pub fn new(outcomes: Vec<Outcome>) -> Self {
        let usable = outcomes.iter().filter(|outcome| outcome.usable);
        let most = usable.map(Outcome::with_margin).fold(0.0, f64::max);
        Self {
            threshold: most.min(MAX_BER),
            outcomes,
        }
    }

    /// Attacks after which the mark is still found.
    pub fn covered(&self) -> impl Iterator<Item = &Outcome> {
        let found = |outcome: &&Outcome| outcome.ber() <= self.threshold;
        self.outcomes.iter().filter(found)
    }

    /// Attacks that leave a thief a useful picture without the mark.
    pub fn uncovered(&self) -> impl Iterator<Item = &Outcome> {
        let lost = |outcome: &&Outcome| outcome.usable && outcome.ber() > self.threshold;
        self.outcomes.iter().filter(lost)
    }
}

/// Attacks on one picture, and after which of them it is of use.
#[derive(Clone, Debug, PartialEq)]
pub struct Battery {
    /// Attacks.
    pub attacks: Vec<(Attack, Use)>,
}

/// Those of [RTBF] (noise, filter, JPEG), tones and sizes. Below 25 dB a picture shows noise or mush;
/// tones do not harm it.
impl Default for Battery {
    fn default() -> Self {
        let judged = Use::Psnr(25.0);
        let noise = [2.0, 5.0, 10.0, 20.0, 40.0].map(|sigma| (Attack::Noise { sigma }, judged));
        let sizes = [(3, 0.5), (3, 1.0), (5, 1.0), (7, 2.0), (15, 5.0)];
        let blur = sizes.map(|(size, sigma)| (Attack::Blur { size, sigma }, judged));
        let jpeg = [90, 70, 50, 30, 20, 10].map(|quality| (Attack::Jpeg(quality), judged));
        let resize = [1.5, 0.75, 0.5, 0.25].map(|factor| (Attack::Resize(factor), judged));
        let gamma = [0.7, 1.5].map(|gamma| (Attack::Gamma(gamma), Use::Always));
        let contrast = [0.8, 1.2].map(|factor| (Attack::Contrast(factor), Use::Always));
        Self {
            attacks: [&noise[..], &blur, &jpeg, &resize, &gamma, &contrast].concat(),
        }
    }
}

impl Battery {
    /// Marks `frame` with `word`, attacks it, reads the mark. The same for the same `seed`.
    pub fn run(&self, frame: &Luma, layout: &Layout, word: Word, seed: u64) -> Report {
        let shape = Shape::plane(frame.width(), frame.height());
        let mut marked = frame.to_plane();
        embed(&mut marked.luma_mut(), layout, word, None);
        let outcomes = self.attacks.iter().map(|(attack, of_use)| {
            let attacked = attack.apply(&marked.luma(), seed);
            let psnr = psnr(marked.data(), &attacked);
            let read = Luma::new(&attacked, shape).map(|luma| read(&luma, layout).word());
            Outcome {
                attack: attack.to_string(),
                psnr,
                usable: match *of_use {
                    Use::Always => true,
                    Use::Never => false,
                    Use::Psnr(least) => psnr >= least,
                },
                errors: read.map_or(BITS as u32, |read| read.distance(word)),
                bits: BITS as u32,
            }
        });
        Report::new(outcomes.collect())
    }
}

/// [`Battery::run`] of the default attacks.
pub fn battery(frame: &Luma, layout: &Layout, word: Word, seed: u64) -> Report {
    Battery::default().run(frame, layout, word, seed)
}

#[cfg(test)]
mod tests;
