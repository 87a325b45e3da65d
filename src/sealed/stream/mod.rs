// SPDX-License-Identifier: MPL-2.0
//! Sealed streams: what [`application/x-dmqim-sealed`](message) is, how an owner makes one with a
//! ticket ([`Sealer`]) and how the cloud opens it ([`Opener`]). No gst, no HTTP.
//!
//! A stream is a sequence of segments, one ticket each: a signed head, frames under the segment's
//! key (AES-256-GCM), a signed end. Of a frame the cloud gets the rest ([`super::Split::rest`]), the
//! candidates by the ticket's [`Mode`](crate::protocol::Mode), and the owner's remainders, sealed to
//! the owner itself, which it keeps for the owner.

mod arrange;
mod audit;
mod cloud;
mod evidence;
pub mod message;
mod owner;
mod pieces;
mod remainder;
mod restore;

pub use audit::{Fault, Found, Question};
pub use cloud::{Opened, Opener};
pub use evidence::Evidence;
pub use owner::{Agreement, Prepared, Sealer, Summary, Ticket};
pub use remainder::{Kept, Remainder, RemainderReader};
pub use restore::{Fit, Restorer, Unmask, signs};

use crate::homomorphic::{self, ticket::packing};
use crate::protocol::{DocumentError, Mode};

/// Why a stream cannot be made or opened. Nothing of it depends on bits of the watermark.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A document that does not count.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Numbers under the cipher.
    #[error(transparent)]
    Homomorphic(#[from] homomorphic::Error),
    /// The frame itself.
    #[error(transparent)]
    Frame(#[from] super::Error),
    /// Bytes that are no message.
    #[error("the sealed stream is damaged: {0}")]
    Form(&'static str),
    /// Data under a key was changed.
    #[error("a sealed frame was changed on its way, or belongs to another segment")]
    Changed,
    /// A contract that this cloud has not signed.
    #[error(
        "the stream names a contract that is not known here: {0}; make one with `camvault contract`"
    )]
    UnknownContract(String),
    /// A contract whose numbers make no sense.
    #[error("the contract's settings make no sense")]
    Contract,
    /// A ticket that does not fit.
    #[error("the ticket cannot be used here: {0}")]
    Ticket(&'static str),
    /// Messages in an order that there is not.
    #[error("the sealed stream is out of order: {0}")]
    Order(&'static str),
    /// The owner signed something else than it sent.
    #[error("the owner commits to something else than it sent")]
    Commitment,
    /// What was sent cannot be kept for an audit, or not be read again.
    #[error(
        "what was sent cannot be kept for an audit: {0}; set TMPDIR to a directory with more room"
    )]
    Kept(#[source] std::io::Error),
    /// Frames larger than the cloud takes.
    #[error("frames of {width}x{height} are larger than this cloud takes: {most} pixels at most")]
    Pixels {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
        /// Pixels of a frame.
        most: u64,
    },
    /// An identity or key that does not fit.
    #[error(transparent)]
    Identity(#[from] crate::identity::Error),
}

/// Bytes of the key of a segment's frames.
const KEY_BYTES: usize = 32;

/// HPKE `info` of a segment's key: the purpose and what it is bound to.
fn key_info(contract: &[u8; 32], stream: &[u8; 16], segment: u32) -> Vec<u8> {
    let purpose = crate::protocol::SEGMENT_INFO;
    [purpose, contract, stream, &segment.to_be_bytes()].concat()
}

/// What a ticket of a mode holds.
fn ticket_ciphertexts(mode: Mode, key: &homomorphic::packed::PublicKey) -> Result<usize, Error> {
    Ok(match mode {
        Mode::Oblivious => crate::watermark::BITS,
        Mode::Packed => homomorphic::ticket::PLANS * packing(key)?.slots(),
    })
}

#[cfg(test)]
mod audits;
#[cfg(test)]
mod malice;
#[cfg(test)]
mod secrecy;
#[cfg(test)]
mod tests;
