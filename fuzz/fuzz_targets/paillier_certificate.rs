// SPDX-License-Identifier: MPL-2.0
//! Any bytes in place of a certified key are read without harm, what was read is written so that it
//! reads back, and no modulus but the one that was proven is accepted.
#![no_main]

use gstcamvault::homomorphic::packed::CertifiedKey;
use libfuzzer_sys::fuzz_target;

const PROVEN: &[u8] = include_bytes!("../seeds/paillier_modulus/2048");

fuzz_target!(|data: &[u8]| {
    let Ok(certified) = CertifiedKey::from_bytes(data) else {
        return;
    };
    let again = CertifiedKey::from_bytes(&certified.to_bytes());
    assert_eq!(again.as_ref().ok(), Some(&certified));
    if let Ok(key) = certified.verify(b"fuzz") {
        assert_eq!(key.modulus(), PROVEN);
    }
    assert!(certified.verify(b"another contract").is_err());
});
