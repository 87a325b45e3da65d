// SPDX-License-Identifier: MPL-2.0
//! The luma of an 8-bit picture, wherever its samples lie in memory: a plane of its own (grey, YUV)
//! or the weighted sum of red, green and blue.
//!
//! Luma of RGB is (19595 R + 38470 G + 7471 B + 2^15) >> 16: ITU-R BT.601 weights, as Pillow's
//! `convert("L")` has them. They sum to 2^16, so that the same number added to all three adds
//! exactly that number to the luma.

/// How one pixel's luma is stored in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Samples {
    /// One byte a pixel, side by side.
    Plane,
    /// Packed pixels of `step` bytes with red, green and blue at these offsets.
    Rgb {
        /// Bytes from one pixel to the next.
        step: usize,
        /// Offsets of red, green and blue in the pixel, each below `step`.
        offsets: [usize; 3],
    },
}

impl Samples {
    fn step(self) -> usize {
        match self {
            Self::Plane => 1,
            Self::Rgb { step, .. } => step,
        }
    }
}

/// The size of a picture and where its rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bytes from one row to the next, at least a row's.
    pub stride: usize,
    /// What a pixel looks like.
    pub samples: Samples,
}

impl Shape {
    /// A plane without padding.
    pub fn plane(width: usize, height: usize) -> Self {
        Self {
            width,
            height,
            stride: width,
            samples: Samples::Plane,
        }
    }

    /// Bytes from the first pixel to the end of the last; `None` where rows would overlap.
    fn bytes(&self) -> Option<usize> {
        let row = self.width.checked_mul(self.samples.step())?;
        let fits = row <= self.stride
            && match self.samples {
                Samples::Plane => true,
                Samples::Rgb { step, offsets } => offsets.iter().all(|&offset| offset < step),
            };
        match self.height {
            _ if !fits => None,
            0 => Some(0),
            height => (height - 1).checked_mul(self.stride)?.checked_add(row),
        }
    }
}

/// The luma of a picture, to read.
#[derive(Clone, Copy, Debug)]
pub struct Luma<'a> {
    data: &'a [u8],
    shape: Shape,
}

/// 8×8 samples in raster order.
pub type Block<T> = [T; 64];

impl<'a> Luma<'a> {
    /// `None` if `data` is shorter than the shape needs or the shape makes no sense.
    pub fn new(data: &'a [u8], shape: Shape) -> Option<Self> {
        (data.len() >= shape.bytes()?).then_some(Self { data, shape })
    }

    /// Its shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.shape.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.shape.height
    }

    /// Writes the luma of row `y` from pixel `x` on, as many as fit, into `out`.
    ///
    /// # Panics
    /// If they are not inside the picture.
    #[inline]
    pub fn read(&self, x: usize, y: usize, out: &mut [u8]) {
        assert!(x + out.len() <= self.shape.width && y < self.shape.height);
        let step = self.shape.samples.step();
        let row = &self.data[y * self.shape.stride + x * step..];
        match self.shape.samples {
            Samples::Plane => out.copy_from_slice(&row[..out.len()]),
            Samples::Rgb { step, offsets } => {
                for (luma, pixel) in out.iter_mut().zip(row.chunks(step)) {
                    *luma = weigh(offsets.map(|offset| pixel[offset]));
                }
            }
        }
    }

    /// A copy.
    pub fn to_plane(&self) -> Plane {
        let (width, height) = (self.shape.width, self.shape.height);
        let mut data = vec![0; width * height];
        if width > 0 {
            for (y, row) in data.chunks_exact_mut(width).enumerate() {
                self.read(0, y, row);
            }
        }
        Plane {
            width,
            height,
            data,
        }
    }

    /// The 8×8 pixels from (`x`, `y`) on.
    ///
    /// # Panics
    /// If they are not inside the picture.
    #[inline]
    pub fn block(&self, x: usize, y: usize) -> Block<i16> {
        let mut bytes = [0; 64];
        for (i, row) in bytes.chunks_exact_mut(8).enumerate() {
            self.read(x, y + i, row);
        }
        bytes.map(i16::from)
    }
}

/// A picture's luma by itself, without padding.
#[derive(Clone, PartialEq, Eq)]
pub struct Plane {
    width: usize,
    height: usize,
    data: Vec<u8>,
}

impl Plane {
    /// `None` unless `data` has `width` × `height` bytes.
    pub fn new(width: usize, height: usize, data: Vec<u8>) -> Option<Self> {
        (width.checked_mul(height)? == data.len()).then_some(Self {
            width,
            height,
            data,
        })
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// All samples in raster order.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// To read like a frame.
    pub fn luma(&self) -> Luma<'_> {
        Luma {
            data: &self.data,
            shape: Shape::plane(self.width, self.height),
        }
    }

