// SPDX-License-Identifier: MPL-2.0
//! The recorder's task. It alone owns the chunks that are under way, so nothing here is locked.
//!
//! ```text
//! queue ──batches──▶ window (stored, up to 3 at once) ──in order──▶ segmenter ──▶ ready ──▶ vault
//!   └─▶ spool ──────▶ ┘
//! ```
//!
//! While the spool has anything unread, the queue only feeds the spool. *Parking* takes
//! everything that is not committed out of window, segmenter and `ready` and writes it to the
//! spool, from where it starts again; chunks that came from there are just read again.

mod park;
mod requests;

use super::commit::{Committer, Sealed};
use super::item::Item;
use super::link::Link;
use super::queue::{Entry, Phase};
use super::segments::{Segment, Segmenter};
use super::{ABORT_TIME, Event, SegmentReport, Shared};
use crate::client::spool::{Place, Spool};
use crate::client::uploader::Uploader;
use crate::client::{Error, Vault};
use crate::identity::RecordingId;
use park::PARK_AFTER;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::{JoinSet, block_in_place};

/// Batches under way at once.
const WINDOW: usize = 3;

pub(super) struct Worker {
    shared: Arc<Shared>,
    vault: Vault,
    uploader: Arc<Uploader>,
    /// Not here while it is at work.
    committer: Option<Box<Committer>>,
    spool: Option<Spool>,
    window: VecDeque<Slot>,
    next_slot: u64,
    segmenter: Segmenter,
    ready: VecDeque<Box<Ready>>,
    tasks: JoinSet<Done>,
    stop: watch::Sender<bool>,
    link: Link,
    /// The spool's journal may name a commit whose fate is unknown.
    ask_pending: bool,
    /// A number was taken, perhaps by our own commit: nothing goes on before the spool knows.
    disputed: bool,
    spool_full: Option<Instant>,
    ending: Option<Instant>,
    failed: Option<Error>,
}

/// A batch.
struct Slot {
    number: u64,
    items: Vec<Item>,
    under_way: bool,
    ended_tracks: Vec<u32>,
}

/// A complete segment on its way.
struct Ready {
    segment: Segment,
    sealed: Option<Box<Sealed>>,
    /// It was sent, perhaps without an answer.
    sent: bool,
    renumbered: u32,
}

/// What a task did.
enum Done {
    Hello(Box<Committer>, Result<(), Error>),
    Pending(Box<Committer>, Result<bool, Error>),
    Stored(u64, Vec<Item>, Result<(), Error>),
    Sealed(Box<Committer>, Box<Ready>, Result<Box<Sealed>, Error>),
    Sent(
        Box<Committer>,
        Box<Ready>,
        Result<Option<SegmentReport>, Error>,
    ),
}

impl Worker {
    pub fn new(shared: Arc<Shared>, vault: Vault, id: RecordingId, spool: Option<Spool>) -> Self {
        let config = &shared.config;
        let name = config.url.name.clone();
        Self {
            uploader: Arc::new(Uploader::new(
                vault.clone(),
                config.verify,
                shared.stats.clone(),
            )),
            committer: Some(Box::new(Committer::new(vault.clone(), id, name))),
            segmenter: Segmenter::new(config.segment_duration),
            vault,
            spool,
            window: VecDeque::new(),
            next_slot: 0,
            ready: VecDeque::new(),
            tasks: JoinSet::new(),
            stop: watch::Sender::new(false),
            link: Link::default(),
            ask_pending: true,
            disputed: false,
            spool_full: None,
            ending: None,
            failed: None,
            shared,
        }
    }

