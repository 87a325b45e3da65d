// SPDX-License-Identifier: MPL-2.0
//! Where the camera's stream meets its viewers.
//!
//! The stream goes on whether somebody watches or not. The server makes a media for every client
//! (one media for TCP and UDP together makes GStreamer 1.22 warn of misordered events) and drops
//! it with its client; the hub feeds whichever exist.

use std::sync::{Arc, Mutex};

use gst::prelude::*;
use gst_rtsp_server::prelude::*;

use super::ParameterSets;
use super::nal::{self, NalFormat};

pub struct Hub {
    parameter_sets: ParameterSets,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    outlets: Vec<Outlet>,
    /// Stream time in ns of the last parameter sets sent.
    sets_sent: Option<i64>,
}

struct Outlet {
    media: gst::glib::WeakRef<gst_rtsp_server::RTSPMedia>,
    sources: Vec<gst_app::AppSrc>,
    /// From stream time to the media's running time, in ns.
    offset: Option<i64>,
}

impl Outlet {
    fn send(
        &mut self,
        track: usize,
        caps: &gst::Caps,
        mut buffer: gst::Buffer,
        shift: i64,
        stream_time: i64,
    ) {
        let Some(source) = self.sources.get(track) else {
            return;
        };
        if self.offset.is_none() {
            // Until it plays it misses what comes, like any camera's viewer. Its running time alone
            // does not tell: an element has its clock a moment before its base time.
            let playing = source.current_state() == gst::State::Playing;
            let Some(now) = source.current_running_time().filter(|_| playing) else {
                return;
            };
            self.offset = Some(now.nseconds() as i64 - stream_time);
        }
        let shift = shift + self.offset.unwrap_or_default();
        let moved = |time: gst::ClockTime| {
            gst::ClockTime::from_nseconds((time.nseconds() as i64 + shift).max(0) as u64)
        };
        let timed = buffer.make_mut();
        timed.set_pts(timed.pts().map(moved));
        timed.set_dts(timed.dts().map(moved));
        let sample = gst::Sample::builder().buffer(&buffer).caps(caps).build();
        // Flushing is the only refusal: the client has left.
        let _ = source.push_sample(&sample);
    }
}

impl Hub {
    pub fn new(parameter_sets: ParameterSets) -> Arc<Self> {
        Arc::new(Self {
            parameter_sets,
            state: Mutex::default(),
        })
    }

    /// From now on the stream goes to `media`, whose appsrcs are named `source0`, `source1`, ….
    pub fn attach(self: &Arc<Self>, media: &gst_rtsp_server::RTSPMedia) {
        let Ok(bin) = media.element().downcast::<gst::Bin>() else {
            return;
        };
        let sources = (0..)
            .map_while(|track| bin.by_name(&format!("source{track}")))
            .filter_map(|source| source.downcast().ok())
            .collect();
        self.state.lock().unwrap().outlets.push(Outlet {
            media: media.downgrade(),
            sources,
            offset: None,
        });
        let hub = Arc::downgrade(self);
        media.connect_unprepared(move |media| {
            let Some(hub) = hub.upgrade() else { return };
            let theirs = |outlet: &Outlet| outlet.media.upgrade().as_ref() != Some(media);
            hub.state.lock().unwrap().outlets.retain(theirs);
        });
    }

    pub fn detach(&self) {
        self.state.lock().unwrap().outlets.clear();
    }

    /// Sends one access unit. `shift` (ns) takes its timestamps to stream time.
    pub fn publish(&self, track: usize, caps: &gst::Caps, buffer: &gst::BufferRef, shift: i64) {
        let Some(time) = buffer.dts_or_pts() else {
            return;
        };
        let stream_time = time.nseconds() as i64 + shift;
        let mut state = self.state.lock().unwrap();
        let buffer = match NalFormat::from_caps(caps) {
            Some(format) => self.place_sets(&mut state, &format, buffer, stream_time),
            None => buffer.to_owned(),
        };
        for outlet in &mut state.outlets {
            outlet.send(track, caps, buffer.clone(), shift, stream_time);
        }
    }

    fn place_sets(
        &self,
        state: &mut State,
        format: &NalFormat,
        buffer: &gst::BufferRef,
        now: i64,
    ) -> gst::Buffer {
        let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let due = key
            && match self.parameter_sets {
                ParameterSets::EveryGop => true,
                ParameterSets::SdpOnly => false,
                ParameterSets::Every(interval) => state
                    .sets_sent
                    .is_none_or(|sent| now - sent >= interval.as_nanos() as i64),
            };
        if due {
            state.sets_sent = Some(now);
        }
        let Ok(map) = buffer.map_readable() else {
            return buffer.to_owned();
        };
        let mut placed = gst::Buffer::from_mut_slice(nal::place_sets(format, &map, due));
        let flags = gst::BufferCopyFlags::FLAGS | gst::BufferCopyFlags::TIMESTAMPS;
        // Copying metadata onto a buffer that nobody else holds cannot fail.
        let _ = buffer.copy_into(placed.make_mut(), flags, ..);
        placed
    }
}
