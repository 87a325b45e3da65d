// SPDX-License-Identifier: MPL-2.0
//! Watermarks that are far apart: words of linear codes of 128 bits.
//!
//! [RTBF] Algorithm 8 searches at random for words at a given distance from each other and finds
//! some ten thousand ([`random_code`]). A linear code has the distance by construction, needs no
//! list, and tells which of its words was meant without comparing with all of them.
//!
//! Both codes contain the word of all ones, so with each word its complement, which is what a
//! photographic negative makes of it under a fixed dither. The two are one **identity**: that many
//! words can be given away. Which of the two was read is told as well.
//!
//! What is put into pictures and registered is `code word ⊕ pad` ([`Code::register`],
//! [`super::Key::pad`]): `docs/security.md`, "False accusation", says why.

mod bch;
mod concatenated;
mod random;

pub use random::{Seeded, far_from, random_code};

use super::{BITS, Word};

/// A code of 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// Extended binary BCH \[128, 29, 44\]: the primitive narrow-sense code of length 127 over
    /// x^7 + x^3 + 1 that corrects 21 errors (Lin and Costello, *Error Control Coding*, Table 6.1),
    /// and a parity bit. 2^28 identities at a distance above 30 %.
    Bch29,
    /// Extended Reed-Solomon \[16, 4, 13\] over GF(16), each symbol a word of the Reed-Muller code
    /// RM(1,3) \[8, 4, 4\]: \[128, 16, 52\] (Forney, *Concatenated Codes*). 2^15 identities at a
    /// distance above 40 %.
    Concatenated16,
}

/// An identity that the code does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("identity {identity}: the code has {identities}, counted from 0")]
pub struct CodeError {
    /// Asked for.
    pub identity: u32,
    /// [`Code::identities`].
    pub identities: u32,
}

/// The code word that votes are nearest to.
#[derive(Clone, Copy, PartialEq)]
pub struct Decoded {
    /// Which word.
    pub identity: u32,
    /// Whether it was its complement.
    pub complement: bool,
    /// The code word that was read: `encode(identity)`, or the complement of it.
    pub word: Word,
    /// Bits in which the signs of the votes differ from `word`.
    pub distance: u32,
    /// Σ s·v / Σ |v|, s = ±1 the bits of `word`: 1 where no vote contradicts.
    pub correlation: f64,
}

/// Says nothing of the watermark.
impl std::fmt::Debug for Decoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoded")
            .field("distance", &self.distance)
            .field("correlation", &self.correlation)
            .finish_non_exhaustive()
    }
}

impl Code {
    /// How many identities: 2^28 or 2^15.
    pub const fn identities(self) -> u32 {
        match self {
            Self::Bch29 => 1 << 28,
            Self::Concatenated16 => 1 << 15,
        }
    }

    /// Bits in which any two words differ at least. Words of different identities also agree in that
    /// many, as the complement of one is a word too.
    pub const fn distance(self) -> u32 {
        match self {
            Self::Bch29 => 44,
            Self::Concatenated16 => 52,
        }
    }

    /// The code word of an identity.
    pub fn encode(self, identity: u32) -> Result<Word, CodeError> {
        let identities = self.identities();
        if identity >= identities {
            return Err(CodeError {
                identity,
                identities,
            });
        }
        Ok(Word(match self {
            Self::Bch29 => bch::encode(identity),
            // The lowest bit of the message is the word of all ones.
            Self::Concatenated16 => concatenated::encode(identity << 1),
        }))
    }

    /// What an identity is registered and embedded as: its code word under the key's `pad`.
    pub fn register(self, identity: u32, pad: Word) -> Result<Word, CodeError> {
        Ok(Word(self.encode(identity)?.0 ^ pad.0))
    }

    /// The code word with the greatest correlation to the votes of its bits (positive: 1), the
    /// likeliest one where votes are log-likelihoods up to a factor.
    ///
    /// [`Code::Concatenated16`]: always that one. [`Code::Bch29`]: a word within 21 bits of the signs
    /// of the votes is always found and preferred, whatever the votes' magnitudes (there is only
    /// one); else the best found by ordered statistics (Fossorier and Lin 1995) of order 5, which
    /// misses the likeliest word in about 3 of 1000 readings with 25 % of the bits wrong and 1 of 1000
    /// with 20 %. There is always an answer; [`super::Evidence`] says what it is worth.
    ///
    /// Votes under a pad: [`unmask`] them first.
    pub fn decode(self, votes: &[f64; BITS]) -> Decoded {
        let hard = hard(votes);
        let (word, message) = match self {
            Self::Bch29 => {
                let word = bch::correct(hard).unwrap_or_else(|| bch::likeliest(votes, hard));
                (word, bch::message(word))
            }
            Self::Concatenated16 => {
                let message = concatenated::likeliest(votes);
                let pair = (message >> 1, message & 1 == 1);
                (concatenated::encode(message), pair)
            }
        };
        let all: f64 = votes.iter().map(|vote| vote.abs()).sum();
        let word = Word(word);
        Decoded {
            identity: message.0,
            complement: message.1,
            word,
            distance: word.distance(Word(hard)),
            correlation: match all > 0.0 {
                true => correlation(votes, word) / all,
                false => 0.0,
            },
        }
    }
}

/// Votes for the bits of a word ⊕ `pad` as votes for the bits of the word.
pub fn unmask(votes: &[f64; BITS], pad: Word) -> [f64; BITS] {
    std::array::from_fn(|bit| match pad.bit(bit) {
        true => -votes[bit],
        false => votes[bit],
    })
}

/// Σ s·v, s = 1 where the word has a 1 and −1 where it has a 0.
pub(super) fn correlation(votes: &[f64; BITS], word: Word) -> f64 {
    unmask(votes, word.complement()).iter().sum()
}

/// 1 where the votes are positive, as [`super::Votes::word`].
fn hard(votes: &[f64; BITS]) -> u128 {
    Word::from_bits(|bit| votes[bit] > 0.0).0
}

#[cfg(test)]
mod tests;
