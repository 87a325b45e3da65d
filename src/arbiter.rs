// SPDX-License-Identifier: MPL-2.0
//! Whose mark a suspect's frames bear ([RTBF] section 7). No store, no HTTP: candidates come in,
//! a finding goes out.
//!
//! Every candidate is read where its original would lie if the whole picture was kept, whatever its
//! size; if none is found there, the first ones are searched for in frames that were cut, turned,
//! mirrored or inverted. Each place gives two readings: all frames, by how clearly they speak, and
//! those alone that speak clearly, for a clip that begins or ends under another ticket. Which frames
//! those are is chosen without looking at bits. All readings are counted: see [`READINGS`].

use crate::feature::{Observer, PHash};
use crate::luma::Plane;
use crate::protocol::{MAX_SUSPECT_FRAMES, Suspect};
use crate::watermark::{
    BITS, Compared, Detector, Evidence, Key, Layout, Registration, Search, Settings, Tally, Votes,
    Word,
};
use std::collections::HashSet;
use std::io::Read as _;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Bits in which a suspect's hash may differ from a ticket's.
pub const RADIUS: u32 = 10;
/// Pixels of a side of a suspect's frames.
pub const SIDES: RangeInclusive<u32> = 64..=4096;
/// Bytes of all luma of a suspect: 64 frames of 1920×1080 and a little more.
pub const MAX_LUMA_BYTES: usize = 160 << 20;
/// Readings of one candidate at most: two each at the whole picture, where a search found it, and
/// with blur and contrast restored. The probability of a false accusation counts them all, times
/// all tickets that are registered.
pub const READINGS: u64 = 6;

/// Candidates from which on a glance decides whether to read all frames.
const MANY: usize = 64;
/// Frames of a glance.
const GLANCED: usize = 8;
/// Score above which a frame speaks clearly; one without the mark does so once in some hundred
/// times.
const CLEAR: f64 = 3.0;
/// Frames of a search.
const SEARCHED: usize = 6;
/// Longest search for one candidate.
const SEARCH_ONE: Duration = Duration::from_secs(60);
/// Least weight of a frame.
const LEAST_WEIGHT: f64 = 0.02;

/// A registered ticket that may have been used.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Key of its positions and dithers.
    pub key: Key,
    /// The contract's.
    pub settings: Settings,
    /// What it marks frames with.
    pub word: Word,
    /// Width and height of frames that it marks.
    pub size: [usize; 2],
    /// Most wrong bits, by the contract.
    pub threshold: u32,
}

/// The candidate that was found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Its place among the candidates.
    pub candidate: usize,
    /// How well it fits.
    pub evidence: Evidence,
    /// Where its frames lie in the suspect's.
    pub registration: Registration,
    /// Per bit how sure it was read as it was marked, −1 to 1.
    pub bits: Vec<f32>,
}

/// Why a suspect's frames cannot be judged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuspectError {
    /// No frame, or too many.
    #[error("{0} frames: send 1 to {MAX_SUSPECT_FRAMES}")]
    Count(usize),
    /// Too small or too large.
    #[error("frames of {0}x{1}: a side has 64 to 4096 pixels; send larger ones resized")]
    Size(u32, u32),
    /// Too much in all.
    #[error("the frames have more than {MAX_LUMA_BYTES} bytes of luma: send fewer")]
    Total,
    /// Not zlib, or another length than the size says.
    #[error("frame {0} is not the luma of its size, compressed by zlib")]
    Frame(usize),
}

