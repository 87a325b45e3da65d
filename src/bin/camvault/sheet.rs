// SPDX-License-Identifier: MPL-2.0
//! Files of frames that come one by one.

use crate::common::Failure;
use crate::media::{self, Running};
use crate::y4m;
use gst::prelude::*;
use gst_video::{VideoFormat, VideoInfo};
use gstcamvault::protocol::Video;
use gstcamvault::sealed::{Chroma, Picture};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

/// What kind of file is written.
#[derive(Clone, Copy)]
pub enum Kind {
    Y4m,
    Muxed(&'static str),
}

impl Kind {
    /// By the ending of its name.
    pub fn of(out: &Path) -> Result<Self, Failure> {
        let ending = out.extension().and_then(|e| e.to_str());
        if ending.is_some_and(|e| e.eq_ignore_ascii_case("y4m")) {
            return Ok(Self::Y4m);
        }
        let muxer = media::muxer(out).map(Self::Muxed);
        muxer.ok_or_else(|| Failure::usage("give the file the ending .y4m, .mkv, .mp4 or .ts"))
    }
}

/// Where frames are written.
pub struct Sheet<'a> {
    kind: Kind,
    part: &'a Path,
    state: State,
}

enum State {
    Empty,
    Y4m(BufWriter<File>),
    Encoding {
        pipeline: Running,
        source: gst::Element,
        info: VideoInfo,
        first: u64,
    },
}

impl<'a> Sheet<'a> {
    /// Nothing is written before the first frame.
    pub fn new(kind: Kind, part: &'a Path) -> Self {
        let state = State::Empty;
        Self { kind, part, state }
    }

    fn at(&self, e: std::io::Error) -> Failure {
        Failure::new(format!("{}: {e}", self.part.display()))
    }

    fn begin(&mut self, video: &Video, first: u64) -> Result<(), Failure> {
        self.state = match self.kind {
            Kind::Y4m => {
                let file = File::create(self.part).map_err(|e| self.at(e))?;
                let mut file = BufWriter::with_capacity(1 << 20, file);
                y4m::write_head(&mut file, video).map_err(|e| self.at(e))?;
                State::Y4m(file)
            }
            Kind::Muxed(muxer) => encoding(video, muxer, self.part, first)?,
        };
        Ok(())
    }

    /// The next frame; all are of one format.
    pub fn frame(&mut self, video: &Video, picture: &Picture, pts: u64) -> Result<(), Failure> {
        if matches!(self.state, State::Empty) {
            self.begin(video, pts)?;
        }
        match &mut self.state {
            State::Empty => Ok(()),
            State::Y4m(file) => {
                let written = y4m::write_frame(file, picture);
                written.map_err(|e| self.at(e))
            }
            State::Encoding {
                pipeline,
                source,
                info,
                first,
            } => {
                let (frames, seconds) = y4m::rate(video);
                let mut buffer = gst::Buffer::from_mut_slice(arranged(info, picture));
                if let Some(buffer) = buffer.get_mut() {
                    let second = gst::ClockTime::SECOND.nseconds();
                    let shown = second * u64::from(seconds) / u64::from(frames);
                    buffer.set_pts(gst::ClockTime::from_nseconds(pts.saturating_sub(*first)));
                    buffer.set_duration(gst::ClockTime::from_nseconds(shown));
                }
                match source.emit_by_name::<gst::FlowReturn>("push-buffer", &[&buffer]) {
                    gst::FlowReturn::Ok => Ok(()),
                    // The pipeline says why.
                    _ => pipeline
                        .to_end(&indicatif::ProgressBar::hidden(), || None, |_| Ok(()))
                        .and(Err(Failure::new("encoding stopped"))),
                }
            }
        }
    }

    /// Completes the file.
    pub fn finish(self) -> Result<(), Failure> {
        let at = |e: std::io::Error| Failure::new(format!("{}: {e}", self.part.display()));
        match self.state {
            State::Empty => Err(Failure::new("there are no frames")),
            State::Y4m(mut file) => file.flush().map_err(at),
            State::Encoding {
                pipeline, source, ..
            } => {
                // What is wrong shows on the bus.
                let _ = source.emit_by_name::<gst::FlowReturn>("end-of-stream", &[]);
                pipeline.to_end(&indicatif::ProgressBar::hidden(), || None, |_| Ok(()))
            }
        }
    }
}

/// A picture as GStreamer lays out its planes.
fn arranged(info: &VideoInfo, picture: &Picture) -> Vec<u8> {
    let mut bytes = vec![0; info.size()];
    for (i, plane) in picture.planes().iter().enumerate() {
        let [width, _] = picture.geometry().plane(i);
        let stride = info.stride()[i] as usize;
        let to = bytes[info.offset()[i]..].chunks_mut(stride);
        for (to, from) in to.zip(plane.chunks_exact(width)) {
            to[..width].copy_from_slice(from);
        }
    }
    bytes
}

fn encoding(video: &Video, muxer: &str, part: &Path, first: u64) -> Result<State, Failure> {
    let format = match video.chroma.into() {
        Chroma::None => VideoFormat::Gray8,
        Chroma::I420 => VideoFormat::I420,
        Chroma::Y42B => VideoFormat::Y42b,
        Chroma::Y444 => VideoFormat::Y444,
    };
    let (frames, seconds) = y4m::rate(video);
    let rate = gst::Fraction::new(frames as i32, seconds as i32);
    let info = VideoInfo::builder(format, video.width, video.height)
        .fps(rate)
        .build()?;
    let source = media::make("appsrc")?;
    source.set_property("caps", info.to_caps()?);
    source.set_property_from_str("format", "time");
    source.set_property("block", true);
    source.set_property("max-bytes", 64u64 << 20);
    let encoder = format!(
        "videoconvert ! x264enc pass=quant quantizer=0 speed-preset=veryfast key-int-max=250 \
         ! h264parse ! {muxer}"
    );
    let encoder = gst::parse::bin_from_description(&encoder, true).map_err(|e| {
        Failure::new(format!(
            "{e}: install gstreamer1.0-plugins-base, -good, -bad and -ugly"
        ))
    })?;
    let sink = media::make("filesink")?;
    sink.set_property("location", part.display().to_string());
    let pipeline = Running(gst::Pipeline::new());
    pipeline
        .0
        .add_many([&source, encoder.upcast_ref(), &sink])?;
    gst::Element::link_many([&source, encoder.upcast_ref(), &sink])?;
    // What goes wrong shows on the bus, and at the first frame.
    let _ = pipeline.0.set_state(gst::State::Playing);
    Ok(State::Encoding {
        pipeline,
        source,
        info,
        first,
    })
}
