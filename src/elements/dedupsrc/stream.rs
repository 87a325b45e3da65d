// SPDX-License-Identifier: MPL-2.0
//! What the streaming task does: opens the recording, makes the pads, pushes.

use super::errors;
use super::imp::{DedupSrc, Pending, lock};
use super::timing::Course;
use crate::client::reader::{Delivery, Place, Playback, Reader, Request, TrackStart, Unit};
use crate::client::{self, Error};
use gst::ClockTime;
use gst::prelude::*;
use gst::subclass::prelude::*;
use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

/// Bytes that are held ready.
const WINDOW: usize = 8 << 20;

/// Why the task stops.
pub(super) enum Stop {
    /// Everything was pushed.
    End,
    /// Told to, or by what is downstream.
    Flow(gst::FlowError),
    /// Something is wrong here.
    Error(gst::ErrorMessage),
}

/// A pad and what was sent there last.
struct Track {
    pad: gst::Pad,
    caps: Arc<str>,
    tags: Option<Arc<str>>,
    /// What the segment in force is for; `Some(None)`: for recording times.
    place: Option<Option<Place>>,
    discont: bool,
}

/// State of the streaming task.
pub(super) struct Stream {
    group: gst::GroupId,
    tracks: BTreeMap<u32, Track>,
    flows: gst_base::UniqueFlowCombiner,
    playback: Option<Playback>,
    course: Course,
    seqnum: gst::Seqnum,
    /// Reference of absolute time on buffers.
    unix_time: gst::Caps,
}

impl Stream {
    pub fn new() -> Self {
        Self {
            group: gst::GroupId::next(),
            tracks: BTreeMap::new(),
            flows: gst_base::UniqueFlowCombiner::new(),
            playback: None,
            course: Course {
                start: 0,
                stop: None,
                base: 0,
                rate: 1.0,
                flags: gst::SegmentFlags::empty(),
            },
            seqnum: gst::Seqnum::next(),
            unix_time: gst::Caps::new_empty_simple("timestamp/x-unix"),
        }
    }

    /// One turn of the task.
    pub fn step(&mut self, imp: &DedupSrc) -> Result<(), Stop> {
        let pending = lock(&imp.shared).pending.take();
        if let Some(pending) = pending {
            self.begin(imp, pending)?;
        }
        let Some(playback) = &mut self.playback else {
            return Err(Stop::Flow(gst::FlowError::Flushing));
        };
        let next = async { playback.next().await.transpose() };
        let delivery = imp.canceller.wait(next);
        match delivery.map_err(|error| self.stop(imp, &error))? {
            None => Err(Stop::End),
            Some(Delivery::Started(position, tracks)) => self.started(imp, position, &tracks),
            Some(Delivery::Unit(unit)) => self.unit(imp, unit),
            Some(Delivery::Gap(track, from, length)) => {
                self.gap(track, from, length);
                Ok(())
            }
        }
    }

    fn stop(&self, imp: &DedupSrc, error: &Error) -> Stop {
        match error {
            Error::Cancelled if lock(&imp.shared).eos => Stop::End,
            Error::Cancelled => Stop::Flow(gst::FlowError::Flushing),
            error => Stop::Error(errors::message(error, self.tracks.is_empty())),
        }
    }

    /// Opens the recording, if that was not done, and starts to play from another position.
    fn begin(&mut self, imp: &DedupSrc, pending: Pending) -> Result<(), Stop> {
        self.playback = None;
        let known = lock(&imp.shared).reader.clone();
        let target = imp.target().ok_or(Stop::Flow(gst::FlowError::Flushing))?;
        let reader = match known {
            Some(reader) => reader,
            None => {
                let opened = imp
                    .canceller
                    .wait(Reader::open(&target.url, &target.identity));
                let reader = Arc::new(opened.map_err(|error| self.stop(imp, &error))?);
                lock(&imp.shared).reader = Some(reader.clone());
                // Bins ask again for what they were told is not known.
                let _ = imp.obj().post_message(gst::message::DurationChanged::new());
                reader
            }
        };
        let request = match pending {
            Pending::Window => target.request(&reader.timeline()).map_err(Stop::Error)?,
            Pending::Seek(seek, seqnum) => {
                let flush = seek.flags.contains(gst::SeekFlags::FLUSH);
                let reached = lock(&imp.shared).reached;
                self.course.base = match flush {
                    true => 0,
                    false => self.course.running(reached),
                };
                self.course.rate = seek.rate;
                self.course.flags = seek.segment_flags();
                self.seqnum = seqnum;
                let end = reader.timeline().duration();
                Request {
                    from: if target.follow {
                        seek.start
                    } else {
                        seek.start.min(end)
                    },
                    snap: seek.snap,
                    stop: seek.stop,
                    follow: target.follow,
                }
            }
        };
        self.course.stop = request.stop;
        let runtime = client::runtime().map_err(|error| self.stop(imp, &error))?;
        let discont = matches!(pending, Pending::Seek(..)) || request.from > 0;
        self.tracks.values_mut().for_each(|track| {
            track.place = None;
            track.discont = discont;
        });
        self.flows.reset();
        lock(&imp.shared).discont = discont;
        self.playback = Some(Playback::start(runtime.handle(), reader, request, WINDOW));
        Ok(())
    }

