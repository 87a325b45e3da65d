// SPDX-License-Identifier: MPL-2.0
//! Who is probably uploading which chunk just now, so that others wait a moment instead of
//! sending the same. Only a hint: nothing depends on it but bandwidth.

use crate::ownership::Leaf;
use crate::store::Hash;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the first asker is believed to be uploading.
const BELIEVED: Duration = Duration::from_secs(2);
/// After how many milliseconds to ask again.
const WAIT_MS: u32 = 300;
/// Chunks remembered.
const MAX_HINTS: usize = 100_000;

/// Missing chunks that somebody has asked for.
#[derive(Debug, Default)]
pub struct Hints(Mutex<HashMap<Hash, (Leaf, Instant)>>);

impl Hints {
    /// `asker` has just been told that a chunk is missing: how long it should wait before it
    /// uploads the chunk itself, in milliseconds.
    pub fn missing(&self, tag: &Hash, asker: Leaf) -> u32 {
        let now = Instant::now();
        let mut hints = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((first, until)) = hints.get(tag).filter(|(_, until)| *until > now) {
            let remaining = u32::try_from((*until - now).as_millis()).unwrap_or(WAIT_MS);
            return match *first == asker {
                true => 0,
                false => WAIT_MS.min(remaining.max(1)),
            };
        }
        if hints.len() >= MAX_HINTS {
            hints.retain(|_, (_, until)| *until > now);
        }
        if hints.len() < MAX_HINTS {
            hints.insert(*tag, (asker, now + BELIEVED));
        }
        0
    }

    /// A chunk is stored now.
    pub fn stored(&self, tag: &Hash) {
        let mut hints = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hints.remove(tag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_asker_waits() {
        let hints = Hints::default();
        assert_eq!(hints.missing(&[1; 32], 7), 0);
        assert_eq!(hints.missing(&[1; 32], 7), 0);
        assert_eq!(hints.missing(&[1; 32], 8), WAIT_MS);
        assert_eq!(hints.missing(&[2; 32], 8), 0);
        hints.stored(&[1; 32]);
        assert_eq!(hints.missing(&[1; 32], 8), 0);
    }
}
