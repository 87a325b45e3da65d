// SPDX-License-Identifier: MPL-2.0
//! Putting a watermark into a picture and taking it out again, in integers.
//!
//! With B the basis times 2^12, rounded, and X = Σ D·B the coefficient times 2^12:
//!
//! ```text
//! Δ̂ = (q_w(X) − X + 2^7) >> 8                     the change of the coefficient, times 2^4
//! P = ((Σ_marks Δ̂·B + 2^15) >> 16) + l            the change of each pixel
//! marked = D + P          erased = marked − P
//! ```
//!
//! l is 0 but in blocks near black or white whose marks have no room: there it is the least that makes
//! room, up to [`Settings::lift`](super::Settings::lift). It changes the block's mean, which carries
//! nothing. Where that is too little, only those marks are made that have room, one after the other (of
//! the rest Δ̂ = 0): so adding never clips and erasing is exact. Neither tells anything of the bits while
//! dithers are secret: another bit is the same as another dither, half a step further, and all dithers
//! are as likely.

use super::basis::{SHIFT, coefficient, fixed};
use super::{BLOCK, Layout, Mark, Word};
use crate::luma::{Block, LumaMut};

/// Bits after the point of Δ̂.
const DELTA_SHIFT: u32 = 4;

/// What [`erase`] needs besides the layout: what was done to one picture.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Trace {
    deltas: Vec<i16>,
    /// l of every block.
    lifts: Vec<i16>,
}

impl Trace {
    /// Δ̂ of every mark in the layout's order, in sixteenths of a unit of luma coefficients; 0 where
    /// there was no room for it.
    pub fn deltas(&self) -> &[i16] {
        &self.deltas
    }
}

/// With it whoever has the layout can take the mark out.
impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trace({} marks)", self.deltas.len())
    }
}

/// Embeds `word` into `picture`. What was done is written into `trace` for whoever wants to erase it
/// later. A layout of another size is embedded as far as it fits.
pub fn embed(picture: &mut LumaMut, layout: &Layout, word: Word, mut trace: Option<&mut Trace>) {
    if let Some(trace) = &mut trace {
        trace.deltas.clear();
        trace.lifts.clear();
    }
    // Of one block.
    let mut deltas = Vec::new();
    for marks in layout.blocks() {
        deltas.clear();
        deltas.resize(marks.len(), 0);
        let mut lift = 0;
        if let Some([x, y]) = inside(picture, marks) {
            let block = picture.as_ref().block(x, y);
            for (mark, wanted) in marks.iter().zip(&mut deltas) {
                let bit = word.bit(mark.bit.into());
                *wanted = delta(coefficient(&block, mark.class), mark, layout.step(), bit);
            }
            let (changes, shift) = with_room(picture, [x, y], marks, &mut deltas, layout.lift());
            picture.add(x, y, &changes.map(|change| change + shift));
            lift = shift;
        }
        if let Some(trace) = &mut trace {
            trace.deltas.extend_from_slice(&deltas);
            trace.lifts.push(lift);
        }
    }
}

/// The changes of the pixels of a block without l, and l, which is at most `most` either way. Of
/// `deltas` those that have no room become 0.
fn with_room(
    picture: &LumaMut,
    [x, y]: [usize; 2],
    marks: &[Mark],
    deltas: &mut [i16],
    most: i16,
) -> (Block<i16>, i16) {
    let room = |changes: &Block<i16>| {
        let least = picture.shift_that_fits(x, y, changes);
        least.filter(|shift| (-most..=most).contains(shift))
    };
    let all = pixels(&sum(marks, deltas));
    if let Some(lift) = room(&all) {
        return (all, lift);
    }
    let (mut some, mut lift) = ([0; 64], 0);
    for (mark, delta) in marks.iter().zip(deltas) {
        accumulate(&mut some, mark, *delta);
        match room(&pixels(&some)) {
            Some(shift) => lift = shift,
            None => {
                accumulate(&mut some, mark, -*delta);
                *delta = 0;
            }
        }
    }
    (pixels(&some), lift)
}

/// Takes out what [`embed`] put in, bit for bit, where the picture was not changed since.
pub fn erase(picture: &mut LumaMut, layout: &Layout, trace: &Trace) {
    let mut deltas = trace.deltas.as_slice();
    for (marks, lift) in layout.blocks().zip(&trace.lifts) {
        let Some((these, rest)) = deltas.split_at_checked(marks.len()) else {
            return;
        };
        deltas = rest;
        if let Some([x, y]) = inside(picture, marks)
            && these.iter().any(|&delta| delta != 0)
        {
            let changes = pixels(&sum(marks, these));
            picture.add(x, y, &changes.map(|change| -change - lift));
        }
    }
}

/// The upper left pixel of the block of `marks`, if the picture has all of it.
fn inside(picture: &LumaMut, marks: &[Mark]) -> Option<[usize; 2]> {
    let shape = picture.as_ref().shape();
    let [x, y] = [marks[0].x, marks[0].y].map(|side| usize::from(side) * BLOCK);
    (x + BLOCK <= shape.width && y + BLOCK <= shape.height).then_some([x, y])
}

/// Σ Δ̂·B: changes of pixels, times 2^16.
fn sum(marks: &[Mark], deltas: &[i16]) -> Block<i32> {
    let mut sum = [0; 64];
    for (mark, &delta) in marks.iter().zip(deltas) {
        accumulate(&mut sum, mark, delta);
    }
    sum
}

fn accumulate(sum: &mut Block<i32>, mark: &Mark, delta: i16) {
    for (sum, &basis) in sum.iter_mut().zip(fixed(mark.class)) {
        *sum += i32::from(delta) * i32::from(basis);
    }
}

/// Sums of Δ̂·B as whole units of luma, rounded half up.
fn pixels(sum: &Block<i32>) -> Block<i16> {
    const BITS: u32 = SHIFT + DELTA_SHIFT;
    sum.map(|sum| ((sum + (1 << (BITS - 1))) >> BITS) as i16)
}

/// Δ̂ that takes the coefficient `x` (times 2^12) to the lattice of `bit`: at most half a step.
fn delta(x: i32, mark: &Mark, step: u32, bit: bool) -> i16 {
    let change = nearest(x, offset(mark, step, bit), (step as i32) << SHIFT) - x;
    let down = SHIFT - DELTA_SHIFT;
    ((change + (1 << (down - 1))) >> down) as i16
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
