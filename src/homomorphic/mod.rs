// SPDX-License-Identifier: MPL-2.0
//! Additively homomorphic encryption, for marks that the owner adds without knowing them
//! ([RTBF] section 5, Algorithms 4-6). No I/O but key files, no gst, no HTTP.
//!
//! Paillier (P. Paillier, *Public-Key Cryptosystems Based on Composite Degree Residuosity
//! Classes*, EUROCRYPT 1999): n = p·q, E(m) = g^m · r^n mod n², so that
//! E(a)·E(b) = E(a + b), E(a)·g^b = E(a + b) and E(a)^b = E(a·b). Plaintexts are signed: |m| ≤
//! (n − 1)/2, m < 0 as n + m.
//!
//! - [`naive`] is the scheme of the paper on `num-bigint`: one coefficient in one ciphertext, no
//!   CRT, no tables, no care about timing. The reference in tests, the baseline in benches.
//! - [`packed`] is what runs: g = 1 + n, many slots in a plaintext ([`Packing`]), randomisers from
//!   tables, decryption by CRT in constant time, keys with proofs.
//! - [`ticket`] is a watermark under the cloud's key, as the third party gives it to the owner;
//!   [`oblivious`] turns one into labels, with which frames cost a stream cipher each;
//!   [`retrieval`] takes the mark out again.
//!
//! Both are an [`AdditiveScheme`].

pub mod naive;
pub mod oblivious;
pub mod packed;
mod plaintext;
mod random;
pub mod retrieval;
mod slots;
pub mod ticket;

pub use plaintext::Plaintext;
pub use slots::{DEFAULT_GUARD_BITS, DEFAULT_SLOT_BITS, Packing};

use std::path::PathBuf;

/// Encryption that adds under the cipher. What makes and holds keys is the scheme's own matter.
pub trait AdditiveScheme {
    /// An encrypted plaintext.
    type Ciphertext: Clone;

    /// E(`value`) with fresh randomness. Fails if `value` is not between −(n−1)/2 and (n−1)/2.
    fn encrypt(&self, value: &Plaintext) -> Result<Self::Ciphertext, Error>;

    /// E(a + b) = E(a)·E(b). It is as random as its parts: before it leaves the house it wants
    /// [`rerandomise`](Self::rerandomise).
    fn add(&self, a: &Self::Ciphertext, b: &Self::Ciphertext) -> Result<Self::Ciphertext, Error>;

    /// E(a + b) = E(a)·g^b, no more random than E(a).
    fn add_plain(&self, a: &Self::Ciphertext, b: &Plaintext) -> Result<Self::Ciphertext, Error>;

    /// E(a·factor) = E(a)^factor, no more random than E(a).
    fn mul_plain(&self, a: &Self::Ciphertext, factor: i64) -> Result<Self::Ciphertext, Error>;

    /// The same plaintext under fresh randomness.
    fn rerandomise(&self, a: &Self::Ciphertext) -> Result<Self::Ciphertext, Error>;

    /// Bytes of every ciphertext.
    fn ciphertext_bytes(&self) -> usize;

    /// A ciphertext in [`ciphertext_bytes`](Self::ciphertext_bytes) bytes, big endian.
    fn to_bytes(&self, a: &Self::Ciphertext) -> Vec<u8>;

    /// Reads a ciphertext: of the right length, from 1 to n² − 1, coprime with n.
    fn parse(&self, bytes: &[u8]) -> Result<Self::Ciphertext, Error>;
}

/// The holder of a scheme's secret key.
pub trait Decrypt<S: AdditiveScheme> {
    /// The plaintext, between −(n−1)/2 and (n−1)/2.
    fn decrypt(&self, a: &S::Ciphertext) -> Result<Plaintext, Error>;
}

/// What can go wrong here. No message holds a secret value.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system gave no random numbers.
    #[error("the operating system gave no random numbers")]
    Random,
    /// Moduli have 2048, 3072 or 4096 bits.
    #[error("a modulus of {0} bits: take 2048, 3072 (the default) or 4096")]
    KeySize(u32),
    /// A plaintext of more than (n−1)/2.
    #[error("the plaintext does not fit this key: its amount must be below half of the modulus")]
    PlaintextRange,
    /// Bytes of the wrong length in place of a ciphertext.
    #[error("a ciphertext of {found} bytes where this key has ciphertexts of {expected}")]
    CiphertextLength {
        /// Bytes there are.
        found: usize,
        /// Bytes there should be.
        expected: usize,
    },
    /// Zero, n² or more, or a common factor with n.
    #[error("this is not a ciphertext under this key: outside 1 to n² − 1 or not coprime with n")]
    CiphertextValue,
    /// Ciphertexts, tables or keys of two moduli in one operation.
    #[error("ciphertexts of two different keys do not go together")]
    OtherKey,
    /// Slots that no plaintext can have.
    #[error(
        "slots of {slot_bits} bits, {guard_bits} of them guard: take 2 to 31 bits with fewer guard bits, in a plaintext that holds one or more"
    )]
    PackingShape {
        /// Bits of a slot.
        slot_bits: u32,
        /// Guard bits among them.
        guard_bits: u32,
    },
    /// More values than slots.
    #[error("{found} values for {slots} slots")]
    TooManyValues {
        /// Values there are.
        found: usize,
        /// Slots of a plaintext.
        slots: usize,
    },
    /// A value beyond its slot.
    #[error("the value of slot {0} is too large for it")]
    SlotRange(usize),
    /// A plaintext with something beyond its last slot.
    #[error("the plaintext overflows its slots: more was added than the guard bits have room for")]
    SlotOverflow,
    /// Tables for another number of signs.
    #[error("{found} signs for a table of {expected}")]
    SignCount {
        /// Signs there are.
        found: usize,
        /// Signs there should be.
        expected: usize,
    },
    /// A number that cannot be amplified.
    #[error("a value that is not a number of moderate size, or an amplifier of 0")]
    Pretreatment,
    /// A key file or message that is none.
    #[error("this is not a {what}: {reason}")]
    Form {
        /// What it should be.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A public key whose proof does not hold.
    #[error("the proof of the public key does not hold: {0}; do not use this key")]
    Proof(&'static str),
    /// A key file cannot be read or written.
    #[error("key file {0}: {1}")]
    File(PathBuf, #[source] std::io::Error),
    /// A secret key file that others can read.
    #[error("key file {0} can be read by others: chmod 600 it, and consider the key known")]
    FileMode(PathBuf),
}

#[cfg(test)]
mod tests;