    fn started(
        &mut self,
        imp: &DedupSrc,
        position: u64,
        tracks: &[TrackStart],
    ) -> Result<(), Stop> {
        if tracks.is_empty() {
            let message = gst::error_msg!(
                gst::ResourceError::NotFound,
                ("the recording is empty: nothing has been committed to it yet")
            );
            return Err(Stop::Error(message));
        }
        self.course.start = position;
        {
            let mut shared = lock(&imp.shared);
            shared.position = position;
            shared.reached = position;
            shared.course = Some(self.course);
        }
        let fresh: Vec<_> = tracks
            .iter()
            .filter(|track| !self.tracks.contains_key(&track.id))
            .collect();
        if !fresh.is_empty() {
            self.expose(imp, &fresh)?;
        }
        for start in tracks {
            if let Some(track) = self.tracks.get_mut(&start.id) {
                track.send_caps(&start.caps)?;
                track.send_segment(&self.course, start.place, self.seqnum);
                track.send_tags(start.tags.as_ref());
            }
        }
        Ok(())
    }

    /// Adds pads for tracks.
    fn expose(&mut self, imp: &DedupSrc, tracks: &[&TrackStart]) -> Result<(), Stop> {
        let element = imp.obj();
        let mut made = Vec::with_capacity(tracks.len());
        for start in tracks {
            let caps = caps_of(&start.caps)?;
            let pad = imp.new_pad(start.id);
            let stream_id = pad.create_stream_id(&*element, Some(&format!("{:08x}", start.id)));
            let kind = kind_of(&caps);
            let flags = gst::StreamFlags::empty();
            let stream = gst::Stream::new(Some(&stream_id), Some(&caps), kind, flags);
            made.push((start, pad, stream, caps));
        }
        let streams = made.iter().map(|(_, _, stream, _)| stream.clone());
        let collection = gst::StreamCollection::builder(None)
            .streams(streams)
            .build();
        let message = gst::message::StreamCollection::builder(&collection)
            .src(&*element)
            .build();
        let _ = element.post_message(message);
        for (start, pad, stream, caps) in made {
            // What fails here fails again, and counts, when data follows.
            let _ = pad.set_active(true);
            let id = stream.stream_id().unwrap_or_default();
            let event = gst::event::StreamStart::builder(&id)
                .group_id(self.group)
                .stream(stream)
                .build();
            pad.push_event(event);
            pad.push_event(gst::event::StreamCollection::new(&collection));
            pad.push_event(gst::event::Caps::new(&caps));
            let mut track = Track {
                pad,
                caps: start.caps.clone(),
                tags: None,
                place: None,
                discont: lock(&imp.shared).discont,
            };
            track.send_segment(&self.course, start.place, self.seqnum);
            track.send_tags(start.tags.as_ref());
            self.flows.add_pad(&track.pad);
            let _ = element.add_pad(&track.pad);
            self.tracks.insert(start.id, track);
        }
        element.no_more_pads();
        Ok(())
    }

    fn unit(&mut self, imp: &DedupSrc, unit: Unit) -> Result<(), Stop> {
        if !self.tracks.contains_key(&unit.track) {
            let start = TrackStart {
                id: unit.track,
                caps: unit.caps.clone(),
                tags: unit.tags.clone(),
                place: Some(unit.place),
            };
            self.expose(imp, &[&start])?;
        }
        let Some(track) = self.tracks.get_mut(&unit.track) else {
            return Ok(());
        };
        track.send_caps(&unit.caps)?;
        track.send_segment(&self.course, Some(unit.place), self.seqnum);
        track.send_tags(unit.tags.as_ref());
        note(imp, &unit);
        let buffer = buffer(unit, std::mem::take(&mut track.discont), &self.unix_time)?;
        let flow = track.pad.push(buffer);
        match self.flows.update_pad_flow(&track.pad, flow) {
            Ok(_) => Ok(()),
            Err(gst::FlowError::Eos) => Err(Stop::End),
            Err(flow) => Err(Stop::Flow(flow)),
        }
    }

    /// Tells a pad that nothing comes for a while, so that nobody waits for it.
    fn gap(&mut self, id: u32, from: u64, length: u64) {
        let Some(track) = self.tracks.get_mut(&id) else {
            return;
        };
        let place = track.place.flatten();
        track.send_segment(&self.course, place, self.seqnum);
        let from = i64::try_from(from).unwrap_or(i64::MAX);
        let timestamp = place.map_or(from, |place| place.timestamp(from));
        if let Ok(timestamp) = u64::try_from(timestamp) {
            let event = gst::event::Gap::builder(ClockTime::from_nseconds(timestamp))
                .duration(ClockTime::from_nseconds(length))
                .seqnum(self.seqnum)
                .build();
            track.pad.push_event(event);
        }
    }

