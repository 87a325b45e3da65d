// SPDX-License-Identifier: MPL-2.0
//! Where the marks are.

use super::key::LayoutKey;
use super::{BITS, BLOCK, Class, Dither, Key, Placement, Settings};
use std::ops::Range;

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
    lift: i16,
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
            lift: settings.lift.into(),
        }
    }

    #[cfg(test)]
    pub(super) fn of(marks: Vec<Mark>, step: u32) -> Self {
        Self {
            marks,
            step,
            lift: 0,
        }
    }

    #[cfg(test)]
    pub(super) fn marks_mut(&mut self) -> &mut [Mark] {
        &mut self.marks
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

    /// [`Settings::lift`].
    pub(super) fn lift(&self) -> i16 {
        self.lift
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
    let shares = Shares::new(settings, width * height);
    let mut marks = Vec::new();
    for y in 0..height {
        let mut stream = key.stream(y as u32);
        for (share, blocks) in shares.of_row(width).enumerate() {
            let x = blocks.start + stream.below(blocks.len() as u32) as usize;
            if x >= width {
                break;
            }
            for (number, class) in settings.carriers(x, y).enumerate() {
                marks.push(Mark {
                    x: x as u16,
                    y: y as u16,
                    class,
                    bit: shares.bit(share, y, number),
                    dither: dither(settings, |n| 16 * stream.below(n / 16)),
                });
            }
        }
    }
    marks
}

/// How each row of blocks is cut into shares of about equal length, with one marked block in each.
struct Shares {
    /// Blocks of a share.
    length: f64,
    /// Marks of a marked block.
    each: usize,
}

impl Shares {
    fn new(settings: &Settings, blocks: usize) -> Self {
        let each = settings.each();
        Self {
            length: (each as f64 / settings.density(blocks)).max(1.0),
            each,
        }
    }

    /// The shares of a row of `width` blocks from its left end on. The last one may reach beyond its
    /// right end: where marks are does not depend on where that is.
    fn of_row(&self, width: usize) -> impl Iterator<Item = Range<usize>> {
        let start = |share: usize| (share as f64 * self.length).ceil() as usize;
        let shares = (0..).map(move |share| start(share)..start(share + 1));
        shares.take_while(move |blocks| blocks.start < width)
    }

    /// The bit of mark `number` of a share's marked block. A share goes on where its left neighbour
    /// ended, a row far from the one above (0.62 of the bits): whatever the size, all bits get about
    /// the same.
    fn bit(&self, share: usize, y: usize, number: usize) -> u8 {
        ((share * self.each + y * 79 + number) % BITS) as u8
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
    let [width, height] = [width, height].map(|side| side / BLOCK);
    let shares = Shares::new(settings, width * height);
    let mut bits = Vec::with_capacity(width * height * shares.each);
    for y in 0..height {
        for (share, blocks) in shares.of_row(width).enumerate() {
            for _ in blocks.start..blocks.end.min(width) {
                bits.extend((0..shares.each).map(|number| shares.bit(share, y, number)));
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
    let mut stream = key.stream(0);
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
