// SPDX-License-Identifier: MPL-2.0
//! A reversible 8×8 DCT-II: integers to integers, sixteen blocks side by side.
//!
//! The orthonormal transform is a product of simpler ones, each done by lifting: a step adds to some
//! numbers a rounded function of other ones, so that, whatever the rounding, the inverse subtracts
//! the same. All arithmetic is modulo 2^16: both directions are bijections of all of (Z/2^16)^64,
//! and equal on every machine. What is rounded makes the result differ from the exact transform and
//! costs bits, so there is as little rounding as possible:
//!
//! - The butterflies of rows and columns together are Hadamard transforms of four numbers, with one
//!   rounding for all four (ITU-T T.832, 9.9.5).
//! - Of an orthogonal and symmetric M (butterflies, DCT-IV, and products of both along different
//!   sides), a *pair* of vectors takes three steps with one rounding a number (Geiger, Yokotani and
//!   Schuller 2002, "multidimensional lifting"): b += \[Ma\], a −= \[Mb\], b += \[Ma\] make of
//!   (a, b) (−Mb, Ma), because MM = 1.
//! - The few rotations that are left are three steps each (Daubechies and Sweldens 1998).

use super::picture::Tiles;
use super::simd;
use crate::watermark::BLOCK;

/// Blocks side by side.
pub(super) const LANES: usize = 16;

/// One number of each of the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(32))]
pub(super) struct Lanes(pub [i16; LANES]);

/// Blocks: entry 8·row + column, then the block. Samples, or coefficients with 8·u + v.
pub(super) type Group = [Lanes; 64];

/// Blocks of zeros.
pub(super) const ZERO: Group = [NONE; 64];
const NONE: Lanes = Lanes([0; LANES]);

// Multipliers times 2^15.
/// DCT-IV of four: cos((2n+1)(2k+1)π/16)/√2.
const FOURTH: [[i32; 4]; 4] = [
    [22725, 19266, 12873, 4520],
    [19266, -4520, -22725, -12873],
    [12873, -22725, 4520, 19266],
    [4520, -12873, 19266, -22725],
];
/// The same over √2.
const HALVED: [[i32; 4]; 4] = [
    [16069, 13623, 9102, 3196],
    [13623, -3196, -16069, -9102],
    [9102, -16069, 3196, 13623],
    [3196, -9102, 13623, -16069],
];
/// The reflection (cos π/8, sin π/8; sin π/8, −cos π/8) over √2.
const MIRROR: [[i32; 2]; 2] = [[21407, 8867], [8867, -21407]];
/// Half the angle's tangent and its sine: of π/4 and π/8.
const QUARTER: [i32; 2] = [13573, 23170];
const EIGHTH: [i32; 2] = [6518, 12540];

/// Sixteen numbers, and what is done with them.
pub(super) trait Numbers: Copy + From<Lanes> + Into<Lanes> {
    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    /// [a/2], down.
    fn half(self) -> Self;
    /// [a·by / 2^15], halves up; `by` fits 16 bits.
    fn times(self, by: i32) -> Self;
    /// [Mv], each number rounded once, halves up; the matrix fits 16 bits, times 2^15. N is even.
    fn product<const N: usize>(matrix: &[[i32; N]; N], vector: [Self; N]) -> [Self; N];
    /// −1 where it is greater, else 0.
    fn greater(self, than: Self) -> Self;
    /// Where it is −1 the first, where it is 0 the second.
    fn choose(self, first: Self, second: Self) -> Self;
    /// Sixteen times the same.
    #[inline(always)]
    fn all(number: i16) -> Self {
        Lanes([number; LANES]).into()
    }
}

impl Numbers for Lanes {
    #[inline(always)]
    fn plus(mut self, other: Self) -> Self {
        for i in 0..LANES {
            self.0[i] = self.0[i].wrapping_add(other.0[i]);
        }
        self
    }

    #[inline(always)]
    fn minus(mut self, other: Self) -> Self {
        for i in 0..LANES {
            self.0[i] = self.0[i].wrapping_sub(other.0[i]);
        }
        self
    }