    /// The task has stopped: tells those up and down who have to know.
    pub fn end(&mut self, imp: &DedupSrc, stop: Stop) {
        let element = imp.obj();
        let finish = match stop {
            Stop::Flow(gst::FlowError::Flushing) => false,
            Stop::Flow(flow) => {
                gst::element_imp_error!(
                    imp,
                    gst::StreamError::Failed,
                    ("what follows does not take the data: {flow:?}"),
                    ["streaming stopped, reason {flow:?}"]
                );
                true
            }
            Stop::Error(message) => {
                lock(&imp.shared).last_error = Some(message.to_string());
                imp.post_error_message(message);
                true
            }
            Stop::End if self.course.flags.contains(gst::SegmentFlags::SEGMENT) => {
                let end = ClockTime::from_nseconds(lock(&imp.shared).reached);
                let message = gst::message::SegmentDone::builder(end)
                    .src(&*element)
                    .seqnum(self.seqnum)
                    .build();
                let _ = element.post_message(message);
                for track in self.tracks.values() {
                    let event = gst::event::SegmentDone::builder(end).seqnum(self.seqnum);
                    track.pad.push_event(event.build());
                }
                false
            }
            Stop::End => true,
        };
        if finish {
            self.playback = None;
            for track in self.tracks.values() {
                let event = gst::event::Eos::builder().seqnum(self.seqnum).build();
                track.pad.push_event(event);
            }
        }
    }
}

impl Track {
    fn send_caps(&mut self, caps: &Arc<str>) -> Result<(), Stop> {
        if self.caps != *caps {
            self.pad.push_event(gst::event::Caps::new(&caps_of(caps)?));
            self.caps = caps.clone();
        }
        Ok(())
    }

    fn send_segment(&mut self, course: &Course, place: Option<Place>, seqnum: gst::Seqnum) {
        if self.place != Some(place) {
            let segment = course.segment(place.as_ref());
            let event = gst::event::Segment::builder(&segment).seqnum(seqnum);
            self.pad.push_event(event.build());
            self.place = Some(place);
        }
    }

    fn send_tags(&mut self, tags: Option<&Arc<str>>) {
        let Some(text) = tags.filter(|tags| self.tags.as_ref() != Some(tags)) else {
            return;
        };
        self.tags = Some(text.clone());
        // Tags are a courtesy: ones that this version cannot read are left out.
        let tags = gst::glib::Value::deserialize(text, gst::TagList::static_type());
        if let Some(tags) = tags.ok().and_then(|tags| tags.get().ok()) {
            self.pad.push_event(gst::event::Tag::new(tags));
        }
    }
}

/// Only fixed caps say what comes; GStreamer answers others with a critical warning.
fn caps_of(text: &str) -> Result<gst::Caps, Stop> {
    let caps = gst::Caps::from_str(text).ok();
    caps.filter(|caps| caps.is_fixed()).ok_or_else(|| {
        Stop::Error(gst::error_msg!(
            gst::StreamError::Format,
            ("recorded caps cannot be read: {text}")
        ))
    })
}

fn kind_of(caps: &gst::Caps) -> gst::StreamType {
    let name = caps.structure(0).map_or("", |s| s.name().as_str());
    match name.split('/').next() {
        Some("video" | "image") => gst::StreamType::VIDEO,
        Some("audio") => gst::StreamType::AUDIO,
        Some("text" | "subpicture") => gst::StreamType::TEXT,
        _ => gst::StreamType::UNKNOWN,
    }
}

/// Keeps position and numbers.
fn note(imp: &DedupSrc, unit: &Unit) {
    let mut shared = lock(&imp.shared);
    shared.units += 1;
    shared.suspect += u64::from(unit.suspect);
    if let Some(timestamp) = unit.info.pts.or(unit.info.dts) {
        let time = unit.place.recording_time(timestamp);
        let time = u64::try_from(time).unwrap_or(0);
        let end = time.saturating_add(unit.info.duration.unwrap_or(0));
        shared.position = time.max(shared.course.map_or(0, |course| course.start));
        shared.reached = shared.reached.max(end);
    }
}

/// The buffer of a unit, as it was recorded.
fn buffer(unit: Unit, discont: bool, unix_time: &gst::Caps) -> Result<gst::Buffer, Stop> {
    let mut buffer = gst::Buffer::from_mut_slice(unit.data);
    let Some(fields) = buffer.get_mut() else {
        return Err(Stop::Flow(gst::FlowError::Error));
    };
    fields.set_pts(unit.info.pts.map(ClockTime::from_nseconds));
    fields.set_dts(unit.info.dts.map(ClockTime::from_nseconds));
    fields.set_duration(unit.info.duration.map(ClockTime::from_nseconds));
    fields.unset_flags(gst::BufferFlags::all());
    fields.set_flags(gst::BufferFlags::from_bits_truncate(unit.info.flags));
    if discont {
        fields.set_flags(gst::BufferFlags::DISCONT);
    }
    if let Some(utc) = unit.utc.and_then(|utc| u64::try_from(utc).ok()) {
        let utc = ClockTime::from_nseconds(utc);
        gst::ReferenceTimestampMeta::add(fields, unix_time, utc, ClockTime::NONE);
    }
    Ok(buffer)
}
