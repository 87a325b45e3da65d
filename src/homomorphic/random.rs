// SPDX-License-Identifier: MPL-2.0
//! Random numbers: AES-256-CTR under a key from the operating system, so that its failure is an
//! error at one place and not a panic inside a library.

use super::Error;
use aes::Aes256;
use crypto_bigint::BoxedUint;
use ctr::cipher::{KeyIvInit, StreamCipher};
use rand_core::{TryCryptoRng, TryRng};
use std::convert::Infallible;
use zeroize::Zeroizing;

/// A generator of secret numbers for one task. The cipher wipes its key on drop.
pub(super) struct Random(ctr::Ctr128BE<Aes256>);

impl Random {
    pub(super) fn new() -> Result<Self, Error> {
        let mut key = Zeroizing::new([0u8; 32]);
        getrandom::fill(&mut *key).map_err(|_| Error::Random)?;
        Ok(Self::from_seed(&key))
    }

    /// The numbers of a seed, which is used for nothing else.
    pub(super) fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ctr::Ctr128BE::<Aes256>::new(seed.into(), &[0; 16].into()))
    }

    /// Uniform below 2^`bits`; the precision is `bits` rounded up to whole words.
    pub(super) fn below_power(&mut self, bits: u32) -> Zeroizing<BoxedUint> {
        let mut value = Zeroizing::new(BoxedUint::zero_with_precision(bits));
        let surplus = value.bits_precision() - bits;
        let words = value.as_mut_words();
        for word in words.iter_mut() {
            let mut bytes = Zeroizing::new([0; 8]);
            self.0.apply_keystream(&mut *bytes);
            *word = u64::from_le_bytes(*bytes);
        }
        if let Some(top) = words.last_mut() {
            *top >>= surplus;
        }
        value
    }
}

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        out.fill(0);
        self.0.apply_keystream(out);
        Ok(())
    }
}

impl TryCryptoRng for Random {}
