// SPDX-License-Identifier: MPL-2.0
//! Recorded timestamps, recording time and the running time of playback.
//!
//! Buffers keep their recorded timestamps; the segment in front of them says what these mean:
//! its stream time is recording time, and
//! running time = (recording time - start) / rate + base.

use crate::client::reader::{Place, Snap};
use gst::ClockTime;

/// From where on something is played.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    /// Recording time of the start, ns.
    pub start: u64,
    /// Recording time of the end, ns.
    pub stop: Option<u64>,
    /// Running time of the start, ns.
    pub base: u64,
    /// Above 0.
    pub rate: f64,
    pub flags: gst::SegmentFlags,
}

impl Course {
    /// Running time of a recording time.
    pub fn running(&self, time: u64) -> u64 {
        let passed = time.saturating_sub(self.start);
        let passed = match self.rate == 1.0 {
            true => passed,
            false => (passed as f64 / self.rate) as u64,
        };
        self.base.saturating_add(passed)
    }

    /// The segment of a place. Without one timestamps are recording times.
    pub fn segment(&self, place: Option<&Place>) -> gst::FormattedSegment<ClockTime> {
        let (start, time, stop) = match place {
            None => (self.start, self.start, self.stop),
            Some(place) => {
                // Not before the recorder's run, where other timestamps hold.
                let from = signed(self.start.max(place.origin));
                let start = place.timestamp(from).max(signed(place.time.start)).max(0);
                let timestamp = |stop| u64::try_from(place.timestamp(signed(stop))).ok();
                let stops = [self.stop.and_then(timestamp), place.time.stop];
                let start = start.cast_unsigned();
                let time = u64::try_from(place.recording_time(start)).unwrap_or(0);
                let stop = stops.into_iter().flatten().min();
                (start, time, stop.map(|stop| stop.max(start)))
            }
        };
        let mut segment = gst::FormattedSegment::<ClockTime>::new();
        segment.set_flags(self.flags);
        segment.set_rate(self.rate);
        segment.set_start(ClockTime::from_nseconds(start));
        segment.set_stop(stop.map(ClockTime::from_nseconds));
        segment.set_time(ClockTime::from_nseconds(time));
        segment.set_base(ClockTime::from_nseconds(self.running(time)));
        segment.set_position(ClockTime::from_nseconds(start));
        segment
    }
}

fn signed(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}

/// What a seek event asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seek {
    pub rate: f64,
    pub flags: gst::SeekFlags,
    pub start: u64,
    pub stop: Option<u64>,
    pub snap: Snap,
}

impl Seek {
    /// Reads an event; none for what cannot be done. `position` and `stop` are what is played
    /// now.
    pub fn read(
        event: &gst::event::Seek,
        position: u64,
        stop: Option<u64>,
        duration: u64,
    ) -> Option<Self> {
        let (rate, flags, start_type, start, stop_type, end) = event.get();
        let impossible = flags.contains(gst::SeekFlags::INSTANT_RATE_CHANGE);
        if rate.is_nan() || rate <= 0.0 || impossible {
            return None;
        }
        let start = value(start_type, start, duration)?.unwrap_or(position);
        let stop = match stop_type {
            gst::SeekType::None => stop,
            _ => value(stop_type, end, duration)?,
        };
        if stop.is_some_and(|stop| stop <= start) {
            return None;
        }
        let [before, after] = [gst::SeekFlags::SNAP_BEFORE, gst::SeekFlags::SNAP_AFTER];
        let snap = match (flags.contains(before), flags.contains(after)) {
            _ if !flags.contains(gst::SeekFlags::KEY_UNIT) => Snap::Accurate,
            _ if flags.contains(gst::SeekFlags::ACCURATE) => Snap::Accurate,
            (true, true) => Snap::Nearest,
            (false, true) => Snap::After,
            _ => Snap::Before,
        };
        Some(Self {
            rate,
            flags,
            start,
            stop,
            snap,
        })
    }

    /// Flags of the segments that follow.
    pub fn segment_flags(&self) -> gst::SegmentFlags {
        [
            (gst::SeekFlags::FLUSH, gst::SegmentFlags::RESET),
            (gst::SeekFlags::SEGMENT, gst::SegmentFlags::SEGMENT),
            (gst::SeekFlags::TRICKMODE, gst::SegmentFlags::TRICKMODE),
        ]
        .into_iter()
        .filter(|(asked, _)| self.flags.contains(*asked))
        .fold(gst::SegmentFlags::empty(), |all, (_, flag)| all | flag)
    }
}

/// A position in an event: `Some(None)` if it leaves it open, none if it is not a time.
fn value(
    kind: gst::SeekType,
    value: gst::GenericFormattedValue,
    duration: u64,
) -> Option<Option<u64>> {
    let gst::GenericFormattedValue::Time(time) = value else {
        return None;
    };
    let time = time.map(|time| time.nseconds());
    Some(match kind {
        gst::SeekType::Set => time,
        // Counted from the end, so mostly negative; -1 reads as none.
        gst::SeekType::End => {
            let from_end = time.map_or(-1, u64::cast_signed);
            Some(duration.saturating_add_signed(from_end))
        }
        _ => None,
    })
}
