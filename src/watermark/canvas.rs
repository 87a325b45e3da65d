// SPDX-License-Identifier: MPL-2.0
//! The coefficients of the 8×8 block at *every* pixel of a frame that was laid out like the
//! original, to try many shifts at once: each mark votes for a row of shifts in one run through
//! memory.
//!
//! A coefficient only matters modulo the step. It is kept as 16 bits of phase, so that the
//! arithmetic of integers wraps where the lattice does, and eight and more fit into a register.

use super::basis::exact;
use super::registration::{sample, weights};
use super::{BITS, BLOCK, Class, Layout, Registration};
use crate::luma::Plane;
use std::sync::atomic::{AtomicBool, Ordering};

/// Most pixels of a canvas: the middle of a larger frame has marks enough, and the smaller the part
/// the coarser a grid of scales and angles may be.
const MOST: [usize; 2] = [640, 480];

/// Blocks that have a pixel this near to black or white mostly had no room for a mark, or had to be
/// lifted for it. What is nearer to the truth takes longer ([`super::votes`]).
const NEAR: f32 = 6.0;

/// Least marks whose nearness to the lattices is near enough to normally distributed.
const FEWEST: i32 = 48;

/// Greatest vote of a mark here.
const GREATEST: i16 = 64;

/// Pixels of a frame on the original's grid.
pub(super) struct Pixels {
    /// Where the upper left one is on that grid.
    pub(super) origin: [i32; 2],
    pub(super) width: usize,
    pub(super) height: usize,
    data: Vec<f32>,
}

impl Pixels {
    /// The middle of `frame`, whose corner `base` takes to be the original's.
    pub(super) fn new(frame: &Plane, base: &Registration) -> Self {
        let scale = base.scale();
        let filled = [frame.width(), frame.height()];
        let filled = [0, 1].map(|axis| (filled[axis] as f64 / scale[axis]) as usize);
        let [width, height] = [0, 1].map(|axis| filled[axis].min(MOST[axis]));
        // Whole blocks, so that a picture that was not shifted has its blocks here too.
        let origin = [filled[0] - width, filled[1] - height].map(|rest| rest / 2 / BLOCK * BLOCK);
        let [m0, m1, m2, m3, m4, m5] = base.map;
        let data = if m1 == 0.0 && m3 == 0.0 {
            let across = |i: usize| m0 * (origin[0] + i) as f64 + m2;
            let down = |i: usize| m4 * (origin[1] + i) as f64 + m5;
            upright(frame, (width, &across), (height, &down))
        } else {
            let luma = frame.luma();
            let at = |i: usize| {
                let (x, y) = (origin[0] + i % width, origin[1] + i / width);
                let [x, y] = base.at(x as f64, y as f64);
                sample(&luma, x, y) as f32
            };
            (0..width * height).map(at).collect()
        };
        Self {
            origin: origin.map(|side| side as i32),
            width,
            height,
            data,
        }
    }

    /// The 8×8 pixels from (x, y) on.
    fn block(&self, x: usize, y: usize) -> impl Iterator<Item = &[f32]> {
        (0..BLOCK).map(move |i| &self.data[(y + i) * self.width + x..][..BLOCK])
    }

    /// How well `layout` fits with these pixels where they are, as [`Canvas::slide`] has it, for the
    /// picture and for its negative.
    pub(super) fn score(&self, layout: &Layout, keyed: bool) -> [f64; 2] {
        let (mut sums, mut squares, mut marks) = ([[0i32; BITS]; 2], [0i32; 2], 0);
        let every = thinned(layout, self.width * self.height);
        for mark in layout.marks().iter().step_by(every) {
            let x = i32::from(mark.x) * BLOCK as i32 - self.origin[0];
            let y = i32::from(mark.y) * BLOCK as i32 - self.origin[1];
            let (right, bottom) = (x + BLOCK as i32, y + BLOCK as i32);
            if x < 0 || y < 0 || right > self.width as i32 || bottom > self.height as i32 {
                continue;
            }
            let (mut value, mut room) = (0.0, true);
            let basis = exact(mark.class).chunks_exact(BLOCK);
            for (row, basis) in self.block(x as usize, y as usize).zip(basis) {
                for (pixel, basis) in row.iter().zip(basis) {
                    value += pixel * *basis as f32;
                    room &= (NEAR..=255.0 - NEAR).contains(pixel);
                }
            }
            if room {
                marks += 1;
                let phase = phase(value, layout.step());
                let dither = phase_of_dither(mark.dither, layout.step());
                for (i, dither) in [dither, dither.wrapping_neg()].into_iter().enumerate() {
                    let vote = i32::from(vote(phase, dither));
                    sums[i][usize::from(mark.bit)] += vote;
                    squares[i] += vote * vote;
                }
            }
        }
        [0, 1].map(|i| {
            let energy = sums[i].iter().map(|&sum| (sum as f32).powi(2)).sum();
            f64::from(fit(energy, squares[i], marks, keyed))
        })
    }
}

