// SPDX-License-Identifier: MPL-2.0
//! Products Π t_j^(±1) for secret signs: per four ciphertexts a table of their 16 sign products,
//! so that four coefficients cost one product. Every entry of a table is read.

use super::super::{Error, Plaintext};
use super::randomiser::select;
use super::{Ciphertext, PublicKey, Randomiser};
use crypto_bigint::modular::BoxedMontyForm;

/// Ciphertexts of a table.
const GROUP: usize = 4;

/// The tables of some ciphertexts, in their order. 4 times the memory of the ciphertexts.
#[derive(Clone)]
pub struct SignTables {
    key: PublicKey,
    count: usize,
    table: Vec<u64>,
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
            let mut index = 0;
            for (i, &negative) in signs.iter().enumerate() {
                index |= u32::from(negative) << i;
            }
            select(table, index, entry.as_montgomery_mut().as_mut_words());
            product = product.mul(&entry);
        }
        Ok(Ciphertext(product))
    }
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
