// SPDX-License-Identifier: MPL-2.0
//! The owner's side: pictures to rest and candidates.

use super::entropy::{Encoder, fold};
use super::model::{
    self, Carriers, EDGE, EXTENT, FLAG, FORM, IS_EXACT, IS_WIDE, Known, MEAN, MEANS, NARROWS,
    Order, Past, Quantiser, SAME, SMOOTH, Surface, WHOLE,
};
use super::picture::Tiles;
use super::transform::{Group, LANES, ZERO};
use super::{Error, Geometry, MOST_LOSS, NARROW, Picture, WIDE, simd};
use crate::watermark::{BLOCK, Layout, Settings};
use zeroize::Zeroize;

/// What a picture was split into. Entries of `positions`, `widths`, `predictions`, `values` and
/// `deltas` belong together: one a candidate that is sent, in ascending order of positions.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Split {
    /// Everything but the candidates, for [`Joiner::read`](super::Joiner::read).
    pub rest: Vec<u8>,
    /// Block (in raster order of luma's whole blocks) · [`Settings::each`] + number of the class
    /// among [`Settings::carriers`].
    pub positions: Vec<u32>,
    /// Bits of the value, [`NARROW`](super::NARROW) or [`WIDE`](super::WIDE), the sign among them:
    /// value and value + delta are within −2^(bits−1)..2^(bits−1).
    pub widths: Vec<u8>,
    /// What values are less than coefficients by: predictions that depend on the rest alone.
    pub predictions: Vec<i16>,
    /// q_0(x) of marked candidates, x of others; less a prediction that depends on the rest alone.
    pub values: Vec<i16>,
    /// q_1(x) − q_0(x) of marked candidates: half a step or minus half a step; 0 for others.
    pub deltas: Vec<i16>,
    /// x − q_0(x) of every mark, in the layout's order; [`Split::NONE`] for what carries no mark.
    /// Marks in blocks that have not changed since the picture before have the same as there.
    pub remainders: Vec<i16>,
    /// Sum of squares of what the sealed picture's luma is off the picture that was split.
    pub squares: u64,
}

impl Split {
    /// In place of the remainder of a mark that is not there: its block has no room for it, or the
    /// picture no such block.
    pub const NONE: i16 = i16::MIN;
}

/// Says how many, not what.
impl std::fmt::Debug for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (rest, sent, marks) = (self.rest.len(), self.values.len(), self.remainders.len());
        write!(
            f,
            "Split({rest} bytes of rest, {sent} candidates, {marks} marks)"
        )
    }
}

impl Drop for Split {
    fn drop(&mut self) {
        self.values.zeroize();
        self.deltas.zeroize();
        self.remainders.zeroize();
    }
}

/// A mark of the layout that is inside the picture.
struct Place {
    block: u32,
    /// Number of its class among the block's candidates.
    number: usize,
    /// Which coefficient.
    class: usize,
    /// d_0 in whole units.
    dither: i32,
    /// Its number in the layout.
    index: usize,
}

/// Splits the pictures of one stream, one after the other.
pub struct Splitter {
    geometry: Geometry,
    settings: Settings,
    carriers: Carriers,
    order: [Order; 2],
    quantiser: Quantiser,
    /// In raster order of blocks.
    places: Vec<Place>,
    step: i32,
    /// Of every mark, also those outside of the picture.
    remainders: Vec<i16>,
    previous: Option<Picture>,
    /// What was made of it, if that is not the same.
    sealed: Option<Picture>,
    past: Past,
    // What is kept for its memory.
    encoder: Encoder,
    groups: Vec<Group>,
    numbers: Vec<Group>,
    surfaces: Vec<Surface>,
}

/// Says nothing of marks and samples.
impl std::fmt::Debug for Splitter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Splitter({:?})", self.geometry)
    }
}

impl Drop for Splitter {
    fn drop(&mut self) {
        self.remainders.zeroize();
        for place in &mut self.places {
            place.dither = 0;
        }
    }
}

