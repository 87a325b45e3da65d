// SPDX-License-Identifier: MPL-2.0
//! What splitter and joiner must agree on: the order of coefficients, contexts and predictions.

use super::entropy::{Contexts, Decoder, Encoder, HOLE, Vector, fold, unfold};
use super::picture::Tiles;
use super::transform::{self, Group, LANES, Lanes, Numbers};
use super::{Error, Geometry, simd};
use crate::watermark::{Class, Settings};

/// Contexts of coefficients: by the block above, by this one, by neighbours; for the first one.
const LEVELS: u8 = ACTIVITIES + 2 + 11 + ACTIVITIES;
/// Luma's coefficients.
const LUMA: u8 = 0;
/// Chroma's.
const CHROMA: u8 = LEVELS;
/// Means of luma blocks, by how uneven those above are; those of chroma blocks follow.
pub(super) const MEAN: u8 = 2 * LEVELS;
/// Contexts of means.
pub(super) const MEANS: u8 = 4;
/// Samples outside of whole blocks.
pub(super) const EDGE: u8 = MEAN + 2 * MEANS;
/// Whether a block of luma is sent, by what is known of others; of chroma follow.
const SENT: u8 = EDGE + 1;
/// Contexts of a plane: by one block, and by three.
const SENTS: u8 = 2 * 3;
/// How a block is sent: see [`IS_WIDE`].
pub(super) const FLAG: u8 = SENT + 2 * SENTS;
/// How far luma's coefficients reach; chroma's follow.
pub(super) const EXTENT: u8 = FLAG + 1;
const _: () = assert!(EXTENT + 2 <= HOLE);

/// A block has wide candidates, or …
pub(super) const IS_WIDE: u16 = 1;
/// … all its coefficients are exact.
pub(super) const IS_EXACT: u16 = 2;

/// First byte of a rest: the form's number, and …
pub(super) const FORM: u8 = 0x20;
/// … all blocks are there, …
pub(super) const WHOLE: u8 = 1;
/// … or none has changed.
pub(super) const SAME: u8 = 2;

/// Least value of a narrow candidate, and one more than the greatest.
pub(super) const NARROWS: std::ops::Range<i32> =
    -(1 << (super::NARROW - 1))..1 << (super::NARROW - 1);

/// What is known of earlier pictures, by plane; the same on both sides.
pub(super) struct Past {
    /// Means of the blocks.
    pub means: Vec<Vec<i16>>,
    /// How busy they were when they were sent last.
    pub activity: Vec<Vec<u8>>,
    /// How far they reached then.
    pub extents: Vec<Vec<u8>>,
    /// Which blocks and cells were sent of the last picture that was not the same.
    pub sent: Vec<Vec<bool>>,
}

impl Past {
    /// Nothing, for pictures of this geometry.
    pub fn new(geometry: Geometry) -> Self {
        let tiles = || (0..geometry.planes()).map(|i| geometry.tiles(i));
        let all = |of| tiles().map(|tiles| vec![of; tiles.blocks()]).collect();
        Self {
            means: tiles().map(|tiles| vec![0; tiles.blocks()]).collect(),
            activity: all(UNKNOWN),
            extents: all(FAR),
            sent: tiles().map(|tiles| vec![true; tiles.all()]).collect(),
        }
    }

    /// As new.
    pub fn forget(&mut self) {
        self.means.iter_mut().for_each(|plane| plane.fill(0));
        self.activity
            .iter_mut()
            .for_each(|plane| plane.fill(UNKNOWN));
        self.extents.iter_mut().for_each(|plane| plane.fill(FAR));
        self.sent.iter_mut().for_each(|plane| plane.fill(true));
    }
}

/// Different classes, not too many, and no mean among them: predictions are made from means.
pub(super) fn check(settings: &Settings) -> Result<(), Error> {
    let mut seen = [false; 64];
    for class in &settings.classes {
        if class.index() == 0 || std::mem::replace(&mut seen[class.index()], true) {
            return Err(Error::Classes);
        }
    }
    match (1..=settings.classes.len()).contains(&settings.each()) {
        true => Ok(()),
        false => Err(Error::Classes),
    }
}

