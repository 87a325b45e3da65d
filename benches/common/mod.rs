// SPDX-License-Identifier: MPL-2.0
//! What benches share: time that other processes do not spoil, and pictures.

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use gstcamvault::sealed::{Geometry, Picture};
use gstcamvault::watermark::code::Seeded;
use std::time::Duration;

/// The thread's CPU time: a core's work, whatever else the machine does.
pub struct CpuTime;

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
pub fn picture(geometry: Geometry, seed: u64) -> Picture {
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
