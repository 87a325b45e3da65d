// SPDX-License-Identifier: MPL-2.0
//! Finding where the original is in a picture that was cut, resized, mirrored, inverted or turned.
//!
//! Blindly: of all ways to lay the marks over the picture, the one under which the votes of each bit
//! agree best ([`Votes::score`](super::Votes::score)). That number does not depend on the sign of any
//! bit, so trying many ways makes no watermark more likely than another (docs/security.md, "False
//! accusation").
//!
//! A single frame decides a first guess, other frames confirm it. Shifts are tried all at once: the
//! coefficients of 8×8 blocks at *every* pixel are computed first, and each mark then votes for a
//! row of shifts in one run through memory.

use super::basis::exact;
use super::registration::sample;
use super::{BITS, BLOCK, Key, Layout, Registration, Settings, Tally, Votes};
use crate::luma::Plane;
use std::sync::atomic::{AtomicBool, Ordering};

/// Score of a single frame that is worth a second look.
const WORTH_A_LOOK: f64 = 4.5;

/// Combined score of all frames that settles it.
const SETTLED: f64 = 7.5;

/// Largest part of a side that may have been cut off.
const CUT: f64 = 0.32;

/// Sizes against the original's that are tried.
const SCALES: std::ops::RangeInclusive<f64> = 0.48..=1.55;

/// Largest rotation that is tried, in degrees.
const ROTATION: f64 = 3.2;

/// A search for the original.
pub struct Search {
    /// Frames of one video, all of one size, best some time apart.
    pub frames: Vec<Plane>,
    /// Size of the original, where it is known.
    pub original: Option<[usize; 2]>,
    /// Key.
    pub key: Key,
    /// Settings.
    pub settings: Settings,
}

/// A registration and how well it fits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// The registration.
    pub registration: Registration,
    /// Score over all frames, in standard deviations of chance.
    pub score: f64,
}

impl Search {
    /// The best registration, if one settles it before `stop` is set.
    pub fn run(&self, stop: &AtomicBool) -> Option<Found> {
        let first = self.frames.first()?;
        let here = [first.width(), first.height()];
        let mut attempt = Attempt {
            search: self,
            here,
            stop,
            layouts: Vec::new(),
            best: None,
        };
        // From cheap to dear; each ends early once something is settled.
        attempt.whole_picture();
        attempt.shifted(1.0);
        attempt.resized();
        attempt.turned();
        attempt.resized_and_shifted();
        attempt.best.filter(|found| found.score >= SETTLED)
    }
}

/// What one frame said under its best layout.
struct Reading {
    score: f64,
    layout: usize,
    tally: Tally,
}

struct Attempt<'a> {
    search: &'a Search,
    here: [usize; 2],
    stop: &'a AtomicBool,
    /// All layouts of the density they were last made for, large enough for any original.
    layouts: Vec<(Vec<Layout>, f64)>,
    best: Option<Found>,
}

/// Mirrored or not, negative or not.
const KINDS: [[bool; 2]; 4] = [[false, false], [true, false], [false, true], [true, true]];

