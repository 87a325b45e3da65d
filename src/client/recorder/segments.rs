// SPDX-License-Identifier: MPL-2.0
//! Sorts stored chunks into segments.
//!
//! The first video track is the reference, else the first track. A segment ends before a chunk of
//! the reference at which playback can begin, once the segment is long enough. Chunks of other
//! tracks belong where their time says; the segment is complete when every track has passed the
//! cut or ended, or after [`PATIENCE`]. A track is only cut where a unit ends.

use super::item::{Item, Session};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// How long a cut segment waits for tracks that are behind. Later chunks go into the next one.
const PATIENCE: Duration = Duration::from_secs(5);
/// A segment is also cut where playback cannot begin (an intra-refresh stream, plain bytes) when
/// it has this many times its length, or so many chunks.
const OVERDUE: u64 = 2;
const MAX_CHUNKS: usize = 8192;

/// A complete segment.
pub(crate) struct Segment {
    pub session: Session,
    /// Running time of its start, ns.
    pub start: u64,
    /// In order of arrival.
    pub items: Vec<Item>,
}

/// Segments that still grow.
pub(crate) struct Segmenter {
    duration: u64,
    session: Option<Session>,
    tracks: BTreeMap<u32, Track>,
    open: VecDeque<Open>,
    /// Number of `open[0]` in the session.
    first: usize,
}

struct Track {
    video: bool,
    /// Number of the segment of its last chunk.
    segment: usize,
    /// Running time of the end of its last chunk.
    end: u64,
    /// Bytes that its last unit still lacks.
    balance: i64,
    ended: bool,
}

struct Open {
    start: u64,
    cut: Option<(u64, Instant)>,
    items: Vec<Item>,
}

impl Segmenter {
    pub fn new(duration: u64) -> Self {
        Self {
            duration: duration.max(1),
            session: None,
            tracks: BTreeMap::new(),
            open: VecDeque::new(),
            first: 0,
        }
    }

    /// Takes the next chunk. Returns segments that are complete because another session begins.
    pub fn push(&mut self, item: Item, now: Instant) -> Vec<Segment> {
        let done = match self.session {
            Some(session) if session != item.session => self.flush(),
            _ => Vec::new(),
        };
        self.session = Some(item.session);
        let video = ["video/", "image/"]
            .iter()
            .any(|kind| item.format.caps.starts_with(kind));
        let (first, track) = (self.first, item.track);
        let state = self.tracks.entry(track).or_insert(Track {
            video,
            segment: first,
            end: 0,
            balance: 0,
            ended: false,
        });
        state.video = video;
        state.ended = false;
        let aligned = state.balance == 0;
        let start = item.running.map_or(state.end, |(start, _)| start);
        state.end = item.running.map_or(state.end, |(_, end)| end).max(start);
        state.balance = state.balance.saturating_add(item.balance());
        if item.prev_suspect {
            self.suspect_previous(track, item.gop_start);
        }
        let is_reference = self.reference() == Some(track);
        if self.open.is_empty() {
            self.open.push_back(Open {
                start,
                cut: None,
                items: Vec::new(),
            });
        }
        if is_reference && aligned {
            self.cut_before(&item, start, now);
        }
        let last = self.open.len() - 1;
        let Some(state) = self.tracks.get_mut(&track) else {
            return done;
        };
        let mut at = state.segment.saturating_sub(self.first).min(last);
        if aligned && is_reference {
            at = last;
        } else if aligned {
            while at < last && self.open[at].cut.is_some_and(|(cut, _)| start >= cut) {
                at += 1;
            }
        }
        state.segment = self.first + at;
        self.open[at].items.push(item);
        done
    }

    fn reference(&self) -> Option<u32> {
        let video = self.tracks.iter().find(|(_, t)| t.video && !t.ended);
        let any = || self.tracks.iter().find(|(_, t)| !t.ended);
        video.or_else(any).map(|(id, _)| *id)
    }

    fn cut_before(&mut self, item: &Item, start: u64, now: Instant) {
        let Some(last) = self.open.back_mut().filter(|o| !o.items.is_empty()) else {
            return;
        };
        let length = start.saturating_sub(last.start);
        let overdue =
            length >= self.duration.saturating_mul(OVERDUE) || last.items.len() >= MAX_CHUNKS;
        if (item.gop_start && length >= self.duration) || (overdue && !item.units.is_empty()) {
            last.cut = Some((start, now));
            self.open.push_back(Open {
                start,
                cut: None,
                items: Vec::new(),
            });
        }
    }

    /// Marks the group of pictures before the one that the next chunk belongs to.
    fn suspect_previous(&mut self, track: u32, mut at_start: bool) {
        let items = self.open.iter_mut().rev();
        let items = items.flat_map(|open| open.items.iter_mut().rev());
        for item in items.filter(|item| item.track == track) {
            if at_start {
                item.suspect = true;
                if item.gop_start {
                    return;
                }
            } else {
                at_start = item.gop_start;
            }
        }
    }

    /// No more chunks of this track for now.
    pub fn end_track(&mut self, track: u32) {
        if let Some(state) = self.tracks.get_mut(&track) {
            state.ended = true;
        }
    }

    /// The next complete segment.
    pub fn pop(&mut self, now: Instant) -> Option<Segment> {
        let (cut, since) = self.open.front()?.cut?;
        let passed = |track: &Track| track.ended || track.segment > self.first || track.end >= cut;
        if !self.tracks.values().all(passed) && now < since + PATIENCE {
            return None;
        }
        self.take()
    }

    /// Everything, complete or not.
    pub fn flush(&mut self) -> Vec<Segment> {
        let all = std::iter::from_fn(|| self.take()).collect();
        self.tracks.clear();
        self.session = None;
        self.first = 0;
        all
    }

    fn take(&mut self) -> Option<Segment> {
        let open = self.open.pop_front()?;
        self.first += 1;
        let segment = Segment {
            session: self.session?,
            start: open.start,
            items: open.items,
        };
        match segment.items.is_empty() {
            true => self.take(),
            false => Some(segment),
        }
    }

    /// When [`Segmenter::pop`] may have something though nothing arrives.
    pub fn deadline(&self) -> Option<Instant> {
        let (_, since) = self.open.front()?.cut?;
        Some(since + PATIENCE)
    }

    /// What is in segments that still grow.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.open.iter().flat_map(|open| &open.items)
    }

    /// Whether any of that is not in the spool.
    pub fn has_loose(&self) -> bool {
        self.items().any(|item| item.spooled.is_none())
    }

    /// Whether nothing is here.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}
