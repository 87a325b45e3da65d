// SPDX-License-Identifier: MPL-2.0
//! How many marks there can be: [RTBF] Algorithm 8 for some seconds, and codes with a structure.

use gstcamvault::watermark::code::{Seeded, random_code};
use gstcamvault::watermark::{BITS, Code};
use std::time::{Duration, Instant};

pub struct Capacity {
    /// Part of the bits in which any two words differ, in percent.
    pub percent: u32,
    pub bits: u32,
    pub seconds: f64,
    /// Words by random search.
    pub random: usize,
    pub code: &'static str,
    pub code_bits: u32,
    pub identities: u32,
    /// Seconds to encode them all, from as many as were tried.
    pub code_seconds: f64,
}

pub fn run(time: Duration) -> Vec<Capacity> {
    let wanted = [
        (30, Code::Bch29, "[128,29,44]"),
        (40, Code::Concatenated16, "[128,16,52]"),
    ];
    let found = wanted.map(|(percent, code, name)| {
        let bits = (BITS as u32 * percent).div_ceil(100);
        let mut random = Seeded::new(8);
        let words = random_code(|| random.word(), bits, true, time, u64::MAX);
        let tried = code.identities().min(1 << 20);
        let begin = Instant::now();
        for identity in 0..tried {
            let _ = std::hint::black_box(code.encode(identity));
        }
        let one = begin.elapsed().as_secs_f64() / f64::from(tried);
        Capacity {
            percent,
            bits,
            seconds: time.as_secs_f64(),
            random: words.len(),
            code: name,
            code_bits: code.distance(),
            identities: code.identities(),
            code_seconds: one * f64::from(code.identities()),
        }
    });
    found.into()
}
