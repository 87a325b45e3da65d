// SPDX-License-Identifier: MPL-2.0
use crate::common::{self, Failure, print};
use crate::media;
use crate::pictures;
use gst::prelude::*;
use gst_video::{VideoFrameRef, VideoInfo};
use gstcamvault::elements::support::{files, video};
use gstcamvault::luma::Plane;
use gstcamvault::watermark::{Code, Key, Word, battery::psnr};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

/// Embed a watermark into a picture or a video.
///
/// Of a video, the first video stream is marked and encoded as H.264; sound is left out. The ending of
/// the new file chooses its kind: png, jpg; mp4, mkv, ts.
#[derive(clap::Args)]
pub struct Args {
    /// Picture or video.
    file: PathBuf,
    /// File to write; it appears when it is complete.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    key: KeyArg,
    /// Where and how strong the marks are; without: picture if a picture is written, else camvault.
    #[arg(long, value_enum)]
    preset: Option<PresetArg>,
    /// The 128 bits: 32 hexadecimal digits.
    #[arg(
        long,
        value_name = "HEX",
        required_unless_present = "number",
        conflicts_with = "number"
    )]
    watermark: Option<Word>,
    /// A number below 2^28 instead: its code word under the key's pad is at least 44 bits from any other's.
    #[arg(long, value_name = "N")]
    number: Option<u32>,
    /// Quality of the new video, as x264's CRF: 0 is best, 51 worst.
    #[arg(long, value_name = "CRF", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=50))]
    crf: u32,
    /// Leave pictures of the first frame there: original.png, marked.png, difference.png (magnified 16 times).
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
}

/// What marks and reads must agree on besides the key.
#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
pub enum PresetArg {
    /// For video.
    Camvault,
    /// For single pictures.
    Picture,
    /// The paper's: anyone can find and remove these marks.
    Paper,
}

impl PresetArg {
    /// Sets an element's `preset`.
    pub fn apply(self, element: &gst::Element) {
        let nick = match self {
            Self::Camvault => "camvault",
            Self::Picture => "picture",
            Self::Paper => "paper",
        };
        element.set_property_from_str("preset", nick);
    }
}

/// The secret of places and dithers.
#[derive(clap::Args)]
pub struct KeyArg {
    /// Key of the watermark: a file of 32 secret bytes (raw, hexadecimal or base64), or an identity
    /// file, which has one.
    #[arg(long, value_name = "FILE", env = "CAMVAULT_IDENTITY")]
    pub key_file: PathBuf,
}

impl KeyArg {
    /// Its name for a property, after a look into it.
    pub fn checked(&self) -> Result<String, Failure> {
        self.load()?;
        Ok(self.key_file.display().to_string())
    }

    fn load(&self) -> Result<Key, Failure> {
        files::watermark_key(&self.key_file).map_err(|e| Failure::new(e.to_string()))
    }

    /// The word of a number.
    fn word(&self, number: u32) -> Result<Word, Failure> {
        let word = Code::Bch29.register(number, self.load()?.pad());
        word.map_err(|e| Failure::usage(format!("number {number}: {e}")))
    }
}

/// The first frame before and after.
type First = Arc<Mutex<Option<Plane>>>;

/// Keeps the luma of the first frame that passes.
fn keep_first(pad: &gst::Pad) -> First {
    let first = First::default();
    let into = first.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, probe| {
        let plane = probe.buffer().and_then(|buffer| {
            let info = VideoInfo::from_caps(pad.current_caps()?.as_ref()).ok()?;
            let frame = VideoFrameRef::from_buffer_ref_readable(buffer, &info).ok()?;
            Some(video::luma(&frame)?.to_plane())
        });
        *into.lock().unwrap_or_else(PoisonError::into_inner) = plane;
        gst::PadProbeReturn::Remove
    });
    first
}

fn take(first: &First) -> Option<Plane> {
    first.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// The ending of the new file.
fn ending(args: &Args) -> Option<String> {
    let ending = args.out.extension().and_then(|e| e.to_str());
    ending.map(str::to_ascii_lowercase)
}

/// What stands between marked frames and the file.
fn encoder(args: &Args) -> Result<String, Failure> {
    Ok(match ending(args).as_deref() {
        Some("png") => "videoconvert ! pngenc snapshot=true".into(),
        Some("jpg" | "jpeg") => "videoconvert ! jpegenc quality=95 snapshot=true".into(),
        _ => {
            let muxer = media::muxer(&args.out).ok_or_else(|| {
                Failure::usage("give the new file the ending .png, .jpg, .mp4, .mkv or .ts")
            })?;
            // x264's own names: pass=qual is its CRF.
            format!(
                "videoconvert ! video/x-raw,format=I420 ! x264enc pass=qual quantizer={} key-int-max=250 \
                 ! h264parse ! {muxer}",
                args.crf
            )
        }
    })
}

pub fn run(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    media::init()?;
    let mark = media::make("dmqimmark")?;
    mark.set_property("key-file", args.key.checked()?);
    let picture = matches!(ending(args).as_deref(), Some("png" | "jpg" | "jpeg"));
    let usual = match picture {
        true => PresetArg::Picture,
        false => PresetArg::Camvault,
    };
    args.preset.unwrap_or(usual).apply(&mark);
    let word = match (args.watermark, args.number) {
        (Some(word), _) => word,
        (None, Some(number)) => args.key.word(number)?,
        (None, None) => return Err(Failure::usage("give --watermark or --number")),
    };
    mark.set_property("watermark", word.to_string());
    let encoder = gst::parse::bin_from_description(&encoder(args)?, true).map_err(|e| {
        Failure::new(format!(
            "{e}: install gstreamer1.0-plugins-base, -good, -bad and -ugly"
        ))
    })?;
    let first = keep_first(&media::static_pad(&mark, "sink")?);
    let marked = keep_first(&media::static_pad(&mark, "src")?);
    let bytes = media::write_whole(&args.out, |part| {
        let sink = media::make("filesink")?;
        sink.set_property("location", part.display().to_string());
        let pipeline = media::decoded(&args.file, &[&mark, encoder.upcast_ref(), &sink])?;
        let bar = common::progress_time(json, &args.out.display().to_string());
        pipeline
            .decode_all(&bar, &mark, |_| Ok(()))
            .map_err(|e| Failure::new(format!("{}: {e}", args.file.display())))
    })?;
    let (Some(before), Some(after)) = (take(&first), take(&marked)) else {
        return Err(Failure::new(format!(
            "{}: there is no picture in it that GStreamer can decode",
            args.file.display()
        )));
    };
    if let Some(folder) = &args.pictures {
        write_pictures(folder, &before, &after)?;
    }
    let psnr = psnr(before.data(), after.data());
    let object = json!({ "file": args.out, "bytes": bytes, "psnr_first_frame": psnr });
    print(json, object, || {
        format!(
            "{}: {}, marked; the mark alone costs the first frame {psnr:.1} dB PSNR",
            args.out.display(),
            common::bytes(bytes)
        )
    });
    Ok(ExitCode::SUCCESS)
}

fn write_pictures(folder: &Path, before: &Plane, after: &Plane) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)
        .map_err(|e| Failure::new(format!("{}: {e}", folder.display())))?;
    let difference = pictures::difference(before.data(), after.data());
    let (width, height) = (before.width() as u32, before.height() as u32);
    for (name, luma) in [
        ("original.png", before.data()),
        ("marked.png", after.data()),
        ("difference.png", &difference),
    ] {
        pictures::write_png(&folder.join(name), width, height, luma)?;
    }
    Ok(())
}
