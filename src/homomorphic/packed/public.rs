// SPDX-License-Identifier: MPL-2.0
//! The public key and what can be done with ciphertexts by anyone.

use super::super::{Error, Plaintext};
use super::check_size;
use super::ifma::Ifma;
use super::lanes::{Numbers, Ring, Row};
use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{
    BoxedUint, ConcatenatingMul, ConcatenatingSquare, CtAssign, Gcd, NonZero, Odd, Resize,
};
use std::sync::{Arc, OnceLock};
use zeroize::Zeroizing;

/// The modulus n. A key that comes from elsewhere is to be trusted only after its proof
/// ([`super::CertifiedKey`]).
#[derive(Clone)]
pub struct PublicKey(Arc<Inner>);

struct Inner {
    n: Odd<BoxedUint>,
    /// n², which is what ciphertexts are reduced by.
    square: BoxedMontyParams,
    /// Made when first wanted.
    lanes: OnceLock<Option<SquareLanes>>,
}

/// n² for eight numbers at a time. Elsewhere Montgomery's form is a·2^w, w the bits of n²; here
/// it is a·R with R = 2^(52·limbs).
pub(super) struct SquareLanes {
    pub(super) ring: Ring,
    /// R²/2^w: its product with a·2^w is a·R.
    enter: Numbers,
    /// R·2^w: its product with a, not in Montgomery's form, is a·2^w.
    pub(super) leave: Numbers,
}

impl SquareLanes {
    fn new(ifma: Ifma, square: &BoxedMontyParams) -> Option<Self> {
        let ring = Ring::new(ifma, square)?;
        let bits = square.bits_precision();
        // R ≥ 16·n².
        Some(Self {
            enter: ring.power_of_two(square, 2 * ring.bits() - bits),
            leave: ring.power_of_two(square, ring.bits() + bits),
            ring,
        })
    }

    /// A table of Montgomery forms, word by word, for [`Ring::select`]: per `entries` of them, limb
    /// after limb. `entries` is a multiple of 16.
    pub(super) fn table(&self, words: &[u64], size: usize, entries: usize) -> Vec<Row> {
        let limbs = self.ring.limbs();
        let mut work = self.ring.work();
        let mut out = Vec::with_capacity(words.len() / size / 8 * limbs);
        for table in words.chunks_exact(size * entries) {
            let mut rows = Vec::with_capacity(entries / 8);
            for eight in table.chunks_exact(size * 8) {
                let lanes: Vec<&[u64]> = eight.chunks_exact(size).collect();
                let mut numbers = self.ring.read(&lanes, 0);
                self.ring.multiply(&mut numbers, &self.enter, &mut work);
                rows.push(numbers);
            }
            for limb in 0..limbs {
                out.extend(rows.iter().map(|numbers| numbers[limb]));
            }
        }
        out
    }
}

/// A number of Z*_{n²} in Montgomery form. Operations check that keys match.
#[derive(Clone)]
pub struct Ciphertext(pub(super) BoxedMontyForm);

impl PublicKey {
    /// The key of a modulus, big endian, without leading zeros. Checks size and oddness, no proof.
    pub fn from_modulus(bytes: &[u8]) -> Result<Self, Error> {
        let bits = u32::try_from(bytes.len() * 8).unwrap_or(u32::MAX);
        check_size(bits)?;
        let form = |reason: &str| Error::Form {
            what: "Paillier modulus",
            reason: reason.into(),
        };
        let n = BoxedUint::from_be_slice(bytes, bits).map_err(|_| form("its length is wrong"))?;
        if n.bits_vartime() != bits {
            return Err(form("its top bit is not set"));
        }
        Self::new(n).ok_or_else(|| form("it is even"))
    }

    pub(super) fn new(n: BoxedUint) -> Option<Self> {
        let n = n.into_odd().into_option()?;
        let square = n.as_ref().concatenating_square().into_odd().into_option()?;
        let square = BoxedMontyParams::new_vartime(square);
        let lanes = OnceLock::new();
        Some(Self(Arc::new(Inner { n, square, lanes })))
    }

    /// Bits of n.
    pub fn modulus_bits(&self) -> u32 {
        self.0.n.as_ref().bits_precision()
    }

    /// n, big endian.
    pub fn modulus(&self) -> Vec<u8> {
        self.n().to_be_bytes().into_vec()
    }

    /// Bytes of a ciphertext: twice those of n.
    pub fn ciphertext_bytes(&self) -> usize {
        self.modulus_bits() as usize / 4
    }

    pub(super) fn n(&self) -> &BoxedUint {
        self.0.n.as_ref()
    }

    pub(super) fn odd_n(&self) -> &Odd<BoxedUint> {
        &self.0.n
    }

    pub(super) fn nz_n(&self) -> &NonZero<BoxedUint> {
        self.0.n.as_nz_ref()
    }

    pub(super) fn square(&self) -> &BoxedMontyParams {
        &self.0.square
    }

    /// n² for eight numbers at a time, if it is not too long for that.
    pub(super) fn lanes(&self, ifma: Ifma) -> Option<&SquareLanes> {
        let lanes = self
            .0
            .lanes
            .get_or_init(|| SquareLanes::new(ifma, self.square()));
        lanes.as_ref()
    }

    /// Into Montgomery form; `value` below n².
    pub(super) fn enter(&self, value: &BoxedUint) -> BoxedMontyForm {
        let value = value.resize(self.0.square.bits_precision());
        BoxedMontyForm::new(value, &self.0.square)
    }

