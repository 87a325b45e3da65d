// SPDX-License-Identifier: MPL-2.0
//! Running a pipeline to its end, with a progress bar.

use crate::common::{Failure, NOT_VERIFIED};
use gst::prelude::*;
use gstcamvault::protocol::RecordingUrl;
use indicatif::ProgressBar;
use std::path::Path;

/// GStreamer with this program's own elements, whatever is installed.
pub fn init() -> Result<(), Failure> {
    gst::init()?;
    gstcamvault::plugin_register_static()
        .map_err(|e| Failure::new(format!("cannot register the camvault elements: {e}")))
}

/// An element of an installed plugin.
pub fn make(name: &str) -> Result<gst::Element, Failure> {
    gst::ElementFactory::make(name).build().map_err(|_| {
        Failure::new(format!(
            "GStreamer has no element `{name}` here: install gstreamer1.0-plugins-base, -good, -bad and -ugly"
        ))
    })
}

/// An always pad.
pub fn static_pad(element: &gst::Element, name: &str) -> Result<gst::Pad, Failure> {
    let missing = || Failure::new(format!("{} has no pad {name}", element.name()));
    element.static_pad(name).ok_or_else(missing)
}

/// Bytes of a file read at once: some chunks, which takes less time to hash than one by one.
const BLOCK_BYTES: u32 = 8 << 20;

/// A `filesrc` that reads in pieces that suit large files.
pub fn source(file: &Path) -> Result<gst::Element, Failure> {
    let source = make("filesrc")?;
    source.set_property("location", file.display().to_string());
    source.set_property("blocksize", BLOCK_BYTES);
    Ok(source)
}

/// The muxer for a file name.
pub fn muxer(out: &Path) -> Option<&'static str> {
    match out.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "mp4" | "m4v" | "mov" => Some("mp4mux"),
        "mkv" => Some("matroskamux"),
        "ts" => Some("mpegtsmux"),
        _ => None,
    }
}

/// Writes a file that appears when it is complete: `write` gets the name to write to. Returns its
/// size.
pub fn write_whole(
    out: &Path,
    write: impl FnOnce(&Path) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = out.with_file_name(name);
    let written = write(&part);
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    written?;
    let at = |e: std::io::Error| Failure::new(format!("{}: {e}", out.display()));
    std::fs::File::open(&part)
        .and_then(|f| f.sync_all())
        .map_err(at)?;
    std::fs::rename(&part, out).map_err(at)?;
    Ok(std::fs::metadata(out).map_err(at)?.len())
}

/// A pipeline that decodes the first video stream of a file, or a picture, into `elements`.
pub fn decoded(file: &Path, elements: &[&gst::Element]) -> Result<Running, Failure> {
    std::fs::File::open(file).map_err(|e| Failure::new(format!("{}: {e}", file.display())))?;
    let (pipeline, decode) = decoder(elements)?;
    let source = source(file)?;
    pipeline.0.add(&source)?;
    source.link(&decode)?;
    Ok(pipeline)
}

/// A pipeline that decodes the first video stream of a recording into `elements`.
pub fn decoded_recording(
    url: &RecordingUrl,
    identity: &Path,
    elements: &[&gst::Element],
) -> Result<Running, Failure> {
    let (pipeline, decode) = decoder(elements)?;
    let source = make("dedupsrc")?;
    source.set_property("uri", url.to_string());
    source.set_property("identity", identity.display().to_string());
    pipeline.0.add(&source)?;
    let input = static_pad(&decode, "sink")?.downgrade();
    source.connect_pad_added(move |source, pad| {
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let name = caps.structure(0).map(|s| s.name());
        let video = name.is_some_and(|n| !n.starts_with("audio/") && !n.starts_with("text/"));
        let linked = match input.upgrade().filter(|i| video && !i.is_linked()) {
            Some(input) => pad.link(&input).is_ok(),
            None => aside(source, pad).is_some(),
        };
        if !linked {
            let error = gst::StreamError::WrongType;
            gst::element_error!(source, error, ("a stream of the recording does not fit"));
        }
    });
    Ok(pipeline)
}

/// Lets a stream end where nobody looks at it.
fn aside(source: &gst::Element, pad: &gst::Pad) -> Option<()> {
    let bin = source.parent().and_downcast::<gst::Bin>()?;
    let sink = gst::ElementFactory::make("fakesink").build().ok()?;
    bin.add(&sink).ok()?;
    sink.sync_state_with_parent().ok()?;
    pad.link(&sink.static_pad("sink")?).ok().map(drop)
}

/// Decoder, converter and `elements`: what is to be decoded is linked to the decoder.
fn decoder(elements: &[&gst::Element]) -> Result<(Running, gst::Element), Failure> {
    let pipeline = Running(gst::Pipeline::new());
    let (decode, convert) = (make("decodebin")?, make("videoconvert")?);
    // Only pictures are decoded.
    decode.connect("autoplug-continue", false, |values| {
        let caps = values.get(2).and_then(|v| v.get::<gst::Caps>().ok());
        let name = caps.as_ref().and_then(|c| c.structure(0)).map(|s| s.name());
        let sound = name.is_some_and(|n| n.starts_with("audio/") || n.starts_with("text/"));
        Some((!sound).to_value())
    });
    pipeline.0.add_many([&decode, &convert])?;
    pipeline.0.add_many(elements)?;
    gst::Element::link_many(std::iter::once(&&convert).chain(elements).copied())?;
    let input = static_pad(&convert, "sink")?.downgrade();
    decode.connect_pad_added(move |_, pad| {
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let video = caps.structure(0).is_some_and(|s| s.name() == "video/x-raw");
        if let Some(input) = input.upgrade().filter(|i| video && !i.is_linked()) {
            // The pipeline says that nothing took the stream, if so.
            let _ = pad.link(&input);
        }
    });
    Ok((pipeline, decode))
}

