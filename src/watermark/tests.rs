// SPDX-License-Identifier: MPL-2.0
//! Formulas against the vectors of an independent implementation (`tests/data/watermark.json`:
//! numpy, double precision), and what must hold for every picture.

use super::basis::{exact, fixed};
use super::*;
use crate::luma::{Luma, LumaMut, Plane, Samples, Shape};
use proptest::prelude::*;
use serde_json::Value;
use std::sync::atomic::AtomicBool;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../tests/data/watermark.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(numbers).collect(),
        value => vec![value.as_f64().unwrap()],
    }
}

fn close(ours: f64, theirs: f64) {
    assert!((ours - theirs).abs() < 1e-6, "{ours}, not {theirs}");
}

/// q_w(x) in real numbers: round half up.
fn quantise(x: f64, offset: f64, step: f64) -> f64 {
    ((x - offset) / step + 0.5).floor() * step + offset
}

#[test]
fn dct_and_quantiser_agree_with_the_oracle() {
    let vectors = vectors();
    for block in vectors["blocks"].as_array().unwrap() {
        let pixels = numbers(&block["block"]);
        let (step, dither) = (
            block["step"].as_f64().unwrap(),
            block["dither"].as_f64().unwrap(),
        );
        let dct = numbers(&block["dct"]);
        for (i, &theirs) in dct.iter().enumerate() {
            let class = Class::new((i / 8) as u8, (i % 8) as u8).unwrap();
            let ours: f64 = exact(class).iter().zip(&pixels).map(|(b, p)| b * p).sum();
            close(ours, theirs);
        }
        let (q0, q1) = (numbers(&block["q0"]), numbers(&block["q1"]));
        let (y, d0, d1) = (
            numbers(&block["y"]),
            numbers(&block["d0"]),
            numbers(&block["d1"]),
        );
        for (i, &x) in numbers(&block["x"]).iter().enumerate() {
            close(quantise(x, -dither, step), q0[i]);
            close(quantise(x, dither, step), q1[i]);
            if dither * 4.0 == step {
                let mark = Mark {
                    x: 0,
                    y: 0,
                    class: Class::new(0, 1).unwrap(),
                    bit: 0,
                    dither: ((step - dither) * 16.0) as u16,
                };
                close(lattice_vote(y[i], &mark, step as u32), d0[i] - d1[i]);
            }
        }
    }
    for point in vectors["lattice"].as_array().unwrap() {
        let [x, step, q0, q1] = ["x", "step", "q0", "q1"].map(|name| point[name].as_f64().unwrap());
        close(quantise(x, -step / 4.0, step), q0);
        close(quantise(x, step / 4.0, step), q1);
    }
}

/// The oracle's pictures have words of 16 bits.
#[test]
fn pictures_agree_with_the_oracle() {
    for picture in vectors()["images"].as_array().unwrap() {
        if picture["layout"] != "alg3" || !picture["use"].is_null() {
            continue;
        }
        let rows = picture["image"].as_array().unwrap();
        let (height, width) = (rows.len(), rows[0].as_array().unwrap().len());
        let bytes = |name: &str| -> Vec<u8> {
            numbers(&picture[name])
                .into_iter()
                .map(|v| v as u8)
                .collect()
        };
        let step = picture["step"].as_f64().unwrap() as u32;
        let dither = picture["dither"].as_f64().unwrap();
        let classes: Vec<Class> = numbers(&picture["coefs"])
            .chunks(2)
            .map(|uv| Class::new(uv[0] as u8, uv[1] as u8).unwrap())
            .collect();
        let bits = numbers(&picture["bits"]);
        let run = width / 8 * (height / 8) * classes.len() / bits.len();
        let marks = (0..run * bits.len())
            .map(|position| {
                let block = position / classes.len();
                Mark {
                    x: (block % (width / 8)) as u16,
                    y: (block / (width / 8)) as u16,
                    class: classes[position % classes.len()],
                    bit: (position / run) as u8,
                    dither: ((f64::from(step) - dither) * 16.0) as u16,
                }
            })
            .collect();
        let layout = Layout::of(marks, step);
        let theirs = bytes("marked");
        // Theirs counts the votes of blocks that cannot have carried a mark too.
        let luma = Luma::new(&theirs, Shape::plane(width, height)).unwrap();
        let mut votes = vec![0.0; bits.len()];
        for mark in layout.marks() {
            let block = luma.block(usize::from(mark.x) * 8, usize::from(mark.y) * 8);
            let y = super::votes::coefficient(&block.map(f64::from), mark);
            votes[usize::from(mark.bit)] += lattice_vote(y, mark, step);
        }
        for (ours, theirs) in votes.iter().zip(numbers(&picture["votes"])) {
            close(*ours, theirs);
        }
        // Their pixels are rounded from real numbers and clipped; ours are integers from the start,
        // and marks that could clip are left out: blocks without any of theirs are not compared.
        let mut ours = bytes("image");
        let word = Word::from_bits(|bit| bits.get(bit).is_some_and(|&b| b > 0.0));
        let mut trace = Trace::default();
        let mut marked = LumaMut::new(&mut ours, Shape::plane(width, height)).unwrap();
        embed(&mut marked, &layout, word, Some(&mut trace));
        let (mut same, mut compared) = (0, 0);
        for marks in layout.blocks().zip(trace.deltas().chunks(classes.len())) {
            if marks.1.contains(&0) {
                continue;
            }
            let (x, y) = (usize::from(marks.0[0].x) * 8, usize::from(marks.0[0].y) * 8);
            let block = marked.as_ref().block(x, y);
            for (i, sample) in block.iter().enumerate() {
                let theirs = i16::from(theirs[(y + i / 8) * width + x + i % 8]);
                assert!((sample - theirs).abs() <= 1);
                same += usize::from(*sample == theirs);
                compared += 1;
            }
        }
        assert!(
            compared > 400 && same * 100 > compared * 97,
            "{same} of {compared}"
        );
    }
}

