// SPDX-License-Identifier: MPL-2.0
//! Cost of splitting and joining a 1080p frame, with all blocks changed and with none: CPU time of
//! the one thread that works.

mod common;

use common::{CpuTime, picture};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gstcamvault::protocol::{DEFAULT_LOSS, DEFAULT_PER_BLOCK};
use gstcamvault::sealed::{Chroma, Geometry, Joiner, Splitter};
use gstcamvault::watermark::{Key, Layout, Settings};
use std::hint::black_box;

fn frames(c: &mut Criterion<CpuTime>) {
    let geometry = Geometry::new(1920, 1080, Chroma::I420).expect("a size");
    for (name, per_block, loss) in [
        ("sealed 1080p", DEFAULT_PER_BLOCK, DEFAULT_LOSS),
        ("sealed 1080p, lossless", DEFAULT_PER_BLOCK, 0),
    ] {
        let settings = Settings {
            per_block: Some(per_block as usize),
            ..Settings::default()
        };
        with(c, name, geometry, &settings, loss);
    }
}

fn with(c: &mut Criterion<CpuTime>, name: &str, geometry: Geometry, settings: &Settings, loss: u8) {
    let layout = Layout::new(&Key::from_bytes([9; 32]), 0, settings, 1920, 1080);
    let pictures = [picture(geometry, 1), picture(geometry, 2)];
    let splitter = || {
        let splitter = Splitter::new(geometry, settings, Some(&layout));
        splitter.expect("settings").with_loss(loss).expect("a loss")
    };
    let joiner = || {
        let joiner = Joiner::new(geometry, settings).expect("classes");
        joiner.with_loss(loss).expect("a loss")
    };
    let split = splitter().split(&pictures[0], true).expect("a picture");
    let bits: u64 = split.widths.iter().map(|&width| u64::from(width)).sum();
    println!(
        "{name}: rest {} bytes, candidates {} bytes",
        split.rest.len(),
        bits / 8
    );

    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(1));
    group.bench_function("split, all changed", |b| {
        let (mut splitter, mut i) = (splitter(), 0);
        b.iter(|| {
            i += 1;
            splitter.split(black_box(&pictures[i % 2]), false)
        });
    });
    group.bench_function("split, none changed", |b| {
        let mut splitter = splitter();
        b.iter(|| splitter.split(black_box(&pictures[0]), false));
    });
    group.bench_function("read and join, all changed", |b| {
        let mut joiner = joiner();
        b.iter(|| {
            joiner.read(black_box(&split.rest)).expect("a rest");
            joiner.join(&split.values).expect("values").planes().len()
        });
    });
    group.bench_function("read alone", |b| {
        let mut joiner = joiner();
        b.iter(|| joiner.read(black_box(&split.rest)).expect("a rest"));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = frames
}
criterion_main!(benches);
