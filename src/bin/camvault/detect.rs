// SPDX-License-Identifier: MPL-2.0
use crate::common::{self, Failure, NOT_VERIFIED, print};
use crate::mark::{KeyArg, PresetArg};
use crate::media;
use crate::pictures;
use gst::prelude::*;
use gstcamvault::watermark::Word;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Read the watermark of a picture or a video, also of one that was compressed, cut, resized, mirrored,
/// inverted or turned.
///
/// With --expect it says whether the agreement is proof, and how likely a video without the mark would
/// agree as well. The exit code is 3 if no watermark, or not the expected one, was found.
#[derive(clap::Args)]
pub struct Args {
    /// Picture or video.
    file: PathBuf,
    #[command(flatten)]
    key: KeyArg,
    /// How it was marked; without: camvault, and of single pictures also picture.
    #[arg(long, value_enum)]
    preset: Option<PresetArg>,
    /// The 128 bits that are expected: 32 hexadecimal digits.
    #[arg(long, value_name = "HEX")]
    expect: Option<Word>,
    /// How many registered watermarks this file is compared with: more need stronger evidence.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    marks: u64,
    /// Say which number's code word is nearest (see `camvault mark --number`).
    #[arg(long)]
    number: bool,
    /// Size of the marked original, if known: WIDTHxHEIGHT.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    original: Option<(u32, u32)>,
    /// Longest search for the original in the picture, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    search_time: u64,
    /// Leave a plot of how sure each bit is there: confidence.svg.
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
}

fn size(text: &str) -> Result<(u32, u32), String> {
    let sides = text.split_once('x');
    let sides = sides.and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    sides
        .filter(|&(w, h)| w > 0 && h > 0)
        .ok_or_else(|| "a size is WIDTHxHEIGHT, like 1920x1080".into())
}

/// The last report on the file under a preset, with or without a search for the original.
fn look(
    args: &Args,
    json: bool,
    preset: PresetArg,
    search: bool,
) -> Result<gst::Structure, Failure> {
    let (detect, sink) = (media::make("dmqimdetect")?, media::make("fakesink")?);
    detect.set_property("key-file", args.key.checked()?);
    preset.apply(&detect);
    detect.set_property("expect", args.expect.map(|word| word.to_string()));
    detect.set_property("marks", args.marks);
    let search_time = if search { args.search_time } else { 0 };
    detect.set_property("search-time", search_time.saturating_mul(1_000_000_000));
    // Only the last report counts here.
    detect.set_property("report-interval", 0u64);
    if args.number {
        detect.set_property_from_str("code", "bch29");
    }
    if let Some((width, height)) = args.original {
        detect.set_property("original-width", width);
        detect.set_property("original-height", height);
    }
    let pipeline = media::decoded(&args.file, &[&detect, &sink])?;
    let bar = common::progress_time(json, &args.file.display().to_string());
    let mut report = None;
    let at = |e: &dyn std::fmt::Display| Failure::new(format!("{}: {e}", args.file.display()));
    pipeline
        .decode_all(&bar, &detect, |message| {
            let structure = message.structure();
            if let Some(found) = structure.filter(|s| s.name() == "camvault-watermark") {
                report = Some(found.to_owned());
            }
            Ok(())
        })
        .map_err(|e| at(&e))?;
    report.ok_or_else(|| at(&"there is no picture in it that GStreamer can decode"))
}

/// The report under the preset that the file was marked with. Which one that is the agreement of
/// each bit's marks says, whatever the bits: so trying several makes no watermark more likely.
fn report(args: &Args, json: bool) -> Result<gst::Structure, Failure> {
    let registered = |report: &gst::Structure| report.get("registered").unwrap_or(false);
    let presets = match args.preset {
        Some(preset) => vec![preset],
        None if media::is_picture(&args.file)? => vec![PresetArg::Picture, PresetArg::Camvault],
        None => vec![PresetArg::Camvault],
    };
    if let [preset] = presets[..] {
        return look(args, json, preset, true);
    }
    // A search takes long: first where the picture is.
    let mut best: Option<gst::Structure> = None;
    for search in [false, true] {
        for preset in &presets {
            let this = look(args, json, *preset, search)?;
            if registered(&this) {
                return Ok(this);
            }
            let score = |report: &gst::Structure| report.get::<f64>("score").unwrap_or_default();
            if best.as_ref().is_none_or(|best| score(&this) > score(best)) {
                best = Some(this);
            }
        }
    }
    best.ok_or_else(|| Failure::new("no preset to read with"))
}