    /// Works until the recorder ends. The first answer of the vault goes to `first`.
    pub async fn run(mut self, first: SyncSender<Result<(), Error>>) {
        self.hello();
        let mut first = Some(first);
        let result = loop {
            self.step().await;
            if let Some(result) = self.ended().await {
                break result;
            }
            let wait = self
                .next_deadline()
                .saturating_duration_since(Instant::now());
            let done = tokio::select! {
                done = self.tasks.join_next(), if !self.tasks.is_empty() => done,
                () = self.shared.wake.notified() => None,
                () = tokio::time::sleep(wait.max(Duration::from_millis(5))) => None,
            };
            let Some(done) = done else { continue };
            let hello = matches!(done, Ok(Done::Hello(..)));
            self.take(done);
            if let Some(first) = first.take_if(|_| hello) {
                match self.failed.take() {
                    None => drop(first.send(Ok(()))),
                    Some(error) => match first.send(Err(error)) {
                        Ok(()) => break Ok(()),
                        // The opener no longer waits.
                        Err(unheard) => self.failed = unheard.0.err(),
                    },
                }
            }
        };
        self.tasks.abort_all();
        // The next recorder may lock the spool as soon as this one is known to have ended.
        drop(self.spool.take());
        let mut queue = self.shared.queue();
        queue.phase = Phase::Ended;
        queue.result = Some(result);
        drop(queue);
        self.shared.changed.notify_all();
    }

    fn phase(&self) -> Phase {
        self.shared.queue().phase
    }

    fn is_down(&self) -> bool {
        self.link.down_since().is_some()
    }

    /// Does all that can be done now.
    async fn step(&mut self) {
        let now = Instant::now();
        if self.phase() != Phase::Running && self.ending.is_none() {
            self.ending = Some(now);
            self.link.hurry();
        }
        if self.phase() == Phase::Discarding {
            return;
        }
        if self.must_park(now) {
            self.park().await;
        }
        self.spool_queue();
        self.settle_batches();
        self.fill();
        // Batches that were stored in an earlier run need no request.
        while self.window.front().is_some_and(Slot::is_stored) {
            self.settle_batches();
            self.fill();
        }
        self.launch(now);
        if let Some(spool) = &self.spool {
            self.shared.stats().spool_bytes = spool.bytes();
        }
    }

    /// Fills the window, from the spool while there is anything in it.
    fn fill(&mut self) {
        let aborting = self.phase() == Phase::Aborting;
        while self.window.len() < WINDOW {
            let now = Instant::now();
            let (mut items, mut ended_tracks) = (Vec::new(), Vec::new());
            if let Some(spool) = self.spool.as_mut().filter(|s| s.has_unread()) {
                if self.link.down_since().is_some() || self.ask_pending || aborting {
                    return;
                }
                match block_in_place(|| spool.read_next()) {
                    Ok(Some(read)) => items = read,
                    Ok(None) => (),
                    Err(damage) => self.shared.warn(damage),
                }
                if items.is_empty() {
                    continue;
                }
            } else {
                let mut queue = self.shared.queue();
                if queue.due().is_none_or(|due| now < due) {
                    return;
                }
                for entry in queue.take_batch() {
                    match entry {
                        Entry::Chunk(item) => items.push(*item),
                        Entry::EndTrack(track) => ended_tracks.push(track),
                    }
                }
            }
            self.open_slot(items, ended_tracks);
        }
    }

    fn open_slot(&mut self, items: Vec<Item>, ended_tracks: Vec<u32>) {
        self.window.push_back(Slot {
            number: self.next_slot,
            items,
            under_way: false,
            ended_tracks,
        });
        self.next_slot += 1;
    }

    /// Moves stored batches on, in order, and takes what is complete.
    fn settle_batches(&mut self) {
        let now = Instant::now();
        while self.window.front().is_some_and(Slot::is_stored) {
            let Some(slot) = self.window.pop_front() else {
                break;
            };
            for item in slot.items {
                for segment in self.segmenter.push(item, now) {
                    self.ready.push_back(Ready::new(segment));
                }
            }
            for track in slot.ended_tracks {
                self.segmenter.end_track(track);
            }
        }
        while let Some(segment) = self.segmenter.pop(now) {
            self.ready.push_back(Ready::new(segment));
        }
        if self.ending.is_some() && self.window.is_empty() && self.all_read() {
            let rest = self.segmenter.flush();
            self.ready.extend(rest.into_iter().map(Ready::new));
        }
    }

    fn all_read(&self) -> bool {
        let unread = self.spool.as_ref().is_some_and(Spool::has_unread);
        !unread && self.shared.queue().is_empty()
    }

