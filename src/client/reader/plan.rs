// SPDX-License-Identifier: MPL-2.0
//! What one segment holds of one track, unit by unit, before any of it is fetched.

use super::fetch::damaged;
use super::layout::{Fault, Layout};
use crate::client::Error;
use crate::manifest::{Manifest, TimeSegment, Track, UnitInfo};
use std::ops::Range;
use std::sync::Arc;

/// `GST_BUFFER_FLAG_DELTA_UNIT`: the unit needs earlier ones.
const DELTA_UNIT: u32 = 1 << 13;

/// What a unit's timestamps mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Run of the recorder.
    pub session: [u8; 8],
    /// See [`Manifest::origin_running`].
    pub origin_running: u64,
    /// See [`Manifest::origin`].
    pub origin: u64,
    /// The recorded time segment.
    pub time: TimeSegment,
}

impl Place {
    /// Recording time of timestamp 0.
    fn offset(&self) -> i128 {
        i128::from(self.time.base) - i128::from(self.time.start) - i128::from(self.origin_running)
            + i128::from(self.origin)
    }

    /// Recording time of a timestamp, ns; negative before the recording's start.
    pub fn recording_time(&self, timestamp: u64) -> i64 {
        clamp(i128::from(timestamp) + self.offset())
    }

    /// The timestamp that a recording time has here; negative if it has none.
    pub fn timestamp(&self, time: i64) -> i64 {
        clamp(i128::from(time) - self.offset())
    }
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// One access unit, as it was recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// Segment in which it begins.
    pub seq: u64,
    /// Number of the track.
    pub track: u32,
    /// Times, flags.
    pub info: UnitInfo,
    /// Its bytes.
    pub data: Vec<u8>,
    /// Playback can begin here.
    pub gop_start: bool,
    /// Packets were lost in its group of pictures.
    pub suspect: bool,
    /// Caps, in GStreamer's text form.
    pub caps: Arc<str>,
    /// Tags of the track in this segment, in GStreamer's text form.
    pub tags: Option<Arc<str>>,
    /// What its timestamps mean.
    pub place: Place,
    /// Unix time, ns, if known.
    pub utc: Option<i64>,
}

/// One track of a segment.
pub(super) struct TrackPlan {
    /// Place in the manifest.
    pub index: usize,
    /// Number in the recording.
    pub id: u32,
    pub layout: Layout,
    pub infos: Vec<UnitInfo>,
    /// Order of the units among those of all tracks: recording time by decoding time, which
    /// never goes back.
    pub keys: Vec<i64>,
    /// Some units need earlier ones.
    pub has_delta: bool,
    /// The units that are wanted.
    pub wanted: Range<usize>,
    seq: u64,
    manifest: Arc<Manifest>,
    caps: Vec<(usize, Arc<str>)>,
    tags: Option<Arc<str>>,
}

impl TrackPlan {
    /// Plans for all units of a track.
    pub fn new(seq: u64, manifest: &Arc<Manifest>, index: usize) -> Result<Self, Error> {
        let fault = |Fault { chunk, reason }| damaged(seq, chunk, &reason);
        let no_track = || damaged(seq, 0, "the manifest lacks its track");
        let track = manifest.tracks.get(index).ok_or_else(no_track)?;
        let starts = |first: Option<u32>| first == Some(0) || track.units.is_empty();
        if !starts(track.caps.first().map(|c| c.0)) || !starts(track.times.first().map(|t| t.0)) {
            return Err(damaged(
                seq,
                0,
                "its first unit has no caps or no time segment",
            ));
        }
        let infos: Vec<UnitInfo> = track.units.iter().collect();
        let mut plan = Self {
            index,
            id: track.id,
            layout: Layout::of(track).map_err(fault)?,
            keys: Vec::with_capacity(infos.len()),
            has_delta: infos.iter().any(|info| info.flags & DELTA_UNIT != 0),
            wanted: 0..infos.len(),
            seq,
            manifest: manifest.clone(),
            caps: track
                .caps
                .iter()
                .map(|(unit, caps)| (*unit as usize, caps.as_str().into()))
                .collect(),
            tags: track.tags.as_deref().map(Into::into),
            infos,
        };
        let mut key = i64::MIN;
        for unit in 0..plan.infos.len() {
            let info = &plan.infos[unit];
            if let Some(timestamp) = info.dts.or(info.pts) {
                key = key.max(plan.place(unit).recording_time(timestamp));
            }
            plan.keys.push(key);
        }
        Ok(plan)
    }

    pub fn track(&self) -> &Track {
        // Checked in `new`.
        &self.manifest.tracks[self.index]
    }

    /// Chunk in which a unit begins.
    fn chunk_of(&self, unit: usize) -> usize {
        self.layout.chunks_of(unit).start
    }

    /// The chunks without which a unit cannot be put together: all from the one it begins in to
    /// the one in which the last unit that begins there too ends.
    pub fn needed_for(&self, unit: usize) -> Range<usize> {
        let first = self.chunk_of(unit);
        let last = self.layout.units_of(first).end.saturating_sub(1);
        first..self.layout.chunks_of(last).end
    }

