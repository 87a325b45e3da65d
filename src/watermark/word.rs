// SPDX-License-Identifier: MPL-2.0
//! The 128 bits.

use super::BITS;

/// A watermark: 128 bits, bit 0 is the most significant one of the first hexadecimal digit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Word(pub u128);

/// What is not a watermark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a watermark is 32 hexadecimal digits (128 bits)")]
pub struct WordError;

impl Word {
    /// Bit `i` of [`BITS`].
    pub fn bit(self, i: usize) -> bool {
        self.0 >> (BITS - 1 - i) & 1 == 1
    }

    /// The word whose bit `i` is `bit(i)`.
    pub fn from_bits(mut bit: impl FnMut(usize) -> bool) -> Self {
        Self((0..BITS).fold(0, |word, i| word << 1 | u128::from(bit(i))))
    }

    /// Number of bits in which two words differ.
    pub fn distance(self, other: Self) -> u32 {
        (self.0 ^ other.0).count_ones()
    }

    /// Every bit turned: what a photographic negative makes of a word under the paper's dither.
    pub fn complement(self) -> Self {
        Self(!self.0)
    }
}

impl std::str::FromStr for Word {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        match text.len() == BITS / 4 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            true => u128::from_str_radix(text, 16)
                .map(Self)
                .map_err(|_| WordError),
            false => Err(WordError),
        }
    }
}

impl std::fmt::Display for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Hidden: whoever must not learn a watermark must not find it in a log.
impl std::fmt::Debug for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Word(…)")
    }
}
