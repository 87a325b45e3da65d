// SPDX-License-Identifier: MPL-2.0
//! The scheme of [RTBF] as it stands there, on `num-bigint`: the reference for [`super::packed`]
//! and the baseline of the benches. **Nothing here is constant-time and nothing is wiped**: not
//! for real keys.
//!
//! Algorithm 4: n = p·q, g random in Z*_{n²} (or n + 1), E(m) = g^m·r^n mod n²,
//! D(c) = L(c^λ mod n²)·μ mod n with λ = lcm(p−1, q−1), L(x) = (x−1)/n and
//! μ = L(g^λ mod n²)^−1. Algorithm 5 ([`Pretreated`]): coefficients with sign and fraction become
//! natural numbers, m' = round((m + balance)·amp). Algorithm 6: each coefficient is encrypted by
//! itself, and the mark's ciphertext is multiplied in ([`AdditiveScheme::add`]).

use super::random::Random;
use super::{AdditiveScheme, Decrypt, Error, Plaintext};
use crypto_bigint::BoxedUint;
use num_bigint::{BigInt, BigUint, Sign};
use num_integer::Integer;
use num_traits::{One, Zero};
use rand_core::Rng;

/// How g is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generator {
    /// At random, as in [RTBF] Algorithm 4.
    Random,
    /// n + 1.
    OneMore,
}

/// n and g.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    n: BigUint,
    n2: BigUint,
    g: BigUint,
}

/// λ and μ, with their public key.
pub struct SecretKey {
    public: PublicKey,
    lambda: BigUint,
    mu: BigUint,
}

/// A number mod n².
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ciphertext(BigUint);

impl SecretKey {
    /// Draws two primes and a generator. `bits` of modulus, a multiple of 128; a baseline may
    /// have few.
    pub fn generate(bits: u32, generator: Generator) -> Result<Self, Error> {
        let mut random = Random::new()?;
        let (p, q) = super::packed::draw_primes(&mut random, bits)?;
        Self::from_primes(&big(&p), &big(&q), generator)
    }

    /// The key of given primes.
    pub fn from_primes(p: &BigUint, q: &BigUint, generator: Generator) -> Result<Self, Error> {
        let one = BigUint::one();
        let unfit = || Error::Form {
            what: "pair of primes",
            reason: "two different odd primes with gcd(p·q, (p−1)·(q−1)) = 1 are needed".into(),
        };
        if p == q || p <= &one || q <= &one {
            return Err(unfit());
        }
        let n = p * q;
        if !((p - &one) * (q - &one)).gcd(&n).is_one() {
            return Err(unfit());
        }
        let n2 = &n * &n;
        let lambda = (p - &one).lcm(&(q - &one));
        loop {
            let g = match generator {
                Generator::OneMore => &n + &one,
                Generator::Random => unit(&n2)?,
            };
            let mu = l(&g.modpow(&lambda, &n2), &n).modinv(&n);
            // There is none for one random g in p or q.
            if let Some(mu) = mu {
                let public = PublicKey { n, n2, g };
                return Ok(Self { public, lambda, mu });
            }
        }
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }
}

impl Decrypt<PublicKey> for SecretKey {
    fn decrypt(&self, a: &Ciphertext) -> Result<Plaintext, Error> {
        let PublicKey { n, n2, .. } = &self.public;
        let m = l(&a.0.modpow(&self.lambda, n2), n) * &self.mu % n;
        let negative = &m + &m > *n;
        let m = BigInt::from(m);
        Ok(plain(&match negative {
            true => m - BigInt::from(n.clone()),
            false => m,
        }))
    }
}

impl PublicKey {
    /// n.
    pub fn modulus(&self) -> &BigUint {
        &self.n
    }

    fn to_power(&self, value: &Plaintext) -> Result<BigUint, Error> {
        let m = signed(value);
        if m.magnitude() * 2u32 > self.n {
            return Err(Error::PlaintextRange);
        }
        let m = m.mod_floor(&BigInt::from(self.n.clone()));
        Ok(self.g.modpow(m.magnitude(), &self.n2))
    }

    fn fresh(&self) -> Result<BigUint, Error> {
        Ok(unit(&self.n)?.modpow(&self.n, &self.n2))
    }
}

impl AdditiveScheme for PublicKey {
    type Ciphertext = Ciphertext;

    fn encrypt(&self, value: &Plaintext) -> Result<Ciphertext, Error> {
        let power = self.to_power(value)?;
        Ok(Ciphertext(power * self.fresh()? % &self.n2))
    }