/// Takes a suspect's frames apart.
pub fn open(suspect: &Suspect) -> Result<Vec<Plane>, SuspectError> {
    let (width, height, count) = (suspect.width, suspect.height, suspect.frames.len());
    if !(1..=MAX_SUSPECT_FRAMES).contains(&count) {
        return Err(SuspectError::Count(count));
    }
    if ![width, height].iter().all(|side| SIDES.contains(side)) {
        return Err(SuspectError::Size(width, height));
    }
    let pixels = width as usize * height as usize;
    if pixels * count > MAX_LUMA_BYTES {
        return Err(SuspectError::Total);
    }
    let open = |(i, bytes): (usize, &minicbor::bytes::ByteVec)| {
        let mut luma = Vec::with_capacity(pixels + 1);
        let clear = flate2::read::ZlibDecoder::new(bytes.as_slice());
        // One byte more, to see that there is none.
        let read = clear.take(pixels as u64 + 1).read_to_end(&mut luma);
        let plane = match read {
            Ok(read) if read == pixels => Plane::new(width as usize, height as usize, luma),
            _ => None,
        };
        plane.ok_or(SuspectError::Frame(i))
    };
    suspect.frames.iter().enumerate().map(open).collect()
}

/// Hashes that the frames' originals may have had: of what is seen, its mirror image and their
/// negatives.
pub fn hashes(frames: &[Plane]) -> Vec<u64> {
    let mut observer = Observer::default();
    let mut found = HashSet::new();
    for frame in frames {
        let (width, height) = (frame.width(), frame.height());
        let lines = frame.data().chunks_exact(width);
        let mirrored: Vec<u8> = lines.flat_map(|line| line.iter().rev().copied()).collect();
        for data in [frame.data().to_vec(), mirrored] {
            let negative = data.iter().map(|sample| 255 - sample).collect();
            for data in [data, negative] {
                let plane = Plane::new(width, height, data);
                let seen = plane.and_then(|plane| observer.look(&plane.luma()));
                found.extend(seen.map(|feature| feature.phash));
            }
        }
    }
    let mut found: Vec<u64> = found.into_iter().map(|PHash(hash)| hash).collect();
    found.sort_unstable();
    found
}

/// The candidate whose mark the frames bear, if that is sure. `registered` are all tickets there
/// are; searches take `search_time` in all; `stop` ends everything early.
pub fn judge(
    frames: &[Plane],
    candidates: &[Candidate],
    registered: u64,
    search_time: Duration,
    stop: &AtomicBool,
) -> Option<Finding> {
    let here = frames.first().map(|f| [f.width(), f.height()])?;
    let readings = registered.max(candidates.len() as u64) * READINGS;
    let compared = Compared::with(readings);
    let glances: Vec<&Plane> = spread(frames, GLANCED).collect();
    let mut best: Option<Finding> = None;
    for (i, candidate) in candidates.iter().enumerate() {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        let place = Registration::scaled(here, candidate.size);
        let layout = layout(candidate);
        let glance = || {
            let glances = glances.iter().map(|frame| Seen::of(frame, &place, &layout));
            glances.into_iter().any(|seen| seen.score >= CLEAR)
        };
        if candidates.len() < MANY || glance() {
            let found = read(i, candidate, frames, place, &layout, compared);
            best = better(best, found);
        }
    }
    if best.is_some() {
        return best;
    }
    let began = Instant::now();
    for (i, candidate) in candidates.iter().enumerate() {
        let left = search_time.saturating_sub(began.elapsed());
        if left.is_zero() || stop.load(Ordering::Relaxed) {
            return None;
        }
        let found = search(frames, candidate, left.min(SEARCH_ONE), stop);
        let places = found.into_iter().flatten();
        let layout = layout(candidate);
        best = places.fold(best, |best, place| {
            better(best, read(i, candidate, frames, place, &layout, compared))
        });
        if best.is_some() {
            return best;
        }
    }
    None
}

fn better(a: Option<Finding>, b: Option<Finding>) -> Option<Finding> {
    match (a, b) {
        (Some(a), Some(b)) if b.evidence.false_positive < a.evidence.false_positive => Some(b),
        (a, b) => a.or(b),
    }
}

fn layout(candidate: &Candidate) -> Layout {
    let [width, height] = candidate.size;
    Layout::new(&candidate.key, 0, &candidate.settings, width, height)
}

/// What a frame says.
struct Seen {
    tally: Tally,
    score: f64,
    weight: f64,
}

