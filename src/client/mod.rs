// SPDX-License-Identifier: MPL-2.0
//! The owner's side of the protocol: a signed connection to a vault, the recorder that stores
//! chunks and commits segments, and the reader that brings them back. Knows no GStreamer.

mod error;
pub mod recorder;
pub mod transport;

pub use error::Error;
