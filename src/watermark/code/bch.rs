// SPDX-License-Identifier: MPL-2.0
//! The extended BCH code \[128, 29, 44\].
//!
//! Bit i < 127 of a word is the coefficient of x^i, bit 127 makes the number of ones even. The
//! polynomial is a multiple of g(x), whose roots are α^1 to α^42 and their conjugates, 98 in all,
//! in GF(128) with α^7 = α^3 + 1. 42 consecutive powers give distance 43 (the BCH bound), the
//! parity bit 44. α^0 is no root, so the word of all ones, (x^127 − 1)/(x − 1), is in the code.
//!
//! Systematic: bits 98 to 126 are the message. Bit 126 of a word of an identity is 0; of its
//! complement 1.

use super::super::{BITS, Word};
use std::sync::LazyLock;

/// Length without the parity bit.
const LENGTH: usize = 127;
/// Bits of a message.
const DIMENSION: usize = 29;
/// Degree of g(x).
const CHECKS: usize = LENGTH - DIMENSION;
/// Errors that [`correct`] corrects.
const ERRORS: usize = 21;
/// Bits that [`likeliest`] turns at most among the most reliable ones.
const ORDER: usize = 5;

/// GF(128) by its primitive element α.
struct Field {
    /// α^i, twice over.
    powers: [u8; 2 * LENGTH],
    /// The i of α^i; of 0, nothing.
    logs: [u8; 128],
}

static FIELD: LazyLock<Field> = LazyLock::new(|| {
    let (mut powers, mut logs) = ([0; 2 * LENGTH], [0; 128]);
    let mut power = 1u8;
    for i in 0..LENGTH {
        (powers[i], powers[i + LENGTH], logs[usize::from(power)]) = (power, power, i as u8);
        power <<= 1;
        if power & 0x80 != 0 {
            power ^= 0b1000_1001;
        }
    }
    Field { powers, logs }
});

impl Field {
    fn log(&self, a: u8) -> usize {
        self.logs[usize::from(a)].into()
    }

    fn times(&self, a: u8, b: u8) -> u8 {
        match (a, b) {
            (0, _) | (_, 0) => 0,
            _ => self.powers[self.log(a) + self.log(b)],
        }
    }

    /// a/b, b not 0.
    fn over(&self, a: u8, b: u8) -> u8 {
        match a {
            0 => 0,
            _ => self.powers[self.log(a) + LENGTH - self.log(b)],
        }
    }
}

/// g(x), the coefficient of x^i in bit i from the lowest.
static GENERATOR: LazyLock<u128> = LazyLock::new(|| {
    let mut roots = [false; LENGTH];
    for power in 1..=2 * ERRORS {
        (0..7).for_each(|i| roots[(power << i) % LENGTH] = true);
    }
    // Coefficients in GF(128), the lowest first; in the end all are 0 or 1.
    let mut product = vec![1u8];
    for root in (0..LENGTH).filter(|&i| roots[i]) {
        let times_x = std::iter::once(0).chain(product.iter().copied());
        let root = FIELD.powers[root];
        let times_root = product.iter().map(|&c| FIELD.times(c, root)).chain([0]);
        product = times_x.zip(times_root).map(|(a, b)| a ^ b).collect();
    }
    let place = |(i, &c): (usize, &u8)| u128::from(c) << i;
    product.iter().enumerate().map(place).sum()
});

/// The words of the 29 unit messages.
static BASIS: LazyLock<[u128; DIMENSION]> = LazyLock::new(|| {
    std::array::from_fn(|i| {
        let message = 1u128 << (CHECKS + i);
        let mut rest = message;
        for bit in (CHECKS..=CHECKS + i).rev() {
            if rest >> bit & 1 == 1 {
                rest ^= *GENERATOR << (bit - CHECKS);
            }
        }
        let polynomial = message | rest;
        // Coefficient 0 is bit 0 of a word, the highest of the number.
        polynomial.reverse_bits() | u128::from(polynomial.count_ones() % 2)
    })
});

