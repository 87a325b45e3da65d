// SPDX-License-Identifier: MPL-2.0
//! The key, and the keyed streams of numbers that come from it.

use super::Word;
use crate::mac::hmac;
use aes::Aes256;
use ctr::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

/// The secret of whoever marks and whoever reads: places, dithers, and the pad over code words.
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; 32]>);

impl Key {
    /// From 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The pad over code words: 128 bits that depend on nothing but the key, and not on places and
    /// dithers. A registered mark is `code word ⊕ pad`, so that to a video without the mark it is
    /// 128 tosses of a coin, whatever the code.
    pub fn pad(&self) -> Word {
        let tag = hmac(&self.0, &[b"camvault dmqim pad 1"]);
        let mut bytes = Zeroizing::new([0; 16]);
        bytes.copy_from_slice(&tag[..16]);
        Word(u128::from_be_bytes(*bytes))
    }

    /// The numbers of one layout: AES-256-CTR under a key of its own.
    pub(super) fn layout(&self, epoch: u32) -> LayoutKey {
        let epoch = epoch.to_le_bytes();
        LayoutKey(hmac(&self.0, &[b"camvault dmqim layout 1", &epoch]))
    }
}

/// Says nothing of the key.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

pub(super) struct LayoutKey(Zeroizing<[u8; 32]>);

impl LayoutKey {
    /// The stream of a row of blocks: so a layout is the same wherever the picture ends.
    pub(super) fn stream(&self, row: u32) -> Stream {
        let mut iv = [0; 16];
        iv[..4].copy_from_slice(&row.to_be_bytes());
        Stream {
            cipher: ctr::Ctr128BE::<Aes256>::new((&*self.0).into(), (&iv).into()),
            words: Zeroizing::new([0; 64]),
            next: 64,
        }
    }
}

/// Numbers from a keyed stream.
pub(super) struct Stream {
    cipher: ctr::Ctr128BE<Aes256>,
    words: Zeroizing<[u8; 64]>,
    next: usize,
}

impl Stream {
    /// Below `n`, from 32 bits: the bias is below n/2^32.
    pub(super) fn below(&mut self, n: u32) -> u32 {
        if self.next == self.words.len() {
            self.words.fill(0);
            self.cipher.apply_keystream(&mut *self.words);
            self.next = 0;
        }
        let word = &self.words[self.next..self.next + 4];
        self.next += 4;
        let random = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        ((u64::from(random) * u64::from(n)) >> 32) as u32
    }
}
