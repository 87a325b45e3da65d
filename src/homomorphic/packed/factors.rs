// SPDX-License-Identifier: MPL-2.0
//! A proof for one verifier that a modulus has no small factor.
//!
//! **What is proven.** n is a product of two numbers of more than [`factor_bits`] bits each; with
//! the proof of [`super::CertifiedKey`], that n has two prime factors, those are the primes. It is
//! the "no small factor" proof of R. Canetti, R. Gennaro, S. Goldfeder, N. Makriyannis, U. Peled,
//! *UC Non-Interactive, Proactive, Threshold ECDSA with Identifiable Aborts* (CGGMP21, ePrint
//! 2021/060), Figure 28, with its ℓ = 256 and ε = 512, non-interactive by Fiat and Shamir with
//! SHA-256 over name, context, n, the verifier's parameters and all that is sent before the
//! challenge. Where the figure draws from −B…B, here it is from 0…B: a sum hides its secret part
//! as well, and no number has a sign.
//!
//! The prover commits to p and q as P = s^p·t^μ and Q = s^q·t^ν mod N̂ and shows that it can open
//! them, by numbers z below 2^(h + ℓ + ε), h half of the bits of n, and that Q^p·t^(σ − ν·p) is
//! s^n·t^σ. Two answers to one commitment give p', q' of those bits with p'·q' = n, or a root that
//! breaks the strong RSA assumption for N̂ (CGGMP21, appendix C; the tool is that of I. Damgård and
//! E. Fujisaki, *A Statistically-Hiding Integer Commitment Scheme Based on Groups with Hidden
//! Order*, ASIACRYPT 2002). That is why the verifier alone may know the factors of N̂: **the proof
//! convinces who made the parameters, and nobody else**, and cannot be part of a certificate for
//! all. The prover's secret stays hidden, statistically and whatever N̂ is, if s is a power of t:
//! that the parameters prove (CGGMP21, Figure 17, 128 rounds), and
//! [`FactorProof::prove`] checks it first.

use super::super::Error;
use super::super::random::Random;
use super::{PublicKey, SecretKey, check_size};
use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, ConcatenatingMul, Gcd, Odd, Resize};
use crypto_primes::hazmat::{SetBits, SmallFactorsSieveFactory};
use crypto_primes::{Flavor, is_prime, sieve_and_find};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// ℓ of the figure, and the bits of a challenge.
const ELL: u32 = 256;

/// ε of the figure: what is sent hides its secret part but for 2^−512.
const EPSILON: u32 = 512;

/// Rounds that show that s is a power of t, one bit each.
const ROUNDS: usize = 128;

/// Bytes of the largest message here: parameters of 4096 bits.
const MAX_BYTES: usize = (3 + 2 * ROUNDS) * 512 + 4096;

type Secret = Zeroizing<BoxedUint>;

/// Bits that a factor of the modulus has more of, once [`FactorProof::verify`] said yes: 255 at
/// 2048 bits, 767 at 3072, 1279 at 4096.
pub fn factor_bits(key: &PublicKey) -> u32 {
    // n ≥ 2^(2h − 1), and the other factor is below 2^(h + ℓ + ε).
    (key.modulus_bits() / 2).saturating_sub(1 + ELL + EPSILON)
}

/// A verifier's Ring-Pedersen parameters N̂, s and t, with the proof that s is a power of t.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PedersenParameters {
    /// Version of this message, 1.
    #[n(0)]
    version: u32,
    /// N̂, big endian, as all numbers here.
    #[n(1)]
    modulus: ByteVec,
    #[n(2)]
    s: ByteVec,
    #[n(3)]
    t: ByteVec,
    /// A_0 … A_127, each as long as N̂.
    #[n(4)]
    commitments: ByteVec,
    /// z_0 … z_127, likewise.
    #[n(5)]
    answers: ByteVec,
}

