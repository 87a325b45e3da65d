// SPDX-License-Identifier: MPL-2.0
//! The 8×8 orthonormal DCT-II, one coefficient at a time.
//!
//! Coefficient (u, v): u is the vertical frequency, v the horizontal one. Its basis picture is
//! a_u(y)·a_v(x), a_k(n) = s_k·cos((2n+1)kπ/16), s_0 = √(1/8), s_k = 1/2.

use super::Class;
use crate::luma::Block;
use std::sync::LazyLock;

/// Bits after the point of [`fixed`].
pub const SHIFT: u32 = 12;

/// cos(kπ/16), k = 0..=8, correctly rounded. Literals: a library's cosine could differ in the last
/// bit from one machine to the next.
const COS: [f64; 9] = [
    1.0,
    0.980_785_280_403_230_4,
    0.923_879_532_511_286_7,
    0.831_469_612_302_545_2,
    std::f64::consts::FRAC_1_SQRT_2,
    0.555_570_233_019_602_2,
    0.382_683_432_365_089_8,
    0.195_090_322_016_128_27,
    0.0,
];

fn a(k: usize, n: usize) -> f64 {
    // (2n+1)k sixteenths of half a turn, folded into the first quarter.
    let angle = (2 * n + 1) * k % 32;
    let cos = match angle {
        0..=8 => COS[angle],
        9..=16 => -COS[16 - angle],
        17..=24 => -COS[angle - 16],
        _ => COS[32 - angle],
    };
    match k {
        0 => std::f64::consts::FRAC_1_SQRT_2 / 2.0,
        _ => cos / 2.0,
    }
}

static EXACT: LazyLock<[Block<f64>; 64]> = LazyLock::new(|| {
    std::array::from_fn(|uv| std::array::from_fn(|yx| a(uv / 8, yx / 8) * a(uv % 8, yx % 8)))
});

/// No value lies nearer than 10^-4 to the middle between two integers (a test sees to it), so the
/// rounding is the same on every machine.
static FIXED: LazyLock<[Block<i16>; 64]> = LazyLock::new(|| {
    let scale = f64::from(1 << SHIFT);
    EXACT.map(|block| block.map(|value| (value * scale + 0.5).floor() as i16))
});

/// The basis picture of a coefficient.
pub fn exact(class: Class) -> &'static Block<f64> {
    &EXACT[class.index()]
}

/// The same times 2^[`SHIFT`], rounded: what pixels are computed with.
pub fn fixed(class: Class) -> &'static Block<i16> {
    &FIXED[class.index()]
}

/// A coefficient of 8-bit samples, times 2^[`SHIFT`], with the rounded basis.
#[inline]
pub fn coefficient(block: &Block<i16>, class: Class) -> i32 {
    let basis = fixed(class);
    let products = block.iter().zip(basis);
    products.map(|(&s, &b)| i32::from(s) * i32::from(b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orthonormal_and_far_from_ties() {
        for (i, one) in EXACT.iter().enumerate() {
            for (j, other) in EXACT.iter().enumerate() {
                let product: f64 = one.iter().zip(other).map(|(a, b)| a * b).sum();
                assert!((product - f64::from(u8::from(i == j))).abs() < 1e-14);
            }
            for value in one {
                let fraction = (value * 4096.0).rem_euclid(1.0);
                assert!((fraction - 0.5).abs() > 1e-4, "{i}: {value}");
            }
        }
    }
}
