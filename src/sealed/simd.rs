// SPDX-License-Identifier: MPL-2.0
//! The inner loops compiled once more for AVX2 and AVX-512, and taken where the processor has it.
//! Same integers on all.

use super::Error;
use super::entropy::{self, Contexts, Decoder, Encoder, States, Step, Vector};
use super::model::{self, Activity, Extents, Known, Order, Quantiser, Surface};
use super::picture::{self, Tiles};
use super::transform::{self, Group, LANES, Lanes, Numbers};

macro_rules! fastest {
    (
        $(#[$doc:meta])*
        $module:ident::$name:ident $(<$plain:ty, $wide:ty>)? ($($value:ident: $type:ty),*) $(-> $out:ty)?
    ) => {
        $(#[$doc])*
        pub(super) fn $name($($value: $type),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") {
                #[target_feature(enable = "avx2")]
                fn wide($($value: $type),*) $(-> $out)? {
                    $module::$name $(::<$wide>)? ($($value),*)
                }
                // SAFETY: the processor has AVX2, the only thing that `wide` asks for beyond the
                // baseline.
                return unsafe { wide($($value),*) };
            }
            $module::$name $(::<$plain>)? ($($value),*)
        }
    };
}

fastest!(
    /// Samples to coefficients.
    transform::forward<Lanes, avx2::Sixteen>(group: &mut Group)
);
fastest!(
    /// Coefficients to samples.
    transform::inverse<Lanes, avx2::Sixteen>(group: &mut Group)
);
fastest!(
    /// Where blocks differ in a row of blocks.
    picture::differences(out: &mut [u64], width: usize, now: &[u8], was: &[u8])
);
fastest!(
    /// Reads up to sixteen blocks of a plane.
    transform::load(group: &mut Group, tiles: &Tiles, samples: &[u8], blocks: &[u32])
);
fastest!(
    /// Writes up to sixteen blocks of a plane, cut off at 0 and 255.
    transform::store(group: &Group, tiles: &Tiles, samples: &mut [u8], blocks: &[u32])
);
fastest!(
    /// Writes the coefficients of two groups.
    model::encode<Lanes, avx2::Sixteen>(
        encoder: &mut Encoder,
        groups: &[Group; 2],
        order: &Order,
        known: &[Known; 2]
    ) -> [Activity; 2]
);
fastest!(
    /// The smooth surface through means.
    model::smooth(means: &[Lanes; 9]) -> Surface
);
fastest!(
    /// How far coefficients reach.
    model::extents(group: &Group) -> Extents
);
fastest!(
    /// Takes sixteen blocks to what is left of them with a loss.
    model::seal<Lanes, avx2::Sixteen>(group: &mut Group, numbers: &mut Group, by: Quantiser) -> u16
);
fastest!(
    /// Coefficients from steps.
    model::scale(group: &mut Group, steps: &[i16; LANES])
);
fastest!(
    /// Which blocks differ by more than is allowed.
    model::differ(a: &Group, b: &Group, loss: i16) -> u16
);

/// The bytes of two vectors in turn. Compilers see an instruction in that only without AVX2.
#[inline(always)]
pub(super) fn interleave(a: [u8; LANES], b: [u8; LANES]) -> [[u8; LANES]; 2] {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m128i, _mm_unpackhi_epi8, _mm_unpacklo_epi8};
        use std::mem::transmute;
        // SAFETY: all are sixteen bytes of any value, and SSE2 belongs to the architecture.
        unsafe {
            let [a, b] = [a, b].map(|bytes| transmute::<[u8; LANES], __m128i>(bytes));
            [_mm_unpacklo_epi8(a, b), _mm_unpackhi_epi8(a, b)]
                .map(|bytes| transmute::<__m128i, [u8; LANES]>(bytes))
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let both = |first| std::array::from_fn(|i| [a, b][i % 2][first + i / 2]);
        [both(0), both(LANES / 2)]
    }
}

/// Reads the coefficients of two groups.
pub(super) fn decode(
    decoder: &mut Decoder,
    groups: &mut [Group; 2],
    order: &Order,
    known: &[Known; 2],
) -> Result<[Activity; 2], Error> {
    #[cfg(target_arch = "x86_64")]
    if has_512() {
        #[target_feature(enable = "avx2,avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
        fn wide(
            decoder: &mut Decoder,
            groups: &mut [Group; 2],
            order: &Order,
            known: &[Known; 2],
        ) -> Result<[Activity; 2], Error> {
            model::decode::<true, avx2::Sixteen>(decoder, groups, order, known)
        }
        // SAFETY: the processor has what `wide` asks for.
        return unsafe { wide(decoder, groups, order, known) };
    }
    model::decode::<false, Lanes>(decoder, groups, order, known)
}

