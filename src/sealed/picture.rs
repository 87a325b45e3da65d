// SPDX-License-Identifier: MPL-2.0
//! Pictures of planes, and where their blocks are.

use super::Error;
use crate::watermark::BLOCK;

/// What there is beside luma: planar, 8 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Chroma {
    /// Nothing: grey.
    None,
    /// Two planes, half as wide and half as high, rounded up.
    I420,
    /// Two planes, half as wide, rounded up.
    Y42B,
    /// Two planes of the same size.
    Y444,
}

/// Size and planes of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// Pixels in a row of luma.
    pub width: usize,
    /// Rows of luma.
    pub height: usize,
    /// Chroma.
    pub chroma: Chroma,
}

impl Geometry {
    /// Most pixels a side.
    pub const MOST: usize = 16384;

    /// Width and height from 1 to [`Geometry::MOST`], else [`Error::Size`].
    pub fn new(width: usize, height: usize, chroma: Chroma) -> Result<Self, Error> {
        let geometry = Self {
            width,
            height,
            chroma,
        };
        geometry.check().map(|()| geometry)
    }

    /// The fields are public: what takes a geometry looks once more.
    pub(super) fn check(&self) -> Result<(), Error> {
        let sides = 1..=Self::MOST;
        match sides.contains(&self.width) && sides.contains(&self.height) {
            true => Ok(()),
            false => Err(Error::Size(self.width, self.height)),
        }
    }

    /// Planes: 1 or 3.
    pub fn planes(&self) -> usize {
        match self.chroma {
            Chroma::None => 1,
            _ => 3,
        }
    }

    /// Width and height in samples of plane `i` (0 is luma).
    pub fn plane(&self, i: usize) -> [usize; 2] {
        match (i, self.chroma) {
            (0, _) | (_, Chroma::None | Chroma::Y444) => [self.width, self.height],
            (_, Chroma::Y42B) => [self.width.div_ceil(2), self.height],
            (_, Chroma::I420) => [self.width.div_ceil(2), self.height.div_ceil(2)],
        }
    }

    /// Whole 8×8 blocks of luma: those that carry candidates.
    pub fn blocks(&self) -> usize {
        self.width / BLOCK * (self.height / BLOCK)
    }

    /// Candidates of a picture of which all blocks are sent, with so many a block.
    pub fn candidates(&self, each: usize) -> usize {
        self.blocks() * each
    }

    /// The blocks of plane `i`.
    pub(super) fn tiles(&self, i: usize) -> Tiles {
        let [width, height] = self.plane(i);
        Tiles {
            width,
            height,
            columns: width / BLOCK,
            rows: height / BLOCK,
            reciprocal: (1 << RECIPROCAL) / (width / BLOCK).max(1) as u64 + 1,
        }
    }
}

/// How a plane is cut: whole blocks in raster order, then what is left over at the right (a cell a
/// row of blocks) and below (a cell every eight samples).
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiles {
    pub width: usize,
    pub height: usize,
    /// Whole blocks side by side.
    pub columns: usize,
    /// Whole blocks one below the other.
    pub rows: usize,
    /// 2^[`RECIPROCAL`]/columns, too much by at most 1.
    reciprocal: u64,
}

/// There are at most 2^11 columns and 2^22 blocks: a quotient by the reciprocal is too much by less than
/// 2^22/2^40, and no fraction is that near to the next integer.
const RECIPROCAL: u32 = 40;

impl Tiles {
    pub(super) fn blocks(&self) -> usize {
        self.columns * self.rows
    }

    /// Column and row of a block. Asked several times for every block: no division.
    #[inline(always)]
    pub(super) fn place(&self, block: usize) -> (usize, usize) {
        let y = ((block as u64 * self.reciprocal) >> RECIPROCAL) as usize;
        (block - y * self.columns, y)
    }

    /// Blocks and cells.
    pub(super) fn all(&self) -> usize {
        let right = match self.width % BLOCK {
            0 => 0,
            _ => self.rows,
        };
        let below = match self.height % BLOCK {
            0 => 0,
            _ => self.width.div_ceil(BLOCK),
        };
        self.blocks() + right + below
    }

    /// Left, top, width and height of block or cell `i`.
    pub(super) fn area(&self, i: usize) -> [usize; 4] {
        let blocks = self.blocks();
        if i < blocks {
            let (x, y) = self.place(i);
            return [x * BLOCK, y * BLOCK, BLOCK, BLOCK];
        }
        let cell = i - blocks;
        let rest = self.width % BLOCK;
        match rest > 0 && cell < self.rows {
            true => [self.columns * BLOCK, cell * BLOCK, rest, BLOCK],
            false => {
                let below = cell - if rest > 0 { self.rows } else { 0 };
                let (x, y) = (below * BLOCK, self.rows * BLOCK);
                [x, y, BLOCK.min(self.width - x), self.height - y]
            }
        }
    }
}

/// Where blocks differ in a row of blocks: not 0.
#[inline(always)]
pub(super) fn differences(out: &mut [u64], width: usize, now: &[u8], was: &[u8]) {
    out.fill(0);
    for (now, was) in now.chunks_exact(width).zip(was.chunks_exact(width)) {
        let (now, was) = (now.as_chunks::<BLOCK>().0, was.as_chunks::<BLOCK>().0);
        for (out, (now, was)) in out.iter_mut().zip(now.iter().zip(was)) {
            *out |= u64::from_le_bytes(*now) ^ u64::from_le_bytes(*was);
        }
    }
}

/// A picture: its planes, rows without padding, samples of 8 bits.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    geometry: Geometry,
    planes: Vec<Vec<u8>>,
}

impl Picture {
    /// All samples 0.
    pub fn new(geometry: Geometry) -> Self {
        let samples = |i| {
            let [width, height] = geometry.plane(i);
            vec![0; width * height]
        };
        Self {
            geometry,
            planes: (0..geometry.planes()).map(samples).collect(),
        }
    }

    /// Its geometry.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The planes, luma first: [`Geometry::plane`] says how many samples in a row.
    pub fn planes(&self) -> &[Vec<u8>] {
        &self.planes
    }

    /// The samples of plane `i`, to write.
    ///
    /// # Panics
    /// If there is no such plane.
    pub fn plane_mut(&mut self, i: usize) -> &mut [u8] {
        &mut self.planes[i]
    }
}

/// Says nothing of the samples.
impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({:?})", self.geometry)
    }
}
