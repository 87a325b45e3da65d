// SPDX-License-Identifier: MPL-2.0
//! The codec as a whole: exact, blind to candidates, readable, and patient with any bytes.

use super::transform::{LANES, ZERO};
use super::*;
use crate::luma::{Luma, Shape};
use crate::watermark::code::Seeded;
use crate::watermark::{Class, Dither, Key, Layout, Settings, Word, basis, position, read};
use proptest::prelude::*;
use std::collections::HashMap;

/// Gentle hills with some noise, in all planes; `time` moves them.
fn hills(geometry: Geometry, noise: f64, seed: u64, time: f64) -> Picture {
    let mut random = Seeded::new(seed);
    let mut picture = Picture::new(geometry);
    for i in 0..geometry.planes() {
        let [width, _] = geometry.plane(i);
        for (at, sample) in picture.plane_mut(i).iter_mut().enumerate() {
            let [x, y] = [at % width, at / width].map(|side| side as f64 / 31.0);
            let value = 120.0 + 60.0 * (x + time).sin() * (y - time).cos();
            *sample = (value + noise * random.normal()) as u8;
        }
    }
    picture
}

fn noise(geometry: Geometry, seed: u64, extremes: bool) -> Picture {
    let mut random = Seeded::new(seed);
    let mut picture = Picture::new(geometry);
    for i in 0..geometry.planes() {
        for sample in picture.plane_mut(i) {
            *sample = match extremes {
                true => (random.bits() & 1) as u8 * 255,
                false => random.bits() as u8,
            };
        }
    }
    picture
}

/// A layout whose dithers are whole, as those of tickets.
fn layout(settings: &Settings, geometry: Geometry) -> Layout {
    Layout::new(
        &Key::from_bytes([7; 32]),
        0,
        settings,
        geometry.width,
        geometry.height,
    )
}

fn luma(picture: &Picture) -> Luma<'_> {
    let geometry = picture.geometry();
    Luma::new(
        &picture.planes()[0],
        Shape::plane(geometry.width, geometry.height),
    )
    .unwrap()
}

fn positions(layout: &Layout, settings: &Settings, width: usize) -> impl Iterator<Item = u32> {
    let marks = layout.marks().iter();
    marks.map(move |mark| position(settings, width, mark).unwrap() as u32)
}

/// w·delta of each candidate.
fn moved(
    split: &Split,
    layout: &Layout,
    settings: &Settings,
    width: usize,
    word: Word,
) -> Vec<i16> {
    let bits = layout.marks().iter().map(|mark| mark.bit);
    let bits: HashMap<u32, u8> = positions(layout, settings, width).zip(bits).collect();
    let deltas = split.positions.iter().zip(&split.deltas);
    deltas
        .map(|(position, &delta)| match delta {
            0 => 0,
            _ => delta * i16::from(word.bit(bits[position].into())),
        })
        .collect()
}

fn add(values: &[i16], by: &[i16]) -> Vec<i16> {
    values.iter().zip(by).map(|(v, d)| v + d).collect()
}

/// x − q_0(x) of each candidate, 0 for those without a mark.
fn remainders(
    split: &Split,
    marks: &[i16],
    layout: &Layout,
    settings: &Settings,
    width: usize,
) -> Vec<i16> {
    let mut found = vec![0; split.positions.len()];
    for (position, &remainder) in positions(layout, settings, width).zip(marks) {
        if remainder != Split::NONE
            && let Ok(at) = split.positions.binary_search(&position)
        {
            found[at] = remainder;
        }
    }
    found
}

/// The most that any coefficient is off, and whether samples outside of blocks are the same.
fn most_off(a: &Picture, b: &Picture) -> (i16, bool) {
    let (mut most, mut same) = (0, true);
    for plane in 0..a.geometry().planes() {
        let tiles = a.geometry().tiles(plane);
        for block in 0..tiles.blocks() as u32 {
            let [a, b] = [a, b].map(|picture| {
                let mut group = ZERO;
                simd::load(&mut group, &tiles, &picture.planes()[plane], &[block]);
                simd::forward(&mut group);
                group.map(|values| values.0[0])
            });
            let off = a.iter().zip(b).map(|(a, b)| (a - b).abs());
            most = off.fold(most, i16::max);
        }
        for cell in tiles.blocks()..tiles.all() {
            let [left, top, width, height] = tiles.area(cell);
            for y in top..top + height {
                let row = y * tiles.width + left..y * tiles.width + left + width;
                same &= a.planes()[plane][row.clone()] == b.planes()[plane][row];
            }
        }
    }
    (most, same)
}

