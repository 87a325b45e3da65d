// SPDX-License-Identifier: MPL-2.0
//! Finding where the original is in a picture that was cut, resized, mirrored, inverted or turned.
//!
//! Blindly: of all ways to lay the marks over the picture, the one under which the votes of each bit
//! agree best ([`Votes::score`]) and the coefficients lie nearest to the lattices
//! ([`Votes::nearness`]). Neither number depends on the sign of any bit, so trying many ways makes no
//! watermark more likely than another (docs/security.md, "False accusation").
//!
//! A single frame decides a first guess ([`super::canvas`] tries all shifts at once), the other
//! frames confirm it. What is likely and cheap comes first, and all of it ends after a fixed amount
//! of work.

use super::canvas::{Canvas, Pixels, Range};
use super::votes::fit;
use super::{BLOCK, Dither, Key, Layout, Registration, Settings, Tally, Votes};
use crate::luma::Plane;
use std::sync::atomic::{AtomicBool, Ordering};

/// Score of a single frame that is worth a second look.
const WORTH_A_LOOK: f64 = 4.5;

/// The same where very many ways are tried.
const WORTH_A_LOOK_OF_MANY: f64 = 5.2;

/// Combined score of all frames that settles it. The best of all that a whole search tries had at
/// most 5.5 in three searches through a clip without the mark.
const SETTLED: f64 = 6.5;

/// Largest part of a side that may have been cut off.
const CUT: f64 = 0.32;

/// Sizes against the original's that are tried.
const SCALES: std::ops::RangeInclusive<f64> = 0.48..=1.55;

/// Largest rotation that is tried, in degrees.
const ROTATION: f64 = 3.2;

/// Votes of marks that a whole search may count: about a minute.
const WORK: u64 = 100_000_000_000;

/// Sizes that videos mostly have.
const COMMON: [[usize; 2]; 28] = [
    [1920, 1080],
    [1280, 720],
    [3840, 2160],
    [2560, 1440],
    [640, 480],
    [640, 360],
    [704, 576],
    [720, 576],
    [720, 480],
    [768, 432],
    [768, 576],
    [800, 600],
    [854, 480],
    [960, 540],
    [1024, 576],
    [1024, 768],
    [1280, 960],
    [1280, 1024],
    [1600, 1200],
    [2048, 1536],
    [2304, 1296],
    [2592, 1944],
    [2688, 1520],
    [3072, 2048],
    [352, 288],
    [320, 240],
    [384, 216],
    [480, 270],
];

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
        // Those that show most first: a black frame says nothing.
        let mut frames: Vec<(usize, &Plane)> = self
            .frames
            .iter()
            .filter(|frame| [frame.width(), frame.height()] == here)
            .map(|frame| (visible(frame), frame))
            .filter(|(visible, _)| *visible > 0)
            .collect();
        frames.sort_by_key(|(visible, _)| std::cmp::Reverse(*visible));
        let mean = mean(&self.frames, here);
        let mut attempt = Attempt {
            search: self,
            keyed: self.settings.dither == Dither::Keyed,
            frames: frames.into_iter().map(|(_, frame)| frame).collect(),
            here,
            stop,
            layouts: Vec::new(),
            best: None,
            work: 0,
        };
        if attempt.frames.is_empty() {
            return None;
        }
        // From likely and cheap to dear; each ends early once something is settled.
        attempt.whole_picture();
        attempt.shifted(1.0, 0, &KINDS);
        // All frames in one: of a noisy scene every single one may say too little.
        if let Some(mean) = mean.as_ref().filter(|_| attempt.frames.len() > 1) {
            let frames = std::mem::replace(&mut attempt.frames, vec![mean]);
            attempt.shifted(1.0, 0, &KINDS[..1]);
            attempt.frames = frames;
        }
        attempt.resized();
        attempt.turned();
        // Another frame may show the marks better, or those of another layout.
        for frame in [1, 2] {
            attempt.shifted(1.0, frame, &KINDS);
        }
        attempt.resized_and_shifted(&KINDS[..1]);
        attempt.resized_and_shifted(&KINDS[1..]);
        attempt.best.filter(|found| found.score >= SETTLED)
    }
}