/// The next `count` numbers: see [`Decoder::vector`].
pub(super) fn vector(
    decoder: &mut Decoder,
    contexts: &Contexts,
    count: usize,
) -> Result<Vector, Error> {
    #[cfg(target_arch = "x86_64")]
    if has_512() {
        #[target_feature(enable = "avx2,avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
        fn wide(decoder: &mut Decoder, contexts: &Contexts, count: usize) -> Result<Vector, Error> {
            decoder.vector::<true>(contexts, count)
        }
        // SAFETY: the processor has what `wide` asks for.
        return unsafe { wide(decoder, contexts, count) };
    }
    decoder.vector::<false>(contexts, count)
}

/// Symbols to words: see [`entropy::states`].
pub(super) fn states(
    symbols: &[u16],
    chains: usize,
    steps: &[Step],
    words: &mut Vec<u16>,
) -> [States; 2] {
    #[cfg(target_arch = "x86_64")]
    if has_512() {
        // SAFETY: the processor has what it asks for.
        return unsafe { entropy::states_512(symbols, chains, steps, words) };
    }
    entropy::states(symbols, chains, steps, words)
}

/// Whether the processor has AVX-512 with bytes, words, 64-bit products and short vectors.
#[cfg(target_arch = "x86_64")]
fn has_512() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") && has!("popcnt")
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{LANES, Lanes, Numbers};
    use std::arch::x86_64::*;

    /// Sixteen numbers in a register. Only for functions that were compiled for AVX2, and called
    /// where the processor has it: `fastest!` sees to both.
    #[derive(Clone, Copy)]
    pub(super) struct Sixteen(__m256i);

    impl From<Lanes> for Sixteen {
        #[inline(always)]
        fn from(lanes: Lanes) -> Self {
            // SAFETY: both are sixteen numbers of 16 bits, and any bits are valid.
            Self(unsafe { std::mem::transmute::<[i16; LANES], __m256i>(lanes.0) })
        }
    }

    impl From<Sixteen> for Lanes {
        #[inline(always)]
        fn from(sixteen: Sixteen) -> Self {
            // SAFETY: as above.
            Self(unsafe { std::mem::transmute::<__m256i, [i16; LANES]>(sixteen.0) })
        }
    }

    impl Numbers for Sixteen {
        #[inline(always)]
        fn plus(self, other: Self) -> Self {
            // SAFETY: the type is used where there is AVX2.
            Self(unsafe { _mm256_add_epi16(self.0, other.0) })
        }

        #[inline(always)]
        fn minus(self, other: Self) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm256_sub_epi16(self.0, other.0) })
        }

        #[inline(always)]
        fn half(self) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm256_srai_epi16::<1>(self.0) })
        }

        #[inline(always)]
        fn times(self, by: i32) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm256_mulhrs_epi16(self.0, _mm256_set1_epi16(by as i16)) })
        }

        #[inline(always)]
        fn product<const N: usize>(matrix: &[[i32; N]; N], vector: [Self; N]) -> [Self; N] {
            let mut out = vector;
            // SAFETY: as above.
            unsafe {
                // Numbers of two vectors side by side: those of even lanes, and those of odd ones.
                let mut even = [_mm256_setzero_si256(); N];
                let mut odd = even;
                for j in 0..N / 2 {
                    let (a, b) = (vector[2 * j].0, vector[2 * j + 1].0);
                    even[j] = _mm256_blend_epi16::<0xaa>(a, _mm256_slli_epi32::<16>(b));
                    odd[j] = _mm256_blend_epi16::<0xaa>(_mm256_srli_epi32::<16>(a), b);
                }
                for (out, row) in out.iter_mut().zip(matrix) {
                    let half = _mm256_set1_epi32(1 << 14);
                    let (mut evens, mut odds) = (half, half);
                    for j in 0..N / 2 {
                        let by = row[2 * j] & 0xffff | row[2 * j + 1] << 16;
                        let by = _mm256_set1_epi32(by);
                        evens = _mm256_add_epi32(evens, _mm256_madd_epi16(even[j], by));
                        odds = _mm256_add_epi32(odds, _mm256_madd_epi16(odd[j], by));
                    }
                    // Bits 15 to 30 of each.
                    let evens = _mm256_srli_epi32::<15>(evens);
                    let odds = _mm256_slli_epi32::<1>(odds);
                    out.0 = _mm256_blend_epi16::<0xaa>(evens, odds);
                }
            }
            out
        }

        #[inline(always)]
        fn greater(self, than: Self) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm256_cmpgt_epi16(self.0, than.0) })
        }

        #[inline(always)]
        fn choose(self, first: Self, second: Self) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm256_blendv_epi8(second.0, first.0, self.0) })
        }
    }
}