fn fits(split: &Split) {
    assert!(split.positions.is_sorted());
    let counts = [split.widths.len(), split.values.len(), split.deltas.len()];
    assert_eq!(counts, [split.positions.len(); 3]);
    for ((&bits, &value), &delta) in split.widths.iter().zip(&split.values).zip(&split.deltas) {
        let range = -(1 << (bits - 1))..1 << (bits - 1);
        assert!(range.contains(&i32::from(value)));
        assert!(range.contains(&i32::from(value + delta)));
    }
}

/// Everything that a sequence of pictures must do. Returns sent and lost marks.
fn through(pictures: &[Picture], settings: &Settings, loss: u8, seed: u64) -> [usize; 2] {
    let geometry = pictures[0].geometry();
    let width = geometry.width;
    let layout = layout(settings, geometry);
    let mut random = Seeded::new(seed);
    let word = random.word();
    let splitter = Splitter::new(geometry, settings, Some(&layout)).unwrap();
    let mut splitter = splitter.with_loss(loss).unwrap();
    // The same without marks, and joined without: what has marks must not depend on them.
    let unmarked = Splitter::new(geometry, settings, None).unwrap();
    let mut unmarked = unmarked.with_loss(loss).unwrap();
    let joiner = || Joiner::new(geometry, settings).unwrap();
    let mut clean = joiner().with_loss(loss).unwrap();
    let mut plain = Splitter::new(geometry, settings, None).unwrap();
    let mut marking = joiner().with_loss(loss).unwrap();
    let mut marks = [0, 0];
    for (i, picture) in pictures.iter().enumerate() {
        let split = splitter.split(picture, false).unwrap();
        fits(&split);
        assert_eq!(split.remainders.len(), layout.marks().len());
        if i == 0 {
            assert_eq!(split.positions.len(), geometry.candidates(settings.each()));
            let lost = split.remainders.iter().filter(|&&r| r == Split::NONE);
            marks = [split.remainders.len(), lost.count()];
        }
        let without = unmarked.split(picture, false).unwrap();
        assert!(without.rest == split.rest);
        assert_eq!(without.widths, split.widths);
        let sent = marking.read(&split.rest).unwrap();
        assert_eq!(sent.positions, split.positions);
        assert_eq!(sent.widths, split.widths);
        let by = moved(&split, &layout, settings, width, word);
        let marked = marking.join(&add(&split.values, &by)).unwrap().clone();

        // What is sealed: near the picture, and what everyone has without marks.
        let camera = picture;
        let picture = splitter.sealed().unwrap();
        let (most, same) = most_off(picture, camera);
        assert!(most <= loss.into() && same, "{most}");
        assert_eq!(
            split.squares == 0,
            picture.planes()[0] == camera.planes()[0]
        );
        assert!(unmarked.sealed().unwrap() == picture);
        clean.read(&split.rest).unwrap();
        assert!(clean.join(&without.values).unwrap() == picture);
        let own = remainders(&split, &split.remainders, &layout, settings, width);
        assert_eq!(add(&split.values, &own), without.values);

        // An archive of the marked picture: the mark comes out.
        let original = plain.split(picture, true).unwrap();
        let archive = plain.split(&marked, true).unwrap();
        fits(&archive);
        // Where no flag differs the rests are the same, byte for byte.
        if archive.widths == original.widths {
            assert!(archive.rest == original.rest);
        }
        let differences: Vec<i16> = archive
            .values
            .iter()
            .zip(&original.values)
            .map(|(y, x)| y - x)
            .collect();
        let remainders = remainders(&archive, &split.remainders, &layout, settings, width);
        let half = settings.step as i16 / 2;
        let back: Vec<i16> = differences
            .iter()
            .zip(&remainders)
            .map(|(difference, remainder)| difference + remainder)
            .collect();
        // y − q_0(x) is 0 or delta.
        assert!(back.iter().all(|&by| by == 0 || by.abs() == half));
        let x: Vec<i16> = (0..back.len())
            .map(|i| archive.values[i] - back[i] + remainders[i])
            .collect();
        let mut other = joiner();
        other.read(&archive.rest).unwrap();
        assert!(other.join(&x).unwrap() == picture, "picture {i}");

        // Without any mark: the original.
        other.read(&original.rest).unwrap();
        assert!(other.join(&original.values).unwrap() == picture);
    }
    marks
}