    fn add(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext, Error> {
        Ok(Ciphertext(&a.0 * &b.0 % &self.n2))
    }

    fn add_plain(&self, a: &Ciphertext, b: &Plaintext) -> Result<Ciphertext, Error> {
        Ok(Ciphertext(&a.0 * self.to_power(b)? % &self.n2))
    }

    fn mul_plain(&self, a: &Ciphertext, factor: i64) -> Result<Ciphertext, Error> {
        let power = a.0.modpow(&factor.unsigned_abs().into(), &self.n2);
        let power = match factor < 0 {
            true => power.modinv(&self.n2).ok_or(Error::CiphertextValue)?,
            false => power,
        };
        Ok(Ciphertext(power))
    }

    fn rerandomise(&self, a: &Ciphertext) -> Result<Ciphertext, Error> {
        Ok(Ciphertext(&a.0 * self.fresh()? % &self.n2))
    }

    fn ciphertext_bytes(&self) -> usize {
        // The same number as for the packed scheme, whatever the top bits of n².
        2 * (self.n.bits() as usize).div_ceil(8)
    }

    fn to_bytes(&self, a: &Ciphertext) -> Vec<u8> {
        let digits = a.0.to_bytes_be();
        let mut bytes = vec![0; self.ciphertext_bytes() - digits.len()];
        bytes.extend(digits);
        bytes
    }

    fn parse(&self, bytes: &[u8]) -> Result<Ciphertext, Error> {
        if bytes.len() != self.ciphertext_bytes() {
            return Err(Error::CiphertextLength {
                found: bytes.len(),
                expected: self.ciphertext_bytes(),
            });
        }
        let value = BigUint::from_bytes_be(bytes);
        match !value.is_zero() && value < self.n2 && value.gcd(&self.n).is_one() {
            true => Ok(Ciphertext(value)),
            false => Err(Error::CiphertextValue),
        }
    }
}

/// [RTBF] Algorithm 5: coefficients as natural numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Pretreated {
    /// round((m + balance)·amp) of each coefficient m.
    pub values: Vec<u64>,
    /// What was added so that none is negative: 0 or the amount of the least.
    pub balance: f64,
    /// The amplifier: 1/amp is the accuracy.
    pub amp: u32,
}

impl Pretreated {
    /// Makes coefficients fit to encrypt. Each must be finite and below 2^31 in amount.
    pub fn new(coefficients: &[f64], amp: u32) -> Result<Self, Error> {
        let fine = |m: &f64| m.is_finite() && m.abs() < f64::from(1u32 << 31);
        if amp == 0 || amp >= 1 << 20 || !coefficients.iter().all(fine) {
            return Err(Error::Pretreatment);
        }
        let least = coefficients.iter().copied().fold(0.0, f64::min);
        let balance = -least;
        let one = |m: &f64| ((m + balance) * f64::from(amp)).round() as u64;
        let values = coefficients.iter().map(one).collect();
        Ok(Self {
            values,
            balance,
            amp,
        })
    }

    /// The coefficient that a decrypted value stands for.
    pub fn restore(&self, value: i64) -> f64 {
        value as f64 / f64::from(self.amp) - self.balance
    }
}

/// L(x) = (x − 1)/n.
fn l(x: &BigUint, n: &BigUint) -> BigUint {
    if x.is_zero() {
        return BigUint::zero();
    }
    (x - 1u32) / n
}

/// Uniform in Z*_m.
fn unit(m: &BigUint) -> Result<BigUint, Error> {
    let mut random = Random::new()?;
    // 128 bits more than m has: the bias is below 2^−128.
    let mut bytes = vec![0; (m.bits() as usize).div_ceil(8) + 16];
    loop {
        random.fill_bytes(&mut bytes);
        let value = BigUint::from_bytes_be(&bytes) % m;
        if value.gcd(m).is_one() {
            return Ok(value);
        }
    }
}

pub(super) fn big(value: &BoxedUint) -> BigUint {
    BigUint::from_bytes_le(&value.to_le_bytes())
}

fn signed(value: &Plaintext) -> BigInt {
    let bytes: Vec<u8> = value.words().iter().flat_map(|w| w.to_le_bytes()).collect();
    BigInt::from_signed_bytes_le(&bytes)
}

fn plain(value: &BigInt) -> Plaintext {
    let mut bytes = value.to_signed_bytes_le();
    let fill = if value.sign() == Sign::Minus { 0xff } else { 0 };
    bytes.resize(bytes.len().next_multiple_of(8), fill);
    let word = |b: &[u8]| b.iter().rev().fold(0u64, |acc, &b| acc << 8 | u64::from(b));
    Plaintext::from_words(bytes.chunks(8).map(word).collect())
}
