// SPDX-License-Identifier: MPL-2.0
//! Times of operations, bytes on disk, and how long sealed objects are.

use super::Result;
use gstcamvault::identity::AeadKey;
use gstcamvault::manifest::{
    Chunk, Envelope, Framing, Head, Manifest, Sealer, Stored, Summary, TimeSegment, Track, UnitInfo,
};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// What one kind of operation took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Calls, each one transaction or a bounded number of them.
    pub calls: u64,
    /// Chunks, owners or recordings in them.
    pub items: u64,
    /// Time from call to answer.
    pub time: Duration,
    /// CPU time of the process meanwhile, merging tables in the background included: on a machine
    /// with other work it says more.
    pub cpu: Duration,
}

impl Cost {
    /// Seconds for each item; for each call of those without.
    pub fn per_item(&self) -> f64 {
        self.time.as_secs_f64() / self.count()
    }

    /// Seconds of CPU, likewise.
    pub fn cpu_per_item(&self) -> f64 {
        self.cpu.as_secs_f64() / self.count()
    }

    fn count(&self) -> f64 {
        match self.items {
            0 => self.calls.max(1) as f64,
            items => items as f64,
        }
    }

    /// Seconds for each call.
    pub fn per_call(&self) -> f64 {
        self.time.as_secs_f64() / self.calls.max(1) as f64
    }
}

/// When something began.
#[derive(Clone, Copy, Debug)]
pub struct Began(Instant, Duration);

impl Began {
    /// Now.
    pub fn now() -> Self {
        Self(Instant::now(), cpu())
    }
}

/// CPU time of this process so far.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(time.tv_sec.unsigned_abs(), nanos)
}

/// Costs by operation.
#[derive(Clone, Debug, Default)]
pub struct Meter(pub BTreeMap<&'static str, Cost>);

impl Meter {
    /// Waits for an operation and counts it.
    pub async fn time<T, E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        &mut self,
        operation: &'static str,
        items: usize,
        work: impl Future<Output = std::result::Result<T, E>>,
    ) -> Result<T> {
        let began = Began::now();
        let done = work.await.map_err(Into::into)?;
        self.add(operation, items, began);
        Ok(done)
    }

    /// Counts a call.
    pub fn add(&mut self, operation: &'static str, items: usize, began: Began) {
        let cost = self.0.entry(operation).or_default();
        cost.calls += 1;
        cost.items += items as u64;
        cost.time += began.0.elapsed();
        cost.cpu += cpu().saturating_sub(began.1);
    }

    /// The cost of an operation.
    pub fn of(&self, operation: &str) -> Cost {
        self.0.get(operation).copied().unwrap_or_default()
    }
}

/// Bytes of a database.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk {
    /// Allocated, but for journals.
    pub tables: u64,
    /// Allocated for journals, which a store keeps until all its tables are written.
    pub journals: u64,
}

impl Disk {
    /// Tables and journals.
    pub fn all(&self) -> u64 {
        self.tables + self.journals
    }

    /// What is allocated under a directory.
    pub fn of(dir: &Path) -> Result<Self> {
        let mut disk = Self::default();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                let inner = Self::of(&path)?;
                disk.tables += inner.tables;
                disk.journals += inner.journals;
            } else if let Ok(file) = path.metadata() {
                // A table may have been merged away meanwhile.
                let bytes = 512 * file.blocks();
                match path.extension().is_some_and(|e| e == "jnl") {
                    true => disk.journals += bytes,
                    false => disk.tables += bytes,
                }
            }
        }
        Ok(disk)
    }
}

fn proc_number(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number.and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Bytes that this process has written so far, to whatever file system.
pub fn written() -> u64 {
    proc_number("/proc/self/io", "wchar:")
}

/// Bytes of memory that this process has now.
pub fn resident() -> u64 {
    1024 * proc_number("/proc/self/status", "VmRSS:")
}

/// Bytes of the sealed objects of a segment.
#[derive(Clone, Copy, Debug)]
pub struct Sealed {
    pub head: usize,
    pub manifest: usize,
    pub summary: usize,
}

impl Sealed {
    /// Seals a segment of `chunks` chunks with `units` access units each, at 25 a second.
    pub fn of(chunks: usize, units: u32) -> Result<Self> {
        let sealer = Sealer {
            id: [1; 16],
            key: AeadKey::new([1; 32]),
        };
        let chunk = |n: usize| Chunk {
            content: Stored {
                key: super::bytes(&[3, n as u64]).into(),
                d1: super::bytes(&[4, n as u64]).into(),
                len: 48_000,
                in_domain: false,
            },
            units,
            // Delimiters of each unit, as `src/chunk` keeps them.
            envelope: Envelope::Inline(vec![9; 8 * units as usize].into()),
            gop_start: n.is_multiple_of(20),
            suspect: false,
        };
        let count = chunks as u64 * u64::from(units);
        let unit = |n: u64| UnitInfo {
            content_len: 12_000 + (super::number(&[5, n]) % 8000) as u32,
            flags: 0,
            pts: Some(n * 40_000_000 + super::number(&[6, n]) % 1_000_000),
            dts: None,
            duration: Some(40_000_000),
        };
        let caps = "video/x-h264, stream-format=(string)byte-stream, alignment=(string)au";
        let track = Track {
            id: 0,
            framing: Framing::Records,
            caps: vec![(0, caps.into())],
            times: vec![(
                0,
                TimeSegment {
                    start: 0,
                    stop: None,
                    time: 0,
                    base: 0,
                },
            )],
            chunks: (0..chunks).map(chunk).collect(),
            units: (0..count).map(unit).collect(),
            clock: vec![(0, 1_700_000_000_000_000_000)],
            tags: None,
        };
        let manifest = Manifest {
            session: [1; 8].into(),
            origin_running: 0,
            origin: 0,
            tracks: vec![track],
        };
        let head = Head {
            start: 1 << 45,
            duration: 60_000_000_000,
            start_utc: 1_700_000_000_000_000_000,
            bytes: 30_000_000,
            chunks: chunks as u32,
            session: [1; 8].into(),
            manifest: [1; 32].into(),
            previous: [1; 32].into(),
            suspect: 0,
        };
        let summary = Summary {
            name: "door/2026-01-31".into(),
            start_utc: 1_700_000_000_000_000_000,
            duration: 1 << 45,
            bytes: 1 << 35,
            tracks: vec![caps.into()],
            closed: false,
        };
        Ok(Self {
            head: sealer.seal_head(0, &head)?.len(),
            manifest: sealer.seal_manifest(0, &manifest)?.len(),
            summary: sealer.seal_summary(&summary)?.len(),
        })
    }
}
