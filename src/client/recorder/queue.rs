// SPDX-License-Identifier: MPL-2.0
//! Chunks that wait in memory, and what the handle tells the task.

use super::item::{Format, Item, Session};
use super::{DEFAULT_FINISH_TIMEOUT, StreamChunk};
use crate::client::Error;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A batch goes out when it has so many bytes…
const BATCH_BYTES: u64 = 8 << 20;
/// … or its first chunk has waited so long: three requests every two seconds for a live camera.
const BATCH_TIME: Duration = Duration::from_secs(2);
/// The same where nobody waits for it.
const BATCH_TIME_BULK: Duration = Duration::from_secs(10);

/// What the recorder is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Takes chunks.
    Running,
    /// Commits what it has.
    Finishing,
    /// Saves what it can in bounded time.
    Aborting,
    /// Lets go of what is not committed.
    Discarding,
    /// Is over.
    Ended,
}

/// What goes to the task, in order.
pub(super) enum Entry {
    Chunk(Box<Item>),
    EndTrack(u32),
}

pub(super) struct Queue {
    entries: VecDeque<Entry>,
    /// Bytes of `entries`.
    waiting: u64,
    /// Bytes of `entries` and of what the task holds and has not stored.
    held: u64,
    held_chunks: u64,
    max_bytes: u64,
    max_time: u64,
    formats: BTreeMap<u32, Arc<Format>>,
    next_number: u64,
    /// Size and time of the chunk that was refused last.
    refused: Option<(u64, Option<(u64, u64)>)>,
    since: Option<Instant>,
    hurry: bool,
    wake: bool,
    pub live: bool,
    pub phase: Phase,
    pub finish_timeout: Duration,
    pub result: Option<Result<(), Error>>,
}

impl Queue {
    pub fn new(max_bytes: u64, max_time: u64) -> Self {
        Self {
            entries: VecDeque::new(),
            waiting: 0,
            held: 0,
            held_chunks: 0,
            max_bytes: max_bytes.max(1),
            max_time,
            formats: BTreeMap::new(),
            next_number: 0,
            refused: None,
            since: None,
            hurry: false,
            wake: false,
            live: true,
            phase: Phase::Running,
            finish_timeout: DEFAULT_FINISH_TIMEOUT,
            result: None,
        }
    }

    /// Takes a chunk and says how many stored pieces and bytes it is; gives it back if there is
    /// no room, and nothing if the recorder has ended.
    pub fn push(
        &mut self,
        chunk: StreamChunk,
        session: Session,
    ) -> Result<(u64, u64), Option<Box<StreamChunk>>> {
        if self.phase != Phase::Running {
            return Err(None);
        }
        let bytes = (chunk.content.len() + chunk.envelope.len()) as u64;
        if !self.fits(bytes, chunk.running) {
            self.refused = Some((bytes, chunk.running));
            return Err(Some(Box::new(chunk)));
        }
        self.refused = None;
        let format = self.format(&chunk);
        let number = self.next_number;
        self.next_number += 1;
        let mut item = Item::new(chunk, session, number, format, unix_nanos());
        let pieces = item.jobs().count() as u64;
        let below = self.waiting < self.batch_bytes();
        self.wake |=
            self.entries.is_empty() || (below && self.waiting + bytes >= self.batch_bytes());
        self.since.get_or_insert_with(Instant::now);
        self.waiting += bytes;
        self.held += bytes;
        self.held_chunks += u64::from(bytes > 0);
        self.entries.push_back(Entry::Chunk(Box::new(item)));
        Ok((pieces, bytes))
    }

    fn fits(&self, bytes: u64, running: Option<(u64, u64)>) -> bool {
        let fits = self.held == 0 || self.held.saturating_add(bytes) <= self.max_bytes;
        fits && self.in_time(running)
    }

