// SPDX-License-Identifier: MPL-2.0
//! The settings that are compared, at equal PSNR.

use crate::ffmpeg::Clip;
use gstcamvault::luma::{Luma, Plane, Shape};
use gstcamvault::watermark::{BITS, BLOCK, Detector, Dither, Key, Layout, Settings, Word, embed};

/// How far the PSNR of two methods may be apart, in dB.
const EQUAL: f64 = 0.1;

/// A way to mark.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// The defaults.
    Camvault,
    /// The paper's step, on so few of its coefficients that the PSNR is that of the defaults.
    PaperFew,
    /// All of the paper's coefficients, with so small a step.
    PaperSmall,
}

impl Method {
    pub const ALL: [Self; 3] = [Self::Camvault, Self::PaperFew, Self::PaperSmall];

    pub fn name(self) -> &'static str {
        match self {
            Self::Camvault => "camvault",
            Self::PaperFew => "paper, few marks",
            Self::PaperSmall => "paper, small step",
        }
    }

    /// `ours`, or the paper's at the PSNR that ours have on these pictures.
    pub fn settings(self, ours: &Settings, pictures: &[Plane], key: &Key, word: Word) -> Settings {
        let psnr = |settings: &Settings| psnr_of(pictures, key, settings, word);
        let target = match self {
            Self::Camvault => return ours.clone(),
            _ => psnr(ours),
        };
        let mut settings = Settings::paper();
        if self == Self::PaperSmall {
            // The smallest that distorts no less; fewer marks then meet the target.
            settings = stepped(settings, 4);
            while settings.step < 100 && psnr(&settings) > target {
                let step = settings.step + 4;
                settings = stepped(settings, step);
            }
        }
        for _ in 0..8 {
            let above = psnr(&settings) - target;
            if above.abs() <= EQUAL {
                return settings;
            }
            // The squared error goes with the number of marks.
            let density = settings.density(0) * 10f64.powf(above / 10.0);
            settings.density = Some(density.min(settings.classes.len() as f64));
        }
        // Small pictures have two or three marks a bit and nothing between: the smaller number, and
        // what is missing to the target, a larger step makes up for.
        let blocks = pictures
            .iter()
            .map(|p| p.width() / BLOCK * (p.height() / BLOCK));
        let one_a_bit = BITS as f64 / blocks.max().unwrap_or(1).max(1) as f64;
        while psnr(&settings) < target && settings.density(0) > 1.5 * one_a_bit {
            settings.density = Some(settings.density(0) - one_a_bit / 2.0);
        }
        let distance = |settings: &Settings| (psnr(settings) - target).abs();
        loop {
            let larger = stepped(settings.clone(), settings.step + 4);
            if larger.step > 200 || distance(&larger) >= distance(&settings) {
                return settings;
            }
            settings = larger;
        }
    }
}

/// With another step; the paper's dither is a quarter of it.
fn stepped(settings: Settings, step: u32) -> Settings {
    Settings {
        step,
        dither: Dither::Fixed(f64::from(step) / 4.0),
        ..settings
    }
}

/// PSNR of the luma in dB, of all pictures together.
pub fn psnr_of(pictures: &[Plane], key: &Key, settings: &Settings, word: Word) -> f64 {
    let mut error = Error::default();
    for picture in pictures {
        let layout = Layout::new(key, 0, settings, picture.width(), picture.height());
        let mut marked = picture.clone();
        embed(&mut marked.luma_mut(), &layout, word, None);
        error.add(picture.data(), marked.data());
    }
    error.psnr()
}

/// A clip with a mark.
pub struct Marked {
    pub clip: Clip,
    pub settings: Settings,
    pub psnr: f64,
}

/// Marks a clip; a new layout every group of pictures.
pub fn mark(clip: &Clip, method: Method, key: &Key, word: Word) -> Marked {
    // A few frames say what PSNR to expect.
    let every = clip.frames.len().div_ceil(6).max(1);
    let pictures: Vec<Plane> = planes(clip).step_by(every).collect();
    let settings = method.settings(&Settings::default(), &pictures, key, word);
    mark_with(clip, settings, key, word)
}

/// The same with settings that are given.
pub fn mark_with(clip: &Clip, settings: Settings, key: &Key, word: Word) -> Marked {
    let layouts: Vec<Layout> = (0..settings.layouts)
        .map(|epoch| Layout::new(key, epoch, &settings, clip.width, clip.height))
        .collect();
    let (mut marked, mut error) = (clip.clone(), Error::default());
    for (i, frame) in marked.frames.iter_mut().enumerate() {
        let layout = &layouts[i / clip.gop() % layouts.len()];
        if let Some(mut plane) = luma_plane(clip, frame) {
            embed(&mut plane.luma_mut(), layout, word, None);
            error.add(luma(clip, frame), plane.data());
            frame[..plane.data().len()].copy_from_slice(plane.data());
        }
    }
    Marked {
        clip: marked,
        settings,
        psnr: error.psnr(),
    }
}

/// What a detector reads from these frames.
pub fn detector(
    clip: &Clip,
    frames: &[Vec<u8>],
    key: &Key,
    settings: &Settings,
    original: Option<[usize; 2]>,
) -> Detector {
    let mut detector = Detector::new(key.clone(), settings.clone(), original);
    for frame in frames {
        let shape = Shape::plane(clip.width, clip.height);
        if let Some(luma) = Luma::new(luma(clip, frame), shape) {
            detector.frame(&luma);
        }
    }
    detector
}

impl Method {
    /// What this method's reader makes of one picture that is where it was marked: ours undoes blur
    /// and contrast where that fits better, as `dmqimdetect` does; the paper's is as published.
    pub fn read_picture(self, picture: &Luma, key: &Key, settings: &Settings) -> Word {
        let mut detector = Detector::new(key.clone(), settings.clone(), None);
        detector.frame(picture);
        self.restore(&mut detector);
        detector.votes().word()
    }

    /// As `dmqimdetect` does it at the end of a video.
    pub fn restore(self, detector: &mut Detector) {
        if self == Self::Camvault && detector.is_weak() {
            detector.restore();
        }
    }
}

/// All frames' luma.
pub fn planes(clip: &Clip) -> impl Iterator<Item = Plane> {
    clip.frames
        .iter()
        .filter_map(|frame| luma_plane(clip, frame))
}

fn luma<'a>(clip: &Clip, frame: &'a [u8]) -> &'a [u8] {
    &frame[..clip.luma_len()]
}

fn luma_plane(clip: &Clip, frame: &[u8]) -> Option<Plane> {
    Plane::new(clip.width, clip.height, luma(clip, frame).to_vec())
}

/// Squared errors.
#[derive(Default)]
struct Error {
    sum: f64,
    samples: usize,
}

impl Error {
    fn add(&mut self, a: &[u8], b: &[u8]) {
        let squares = a
            .iter()
            .zip(b)
            .map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2));
        self.sum += squares.sum::<u64>() as f64;
        self.samples += a.len();
    }

    fn psnr(&self) -> f64 {
        10.0 * (255.0f64.powi(2) * self.samples as f64 / self.sum).log10()
    }
}
