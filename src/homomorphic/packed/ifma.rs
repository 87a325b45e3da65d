// SPDX-License-Identifier: MPL-2.0
//! The instructions of AVX-512 IFMA: all of this module that is `unsafe`.
//!
//! VPMADD52LUQ and VPMADD52HUQ add the low or high 52 bits of the 104-bit product of two 52-bit
//! numbers to a 64-bit one, in eight lanes (Intel 64 and IA-32 Architectures Software Developer's
//! Manual, volume 2). A limb of eight numbers is a [`Row`], a number of each lane a slice of rows,
//! lowest first.
//!
//! **Safety.** Unsafe are two things. Functions with `target_feature` are called outside of such
//! functions only by methods of [`Ifma`], and a value of that type comes from
//! [`Ifma::detect`] alone, after the processor and the system said that they have the features. And
//! rows are loaded and stored by pointers that are made, in [`load`] and [`store`], from a reference
//! to one row each, which has the 64 bytes and the alignment that these instructions want.
//!
//! **Time.** Addresses and branches depend on lengths and loop counters alone: an entry is chosen
//! by permutation within registers or by masks, after everything was read.

use super::lanes::{LIMB_BITS, LIMB_MASK, MAX_LIMBS, Row};
use std::arch::x86_64::{
    __m512i, __mmask8, _mm512_add_epi64, _mm512_and_si512, _mm512_cmpeq_epi64_mask,
    _mm512_load_si512, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64, _mm512_mask_mov_epi64,
    _mm512_permutex2var_epi64, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_slli_epi64,
    _mm512_srli_epi64, _mm512_store_si512,
};

/// Limbs of one factor that are taken at a time: so many accumulators stay in registers.
pub(super) const BLOCK: usize = 5;

/// Says that this processor has the instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ifma(());

impl Ifma {
    pub(super) fn detect() -> Option<Self> {
        let there = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma");
        there.then_some(Self(()))
    }

    /// a ← a·b/R mod m, below 2m, with R = 2^(52·limbs), `inverse` = −m^−1 mod 2^52 and a·b below
    /// R·m. `work` has twice the limbs.
    pub(super) fn multiply(
        self,
        m: &[Row],
        inverse: u64,
        a: &mut [Row],
        b: &[Row],
        work: &mut [Row],
    ) {
        check(m, &[a, b], work);
        // SAFETY: `self` says that the features are there.
        unsafe {
            product(a, b, work);
            reduce(work, m, inverse);
            normalise(&work[m.len()..], a);
        }
    }

    /// [`multiply`](Self::multiply) by itself, in four fifths of the time.
    pub(super) fn square(self, m: &[Row], inverse: u64, a: &mut [Row], work: &mut [Row]) {
        check(m, &[a], work);
        // SAFETY: `self` says that the features are there.
        unsafe {
            square(a, work);
            reduce(work, m, inverse);
            normalise(&work[m.len()..], a);
        }
    }

    /// Of each lane the entry at its index: `table` has, limb after limb, the entries in rows of
    /// eight, an even number of rows.
    pub(super) fn select(self, table: &[Row], index: &Row, out: &mut [Row]) {
        let rows = table.len() / out.len();
        assert!(rows.is_multiple_of(2) && table.len() == rows * out.len());
        // SAFETY: `self` says that the features are there.
        unsafe { select(table, rows, index, out) }
    }

    /// Of all lanes entry `index`, each entry being a number in rows.
    pub(super) fn pick(self, table: &[Row], index: u64, out: &mut [Row]) {
        assert!(table.len().is_multiple_of(out.len()));
        // SAFETY: `self` says that the features are there.
        unsafe { pick(table, index, out) }
    }
}

fn check(m: &[Row], factors: &[&[Row]], work: &[Row]) {
    let limbs = m.len();
    assert!(limbs.is_multiple_of(BLOCK) && limbs <= MAX_LIMBS);
    assert!(factors.iter().all(|factor| factor.len() == limbs));
    assert_eq!(work.len(), 2 * limbs);
}

