// SPDX-License-Identifier: MPL-2.0
//! What a cloud can tell from all that an opener gives it: rests, order, widths, lengths, values.

use super::super::model::{Carriers, NARROWS};
use super::super::picture::Tiles;
use super::super::transform::{LANES, ZERO};
use super::super::{Chroma, Geometry, Joiner, NARROW, Picture, Split, Splitter, WIDE, simd};
use super::message::{self, FrameHeader, Kind};
use super::owner::nonce;
use super::tests::{WORLD, messages};
use super::{Opener, Sealer, key_info};
use crate::protocol::{Mode, SegmentHead, Signed, TicketHead};
use crate::watermark::{BITS, Key, Layout, Settings, Word, carried_bits};
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use std::collections::HashMap;
use std::f64::consts::TAU;

const SIZE: [usize; 2] = [160, 120];

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn normal(&mut self) -> f64 {
        let sum: u64 = (0..12).map(|_| self.next() >> 40).sum();
        sum as f64 / f64::from(1 << 24) - 6.0
    }
}

fn settings() -> Settings {
    WORLD.contract.settings().unwrap()
}

fn seed(n: u8) -> [u8; 32] {
    [n.wrapping_mul(31).wrapping_add(5); 32]
}

fn word(n: u8) -> Word {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(n) << 32);
    (0..9).for_each(|_| {
        random.next();
    });
    Word(u128::from(random.next()) << 64 | u128::from(random.next()))
}

fn geometry() -> Geometry {
    Geometry::new(SIZE[0], SIZE[1], Chroma::None).unwrap()
}

/// A texture that moves, seen by a sensor with noise.
fn scene(speed: f64, noise: f64) -> impl FnMut(usize) -> Picture {
    let mut random = Random(0x1234_5678_9abc_def1);
    let waves: Vec<[f64; 4]> = (0..12)
        .map(|_| [0.15, 0.12, 2.0, 4.0].map(|size| size * random.normal()))
        .collect();
    move |time| {
        let mut picture = Picture::new(geometry());
        for (i, sample) in picture.plane_mut(0).iter_mut().enumerate() {
            let x = (i % SIZE[0]) as f64 + speed * time as f64;
            let y = (i / SIZE[0]) as f64;
            let wave = |[a, b, phase, size]: &[f64; 4]| size * (a * x + b * y + phase).sin();
            let sum = waves.iter().map(wave).sum::<f64>();
            *sample = (125.0 + 2.5 * sum + noise * random.normal()).clamp(0.0, 255.0) as u8;
        }
        picture
    }
}

/// Everything of a frame that the cloud has.
struct Seen {
    rest: Vec<u8>,
    masked: usize,
    remainder: usize,
    widths: Vec<u8>,
    positions: Vec<u32>,
    picture: Picture,
}

/// Frames that are sealed with a ticket, as its cloud sees them.
fn seen(mode: Mode, ticket: u8, frames: impl Iterator<Item = Picture>) -> Vec<Seen> {
    let world = &*WORLD;
    let mut sealer = Sealer::new(world.owner.clone()).unwrap();
    let prepared = world.prepared_of(mode, seed(ticket), word(ticket), SIZE);
    let begun = sealer.begin(prepared, Chroma::None, (10, 1), 0).unwrap();
    let head = messages(&begun).remove(0).1;
    let mut opener: Opener = world.opener();
    opener.segment(&head, world.contracts(), 1500).unwrap();
    let cipher = cipher(&head);
    let joiner = Joiner::new(geometry(), &settings()).unwrap();
    let mut joiner = joiner.with_loss(world.contract.loss).unwrap();
    let see = |(n, picture): (usize, Picture)| {
        let sent = sealer.frame(&picture, Some(n as u64), None).unwrap();
        let (kind, payload) = messages(&sent).remove(0);
        assert_eq!(kind, Kind::Frame);
        let body = body(&cipher, &payload);
        let [rest, masked, remainder] = message::split_parts(&body).unwrap();
        let sent = joiner.read(rest).unwrap();
        joiner.join(&vec![0; sent.positions.len()]).unwrap();
        let (picture, ..) = opener.frame(&payload).unwrap();
        Seen {
            rest: rest.to_vec(),
            masked: masked.len(),
            remainder: remainder.len(),
            widths: sent.widths,
            positions: sent.positions,
            picture: picture.clone(),
        }
    };
    frames.enumerate().map(see).collect()
}

