// SPDX-License-Identifier: MPL-2.0
//! Powers of a fixed base from a table (C. H. Lim and P. J. Lee, *More flexible exponentiation
//! with precomputation*, CRYPTO 1994).
//!
//! The exponent is written in W rows of A bits, every row in V pieces of B bits. Entry (j, u) of
//! the table is the product of h^(2^(i·A + j·B)) over the bits i of u, and
//! h^r = Π over k = B−1…0 of (square, then multiply by entry (j, column k of piece j) for each j):
//! A products and B squarings. With W = 6 and V = 8 that is 0.19 products per bit of exponent, and
//! the table is 512 ciphertexts (384 KiB at 3072 bits).

use super::super::random::Random;
use super::super::{AdditiveScheme, Error, Plaintext};
use super::lanes::{LANES, Numbers, Row};
use super::public::SquareLanes;
use super::{Ciphertext, PublicKey};
use crypto_bigint::modular::BoxedMontyForm;
use crypto_bigint::{BoxedUint, Gcd, Resize};
use sha2::{Digest, Sha256};
use std::sync::{Arc, OnceLock};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Bits of the exponents in tickets: four times the 128 bits of security, so that the discrete
/// logarithm in an interval (2^256 steps by the kangaroo method) is out of reach of who does not
/// know the factors of n. That h^s for such s looks like any n-th residue is the short-exponent
/// assumption (Koshiba and Kurosawa, *Short Exponent Diffie-Hellman Problems*, PKC 2004).
pub const TICKET_EXPONENT_BITS: u32 = 512;

/// Bits by which the owner's exponent is longer than what it hides: the statistical distance from
/// an independent one is below 2^−64.
pub const HIDING_BITS: u32 = 64;

/// Bits of the exponent that hides a product of up to `tickets` ciphertexts, each with an exponent
/// of `ticket_bits` bits and then shifted by up to `shift_bits`:
///
/// min(ticket_bits + shift_bits + ⌈log2(tickets)⌉, bits of n) + 64.
///
/// Examples at 3072 bits with 204 slots of 15 bits: tickets that come shifted from the TTP
/// (`shift_bits` = 0) take 512 + 8 + 64 = 584; tickets that the owner shifts itself (by up to 3045)
/// take 3072 + 64 = 3136, because an exponent 64 bits longer than the order of h, which is below
/// n/4, hides everything.
pub fn rerandomise_bits(key: &PublicKey, ticket_bits: u32, shift_bits: u32, tickets: u32) -> u32 {
    let log = u32::BITS - tickets.saturating_sub(1).leading_zeros();
    let sum = ticket_bits.saturating_add(shift_bits).saturating_add(log);
    sum.min(key.modulus_bits()) + HIDING_BITS
}

/// h = (−x²)^n mod n², with x hashed from n and a seed: Jacobi symbol 1, and nobody chose it.
#[derive(Clone)]
pub struct Base(BoxedMontyForm);

impl Base {
    /// The base of a seed, which the owner draws and the TTP learns. `context` is the contract's:
    /// no two contracts share a base.
    pub fn derive(key: &PublicKey, seed: &[u8; 32], context: &[u8]) -> Self {
        let n = key.modulus();
        let mut counter = 0u32;
        let x = loop {
            let hash = Sha256::new()
                .chain_update(b"camvault paillier base 1")
                .chain_update((n.len() as u64).to_be_bytes())
                .chain_update(&n)
                .chain_update(seed)
                .chain_update((context.len() as u64).to_be_bytes())
                .chain_update(context)
                .chain_update(counter.to_be_bytes())
                .finalize();
            let x = below(key, &hash.into());
            // Of an honest modulus every x passes.
            if bool::from(key.odd_n().gcd_vartime(&x).as_ref().is_one()) {
                break x;
            }
            counter += 1;
        };
        // (−x²)^n mod n² depends on −x² mod n alone.
        let root = key.enter(&x).square().neg();
        Self(root.pow(&key.n().clone()))
    }

    /// As a ciphertext, which it is one of (of 0): for checks in tests.
    pub fn as_ciphertext(&self) -> Ciphertext {
        Ciphertext(self.0.clone())
    }
}

/// A number below n from a hash: SHA-256 in counter mode over 128 bits more than n has, so that
/// the bias is below 2^−128.
pub(super) fn below(key: &PublicKey, seed: &[u8; 32]) -> BoxedUint {
    let bits = key.modulus_bits() + 128;
    let mut bytes = Vec::with_capacity(bits as usize / 8 + 32);
    for block in 0u32.. {
        if bytes.len() * 8 >= bits as usize {
            break;
        }
        let hash = Sha256::new().chain_update(seed);
        bytes.extend_from_slice(&hash.chain_update(block.to_be_bytes()).finalize());
    }
    let wide = BoxedUint::from_be_slice_truncated(&bytes[..bits as usize / 8], bits);
    let rest = wide.rem_vartime(key.nz_n());
    rest.resize(key.modulus_bits())
}

