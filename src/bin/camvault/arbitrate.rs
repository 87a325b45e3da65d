// SPDX-License-Identifier: MPL-2.0
use crate::common::{
    self, Failure, IdentityArg, NOT_VERIFIED, VaultArg, expect_party, print, wait,
};
use crate::verdict::{self, file_digest};
use crate::{media, pictures};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use gst::prelude::*;
use gst_video::{VideoCapsBuilder, VideoFrameRef, VideoInfo};
use gstcamvault::arbiter::{MAX_LUMA_BYTES, SIDES};
use gstcamvault::client::Ttp;
use gstcamvault::client::ttp::Judgement;
use gstcamvault::elements::support::video;
use gstcamvault::identity::PublicId;
use gstcamvault::luma::Plane;
use gstcamvault::protocol::{
    Contract, MAX_SUSPECT_FRAMES, RecordingUrl, Suspect, Verdict, suspect_digest,
};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

/// Find out whose copy a video or picture is: some of its frames go to the third party, which
/// compares them with all watermarks that look alike and signs a verdict.
///
/// Leaves in the folder: verdict.signed, contract.signed (if one is named), verdict.json, report.html
/// and its pictures. The exit code is 0 if the verdict names a contract, and 3 if it names none.
#[derive(clap::Args)]
pub struct Args {
    /// Picture, video, or recording (camvault://HOST:PORT/NAME).
    file: String,
    /// The third party, http://HOST:PORT.
    #[arg(long, value_name = "URL")]
    ttp: VaultArg,
    /// Folder for verdict and report; no verdict is ever overwritten.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    identity: IdentityArg,
    /// Who the third party has to be, camvault1… [default: whoever answers].
    #[arg(long, value_name = "PUBLIC")]
    ttp_id: Option<PublicId>,
    /// The third party's registration token, if it needs one and this identity is not registered.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Contract that is suspected: compared first, also where nothing looks alike.
    #[arg(long, value_name = "FILE")]
    contract: Option<PathBuf>,
    /// Frames sent at most.
    #[arg(long, value_name = "N", default_value_t = 48, value_parser = clap::value_parser!(u32).range(1..=MAX_SUSPECT_FRAMES as i64))]
    frames: u32,
}

/// Consecutive frames that are kept together: marks stay where they are for some time.
const STRETCH: usize = 8;
/// Bytes of luma sent at most, so that the message is not too long however badly it compresses.
const MAX_BYTES: usize = if MAX_LUMA_BYTES < 120 << 20 {
    MAX_LUMA_BYTES
} else {
    120 << 20
};

/// Frames of a clip whose length is not known beforehand: some stretches, evenly spread.
struct Picks {
    most: usize,
    stretch: usize,
    /// Every so many stretches are kept.
    every: usize,
    seen: usize,
    kept: Vec<(usize, Plane)>,
}

impl Picks {
    fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            stretch: STRETCH.min(most.max(1)),
            every: 1,
            seen: 0,
            kept: Vec::new(),
        }
    }

    /// The next frame; `plane` makes it if it is wanted.
    fn push(&mut self, plane: impl FnOnce() -> Option<Plane>) {
        let stretch = self.seen / self.stretch;
        self.seen += 1;
        if !stretch.is_multiple_of(self.every) {
            return;
        }
        let Some(plane) = plane() else { return };
        let size = |plane: &Plane| (plane.width(), plane.height());
        match self.kept.first() {
            None => {
                let pixels = (plane.width() * plane.height()).max(1);
                self.most = self.most.min(MAX_BYTES / pixels).max(1);
                self.stretch = self.stretch.min(self.most);
            }
            Some((_, first)) if size(first) != size(&plane) => return,
            Some(_) => (),
        }
        self.kept.push((stretch, plane));
        while self.kept.len() > self.most {
            self.every *= 2;
            let every = self.every;
            let before = self.kept.len();
            self.kept
                .retain(|(stretch, _)| stretch.is_multiple_of(every));
            if self.kept.len() == before {
                // The first stretch alone.
                self.kept.truncate(self.most);
            }
        }
    }
}