    #[inline(always)]
    fn half(mut self) -> Self {
        for i in 0..LANES {
            self.0[i] >>= 1;
        }
        self
    }

    #[inline(always)]
    fn times(mut self, by: i32) -> Self {
        for i in 0..LANES {
            self.0[i] = ((((i32::from(self.0[i]) * by) >> 14) + 1) >> 1) as i16;
        }
        self
    }

    #[inline(always)]
    fn product<const N: usize>(matrix: &[[i32; N]; N], vector: [Self; N]) -> [Self; N] {
        let mut out = vector;
        for (out, row) in out.iter_mut().zip(matrix) {
            for i in 0..LANES {
                let mut sum = 1 << 14;
                for j in 0..N {
                    sum = i32::wrapping_add(sum, i32::from(vector[j].0[i]) * row[j]);
                }
                out.0[i] = (sum >> 15) as i16;
            }
        }
        out
    }

    #[inline(always)]
    fn greater(mut self, than: Self) -> Self {
        for i in 0..LANES {
            self.0[i] = -i16::from(self.0[i] > than.0[i]);
        }
        self
    }

    #[inline(always)]
    fn choose(mut self, first: Self, second: Self) -> Self {
        for i in 0..LANES {
            self.0[i] = self.0[i] & first.0[i] | !self.0[i] & second.0[i];
        }
        self
    }
}

#[inline(always)]
fn plus<L: Numbers>(a: L, b: L) -> L {
    a.plus(b)
}

#[inline(always)]
fn minus<L: Numbers>(a: L, b: L) -> L {
    a.minus(b)
}

#[inline(always)]
fn negate<L: Numbers>(a: L) -> L {
    L::from(NONE).minus(a)
}

#[inline(always)]
fn times<L: Numbers>(a: L, by: i32) -> L {
    a.times(by)
}

/// (a, b) → (a cos θ + b sin θ, b cos θ − a sin θ), given tan(θ/2) and sin θ.
#[inline(always)]
fn turn<L: Numbers>([a, b]: [L; 2], [tan, sin]: [i32; 2]) -> [L; 2] {
    let a = plus(a, times(b, tan));
    let b = minus(b, times(a, sin));
    [plus(a, times(b, tan)), b]
}

/// The inverse of [`turn`].
#[inline(always)]
fn back<L: Numbers>([a, b]: [L; 2], [tan, sin]: [i32; 2]) -> [L; 2] {
    let a = minus(a, times(b, tan));
    let b = plus(b, times(a, sin));
    [minus(a, times(b, tan)), b]
}

/// Half of (a + b + c + d, a + b − c − d, a − b + c − d, a − b − c + d). Its own inverse.
#[inline(always)]
fn hadamard<L: Numbers>([a, b, c, d]: [L; 4]) -> [L; 4] {
    let (a, b) = (plus(a, d), minus(b, c));
    let half = minus(a, b).half();
    let (c, d) = (minus(half, d), minus(half, c));
    [minus(a, d), plus(b, c), c, d]
}

/// [Mv] for M along the vector and a butterfly between its halves, given M/√2.
#[inline(always)]
fn crossed<L: Numbers, const N: usize>(matrix: &[[i32; N]; N], [a, b]: [[L; N]; 2]) -> [[L; N]; 2] {
    let (mut sum, mut difference) = (a, a);
    for i in 0..N {
        sum[i] = plus(a[i], b[i]);
        difference[i] = minus(a[i], b[i]);
    }
    [L::product(matrix, sum), L::product(matrix, difference)]
}

/// [Mv] for one vector, [`crossed`] for two.
#[inline(always)]
fn apply<L: Numbers, const N: usize, const R: usize>(
    matrix: &[[i32; N]; N],
    v: [[L; N]; R],
) -> [[L; N]; R] {
    let mut out = v;
    match R {
        2 => [out[0], out[R - 1]] = crossed(matrix, [v[0], v[R - 1]]),
        _ => out[0] = L::product(matrix, v[0]),
    }
    out
}

