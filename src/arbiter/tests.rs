// SPDX-License-Identifier: MPL-2.0
use super::*;
use crate::watermark::{Dither, Placement, embed};
use std::io::Write as _;

const SIZE: [usize; 2] = [640, 360];

fn settings() -> Settings {
    Settings {
        dither: Dither::Keyed,
        layouts: 1,
        placement: Placement::Keyed,
        ..Settings::default()
    }
}

/// A made picture: waves and noise, different from frame to frame.
fn picture(frame: usize) -> Plane {
    let [width, height] = SIZE;
    let mut noise = 12345u32 + frame as u32;
    let pixel = |i: usize| {
        let (x, y) = ((i % width) as f64, (i / width) as f64);
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let wave = (x / 23.0 + frame as f64 / 5.0).sin() + (y / 31.0).cos() + (x * y / 4e3).sin();
        (128.0 + 24.0 * wave + f64::from(noise >> 28)) as u8
    };
    let data = (0..width * height).map(pixel).collect();
    Plane::new(width, height, data).unwrap()
}

fn candidate(seed: u8) -> Candidate {
    let key = Key::from_bytes([seed; 32]);
    let word = crate::watermark::Code::Bch29.register(u32::from(seed), key.pad());
    Candidate {
        word: word.unwrap(),
        key,
        settings: settings(),
        size: SIZE,
        threshold: 30,
    }
}

fn marked(frames: std::ops::Range<usize>, with: &Candidate) -> Vec<Plane> {
    let layout = layout(with);
    let mark = |i| {
        let mut plane = picture(i);
        embed(&mut plane.luma_mut(), &layout, with.word, None);
        plane
    };
    frames.map(mark).collect()
}

fn found(frames: &[Plane], candidates: &[Candidate], registered: u64) -> Option<Finding> {
    let (time, stop) = (Duration::ZERO, AtomicBool::new(false));
    judge(frames, candidates, registered, time, &stop)
}

#[test]
fn the_right_one_of_many_is_named_and_nobody_for_an_unmarked_clip() {
    let candidates: Vec<_> = (0..100).map(candidate).collect();
    let clip = marked(0..6, &candidates[70]);
    let finding = found(&clip, &candidates, 1_000_000).unwrap();
    assert_eq!(finding.candidate, 70);
    assert_eq!(finding.evidence.errors, 0);
    assert!(finding.evidence.false_positive < 1e-15);
    assert_eq!(finding.bits.len(), BITS);
    assert!(finding.bits.iter().all(|&bit| bit > 0.3));
    assert_eq!(
        describe(&finding.registration),
        "the whole picture, as it was"
    );
    let plain: Vec<_> = (0..6).map(picture).collect();
    assert!(found(&plain, &candidates, 100).is_none());
    // The right word under another key, the right key with another word: nobody.
    let mut other = candidate(70);
    other.word = candidate(71).word;
    let mut stranger = candidate(71);
    stranger.word = candidate(70).word;
    assert!(found(&clip, &[other, stranger], 2).is_none());
}

#[test]
fn a_clip_under_two_tickets_names_one_of_them() {
    let (a, b) = (candidate(1), candidate(2));
    let mut clip = marked(0..2, &a);
    clip.extend(marked(2..12, &b));
    let only_a = found(&clip, std::slice::from_ref(&a), 10).unwrap();
    assert_eq!(only_a.evidence.errors, 0);
    assert!(found(&clip, &[a, b], 10).is_some());
}

#[test]
fn the_contracts_threshold_counts() {
    let mut this = candidate(3);
    let clip = marked(0..3, &this);
    // Eight bits read otherwise than they are registered.
    this.word = Word(this.word.0 ^ 0xff);
    let finding = found(&clip, std::slice::from_ref(&this), 10).unwrap();
    assert_eq!(finding.evidence.errors, 8);
    assert_eq!(finding.bits.iter().filter(|&&bit| bit < 0.0).count(), 8);
    this.threshold = 7;
    assert!(found(&clip, &[this], 10).is_none());
}

