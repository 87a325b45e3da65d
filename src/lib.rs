// SPDX-License-Identifier: MPL-2.0
#![warn(missing_docs)]
//! camvault: camera feeds go in; encrypted, deduplicated, provably forgettable footage comes out.

pub mod chunk;
pub mod client;
pub mod identity;
mod mac;
pub mod manifest;
pub mod ownership;
pub mod protocol;
pub mod rce;
