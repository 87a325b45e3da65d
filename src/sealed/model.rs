// SPDX-License-Identifier: MPL-2.0
//! What splitter and joiner must agree on: the order of coefficients, contexts and predictions.

use super::Error;
use super::entropy::{CONTEXTS, Contexts, Decoder, Encoder, Vector, fold, unfold};
use super::picture::Tiles;
use super::transform::{Group, LANES};
use crate::watermark::Class;

/// Contexts of coefficients: by the block above, by this one, by neighbours; for the first one.
const LEVELS: u8 = ACTIVITIES + 2 + 11 + ACTIVITIES;
/// Luma's coefficients.
pub(super) const LUMA: u8 = 0;
/// Chroma's.
pub(super) const CHROMA: u8 = LEVELS;
/// Means of luma blocks; those of chroma blocks follow.
pub(super) const MEAN: u8 = 2 * LEVELS;
/// Samples outside of whole blocks.
pub(super) const EDGE: u8 = MEAN + 2;
/// Runs of unchanged blocks; those of changed ones follow.
pub(super) const RUN: u8 = EDGE + 1;
/// Whether a block has wide candidates.
pub(super) const FLAG: u8 = RUN + 2;
const _: () = assert!((FLAG as usize) < CONTEXTS);

/// First byte of a rest: the form's number, and …
pub(super) const FORM: u8 = 0x10;
/// … all blocks are there, …
pub(super) const WHOLE: u8 = 1;
/// … or none has changed.
pub(super) const SAME: u8 = 2;

/// Least value of a narrow candidate, and one more than the greatest.
pub(super) const NARROWS: std::ops::Range<i32> =
    -(1 << (super::NARROW - 1))..1 << (super::NARROW - 1);

/// Different classes, not too many, and no mean among them: predictions are made from means.
pub(super) fn check(classes: &[Class]) -> Result<(), Error> {
    let mut seen = [false; 64];
    for class in classes {
        if class.index() == 0 || std::mem::replace(&mut seen[class.index()], true) {
            return Err(Error::Classes);
        }
    }
    match classes.is_empty() {
        true => Err(Error::Classes),
        false => Ok(()),
    }
}

/// The coefficients of the rest, from high to low frequencies, without the mean and the candidates.
pub(super) fn order(classes: &[Class]) -> Vec<u8> {
    let mut order: Vec<u8> = (1..64)
        .filter(|&i| !classes.iter().any(|class| class.index() == usize::from(i)))
        .collect();
    order.sort_by_key(|&i| std::cmp::Reverse((i / 8 + i % 8, i)));
    order
}

/// How busy sixteen blocks are: see [`BUSY`].
pub(super) type Activity = [u8; LANES];
/// Activities there are: hardly anything, something, and much in the coefficients of the rest.
const ACTIVITIES: u8 = 3;
/// Sum of amounts from which on a block is of the second and third activity.
const BUSY: [u16; 2] = [3, 24];
/// Activity of blocks that were never coded.
pub(super) const UNKNOWN: u8 = 1;

/// Amounts of the coefficients that were coded, with a margin of zeros.
struct Around {
    amounts: [Vector; 100],
    total: Vector,
    /// Coefficients that were coded.
    count: u16,
    above: Activity,
}

impl Around {
    #[inline(always)]
    fn new(above: Activity) -> Self {
        Self {
            amounts: [[0; LANES]; 100],
            total: [0; LANES],
            count: 0,
            above,
        }
    }

    #[inline(always)]
    fn put(&mut self, at: usize, values: &[i16; LANES]) {
        let amounts = &mut self.amounts[at / 8 * 10 + at % 8];
        for i in 0..LANES {
            // 63 of them fit into 16 bits.
            amounts[i] = values[i].unsigned_abs().min(1000);
            self.total[i] += amounts[i];
        }
        self.count += 1;
    }

    /// Contexts at a coefficient: where its neighbours of higher frequency are not zero, by their
    /// amounts, else by all of the block so far, else by the block above.
    #[inline(always)]
    fn contexts(&self, at: usize, first: u8) -> Contexts {
        const STEPS: [u16; 10] = [2, 4, 6, 9, 13, 18, 26, 40, 64, 110];
        let (u, v) = (at / 8, at % 8);
        let mut contexts = [0; LANES];
        if self.count == 0 {
            for (context, above) in contexts.iter_mut().zip(self.above) {
                *context = first + LEVELS - ACTIVITIES + above;
            }
            return contexts;
        }
        let place = u * 10 + v;
        let [a, b, c, d, e] = [10, 1, 11, 20, 2].map(|step| &self.amounts[place + step]);
        // They add up to 8 where all of them are inside.
        let [wa, wb, wc, wd, we] = match (u, v) {
            (7, 6) => [0, 8, 0, 0, 0],
            (6, 7) => [8, 0, 0, 0, 0],
            (7, _) => [0, 5, 0, 0, 3],
            (_, 7) => [5, 0, 0, 3, 0],
            _ => [2, 2, 2, 1, 1],
        };
        for i in 0..LANES {
            let sum = a[i] * wa + b[i] * wb + c[i] * wc + d[i] * wd + e[i] * we;
            let mut level = u16::from(ACTIVITIES) + 2;
            for step in STEPS {
                level += u16::from(sum >= step);
            }
            let sparse = u16::from(ACTIVITIES) + u16::from(self.total[i] * 4 >= self.count);
            let quiet = match self.total[i] {
                0 => u16::from(self.above[i]),
                _ => sparse,
            };
            contexts[i] = first + if sum == 0 { quiet } else { level } as u8;
        }
        contexts
    }

