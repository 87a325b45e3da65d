// SPDX-License-Identifier: MPL-2.0
//! Where pieces end.

use std::borrow::Cow;

use fastcdc::v2020::{AVERAGE_MAX, AVERAGE_MIN, Normalization, get_gear_with_seed, select_masks};

use super::{Codec, Config, UnitMode};

/// Bytes of a content record that decide whether a piece begins with it.
const SAMPLE_BYTES: usize = 1024;

/// Automatic target of `structure`: this many access units of the size at hand, which leaves 0.5 %
/// new at the end of a recording of 30 s at 225 kbit/s (64 KiB: 3 %; whole groups: 5 %)...
const AUTO_UNITS: u64 = 3;
/// ...but at least so many bytes, because every piece costs a record of some 200 bytes...
const AUTO_MIN_BYTES: u64 = 6 * 1024;
/// ...sound less: it has no groups to begin with, so that both ends of a recording are partly new.
const AUTO_MIN_SOUND_BYTES: u64 = 3 * 1024;
/// ...and at most so many. At 4 Mbit/s and 25 units a second pieces are of 48 KiB on average, and
/// 1 % of lost packets makes 37 % new (whole groups: 100 %).
const AUTO_MAX_BYTES: u64 = 96 * 1024;
/// Automatic target of `cdc` in bytes.
const AUTO_CDC_BYTES: u32 = 1 << 20;
/// Lowest longest piece in bytes.
const MIN_MAX_BYTES: u32 = 1024;

/// The rule for one track.
#[derive(Debug)]
pub(super) struct Rule {
    /// Before which access units a piece ends.
    before: Before,
    /// After which bytes it ends.
    pub within: Within,
    /// Longest piece in bytes.
    pub max_bytes: usize,
}

#[derive(Debug)]
enum Before {
    /// Those whose content says so; with a target in bytes, or an automatic one of at least some.
    Chosen(Target),
    /// All.
    Every,
    /// Those that would make the piece too long.
    Long,
    /// None.
    Never,
}

#[derive(Debug, Clone, Copy)]
enum Target {
    Bytes(u64),
    AtLeast(u64),
}

/// What is known of the piece at whose end a record arrives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filled {
    /// Bytes in it, more than 0.
    pub len: usize,
    /// It begins inside a record.
    pub lead: bool,
    /// Length in bytes of the last record.
    pub last: usize,
}

impl Rule {
    pub fn new(codec: &Codec, config: &Config) -> Self {
        let max_bytes = config.max_bytes.max(MIN_MAX_BYTES);
        let target = (config.target_bytes > 0).then(|| config.target_bytes.min(max_bytes));
        let limit = Within::Limit(max_bytes as usize);
        let cdc = || Within::Gear(Gear::new(target.unwrap_or(AUTO_CDC_BYTES), max_bytes));
        let least = match codec.has_delta_units() {
            true => AUTO_MIN_BYTES,
            false => AUTO_MIN_SOUND_BYTES,
        };
        let chosen = Before::Chosen(match target {
            Some(target) => Target::Bytes(target.into()),
            None => Target::AtLeast(least),
        });
        let (before, within) = match (config.unit, codec) {
            (UnitMode::Structure | UnitMode::Gop, Codec::Bytes) => (Before::Never, cdc()),
            (UnitMode::Gop, codec) if codec.has_delta_units() => (Before::Long, limit),
            (UnitMode::Structure | UnitMode::Gop, _) => (chosen, limit),
            (UnitMode::Au, _) => (Before::Every, limit),
            (UnitMode::Fixed(bytes), _) => (
                Before::Never,
                Within::Limit(bytes.clamp(1, max_bytes) as usize),
            ),
            (UnitMode::Cdc, _) => (Before::Never, cdc()),
        };
        Rule {
            before,
            within,
            max_bytes: max_bytes as usize,
        }
    }

    /// Whether the piece ends before this content record. Two recorders of a stream decide alike
    /// from the first cut they have in common.
    pub fn cut_before(&self, filled: Filled, record: &[u8]) -> bool {
        let long = filled.lead || filled.len.saturating_add(record.len()) > self.max_bytes;
        match self.before {
            Before::Never => false,
            Before::Every => true,
            Before::Long => long,
            Before::Chosen(target) => long || chosen(target, filled, record),
        }
    }
}

/// A large access unit stays alone: what is lost next to it must not make it new. The others
/// begin a piece with a probability that makes pieces of the target on average, and none of less
/// than half of it.
fn chosen(target: Target, filled: Filled, record: &[u8]) -> bool {
    let len = record.len() as u64;
    let target = match target {
        Target::Bytes(target) => target,
        Target::AtLeast(least) => (AUTO_UNITS * len).clamp(least, AUTO_MAX_BYTES),
    };
    let half = target / 2;
    if len >= half || filled.last as u64 >= target {
        return true;
    }
    filled.len as u64 >= half && {
        let mut hash = blake3::Hasher::new();
        hash.update(record.get(..SAMPLE_BYTES).unwrap_or(record));
        hash.update(&len.to_le_bytes());
        let mut first = [0; 8];
        hash.finalize_xof().fill(&mut first);
        u128::from(u64::from_le_bytes(first)) * u128::from(half) < u128::from(len) << 64
    }
}

/// Cuts a stream of bytes, however it comes in.
#[derive(Debug)]
pub(super) enum Within {
    /// After so many bytes, more than 0.
    Limit(usize),
    /// Where its content says.
    Gear(Gear),
}