    /// To change like a frame.
    pub fn luma_mut(&mut self) -> LumaMut<'_> {
        LumaMut {
            data: &mut self.data,
            shape: Shape::plane(self.width, self.height),
        }
    }
}

/// Not the pixels.
impl std::fmt::Debug for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plane({}x{})", self.width, self.height)
    }
}

/// The luma of a picture, to change.
#[derive(Debug)]
pub struct LumaMut<'a> {
    data: &'a mut [u8],
    shape: Shape,
}

impl<'a> LumaMut<'a> {
    /// `None` if `data` is shorter than the shape needs or the shape makes no sense.
    pub fn new(data: &'a mut [u8], shape: Shape) -> Option<Self> {
        (data.len() >= shape.bytes()?).then_some(Self { data, shape })
    }

    /// To read.
    pub fn as_ref(&self) -> Luma<'_> {
        Luma {
            data: self.data,
            shape: self.shape,
        }
    }

    /// The least that has to be added to every sample of the 8×8 pixels from (`x`, `y`) on besides
    /// `change`, so that none leaves 0..=255; `None` if nothing helps.
    #[inline]
    pub fn shift_that_fits(&self, x: usize, y: usize, change: &Block<i16>) -> Option<i16> {
        let (mut least, mut most) = (i16::MAX, i16::MIN);
        for (i, change) in change.chunks_exact(8).enumerate() {
            self.as_ref().samples(x, y + i, |j, sample| {
                least = least.min(sample + change[j]);
                most = most.max(sample + change[j]);
            });
        }
        let shift = (-least).max(0) + (255 - most).min(0);
        let fits = least + shift >= 0 && most + shift <= 255;
        fits.then_some(shift)
    }

    /// Adds `change` to the luma of the 8×8 pixels from (`x`, `y`) on; for RGB, to all three
    /// colours. The caller has seen to it that nothing leaves 0..=255.
    #[inline]
    pub fn add(&mut self, x: usize, y: usize, change: &Block<i16>) {
        let step = self.shape.samples.step();
        for (i, change) in change.chunks_exact(8).enumerate() {
            let start = (y + i) * self.shape.stride + x * step;
            let row = &mut self.data[start..start + 8 * step];
            match self.shape.samples {
                Samples::Plane => {
                    for (sample, change) in row.iter_mut().zip(change) {
                        *sample = (i16::from(*sample) + change) as u8;
                    }
                }
                Samples::Rgb { step, offsets } => {
                    for (pixel, change) in row.chunks_exact_mut(step).zip(change) {
                        for offset in offsets {
                            pixel[offset] = (i16::from(pixel[offset]) + change) as u8;
                        }
                    }
                }
            }
        }
    }
}

impl Luma<'_> {
    /// Every sample that a change of luma changes, of the 8 pixels from (`x`, `y`) on.
    #[inline]
    fn samples(&self, x: usize, y: usize, mut each: impl FnMut(usize, i16)) {
        let step = self.shape.samples.step();
        let start = y * self.shape.stride + x * step;
        let row = &self.data[start..start + 8 * step];
        match self.shape.samples {
            Samples::Plane => {
                for (j, &sample) in row.iter().enumerate() {
                    each(j, i16::from(sample));
                }
            }
            Samples::Rgb { step, offsets } => {
                for (j, pixel) in row.chunks_exact(step).enumerate() {
                    for offset in offsets {
                        each(j, i16::from(pixel[offset]));
                    }
                }
            }
        }
    }
}

fn weigh([r, g, b]: [u8; 3]) -> u8 {
    let sum = 19595 * u32::from(r) + 38470 * u32::from(g) + 7471 * u32::from(b) + (1 << 15);
    (sum >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_all_colours_is_the_same_change_of_luma() {
        for colour in [[0, 0, 0], [13, 200, 77], [250, 3, 128], [240, 240, 240]] {
            for change in 0..=5 {
                let changed = colour.map(|c: u8| c + change);
                assert_eq!(weigh(changed), weigh(colour) + change);
            }
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let data = [0; 64];
        assert!(Luma::new(&data, Shape::plane(8, 8)).is_some());
        assert!(Luma::new(&data, Shape::plane(8, 9)).is_none());
        let overlapping = Shape {
            stride: 7,
            ..Shape::plane(8, 8)
        };
        assert!(Luma::new(&data, overlapping).is_none());
        let outside = Shape {
            samples: Samples::Rgb {
                step: 3,
                offsets: [0, 1, 3],
            },
            stride: 24,
            ..Shape::plane(8, 2)
        };
        assert!(Luma::new(&data, outside).is_none());
    }
}