impl Splitter {
    /// For pictures of this geometry, candidates of the settings' classes, and marks where the
    /// layout has them. Dithers are rounded to whole units. Without a layout nothing is marked, nor
    /// is a block with more than eight marks.
    ///
    /// Fails with [`Error::Size`], [`Error::Classes`] or, if the layout's step is no multiple of 4
    /// up to 1000, [`Error::Step`].
    pub fn new(
        geometry: Geometry,
        settings: &Settings,
        layout: Option<&Layout>,
    ) -> Result<Self, Error> {
        geometry.check()?;
        model::check(settings)?;
        let mut splitter = Self {
            geometry,
            settings: settings.clone(),
            carriers: Carriers::new(settings, geometry),
            order: model::orders(settings),
            quantiser: Quantiser::new(0),
            places: Vec::new(),
            step: 4,
            remainders: Vec::new(),
            previous: None,
            sealed: None,
            past: Past::new(geometry),
            encoder: Encoder::default(),
            groups: Vec::new(),
            numbers: Vec::new(),
            surfaces: Vec::new(),
        };
        splitter.set_layout(layout)?;
        Ok(splitter)
    }

    /// With coefficients that are not candidates off by at most `loss`: what is split is no longer
    /// the picture but [`Splitter::sealed`]. Blocks in which nothing is off by more in the picture
    /// sealed before are not sent again. 0, without it: by nothing.
    ///
    /// Fails with [`Error::Loss`].
    pub fn with_loss(mut self, loss: u8) -> Result<Self, Error> {
        if loss > MOST_LOSS {
            return Err(Error::Loss(loss));
        }
        self.quantiser = Quantiser::new(loss);
        self.sealed = (loss > 0).then(|| Picture::new(self.geometry));
        Ok(self)
    }

    /// What the last picture was sealed as: what the joiner makes of its rest and the candidates
    /// without marks, bit for bit.
    pub fn sealed(&self) -> Option<&Picture> {
        self.previous
            .as_ref()
            .map(|p| self.sealed.as_ref().unwrap_or(p))
    }

    /// Other marks from now on: the next picture is sent whole. Fails with [`Error::Step`].
    pub fn set_layout(&mut self, layout: Option<&Layout>) -> Result<(), Error> {
        let step = layout.map_or(4, Layout::step);
        if !step.is_multiple_of(4) || !(4..=1000).contains(&step) {
            return Err(Error::Step(step));
        }
        self.step = step as i32;
        self.previous = None;
        self.places.clear();
        let marks = layout.map_or(&[][..], Layout::marks);
        self.remainders.zeroize();
        self.remainders.resize(marks.len(), Split::NONE);
        let tiles = self.geometry.tiles(0);
        for (index, mark) in marks.iter().enumerate() {
            let (x, y) = (usize::from(mark.x), usize::from(mark.y));
            let number = self.settings.carriers(x, y).position(|c| c == mark.class);
            if let Some(number) = number
                && x < tiles.columns
                && y < tiles.rows
            {
                self.places.push(Place {
                    block: (y * tiles.columns + x) as u32,
                    number,
                    class: mark.class.index(),
                    dither: mark.whole_dither(self.step),
                    index,
                });
            }
        }
        // One mark a candidate: of two the first.
        self.places
            .sort_by_key(|place| (place.block, place.number, place.index));
        self.places
            .dedup_by_key(|place| (place.block, place.number));
        Ok(())
    }

    /// Splits the next picture. With `whole`, or after [`Splitter::new`] and
    /// [`Splitter::set_layout`], everything is sent, else the blocks that are not the same as in
    /// the picture before.
    ///
    /// Fails with [`Error::OtherGeometry`], and then has not changed.
    pub fn split(&mut self, picture: &Picture, whole: bool) -> Result<Split, Error> {
        if picture.geometry() != self.geometry {
            return Err(Error::OtherGeometry {
                found: picture.geometry(),
                expected: self.geometry,
            });
        }
        let previous = self.previous.take().filter(|_| !whole);
        let whole = previous.is_none();
        let planes = self.geometry.planes();
        let tiles: Vec<Tiles> = (0..planes).map(|i| self.geometry.tiles(i)).collect();
        let changed: Vec<Vec<u32>> = (0..planes)
            .map(|i| {
                let was = previous.as_ref().map(|p| p.planes()[i].as_slice());
                let changed = changes(&tiles[i], &picture.planes()[i], was);
                match whole {
                    true => changed,
                    false => self.beyond_loss(i, &tiles[i], &picture.planes()[i], changed),
                }
            })
            .collect();

        if whole {
            self.past.forget();
        }
        let mut split = Split::default();
        let none = changed.iter().all(Vec::is_empty);
        let mut form = FORM;
        if whole {
            form |= WHOLE;
        }
        if none {
            form |= SAME;
        }
        split.rest.push(form);
        if !none {
            self.encoder.clear();
            if !whole {
                self.sent_numbers(&tiles, &changed);
            }
            for i in 0..planes {
                self.plane(i, &tiles[i], &picture.planes()[i], &changed[i], &mut split);
            }
            self.encoder.finish(&mut split.rest);
        }
        split.remainders = self.remainders.clone();
        if let Some(sealed) = &self.sealed {
            split.squares = squares(&sealed.planes()[0], &picture.planes()[0]);
        }
        // The memory of the one before serves again.
        self.previous = Some(match previous {
            Some(mut kept) => {
                for (i, plane) in picture.planes().iter().enumerate() {
                    kept.plane_mut(i).copy_from_slice(plane);
                }
                kept
            }
            None => picture.clone(),
        });
        Ok(split)
    }

