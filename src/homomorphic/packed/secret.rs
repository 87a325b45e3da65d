// SPDX-License-Identifier: MPL-2.0
//! The secret key: decryption by CRT, constant-time to the end.

use super::super::random::Random;
use super::super::{Decrypt, Error, Plaintext};
use super::generate::{Prime, draw_primes};
use super::{Ciphertext, Encryptor, PublicKey, check_size};
use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{
    BoxedUint, ConcatenatingMul, ConcatenatingSquare, CtAssign, CtLt, NonZero, Odd, Resize,
};
use crypto_primes::{Flavor, is_prime};
use zeroize::Zeroizing;

/// p and q, with what decryption wants ready. Wiped on drop but for the Montgomery constants that
/// the library shares by reference count.
pub struct SecretKey {
    public: PublicKey,
    p: Half,
    q: Half,
    /// p^−1 mod q, in Montgomery form.
    p_inverse: Zeroizing<BoxedMontyForm>,
}

/// One prime.
pub(super) struct Half {
    pub(super) prime: Prime,
    /// p − 1, an exponent.
    pub(super) order: Prime,
    /// p².
    square: Zeroizing<NonZero<BoxedUint>>,
    square_ring: BoxedMontyParams,
    pub(super) ring: BoxedMontyParams,
    /// p^−1 mod 2^(bits of p): turns exact division into a product.
    inverse: Zeroizing<BoxedUint>,
    /// (−q)^−1 mod p, in Montgomery form.
    factor: Zeroizing<BoxedMontyForm>,
}

impl SecretKey {
    /// Draws a key whose modulus has `bits` bits: 3072 ([`super::DEFAULT_MODULUS_BITS`]), 2048 or
    /// 4096. Takes a second or a few.
    pub fn generate(bits: u32) -> Result<Self, Error> {
        check_size(bits)?;
        let (p, q) = draw_primes(&mut Random::new()?, bits)?;
        Self::from_primes(&p, &q)
    }

    /// From p and q, big endian and of equal length, as in a key file. Checks that they are
    /// primes, 3 mod 4 and different.
    pub fn from_prime_bytes(p: &[u8], q: &[u8]) -> Result<Self, Error> {
        let form = |reason: &str| Error::Form {
            what: "Paillier secret key",
            reason: reason.into(),
        };
        let bits = u32::try_from(p.len() * 8).unwrap_or(u32::MAX);
        check_size(bits.saturating_mul(2))?;
        let read = |bytes| -> Result<Prime, Error> {
            let prime = BoxedUint::from_be_slice(bytes, bits).map(Zeroizing::new);
            let prime = prime.map_err(|_| form("its primes differ in length"))?;
            match is_prime(Flavor::Any, &*prime) {
                true => Ok(prime),
                false => Err(form("its factors are not primes")),
            }
        };
        if p.len() != q.len() {
            return Err(form("its primes differ in length"));
        }
        let (p, q) = (read(p)?, read(q)?);
        Self::from_primes(&p, &q)
    }

