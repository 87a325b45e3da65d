// SPDX-License-Identifier: MPL-2.0
//! What was measured.

use crate::method::Method;
use gstcamvault::watermark::{BITS, Settings};

/// What was read as one: a frame, or frames of some time.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub enum Window {
    Frame,
    Seconds(f64),
    Clip,
}

impl std::fmt::Display for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Frame => f.write_str("one frame"),
            Self::Seconds(seconds) => write!(f, "{seconds} s"),
            Self::Clip => f.write_str("whole clip"),
        }
    }
}

/// Bits read wrong.
#[derive(Clone)]
pub struct Row {
    pub experiment: &'static str,
    /// Which line of a plot: the codec, the size of a filter.
    pub series: String,
    /// How hard the attack is.
    pub x: f64,
    pub subject: String,
    pub method: Method,
    pub window: Window,
    pub readings: u32,
    /// Of all readings.
    pub errors: u32,
    /// Of the worst reading.
    pub worst: u32,
}

impl Row {
    pub fn new(
        experiment: &'static str,
        series: &str,
        x: f64,
        subject: &str,
        method: Method,
    ) -> Self {
        Self {
            experiment,
            series: series.to_owned(),
            x,
            subject: subject.to_owned(),
            method,
            window: Window::Clip,
            readings: 0,
            errors: 0,
            worst: 0,
        }
    }

    /// Adds a reading with so many wrong bits.
    pub fn count(&mut self, errors: u32) {
        self.readings += 1;
        self.errors += errors;
        self.worst = self.worst.max(errors);
    }
}

/// Several rows together.
#[derive(Clone, Copy, Default)]
pub struct Sum {
    pub errors: u32,
    pub bits: u32,
    pub worst: u32,
}

impl Sum {
    pub fn of<'a>(rows: impl Iterator<Item = &'a Row>) -> Self {
        rows.fold(Self::default(), |sum, row| Self {
            errors: sum.errors + row.errors,
            bits: sum.bits + row.readings * BITS as u32,
            worst: sum.worst.max(row.worst),
        })
    }

    /// In percent; nothing without readings.
    pub fn percent(self) -> Option<f64> {
        (self.bits > 0).then(|| 100.0 * f64::from(self.errors) / f64::from(self.bits))
    }
}

/// Mean BER in percent, and the worst reading's wrong bits.
impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.percent() {
            Some(percent) => write!(f, "{percent:.1} ({})", self.worst),
            None => f.write_str("–"),
        }
    }
}

/// A marked clip or picture.
pub struct Subject {
    pub name: String,
    pub what: &'static str,
    pub size: [usize; 2],
    pub frames: usize,
    pub method: Method,
    pub settings: Settings,
    pub psnr: f64,
    /// PSNR of the paper's settings as they are.
    pub as_published: f64,
}

/// What a mark costs an encoder.
pub struct Cost {
    pub clip: String,
    pub method: Method,
    pub codec: &'static str,
    pub crf: u32,
    pub kbit: f64,
    /// Bytes more, in percent.
    pub percent: f64,
}