impl Attempt<'_> {
    fn over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.best.is_some_and(|found| found.score >= SETTLED)
    }

    /// The layouts for an original of this size.
    fn layouts(&mut self, size: [usize; 2]) -> usize {
        let settings = &self.search.settings;
        let density = settings.density(size[0] / BLOCK * (size[1] / BLOCK));
        if let Some(i) = self.layouts.iter().position(|(_, d)| *d == density) {
            return i;
        }
        let settings = Settings {
            density: Some(density),
            ..settings.clone()
        };
        let most = self
            .here
            .map(|side| (side as f64 / (1.0 - CUT) / SCALES.start()) as usize + 64);
        let [width, height] = [0, 1].map(|axis| match self.search.original {
            Some(original) => original[axis],
            None => most[axis],
        });
        let layouts = (0..settings.layouts)
            .map(|epoch| Layout::new(&self.search.key, epoch, &settings, width, height))
            .collect();
        self.layouts.push((layouts, density));
        self.layouts.len() - 1
    }

    fn kind(&self, registration: Registration, [mirrored, negative]: [bool; 2]) -> Registration {
        let registration = match mirrored {
            true => registration.mirrored(self.here[0]),
            false => registration,
        };
        Registration {
            negative,
            ..registration
        }
    }

    /// The best layout's score in one frame, and what its marks said.
    fn score(&self, frame: usize, registration: &Registration, layouts: usize) -> Reading {
        let frame = self.search.frames[frame].luma();
        let mut best = None;
        for (i, layout) in self.layouts[layouts].0.iter().enumerate() {
            let (mut votes, tally) = (Votes::default(), registration.tally(&frame, layout));
            votes.add(layout, &tally);
            let score = votes.score();
            if best
                .as_ref()
                .is_none_or(|best: &Reading| score > best.score)
            {
                best = Some(Reading {
                    score,
                    layout: i,
                    tally,
                });
            }
        }
        best.expect("settings have at least one layout")
    }

    /// The score of all frames together. Frames of a still scene add nothing to each other: marks
    /// are added up over frames before they are compared.
    fn combined(&self, registration: &Registration, layouts: usize) -> f64 {
        let layouts_here = &self.layouts[layouts].0;
        let mut tallies: Vec<Tally> = layouts_here.iter().map(Tally::new).collect();
        for frame in 0..self.search.frames.len() {
            let reading = self.score(frame, registration, layouts);
            tallies[reading.layout].add(&reading.tally, 1.0);
        }
        let mut votes = Votes::default();
        for (layout, tally) in layouts_here.iter().zip(&tallies) {
            votes.add(layout, tally);
        }
        votes.score()
    }

    /// Takes a guess that looked good in one frame to all frames, and betters it.
    fn consider(&mut self, registration: Registration) {
        let layouts = self.layouts(registration.size);
        let mut found = Found {
            score: self.combined(&registration, layouts),
            registration,
        };
        // Nothing to better where every frame but the first says no.
        let promising = WORTH_A_LOOK.max(self.best.map_or(0.0, |best| best.score));
        if found.score >= promising {
            for step in [1.0, 0.5, 0.25] {
                while self.better(&mut found, step, layouts) && !self.stop.load(Ordering::Relaxed) {
                }
            }
        }
        if self.best.is_none_or(|best| found.score > best.score) {
            self.best = Some(found);
        }
    }

    /// Moves the corners of the picture by `step` pixels in every way; true if one was better.
    fn better(&self, found: &mut Found, step: f64, layouts: usize) -> bool {
        let [width, height] = found.registration.size.map(|side| side.max(1) as f64);
        // A pixel of shift, and what moves the far edge by a pixel.
        let moves = [
            [0.0, 0.0, 1.0, 0.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 0.0, 0.0, 1.0],
            [1.0 / width, 0.0, 0.0, 0.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 0.0, 1.0 / height, 0.0],
            [0.0, 1.0 / height, 0.0, -1.0 / height, 0.0, 0.0],
        ];
        let mut improved = false;
        for direction in moves {
            for sign in [step, -step] {
                let mut registration = found.registration;
                for (value, change) in registration.map.iter_mut().zip(direction) {
                    *value += sign * change;
                }
                let score = self.combined(&registration, layouts);
                if score > found.score * 1.001 {
                    *found = Found {
                        registration,
                        score,
                    };
                    improved = true;
                    break;
                }
            }
        }
        improved
    }

    /// Nothing cut off, same size: as it is, mirrored, negative.
    fn whole_picture(&mut self) {
        let size = self.search.original.unwrap_or(self.here);
        for kind in KINDS {
            if self.over() {
                return;
            }
            self.consider(self.kind(Registration::scaled(self.here, size), kind));
        }
    }

    /// Nothing cut off, another size.
    fn resized(&mut self) {
        if self.search.original.is_some() {
            return;
        }
        let [width, height] = self.here.map(|side| side as f64);
        let widths = (width / SCALES.end()).ceil() as usize..=(width / SCALES.start()) as usize;
        for kind in KINDS {
            let mut guesses = Vec::new();
            for width_before in widths.clone().step_by((width / 768.0).ceil() as usize) {
                if self.over() {
                    return;
                }
                let height_before = (height * width_before as f64 / width).round() as usize;
                let size = [width_before, height_before];
                let layouts = self.layouts(size);
                let guess = self.kind(Registration::scaled(self.here, size), kind);
                guesses.push((self.score(0, &guess, layouts).score, guess));
            }
            self.consider_best(guesses);
        }
    }

    /// Considers the few most promising.
    fn consider_best(&mut self, mut guesses: Vec<(f64, Registration)>) {
        guesses.retain(|(score, _)| *score >= WORTH_A_LOOK);
        guesses.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (_, guess) in guesses.into_iter().take(12) {
            if self.over() {
                return;
            }
            self.consider(guess);
        }
    }

    /// Cut off at any side, `scale` times as large as the original.
    fn shifted(&mut self, scale: f64) {
        // The size decides nothing but the density where the original's is not known.
        let sizes = match self.search.original {
            Some(size) => vec![size],
            None => vec![
                self.here,
                self.here.map(|side| (side as f64 / (1.0 - CUT)) as usize),
            ],
        };
        let mut done = Vec::new();
        for size in sizes {
            let layouts = self.layouts(size);
            if done.contains(&layouts) {
                continue;
            }
            done.push(layouts);
            for kind in KINDS {
                if self.over() {
                    return;
                }
                let base = Registration {
                    map: [
                        scale,
                        0.0,
                        (scale - 1.0) / 2.0,
                        0.0,
                        scale,
                        (scale - 1.0) / 2.0,
                    ],
                    ..Registration::identity(size)
                };
                let base = self.kind(base, kind);
                let most = self.here.map(|side| side as f64 / scale);
                let range = [0, 1].map(|axis| match self.search.original {
                    Some(original) => original[axis] as f64 - most[axis],
                    None => most[axis] * CUT / (1.0 - CUT),
                });
                let range = range.map(|most| (0, most.max(0.0).ceil() as i32 + 1));
                let guesses = self.slide(base, range, layouts);
                self.consider_best(guesses);
            }
        }
    }

    fn resized_and_shifted(&mut self) {
        // A step moves the far edge of 512 pixels by two: the middle still fits. From no change on
        // outwards, larger first: what was cut is often brought back to its size.
        let steps = 1.004f64;
        let count = (-SCALES.start().ln() / steps.ln()) as i32;
        for step in (1..=count).flat_map(|step| [step, -step]) {
            let scale = steps.powi(step);
            if self.over() {
                return;
            }
            if SCALES.contains(&scale) {
                self.shifted(scale);
            }
        }
    }

    /// Turned a little about its middle, same size.
    fn turned(&mut self) {
        let size = self.search.original.unwrap_or(self.here);
        let layouts = self.layouts(size);
        let steps = (ROTATION / 0.15) as i32;
        for step in (1..=steps).flat_map(|step| [step, -step]) {
            if self.over() {
                return;
            }
            let base = Registration::scaled(self.here, size);
            let base = base.rotated(self.here, f64::from(step) * 0.15);
            let guesses = self.slide(base, [(-12, 12); 2], layouts);
            self.consider_best(guesses);
        }
    }

    /// Scores of every shift of `base` by whole pixels of the original within `range` (x and y), in
    /// the first frame; the best few of each row of shifts.
    fn slide(
        &self,
        base: Registration,
        range: [(i32, i32); 2],
        layouts: usize,
    ) -> Vec<(f64, Registration)> {
        let canvas = Canvas::new(&self.search.frames[0], &base, &self.search.settings);
        let mut guesses = Vec::new();
        for layout in &self.layouts[layouts].0 {
            canvas.slide(layout, range, self.stop, |score, x, y| {
                if score >= WORTH_A_LOOK {
                    guesses.push((score, base.cut(f64::from(x), f64::from(y))));
                }
            });
        }
        guesses
    }
}