/// Luma's order and chroma's.
pub(super) fn orders(settings: &Settings) -> [Order; 2] {
    let always = match settings.each() == settings.classes.len() {
        true => &settings.classes[..],
        false => &[],
    };
    [Order::new(always), Order::new(&[])]
}

/// The numbers of blocks, from those that reach farthest to those that do not reach at all; equal
/// ones in their order.
pub(super) fn farthest_first(extents: &[u8], blocks: &[u32]) -> Vec<u32> {
    let nearness = |block: &u32| usize::from(FAR - extents[*block as usize].min(FAR));
    let mut next = [0; EXTENTS.len() + 1];
    for block in blocks {
        next[nearness(block) + 1] += 1;
    }
    for i in 1..next.len() {
        next[i] += next[i - 1];
    }
    let mut numbers = vec![0; blocks.len()];
    for (i, block) in (0..).zip(blocks) {
        let next = &mut next[nearness(block)];
        numbers[*next] = i;
        *next += 1;
    }
    numbers
}

/// Up to as many blocks as there is room for, given their numbers.
#[inline(always)]
pub(super) fn pick<'a>(blocks: &[u32], numbers: &[u32], picked: &'a mut [u32]) -> &'a [u32] {
    for (picked, &i) in picked.iter_mut().zip(numbers) {
        *picked = blocks[i as usize];
    }
    &picked[..numbers.len()]
}

/// Which of sixteen blocks reach less far than each extent.
fn short(extents: &[u8], blocks: &[u32]) -> [u16; EXTENTS.len()] {
    let mut short = [0; EXTENTS.len()];
    for (lane, &block) in blocks.iter().enumerate() {
        for (short, extent) in short.iter_mut().zip(0..) {
            *short |= u16::from(extents[block as usize] < extent) << lane;
        }
    }
    short
}

/// The coefficients of a plane's blocks in the order in which they are coded, from high to low
/// frequencies, without the mean.
pub(super) struct Order {
    /// Their numbers, and from which extent on they are coded.
    at: Vec<(u8, u8)>,
}

impl Order {
    /// Without coefficients that are candidates in every block.
    pub(super) fn new(always: &[Class]) -> Self {
        let mut at: Vec<u8> = (1..64)
            .filter(|&i| !always.iter().any(|class| class.index() == usize::from(i)))
            .collect();
        at.sort_by_key(|&i| std::cmp::Reverse((i / 8 + i % 8, i)));
        Self {
            at: at.into_iter().map(|at| (at, extent_of(at))).collect(),
        }
    }
}

/// Sums of both frequencies up to which blocks of each extent have coefficients that are not 0.
const EXTENTS: [u8; 8] = [0, 1, 2, 3, 4, 6, 9, 14];

/// The least extent that has a coefficient.
fn extent_of(at: u8) -> u8 {
    EXTENTS.partition_point(|&sum| sum < at / 8 + at % 8) as u8
}

/// The extents of a group of blocks.
#[inline(always)]
pub(super) fn extents(group: &Group) -> Extents {
    let mut extents = [0; LANES];
    for (at, values) in (0..64).zip(group).skip(1) {
        let extent = extent_of(at);
        for (extents, value) in extents.iter_mut().zip(values.0) {
            *extents = (*extents).max(if value == 0 { 0 } else { extent });
        }
    }
    extents
}

/// How far coefficients of sixteen blocks reach: see [`EXTENTS`].
pub(super) type Extents = [u8; LANES];
/// Extent of blocks that were never coded.
pub(super) const FAR: u8 = EXTENTS.len() as u8 - 1;

/// What an extent is like.
pub(super) fn extent(extents: &[u8], tiles: &Tiles, block: usize) -> u8 {
    let (x, y) = tiles.place(block);
    let left = x.checked_sub(1).map(|_| extents[block - 1]);
    let above = y.checked_sub(1).map(|_| extents[block - tiles.columns]);
    match (left, above) {
        (Some(left), Some(above)) => (left + above).div_ceil(2),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => FAR,
    }
}

