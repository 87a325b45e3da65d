// SPDX-License-Identifier: MPL-2.0
//! Eight numbers modulo the same m side by side, in radix 2^52 and Montgomery's form.
//!
//! With L limbs and R = 2^(52·L) the product of a and b is a·b/R mod m. L is such that R ≥ 16·m,
//! so factors below 4m give less than 2m and nothing need be subtracted in between: (4m)² + R·m ≤
//! 2·R·m. Where a number leaves, m is subtracted once, in constant time.

use super::ifma::{BLOCK, Ifma};
use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, Resize};
use zeroize::{DefaultIsZeroes, Zeroizing};

/// Numbers side by side.
pub(super) const LANES: usize = 8;

/// Bits of a limb.
pub(super) const LIMB_BITS: u32 = 52;

/// The bits of a limb.
pub(super) const LIMB_MASK: u64 = (1 << LIMB_BITS) - 1;

/// Limbs at most: those of 8192 bits, rounded up.
pub(super) const MAX_LIMBS: usize = 160;

/// Bits of a window of a secret exponent.
const WINDOW: u32 = 5;

/// One limb of eight numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub(super) struct Row(pub(super) [u64; LANES]);

impl DefaultIsZeroes for Row {}

/// Eight numbers, lowest limb first. Wiped on drop.
pub(super) type Numbers = Zeroizing<Vec<Row>>;

/// How many products are computed at a time: one by one with any processor, or eight side by side
/// with AVX-512 IFMA. Results are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engine(Option<Ifma>);

impl Engine {
    /// One by one, whatever the processor.
    pub const PORTABLE: Self = Self(None);

    /// The quickest that this processor has; [`PORTABLE`](Self::PORTABLE) if the environment has
    /// `CAMVAULT_PORTABLE=1`.
    pub fn detect() -> Self {
        match std::env::var_os("CAMVAULT_PORTABLE").is_some_and(|v| v == "1") {
            true => Self::PORTABLE,
            false => Self(Ifma::detect()),
        }
    }

    /// Whether products go side by side.
    pub fn is_parallel(self) -> bool {
        self.0.is_some()
    }

    pub(super) fn ifma(self) -> Option<Ifma> {
        self.0
    }
}

/// A modulus.
pub(super) struct Ring {
    ifma: Ifma,
    /// As words, lowest first.
    words: Zeroizing<Vec<u64>>,
    modulus: Numbers,
    /// −m^−1 mod 2^52.
    inverse: u64,
    /// R mod m.
    one: Numbers,
}