/// The words of all messages that differ from 0 in one byte only.
static WORDS: LazyLock<[[u128; 256]; 4]> = LazyLock::new(|| {
    std::array::from_fn(|byte| {
        std::array::from_fn(|value| {
            let message = (value as u32) << (8 * byte);
            let chosen = BASIS.iter().enumerate();
            chosen.fold(0, |word, (i, row)| match message >> i & 1 {
                1 => word ^ row,
                _ => word,
            })
        })
    })
});

/// The word of a message of 29 bits.
pub fn encode(message: u32) -> u128 {
    let bytes = message.to_le_bytes();
    let words = WORDS.iter().zip(bytes);
    words.fold(0, |word, (words, byte)| word ^ words[usize::from(byte)])
}

/// Identity of a code word, and whether it is the complement.
pub fn message(word: u128) -> (u32, bool) {
    let message = (word.reverse_bits() >> CHECKS) as u32 & ((1 << DIMENSION) - 1);
    let identity = (1 << (DIMENSION - 1)) - 1;
    match message > identity {
        true => (!message & identity, true),
        false => (message, false),
    }
}

/// The code word within 21 bits of `hard`, if there is one (Berlekamp and Massey).
pub fn correct(hard: u128) -> Option<u128> {
    let field = &*FIELD;
    let ones = |word: u128| (0..LENGTH).filter(move |&i| Word(word).bit(i));
    // Syndrome i + 1 is the polynomial at α^(i + 1).
    let mut syndromes = [0u8; 2 * ERRORS];
    for i in ones(hard) {
        for (power, syndrome) in syndromes.iter_mut().enumerate() {
            *syndrome ^= field.powers[i * (power + 1) % LENGTH];
        }
    }
    let locator = locator(field, &syndromes)?;
    // Its roots are the inverses of α^i, i the wrong bits.
    let wrong = Word::from_bits(|i| {
        let root = (LENGTH - i % LENGTH) % LENGTH;
        let terms = locator.iter().enumerate();
        let value = terms.fold(0, |sum, (k, &c)| {
            sum ^ field.times(c, field.powers[root * k % LENGTH])
        });
        i < LENGTH && value == 0
    });
    let corrected = (hard ^ wrong.0) & !1;
    let word = corrected | u128::from(corrected.count_ones() % 2);
    let near = Word(word).distance(Word(hard)) as usize <= ERRORS;
    (near && encode_of(word) == word).then_some(word)
}

/// The code word with the same message bits.
fn encode_of(word: u128) -> u128 {
    encode((word.reverse_bits() >> CHECKS) as u32 & ((1 << DIMENSION) - 1))
}

/// The shortest recurrence of the syndromes; `None` if it is longer than 21.
fn locator(field: &Field, syndromes: &[u8; 2 * ERRORS]) -> Option<Vec<u8>> {
    let mut current = vec![0u8; 2 * ERRORS + 1];
    current[0] = 1;
    let mut previous = current.clone();
    let (mut length, mut gap, mut previous_discrepancy) = (0, 1, 1u8);
    for n in 0..syndromes.len() {
        let terms = (0..=length).map(|i| field.times(current[i], syndromes[n - i]));
        let discrepancy = terms.fold(0, |sum, term| sum ^ term);
        if discrepancy == 0 {
            gap += 1;
            continue;
        }
        let before = current.clone();
        let factor = field.over(discrepancy, previous_discrepancy);
        for i in gap..current.len() {
            current[i] ^= field.times(factor, previous[i - gap]);
        }
        if 2 * length <= n {
            (length, previous, previous_discrepancy) = (n + 1 - length, before, discrepancy);
            gap = 1;
        } else {
            gap += 1;
        }
    }
    current.truncate(length + 1);
    (length <= ERRORS).then_some(current)
}

