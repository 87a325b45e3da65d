// SPDX-License-Identifier: MPL-2.0
//! Reading a watermark: soft votes.

use super::basis::exact;
use super::{BITS, BLOCK, Dither, Layout, Mark, Word};
use crate::luma::{Block, Luma};

/// What the marks of one layout voted, each added up over frames: |y − q_0(y)| − |y − q_1(y)| in
/// units of luma, positive for 1, zero where the picture does not show the mark.
#[derive(Clone, PartialEq)]
pub struct Tally {
    votes: Vec<f32>,
    /// Weight of all frames.
    frames: f64,
}

/// They are the watermark, as far as it could be read.
impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tally({} marks)", self.votes.len())
    }
}

impl Tally {
    /// No frame yet.
    pub fn new(layout: &Layout) -> Self {
        Self {
            votes: vec![0.0; layout.marks().len()],
            frames: 0.0,
        }
    }

    /// One frame's votes. `block` gives the block whose upper left pixel it is told, or nothing if
    /// the picture does not show it; `gains` what the coefficient of each class is multiplied with.
    pub(super) fn read(
        layout: &Layout,
        gains: &[f64; 64],
        mut block: impl FnMut([usize; 2]) -> Option<Block<f64>>,
    ) -> Self {
        let mut votes = Vec::with_capacity(layout.marks().len());
        for marks in layout.blocks() {
            let block = block([marks[0].x, marks[0].y].map(|side| usize::from(side) * BLOCK));
            votes.extend(marks.iter().map(|mark| match &block {
                Some(block) if layout.lift() > 0 || could_carry(block, mark, layout.step()) => {
                    let y = gains[mark.class.index()] * coefficient(block, mark);
                    lattice_vote(y, mark, layout.step()) as f32
                }
                _ => 0.0,
            }));
        }
        Self { votes, frames: 1.0 }
    }

    /// Adds another tally of the same layout, `weight` times.
    pub fn add(&mut self, other: &Self, weight: f64) {
        for (sum, vote) in self.votes.iter_mut().zip(&other.votes) {
            *sum += vote * weight as f32;
        }
        self.frames += other.frames * weight;
    }
}

/// Votes for each bit, added up over marks. Positive: 1.
#[derive(Clone, PartialEq)]
pub struct Votes {
    /// Per bit, Σ u over its marks, u being one mark's tally.
    sums: [f64; BITS],
    /// Per bit, Σ u².
    squares: [f64; BITS],
    /// Per bit, marks that voted.
    marks: [f64; BITS],
    /// Per bit, the most that Σ |u| could be.
    most: [f64; BITS],
}