/// Which blocks of a group have a candidate in place of each coefficient, a bit a block.
pub(super) type Taken = [u16; 64];

/// How busy sixteen blocks are: see [`BUSY`].
pub(super) type Activity = [u8; LANES];
/// Activities there are: hardly anything, something, and much in the coefficients of the rest.
const ACTIVITIES: u8 = 3;
/// Sum of amounts from which on a block is of the second and third activity.
const BUSY: [i16; 2] = [3, 24];
/// Activity of blocks that were never coded.
pub(super) const UNKNOWN: u8 = 1;

/// Amounts of the coefficients that were coded, with a margin of zeros.
struct Around<L> {
    amounts: [L; 100],
    total: L,
    /// Coefficients that were coded.
    count: i16,
    above: L,
}

impl<L: Numbers> Around<L> {
    /// Of larger ones it does not matter how large: 63 of them, four times, fit.
    const MOST: u16 = 127;

    #[inline(always)]
    fn new(above: Activity) -> Self {
        Self {
            amounts: [L::all(0); 100],
            total: L::all(0),
            count: 0,
            above: Lanes(above.map(i16::from)).into(),
        }
    }

    #[inline(always)]
    fn put(&mut self, at: usize, values: Lanes) {
        let amount = |value: i16| value.unsigned_abs().min(Self::MOST) as i16;
        let amounts = L::from(Lanes(values.0.map(amount)));
        self.amounts[at / 8 * 10 + at % 8] = amounts;
        self.total = self.total.plus(amounts);
        self.count += 1;
    }

    /// Contexts at a coefficient: where its neighbours of higher frequency are not zero, by their
    /// amounts, else by all of the block so far, else by the block above.
    #[inline(always)]
    fn contexts(&self, at: usize, first: u8) -> Contexts {
        const STEPS: [i16; 10] = [2, 4, 6, 9, 13, 18, 26, 40, 64, 110];
        const SPARSE: i16 = ACTIVITIES as i16;
        let base = L::all(first.into());
        let contexts = if self.count == 0 {
            L::all((LEVELS - ACTIVITIES).into()).plus(self.above)
        } else {
            let (u, v) = (at / 8, at % 8);
            let place = u * 10 + v;
            let [a, b, c, d, e] = [10, 1, 11, 20, 2].map(|step| self.amounts[place + step]);
            let twice = |x: L| x.plus(x);
            let five = |x: L| twice(twice(x)).plus(x);
            // Weights add up to 8 where all of them are inside.
            let sum = match (u, v) {
                (7, 6) => twice(twice(twice(b))),
                (6, 7) => twice(twice(twice(a))),
                (7, _) => five(b).plus(twice(e)).plus(e),
                (_, 7) => five(a).plus(twice(d)).plus(d),
                _ => twice(a.plus(b).plus(c)).plus(d).plus(e),
            };
            let mut level = L::all(SPARSE + 2);
            for step in STEPS {
                level = level.minus(sum.greater(L::all(step - 1)));
            }
            let full = twice(twice(self.total)).greater(L::all(self.count - 1));
            let quiet = self.total.greater(L::all(0));
            let quiet = quiet.choose(L::all(SPARSE).minus(full), self.above);
            sum.greater(L::all(0)).choose(level, quiet)
        };
        let contexts: Lanes = contexts.plus(base).into();
        contexts.0.map(|context| context as u8)
    }

    #[inline(always)]
    fn activity(&self) -> Activity {
        let least = |amount: i16| self.total.greater(L::all(amount - 1));
        let activity: Lanes = L::all(0).minus(least(BUSY[0])).minus(least(BUSY[1])).into();
        activity.0.map(|activity| activity as u8)
    }
}

