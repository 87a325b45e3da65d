// SPDX-License-Identifier: MPL-2.0
//! What a cloud finds that has 200 lossless frames and knows everything but the key: step, method,
//! classes, density, and when layouts take turns (docs/security.md, "What a cloud can find of the
//! marks").

use gstcamvault::luma::{Luma, LumaMut, Shape};
use gstcamvault::watermark::code::Seeded;
use gstcamvault::watermark::{Class, Dither, Key, Layout, Mark, Settings, Word, basis, embed};
use std::collections::HashMap;

const WIDTH: usize = 320;
const HEIGHT: usize = 240;
const FRAMES: usize = 200;
/// Frames from one layout's turn to the next.
const TURN: usize = 25;

const WORD: Word = Word(0x3b1f_82d4_907c_55ee_1a6b_c0d9_4f27_a863);

/// A scene whose left half stands still and whose right half moves, as a sensor with noise of
/// `sigma` sees it.
fn scene(sigma: f64) -> Vec<Vec<u8>> {
    let mut random = Seeded::new(9);
    let texture: Vec<f64> = (0..64 * 64).map(|_| random.uniform() * 60.0).collect();
    let smooth = |x: f64, y: f64| {
        // Bilinear between points 6 pixels apart.
        let (x, y) = ((x / 6.0).rem_euclid(64.0), (y / 6.0).rem_euclid(64.0));
        let (i, j) = (x as usize, y as usize);
        let at = |i: usize, j: usize| texture[j % 64 * 64 + i % 64];
        let (a, b) = (x.fract(), y.fract());
        let top = at(i, j) * (1.0 - a) + at(i + 1, j) * a;
        let bottom = at(i, j + 1) * (1.0 - a) + at(i + 1, j + 1) * a;
        90.0 + top * (1.0 - b) + bottom * b
    };
    (0..FRAMES)
        .map(|t| {
            let frame = (0..WIDTH * HEIGHT).map(|i| {
                let (x, y) = ((i % WIDTH) as f64, (i / WIDTH) as f64);
                let moved = if x < WIDTH as f64 / 2.0 {
                    0.0
                } else {
                    t as f64
                };
                let noise = if sigma > 0.0 {
                    sigma * random.normal()
                } else {
                    0.0
                };
                (smooth(x + 1.7 * moved, y + 0.6 * moved) + noise).round() as u8
            });
            frame.collect()
        })
        .collect()
}

fn layouts(settings: &Settings) -> Vec<Layout> {
    let key = Key::from_bytes([0x5a; 32]);
    let layouts = 0..settings.layouts;
    layouts
        .map(|epoch| Layout::new(&key, epoch, settings, WIDTH, HEIGHT))
        .collect()
}

fn mark(frames: &mut [Vec<u8>], layouts: &[Layout]) {
    for (t, frame) in frames.iter_mut().enumerate() {
        let mut luma = LumaMut::new(frame, Shape::plane(WIDTH, HEIGHT)).unwrap();
        embed(&mut luma, &layouts[t / TURN % layouts.len()], WORD, None);
    }
}

/// A coefficient of a block: column, row, class.
type Place = (u16, u16, Class);

/// What the cloud sees of one coefficient in the turns of one layout.
struct Track {
    place: Place,
    /// How still its value stands, modulo half a step: 0 to 1.
    stillness: f64,
    /// Where it stands, 0 to half a step.
    value: f64,
}

fn watch(frames: &[Vec<u8>], settings: &Settings, epoch: usize) -> Vec<Track> {
    let layouts = settings.layouts as usize;
    let turn: Vec<Luma> = (0..frames.len())
        .filter(|t| t / TURN % layouts == epoch)
        .map(|t| Luma::new(&frames[t], Shape::plane(WIDTH, HEIGHT)).unwrap())
        .collect();
    let half = f64::from(settings.step) / 2.0;
    let mut tracks = Vec::new();
    for y in 0..(HEIGHT / 8) as u16 {
        for x in 0..(WIDTH / 8) as u16 {
            let blocks: Vec<_> = turn
                .iter()
                .map(|frame| frame.block(usize::from(x) * 8, usize::from(y) * 8))
                .collect();
            for &class in &settings.classes {
                let (mut cos, mut sin) = (0.0, 0.0);
                for block in &blocks {
                    let y = f64::from(basis::coefficient(block, class)) / 4096.0;
                    let angle = y / half * std::f64::consts::TAU;
                    cos += angle.cos();
                    sin += angle.sin();
                }
                tracks.push(Track {
                    place: (x, y, class),
                    stillness: f64::hypot(cos, sin) / turn.len() as f64,
                    value: sin.atan2(cos).rem_euclid(std::f64::consts::TAU) / std::f64::consts::TAU
                        * half,
                });
            }
        }
    }
    tracks
}

