// SPDX-License-Identifier: MPL-2.0
//! Where the marks are.

use super::key::LayoutKey;
use super::{BITS, BLOCK, Class, Dither, Key, Placement, Settings};
use std::ops::Range;

/// Blocks of a tile, side by side. So few, that every part of a picture gets its share of marks and
/// every bit too.
const TILE: usize = 16;

/// One coefficient of one block that carries a bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Column of the block.
    pub x: u16,
    /// Row of the block.
    pub y: u16,
    /// Which coefficient.
    pub class: Class,
    /// Which bit, below [`BITS`].
    pub bit: u8,
    /// d_0 in sixteenths of a unit of luma, below the step. A keyed one is a whole unit.
    pub dither: u16,
}

impl Mark {
    /// d_0 rounded to a whole unit, below `step`: for marks in integers.
    pub fn whole_dither(&self, step: i32) -> i32 {
        (i32::from(self.dither) + 8) / 16 % step
    }
}

/// The marks of a picture, in raster order of their blocks.
#[derive(Clone, PartialEq, Eq)]
pub struct Layout {
    marks: Vec<Mark>,
    step: u32,
}

/// Says nothing of the places.
impl std::fmt::Debug for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Layout({} marks)", self.marks.len())
    }
}

impl Layout {
    /// Layout number `epoch` of a picture of `width` × `height` pixels. Only whole blocks carry
    /// marks. With [`Placement::Keyed`], where a mark is does not depend on where the picture ends
    /// (only the automatic density does): a reader needs not know the original size.
    pub fn new(key: &Key, epoch: u32, settings: &Settings, width: usize, height: usize) -> Self {
        // 16 bits a coordinate: larger pictures than 524,280 pixels have no marks beyond.
        let blocks = [width, height].map(|side| (side / BLOCK).min(usize::from(u16::MAX)));
        let key = key.layout(epoch);
        let mut marks = match settings.placement {
            Placement::Keyed => keyed(&key, settings, blocks),
            Placement::Runs => runs(&key, settings, blocks),
        };
        marks.sort_by_key(|mark| (mark.y, mark.x));
        Self {
            marks,
            step: settings.step,
        }
    }

    #[cfg(test)]
    pub(super) fn of(marks: Vec<Mark>, step: u32) -> Self {
        Self { marks, step }
    }

    /// All marks.
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// The marks of every block that has any.
    pub fn blocks(&self) -> impl Iterator<Item = &[Mark]> {
        self.marks.chunk_by(|a, b| (a.x, a.y) == (b.x, b.y))
    }

    /// Columns and rows of blocks up to the last mark.
    pub(super) fn extent(&self) -> [usize; 2] {
        let end = |side: fn(&Mark) -> u16| self.marks.iter().map(side).max();
        [end(|mark| mark.x), end(|mark| mark.y)].map(|last| last.map_or(0, usize::from) + 1)
    }

    /// Quantiser step in units of luma coefficients.
    pub fn step(&self) -> u32 {
        self.step
    }
}

/// d_0 of a mark, from the key or fixed.
fn dither(settings: &Settings, random: impl FnOnce(u32) -> u32) -> u16 {
    let sixteenths = 16 * settings.step;
    let offset = match settings.dither {
        Dither::Keyed => random(sixteenths),
        Dither::Fixed(one) => {
            let zero = (one * 16.0).round() as i64 - i64::from(sixteenths / 2);
            zero.rem_euclid(i64::from(sixteenths)) as u32
        }
    };
    offset as u16
}

