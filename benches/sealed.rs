// SPDX-License-Identifier: MPL-2.0
//! Cost of splitting and joining a 1080p frame, with all blocks changed and with none: CPU time of
//! the one thread that works.

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gstcamvault::sealed::{Chroma, Geometry, Joiner, Picture, Splitter};
use gstcamvault::watermark::code::Seeded;
use gstcamvault::watermark::{Key, Layout, Settings};
use std::hint::black_box;
use std::time::Duration;

/// The thread's CPU time: a core's work, whatever else the machine does.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    }

    fn end(&self, start: Duration) -> Duration {
        self.start() - start
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// Gentle hills with the noise of a good camera.
fn picture(geometry: Geometry, seed: u64) -> Picture {
    let mut random = Seeded::new(seed);
    let mut picture = Picture::new(geometry);
    for i in 0..geometry.planes() {
        let [width, _] = geometry.plane(i);
        for (at, sample) in picture.plane_mut(i).iter_mut().enumerate() {
            let [x, y] = [at % width, at / width].map(|side| side as f64 / 97.0);
            *sample = (128.0 + 60.0 * x.sin() * y.cos() + 2.0 * random.normal()) as u8;
        }
    }
    picture
}

fn frames(c: &mut Criterion<CpuTime>) {
    let geometry = Geometry::new(1920, 1080, Chroma::I420).expect("a size");
    let settings = Settings::default();
    let layout = Layout::new(&Key::from_bytes([9; 32]), 0, &settings, 1920, 1080);
    let pictures = [picture(geometry, 1), picture(geometry, 2)];
    let splitter = || Splitter::new(geometry, &settings, Some(&layout)).expect("settings");
    let joiner = || Joiner::new(geometry, &settings.classes).expect("classes");
    let split = splitter().split(&pictures[0], true).expect("a picture");
    let bits: u64 = split.widths.iter().map(|&width| u64::from(width)).sum();
    println!(
        "1080p: rest {} bytes, candidates {} bytes",
        split.rest.len(),
        bits / 8
    );

    let mut group = c.benchmark_group("sealed 1080p");
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