/// What is known of sixteen blocks before their coefficients.
#[derive(Clone, Copy)]
pub(super) struct Known {
    /// How many of them are there.
    count: usize,
    /// First context of coefficients.
    first: u8,
    /// How busy the blocks above are.
    above: Activity,
    /// Which of them do not reach to coefficients from an extent on, a bit a block.
    short: [u16; EXTENTS.len()],
    /// Where they have candidates.
    taken: Taken,
}

impl Known {
    /// Of the first sixteen of up to 32 blocks, and of the others.
    pub(super) fn of_two(
        plane: usize,
        tiles: &Tiles,
        blocks: &[u32],
        past: &Past,
        carriers: &Carriers,
    ) -> [Self; 2] {
        let (first, second) = blocks.split_at(blocks.len().min(LANES));
        [first, second].map(|blocks| Self::of(plane, tiles, blocks, past, carriers))
    }

    /// Of up to sixteen blocks of a plane; of their own activity nothing is known yet.
    fn of(plane: usize, tiles: &Tiles, blocks: &[u32], past: &Past, carriers: &Carriers) -> Self {
        Self {
            count: blocks.len(),
            first: if plane == 0 { LUMA } else { CHROMA },
            above: above(&past.activity[plane], tiles, blocks),
            short: short(&past.extents[plane], blocks),
            taken: carriers.taken(plane, blocks),
        }
    }

    /// A bit for each block that is there.
    #[inline(always)]
    fn all(&self) -> u16 {
        ((1u32 << self.count) - 1) as u16
    }

    /// Whether no block has a coefficient.
    #[inline(always)]
    pub(super) fn empty(&self) -> bool {
        self.short[1] == self.all()
    }

    /// The blocks that have no number for a coefficient, a bit a block; `None` if none has one.
    #[inline(always)]
    fn holes(&self, at: usize, extent: u8) -> Option<u16> {
        let holes = self.taken[at] | self.short[usize::from(extent) % EXTENTS.len()];
        (holes & self.all() != self.all()).then_some(holes)
    }
}

#[inline(always)]
fn dig(contexts: &mut Contexts, holes: u16) {
    if holes != 0 {
        for (i, context) in contexts.iter_mut().enumerate() {
            let hole = ((holes >> i & 1) as u8).wrapping_neg();
            *context = HOLE & hole | *context & !hole;
        }
    }
}

/// Writes the coefficients of two groups in turns; those that are not sent have to be 0. Returns how
/// busy the blocks are.
#[inline(always)]
pub(super) fn encode<L: Numbers>(
    encoder: &mut Encoder,
    [first, second]: &[Group; 2],
    order: &Order,
    known: &[Known; 2],
) -> [Activity; 2] {
    if known.iter().all(Known::empty) {
        return [[0; LANES]; 2];
    }
    let [mut a, mut b] = known.each_ref().map(|known| Around::<L>::new(known.above));
    for &(at, extent) in &order.at {
        let at = usize::from(at) % 64;
        write(encoder, first, &mut a, &known[0], (at, extent));
        write(encoder, second, &mut b, &known[1], (at, extent));
    }
    [a.activity(), b.activity()]
}

/// Writes a coefficient of a group.
#[inline(always)]
fn write<L: Numbers>(
    encoder: &mut Encoder,
    group: &Group,
    around: &mut Around<L>,
    known: &Known,
    (at, extent): (usize, u8),
) {
    let Some(holes) = known.holes(at, extent) else {
        return;
    };
    let mut contexts = around.contexts(at, known.first);
    dig(&mut contexts, holes);
    encoder.vector(&contexts, &group[at].0.map(fold), known.count);
    around.put(at, group[at]);
}

/// Reads them, with `WIDE` by AVX-512.
#[inline(always)]
pub(super) fn decode<const WIDE: bool, L: Numbers>(
    decoder: &mut Decoder,
    [first, second]: &mut [Group; 2],
    order: &Order,
    known: &[Known; 2],
) -> Result<[Activity; 2], Error> {
    if known.iter().all(Known::empty) {
        return Ok([[0; LANES]; 2]);
    }
    let [mut a, mut b] = known.each_ref().map(|known| Around::<L>::new(known.above));
    for &(at, extent) in &order.at {
        let at = usize::from(at) % 64;
        read::<WIDE, L>(decoder, first, &mut a, &known[0], (at, extent))?;
        read::<WIDE, L>(decoder, second, &mut b, &known[1], (at, extent))?;
    }
    Ok([a.activity(), b.activity()])
}

