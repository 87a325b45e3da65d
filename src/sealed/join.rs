// SPDX-License-Identifier: MPL-2.0
//! The cloud's side: rest and candidates to pictures. All bytes are welcome: what is no rest is an
//! error, and work and memory are bounded by the geometry.

use super::entropy::{Decoder, unfold};
use super::model::{self, CHROMA, EDGE, FLAG, FORM, LUMA, MEAN, RUN, SAME, WHOLE};
use super::picture::Tiles;
use super::transform::{Group, LANES, ZERO};
use super::{Error, Geometry, NARROW, Picture, WIDE, simd};
use crate::watermark::Class;

/// The candidates that come with a rest, in ascending order of positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Block (in raster order of luma's whole blocks) · number of classes + index of the class.
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
    classes: Vec<Class>,
    order: [Vec<u8>; 2],
    state: State,
    picture: Picture,
    /// Means of the blocks of each plane.
    means: Vec<Vec<i16>>,
    /// How busy they were when they came last.
    activity: Vec<Vec<u8>>,
    /// Blocks of luma that were read, …
    blocks: Vec<u32>,
    /// … and their coefficients, those of candidates being predictions.
    groups: Vec<Group>,
}

/// Says nothing of samples.
impl std::fmt::Debug for Joiner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Joiner({:?})", self.geometry)
    }
}

impl Joiner {
    /// For pictures of this geometry with candidates of these classes, in the order that the
    /// splitter's settings have them. Fails with [`Error::Size`] or [`Error::Classes`].
    pub fn new(geometry: Geometry, classes: &[Class]) -> Result<Self, Error> {
        geometry.check()?;
        model::check(classes)?;
        let means = (0..geometry.planes()).map(|i| vec![0; geometry.tiles(i).blocks()]);
        Ok(Self {
            geometry,
            classes: classes.to_vec(),
            order: [model::order(classes), model::order(&[])],
            state: State::Nothing,
            picture: Picture::new(geometry),
            activity: means
                .clone()
                .map(|plane| vec![model::UNKNOWN; plane.len()])
                .collect(),
            means: means.collect(),
            blocks: Vec::new(),
            groups: Vec::new(),
        })
    }

    /// Reads the rest of the next picture, and says which candidates [`Joiner::join`] wants.
    ///
    /// Fails with [`Error::Rest`] if it is none, after which only a whole picture can follow; with
    /// [`Error::NoPrevious`] if it is not whole and there is no picture before it, and with
    /// [`Error::Order`] if that one still waits for its candidates.
    pub fn read(&mut self, rest: &[u8]) -> Result<Sent, Error> {
        let (&form, mut bytes) = rest.split_first().ok_or(Error::Rest("it is empty"))?;
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
        self.groups.clear();
        let mut sent = Sent::default();
        if same {
            if !bytes.is_empty() {
                return Err(Error::Rest("bytes after its end"));
            }
        } else {
            self.state = State::Nothing;
            self.numbers(whole, &mut bytes, &mut sent)?;
        }
        self.state = State::Read;
        Ok(sent)
    }