fn geometries() -> impl Strategy<Value = Geometry> {
    let chroma = prop_oneof![
        Just(Chroma::None),
        Just(Chroma::I420),
        Just(Chroma::Y42B),
        Just(Chroma::Y444)
    ];
    (1usize..90, 1usize..60, chroma)
        .prop_map(|(width, height, chroma)| Geometry::new(width, height, chroma).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_picture(
        geometry in geometries(),
        seed: u64,
        kind in 0..3,
        loss in 0..=MOST_LOSS,
        per_block in prop_oneof![Just(None), (1..=5usize).prop_map(Some)],
    ) {
        let pictures: Vec<Picture> = (0..3)
            .map(|i| match kind {
                0 => noise(geometry, seed ^ i, false),
                1 => noise(geometry, seed ^ i, true),
                _ => hills(geometry, 2.0, seed, i as f64 / 9.0),
            })
            .collect();
        let settings = Settings { per_block, ..Settings::default() };
        through(&pictures, &settings, loss, seed);
    }

    #[test]
    fn any_group(seed: u64) {
        let mut random = Seeded::new(seed);
        let mut group = ZERO;
        for entry in &mut group {
            for lane in 0..LANES {
                entry.0[lane] = random.bits() as i16;
            }
        }
        let mut there = group;
        simd::forward(&mut there);
        let mut plain = group;
        transform::forward::<transform::Lanes>(&mut plain);
        assert!(there == plain);
        simd::inverse(&mut there);
        assert!(there == group);
        simd::inverse(&mut there);
        simd::forward(&mut there);
        assert!(there == group);
    }

    #[test]
    fn any_bytes(
        geometry in geometries(),
        mut bytes: Vec<u8>,
        seed: u64,
        flips in 0..6usize,
        loss in 0..=MOST_LOSS,
    ) {
        let settings = Settings { per_block: Some(1), ..Settings::default() };
        let joiner = Joiner::new(geometry, &settings).unwrap();
        let mut joiner = joiner.with_loss(loss).unwrap();
        let _ = joiner.read(&bytes);
        bytes.insert(0, 0x11);
        let _ = joiner.read(&bytes);
        let picture = hills(geometry, 3.0, seed, 0.0);
        let splitter = Splitter::new(geometry, &settings, None).unwrap();
        let mut splitter = splitter.with_loss(loss).unwrap();
        let split = splitter.split(&picture, true).unwrap();
        let mut random = Seeded::new(seed);
        let mut rest = split.rest.clone();
        for _ in 0..flips {
            let at = random.bits() as usize % rest.len();
            rest[at] = random.bits() as u8;
        }
        if let Ok(sent) = joiner.read(&rest) {
            let values: Vec<i16> = sent.widths.iter().map(|_| random.bits() as i16).collect();
            joiner.join(&values).unwrap();
        }
        rest.truncate(random.bits() as usize % rest.len());
        prop_assert!(joiner.read(&rest).is_err());
    }
}

#[test]
fn near_the_orthonormal_transform() {
    let mut random = Seeded::new(3);
    let (mut squares, mut most, mut count) = (0.0, 0.0f64, 0.0);
    for round in 0..400 {
        let mut group = ZERO;
        for entry in &mut group {
            for lane in 0..LANES {
                entry.0[lane] = match round % 4 {
                    0 => random.bits() as i16 & 255,
                    1 => (random.bits() as i16 & 1) * 255,
                    _ => (random.normal() * 5.0 + 120.0) as i16,
                };
            }
        }
        let samples = group;
        simd::forward(&mut group);
        for lane in 0..LANES {
            for at in 0..64u8 {
                let basis = basis::exact(Class::new(at / 8, at % 8).unwrap());
                let exact: f64 = (0..64)
                    .map(|i| f64::from(samples[i].0[lane]) * basis[i])
                    .sum();
                let error = f64::from(group[usize::from(at)].0[lane]) - exact;
                squares += error * error;
                most = most.max(error.abs());
                count += 1.0;
            }
        }
    }
    let rms = f64::sqrt(squares / count);
    println!("rms {rms:.3}, most {most:.2}");
    assert!(rms < 0.8 && most < 5.0, "rms {rms}, most {most}");
}

#[test]
fn black_and_white() {
    let geometry = Geometry::new(75, 50, Chroma::Y444).unwrap();
    for value in [0, 1, 128, 254, 255] {
        let mut picture = Picture::new(geometry);
        (0..3).for_each(|i| picture.plane_mut(i).fill(value));
        for loss in [0, 4] {
            let [marks, lost] = through(&vec![picture.clone(); 2], &Settings::default(), loss, 1);
            assert_eq!(lost, if value == 128 { 0 } else { marks });
        }
    }
}

#[test]
fn other_settings() {
    let geometry = Geometry::new(80, 64, Chroma::I420).unwrap();
    let pictures: Vec<Picture> = (0..3).map(|i| hills(geometry, 2.0, i, 0.0)).collect();
    for step in [4, 8, 252, 1000] {
        let settings = Settings {
            step,
            density: Some(1.5),
            ..Settings::default()
        };
        through(&pictures, &settings, 3, 5);
    }
    let fixed = Settings {
        dither: Dither::Fixed(25.0),
        ..Settings::default()
    };
    through(&pictures, &fixed, 0, 6);
    through(&pictures, &Settings::paper(), 0, 7);
    through(&pictures, &Settings::paper(), 2, 7);
}

#[test]
fn what_has_not_changed_is_not_sent() {
    let geometry = Geometry::new(161, 93, Chroma::I420).unwrap();
    let mut pictures = vec![hills(geometry, 2.0, 1, 0.0); 6];
    // One block of luma, then one of chroma, then a sample at the edge.
    pictures[2].plane_mut(0)[20 * 161 + 30] ^= 1;
    pictures[3].plane_mut(1)[20 * 81 + 30] ^= 1;
    pictures[4].plane_mut(0)[160] ^= 1;
    pictures[5] = pictures[4].clone();
    through(&pictures, &Settings::default(), 0, 9);
    let settings = Settings::default();
    let mut splitter = Splitter::new(geometry, &settings, None).unwrap();
    let sent: Vec<usize> = pictures
        .iter()
        .map(|picture| splitter.split(picture, false).unwrap().positions.len())
        .collect();
    assert_eq!(sent, [20 * 11 * 4, 0, 4, 4, 0, 0]);
    let split = splitter.split(&pictures[5], false).unwrap();
    assert_eq!(split.rest.len(), 1);
    let split = splitter.split(&pictures[5], true).unwrap();
    assert_eq!(split.positions.len(), 20 * 11 * 4);
}

/// What is lost is not lost again: the reference is what was sealed, however long it goes.
#[test]
fn what_has_changed_within_the_loss_is_not_sent() {
    let geometry = Geometry::new(160, 96, Chroma::I420).unwrap();
    let settings = Settings {
        per_block: Some(1),
        ..Settings::default()
    };
    let picture = |n: usize| {
        let mut picture = hills(geometry, 0.0, 1, 0.0);
        // A little brighter in each: 8 units of the mean a step of luma.
        picture.plane_mut(0)[..80 * 160]
            .iter_mut()
            .for_each(|s| *s += n as u8);
        picture
    };
    let splitter = Splitter::new(geometry, &settings, None).unwrap();
    let mut splitter = splitter.with_loss(8).unwrap();
    let mut sent = Vec::new();
    for n in 0..12 {
        let split = splitter.split(&picture(n), false).unwrap();
        sent.push(split.positions.len());
        let (most, same) = most_off(splitter.sealed().unwrap(), &picture(n));
        assert!(most <= 8 && same, "{n}: {most}");
    }
    // The first is whole; every second or third step of the others is too far.
    assert_eq!(sent[0], 240);
    assert!(
        sent[1..].iter().filter(|&&count| count < 100).count() > 4,
        "{sent:?}"
    );
    assert!(sent[1..].iter().any(|&count| count > 100), "{sent:?}");
    through(&(0..6).map(picture).collect::<Vec<_>>(), &settings, 8, 3);
}

/// Fewer coefficients a block, about as many marks a bit.
#[test]
fn places_in_turn() {
    for (width, height) in [(768, 432), (640, 480), (1280, 720)] {
        for per_block in [None, Some(1), Some(2), Some(4)] {
            let settings = Settings {
                per_block,
                ..Settings::default()
            };
            let layout = layout(
                &settings,
                Geometry::new(width, height, Chroma::None).unwrap(),
            );
            let mut bits = [0usize; 128];
            let mut classes = HashMap::new();
            for mark in layout.marks() {
                bits[usize::from(mark.bit)] += 1;
                *classes.entry(mark.class).or_insert(0usize) += 1;
                let carriers = settings.carriers(mark.x.into(), mark.y.into());
                assert!(carriers.collect::<Vec<_>>().contains(&mark.class));
            }
            let marks = layout.marks().len();
            for (class, &count) in &classes {
                let share = marks / 5;
                assert!(
                    count.abs_diff(share) < share / 2,
                    "{class:?}: {count} of {marks}"
                );
            }
            let blocks = width / 8 * (height / 8);
            let wanted = (settings.density(blocks) * blocks as f64) as usize;
            assert!(marks.abs_diff(wanted) < wanted / 12, "{marks} of {wanted}");
            let mean = marks / bits.len();
            assert!(
                bits.iter().all(|&n| n > mean / 2 && n <= 2 * mean),
                "{bits:?}"
            );
        }
    }
}

/// Marks are there to be read: by the detector's own transform, from joined pictures.
#[test]
fn the_word_is_read_and_hardly_seen() {
    for (geometry, least) in [
        (Geometry::new(1280, 720, Chroma::I420).unwrap(), 45.0),
        (Geometry::new(640, 360, Chroma::None).unwrap(), 43.9),
    ] {
        let (settings, word) = (Settings::default(), Seeded::new(4).word());
        let picture = hills(geometry, 3.0, 8, 0.0);
        let layout = layout(&settings, geometry);
        let mut splitter = Splitter::new(geometry, &settings, Some(&layout)).unwrap();
        let split = splitter.split(&picture, false).unwrap();
        let lost = split.remainders.iter().filter(|&&r| r == Split::NONE);
        assert!(lost.count() * 50 < split.remainders.len());
        let mut joiner = Joiner::new(geometry, &settings).unwrap();
        joiner.read(&split.rest).unwrap();
        let by = moved(&split, &layout, &settings, geometry.width, word);
        let marked = joiner.join(&add(&split.values, &by)).unwrap();
        let squares: f64 = picture.planes()[0]
            .iter()
            .zip(&marked.planes()[0])
            .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
            .sum();
        let psnr = 10.0 * (255.0 * 255.0 * picture.planes()[0].len() as f64 / squares).log10();
        println!("{psnr:.2} dB");
        assert!(psnr >= least, "{psnr}");
        assert_eq!(marked.planes()[1..], picture.planes()[1..]);
        let votes = read(&luma(marked), &layout);
        assert!(votes.word() == word);
        let weakest = votes.confidence().into_iter().fold(1.0, f64::min);
        println!("weakest {weakest}");
        assert!(weakest > 0.6, "{weakest}");
    }
}

#[test]
fn mistakes_have_names() {
    let geometry = Geometry::new(64, 48, Chroma::I420).unwrap();
    assert_eq!(Geometry::new(0, 5, Chroma::None), Err(Error::Size(0, 5)));
    assert!(Geometry::new(16384, 16385, Chroma::None).is_err());
    let mut settings = Settings::default();
    let mut joiner = Joiner::new(geometry, &settings).unwrap();
    assert_eq!(joiner.join(&[]).unwrap_err(), Error::Order);
    let mut splitter = Splitter::new(geometry, &settings, None).unwrap();
    let first = splitter.split(&Picture::new(geometry), false).unwrap();
    let second = splitter.split(&Picture::new(geometry), false).unwrap();
    assert_eq!(joiner.read(&second.rest).unwrap_err(), Error::NoPrevious);
    joiner.read(&first.rest).unwrap();
    assert_eq!(joiner.read(&second.rest).unwrap_err(), Error::Order);
    let count = Error::Count {
        found: 1,
        expected: 192,
    };
    assert_eq!(joiner.join(&[0]).unwrap_err(), count);
    joiner.join(&first.values).unwrap();
    joiner.read(&second.rest).unwrap();
    joiner.join(&[]).unwrap();
    let other = Picture::new(Geometry::new(64, 56, Chroma::I420).unwrap());
    assert!(matches!(
        splitter.split(&other, false),
        Err(Error::OtherGeometry { .. })
    ));
    settings.classes.push(Class::new(0, 0).unwrap());
    assert!(Splitter::new(geometry, &settings, None).is_err());
    assert!(Joiner::new(geometry, &settings).is_err());
    for per_block in [0, 6] {
        let per_block = Some(per_block);
        let settings = Settings {
            per_block,
            ..Settings::default()
        };
        assert_eq!(
            Joiner::new(geometry, &settings).unwrap_err(),
            Error::Classes
        );
    }
    let joiner = Joiner::new(geometry, &Settings::default()).unwrap();
    assert_eq!(joiner.with_loss(16).unwrap_err(), Error::Loss(16));
    assert!(!format!("{first:?}").contains('['));
}

/// A column and a row without division are those with it, in pictures of all widths.
#[test]
fn places_of_blocks() {
    for columns in 1..=2048 {
        let geometry = Geometry::new(8 * columns, 16384, Chroma::None).unwrap();
        let tiles = geometry.tiles(0);
        for row in 0..tiles.rows {
            let first = row * columns;
            assert_eq!(tiles.place(first), (0, row));
            assert_eq!(tiles.place(first + columns - 1), (columns - 1, row));
        }
    }
}
