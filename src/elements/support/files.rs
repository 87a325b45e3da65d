// SPDX-License-Identifier: MPL-2.0
//! Keys that elements read from files, with errors for the bus.

use crate::identity::Identity;
use crate::protocol::{Contract, Signed};
use crate::rce::DomainSecret;
use crate::watermark;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Environment variable that names the identity file where no property does.
pub const IDENTITY_ENV: &str = "CAMVAULT_IDENTITY";

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Longest domain secret file: 64 hexadecimal digits and some white space.
const MAX_SECRET_FILE: usize = 128;

/// Loads the identity of the property `identity`, or of [`IDENTITY_ENV`].
pub fn identity(property: Option<&str>) -> Result<Arc<Identity>, gst::ErrorMessage> {
    let path = property
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::var_os(IDENTITY_ENV).map(PathBuf::from))
        .ok_or_else(|| {
            gst::error_msg!(
                gst::ResourceError::NotFound,
                (
                    "No identity: set the property identity or {IDENTITY_ENV} to a file that `camvault keygen --out FILE` made"
                )
            )
        })?;
    Identity::load(&path)
        .map(Arc::new)
        .map_err(|e| gst::error_msg!(gst::ResourceError::OpenRead, ("{e}")))
}

/// Bytes of a contract file at most.
const MAX_CONTRACT_FILE: u64 = 64 << 10;

/// Reads a contract as `camvault contract` writes it.
pub fn contract(path: &Path) -> Result<Signed, gst::ErrorMessage> {
    let name = path.display();
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_CONTRACT_FILE).read_to_string(&mut text))
        .map_err(|e| gst::error_msg!(gst::ResourceError::OpenRead, ("contract {name}: {e}")))?;
    Signed::from_text::<Contract>(&text)
        .map_err(|e| gst::error_msg!(gst::ResourceError::Read, ("contract {name}: {e}")))
}

/// A file that should hold a secret and does not.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read.
    #[error("{0}: {1}")]
    Read(String, std::io::Error),
    /// It holds something else.
    #[error("{0}: expected 32 bytes, raw, in hexadecimal or in base64{1}")]
    Form(String, &'static str),
}

impl From<SecretError> for gst::ErrorMessage {
    fn from(error: SecretError) -> Self {
        match &error {
            SecretError::Read(..) => gst::error_msg!(gst::ResourceError::OpenRead, ("{error}")),
            SecretError::Form(..) => gst::error_msg!(gst::ResourceError::Read, ("{error}")),
        }
    }
}

/// Loads a domain secret: 32 bytes as they are, in hexadecimal or in base64.
pub fn domain_secret(path: &Path) -> Result<DomainSecret, gst::ErrorMessage> {
    let secret = secret("domain-secret-file", path, "")?;
    Ok(DomainSecret::from_bytes(*secret))
}

/// Loads the key of watermarks: 32 bytes as they are, in hexadecimal or in base64, or an identity,
/// which has one.
pub fn watermark_key(path: &Path) -> Result<watermark::Key, SecretError> {
    const MORE: &str = ", or an identity that `camvault keygen --out FILE` made";
    match Identity::load(path) {
        Ok(identity) => Ok(identity.watermark_key()),
        Err(_) => secret("key-file", path, MORE).map(|key| watermark::Key::from_bytes(*key)),
    }
}

/// 32 bytes from the file that `property` names; `more` says what else it may be.
fn secret(
    property: &str,
    path: &Path,
    more: &'static str,
) -> Result<Zeroizing<[u8; 32]>, SecretError> {
    let name = format!("{property} {}", path.display());
    let bytes = match std::fs::read(path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(e) => return Err(SecretError::Read(name, e)),
    };
    parse_secret(&bytes).ok_or(SecretError::Form(name, more))
}

fn parse_secret(bytes: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    if let Ok(raw) = <[u8; 32]>::try_from(bytes) {
        return Some(Zeroizing::new(raw));
    }
    let text = std::str::from_utf8(bytes).ok()?.trim();
    if text.len() > MAX_SECRET_FILE {
        return None;
    }
    let decoded = Zeroizing::new(match text.len() {
        64 => (0..32)
            .map(|i| u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok())
            .collect::<Option<Vec<u8>>>()?,
        _ => BASE64.decode(text).ok()?,
    });
    <[u8; 32]>::try_from(decoded.as_slice())
        .ok()
        .map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_every_form_are_the_same() {
        let raw: [u8; 32] = std::array::from_fn(|i| i as u8);
        let hex: String = raw.iter().map(|b| format!("{b:02x}")).collect();
        let base64 = BASE64.encode(raw);
        for form in [
            format!("{hex}\n"),
            format!(" {base64}\n"),
            base64.replace('=', ""),
        ] {
            assert_eq!(
                parse_secret(form.as_bytes()).as_deref(),
                Some(&raw),
                "{form}"
            );
        }
        for wrong in [
            "",
            "00",
            "é".repeat(32).as_str(),
            hex.replace('0', "g").as_str(),
        ] {
            assert!(parse_secret(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }
}
