// SPDX-License-Identifier: MPL-2.0
//! Many small signed values in one plaintext: Σ v_s · 2^(B·s), s = 0, 1, …
//!
//! A slot of B bits holds −2^(B−1) to 2^(B−1) − 1. G of its bits are guard: what goes in is at
//! most B − G bits, so that 2^G plaintexts can be added under the cipher before a slot runs over
//! into the next. Neighbours borrow from each other where values are negative; adding 2^(B−1) to
//! every slot before cutting undoes that.

use super::{Error, Plaintext};
use zeroize::Zeroizing;

/// Bits of a slot: 11 of an 8×8 DCT coefficient of 8-bit luma with its sign, 3 of fraction, and
/// [`DEFAULT_GUARD_BITS`].
pub const DEFAULT_SLOT_BITS: u32 = 15;

/// Guard bits of a slot: room for a coefficient and the mark on it.
pub const DEFAULT_GUARD_BITS: u32 = 1;

/// How values lie in a plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    slot_bits: u32,
    guard_bits: u32,
    slots: usize,
}

impl Packing {
    /// As many slots of `slot_bits` (2 to 31, `guard_bits` of them guard) as plaintexts of a
    /// modulus of `modulus_bits` bits have room for: ⌊(modulus_bits − 2)/slot_bits⌋, 204 of 15
    /// bits at 3072 and 136 at 2048.
    pub fn new(slot_bits: u32, guard_bits: u32, modulus_bits: u32) -> Result<Self, Error> {
        // Σ 2^(B−1)·2^(B·s) < 2^(B·slots) ≤ 2^(modulus_bits−2) ≤ (n−1)/2.
        let slots = (modulus_bits.saturating_sub(2))
            .checked_div(slot_bits)
            .unwrap_or(0);
        let fits = (2..=31).contains(&slot_bits) && guard_bits < slot_bits && slots > 0;
        let shape = Self {
            slot_bits,
            guard_bits,
            slots: slots as usize,
        };
        fits.then_some(shape).ok_or(Error::PackingShape {
            slot_bits,
            guard_bits,
        })
    }

    /// Slots of a plaintext.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Bits by which slot `slot` is shifted: to add to one slot, shift a ciphertext by as much.
    pub fn shift(&self, slot: usize) -> u32 {
        self.slot_bits * slot as u32
    }

    /// Values that go into a slot: −limit to limit − 1.
    pub fn limit(&self) -> i32 {
        // guard_bits < slot_bits; a slot all guard but its sign takes 0 and −1.
        ((1u32 << (self.slot_bits - self.guard_bits)) >> 1) as i32
    }

    /// Puts values into slots 0, 1, …; the other slots are 0. Constant-time, but for an error.
    pub fn pack(&self, values: &[i32]) -> Result<Plaintext, Error> {
        if values.len() > self.slots {
            return Err(Error::TooManyValues {
                found: values.len(),
                slots: self.slots,
            });
        }
        let limit = self.limit();
        let beyond = |&v: &i32| v < -limit || v >= limit;
        if let Some(slot) = values.iter().position(beyond) {
            return Err(Error::SlotRange(slot));
        }
        let mut words = Zeroizing::new(vec![0u64; self.words()]);
        for (slot, &value) in values.iter().enumerate() {
            let raised = (i64::from(value) + (1i64 << (self.slot_bits - 1))) as u64;
            self.put(&mut words, slot, raised);
        }
        for slot in values.len()..self.slots {
            self.put(&mut words, slot, 1 << (self.slot_bits - 1));
        }
        let offset = self.offset();
        let mut borrow = false;
        for (word, &o) in words.iter_mut().zip(&offset) {
            let (d, b0) = word.overflowing_sub(o);
            let (d, b1) = d.overflowing_sub(u64::from(borrow));
            *word = d;
            borrow = b0 | b1;
        }
        Ok(Plaintext::from_words(std::mem::take(&mut *words)))
    }

    /// The values of all slots. An error if something is beyond the last slot; what ran over from
    /// one slot into the next cannot be told: that is for the guard bits to prevent.
    pub fn unpack(&self, plaintext: &Plaintext) -> Result<Vec<i32>, Error> {
        let offset = self.offset();
        let given = plaintext.words();
        let count = given.len().max(offset.len());
        let fill = ((given[given.len() - 1] as i64) >> 63) as u64;
        let mut words = Zeroizing::new(Vec::with_capacity(count));
        let mut carry = false;
        for i in 0..count {
            let a = given.get(i).copied().unwrap_or(fill);
            let (sum, c0) = a.overflowing_add(offset.get(i).copied().unwrap_or(0));
            let (sum, c1) = sum.overflowing_add(u64::from(carry));
            words.push(sum);
            carry = c0 | c1;
        }
        let end = self.shift(self.slots) as usize;
        let mut beyond = words[end / 64] >> (end % 64);
        for &word in &words[end / 64 + 1..] {
            beyond |= word;
        }
        if beyond != 0 {
            return Err(Error::SlotOverflow);
        }
        let mask = (1u64 << self.slot_bits) - 1;
        let value = |slot| {
            let bit = self.shift(slot) as usize;
            let (word, bit) = (bit / 64, bit % 64);
            let pair = u128::from(words[word]) | u128::from(words[word + 1]) << 64;
            let raised = (pair >> bit) as u64 & mask;
            (raised as i64 - (1i64 << (self.slot_bits - 1))) as i32
        };
        Ok((0..self.slots).map(value).collect())
    }

    /// Words of all slots, and one or two more for the sign.
    fn words(&self) -> usize {
        self.shift(self.slots) as usize / 64 + 2
    }

    fn put(&self, words: &mut [u64], slot: usize, field: u64) {
        let bit = self.shift(slot) as usize;
        let (word, bit) = (bit / 64, bit % 64);
        let pair = u128::from(field) << bit;
        words[word] |= pair as u64;
        words[word + 1] |= (pair >> 64) as u64;
    }

    /// Σ 2^(B−1)·2^(B·s).
    fn offset(&self) -> Vec<u64> {
        let mut words = vec![0; self.words()];
        for slot in 0..self.slots {
            self.put(&mut words, slot, 1 << (self.slot_bits - 1));
        }
        words
    }
}
