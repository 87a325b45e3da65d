// SPDX-License-Identifier: MPL-2.0
//! The cloud's side: rest and candidates to pictures. All bytes are welcome: what is no rest is an
//! error, and work and memory are bounded by the geometry.

use super::entropy::{Decoder, Tables, unfold};
use super::model::{
    self, Carriers, EDGE, EXTENT, FAR, FLAG, FORM, IS_EXACT, IS_WIDE, Known, MEAN, MEANS, Order,
    Past, Quantiser, SAME, SMOOTH, Surface, WHOLE,
};
use super::picture::Tiles;
use super::transform::{Group, LANES, ZERO};
use super::{Error, Geometry, MOST_LOSS, NARROW, Picture, WIDE, simd};
use crate::watermark::Settings;

/// The candidates that come with a rest, in ascending order of positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Block (in raster order of luma's whole blocks) · [`Settings::each`] + number of the class
    /// among [`Settings::carriers`].
    pub positions: Vec<u32>,
    /// Bits of each value: [`NARROW`](super::NARROW) or [`WIDE`](super::WIDE).
    pub widths: Vec<u8>,
    /// What values are less than coefficients by.
    pub predictions: Vec<i16>,
}

/// What the picture that is shown is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing, or half of something that turned out to be no rest.
    Nothing,
    /// The rest of a picture that waits for its candidates.
    Read,
    /// A picture.
    Joined,
}

/// Joins the pictures of one stream, one after the other.
pub struct Joiner {
    geometry: Geometry,
    /// Candidates of a block.
    each: usize,
    carriers: Carriers,
    order: [Order; 2],
    quantiser: Quantiser,
    tables: Tables,
    state: State,
    picture: Picture,
    past: Past,
    /// Blocks of luma that were read, …
    blocks: Vec<u32>,
    /// … their numbers in the order in which they came …
    sorted: Vec<u32>,
    /// … and their coefficients in that order, those of candidates being predictions.
    groups: Vec<Group>,
    /// Of the blocks of the plane that is being read.
    surfaces: Vec<Surface>,
}

/// Says nothing of samples.
impl std::fmt::Debug for Joiner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Joiner({:?})", self.geometry)
    }
}

impl Joiner {
    /// For pictures of this geometry with candidates as the splitter's settings have them. Fails with
    /// [`Error::Size`] or [`Error::Classes`].
    pub fn new(geometry: Geometry, settings: &Settings) -> Result<Self, Error> {
        geometry.check()?;
        model::check(settings)?;
        Ok(Self {
            geometry,
            each: settings.each(),
            carriers: Carriers::new(settings, geometry),
            order: model::orders(settings),
            quantiser: Quantiser::new(0),
            tables: Tables::default(),
            state: State::Nothing,
            picture: Picture::new(geometry),
            past: Past::new(geometry),
            blocks: Vec::new(),
            sorted: Vec::new(),
            groups: Vec::new(),
            surfaces: Vec::new(),
        })
    }

    /// For rests of a splitter [with the same loss](super::Splitter::with_loss). Fails with
    /// [`Error::Loss`].
    pub fn with_loss(mut self, loss: u8) -> Result<Self, Error> {
        if loss > MOST_LOSS {
            return Err(Error::Loss(loss));
        }
        self.quantiser = Quantiser::new(loss);
        Ok(self)
    }

