// SPDX-License-Identifier: MPL-2.0
//! Any bytes in place of ciphertexts: what is read is written as it was, and many at a time are
//! read if each one is.
#![no_main]

use gstcamvault::homomorphic::packed::PublicKey;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static KEY: LazyLock<PublicKey> = LazyLock::new(|| {
    PublicKey::from_modulus(include_bytes!("../seeds/paillier_modulus/2048")).expect("a modulus")
});

fuzz_target!(|data: &[u8]| {
    let parts: Vec<_> = data.chunks(KEY.ciphertext_bytes()).collect();
    let each: Result<Vec<_>, _> = parts.iter().map(|part| KEY.parse(part)).collect();
    let many = KEY.parse_many(&parts);
    assert_eq!(each.is_ok(), many.is_ok());
    for ciphertexts in [each, many].into_iter().flatten() {
        for (ciphertext, part) in ciphertexts.iter().zip(&parts) {
            assert_eq!(KEY.to_bytes(ciphertext), *part);
        }
    }
});
