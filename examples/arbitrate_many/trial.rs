// SPDX-License-Identifier: MPL-2.0
//! Registered recordings, leaks of some of them, and who is named: as the third party does it, by
//! hashes, candidates and [`arbiter::judge`], but without a store and a network.

use crate::Result;
use crate::ffmpeg::{Clip, Codec, Coding};
use gstcamvault::arbiter::{self, Candidate, RADIUS};
use gstcamvault::feature::{Observer, PHash, index::Index};
use gstcamvault::luma::{Luma, Plane, Shape};
use gstcamvault::protocol::{DEFAULT_LOSS, DEFAULT_PER_BLOCK};
use gstcamvault::sealed::{Chroma, Geometry, Joiner, Picture, Splitter};
use gstcamvault::watermark::{Code, Dither, Key, Layout, Placement, Settings};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Seconds of a recording.
const SECONDS: f64 = 4.0;
/// Frames of a suspect that are judged.
const JUDGED: usize = 24;

/// Numbers that are the same in every run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        (0..9).for_each(|_| {
            random.below(2);
        });
        random
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n.max(1)
    }
}

/// A part of a clip, so that few clips make many recordings. Parts of one clip look alike, which is
/// what a camera that records all day gives.
#[derive(Clone, Debug)]
pub struct Part {
    clip: usize,
    first: usize,
    corner: [usize; 2],
    mirrored: bool,
    /// Brightness in percent.
    gain: u32,
}

impl Part {
    pub fn draw(clips: &[Clip], size: [usize; 2], random: &mut Random) -> Self {
        let clip = random.below(clips.len());
        let of = &clips[clip];
        let length = of.frames_in(SECONDS);
        let even = |random: &mut Random, room: usize| random.below(room / 2 + 1) * 2;
        Self {
            clip,
            first: random.below(of.frames.len().saturating_sub(length) + 1),
            corner: [
                even(random, of.width - size[0]),
                even(random, of.height - size[1]),
            ],
            mirrored: random.below(2) == 1,
            gain: 80 + random.below(35) as u32,
        }
    }

    /// `seconds` of it.
    pub fn cut(&self, clips: &[Clip], size: [usize; 2], seconds: f64) -> Clip {
        let of = &clips[self.clip];
        let frames = of
            .frames
            .iter()
            .skip(self.first)
            .take(of.frames_in(seconds));
        Clip {
            name: of.name.clone(),
            width: size[0],
            height: size[1],
            fps: of.fps,
            group: of.group,
            frames: frames.map(|frame| self.frame(of, frame, size)).collect(),
        }
    }

    fn frame(&self, of: &Clip, frame: &[u8], size: [usize; 2]) -> Vec<u8> {
        let mut out = Vec::with_capacity(size[0] * size[1] * 3 / 2);
        let chroma = of.width.div_ceil(2) * of.height.div_ceil(2);
        let planes = [
            (0, of.width, 1),
            (of.luma_len(), of.width.div_ceil(2), 2),
            (of.luma_len() + chroma, of.width.div_ceil(2), 2),
        ];
        for (start, stride, shrink) in planes {
            let [x, y] = self.corner.map(|at| at / shrink);
            let [width, height] = size.map(|side| side / shrink);
            for row in y..y + height {
                let line = &frame[start + row * stride + x..][..width];
                let from = out.len();
                match shrink {
                    1 => out.extend(
                        line.iter()
                            .map(|&s| (u32::from(s) * self.gain / 100).min(255) as u8),
                    ),
                    _ => out.extend_from_slice(line),
                }
                if self.mirrored {
                    out[from..].reverse();
                }
            }
        }
        out
    }
}

/// All that the third party knows.
pub struct Registry {
    pub parts: Vec<Part>,
    candidates: Vec<Candidate>,
    index: Index,
}

pub fn settings() -> Settings {
    Settings {
        dither: Dither::Keyed,
        layouts: 1,
        placement: Placement::Keyed,
        per_block: Some(setting("PER_BLOCK", DEFAULT_PER_BLOCK as usize)),
        ..Settings::default()
    }
}