fn frames(args: &Args, json: bool) -> Result<Vec<Plane>, Failure> {
    let sides = *SIDES.start() as i32..=*SIDES.end() as i32;
    let caps = VideoCapsBuilder::new()
        .format_list(video::FORMATS)
        .width_range(sides.clone())
        .height_range(sides)
        .build();
    let (scale, filter) = (media::make("videoscale")?, media::make("capsfilter")?);
    filter.set_property("caps", caps);
    let sink = media::make("fakesink")?;
    let elements = [&scale, &filter, &sink];
    let pipeline = match args.file.parse::<RecordingUrl>() {
        Ok(url) => media::decoded_recording(&url, args.identity.path(), &elements)?,
        Err(_) => media::decoded(Path::new(&args.file), &elements)?,
    };
    let picks = Arc::new(Mutex::new(Picks::new(args.frames as usize)));
    let into = picks.clone();
    media::static_pad(&sink, "sink")?.add_probe(gst::PadProbeType::BUFFER, move |pad, probe| {
        let plane = || {
            let caps = pad.current_caps()?;
            let info = VideoInfo::from_caps(&caps).ok()?;
            let frame = VideoFrameRef::from_buffer_ref_readable(probe.buffer()?, &info).ok()?;
            Some(video::luma(&frame)?.to_plane())
        };
        into.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(plane);
        gst::PadProbeReturn::Ok
    });
    let at = |e: &dyn std::fmt::Display| Failure::new(format!("{}: {e}", args.file));
    let bar = common::progress_time(json, &args.file);
    let done = pipeline.decode_all(&bar, &sink, |_| Ok(()));
    done.map_err(|e| e.prefixed(&args.file))?;
    let kept = std::mem::take(&mut picks.lock().unwrap_or_else(PoisonError::into_inner).kept);
    match kept.is_empty() {
        true => Err(at(&"there is no picture in it that GStreamer can decode")),
        false => Ok(kept.into_iter().map(|(_, plane)| plane).collect()),
    }
}

pub fn run(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    media::init()?;
    let out = |name: &str| args.out.join(name);
    std::fs::create_dir_all(&args.out)
        .map_err(|e| Failure::new(format!("{}: {e}", args.out.display())))?;
    common::is_free(&out("verdict.signed"))?;
    common::is_free(&out("contract.signed"))?;
    let identity = args.identity.load()?;
    let named = args.contract.as_deref().map(common::read_contract);
    let named = named.transpose()?;
    let ttp = Ttp::connect(args.ttp.base(), identity)?;
    let third = wait(ttp.info())?.identity;
    expect_party("third party", args.ttp.base(), &third, args.ttp_id.as_ref())?;
    wait(ttp.register(None, args.token.as_deref()))?;
    let file = match args.file.parse::<RecordingUrl>() {
        Ok(_) => None,
        Err(_) => Some(file_digest(Path::new(&args.file))?),
    };
    let frames = frames(args, json)?;
    let (width, height) = (frames[0].width() as u32, frames[0].height() as u32);
    let suspect = Suspect {
        width,
        height,
        frames: frames.iter().map(zlib).collect::<Result<_, _>>()?,
        file: file.map(Into::into),
        contract: named.map(|agreed| agreed.id.into()),
    };
    let digest = suspect_digest(width, height, frames.iter().map(Plane::data));
    let bar = common::spinner(json, "the third party compares; this may take minutes");
    let judged = wait(ttp.arbitrate(&third.sign, &suspect))?;
    bar.finish_and_clear();
    if *judged.verdict.frames != digest || judged.verdict.file != suspect.file {
        return Err(
            Failure::new("the verdict is of other frames than were sent").with_code(NOT_VERIFIED),
        );
    }
    common::write_document::<Verdict>(&out("verdict.signed"), &judged.signed)?;
    if let Some(agreed) = &judged.contract {
        common::write_document::<Contract>(&out("contract.signed"), &agreed.signed)?;
    }
    let third = PublicId::from(&third);
    let mut object = verdict::object(&judged.verdict);
    object["suspect"] = args.file.clone().into();
    object["frames"] = frames.len().into();
    object["ttp"] = third.to_string().into();
    object["out"] = args.out.display().to_string().into();
    if let Some(bits) = &judged.bits {
        object["bits"] = bits.clone().into();
    }
    write(&out("verdict.json"), &format!("{object:#}\n"))?;
    pictures::write_png(&out("suspect.png"), width, height, frames[0].data())?;
    if let Some(bits) = &judged.bits {
        let sure: Vec<f64> = bits.iter().map(|bit| f64::from(bit.abs())).collect();
        let title = format!("{} frames against the ticket that was found", frames.len());
        let wrong = |bit: usize| bits.get(bit).is_some_and(|bit| *bit < 0.0);
        pictures::write_confidence(&out("bits.svg"), &title, &sure, wrong)?;
    }
    write(
        &out("report.html"),
        &report(args, &judged, &third, frames.len()),
    )?;
    print(json, object, || {
        format!(
            "{}\nThe verdict is in {}, a report for people in {}.",
            verdict::text(&judged.verdict),
            out("verdict.signed").display(),
            out("report.html").display()
        )
    });
    Ok(match judged.verdict.leak {
        Some(_) => ExitCode::SUCCESS,
        None => ExitCode::from(NOT_VERIFIED),
    })
}

