// SPDX-License-Identifier: MPL-2.0
//! The secret key: decryption by CRT, constant-time to the end.

use super::super::random::Random;
use super::super::{Decrypt, Error, Plaintext};
use super::generate::{Prime, draw_primes};
use super::lanes::{Engine, LANES, Numbers, Ring};
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
    /// Where products can go side by side.
    lanes: Option<HalfLanes>,
}

/// p² for eight numbers at a time, and what takes them there. A ciphertext comes as c·2^w mod n²,
/// w the bits of n², which is A + B·R with R = 2^(52·limbs): then A·(R²/2^w)/R + B·(R³/2^w)/R is
/// c·R mod p².
struct HalfLanes {
    ring: Ring,
    /// R²/2^w mod p².
    low: Numbers,
    /// R³/2^w mod p².
    high: Numbers,
    /// 1, not in Montgomery's form.
    unit: Numbers,
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
            lanes: None,
        };
        half.lanes = HalfLanes::new(&half.square_ring);
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
        self.finish(&Zeroizing::new(power.retrieve()))
    }

    /// L_p(power)·h_p mod p.
    fn finish(&self, power: &BoxedUint) -> Zeroizing<BoxedUint> {
        let bits = self.prime.bits_precision();
        // 1 + p·l with l < p, because c is coprime with p: dividing by p needs the low half only.
        let low = Zeroizing::new(power.wrapping_sub(BoxedUint::one()));
        let low = Zeroizing::new((&*low).resize_unchecked(bits));
        let l = low.wrapping_mul(&*self.inverse);
        let l = Zeroizing::new(BoxedMontyForm::new(l, &self.ring));
        Zeroizing::new(Zeroizing::new(l.mul(&self.factor)).retrieve())
    }
}

impl HalfLanes {
    fn new(square: &BoxedMontyParams) -> Option<Self> {
        let ring = Ring::new(Engine::detect().ifma()?, square)?;
        // R ≥ 16·p², so twice the bits of R are more than n² has.
        let given = 2 * square.bits_precision();
        Some(Self {
            low: ring.power_of_two(square, 2 * ring.bits() - given),
            high: ring.power_of_two(square, 3 * ring.bits() - given),
            unit: ring.read(&[&[1][..]; LANES], 0),
            ring,
        })
    }

    /// c^exponent mod p² of up to [`LANES`] ciphertexts, given as Montgomery forms mod n².
    fn power(&self, lanes: &[&[u64]], exponent: &BoxedUint, bits: u32) -> Numbers {
        let ring = &self.ring;
        let mut work = ring.work();
        let mut base = ring.read(lanes, 0);
        ring.multiply(&mut base, &self.low, &mut work);
        let mut high = ring.read(lanes, ring.limbs());
        ring.multiply(&mut high, &self.high, &mut work);
        ring.add(&mut base, &high);
        let mut power = ring.power(&base, exponent, bits);
        ring.multiply(&mut power, &self.unit, &mut work);
        power
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

/// Many at a time.
impl SecretKey {
    /// The plaintexts of ciphertexts under this key, in their order: eight side by side where the
    /// processor can ([`Engine::detect`]). Constant-time as [`decrypt`](Self::decrypt) is, and
    /// with the same errors; one bad ciphertext fails all.
    pub fn decrypt_many(&self, ciphertexts: &[Ciphertext]) -> Result<Vec<Plaintext>, Error> {
        self.decrypt_many_by(Engine::detect(), ciphertexts)
    }

    /// [`decrypt_many`](Self::decrypt_many) by a given engine.
    pub fn decrypt_many_by(
        &self,
        engine: Engine,
        ciphertexts: &[Ciphertext],
    ) -> Result<Vec<Plaintext>, Error> {
        let lanes = match (&self.p.lanes, &self.q.lanes) {
            (Some(p), Some(q)) if engine.is_parallel() => Some((p, q)),
            _ => None,
        };
        let Some((p, q)) = lanes else {
            return ciphertexts.iter().map(|c| self.decrypt(c)).collect();
        };
        let mut out = Vec::with_capacity(ciphertexts.len());
        for chunk in ciphertexts.chunks(LANES) {
            for c in chunk {
                self.public.check(c)?;
            }
            let words: Vec<&[u64]> = chunk
                .iter()
                .map(|c| c.0.as_montgomery().as_words())
                .collect();
            let bits = self.p.prime.bits_precision();
            let p_powers = p.power(&words, &self.p.order, bits);
            let q_powers = q.power(&words, &self.q.order, bits);
            for lane in 0..chunk.len() {
                let m_p = self.p.finish(&p.ring.write(&p_powers, lane));
                let m_q = self.q.finish(&q.ring.write(&q_powers, lane));
                let residue = self.join(&m_p, &m_q);
                out.push(Plaintext::from_residue(&residue, self.public.n()));
            }
        }
        Ok(out)
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