/// a + b, or with `LESS` a − b.
#[inline(always)]
fn sum<L: Numbers, const N: usize, const R: usize, const LESS: bool>(
    mut a: [[L; N]; R],
    b: [[L; N]; R],
) -> [[L; N]; R] {
    for r in 0..R {
        for i in 0..N {
            a[r][i] = match LESS {
                true => minus(a[r][i], b[r][i]),
                false => plus(a[r][i], b[r][i]),
            };
        }
    }
    a
}

/// (Ma, Mb) for an orthogonal, symmetric M.
#[inline(always)]
fn pair<L: Numbers, const N: usize, const R: usize>(
    a: [[L; N]; R],
    b: [[L; N]; R],
    m: &[[i32; N]; N],
) -> [[[L; N]; R]; 2] {
    let b = sum::<L, N, R, false>(b, apply(m, a));
    let a = sum::<L, N, R, true>(a, apply(m, b));
    let b = sum::<L, N, R, false>(b, apply(m, a));
    [b, sum::<L, N, R, true>([[L::from(NONE); N]; R], a)]
}

/// The inverse of [`pair`].
#[inline(always)]
fn unpair<L: Numbers, const N: usize, const R: usize>(
    a: [[L; N]; R],
    b: [[L; N]; R],
    m: &[[i32; N]; N],
) -> [[[L; N]; R]; 2] {
    let (b, a) = (a, sum::<L, N, R, true>([[L::from(NONE); N]; R], b));
    let b = sum::<L, N, R, true>(b, apply(m, a));
    let a = sum::<L, N, R, false>(a, apply(m, b));
    let b = sum::<L, N, R, true>(b, apply(m, a));
    [a, b]
}

type Quarter<L> = [[L; 4]; 4];

#[inline(always)]
fn transposed<L: Numbers>(q: Quarter<L>) -> Quarter<L> {
    let mut out = q;
    for y in 0..4 {
        for x in 0..4 {
            out[x][y] = q[y][x];
        }
    }
    out
}

/// DCT-IV along rows, DCT-II along columns.
#[inline(always)]
fn mixed<L: Numbers>(q: Quarter<L>) -> Quarter<L> {
    let [[e0, n0], [e1, n1]] = pair([q[0], q[3]], [q[1], q[2]], &HALVED);
    let mut out = q;
    for x in 0..4 {
        let [y0, y4] = turn([e0[x], e1[x]], QUARTER);
        let [y2, y6] = turn([n0[x], n1[x]], EIGHTH);
        (out[0][x], out[1][x]) = (y0, y2);
        (out[2][x], out[3][x]) = (negate(y4), negate(y6));
    }
    out
}

/// The inverse of [`mixed`].
#[inline(always)]
fn unmixed<L: Numbers>(q: Quarter<L>) -> Quarter<L> {
    let (mut e0, mut e1, mut n0, mut n1) = (q[0], q[0], q[0], q[0]);
    for x in 0..4 {
        [e0[x], e1[x]] = back([q[0][x], negate(q[2][x])], QUARTER);
        [n0[x], n1[x]] = back([q[1][x], negate(q[3][x])], EIGHTH);
    }
    let [[r0, r3], [r1, r2]] = unpair([e0, n0], [e1, n1], &HALVED);
    [r0, r1, r2, r3]
}

/// DCT-IV along rows.
#[inline(always)]
fn odd<L: Numbers>(q: Quarter<L>) -> Quarter<L> {
    let [[r0], [r1]] = pair([q[0]], [q[1]], &FOURTH);
    let [[r2], [r3]] = pair([q[2]], [q[3]], &FOURTH);
    [r0, r1, r2, r3]
}

/// The inverse of [`odd`].
#[inline(always)]
fn unodd<L: Numbers>(q: Quarter<L>) -> Quarter<L> {
    let [[r0], [r1]] = unpair([q[0]], [q[1]], &FOURTH);
    let [[r2], [r3]] = unpair([q[2]], [q[3]], &FOURTH);
    [r0, r1, r2, r3]
}