    /// From a number that is in Montgomery form already.
    pub(super) fn ciphertext_of(&self, value: &BoxedUint) -> Ciphertext {
        Ciphertext(BoxedMontyForm::from_montgomery(
            value.clone(),
            self.square(),
        ))
    }

    /// Whether a ciphertext belongs to this key.
    pub(super) fn check(&self, a: &Ciphertext) -> Result<(), Error> {
        // Keys are shared, so it is nearly always one pointer.
        match a.0.params() == &self.0.square {
            true => Ok(()),
            false => Err(Error::OtherKey),
        }
    }

    /// g^value = 1 + value·n mod n²: `value` "encrypted" without randomness. Anyone can read it.
    pub fn bare(&self, value: &Plaintext) -> Result<Ciphertext, Error> {
        Ok(Ciphertext(self.enter(&*self.power(value)?)))
    }

    /// 1 + value·n, a number below n², as (n − 1)·n + 1 is.
    pub(super) fn power(&self, value: &Plaintext) -> Result<Zeroizing<BoxedUint>, Error> {
        let residue = value.residue(self.n()).ok_or(Error::PlaintextRange)?;
        let product = Zeroizing::new(residue.concatenating_mul(self.n()));
        Ok(Zeroizing::new(product.wrapping_add(BoxedUint::one())))
    }

    /// E(a + b), no more random than its parts.
    pub fn add(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext, Error> {
        self.check(a)?;
        self.check(b)?;
        Ok(Ciphertext(a.0.mul(&b.0)))
    }

    /// E(a + b), no more random than `a`.
    pub fn add_plain(&self, a: &Ciphertext, b: &Plaintext) -> Result<Ciphertext, Error> {
        self.check(a)?;
        Ok(Ciphertext(a.0.mul(&self.bare(b)?.0)))
    }

    /// E(a·factor), no more random than `a`. Constant-time in `factor` and its sign, which costs
    /// an inversion; signs alone are quicker by [`super::SignTables`].
    pub fn mul_plain(&self, a: &Ciphertext, factor: i64) -> Result<Ciphertext, Error> {
        self.check(a)?;
        let amount = BoxedUint::from(factor.unsigned_abs());
        let mut power = a.0.pow_bounded_exp(&amount, 64);
        let inverse = power.invert().into_option();
        let inverse = inverse.ok_or(Error::CiphertextValue)?;
        let negative = (factor as u64 >> 63) as u8;
        let negative = crypto_bigint::Choice::from_u8_lsb(negative);
        power
            .as_montgomery_mut()
            .ct_assign(inverse.as_montgomery(), negative);
        Ok(Ciphertext(power))
    }

    /// E(a·2^bits): moves a plaintext to a slot. The time shows `bits`.
    pub fn shift(&self, a: &Ciphertext, bits: u32) -> Result<Ciphertext, Error> {
        self.check(a)?;
        let mut power = a.0.clone();
        for _ in 0..bits {
            power = power.square();
        }
        Ok(Ciphertext(power))
    }

    /// Big endian, [`ciphertext_bytes`](Self::ciphertext_bytes) long.
    pub fn to_bytes(&self, a: &Ciphertext) -> Vec<u8> {
        a.0.retrieve().to_be_bytes().into_vec()
    }

    /// Reads a ciphertext: right length, 0 < c < n², and gcd(c, n) = 1.
    pub fn parse(&self, bytes: &[u8]) -> Result<Ciphertext, Error> {
        let a = self.read(bytes)?;
        match self.is_unit(&a.0) {
            true => Ok(a),
            false => Err(Error::CiphertextValue),
        }
    }

    /// [`parse`](Self::parse) for many, with one greatest common divisor for all, which is what
    /// takes the time: their product is coprime with n if each is. One that is wrong fails all.
    pub fn parse_many(&self, many: &[impl AsRef<[u8]>]) -> Result<Vec<Ciphertext>, Error> {
        let mut product = BoxedMontyForm::one(self.square());
        let mut out = Vec::with_capacity(many.len());
        for bytes in many {
            let a = self.read(bytes.as_ref())?;
            product = product.mul(&a.0);
            out.push(a);
        }
        match self.is_unit(&product) {
            true => Ok(out),
            false => Err(Error::CiphertextValue),
        }
    }

    /// Right length, and below n².
    fn read(&self, bytes: &[u8]) -> Result<Ciphertext, Error> {
        let expected = self.ciphertext_bytes();
        let length = || Error::CiphertextLength {
            found: bytes.len(),
            expected,
        };
        if bytes.len() != expected {
            return Err(length());
        }
        let bits = self.modulus_bits() * 2;
        let value = BoxedUint::from_be_slice(bytes, bits).map_err(|_| length())?;
        match value < *self.0.square.modulus().as_ref() {
            true => Ok(Ciphertext(self.enter(&value))),
            false => Err(Error::CiphertextValue),
        }
    }

    /// Whether a public number is coprime with n. The factor of Montgomery's form, a power of 2,
    /// changes nothing in that, and gcd(a, n) = gcd(a mod n, n), which is n for zero.
    fn is_unit(&self, a: &BoxedMontyForm) -> bool {
        let rest = a.as_montgomery().rem_vartime(self.nz_n());
        let gcd = self.odd_n().gcd_vartime(&rest);
        bool::from(gcd.as_ref().is_one())
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.n() == other.n()
    }
}

impl Eq for PublicKey {}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({} bits)", self.modulus_bits())
    }
}

/// Says nothing of the value: it may be under the reader's own key.
impl std::fmt::Debug for Ciphertext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ciphertext(…)")
    }
}