/// A number from the environment.
fn setting(name: &str, default: usize) -> usize {
    let set = std::env::var(name).ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(default)
}

impl Registry {
    /// `count` recordings, each with a contract and a ticket of its own.
    pub fn new(clips: &[Clip], size: [usize; 2], count: usize) -> Result<Self> {
        let mut random = Random::new(1);
        let mut registry = Self {
            parts: Vec::new(),
            candidates: Vec::new(),
            index: Index::build([]),
        };
        for id in 0..count {
            let part = Part::draw(clips, size, &mut random);
            let mut observer = Observer::default();
            // A hash a second, as the owner reports them.
            let clip = part.cut(clips, size, SECONDS);
            for frame in clip.frames.iter().step_by(clip.frames_in(1.0)) {
                let luma = Luma::new(frame, Shape::plane(size[0], size[1]));
                let seen = luma.and_then(|luma| observer.look(&luma));
                let seen = seen.ok_or("a frame without luma")?;
                registry.index.insert(seen.phash, id as u64);
            }
            let mut seed = [0x5a; 32];
            seed[..8].copy_from_slice(&(id as u64 + 1).to_be_bytes());
            let key = Key::from_bytes(seed);
            registry.candidates.push(Candidate {
                word: Code::Bch29.register(id as u32 * 7919 + 5, key.pad())?,
                key,
                settings: settings(),
                size,
                threshold: 32,
            });
            registry.parts.push(part);
        }
        Ok(registry)
    }

    /// The clip as the cloud of recording `id` has it: split and joined as in a sealed stream.
    pub fn mark(&self, id: usize, clip: &Clip) -> Result<Clip> {
        let this = &self.candidates[id];
        let layout = Layout::new(&this.key, 0, &this.settings, clip.width, clip.height);
        let bits = gstcamvault::watermark::carried_bits(&this.settings, clip.width, clip.height);
        let geometry = Geometry::new(clip.width, clip.height, Chroma::I420)?;
        let loss = setting("LOSS", DEFAULT_LOSS.into()) as u8;
        let mut splitter =
            Splitter::new(geometry, &this.settings, Some(&layout))?.with_loss(loss)?;
        let mut joiner = Joiner::new(geometry, &this.settings)?.with_loss(loss)?;
        let mut picture = Picture::new(geometry);
        let mut marked = Vec::new();
        for frame in &clip.frames {
            let mut left = frame.as_slice();
            for i in 0..3 {
                let plane = picture.plane_mut(i);
                let (these, more) = left.split_at(plane.len());
                plane.copy_from_slice(these);
                left = more;
            }
            let split = splitter.split(&picture, false)?;
            joiner.read(&split.rest)?;
            debug_assert_eq!(bits.len(), geometry.candidates(this.settings.each()));
            let moved = split.positions.iter().zip(&split.values).zip(&split.deltas);
            let values: Vec<i16> = moved
                .map(|((&position, value), delta)| {
                    let bit = bits[position as usize];
                    value + delta * i16::from(this.word.bit(bit.into()))
                })
                .collect();
            marked.push(joiner.join(&values)?.planes().concat());
        }
        Ok(Clip {
            frames: marked,
            ..clip.clone()
        })
    }

    /// Whom the frames are traced to, and with how many wrong bits. `named` is compared first,
    /// whatever the frames look like.
    pub fn judge(
        &self,
        clip: &Clip,
        named: Option<usize>,
        search: Duration,
    ) -> Result<(Option<(usize, u32)>, usize)> {
        let every = clip.frames.len().div_ceil(JUDGED).max(1);
        let frames: Option<Vec<Plane>> = clip
            .frames
            .iter()
            .step_by(every)
            .map(|frame| Plane::new(clip.width, clip.height, frame[..clip.luma_len()].to_vec()))
            .collect();
        let frames = frames.ok_or("frames of another size")?;
        let mut ids = BTreeSet::new();
        for hash in arbiter::hashes(&frames) {
            let near = self.index.within(PHash(hash), RADIUS);
            ids.extend(near.iter().map(|found| found.id as usize));
        }
        let named = named.filter(|id| !ids.contains(id) || ids.remove(id));
        let ids: Vec<usize> = named.into_iter().chain(ids).collect();
        let candidates: Vec<Candidate> =
            ids.iter().map(|&id| self.candidates[id].clone()).collect();
        let registered = self.candidates.len() as u64;
        let stop = AtomicBool::new(false);
        let found = arbiter::judge(&frames, &candidates, registered, search, &stop);
        let found = found.map(|found| (ids[found.candidate], found.evidence.errors));
        Ok((found, ids.len()))
    }
}

