// SPDX-License-Identifier: MPL-2.0
//! What the elements share.

pub mod cancel;