    #[inline(always)]
    fn activity(&self) -> Activity {
        let mut activity = [0; LANES];
        for (activity, total) in activity.iter_mut().zip(self.total) {
            *activity = u8::from(total >= BUSY[0]) + u8::from(total >= BUSY[1]);
        }
        activity
    }
}

/// Writes the coefficients in `order` of the first `count` blocks of a group. Takes how busy the
/// blocks above are, returns how busy these are.
#[inline(always)]
pub(super) fn encode(
    encoder: &mut Encoder,
    group: &Group,
    count: usize,
    order: &[u8],
    first: u8,
    above: Activity,
) -> Activity {
    let mut around = Around::new(above);
    for &at in order {
        let at = usize::from(at) % 64;
        let values = &group[at].0;
        let contexts = around.contexts(at, first);
        let mut numbers = [0; LANES];
        for i in 0..LANES {
            numbers[i] = fold(values[i]);
        }
        encoder.vector(&contexts, &numbers, count);
        around.put(at, values);
    }
    around.activity()
}

/// Reads them, with `WIDE` by AVX-512.
#[inline(always)]
pub(super) fn decode<const WIDE: bool>(
    decoder: &mut Decoder,
    group: &mut Group,
    count: usize,
    order: &[u8],
    first: u8,
    above: Activity,
) -> Result<Activity, Error> {
    let mut around = Around::new(above);
    for &at in order {
        let at = usize::from(at) % 64;
        let contexts = around.contexts(at, first);
        let numbers = decoder.vector_by::<WIDE>(&contexts, count)?;
        let values = &mut group[at].0;
        for i in 0..LANES {
            values[i] = unfold(numbers[i]);
        }
        around.put(at, values);
    }
    Ok(around.activity())
}

/// How busy the blocks above these are.
pub(super) fn above(activity: &[u8], tiles: &Tiles, blocks: &[u32]) -> Activity {
    let mut above = [UNKNOWN; LANES];
    for (above, &block) in above.iter_mut().zip(blocks) {
        if let Some(before) = (block as usize).checked_sub(tiles.columns) {
            *above = activity[before];
        }
    }
    above
}

/// What a block's mean is like, from those before it: the middle one of left, above and the plane
/// through left, above and the one between.
pub(super) fn mean(means: &[i16], tiles: &Tiles, block: usize) -> i16 {
    let columns = tiles.columns;
    let (x, y) = (block % columns, block / columns);
    match (x, y) {
        (0, 0) => 1024,
        (_, 0) => means[block - 1],
        (0, _) => means[block - columns],
        _ => {
            let [left, above, corner] = [1, columns, columns + 1].map(|back| means[block - back]);
            let (low, high) = (left.min(above), left.max(above));
            let plane = i32::from(left) + i32::from(above) - i32::from(corner);
            plane.clamp(low.into(), high.into()) as i16
        }
    }
}

/// What a block's candidates are like, from the means of it and its eight neighbours: the smooth
/// surface through them (ITU-T T.81 Annex K.8). Other classes than those five are like zero.
/// Appends one number a class, each within ±512.
pub(super) fn candidates(
    means: &[i16],
    tiles: &Tiles,
    block: usize,
    classes: &[Class],
    out: &mut [i16],
) {
    let (columns, rows) = (tiles.columns, tiles.rows);
    let (x, y) = (block % columns, block / columns);
    let xs = [x.saturating_sub(1), x, (x + 1).min(columns - 1)];
    let ys = [y.saturating_sub(1), y, (y + 1).min(rows - 1)];
    let at = |i: usize, j: usize| i32::from(means[ys[i] * columns + xs[j]]);
    for (out, class) in out.iter_mut().zip(classes) {
        let sum = match class.frequencies() {
            (0, 1) => 36 * (at(1, 0) - at(1, 2)),
            (1, 0) => 36 * (at(0, 1) - at(2, 1)),
            (1, 1) => 5 * (at(0, 0) - at(0, 2) - at(2, 0) + at(2, 2)),
            (0, 2) => 9 * (at(1, 0) + at(1, 2) - 2 * at(1, 1)),
            (2, 0) => 9 * (at(0, 1) + at(2, 1) - 2 * at(1, 1)),
            _ => 0,
        };
        *out = ((sum + 128) >> 8).clamp(-512, 512) as i16;
    }
}