/// The coefficients of the 8×8 block at every pixel of a frame that was laid out like the original.
struct Canvas {
    width: usize,
    height: usize,
    /// By class index; empty where no mark has it.
    maps: Vec<Vec<f32>>,
}

impl Canvas {
    fn new(frame: &Plane, base: &Registration, settings: &Settings) -> Self {
        // As much of the original's scale as the frame fills.
        let [across, down] = base.scale();
        let width = (frame.width() as f64 / across) as usize;
        let height = (frame.height() as f64 / down) as usize;
        let luma = frame.luma();
        let sign = if base.negative { -1.0 } else { 1.0 };
        // Where the frame is in the original does not matter yet: its own corner is the origin,
        // unless it is mirrored or turned about its middle, which the map says.
        let pixels: Vec<f32> = (0..width * height)
            .map(|i| {
                let [x, y] = base.at((i % width) as f64, (i / width) as f64);
                (sign * sample(&luma, x, y)) as f32
            })
            .collect();
        let mut maps = vec![Vec::new(); 64];
        let (wide, high) = (
            (width + 1).saturating_sub(BLOCK),
            (height + 1).saturating_sub(BLOCK),
        );
        for class in &settings.classes {
            // The basis is a product: its first row and column, scaled, are the factors.
            let (row, column) = factors(exact(*class));
            let mut across = vec![0.0f32; wide * height];
            for y in 0..height {
                let from = &pixels[y * width..(y + 1) * width];
                let to = &mut across[y * wide..(y + 1) * wide];
                for (k, weight) in row.iter().enumerate() {
                    for (to, from) in to.iter_mut().zip(&from[k..]) {
                        *to += weight * from;
                    }
                }
            }
            let mut map = vec![0.0f32; wide * high];
            for y in 0..high {
                let to = &mut map[y * wide..(y + 1) * wide];
                for (k, weight) in column.iter().enumerate() {
                    let from = &across[(y + k) * wide..(y + k + 1) * wide];
                    for (to, from) in to.iter_mut().zip(from) {
                        *to += weight * from;
                    }
                }
            }
            maps[class.index()] = map;
        }
        Self {
            width: wide,
            height: high,
            maps,
        }
    }