    fn numbers(&mut self, whole: bool, bytes: &mut &[u8], sent: &mut Sent) -> Result<(), Error> {
        let planes = self.geometry.planes();
        let tiles: Vec<Tiles> = (0..planes).map(|i| self.geometry.tiles(i)).collect();
        let mut lengths = Vec::with_capacity(planes);
        if whole {
            self.activity
                .iter_mut()
                .for_each(|a| a.fill(model::UNKNOWN));
        } else {
            for tiles in &tiles {
                let (count, left) = bytes.split_first_chunk().ok_or(Error::Rest("no runs"))?;
                let count = u32::from_le_bytes(*count) as usize;
                // Every run but those in parts has a block or is the first.
                if count > 2 * tiles.all() + 2 {
                    return Err(Error::Rest("too many runs"));
                }
                lengths.push(count);
                *bytes = left;
            }
        }
        let mut decoder = Decoder::new(bytes)?;
        let mut changed: Vec<Vec<u32>> = Vec::with_capacity(planes);
        for (i, tiles) in tiles.iter().enumerate() {
            changed.push(match lengths.get(i) {
                None => (0..tiles.all() as u32).collect(),
                Some(&count) => runs(&mut decoder, tiles.all(), count)?,
            });
        }
        for i in 0..planes {
            self.plane(i, &tiles[i], &changed[i], &mut decoder, sent)?;
        }
        decoder.finish()
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
        let means = &mut self.means[plane];
        for blocks in blocks.chunks(LANES) {
            let context = MEAN + u8::from(!luma);
            let numbers = decoder.vector(&[context; LANES], blocks.len())?;
            for (number, &block) in numbers.into_iter().zip(blocks) {
                let like = model::mean(means, tiles, block as usize);
                means[block as usize] = like.wrapping_add(unfold(number));
            }
        }
        if luma {
            self.blocks.extend_from_slice(blocks);
            self.flags(decoder, sent)?;
        }
        let means = &self.means[plane];
        let (order, first) = match luma {
            true => (&self.order[0], LUMA),
            false => (&self.order[1], CHROMA),
        };
        let mut like = vec![0; self.classes.len()];
        for blocks in blocks.chunks(LANES) {
            let mut group = ZERO;
            let above = model::above(&self.activity[plane], tiles, blocks);
            let these = simd::decode(decoder, &mut group, blocks.len(), order, first, above)?;
            for (&block, this) in blocks.iter().zip(these) {
                self.activity[plane][block as usize] = this;
            }
            for (lane, &block) in blocks.iter().enumerate() {
                group[0].0[lane] = means[block as usize];
                if luma {
                    model::candidates(means, tiles, block as usize, &self.classes, &mut like);
                    for (class, like) in self.classes.iter().zip(&like) {
                        group[class.index()].0[lane] = *like;
                        sent.predictions.push(*like);
                    }
                }
            }
            if luma {
                self.groups.push(group);
            } else {
                simd::inverse(&mut group);
                simd::store(&group, tiles, self.picture.plane_mut(plane), blocks);
            }
        }
        Ok(())
    }

    fn flags(&self, decoder: &mut Decoder, sent: &mut Sent) -> Result<(), Error> {
        let classes = self.classes.len();
        sent.positions.reserve_exact(self.blocks.len() * classes);
        sent.widths.reserve_exact(self.blocks.len() * classes);
        for blocks in self.blocks.chunks(LANES) {
            let wide = decoder.vector(&[FLAG; LANES], blocks.len())?;
            for (&block, wide) in blocks.iter().zip(wide) {
                for class in 0..classes {
                    let wide = wide > 0 && decoder.bits(1)? == 1;
                    sent.positions.push(block * classes as u32 + class as u32);
                    sent.widths.push(if wide { WIDE } else { NARROW });
                }
            }
        }
        Ok(())
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
        let classes = self.classes.len();
        let expected = self.blocks.len() * classes;
        if values.len() != expected {
            return Err(Error::Count {
                found: values.len(),
                expected,
            });
        }
        let tiles = self.geometry.tiles(0);
        let parts = self
            .blocks
            .chunks(LANES)
            .zip(values.chunks(LANES * classes));
        for (group, (blocks, values)) in self.groups.iter_mut().zip(parts) {
            for (lane, values) in values.chunks_exact(classes).enumerate() {
                for (class, value) in self.classes.iter().zip(values) {
                    let entry = &mut group[class.index()].0[lane];
                    *entry = entry.wrapping_add(*value);
                }
            }
            simd::inverse(group);
            simd::store(group, &tiles, self.picture.plane_mut(0), blocks);
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

/// The blocks and cells that have changed.
fn runs(decoder: &mut Decoder, all: usize, count: usize) -> Result<Vec<u32>, Error> {
    let contexts = std::array::from_fn(|i| RUN + (i % 2) as u8);
    let mut changed = Vec::new();
    let mut at = 0;
    for first in (0..count).step_by(LANES) {
        let count = LANES.min(count - first);
        let lengths = decoder.vector(&contexts, count)?;
        for (i, &length) in lengths[..count].iter().enumerate() {
            let end = at + usize::from(length);
            if end > all {
                return Err(Error::Rest("runs beyond the picture"));
            }
            if i % 2 == 1 {
                changed.extend(at as u32..end as u32);
            }
            at = end;
        }
    }
    match at == all {
        true => Ok(changed),
        false => Err(Error::Rest("runs that end inside the picture")),
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
                    numbers = decoder.vector(&[EDGE; LANES], left_over.min(LANES))?;
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