impl Ring {
    /// None if the modulus has more than [`MAX_LIMBS`].
    pub(super) fn new(ifma: Ifma, params: &BoxedMontyParams) -> Option<Self> {
        let m = params.modulus().as_ref();
        let limbs = (m.bits_precision() + 4).div_ceil(LIMB_BITS) as usize;
        let limbs = limbs.next_multiple_of(BLOCK);
        if limbs > MAX_LIMBS {
            return None;
        }
        let words = Zeroizing::new(m.as_words().to_vec());
        let low = words[0];
        // Newton's iteration: m·m ≡ 1 mod 8, and each step doubles the right bits.
        let mut inverse = low;
        for _ in 0..5 {
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(low.wrapping_mul(inverse)));
        }
        let mut ring = Self {
            ifma,
            modulus: Zeroizing::new(vec![Row::default(); limbs]),
            inverse: inverse.wrapping_neg() & LIMB_MASK,
            one: Zeroizing::new(Vec::new()),
            words,
        };
        ring.modulus = ring.read(&[&ring.words[..]; LANES], 0);
        ring.one = ring.power_of_two(params, LIMB_BITS * limbs as u32);
        Some(ring)
    }

    pub(super) fn limbs(&self) -> usize {
        self.modulus.len()
    }

    /// Bits of R.
    pub(super) fn bits(&self) -> u32 {
        LIMB_BITS * self.limbs() as u32
    }

    /// R mod m: 1 in Montgomery's form.
    pub(super) fn one(&self) -> Numbers {
        self.one.clone()
    }

    /// 2^exponent mod m in every lane, as it stands.
    pub(super) fn power_of_two(&self, params: &BoxedMontyParams, exponent: u32) -> Numbers {
        let two = BoxedUint::from(2u32).resize_unchecked(params.bits_precision());
        let two = Zeroizing::new(BoxedMontyForm::new(two, params));
        let power = Zeroizing::new(two.pow(&BoxedUint::from(exponent)));
        let power = Zeroizing::new(power.retrieve());
        self.read(&[power.as_words(); LANES], 0)
    }

    /// Cuts words into limbs, from limb `start` on; lanes that are not given are 0.
    pub(super) fn read(&self, lanes: &[&[u64]], start: usize) -> Numbers {
        let mut out = Zeroizing::new(vec![Row::default(); self.limbs()]);
        for (lane, words) in lanes.iter().enumerate() {
            let word = |i: usize| u128::from(words.get(i).copied().unwrap_or(0));
            for (i, row) in out.iter_mut().enumerate() {
                let bit = (start + i) * LIMB_BITS as usize;
                let pair = word(bit / 64) | word(bit / 64 + 1) << 64;
                row.0[lane] = (pair >> (bit % 64)) as u64 & LIMB_MASK;
            }
        }
        out
    }

    /// The number of a lane mod m, as words. It must be below 2m.
    pub(super) fn write(&self, a: &[Row], lane: usize) -> Zeroizing<BoxedUint> {
        let bits = self.words.len() as u32 * 64;
        let mut out = Zeroizing::new(BoxedUint::zero_with_precision(bits));
        // One word more than m has, as there may be one bit more.
        let mut wide = Zeroizing::new(vec![0u64; self.words.len() + 2]);
        for (i, row) in a.iter().enumerate() {
            let bit = i * LIMB_BITS as usize;
            let pair = u128::from(row.0[lane]) << (bit % 64);
            for (k, part) in [pair as u64, (pair >> 64) as u64].into_iter().enumerate() {
                // Beyond there are zeros only.
                if let Some(word) = wide.get_mut(bit / 64 + k) {
                    *word |= part;
                }
            }
        }
        let mut less = Zeroizing::new(wide.clone());
        let mut borrow = false;
        for (i, word) in less.iter_mut().enumerate() {
            let m = self.words.get(i).copied().unwrap_or(0);
            let (d, b0) = word.overflowing_sub(m);
            let (d, b1) = d.overflowing_sub(u64::from(borrow));
            *word = d;
            borrow = b0 | b1;
        }
        let keep = std::hint::black_box(u64::from(borrow).wrapping_neg());
        let words = out.as_mut_words().iter_mut();
        for ((out, wide), less) in words.zip(wide.iter()).zip(less.iter()) {
            *out = (wide & keep) | (less & !keep);
        }
        out
    }

    /// What products need besides their factors.
    pub(super) fn work(&self) -> Numbers {
        Zeroizing::new(vec![Row::default(); 2 * self.limbs()])
    }

    /// a ← a·b/R, below 2m. Factors below 4m, or any `a` with a `b` below m.
    pub(super) fn multiply(&self, a: &mut [Row], b: &[Row], work: &mut Numbers) {
        self.ifma.multiply(&self.modulus, self.inverse, a, b, work);
    }

    /// a ← a + b, without reduction.
    pub(super) fn add(&self, a: &mut [Row], b: &[Row]) {
        let mut carry = [0; LANES];
        for (a, b) in a.iter_mut().zip(b) {
            for ((a, b), carry) in a.0.iter_mut().zip(b.0).zip(&mut carry) {
                let sum = *a + b + *carry;
                *a = sum & LIMB_MASK;
                *carry = sum >> LIMB_BITS;
            }
        }
    }

    /// Of each lane the entry at its index; see [`Ifma::select`].
    pub(super) fn select(&self, table: &[Row], index: &Row, out: &mut [Row]) {
        self.ifma.select(table, index, out);
    }

    /// base^exponent in Montgomery's form, below 2m; `base` below 4m, the exponent the same in all
    /// lanes, secret, of at most `bits` bits. By fixed windows, every entry is read.
    pub(super) fn power(&self, base: &[Row], exponent: &BoxedUint, bits: u32) -> Numbers {
        let mut work = self.work();
        let limbs = self.limbs();
        let mut table = Zeroizing::new(vec![Row::default(); limbs << WINDOW]);
        table[..limbs].copy_from_slice(&self.one);
        for i in 1..1usize << WINDOW {
            let (before, entry) = table[(i - 1) * limbs..][..2 * limbs].split_at_mut(limbs);
            entry.copy_from_slice(before);
            self.multiply(entry, base, &mut work);
        }
        let words = exponent.as_words();
        let word = |i: u32| u128::from(words.get(i as usize).copied().unwrap_or(0));
        let window = |i: u32| {
            let bit = i * WINDOW;
            let pair = word(bit / 64) | word(bit / 64 + 1) << 64;
            (pair >> (bit % 64)) as u64 & ((1 << WINDOW) - 1)
        };
        let windows = bits.div_ceil(WINDOW);
        let mut entry = self.one();
        let mut power = self.one();
        for i in (0..windows).rev() {
            if i + 1 < windows {
                for _ in 0..WINDOW {
                    self.square(&mut power, &mut work);
                }
            }
            self.ifma.pick(&table, window(i), &mut entry);
            self.multiply(&mut power, &entry, &mut work);
        }
        power
    }

    /// a ← a²/R, below 2m; `a` below 4m.
    pub(super) fn square(&self, a: &mut Numbers, work: &mut Numbers) {
        self.ifma.square(&self.modulus, self.inverse, a, work);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto_bigint::{NonZero, Odd};
    use num_bigint::BigUint;
    use proptest::prelude::*;

    fn big(words: &[u64]) -> BigUint {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        BigUint::from_bytes_le(&bytes)
    }

    fn ring(words: &[u64]) -> Option<(Ring, BigUint, BoxedMontyParams)> {
        let m = BoxedUint::from_words(words.iter().copied());
        let params = BoxedMontyParams::new(Odd::new(m).into_option()?);
        Some((Ring::new(Ifma::detect()?, &params)?, big(words), params))
    }

    /// A modulus of given bits and as many random words again as eight operands want.
    fn case() -> impl Strategy<Value = (Vec<u64>, Vec<Vec<u64>>)> {
        prop::sample::select(vec![256u32, 512, 1024, 2048, 3072, 4096, 6144, 8192]).prop_flat_map(
            |bits| {
                let words = bits as usize / 64;
                let full = prop::collection::vec(any::<u64>(), words).prop_map(|mut m| {
                    m[0] |= 1;
                    *m.last_mut().unwrap() |= 1 << 63;
                    m
                });
                // All ones: the largest modulus there is.
                let modulus = prop_oneof![4 => full, 1 => Just(vec![u64::MAX; words])];
                let operand = prop::collection::vec(any::<u64>(), words + 1);
                (modulus, prop::collection::vec(operand, 2 * LANES))
            },
        )
    }

    /// Operands up to and beyond the modulus: random ones, and at their places the edges.
    fn operands(random: &[Vec<u64>], m: &BigUint) -> Vec<BigUint> {
        let one = BigUint::from(1u32);
        let mut out: Vec<_> = random.iter().map(|words| big(words) % (m * 4u32)).collect();
        let edges = [
            BigUint::ZERO,
            one.clone(),
            m - &one,
            m.clone(),
            m * 4u32 - &one,
        ];
        for (out, edge) in out.iter_mut().skip(1).zip(edges) {
            *out = edge;
        }
        out
    }

    fn lanes(ring: &Ring, numbers: &[BigUint]) -> Numbers {
        let words: Vec<_> = numbers.iter().map(|n| n.to_u64_digits()).collect();
        let words: Vec<_> = words.iter().map(|n| &n[..]).collect();
        ring.read(&words, 0)
    }

    /// Of normal limbs, without a reduction.
    fn raw(numbers: &[Row], lane: usize) -> BigUint {
        numbers.iter().rev().fold(BigUint::ZERO, |sum, row| {
            assert!(row.0[lane] <= LIMB_MASK);
            (sum << LIMB_BITS) + row.0[lane]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn products_are_montgomerys((modulus, random) in case()) {
            let Some((ring, m, _)) = ring(&modulus) else { return Ok(()) };
            let mut work = ring.work();
            let a = operands(&random[..LANES], &m);
            // The edges meet others and themselves.
            let mut b = operands(&random[LANES..], &m);
            b.rotate_left(usize::from(modulus[0] & 2 != 0));
            let mut product = lanes(&ring, &a);
            ring.multiply(&mut product, &lanes(&ring, &b), &mut work);
            let mut square = lanes(&ring, &a);
            ring.square(&mut square, &mut work);
            for lane in 0..LANES {
                let left = raw(&product, lane);
                prop_assert!(left < &m * 2u32);
                prop_assert_eq!((&left << ring.bits()) % &m, &a[lane] * &b[lane] % &m);
                prop_assert_eq!(big(ring.write(&product, lane).as_words()), &left % &m);
                let left = raw(&square, lane);
                prop_assert!(left < &m * 2u32);
                prop_assert_eq!((&left << ring.bits()) % &m, &a[lane] * &a[lane] % &m);
            }
            // A first factor beyond all moduli with a second below m.
            let all = vec![BigUint::from(1u32) << ring.bits(); LANES];
            let all: Vec<_> = all.iter().map(|n| n - 1u32).collect();
            let b: Vec<_> = b.iter().map(|b| b % &m).collect();
            let mut product = lanes(&ring, &all);
            ring.multiply(&mut product, &lanes(&ring, &b), &mut work);
            for lane in 0..LANES {
                let left = raw(&product, lane);
                prop_assert!(left < &m * 2u32);
                prop_assert_eq!((&left << ring.bits()) % &m, &all[lane] * &b[lane] % &m);
            }
        }

        #[test]
        fn entries_are_chosen_by_lane(
            random in prop::collection::vec(any::<u64>(), 64 * 10), index: [u8; 8], wide: bool,
        ) {
            let Some((ring, ..)) = ring(&[u64::MAX; 8]) else { return Ok(()) };
            let (limbs, entries) = (ring.limbs(), if wide { 64 } else { 16 });
            prop_assert_eq!(limbs, 10);
            let index = Row(index.map(|i| u64::from(i) % entries));
            let table: Vec<_> = random.as_chunks().0.iter().map(|row| Row(*row)).collect();
            let table = &table[..limbs * entries as usize / LANES];
            let mut out = vec![Row([7; LANES]); limbs];
            ring.select(table, &index, &mut out);
            for (i, row) in out.iter().enumerate() {
                for lane in 0..LANES {
                    let at = i * entries as usize + index.0[lane] as usize;
                    prop_assert_eq!(row.0[lane], random[at]);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn powers_are_powers(
            modulus: [u64; 8], random: [[u64; 9]; 8], exponent: [u64; 3], bits in 1u32..=192,
        ) {
            let mut modulus = modulus;
            modulus[0] |= 1;
            modulus[7] |= 1 << 63;
            let Some((ring, m, params)) = ring(&modulus) else { return Ok(()) };
            let mut work = ring.work();
            let exponent = big(&exponent) % (BigUint::from(1u32) << bits);
            let random: Vec<_> = random.iter().map(|words| words.to_vec()).collect();
            let bases = operands(&random, &m);
            let mut base = lanes(&ring, &bases);
            ring.multiply(&mut base, &ring.power_of_two(&params, 2 * ring.bits()), &mut work);
            let words = BoxedUint::from_words(exponent.to_u64_digits().into_iter().chain([0]));
            let mut power = ring.power(&base, &words, bits);
            ring.multiply(&mut power, &ring.read(&[&[1][..]; LANES], 0), &mut work);
            for (lane, base) in bases.iter().enumerate() {
                let expected = base.modpow(&exponent, &m);
                prop_assert_eq!(big(ring.write(&power, lane).as_words()), expected);
            }
            // And the library's.
            let b = BoxedUint::from_words(bases[0].to_u64_digits().into_iter().chain([0; 9]).take(9));
            let nz = NonZero::new(BoxedUint::from_words(modulus)).unwrap();
            let b = BoxedMontyForm::new(b.rem_vartime(&nz), &params);
            prop_assert_eq!(b.pow(&words).retrieve(), (*ring.write(&power, 0)).clone());
        }
    }

    #[test]
    fn too_long_moduli_have_no_ring() {
        assert!(ring(&[u64::MAX; 130]).is_none());
        assert!(!Engine::PORTABLE.is_parallel());
    }
}