/// Reads a coefficient of a group.
#[inline(always)]
fn read<const WIDE: bool, L: Numbers>(
    decoder: &mut Decoder,
    group: &mut Group,
    around: &mut Around<L>,
    known: &Known,
    (at, extent): (usize, u8),
) -> Result<(), Error> {
    let Some(holes) = known.holes(at, extent) else {
        return Ok(());
    };
    let mut contexts = around.contexts(at, known.first);
    dig(&mut contexts, holes);
    let numbers = decoder.vector::<WIDE>(&contexts, known.count)?;
    let values = Lanes(numbers.map(unfold));
    group[at] = values;
    around.put(at, values);
    Ok(())
}

/// How busy the blocks above these are.
fn above(activity: &[u8], tiles: &Tiles, blocks: &[u32]) -> Activity {
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
    let (x, y) = tiles.place(block);
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

/// Codes which blocks and cells of the next plane are sent; `code` writes or reads up to sixteen of
/// them from one on. A block is like the three above, and like what `others` say: for luma's blocks
/// itself in the picture before (`was`), for chroma's the same place of the plane before.
pub(super) fn sent(
    tiles: &[Tiles],
    others: &[Vec<bool>],
    was: &[bool],
    mut code: impl FnMut(&Contexts, usize, usize) -> Result<Vector, Error>,
) -> Result<Vec<bool>, Error> {
    let plane = others.len();
    let own = &tiles[plane];
    let other = |i: usize| match others.last() {
        None => was[i],
        Some(_) if i >= own.blocks() => true,
        Some(other) => {
            let tiles = &tiles[plane - 1];
            let scale = |wide: usize, own: usize| 1 + usize::from(wide > own);
            let [sx, sy] = [
                scale(tiles.width, own.width),
                scale(tiles.height, own.height),
            ];
            let (x, y) = own.place(i);
            let (x, y) = (x * sx, y * sy);
            let mut around = (y..y + sy).flat_map(|y| (x..x + sx).map(move |x| (x, y)));
            around.any(|(x, y)| x < tiles.columns && y < tiles.rows && other[y * tiles.columns + x])
        }
    };
    let mut sent = vec![false; own.all()];
    for first in (0..own.all()).step_by(LANES) {
        let count = LANES.min(own.all() - first);
        let mut contexts = [SENT + if plane == 0 { 0 } else { SENTS }; LANES];
        for (context, i) in contexts.iter_mut().zip(first..first + count) {
            let above = match i < own.blocks() {
                true => i.checked_sub(own.columns),
                false => None,
            };
            let three = above.map_or(0, |above| {
                let (x, _) = own.place(above);
                u8::from(sent[above])
                    + u8::from(x > 0 && sent[above - 1])
                    + u8::from(x + 1 < own.columns && sent[above + 1])
            });
            *context += 3 * u8::from(other(i)) + three.div_ceil(2);
        }
        let numbers = code(&contexts, first, count)?;
        for (sent, number) in sent[first..].iter_mut().zip(&numbers[..count]) {
            *sent = *number > 0;
        }
    }
    Ok(sent)
}

/// How uneven the means above a block are, which tells how far its own may be from what it is like.
pub(super) fn uneven(means: &[i16], tiles: &Tiles, block: usize) -> u8 {
    let columns = tiles.columns;
    let (x, y) = tiles.place(block);
    if y == 0 {
        return MEANS - 1;
    }
    let above = block - columns;
    let left = means[above - usize::from(x > 0)];
    let right = means[above + usize::from(x + 1 < columns)];
    let spread = left.wrapping_sub(means[above]).unsigned_abs();
    let spread = spread.max(right.wrapping_sub(means[above]).unsigned_abs());
    [8, 32, 128].partition_point(|&step| step <= spread) as u8
}

/// What the lowest frequencies of sixteen blocks are like.
pub(super) type Surface = [Lanes; SMOOTH.len()];
/// Which these are.
pub(super) const SMOOTH: [usize; 5] = [1, 8, 9, 2, 16];

/// What the five lowest frequencies of a plane's blocks are like, sixteen by sixteen.
pub(super) fn surfaces(means: &[i16], tiles: &Tiles, blocks: &[u32], out: &mut Vec<Surface>) {
    out.clear();
    let groups = blocks.chunks(LANES);
    out.extend(groups.map(|blocks| simd::smooth(&around(means, tiles, blocks))));
}

/// The means of sixteen blocks and their eight neighbours, row by row; at the border those of the
/// nearest block.
fn around(means: &[i16], tiles: &Tiles, blocks: &[u32]) -> [Lanes; 9] {
    let mut around = [Lanes([0; LANES]); 9];
    let (columns, rows) = (tiles.columns, tiles.rows);
    let Some(&first) = blocks.first() else {
        return around;
    };
    let (x, y) = tiles.place(first as usize);
    let row = blocks.len() == LANES && blocks[LANES - 1] - first == LANES as u32 - 1;
    if row && x > 0 && y > 0 && x + LANES < columns && y + 1 < rows {
        for (i, around) in around.iter_mut().enumerate() {
            let at = (y + i / 3 - 1) * columns + x + i % 3 - 1;
            around.0.copy_from_slice(&means[at..at + LANES]);
        }
        return around;
    }
    for (lane, &block) in blocks.iter().enumerate().take(LANES) {
        let (x, y) = tiles.place(block as usize);
        let xs = [x.saturating_sub(1), x, (x + 1).min(columns - 1)];
        let ys = [y.saturating_sub(1), y, (y + 1).min(rows - 1)];
        for (i, around) in around.iter_mut().enumerate() {
            around.0[lane] = means[ys[i / 3] * columns + xs[i % 3]];
        }
    }
    around
}

/// The smooth surface through the means of blocks and their neighbours (ITU-T T.81 Annex K.8): each
/// of its frequencies is within ±512.
#[inline(always)]
pub(super) fn smooth(means: &[Lanes; 9]) -> Surface {
    let mut surface = [Lanes([0; LANES]); SMOOTH.len()];
    for lane in 0..LANES {
        let at = |i: usize, j: usize| i32::from(means[3 * i + j].0[lane]);
        let sums = [
            36 * (at(1, 0) - at(1, 2)),
            36 * (at(0, 1) - at(2, 1)),
            5 * (at(0, 0) - at(0, 2) - at(2, 0) + at(2, 2)),
            9 * (at(1, 0) + at(1, 2) - 2 * at(1, 1)),
            9 * (at(0, 1) + at(2, 1) - 2 * at(1, 1)),
        ];
        for (like, sum) in surface.iter_mut().zip(sums) {
            like.0[lane] = ((sum + 128) >> 8).clamp(-512, 512) as i16;
        }
    }
    surface
}

/// Which coefficients of luma's blocks are candidates.
pub(super) struct Carriers {
    each: usize,
    /// Their numbers, block after block.
    at: Vec<u8>,
}

impl Carriers {
    pub(super) fn new(settings: &Settings, geometry: Geometry) -> Self {
        let tiles = geometry.tiles(0);
        let of = |block| {
            let (x, y) = tiles.place(block);
            settings.carriers(x, y).map(|class| class.index() as u8)
        };
        Self {
            each: settings.each(),
            at: (0..tiles.blocks()).flat_map(of).collect(),
        }
    }

    /// A block's.
    #[inline(always)]
    pub(super) fn of(&self, block: u32) -> impl ExactSizeIterator<Item = usize> {
        let first = block as usize * self.each;
        let own = &self.at[first..first + self.each];
        own.iter().map(|at| usize::from(*at) % 64)
    }

    /// Those of sixteen blocks of a plane: chroma has none.
    pub(super) fn taken(&self, plane: usize, blocks: &[u32]) -> Taken {
        let mut taken = [0; 64];
        if plane > 0 {
            return taken;
        }
        for (lane, &block) in blocks.iter().enumerate().take(LANES) {
            for at in self.of(block) {
                taken[at] |= 1 << lane;
            }
        }
        taken
    }
}

/// Coefficients to multiples of a step and back; the step is odd, so that nothing is off by more
/// than `loss`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quantiser {
    pub loss: i16,
    pub step: i16,
    /// 2^20/step, rounded up: exact for amounts below 2^12 · 2^8/step.
    reciprocal: u32,
}

