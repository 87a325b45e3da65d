// SPDX-License-Identifier: MPL-2.0
//! A party's identity: one 32-byte secret in a file, and everything that is derived from it.
//!
//! | key | derivation: HKDF-SHA-256, salt `camvault identity v1`, info | use |
//! |---|---|---|
//! | signing | `sign` | Ed25519 seed; signs requests |
//! | agreement | `agree` | X25519 private key; HPKE (RFC 9180) receives path keys and shares |
//! | names | `names` | HMAC-SHA-256 key; recording ids |
//! | recordings | `recordings` | HMAC-SHA-256 key; one AES-256-GCM key per recording |
//! | spool | `spool` | AES-256-GCM key of chunks that wait on the recorder's disk |
//! | transport | `transport` | AES-256-GCM key of chunks on their way between the owner's processes |
//! | watermark | `watermark` | key of watermarks' places, dithers and pad |

use crate::mac::hmac;
use crate::watermark;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use hpke::{Deserializable, Kem as _, OpModeR, OpModeS, Serializable};
use sha2::Sha256;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

mod aead;
pub use aead::{AeadKey, OpenError};

type Kem = hpke::kem::X25519HkdfSha256;
type Kdf = hpke::kdf::HkdfSha256;
type Aead = hpke::aead::AesGcm256;

const HEADER: &str = "CAMVAULT-IDENTITY-1 ";
const HRP: bech32::Hrp = bech32::Hrp::parse_unchecked("camvault");

/// A recording's public id, 16 bytes: the metadata server cannot tell the name from it.
pub type RecordingId = [u8; 16];

/// What others know of a party: its Ed25519 and X25519 public keys, written as one bech32m
/// string `camvault1…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicId {
    /// Ed25519 verification key; also the party's pseudonym at the servers.
    pub sign: [u8; 32],
    /// X25519 public key.
    pub agree: [u8; 32],
}

impl std::fmt::Display for PublicId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = [self.sign, self.agree].concat();
        match bech32::encode::<bech32::Bech32m>(HRP, &bytes) {
            Ok(text) => f.write_str(&text),
            Err(_) => Err(std::fmt::Error),
        }
    }
}

impl std::str::FromStr for PublicId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (hrp, bytes) = bech32::decode(text.trim()).map_err(|_| Error::Public)?;
        let (sign, agree) = bytes.split_at_checked(32).ok_or(Error::Public)?;
        let (Ok(sign), Ok(agree)) = (sign.try_into(), agree.try_into()) else {
            return Err(Error::Public);
        };
        if hrp != HRP || VerifyingKey::from_bytes(&sign).is_err() {
            return Err(Error::Public);
        }
        Ok(Self { sign, agree })
    }
}

impl PublicId {
    /// HPKE single-shot seal (base mode; DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM):
    /// the 32-byte encapsulated key followed by the ciphertext. `info` names the purpose.
    pub fn seal(&self, info: &[u8], clear: &[u8]) -> Result<Vec<u8>, Error> {
        let to =
            <Kem as hpke::Kem>::PublicKey::from_bytes(&self.agree).map_err(|_| Error::Public)?;
        let (enc, sealed) =
            hpke::single_shot_seal::<Aead, Kdf, Kem>(&OpModeS::Base, &to, info, clear, b"")
                .map_err(|_| Error::Public)?;
        Ok([enc.to_bytes().as_slice(), &sealed].concat())
    }
}

/// The secret side. Wiped on drop; `Debug` shows only the public id.
pub struct Identity {
    secret: Secret,
    signing: SigningKey,
    public: PublicId,
}

#[derive(Zeroize, ZeroizeOnDrop)]
struct Secret([u8; 32]);

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.public)
    }
}

impl Identity {
    /// Draws a new identity.
    pub fn generate() -> Result<Self, Error> {
        let mut secret = [0u8; 32];
        getrandom::fill(&mut secret).map_err(|_| Error::Random)?;
        Self::from_secret(secret)
    }

    /// The identity of a secret.
    pub fn from_secret(secret: [u8; 32]) -> Result<Self, Error> {
        let secret = Secret(secret);
        let signing = SigningKey::from_bytes(&secret.derive("sign"));
        let agree = agreement(&secret)?;
        let public = PublicId {
            sign: signing.verifying_key().to_bytes(),
            agree: Kem::sk_to_pk(&agree).to_bytes().into(),
        };
        Ok(Self {
            secret,
            signing,
            public,
        })
    }

