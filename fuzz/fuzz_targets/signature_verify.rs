// SPDX-License-Identifier: MPL-2.0
//! Signature fields from anywhere are refused; of those that a key holder wrote and signed, only
//! the one form that covers everything is accepted.
#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use gstcamvault::identity::Identity;
use gstcamvault::protocol::signature::{Covered, content_digest, sign, verify};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static SIGNER: LazyLock<Identity> =
    LazyLock::new(|| Identity::from_secret([1; 32]).expect("a secret"));

fuzz_target!(|fields: (&str, &str)| {
    let (input, signature) = fields;
    let body_value = content_digest(b"");
    let covered = Covered {
        method: "POST",
        authority: "127.0.0.1:7420",
        path: "/v1/lookup",
        query: "",
        body_field: "content-digest",
        body_value: &body_value,
    };
    assert_eq!(verify(&covered, input, signature), None);

    // The same fields, rightly signed: RFC 9421, section 2.5.
    let sign_input = |input: &str| {
        let base = format!(
            "\"@method\": POST\n\"@authority\": 127.0.0.1:7420\n\"@path\": /v1/lookup\n\
             \"@query\": ?\n\"content-digest\": {body_value}\n\"@signature-params\": {input}"
        );
        let signature = SIGNER.sign(base.as_bytes());
        format!("sig1=:{}:", STANDARD.encode(signature))
    };
    let key = URL_SAFE_NO_PAD.encode(SIGNER.public().sign);
    let input = &input.replace("KEY", &key);
    let names = "\"@method\" \"@authority\" \"@path\" \"@query\" \"content-digest\"";
    for input in [
        input,
        &format!("({names});{input}"),
        &format!("({names});created=17;nonce=\"{input}\";keyid=\"{key}\";alg=\"ed25519\""),
        &format!("({names});created={input};nonce=\"AAAAAAAAAAA\";keyid=\"{key}\";alg=\"ed25519\""),
    ] {
        let field = format!("sig1={input}");
        if let Some(params) = verify(&covered, &field, &sign_input(input)) {
            let (one_form, _) = sign(&SIGNER, &covered, params.created, &params.nonce);
            assert_eq!(field, one_form);
        }
    }
});