/// The mean of the frames of this size.
fn mean(frames: &[Plane], [width, height]: [usize; 2]) -> Option<Plane> {
    let mut sums = vec![0u32; width * height];
    let mut count = 0;
    let same = |frame: &&Plane| [frame.width(), frame.height()] == [width, height];
    for frame in frames.iter().filter(same) {
        for (sum, &pixel) in sums.iter_mut().zip(frame.data()) {
            *sum += u32::from(pixel);
        }
        count += 1;
    }
    let mean = |sum: u32| ((sum + count / 2) / count.max(1)) as u8;
    Plane::new(width, height, sums.into_iter().map(mean).collect())
}

/// Pixels of a coarse grid that are far enough from black and white to carry marks.
fn visible(frame: &Plane) -> usize {
    let rows = frame.data().chunks_exact(frame.width().max(1)).step_by(8);
    let pixels = rows.flat_map(|row| row.iter().step_by(8));
    pixels.filter(|pixel| (10..=245).contains(*pixel)).count()
}

/// What one frame said under its best layout.
struct Reading {
    score: f64,
    nearness: f64,
    layout: usize,
    tally: Tally,
}

struct Attempt<'a> {
    search: &'a Search,
    /// Whether dithers come from the key.
    keyed: bool,
    /// All of one size, the best first.
    frames: Vec<&'a Plane>,
    here: [usize; 2],
    stop: &'a AtomicBool,
    /// All layouts of the density they were last made for, large enough for any original.
    layouts: Vec<(Vec<Layout>, f64)>,
    best: Option<Found>,
    /// Votes counted so far, of [`WORK`].
    work: u64,
}

/// Mirrored or not, negative or not.
const KINDS: [[bool; 2]; 4] = [[false, false], [true, false], [false, true], [true, true]];

/// Which layout's turn it is, frame by frame.
type Turns = Vec<usize>;

