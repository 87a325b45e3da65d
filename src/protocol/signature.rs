// SPDX-License-Identifier: MPL-2.0
//! HTTP message signatures (RFC 9421), one profile: Ed25519 over `@method`, `@authority`,
//! `@path`, `@query` and one field that binds the body (`content-digest` with sha-256, RFC 9530,
//! or [`BLOBS_HEADER`](super::BLOBS_HEADER)), with `created`, `nonce`, `keyid` and `alg`.

use crate::identity::Identity;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64URL};
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest, Sha256};

/// The parts of a request that a signature covers.
#[derive(Clone, Copy, Debug)]
pub struct Covered<'a> {
    /// Method, upper case.
    pub method: &'a str,
    /// `host[:port]`, lower case, as in the `Host` header.
    pub authority: &'a str,
    /// Absolute path.
    pub path: &'a str,
    /// Query without its `?`; empty if there is none.
    pub query: &'a str,
    /// Name of the field that binds the body, lower case.
    pub body_field: &'a str,
    /// Value of that field.
    pub body_value: &'a str,
}

/// Who signed and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// Unix seconds.
    pub created: u64,
    /// Fresh for every request, at most 64 printable characters.
    pub nonce: String,
    /// The signer's Ed25519 key.
    pub key: [u8; 32],
}

impl Params {
    /// Value of `Signature-Input` behind `sig1=`.
    fn input(&self, body_field: &str) -> String {
        format!(
            "(\"@method\" \"@authority\" \"@path\" \"@query\" \"{body_field}\")\
             ;created={};nonce=\"{}\";keyid=\"{}\";alg=\"ed25519\"",
            self.created,
            self.nonce,
            BASE64URL.encode(self.key)
        )
    }
}

/// `Content-Digest` of a body: `sha-256=:…:`.
pub fn content_digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", BASE64.encode(Sha256::digest(body)))
}

/// RFC 9421, section 2.5.
fn base(covered: &Covered<'_>, input: &str) -> String {
    let Covered {
        method,
        authority,
        path,
        query,
        body_field,
        body_value,
    } = covered;
    format!(
        "\"@method\": {method}\n\"@authority\": {authority}\n\"@path\": {path}\n\
         \"@query\": ?{query}\n\"{body_field}\": {body_value}\n\"@signature-params\": {input}"
    )
}

/// Values of the `Signature-Input` and `Signature` fields for a request.
pub fn sign(
    identity: &Identity,
    covered: &Covered<'_>,
    created: u64,
    nonce: &str,
) -> (String, String) {
    let key = identity.public().sign;
    let input = Params {
        created,
        nonce: nonce.to_owned(),
        key,
    }
    .input(covered.body_field);
    let signature = identity.sign(base(covered, &input).as_bytes());
    (
        format!("sig1={input}"),
        format!("sig1=:{}:", BASE64.encode(signature)),
    )
}

/// A fresh nonce: 16 random bytes in base64url.
pub fn nonce() -> Option<String> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(BASE64URL.encode(bytes))
}

/// Checks the two fields of a request against what they cover and tells who signed. Time and
/// nonce are the caller's to judge.
pub fn verify(covered: &Covered<'_>, signature_input: &str, signature: &str) -> Option<Params> {
    let input = signature_input.strip_prefix("sig1=")?;
    let (_, parameters) = input.split_once(')')?;
    let mut params = Params {
        created: 0,
        nonce: String::new(),
        key: [0; 32],
    };
    for parameter in parameters.strip_prefix(';')?.split(';') {
        let (name, value) = parameter.split_once('=')?;
        let text = || value.strip_prefix('"')?.strip_suffix('"');
        match name {
            "created" => params.created = value.parse().ok()?,
            "nonce" => params.nonce = text()?.to_owned(),
            "keyid" => params.key = BASE64URL.decode(text()?).ok()?.try_into().ok()?,
            "alg" => (),
            _ => return None,
        }
    }
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    // Only the one form that `input` writes is accepted, so nothing can be left uncovered.
    if !(8..=64).contains(&params.nonce.len())
        || !params.nonce.chars().all(fine)
        || params.input(covered.body_field) != input
    {
        return None;
    }
    let bytes = BASE64
        .decode(signature.strip_prefix("sig1=:")?.strip_suffix(':')?)
        .ok()?;
    let signature = Signature::from_bytes(&bytes.try_into().ok()?);
    VerifyingKey::from_bytes(&params.key)
        .ok()?
        .verify_strict(base(covered, input).as_bytes(), &signature)
        .ok()?;
    Some(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COVERED: Covered<'_> = Covered {
        method: "POST",
        authority: "127.0.0.1:7420",
        path: "/v1/lookup",
        query: "",
        body_field: "content-digest",
        body_value: "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:",
    };

    #[test]
    fn signed_requests_verify_and_changed_ones_do_not() {
        let id = Identity::from_secret([1; 32]).unwrap();
        let (input, signature) = sign(&id, &COVERED, 1_700_000_000, "AAAAAAAAAAAAAAAAAAAAAA");
        let params = verify(&COVERED, &input, &signature).unwrap();
        assert_eq!(params.key, id.public().sign);
        assert_eq!(params.created, 1_700_000_000);
        let changed = [
            Covered {
                method: "PUT",
                ..COVERED
            },
            Covered {
                authority: "elsewhere",
                ..COVERED
            },
            Covered {
                path: "/v1/register",
                ..COVERED
            },
            Covered {
                query: "owner=1",
                ..COVERED
            },
            Covered {
                body_value: "sha-256=:AAAA:",
                ..COVERED
            },
            Covered {
                body_field: "camvault-blobs",
                ..COVERED
            },
        ];
        for covered in changed {
            assert_eq!(verify(&covered, &input, &signature), None);
        }
        let later = input.replace("1700000000", "1700000001");
        assert_eq!(verify(&COVERED, &later, &signature), None);
        assert_eq!(content_digest(b""), COVERED.body_value);
    }

    proptest! {
        #[test]
        fn hostile_fields_are_refused(input in ".{0,200}", signature in ".{0,120}") {
            prop_assert_eq!(verify(&COVERED, &input, &signature), None);
            prop_assert_eq!(verify(&COVERED, &format!("sig1=({input}"), &signature), None);
        }
    }
}
