// SPDX-License-Identifier: MPL-2.0
//! A reversible 8×8 DCT-II: integers to integers, sixteen blocks side by side.
//!
//! The orthonormal transform is a product of rotations by −π/4 ("butterflies") and ±π/8. Each
//! rotation by θ is three lifting steps (Daubechies and Sweldens 1998)
//!
//! ```text
//! a += [−tan(θ/2)·b]    b += [sin θ·a]    a += [−tan(θ/2)·b]
//! ```
//!
//! whose products are rounded. A step adds to one number a function of another one: whatever the
//! rounding, the inverse subtracts the same. All arithmetic is modulo 2^16, so that both directions
//! are bijections of all of (Z/2^16)^64, and equal on every machine.

/// Blocks side by side.
pub(super) const LANES: usize = 16;

/// One number of each of the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(32))]
pub(super) struct Lanes(pub [i16; LANES]);

/// Blocks: entry 8·row + column, then the block. Samples, or coefficients with 8·u + v.
pub(super) type Group = [Lanes; 64];

/// Blocks of zeros.
pub(super) const ZERO: Group = [Lanes([0; LANES]); 64];

/// a + [b·by / 2^15], halves up.
#[inline(always)]
fn lift(a: &mut Lanes, b: Lanes, by: i32) {
    for i in 0..LANES {
        let product = (((i32::from(b.0[i]) * by) >> 14) + 1) >> 1;
        a.0[i] = a.0[i].wrapping_add(product as i16);
    }
}

/// a − [b·by / 2^15].
#[inline(always)]
fn drop(a: &mut Lanes, b: Lanes, by: i32) {
    for i in 0..LANES {
        let product = (((i32::from(b.0[i]) * by) >> 14) + 1) >> 1;
        a.0[i] = a.0[i].wrapping_sub(product as i16);
    }
}

#[inline(always)]
fn negate(mut a: Lanes) -> Lanes {
    for i in 0..LANES {
        a.0[i] = a.0[i].wrapping_neg();
    }
    a
}

/// (a, b) → (a cos θ + b sin θ, b cos θ − a sin θ), given tan(θ/2) and sin θ.
#[inline(always)]
fn turn([mut a, mut b]: [Lanes; 2], [tan, sin]: [i32; 2]) -> [Lanes; 2] {
    lift(&mut a, b, tan);
    drop(&mut b, a, sin);
    lift(&mut a, b, tan);
    [a, b]
}

/// The inverse of [`turn`].
#[inline(always)]
fn back([mut a, mut b]: [Lanes; 2], [tan, sin]: [i32; 2]) -> [Lanes; 2] {
    drop(&mut a, b, tan);
    lift(&mut b, a, sin);
    drop(&mut a, b, tan);
    [a, b]
}

// Half the angle's tangent and its sine: of π/4, π/8, π/16 and 3π/16.
const QUARTER: [i32; 2] = [13573, 23170];
const EIGHTH: [i32; 2] = [6518, 12540];
const SIXTEENTH: [i32; 2] = [3227, 6393];
const THREE: [i32; 2] = [9940, 18205];

/// Eight points: sums go through a DCT-II of four, differences through a DCT-IV of four.
#[inline(always)]
fn forward8(x: [Lanes; 8]) -> [Lanes; 8] {
    // A butterfly gives (a + b)/√2 and (b − a)/√2.
    let [s0, m0] = turn([x[0], x[7]], QUARTER);
    let [s1, m1] = turn([x[1], x[6]], QUARTER);
    let [s2, m2] = turn([x[2], x[5]], QUARTER);
    let [s3, m3] = turn([x[3], x[4]], QUARTER);
    let [e0, n0] = turn([s0, s3], QUARTER);
    let [e1, n1] = turn([s1, s2], QUARTER);
    let [y0, y4] = turn([e0, e1], QUARTER);
    let [y2, y6] = turn([n0, n1], EIGHTH);
    let [r0, i0] = turn([m0, m3], SIXTEENTH);
    let [r1, i1] = turn([m1, m2], THREE);
    let [y1, r] = turn([r0, r1], QUARTER);
    let [i, y7] = turn([i1, i0], QUARTER);
    let [y3, y5] = turn([r, i], QUARTER);
    [
        y0,
        negate(y1),
        negate(y2),
        y3,
        negate(y4),
        negate(y5),
        y6,
        y7,
    ]
}

/// The inverse of [`forward8`].
#[inline(always)]
fn inverse8(y: [Lanes; 8]) -> [Lanes; 8] {
    let [r, i] = back([y[3], negate(y[5])], QUARTER);
    let [i1, i0] = back([i, y[7]], QUARTER);
    let [r0, r1] = back([negate(y[1]), r], QUARTER);
    let [m1, m2] = back([r1, i1], THREE);
    let [m0, m3] = back([r0, i0], SIXTEENTH);
    let [n0, n1] = back([negate(y[2]), y[6]], EIGHTH);
    let [e0, e1] = back([y[0], negate(y[4])], QUARTER);
    let [s1, s2] = back([e1, n1], QUARTER);
    let [s0, s3] = back([e0, n0], QUARTER);
    let [x3, x4] = back([s3, m3], QUARTER);
    let [x2, x5] = back([s2, m2], QUARTER);
    let [x1, x6] = back([s1, m1], QUARTER);
    let [x0, x7] = back([s0, m0], QUARTER);
    [x0, x1, x2, x3, x4, x5, x6, x7]
}

#[inline(always)]
fn along(group: &mut Group, first: usize, step: usize, by: impl Fn([Lanes; 8]) -> [Lanes; 8]) {
    let mut line = [Lanes([0; LANES]); 8];
    for (i, entry) in line.iter_mut().enumerate() {
        *entry = group[first + step * i];
    }
    for (i, entry) in by(line).into_iter().enumerate() {
        group[first + step * i] = entry;
    }
}

/// Samples to coefficients: rows, then columns.
#[inline(always)]
pub(super) fn forward(group: &mut Group) {
    for y in 0..8 {
        along(group, 8 * y, 1, forward8);
    }
    for x in 0..8 {
        along(group, x, 8, forward8);
    }
}

/// Coefficients to samples: undoes [`forward`].
#[inline(always)]
pub(super) fn inverse(group: &mut Group) {
    for x in 0..8 {
        along(group, x, 8, inverse8);
    }
    for y in 0..8 {
        along(group, 8 * y, 1, inverse8);
    }
}