    /// Says which blocks and cells are sent.
    fn sent_numbers(&mut self, tiles: &[Tiles], changed: &[Vec<u32>]) {
        let mut others: Vec<Vec<bool>> = Vec::with_capacity(tiles.len());
        for (plane, changed) in changed.iter().enumerate() {
            let mut now = vec![0u16; tiles[plane].all()];
            changed.iter().for_each(|&i| now[i as usize] = 1);
            let code = |contexts: &_, first: usize, count: usize| {
                let mut numbers = [0; LANES];
                numbers[..count].copy_from_slice(&now[first..first + count]);
                self.encoder.vector(contexts, &numbers, count);
                Ok(numbers)
            };
            // Writing does not fail.
            let sent = model::sent(tiles, &others, &self.past.sent[plane], code);
            others.push(sent.unwrap_or_default());
        }
        self.past.sent = others;
    }

    fn plane(
        &mut self,
        plane: usize,
        tiles: &Tiles,
        samples: &[u8],
        changed: &[u32],
        split: &mut Split,
    ) {
        let whole = changed.partition_point(|&i| (i as usize) < tiles.blocks());
        let (blocks, cells) = changed.split_at(whole);
        edges(&mut self.encoder, tiles, samples, cells);
        self.groups.clear();
        for blocks in blocks.chunks(LANES) {
            let mut group = ZERO;
            simd::load(&mut group, tiles, samples, blocks);
            simd::forward(&mut group);
            self.groups.push(group);
        }
        self.mean_numbers(plane, tiles, blocks);
        let means = &self.past.means[plane];
        model::surfaces(means, tiles, blocks, &mut self.surfaces);
        let exact = self.quantise(plane, blocks);
        if let Some(sealed) = &mut self.sealed {
            let sealed = sealed.plane_mut(plane);
            for (group, blocks) in self.groups.iter().zip(blocks.chunks(LANES)) {
                let mut group = *group;
                simd::inverse(&mut group);
                simd::store(&group, tiles, sealed, blocks);
            }
            for &cell in cells {
                let [x, y, width, height] = tiles.area(cell as usize);
                for y in y..y + height {
                    let row = y * tiles.width + x..y * tiles.width + x + width;
                    sealed[row.clone()].copy_from_slice(&samples[row]);
                }
            }
        }
        if plane == 0 {
            self.candidates(blocks, split);
        }
        if plane == 0 || self.sealed.is_some() {
            self.flags(plane, blocks, &exact, &split.widths);
        }
        self.coefficients(plane, tiles, blocks);
    }

    /// The blocks of these that differ from what was sealed by more than may be lost, and the cells.
    fn beyond_loss(
        &self,
        plane: usize,
        tiles: &Tiles,
        samples: &[u8],
        changed: Vec<u32>,
    ) -> Vec<u32> {
        let Some(sealed) = &self.sealed else {
            return changed;
        };
        let whole = changed.partition_point(|&i| (i as usize) < tiles.blocks());
        let (blocks, cells) = changed.split_at(whole);
        let mut beyond = Vec::with_capacity(changed.len());
        for blocks in blocks.chunks(LANES) {
            let [now, was] = [samples, &sealed.planes()[plane]].map(|samples| {
                let mut group = ZERO;
                simd::load(&mut group, tiles, samples, blocks);
                simd::forward(&mut group);
                group
            });
            let differ = simd::differ(&now, &was, self.quantiser.loss);
            let these = blocks.iter().enumerate();
            beyond.extend(these.filter(|(i, _)| differ >> i & 1 == 1).map(|(_, b)| b));
        }
        beyond.extend_from_slice(cells);
        beyond
    }

