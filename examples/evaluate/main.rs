// SPDX-License-Identifier: MPL-2.0
//! The experiments of [RTBF] and ours: what the watermark costs and what it survives, the defaults
//! beside the paper's method at equal PSNR.
//!
//! ```text
//! cargo run --release --example evaluate -- --quick
//! cargo run --release --example evaluate -- --footage DIR
//! ```
//!
//! It needs ffmpeg with libx264 and libx265. docs/evaluation.md shows the results of a run.

mod capacity;
mod chart;
mod clips;
mod ffmpeg;
mod method;
mod pictures;
mod plots;
mod registration;
mod report;
mod rows;
mod still;
mod tune;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum};
use ffmpeg::Clip;
use gstcamvault::watermark::{Code, Key};
use method::Method;

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Measures the watermark.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// A video, or a folder of videos; may be repeated. Without: clips that ffmpeg generates.
    #[arg(long, value_name = "PATH")]
    footage: Vec<PathBuf>,
    /// Where CSV files, plots and the report go.
    #[arg(long, value_name = "DIR", default_value = "target/evaluation")]
    out: PathBuf,
    /// Seconds of every clip.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Search for the original in attacked pieces of so many clips.
    #[arg(long, default_value_t = 2)]
    registrations: usize,
    /// One clip, 4 s, a few attacks: less than two minutes.
    #[arg(long)]
    quick: bool,
    /// Clips only by the defaults, not by the paper's method: a third of the time.
    #[arg(long)]
    ours: bool,
    /// Only these parts; may be repeated.
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    Capacity,
    Pictures,
    Clips,
    Registration,
}

#[derive(Subcommand)]
enum Command {
    /// Mark or read one picture: for comparison with other programs.
    Picture(still::Options),
    /// Measure settings: what they cost and how many bits they lose.
    Tune(tune::Options),
}

/// How much is done.
#[derive(Clone, Copy, PartialEq)]
pub enum Effort {
    Quick,
    Full,
}

impl Effort {
    fn pick<T>(self, quick: &'static [T], full: &'static [T]) -> &'static [T] {
        match self {
            Self::Quick => quick,
            Self::Full => full,
        }
    }

    fn crfs(self) -> &'static [u32] {
        self.pick(&[28, 33], &[18, 23, 28, 33, 38])
    }

    /// In kbit/s.
    fn rates(self) -> &'static [u32] {
        self.pick(&[250], &[2000, 1000, 500, 250])
    }

    /// In percent.
    fn scales(self) -> &'static [usize] {
        self.pick(&[50], &[50, 75, 125, 150])
    }

    fn gammas(self) -> &'static [f64] {
        self.pick(&[1.5], &[0.7, 0.85, 1.2, 1.5])
    }

    /// One frame in so many is left.
    fn drops(self) -> &'static [usize] {
        self.pick(&[2], &[2, 5])
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    match &options.command {
        Some(Command::Picture(picture)) => return still::run(picture),
        Some(Command::Tune(tune)) => return tune::run(tune, &clips(&options)?),
        None => (),
    }
    let begin = Instant::now();
    let effort = if options.quick {
        Effort::Quick
    } else {
        Effort::Full
    };
    std::fs::create_dir_all(&options.out)?;
    let clips = clips(&options)?;
    let key = Key::from_bytes([9; 32]);
    let word = Code::Bch29.register(123_456_789, key.pad())?;

    let mut report = report::Report {
        generated: options.footage.is_empty(),
        ..report::Report::default()
    };
    // Written after every part: who breaks off has what there is by then.
    let save = |report: &mut report::Report, done: &str| -> Result<()> {
        report.minutes = begin.elapsed().as_secs_f64() / 60.0;
        eprintln!("{done}: done after {:.1} minutes", report.minutes);
        report.write(&options.out)
    };
    if options.wants(Part::Capacity) {
        let seconds = if options.quick { 1 } else { 10 };
        report.capacity = capacity::run(Duration::from_secs(seconds));
        save(&mut report, "capacity")?;
    }
    if options.wants(Part::Pictures) {
        let pictures = clips.iter().filter_map(pictures::of_clip).flatten();
        let pictures: Vec<_> = pictures.collect();
        let keys = if options.quick { 1 } else { 2 };
        (report.rows, report.subjects) = pictures::run(&pictures, keys)?;
        save(&mut report, "pictures")?;
    }
    if options.wants(Part::Clips) {
        let methods = match options.ours {
            true => &Method::ALL[..1],
            false => &Method::ALL[..],
        };
        for clip in &clips {
            let results = clips::run(clip, &key, word, effort, methods, &options.out)?;
            report.rows.extend(results.rows);
            report.subjects.extend(results.subjects);
            report.costs.extend(results.costs);
            save(&mut report, &clip.name)?;
        }
    }
    if options.wants(Part::Registration) {
        for clip in clips.iter().take(options.registrations) {
            let outcomes = registration::run(clip, &key, word, effort, &options.out)?;
            report.registrations.extend(outcomes);
            save(&mut report, "searches")?;
        }
    }
    println!("{}", report.markdown());
    eprintln!("written to {}", options.out.display());
    Ok(())
}

/// What to measure with.
fn clips(options: &Options) -> Result<Vec<Clip>> {
    let seconds = match options.quick {
        true => options.seconds.min(4.0),
        false => options.seconds,
    };
    if options.footage.is_empty() {
        eprintln!("no --footage: clips are generated, which says little about cameras");
        let sources = [
            ("mandelbrot", "mandelbrot=s=768x432:r=12.5"),
            ("testsrc2", "testsrc2=s=768x432:r=12.5"),
            (
                "noise",
                "gradients=s=640x480:r=12.5:seed=1,noise=alls=12:allf=t:all_seed=1",
            ),
        ];
        let count = if options.quick { 1 } else { sources.len() };
        let sources = sources.iter().take(count);
        return sources
            .map(|(name, source)| Clip::generated(name, source, seconds))
            .collect();
    }
    let mut files = Vec::new();
    for path in &options.footage {
        match path.is_dir() {
            true => files.extend(videos(path)?),
            false => files.push(path.clone()),
        }
    }
    if files.is_empty() {
        return Err("no videos in --footage".into());
    }
    if options.quick {
        files.truncate(1);
    }
    files.iter().map(|file| Clip::load(file, seconds)).collect()
}

fn videos(folder: &Path) -> Result<Vec<PathBuf>> {
    const ENDINGS: [&str; 7] = ["mp4", "mkv", "mov", "avi", "ts", "webm", "y4m"];
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if ending.is_some_and(|ending| ENDINGS.contains(&ending)) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Does all jobs on all cores; results in the order of the jobs.
pub fn parallel<J: Sync, T: Send>(
    jobs: &[J],
    work: impl Fn(&J) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(jobs.len()) {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(i) else {
                        return;
                    };
                    let result = work(job);
                    // After a failure nothing more is begun.
                    if result.is_err() {
                        next.store(jobs.len(), Ordering::Relaxed);
                    }
                    if let Ok(mut results) = results.lock() {
                        results.push((i, result));
                    }
                }
            });
        }
    });
    let mut results = results.into_inner().map_err(|_| "a thread panicked")?;
    results.sort_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, result)| result).collect()
}