    /// Calls `each` with the score and the shift (x, y), so that what the canvas has at (0, 0) is at
    /// (x, y) in the original.
    fn slide(
        &self,
        layout: &Layout,
        [(left, right), (top, bottom)]: [(i32, i32); 2],
        stop: &AtomicBool,
        mut each: impl FnMut(f64, i32, i32),
    ) {
        const ROUND: f32 = 12_582_912.0; // 1.5·2^23: adding and taking it off rounds to an integer
        let count = (right - left + 1) as usize;
        let (step, half) = (layout.step() as f32, layout.step() as f32 / 2.0);
        let mut sums = vec![0.0f32; BITS * count];
        let mut squares = vec![0.0f32; count];
        let mut marks_at = vec![0.0f32; count];
        for shift_y in top..=bottom {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            sums.fill(0.0);
            squares.fill(0.0);
            marks_at.fill(0.0);
            for mark in layout.marks() {
                let y = i32::from(mark.y) * BLOCK as i32 - shift_y;
                let map = &self.maps[mark.class.index()];
                if y < 0 || y >= self.height as i32 || map.is_empty() {
                    continue;
                }
                // Shift x reads column mark − x: the shifts that stay inside, and their columns.
                let column = i32::from(mark.x) * BLOCK as i32;
                let first = left.max(column - self.width as i32 + 1);
                let last = right.min(column);
                if first > last {
                    continue;
                }
                let from = y as usize * self.width + (column - last) as usize;
                let values = &map[from..from + (last - first + 1) as usize];
                // Shifts are kept from right to left, as the columns run.
                let at = (right - last) as usize;
                let range = at..at + values.len();
                let bit = usize::from(mark.bit) * count;
                let sums = &mut sums[bit + at..bit + at + values.len()];
                let squares = &mut squares[range.clone()];
                let marks_at = &mut marks_at[range];
                let offset = f32::from(mark.dither) / 16.0;
                for (((value, sum), square), marks) in
                    values.iter().zip(sums).zip(squares).zip(marks_at)
                {
                    let phase = (value - offset) / step;
                    let nearest = (phase + ROUND) - ROUND;
                    let u = 2.0 * (phase - nearest).abs() * step - half;
                    *sum += u;
                    *square += u * u;
                    *marks += 1.0;
                }
            }
            for at in 0..count {
                // Fewer marks than bits say nothing.
                if marks_at[at] < BITS as f32 {
                    continue;
                }
                let energy: f32 = (0..BITS).map(|bit| sums[bit * count + at].powi(2)).sum();
                // As in Votes::score, with the same share of the squares for each bit.
                let deviation = squares[at] * (2.0 / BITS as f32).sqrt();
                let score = (energy - squares[at]) / deviation;
                each(f64::from(score), right - at as i32, shift_y);
            }
        }
    }
}

/// The horizontal and vertical factor of a basis picture.
fn factors(basis: &[f64; 64]) -> ([f32; 8], [f32; 8]) {
    // The corner is nowhere zero: a_k(0) = s_k·cos(kπ/16).
    let corner = basis[0];
    let row = std::array::from_fn(|x| basis[x] as f32);
    let column = std::array::from_fn(|y| (basis[8 * y] / corner) as f32);
    (row, column)
}