/// The proof that the modulus of a key has no small factor, for one verifier and one contract.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FactorProof {
    /// Version of this message, 1.
    #[n(0)]
    version: u32,
    /// P, Q, A, B, T of the figure, each as long as N̂.
    #[n(1)]
    commitments: ByteVec,
    #[n(2)]
    sigma: ByteVec,
    #[n(3)]
    z1: ByteVec,
    #[n(4)]
    z2: ByteVec,
    #[n(5)]
    w1: ByteVec,
    #[n(6)]
    w2: ByteVec,
    #[n(7)]
    v: ByteVec,
}

/// N̂, s and t that were checked.
struct Group {
    ring: BoxedMontyParams,
    s: BoxedMontyForm,
    t: BoxedMontyForm,
}

impl PedersenParameters {
    /// Draws parameters with a modulus of `bits` bits (2048, 3072 or 4096) of two safe primes,
    /// which are forgotten. Takes seconds at 2048 bits and a minute or more beyond: once per verifier.
    pub fn generate(bits: u32) -> Result<Self, Error> {
        check_size(bits)?;
        let mut random = Random::new()?;
        let (p, q) = loop {
            let (p, q) = (
                safe_prime(&mut random, bits / 2)?,
                safe_prime(&mut random, bits / 2)?,
            );
            if p != q {
                break (p, q);
            }
        };
        let unfit = || Error::Proof("these parameters have none");
        let modulus = p.concatenating_mul(&*q);
        let ring =
            BoxedMontyParams::new_vartime(Odd::new(modulus).into_option().ok_or_else(unfit)?);
        // The order of the squares: (p − 1)/2·(q − 1)/2.
        let half = |p: &Secret| Zeroizing::new(p.shr(1));
        let order = Zeroizing::new(half(&p).concatenating_mul(&*half(&q)));
        let order = Zeroizing::new((*order).clone().into_nz().into_option().ok_or_else(unfit)?);
        let mut below = |bits: u32| Zeroizing::new(random.below_power(bits + 128).rem(&order));
        let root = below(bits);
        let t = BoxedMontyForm::new((*root).clone(), &ring).square();
        let lambda = below(bits);
        let s = t.pow(&lambda);
        let bytes = |a: &BoxedMontyForm| a.retrieve().to_be_bytes().into_vec();
        let mut out = Self {
            version: 1,
            modulus: ring.modulus().as_ref().to_be_bytes().into_vec().into(),
            s: bytes(&s).into(),
            t: bytes(&t).into(),
            commitments: Vec::new().into(),
            answers: Vec::new().into(),
        };
        let secrets: Vec<Secret> = (0..ROUNDS).map(|_| below(bits)).collect();
        for a in &secrets {
            out.commitments.extend_from_slice(&bytes(&t.pow(a)));
        }
        for (a, one) in secrets.iter().zip(out.challenge()) {
            let z = match one {
                true => Zeroizing::new(a.add_mod(&lambda, &order)),
                false => a.clone(),
            };
            out.answers.extend_from_slice(&z.to_be_bytes());
        }
        Ok(out)
    }

    /// Whether s is a power of t, so that proofs under these parameters give nothing away. Says
    /// nothing of who knows the factors of N̂: a verifier trusts its own parameters alone.
    pub fn verify(&self) -> Result<(), Error> {
        self.group().map(|_| ())
    }

    fn group(&self) -> Result<Group, Error> {
        let wrong = Error::Proof;
        let bits = u32::try_from(self.modulus.len() * 8).unwrap_or(u32::MAX);
        check_size(bits)?;
        let lengths = [self.commitments.len(), self.answers.len()];
        if self.version != 1 || lengths != [ROUNDS * self.modulus.len(); 2] {
            return Err(wrong("the parameters are of another version or length"));
        }
        let modulus = BoxedUint::from_be_slice(&self.modulus, bits).ok();
        let modulus = modulus.filter(|n| n.bits_vartime() == bits);
        let modulus = modulus.and_then(|n| Odd::new(n).into_option());
        let modulus = modulus.ok_or(wrong("the parameters have no such modulus"))?;
        let ring = BoxedMontyParams::new_vartime(modulus);
        let read = |bytes: &[u8]| unit(bytes, &ring);
        let out_of_range = wrong("a parameter is out of range");
        let (Some(s), Some(t)) = (read(&self.s), read(&self.t)) else {
            return Err(out_of_range);
        };
        let rounds = self.commitments.chunks_exact(self.modulus.len());
        let rounds = rounds.zip(self.answers.chunks_exact(self.modulus.len()));
        for ((a, z), one) in rounds.zip(self.challenge()) {
            let (Some(mut a), Ok(z)) = (read(a), BoxedUint::from_be_slice(z, bits)) else {
                return Err(wrong("a parameter is out of range"));
            };
            if one {
                a = a.mul(&s);
            }
            if t.pow(&z) != a {
                return Err(wrong("the parameters are not powers of each other"));
            }
        }
        Ok(Group { ring, s, t })
    }