/// DCT-II along rows and columns.
#[inline(always)]
fn even<L: Numbers>(q: Quarter<L>) -> Quarter<L> {
    let s00 = hadamard([q[0][0], q[0][3], q[3][0], q[3][3]]);
    let s01 = hadamard([q[0][1], q[0][2], q[3][1], q[3][2]]);
    let s10 = hadamard([q[1][0], q[1][3], q[2][0], q[2][3]]);
    let s11 = hadamard([q[1][1], q[1][2], q[2][1], q[2][2]]);
    let mut out = q;
    // Even and even: 0 and 4 both ways.
    [out[0][0], out[2][0], out[0][2], out[2][2]] = hadamard([s00[0], s01[0], s10[0], s11[0]]);
    // Butterfly one way and reflection the other.
    let across = [[s00[2], s01[2]], [s10[2], s11[2]]];
    let down = [[s00[1], s10[1]], [s01[1], s11[1]]];
    let [across, down] = pair(across, down, &MIRROR);
    for i in 0..2 {
        for j in 0..2 {
            out[2 * i][2 * j + 1] = across[i][j];
            out[2 * j + 1][2 * i] = down[i][j];
        }
    }
    // Rotations both ways; each makes the second coefficient negative.
    let [a0, a1] = turn([s00[3], s01[3]], EIGHTH);
    let [b0, b1] = turn([s10[3], s11[3]], EIGHTH);
    let [c22, c62] = turn([a0, b0], EIGHTH);
    let [c26, c66] = turn([a1, b1], EIGHTH);
    (out[1][1], out[3][1]) = (c22, negate(c62));
    (out[1][3], out[3][3]) = (negate(c26), c66);
    out
}

/// The inverse of [`even`].
#[inline(always)]
fn uneven<L: Numbers>(q: Quarter<L>) -> Quarter<L> {
    let ee = hadamard([q[0][0], q[2][0], q[0][2], q[2][2]]);
    let mut across = [[L::from(NONE); 2]; 2];
    let mut down = across;
    for i in 0..2 {
        for j in 0..2 {
            across[i][j] = q[2 * i][2 * j + 1];
            down[i][j] = q[2 * j + 1][2 * i];
        }
    }
    let [across, down] = unpair(across, down, &MIRROR);
    let [a0, b0] = back([q[1][1], negate(q[3][1])], EIGHTH);
    let [a1, b1] = back([negate(q[1][3]), q[3][3]], EIGHTH);
    let [o00, o01] = back([a0, a1], EIGHTH);
    let [o10, o11] = back([b0, b1], EIGHTH);
    let oo = [[o00, o01], [o10, o11]];
    let mut out = q;
    for y in 0..2 {
        for x in 0..2 {
            let four = [ee[2 * y + x], down[x][y], across[y][x], oo[y][x]];
            let [a, b, c, d] = hadamard(four);
            (out[y][x], out[y][3 - x]) = (a, b);
            (out[3 - y][x], out[3 - y][3 - x]) = (c, d);
        }
    }
    out
}

/// Samples to coefficients.
#[inline(always)]
pub(super) fn forward<L: Numbers>(group: &mut Group) {
    let mut quarters = [[[L::from(NONE); 4]; 4]; 4];
    for y in 0..4 {
        for x in 0..4 {
            let [a, b, c, d] = [8 * y + x, 8 * y + 7 - x, 56 - 8 * y + x, 63 - 8 * y - x];
            let four = hadamard([a, b, c, d].map(|i| L::from(group[i])));
            for (quarter, value) in quarters.iter_mut().zip(four) {
                quarter[y][x] = value;
            }
        }
    }
    let [ee, oe, eo, oo] = quarters;
    put(group, even(ee), [0, 0]);
    put(group, mixed(eo), [0, 1]);
    put(group, transposed(mixed(transposed(oe))), [1, 0]);
    put(group, transposed(odd(transposed(odd(oo)))), [1, 1]);
}