fn key() -> Key {
    Key::from_bytes([7; 32])
}

#[test]
fn every_bit_gets_its_share_of_marks() {
    let sizes = [
        (352, 288),
        (768, 432),
        (640, 480),
        (1280, 720),
        (1920, 1080),
    ];
    for ((width, height), per_block) in sizes.into_iter().flat_map(|s| [(s, 1), (s, 4)]) {
        let settings = Settings {
            per_block: Some(per_block),
            ..Settings::default()
        };
        let layout = Layout::new(&key(), 0, &settings, width, height);
        let mut count = [0; BITS];
        layout
            .marks()
            .iter()
            .for_each(|mark| count[usize::from(mark.bit)] += 1);
        let mean = layout.marks().len() as f64 / BITS as f64;
        let count = count.map(f64::from);
        let (least, most) = (
            count.iter().fold(1e9, |a: f64, &b| a.min(b)),
            count.iter().fold(0.0, |a: f64, &b| a.max(b)),
        );
        println!("{width}x{height}, {per_block} a block: {least} to {most}, mean {mean}");
        let bits = carried_bits(&settings, width, height);
        for mark in layout.marks() {
            assert_eq!(bits[position(&settings, width, mark).unwrap()], mark.bit);
        }
        // Four at once are harder to share out evenly.
        let beyond = if per_block == 1 { 1.4 } else { 1.6 };
        assert!(least >= 0.6 * mean && most <= beyond * mean);
    }
}

#[test]
fn where_marks_are_does_not_depend_on_where_the_picture_ends() {
    let settings = Settings {
        density: Some(0.2),
        ..Settings::default()
    };
    let large = Layout::new(&key(), 3, &settings, 1920, 1080);
    let small = Layout::new(&key(), 3, &settings, 700, 411);
    let inside = |mark: &&Mark| mark.x < 700 / 8 && mark.y < 411 / 8;
    let cut: Vec<&Mark> = large.marks().iter().filter(inside).collect();
    assert_eq!(cut, small.marks().iter().collect::<Vec<_>>());
}

fn samples() -> impl Strategy<Value = Samples> {
    prop_oneof![
        Just(Samples::Plane),
        Just(Samples::Rgb {
            step: 3,
            offsets: [0, 1, 2]
        }),
        Just(Samples::Rgb {
            step: 4,
            offsets: [2, 1, 0]
        }),
        Just(Samples::Rgb {
            step: 4,
            offsets: [1, 2, 3]
        }),
    ]
}

/// Pictures of smooth and noisy parts, black and white ones among them.
fn picture() -> impl Strategy<Value = (Shape, Vec<u8>)> {
    (
        8usize..90,
        8usize..70,
        0usize..9,
        samples(),
        any::<u64>(),
        0..6u8,
    )
        .prop_map(|(width, height, padding, samples, seed, kind)| {
            let pixel = match samples {
                Samples::Plane => 1,
                Samples::Rgb { step, .. } => step,
            };
            let stride = width * pixel + padding;
            let mut state = seed | 1;
            let data = (0..stride * height)
                .map(|i| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    match kind {
                        0 => state as u8,
                        1 => [0, 255][(state & 1) as usize],
                        2 => (i % stride * 255 / stride) as u8,
                        3 => (state % 19) as u8,
                        4 => 255 - (state % 19) as u8,
                        _ => (120 + state % 17) as u8,
                    }
                })
                .collect();
            (
                Shape {
                    width,
                    height,
                    stride,
                    samples,
                },
                data,
            )
        })
}