impl Attempt<'_> {
    fn over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
            || self.work > WORK
            || self.best.is_some_and(|found| found.score >= SETTLED)
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

    /// Both numbers in one, of a frame or the mean of several.
    fn fit(&self, score: f64, nearness: f64) -> f64 {
        fit(score, nearness, self.search.settings.dither)
    }

    /// What one frame says under the layout that fits best, or under the one whose turn it is, if that
    /// is known; nothing without layouts.
    fn read(
        &self,
        frame: &Plane,
        registration: &Registration,
        layouts: usize,
        turn: Option<usize>,
    ) -> Option<Reading> {
        let layouts = self.layouts[layouts].0.iter().enumerate();
        let layouts = layouts.filter(|(i, _)| turn.is_none_or(|turn| turn == *i));
        let readings = layouts.map(|(i, layout)| {
            let (mut votes, tally) = (Votes::default(), registration.tally(&frame.luma(), layout));
            votes.add(layout, &tally);
            let nearness = votes.nearness();
            Reading {
                score: self.fit(votes.score(), nearness),
                nearness,
                layout: i,
                tally,
            }
        });
        readings.max_by(|a, b| a.score.total_cmp(&b.score))
    }

    /// The score of all frames together. Frames of a still scene add nothing to each
    /// other: marks are added up over frames before they are compared, and of the nearness the mean
    /// counts. Whose turn it is in each frame is left in `turns`, or taken from there: a little way
    /// off it is the same.
    fn combined(&mut self, registration: &Registration, layouts: usize, turns: &mut Turns) -> f64 {
        let mut tallies: Vec<Tally> = self.layouts[layouts].0.iter().map(Tally::new).collect();
        let mut nearness = 0.0;
        for (i, frame) in self.frames.iter().enumerate() {
            let turn = turns.get(i).copied();
            let Some(reading) = self.read(frame, registration, layouts, turn) else {
                return 0.0;
            };
            if turn.is_none() {
                turns.push(reading.layout);
            }
            // Nothing to expect of the rest.
            if i == 0 && reading.score < WORTH_A_LOOK / 2.0 {
                return 0.0;
            }
            tallies[reading.layout].add(&reading.tally, 1.0);
            nearness += reading.nearness;
        }
        let mut votes = Votes::default();
        for (layout, tally) in self.layouts[layouts].0.iter().zip(&tallies) {
            votes.add(layout, tally);
            // About as long as so many votes of a slide take.
            self.work += 40 * self.frames.len() as u64 * layout.marks().len() as u64;
        }
        self.fit(votes.score(), nearness / self.frames.len() as f64)
    }

    /// Takes a guess that looked good in one frame to all frames, and betters it.
    fn consider(&mut self, registration: Registration) {
        let layouts = self.layouts(registration.size);
        let mut turns = Turns::new();
        let mut found = Found {
            score: self.combined(&registration, layouts, &mut turns),
            registration,
        };
        // Nothing to better where every frame but the first says no.
        let promising = (WORTH_A_LOOK - 1.0).max(self.best.map_or(0.0, |best| best.score - 2.0));
        if found.score >= promising {
            for step in [1.0, 0.5, 0.25] {
                while self.better(&mut found, step, layouts, &mut turns)
                    && !self.stop.load(Ordering::Relaxed)
                {}
            }
        }
        if self.best.is_none_or(|best| found.score > best.score) {
            self.best = Some(found);
        }
    }

    /// Moves the corners of the picture by `step` pixels in every way; true if one was better.
    fn better(&mut self, found: &mut Found, step: f64, layouts: usize, turns: &mut Turns) -> bool {
        let [width, height] = found.registration.size.map(|side| side.max(1) as f64);
        // A pixel of shift, what moves the far edges by a pixel, one and both, and a turn.
        let (x, y) = (1.0 / width, 1.0 / height);
        let moves = [
            [0.0, 0.0, 1.0, 0.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 0.0, 0.0, 1.0],
            [x, 0.0, 0.0, 0.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 0.0, y, 0.0],
            [x, 0.0, 0.0, 0.0, x, 0.0],
            [0.0, y, 0.0, -y, 0.0, 0.0],
        ];
        // The point that stays where it is: the middle of the picture.
        let middle = self.here.map(|side| side as f64 / 2.0);
        let mut improved = false;
        for direction in moves {
            for sign in [step, -step] {
                let mut registration = found.registration;
                let before = registration.origin_of(middle);
                for (value, change) in registration.map.iter_mut().zip(direction) {
                    *value += sign * change;
                }
                if direction[2] == 0.0
                    && direction[5] == 0.0
                    && let Some([x, y]) = before
                {
                    let [to_x, to_y] = registration.at(x, y);
                    registration.map[2] += middle[0] - to_x;
                    registration.map[5] += middle[1] - to_y;
                }
                let score = self.combined(&registration, layouts, turns);
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

    /// Nothing cut off, another size: first the sizes that videos mostly have, then all.
    fn resized(&mut self) {
        if self.search.original.is_some() {
            return;
        }
        let here = self.here.map(|side| side as f64);
        let common = COMMON
            .into_iter()
            .filter(|size| (0..2).all(|i| SCALES.contains(&(here[i] / size[i] as f64))))
            .collect();
        self.of_sizes(common);
        // A step moves the far edge by no more than a pixel of 768.
        let widths = (here[0] / SCALES.end()).ceil() as usize..=(here[0] / SCALES.start()) as usize;
        let sizes = widths
            .step_by((here[0] / 768.0).ceil().max(1.0) as usize)
            .map(|width| {
                let height = (here[1] * width as f64 / here[0]).round() as usize;
                [width, height]
            })
            .collect();
        self.of_sizes(sizes);
    }

    fn of_sizes(&mut self, sizes: Vec<[usize; 2]>) {
        let mut guesses = Vec::new();
        for size in sizes {
            if self.over() {
                return;
            }
            let layouts = self.layouts(size);
            for mirrored in [false, true] {
                let guess = self.kind(Registration::scaled(self.here, size), [mirrored, false]);
                let pixels = Pixels::new(self.frames[0], &guess);
                self.work += 5 * (pixels.width * pixels.height) as u64;
                for layout in &self.layouts[layouts].0 {
                    let [positive, negative] = pixels.score(layout, self.keyed);
                    guesses.push((positive, guess));
                    guesses.push((negative, guess.inverted()));
                }
            }
        }
        self.consider_best(guesses, WORTH_A_LOOK);
    }

    /// Considers the few most promising.
    fn consider_best(&mut self, mut guesses: Vec<(f64, Registration)>, least: f64) {
        guesses.retain(|(score, _)| *score >= least);
        guesses.sort_by(|a, b| b.0.total_cmp(&a.0));
        let few = if least > WORTH_A_LOOK { 3 } else { 12 };
        for (_, guess) in guesses.into_iter().take(few) {
            if self.over() {
                return;
            }
            self.consider(guess);
        }
    }

    /// Cut off at any side, `scale` times as large as the original.
    fn shifted(&mut self, scale: f64, frame: usize, kinds: &[[bool; 2]]) {
        let Some(&frame) = self.frames.get(frame) else {
            return;
        };
        let filled = self.here.map(|side| side as f64 / scale);
        let range = [0, 1].map(|axis| match self.search.original {
            Some(original) => original[axis] as f64 - filled[axis],
            None => filled[axis] * CUT / (1.0 - CUT),
        });
        // More than the original was cannot be left.
        if range.iter().any(|&most| most < -2.0) {
            return;
        }
        let range = range.map(|most| (0, most.max(0.0).ceil() as i32 + 1));
        // The size decides nothing but the density where the original's is not known.
        let sizes = match self.search.original {
            Some(size) => vec![size],
            None => [1.0, 1.0 - CUT]
                .map(|part| filled.map(|side| (side / part) as usize))
                .to_vec(),
        };
        let mut done = Vec::new();
        for size in sizes {
            let layouts = self.layouts(size);
            if done.contains(&layouts) {
                continue;
            }
            done.push(layouts);
            let least = if scale == 1.0 {
                WORTH_A_LOOK
            } else {
                WORTH_A_LOOK_OF_MANY
            };
            for &kind in kinds {
                if self.over() {
                    return;
                }
                let middle = (scale - 1.0) / 2.0;
                let base = Registration {
                    map: [scale, 0.0, middle, 0.0, scale, middle],
                    ..Registration::identity(size)
                };
                let guesses = self.slide(frame, self.kind(base, kind), range, layouts, least);
                self.consider_best(guesses, least);
            }
        }
    }

    fn resized_and_shifted(&mut self, kinds: &[[bool; 2]]) {
        // A step moves the edges of 512 pixels by one. From no change on outwards, larger first:
        // what was cut is often brought back to its size.
        let steps = 1.004f64;
        let count = (-SCALES.start().ln() / steps.ln()) as i32;
        for step in (1..=count).flat_map(|step| [step, -step]) {
            let scale = steps.powi(step);
            if self.over() {
                return;
            }
            if SCALES.contains(&scale) {
                self.shifted(scale, 0, kinds);
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
            let guesses = self.slide(self.frames[0], base, [(-12, 12); 2], layouts, WORTH_A_LOOK);
            self.consider_best(guesses, WORTH_A_LOOK);
        }
    }

    /// Scores of every shift of `base` by whole pixels of the original within `range` (x and y), in
    /// one frame.
    fn slide(
        &mut self,
        frame: &Plane,
        base: Registration,
        range: Range,
        layouts: usize,
        least: f64,
    ) -> Vec<(f64, Registration)> {
        let settings = &self.search.settings;
        let pixels = Pixels::new(frame, &base);
        let canvas = Canvas::new(&pixels, &settings.classes, settings.step);
        self.work += 20 * (pixels.width * pixels.height) as u64;
        let kind = [base.negative, self.keyed];
        let mut guesses = Vec::new();
        for layout in &self.layouts[layouts].0 {
            self.work += canvas.cost(layout, range);
            canvas.slide(layout, kind, range, least, self.stop, |score, x, y| {
                guesses.push((score, base.cut(f64::from(x), f64::from(y))));
            });
        }
        guesses
    }
}
