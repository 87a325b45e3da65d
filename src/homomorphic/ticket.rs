// SPDX-License-Identifier: MPL-2.0
//! Tickets: the bits of a watermark under the cloud's key, each already shifted to where the owner
//! needs it. Shifting at the owner's would multiply the exponents that its randomisers hide and
//! cost thousands of squarings a bit.
//!
//! - For labels: E(w_j·2^(127·i)), i the place of bit j among the labels of one ciphertext.
//! - For slots: E(w_b·s/4·2^(B·slot)), b the bit that the slot carries. Each is multiplied in
//!   twice, with signs (+, +) for δ = s/2, (−, −) for −s/2 and (+, −) for what is not marked: so all
//!   three take the same time.

use super::packed::{Ciphertext, Encryptor, PublicKey};
use super::{
    AdditiveScheme as _, DEFAULT_GUARD_BITS, DEFAULT_SLOT_BITS, Error, Packing, Plaintext,
};
use crate::watermark::{BITS, Word};

/// Bits of a label.
pub const LABEL_BITS: u32 = 127;

/// Labels of one ciphertext: 16 at 2048 bits, 24 at 3072, 32 at 4096.
pub fn labels_per_ciphertext(modulus_bits: u32) -> usize {
    (modulus_bits.saturating_sub(2) / LABEL_BITS).max(1) as usize
}

/// Arrangements of bits in slots that take turns from one ciphertext of a frame to the next: slot
/// numbers go on counting, so that all bits get about the same number of slots.
pub const PLANS: usize = 2;

/// How tickets for slots, and masks of retrievals, lie in plaintexts of a key.
pub fn packing(key: &PublicKey) -> Result<Packing, Error> {
    Packing::new(DEFAULT_SLOT_BITS, DEFAULT_GUARD_BITS, key.modulus_bits())
}

/// The bit that a slot carries.
pub fn slot_bit(packing: &Packing, plan: usize, slot: usize) -> usize {
    (plan % PLANS * packing.slots() + slot) % BITS
}

/// The 128 ciphertexts of a ticket for labels.
pub fn for_labels(encryptor: &Encryptor, word: Word) -> Result<Vec<Ciphertext>, Error> {
    let each = labels_per_ciphertext(encryptor.key().modulus_bits());
    let bit = |j: usize| {
        let shift = LABEL_BITS * (j % each) as u32;
        encryptor.encrypt(&shifted(u64::from(word.bit(j)), shift))
    };
    (0..BITS).map(bit).collect()
}

/// The [`PLANS`] × slots ciphertexts of a ticket for slots, with a step of `step`,
/// a multiple of 4.
pub fn for_slots(
    encryptor: &Encryptor,
    packing: &Packing,
    word: Word,
    step: u32,
) -> Result<Vec<Ciphertext>, Error> {
    let places = (0..PLANS).flat_map(|plan| (0..packing.slots()).map(move |slot| (plan, slot)));
    let bit = |(plan, slot)| {
        let bit = word.bit(slot_bit(packing, plan, slot));
        let value = u64::from(bit) * u64::from(step / 4);
        encryptor.encrypt(&shifted(value, packing.shift(slot)))
    };
    places.map(bit).collect()
}

/// `value`·2^`shift`; the time shows the shift alone. `value` < 2^32.
fn shifted(value: u64, shift: u32) -> Plaintext {
    let (word, bit) = (shift as usize / 64, shift % 64);
    let mut words = vec![0; word + 3];
    let pair = u128::from(value) << bit;
    words[word] = pair as u64;
    words[word + 1] = (pair >> 64) as u64;
    Plaintext::from_words(words)
}