proptest! {
    #[test]
    fn erasing_gives_back_every_byte(
        (shape, original) in picture(),
        word in any::<u128>(),
        step in (1u32..100).prop_map(|quarter| 4 * quarter),
        per_block in 1usize..=5,
        part in 0.02f64..1.0,
        lift in 0u8..60,
        epoch in 0u32..5,
    ) {
        let settings = Settings {
            step,
            per_block: Some(per_block),
            density: Some(part * per_block as f64),
            lift,
            ..Settings::default()
        };
        let layout = Layout::new(&key(), epoch, &settings, shape.width, shape.height);
        let mut data = original.clone();
        let mut trace = Trace::default();
        embed(&mut LumaMut::new(&mut data, shape).unwrap(), &layout, Word(word), Some(&mut trace));
        prop_assert_eq!(trace.deltas().len(), layout.marks().len());
        erase(&mut LumaMut::new(&mut data, shape).unwrap(), &layout, &trace);
        prop_assert!(data == original);
    }

    /// Why nothing that is done to a frame tells a bit of whoever's dithers are secret: another word
    /// is the same as other dithers.
    #[test]
    fn a_turned_bit_is_a_dither_half_a_step_further(
        (shape, original) in picture(),
        word in any::<u128>(),
        turned in any::<u128>(),
        step in (1u16..100).prop_map(|quarter| 4 * quarter),
        lift in 0u8..60,
    ) {
        let settings = Settings { step: step.into(), density: Some(1.5), lift, ..Settings::default() };
        let layout = Layout::new(&key(), 0, &settings, shape.width, shape.height);
        let mut other = layout.clone();
        for mark in other.marks_mut() {
            if Word(turned).bit(mark.bit.into()) {
                mark.dither = (mark.dither + 8 * step) % (16 * step);
            }
        }
        let marked = |layout: &Layout, word: u128| {
            let mut data = original.clone();
            embed(&mut LumaMut::new(&mut data, shape).unwrap(), layout, Word(word), None);
            data
        };
        prop_assert!(marked(&layout, word) == marked(&other, word ^ turned));
    }
}

/// Black, white and what is nearly so is lifted or lowered as much as its marks need; where that is not
/// allowed it stays as it is.
#[test]
fn black_and_white_make_room() {
    let (width, height) = (640, 480);
    let word = Word(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);
    for (level, lift) in [(0u8, 40), (255, 40), (0, 0), (255, 0)] {
        let settings = Settings {
            lift,
            ..Settings::default()
        };
        let layout = Layout::new(&key(), 0, &settings, width, height);
        let mut picture = Plane::new(width, height, vec![level; width * height]).unwrap();
        let mut trace = Trace::default();
        embed(&mut picture.luma_mut(), &layout, word, Some(&mut trace));
        let made = trace.deltas().iter().filter(|&&delta| delta != 0).count();
        let all = layout.marks().len();
        if lift > 0 {
            assert!(made * 50 > all * 49, "{level}: {made} of {all}");
            assert_eq!(read(&picture.luma(), &layout).word(), word);
        } else {
            // Changes that round to nothing in one direction have room.
            assert!(made * 20 < all, "{level}: {made} of {all}");
            let near = |&sample: &u8| sample.abs_diff(level) <= 1;
            assert!(picture.data().iter().all(near));
        }
    }
}

#[test]
fn what_is_embedded_is_read() {
    let shape = Shape::plane(768, 432);
    let plain: Vec<u8> = (0..shape.width * shape.height)
        .map(|i| (60 + (i % shape.width) / 8 + (i / shape.width) % 64) as u8)
        .collect();
    let word = Word(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);
    let layout = Layout::new(&key(), 1, &Settings::default(), shape.width, shape.height);
    let mut data = plain.clone();
    embed(
        &mut LumaMut::new(&mut data, shape).unwrap(),
        &layout,
        word,
        None,
    );
    let votes = read(&Luma::new(&data, shape).unwrap(), &layout);
    assert_eq!(votes.word(), word);
    assert!(votes.score() > 30.0 && votes.confidence().iter().all(|&c| c > 0.8));
    let other = Layout::new(&Key::from_bytes([8; 32]), 1, &Settings::default(), 768, 432);
    let votes = read(&Luma::new(&data, shape).unwrap(), &other);
    assert!(votes.score().abs() < 6.0, "{}", votes.score());
    let errors: f64 = plain
        .iter()
        .zip(&data)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
        .sum();
    let psnr = 10.0 * (255.0f64.powi(2) * plain.len() as f64 / errors).log10();
    assert!(psnr > 44.0, "{psnr}");
}

#[test]
fn the_rounded_basis_is_the_exact_one_rounded() {
    for (u, v) in [(0, 1), (1, 0), (1, 1), (0, 2), (2, 0)] {
        let class = Class::new(u, v).unwrap();
        assert_eq!(fixed(class).iter().map(|&b| i32::from(b)).sum::<i32>(), 0);
    }
}