    /// The result, once it is over.
    async fn ended(&mut self) -> Option<Result<(), Error>> {
        if let Some(error) = self.failed.take() {
            let reason = error.to_string();
            if self.spool.is_some() {
                self.park().await;
            }
            let result = Err(self.not_stored(reason));
            (self.shared.on_event)(Event::Failed(error));
            return Some(result);
        }
        let began = self.ending?;
        let now = Instant::now();
        if self.phase() == Phase::Discarding {
            let idle = self.committer.is_some() || now >= began + ABORT_TIME;
            return idle.then_some(Ok(()));
        }
        let empty = self.window.is_empty() && self.segmenter.is_empty() && self.ready.is_empty();
        let done = empty && self.tasks.is_empty() && self.shared.queue().is_empty();
        let unread = self.spool.as_ref().is_some_and(|s| !s.is_empty());
        let spooled = self.spool.is_some() && !self.has_loose() && self.shared.queue().is_empty();
        let patience = self.shared.queue().finish_timeout;
        let down = self.link.down_since().map(|down| down.max(began));
        let tired = down.is_some_and(|down| now >= down + patience);
        // For a server that answers, though it is busy, full or failing, it waits as long as without
        // a spool.
        if done && !unread || spooled && (self.link.away_since(began) || tired) {
            return Some(Ok(()));
        }
        let error = self.shared.stats().last_error.clone();
        let error = error.unwrap_or_else(|| "the recorder was stopped".into());
        if self.phase() == Phase::Aborting {
            if self.spool.is_some() && (spooled || unread || now >= began + ABORT_TIME) {
                if !spooled {
                    self.park().await;
                }
                let all = !self.has_loose() && self.shared.queue().is_empty();
                return Some(all.then_some(()).ok_or_else(|| self.not_stored(error)));
            }
            return (now >= began + ABORT_TIME).then(|| Err(self.not_stored(error)));
        }
        tired.then(|| Err(self.not_stored(error)))
    }

    fn not_stored(&self, reason: String) -> Error {
        let segments = self.ready.iter().map(|ready| &ready.segment.items);
        let loose = segments.flatten().chain(self.segmenter.items());
        let stored = self.window.iter().filter(|s| s.is_stored());
        let loose = loose.chain(stored.flat_map(|s| &s.items));
        let (count, size) = loose
            .filter(|item| item.spooled.is_none())
            .fold((0, 0), |(count, size), item| {
                (count + 1, size + item.bytes())
            });
        match self.shared.queue().not_stored(reason) {
            Error::NotStored {
                chunks,
                bytes,
                reason,
            } => Error::NotStored {
                chunks: chunks + count,
                bytes: bytes + size,
                reason,
            },
            other => other,
        }
    }

    /// When to look again though nothing happens.
    fn next_deadline(&self) -> Instant {
        let now = Instant::now();
        let queue = self.shared.queue();
        let spooling = self.spool.is_some();
        let due = queue
            .due()
            .filter(|_| self.window.len() < WINDOW || spooling);
        let down = self.link.down_since();
        let candidates = [
            due.filter(|due| *due > now),
            self.link.until(),
            self.segmenter.deadline(),
            down.filter(|_| spooling).map(|since| since + PARK_AFTER),
            self.spool_full,
            self.ending.map(|began| began + ABORT_TIME),
            self.ending.map(|_| now + Duration::from_secs(1)),
        ];
        let later = candidates.into_iter().flatten().filter(|at| *at > now);
        later.min().unwrap_or(now + Duration::from_secs(60))
    }
}

impl Slot {
    fn is_stored(&self) -> bool {
        !self.under_way && self.items.iter().all(Item::is_stored)
    }
}

impl Ready {
    fn new(segment: Segment) -> Box<Self> {
        Box::new(Self {
            segment,
            sealed: None,
            sent: false,
            renumbered: 0,
        })
    }

    /// Where its chunks lie in the spool.
    fn places(&self) -> Vec<Place> {
        self.segment
            .items
            .iter()
            .filter_map(|item| item.spooled)
            .collect()
    }
}
