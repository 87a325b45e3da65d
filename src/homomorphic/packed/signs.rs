// SPDX-License-Identifier: MPL-2.0
//! Products Π t_j^(±1) for secret signs: per four ciphertexts a table of their 16 sign products,
//! so that four coefficients cost one product. Every entry of a table is read.

use super::super::{Error, Plaintext};
use super::lanes::{Engine, LANES, Row};
use super::public::SquareLanes;
use super::randomiser::select;
use super::{Ciphertext, PublicKey, Randomiser};
use crypto_bigint::modular::BoxedMontyForm;
use std::sync::{Arc, OnceLock};
use zeroize::Zeroizing;

/// Ciphertexts of a table.
const GROUP: usize = 4;

/// The tables of some ciphertexts, in their order. 4 times the memory of the ciphertexts.
#[derive(Clone)]
pub struct SignTables {
    key: PublicKey,
    count: usize,
    table: Vec<u64>,
    /// The same for eight at a time, made when first wanted.
    lanes: Arc<OnceLock<Vec<Row>>>,
}

impl SignTables {
    /// Computes the tables of `ciphertexts`, each already shifted to its slot: one inversion, and
    /// about 9 products a ciphertext. Once per ticket.
    pub fn new(key: &PublicKey, ciphertexts: &[Ciphertext]) -> Result<Self, Error> {
        let inverses = invert_all(key, ciphertexts)?;
        let one = BoxedMontyForm::one(key.square());
        let mut table = Vec::new();
        let groups = ciphertexts.chunks(GROUP).zip(inverses.chunks(GROUP));
        for (plus, minus) in groups {
            let mut entries = vec![one.clone()];
            // Bit i of an index says that ciphertext i is inverted; a short last group is filled
            // up with ones.
            for i in 0..GROUP {
                let pair = match (plus.get(i), minus.get(i)) {
                    (Some(plus), Some(minus)) => [&plus.0, &minus.0],
                    _ => [&one, &one],
                };
                entries = pair
                    .iter()
                    .flat_map(|factor| entries.iter().map(|entry| entry.mul(factor)))
                    .collect();
            }
            for entry in &entries {
                table.extend_from_slice(entry.as_montgomery().as_words());
            }
        }
        Ok(Self {
            key: key.clone(),
            count: ciphertexts.len(),
            table,
            lanes: Arc::default(),
        })
    }

    /// Ciphertexts in the tables.
    pub fn count(&self) -> usize {
        self.count
    }

    /// E(sum)·Π t_j^(±1)·h^r, with t_j inverted where `negative[j]`: what the owner sends. The
    /// randomiser must have the exponents of [`super::rerandomise_bits`] for these tickets.
    pub fn combine(
        &self,
        sum: &Plaintext,
        negative: &[bool],
        randomiser: &Randomiser,
    ) -> Result<Ciphertext, Error> {
        let fresh = randomiser.draw()?;
        self.key.check(&fresh)?;
        let start = self.key.add_plain(&fresh, sum)?;
        self.multiply(start, negative)
    }

    /// a·Π t_j^(±1), no more random than `a`. Constant-time in the signs.
    pub fn multiply(&self, a: Ciphertext, negative: &[bool]) -> Result<Ciphertext, Error> {
        self.key.check(&a)?;
        if negative.len() != self.count {
            return Err(Error::SignCount {
                found: negative.len(),
                expected: self.count,
            });
        }
        let size = self.key.square().bits_precision() as usize / 64;
        let groups = self.table.chunks_exact(size << GROUP);
        let mut entry = BoxedMontyForm::one(self.key.square());
        let mut product = a.0;
        for (table, signs) in groups.zip(negative.chunks(GROUP)) {
            select(
                table,
                index(signs),
                entry.as_montgomery_mut().as_mut_words(),
            );
            product = product.mul(&entry);
        }
        Ok(Ciphertext(product))
    }
}

/// Many at a time.
impl SignTables {
    /// [`combine`](Self::combine) for many plaintexts, each with its own signs and its own
    /// randomness: eight side by side where the processor can ([`Engine::detect`]), so that a
    /// multiple of eight is best. All go over the same tickets: the ciphertexts of one place in
    /// eight frames, say. One that cannot be fails all.
    pub fn combine_many(
        &self,
        sums: &[(Plaintext, &[bool])],
        randomiser: &Randomiser,
    ) -> Result<Vec<Ciphertext>, Error> {
        self.combine_many_by(Engine::detect(), sums, randomiser)
    }

