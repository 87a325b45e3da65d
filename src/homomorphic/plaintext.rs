// SPDX-License-Identifier: MPL-2.0
//! Signed integers as words in two's complement: sign and residue mod n without a branch.

use crypto_bigint::BoxedUint;
use std::hint::black_box;
use zeroize::Zeroizing;

/// A signed integer of any length, wiped on drop. Two's complement, lowest word first.
#[derive(Clone)]
pub struct Plaintext(Zeroizing<Vec<u64>>);

impl Plaintext {
    /// From words in two's complement, lowest first; no word is zero.
    pub fn from_words(mut words: Vec<u64>) -> Self {
        if words.is_empty() {
            words.push(0);
        }
        Self(Zeroizing::new(words))
    }

    /// Its words in two's complement, lowest first; never none.
    pub fn words(&self) -> &[u64] {
        &self.0
    }

    /// As a machine integer, if it fits.
    pub fn to_i64(&self) -> Option<i64> {
        let low = self.0[0] as i64;
        let rest = self.0[1..].iter().all(|&word| word == sign(low as u64));
        rest.then_some(low)
    }

    /// Word `index` of the endless two's complement.
    fn word(&self, index: usize) -> u64 {
        let last = self.0[self.0.len() - 1];
        self.0.get(index).copied().unwrap_or(sign(last))
    }

    /// The residue mod n, if the amount is at most (n−1)/2. n is odd and fills its words. Only
    /// the outcome shows in the time, not the value or its sign.
    pub(super) fn residue(&self, n: &BoxedUint) -> Option<Zeroizing<BoxedUint>> {
        let words = n.as_words();
        let mut residue = Zeroizing::new(BoxedUint::zero_with_precision(n.bits_precision()));
        for (i, word) in residue.as_mut_words().iter_mut().enumerate() {
            *word = self.word(i);
        }
        let negative = self.word(usize::MAX);
        // What is cut off must be nothing but sign; the comparison below does the rest.
        let mut wrong = 0;
        for i in words.len()..self.0.len() {
            wrong |= self.0[i] ^ negative;
        }
        add_masked(residue.as_mut_words(), words, negative);
        wrong |= below(residue.as_words(), words) ^ u64::MAX;
        wrong |= below_half(residue.as_words(), words) ^ !negative;
        (black_box(wrong) == 0).then_some(residue)
    }

    /// The signed value of a residue mod n, in constant time.
    pub(super) fn from_residue(residue: &BoxedUint, n: &BoxedUint) -> Self {
        let mut words = Zeroizing::new(residue.as_words().to_vec());
        let negative = black_box(!below_half(&words, n.as_words()));
        let mut borrow = false;
        for (word, &m) in words.iter_mut().zip(n.as_words()) {
            let (a, b0) = word.overflowing_sub(m & negative);
            let (a, b1) = a.overflowing_sub(u64::from(borrow));
            *word = a;
            borrow = b0 | b1;
        }
        // An n that fills its words leaves no room for the sign.
        words.push(negative);
        Self(words)
    }
}

impl From<i64> for Plaintext {
    fn from(value: i64) -> Self {
        Self(Zeroizing::new(vec![value as u64]))
    }
}

/// Of the numbers, not of how many words they have.
impl PartialEq for Plaintext {
    fn eq(&self, other: &Self) -> bool {
        let words = self.0.len().max(other.0.len()) + 1;
        let differ = (0..words).fold(0, |acc, i| acc | (self.word(i) ^ other.word(i)));
        black_box(differ) == 0
    }
}

impl Eq for Plaintext {}

/// Says nothing of the value.
impl std::fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Plaintext(…)")
    }
}

/// All ones for a negative top word, else zero.
fn sign(word: u64) -> u64 {
    ((word as i64) >> 63) as u64
}

/// `a += b & mask`, without what goes over.
fn add_masked(a: &mut [u64], b: &[u64], mask: u64) {
    let mut carry = false;
    for (a, &b) in a.iter_mut().zip(b) {
        let (sum, c0) = a.overflowing_add(b & mask);
        let (sum, c1) = sum.overflowing_add(u64::from(carry));
        *a = sum;
        carry = c0 | c1;
    }
}

/// All ones if a < b, else zero.
fn below(a: &[u64], b: &[u64]) -> u64 {
    let mut borrow = false;
    for (&a, &b) in a.iter().zip(b) {
        let (d, b0) = a.overflowing_sub(b);
        let (_, b1) = d.overflowing_sub(u64::from(borrow));
        borrow = b0 | b1;
    }
    u64::from(borrow).wrapping_neg()
}

/// All ones if a ≤ (n−1)/2, that is 2a < n for an odd n, else zero.
fn below_half(a: &[u64], n: &[u64]) -> u64 {
    let mut borrow = false;
    let mut before = 0;
    for (&a, &n) in a.iter().zip(n) {
        let doubled = (a << 1) | before;
        before = a >> 63;
        let (d, b0) = doubled.overflowing_sub(n);
        let (_, b1) = d.overflowing_sub(u64::from(borrow));
        borrow = b0 | b1;
    }
    // The bit that doubling pushed out makes it larger than any n.
    u64::from(borrow).wrapping_neg() & before.wrapping_sub(1)
}
