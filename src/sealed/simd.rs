// SPDX-License-Identifier: MPL-2.0
//! The inner loops compiled once more for AVX2, and taken where the processor has it. Same integers
//! on all.

use super::Error;
use super::entropy::{Decoder, Encoder};
use super::model::{self, Activity};
use super::picture::Tiles;
use super::transform::{self, Group};

macro_rules! fastest {
    ($(#[$doc:meta])* $module:ident::$name:ident($($value:ident: $type:ty),*) $(-> $out:ty)?) => {
        $(#[$doc])*
        pub(super) fn $name($($value: $type),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") {
                #[target_feature(enable = "avx2")]
                fn wide($($value: $type),*) $(-> $out)? {
                    $module::$name($($value),*)
                }
                // SAFETY: the processor has AVX2, the only thing that `wide` asks for beyond the
                // baseline.
                return unsafe { wide($($value),*) };
            }
            $module::$name($($value),*)
        }
    };
}

fastest!(
    /// Samples to coefficients.
    transform::forward(group: &mut Group)
);
fastest!(
    /// Coefficients to samples.
    transform::inverse(group: &mut Group)
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
    /// Writes a group's coefficients.
    model::encode(
        encoder: &mut Encoder,
        group: &Group,
        count: usize,
        order: &[u8],
        first: u8,
        above: Activity
    ) -> Activity
);
fastest!(
    /// Reads a group's coefficients.
    model::decode(
        decoder: &mut Decoder,
        group: &mut Group,
        count: usize,
        order: &[u8],
        first: u8,
        above: Activity
    ) -> Result<Activity, Error>
);
