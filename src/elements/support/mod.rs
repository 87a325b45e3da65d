// SPDX-License-Identifier: MPL-2.0
//! What the elements share.

pub mod cancel;
pub mod carrier;
pub mod clock;
pub mod files;
pub mod media;
