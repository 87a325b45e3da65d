// SPDX-License-Identifier: MPL-2.0
//! Real footage through the codec of the homomorphic watermark: marked, read, and taken out again.

mod common;

use gstcamvault::luma::{Luma, Shape};
use gstcamvault::sealed::{Chroma, Geometry, Joiner, Picture, Split, Splitter};
use gstcamvault::watermark::{Key, Layout, Settings, Votes, Word, position, read};
use std::collections::HashMap;
use std::io::Read;
use std::process::{Command, Stdio};

/// Frames of each clip.
const FRAMES: usize = 12;

/// Cut to an odd size. Returns the frames there were and the word that was read from the last one.
fn through(
    file: &str,
    [width, height]: [usize; 2],
    word: Word,
    per_block: Option<usize>,
    loss: u8,
) -> (usize, Votes) {
    let crop = format!("crop={width}:{height}:3:1:exact=1,format=yuvj422p");
    let mut child = Command::new("ffmpeg")
        .args(["-loglevel", "error", "-nostdin", "-noautorotate", "-i"])
        .args([file, "-vf", &crop, "-frames:v", &FRAMES.to_string()])
        .args(["-f", "rawvideo", "-"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("ffmpeg is installed by tests/run.sh");
    let mut frames = child.stdout.take().unwrap();
    let settings = Settings {
        per_block,
        ..Settings::default()
    };
    let geometry = Geometry::new(width, height, Chroma::Y42B).unwrap();
    let layout = Layout::new(&Key::from_bytes([1; 32]), 0, &settings, width, height);
    let place = |i: usize| position(&settings, width, &layout.marks()[i]).unwrap() as u32;
    let marks: HashMap<u32, usize> = (0..layout.marks().len()).map(|i| (place(i), i)).collect();
    let splitter = Splitter::new(geometry, &settings, Some(&layout)).unwrap();
    let mut splitter = splitter.with_loss(loss).unwrap();
    let mut archive = Splitter::new(geometry, &settings, None).unwrap();
    let joiner = Joiner::new(geometry, &settings).unwrap();
    let mut joiner = joiner.with_loss(loss).unwrap();
    let mut owner = Joiner::new(geometry, &settings).unwrap();
    // What the owner would have to know of every candidate's delta: what stays, stays.
    let mut deltas = HashMap::new();
    let mut picture = Picture::new(geometry);
    let (mut count, mut votes) = (0, Votes::default());
    while (0..3).all(|i| frames.read_exact(picture.plane_mut(i)).is_ok()) {
        let split = splitter.split(&picture, false).unwrap();
        let bit = |position: &u32| {
            let mark = marks.get(position).map(|&i| layout.marks()[i].bit);
            i16::from(mark.is_some_and(|bit| word.bit(bit.into())))
        };
        let values: Vec<i16> = (0..split.values.len())
            .map(|i| {
                let by = split.deltas[i] * bit(&split.positions[i]);
                deltas.insert(split.positions[i], by);
                split.values[i] + by
            })
            .collect();
        joiner.read(&split.rest).unwrap();
        let marked = joiner.join(&values).unwrap();
        let back = archive.split(marked, true).unwrap();
        let values: Vec<i16> = back
            .positions
            .iter()
            .zip(&back.values)
            .map(|(position, value)| {
                let remainder = marks.get(position).map(|&i| split.remainders[i]);
                let remainder = remainder.filter(|&r| r != Split::NONE).unwrap_or(0);
                value - deltas[position] + remainder
            })
            .collect();
        owner.read(&back.rest).unwrap();
        let sealed = splitter.sealed().unwrap();
        assert!(loss > 0 || sealed == &picture);
        assert!(owner.join(&values).unwrap() == sealed, "{file}: {count}");
        votes = read(
            &Luma::new(&marked.planes()[0], Shape::plane(width, height)).unwrap(),
            &layout,
        );
        count += 1;
    }
    child.wait().unwrap();
    (count, votes)
}

#[test]
fn the_footage() {
    let Some(folder) = common::footage() else {
        eprintln!("NOT TESTED: there is no folder with footage");
        return;
    };
    let word = Word(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834);
    let mut clips = 0;
    for file in common::walk(&folder) {
        let name = file.display().to_string();
        if !name.ends_with(".mp4") && !name.ends_with(".mkv") {
            continue;
        }
        let size = match name.contains("axis") {
            true => [475, 637],
            false => [763, 429],
        };
        for (per_block, loss) in [(Some(1), 5), (Some(1), 0), (None, 2)] {
            let (frames, votes) = through(&name, size, word, per_block, loss);
            let wrong = votes.word().distance(word);
            println!(
                "{name}, {per_block:?} a block, loss {loss}: {frames} frames, {wrong} bits wrong in the last"
            );
            assert_eq!(frames, FRAMES);
            // A dark scene has not room for all marks in a single frame.
            assert!(
                wrong <= if name.contains("night") { 8 } else { 0 },
                "{name}"
            );
        }
        clips += 1;
    }
    assert!(clips > 3, "{clips}");
}
