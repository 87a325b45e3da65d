// SPDX-License-Identifier: MPL-2.0
//! A public key with a proof that n is a Paillier-Blum modulus without small factors.
//!
//! **What is proven.** n = p·q with primes p, q ≡ 3 mod 4 and gcd(n, φ(n)) = 1, by the protocol of
//! R. Canetti, R. Gennaro, S. Goldfeder, N. Makriyannis, U. Peled, *UC Non-Interactive, Proactive,
//! Threshold ECDSA with Identifiable Aborts* (CGGMP21, ePrint 2021/060), Figure 16, made
//! non-interactive by Fiat and Shamir with SHA-256 over name, context and n. For challenges y_i:
//! - x_i with x_i^4 = (−1)^(a_i)·w^(b_i)·y_i mod n, w a number of Jacobi symbol −1. If n is not a
//!   product of two prime powers with primes 3 mod 4, at most half of all y have such an x: with
//!   [`SQUARE_ROUNDS`] = 128 rounds a false proof is found with 2^−128 per attempt.
//! - z_i with z_i^n = y_i mod n. If a prime d divides n and φ(n), at most one y in d has one. The
//!   verifier has tried all primes below [`TRIAL_BOUND`] = 2^16, so d > 2^16 and
//!   [`ROOT_ROUNDS`] = 8 rounds are as good as 128 of the figure's, which reckons with d = 2 (the
//!   argument of S. Goldberg, L. Reyzin, O. Sagga, F. Baldimtsi, *Efficient Noninteractive
//!   Certification of RSA Moduli and Beyond*, ASIACRYPT 2019, section 3.3).
//!
//! Here w is not sent but hashed from the same transcript, so the prover chooses nothing at all.
//! The verifier also checks that n is odd, of full length and composite.
//!
//! **Small factors.** Trial division excludes those below 2^16 with certainty, for everyone. Those
//! of a few hundred bits are excluded by CGGMP21 Figure 28 ([`super::FactorProof`]), which
//! convinces only the maker of its Pedersen parameters and so stands beside this certificate: the
//! owner and the TTP each ask for their own. Without it what the owner hides from the cloud is
//! hidden all the same, for any n (see [`super`]), and a factor that the owner could find would
//! show it only the bits that this same cloud gets to read. What remains is a cloud that plants a
//! factor of, say, 100 bits and later denies a leak because "anyone could read the ticket".

use super::super::Error;
use super::super::naive::big;
use super::randomiser::below;
use super::secret::Half;
use super::{PublicKey, SecretKey};
use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, Gcd, Limb, NonZero};
use crypto_primes::{Flavor, is_prime};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use num_bigint::BigUint;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Rounds that show two primes, both 3 mod 4: one bit each.
pub const SQUARE_ROUNDS: usize = 128;

/// Rounds that show gcd(n, φ(n)) = 1: 16 bits each.
pub const ROOT_ROUNDS: usize = 8;

/// Primes below this are tried as factors.
pub const TRIAL_BOUND: u32 = 1 << 16;

/// A false proof takes 2^128 attempts.
pub const SOUNDNESS_BITS: u32 = 128;

/// Bytes of the largest certified key: of 4096 bits.
const MAX_BYTES: usize = (1 + SQUARE_ROUNDS + ROOT_ROUNDS) * 512 + 4096;

/// A modulus and its proof, as they are sent and kept. Its [`key`](Self::verify) comes out only
/// when the proof holds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CertifiedKey {
    /// Version of this message, 1.
    #[n(0)]
    version: u32,
    /// n, big endian.
    #[n(1)]
    modulus: ByteVec,
    /// x_0 … x_127, each as long as n, big endian.
    #[n(2)]
    fourth_roots: ByteVec,
    /// Per round a_i + 2·b_i.
    #[n(3)]
    choices: ByteVec,
    /// z_0 … z_7, each as long as n, big endian.
    #[n(4)]
    roots: ByteVec,
}