/// The cipher of a segment's frames, as cloud and owner have it.
pub(super) fn cipher(head: &[u8]) -> Aes256Gcm {
    let signed: Signed = crate::protocol::decode(head).unwrap();
    let head: SegmentHead = signed.unverified().unwrap();
    let ticket: TicketHead = head.ticket.unverified().unwrap();
    let info = key_info(&ticket.contract, &head.stream, head.segment);
    let key = WORLD.cloud.open(&info, &head.key).unwrap();
    Aes256Gcm::new_from_slice(&key).unwrap()
}

/// What is under the segment's key in a frame.
pub(super) fn body(cipher: &Aes256Gcm, payload: &[u8]) -> Vec<u8> {
    let (header, sealed) = FrameHeader::split(payload).unwrap();
    let payload = Payload {
        msg: sealed,
        aad: &header.to_bytes(),
    };
    cipher.decrypt(&nonce(header.number), payload).unwrap()
}

/// Coefficients that can carry bits, of all blocks, by position.
fn coefficients(picture: &Picture) -> Vec<i16> {
    let carriers = Carriers::new(&settings(), picture.geometry());
    let tiles: Tiles = picture.geometry().tiles(0);
    let blocks: Vec<u32> = (0..tiles.blocks() as u32).collect();
    let mut out = Vec::new();
    for blocks in blocks.chunks(LANES) {
        let mut group = ZERO;
        simd::load(&mut group, &tiles, &picture.planes()[0], blocks);
        simd::forward(&mut group);
        for (lane, &block) in blocks.iter().enumerate() {
            out.extend(carriers.of(block).map(|at| group[at].0[lane]));
        }
    }
    out
}

/// Bits by position, of what was really marked with a ticket in any of the frames.
fn marks(ticket: u8, frames: impl Iterator<Item = Picture>) -> HashMap<usize, bool> {
    let settings = settings();
    let layout = Layout::new(
        &Key::from_bytes(seed(ticket)),
        0,
        &settings,
        SIZE[0],
        SIZE[1],
    );
    let bits = carried_bits(&settings, SIZE[0], SIZE[1]);
    let mut splitter = Splitter::new(geometry(), &settings, Some(&layout)).unwrap();
    let mut marks = HashMap::new();
    for picture in frames {
        let split = splitter.split(&picture, true).unwrap();
        for (&position, &delta) in split.positions.iter().zip(&split.deltas) {
            if delta != 0 {
                let bit = word(ticket).bit(bits[position as usize].into());
                marks.insert(position as usize, bit);
            }
        }
    }
    marks
}

fn auc(mut ranked: Vec<(f64, bool)>) -> f64 {
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut marks, mut above) = (0.0, 0.0);
    for (_, mark) in &ranked {
        match mark {
            true => marks += 1.0,
            false => above += marks,
        }
    }
    above / marks / (ranked.len() as f64 - marks)
}

/// Of 1000 frames of one ticket, and of ten tickets of 100 frames each: how well values that stand
/// still modulo half a step show where marks are, and how well anything shows their bits.
#[test]
fn a_thousand_frames_show_no_bit_and_places_only_by_values_that_stand_still() {
    let step = f64::from(settings().step);
    // Without optimisation this takes minutes.
    let scale = if cfg!(debug_assertions) { 10 } else { 1 };
    for (tickets, frames) in [(1u8, 1000usize), (10, 100)] {
        let frames = frames / scale;
        let mut picture = scene(1.3, 2.0);
        let (mut stands, mut absolute) = (Vec::new(), Vec::new());
        let (mut right, mut guesses) = (0.0, 0.0);
        for ticket in 0..tickets {
            let own: Vec<Picture> = (0..frames)
                .map(|n| picture(usize::from(ticket) * frames + n))
                .collect();
            let marks = marks(ticket, own.iter().cloned());
            let mut sums = vec![[0.0; 5]; geometry().candidates(settings().each())];
            for seen in seen(Mode::Oblivious, ticket, own.into_iter()) {
                for (sum, value) in sums.iter_mut().zip(coefficients(&seen.picture)) {
                    let angle = TAU * f64::from(value) / step;
                    let parts = [
                        (2.0 * angle).cos(),
                        (2.0 * angle).sin(),
                        angle.cos(),
                        angle.sin(),
                        f64::from(value).abs(),
                    ];
                    sum.iter_mut()
                        .zip(parts)
                        .for_each(|(sum, part)| *sum += part);
                }
            }
            for (position, sum) in sums.iter().enumerate() {
                let mark = marks.get(&position);
                stands.push((sum[0].hypot(sum[1]), mark.is_some()));
                absolute.push((sum[4], mark.is_some()));
                if let Some(&bit) = mark {
                    // The phase modulo a whole step, against the fixed dither of the paper.
                    let turned =
                        (TAU * 25.0 / step).cos() * sum[2] + (TAU * 25.0 / step).sin() * sum[3];
                    guesses += 1.0;
                    right += f64::from(u8::from((turned > 0.0) == bit));
                }
            }
        }
        let (stands, absolute, right) = (auc(stands), auc(absolute), right / guesses);
        println!(
            "{tickets} tickets of {frames} frames: places by values mod s/2 AUC {stands:.3}, by size \
             {absolute:.3}; bits {right:.3} of {guesses} marks"
        );
        assert!(
            (right - 0.5).abs() < 3.0 * 0.5 / f64::sqrt(guesses),
            "{right}"
        );
        // The known leak: where this no longer holds, say so in docs/security.md.
        assert!(stands > 0.7, "less leaks than is documented: {stands}");
    }
}

