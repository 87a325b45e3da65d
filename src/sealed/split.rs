// SPDX-License-Identifier: MPL-2.0
//! The owner's side: pictures to rest and candidates.

use super::entropy::{Encoder, fold};
use super::model::{self, CHROMA, EDGE, FLAG, FORM, LUMA, MEAN, NARROWS, RUN, SAME, WHOLE};
use super::picture::Tiles;
use super::transform::{Group, LANES, ZERO};
use super::{Error, Geometry, NARROW, Picture, WIDE, simd};
use crate::watermark::{BLOCK, Class, Layout, Settings};
use zeroize::Zeroize;

/// What a picture was split into. Entries of `positions`, `widths`, `predictions`, `values` and
/// `deltas` belong together: one a candidate that is sent, in ascending order of positions.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Split {
    /// Everything but the candidates, for [`Joiner::read`](super::Joiner::read).
    pub rest: Vec<u8>,
    /// Block (in raster order of luma's whole blocks) · number of classes + index of the class.
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
    class: usize,
    /// d_0 in whole units.
    dither: i32,
    /// Its number in the layout.
    index: usize,
}

/// Splits the pictures of one stream, one after the other.
pub struct Splitter {
    geometry: Geometry,
    classes: Vec<Class>,
    order: [Vec<u8>; 2],
    /// In raster order of blocks.
    places: Vec<Place>,
    step: i32,
    /// Of every mark, also those outside of the picture.
    remainders: Vec<i16>,
    previous: Option<Picture>,
    /// Means of the blocks of each plane.
    means: Vec<Vec<i16>>,
    /// How busy they were when they were sent last.
    activity: Vec<Vec<u8>>,
    // What is kept for its memory.
    encoder: Encoder,
    groups: Vec<Group>,
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
        model::check(&settings.classes)?;
        let means = (0..geometry.planes()).map(|i| vec![0; geometry.tiles(i).blocks()]);
        let mut splitter = Self {
            geometry,
            classes: settings.classes.clone(),
            order: [model::order(&settings.classes), model::order(&[])],
            places: Vec::new(),
            step: 4,
            remainders: Vec::new(),
            previous: None,
            activity: means
                .clone()
                .map(|plane| vec![model::UNKNOWN; plane.len()])
                .collect(),
            means: means.collect(),
            encoder: Encoder::default(),
            groups: Vec::new(),
        };
        splitter.set_layout(layout)?;
        Ok(splitter)
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
            let class = self.classes.iter().position(|class| *class == mark.class);
            if let Some(class) = class
                && x < tiles.columns
                && y < tiles.rows
            {
                self.places.push(Place {
                    block: (y * tiles.columns + x) as u32,
                    class,
                    dither: mark.whole_dither(self.step),
                    index,
                });
            }
        }
        // One mark a candidate: of two the first.
        self.places
            .sort_by_key(|place| (place.block, place.class, place.index));
        self.places.dedup_by_key(|place| (place.block, place.class));
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
                changes(&tiles[i], &picture.planes()[i], was)
            })
            .collect();

        if whole {
            self.activity
                .iter_mut()
                .for_each(|a| a.fill(model::UNKNOWN));
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
                for (tiles, changed) in tiles.iter().zip(&changed) {
                    runs(&mut self.encoder, &mut split.rest, tiles.all(), changed);
                }
            }
            for i in 0..planes {
                self.plane(i, &tiles[i], &picture.planes()[i], &changed[i], &mut split);
            }
            self.encoder.finish(&mut split.rest);
        }
        split.remainders = self.remainders.clone();
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
        let means = &mut self.means[plane];
        for (i, &block) in blocks.iter().enumerate() {
            means[block as usize] = self.groups[i / LANES][0].0[i % LANES];
        }
        let luma = plane == 0;
        for blocks in blocks.chunks(LANES) {
            let mut numbers = [0; LANES];
            for (number, &block) in numbers.iter_mut().zip(blocks) {
                let like = model::mean(means, tiles, block as usize);
                *number = fold(means[block as usize].wrapping_sub(like));
            }
            let context = MEAN + u8::from(!luma);
            self.encoder
                .vector(&[context; LANES], &numbers, blocks.len());
        }
        if luma {
            self.candidates(tiles, blocks, split);
            self.flags(blocks.len(), &split.widths);
        }
        let (order, first) = match luma {
            true => (&self.order[0], LUMA),
            false => (&self.order[1], CHROMA),
        };
        let activity = &mut self.activity[plane];
        for (group, blocks) in self.groups.iter().zip(blocks.chunks(LANES)) {
            let above = model::above(activity, tiles, blocks);
            let encoder = &mut self.encoder;
            let these = simd::encode(encoder, group, blocks.len(), order, first, above);
            for (&block, this) in blocks.iter().zip(these) {
                activity[block as usize] = this;
            }
        }
    }

    /// Whether any candidate of a block is wide, and if so, which.
    fn flags(&mut self, blocks: usize, widths: &[u8]) {
        let classes = self.classes.len();
        let widths: Vec<&[u8]> = widths.chunks(classes).collect();
        debug_assert_eq!(widths.len(), blocks);
        for widths in widths.chunks(LANES) {
            let mut numbers = [0; LANES];
            for (number, widths) in numbers.iter_mut().zip(widths) {
                *number = u16::from(widths.contains(&WIDE));
            }
            self.encoder.vector(&[FLAG; LANES], &numbers, widths.len());
            for (widths, _) in widths.iter().zip(numbers).filter(|(_, wide)| *wide == 1) {
                for width in *widths {
                    self.encoder.bits(u16::from(*width == WIDE), 1);
                }
            }
        }
    }

    /// Values, widths and deltas of all sent candidates, and the remainders.
    fn candidates(&mut self, tiles: &Tiles, blocks: &[u32], split: &mut Split) {
        let classes = self.classes.len();
        let total = blocks.len() * classes;
        split.positions.reserve_exact(total);
        split.widths.reserve_exact(total);
        split.predictions.reserve_exact(total);
        split.values.reserve_exact(total);
        let mut like = vec![0; classes];
        for (i, &block) in blocks.iter().enumerate() {
            model::candidates(
                &self.means[0],
                tiles,
                block as usize,
                &self.classes,
                &mut like,
            );
            let group = &self.groups[i / LANES];
            for (index, class) in self.classes.iter().enumerate() {
                let x = group[class.index()].0[i % LANES];
                let value = x.wrapping_sub(like[index]);
                split.positions.push(block * classes as u32 + index as u32);
                split.predictions.push(like[index]);
                split.values.push(value);
                split.widths.push(width(value.into()));
            }
        }
        split.deltas.resize(total, 0);
        self.marks(blocks, split);
    }

    /// Moves the candidates that carry marks.
    fn marks(&mut self, blocks: &[u32], split: &mut Split) {
        let classes = self.classes.len();
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
                let class = self.classes[place.class].index();
                let x = i32::from(group[class].0[slot % LANES]);
                let entry = slot * classes + place.class;
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
                        class,
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

/// How many are unchanged, how many changed, and so on; the number of such runs goes before
/// everything.
fn runs(encoder: &mut Encoder, out: &mut Vec<u8>, all: usize, changed: &[u32]) {
    let mut lengths: Vec<u16> = Vec::new();
    let mut push = |mut length: u32| {
        // Longer ones in parts, with nothing in between.
        while length > u32::from(u16::MAX) {
            lengths.extend([u16::MAX, 0]);
            length -= u32::from(u16::MAX);
        }
        lengths.push(length as u16);
    };
    let mut at = 0;
    for run in changed.chunk_by(|a, b| a + 1 == *b) {
        push(run[0] - at);
        push(run.len() as u32);
        at = run[0] + run.len() as u32;
    }
    push(all as u32 - at);
    out.extend_from_slice(&(lengths.len() as u32).to_le_bytes());
    let contexts = std::array::from_fn(|i| RUN + (i % 2) as u8);
    for lengths in lengths.chunks(LANES) {
        let mut numbers = [0; LANES];
        numbers[..lengths.len()].copy_from_slice(lengths);
        encoder.vector(&contexts, &numbers, lengths.len());
    }
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
