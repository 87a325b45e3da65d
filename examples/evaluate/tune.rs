// SPDX-License-Identifier: MPL-2.0
//! Settings beside each other: what they cost and how many bits they lose. The tables of
//! docs/decisions/0003 come from here.

use crate::ffmpeg::{Clip, Codec, Coding};
use crate::method::{Method, mark_with, psnr_of};
use crate::pictures::{attacks, of_clip};
use crate::{Result, method, parallel};
use gstcamvault::luma::Shape;
use gstcamvault::watermark::code::Seeded;
use gstcamvault::watermark::{BLOCK, Code, Key, Layout, Settings, embed};
use std::collections::BTreeMap;

/// Prints a line for each of the settings.
#[derive(clap::Args)]
pub struct Options {
    /// What differs from the defaults, like `step=88,density=0.125,coefficients=11 12 21,per_block=1,group=2`;
    /// `group` is the seconds from keyframe to keyframe.
    #[arg(value_name = "SETTINGS", required = true)]
    settings: Vec<String>,
    /// Measure on single pictures: wrong bits of all readings, and the worst in brackets.
    #[arg(long)]
    pictures: bool,
    /// Keys under which each picture or clip is marked.
    #[arg(long, default_value_t = 1)]
    keys: u8,
    /// Only H.264: H.265 takes several times as long.
    #[arg(long)]
    h264: bool,
}

/// Settings and the seconds from keyframe to keyframe.
fn parse(text: &str, start: Settings) -> Result<(Settings, f64)> {
    let (mut settings, mut group) = (start, 2.0);
    for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("{pair}: give NAME=VALUE"))?;
        match name.trim() {
            "step" => settings.step = value.parse()?,
            "density" => settings.density = Some(value.parse()?),
            "per_block" => settings.per_block = Some(value.parse()?),
            "lift" => settings.lift = value.parse()?,
            "layouts" => settings.layouts = value.parse()?,
            "coefficients" => settings.set_classes(Settings::parse_classes(value)?),
            "group" => group = value.parse()?,
            name => return Err(format!("{name}: no such setting").into()),
        }
    }
    settings.check()?;
    Ok((settings, group))
}

pub fn run(options: &Options, clips: &[Clip]) -> Result<()> {
    for text in &options.settings {
        match options.pictures {
            true => pictures(options, text, clips)?,
            false => videos(options, text, clips)?,
        }
    }
    Ok(())
}

fn videos(options: &Options, text: &str, clips: &[Clip]) -> Result<()> {
    let (settings, group) = parse(text, Settings::default())?;
    let codings: Vec<Coding> = [
        (Codec::H264, 28),
        (Codec::H264, 33),
        (Codec::H265, 28),
        (Codec::H265, 33),
        (Codec::H264, 38),
    ]
    .into_iter()
    .filter(|(codec, _)| !options.h264 || *codec == Codec::H264)
    .map(|(codec, crf)| Coding::crf(codec, crf))
    .collect();
    let folder = tempfile::tempdir()?;
    let mut jobs = Vec::new();
    for clip in clips {
        for key in 0..options.keys {
            jobs.extend(codings.iter().map(|coding| (clip, key, coding)));
        }
    }
    let results = parallel(&jobs, |(clip, key, coding)| {
        let mut clip = (*clip).clone();
        clip.group = group;
        let plain = clip.transcode(&clip.frames, coding, folder.path())?;
        let (key, word) = secrets(*key)?;
        let marked = mark_with(&clip, settings.clone(), &key, word);
        let coded = clip.transcode(&marked.clip.frames, coding, folder.path())?;
        let size = Some([clip.width, clip.height]);
        let second = clip.frames_in(1.0);
        let wrong = coded.clip.frames.chunks_exact(second).map(|frames| {
            let detector = method::detector(&coded.clip, frames, &key, &marked.settings, size);
            detector.votes().word().distance(word)
        });
        let wrong: Vec<u32> = wrong.collect();
        let percent = 100.0 * (coded.bytes as f64 / plain.bytes as f64 - 1.0);
        Ok((percent, wrong, marked.psnr))
    })?;
    let psnr = results.iter().map(|r| r.2).fold(f64::INFINITY, f64::min);
    println!("{text}: PSNR {psnr:.2}");
    for coding in &codings {
        let mut costs = BTreeMap::new();
        let mut errors = BTreeMap::new();
        for ((clip, _, this), (percent, wrong, _)) in jobs.iter().zip(&results) {
            if std::ptr::eq(*this, coding) {
                let name = clip.name.as_str();
                *costs.entry(name).or_insert(0.0) += percent / f64::from(options.keys);
                let worst = wrong.iter().max().copied().unwrap_or_default();
                let entry = errors.entry(name).or_insert((0, 0));
                entry.0 += wrong.iter().sum::<u32>();
                entry.1 = entry.1.max(worst);
            }
        }
        let costs: Vec<String> = costs.values().map(|cost| format!("{cost:.1}")).collect();
        let errors = errors
            .values()
            .map(|(sum, worst)| format!("{sum}({worst})"));
        let errors: Vec<String> = errors.collect();
        let (codec, crf) = (coding.codec.name(), coding.crf_value());
        println!(
            "  {codec} {crf}: bytes {} %, wrong bits {}",
            costs.join(" "),
            errors.join(" ")
        );
    }
    Ok(())
}