    /// Reads an identity file, see [`Identity::from_text`].
    pub fn load(path: &Path) -> Result<Self, Error> {
        let at = |e| Error::File(path.display().to_string(), e);
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(at)?);
        Self::from_text(&text).ok_or_else(|| Error::Format(path.display().to_string()))
    }

    /// The content of an identity file: lines that start with `#` are comments, one line is the
    /// header followed by the secret in unpadded base64.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let b64 = lines.find_map(|line| line.trim().strip_prefix(HEADER))?;
        let bytes = Zeroizing::new(BASE64.decode(b64).ok()?);
        Self::from_secret(bytes.as_slice().try_into().ok()?).ok()
    }

    /// Writes a new identity file, readable by its user alone; never overwrites one.
    pub fn save_new(&self, path: &Path) -> Result<(), Error> {
        let at = |e| Error::File(path.display().to_string(), e);
        let secret = Zeroizing::new(BASE64.encode(self.secret.0));
        let text = Zeroizing::new(format!(
            "# camvault identity: whoever has this file has the recordings. Keep a copy safe.\n\
             # public: {}\n{HEADER}{}\n",
            self.public, *secret
        ));
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(at)?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(at)
    }

    /// The public side.
    pub fn public(&self) -> &PublicId {
        &self.public
    }

    /// Ed25519 signature.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }

    /// Opens what [`PublicId::seal`] made for this identity.
    pub fn open(&self, info: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let (enc, sealed) = sealed.split_at_checked(32).ok_or(Error::Sealed)?;
        let enc = <Kem as hpke::Kem>::EncappedKey::from_bytes(enc).map_err(|_| Error::Sealed)?;
        let key = agreement(&self.secret)?;
        hpke::single_shot_open::<Aead, Kdf, Kem>(&OpModeR::Base, &key, &enc, info, sealed, b"")
            .map(Zeroizing::new)
            .map_err(|_| Error::Sealed)
    }

    /// The id of one of this identity's recordings: the first 16 bytes of HMAC(names key, name).
    pub fn recording_id(&self, name: &str) -> RecordingId {
        let mac = self.secret.mac("names", name.as_bytes());
        std::array::from_fn(|i| mac[i])
    }

    /// The key of a recording's manifests: HMAC(recordings key, id).
    pub fn recording_key(&self, id: &RecordingId) -> AeadKey {
        AeadKey::new(*self.secret.mac("recordings", id))
    }

    /// The key of this identity's spools.
    pub fn spool_key(&self) -> AeadKey {
        AeadKey::new(*self.secret.derive("spool"))
    }

    /// The key of this identity's watermarks.
    pub fn watermark_key(&self) -> watermark::Key {
        watermark::Key::from_bytes(*self.secret.derive("watermark"))
    }

    /// The key of chunks on their way between processes of this identity.
    pub fn transport_key(&self) -> AeadKey {
        AeadKey::new(*self.secret.derive("transport"))
    }
}

fn agreement(secret: &Secret) -> Result<<Kem as hpke::Kem>::PrivateKey, Error> {
    <Kem as hpke::Kem>::PrivateKey::from_bytes(&*secret.derive("agree")).map_err(|_| Error::Public)
}

impl Secret {
    fn derive(&self, info: &str) -> Zeroizing<[u8; 32]> {
        let mut out = Zeroizing::new([0u8; 32]);
        let hkdf = Hkdf::<Sha256>::new(Some(b"camvault identity v1"), &self.0);
        // 32 bytes are always below HKDF's limit of 255 × 32.
        if hkdf.expand(info.as_bytes(), &mut *out).is_err() {
            unreachable!("HKDF gives 32 bytes");
        }
        out
    }

    fn mac(&self, info: &str, data: &[u8]) -> Zeroizing<[u8; 32]> {
        hmac(&self.derive(info), &[data])
    }
}

/// What can be wrong with an identity.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system gave no random numbers.
    #[error("the operating system gave no random numbers")]
    Random,
    /// The file cannot be read or written.
    #[error("identity file {0}: {1}")]
    File(String, #[source] std::io::Error),
    /// The file is not an identity.
    #[error("{0} is not an identity file: make one with `camvault keygen --out FILE`")]
    Format(String),
    /// Not a public id.
    #[error("not a public identity: expected camvault1…, as `camvault keygen` prints it")]
    Public,
    /// A sealed message is not for this identity, or was changed.
    #[error("sealed message is not for this identity, or was changed on its way")]
    Sealed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_back_the_identity_and_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("id");
        let id = Identity::generate().unwrap();
        id.save_new(&path).unwrap();
        let back = Identity::load(&path).unwrap();
        assert_eq!(back.public(), id.public());
        assert_eq!(back.recording_id("a"), id.recording_id("a"));
        assert!(matches!(id.save_new(&path), Err(Error::File(..))));
        assert!(!format!("{id:?}").contains(&BASE64.encode(id.secret.0)));
    }

    #[test]
    fn public_ids_read_back_and_typing_errors_are_found() {
        let id = Identity::from_secret([5; 32]).unwrap();
        let text = id.public().to_string();
        assert_eq!(&text.parse::<PublicId>().unwrap(), id.public());
        let typo = text.replacen('q', "p", 1);
        assert!(typo == text || typo.parse::<PublicId>().is_err());
        assert!("camvault1".parse::<PublicId>().is_err());
    }

    #[test]
    fn sealed_for_one_is_open_to_no_other() {
        let (a, b) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let sealed = a.public().seal(b"test", b"path keys").unwrap();
        assert_eq!(a.open(b"test", &sealed).unwrap().as_slice(), b"path keys");
        assert!(a.open(b"else", &sealed).is_err());
        assert!(b.open(b"test", &sealed).is_err());
        assert!(a.open(b"test", &sealed[..20]).is_err());
    }
}
