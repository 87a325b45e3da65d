// SPDX-License-Identifier: MPL-2.0
//! The server's secrets: files in `DIR/secrets/`, made at the first start, readable by the
//! server's user alone.

use crate::identity::{self, Identity};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Why a secret could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("secret file {0}: {1}")]
    File(PathBuf, #[source] std::io::Error),
    /// A file does not hold a secret.
    #[error("{0} does not hold 32 bytes in base64url: restore it from a copy")]
    Form(PathBuf),
    /// The operating system gave no random numbers.
    #[error("the operating system gave no random numbers")]
    Random,
    /// The identity file is none.
    #[error(transparent)]
    Identity(#[from] identity::Error),
}

/// 32 secret bytes.
pub type Secret = Zeroizing<[u8; 32]>;

/// Makes the directory of secrets.
pub fn prepare(dir: &Path) -> Result<(), Error> {
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir);
    made.map_err(|e| Error::File(dir.to_owned(), e))
}

/// Reads the secret in a file.
pub fn read(path: &Path) -> Result<Secret, Error> {
    let at = |e| Error::File(path.to_owned(), e);
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(at)?);
    let bytes = BASE64URL.decode(text.trim()).map(Zeroizing::new);
    let secret = bytes.ok().and_then(|b| b.as_slice().try_into().ok());
    secret
        .map(Zeroizing::new)
        .ok_or_else(|| Error::Form(path.to_owned()))
}

/// Reads the secret in a file, or draws one and writes it, whole or not at all.
pub fn read_or_make(path: &Path) -> Result<Secret, Error> {
    match read(path) {
        Err(Error::File(_, e)) if e.kind() == std::io::ErrorKind::NotFound => (),
        other => return other,
    }
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *secret).map_err(|_| Error::Random)?;
    let mut text = Zeroizing::new(BASE64URL.encode(*secret));
    text.push('\n');
    let write = |unfinished: &Path| {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    let at = |e| Error::File(path.to_owned(), e);
    publish(path, |unfinished| write(unfinished).map_err(at))?;
    read(path)
}

/// Reads an identity file, or draws an identity and writes it, whole or not at all.
pub fn identity(path: &Path) -> Result<Identity, Error> {
    if !path.exists() {
        let identity = Identity::generate()?;
        publish(path, |unfinished| {
            // What a killed process left.
            let _ = std::fs::remove_file(unfinished);
            Ok(identity.save_new(unfinished)?)
        })?;
    }
    Ok(Identity::load(path)?)
}

/// Has a file written, and gives it its name: never over one that another process has made
/// meanwhile.
fn publish(path: &Path, write: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let unfinished = path.with_extension(format!("{}.unfinished", std::process::id()));
    write(&unfinished)?;
    let name = || {
        let linked = std::fs::hard_link(&unfinished, path);
        std::fs::remove_file(&unfinished)?;
        match linked {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(e),
            _ => (),
        }
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        std::fs::File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
    };
    name().map_err(|e| Error::File(path.to_owned(), e))
}

/// Tells whether secrets are the same, and nothing else of them.
pub fn fingerprint(secrets: &[&Secret]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("camvault fingerprint of servers' secrets v1");
    for secret in secrets {
        hasher.update(&***secret);
    }
    *hasher.finalize().as_bytes()
}

/// A secret as a token that people paste.
pub fn as_token(secret: &Secret) -> Zeroizing<String> {
    Zeroizing::new(BASE64URL.encode(**secret))
}