const ROWS: u32 = 6;
const PIECES: u32 = 8;

/// Fresh n-th residues h^r, r uniform below 2^`bits`.
#[derive(Clone)]
pub struct Randomiser {
    key: PublicKey,
    bits: u32,
    /// A and B above.
    row: u32,
    piece: u32,
    /// Montgomery forms of the entries, word by word, piece after piece.
    table: Vec<u64>,
    /// The same for eight at a time, made when first wanted.
    lanes: Arc<OnceLock<Vec<Row>>>,
}

impl Randomiser {
    /// Computes the table for exponents of `bits` bits (see [`rerandomise_bits`] and
    /// [`TICKET_EXPONENT_BITS`]): `bits` squarings and about 500 products.
    pub fn new(key: &PublicKey, base: &Base, bits: u32) -> Result<Self, Error> {
        key.check(&Ciphertext(base.0.clone()))?;
        let row = bits.max(1).div_ceil(ROWS);
        let piece = row.div_ceil(PIECES);
        // Generators h^(2^(i·A + j·B)), in order of their exponents.
        let mut wanted: Vec<(u32, usize)> = Vec::new();
        for i in 0..ROWS {
            for j in 0..PIECES {
                wanted.push((i * row + j * piece, (j * ROWS + i) as usize));
            }
        }
        wanted.sort_unstable();
        let mut generators = vec![base.0.clone(); wanted.len()];
        let (mut power, mut at) = (base.0.clone(), 0);
        for (exponent, place) in wanted {
            while at < exponent {
                power = power.square();
                at += 1;
            }
            generators[place] = power.clone();
        }
        let mut table = Vec::new();
        for generators in generators.chunks(ROWS as usize) {
            let mut entries = vec![BoxedMontyForm::one(key.square())];
            for generator in generators {
                for i in 0..entries.len() {
                    entries.push(entries[i].mul(generator));
                }
            }
            for entry in &entries {
                table.extend_from_slice(entry.as_montgomery().as_words());
            }
        }
        Ok(Self {
            key: key.clone(),
            bits,
            row,
            piece,
            table,
            lanes: Arc::default(),
        })
    }

    pub(super) fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Bits of the exponents.
    pub fn exponent_bits(&self) -> u32 {
        self.bits
    }

    /// h^r for a fresh r: an encryption of 0.
    pub fn draw(&self) -> Result<Ciphertext, Error> {
        Ok(self.draw_from(&mut Random::new()?))
    }

    /// … with the next numbers of a generator.
    pub(in super::super) fn draw_from(&self, random: &mut Random) -> Ciphertext {
        Ciphertext(self.power(&random.below_power(self.bits)))
    }

    /// [`Self::power`] for tests elsewhere.
    #[cfg(test)]
    pub(crate) fn test_power(&self, exponent: &BoxedUint) -> Ciphertext {
        Ciphertext(self.power(exponent))
    }

    /// Exponents for [`Self::power_lanes`].
    pub(super) fn draw_exponents(&self, count: usize) -> Result<Vec<Zeroizing<BoxedUint>>, Error> {
        let mut random = Random::new()?;
        Ok((0..count).map(|_| random.below_power(self.bits)).collect())
    }

    /// h^exponent for up to [`LANES`] exponents, in Montgomery's form of `lanes`. Constant-time.
    pub(super) fn power_lanes(
        &self,
        lanes: &SquareLanes,
        exponents: &[Zeroizing<BoxedUint>],
        work: &mut Numbers,
    ) -> Numbers {
        let entries = 1 << ROWS;
        let table = self.lanes.get_or_init(|| {
            let size = self.key.square().bits_precision() as usize / 64;
            lanes.table(&self.table, size, entries)
        });
        let ring = &lanes.ring;
        let piece_rows = entries / LANES * ring.limbs();
        let mut entry = ring.one();
        let mut power = ring.one();
        for k in (0..self.piece).rev() {
            ring.square(&mut power, work);
            for j in 0..PIECES {
                let column = j * self.piece + k;
                if column >= self.row {
                    continue;
                }
                let mut index = Zeroizing::new(Row::default());
                for (index, exponent) in index.0.iter_mut().zip(exponents) {
                    *index = u64::from(self.index(exponent, column));
                }
                let table = &table[j as usize * piece_rows..][..piece_rows];
                ring.select(table, &index, &mut entry);
                ring.multiply(&mut power, &entry, work);
            }
        }
        power
    }

