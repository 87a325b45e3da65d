// SPDX-License-Identifier: MPL-2.0
//! The transform compiled once more for AVX2, and taken where the processor has it. Same integers
//! on all.

use super::transform::{self, Group};

macro_rules! fastest {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub(super) fn $name(group: &mut Group) {
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") {
                #[target_feature(enable = "avx2")]
                fn wide(group: &mut Group) {
                    transform::$name(group);
                }
                // SAFETY: the processor has AVX2, the only thing that `wide` asks for beyond the
                // baseline.
                return unsafe { wide(group) };
            }
            transform::$name(group);
        }
    };
}

fastest!(
    /// Samples to coefficients.
    forward
);
fastest!(
    /// Coefficients to samples.
    inverse
);
