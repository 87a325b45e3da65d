// SPDX-License-Identifier: MPL-2.0
//! Any bytes in place of a modulus: what is taken for one has the right size, is odd, and is
//! written as it was read.
#![no_main]

use gstcamvault::homomorphic::packed::{MODULUS_BITS, PublicKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(key) = PublicKey::from_modulus(data) else {
        return;
    };
    assert!(MODULUS_BITS.contains(&key.modulus_bits()));
    assert_eq!(key.modulus(), data);
    assert_eq!(data[data.len() - 1] & 1, 1);
    assert_eq!(key.ciphertext_bytes(), 2 * data.len());
});