impl Seen {
    fn of(frame: &Plane, place: &Registration, layout: &Layout) -> Self {
        let tally = place.tally(&frame.luma(), layout);
        let mut votes = Votes::default();
        votes.add(layout, &tally);
        let weight = votes.strength() / (f64::from(layout.step()) / 2.0);
        Self {
            score: votes.score(),
            weight: weight.clamp(LEAST_WEIGHT, 1.0),
            tally,
        }
    }
}

/// The better of the readings at one place, if it is proof.
fn read(
    candidate: usize,
    of: &Candidate,
    frames: &[Plane],
    place: Registration,
    layout: &Layout,
    compared: Compared,
) -> Option<Finding> {
    let seen: Vec<Seen> = frames
        .iter()
        .map(|frame| Seen::of(frame, &place, layout))
        .collect();
    let finding = |least: f64| {
        let mut tally = Tally::new(layout);
        for frame in seen.iter().filter(|frame| frame.score >= least) {
            tally.add(&frame.tally, frame.weight);
        }
        let mut votes = Votes::default();
        votes.add(layout, &tally);
        let evidence = Evidence::new(votes.sums(), of.word, compared);
        let confidence = votes.confidence();
        let agrees = |bit: usize| (votes.sums()[bit] > 0.0) == of.word.bit(bit);
        let bits = (0..BITS).map(|bit| match agrees(bit) {
            true => confidence[bit] as f32,
            false => -confidence[bit] as f32,
        });
        let proof = evidence.accepted() && evidence.errors <= of.threshold;
        proof.then(|| Finding {
            candidate,
            evidence,
            registration: place,
            bits: bits.collect(),
        })
    };
    better(finding(f64::NEG_INFINITY), finding(CLEAR))
}

/// Where the original lies, as found, and the same with blur and contrast restored.
fn search(
    frames: &[Plane],
    candidate: &Candidate,
    time: Duration,
    stop: &AtomicBool,
) -> Option<[Registration; 2]> {
    let search = Search {
        frames: spread(frames, SEARCHED).cloned().collect(),
        original: Some(candidate.size),
        key: candidate.key.clone(),
        settings: candidate.settings.clone(),
    };
    let (done, ended) = (AtomicBool::new(false), AtomicBool::new(false));
    let found = std::thread::scope(|scope| {
        let timer = scope.spawn(|| {
            let began = Instant::now();
            while !ended.load(Ordering::Relaxed) {
                if stop.load(Ordering::Relaxed) || began.elapsed() >= time {
                    done.store(true, Ordering::Relaxed);
                    return;
                }
                std::thread::park_timeout(Duration::from_millis(100));
            }
        });
        let found = search.run(&done);
        ended.store(true, Ordering::Relaxed);
        timer.thread().unpark();
        found
    });
    let place = found?.registration;
    let (key, settings) = (candidate.key.clone(), candidate.settings.clone());
    let mut detector = Detector::new(key, settings, Some(candidate.size));
    for frame in frames {
        detector.frame(&frame.luma());
    }
    detector.register(place);
    detector.restore();
    Some([place, detector.registration()?])
}

/// At most `count` of the frames, spread over all.
fn spread(frames: &[Plane], count: usize) -> impl Iterator<Item = &Plane> {
    frames.iter().step_by(frames.len().div_ceil(count).max(1))
}

/// How frames lie in the original, in words.
pub fn describe(place: &Registration) -> String {
    if *place == Registration::identity(place.size) {
        return "the whole picture, as it was".into();
    }
    let (scale, corner) = (place.scale(), place.corner());
    let mut words = vec![format!(
        "scaled by {:.3} x {:.3}, its corner at ({:.1}, {:.1}) of the original",
        scale[0], scale[1], corner[0], corner[1]
    )];
    if place.rotation().abs() >= 0.01 {
        words.push(format!("turned by {:.2} degrees", place.rotation()));
    }
    if place.is_mirrored() {
        words.push("mirrored".into());
    }
    if place.negative {
        words.push("black and white exchanged".into());
    }
    if place.blur > 0.0 {
        words.push(format!("blurred (sigma {:.1})", place.blur));
    }
    if place.contrast != 1.0 {
        words.push(format!("contrast {:.2}", place.contrast));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests;