/// Part of the marks among the likeliest candidates, as many as there are marks, in the half that
/// stands still and in the one that moves; beside it what chance finds.
fn found(tracks: &[Track], marks: &HashMap<Place, Mark>) -> [f64; 3] {
    let in_half = |moving: bool| {
        let mut half: Vec<&Track> = tracks
            .iter()
            .filter(|track| (usize::from(track.place.0) * 16 >= WIDTH) == moving)
            .collect();
        half.sort_by(|a, b| b.stillness.total_cmp(&a.stillness));
        let total = half.iter().filter(|t| marks.contains_key(&t.place)).count();
        let hit = half[..total]
            .iter()
            .filter(|t| marks.contains_key(&t.place))
            .count();
        hit as f64 / total as f64
    };
    [
        in_half(false),
        in_half(true),
        marks.len() as f64 / tracks.len() as f64,
    ]
}

fn places(layout: &Layout) -> HashMap<Place, Mark> {
    let marks = layout.marks().iter();
    marks
        .map(|&mark| ((mark.x, mark.y, mark.class), mark))
        .collect()
}

/// Part of the bits that the value's place within half a step, cut in two, gives away. Better of both
/// ways round: the cloud may not know which is which.
fn bits(tracks: &[Track], marks: &HashMap<Place, Mark>, step: u32) -> (f64, usize) {
    let (mut right, mut all) = (0, 0);
    for track in tracks {
        if let Some(mark) = marks.get(&track.place) {
            let guess = track.value * 4.0 > f64::from(step);
            right += usize::from(guess == WORD.bit(mark.bit.into()));
            all += 1;
        }
    }
    let right = right.max(all - right);
    (right as f64 / all as f64, all)
}

#[test]
fn a_still_scene_shows_neither_places_nor_bits() {
    let settings = Settings::default();
    let layouts = layouts(&settings);
    let mut frames = scene(0.0);
    mark(&mut frames, &layouts);
    for (epoch, layout) in layouts.iter().enumerate() {
        let marks = places(layout);
        let tracks = watch(&frames, &settings, epoch);
        let [still, moving, chance] = found(&tracks, &marks);
        println!(
            "layout {epoch}: found {still:.3} of the still, {moving:.3} of the moving marks; chance {chance:.3}"
        );
        // 115 marks a half: three standard deviations of chance are 0.05.
        assert!(still < chance + 0.06, "{still}");
        // The leak that remains: what moves everywhere else stands still under a mark.
        assert!(moving > chance);
    }
}

/// Also where places are known, because the scene moves or the sensor's noise is quantised away.
#[test]
fn bits_stay_hidden_where_places_do_not() {
    let settings = Settings::default();
    let layouts = layouts(&settings);
    for sigma in [0.0, 2.0] {
        let mut frames = scene(sigma);
        mark(&mut frames, &layouts);
        let (mut right, mut all) = (0.0, 0);
        for (epoch, layout) in layouts.iter().enumerate() {
            let marks = places(layout);
            let tracks = watch(&frames, &settings, epoch);
            let [still, moving, chance] = found(&tracks, &marks);
            let (part, count) = bits(&tracks, &marks, settings.step);
            println!(
                "noise {sigma}, layout {epoch}: places {still:.3} still, {moving:.3} moving, chance {chance:.3}; bits {part:.3}"
            );
            right += part * count as f64;
            all += count;
        }
        // The better of two ways round is 0.5 + 0.4 standard deviations in the mean, by layout.
        let (part, deviation) = (
            right / f64::from(all as u32),
            0.5 / f64::from(all as u32).sqrt(),
        );
        assert!(part < 0.5 + 5.0 * deviation, "{part}");
    }
}

/// For contrast: a public dither gives away the places in any scene, and all bits.
#[test]
fn a_public_dither_hides_nothing() {
    let settings = Settings {
        dither: Dither::Fixed(25.0),
        ..Settings::default()
    };
    let layouts = layouts(&settings);
    let mut frames = scene(0.0);
    mark(&mut frames, &layouts);
    let marks = places(&layouts[0]);
    let tracks = watch(&frames, &settings, 0);
    // d_0 = −25 and d_1 = 25 are the same modulo half a step: that is where marks stand.
    let near = |track: &&Track| track.stillness > 0.98 && (track.value - 25.0).abs() < 2.0;
    let candidates: Vec<&Track> = tracks.iter().filter(near).collect();
    let hit = candidates
        .iter()
        .filter(|t| marks.contains_key(&t.place))
        .count();
    let (recall, precision) = (
        hit as f64 / marks.len() as f64,
        hit as f64 / candidates.len() as f64,
    );
    println!("public dither: {recall:.3} of the marks, {precision:.3} of the candidates are marks");
    assert!(recall > 0.8 && precision > 0.4);
    let frame = Luma::new(&frames[0], Shape::plane(WIDTH, HEIGHT)).unwrap();
    let votes = gstcamvault::watermark::read(&frame, &layouts[0]);
    assert!(votes.word().distance(WORD) <= 6);
}