    fn challenge(&self) -> [bool; ROUNDS] {
        let mut hash = Sha256::new().chain_update(b"camvault ring-pedersen proof 1");
        for part in [&self.modulus, &self.s, &self.t, &self.commitments] {
            hash = hash.chain_update((part.len() as u64).to_be_bytes());
            hash.update(&**part);
        }
        let hash: [u8; 32] = hash.finalize().into();
        std::array::from_fn(|i| hash[i / 8] >> (i % 8) & 1 == 1)
    }

    /// As bytes (CBOR), for messages and files.
    pub fn to_bytes(&self) -> Vec<u8> {
        crate::protocol::encode(self)
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote. Says nothing of the proof.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        decode(bytes, "set of Pedersen parameters")
    }
}

/// Bits of what the prover draws.
struct Widths {
    /// α, β; the limit of z1 and z2.
    z: u32,
    /// μ, ν.
    blind: u32,
    sigma: u32,
    /// x, y; w1 and w2 may have one bit more.
    w: u32,
    /// r; v may have one bit more.
    v: u32,
}

impl Widths {
    fn of(key: &PublicKey, group: &Group) -> Self {
        let (n, hat) = (key.modulus_bits(), group.ring.bits_precision());
        Self {
            z: n / 2 + ELL + EPSILON,
            blind: hat + ELL,
            sigma: n + hat + ELL,
            w: hat + ELL + EPSILON,
            v: n + hat + ELL + EPSILON,
        }
    }
}

impl FactorProof {
    /// Makes the proof for a verifier and a contract: `context` holds all that it is to be bound
    /// to. Fails if the verifier's parameters are wrong, which could make a proof betray the key.
    /// Takes seconds, most of them for that check. Constant-time in the primes.
    pub fn prove(
        secret: &SecretKey,
        parameters: &PedersenParameters,
        context: &[u8],
    ) -> Result<Self, Error> {
        let (p, q) = secret.halves();
        prove(secret.public(), &p.prime, &q.prime, parameters, context)
    }

    /// Checks the proof that `key` has no factor of [`factor_bits`] bits or fewer. `parameters`
    /// are the verifier's own: with anybody else's this shows nothing.
    pub fn verify(
        &self,
        key: &PublicKey,
        parameters: &PedersenParameters,
        context: &[u8],
    ) -> Result<(), Error> {
        let group = parameters.group()?;
        let widths = Widths::of(key, &group);
        let length = parameters.modulus.len();
        if self.version != 1 || self.commitments.len() != 5 * length {
            return Err(Error::Proof("it is of another version or length"));
        }
        let mut units = Vec::with_capacity(5);
        for bytes in self.commitments.chunks_exact(length) {
            let commitment = unit(bytes, &group.ring);
            units.push(commitment.ok_or(Error::Proof("a commitment is out of range"))?);
        }
        let number = |bytes: &[u8], bits: u32| {
            let value = BoxedUint::from_be_slice(bytes, room(bits)).ok();
            let value = value.filter(|value| {
                bytes.len() as u32 * 8 == room(bits) && value.bits_vartime() <= bits
            });
            value.ok_or(Error::Proof("an answer is out of range"))
        };
        let sigma = number(&self.sigma, widths.sigma)?;
        let z1 = number(&self.z1, widths.z)?;
        let z2 = number(&self.z2, widths.z)?;
        let w1 = number(&self.w1, widths.w + 1)?;
        let w2 = number(&self.w2, widths.w + 1)?;
        let v = number(&self.v, widths.v + 1)?;
        let [p, q, a, b, t] = &units[..] else {
            return Err(Error::Proof("it is of another version or length"));
        };
        let e = self.challenge(key, parameters, context);
        let holds = group.commit(&z1, &w1) == a.mul(&p.pow(&e))
            && group.commit(&z2, &w2) == b.mul(&q.pow(&e))
            && q.pow(&z1).mul(&group.t.pow(&v)) == t.mul(&group.commit(key.n(), &sigma).pow(&e));
        match holds {
            true => Ok(()),
            false => Err(Error::Proof("the answers about its factors are wrong")),
        }
    }