impl Quantiser {
    /// `loss` is at most [`super::MOST_LOSS`].
    pub(super) fn new(loss: u8) -> Self {
        let step = 2 * i16::from(loss) + 1;
        Self {
            loss: loss.into(),
            step,
            reciprocal: (1u32 << 20).div_ceil(step as u32),
        }
    }

    /// In steps. Coefficients of 8-bit samples are below 2^12.
    #[inline(always)]
    pub(super) fn steps(self, value: i16) -> i16 {
        let amount = u32::from(value.unsigned_abs().min(0xfff)) + self.loss as u32;
        let steps = ((amount * self.reciprocal) >> 20) as i16;
        let sign = value >> 15;
        (steps ^ sign) - sign
    }

    /// Bits of what a mean is off.
    pub(super) fn mean_bits(self) -> u32 {
        16 - (2 * self.loss).leading_zeros()
    }
}

/// Takes sixteen blocks to what is left of them with a loss, and `numbers`, by which their coefficients
/// differ from predictions (0 where they are candidates), to steps. Returns the blocks whose samples
/// would leave 0..=255, a bit a block: they and their numbers stay as they are.
#[inline(always)]
pub(super) fn seal<L: Numbers>(group: &mut Group, numbers: &mut Group, by: Quantiser) -> u16 {
    let (mut sealed, mut steps) = (*group, *numbers);
    for (sealed, steps) in sealed.iter_mut().zip(&mut steps) {
        for (sealed, number) in sealed.0.iter_mut().zip(&mut steps.0) {
            let steps = by.steps(*number);
            *sealed += steps * by.step - *number;
            *number = steps;
        }
    }
    let mut joined = sealed;
    transform::inverse::<L>(&mut joined);
    let mut beyond = [0i16; LANES];
    for samples in &joined {
        for (beyond, sample) in beyond.iter_mut().zip(samples.0) {
            *beyond |= sample & !255;
        }
    }
    let stay = beyond.map(|beyond| -i16::from(beyond != 0));
    let choose = |now: &mut Group, then: &Group| {
        for (now, then) in now.iter_mut().zip(then) {
            for ((now, then), stay) in now.0.iter_mut().zip(then.0).zip(stay) {
                *now = *now & stay | then & !stay;
            }
        }
    };
    choose(group, &sealed);
    choose(numbers, &steps);
    stay.iter()
        .enumerate()
        .fold(0, |bits, (i, &stay)| bits | u16::from(stay != 0) << i)
}

/// Coefficients from steps, which each block has its own of.
#[inline(always)]
pub(super) fn scale(group: &mut Group, steps: &[i16; LANES]) {
    for values in group {
        for (value, step) in values.0.iter_mut().zip(steps) {
            *value = value.wrapping_mul(*step);
        }
    }
}

/// Which of sixteen blocks differ in any coefficient by more than `loss`, a bit a block.
#[inline(always)]
pub(super) fn differ(a: &Group, b: &Group, loss: i16) -> u16 {
    let mut most = [0; LANES];
    for (a, b) in a.iter().zip(b) {
        for ((most, a), b) in most.iter_mut().zip(a.0).zip(b.0) {
            *most = (*most).max((a - b).abs());
        }
    }
    let differ = most.iter().enumerate();
    differ.fold(0, |bits, (i, &most)| bits | u16::from(most > loss) << i)
}
