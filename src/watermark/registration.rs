// SPDX-License-Identifier: MPL-2.0
//! Where the original picture is in the one at hand.

use super::votes::tally;
use super::{BLOCK, Class, Layout, Tally};
use crate::luma::{Block, Luma};

/// Where every pixel of the original is in the picture at hand, and what was done to its brightness.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Registration {
    /// Pixel (x, y) of the original is at (m0·x + m1·y + m2, m3·x + m4·y + m5).
    pub map: [f64; 6],
    /// Black is white.
    pub negative: bool,
    /// Contrast against the original's.
    pub contrast: f64,
    /// Standard deviation of the Gaussian that the original was blurred with, in its pixels.
    pub blur: f64,
    /// Size of the original as far as it is known: it decides the automatic density of marks.
    pub size: [usize; 2],
}

impl Registration {
    /// The picture at hand is the original of this size.
    pub fn identity(size: [usize; 2]) -> Self {
        Self {
            map: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            negative: false,
            contrast: 1.0,
            blur: 0.0,
            size,
        }
    }

    /// The picture at hand, `here` in size, is the whole original of size `original`, resized.
    pub fn scaled(here: [usize; 2], original: [usize; 2]) -> Self {
        let [x, y] = [0, 1].map(|axis| here[axis] as f64 / original[axis] as f64);
        // Pixel centres lie at halves.
        let map = [x, 0.0, (x - 1.0) / 2.0, 0.0, y, (y - 1.0) / 2.0];
        Self {
            map,
            ..Self::identity(original)
        }
    }

    /// What was at (`x`, `y`) is now at the origin.
    pub fn cut(mut self, x: f64, y: f64) -> Self {
        self.map[2] -= self.map[0] * x + self.map[1] * y;
        self.map[5] -= self.map[3] * x + self.map[4] * y;
        self
    }

    /// Left and right exchanged in a picture `width` wide.
    pub fn mirrored(mut self, width: usize) -> Self {
        for value in &mut self.map[..3] {
            *value = -*value;
        }
        self.map[2] += width as f64 - 1.0;
        self
    }

    /// Turned by `degrees`, counted from x to y, about the middle of a picture of size `here`.
    pub fn rotated(mut self, here: [usize; 2], degrees: f64) -> Self {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let [x, y] = here.map(|side| (side as f64 - 1.0) / 2.0);
        let [m0, m1, m2, m3, m4, m5] = self.map;
        self.map = [
            cos * m0 - sin * m3,
            cos * m1 - sin * m4,
            cos * (m2 - x) - sin * (m5 - y) + x,
            sin * m0 + cos * m3,
            sin * m1 + cos * m4,
            sin * (m2 - x) + cos * (m5 - y) + y,
        ];
        self
    }

    /// Black and white exchanged.
    pub fn inverted(mut self) -> Self {
        self.negative = !self.negative;
        self
    }

    /// What the coefficient of a class has to be multiplied with. A Gaussian of standard deviation σ
    /// lowers a wave of f periods a pixel to exp(−2π²σ²f²); frequency u of a block has u/16.
    fn gain(&self, class: Class) -> f64 {
        let (u, v) = class.frequencies();
        let square = (u * u + v * v) as f64 / 256.0;
        (2.0 * (std::f64::consts::PI * self.blur).powi(2) * square).exp() / self.contrast
    }

    /// Where a pixel of the original is.
    pub fn at(&self, x: f64, y: f64) -> [f64; 2] {
        let [m0, m1, m2, m3, m4, m5] = self.map;
        [m0 * x + m1 * y + m2, m3 * x + m4 * y + m5]
    }

    /// How much larger the picture at hand is, in each direction.
    pub fn scale(&self) -> [f64; 2] {
        [
            self.map[0].hypot(self.map[3]),
            self.map[1].hypot(self.map[4]),
        ]
    }

    /// Degrees by which it is turned.
    pub fn rotation(&self) -> f64 {
        let mirrored = self.map[0] * self.map[4] < self.map[1] * self.map[3];
        (-self.map[1]).atan2(self.map[4]).to_degrees() * if mirrored { -1.0 } else { 1.0 }
    }

