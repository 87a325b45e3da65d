// SPDX-License-Identifier: MPL-2.0
//! Records from anywhere never make the joiner panic or write more than they can ask for.
#![no_main]

use gstcamvault::chunk::{Codec, Joiner};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&len, rest)) = data.split_first() else {
        return;
    };
    let (content, envelope) = rest.split_at(rest.len().min(usize::from(len)));
    let mut joiner = Joiner::new(&Codec::Opaque, envelope);
    for end in (0..=content.len()).rev() {
        match joiner.next(&content[..end]) {
            Ok(au) => assert!(au.len() <= rest.len() + content.len() * (64 << 10)),
            Err(_) => break,
        }
    }
});