    fn mean_numbers(&mut self, plane: usize, tiles: &Tiles, blocks: &[u32]) {
        let means = &mut self.past.means[plane];
        let first = MEAN + if plane == 0 { 0 } else { MEANS };
        for (blocks, group) in blocks.chunks(LANES).zip(&self.groups) {
            let (mut numbers, mut contexts) = ([0; LANES], [first; LANES]);
            for (context, &block) in contexts.iter_mut().zip(blocks) {
                *context += model::uneven(means, tiles, block as usize);
            }
            for (lane, &block) in blocks.iter().enumerate() {
                let like = model::mean(means, tiles, block as usize);
                let steps = self.quantiser.steps(group[0].0[lane].wrapping_sub(like));
                means[block as usize] = like + self.quantiser.step * steps;
                numbers[lane] = fold(steps);
            }
            self.encoder.vector(&contexts, &numbers, blocks.len());
        }
    }

    /// Takes the groups to what is sent of them, and makes the numbers that say so. Returns the
    /// blocks that have to be exact, because they would leave 0..=255 otherwise.
    fn quantise(&mut self, plane: usize, blocks: &[u32]) -> Vec<bool> {
        let means = &self.past.means[plane];
        let by = self.quantiser;
        let mut exact = Vec::with_capacity(blocks.len());
        self.numbers.clear();
        let groups = self.groups.iter_mut().zip(&self.surfaces);
        for (blocks, (group, surface)) in blocks.chunks(LANES).zip(groups) {
            let taken = self.carriers.taken(plane, blocks);
            let mut numbers = *group;
            for (at, like) in SMOOTH.into_iter().zip(surface) {
                for i in 0..LANES {
                    numbers[at].0[i] -= like.0[i];
                }
            }
            for (number, &block) in numbers[0].0.iter_mut().zip(blocks) {
                *number -= means[block as usize];
            }
            for (numbers, taken) in numbers
                .iter_mut()
                .zip(taken)
                .filter(|(_, taken)| *taken > 0)
            {
                for i in 0..LANES {
                    numbers.0[i] &= ((taken >> i & 1) as i16) - 1;
                }
            }
            let outside = match by.loss {
                0 => 0,
                _ => simd::seal(group, &mut numbers, by),
            };
            exact.extend((0..blocks.len()).map(|i| outside >> i & 1 == 1));
            self.numbers.push(numbers);
        }
        exact
    }

    /// Whether any candidate of a block is wide, and if so, which; whether the block is exact, and
    /// if so, how far its mean is off.
    fn flags(&mut self, plane: usize, blocks: &[u32], exact: &[bool], widths: &[u8]) {
        let each = self.settings.each();
        let widths = |i: usize| match plane {
            0 => &widths[i * each..(i + 1) * each],
            _ => &[],
        };
        for first in (0..blocks.len()).step_by(LANES) {
            let count = LANES.min(blocks.len() - first);
            let mut numbers = [0; LANES];
            for (i, number) in numbers.iter_mut().enumerate().take(count) {
                let wide = widths(first + i).contains(&WIDE);
                *number =
                    if wide { IS_WIDE } else { 0 } | if exact[first + i] { IS_EXACT } else { 0 };
            }
            self.encoder.vector(&[FLAG; LANES], &numbers, count);
            for (i, number) in numbers.into_iter().enumerate().take(count) {
                if number & IS_WIDE != 0 {
                    for width in widths(first + i) {
                        self.encoder.bits(u16::from(*width == WIDE), 1);
                    }
                }
                if number & IS_EXACT != 0 {
                    let off = self.numbers[first / LANES][0].0[i] + self.quantiser.loss;
                    self.encoder.bits(off as u16, self.quantiser.mean_bits());
                }
            }
        }
    }

    /// How far coefficients reach and what they are: blocks that reach farthest first.
    fn coefficients(&mut self, plane: usize, tiles: &Tiles, blocks: &[u32]) {
        let luma = plane == 0;
        let order = &self.order[usize::from(!luma)];
        let extents = &mut self.past.extents[plane];
        for (blocks, numbers) in blocks.chunks(LANES).zip(&mut self.numbers) {
            // What the mean is off was said with the flags.
            numbers[0].0.fill(0);
            let own = simd::extents(numbers);
            let mut out = [0; LANES];
            for (i, &block) in blocks.iter().enumerate() {
                let like = model::extent(extents, tiles, block as usize);
                extents[block as usize] = own[i];
                out[i] = fold(i16::from(own[i]) - i16::from(like));
            }
            let context = EXTENT + u8::from(!luma);
            self.encoder.vector(&[context; LANES], &out, blocks.len());
        }
        let extents = &self.past.extents[plane];
        for sorted in model::farthest_first(extents, blocks).chunks(2 * LANES) {
            let mut groups = [ZERO; 2];
            for (lane, &i) in sorted.iter().enumerate() {
                let from = &self.numbers[i as usize / LANES];
                for (group, from) in groups[lane / LANES].iter_mut().zip(from) {
                    group.0[lane % LANES] = from.0[i as usize % LANES];
                }
            }
            let mut these = [0; 2 * LANES];
            let these = model::pick(blocks, sorted, &mut these);
            let known = Known::of_two(plane, tiles, these, &self.past, &self.carriers);
            let now = simd::encode(&mut self.encoder, &groups, order, &known);
            for (&block, &now) in these.iter().zip(now.as_flattened()) {
                self.past.activity[plane][block as usize] = now;
            }
        }
    }

