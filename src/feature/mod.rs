// SPDX-License-Identifier: MPL-2.0
//! What a picture looks like, in 64 bits: the perceptual hash of [RTBF] Algorithm 7, and an index
//! that finds the hashes near another ([`index`]).
//!
//! The hash is the one that Python's `ImageHash.phash` (hash size 8, frequency factor 4) computes
//! of an 8-bit grey picture of the same pixels, at every size:
//!
//! 1. resize to 32×32 as Pillow does with `LANCZOS`, to the last bit (`resize.rs`);
//! 2. unnormalised DCT-II over rows and columns;
//! 3. bit (u, v) of the 8×8 lowest frequencies is 1 if the coefficient is greater than the median
//!    of all 64 (u vertical, v horizontal, row by row, first bit most significant).
//!
//! A coefficient no more than 10⁻⁶ above the median counts as equal to it, and gives 0. Flat and
//! synthetic pictures have such ties; in floating point, noise of about 10⁻¹⁰ would decide them,
//! differently on every machine, and does so in `ImageHash`. Everywhere else the two agree.

pub mod index;
mod resize;

use crate::luma::Luma;
use resize::{Resizer, SIZE};
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

/// Frequencies in each direction.
const LOW: usize = 8;

/// How far a coefficient must be above the median.
const TIE: f64 = 1e-6;

/// A perceptual hash. Pictures that look alike have hashes few bits apart: up to 6 between a frame
/// and its marked and compressed copies, 26 to 36 between cameras (measured). A radius of 8 to 10
/// tells them apart.
///
/// As text it is 16 hexadecimal digits, most significant first, as `ImageHash` prints it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PHash(pub u64);

impl PHash {
    /// In how many of the 64 bits they differ.
    pub fn distance(self, other: Self) -> u32 {
        (self.0 ^ other.0).count_ones()
    }
}

impl fmt::Display for PHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What does not look like a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a perceptual hash is 16 hexadecimal digits")]
pub struct PHashError;

impl FromStr for PHash {
    type Err = PHashError;

    fn from_str(text: &str) -> Result<Self, PHashError> {
        let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let bits = u64::from_str_radix(text, 16).ok().filter(|_| digits);
        bits.map(Self).ok_or(PHashError)
    }
}

/// What is known of a picture's content.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Feature {
    /// Its hash.
    pub phash: PHash,
    /// Mean of the luma of all pixels, 0 to 255.
    pub mean: f64,
    /// Standard deviation of the luma of all pixels.
    pub deviation: f64,
}

/// Looks at pictures. It keeps what depends on their size alone, so it is best kept for the next.
#[derive(Debug, Default)]
pub struct Observer(Option<Resizer>);

impl Observer {
    /// The feature of a picture; `None` if it has no pixels.
    pub fn look(&mut self, picture: &Luma<'_>) -> Option<Feature> {
        if !self.0.as_ref().is_some_and(|r| r.is_for(picture)) {
            self.0 = Resizer::new(picture.width(), picture.height());
        }
        let mut moments = Moments::default();
        let small = self.0.as_mut()?.resize(picture, |line| moments.add(line));
        let pixels = (picture.width() * picture.height()) as f64;
        let (mean, deviation) = moments.of(pixels);
        Some(Feature {
            phash: hash(&small),
            mean,
            deviation,
        })
    }
}

/// Sums of all samples and of their squares.
#[derive(Default)]
struct Moments {
    sum: u64,
    squares: u64,
}

impl Moments {
    fn add(&mut self, line: &[i16]) {
        // Short enough for sums of 32 bits, which are faster.
        for part in line.chunks(1 << 15) {
            let samples = part.iter().map(|&s| i32::from(s));
            self.sum += samples.clone().sum::<i32>() as u64;
            self.squares += samples.map(|s| s * s).sum::<i32>() as u64;
        }
    }

    /// Mean and standard deviation.
    fn of(&self, pixels: f64) -> (f64, f64) {
        let mean = self.sum as f64 / pixels;
        let variance = self.squares as f64 / pixels - mean * mean;
        (mean, variance.max(0.0).sqrt())
    }
}

/// The hash of a 32×32 picture.
fn hash(small: &[u8; SIZE * SIZE]) -> PHash {
    // 8 of 32 frequencies are wanted, so products with their cosines beat a whole transform.
    static COSINES: LazyLock<[[f64; SIZE]; LOW]> = LazyLock::new(|| {
        let angle = std::f64::consts::PI / (2 * SIZE) as f64;
        std::array::from_fn(|u| {
            std::array::from_fn(|x| 2.0 * (((2 * x + 1) * u) as f64 * angle).cos())
        })
    });
    let cosines = &*COSINES;
    let mut columns = [[0.0; SIZE]; LOW];
    for (column, cosine) in columns.iter_mut().zip(cosines) {
        for (row, cosine) in small.chunks_exact(SIZE).zip(cosine) {
            for (sum, &sample) in column.iter_mut().zip(row) {
                *sum += cosine * f64::from(sample);
            }
        }
    }
    let low: [f64; LOW * LOW] = std::array::from_fn(|i| {
        let (column, cosine) = (&columns[i / LOW], &cosines[i % LOW]);
        column.iter().zip(cosine).map(|(a, b)| a * b).sum()
    });
    let mut sorted = low;
    sorted.sort_unstable_by(f64::total_cmp);
    let median = (sorted[LOW * LOW / 2 - 1] + sorted[LOW * LOW / 2]) / 2.0;
    let bit = |bits, &value: &f64| bits << 1 | u64::from(value > median + TIE);
    PHash(low.iter().fold(0, bit))
}

#[cfg(test)]
mod tests;
