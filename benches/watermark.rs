// SPDX-License-Identifier: MPL-2.0
//! Cost of the watermark per block and per frame, beside what touching the pixels costs by itself.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use gstcamvault::luma::{Luma, LumaMut, Plane, Shape};
use gstcamvault::watermark::code::{Seeded, unmask};
use gstcamvault::watermark::{
    Code, Key, Layout, Registration, Settings, Trace, Word, embed, erase, read,
};
use std::hint::black_box;

const WIDTH: usize = 1920;
const HEIGHT: usize = 1080;

/// Gentle hills with some noise: as bright as pictures are, so that all blocks have room.
fn picture(width: usize, height: usize) -> Plane {
    let mut random = Seeded::new(1);
    let sample = |i: usize| {
        let [x, y] = [i % width, i / width].map(|side| side as f64 / 97.0);
        128.0 + 60.0 * x.sin() * y.cos() + 3.0 * random.normal()
    };
    let data = (0..width * height).map(sample).map(|y| y as u8).collect();
    Plane::new(width, height, data).expect("as many samples as the size says")
}

fn word() -> Word {
    Seeded::new(2).word()
}

/// 1080p.
fn frames(c: &mut Criterion) {
    let plain = picture(WIDTH, HEIGHT);
    let (key, settings, word) = (Key::from_bytes([9; 32]), Settings::default(), word());
    let layout = Layout::new(&key, 0, &settings, WIDTH, HEIGHT);
    let mut trace = Trace::default();
    let mut marked = plain.clone();
    embed(&mut marked.luma_mut(), &layout, word, Some(&mut trace));

    let mut group = c.benchmark_group("1080p");
    group.throughput(Throughput::Elements(1));
    group.bench_function("floor/copy the plane", |b| {
        let mut copy = plain.data().to_vec();
        b.iter(|| black_box(&mut copy).copy_from_slice(black_box(plain.data())));
    });
    group.bench_function("floor/sum the plane", |b| {
        b.iter(|| {
            let samples = black_box(plain.data()).iter();
            samples.map(|&sample| u64::from(sample)).sum::<u64>()
        });
    });
    group.bench_function("embed", |b| {
        // Again and again into the same plane: a marked picture takes as long as a plain one.
        let mut picture = plain.clone();
        b.iter(|| embed(&mut picture.luma_mut(), &layout, word, None));
    });
    group.bench_function("embed, with a trace", |b| {
        let mut picture = plain.clone();
        let mut trace = Trace::default();
        b.iter(|| embed(&mut picture.luma_mut(), &layout, word, Some(&mut trace)));
    });
    group.bench_function("erase", |b| {
        b.iter_batched_ref(
            || marked.clone(),
            |picture| erase(&mut picture.luma_mut(), &layout, &trace),
            BatchSize::LargeInput,
        );
    });
    group.bench_function("read", |b| b.iter(|| read(&marked.luma(), &layout)));
    group.bench_function("read, resized from 720p", |b| {
        let small = picture(1280, 720);
        let registration = Registration::scaled([1280, 720], [WIDTH, HEIGHT]);
        b.iter(|| registration.tally(&small.luma(), &layout));
    });
    group.bench_function("layout", |b| {
        b.iter(|| Layout::new(&key, 1, &settings, WIDTH, HEIGHT));
    });
    let paper = Settings::paper();
    let paper = Layout::new(&key, 0, &paper, WIDTH, HEIGHT);
    group.bench_function("paper/embed, all coefficients", |b| {
        let mut picture = plain.clone();
        b.iter(|| embed(&mut picture.luma_mut(), &paper, word, None));
    });
    group.bench_function("paper/read, all coefficients", |b| {
        b.iter(|| read(&plain.luma(), &paper));
    });
    group.finish();
}

/// One block with a single mark.
fn blocks(c: &mut Criterion) {
    let key = Key::from_bytes([9; 32]);
    let settings = Settings {
        density: Some(1.0),
        per_block: Some(1),
        ..Settings::default()
    };
    let layout = Layout::new(&key, 0, &settings, 8, 8);
    let shape = Shape::plane(8, 8);
    let plain = picture(8, 8);
    let word = word();
    let mut group = c.benchmark_group("block");
    group.throughput(Throughput::Elements(1));
    group.bench_function("floor/copy", |b| {
        let mut copy = [0u8; 64];
        b.iter(|| black_box(&mut copy).copy_from_slice(black_box(plain.data())));
    });
    group.bench_function("floor/sum", |b| {
        b.iter(|| {
            let samples = black_box(plain.data()).iter();
            samples.map(|&sample| u32::from(sample)).sum::<u32>()
        });
    });
    group.bench_function("embed", |b| {
        let mut data = plain.data().to_vec();
        b.iter(|| {
            let picture = LumaMut::new(black_box(&mut data), shape);
            embed(&mut picture.expect("64 samples"), &layout, word, None);
        });
    });
    group.bench_function("read", |b| {
        b.iter(|| {
            let picture = Luma::new(black_box(plain.data()), shape);
            read(&picture.expect("64 samples"), &layout)
        });
    });
    group.finish();
}

/// From votes to an identity. Votes near the word are easy, those at the limit are not.
fn codes(c: &mut Criterion) {
    let pad = Key::from_bytes([9; 32]).pad();
    let mut group = c.benchmark_group("code");
    for (name, code) in [
        ("[128,29,44]", Code::Bch29),
        ("[128,16,52]", Code::Concatenated16),
    ] {
        group.bench_function(format!("{name}/register"), |b| {
            b.iter(|| code.register(black_box(12_345), pad));
        });
        let word = code.register(12_345, pad).expect("both codes have so many");
        for (wrong, sigma) in [("none", 0.1), ("20 %", 1.19)] {
            let mut random = Seeded::new(3);
            let votes = std::array::from_fn(|bit| {
                let sign = if word.bit(bit) { 1.0 } else { -1.0 };
                sign + sigma * random.normal()
            });
            group.bench_function(format!("{name}/decode, {wrong} wrong"), |b| {
                b.iter(|| code.decode(&unmask(black_box(&votes), pad)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, frames, blocks, codes);
criterion_main!(benches);