    pub(super) fn from_primes(p: &BoxedUint, q: &BoxedUint) -> Result<Self, Error> {
        let unfit = || Error::Form {
            what: "Paillier secret key",
            reason: "its primes do not make a Blum modulus of full length".into(),
        };
        let n = p.concatenating_mul(q);
        let blum = p.as_words()[0] & 3 == 3 && q.as_words()[0] & 3 == 3;
        if !blum || p == q || n.bits() != n.bits_precision() {
            return Err(unfit());
        }
        let public = PublicKey::new(n).ok_or_else(unfit)?;
        let (p_half, q_half) = (Half::new(p, q), Half::new(q, p));
        let (Some(p), Some(q)) = (p_half, q_half) else {
            return Err(unfit());
        };
        let inverse = BoxedMontyForm::new(q.reduce(&p.prime), &q.ring).invert();
        let p_inverse = inverse.into_option().ok_or_else(unfit)?;
        Ok(Self {
            public,
            p,
            q,
            p_inverse: Zeroizing::new(p_inverse),
        })
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// p and q, big endian, for the key file only.
    pub fn expose_primes(&self) -> (Zeroizing<Vec<u8>>, Zeroizing<Vec<u8>>) {
        let bytes = |half: &Half| Zeroizing::new(half.prime.to_be_bytes().into_vec());
        (bytes(&self.p), bytes(&self.q))
    }

    pub(super) fn halves(&self) -> (&Half, &Half) {
        (&self.p, &self.q)
    }

    /// The number below n that is `a` mod p and `b` mod q.
    pub(super) fn join(&self, a: &BoxedUint, b: &BoxedUint) -> Zeroizing<BoxedUint> {
        let a_in_q = Zeroizing::new(self.q.reduce(a));
        let difference = Zeroizing::new(b.sub_mod(&a_in_q, self.q.ring.modulus().as_nz_ref()));
        let difference = BoxedMontyForm::new((*difference).clone(), &self.q.ring);
        let times = Zeroizing::new(Zeroizing::new(difference.mul(&self.p_inverse)).retrieve());
        let high = Zeroizing::new(self.p.prime.concatenating_mul(&*times));
        Zeroizing::new(high.wrapping_add(a))
    }
}

impl Half {
    fn new(prime: &BoxedUint, other: &BoxedUint) -> Option<Self> {
        let odd = Odd::new(prime.clone()).into_option()?;
        let ring = BoxedMontyParams::new(odd.clone());
        let square = odd.concatenating_square();
        let square_ring = BoxedMontyParams::new(Odd::new(square.clone()).into_option()?);
        let square = Zeroizing::new(square.into_nz().into_option()?);
        let (inverse, _) = prime.invert_mod2k_vartime(prime.bits_precision());
        let mut half = Self {
            prime: Zeroizing::new(prime.clone()),
            order: Zeroizing::new(prime.wrapping_sub(BoxedUint::one())),
            square,
            square_ring,
            inverse: Zeroizing::new(inverse),
            factor: Zeroizing::new(BoxedMontyForm::one(&ring)),
            ring,
        };
        let other = BoxedMontyForm::new(half.reduce(other), &half.ring);
        half.factor = Zeroizing::new(other.neg().invert().into_option()?);
        Some(half)
    }

    /// A number below 2p, mod p.
    pub(super) fn reduce(&self, value: &BoxedUint) -> BoxedUint {
        let less = value.wrapping_sub(&*self.prime);
        let mut out = value.clone();
        out.ct_assign(&less, !value.ct_lt(&self.prime));
        out
    }

    /// L_p(c^(p−1) mod p²)·h_p mod p.
    fn decrypt(&self, c: &BoxedUint) -> Zeroizing<BoxedUint> {
        let c = Zeroizing::new(c.rem(&self.square));
        let c = Zeroizing::new(BoxedMontyForm::new((*c).clone(), &self.square_ring));
        let bits = self.prime.bits_precision();
        let power = Zeroizing::new(c.pow_bounded_exp(&self.order, bits));
        let power = Zeroizing::new(power.retrieve());
        // 1 + p·l with l < p, because c is coprime with p: dividing by p needs the low half only.
        let low = Zeroizing::new(power.wrapping_sub(BoxedUint::one()));
        let low = Zeroizing::new((&*low).resize_unchecked(bits));
        let l = low.wrapping_mul(&*self.inverse);
        let l = Zeroizing::new(BoxedMontyForm::new(l, &self.ring));
        Zeroizing::new(Zeroizing::new(l.mul(&self.factor)).retrieve())
    }
}

impl SecretKey {
    /// The plaintext of a ciphertext under this key.
    pub fn decrypt(&self, a: &Ciphertext) -> Result<Plaintext, Error> {
        self.public.check(a)?;
        let c = a.0.retrieve();
        let residue = self.join(&self.p.decrypt(&c), &self.q.decrypt(&c));
        Ok(Plaintext::from_residue(&residue, self.public.n()))
    }
}

impl Decrypt<Encryptor> for SecretKey {
    fn decrypt(&self, a: &Ciphertext) -> Result<Plaintext, Error> {
        SecretKey::decrypt(self, a)
    }
}

/// Says nothing of the key.
impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretKey({} bits)", self.public.modulus_bits())
    }
}
