// SPDX-License-Identifier: MPL-2.0
//! Codes by random search: [RTBF] Algorithms 2 and 8, the baseline.

use super::super::Word;
use std::time::{Duration, Instant};

/// SplitMix64 (Steele, Lea and Flood 2014): numbers that look random and are the same for the same
/// seed. Not for secrets.
#[derive(Clone, Debug)]
pub struct Seeded(u64);

impl Seeded {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// 128 bits.
    pub fn word(&mut self) -> Word {
        Word(u128::from(self.bits()) << 64 | u128::from(self.bits()))
    }

    /// Between 0 and 1, neither included.
    pub fn uniform(&mut self) -> f64 {
        ((self.bits() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Normal, mean 0 and variance 1 (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// [RTBF] Algorithm 2: whether `word` is at a distance of `least` bits or more from all `others`;
/// with `complements`, from their complements too.
pub fn far_from(word: Word, others: &[Word], least: u32, complements: bool) -> bool {
    let most = match complements {
        true => super::super::BITS as u32 - least,
        false => super::super::BITS as u32,
    };
    let near = |other: &Word| !(least..=most).contains(&word.distance(*other));
    !others.iter().any(near)
}

/// [RTBF] Algorithm 8: random words, each kept if it is [`far_from`] all before, until `time` or
/// `tries` run out. `words` is where words come from: for marks, the system's random numbers; for
/// tests, [`Seeded::word`].
pub fn random_code(
    mut words: impl FnMut() -> Word,
    least: u32,
    complements: bool,
    time: Duration,
    tries: u64,
) -> Vec<Word> {
    let start = Instant::now();
    let mut code = Vec::new();
    for _ in 0..tries {
        let word = words();
        if far_from(word, &code, least, complements) {
            code.push(word);
        }
        if start.elapsed() >= time {
            break;
        }
    }
    code
}
