// SPDX-License-Identifier: MPL-2.0
//! Cost of a frame's hash beside reading the frame once, and of a search among ten million hashes
//! beside looking at them all.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gstcamvault::feature::index::Index;
use gstcamvault::feature::{Observer, PHash};
use gstcamvault::luma::{Luma, Shape};
use std::hint::black_box;

const ENTRIES: u64 = 10_000_000;

/// SplitMix64.
fn noise(i: u64) -> u64 {
    let v = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let v = (v ^ (v >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let v = (v ^ (v >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    v ^ (v >> 31)
}

fn frame(c: &mut Criterion) {
    for (name, width, height) in [("432p", 768, 432), ("1080p", 1920, 1080)] {
        let pixels: Vec<u8> = (0..width * height)
            .map(|i| ((i / width + i % width) / 9) as u8 ^ (noise(i as u64) & 7) as u8)
            .collect();
        let luma = Luma::new(&pixels, Shape::plane(width, height)).unwrap();
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Bytes(pixels.len() as u64));
        group.bench_function("floor/sum of the plane", |b| {
            b.iter(|| {
                let words = black_box(&pixels).chunks_exact(8);
                words.fold(0u64, |sum, w| {
                    sum.wrapping_add(u64::from_le_bytes(w.try_into().unwrap()))
                })
            })
        });
        group.bench_function("floor/copy of the plane", |b| {
            let mut copy = pixels.clone();
            b.iter(|| copy.copy_from_slice(black_box(&pixels)))
        });
        group.bench_function("phash", |b| {
            let mut observer = Observer::default();
            b.iter(|| observer.look(black_box(&luma)))
        });
    }
}

/// Hashes as pictures have them: the first bit set, half of the others.
fn hash(i: u64) -> PHash {
    let (mut bits, mut left) = (1 << 63, 31);
    for round in 0.. {
        let mut some = noise(i.wrapping_add(round << 40));
        while left > 0 && some != 0 {
            let bit = 1 << (some % 63);
            some /= 63;
            if bits & bit == 0 {
                bits |= bit;
                left -= 1;
            }
        }
        if left == 0 {
            break;
        }
    }
    PHash(bits)
}

fn search(c: &mut Criterion) {
    let entries: Vec<(PHash, u64)> = (0..ENTRIES).map(|i| (hash(i), i)).collect();
    let begin = std::time::Instant::now();
    let mut index = Index::build(entries.iter().copied());
    println!(
        "{} entries: built in {:.2?}, {:.1} bytes an entry",
        index.len(),
        begin.elapsed(),
        index.bytes() as f64 / index.len() as f64
    );
    let mut group = c.benchmark_group("10 million");
    group.sample_size(20);
    let mut at = 0;
    // What is asked for differs in some bits from what is there.
    let mut query = move || {
        at += 1;
        let changed = (0..at % 8).fold(0, |bits, i| bits | 1 << (noise(at * 8 + i) % 64));
        PHash(hash(noise(at) % ENTRIES).0 ^ changed)
    };
    group.bench_function("baseline/scan, radius 10", |b| {
        b.iter(|| {
            let query = query();
            let near = entries.iter().filter(|e| e.0.distance(query) <= 10);
            near.count()
        })
    });
    for radius in [0, 6, 8, 10, 12] {
        group.bench_function(format!("index/radius {radius}"), |b| {
            b.iter(|| index.within(query(), radius))
        });
    }
    let mut next = ENTRIES;
    group.bench_function("index/insert and remove", |b| {
        b.iter(|| {
            next += 1;
            index.insert(hash(next), next);
            index.remove(hash(next), next)
        })
    });
}

criterion_group!(benches, frame, search);
criterion_main!(benches);
