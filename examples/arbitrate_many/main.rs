// SPDX-License-Identifier: MPL-2.0
//! Arbitration at scale: recordings are registered, some leak and are attacked, and the third
//! party's code says whose they are; then footage without a mark is judged.
//!
//! ```text
//! cargo run --release --example arbitrate_many -- [--full] [--leaks N] [--unmarked N] [FOLDER]
//! ```
//! FOLDER has videos, of which recordings are cut (else ../shared/footage, else made scenes). Quick:
//! 200 recordings, 26 leaks, 100 unmarked clips; with --full 1000, 130 and 1000. Wants ffmpeg.

#[allow(dead_code)]
#[path = "../evaluate/ffmpeg.rs"]
mod ffmpeg;
mod trial;

use ffmpeg::{Clip, Codec, Coding};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use trial::{ATTACKS, Part, Random, Registry, Tally};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const SIZE: [usize; 2] = [640, 360];
/// Seconds of a clip that recordings are cut from.
const LOADED: f64 = 14.0;

fn clips(folder: Option<PathBuf>) -> Result<Vec<Clip>> {
    let beside = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/footage"));
    let folder = folder.or_else(|| beside.is_dir().then_some(beside));
    let mut clips = Vec::new();
    if let Some(folder) = folder {
        let mut files: Vec<PathBuf> = std::fs::read_dir(folder)?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "mp4" || e == "mkv"))
            .collect();
        files.sort();
        for file in files {
            let clip = Clip::load(&file, LOADED)?;
            if clip.width >= SIZE[0] && clip.height >= SIZE[1] {
                clips.push(clip);
            }
        }
    }
    if clips.is_empty() {
        println!("no footage: made scenes");
        for (name, source) in [
            (
                "life",
                "life=s=768x432:r=10:mold=10:life_color=gray,boxblur=3",
            ),
            ("mandelbrot", "mandelbrot=s=768x432:r=10"),
            ("gradients", "gradients=s=768x432:r=10,noise=alls=12:allf=t"),
        ] {
            clips.push(Clip::generated(name, source, LOADED)?);
        }
    }
    Ok(clips)
}

fn main() -> Result<()> {
    let mut full = false;
    let (mut leaks, mut unmarked, mut folder) = (None, None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || -> Result<usize> { Ok(arguments.next().ok_or("a number")?.parse()?) };
        match argument.as_str() {
            "--full" => full = true,
            "--leaks" => leaks = Some(number()?),
            "--unmarked" => unmarked = Some(number()?),
            other => folder = Some(PathBuf::from(other)),
        }
    }
    let recordings = if full { 1000 } else { 200 };
    let leaks = leaks.unwrap_or(if full { 130 } else { 26 });
    let unmarked = unmarked.unwrap_or(if full { 1000 } else { 100 });
    let began = Instant::now();
    let clips = clips(folder)?;
    for clip in &clips {
        println!("{}: {} frames", clip.name, clip.frames.len());
    }
    let registry = Registry::new(&clips, SIZE, recordings)?;
    println!(
        "{recordings} recordings registered, {:.0?}",
        began.elapsed()
    );
    let dir = tempfile::tempdir()?;
    let mut random = Random::new(2);
    let mut tallies = [Tally::default(); ATTACKS.len()];
    // Crops once more, when nobody says whom to suspect.
    let mut unnamed = Tally::default();
    for leak in 0..leaks {
        let which = leak % ATTACKS.len();
        let attack = ATTACKS[which];
        let id = random.below(recordings);
        let clip = registry.parts[id].cut(&clips, SIZE, attack.seconds());
        let marked = registry.mark(id, &clip)?;
        let attacked = attack.apply(&marked, dir.path(), &mut random)?;
        let named = attack.is_crop().then_some(id);
        if named.is_some() {
            let (found, compared) = registry.judge(&attacked, None, Duration::ZERO)?;
            unnamed.add(Some(id), found, compared);
        }
        let search = match attack.is_crop() {
            true => Duration::from_secs(60),
            false => Duration::ZERO,
        };
        let at = Instant::now();
        let (found, compared) = registry.judge(&attacked, named, search)?;
        let took = at.elapsed();
        if found.is_none_or(|(found, _)| found != id) {
            println!(
                "{attack:?} of recording {id} ({}): {found:?}, {took:.1?}",
                clip.name
            );
        }
        tallies[which].add(Some(id), found, compared);
    }
    println!("leaks, {:.0?}:", began.elapsed());
    println!("attack        leaks  right  innocent named  wrong bits up to  compared with up to");
    let line = |name: &str, t: &Tally| {
        println!(
            "{name:<13} {:>5} {:>6} {:>15} {:>17} {:>20}",
            t.leaks, t.right, t.innocent, t.most_errors, t.most_compared
        );
    };
    for (attack, tally) in ATTACKS.iter().zip(&tallies) {
        line(&format!("{attack:?}"), tally);
    }
    line("Crop, unnamed", &unnamed);
    let mut plain = Tally::default();
    let mut searched = 0;
    for n in 0..unmarked {
        let part = Part::draw(&clips, SIZE, &mut random);
        let clip = part.cut(&clips, SIZE, 2.0);
        // Half of them as they are, half compressed.
        let clip = match n % 2 {
            0 => clip,
            _ => {
                let coding = Coding::crf(Codec::H264, 28);
                clip.transcode(&clip.frames, &coding, dir.path())?.clip
            }
        };
        let search = match n % 50 {
            0 => Duration::from_secs(5),
            _ => Duration::ZERO,
        };
        searched += usize::from(!search.is_zero());
        let (found, compared) = registry.judge(&clip, None, search)?;
        plain.add(None, found, compared);
        if found.is_some() {
            println!("unmarked clip {n}: {found:?}");
        }
    }
    println!(
        "{} unmarked clips: {} named somebody; compared with up to {}; {searched} searched 5 s; {:.0?}",
        plain.leaks,
        plain.innocent,
        plain.most_compared,
        began.elapsed()
    );
    Ok(())
}
