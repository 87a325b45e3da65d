// SPDX-License-Identifier: MPL-2.0
//! What marks and reads must agree on, besides the key.

/// One of the 64 coefficients of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class(u8);

impl Class {
    /// Vertical frequency `u`, horizontal frequency `v`, each below 8.
    pub const fn new(u: u8, v: u8) -> Option<Self> {
        match u < 8 && v < 8 {
            true => Some(Self(8 * u + v)),
            false => None,
        }
    }

    /// 8u + v.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// (u, v).
    pub fn frequencies(self) -> (usize, usize) {
        (self.index() / 8, self.index() % 8)
    }
}

/// Where the lattice of bit 0 begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Dither {
    /// Anywhere, each mark by itself, from the key.
    Keyed,
    /// d_1 in units of luma, the same for all: the paper's (25 at step 100, so that d_0 = −25).
    /// Public, so the marks can be found, read and taken out without the key.
    Fixed(f64),
}

/// Which coefficients of which blocks are marks, and of which bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Each row of blocks is cut into shares of equal length, as the density asks; anywhere in each,
    /// by the key, is one block with a mark in every coefficient of it that can carry one. Several in
    /// one block cost an encoder hardly more than one (docs/decisions/0003). Which bits they are
    /// depends on the share alone: see [`super::carried_bits`].
    Keyed,
    /// [RTBF] Algorithm 3: all coefficients in raster order of blocks, bit i owns the i-th of 128
    /// equal runs; of every run the same keyed choice where not all are wanted.
    Runs,
}

/// What marks and reads must agree on, besides the key.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Quantiser step s in units of luma coefficients: a multiple of 4, so that both lattices and
    /// their distance are integers.
    pub step: u32,
    /// Dither.
    pub dither: Dither,
    /// Coefficients that can carry a bit.
    pub classes: Vec<Class>,
    /// How many of them can in each block, and do in a marked one, with [`Placement::Keyed`]; `None`:
    /// all. Which ones is public: see [`Settings::carriers`].
    pub per_block: Option<usize>,
    /// Marks per block; `None`: [`Settings::DENSE`] for small pictures, [`Settings::SPARSE`] for
    /// large ones.
    pub density: Option<f64>,
    /// Layouts that take turns, one a group of pictures.
    pub layouts: u32,
    /// Placement.
    pub placement: Placement,
    /// How much brighter or darker a block near black or white may become where its marks have no room
    /// otherwise, in units of luma. 0: such marks are left out, and readers leave out the votes of
    /// blocks that cannot have carried one. So it is in contracts, whose owner does not know the bits.
    pub lift: u8,
}

/// Settings that make no sense.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SettingsError {
    /// Step.
    #[error("step {0}: give a multiple of 4 from 4 to 1000")]
    Step(u32),
    /// Fixed dither.
    #[error("dither {0}: give -1 for a keyed one, or 0 to 1000")]
    Dither(f64),
    /// Coefficients.
    #[error(
        "coefficients {0:?}: give pairs of frequencies from 0 to 7 (vertical, horizontal), each once, like '01 10 11 02 20'"
    )]
    Classes(String),
    /// Density.
    #[error("redundancy {0}: give 0 for automatic, or up to as many marks a block as coefficients")]
    Density(f64),
    /// Coefficients a block.
    #[error("{0} coefficients a block: give 1 to as many as there are, with keyed placement")]
    PerBlock(usize),
    /// Layouts.
    #[error("layouts {0}: give 1 to 64")]
    Layouts(u32),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            step: 100,
            dither: Dither::Keyed,
            classes: [1, 8, 9, 2, 16].map(Class).to_vec(),
            per_block: Some(4),
            density: None,
            layouts: 4,
            placement: Placement::Keyed,
            lift: 16,
        }
    }
}

impl Settings {
    /// Marks per block of pictures with fewer blocks than [`Settings::LARGE`]: the most that leave
    /// 44 dB.
    pub const DENSE: f64 = 0.1875;
    /// Marks per block of others: measured (docs/evaluation.md).
    pub const SPARSE: f64 = 0.12;
    /// Blocks of a large picture: 512×512 pixels have 4,096.
    pub const LARGE: usize = 4_500;

