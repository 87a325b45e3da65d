// SPDX-License-Identifier: MPL-2.0
//! Reading a watermark from a video, frame by frame.

use super::votes::fit;
use super::{BLOCK, Key, Layout, Registration, Search, Settings, Tally, Votes};
use crate::luma::{Luma, Plane};

/// Most frames that are kept for a search, and most of their bytes: seven at 4K.
const KEPT: usize = 24;
const KEPT_BYTES: usize = 64 << 20;

/// Blurs that [`Detector::restore`] tries, and contrasts.
const BLURS: [f64; 7] = [0.5, 0.8, 1.1, 1.4, 1.7, 2.0, 2.4];
const CONTRASTS: [f64; 8] = [0.5, 0.65, 0.8, 0.9, 1.1, 1.25, 1.5, 1.9];

/// Frames that a search looks at.
const SEARCHED: usize = 6;

/// Score of a frame's layout below which the other layouts are tried as well.
const SURE: f64 = 5.0;

/// Score above which the picture is where it is thought to be.
const REGISTERED: f64 = 6.0;

/// Mean confidence of a bit below which votes are weak. After x264 at CRF 33 it is 0.7 and more.
const WEAK: f64 = 0.6;

/// Least weight of a frame.
const LEAST_WEIGHT: f64 = 0.02;

/// Reads a watermark from frames of one video.
pub struct Detector {
    key: Key,
    settings: Settings,
    original: Option<[usize; 2]>,
    /// Size of the frames, once one was seen.
    here: Option<[usize; 2]>,
    registration: Option<Registration>,
    layouts: Vec<Layout>,
    /// Score of each layout in the frames just seen, fading.
    recent: Vec<f64>,
    tallies: Vec<Tally>,
    frames: u64,
    /// Sum over frames of how near the marks were to the lattices.
    nearness: f64,
    /// Frames for a search: every `stride`-th.
    kept: Vec<Plane>,
    stride: u64,
    seen: u64,
}

impl Detector {
    /// For videos whose original had the size `original`, if that is known.
    pub fn new(key: Key, settings: Settings, original: Option<[usize; 2]>) -> Self {
        Self {
            key,
            settings,
            original,
            here: None,
            registration: None,
            layouts: Vec::new(),
            recent: Vec::new(),
            tallies: Vec::new(),
            frames: 0,
            nearness: 0.0,
            kept: Vec::new(),
            stride: 1,
            seen: 0,
        }
    }

    /// Adds a frame's votes. A frame of another size begins anew.
    pub fn frame(&mut self, picture: &Luma) {
        let here = [picture.width(), picture.height()];
        if self.here != Some(here) {
            self.here = Some(here);
            self.kept.clear();
            self.stride = 1;
            self.seen = 0;
            // Until a search says otherwise: the whole picture, resized if the original's size is
            // known to be another.
            let size = self.original.unwrap_or(here);
            self.register(Registration::scaled(here, size));
        }
        let most = (KEPT_BYTES / (here[0] * here[1]).max(1)).clamp(2, KEPT);
        if self.seen.is_multiple_of(self.stride) {
            if self.kept.len() >= most {
                // Every second one goes: what is kept stays spread over all that was seen.
                let mut index = 0;
                self.kept.retain(|_| {
                    index += 1;
                    index % 2 == 1
                });
                self.stride *= 2;
            }
            if self.seen.is_multiple_of(self.stride) {
                self.kept.push(picture.to_plane());
            }
        }
        self.seen += 1;
        self.read(picture);
    }

    fn read(&mut self, picture: &Luma) {
        let Some(registration) = self.registration else {
            return;
        };
        let layouts = self.layouts.iter().zip(&self.recent).enumerate();
        let Some((latest, _)) = layouts.max_by(|a, b| a.1.1.total_cmp(b.1.1)) else {
            return;
        };
        let read = |layout: &Layout| {
            let (mut votes, tally) = (Votes::default(), registration.tally(picture, layout));
            votes.add(layout, &tally);
            (votes.score(), votes.strength(), votes.nearness(), tally)
        };
        let mut best = (latest, read(&self.layouts[latest]));
        let mut scores = vec![0.0; self.layouts.len()];
        scores[latest] = best.1.0;
        if best.1.0 < SURE {
            for (i, layout) in self
                .layouts
                .iter()
                .enumerate()
                .filter(|(i, _)| *i != latest)
            {
                let this = read(layout);
                scores[i] = this.0;
                if self.recent[i] * FADE + this.0 > self.recent[best.0] * FADE + best.1.0 {
                    best = (i, this);
                }
            }
        }
        for (recent, score) in self.recent.iter_mut().zip(&scores) {
            *recent = *recent * FADE + score;
        }
        // Frames count as much as their marks agree: after a hard compression a keyframe says more
        // than the frames behind it.
        let (layout, (_, strength, nearness, tally)) = best;
        let weight = strength / (f64::from(self.settings.step) / 2.0);
        self.tallies[layout].add(&tally, weight.clamp(LEAST_WEIGHT, 1.0));
        self.frames += 1;
        self.nearness += nearness;
    }

