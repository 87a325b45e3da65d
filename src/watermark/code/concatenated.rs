// SPDX-License-Identifier: MPL-2.0
//! The \[128, 16, 52\] code.
//!
//! A message of 16 bits is a polynomial of degree 3 over GF(16), m_0 in the lowest four bits; its
//! values at 0, 1, α, α², … are the 16 symbols. Two polynomials agree in at most 3 places: distance
//! 13. A symbol of bits b_0 b_1 b_2 b_3 becomes the 8 bits b_0 + b_1·x + b_2·y + b_3·z over all
//! points (x, y, z): distance 4, so 13·4 = 52 in all. The constant polynomial 1 is all ones.

use super::super::BITS;
use std::sync::LazyLock;

const SYMBOLS: usize = 16;

/// GF(16), α^4 = α + 1.
fn times(a: u8, b: u8) -> u8 {
    let mut product = 0;
    for i in (0..4).rev() {
        product <<= 1;
        if product & 16 != 0 {
            product ^= 0b10011;
        }
        if b >> i & 1 == 1 {
            product ^= a;
        }
    }
    product
}

/// The symbols of a message by its low and its high byte, four bits each, the first the lowest.
static SYMBOLS_OF: LazyLock<[[u64; 256]; 2]> = LazyLock::new(|| {
    std::array::from_fn(|high| {
        std::array::from_fn(|byte| {
            let message = byte << (8 * high);
            let mut points = [0u8; SYMBOLS];
            for i in 1..SYMBOLS {
                points[i] = if i == 1 { 1 } else { times(points[i - 1], 2) };
            }
            let values = points.map(|point| {
                let digits = (0..4).rev().map(|i| (message >> (4 * i) & 15) as u8);
                digits.fold(0, |value, digit| times(value, point) ^ digit)
            });
            let place = |(i, value): (usize, &u8)| u64::from(*value) << (4 * i);
            values.iter().enumerate().map(place).sum()
        })
    })
});

/// The 8 bits of a symbol, the first one the highest.
const INNER: [u8; 16] = {
    let mut words = [0; 16];
    let mut symbol = 0;
    while symbol < 16 {
        let mut point = 0;
        while point < 8 {
            let mut bit = symbol & 1;
            let mut i = 0;
            while i < 3 {
                bit ^= (symbol >> (i + 1)) & (point >> i) & 1;
                i += 1;
            }
            words[symbol] = words[symbol] << 1 | bit as u8;
            point += 1;
        }
        symbol += 1;
    }
    words
};

fn symbols(message: u32) -> u64 {
    SYMBOLS_OF[0][(message & 255) as usize] ^ SYMBOLS_OF[1][(message >> 8 & 255) as usize]
}

/// The word of a message of 16 bits.
pub fn encode(message: u32) -> u128 {
    let symbols = symbols(message);
    (0..SYMBOLS).fold(0, |word, i| {
        word << 8 | u128::from(INNER[(symbols >> (4 * i) & 15) as usize])
    })
}

/// The message whose word has the greatest correlation to the votes: all are tried.
pub fn likeliest(votes: &[f64; BITS]) -> u32 {
    // What every symbol would add at every place.
    let mut gains = [[0.0; 16]; SYMBOLS];
    for (gains, votes) in gains.iter_mut().zip(votes.chunks_exact(8)) {
        for (gain, word) in gains.iter_mut().zip(INNER) {
            for (i, vote) in votes.iter().enumerate() {
                *gain += if word >> (7 - i) & 1 == 1 {
                    *vote
                } else {
                    -vote
                };
            }
        }
    }
    // Half of the messages: the others are complements, with the correlation turned.
    let mut best = (0, f64::NEG_INFINITY);
    for message in (0..1 << 16).step_by(2) {
        let symbols = symbols(message);
        let mut sum = 0.0;
        for (i, gains) in gains.iter().enumerate() {
            sum += gains[(symbols >> (4 * i) & 15) as usize];
        }
        if sum.abs() > best.1 {
            best = (message | u32::from(sum < 0.0), sum.abs());
        }
    }
    best.0
}
