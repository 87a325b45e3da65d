// SPDX-License-Identifier: MPL-2.0
//! Which slot of which ciphertext a coefficient of a packed frame takes. Everyone can tell: it
//! depends on the bit that it would carry, not on whether it is marked.

use crate::homomorphic::Packing;
use crate::homomorphic::ticket::{PLANS, slot_bit};
use crate::watermark::BITS;

/// (ciphertext, slot) of each coefficient, given their bits in order.
pub fn places(packing: &Packing, bits: &[u8]) -> Vec<(usize, usize)> {
    let mut slots = vec![Vec::new(); BITS];
    for plan in 0..PLANS {
        for slot in 0..packing.slots() {
            slots[slot_bit(packing, plan, slot)].push((plan, slot));
        }
    }
    let mut taken = [0usize; BITS];
    let place = |&bit: &u8| {
        let bit = usize::from(bit) % BITS;
        let all = &slots[bit];
        let (round, at) = (taken[bit] / all.len(), taken[bit] % all.len());
        taken[bit] += 1;
        (round * PLANS + all[at].0, all[at].1)
    };
    bits.iter().map(place).collect()
}

/// Ciphertexts of a frame whose coefficients have these places.
pub fn ciphertexts(places: &[(usize, usize)]) -> usize {
    places.iter().map(|place| place.0 + 1).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_coefficient_has_a_slot_of_its_bit_to_itself() {
        for modulus in [2048, 3072] {
            let packing = Packing::new(15, 1, modulus).unwrap();
            let bits: Vec<u8> = (0..5000).map(|i| (i * 13 % 128) as u8).collect();
            let places = places(&packing, &bits);
            let mut seen = std::collections::HashSet::new();
            for (&(c, slot), &bit) in places.iter().zip(&bits) {
                assert_eq!(slot_bit(&packing, c, slot), usize::from(bit));
                assert!(slot < packing.slots() && seen.insert((c, slot)));
            }
            let least = 5000usize.div_ceil(packing.slots());
            assert!(ciphertexts(&places) <= least * 4 / 3 + 2);
        }
    }
}