impl CertifiedKey {
    /// Makes the proof for a contract: `context` holds all that it is to be bound to (parties,
    /// contract number). It is not secret and not part of the message.
    pub fn prove(secret: &SecretKey, context: &[u8]) -> Result<Self, Error> {
        let key = secret.public();
        let transcript = Transcript::new(key, context);
        let w = transcript.non_residue(key)?;
        let (p, q) = secret.halves();
        let (p, q) = (Roots::of(p, key), Roots::of(q, key));
        let unfit = || Error::Proof("this modulus has none");
        let (Some(p), Some(q)) = (p, q) else {
            return Err(unfit());
        };
        let mut proof = Self {
            version: 1,
            modulus: key.modulus().into(),
            fourth_roots: Vec::new().into(),
            choices: Vec::new().into(),
            roots: Vec::new().into(),
        };
        for round in 0..SQUARE_ROUNDS {
            let y = transcript.challenge(key, b'x', round);
            let (y_p, y_q) = (p.enter(&y), q.enter(&y));
            let (w_p, w_q) = (p.enter(&w), q.enter(&w));
            let fit = (0..4u8).find_map(|choice| {
                let x_p = p.fourth_root(&adjust(&y_p, &w_p, choice))?;
                let x_q = q.fourth_root(&adjust(&y_q, &w_q, choice))?;
                Some((choice, secret.join(&x_p, &x_q)))
            });
            let (choice, x) = fit.ok_or_else(unfit)?;
            proof.choices.push(choice);
            proof.fourth_roots.extend_from_slice(&x.to_be_bytes());
        }
        for round in 0..ROOT_ROUNDS {
            let y = transcript.challenge(key, b'z', round);
            let z = secret.join(&p.root(&p.enter(&y)), &q.root(&q.enter(&y)));
            proof.roots.extend_from_slice(&z.to_be_bytes());
        }
        Ok(proof)
    }

    /// Checks the proof for the contract `context` and gives the key. Takes some ten milliseconds
    /// a round of [`ROOT_ROUNDS`].
    pub fn verify(&self, context: &[u8]) -> Result<PublicKey, Error> {
        let key = PublicKey::from_modulus(&self.modulus)?;
        let bytes = self.modulus.len();
        let lengths = self.fourth_roots.len() == SQUARE_ROUNDS * bytes
            && self.choices.len() == SQUARE_ROUNDS
            && self.roots.len() == ROOT_ROUNDS * bytes;
        if self.version != 1 || !lengths {
            return Err(Error::Proof("it is of another version or length"));
        }
        if has_small_factor(key.n()) {
            return Err(Error::Proof("the modulus has a small factor"));
        }
        if is_prime(Flavor::Any, key.n()) {
            return Err(Error::Proof("the modulus is a prime"));
        }
        let transcript = Transcript::new(&key, context);
        let ring = BoxedMontyParams::new_vartime(key.odd_n().clone());
        let w = BoxedMontyForm::new(transcript.non_residue(&key)?, &ring);
        let read = |bytes: &[u8]| {
            let value = BoxedUint::from_be_slice(bytes, key.modulus_bits()).ok()?;
            (value < *key.n()).then(|| BoxedMontyForm::new(value, &ring))
        };
        let challenge = |kind, round| {
            let y = transcript.challenge(&key, kind, round);
            let fine = bool::from(key.odd_n().gcd_vartime(&y).as_ref().is_one());
            fine.then(|| BoxedMontyForm::new(y, &ring))
        };
        let rounds = self.fourth_roots.chunks_exact(bytes).zip(&**self.choices);
        for (round, (x, &choice)) in rounds.enumerate() {
            let (Some(x), Some(y)) = (read(x), challenge(b'x', round)) else {
                return Err(Error::Proof("a fourth root is out of range"));
            };
            if choice > 3 || x.square().square() != adjust(&y, &w, choice) {
                return Err(Error::Proof("a fourth root is wrong"));
            }
        }
        for (round, z) in self.roots.chunks_exact(bytes).enumerate() {
            let (Some(z), Some(y)) = (read(z), challenge(b'z', round)) else {
                return Err(Error::Proof("an n-th root is out of range"));
            };
            if z.pow(key.n()) != y {
                return Err(Error::Proof("an n-th root is wrong"));
            }
        }
        Ok(key)
    }

    /// As bytes (CBOR), for messages and files.
    pub fn to_bytes(&self) -> Vec<u8> {
        crate::protocol::encode(self)
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote. Says nothing of the proof.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let form = |reason: String| Error::Form {
            what: "Paillier public key",
            reason,
        };
        if bytes.len() > MAX_BYTES {
            return Err(form(format!("it has more than {MAX_BYTES} bytes")));
        }
        crate::protocol::decode(bytes).map_err(|e| form(e.to_string()))
    }
}

/// (−1)^a·w^b·y for `choice` = a + 2·b.
fn adjust(y: &BoxedMontyForm, w: &BoxedMontyForm, choice: u8) -> BoxedMontyForm {
    let y = if choice & 2 == 0 { y.clone() } else { y.mul(w) };
    if choice & 1 == 0 { y } else { y.neg() }
}

