// SPDX-License-Identifier: MPL-2.0
//! A file looped for ever at its own pace, as it was encoded. It is held in memory.

use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::Error;
use super::hub::Hub;

struct Unit {
    track: usize,
    /// When it is sent, in ns of the file's own time.
    due: i64,
    sample: gst::Sample,
}

pub struct Footage {
    /// The caps name of each track.
    pub tracks: Vec<String>,
    units: Vec<Unit>,
    length: i64,
}

pub struct Projector {
    stop: mpsc::Sender<()>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What has an RTP payloader here, and the form that payloader likes.
fn form(name: &str, caps: &gst::StructureRef) -> Option<&'static str> {
    match name {
        "video/x-h264" => Some("h264parse ! video/x-h264,stream-format=avc,alignment=au"),
        "video/x-h265" => Some("h265parse ! video/x-h265,stream-format=hvc1,alignment=au"),
        "image/jpeg" => Some("jpegparse"),
        "audio/mpeg"
            if caps
                .get::<i32>("mpegversion")
                .is_ok_and(|version| version > 1) =>
        {
            Some("aacparse ! audio/mpeg,stream-format=raw")
        }
        "audio/x-mulaw" | "audio/x-alaw" => Some("identity"),
        _ => None,
    }
}

type Samples = Arc<Mutex<Vec<gst::Sample>>>;

impl Footage {
    pub fn load(path: &Path) -> Result<Self, Error> {
        let pipeline = gst::Pipeline::new();
        let source = gst::ElementFactory::make("filesrc")
            .property("location", path)
            .build()?;
        let parsebin = gst::ElementFactory::make("parsebin").build()?;
        pipeline.add_many([&source, &parsebin])?;
        source.link(&parsebin)?;
        let tracks: Arc<Mutex<Vec<Samples>>> = Arc::default();
        let (weak, found) = (pipeline.downgrade(), tracks.clone());
        parsebin.connect_pad_added(move |_, pad| {
            let Some(pipeline) = weak.upgrade() else {
                return;
            };
            if let Err(error) = collect(&pipeline, pad, &found) {
                gst::element_error!(pipeline, gst::StreamError::Failed, ["{error}"]);
            }
        });
        let played = play_through(&pipeline);
        pipeline.set_state(gst::State::Null)?;
        played.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let samples = std::mem::take(&mut *tracks.lock().unwrap());
        let samples = samples
            .into_iter()
            .map(|track| std::mem::take(&mut *track.lock().unwrap()));
        Self::arrange(samples.filter(|track| !track.is_empty()).collect())
            .ok_or_else(|| format!("{}: no track that can be sent", path.display()).into())
    }

    fn arrange(mut tracks: Vec<Vec<gst::Sample>>) -> Option<Self> {
        // Video first, so that its track number does not depend on the file.
        tracks.sort_by_key(|samples| std::cmp::Reverse(caps_name(&samples[0])));
        let (mut units, mut end) = (Vec::new(), 0);
        for (track, samples) in tracks.iter().enumerate() {
            let first = units.len();
            let mut due = 0;
            for sample in samples {
                let time = sample.buffer().and_then(gst::BufferRef::dts_or_pts);
                due = time.map_or(due, |time| due.max(time.nseconds() as i64));
                units.push(Unit {
                    track,
                    due,
                    sample: sample.clone(),
                });
            }
            let span = due - units[first].due;
            end = end.max(due + span / (samples.len() as i64 - 1).max(1));
        }
        units.sort_by_key(|unit| unit.due);
        let start = units.first()?.due;
        Some(Self {
            tracks: tracks
                .iter()
                .map(|samples| caps_name(&samples[0]))
                .collect(),
            units,
            length: (end - start).max(1_000_000),
        })
    }

    pub fn start(self, hub: Arc<Hub>) -> Result<Projector, Error> {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("camera-footage".into())
            .spawn(move || self.project(&hub, &stopped))?;
        Ok(Projector {
            stop,
            thread: Some(thread),
        })
    }

    fn project(&self, hub: &Hub, stopped: &mpsc::Receiver<()>) {
        let start = Instant::now();
        let Some(base) = self.units.first().map(|unit| unit.due) else {
            return;
        };
        for lap in 0.. {
            let shift = lap * self.length - base;
            for unit in &self.units {
                let due = Duration::from_nanos((unit.due + shift) as u64);
                let wait = due.saturating_sub(start.elapsed());
                if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                if let (Some(caps), Some(buffer)) = (unit.sample.caps(), unit.sample.buffer()) {
                    hub.publish(unit.track, &caps.to_owned(), buffer, shift);
                }
            }
        }
    }
}

impl Drop for Projector {
    fn drop(&mut self) {
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn caps_name(sample: &gst::Sample) -> String {
    let name = sample
        .caps()
        .and_then(|caps| caps.structure(0))
        .map(|s| s.name().to_string());
    name.unwrap_or_default()
}

fn collect(
    pipeline: &gst::Pipeline,
    pad: &gst::Pad,
    tracks: &Mutex<Vec<Samples>>,
) -> Result<(), Error> {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    let form = caps.structure(0).and_then(|caps| form(caps.name(), caps));
    let Some(form) = form else {
        let sink = gst::ElementFactory::make("fakesink")
            .property("async", false)
            .build()?;
        pipeline.add(&sink)?;
        sink.sync_state_with_parent()?;
        pad.link(&sink.static_pad("sink").ok_or("fakesink without a pad")?)?;
        return Ok(());
    };
    let chain = format!("{form} ! appsink name=units sync=false async=false wait-on-eos=false");
    let bin = gst::parse::bin_from_description(&chain, true)?;
    let samples = Samples::default();
    tracks.lock().unwrap().push(samples.clone());
    let sink = bin.by_name("units").and_downcast::<gst_app::AppSink>();
    sink.ok_or("no appsink")?.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                samples.lock().unwrap().push(sample);
                Ok(gst::FlowSuccess::Ok)
            })
            .build(),
    );
    pipeline.add(&bin)?;
    bin.sync_state_with_parent()?;
    pad.link(&bin.static_pad("sink").ok_or("chain without a pad")?)?;
    Ok(())
}

fn play_through(pipeline: &gst::Pipeline) -> Result<(), Error> {
    use gst::MessageView;
    pipeline.set_state(gst::State::Playing)?;
    let bus = pipeline.bus().ok_or("pipeline without a bus")?;
    let last = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(120), &last);
    match message.as_ref().map(|message| message.view()) {
        Some(MessageView::Eos(_)) => Ok(()),
        Some(MessageView::Error(error)) => Err(error.error().to_string().into()),
        _ => Err("it did not end within two minutes".into()),
    }
}