    /// Reads the rest of the next picture, and says which candidates [`Joiner::join`] wants.
    ///
    /// Fails with [`Error::Rest`] if it is none, after which only a whole picture can follow; with
    /// [`Error::NoPrevious`] if it is not whole and there is no picture before it, and with
    /// [`Error::Order`] if that one still waits for its candidates.
    pub fn read(&mut self, rest: &[u8]) -> Result<Sent, Error> {
        let (&form, bytes) = rest.split_first().ok_or(Error::Rest("it is empty"))?;
        let (whole, same) = (form & WHOLE != 0, form & SAME != 0);
        if form & !(WHOLE | SAME) != FORM || whole && same {
            return Err(Error::Rest("an unknown form"));
        }
        match self.state {
            _ if whole => {}
            State::Nothing => return Err(Error::NoPrevious),
            State::Read => return Err(Error::Order),
            State::Joined => {}
        }
        self.blocks.clear();
        self.sorted.clear();
        self.groups.clear();
        let mut sent = Sent::default();
        if same {
            if !bytes.is_empty() {
                return Err(Error::Rest("bytes after its end"));
            }
        } else {
            self.state = State::Nothing;
            self.numbers(whole, bytes, &mut sent)?;
        }
        self.state = State::Read;
        Ok(sent)
    }

    fn numbers(&mut self, whole: bool, bytes: &[u8], sent: &mut Sent) -> Result<(), Error> {
        let planes = self.geometry.planes();
        let tiles: Vec<Tiles> = (0..planes).map(|i| self.geometry.tiles(i)).collect();
        let mut decoder = Decoder::new(bytes, std::mem::take(&mut self.tables))?;
        if whole {
            self.past.forget();
        } else {
            let mut others: Vec<Vec<bool>> = Vec::with_capacity(planes);
            for was in &self.past.sent {
                let code = |contexts: &_, _, count| simd::vector(&mut decoder, contexts, count);
                others.push(model::sent(&tiles, &others, was, code)?);
            }
            self.past.sent = others;
        }
        let numbers = |sent: &Vec<bool>| {
            let sent = sent.iter().enumerate().filter(|(_, sent)| **sent);
            sent.map(|(i, _)| i as u32).collect()
        };
        let changed: Vec<Vec<u32>> = self.past.sent.iter().map(numbers).collect();
        for i in 0..planes {
            self.plane(i, &tiles[i], &changed[i], &mut decoder, sent)?;
        }
        self.tables = decoder.finish()?;
        Ok(())
    }

    fn plane(
        &mut self,
        plane: usize,
        tiles: &Tiles,
        changed: &[u32],
        decoder: &mut Decoder,
        sent: &mut Sent,
    ) -> Result<(), Error> {
        let whole = changed.partition_point(|&i| (i as usize) < tiles.blocks());
        let (blocks, cells) = changed.split_at(whole);
        edges(decoder, tiles, self.picture.plane_mut(plane), cells)?;
        let luma = plane == 0;
        self.means(plane, tiles, blocks, decoder)?;
        let exact = match luma || self.quantiser.loss > 0 {
            true => self.flags(luma, blocks, decoder, sent)?,
            false => vec![None; blocks.len()],
        };
        self.extents(plane, tiles, blocks, decoder)?;
        let means = &self.past.means[plane];
        model::surfaces(means, tiles, blocks, &mut self.surfaces);
        if luma {
            sent.predictions = vec![0; blocks.len() * self.each];
        }
        let sorted = model::farthest_first(&self.past.extents[plane], blocks);
        let order = &self.order[usize::from(!luma)];
        for both in sorted.chunks(2 * LANES) {
            let mut these = [0; 2 * LANES];
            let these = model::pick(blocks, both, &mut these);
            let known = Known::of_two(plane, tiles, these, &self.past, &self.carriers);
            let mut groups = [ZERO; 2];
            let now = simd::decode(decoder, &mut groups, order, &known)?;
            for (&block, &now) in these.iter().zip(now.as_flattened()) {
                self.past.activity[plane][block as usize] = now;
            }
            let halves = both.chunks(LANES).zip(these.chunks(LANES));
            for ((group, known), (sorted, these)) in groups.iter_mut().zip(&known).zip(halves) {
                if self.quantiser.loss > 0 && !known.empty() {
                    self.scale(group, sorted, &exact);
                }
                self.predict(group, plane, sorted, these, &exact);
                if luma {
                    for (lane, (&i, &block)) in sorted.iter().zip(these).enumerate() {
                        let predictions = &mut sent.predictions[i as usize * self.each..];
                        for (at, prediction) in self.carriers.of(block).zip(predictions) {
                            *prediction = group[at].0[lane];
                        }
                    }
                    self.groups.push(*group);
                } else {
                    simd::inverse(group);
                    simd::store(group, tiles, self.picture.plane_mut(plane), these);
                }
            }
        }
        if luma {
            self.blocks.extend_from_slice(blocks);
            self.sorted = sorted;
        }
        Ok(())
    }

