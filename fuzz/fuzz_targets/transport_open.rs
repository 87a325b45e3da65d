// SPDX-License-Identifier: MPL-2.0
//! Any bytes are opened without harm, also with any header that a key holder sealed.
#![no_main]

use gstcamvault::client::transport;
use gstcamvault::identity::AeadKey;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let key = AeadKey::new([0; 32]);
    let _ = transport::open(&key, data);
    let _ = transport::open(&key, &[b"CVCH\x01", data].concat());
    let header = key.seal(b"camvault transport v1", data).expect("short");
    let len = (header.len() as u32).to_be_bytes();
    let sealed = [&b"CVCH\x01"[..], &len, &header, b"content"].concat();
    let _ = transport::open(&key, &sealed);
});