impl Default for Votes {
    fn default() -> Self {
        Self {
            sums: [0.0; BITS],
            squares: [0.0; BITS],
            marks: [0.0; BITS],
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
    /// Adds the tally of `layout`'s marks. Of one layout once: tallies add up over frames.
    pub fn add(&mut self, layout: &Layout, tally: &Tally) {
        let most = f64::from(layout.step()) / 2.0 * tally.frames;
        for (mark, &vote) in layout.marks().iter().zip(&tally.votes) {
            if vote != 0.0 {
                let (bit, vote) = (usize::from(mark.bit), f64::from(vote));
                self.sums[bit] += vote;
                self.squares[bit] += vote * vote;
                self.marks[bit] += 1.0;
                self.most[bit] += most;
            }
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

    /// Per bit, |Σ u| as a part of what perfect pictures would give: 0 to 1.
    pub fn confidence(&self) -> [f64; BITS] {
        std::array::from_fn(|bit| match self.most[bit] > 0.0 {
            true => (self.sums[bit].abs() / self.most[bit]).min(1.0),
            false => 0.0,
        })
    }

    /// How much the marks of the same bit agree, in standard deviations of what chance would do:
    /// Σ_bits ((Σ u)² − Σ u²) has mean 0 and variance 2·Σ_bits ((Σ u²)² − Σ u⁴) when every mark's
    /// sign is tossed; the last term, which only makes it smaller, is left out. The sign of a bit
    /// plays no part: a picture can be registered by this number without knowing the watermark,
    /// and registering by it makes no watermark more likely.
    pub fn score(&self) -> f64 {
        let variance: f64 = self
            .squares
            .iter()
            .map(|square| 2.0 * square * square)
            .sum();
        match variance > 0.0 {
            true => self.excess() / variance.sqrt(),
            false => 0.0,
        }
    }

    /// How near all marks are to either of their lattices, in standard deviations of chance: Σ u² of
    /// one frame's marks against what it would be if every coefficient less its dither lay anywhere
    /// in the step. With a dither from the key that is so wherever the marks are not, whatever the
    /// picture; with a fixed one it is not, and the number means nothing. It knows nothing of signs
    /// either, and nothing that [`Votes::score`] knows: together they find marks that are too few
    /// for one of them.
    pub fn nearness(&self) -> f64 {
        let marks: f64 = self.marks.iter().sum();
        let most: f64 = self.most.iter().sum();
        if marks == 0.0 || most == 0.0 {
            return 0.0;
        }
        // u is even between -most/marks and most/marks: u² has mean 1/3 and variance 4/45.
        let squares = self.squares.iter().sum::<f64>() / (most / marks).powi(2);
        (squares - marks / 3.0) / (marks * 4.0 / 45.0).sqrt()
    }

    /// How strongly the marks speak: the mean of u in the direction of its bit, in units of luma,
    /// estimated without knowing the bits.
    pub(crate) fn strength(&self) -> f64 {
        let pairs: f64 = self.marks.iter().map(|n| n * (n - 1.0)).sum();
        match pairs > 0.0 {
            true => (self.excess().max(0.0) / pairs).sqrt(),
            false => 0.0,
        }
    }

    fn excess(&self) -> f64 {
        let bits = self.sums.iter().zip(&self.squares);
        bits.map(|(sum, square)| sum * sum - square).sum()
    }
}

/// [`Votes::score`] and [`Votes::nearness`] in one number, in standard deviations. Where a codec left
/// too much noise for the second the first may do.
pub(super) fn fit(score: f64, nearness: f64, dither: Dither) -> f64 {
    match dither {
        Dither::Keyed => score.max((score + nearness) * std::f64::consts::FRAC_1_SQRT_2),
        Dither::Fixed(_) => score,
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

/// The votes of a picture that is where it was marked: same size, nothing cut off.
pub fn read(picture: &Luma, layout: &Layout) -> Votes {
    let mut votes = Votes::default();
    votes.add(layout, &tally(picture, layout));
    votes
}

/// The same by marks.
pub(super) fn tally(picture: &Luma, layout: &Layout) -> Tally {
    Tally::read(layout, &[1.0; 64], |[x, y]| {
        let inside = x + BLOCK <= picture.width() && y + BLOCK <= picture.height();
        inside.then(|| picture.block(x, y).map(f64::from))
    })
}

/// A mark's coefficient of its block.
#[inline]
pub(super) fn coefficient(block: &Block<f64>, mark: &Mark) -> f64 {
    let products = block.iter().zip(exact(mark.class));
    products.map(|(sample, basis)| sample * basis).sum()
}

/// Whether a block as it is now can have carried a mark of an owner who does not know the bits. It
/// leaves out marks without room for either bit, so of those that it did not leave out half a step in
/// one of the two directions leads to pixels within 0..=255. The rest is noise that would hide the few
/// marks of a bit in a dark scene.
#[inline]
fn could_carry(block: &Block<f64>, mark: &Mark, step: u32) -> bool {
    /// What a codec may have changed.
    const SLACK: f64 = 2.0;
    let half = f64::from(step) / 2.0;
    // No basis picture has a sample beyond a quarter.
    let far = half / 4.0 - SLACK;
    let basis = exact(mark.class);
    if block
        .iter()
        .all(|&sample| sample >= far && sample <= 255.0 - far)
    {
        return true;
    }
    let fits = |change: f64| {
        let mut samples = block
            .iter()
            .zip(basis)
            .map(|(sample, basis)| sample + change * basis);
        samples.all(|sample| (-SLACK..=255.0 + SLACK).contains(&sample))
    };
    fits(half) || fits(-half)
}