/// Samples of `frame` at all of `across.1(0..across.0)` × `down.1(0..down.0)`.
fn upright(
    frame: &Plane,
    across: (usize, &dyn Fn(usize) -> f64),
    down: (usize, &dyn Fn(usize) -> f64),
) -> Vec<f32> {
    // Four neighbours of a sample and their weights.
    let taps = |at: f64, side: usize| {
        let before = at.floor();
        let first = before as isize - 1;
        let neighbours = [0, 1, 2, 3].map(|i| (first + i).clamp(0, side as isize - 1) as usize);
        (neighbours, weights(at - before).map(|weight| weight as f32))
    };
    let columns: Vec<_> = (0..across.0)
        .map(|i| taps(across.1(i), frame.width()))
        .collect();
    let rows: Vec<_> = (0..down.0)
        .map(|i| taps(down.1(i), frame.height()))
        .collect();
    let used = rows.iter().flat_map(|(neighbours, _)| neighbours);
    let (Some(&top), Some(&bottom)) = (used.clone().min(), used.max()) else {
        return Vec::new();
    };
    let mut stretched = Vec::with_capacity(across.0 * (bottom - top + 1));
    for y in top..=bottom {
        let row = &frame.data()[y * frame.width()..(y + 1) * frame.width()];
        stretched.extend(columns.iter().map(|(at, weights)| {
            let products = at.iter().zip(weights);
            products.map(|(&x, w)| w * f32::from(row[x])).sum::<f32>()
        }));
    }
    let mut data = vec![0.0f32; across.0 * down.0];
    for ((neighbours, weights), out) in rows.iter().zip(data.chunks_exact_mut(across.0.max(1))) {
        for (&y, weight) in neighbours.iter().zip(weights) {
            let from = &stretched[(y - top) * across.0..][..across.0];
            for (out, from) in out.iter_mut().zip(from) {
                *out += weight * from;
            }
        }
    }
    data
}

/// A coefficient in steps, without the whole ones: 2^16 is a step.
#[inline]
fn phase(value: f32, step: u32) -> u16 {
    // No coefficient is beyond 8·255, so nothing is cut off.
    (value * (65_536.0 / step as f32)) as i32 as u16
}

fn phase_of_dither(dither: u16, step: u32) -> u16 {
    (u64::from(dither) * 65_536 / (16 * u64::from(step))) as u16
}

/// Of −[`GREATEST`] (on the lattice of 0) to [`GREATEST`] (of 1).
#[inline]
fn vote(phase: u16, dither: u16) -> i16 {
    let from_zero = (phase.wrapping_sub(dither) as i16).unsigned_abs();
    (from_zero >> 8) as i16 - GREATEST
}

/// [`Votes::score`](super::Votes::score) and [`Votes::nearness`](super::Votes::nearness) in one,
/// with the same share of the squares for each bit.
#[inline]
fn fit(energy: f32, squares: i32, marks: i32, keyed: bool) -> f32 {
    // So few marks say nothing.
    if marks < FEWEST || squares == 0 {
        return 0.0;
    }
    let (squares, marks) = (squares as f32, marks as f32);
    let agreement = (energy - squares) / (squares * (2.0 / BITS as f32).sqrt());
    if !keyed {
        return agreement;
    }
    let squares = squares / f32::from(GREATEST * GREATEST);
    let nearness = (squares - marks / 3.0) / (marks * (4.0 / 45.0)).sqrt();
    // As in `votes::fit`.
    agreement.max((agreement + nearness) * std::f32::consts::FRAC_1_SQRT_2)
}