    /// Values, widths and deltas of all sent candidates, and the remainders.
    fn candidates(&mut self, blocks: &[u32], split: &mut Split) {
        let each = self.settings.each();
        let total = blocks.len() * each;
        split.positions.reserve_exact(total);
        split.widths.reserve_exact(total);
        split.predictions.reserve_exact(total);
        split.values.reserve_exact(total);
        let groups = self.groups.iter().zip(&self.surfaces);
        for (blocks, (group, surface)) in blocks.chunks(LANES).zip(groups) {
            for (lane, &block) in blocks.iter().enumerate() {
                for (number, at) in self.carriers.of(block).enumerate() {
                    let smooth = SMOOTH.iter().position(|&smooth| smooth == at);
                    let like = smooth.map_or(0, |i| surface[i].0[lane]);
                    let value = group[at].0[lane].wrapping_sub(like);
                    split.positions.push(block * each as u32 + number as u32);
                    split.predictions.push(like);
                    split.values.push(value);
                    split.widths.push(width(value.into()));
                }
            }
        }
        split.deltas.resize(total, 0);
        self.marks(blocks, split);
    }

    /// Moves the candidates that carry marks.
    fn marks(&mut self, blocks: &[u32], split: &mut Split) {
        let each = self.settings.each();
        let mut room = Room::default();
        let mut slot = 0;
        let mut these: Vec<Move> = Vec::new();
        for places in self.places.chunk_by(|a, b| a.block == b.block) {
            let block = places[0].block;
            while slot < blocks.len() && blocks[slot] < block {
                slot += 1;
            }
            if blocks.get(slot) != Some(&block) {
                continue;
            }
            these.clear();
            let group = &self.groups[slot / LANES];
            for place in places {
                self.remainders[place.index] = Split::NONE;
                let x = i32::from(group[place.class].0[slot % LANES]);
                let entry = slot * each + place.number;
                let half = self.step / 2;
                // Of two equally near points the upper one.
                let zero = x - (x - place.dither + half).rem_euclid(self.step) + half;
                let remainder = x - zero;
                let delta = if remainder >= 0 { half } else { -half };
                // Both points in the width of x.
                let value = i32::from(split.values[entry]) - remainder;
                let bits = split.widths[entry];
                if width(value) == bits && width(value + delta) == bits {
                    these.push(Move {
                        entry,
                        class: place.class,
                        place: place.index,
                        remainder: remainder as i16,
                        delta: delta as i16,
                    });
                }
            }
            room.ask(group, slot % LANES, &these);
        }
        for Move {
            entry,
            place,
            remainder,
            delta,
            ..
        } in room.answer()
        {
            split.values[entry] -= remainder;
            split.deltas[entry] = delta;
            self.remainders[place] = remainder;
        }
    }
}

/// The narrowest width of a value.
fn width(value: i32) -> u8 {
    match NARROWS.contains(&value) {
        true => NARROW,
        false => WIDE,
    }
}

/// A candidate that is to carry a mark.
#[derive(Clone, Copy)]
struct Move {
    /// Its number among the candidates that are sent.
    entry: usize,
    /// Which coefficient of the block.
    class: usize,
    /// The mark's number in the layout.
    place: usize,
    remainder: i16,
    delta: i16,
}

/// Finds the blocks whose samples stay within 0..=255 whatever the bits are, by trying all of them:
/// sixteen joined blocks at a time.
#[derive(Default)]
struct Room {
    /// Moves of all blocks asked for, with the number of the block.
    moves: Vec<(usize, Move)>,
    /// By block.
    has: Vec<bool>,
    /// Joined blocks that are still to be looked at, and whose they are.
    waiting: Vec<usize>,
    joined: Option<Box<Group>>,
}