#[test]
fn rest_order_widths_and_lengths_are_the_same_whatever_the_ticket() {
    for mode in [Mode::Oblivious, Mode::Packed] {
        let frames = if mode == Mode::Packed { 1 } else { 12 };
        let views = [1u8, 2, 3].map(|ticket| {
            let mut still = scene(0.0, 0.0);
            let mut moving = scene(1.3, 2.0);
            // Whole, all the same, a part, most.
            let picture = |n: usize| match n % 4 {
                0 | 1 => still(0),
                2 => {
                    let mut picture = still(0);
                    for (i, sample) in picture.plane_mut(0).iter_mut().enumerate() {
                        if (i / SIZE[0] / 8 + i % SIZE[0] / 8 + n).is_multiple_of(23) {
                            *sample ^= 3;
                        }
                    }
                    picture
                }
                _ => moving(n),
            };
            seen(mode, ticket, (0..frames).map(picture))
        });
        for n in 0..frames {
            for other in &views[1..] {
                let (a, b) = (&views[0][n], &other[n]);
                assert!(a.rest == b.rest && a.widths == b.widths && a.positions == b.positions);
                let lengths = |seen: &Seen| [seen.masked, seen.rest.len()];
                assert_eq!(lengths(a), lengths(b), "{mode:?}, frame {n}");
                assert!(a.picture != b.picture, "other marks");
            }
        }
    }
}

/// Blocks change one at a time: what the cloud keeps for the owner must not be longer when the
/// block carries a mark.
#[test]
fn the_length_of_remainders_does_not_show_which_blocks_carry_marks() {
    let (columns, ticket) = (SIZE[0] / 8, 4);
    let blocks = columns * (SIZE[1] / 8);
    let mut still = scene(0.0, 0.0);
    let first = still(0);
    let frames: Vec<Picture> = (0..=blocks)
        .map(|n| {
            let mut picture = first.clone();
            let changed = |block: usize, picture: &mut Picture| {
                let at = (block / columns * 8) * SIZE[0] + block % columns * 8;
                for row in 0..8 {
                    for sample in &mut picture.plane_mut(0)[at + row * SIZE[0]..][..4] {
                        *sample = sample.wrapping_add(9);
                    }
                }
            };
            (0..n).for_each(|block| changed(block, &mut picture));
            picture
        })
        .collect();
    let marks = marks(ticket, frames.iter().cloned());
    let each = settings().each();
    let carries = |block: usize| (0..each).any(|c| marks.contains_key(&(block * each + c)));
    let seen = seen(Mode::Oblivious, ticket, frames.into_iter());
    let ranked: Vec<(f64, bool)> = (0..blocks)
        .map(|block| (seen[block + 1].remainder as f64, carries(block)))
        .collect();
    let mean = |marked: bool| {
        let of = ranked.iter().filter(|(_, mark)| *mark == marked);
        of.clone().map(|(length, _)| length).sum::<f64>() / of.count() as f64
    };
    println!(
        "remainders of frames in which one block changed: {:.1} bytes with a mark, {:.1} without",
        mean(true),
        mean(false)
    );
    assert!(ranked.iter().all(|(length, _)| *length == ranked[0].0));
}