    pub fn gop_start(&self, unit: usize) -> bool {
        let chunk = self.chunk_of(unit);
        let marked = self.track().chunks.get(chunk).is_some_and(|c| c.gop_start);
        marked && self.layout.units_of(chunk).start == unit
    }

    /// Whether decoding can begin with a unit.
    pub fn entry(&self, unit: usize) -> bool {
        !self.has_delta || self.gop_start(unit)
    }

    /// Recording time at which a unit is shown, as far as known.
    pub fn shown(&self, unit: usize) -> Option<i64> {
        let timestamp = self.infos.get(unit)?.pts;
        match timestamp {
            Some(timestamp) => Some(self.place(unit).recording_time(timestamp)),
            None => self.keys.get(unit).copied(),
        }
    }

    /// The last unit from which decoding can begin so that `time` is shown.
    pub fn entry_before(&self, time: i64) -> Option<usize> {
        let fits = |unit: &usize| self.entry(*unit) && self.shown(*unit).is_some_and(|t| t <= time);
        (0..self.infos.len()).rev().find(fits)
    }

    /// The first unit at or after `time` from which decoding can begin.
    pub fn entry_after(&self, time: i64) -> Option<usize> {
        let fits = |unit: &usize| self.entry(*unit) && self.shown(*unit).is_some_and(|t| t >= time);
        (0..self.infos.len()).find(fits)
    }

    /// Leaves out what is only shown from `stop` on and that nothing before it needs.
    pub fn stop_at(&mut self, stop: i64) {
        let before = |unit: &usize| self.shown(*unit).is_some_and(|t| t < stop);
        let end = self.wanted.clone().rev().find(before).map_or(0, |u| u + 1);
        self.wanted = self.wanted.start.min(end)..end;
    }

    /// What a unit's timestamps mean.
    pub fn place(&self, unit: usize) -> Place {
        let times = &self.track().times;
        let found = times.iter().rfind(|(first, _)| *first as usize <= unit);
        let whole = TimeSegment {
            start: 0,
            stop: None,
            time: 0,
            base: 0,
        };
        Place {
            session: *self.manifest.session,
            origin_running: self.manifest.origin_running,
            origin: self.manifest.origin,
            time: found.or(times.first()).map_or(whole, |(_, time)| *time),
        }
    }

    /// Caps of a unit.
    pub fn caps(&self, unit: usize) -> Arc<str> {
        let found = self.caps.iter().rfind(|(first, _)| *first <= unit);
        found.map_or_else(|| "".into(), |(_, caps)| caps.clone())
    }

    /// Tags of the track.
    pub fn tags(&self) -> Option<Arc<str>> {
        self.tags.clone()
    }

    /// Unix time of a running time: the last point of the clock before it, or else the first,
    /// and from there on evenly.
    fn utc(&self, running: i64) -> Option<i64> {
        let clock = &self.track().clock;
        let before = |(at, _): &&(u64, i64)| i128::from(*at) <= i128::from(running);
        let (at, utc) = clock.iter().rfind(before).or(clock.first())?;
        i64::try_from(i128::from(*utc) + i128::from(running) - i128::from(*at)).ok()
    }

    /// A unit with its bytes.
    pub fn unit(&self, unit: usize, data: Vec<u8>) -> Unit {
        let place = self.place(unit);
        let info = self.infos.get(unit).copied().unwrap_or_default();
        let running = info.pts.or(info.dts).map(|timestamp| {
            let base = i128::from(place.time.base) - i128::from(place.time.start);
            clamp(i128::from(timestamp) + base)
        });
        let chunk = self.track().chunks.get(self.chunk_of(unit));
        Unit {
            seq: self.seq,
            track: self.id,
            info,
            data,
            gop_start: self.gop_start(unit),
            suspect: chunk.is_some_and(|chunk| chunk.suspect),
            caps: self.caps(unit),
            tags: self.tags(),
            place,
            utc: running.and_then(|running| self.utc(running)),
        }
    }
}

/// The wanted units of all tracks as (plan, unit) in the order of time.
pub(super) fn interleave(plans: &[TrackPlan]) -> Vec<(usize, usize)> {
    let of =
        |(index, plan): (usize, &TrackPlan)| plan.wanted.clone().map(move |unit| (index, unit));
    let mut order: Vec<_> = plans.iter().enumerate().flat_map(of).collect();
    order.sort_by_key(|(plan, unit)| plans[*plan].keys[*unit]);
    order
}

/// The chunks that hold these units as (plan, chunk), in the order in which they are needed.
pub(super) fn chunks_for(plans: &[TrackPlan], order: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let mut next = vec![0; plans.len()];
    let mut chunks = Vec::new();
    for (plan, unit) in order {
        let needed = plans[*plan].needed_for(*unit);
        chunks.extend((needed.start.max(next[*plan])..needed.end).map(|chunk| (*plan, chunk)));
        next[*plan] = next[*plan].max(needed.end);
    }
    chunks
}