    /// The bits of an exponent that choose an entry of a piece: one of each row.
    fn index(&self, exponent: &BoxedUint, column: u32) -> u32 {
        let words = exponent.as_words();
        let bit = |at: u32| match words.get(at as usize / 64) {
            Some(word) if at < self.bits => (word >> (at % 64)) as u32 & 1,
            _ => 0,
        };
        (0..ROWS).fold(0, |u, i| u | bit(i * self.row + column) << i)
    }

    /// [`Self::power_lanes`] for tests elsewhere, if the processor can.
    #[cfg(test)]
    pub(crate) fn test_powers(
        &self,
        exponents: &[Zeroizing<BoxedUint>],
    ) -> Option<Vec<Ciphertext>> {
        let lanes = self.key.lanes(super::Engine::detect().ifma()?)?;
        let mut work = lanes.ring.work();
        let mut powers = self.power_lanes(lanes, exponents, &mut work);
        let unit = lanes.ring.read(&[&[1][..]; LANES], 0);
        lanes.ring.multiply(&mut powers, &unit, &mut work);
        lanes.ring.multiply(&mut powers, &lanes.leave, &mut work);
        let power = |lane| self.key.ciphertext_of(&lanes.ring.write(&powers, lane));
        Some((0..exponents.len()).map(power).collect())
    }

    /// h^exponent, constant-time.
    fn power(&self, exponent: &BoxedUint) -> BoxedMontyForm {
        let size = self.key.square().bits_precision() as usize / 64;
        let entries = 1 << ROWS;
        let mut entry = BoxedMontyForm::one(self.key.square());
        let mut power = BoxedMontyForm::one(self.key.square());
        for k in (0..self.piece).rev() {
            power = power.square();
            for j in 0..PIECES {
                // The last pieces may reach beyond their rows, where another row's bits are.
                if j * self.piece + k >= self.row {
                    continue;
                }
                let column = j * self.piece + k;
                let index = self.index(exponent, column);
                let start = j as usize * entries * size;
                select(
                    &self.table[start..start + entries * size],
                    index,
                    entry.as_montgomery_mut().as_mut_words(),
                );
                power = power.mul(&entry);
            }
        }
        let _wiped = Zeroizing::new(entry);
        power
    }
}

/// Copies entry `index` of a table into `out`, reading all of it.
pub(super) fn select(table: &[u64], index: u32, out: &mut [u64]) {
    out.fill(0);
    for (i, entry) in table.chunks_exact(out.len()).enumerate() {
        let mask = u64::from((i as u32).ct_eq(&index).unwrap_u8()).wrapping_neg();
        for (out, word) in out.iter_mut().zip(entry) {
            *out |= word & mask;
        }
    }
}

/// A public key with a randomiser: the [`AdditiveScheme`] of this module.
#[derive(Clone)]
pub struct Encryptor {
    randomiser: Randomiser,
}

impl Encryptor {
    /// Encrypts with exponents as long as the randomiser's.
    pub fn new(randomiser: Randomiser) -> Self {
        Self { randomiser }
    }

    /// The key.
    pub fn key(&self) -> &PublicKey {
        &self.randomiser.key
    }

    /// The randomiser.
    pub fn randomiser(&self) -> &Randomiser {
        &self.randomiser
    }
}

impl AdditiveScheme for Encryptor {
    type Ciphertext = Ciphertext;

    fn encrypt(&self, value: &Plaintext) -> Result<Ciphertext, Error> {
        self.rerandomise(&self.key().bare(value)?)
    }

    fn add(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext, Error> {
        self.key().add(a, b)
    }

    fn add_plain(&self, a: &Ciphertext, b: &Plaintext) -> Result<Ciphertext, Error> {
        self.key().add_plain(a, b)
    }

    fn mul_plain(&self, a: &Ciphertext, factor: i64) -> Result<Ciphertext, Error> {
        self.key().mul_plain(a, factor)
    }

    fn rerandomise(&self, a: &Ciphertext) -> Result<Ciphertext, Error> {
        self.key().add(a, &self.randomiser.draw()?)
    }

    fn ciphertext_bytes(&self) -> usize {
        self.key().ciphertext_bytes()
    }

    fn to_bytes(&self, a: &Ciphertext) -> Vec<u8> {
        self.key().to_bytes(a)
    }

    fn parse(&self, bytes: &[u8]) -> Result<Ciphertext, Error> {
        self.key().parse(bytes)
    }
}
