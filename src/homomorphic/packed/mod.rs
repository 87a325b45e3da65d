// SPDX-License-Identifier: MPL-2.0
//! Paillier as it runs: g = 1 + n on `crypto-bigint`.
//!
//! **Formulas.** g^m = 1 + m·n mod n², so a plaintext costs one product of n by n. The randomiser
//! is h^r with a base h = (−x²)^n that nobody chose (Damgård, Jurik, Nielsen, *A generalization of
//! Paillier's public-key system with applications to electronic voting*, IJIS 2010, section 4.1)
//! and tables for it ([`Randomiser`]). Decryption is by CRT: m_p = L_p(c^(p−1) mod p²)·h_p mod p
//! with L_p(x) = (x − 1)/p and h_p = L_p((1+n)^(p−1) mod p²)^−1 = (−q)^−1 mod p; likewise m_q
//! (Paillier 1999, section 7).
//!
//! **Randomisers hide exponents, not only plaintexts.** The owner computes
//! E(sum)·Π ticket^(±1)·h^r, and the cloud, who can factor n, sees the product of all
//! randomisers. If tickets are h^(s_j) with the *same* h, it sees h^(r + Σ ±s_j), and when r has 64
//! bits more than Σ ±s_j the signs are hidden but for a distance of 2^−64, *whatever n the cloud
//! made*. With another base per party the product's class modulo ⟨h⟩ could betray signs. Therefore
//! both the TTP and the owner use the [`Base`] of one public seed, drawn by the owner and hashed
//! together with n: neither the owner (who could take h = 1 and read tickets) nor the cloud (who
//! could take an h of small order) chooses it. The numbers are with [`rerandomise_bits`].
//!
//! **Side by side.** Where the processor has AVX-512 IFMA, eight products are computed at a time in
//! radix 2^52 ([`Engine`]): [`SecretKey::decrypt_many`] and [`SignTables::combine_many`] take
//! batches, best a multiple of eight. Results and guarantees are those of one by one.
//!
//! **Constant time** in plaintexts, signs, exponents and the secret key: encryption, products by
//! tables (every entry is read), randomisers, [`SecretKey`]'s decryption, packing, and
//! multiplication by a plain factor. **Not**: key generation (candidates that are rejected, and
//! proofs made from public challenges), parsing (ciphertexts are public), verification of proofs,
//! shifts (by public positions), and whether an operation failed. Long-lived secrets (p, q,
//! exponents, plaintexts) are wiped; what the library allocates inside one product is not.

mod factors;
mod file;
mod generate;
#[cfg_attr(not(target_arch = "x86_64"), path = "no_ifma.rs")]
mod ifma;
mod lanes;
mod power;
mod proof;
mod public;
mod randomiser;
mod secret;
mod signs;

pub use factors::{FactorProof, PedersenParameters, factor_bits};
pub use file::{read_public_key, read_secret_key, write_public_key, write_secret_key};
pub use lanes::Engine;
pub use proof::{CertifiedKey, ROOT_ROUNDS, SOUNDNESS_BITS, SQUARE_ROUNDS, TRIAL_BOUND};
pub use public::{Ciphertext, PublicKey};
pub use randomiser::{
    Base, Encryptor, HIDING_BITS, Randomiser, TICKET_EXPONENT_BITS, rerandomise_bits,
};
pub use secret::SecretKey;
pub use signs::{SignTables, invert_all};

pub(super) use generate::draw_primes;

/// Bits of n unless something else is asked for: 128-bit security until 2030 and after (NIST SP
/// 800-57 part 1, table 2).
pub const DEFAULT_MODULUS_BITS: u32 = 3072;

/// Bits that n may have outside tests; 2048 is 112-bit security.
pub const MODULUS_BITS: [u32; 3] = [2048, 3072, 4096];

/// Refuses moduli of other sizes. Unit tests may have small ones.
fn check_size(bits: u32) -> Result<(), super::Error> {
    let small = cfg!(test) && bits >= 256 && bits.is_multiple_of(128);
    match MODULUS_BITS.contains(&bits) || small {
        true => Ok(()),
        false => Err(super::Error::KeySize(bits)),
    }
}