/// What is done to a leak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    X264(u32),
    X265(u32),
    /// Percent of both sides; then x264 at 26.
    Scale(u32),
    /// Percent.
    Gamma(u32),
    /// Percent of both sides that are cut off; then x264 at 26. The contract is named.
    Crop(u32),
    /// Every second frame or so is left out; then x264 at 26.
    Drop,
    /// Two seconds alone; then x264 at 26.
    Short,
}

pub const ATTACKS: [Attack; 13] = [
    Attack::X264(28),
    Attack::X264(33),
    Attack::X265(28),
    Attack::Scale(50),
    Attack::Scale(75),
    Attack::Scale(150),
    Attack::Gamma(70),
    Attack::Gamma(140),
    Attack::Crop(10),
    Attack::Crop(20),
    Attack::Crop(30),
    Attack::Drop,
    Attack::Short,
];

impl Attack {
    pub fn seconds(self) -> f64 {
        if self == Self::Short { 2.0 } else { SECONDS }
    }

    pub fn is_crop(self) -> bool {
        matches!(self, Self::Crop(_))
    }

    pub fn apply(self, clip: &Clip, folder: &Path, random: &mut Random) -> Result<Clip> {
        let coding = Coding::crf(Codec::H264, 26);
        let even = |side: usize, percent: u32| side * percent as usize / 200 * 2;
        let (w, h) = (clip.width, clip.height);
        let coding = match self {
            Self::X264(crf) => Coding::crf(Codec::H264, crf),
            Self::X265(crf) => Coding::crf(Codec::H265, crf),
            Self::Scale(percent) => {
                let [w, h] = [even(w, percent), even(h, percent)];
                coding.filtered(format!("scale={w}:{h}")).sized([w, h])
            }
            Self::Gamma(percent) => {
                coding.filtered(format!("eq=gamma={}.{:02}", percent / 100, percent % 100))
            }
            Self::Crop(percent) => {
                let size = [even(w, 100 - percent), even(h, 100 - percent)];
                let x = random.below(w - size[0] + 1);
                let y = random.below(h - size[1] + 1);
                let filter = format!("crop={}:{}:{x}:{y}:exact=1", size[0], size[1]);
                coding.filtered(filter).sized(size)
            }
            Self::Drop | Self::Short => coding,
        };
        let kept = |_: &&Vec<u8>| self != Self::Drop || random.below(2) == 0;
        let mut frames: Vec<Vec<u8>> = clip.frames.iter().filter(kept).cloned().collect();
        if frames.is_empty() {
            frames = clip.frames.clone();
        }
        Ok(clip.transcode(&frames, &coding, folder)?.clip)
    }
}

/// What came of leaks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub leaks: usize,
    /// Traced to the right one.
    pub right: usize,
    /// Traced to somebody else.
    pub innocent: usize,
    pub most_errors: u32,
    pub most_compared: usize,
}

impl Tally {
    pub fn add(&mut self, of: Option<usize>, found: Option<(usize, u32)>, compared: usize) {
        self.leaks += 1;
        self.most_compared = self.most_compared.max(compared);
        if let Some((id, errors)) = found {
            self.most_errors = self.most_errors.max(errors);
            match of == Some(id) {
                true => self.right += 1,
                false => self.innocent += 1,
            }
        }
    }
}
