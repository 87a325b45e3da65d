// SPDX-License-Identifier: MPL-2.0
#![no_main]
//! Any bytes are opened without harm.

use gstcamvault::client::transport;
use gstcamvault::identity::AeadKey;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = transport::open(&AeadKey::new([0; 32]), data);
});
