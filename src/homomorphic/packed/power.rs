// SPDX-License-Identifier: MPL-2.0
//! Products of powers with secret exponents (E. G. Straus, *Addition chains of vectors*, 1964):
//! the squarings are shared, and every entry of every table is read.

use super::super::Error;
use super::randomiser::select;
use super::{Ciphertext, PublicKey};
use crypto_bigint::modular::BoxedMontyForm;

/// Bits of an exponent that are looked up at once.
const WINDOW: u32 = 4;

impl PublicKey {
    /// Π a_i^(e_i): E(Σ m_i·e_i), no more random than its parts. Constant-time in the exponents:
    /// 128 squarings for all, and 46 products a ciphertext.
    pub fn product_of_powers(
        &self,
        bases: &[Ciphertext],
        exponents: &[u128],
    ) -> Result<Ciphertext, Error> {
        if bases.len() != exponents.len() {
            return Err(Error::SignCount {
                found: exponents.len(),
                expected: bases.len(),
            });
        }
        let one = BoxedMontyForm::one(self.square());
        let mut tables = Vec::with_capacity(bases.len());
        for base in bases {
            self.check(base)?;
            let mut table = Vec::new();
            let mut power = one.clone();
            for _ in 0..1 << WINDOW {
                table.extend_from_slice(power.as_montgomery().as_words());
                power = power.mul(&base.0);
            }
            tables.push(table);
        }
        let mut entry = one.clone();
        let mut product = one;
        for window in (0..u128::BITS / WINDOW).rev() {
            for _ in 0..WINDOW {
                product = product.square();
            }
            for (table, exponent) in tables.iter().zip(exponents) {
                let digit = (exponent >> (window * WINDOW)) as u32 & ((1 << WINDOW) - 1);
                select(table, digit, entry.as_montgomery_mut().as_mut_words());
                product = product.mul(&entry);
            }
        }
        Ok(Ciphertext(product))
    }
}
