// SPDX-License-Identifier: MPL-2.0
//! Documents that parties sign and keep: a CBOR body and Ed25519 signatures over
//! `camvault document 1 ‖ 0 ‖ kind ‖ 0 ‖ body`. The bytes that were signed are what is kept and
//! sent, so that nothing depends on how a body is encoded again.

use super::{B32, decode, encode};
use crate::identity::Identity;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use ed25519_dalek::{Signature, VerifyingKey};
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

/// What can be signed.
pub trait Document: Encode<()> + for<'b> Decode<'b, ()> {
    /// Tells kinds of documents apart: a signature under one is none under another.
    const KIND: &'static str;
}

/// A document and its signatures.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Signed {
    #[n(0)]
    body: ByteVec,
    #[n(1)]
    signatures: Vec<Signer>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Signer {
    #[n(0)]
    key: B32,
    #[n(1)]
    signature: ByteArray<64>,
}

/// Signatures on one document at most.
const MAX_SIGNATURES: usize = 8;

/// Why a document does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// A signature that should be there is not, or is wrong.
    #[error("this {0} is not signed by who should have signed it, or was changed since")]
    Signature(&'static str),
    /// The body is not what it claims to be.
    #[error("this is not a {kind}: {reason}")]
    Form {
        /// What it should be.
        kind: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl Signed {
    /// Not signed by anyone yet.
    pub fn new<D: Document>(document: &D) -> Self {
        Self {
            body: encode(document).into(),
            signatures: Vec::new(),
        }
    }

    /// Adds a party's signature.
    pub fn sign<D: Document>(mut self, identity: &Identity) -> Self {
        let signature = identity.sign(&message::<D>(&self.body));
        self.signatures.push(Signer {
            key: identity.public().sign.into(),
            signature: signature.into(),
        });
        self
    }

    /// The document, if each of `keys` (Ed25519) has signed it.
    pub fn verify<D: Document>(&self, keys: &[&[u8; 32]]) -> Result<D, DocumentError> {
        let message = message::<D>(&self.body);
        let signed = |key: &[u8; 32]| {
            let signers = self.signatures.iter().take(MAX_SIGNATURES);
            let mut own = signers.filter(|signer| *signer.key == *key);
            let Ok(key) = VerifyingKey::from_bytes(key) else {
                return false;
            };
            own.any(|signer| {
                let signature = Signature::from_bytes(&signer.signature);
                key.verify_strict(&message, &signature).is_ok()
            })
        };
        match keys.iter().all(|key| signed(key)) {
            true => self.unverified(),
            false => Err(DocumentError::Signature(D::KIND)),
        }
    }

    /// What it says, whoever signed: to find out whose signatures to ask for.
    pub fn unverified<D: Document>(&self) -> Result<D, DocumentError> {
        decode(&self.body).map_err(|e| DocumentError::Form {
            kind: D::KIND,
            reason: e.to_string(),
        })
    }

    /// One line of text, for files: `camvault-KIND-1 ` and base64url.
    pub fn to_text<D: Document>(&self) -> String {
        format!("{}{}\n", prefix::<D>(), BASE64URL.encode(encode(self)))
    }

    /// Reads what [`Signed::to_text`] wrote; signatures are yet to be verified.
    pub fn from_text<D: Document>(text: &str) -> Result<Self, DocumentError> {
        let form = |reason: String| DocumentError::Form {
            kind: D::KIND,
            reason,
        };
        let prefix = prefix::<D>();
        let body = text.trim().strip_prefix(&prefix);
        let body = body.ok_or_else(|| form(format!("it does not begin with {prefix:?}")))?;
        let bytes = BASE64URL.decode(body).map_err(|e| form(e.to_string()))?;
        decode(&bytes).map_err(|e| form(e.to_string()))
    }

    /// SHA-256 of what is signed: names the document.
    pub fn id<D: Document>(&self) -> [u8; 32] {
        Sha256::digest(message::<D>(&self.body)).into()
    }
}

fn prefix<D: Document>() -> String {
    format!("camvault-{}-1 ", D::KIND.replace(' ', "-"))
}

fn message<D: Document>(body: &[u8]) -> Vec<u8> {
    let parts = [b"camvault document 1\0", D::KIND.as_bytes(), b"\0", body];
    parts.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Encode, Decode)]
    #[cbor(map)]
    struct Note(#[n(0)] String);
    impl Document for Note {
        const KIND: &'static str = "note";
    }

    #[derive(Debug, Encode, Decode)]
    #[cbor(map)]
    struct Other(#[n(0)] String);
    impl Document for Other {
        const KIND: &'static str = "other";
    }

    #[test]
    fn a_document_counts_only_as_what_it_is_and_with_all_signatures() {
        let [a, b] = [1, 2].map(|n| Identity::from_secret([n; 32]).unwrap());
        let (key_a, key_b) = (a.public().sign, b.public().sign);
        let note = Note("hello".into());
        let signed = Signed::new(&note).sign::<Note>(&a);
        assert_eq!(signed.verify::<Note>(&[&key_a]), Ok(note));
        assert!(signed.verify::<Note>(&[&key_a, &key_b]).is_err());
        assert!(signed.verify::<Other>(&[&key_a]).is_err());
        let both = signed.clone().sign::<Note>(&b);
        assert!(both.verify::<Note>(&[&key_a, &key_b]).is_ok());
        assert_eq!(both.id::<Note>(), signed.id::<Note>());
        let text = both.to_text::<Note>();
        assert_eq!(Signed::from_text::<Note>(&text), Ok(both.clone()));
        assert!(Signed::from_text::<Other>(&text).is_err());
        let mut changed = both;
        *changed.body.last_mut().unwrap() ^= 1;
        assert!(changed.verify::<Note>(&[&key_a]).is_err());
    }
}
