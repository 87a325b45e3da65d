// SPDX-License-Identifier: MPL-2.0
//! How likely it is to accuse the wrong one.
//!
//! In a video without the mark the sign of every bit's votes is a fair coin, independent of the
//! others and of the votes' magnitudes (`docs/security.md`, "False accusation", says why). Two
//! tests follow for one registered word with bits s_j = ±1:
//!
//! - hard: the number of wrong bits is binomial, P(errors ≤ d) = Σ_{k≤d} C(128, k) / 2^128, exactly
//!   ([`tail`]);
//! - soft: T = Σ s_j·v_j / √(Σ v_j²) has P(T ≥ t) ≤ exp(−t²/2) for t ≥ 0, whatever the magnitudes
//!   (Hoeffding 1963). It weighs the bits that could be read well.
//!
//! Taking the smaller of two p-values costs a factor 2, comparing with M words costs a factor M, and
//! taking complements too another 2 (union bound).

use super::code::correlation;
use super::{BITS, Word};

/// Greatest part of wrong bits with which a word is accepted. The 40 % of [RTBF] fit one innocent
/// video in 75 with a single registered mark.
pub const MAX_BER: f64 = 0.25;

/// Greatest probability of accepting anything for a video without a mark.
pub const MAX_FALSE_POSITIVE: f64 = 1e-9;

/// What a video was compared with, all in all: the more, the more must one of them fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    /// Registered marks, under all keys; times the readings, where the same video or stream is read
    /// and judged many times. Whoever takes any word of a code counts all of its identities.
    pub marks: u64,
    /// Whether the complement of a mark is taken for the mark.
    pub complements: bool,
}

impl Compared {
    /// With the words of `marks` marks and not with their complements.
    pub fn with(marks: u64) -> Self {
        Self {
            marks,
            complements: false,
        }
    }

    /// Words compared with, at least one.
    fn words(self) -> f64 {
        let signs = if self.complements { 2.0 } else { 1.0 };
        self.marks.max(1) as f64 * signs
    }
}

/// What votes say for one word.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// Bits whose votes are against the word, or absent.
    pub errors: u32,
    /// The same as a part of all bits.
    pub ber: f64,
    /// Upper bound of the probability that a video without a mark fits any of the words compared
    /// with as well as this.
    pub false_positive: f64,
}

impl Evidence {
    /// Of `votes` for `word`, as it was registered: neither without its pad.
    pub fn new(votes: &[f64; BITS], word: Word, compared: Compared) -> Self {
        // A bit without votes counts as wrong: that can only be too careful.
        let agrees = |bit: usize| match word.bit(bit) {
            true => votes[bit] > 0.0,
            false => votes[bit] < 0.0,
        };
        let errors = (0..BITS).filter(|&bit| !agrees(bit)).count() as u32;
        let one = 2.0 * tail(errors).min(soft_bound(votes, word));
        Self {
            errors,
            ber: f64::from(errors) / BITS as f64,
            false_positive: (one * compared.words()).min(1.0),
        }
    }

    /// Whether it is enough to say that the video bears the mark.
    pub fn accepted(&self) -> bool {
        self.ber <= MAX_BER && self.false_positive <= MAX_FALSE_POSITIVE
    }
}

/// P(at most `errors` of 128 fair coins show heads), to the last bit.
pub fn tail(errors: u32) -> f64 {
    if errors as usize >= BITS {
        return 1.0;
    }
    // In integers: the sum is below 2^128. The product of a binomial coefficient and 128 − k need
    // not be, so the division goes first.
    let (mut binomial, mut sum) = (1u128, 1u128);
    for k in 0..u128::from(errors) {
        let (factor, divisor) = (BITS as u128 - k, k + 1);
        let common = gcd(binomial, divisor);
        binomial = binomial / common * (factor / (divisor / common));
        sum += binomial;
    }
    sum as f64 / 2f64.powi(BITS as i32)
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The statistic T of the soft test.
pub fn statistic(votes: &[f64; BITS], word: Word) -> f64 {
    // In units of the largest: squares neither vanish nor overflow.
    let largest = votes.iter().fold(0.0f64, |most, vote| most.max(vote.abs()));
    if !(largest > 0.0 && largest.is_finite()) {
        return 0.0;
    }
    let scaled = votes.map(|vote| vote / largest);
    let norm: f64 = scaled.iter().map(|vote| vote * vote).sum();
    let t = correlation(&scaled, word) / norm.sqrt();
    if t.is_finite() { t } else { 0.0 }
}

/// Upper bound of P(T ≥ what the votes give).
pub fn soft_bound(votes: &[f64; BITS], word: Word) -> f64 {
    let t = statistic(votes, word).max(0.0);
    (-t * t / 2.0).exp()
}

/// Greatest number of wrong bits that is accepted, by the hard test alone, when that many words were
/// compared with; `None` if even a perfect reading would prove nothing.
pub fn max_errors(compared: Compared) -> Option<u32> {
    let most = (MAX_BER * BITS as f64) as u32;
    let accepted = |&errors: &u32| 2.0 * tail(errors) * compared.words() <= MAX_FALSE_POSITIVE;
    (0..=most).rev().find(accepted)
}

#[cfg(test)]
mod tests;