/// Of how many marks one is enough where `pixels` of them are seen.
fn thinned(layout: &Layout, pixels: usize) -> usize {
    // Sums of so many still fit into 16 bits, except where everything fits anyway.
    const ENOUGH: usize = 1_000;
    seen(layout, pixels).div_ceil(ENOUGH).max(1)
}

/// So many marks are within so many pixels, wherever they are.
fn seen(layout: &Layout, pixels: usize) -> usize {
    let [x, y] = layout.extent();
    layout.marks().len() * (pixels / BLOCK / BLOCK) / (x * y).max(1)
}

/// Phases of all blocks.
pub(super) struct Canvas {
    origin: [i32; 2],
    width: usize,
    height: usize,
    /// By class index; empty where no mark has it.
    phases: Vec<Vec<u16>>,
    /// All ones where the block may have carried marks, else zero; empty if all may.
    room: Vec<i16>,
}

impl Canvas {
    pub(super) fn new(pixels: &Pixels, classes: &[Class], step: u32) -> Self {
        let (width, height) = (pixels.width, pixels.height);
        let [wide, high] = [width, height].map(|side| (side + 1).saturating_sub(BLOCK));
        let mut phases = vec![Vec::new(); 64];
        let mut across = vec![0.0f32; wide * height];
        let mut line = vec![0.0f32; wide];
        for class in classes {
            // The basis is a product: its first row and column, scaled, are the factors.
            let (row, column) = factors(exact(*class));
            across.fill(0.0);
            for y in 0..height {
                let from = &pixels.data[y * width..(y + 1) * width];
                let to = &mut across[y * wide..(y + 1) * wide];
                for (k, weight) in row.iter().enumerate() {
                    for (to, from) in to.iter_mut().zip(&from[k.min(width)..]) {
                        *to += weight * from;
                    }
                }
            }
            let mut map = Vec::with_capacity(wide * high);
            for y in 0..high {
                line.fill(0.0);
                for (k, weight) in column.iter().enumerate() {
                    let from = &across[(y + k) * wide..(y + k + 1) * wide];
                    for (to, from) in line.iter_mut().zip(from) {
                        *to += weight * from;
                    }
                }
                map.extend(line.iter().map(|&value| phase(value, step)));
            }
            phases[class.index()] = map;
        }
        Self {
            origin: pixels.origin,
            width: wide,
            height: high,
            phases,
            room: room(pixels, wide, high),
        }
    }

    /// Marks that a slide over `range` looks at, roughly.
    pub(super) fn cost(&self, layout: &Layout, [(left, right), (top, bottom)]: Range) -> u64 {
        let shifts = (right - left + 1).max(0) as u64 * (bottom - top + 1).max(0) as u64;
        let pixels = self.width * self.height;
        shifts * (seen(layout, pixels) / thinned(layout, pixels)).max(1) as u64
    }

