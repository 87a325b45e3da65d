// SPDX-License-Identifier: MPL-2.0
//! Any identity file, public id and sealed message is read without harm, and an id that was read
//! is written so that it reads back.
#![no_main]

use gstcamvault::identity::{Identity, PublicId};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static ME: LazyLock<Identity> = LazyLock::new(|| Identity::from_secret([1; 32]).expect("a secret"));

fuzz_target!(|data: &[u8]| {
    assert!(ME.open(b"fuzz", data).is_err());
    if let Some(bytes) = data.first_chunk::<64>() {
        let (sign, agree) = bytes.split_at(32);
        let id = PublicId {
            sign: sign.try_into().expect("32 bytes"),
            agree: agree.try_into().expect("32 bytes"),
        };
        if let Ok(back) = id.to_string().parse::<PublicId>() {
            assert_eq!(back, id);
            // A key that is none must be an error, too.
            let _ = id.seal(b"fuzz", b"clear");
        }
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for text in [text, &format!("CAMVAULT-IDENTITY-1 {text}")] {
        if let Some(identity) = Identity::from_text(text) {
            let public = identity.public();
            assert_eq!(public.to_string().parse().as_ref().ok(), Some(public));
        }
    }
    for text in [text, &format!("camvault1{text}")] {
        if let Ok(id) = text.parse::<PublicId>() {
            assert_eq!(id.to_string().parse().ok(), Some(id));
        }
    }
});