/// Over many layouts, marks are wide as often as candidates are, and what the exclusion of blocks
/// without room and of values at the edge of their width changes is said.
#[test]
fn widths_say_nothing_of_marks() {
    let settings = settings();
    let mut picture = scene(0.0, 2.0)(0);
    // Strong edges, so that there are wide ones.
    for (i, sample) in picture.plane_mut(0).iter_mut().enumerate() {
        if (i % SIZE[0] / 11 + i / SIZE[0] / 13).is_multiple_of(3) {
            *sample = if i % 2 == 0 { 250 } else { 20 + *sample / 2 };
        }
    }
    let (mut all, mut placed, mut marked) = ([0.0; 2], [0.0; 2], [0.0; 2]);
    for n in 0..200u8 {
        let layout = Layout::new(&Key::from_bytes([n; 32]), 0, &settings, SIZE[0], SIZE[1]);
        let mut splitter = Splitter::new(geometry(), &settings, Some(&layout)).unwrap();
        let split = splitter.split(&picture, true).unwrap();
        if n == 0 {
            split
                .widths
                .iter()
                .for_each(|&w| all[usize::from(w == WIDE)] += 1.0);
        }
        for mark in layout.marks() {
            let at = crate::watermark::position(&settings, SIZE[0], mark).unwrap();
            placed[usize::from(split.widths[at] == WIDE)] += 1.0;
            marked[usize::from(split.widths[at] == WIDE)] +=
                f64::from(u8::from(split.deltas[at] != 0));
        }
        for (i, &width) in split.widths.iter().enumerate() {
            let both = [split.values[i], split.values[i] + split.deltas[i]];
            let narrow = both.map(|value| NARROWS.contains(&i32::from(value)));
            assert_eq!(
                narrow,
                [width == NARROW; 2],
                "a value shows that it was moved"
            );
        }
    }
    let share = |[narrow, wide]: [f64; 2]| wide / (narrow + wide);
    let (all, chance) = (share(all), f64::sqrt(0.25 / placed.iter().sum::<f64>()));
    println!(
        "wide: {all:.4} of candidates, {:.4} of places of marks, {:.4} of marks that were made",
        share(placed),
        share(marked)
    );
    assert!((share(placed) - all).abs() < 4.0 * chance);
}

/// What a lossy archive lets the owner see at a retrieval, even an honest one: the codec's grid lies
/// on the marked picture. This is why verdicts name the first retrieval of a ticket.
#[test]
fn a_retrieval_from_a_lossy_archive_shows_the_owner_bits() {
    let settings = settings();
    let grid = 24;
    let bits = carried_bits(&settings, SIZE[0], SIZE[1]);
    let layout = Layout::new(&Key::from_bytes(seed(9)), 0, &settings, SIZE[0], SIZE[1]);
    let mut splitter = Splitter::new(geometry(), &settings, Some(&layout)).unwrap();
    let mut picture = scene(1.3, 2.0);
    let mut votes = vec![0.0; BITS];
    for n in 0..4 {
        let picture = picture(n);
        let split: Split = splitter.split(&picture, true).unwrap();
        let clear = coefficients(&picture);
        let delta_of = split.positions.iter().zip(&split.deltas);
        let mut remainders = HashMap::new();
        for (mark, &remainder) in layout.marks().iter().zip(&split.remainders) {
            let at = crate::watermark::position(&settings, SIZE[0], mark).unwrap();
            remainders.insert(at, remainder);
        }
        for (&position, &delta) in delta_of.filter(|(_, delta)| **delta != 0) {
            let at = position as usize;
            let bit = usize::from(bits[at]);
            let zero = i32::from(clear[at] - remainders[&at]);
            let stored = zero + i32::from(delta) * i32::from(word(9).bit(bit));
            // A codec that puts coefficients on a grid.
            let stored = (stored + grid / 2).div_euclid(grid) * grid;
            // What comes back from the retrieval, before the remainder is added.
            let back = stored - i32::from(delta) * i32::from(word(9).bit(bit));
            let off = |value: i32| f64::from((value + grid / 2).rem_euclid(grid) - grid / 2).abs();
            votes[bit] += off(back) - off(back + i32::from(delta));
        }
    }
    let voted = votes.iter().enumerate().filter(|(_, vote)| **vote != 0.0);
    let right = voted
        .clone()
        .filter(|(bit, vote)| (**vote > 0.0) == word(9).bit(*bit));
    let (right, voted) = (right.count(), voted.count());
    println!("{right} of {voted} bits read by the owner from four frames of a lossy archive");
    assert!(voted > 40 && right * 10 > voted * 9);
}
