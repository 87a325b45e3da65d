// SPDX-License-Identifier: MPL-2.0
use crate::common::{self, Failure, print, seconds};
use crate::media;
use gst::prelude::*;
use gstcamvault::elements::phashtag::feature;
use gstcamvault::feature::{Feature, PHash};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

/// Print what pictures and videos look like, as perceptual hashes: of a video, one where each scene
/// begins.
///
/// Hashes are those of Python's `ImageHash.phash`. Up to 10 of the 64 bits differ between copies of
/// a picture, over 20 between others. Nothing leaves this computer.
#[derive(clap::Args)]
pub struct Args {
    /// Pictures and videos.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Also print in how many bits every hash differs from that of this file, or from this hash; of a
    /// video, from its nearest.
    #[arg(long, value_name = "FILE|HASH")]
    compare: Option<String>,
    /// One hash every so many seconds of video instead of one for each scene; 0 = of every frame.
    #[arg(long, value_name = "SECONDS", value_parser = interval)]
    interval: Option<u64>,
    /// Bits in which a scene must differ from the one before.
    #[arg(long, value_name = "BITS", default_value_t = 16, conflicts_with = "interval",
          value_parser = clap::value_parser!(u32).range(1..=64))]
    scene_distance: u32,
}

/// Nanoseconds.
fn interval(text: &str) -> Result<u64, String> {
    let seconds = text.parse::<f64>().ok().filter(|s| s.is_finite());
    match seconds {
        Some(seconds) if (0.0..1e9).contains(&seconds) => Ok((seconds * 1e9).round() as u64),
        _ => Err("seconds are a number from 0 on".into()),
    }
}

/// A hash, when, and the luma's statistics.
struct Seen {
    feature: Feature,
    at: Option<gst::ClockTime>,
}

pub fn run(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    media::init()?;
    let reference = match &args.compare {
        None => Vec::new(),
        Some(text) => match text.parse::<PHash>() {
            Ok(hash) if !Path::new(text).exists() => vec![hash],
            _ => {
                let seen = look(args, Path::new(text), json)?;
                seen.iter().map(|s| s.feature.phash).collect()
            }
        },
    };
    let mut files = Vec::new();
    let mut lines = Vec::new();
    for file in &args.files {
        // A picture has no time.
        let picture = media::is_picture(file)?;
        let mut hashes = Vec::new();
        for Seen { feature, at } in look(args, file, json)? {
            let phash = feature.phash;
            let distance = reference.iter().map(|r| r.distance(phash)).min();
            let at = at.filter(|_| !picture).map(|at| at.nseconds());
            hashes.push(json!({
                "phash": phash.to_string(), "time_ns": at, "distance": distance,
                "luma_mean": feature.mean, "luma_deviation": feature.deviation,
            }));
            let mut line = phash.to_string();
            if let Some(distance) = distance {
                line.push_str(&format!("  {distance:>2}"));
            }
            if let Some(at) = at {
                line.push_str(&format!("  {:>12}", seconds(at)));
            }
            lines.push(format!("{line}  {}", file.display()));
        }
        files.push(json!({ "file": file.display().to_string(), "hashes": hashes }));
    }
    print(json, Value::from_iter([("files", files)]), || {
        lines.join("\n")
    });
    Ok(ExitCode::SUCCESS)
}

/// The hashes of a file's first video stream, at least one.
fn look(args: &Args, file: &Path, json: bool) -> Result<Vec<Seen>, Failure> {
    let at = |e: &dyn std::fmt::Display| Failure::new(format!("{}: {e}", file.display()));
    let (tag, sink) = (media::make("phashtag")?, media::make("fakesink")?);
    match args.interval {
        Some(interval) => tag.set_property("interval", interval),
        None => tag.set_property("scene-distance", args.scene_distance),
    }
    let pipeline = media::decoded(file, &[&tag, &sink])?;

    // Scenes are taken where they begin, like those of an interval, off the frames.
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let (into, scenes) = (seen.clone(), args.interval.is_none());
    let scene_distance = args.scene_distance;
    media::static_pad(&sink, "sink")?.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some((feature, at)) = info.buffer().and_then(|b| feature(b)) {
            let mut seen = into.lock().unwrap_or_else(PoisonError::into_inner);
            let begins = seen
                .last()
                .is_none_or(|last| feature.phash.distance(last.feature.phash) >= scene_distance);
            if begins || !scenes {
                seen.push(Seen { feature, at });
            }
        }
        gst::PadProbeReturn::Ok
    });
    let bar = common::progress_time(json, &file.display().to_string());
    pipeline
        .decode_all(&bar, &tag, |_| Ok(()))
        .map_err(|e| at(&e))?;
    drop(pipeline);
    let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    match seen.is_empty() {
        true => Err(at(&"there is no picture in it that GStreamer can decode")),
        false => Ok(seen),
    }
}