/// Whether the file is a single picture, by its first bytes.
pub fn is_picture(file: &Path) -> Result<bool, Failure> {
    let at = |e: std::io::Error| Failure::new(format!("{}: {e}", file.display()));
    let mut head = Vec::new();
    let opened = std::fs::File::open(file).map_err(at)?;
    std::io::Read::read_to_end(&mut std::io::Read::take(opened, 12), &mut head).map_err(at)?;
    let begins: [&[u8]; 6] = [
        b"\x89PNG",
        b"\xff\xd8\xff",
        b"BM",
        b"GIF8",
        b"II*\0",
        b"MM\0*",
    ];
    let webp = head.starts_with(b"RIFF") && head.ends_with(b"WEBP");
    Ok(webp || begins.iter().any(|begin| head.starts_with(begin)))
}

/// Whether GStreamer knows how to take the file apart.
pub fn is_media(file: &Path) -> Result<bool, Failure> {
    let pipeline = Running(gst::Pipeline::new());
    let (source, find, sink) = (source(file)?, make("typefind")?, make("fakesink")?);
    pipeline.0.add_many([&source, &find, &sink])?;
    gst::Element::link_many([&source, &find, &sink])?;
    // An unknown type, an empty file among them, is an error of the pipeline: bytes.
    let known = pipeline.0.set_state(gst::State::Paused).is_ok()
        && pipeline.0.state(gst::ClockTime::from_seconds(10)).0.is_ok();
    let caps = find.property::<Option<gst::Caps>>("caps").filter(|_| known);
    Ok(caps.as_ref().and_then(|c| c.structure(0)).is_some_and(|s| {
        let name = s.name().as_str();
        let container = [
            "application/ogg",
            "application/mxf",
            "application/x-rtp-dump",
        ];
        name.starts_with("video/")
            || name.starts_with("audio/")
            || name == "image/jpeg"
            || container.contains(&name)
    }))
}

/// A pipeline that is stopped when it goes out of scope.
pub struct Running(pub gst::Pipeline);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
    }
}

impl Running {
    /// [`Running::to_end`] of [`decoded`]; `at` is an element that knows how far it is.
    pub fn decode_all(
        &self,
        bar: &ProgressBar,
        at: &gst::Element,
        each: impl FnMut(&gst::Message) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let position = || {
            // A picture has neither.
            bar.set_length(at.query_duration::<gst::ClockTime>()?.nseconds());
            at.query_position::<gst::ClockTime>().map(|p| p.nseconds())
        };
        self.to_end(bar, position, each)
    }

    /// Plays to the end. `position` says how far it is, for the bar; `each` sees every message.
    pub fn to_end(
        &self,
        bar: &ProgressBar,
        position: impl Fn() -> Option<u64>,
        mut each: impl FnMut(&gst::Message) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let bus = self
            .0
            .bus()
            .ok_or_else(|| Failure::new("the pipeline has no bus"))?;
        let started = self.0.set_state(gst::State::Playing);
        loop {
            let message = bus.timed_pop(gst::ClockTime::from_mseconds(100));
            if let Some(at) = position() {
                bar.set_position(at);
            }
            let Some(message) = message else {
                if started.is_err() {
                    return Err(Failure::new("the pipeline did not start"));
                }
                continue;
            };
            each(&message)?;
            match message.view() {
                gst::MessageView::Eos(_) => break,
                gst::MessageView::Error(e) => return Err(failure(e)),
                _ => (),
            }
        }
        bar.finish_and_clear();
        Ok(())
    }
}

/// An element's error in words; what it adds for developers goes behind it, without the place in
/// its source that GStreamer puts in front.
fn failure(error: &gst::message::Error) -> Failure {
    let (mut words, kind) = (error.error().to_string(), error.error());
    let debug = error.debug();
    if let Some(more) = debug.as_deref().and_then(|d| d.lines().nth(1)) {
        words.push_str(&format!("\n  ({more})"));
    }
    if kind.matches(gst::StreamError::Mux) {
        words.push_str(
            "\nThis kind of file cannot hold a stream that changes in the middle: give it the ending \
             .ts, or take a part with ?from=…&to=…",
        );
    }
    let failure = Failure::new(words);
    let own = error.src().is_some_and(|source| {
        let factory = source.downcast_ref::<gst::Element>();
        factory
            .and_then(gst::Element::factory)
            .is_some_and(|f| ["dedupsrc", "dedupsink"].contains(&f.name().as_str()))
    });
    match kind {
        _ if !own => failure,
        kind if kind.matches(gst::StreamError::Decrypt) => failure.with_code(NOT_VERIFIED),
        kind if kind.matches(gst::ResourceError::OpenReadWrite) => failure.with_code(4),
        kind if kind.matches(gst::ResourceError::NotAuthorized) => failure.with_code(5),
        kind if kind.matches(gst::ResourceError::NotFound) => failure.with_code(6),
        _ => failure,
    }
}
