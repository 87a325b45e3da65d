// SPDX-License-Identifier: MPL-2.0
//! Reading a watermark: soft votes.

use super::basis::exact;
use super::{BITS, BLOCK, Layout, Mark, Word};
use crate::luma::{Block, Luma};

/// Votes for each bit, added up over marks and frames. Positive: 1.
#[derive(Clone, PartialEq)]
pub struct Votes {
    /// Per bit, Σ u, u = |y − q_0(y)| − |y − q_1(y)| in units of luma.
    sums: [f64; BITS],
    /// Per bit, Σ u².
    squares: [f64; BITS],
    /// Per bit, the most that Σ |u| could be.
    most: [f64; BITS],
}

impl Default for Votes {
    fn default() -> Self {
        Self {
            sums: [0.0; BITS],
            squares: [0.0; BITS],
            most: [0.0; BITS],
        }
    }
}

/// They are the watermark, as far as it could be read.
impl std::fmt::Debug for Votes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Votes(score {:.1})", self.score())
    }
}

impl Votes {
    /// One mark's vote `u`, between −`step`/2 and `step`/2.
    #[inline]
    pub fn add(&mut self, bit: u8, u: f64, step: u32) {
        let bit = usize::from(bit);
        self.sums[bit] += u;
        self.squares[bit] += u * u;
        self.most[bit] += f64::from(step) / 2.0;
    }

    /// Another picture's votes.
    pub fn merge(&mut self, other: &Self) {
        for bit in 0..BITS {
            self.sums[bit] += other.sums[bit];
            self.squares[bit] += other.squares[bit];
            self.most[bit] += other.most[bit];
        }
    }

    /// Σ u of every bit.
    pub fn sums(&self) -> &[f64; BITS] {
        &self.sums
    }

    /// The bits: 1 where the votes are positive.
    pub fn word(&self) -> Word {
        Word::from_bits(|bit| self.sums[bit] > 0.0)
    }

    /// Per bit, |Σ u| as a part of what a perfect picture would give: 0 to 1.
    pub fn confidence(&self) -> [f64; BITS] {
        std::array::from_fn(|bit| match self.most[bit] > 0.0 {
            true => self.sums[bit].abs() / self.most[bit],
            false => 0.0,
        })
    }

    /// How much the votes of the same bit agree, in standard deviations of what chance would do:
    /// Σ_bits ((Σ u)² − Σ u²) has mean 0 and, up to a term that only makes it smaller, variance
    /// 2·Σ_bits (Σ u²)² when signs are tossed. The sign of a bit plays no part: a picture can be
    /// registered by this number without knowing the watermark, and registering by it makes no
    /// watermark more likely. Of one picture, not of several added up: the votes of still frames
    /// are not independent.
    pub fn score(&self) -> f64 {
        let bits = self.sums.iter().zip(&self.squares);
        let (excess, variance) = bits.fold((0.0, 0.0), |(excess, variance), (sum, square)| {
            (
                excess + sum * sum - square,
                variance + 2.0 * square * square,
            )
        });
        match variance > 0.0 {
            true => excess / variance.sqrt(),
            false => 0.0,
        }
    }
}

/// |y − q_0(y)| − |y − q_1(y)| of a coefficient `y`, in units of luma: −step/2 on the lattice of
/// bit 0, step/2 on the lattice of bit 1.
#[inline]
pub fn lattice_vote(y: f64, mark: &Mark, step: u32) -> f64 {
    let (step, half) = (f64::from(step), f64::from(step) / 2.0);
    let phase = (y - f64::from(mark.dither) / 16.0) / step;
    // Distance from the lattice of bit 0, in units of luma: 0 to half a step.
    let from_zero = (phase - (phase + 0.5).floor()).abs() * step;
    2.0 * from_zero - half
}

/// The votes of all marks of a picture that is where it was marked: same size, nothing cut off.
/// Marks outside the picture have none.
pub fn read(picture: &Luma, layout: &Layout) -> Votes {
    let mut votes = Votes::default();
    for marks in layout.blocks() {
        let (x, y) = (
            usize::from(marks[0].x) * BLOCK,
            usize::from(marks[0].y) * BLOCK,
        );
        if x + BLOCK > picture.width() || y + BLOCK > picture.height() {
            continue;
        }
        let block = picture.block(x, y).map(f64::from);
        for mark in marks {
            let y = coefficient(&block, mark);
            votes.add(
                mark.bit,
                lattice_vote(y, mark, layout.step()),
                layout.step(),
            );
        }
    }
    votes
}

/// A mark's coefficient of its block.
#[inline]
pub(super) fn coefficient(block: &Block<f64>, mark: &Mark) -> f64 {
    let products = block.iter().zip(exact(mark.class));
    products.map(|(sample, basis)| sample * basis).sum()
}
