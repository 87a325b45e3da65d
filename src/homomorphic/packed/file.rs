// SPDX-License-Identifier: MPL-2.0
//! Key files: one line of text, `camvault-paillier-secret-1 ` or `camvault-paillier-public-1 ` and
//! CBOR in base64url. A secret key file belongs to its user alone (mode 0600) and is never written
//! over; a public one carries its proof ([`CertifiedKey`]).

use super::super::Error;
use super::{CertifiedKey, SecretKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use zeroize::{Zeroize as _, Zeroizing};

const SECRET: &str = "camvault-paillier-secret-1 ";
const PUBLIC: &str = "camvault-paillier-public-1 ";

/// Bytes of a key file at most.
const MAX_FILE: u64 = 128 << 10;

#[derive(Encode, Decode)]
#[cbor(map)]
struct Primes {
    #[n(0)]
    p: ByteVec,
    #[n(1)]
    q: ByteVec,
}

impl Drop for Primes {
    fn drop(&mut self) {
        self.p.zeroize();
        self.q.zeroize();
    }
}

/// Writes a secret key to a new file of mode 0600, durably. An existing file is an error.
pub fn write_secret_key(path: &Path, key: &SecretKey) -> Result<(), Error> {
    let (p, q) = key.expose_primes();
    let primes = Primes {
        p: p.to_vec().into(),
        q: q.to_vec().into(),
    };
    // Room for all of it, so that no unwiped copy is left by growing.
    let mut body = Zeroizing::new(Vec::with_capacity(p.len() * 2 + 64));
    if minicbor::encode(&primes, &mut *body).is_err() {
        unreachable!("a Vec takes every byte");
    }
    write(path, SECRET, &body, 0o600)
}

/// Reads a secret key; refuses a file that group or others have any right to.
pub fn read_secret_key(path: &Path) -> Result<SecretKey, Error> {
    let body = read(path, SECRET, true)?;
    let form = |reason: String| Error::Form {
        what: "Paillier secret key file",
        reason,
    };
    let primes: Primes = crate::protocol::decode(&body).map_err(|e| form(e.to_string()))?;
    SecretKey::from_prime_bytes(&primes.p, &primes.q)
}

/// Writes a public key with its proof to a new file of mode 0644.
pub fn write_public_key(path: &Path, key: &CertifiedKey) -> Result<(), Error> {
    write(path, PUBLIC, &key.to_bytes(), 0o644)
}

/// Reads a public key with its proof, which is yet to be verified.
pub fn read_public_key(path: &Path) -> Result<CertifiedKey, Error> {
    CertifiedKey::from_bytes(&read(path, PUBLIC, false)?)
}

fn write(path: &Path, kind: &str, body: &[u8], mode: u32) -> Result<(), Error> {
    let mut text = Zeroizing::new(String::with_capacity(kind.len() + body.len() * 4 / 3 + 8));
    text.push_str(kind);
    BASE64URL.encode_string(body, &mut text);
    text.push('\n');
    let write = || {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        std::fs::File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|e| Error::File(path.to_owned(), e))
}

fn read(path: &Path, kind: &str, secret: bool) -> Result<Zeroizing<Vec<u8>>, Error> {
    let at = |e| Error::File(path.to_owned(), e);
    let file = std::fs::File::open(path).map_err(at)?;
    let meta = file.metadata().map_err(at)?;
    if secret && meta.permissions().mode() & 0o077 != 0 {
        return Err(Error::FileMode(path.to_owned()));
    }
    let form = |reason: &str| Error::Form {
        what: "Paillier key file",
        reason: format!("{}: {reason}", path.display()),
    };
    let mut text = Zeroizing::new(String::with_capacity(meta.len().min(MAX_FILE) as usize + 1));
    let length = file.take(MAX_FILE + 1).read_to_string(&mut text);
    match length {
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => return Err(form("it is no text")),
        Err(e) => return Err(at(e)),
        Ok(length) if length as u64 > MAX_FILE => return Err(form("it is too long")),
        Ok(_) => (),
    }
    let body = text.trim_end().strip_prefix(kind);
    let body = body.ok_or_else(|| form(&format!("it does not begin with {kind:?}")))?;
    let body = BASE64URL.decode(body).map(Zeroizing::new);
    body.map_err(|_| form("its base64url is damaged"))
}