impl Within {
    /// How many of `bytes` still belong to a piece that has `len` bytes, and whether it ends
    /// there. Takes all of them, or ends the piece; takes some if the piece is empty.
    pub fn scan(&mut self, len: usize, bytes: &[u8]) -> (usize, bool) {
        match self {
            Within::Limit(limit) => {
                let left = limit.saturating_sub(len);
                (left.min(bytes.len()), left <= bytes.len())
            }
            Within::Gear(gear) => gear.scan(len, bytes),
        }
    }

    /// A new piece begins.
    pub fn reset(&mut self) {
        if let Within::Gear(gear) = self {
            gear.hash = 0;
        }
    }
}

/// FastCDC (2020, normalisation level 1) that keeps its state between calls, so that nothing is
/// gathered or copied for it. It cuts where `fastcdc::v2020` cuts the whole stream, but may also
/// cut before the very last byte: the crate, which looks at pairs, passes over it where it has no
/// pair, while here nobody knows yet that it is the last.
#[derive(Debug)]
pub(super) struct Gear {
    table: Cow<'static, [u64]>,
    hash: u64,
    min: usize,
    avg: usize,
    max: usize,
    strict: u64,
    loose: u64,
}

impl Gear {
    fn new(avg: u32, max: u32) -> Self {
        let avg = (avg.min(max) as usize).clamp(AVERAGE_MIN, AVERAGE_MAX);
        let (strict, loose) = select_masks(avg, Normalization::Level1);
        let max = (avg * 4).min(max as usize).max(avg);
        Gear {
            table: get_gear_with_seed(0).0,
            hash: 0,
            // Half, not a quarter: what is not looked at costs nothing.
            min: avg / 2,
            avg,
            max,
            strict,
            loose,
        }
    }

    fn scan(&mut self, len: usize, bytes: &[u8]) -> (usize, bool) {
        let mut done = self.min.saturating_sub(len).min(bytes.len());
        for (until, mask) in [(self.avg, self.strict), (self.max, self.loose)] {
            let end = until.saturating_sub(len).clamp(done, bytes.len());
            if let Some(found) = self.find(mask, &bytes[done..end]) {
                return (done + found, true);
            }
            done = end;
        }
        (done, len + done >= self.max)
    }

    /// Offset of the byte before which there is a cut.
    fn find(&mut self, mask: u64, bytes: &[u8]) -> Option<usize> {
        let Ok(table) = <&[u64; 256]>::try_from(&*self.table) else {
            return None;
        };
        let mut hash = self.hash;
        let step = |hash: u64, byte: u8| (hash << 1).wrapping_add(table[usize::from(byte)]);
        // Four bytes at once: their sums do not depend on the hash before them, which leaves one
        // shift and one addition from round to round instead of four of each.
        let (fours, rest) = bytes.as_chunks::<4>();
        let found = fours.iter().position(|four| {
            let mut sums = [0u64; 4];
            let mut sum = 0;
            for (to, byte) in sums.iter_mut().zip(four) {
                sum = step(sum, *byte);
                *to = sum;
            }
            let [a, b, c, d] = std::array::from_fn(|i| (hash << (i + 1)).wrapping_add(sums[i]));
            let cut = (a & mask == 0) | (b & mask == 0) | (c & mask == 0) | (d & mask == 0);
            if !cut {
                hash = d;
            }
            cut
        });
        let from = found.map_or(bytes.len() - rest.len(), |round| round * 4);
        let found = bytes[from..].iter().position(|&byte| {
            hash = step(hash, byte);
            hash & mask == 0
        });
        let found = found.map(|at| from + at);
        self.hash = hash;
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pieces of 100 kB of random bytes that come in such steps, and the crate's.
    fn cut(seed: u64, steps: &[usize]) -> (Vec<usize>, Vec<usize>) {
        let (mut data, mut x) = (Vec::new(), seed | 1);
        for _ in 0..20_000 {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            data.extend_from_slice(&x.to_le_bytes()[..5]);
        }
        let crates = fastcdc::v2020::FastCDC::new(&data, 512, 1024, 4096)
            .map(|chunk| chunk.length)
            .collect();
        let mut within = Within::Gear(Gear::new(1024, 1 << 20));
        let (mut ours, mut len, mut rest) = (Vec::new(), 0, &data[..]);
        for step in steps.iter().cycle() {
            let mut now = &rest[..(*step).min(rest.len())];
            rest = &rest[now.len()..];
            while !now.is_empty() {
                let (take, cut) = within.scan(len, now);
                len += take;
                now = &now[take..];
                if cut {
                    ours.push(len);
                    len = 0;
                    within.reset();
                }
            }
            if rest.is_empty() {
                break;
            }
        }
        ours.extend((len > 0).then_some(len));
        (ours, crates)
    }

    proptest! {
        #[test]
        fn gear_cuts_like_the_crate(seed: u64, steps in prop::collection::vec(1usize..3000, 1..40)) {
            let (mut ours, crates) = cut(seed, &steps);
            let odd = crates.last().is_some_and(|last| last % 2 == 1);
            if odd && ours.len() == crates.len() + 1 && ours.last() == Some(&1) {
                ours.pop();
                *ours.last_mut().unwrap() += 1;
            }
            prop_assert_eq!(ours, crates);
        }
    }

    #[test]
    fn the_last_byte_may_be_a_piece() {
        let (ours, crates) = cut(2843, &[1]);
        assert_eq!(ours[ours.len() - 2..], [2116, 1]);
        assert_eq!(crates.last(), Some(&2117));
        assert_eq!(ours[..ours.len() - 2], crates[..crates.len() - 1]);
    }
}
