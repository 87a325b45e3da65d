// SPDX-License-Identifier: MPL-2.0
//! Any text is read without harm, and an address that was read is written so that it reads back.
#![no_main]

use gstcamvault::protocol::{RecordingUrl, vault_base};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for text in [
        text,
        &format!("camvault://{text}"),
        &format!("camvaults://h/{text}"),
    ] {
        if let Ok(url) = text.parse::<RecordingUrl>() {
            assert_eq!(url.to_string().parse().as_ref(), Ok(&url), "{url}");
            assert_eq!(vault_base(&url.to_string()), Ok(url.vault()));
        }
        if let Ok(base) = vault_base(text) {
            assert_eq!(vault_base(&base).as_ref(), Ok(&base));
        }
    }
});