impl Room {
    /// Marks a block above which not every combination is tried: none is left in it.
    const MOST: usize = 8;

    fn ask(&mut self, group: &Group, lane: usize, moves: &[Move]) {
        let block = self.has.len();
        self.has.push(moves.len() <= Self::MOST);
        if moves.is_empty() || moves.len() > Self::MOST {
            return;
        }
        self.moves.extend(moves.iter().map(|&one| (block, one)));
        for bits in 0..1usize << moves.len() {
            let to = self.waiting.len();
            let joined = self.joined.get_or_insert_with(|| Box::new(ZERO));
            for (joined, group) in joined.iter_mut().zip(group) {
                joined.0[to] = group.0[lane];
            }
            for (i, one) in moves.iter().enumerate() {
                let delta = one.delta * (bits >> i & 1) as i16;
                let value = &mut joined[one.class].0[to];
                *value = value.wrapping_sub(one.remainder).wrapping_add(delta);
            }
            self.waiting.push(block);
            if self.waiting.len() == LANES {
                self.look();
            }
        }
    }

    fn look(&mut self) {
        let Some(joined) = &mut self.joined else {
            return;
        };
        simd::inverse(joined);
        let mut outside = [0i16; LANES];
        for samples in joined.iter() {
            for (outside, sample) in outside.iter_mut().zip(samples.0) {
                *outside |= sample & !255;
            }
        }
        for (&block, outside) in self.waiting.iter().zip(outside) {
            self.has[block] &= outside == 0;
        }
        self.waiting.clear();
    }

    /// The moves in blocks that have room.
    fn answer(mut self) -> impl Iterator<Item = Move> {
        self.look();
        let has = self.has;
        let moves = self.moves.into_iter();
        moves.filter_map(move |(block, one)| has[block].then_some(one))
    }
}

/// The blocks and cells that are not what they were.
fn changes(tiles: &Tiles, samples: &[u8], was: Option<&[u8]>) -> Vec<u32> {
    let all = tiles.all();
    let Some(was) = was else {
        return (0..all as u32).collect();
    };
    let mut changed = Vec::with_capacity(all);
    let mut differences = vec![0; tiles.columns];
    let stripe = BLOCK * tiles.width;
    let stripes = samples.chunks(stripe).zip(was.chunks(stripe));
    for (i, (now, was)) in stripes.take(tiles.rows).enumerate() {
        if now == was {
            continue;
        }
        simd::differences(&mut differences, tiles.width, now, was);
        let first = i * tiles.columns;
        let differ = (first..).zip(&differences);
        changed.extend(differ.filter(|one| *one.1 != 0).map(|one| one.0 as u32));
    }
    for i in tiles.blocks()..all {
        let [x, y, width, height] = tiles.area(i);
        let same = (y..y + height).all(|y| {
            let row = y * tiles.width + x..y * tiles.width + x + width;
            samples[row.clone()] == was[row]
        });
        if !same {
            changed.push(i as u32);
        }
    }
    changed
}

/// Samples outside of whole blocks: each as the difference from its left neighbour in its cell, the
/// first of a row from the one above, the very first from the middle of the range.
fn edges(encoder: &mut Encoder, tiles: &Tiles, samples: &[u8], cells: &[u32]) {
    let (mut numbers, mut count) = ([0; LANES], 0);
    for &cell in cells {
        let [left, top, width, height] = tiles.area(cell as usize);
        for y in top..top + height {
            for x in left..left + width {
                let at = y * tiles.width + x;
                let like = match (x > left, y > top) {
                    (true, _) => samples[at - 1],
                    (false, true) => samples[at - tiles.width],
                    (false, false) => 128,
                };
                numbers[count] = fold(samples[at].wrapping_sub(like) as i8 as i16);
                count += 1;
                if count == LANES {
                    encoder.vector(&[EDGE; LANES], &numbers, count);
                    count = 0;
                }
            }
        }
    }
    if count > 0 {
        encoder.vector(&[EDGE; LANES], &numbers, count);
    }
}

fn squares(a: &[u8], b: &[u8]) -> u64 {
    let row = |(a, b): (&[u8], &[u8])| -> u64 {
        let off = a
            .iter()
            .zip(b)
            .map(|(&a, &b)| u32::from(a.abs_diff(b)).pow(2));
        off.sum::<u32>().into()
    };
    a.chunks(1 << 14).zip(b.chunks(1 << 14)).map(row).sum()
}
