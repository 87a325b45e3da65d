// SPDX-License-Identifier: MPL-2.0
//! DM-QIM: 128 bits in the low frequencies of a picture's luma ([RTBF] section 4, Algorithm 3).
//!
//! A *mark* is one DCT coefficient x of one 8×8 block. It carries bit w by moving to the nearest
//! point of one of two lattices of step s, half a step apart:
//! q_w(x) = round((x − d_w)/s)·s + d_w, d_1 = d_0 + s/2. Where the marks are and the dither d_0 of
//! each come from a keyed stream: without the key marked coefficients look like any others.
//! A reader adds up |y − q_0(y)| − |y − q_1(y)| over all marks of a bit, of one frame or many.
//!
//! Everything that changes a pixel is integer arithmetic, so that embedding gives the same pixels
//! on every machine and erasing gives back the original ones: see [`embed()`] and [`erase`].
//!
//! Frames are planes of luma ([`crate::luma`]); nothing here knows GStreamer.

pub mod basis;
pub mod battery;
mod canvas;
pub mod code;
mod detector;
mod embed;
pub mod evidence;
mod key;
mod layout;
mod registration;
mod search;
mod settings;
mod votes;
mod word;

pub use code::{Code, Decoded};
pub use detector::Detector;
pub use embed::{Trace, embed, erase};
pub use evidence::{Compared, Evidence};
pub use key::Key;
pub use layout::{Layout, Mark, carried_bits, position};
pub use registration::Registration;
pub use search::{Found, Search};
pub use settings::{Class, Dither, Placement, Settings, SettingsError};
pub use votes::{Tally, Votes, lattice_vote, read};
pub use word::{Word, WordError};

/// Bits of a watermark.
pub const BITS: usize = 128;

/// Side of a block in pixels.
pub const BLOCK: usize = 8;

#[cfg(test)]
mod tests;
