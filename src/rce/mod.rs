// SPDX-License-Identifier: MPL-2.0
//! Randomised convergent encryption, suite `rce1` of [KL19], equations (3)-(19).
//!
//! H is SHA-256, E is AES-256-CTR with an all-zero IV (a data key `L` encrypts one chunk once),
//! ⊕ is taken over 32 bytes. Blobs are named `d1 = BLAKE3(C1)`, which binds the ciphertext that
//! the paper's `C3` leaves free. No I/O here.
//!
//! H(chunk), and H(chunk ‖ L) are computed in one pass over the chunk: the hash state after the
//! chunk is kept in [`ChunkId`] and continued with `L`.

mod primitive;

use primitive::{Hasher, encrypt, xor};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Name of the suite, a field of every record.
pub const SUITE: &str = "rce1";

/// 32 public bytes: a tag, a blob name, `C2` or `C3`.
pub type Bytes32 = [u8; 32];

/// Convergent key `K` of a chunk (equation 3). Whoever knows it and may fetch the record reads
/// the chunk; it is wiped on drop and has no readable `Debug`.
#[derive(Clone, Zeroize, ZeroizeOnDrop, PartialEq, Eq)]
pub struct Key(Bytes32);

impl Key {
    /// Takes a key read from a manifest.
    pub fn from_bytes(bytes: Bytes32) -> Self {
        Self(bytes)
    }

    /// The 32 bytes, for the sealed manifest only.
    pub fn expose(&self) -> &Bytes32 {
        &self.0
    }

