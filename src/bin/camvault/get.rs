// SPDX-License-Identifier: MPL-2.0
use crate::common::{self, Failure, IdentityArg, VaultArg, print, wait};
use crate::media::{self, Running};
use gst::prelude::*;
use gstcamvault::client::reader::Reader;
use gstcamvault::protocol::{Moment, RecordingUrl};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Write a recording to a file, without re-encoding. The ending chooses the container: mp4, mkv
/// or ts. What was stored as bytes is written as it was, whatever the ending.
#[derive(clap::Args)]
pub struct Args {
    /// Recording, camvault://HOST:PORT/NAME[?from=…&to=…].
    url: RecordingUrl,
    /// File to write; it appears when it is complete.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    identity: IdentityArg,
}

/// What stands between a stream and a muxer: a parser, and where units carry no decoding time, an
/// element that works it out. The parser does not hear from behind that element what the muxer
/// takes, so the form is named. None: the stream goes in as it was recorded.
fn parser(caps: &gst::StructureRef, muxer: &str) -> Option<&'static str> {
    Some(match (caps.name().as_str(), muxer) {
        ("video/x-h264", "mpegtsmux") => {
            "h264parse ! video/x-h264,stream-format=byte-stream,alignment=au ! h264timestamper"
        }
        ("video/x-h264", _) => {
            "h264parse ! video/x-h264,stream-format=avc,alignment=au ! h264timestamper"
        }
        ("video/x-h265", "mpegtsmux") => {
            "h265parse ! video/x-h265,stream-format=byte-stream,alignment=au ! h265timestamper"
        }
        ("video/x-h265", _) => {
            "h265parse ! video/x-h265,stream-format=hvc1,alignment=au ! h265timestamper"
        }
        ("image/jpeg", _) => "jpegparse",
        ("audio/mpeg", _) if caps.get("mpegversion") == Ok(1i32) => "mpegaudioparse",
        ("audio/mpeg", _) => "aacparse",
        ("audio/x-opus", _) => "opusparse",
        _ => return None,
    })
}

pub fn run(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    media::init()?;
    let vault = VaultArg::of(&args.url).reach(&args.identity)?;
    let reader = wait(Reader::open(&args.url, vault.identity()))?;
    let summary = reader.summary();
    let late = args.url.window.from.is_some_and(|from| match from {
        Moment::Offset(ns) => ns >= summary.duration,
        Moment::Utc(ns) => {
            i128::from(ns) >= i128::from(summary.start_utc) + i128::from(summary.duration)
        }
    });
    if late && summary.duration > 0 {
        return Err(Failure::new(
            "nothing was recorded in that time: `camvault ls` says when there is something",
        ));
    }
    let timeline = reader.timeline();
    let (removed, start) = (timeline.first(), timeline.start());
    let until = args.url.window.to.map(|to| timeline.resolve(to));
    if until.is_some_and(|until| until <= start) && removed > 0 {
        return Err(Failure::new(
            "retention has removed what was recorded in that time: `camvault ls` says what is left",
        ));
    }
    let bytes = summary
        .recorded()
        .all(|(_, caps)| caps.starts_with("application/octet-stream"));
    let muxer = media::muxer(&args.out);
    if !bytes && muxer.is_none() {
        return Err(Failure::usage(
            "the recording is media: give the file the ending .mp4, .mkv or .ts",
        ));
    }
    drop(reader);
    let size = media::write_whole(&args.out, |part| {
        download(args, muxer.filter(|_| !bytes), part, json)
    })?;
    let object = serde_json::json!({
        "recording": args.url.to_string(), "file": args.out, "bytes": size,
        "removed_segments": removed, "starts_ns": start,
    });
    print(json, object, || {
        let removed = match removed {
            0 => String::new(),
            _ => format!(
                "; retention has removed what was before {} of the recording",
                common::seconds(start)
            ),
        };
        format!("{}: {}{removed}", args.out.display(), common::bytes(size))
    });
    Ok(ExitCode::SUCCESS)
}

fn download(args: &Args, muxer: Option<&str>, part: &Path, json: bool) -> Result<(), Failure> {
    let pipeline = Running(gst::Pipeline::new());
    let source = media::make("dedupsrc")?;
    source.set_property("uri", args.url.to_string());
    source.set_property("identity", args.identity.path().display().to_string());
    let sink = media::make("filesink")?;
    sink.set_property("location", part.display().to_string());
    pipeline.0.add_many([&source, &sink])?;

    let muxer = muxer.map(media::make).transpose()?;
    if let Some(muxer) = &muxer {
        pipeline.0.add(muxer)?;
        muxer.link(&sink)?;
    }
    source.connect_pad_added(move |source, pad| {
        if let Err(failure) = attach(pad, muxer.as_ref(), &sink) {
            gst::element_error!(source, gst::StreamError::WrongType, ("{failure}"));
        }
    });

    let total = || {
        pipeline
            .0
            .query_duration::<gst::ClockTime>()
            .map(|t| t.nseconds())
    };
    let bar = common::progress_time(json, &args.out.display().to_string());
    let position = || {
        bar.set_length(total().unwrap_or(0));
        pipeline
            .0
            .query_position::<gst::ClockTime>()
            .map(|t| t.nseconds())
    };
    pipeline.to_end(&bar, position, |_| Ok(()))
}

/// Links a stream of the recording to the muxer, or a byte stream straight to the file.
fn attach(
    pad: &gst::Pad,
    muxer: Option<&gst::Element>,
    sink: &gst::Element,
) -> Result<(), Failure> {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    let stream = caps
        .structure(0)
        .ok_or_else(|| Failure::new("a stream of the recording has no type"))?;
    let bin = sink
        .parent()
        .and_downcast::<gst::Bin>()
        .ok_or_else(|| Failure::new("the pipeline is gone"))?;
    let parser = muxer
        .and_then(gst::Element::factory)
        .and_then(|muxer| parser(stream, &muxer.name()));
    // The muxer waits for every track, and one that is silent for a whole segment says so only at
    // its end: the others must fit in here meanwhile.
    let queue = "queue max-size-buffers=0 max-size-time=0 max-size-bytes=268435456";
    let between = parser.map_or(queue.into(), |parser| format!("{queue} ! {parser}"));
    let between = gst::parse::bin_from_description(&between, true).map_err(|e| {
        Failure::new(format!(
            "{e}: install gstreamer1.0-plugins-base, -good, -bad and -ugly"
        ))
    })?;
    bin.add(&between)?;
    between.sync_state_with_parent()?;
    link(pad, &media::static_pad(between.upcast_ref(), "sink")?)?;
    let last = media::static_pad(between.upcast_ref(), "src")?;
    let to = match muxer {
        None => media::static_pad(sink, "sink")?,
        // By what the parser can make of the stream, not by how it was recorded.
        Some(muxer) => muxer
            .compatible_pad(&last, parser.map_or(Some(&caps), |_| None))
            .ok_or_else(|| {
                let media = stream.name();
                Failure::new(format!(
                    "this kind of file cannot hold {media}: try another ending (.mp4, .mkv, .ts)"
                ))
            })?,
    };
    link(&last, &to)
}

fn link(from: &gst::Pad, to: &gst::Pad) -> Result<(), Failure> {
    from.link(to)
        .map(drop)
        .map_err(|e| Failure::new(format!("a stream of the recording does not fit: {e:?}")))
}
