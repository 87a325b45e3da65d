// SPDX-License-Identifier: MPL-2.0
//! Splitting raw pictures into *candidates*, the luma coefficients that can carry a mark, and the
//! *rest*, and joining them again: the integer half of the homomorphic watermark.
//!
//! Every whole 8×8 block goes through a transform that is a bijection of integers
//! (`transform`): the rest together with the candidates' values is the block, bit for bit, and any
//! other values give another block, so the rest says nothing of them beyond the range of samples.
//!
//! ```text
//! owner:  picture → Splitter → rest (public)            ──────────────→ Joiner → marked picture
//!                            → values, deltas → [cryptography] → value + w·delta ↗
//!                            → remainders (kept, to take the mark out later)
//! ```
//!
//! A mark's coefficient x moves to q_w(x), the nearest point of d_0 + k·s + w·(s/2 either way):
//! *value* is q_0(x), *delta* q_1(x) − q_0(x) = ±s/2 and the *remainder* x − q_0(x). What is not
//! marked has value x and delta 0. Candidates travel as differences from a prediction that anyone
//! who has the rest can compute, in one of two widths ([`NARROW`], [`WIDE`]) that the rest tells.
//!
//! With a *loss* L ([`Splitter::with_loss`]) the rest says what its coefficients are in steps of
//! 2L + 1 from a prediction, and what is split is no longer the picture but what rest and candidates
//! make of it, the *sealed* picture ([`Splitter::sealed`]): the reference of later pictures, and what
//! the owner gets back. No coefficient of it is off by more than L, also in blocks that are not sent
//! again because nothing has changed by more. Blocks whose samples would leave 0..=255 are exact.
//! None of this depends on marks.
//!
//! A rest is a byte (form, whether whole, whether all is the same) and numbers
//! (`entropy`), in this order: which blocks are sent, unless all are; then of each plane: samples
//! outside of whole blocks; means of blocks; which candidates are wide and which blocks exact; how far
//! a block's coefficients reach; the coefficients, blocks that reach farthest first.
//!
//! Nothing here is secret by itself but the layout, the values, deltas and remainders; nothing is
//! encrypted here, and nothing knows GStreamer.

mod entropy;
mod join;
mod model;
mod picture;
mod simd;
mod split;
pub mod stream;
mod transform;

pub use join::{Joiner, Sent};
pub use picture::{Chroma, Geometry, Picture};
pub use split::{Split, Splitter};

/// Bits of a candidate near its prediction.
pub const NARROW: u8 = 8;

/// Bits that are enough for every candidate of any 8-bit picture, at any step.
pub const WIDE: u8 = 12;

/// Most that a coefficient may be off.
pub const MOST_LOSS: u8 = 15;

/// What can go wrong here. No message holds a sample or a coefficient.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Size of a picture.
    #[error("a picture of {0}x{1}: both sides have to be from 1 to 16384")]
    Size(usize, usize),
    /// A picture of another geometry than the splitter's.
    #[error("a picture of {found:?} where {expected:?} was announced: begin anew with that")]
    OtherGeometry {
        /// The picture's.
        found: Geometry,
        /// The splitter's.
        expected: Geometry,
    },
    /// Classes that candidates cannot have.
    #[error(
        "classes: give 1 to 63 different coefficients, none of them 00 (the block's mean), of which 1 \
         to all carry bits in each block"
    )]
    Classes,
    /// A loss that is too much.
    #[error("loss {0}: give 0 to {MOST_LOSS}")]
    Loss(u8),
    /// A layout that does not go with these candidates.
    #[error("step {0}: marks in integers need a multiple of 4 from 4 to 1000")]
    Step(u32),
    /// A rest that is none.
    #[error("not the rest of a picture of this geometry: {0}")]
    Rest(&'static str),
    /// A picture that builds on one that is not there.
    #[error("this rest needs the picture before it: ask for a whole one")]
    NoPrevious,
    /// Joining without having read, or twice.
    #[error("no rest was read that waits for its candidates: read one first")]
    Order,
    /// Other values than were announced.
    #[error("{found} values for {expected} candidates")]
    Count {
        /// Values there are.
        found: usize,
        /// Candidates there should be.
        expected: usize,
    },
}

#[cfg(test)]
mod tests;