/// The best word found by ordered statistics: the signs of the 29 most reliable independent bits,
/// with up to [`ORDER`] of them turned, fix a word each.
pub fn likeliest(votes: &[f64; BITS], hard: u128) -> u128 {
    let mut order: [usize; BITS] = std::array::from_fn(|i| i);
    order.sort_by(|&a, &b| votes[b].abs().total_cmp(&votes[a].abs()));
    let mut rows = *BASIS;
    let mut pivots = [0; DIMENSION];
    let mut rank = 0;
    for bit in order {
        let set = |row: &u128| Word(*row).bit(bit);
        let Some(pivot) = (rank..DIMENSION).find(|&i| set(&rows[i])) else {
            continue;
        };
        rows.swap(rank, pivot);
        let row = rows[rank];
        for (i, other) in rows.iter_mut().enumerate() {
            if i != rank && set(other) {
                *other ^= row;
            }
        }
        pivots[rank] = bit;
        rank += 1;
        if rank == DIMENSION {
            break;
        }
    }
    let start = (0..DIMENSION).fold(0, |word, i| match Word(hard).bit(pivots[i]) {
        true => word ^ rows[i],
        false => word,
    });
    // What turning a set of bits of one byte costs: the sum of their reliabilities.
    let costs = std::array::from_fn(|byte| {
        std::array::from_fn(|set| {
            let bits = (0..8).filter(|i| set >> (7 - i) & 1 == 1);
            bits.map(|i| votes[8 * byte + i].abs()).sum()
        })
    });
    // The least reliable first: then a sum that is too large ends the loop.
    rows.reverse();
    pivots.reverse();
    let mut search = Search {
        rows,
        reliabilities: pivots.map(|bit| votes[bit].abs()),
        costs,
        best: (start ^ hard, f64::INFINITY),
    };
    search.go(start ^ hard, 0, 0.0, ORDER);
    search.best.0 ^ hard
}

struct Search {
    rows: [u128; DIMENSION],
    reliabilities: [f64; DIMENSION],
    costs: [[f64; 256]; BITS / 8],
    /// The cheapest difference from the signs of the votes, and its cost.
    best: (u128, f64),
}

impl Search {
    /// `difference` with up to `turns` of the reliable bits from number `from` on turned. Those that
    /// are turned already cost `paid`: no word with them is cheaper.
    fn go(&mut self, difference: u128, from: usize, paid: f64, turns: usize) {
        // To the end, even where it is too dear already: a branch costs more.
        let mut cost = 0.0;
        for (costs, byte) in self.costs.iter().zip(difference.to_be_bytes()) {
            cost += costs[usize::from(byte)];
        }
        if cost < self.best.1 {
            self.best = (difference, cost);
        }
        if turns == 0 {
            return;
        }
        for i in from..DIMENSION {
            let paid = paid + self.reliabilities[i];
            if paid >= self.best.1 {
                return;
            }
            self.go(difference ^ self.rows[i], i + 1, paid, turns - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_textbooks() {
        // Lin and Costello, Table 6.1, (127, 29), in octal.
        let table = u128::from_str_radix("403114461367670603667530141176155", 8).unwrap();
        assert_eq!(*GENERATOR, table);
        assert_eq!(GENERATOR.ilog2() as usize, CHECKS);
        // x^127 + 1 leaves no remainder.
        let mut rest = 1u128 << LENGTH | 1;
        for bit in (CHECKS..=LENGTH).rev() {
            if rest >> bit & 1 == 1 {
                rest ^= *GENERATOR << (bit - CHECKS);
            }
        }
        assert_eq!(rest, 0);
        assert_eq!(encode((1 << DIMENSION) - 1), u128::MAX);
    }

    #[test]
    fn every_basis_word_is_a_multiple_with_even_weight() {
        for (i, &word) in BASIS.iter().enumerate() {
            assert_eq!(word.count_ones() % 2, 0);
            let polynomial = (word & !1).reverse_bits();
            for power in 1..=2 * ERRORS {
                let ones = (0..LENGTH).filter(|&i| polynomial >> i & 1 == 1);
                let value = ones.fold(0, |sum, i| sum ^ FIELD.powers[i * power % LENGTH]);
                assert_eq!(value, 0, "row {i} at power {power}");
            }
            assert_eq!(encode_of(word), word);
        }
    }
}
