// SPDX-License-Identifier: MPL-2.0
//! What the elements share.

pub mod cancel;
pub mod carrier;
pub mod clock;
pub mod files;
pub mod media;
pub mod pictures;
pub mod video;
pub mod watermark;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after a panic in another thread, which is on the bus already.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