/// Blurred or with another contrast, most bits are lost at first; what was done is found out by the
/// agreement of the votes.
#[test]
fn blur_and_contrast_are_found_and_undone() {
    use super::battery::Attack;
    let (width, height) = (480, 360);
    let word = Word(0xfeed_beef_0123_4567_89ab_cdef_0011_2233);
    let layout = Layout::new(&key(), 2, &Settings::default(), width, height);
    let smooth =
        |x: f64, y: f64| (x / 31.0).sin() * (y / 23.0).cos() + 0.5 * (x / 7.0 + y / 9.0).sin();
    let data = (0..width * height)
        .map(|i| (120.0 + 45.0 * smooth((i % width) as f64, (i / width) as f64)) as u8)
        .collect();
    let mut picture = Plane::new(width, height, data).unwrap();
    embed(&mut picture.luma_mut(), &layout, word, None);
    for attack in [
        Attack::Blur {
            size: 15,
            sigma: 2.0,
        },
        Attack::Blur {
            size: 15,
            sigma: 1.5,
        },
        Attack::Contrast(0.6),
        Attack::Contrast(1.5),
    ] {
        let attacked = Plane::new(width, height, attack.apply(&picture.luma(), 1)).unwrap();
        let mut detector = Detector::new(key(), Settings::default(), None);
        detector.frame(&attacked.luma());
        let before = detector.votes().word().distance(word);
        assert!(detector.is_weak());
        detector.restore();
        let after = detector.votes().word().distance(word);
        println!(
            "{attack}: {before} wrong bits, then {after}: {:?}",
            detector.registration()
        );
        assert!(after < 8 && (after < before || before == 0));
    }
}

/// A textured picture that moves, marked.
fn moving(key: &Key, settings: &Settings, [w, h]: [usize; 2], frames: usize) -> Vec<Plane> {
    let layout = Layout::new(key, 0, settings, w, h);
    let frame = |time: usize| {
        let pixel = |i: usize| {
            let (x, y) = ((i % w + 2 * time) as f64, (i / w) as f64);
            let waves = (x / 9.0).sin() + (y / 7.0).cos() + ((x + 2.0 * y) / 31.0).sin();
            (120.0 + 15.0 * waves) as u8
        };
        let mut plane = Plane::new(w, h, (0..w * h).map(pixel).collect()).unwrap();
        embed(
            &mut plane.luma_mut(),
            &layout,
            Word(0x1234_5678 << 70),
            None,
        );
        plane
    };
    (0..frames).map(frame).collect()
}

fn cut(plane: &Plane, [x, y]: [usize; 2], [w, h]: [usize; 2], mirrored: bool) -> Plane {
    let pixel = |i: usize| {
        let column = if mirrored { w - 1 - i % w } else { i % w };
        plane.data()[(y + i / w) * plane.width() + x + column]
    };
    Plane::new(w, h, (0..w * h).map(pixel).collect()).unwrap()
}

#[test]
fn what_was_cut_and_mirrored_is_found_and_with_another_key_nothing_is() {
    let settings = Settings {
        density: Some(3.0),
        layouts: 1,
        ..Settings::default()
    };
    let size = [192, 128];
    let frames = moving(&key(), &settings, size, 2);
    for (corner, mirrored) in [([13, 9], false), ([30, 21], true)] {
        let mut detector = Detector::new(key(), settings.clone(), Some(size));
        // A black frame first spoils nothing.
        let black = Plane::new(150, 100, vec![0; 15_000]).unwrap();
        detector.frame(&black.luma());
        for frame in &frames {
            detector.frame(&cut(frame, corner, [150, 100], mirrored).luma());
        }
        assert!(!detector.is_registered());
        let found = detector.search().run(&AtomicBool::new(false)).unwrap();
        assert_eq!(found.registration.is_mirrored(), mirrored);
        detector.register(found.registration);
        assert!(detector.is_registered());
        let wrong = detector.votes().word().distance(Word(0x1234_5678 << 70));
        assert!(wrong <= 6, "{wrong} bits");
    }
    // Of another size: anew, and the whole picture.
    let mut detector = Detector::new(key(), settings.clone(), None);
    detector.frame(&cut(&frames[0], [0, 0], [96, 64], false).luma());
    detector.frame(&frames[1].luma());
    assert_eq!(detector.frames(), 1);
    assert!(detector.is_registered());
    let mut wrong = Detector::new(Key::from_bytes([8; 32]), settings, None);
    wrong.frame(&frames[0].luma());
    assert!(!wrong.is_registered());
    let stopped = AtomicBool::new(true);
    assert!(wrong.search().run(&stopped).is_none());
}