    /// The tag `t = H(K)` (equation 4).
    pub fn tag(&self) -> Bytes32 {
        *Hasher::of(&self.0)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Secret of a dedup domain: with it `K = HMAC-SHA-256(secret, chunk)`, so that only members of
/// the domain can test a guess at a chunk. Chunks of different domains do not match.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DomainSecret(Bytes32);

impl DomainSecret {
    /// Takes the 32 secret bytes.
    pub fn from_bytes(bytes: Bytes32) -> Self {
        Self(bytes)
    }
}

/// What is known of a clear chunk: its key, its tag and the hash state from which `C3` follows.
#[derive(Clone)]
pub struct ChunkId {
    key: Key,
    tag: Bytes32,
    state: Hasher,
}

impl ChunkId {
    /// `K = H(chunk)`, or `HMAC(secret, chunk)` in a dedup domain, and `t = H(K)`.
    pub fn of(chunk: &[u8], domain: Option<&DomainSecret>) -> Self {
        let mut state = Hasher::default();
        state.update(chunk);
        Self::after(state, chunk, domain)
    }

    /// The ids of several chunks, which takes less time than one after the other.
    pub fn of_each(chunks: &[&[u8]], domain: Option<&DomainSecret>) -> Vec<Self> {
        let states = Hasher::after_each(chunks).into_iter().zip(chunks);
        states
            .map(|(state, chunk)| Self::after(state, chunk, domain))
            .collect()
    }

    fn after(state: Hasher, chunk: &[u8], domain: Option<&DomainSecret>) -> Self {
        let key = Key(match domain {
            None => *state.digest(),
            Some(secret) => *primitive::hmac(&secret.0, chunk),
        });
        let tag = key.tag();
        Self { key, tag, state }
    }

    /// The id of a chunk whose key is known; of a chunk of a dedup domain without its secret.
    pub fn with_key(key: Key, chunk: &[u8]) -> Self {
        let mut state = Hasher::default();
        state.update(chunk);
        let tag = key.tag();
        Self { key, tag, state }
    }

    /// The convergent key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The tag under which the metadata server knows the chunk.
    pub fn tag(&self) -> &Bytes32 {
        &self.tag
    }

    /// `C3 = H(chunk ‖ L)` (equation 8).
    fn c3(&self, data_key: &Bytes32) -> Bytes32 {
        let mut state = self.state.clone();
        state.update(data_key);
        *state.digest()
    }
}

/// What the metadata server keeps of one sealed copy of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// `L ⊕ K` (equation 7).
    pub c2: Bytes32,
    /// `H(chunk ‖ L)` (equation 8).
    pub c3: Bytes32,
    /// `BLAKE3(C1)`, the name of the blob.
    pub d1: Bytes32,
}

/// First upload (equations 5-8), and the fresh copy after a poisoned one (11-14): draws `L`,
/// turns `chunk` into `C1` in place and returns the record.
pub fn seal(id: &ChunkId, chunk: &mut [u8]) -> Result<Record, Error> {
    let mut data_key = Zeroizing::new([0u8; 32]);
    getrandom::fill(&mut *data_key).map_err(|_| Error::Random)?;
    Ok(seal_with(id, chunk, &data_key))
}

fn seal_with(id: &ChunkId, chunk: &mut [u8], data_key: &Bytes32) -> Record {
    let c3 = id.c3(data_key);
    let mut name = blake3::Hasher::new();
    encrypt(data_key, chunk, |part| {
        name.update(part);
    });
    Record {
        c2: *xor(data_key, &id.key.0),
        c3,
        d1: *name.finalize().as_bytes(),
    }
}

/// Subsequent upload, the paper's check (equations 9-10): the `C3'` that a right record has for
/// this chunk. Equal to the record's `C3`: not poisoned; and a proof to the server that the
/// uploader holds the chunk.
pub fn expected_c3(id: &ChunkId, c2: &Bytes32) -> Bytes32 {
    id.c3(&xor(c2, &id.key.0))
}

/// Subsequent upload, the stricter check: the name that an honest blob of this chunk has under
/// `c2`, by encrypting it again (`verify=deep`).
pub fn expected_d1(id: &ChunkId, chunk: &[u8], c2: &Bytes32) -> Bytes32 {
    // In pieces that stay in the first-level cache, so that the chunk is read from memory once.
    let data_key = xor(c2, &id.key.0);
    let mut name = blake3::Hasher::new();
    let mut scratch = Zeroizing::new([0u8; primitive::SCRATCH]);
    primitive::encrypt_copy(&data_key, chunk, &mut scratch, |part| {
        name.update(part);
    });
    *name.finalize().as_bytes()
}

/// Download (equations 17-19): decrypts `c1` in place and checks it against `C3` and, which the
/// paper does not, `C1` against its name and the chunk against its key. After an error the
/// content of `c1` is wiped.
///
/// `domain` is needed to check keys that were made under a domain secret; without it those are
/// held to `C3` and `d1` alone.
pub fn open(
    key: &Key,
    in_domain: bool,
    domain: Option<&DomainSecret>,
    record: &Record,
    c1: &mut [u8],
) -> Result<(), Error> {
    if !bool::from(blake3::hash(c1).as_bytes().ct_eq(&record.d1)) {
        c1.zeroize();
        return Err(Error::Blob);
    }
    let data_key = xor(&record.c2, &key.0);
    let mut state = Hasher::default();
    encrypt(&data_key, c1, |_| ());
    state.update(c1);
    let found = match (in_domain, domain) {
        (false, _) => Some(state.digest()),
        (true, Some(secret)) => Some(primitive::hmac(&secret.0, c1)),
        (true, None) => None,
    };
    state.update(&*data_key);
    let right_c3 = state.digest().ct_eq(&record.c3);
    let right_key = found.is_none_or(|k| k.ct_eq(&key.0).into());
    if !(bool::from(right_c3) && right_key) {
        c1.zeroize();
        return Err(Error::Chunk);
    }
    Ok(())
}

/// Why a chunk could not be sealed or opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The operating system gave no random numbers.
    #[error("the operating system gave no random numbers for a data key")]
    Random,
    /// The ciphertext does not have the name it was fetched by.
    #[error("blob does not match its name: damaged or exchanged in storage")]
    Blob,
    /// The decrypted chunk does not match `C3` or its key.
    #[error("chunk does not match its record: wrong or forged key material")]
    Chunk,
}

#[cfg(test)]
mod tests;