fn keyed(key: &LayoutKey, settings: &Settings, [width, height]: [usize; 2]) -> Vec<Mark> {
    let each = settings.each();
    let tile = TileShape::new(settings, width * height);
    let mut marks = Vec::with_capacity(tile.wanted * width.div_ceil(TILE) * height);
    for y in 0..height {
        for column in 0..width.div_ceil(TILE) {
            let mut stream = key.stream(column as u32, y as u32);
            for run in 0..tile.wanted {
                let cells = tile.run(run);
                let cell = cells.start + stream.below(cells.len() as u32) as usize;
                let dither = dither(settings, |n| 16 * stream.below(n / 16));
                let x = column * TILE + cell / each;
                let class = settings.carriers(x, y).nth(cell % each);
                if let Some(class) = class.filter(|_| x < width) {
                    marks.push(Mark {
                        x: x as u16,
                        y: y as u16,
                        class,
                        bit: tile.bit(column, y, run) as u8,
                        dither,
                    });
                }
            }
        }
    }
    marks
}

/// How the cells (coefficients of blocks that can carry a bit) of a tile are cut into runs of about equal length, one
/// mark in each.
struct TileShape {
    cells: usize,
    wanted: usize,
}

impl TileShape {
    fn new(settings: &Settings, blocks: usize) -> Self {
        let cells = TILE * settings.each();
        let wanted = (settings.density(blocks) * TILE as f64).round() as usize;
        Self {
            cells,
            wanted: wanted.clamp(1, cells),
        }
    }

    fn run(&self, run: usize) -> Range<usize> {
        let start = |run: usize| (run * self.cells).div_ceil(self.wanted);
        start(run)..start(run + 1)
    }

    /// A tile goes on where its left neighbour ended, a row far from the one above (0.62 of the
    /// bits): whatever the size, all bits get about the same.
    fn bit(&self, column: usize, y: usize, run: usize) -> usize {
        (column * self.wanted + y * 79 + run) % BITS
    }
}

/// Where a mark's coefficient stands among all that can carry one, as [`carried_bits`] counts them;
/// `None` for one that cannot.
pub fn position(settings: &Settings, width: usize, mark: &Mark) -> Option<usize> {
    let (x, y) = (usize::from(mark.x), usize::from(mark.y));
    let number = settings.carriers(x, y).position(|c| c == mark.class)?;
    Some((y * (width / BLOCK) + x) * settings.each() + number)
}

/// The bit that each coefficient which can carry one carries if it is marked: number c of block
/// (x, y), in the order of [`Settings::carriers`], at (y·⌊width/8⌋ + x)·[`Settings::each`] + c. With [`Placement::Keyed`]; it does not depend
/// on the key, so that one party can treat all coefficients of a bit alike without knowing which
/// are marked.
pub fn carried_bits(settings: &Settings, width: usize, height: usize) -> Vec<u8> {
    let each = settings.each();
    let [width, height] = [width, height].map(|side| side / BLOCK);
    let tile = TileShape::new(settings, width * height);
    let run_of: Vec<usize> = (0..tile.wanted)
        .flat_map(|run| tile.run(run).map(move |_| run))
        .collect();
    let mut bits = Vec::with_capacity(width * height * each);
    for y in 0..height {
        for x in 0..width {
            for number in 0..each {
                let run = run_of[x % TILE * each + number];
                bits.push(tile.bit(x / TILE, y, run) as u8);
            }
        }
    }
    bits
}

fn runs(key: &LayoutKey, settings: &Settings, [width, height]: [usize; 2]) -> Vec<Mark> {
    let classes = settings.classes.len();
    let run = width * height * classes / BITS;
    let wanted = settings.density(width * height) / classes as f64 * run as f64;
    let wanted = (wanted.round() as usize).min(run);
    let mut stream = key.stream(0, 0);
    let mut order: Vec<u32> = (0..run as u32).collect();
    for i in 0..wanted {
        order.swap(i, i + stream.below((run - i) as u32) as usize);
    }
    let mut marks = Vec::with_capacity(wanted * BITS);
    for bit in 0..BITS {
        for &place in &order[..wanted] {
            let position = bit * run + place as usize;
            let (block, class) = (position / classes, position % classes);
            marks.push(Mark {
                x: (block % width) as u16,
                y: (block / width) as u16,
                class: settings.classes[class],
                bit: bit as u8,
                dither: dither(settings, |n| stream.below(n)),
            });
        }
    }
    marks
}