    fn challenge(
        &self,
        key: &PublicKey,
        parameters: &PedersenParameters,
        context: &[u8],
    ) -> BoxedUint {
        let mut hash = Sha256::new().chain_update(b"camvault no small factor proof 1");
        let n = key.modulus();
        let PedersenParameters { modulus, s, t, .. } = parameters;
        let sent = [&self.commitments, &self.sigma];
        let parts = [context, &n, modulus, s, t, sent[0], sent[1]];
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        BoxedUint::from_be_slice_truncated(&hash.finalize(), ELL)
    }

    /// As bytes (CBOR), for messages.
    pub fn to_bytes(&self) -> Vec<u8> {
        crate::protocol::encode(self)
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote. Says nothing of the proof.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        decode(bytes, "proof about factors")
    }
}

/// The proof for any two numbers: a liar's may be of any length.
fn prove(
    key: &PublicKey,
    p: &BoxedUint,
    q: &BoxedUint,
    parameters: &PedersenParameters,
    context: &[u8],
) -> Result<FactorProof, Error> {
    let group = parameters.group()?;
    let widths = Widths::of(key, &group);
    let mut random = Random::new()?;
    let mut draw = |bits| random.below_power(bits);
    // One in 2^512 has an answer that is too long, or a σ below ν·p.
    for _ in 0..4 {
        let (alpha, beta) = (draw(widths.z), draw(widths.z));
        let (mu, nu) = (draw(widths.blind), draw(widths.blind));
        let (x, y) = (draw(widths.w), draw(widths.w));
        let (sigma, r) = (draw(widths.sigma), draw(widths.v));
        let q_commitment = group.commit(q, &nu);
        let commitments = [
            group.commit(p, &mu),
            q_commitment.clone(),
            group.commit(&alpha, &x),
            group.commit(&beta, &y),
            q_commitment.pow(&alpha).mul(&group.t.pow(&r)),
        ];
        let units = commitments.iter().map(|a| a.retrieve().to_be_bytes());
        let mut proof = FactorProof {
            version: 1,
            commitments: units.flatten().collect::<Vec<u8>>().into(),
            sigma: write(&sigma, widths.sigma),
            z1: Vec::new().into(),
            z2: Vec::new().into(),
            w1: Vec::new().into(),
            w2: Vec::new().into(),
            v: Vec::new().into(),
        };
        let e = proof.challenge(key, parameters, context);
        let cross = Zeroizing::new(nu.concatenating_mul(p));
        let wide = room(widths.sigma.max(cross.bits_precision()));
        let (sigma, cross) = (wider(&sigma, wide), wider(&cross, wide));
        if *sigma < *cross {
            continue;
        }
        let rest = Zeroizing::new(sigma.wrapping_sub(&*cross));
        let (z1, z2) = (sum(&alpha, &e, p), sum(&beta, &e, q));
        if z1.bits() > widths.z || z2.bits() > widths.z {
            continue;
        }
        proof.z1 = write(&z1, widths.z);
        proof.z2 = write(&z2, widths.z);
        proof.w1 = write(&sum(&x, &e, &mu), widths.w + 1);
        proof.w2 = write(&sum(&y, &e, &nu), widths.w + 1);
        proof.v = write(&sum(&r, &e, &rest), widths.v + 1);
        return Ok(proof);
    }
    Err(Error::Proof("the modulus has a small factor"))
}