    /// [`combine_many`](Self::combine_many) by a given engine.
    pub fn combine_many_by(
        &self,
        engine: Engine,
        sums: &[(Plaintext, &[bool])],
        randomiser: &Randomiser,
    ) -> Result<Vec<Ciphertext>, Error> {
        let lanes = engine.ifma().and_then(|ifma| self.key.lanes(ifma));
        let Some(lanes) = lanes else {
            let one = |(sum, signs): &(Plaintext, &[bool])| self.combine(sum, signs, randomiser);
            return sums.iter().map(one).collect();
        };
        if randomiser.key() != &self.key {
            return Err(Error::OtherKey);
        }
        let mut out = Vec::with_capacity(sums.len());
        for chunk in sums.chunks(LANES) {
            self.combine_lanes(lanes, chunk, randomiser, &mut out)?;
        }
        Ok(out)
    }

    fn combine_lanes(
        &self,
        lanes: &SquareLanes,
        sums: &[(Plaintext, &[bool])],
        randomiser: &Randomiser,
        out: &mut Vec<Ciphertext>,
    ) -> Result<(), Error> {
        let mut bare = Vec::with_capacity(sums.len());
        for (sum, negative) in sums {
            if negative.len() != self.count {
                return Err(Error::SignCount {
                    found: negative.len(),
                    expected: self.count,
                });
            }
            bare.push(self.key.power(sum)?);
        }
        let ring = &lanes.ring;
        let mut work = ring.work();
        let exponents = randomiser.draw_exponents(sums.len())?;
        let mut product = randomiser.power_lanes(lanes, &exponents, &mut work);
        let size = self.key.square().bits_precision() as usize / 64;
        let table = self
            .lanes
            .get_or_init(|| lanes.table(&self.table, size, 1 << GROUP));
        let groups = table.chunks_exact((1 << GROUP) / LANES * ring.limbs());
        let mut entry = ring.one();
        for (group, table) in groups.enumerate() {
            let mut indices = Zeroizing::new(Row::default());
            for (lane, (_, negative)) in indices.0.iter_mut().zip(sums) {
                let signs = negative.chunks(GROUP).nth(group).unwrap_or_default();
                *lane = u64::from(index(signs));
            }
            ring.select(table, &indices, &mut entry);
            ring.multiply(&mut product, &entry, &mut work);
        }
        let bare: Vec<&[u64]> = bare.iter().map(|bare| bare.as_words()).collect();
        // Takes the product out of Montgomery's form, and the next one into that of elsewhere.
        ring.multiply(&mut product, &ring.read(&bare, 0), &mut work);
        ring.multiply(&mut product, &lanes.leave, &mut work);
        for lane in 0..sums.len() {
            out.push(self.key.ciphertext_of(&ring.write(&product, lane)));
        }
        Ok(())
    }
}

/// The entry for signs of a group: bit i says that ciphertext i is inverted.
fn index(signs: &[bool]) -> u32 {
    let bits = signs.iter().enumerate();
    bits.fold(0, |index, (i, &negative)| index | u32::from(negative) << i)
}

/// E(−a) of each, with one inversion for all (P. L. Montgomery's trick: three products each).
pub fn invert_all(key: &PublicKey, ciphertexts: &[Ciphertext]) -> Result<Vec<Ciphertext>, Error> {
    let mut product = BoxedMontyForm::one(key.square());
    let mut before = Vec::with_capacity(ciphertexts.len());
    for a in ciphertexts {
        key.check(a)?;
        before.push(product.clone());
        product = product.mul(&a.0);
    }
    let inverse = product.invert_vartime().into_option();
    let mut inverse = inverse.ok_or(Error::CiphertextValue)?;
    let mut out = Vec::with_capacity(ciphertexts.len());
    for (a, before) in ciphertexts.iter().zip(before).rev() {
        out.push(Ciphertext(inverse.mul(&before)));
        inverse = inverse.mul(&a.0);
    }
    out.reverse();
    Ok(out)
}