pub fn run(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    media::init()?;
    let at = |e: &dyn std::fmt::Display| Failure::new(format!("{}: {e}", args.file.display()));
    let report = report(args, json)?;
    let read = Read::new(&report, args).ok_or_else(|| at(&"the report lacks a field"))?;
    if let Some(folder) = &args.pictures {
        std::fs::create_dir_all(folder)
            .map_err(|e| Failure::new(format!("{}: {e}", folder.display())))?;
        let title = format!("{}: {} frames", args.file.display(), read.frames)
            .replace('&', "&amp;")
            .replace('<', "&lt;");
        let expected = args.expect.map(|word| match read.complement {
            true => word.complement(),
            false => word,
        });
        pictures::write_confidence(
            &folder.join("confidence.svg"),
            &title,
            &read.confidence,
            |bit| expected.is_some_and(|word| word.bit(bit) != read.word.bit(bit)),
        )?;
    }
    print(json, read.object(), || read.text());
    Ok(match read.accepted.unwrap_or(read.registered) {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(NOT_VERIFIED),
    })
}

/// The last report of `dmqimdetect`.
struct Read {
    word: Word,
    confidence: Vec<f64>,
    mean: f64,
    score: f64,
    frames: u64,
    registered: bool,
    scale: [f64; 2],
    corner: [f64; 2],
    rotation: f64,
    mirrored: bool,
    negative: bool,
    complement: bool,
    accepted: Option<bool>,
    errors: Option<u32>,
    false_positive: Option<f64>,
    marks: u64,
    identity: Option<(u32, u32)>,
}

impl Read {
    fn new(report: &gst::Structure, args: &Args) -> Option<Self> {
        let confidence = report.get::<gst::Array>("confidence").ok()?;
        let pair = |x: &str, y: &str| Some([report.get(x).ok()?, report.get(y).ok()?]);
        Some(Self {
            word: report.get::<&str>("bits").ok()?.parse().ok()?,
            confidence: confidence
                .iter()
                .map(|v| v.get().ok())
                .collect::<Option<_>>()?,
            mean: report.get("mean-confidence").ok()?,
            score: report.get("score").ok()?,
            frames: report.get("frames").ok()?,
            registered: report.get("registered").ok()?,
            scale: pair("scale-x", "scale-y")?,
            corner: pair("crop-x", "crop-y")?,
            rotation: report.get("rotation").ok()?,
            mirrored: report.get("mirrored").ok()?,
            negative: report.get("negative").ok()?,
            complement: report.get("complement").unwrap_or(false),
            accepted: report.get("accepted").ok(),
            errors: report.get("errors").ok(),
            false_positive: report.get("false-positive").ok(),
            marks: args.marks,
            identity: report.get("identity").ok().zip(report.get("distance").ok()),
        })
    }

    fn object(&self) -> serde_json::Value {
        json!({
            "bits": self.word.to_string(), "confidence": self.confidence,
            "mean_confidence": self.mean, "score": self.score, "frames": self.frames,
            "registered": self.registered, "scale": self.scale, "corner": self.corner,
            "rotation": self.rotation, "mirrored": self.mirrored, "negative": self.negative,
            "complement": self.complement, "accepted": self.accepted, "errors": self.errors,
            "ber": self.errors.map(|errors| f64::from(errors) / 128.0),
            "false_positive": self.false_positive,
            "number": self.identity.map(|(number, _)| number),
            "number_distance": self.identity.map(|(_, distance)| distance),
        })
    }

    fn text(&self) -> String {
        if !self.registered {
            return format!(
                "no watermark of this key found in {} frames (agreement {:.1} standard deviations from chance, 6 is a mark)",
                self.frames, self.score
            );
        }
        let mut lines = vec![format!(
            "{}  read from {} frames, {:.0} % sure a bit (agreement {:.0} standard deviations from chance)",
            self.word,
            self.frames,
            100.0 * self.mean,
            self.score
        )];
        let [x, y] = self.scale;
        let moved = (x - 1.0).abs() + (y - 1.0).abs() > 1e-3
            || self.corner.iter().any(|side| side.abs() > 0.5)
            || self.rotation.abs() > 0.05
            || self.mirrored
            || self.negative;
        if moved {
            lines.push(format!(
                "the original was found at {:.1} % of its size, its pixel ({:.0}, {:.0}) in the corner, turned by {:.1}°{}{}",
                100.0 * (x * y).sqrt(),
                self.corner[0],
                self.corner[1],
                self.rotation,
                if self.mirrored { ", mirrored" } else { "" },
                if self.negative { ", as a negative" } else { "" }
            ));
        }
        if let Some((number, distance)) = self.identity {
            lines.push(format!("nearest number {number}, {distance} bits away"));
        }
        if let (Some(accepted), Some(errors), Some(chance)) =
            (self.accepted, self.errors, self.false_positive)
        {
            lines.push(format!(
                "{}: {errors} of 128 bits differ; an unmarked video agrees as well with any of {} marks with a chance of {chance:.1e}",
                if accepted { "the expected mark" } else { "NOT proof of the expected mark" },
                self.marks
            ));
        }
        lines.join("\n")
    }
}