fn zlib(plane: &Plane) -> Result<minicbor::bytes::ByteVec, Failure> {
    let mut out = ZlibEncoder::new(Vec::new(), Compression::fast());
    let written = out.write_all(plane.data()).and_then(|()| out.finish());
    written
        .map(Into::into)
        .map_err(|e| Failure::new(e.to_string()))
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(file, text).map_err(|e| Failure::new(format!("{}: {e}", file.display())))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn report(args: &Args, judged: &Judgement, third: &PublicId, frames: usize) -> String {
    let mut rows = String::new();
    let row = |rows: &mut String, what: &str, value: &str| {
        let _ = writeln!(
            rows,
            "<tr><th>{}</th><td>{}</td></tr>",
            escaped(what),
            escaped(value)
        );
    };
    row(&mut rows, "suspect", &args.file);
    row(&mut rows, "frames judged", &frames.to_string());
    for (what, value) in verdict::lines(&judged.verdict) {
        row(&mut rows, what, &value);
    }
    row(&mut rows, "third party", &third.to_string());
    let (summary, contract, bits) = match &judged.verdict.leak {
        Some(leak) => (
            format!(
                "This footage bears a watermark that only one copy has: the one of contract {}….{}",
                &gstcamvault::protocol::hex(&*leak.contract)[..16],
                match leak.deleted {
                    Some(_) => " It had been forgotten before: it should not exist any more.",
                    None => "",
                }
            ),
            " --contract contract.signed",
            "<h2>How sure each bit was read</h2>\n<p>Blue: as it was marked. Red: otherwise.</p>\n\
             <img src=\"bits.svg\" alt=\"confidence of each bit\">\n",
        ),
        None => (
            "No registered watermark was found. That does not prove that there is none: it may have \
             been destroyed, or never been registered."
                .to_owned(),
            "",
            "",
        ),
    };
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Verdict</title>\n\
         <style>body{{font-family:sans-serif;max-width:62em;margin:2em auto;padding:0 1em}}\
         th{{text-align:left;vertical-align:top;padding:.2em 1em .2em 0;font-weight:normal;color:#555}}\
         td{{word-break:break-all}}img{{max-width:100%}}code{{background:#eee}}</style>\n\
         <h1>Verdict</h1>\n<p>{}</p>\n<table>\n{rows}</table>\n\
         <h2>A frame of the suspect</h2>\n<img src=\"suspect.png\" alt=\"a frame\">\n{bits}\
         <h2>Check it</h2>\n<p>This page proves nothing; <code>verdict.signed</code> does. With the third \
         party's public identity from a source that you trust:</p>\n\
         <pre>camvault verdict check verdict.signed{contract} --ttp-id PUBLIC</pre>\n</html>\n",
        escaped(&summary)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(length: usize, most: usize) -> Vec<usize> {
        let mut picks = Picks::new(most);
        for i in 0..length {
            picks.push(|| Plane::new(2, 1, vec![i as u8, (i >> 8) as u8]));
        }
        let number = |(_, plane): &(usize, Plane)| {
            usize::from(plane.data()[0]) + 256 * usize::from(plane.data()[1])
        };
        picks.kept.iter().map(number).collect()
    }

    #[test]
    fn frames_are_picked_in_stretches_from_everywhere() {
        assert_eq!(picked(30, 48), (0..30).collect::<Vec<_>>());
        assert_eq!(picked(1, 48), [0]);
        assert_eq!(picked(20, 1).len(), 1);
        let picked = picked(5000, 48);
        assert!((24..=48).contains(&picked.len()), "{}", picked.len());
        assert!(picked[..8].iter().copied().eq(0..8));
        assert!(picked.iter().any(|&frame| frame > 3000), "{picked:?}");
        assert!(picked.is_sorted());
    }
}