#[test]
fn a_resized_mirrored_or_inverted_copy_has_its_hash_near_and_is_found() {
    let this = candidate(4);
    let clip = marked(0..4, &this);
    let of_original = hashes(&clip[..1]);
    assert_eq!(of_original.len(), 4);
    let change = |change: &dyn Fn(&Plane) -> Plane| clip.iter().map(change).collect::<Vec<_>>();
    let mirrored = change(&|frame| {
        let lines = frame.data().chunks_exact(frame.width());
        let data = lines.flat_map(|line| line.iter().rev().copied());
        Plane::new(frame.width(), frame.height(), data.collect()).unwrap()
    });
    let negative = change(&|frame| {
        let data = frame.data().iter().map(|sample| 255 - sample).collect();
        Plane::new(frame.width(), frame.height(), data).unwrap()
    });
    for (clip, word) in [(mirrored, "mirrored"), (negative, "exchanged")] {
        assert_eq!(hashes(&clip[..1]), of_original);
        let (time, stop) = (Duration::from_secs(60), AtomicBool::new(false));
        let finding = judge(&clip, std::slice::from_ref(&this), 10, time, &stop).unwrap();
        assert!(describe(&finding.registration).contains(word));
    }
}

#[test]
fn stopped_it_ends() {
    let (time, stop) = (Duration::from_secs(600), AtomicBool::new(true));
    let clip = marked(0..1, &candidate(5));
    assert!(judge(&clip, &[candidate(5)], 1, time, &stop).is_none());
}

#[test]
fn frames_are_taken_apart_within_bounds() {
    let zlib = |bytes: &[u8]| {
        let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    };
    let suspect = |width, height, frames: Vec<Vec<u8>>| Suspect {
        width,
        height,
        frames: frames.into_iter().map(Into::into).collect(),
        file: None,
        contract: None,
    };
    let frame = zlib(&[7; 64 * 80]);
    let opened = open(&suspect(64, 80, vec![frame.clone(); 2])).unwrap();
    assert_eq!((opened.len(), opened[1].data()[9]), (2, 7));
    let refused = |width, height, frames| open(&suspect(width, height, frames)).unwrap_err();
    assert_eq!(refused(64, 80, vec![]), SuspectError::Count(0));
    let many = vec![frame.clone(); MAX_SUSPECT_FRAMES + 1];
    assert_eq!(refused(64, 80, many), SuspectError::Count(65));
    assert_eq!(
        refused(63, 80, vec![frame.clone()]),
        SuspectError::Size(63, 80)
    );
    assert_eq!(
        refused(4097, 80, vec![frame.clone()]),
        SuspectError::Size(4097, 80)
    );
    let large = vec![frame.clone(); 64];
    assert_eq!(refused(4096, 4096, large), SuspectError::Total);
    for wrong in [
        zlib(&[7; 64 * 80 - 1]),
        zlib(&[7; 64 * 80 + 1]),
        zlib(&vec![0; 50 << 20]),
        vec![1, 2, 3],
        vec![],
    ] {
        let frames = vec![frame.clone(), wrong];
        assert_eq!(refused(64, 80, frames), SuspectError::Frame(1));
    }
}

#[test]
fn a_copy_of_half_the_size_is_read_where_it_lies() {
    let this = candidate(6);
    let half = |frame: &Plane| {
        let (width, height) = (frame.width() / 2, frame.height() / 2);
        let at = |x, y| u32::from(frame.data()[y * frame.width() + x]);
        let mean = |i: usize| {
            let (x, y) = (i % width * 2, i / width * 2);
            ((at(x, y) + at(x + 1, y) + at(x, y + 1) + at(x + 1, y + 1) + 2) / 4) as u8
        };
        Plane::new(width, height, (0..width * height).map(mean).collect()).unwrap()
    };
    let clip: Vec<_> = marked(0..6, &this).iter().map(half).collect();
    let finding = found(&clip, &[this], 10).unwrap();
    assert!(describe(&finding.registration).starts_with("scaled by 0.500 x 0.500"));
}