    /// For single pictures: a smaller step suffices against JPEG, and then two to three times as many
    /// marks leave the same PSNR: enough of each bit in a picture of 240×320 too, of which nothing
    /// but itself can be read. Measured (docs/decisions/0003).
    pub fn picture() -> Self {
        Self {
            step: 76,
            per_block: Some(1),
            density: Some(0.3125),
            layouts: 1,
            ..Self::default()
        }
    }

    /// [RTBF]: step 100, dither 25, all AC coefficients of normalised frequency (u+v)/14 < 0.4 of
    /// every block.
    pub fn paper() -> Self {
        let mut classes: Vec<Class> = (0..64)
            .map(Class)
            .filter(|class| {
                let (u, v) = class.frequencies();
                class.index() > 0 && u + v <= 5
            })
            .collect();
        classes.sort_by_key(|class| {
            let (u, v) = class.frequencies();
            (u + v, u)
        });
        Self {
            step: 100,
            dither: Dither::Fixed(25.0),
            density: Some(classes.len() as f64),
            classes,
            per_block: None,
            layouts: 1,
            placement: Placement::Runs,
            lift: 0,
        }
    }

    /// Whether they make sense.
    pub fn check(&self) -> Result<(), SettingsError> {
        if !self.step.is_multiple_of(4) || !(4..=1000).contains(&self.step) {
            return Err(SettingsError::Step(self.step));
        }
        if let Dither::Fixed(dither) = self.dither
            && !(0.0..=1000.0).contains(&dither)
        {
            return Err(SettingsError::Dither(dither));
        }
        let mut classes = self.classes.clone();
        classes.sort();
        classes.dedup();
        if classes.is_empty() || classes.len() != self.classes.len() {
            return Err(SettingsError::Classes(self.classes_text()));
        }
        if let Some(per_block) = self.per_block
            && !(self.placement == Placement::Keyed && (1..=classes.len()).contains(&per_block))
        {
            return Err(SettingsError::PerBlock(per_block));
        }
        if let Some(density) = self.density
            && !(density > 0.0 && density <= self.each() as f64)
        {
            return Err(SettingsError::Density(density));
        }
        match self.layouts {
            1..=64 => Ok(()),
            layouts => Err(SettingsError::Layouts(layouts)),
        }
    }

    /// Takes other coefficients, and no more of a block than there are.
    pub fn set_classes(&mut self, classes: Vec<Class>) {
        self.per_block = self.per_block.map(|most| most.min(classes.len()));
        self.classes = classes;
    }

    /// Coefficients a block that can carry a bit.
    pub fn each(&self) -> usize {
        self.per_block.unwrap_or(self.classes.len())
    }

    /// The classes of those of block (`x`, `y`). Where not all can, the classes take turns, so that
    /// in as many blocks side by side, or one below the other, as there are classes each has its turn
    /// equally often (with five of them; nearly so with other numbers).
    pub fn carriers(&self, x: usize, y: usize) -> impl Iterator<Item = Class> {
        let each = self.each();
        let first = each * (x + 2 * y);
        (first..first + each).map(|i| self.classes[i % self.classes.len()])
    }

    /// The coefficients as text: `01 10 11 02 20`.
    pub fn classes_text(&self) -> String {
        let pairs = self.classes.iter().map(|class| {
            let (u, v) = class.frequencies();
            format!("{u}{v}")
        });
        pairs.collect::<Vec<_>>().join(" ")
    }

    /// Reads what [`Settings::classes_text`] writes; commas may stand for spaces.
    pub fn parse_classes(text: &str) -> Result<Vec<Class>, SettingsError> {
        let wrong = || SettingsError::Classes(text.to_owned());
        let pairs = text.split([' ', ',']).filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| match pair.as_bytes() {
                [u @ b'0'..=b'7', v @ b'0'..=b'7'] => {
                    Class::new(u - b'0', v - b'0').ok_or_else(wrong)
                }
                _ => Err(wrong()),
            })
            .collect()
    }

    /// Marks per block of a picture of `blocks` blocks.
    pub fn density(&self, blocks: usize) -> f64 {
        self.density.unwrap_or(match blocks < Self::LARGE {
            true => Self::DENSE,
            false => Self::SPARSE,
        })
    }
}