    fn in_time(&self, running: Option<(u64, u64)>) -> bool {
        let first = self.entries.iter().find_map(|entry| match entry {
            Entry::Chunk(item) => item.running,
            Entry::EndTrack(_) => None,
        });
        match (first, running) {
            (Some((start, _)), Some((_, end))) if self.max_time > 0 => {
                end.saturating_sub(start) <= self.max_time
            }
            _ => true,
        }
    }

    fn format(&mut self, chunk: &StreamChunk) -> Arc<Format> {
        let known = self.formats.entry(chunk.track).or_default();
        if chunk.caps.is_some() || chunk.time.is_some() {
            let changed = Format {
                caps: chunk.caps.clone().unwrap_or_else(|| known.caps.clone()),
                time: chunk.time.unwrap_or(known.time),
            };
            if **known != changed {
                *known = Arc::new(changed);
            }
        }
        known.clone()
    }

    pub fn end_track(&mut self, track: u32) {
        self.entries.push_back(Entry::EndTrack(track));
        self.since.get_or_insert_with(Instant::now);
    }

    /// Whether the task has to be woken for what was pushed.
    pub fn take_wake(&mut self) -> bool {
        std::mem::take(&mut self.wake)
    }

    /// Whether the chunk that was refused last would be taken now.
    pub fn has_room(&self) -> bool {
        let (bytes, running) = self.refused.unwrap_or_default();
        self.fits(bytes, running)
    }

    /// Batches need not fill up; whether that is news.
    pub fn hurry(&mut self) -> bool {
        !std::mem::replace(&mut self.hurry, true)
    }

    pub fn end(&mut self, phase: Phase) {
        if self.phase != Phase::Ended {
            self.phase = phase;
        }
    }

    fn batch_bytes(&self) -> u64 {
        BATCH_BYTES.min(self.max_bytes / 4)
    }

    /// When the next batch is due; `None` while nothing waits.
    pub fn due(&self) -> Option<Instant> {
        let since = self.since?;
        if self.hurry || self.phase != Phase::Running || self.waiting >= self.batch_bytes() {
            return Some(since);
        }
        let time = if self.live {
            BATCH_TIME
        } else {
            BATCH_TIME_BULK
        };
        let most = Duration::from_nanos(match self.max_time {
            0 => u64::MAX,
            time => time / 4,
        });
        Some(since + time.min(most))
    }

    /// The next batch.
    pub fn take_batch(&mut self) -> Vec<Entry> {
        let most = self.batch_bytes();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < most
            && let Some(entry) = self.entries.pop_front()
        {
            if let Entry::Chunk(item) = &entry {
                bytes += item.bytes();
            }
            batch.push(entry);
        }
        self.waiting = self.waiting.saturating_sub(bytes);
        if self.entries.is_empty() {
            (self.since, self.hurry) = (None, false);
        } else {
            self.since = Some(Instant::now());
        }
        batch
    }

    /// Everything that waits.
    pub fn take_all(&mut self) -> Vec<Entry> {
        (self.waiting, self.since, self.hurry) = (0, None, false);
        self.entries.drain(..).collect()
    }

    /// Puts items back in front.
    pub fn put_back(&mut self, items: Vec<Item>) {
        for item in items.into_iter().rev() {
            self.waiting += item.bytes();
            self.entries.push_front(Entry::Chunk(Box::new(item)));
        }
        if !self.entries.is_empty() {
            self.since.get_or_insert_with(Instant::now);
        }
    }

    /// Items that were taken are stored, or on disk, or lost.
    pub fn release(&mut self, chunks: u64, bytes: u64) {
        self.held = self.held.saturating_sub(bytes);
        self.held_chunks = self.held_chunks.saturating_sub(chunks);
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether more than half of the room is taken.
    pub fn half_full(&self) -> bool {
        self.held > self.max_bytes / 2
    }

    /// The error for what is still held.
    pub fn not_stored(&self, reason: String) -> Error {
        Error::NotStored {
            chunks: self.held_chunks,
            bytes: self.held,
            reason,
        }
    }
}

fn unix_nanos() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |t| i64::try_from(t.as_nanos()).unwrap_or(i64::MAX))
}