    /// Whether left and right are exchanged.
    pub fn is_mirrored(&self) -> bool {
        self.map[0] * self.map[4] - self.map[1] * self.map[3] < 0.0
    }

    /// The pixel of the original that is in the corner of the picture at hand.
    pub fn corner(&self) -> [f64; 2] {
        self.origin_of([0.0; 2]).unwrap_or_default()
    }

    /// The pixel of the original that is here; nothing if the map is none that can be undone.
    pub(super) fn origin_of(&self, [x, y]: [f64; 2]) -> Option<[f64; 2]> {
        let [m0, m1, m2, m3, m4, m5] = self.map;
        let determinant = m0 * m4 - m1 * m3;
        let (x, y) = (x - m2, y - m5);
        (determinant != 0.0).then(|| {
            [
                (m4 * x - m1 * y) / determinant,
                (m0 * y - m3 * x) / determinant,
            ]
        })
    }

    /// The votes of all marks that are inside the picture at hand. Between pixels samples are
    /// interpolated by Catmull-Rom splines.
    pub fn tally(&self, picture: &Luma, layout: &Layout) -> Tally {
        match *self == Self::identity(self.size) {
            true => tally(picture, layout),
            false => {
                let gains = std::array::from_fn(|i| {
                    Class::new((i / BLOCK) as u8, (i % BLOCK) as u8).map_or(1.0, |c| self.gain(c))
                });
                Tally::read(layout, &gains, |corner| {
                    self.block(picture, corner.map(|side| side as f64))
                })
            }
        }
    }

    fn block(&self, picture: &Luma, [x, y]: [f64; 2]) -> Option<Block<f64>> {
        let far = BLOCK as f64 - 1.0;
        let (right, bottom) = (picture.width() as f64 - 0.5, picture.height() as f64 - 0.5);
        let inside = [(0.0, 0.0), (far, 0.0), (0.0, far), (far, far)]
            .iter()
            .all(|(dx, dy)| {
                let [x, y] = self.at(x + dx, y + dy);
                x >= -0.5 && y >= -0.5 && x <= right && y <= bottom
            });
        inside.then(|| {
            std::array::from_fn(|i| {
                let [x, y] = self.at(x + (i % BLOCK) as f64, y + (i / BLOCK) as f64);
                let sample = sample(picture, x, y);
                if self.negative {
                    255.0 - sample
                } else {
                    sample
                }
            })
        })
    }
}

/// The picture between its pixels.
pub(super) fn sample(picture: &Luma, x: f64, y: f64) -> f64 {
    let (left, top) = (x.floor(), y.floor());
    let (across, down) = (weights(x - left), weights(y - top));
    let (left, top) = (left as isize - 1, top as isize - 1);
    let (width, height) = (picture.width() as isize, picture.height() as isize);
    let mut rows = [[0u8; 4]; 4];
    let inside = left >= 0 && top >= 0 && left + 4 <= width && top + 4 <= height;
    for (i, row) in rows.iter_mut().enumerate() {
        let y = top + i as isize;
        if inside {
            picture.read(left as usize, y as usize, row);
        } else {
            let y = y.clamp(0, height - 1) as usize;
            for (j, pixel) in row.iter_mut().enumerate() {
                let x = (left + j as isize).clamp(0, width - 1) as usize;
                picture.read(x, y, std::slice::from_mut(pixel));
            }
        }
    }
    let rows = rows.map(|row| (0..4).map(|j| across[j] * f64::from(row[j])).sum::<f64>());
    (0..4).map(|i| down[i] * rows[i]).sum()
}

/// Catmull-Rom weights of the four neighbours of a point `t` behind the second.
pub(super) fn weights(t: f64) -> [f64; 4] {
    [
        ((2.0 - t) * t - 1.0) * t / 2.0,
        ((3.0 * t - 5.0) * t * t + 2.0) / 2.0,
        ((4.0 - 3.0 * t) * t + 1.0) * t / 2.0,
        (t - 1.0) * t * t / 2.0,
    ]
}
