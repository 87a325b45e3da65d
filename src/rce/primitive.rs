// SPDX-License-Identifier: MPL-2.0
//! H, E and ⊕, each counted in tests, so that [KL19] Table 1 can be held against the code.

use aes::Aes256;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Bytes treated at once, small enough for the second-level cache and large enough for BLAKE3's
/// widest kernels.
const STRIDE: usize = 64 << 10;

/// The same where it takes memory that has to be wiped after every chunk.
pub(super) const SCRATCH: usize = 16 << 10;

/// Bytes of each of two chunks that are hashed in turns.
const TURN: usize = 128;

/// A SHA-256 that can be continued after a digest was taken.
#[derive(Clone, Default)]
pub(super) struct Hasher(Sha256);

impl Hasher {
    pub(super) fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    pub(super) fn digest(&self) -> Zeroizing<[u8; 32]> {
        count::hash();
        Zeroizing::new(self.0.clone().finalize().into())
    }

    pub(super) fn of(data: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut hasher = Self::default();
        hasher.update(data);
        hasher.digest()
    }

    /// The states after each of `chunks`. Two at a time, in turns short enough for the processor
    /// to work on both: within one chunk every round has to wait for the round before it.
    pub(super) fn after_each(chunks: &[&[u8]]) -> Vec<Self> {
        let mut states = vec![Self::default(); chunks.len()];
        let mut todo = states.iter_mut().zip(chunks.iter().copied());
        let (mut one, mut two) = (todo.next(), todo.next());
        while let (Some((a, x)), Some((b, y))) = (&mut one, &mut two) {
            let both = x.len().min(y.len()) / TURN * TURN;
            let ((x_now, x_rest), (y_now, y_rest)) = (x.split_at(both), y.split_at(both));
            for (x, y) in x_now.chunks(TURN).zip(y_now.chunks(TURN)) {
                a.update(x);
                b.update(y);
            }
            (*x, *y) = (x_rest, y_rest);
            // The shorter one is through, but for its last bytes.
            let ended = if x.len() < y.len() {
                &mut one
            } else {
                &mut two
            };
            if let Some((state, rest)) = ended.take() {
                state.update(rest);
            }
            *ended = todo.next();
        }
        for (state, rest) in one.into_iter().chain(two) {
            state.update(rest);
        }
        states
    }
}

pub(super) fn hmac(secret: &[u8; 32], data: &[u8]) -> Zeroizing<[u8; 32]> {
    count::hash();
    crate::mac::hmac(secret, &[data])
}

pub(super) fn xor(a: &[u8; 32], b: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    count::xor();
    Zeroizing::new(std::array::from_fn(|i| a[i] ^ b[i]))
}

fn cipher(key: &[u8; 32]) -> Ctr128BE<Aes256> {
    count::cipher();
    Ctr128BE::<Aes256>::new(key.into(), &[0u8; 16].into())
}

/// E in place; `each` sees every encrypted piece while it is in the cache.
pub(super) fn encrypt(key: &[u8; 32], data: &mut [u8], mut each: impl FnMut(&[u8])) {
    let mut cipher = cipher(key);
    for part in data.chunks_mut(STRIDE) {
        cipher.apply_keystream(part);
        each(part);
    }
}

/// E without keeping the result: every piece passes through `scratch`.
pub(super) fn encrypt_copy(
    key: &[u8; 32],
    data: &[u8],
    scratch: &mut [u8; SCRATCH],
    mut each: impl FnMut(&[u8]),
) {
    let mut cipher = cipher(key);
    for part in data.chunks(SCRATCH) {
        let out = &mut scratch[..part.len()];
        cipher.write_keystream(out);
        out.iter_mut()
            .zip(part)
            .for_each(|(out, byte)| *out ^= byte);
        each(out);
    }
}

#[cfg(not(test))]
mod count {
    pub(super) fn hash() {}
    pub(super) fn cipher() {}
    pub(super) fn xor() {}
}

#[cfg(test)]
pub(super) mod count {
    use std::cell::Cell;
    thread_local!(static OPS: Cell<(u32, u32, u32)> = const { Cell::new((0, 0, 0)) });

    pub(in crate::rce) fn hash() {
        OPS.with(|c| c.set((c.get().0 + 1, c.get().1, c.get().2)));
    }
    pub(in crate::rce) fn cipher() {
        OPS.with(|c| c.set((c.get().0, c.get().1 + 1, c.get().2)));
    }
    pub(in crate::rce) fn xor() {
        OPS.with(|c| c.set((c.get().0, c.get().1, c.get().2 + 1)));
    }
    /// (H, SE, ⊕) since the last call.
    pub(in crate::rce) fn take() -> (u32, u32, u32) {
        OPS.with(|c| c.replace((0, 0, 0)))
    }
}