    /// Reads the blocks' means, as far as they are not exact.
    fn means(
        &mut self,
        plane: usize,
        tiles: &Tiles,
        blocks: &[u32],
        decoder: &mut Decoder,
    ) -> Result<(), Error> {
        let means = &mut self.past.means[plane];
        let first = MEAN + if plane == 0 { 0 } else { MEANS };
        for blocks in blocks.chunks(LANES) {
            let mut contexts = [first; LANES];
            for (context, &block) in contexts.iter_mut().zip(blocks) {
                *context += model::uneven(means, tiles, block as usize);
            }
            let numbers = simd::vector(decoder, &contexts, blocks.len())?;
            for (number, &block) in numbers.into_iter().zip(blocks) {
                let like = model::mean(means, tiles, block as usize);
                let off = self.quantiser.step.wrapping_mul(unfold(number));
                means[block as usize] = like.wrapping_add(off);
            }
        }
        Ok(())
    }

    /// Reads how far the blocks' coefficients reach.
    fn extents(
        &mut self,
        plane: usize,
        tiles: &Tiles,
        blocks: &[u32],
        decoder: &mut Decoder,
    ) -> Result<(), Error> {
        let extents = &mut self.past.extents[plane];
        for blocks in blocks.chunks(LANES) {
            let context = EXTENT + u8::from(plane != 0);
            let numbers = simd::vector(decoder, &[context; LANES], blocks.len())?;
            for (number, &block) in numbers.into_iter().zip(blocks) {
                let like = model::extent(extents, tiles, block as usize);
                let extent = i16::from(like).wrapping_add(unfold(number));
                let extent = u8::try_from(extent).ok().filter(|&extent| extent <= FAR);
                extents[block as usize] =
                    extent.ok_or(Error::Rest("a block that reaches too far"))?;
            }
        }
        Ok(())
    }

    /// Numbers of steps to coefficients; of blocks that are exact a step is one.
    fn scale(&self, group: &mut Group, sorted: &[u32], exact: &[Option<i16>]) {
        let mut steps = [self.quantiser.step; LANES];
        for (step, &i) in steps.iter_mut().zip(sorted) {
            if exact[i as usize].is_some() {
                *step = 1;
            }
        }
        simd::scale(group, &steps);
    }

    /// Adds what is known without them to coefficients of blocks, whose numbers are `sorted`.
    fn predict(
        &self,
        group: &mut Group,
        plane: usize,
        sorted: &[u32],
        blocks: &[u32],
        exact: &[Option<i16>],
    ) {
        let means = &self.past.means[plane];
        for ((mean, &block), &i) in group[0].0.iter_mut().zip(blocks).zip(sorted) {
            *mean = means[block as usize].wrapping_add(exact[i as usize].unwrap_or(0));
        }
        for (lane, &i) in sorted.iter().enumerate() {
            let (surface, own) = (&self.surfaces[i as usize / LANES], i as usize % LANES);
            for (at, like) in SMOOTH.into_iter().zip(surface) {
                let value = &mut group[at].0[lane];
                *value = value.wrapping_add(like.0[own]);
            }
        }
    }

