// SPDX-License-Identifier: MPL-2.0
//! Putting a watermark into a picture and taking it out again, in integers.
//!
//! With B the basis times 2^12, rounded, and X = Σ D·B the coefficient times 2^12:
//!
//! ```text
//! Δ̂ = (q_w(X) − X + 2^7) >> 8                     the change of the coefficient, times 2^4
//! P = (Σ_marks Δ̂·B + 2^15) >> 16                  the change of each pixel
//! marked = D + P          erased = marked − P
//! ```
//!
//! Where a pixel of a block could leave 0..=255 under either value of any of its bits, only those of its
//! marks are made that leave room, one after the other (of the rest Δ̂ = 0): so adding never clips and
//! erasing is exact. The choice does not depend on the bits: it tells nothing of them.

use super::basis::{SHIFT, coefficient, fixed};
use super::{BLOCK, Layout, Mark, Word};
use crate::luma::{Block, LumaMut};

/// Bits after the point of Δ̂.
const DELTA_SHIFT: u32 = 4;

/// What [`erase`] needs besides the layout: Δ̂ of every mark of one picture, in the layout's order.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Trace {
    deltas: Vec<i16>,
}

impl Trace {
    /// Δ̂ of every mark, in sixteenths of a unit of luma coefficients; 0 where the block could not
    /// carry it.
    pub fn deltas(&self) -> &[i16] {
        &self.deltas
    }

    /// From what [`Trace::deltas`] gave.
    pub fn from_deltas(deltas: Vec<i16>) -> Self {
        Self { deltas }
    }
}

/// With it whoever has the layout can take the mark out.
impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trace({} marks)", self.deltas.len())
    }
}

/// Embeds `word` into `picture`. What was done to each mark is written into `trace` for whoever
/// wants to erase it later. A layout of another size is embedded as far as it fits.
pub fn embed(picture: &mut LumaMut, layout: &Layout, word: Word, mut trace: Option<&mut Trace>) {
    if let Some(trace) = &mut trace {
        trace.deltas.clear();
        trace.deltas.reserve(layout.marks().len());
    }
    let shape = picture.as_ref().shape();
    for marks in layout.blocks() {
        let (x, y) = place(&marks[0]);
        if x + BLOCK > shape.width || y + BLOCK > shape.height {
            if let Some(trace) = &mut trace {
                trace.deltas.extend(marks.iter().map(|_| 0));
            }
            continue;
        }
        let block = picture.as_ref().block(x, y);
        let mut changes = Changes::default();
        for mark in marks {
            let coefficient = coefficient(&block, mark.class);
            let deltas = [false, true].map(|bit| delta(coefficient, mark, layout.step(), bit));
            let bit = word.bit(mark.bit.into());
            let with = changes.with(mark, deltas, bit);
            let room = picture.has_room(x, y, &pixels(&with.low), &pixels(&with.high));
            if room {
                changes = with;
            }
            if let Some(trace) = &mut trace {
                let made = if room { deltas[usize::from(bit)] } else { 0 };
                trace.deltas.push(made as i16);
            }
        }
        picture.add(x, y, &pixels(&changes.chosen));
    }
}

/// Takes out what [`embed`] put in, bit for bit, where the picture was not changed since.
pub fn erase(picture: &mut LumaMut, layout: &Layout, trace: &Trace) {
    let shape = picture.as_ref().shape();
    let mut deltas = trace.deltas.as_slice();
    for marks in layout.blocks() {
        let Some((these, rest)) = deltas.split_at_checked(marks.len()) else {
            return;
        };
        deltas = rest;
        let (x, y) = place(&marks[0]);
        let changed = these.iter().any(|&delta| delta != 0);
        if changed && x + BLOCK <= shape.width && y + BLOCK <= shape.height {
            let mut sum = [0; 64];
            for (mark, &delta) in marks.iter().zip(these) {
                accumulate(&mut sum, mark, delta.into());
            }
            picture.add(x, y, &pixels(&sum).map(|change| -change));
        }
    }
}

fn place(mark: &Mark) -> (usize, usize) {
    (usize::from(mark.x) * BLOCK, usize::from(mark.y) * BLOCK)
}

/// Changes of a block by some of its marks, times 2^16: the least and greatest over all values of
/// their bits, and those for the word.
#[derive(Clone, Copy)]
struct Changes {
    low: Block<i32>,
    high: Block<i32>,
    chosen: Block<i32>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            low: [0; 64],
            high: [0; 64],
            chosen: [0; 64],
        }
    }
}

impl Changes {
    /// With one more mark, whose Δ̂ for either bit is `deltas`.
    fn with(mut self, mark: &Mark, deltas: [i32; 2], bit: bool) -> Self {
        for (i, &basis) in fixed(mark.class).iter().enumerate() {
            let [zero, one] = deltas.map(|delta| delta * i32::from(basis));
            self.low[i] += zero.min(one);
            self.high[i] += zero.max(one);
            self.chosen[i] += if bit { one } else { zero };
        }
        self
    }
}

fn accumulate(sum: &mut Block<i32>, mark: &Mark, delta: i32) {
    for (sum, &basis) in sum.iter_mut().zip(fixed(mark.class)) {
        *sum += delta * i32::from(basis);
    }
}

/// Sums of Δ̂·B as whole units of luma, rounded half up.
fn pixels(sum: &Block<i32>) -> Block<i16> {
    const BITS: u32 = SHIFT + DELTA_SHIFT;
    sum.map(|sum| ((sum + (1 << (BITS - 1))) >> BITS) as i16)
}

/// Δ̂ that takes the coefficient `x` (times 2^12) to the lattice of `bit`.
fn delta(x: i32, mark: &Mark, step: u32, bit: bool) -> i32 {
    let change = nearest(x, offset(mark, step, bit), (step as i32) << SHIFT) - x;
    let down = SHIFT - DELTA_SHIFT;
    (change + (1 << (down - 1))) >> down
}

/// d_bit times 2^12.
fn offset(mark: &Mark, step: u32, bit: bool) -> i32 {
    let half = (step as i32) << (SHIFT - 1);
    (i32::from(mark.dither) << (SHIFT - DELTA_SHIFT)) + half * i32::from(bit)
}

/// The point of the lattice `offset` + k·`step` nearest to `x`; of two, the upper one.
fn nearest(x: i32, offset: i32, step: i32) -> i32 {
    (x - offset + step / 2).div_euclid(step) * step + offset
}