/// Coefficients to samples: undoes [`forward`].
#[inline(always)]
pub(super) fn inverse<L: Numbers>(group: &mut Group) {
    let ee = uneven(take::<L>(group, [0, 0]));
    let eo = unmixed(take::<L>(group, [0, 1]));
    let oe = transposed(unmixed(transposed(take(group, [1, 0]))));
    let oo = unodd(transposed(unodd(transposed(take(group, [1, 1])))));
    for y in 0..4 {
        for x in 0..4 {
            let at = [8 * y + x, 8 * y + 7 - x, 56 - 8 * y + x, 63 - 8 * y - x];
            let four = hadamard([ee[y][x], oe[y][x], eo[y][x], oo[y][x]]);
            for (i, value) in at.into_iter().zip(four) {
                group[i] = value.into();
            }
        }
    }
}

#[inline(always)]
fn put<L: Numbers>(group: &mut Group, quarter: Quarter<L>, [u, v]: [usize; 2]) {
    for y in 0..4 {
        for x in 0..4 {
            group[8 * (2 * y + u) + 2 * x + v] = quarter[y][x].into();
        }
    }
}

#[inline(always)]
fn take<L: Numbers>(group: &Group, [u, v]: [usize; 2]) -> Quarter<L> {
    let mut quarter = [[L::from(NONE); 4]; 4];
    for (y, row) in quarter.iter_mut().enumerate() {
        for (x, entry) in row.iter_mut().enumerate() {
            *entry = group[8 * (2 * y + u) + 2 * x + v].into();
        }
    }
    quarter
}

/// A row of sixteen blocks: eight samples, sixteen blocks each; or the same bytes in another order.
type Bytes = [[u8; LANES]; BLOCK];

/// Moves byte i of 128 to 2i modulo 127. Three times turn columns into rows, four times rows into
/// columns.
#[inline(always)]
fn shuffle(a: Bytes) -> Bytes {
    let mut b = a;
    for i in 0..4 {
        [b[2 * i], b[2 * i + 1]] = simd::interleave(a[i], a[i + 4]);
    }
    b
}

/// Reads up to sixteen blocks of a plane.
#[inline(always)]
pub(super) fn load(group: &mut Group, tiles: &Tiles, samples: &[u8], blocks: &[u32]) {
    let mut at = [0; LANES];
    for (at, &block) in at.iter_mut().zip(blocks) {
        let [x, y, ..] = tiles.area(block as usize);
        *at = y * tiles.width + x;
    }
    for (i, line) in group.chunks_exact_mut(BLOCK).enumerate() {
        let mut bytes = [[0; LANES]; BLOCK];
        for (lane, at) in at.iter().enumerate().take(blocks.len()) {
            let from = at + i * tiles.width;
            let half = lane % 2 * BLOCK;
            bytes[lane / 2][half..half + BLOCK].copy_from_slice(&samples[from..from + BLOCK]);
        }
        let bytes = shuffle(shuffle(shuffle(shuffle(bytes))));
        for (entry, bytes) in line.iter_mut().zip(bytes) {
            for (value, byte) in entry.0.iter_mut().zip(bytes) {
                *value = byte.into();
            }
        }
    }
}

/// Writes up to sixteen blocks of a plane, cut off at 0 and 255.
#[inline(always)]
pub(super) fn store(group: &Group, tiles: &Tiles, samples: &mut [u8], blocks: &[u32]) {
    let mut at = [0; LANES];
    for (at, &block) in at.iter_mut().zip(blocks) {
        let [x, y, ..] = tiles.area(block as usize);
        *at = y * tiles.width + x;
    }
    for (i, line) in group.chunks_exact(BLOCK).enumerate() {
        let mut bytes = [[0; LANES]; BLOCK];
        for (bytes, entry) in bytes.iter_mut().zip(line) {
            for (byte, value) in bytes.iter_mut().zip(entry.0) {
                *byte = value.clamp(0, 255) as u8;
            }
        }
        let bytes = shuffle(shuffle(shuffle(bytes)));
        for (lane, at) in at.iter().enumerate().take(blocks.len()) {
            let to = at + i * tiles.width;
            let half = lane % 2 * BLOCK;
            samples[to..to + BLOCK].copy_from_slice(&bytes[lane / 2][half..half + BLOCK]);
        }
    }
}