/// The hash that all challenges come from.
struct Transcript([u8; 32]);

impl Transcript {
    fn new(key: &PublicKey, context: &[u8]) -> Self {
        let n = key.modulus();
        let hash = Sha256::new()
            .chain_update(b"camvault paillier-blum proof 1")
            .chain_update((context.len() as u64).to_be_bytes())
            .chain_update(context)
            .chain_update((n.len() as u64).to_be_bytes())
            .chain_update(&n);
        Self(hash.finalize().into())
    }

    fn challenge(&self, key: &PublicKey, kind: u8, round: usize) -> BoxedUint {
        let hash = Sha256::new().chain_update(self.0).chain_update([kind]);
        let hash = hash.chain_update((round as u64).to_be_bytes());
        below(key, &hash.finalize().into())
    }

    /// The first challenge of its kind with Jacobi symbol −1. Of a square there is none, and the
    /// search ends.
    fn non_residue(&self, key: &PublicKey) -> Result<BoxedUint, Error> {
        let n = big(key.n());
        (0..256)
            .map(|round| self.challenge(key, b'w', round))
            .find(|w| jacobi(big(w), n.clone()) == -1)
            .ok_or(Error::Proof("the modulus is a square"))
    }
}

/// Exponents of one prime.
struct Roots<'a> {
    half: &'a Half,
    /// ((p+1)/4)² mod p−1: the fourth root that is a square.
    fourth: Zeroizing<BoxedUint>,
    /// n^−1 mod p−1.
    inverse: Zeroizing<BoxedUint>,
}

impl<'a> Roots<'a> {
    fn of(half: &'a Half, key: &PublicKey) -> Option<Self> {
        let order = Zeroizing::new((*half.order).clone().into_nz().into_option()?);
        // (p − 3)/4 + 1; p + 1 may want one bit more than there is.
        let quarter = Zeroizing::new(half.prime.shr(2).wrapping_add(BoxedUint::one()));
        let fourth = Zeroizing::new(quarter.mul_mod(&quarter, &order));
        let n = Zeroizing::new(key.n().rem(&order));
        let inverse = crypto_bigint::InvertMod::invert_mod(&*n, &order);
        Some(Self {
            half,
            fourth,
            inverse: Zeroizing::new(inverse.into_option()?),
        })
    }

    /// A number below n, mod p.
    fn enter(&self, value: &BoxedUint) -> BoxedMontyForm {
        let value = value.rem(self.half.ring.modulus().as_nz_ref());
        BoxedMontyForm::new(value, &self.half.ring)
    }

    fn fourth_root(&self, a: &BoxedMontyForm) -> Option<Zeroizing<BoxedUint>> {
        let x = a.pow(&self.fourth);
        (x.square().square() == *a).then(|| Zeroizing::new(x.retrieve()))
    }

    fn root(&self, a: &BoxedMontyForm) -> Zeroizing<BoxedUint> {
        Zeroizing::new(a.pow(&self.inverse).retrieve())
    }
}

fn has_small_factor(n: &BoxedUint) -> bool {
    let mut composite = vec![false; TRIAL_BOUND as usize];
    for i in 2..TRIAL_BOUND as usize {
        if composite[i] {
            continue;
        }
        for multiple in (i * i..composite.len()).step_by(i) {
            composite[multiple] = true;
        }
        let prime = NonZero::new(Limb(i as u64)).into_option();
        if prime.is_none_or(|prime| n.rem_limb(prime) == Limb::ZERO) {
            return true;
        }
    }
    false
}

/// The Jacobi symbol (a/n) of public numbers, n odd (H. Cohen, *A Course in Computational
/// Algebraic Number Theory*, Algorithm 1.4.10 for the Jacobi symbol).
fn jacobi(mut a: BigUint, mut n: BigUint) -> i32 {
    let low = |v: &BigUint| v.iter_u64_digits().next().unwrap_or(0);
    let mut sign = 1;
    a %= &n;
    while let Some(twos) = a.trailing_zeros() {
        a >>= twos;
        if twos % 2 == 1 && matches!(low(&n) & 7, 3 | 5) {
            sign = -sign;
        }
        if low(&a) & 3 == 3 && low(&n) & 3 == 3 {
            sign = -sign;
        }
        std::mem::swap(&mut a, &mut n);
        a %= &n;
    }
    if n == BigUint::from(1u32) { sign } else { 0 }
}