fn secrets(number: u8) -> Result<(Key, gstcamvault::watermark::Word)> {
    let key = Key::from_bytes([number + 9; 32]);
    let word = Code::Bch29.register(123_456_789, key.pad())?;
    Ok((key, word))
}

fn pictures(options: &Options, text: &str, clips: &[Clip]) -> Result<()> {
    let (settings, _) = parse(text, Settings::default())?;
    let pictures: Vec<_> = clips.iter().filter_map(of_clip).flatten().collect();
    let mut jobs = Vec::new();
    for picture in &pictures {
        jobs.extend((0..options.keys).map(|key| (picture, key)));
    }
    let results = parallel(&jobs, |(picture, number)| {
        let (key, word) = secrets(*number)?;
        let plane = &picture.plane;
        let [width, height] = [plane.width(), plane.height()];
        let layout = Layout::new(&key, 0, &settings, width, height);
        let mut marked = plane.clone();
        embed(&mut marked.luma_mut(), &layout, word, None);
        let mut random = Seeded::new(u64::from(*number));
        let mut wrong = Vec::new();
        for (experiment, series, x, attack) in attacks() {
            let attacked = attack.apply(&marked.luma(), random.bits());
            let luma = gstcamvault::luma::Luma::new(&attacked, Shape::plane(width, height))
                .ok_or("an attack changed the size of a picture")?;
            let read = Method::Camvault.read_picture(&luma, &key, &settings);
            let name = match experiment {
                "jpeg" if x >= 30.0 => "JPEG 30 and better".to_owned(),
                "blur" => format!("blur {series} {x}"),
                _ => format!("{experiment} {x}"),
            };
            wrong.push((name, read.distance(word)));
        }
        let psnr = psnr_of(std::slice::from_ref(plane), &key, &settings, word);
        Ok((psnr, wrong))
    })?;
    let psnr = results.iter().map(|r| r.0).fold(f64::INFINITY, f64::min);
    let blocks = pictures
        .iter()
        .map(|p| p.plane.width() / BLOCK * (p.plane.height() / BLOCK));
    let least = blocks.min().unwrap_or_default();
    println!("{text}: PSNR {psnr:.2} at least; pictures from {least} blocks on");
    let mut sums: BTreeMap<&str, (u32, u32, u32)> = BTreeMap::new();
    for (name, wrong) in results.iter().flat_map(|(_, wrong)| wrong) {
        let sum = sums.entry(name).or_default();
        *sum = (sum.0 + wrong, sum.1.max(*wrong), sum.2 + 128);
    }
    let line: Vec<String> = sums
        .iter()
        .map(|(name, (sum, worst, bits))| {
            format!(
                "{name}: {:.2} % ({worst})",
                100.0 * f64::from(*sum) / f64::from(*bits)
            )
        })
        .collect();
    println!("  {}", line.join("; "));
    Ok(())
}