impl Group {
    /// s^a·t^b.
    fn commit(&self, a: &BoxedUint, b: &BoxedUint) -> BoxedMontyForm {
        self.s.pow(a).mul(&self.t.pow(b))
    }
}

/// A number below the modulus and coprime with it, as long as it.
fn unit(bytes: &[u8], ring: &BoxedMontyParams) -> Option<BoxedMontyForm> {
    let bits = ring.bits_precision();
    let value = BoxedUint::from_be_slice(bytes, bits).ok()?;
    let modulus = ring.modulus();
    let fine = bytes.len() as u32 * 8 == bits
        && value < *modulus.as_ref()
        && bool::from(modulus.gcd_vartime(&value).as_ref().is_one());
    fine.then(|| BoxedMontyForm::new(value, ring))
}

/// a + e·b.
fn sum(a: &BoxedUint, e: &BoxedUint, b: &BoxedUint) -> Secret {
    let product = Zeroizing::new(b.concatenating_mul(e));
    let bits = a.bits_precision().max(product.bits_precision()) + 64;
    let (a, product) = (wider(a, bits), wider(&product, bits));
    Zeroizing::new(a.wrapping_add(&*product))
}

fn wider(a: &BoxedUint, bits: u32) -> Secret {
    Zeroizing::new(a.resize_unchecked(bits))
}

/// Bits of the words that so many bits take.
fn room(bits: u32) -> u32 {
    bits.next_multiple_of(64)
}

/// A number of at most `bits` bits, for sending.
fn write(a: &BoxedUint, bits: u32) -> ByteVec {
    wider(a, room(bits)).to_be_bytes().into_vec().into()
}

fn safe_prime(random: &mut Random, bits: u32) -> Result<Secret, Error> {
    let sieve = SmallFactorsSieveFactory::<BoxedUint>::new(Flavor::Safe, bits, SetBits::TwoMsb);
    let safe = |_: &mut Random, candidate: &BoxedUint| is_prime(Flavor::Safe, candidate);
    let found = sieve.and_then(|sieve| sieve_and_find(random, sieve, safe));
    let prime = found.ok().flatten().ok_or(Error::KeySize(bits * 2))?;
    Ok(Zeroizing::new(prime))
}

fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8], what: &'static str) -> Result<T, Error> {
    let form = |reason: String| Error::Form { what, reason };
    if bytes.len() > MAX_BYTES {
        return Err(form(format!("it has more than {MAX_BYTES} bytes")));
    }
    crate::protocol::decode(bytes).map_err(|e| form(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::LazyLock;

    const CONTEXT: &[u8] = b"contract 1 of owner and cloud";

    static PARAMETERS: LazyLock<PedersenParameters> =
        LazyLock::new(|| PedersenParameters::generate(512).unwrap());
    static SECRET: LazyLock<SecretKey> = LazyLock::new(|| SecretKey::generate(512).unwrap());
    static PROOF: LazyLock<FactorProof> =
        LazyLock::new(|| FactorProof::prove(&SECRET, &PARAMETERS, CONTEXT).unwrap());

    fn reason<T>(result: Result<T, Error>) -> &'static str {
        match result {
            Err(Error::Proof(reason)) => reason,
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("accepted"),
        }
    }

    fn check(proof: &FactorProof) -> Result<(), Error> {
        proof.verify(SECRET.public(), &PARAMETERS, CONTEXT)
    }

    #[test]
    fn an_honest_proof_is_accepted() {
        PARAMETERS.verify().unwrap();
        check(&PROOF).unwrap();
        let again = FactorProof::from_bytes(&PROOF.to_bytes()).unwrap();
        assert_eq!(again, *PROOF);
        let parameters = PedersenParameters::from_bytes(&PARAMETERS.to_bytes()).unwrap();
        assert_eq!(parameters, *PARAMETERS);
        // No two alike.
        let other = FactorProof::prove(&SECRET, &PARAMETERS, CONTEXT).unwrap();
        assert_ne!(other, *PROOF);
        check(&other).unwrap();
    }

    #[test]
    fn a_proof_holds_for_its_contract_key_and_verifier_alone() {
        let key = SECRET.public();
        assert!(PROOF.verify(key, &PARAMETERS, b"contract 2").is_err());
        let other = SecretKey::generate(512).unwrap();
        assert!(PROOF.verify(other.public(), &PARAMETERS, CONTEXT).is_err());
        let parameters = PedersenParameters::generate(512).unwrap();
        assert!(PROOF.verify(key, &parameters, CONTEXT).is_err());
    }

    #[test]
    fn every_part_of_a_proof_counts() {
        for part in 0..12 {
            let mut proof = PROOF.clone();
            let field = match part {
                0..5 => &mut proof.commitments,
                5 => &mut proof.sigma,
                6 => &mut proof.z1,
                7 => &mut proof.z2,
                8 => &mut proof.w1,
                9 => &mut proof.w2,
                10 => &mut proof.v,
                _ => {
                    proof.version = 2;
                    &mut proof.v
                }
            };
            let last = if part < 5 {
                part * 64 + 63
            } else {
                field.len() - 1
            };
            field[last] ^= 1;
            assert!(check(&proof).is_err(), "part {part}");
            let mut proof = PROOF.clone();
            proof.z2.insert(0, 0);
            assert_eq!(reason(check(&proof)), "an answer is out of range");
            proof.commitments.fill(0);
            assert_eq!(reason(check(&proof)), "a commitment is out of range");
            proof.commitments.pop();
            assert!(reason(check(&proof)).contains("length"));
        }
    }

    #[test]
    fn parameters_must_be_powers() {
        let mut other = PARAMETERS.clone();
        let last = other.s.len() - 1;
        other.s[last] ^= 1;
        assert!(other.verify().is_err());
        assert!(FactorProof::prove(&SECRET, &other, CONTEXT).is_err());
        let mut other = PARAMETERS.clone();
        other.answers[63] ^= 1;
        assert!(reason(other.verify()).contains("powers"));
        other.answers.pop();
        assert!(reason(other.verify()).contains("length"));
        let mut other = PARAMETERS.clone();
        other.t.fill(0);
        assert!(reason(other.verify()).contains("range"));
        let mut other = PARAMETERS.clone();
        other.modulus[63] ^= 1;
        assert!(reason(other.verify()).contains("modulus"));
        other.modulus.pop();
        assert!(matches!(other.verify(), Err(Error::KeySize(_))));
    }

    /// What a prover would have to do for a modulus with a small factor: answer with the large
    /// one, which is too long; or for another product than n, which does not fit.
    #[test]
    fn small_factors_are_refused() {
        let draw = |bits| -> BoxedUint {
            crypto_primes::random_prime(&mut Random::new().unwrap(), Flavor::Any, bits)
        };
        let (small, large) = (draw(192), draw(1856));
        let n = small.concatenating_mul(&large);
        let key = PublicKey::new(n.resize_unchecked(2048)).unwrap();
        assert_eq!(factor_bits(&key), 255);
        let made = prove(&key, &small, &large, &PARAMETERS, CONTEXT);
        assert_eq!(reason(made), "the modulus has a small factor");
        let (p, q) = SECRET.expose_primes();
        let read = |bytes: &[u8]| BoxedUint::from_be_slice(bytes, 256).unwrap();
        let wrong = prove(SECRET.public(), &read(&p), &read(&p), &PARAMETERS, CONTEXT);
        assert!(reason(check(&wrong.unwrap())).contains("answers"));
        let right = prove(SECRET.public(), &read(&q), &read(&p), &PARAMETERS, CONTEXT);
        check(&right.unwrap()).unwrap();
    }

    #[test]
    fn damaged_messages_are_refused() {
        let bytes = PROOF.to_bytes();
        for cut in [0, 1, 10, bytes.len() - 1] {
            assert!(FactorProof::from_bytes(&bytes[..cut]).is_err());
            assert!(PedersenParameters::from_bytes(&bytes[..cut]).is_err());
        }
        assert!(FactorProof::from_bytes(&vec![0; MAX_BYTES + 1]).is_err());
    }
}
