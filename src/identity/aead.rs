// SPDX-License-Identifier: MPL-2.0
//! AES-256-GCM with a random nonce in front: `nonce (12) ‖ ciphertext ‖ tag (16)`.

use aes_gcm::aead::{Aead as _, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A key for sealed manifests or for the spool. Wiped on drop, no readable `Debug`.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct AeadKey([u8; 32]);

impl std::fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AeadKey(..)")
    }
}

/// The message was changed, cut, or belongs elsewhere.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("sealed data was changed, cut short, or is not what it claims to be")]
pub struct OpenError;

impl AeadKey {
    /// Takes 32 key bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key bytes, to be sealed to the one it is shared with.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Encrypts; `context` is authenticated and must be given again to open.
    pub fn seal(&self, context: &[u8], clear: &[u8]) -> Result<Vec<u8>, OpenError> {
        let mut nonce = [0u8; 12];
        getrandom::fill(&mut nonce).map_err(|_| OpenError)?;
        let payload = Payload {
            msg: clear,
            aad: context,
        };
        let sealed = Aes256Gcm::new((&self.0).into())
            .encrypt(&Nonce::from(nonce), payload)
            .map_err(|_| OpenError)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Decrypts what [`AeadKey::seal`] made.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (nonce, sealed) = sealed.split_first_chunk::<12>().ok_or(OpenError)?;
        let payload = Payload {
            msg: sealed,
            aad: context,
        };
        Aes256Gcm::new((&self.0).into())
            .decrypt(&Nonce::from(*nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| OpenError)
    }
}