#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn load(row: &Row) -> __m512i {
    // SAFETY: 64 bytes, aligned to 64, borrowed.
    unsafe { _mm512_load_si512(row.0.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn store(row: &mut Row, value: __m512i) {
    // SAFETY: 64 bytes, aligned to 64, borrowed for this alone.
    unsafe { _mm512_store_si512(row.0.as_mut_ptr().cast(), value) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn block(rows: &[Row; BLOCK]) -> [__m512i; BLOCK] {
    let mut values = [_mm512_setzero_si512(); BLOCK];
    for i in 0..BLOCK {
        values[i] = load(&rows[i]);
    }
    values
}

/// acc ← a·b, not normalised.
#[target_feature(enable = "avx512f,avx512ifma")]
fn product(a: &[Row], b: &[Row], acc: &mut [Row]) {
    acc.fill(Row::default());
    for (i, b) in b.as_chunks().0.iter().enumerate() {
        add_product(&mut acc[i * BLOCK..][..a.len() + BLOCK], a, &block(b));
    }
}

/// acc ← a², not normalised: what is off the diagonal of blocks is computed once and doubled.
#[target_feature(enable = "avx512f,avx512ifma")]
fn square(a: &[Row], acc: &mut [Row]) {
    acc.fill(Row::default());
    let blocks = a.as_chunks::<BLOCK>().0;
    for (i, b) in blocks.iter().enumerate() {
        let rest = &a[(i + 1) * BLOCK..];
        let start = (2 * i + 1) * BLOCK;
        add_product(&mut acc[start..][..rest.len() + BLOCK], rest, &block(b));
    }
    for column in acc.iter_mut() {
        store(column, _mm512_slli_epi64::<1>(load(column)));
    }
    for (acc, b) in acc.chunks_exact_mut(2 * BLOCK).zip(blocks) {
        add_product(acc, b, &block(b));
    }
}

/// Montgomery's reduction by blocks: the upper half of `acc` becomes acc/R mod m, not normalised.
///
/// No accumulator overflows, before or here: a column gets at most 4 numbers of 52 bits per limb
/// and carries of less than 2^12, and [`MAX_LIMBS`] is below 2^9.
#[target_feature(enable = "avx512f,avx512ifma")]
fn reduce(acc: &mut [Row], m: &[Row], inverse: u64) {
    let mut q = quotient(acc, m, inverse);
    // What the next quotient waits for comes first, so that its latency is hidden by the rest.
    let (first, rest) = m.split_at(m.len().min(2 * BLOCK));
    for i in 0..m.len() / BLOCK {
        let acc = &mut acc[i * BLOCK..][..m.len() + BLOCK];
        add_product(&mut acc[..first.len() + BLOCK], first, &q);
        let mut carry = _mm512_setzero_si512();
        for row in &mut acc[..BLOCK] {
            carry = _mm512_srli_epi64::<LIMB_BITS>(_mm512_add_epi64(load(row), carry));
        }
        let sum = _mm512_add_epi64(load(&acc[BLOCK]), carry);
        store(&mut acc[BLOCK], sum);
        // One too many at the end.
        let next = quotient(&acc[BLOCK..], m, inverse);
        add_product(&mut acc[first.len()..], rest, &q);
        q = next;
    }
}

/// The multiple of m that makes the lowest block of limbs 0.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn quotient(acc: &[Row], m: &[Row], inverse: u64) -> [__m512i; BLOCK] {
    let zero = _mm512_setzero_si512();
    let inverse = _mm512_set1_epi64(inverse as i64);
    let mut q = [zero; BLOCK];
    let (Some(low), Some(m)) = (acc.first_chunk(), m.first_chunk()) else {
        return q;
    };
    let (mut low, m) = (block(low), block(m));
    for r in 0..BLOCK {
        q[r] = _mm512_madd52lo_epu64(zero, low[r], inverse);
        for k in r..BLOCK {
            low[k] = _mm512_madd52lo_epu64(low[k], m[k - r], q[r]);
        }
        for k in r + 1..BLOCK {
            low[k] = _mm512_madd52hi_epu64(low[k], m[k - r - 1], q[r]);
        }
        if r + 1 < BLOCK {
            low[r + 1] = _mm512_add_epi64(low[r + 1], _mm512_srli_epi64::<LIMB_BITS>(low[r]));
        }
    }
    q
}

/// acc += x·y.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn add_product(acc: &mut [Row], x: &[Row], y: &[__m512i; BLOCK]) {
    let zero = _mm512_setzero_si512();
    // Places of a ring: at limb j of x, place (j + r) % BLOCK has what goes to column j + r from
    // low halves, and to column j + r + 1 from high halves.
    let (mut low, mut high) = ([zero; BLOCK], [zero; BLOCK]);
    let (columns, rest) = acc.split_at_mut(x.len());
    let columns = columns.as_chunks_mut::<BLOCK>().0.iter_mut();
    for (columns, x) in columns.zip(x.as_chunks::<BLOCK>().0) {
        for j in 0..BLOCK {
            let x = load(&x[j]);
            for (r, &y) in y.iter().enumerate() {
                let place = (j + r) % BLOCK;
                low[place] = _mm512_madd52lo_epu64(low[place], x, y);
                high[place] = _mm512_madd52hi_epu64(high[place], x, y);
            }
            let sum = _mm512_add_epi64(load(&columns[j]), low[j]);
            store(&mut columns[j], sum);
            let next = (j + 1) % BLOCK;
            (low[j], low[next]) = (zero, _mm512_add_epi64(low[next], high[j]));
            high[j] = zero;
        }
    }
    let mut before = zero;
    for (r, column) in rest.iter_mut().take(BLOCK).enumerate() {
        let sum = _mm512_add_epi64(low[r], before);
        store(column, _mm512_add_epi64(load(column), sum));
        before = high[r];
    }
}

/// Carries from limb to limb, so that each has 52 bits.
#[target_feature(enable = "avx512f,avx512ifma")]
fn normalise(columns: &[Row], out: &mut [Row]) {
    let mask = _mm512_set1_epi64(LIMB_MASK as i64);
    let mut carry = _mm512_setzero_si512();
    for (column, out) in columns.iter().zip(out) {
        let sum = _mm512_add_epi64(load(column), carry);
        store(out, _mm512_and_si512(sum, mask));
        carry = _mm512_srli_epi64::<LIMB_BITS>(sum);
    }
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn select(table: &[Row], rows: usize, index: &Row, out: &mut [Row]) {
    let index = load(index);
    let pair = _mm512_srli_epi64::<4>(index);
    for (out, entries) in out.iter_mut().zip(table.chunks_exact(rows)) {
        let mut value = _mm512_setzero_si512();
        for (i, [low, high]) in entries.as_chunks().0.iter().enumerate() {
            let here = _mm512_cmpeq_epi64_mask(pair, _mm512_set1_epi64(i as i64));
            // By the low four bits of the index.
            let entry = _mm512_permutex2var_epi64(load(low), index, load(high));
            value = _mm512_mask_mov_epi64(value, here, entry);
        }
        store(out, value);
    }
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn pick(table: &[Row], index: u64, out: &mut [Row]) {
    let index = _mm512_set1_epi64(index as i64);
    out.fill(Row::default());
    for (i, entry) in table.chunks_exact(out.len()).enumerate() {
        let here: __mmask8 = _mm512_cmpeq_epi64_mask(index, _mm512_set1_epi64(i as i64));
        for (out, row) in out.iter_mut().zip(entry) {
            let value = _mm512_mask_mov_epi64(load(out), here, load(row));
            store(out, value);
        }
    }
}