    /// Reads which candidates are wide, if these are blocks of luma, and of each block that is exact
    /// how far its mean is off.
    fn flags(
        &self,
        luma: bool,
        blocks: &[u32],
        decoder: &mut Decoder,
        sent: &mut Sent,
    ) -> Result<Vec<Option<i16>>, Error> {
        let each = if luma { self.each } else { 0 };
        sent.positions.reserve_exact(blocks.len() * each);
        sent.widths.reserve_exact(blocks.len() * each);
        let mut exact = Vec::with_capacity(blocks.len());
        for blocks in blocks.chunks(LANES) {
            let flags = simd::vector(decoder, &[FLAG; LANES], blocks.len())?;
            for (&block, flags) in blocks.iter().zip(flags) {
                for number in 0..each {
                    let wide = flags & IS_WIDE != 0 && decoder.bits(1)? == 1;
                    sent.positions.push(block * each as u32 + number as u32);
                    sent.widths.push(if wide { WIDE } else { NARROW });
                }
                exact.push(match flags & IS_EXACT {
                    0 => None,
                    _ => {
                        let off = decoder.bits(self.quantiser.mean_bits())? as i16;
                        Some(off - self.quantiser.loss)
                    }
                });
            }
        }
        Ok(exact)
    }

    /// Joins the rest that was read and the candidates' values, in the order of [`Sent`]: any
    /// values, also beyond their widths. Samples are cut off at 0 and 255.
    ///
    /// Fails with [`Error::Order`] if nothing was read and with [`Error::Count`] if there are more
    /// or fewer values than candidates; what was read then still waits.
    pub fn join(&mut self, values: &[i16]) -> Result<&Picture, Error> {
        if self.state != State::Read {
            return Err(Error::Order);
        }
        let each = self.each;
        let expected = self.blocks.len() * each;
        if values.len() != expected {
            return Err(Error::Count {
                found: values.len(),
                expected,
            });
        }
        let tiles = self.geometry.tiles(0);
        for (group, sorted) in self.groups.iter_mut().zip(self.sorted.chunks(LANES)) {
            let mut these = [0; LANES];
            let these = model::pick(&self.blocks, sorted, &mut these);
            for (lane, (&i, &block)) in sorted.iter().zip(these).enumerate() {
                let values = &values[i as usize * each..];
                for (at, value) in self.carriers.of(block).zip(values) {
                    let entry = &mut group[at].0[lane];
                    *entry = entry.wrapping_add(*value);
                }
            }
            simd::inverse(group);
            simd::store(group, &tiles, self.picture.plane_mut(0), these);
        }
        self.state = State::Joined;
        Ok(&self.picture)
    }

    /// Goes on without the candidates of the rest that was read: for who wants to know what was sent
    /// and no picture.
    pub fn pass(&mut self) {
        if self.state == State::Read {
            self.state = State::Joined;
        }
    }

    /// The picture that was joined last, if what was read since did not spoil it.
    pub fn picture(&self) -> Option<&Picture> {
        (self.state == State::Joined).then_some(&self.picture)
    }
}

fn edges(
    decoder: &mut Decoder,
    tiles: &Tiles,
    samples: &mut [u8],
    cells: &[u32],
) -> Result<(), Error> {
    let area = |&cell: &u32| tiles.area(cell as usize);
    let mut left_over: usize = cells.iter().map(|cell| area(cell)[2] * area(cell)[3]).sum();
    let (mut numbers, mut next) = ([0; LANES], LANES);
    for cell in cells {
        let [left, top, width, height] = area(cell);
        for y in top..top + height {
            for x in left..left + width {
                if next == LANES {
                    numbers = simd::vector(decoder, &[EDGE; LANES], left_over.min(LANES))?;
                    left_over -= left_over.min(LANES);
                    next = 0;
                }
                let at = y * tiles.width + x;
                let like = match (x > left, y > top) {
                    (true, _) => samples[at - 1],
                    (false, true) => samples[at - tiles.width],
                    (false, false) => 128,
                };
                samples[at] = like.wrapping_add(unfold(numbers[next]) as u8);
                next += 1;
            }
        }
    }
    Ok(())
}