    /// Calls `each` with the score and the shift (x, y), so that what the frame has at (0, 0) is at
    /// (x, y) in the original, where the score is at least `least`. A negative votes with the
    /// dithers turned: |−phase − dither| = |phase + dither|.
    pub(super) fn slide(
        &self,
        layout: &Layout,
        [negative, keyed]: [bool; 2],
        [(left, right), (top, bottom)]: Range,
        least: f64,
        stop: &AtomicBool,
        mut each: impl FnMut(f64, i32, i32),
    ) {
        let count = (right - left + 1).max(0) as usize;
        let mut sums = vec![0i16; BITS * count];
        let mut energy = vec![0.0f32; count];
        let mut squares = vec![0i16; count];
        let mut marks_at = vec![0i16; count];
        let every = thinned(layout, self.width * self.height);
        if count == 0 {
            return;
        }
        for shift_y in top..=bottom {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            sums.fill(0);
            energy.fill(0.0);
            squares.fill(0);
            marks_at.fill(0);
            for mark in layout.marks().iter().step_by(every) {
                let y = i32::from(mark.y) * BLOCK as i32 - shift_y - self.origin[1];
                let map = &self.phases[mark.class.index()];
                if y < 0 || y >= self.height as i32 || map.is_empty() {
                    continue;
                }
                // Shift x reads column mark − x: the shifts that stay inside, and their columns.
                let column = i32::from(mark.x) * BLOCK as i32 - self.origin[0];
                let first = left.max(column - self.width as i32 + 1);
                let last = right.min(column);
                if first > last {
                    continue;
                }
                let length = (last - first + 1) as usize;
                let from = y as usize * self.width + (column - last) as usize;
                let phases = &map[from..from + length];
                // Shifts are kept from right to left, as the columns run.
                let at = (right - last) as usize;
                let bit = usize::from(mark.bit) * count + at;
                let sums = &mut sums[bit..bit + length];
                let squares = &mut squares[at..at + length];
                let marks_at = &mut marks_at[at..at + length];
                let dither = phase_of_dither(mark.dither, layout.step());
                let dither = if negative {
                    dither.wrapping_neg()
                } else {
                    dither
                };
                if self.room.is_empty() {
                    for i in 0..length {
                        let vote = vote(phases[i], dither);
                        sums[i] = sums[i].saturating_add(vote);
                        squares[i] =
                            squares[i].saturating_add((vote * vote + GREATEST / 2) / GREATEST);
                        marks_at[i] += 1;
                    }
                } else {
                    let room = &self.room[from..from + length];
                    for i in 0..length {
                        let vote = vote(phases[i], dither) & room[i];
                        sums[i] = sums[i].saturating_add(vote);
                        squares[i] =
                            squares[i].saturating_add((vote * vote + GREATEST / 2) / GREATEST);
                        marks_at[i] -= room[i];
                    }
                }
            }
            for sums in sums.chunks_exact(count) {
                for (energy, &sum) in energy.iter_mut().zip(sums) {
                    *energy += f32::from(sum) * f32::from(sum);
                }
            }
            for at in 0..count {
                let squares = i32::from(squares[at]) * i32::from(GREATEST);
                let score = fit(energy[at], squares, marks_at[at].into(), keyed);
                let score = f64::from(score);
                if score >= least {
                    each(score, right - at as i32, shift_y);
                }
            }
        }
    }
}

/// Least and greatest shift, of x and y.
pub(super) type Range = [(i32, i32); 2];

/// Where no pixel of the block is too near to black or white.
fn room(pixels: &Pixels, wide: usize, high: usize) -> Vec<i16> {
    let inside = |pixel: &f32| (NEAR..=255.0 - NEAR).contains(pixel);
    if pixels.data.iter().all(inside) {
        return Vec::new();
    }
    let good: Vec<i16> = pixels.data.iter().map(|p| -i16::from(inside(p))).collect();
    let mut across = vec![-1i16; wide * pixels.height];
    for y in 0..pixels.height {
        let from = &good[y * pixels.width..(y + 1) * pixels.width];
        for k in 0..BLOCK.min(pixels.width) {
            let to = &mut across[y * wide..(y + 1) * wide];
            for (to, from) in to.iter_mut().zip(&from[k..]) {
                *to &= from;
            }
        }
    }
    let mut room = vec![-1i16; wide * high];
    for y in 0..high {
        for k in 0..BLOCK {
            let to = &mut room[y * wide..(y + 1) * wide];
            for (to, from) in to.iter_mut().zip(&across[(y + k) * wide..]) {
                *to &= from;
            }
        }
    }
    room
}

/// The horizontal and vertical factor of a basis picture.
fn factors(basis: &[f64; 64]) -> ([f32; 8], [f32; 8]) {
    // The corner is nowhere zero: a_k(0) = s_k·cos(kπ/16).
    let corner = basis[0];
    let row = std::array::from_fn(|x| basis[x] as f32);
    let column = std::array::from_fn(|y| (basis[8 * y] / corner) as f32);
    (row, column)
}