    /// Starts anew with where the original is thought or was found to be, and reads the frames that were
    /// kept.
    pub fn register(&mut self, registration: Registration) {
        let [width, height] = registration.size;
        let settings = Settings {
            density: Some(self.settings.density(width / BLOCK * (height / BLOCK))),
            ..self.settings.clone()
        };
        // Of what was cut off the size may not be known: as far as the frames reach.
        let [far_x, far_y] = self.here.map_or([0; 2], |here| {
            let corner = registration.corner();
            let scale = registration.scale();
            [0, 1]
                .map(|axis| (corner[axis].max(0.0) + here[axis] as f64 / scale[axis]) as usize + 64)
        });
        let reach = match (self.original, settings.placement) {
            (None, super::Placement::Keyed) => [width.max(far_x), height.max(far_y)],
            _ => [width, height],
        };
        self.layouts = (0..settings.layouts)
            .map(|epoch| Layout::new(&self.key, epoch, &settings, reach[0], reach[1]))
            .collect();
        self.recent = vec![0.0; self.layouts.len()];
        self.registration = Some(registration);
        self.tallies = self.layouts.iter().map(Tally::new).collect();
        self.frames = 0;
        self.nearness = 0.0;
        for kept in std::mem::take(&mut self.kept) {
            self.read(&kept.luma());
            self.kept.push(kept);
        }
    }

    /// Whether the picture seems to be where it is thought to be.
    pub fn is_registered(&self) -> bool {
        let nearness = self.nearness / self.frames.max(1) as f64;
        fit(self.votes().score(), nearness, self.settings.dither) >= REGISTERED
    }

    /// Whether the votes are so weak that [`Detector::restore`] may help.
    pub fn is_weak(&self) -> bool {
        let confidence = self.votes().confidence();
        confidence.iter().sum::<f64>() < WEAK * confidence.len() as f64
    }

    /// Whether frames were blurred, or their contrast changed: takes what fits the votes best, as a
    /// search does, and reads the frames that were kept again. For frames that are registered but
    /// speak weakly; it takes about as long as reading a hundred frames.
    pub fn restore(&mut self) {
        let Some(now) = self.registration else { return };
        let score = |this: &Self, registration: &Registration| {
            let mut tallies: Vec<Tally> = this.layouts.iter().map(Tally::new).collect();
            for picture in this.some_kept() {
                let read = this.layouts.iter().enumerate().map(|(i, layout)| {
                    let (mut votes, tally) = (
                        Votes::default(),
                        registration.tally(&picture.luma(), layout),
                    );
                    votes.add(layout, &tally);
                    (votes.score(), i, tally)
                });
                if let Some((_, i, tally)) = read.max_by(|a, b| a.0.total_cmp(&b.0)) {
                    tallies[i].add(&tally, 1.0);
                }
            }
            let mut votes = Votes::default();
            for (layout, tally) in this.layouts.iter().zip(&tallies) {
                votes.add(layout, tally);
            }
            votes.score()
        };
        let first = score(self, &now);
        let mut best = (first, now);
        for blur in BLURS {
            let guess = Registration { blur, ..now };
            let fits = score(self, &guess);
            if fits > best.0 {
                best = (fits, guess);
            }
        }
        let blurred = best.1;
        for contrast in CONTRASTS {
            let guess = Registration {
                contrast,
                ..blurred
            };
            let fits = score(self, &guess);
            if fits > best.0 {
                best = (fits, guess);
            }
        }
        // Chance alone makes the best of some a little better, most of all of those that are many
        // standard deviations from chance as they are.
        if best.0 <= first + 1.5 + first / 10.0 {
            return;
        }
        // The frames that were not kept are lost: what is left must still say more.
        let before = (self.registration, self.tallies.clone());
        let counted = (self.recent.clone(), self.frames, self.nearness);
        let score = self.votes().score();
        self.register(best.1);
        if self.votes().score() < score {
            (self.registration, self.tallies) = before;
            (self.recent, self.frames, self.nearness) = counted;
        }
    }

    /// Some of the kept frames: a few confirm a guess as well as many, and sooner.
    fn some_kept(&self) -> impl Iterator<Item = &Plane> {
        let every = self.kept.len().div_ceil(SEARCHED).max(1);
        self.kept.iter().step_by(every)
    }

    /// A search for where the picture really is, on what was seen so far. It takes from seconds to
    /// minutes: not for a streaming thread.
    pub fn search(&self) -> Search {
        Search {
            frames: self.some_kept().cloned().collect(),
            original: self.original,
            key: self.key.clone(),
            settings: self.settings.clone(),
        }
    }

    /// Where the picture is thought to be; `None` before the first frame.
    pub fn registration(&self) -> Option<Registration> {
        self.registration
    }

    /// All votes so far.
    pub fn votes(&self) -> Votes {
        let mut votes = Votes::default();
        for (layout, tally) in self.layouts.iter().zip(&self.tallies) {
            votes.add(layout, tally);
        }
        votes
    }

    /// Frames in [`Detector::votes`].
    pub fn frames(&self) -> u64 {
        self.frames
    }
}

/// How much of a layout's score is remembered from frame to frame.
const FADE: f64 = 0.8;
