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
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::{JoinSet, block_in_place};

/// Batches under way at once.
const WINDOW: usize = 3;
/// The vault may be away so long before what waits for it is written to the spool.
const PARK_AFTER: Duration = Duration::from_secs(5);
/// How long a spool without room is left alone.
const SPOOL_PAUSE: Duration = Duration::from_secs(5);
/// Numbers taken by others in a row, after which it is slower about it.
const HASTY_NUMBERS: u32 = 3;

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

    /// Whether anything is under way here that is not in the spool.
    fn has_loose(&self) -> bool {
        let loose = |items: &[Item]| items.iter().any(|item| item.spooled.is_none());
        self.window
            .iter()
            .any(|slot| slot.under_way || loose(&slot.items))
            || self.ready.iter().any(|ready| loose(&ready.segment.items))
            || self.segmenter.has_loose()
    }

    fn must_park(&self, now: Instant) -> bool {
        let Some(down) = self.link.down_since().filter(|_| self.spool.is_some()) else {
            return false;
        };
        let wanted =
            now >= down + PARK_AFTER || self.ending.is_some() || self.shared.queue().half_full();
        wanted && self.spool_full.is_none_or(|until| now >= until) && self.has_loose()
    }

    /// Writes everything that is not committed to the spool and starts again from there. Without
    /// room everything stays here.
    async fn park(&mut self) {
        self.stop.send_replace(true);
        while let Some(done) = self.tasks.join_next().await {
            self.take(done);
        }
        self.stop.send_replace(false);
        let open = self.segmenter.flush().into_iter().flat_map(|s| s.items);
        let window = std::mem::take(&mut self.window);
        let mut items: Vec<Item> = open.collect();
        items.extend(window.into_iter().flat_map(|slot| slot.items));
        let ready = self.ready.iter_mut().flat_map(|r| &mut r.segment.items);
        // What an earlier recorder left came from the spool and is before everything else.
        let session = self.shared.session;
        let mut all: Vec<_> = ready.chain(&mut items).collect();
        all.retain(|item| item.session == session);
        all.sort_by_key(|item| item.number);
        let counted: Vec<u64> = all.iter().map(|item| item.counted).collect();
        let Some(spool) = &mut self.spool else { return };
        let written = block_in_place(|| spool.insert(all));
        if !matches!(written, Ok(true)) {
            self.no_room(written.err());
            if !items.is_empty() {
                self.open_slot(items, Vec::new());
            }
            return;
        }
        spool.rewind();
        self.ask_pending = true;
        let sent = self.ready.iter().find(|ready| ready.sent);
        if let Some((ready, sealed)) = sent.and_then(|r| Some((r, r.sealed.as_ref()?))) {
            let places = ready.places();
            if let Err(e) = block_in_place(|| spool.begin(sealed.seq, &sealed.hash, places)) {
                self.shared.warn(e.to_string());
            }
        }
        self.ready.clear();
        self.shared.release(counted.into_iter());
        self.spool_waiting();
    }

    fn no_room(&mut self, error: Option<Error>) {
        self.spool_full = Some(Instant::now() + SPOOL_PAUSE);
        if let Some(error) = error {
            self.shared.warn(error.to_string());
        }
    }

    /// Writes what waits in memory to the spool, as far as there is room.
    fn spool_waiting(&mut self) {
        let Some(spool) = &mut self.spool else { return };
        let entries = self.shared.queue().take_all();
        let mut items: Vec<Item> = entries
            .into_iter()
            .filter_map(|entry| match entry {
                Entry::Chunk(item) => Some(*item),
                Entry::EndTrack(_) => None,
            })
            .collect();
        if items.is_empty() {
            return;
        }
        let counted: Vec<u64> = items.iter().map(|item| item.counted).collect();
        let error = block_in_place(|| spool.append(&mut items));
        let written = counted.len() - items.len();
        self.shared.release(counted.into_iter().take(written));
        match items.is_empty() {
            true => self.spool_full = None,
            false => self.no_room(error),
        }
        self.shared.queue().put_back(items);
    }

    /// While the spool is in use, what waits in memory goes there.
    fn spool_queue(&mut self) {
        let now = Instant::now();
        let Some(spool) = &self.spool else { return };
        if self.spool_full.is_some_and(|until| now < until) {
            return;
        }
        let down_long = self
            .link
            .down_since()
            .is_some_and(|since| now >= since + PARK_AFTER || self.ending.is_some());
        let queue = self.shared.queue();
        let behind = spool.has_unread() || down_long;
        let due = queue.due().is_some_and(|due| now >= due);
        let crowded = queue.half_full() && (queue.live || self.is_down());
        if queue.is_empty() || !((behind && due) || crowded) {
            return;
        }
        drop(queue);
        self.spool_waiting();
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

    /// Starts requests.
    fn launch(&mut self, now: Instant) {
        if self.spool.as_ref().is_none_or(|s| s.pending().is_none()) {
            self.ask_pending = false;
        }
        if self.ask_pending
            && !self.is_down()
            && let Some((seq, hash)) = self.spool.as_ref().and_then(Spool::pending)
            && let Some(mut committer) = self.committer.take()
        {
            self.spawn(async move |stop| {
                let found = stop_or(stop, committer.is_committed(seq, &hash)).await;
                Done::Pending(committer, found)
            });
        }
        for index in 0..self.window.len() {
            let slot = &mut self.window[index];
            if slot.under_way || slot.is_stored() {
                continue;
            }
            if !self.link.may_send(now, !self.tasks.is_empty()) {
                break;
            }
            slot.under_way = true;
            let (number, mut items) = (slot.number, std::mem::take(&mut slot.items));
            let uploader = self.uploader.clone();
            self.spawn(async move |stop| {
                let jobs = items.iter_mut().flat_map(Item::jobs).collect();
                let stored = stop_or(stop, uploader.store(jobs)).await;
                Done::Stored(number, items, stored)
            });
        }
        if self.link.may_send(now, !self.tasks.is_empty()) {
            self.launch_commit();
        }
        // Nothing to try the link with: ask how the vault is.
        if self.is_down() && self.tasks.is_empty() && self.link.may_send(now, false) {
            self.hello();
        }
    }

    fn launch_commit(&mut self) {
        let last = self.ready.len() == 1
            && self.window.is_empty()
            && self.segmenter.is_empty()
            && self.all_read();
        let closed = last && self.phase() == Phase::Finishing;
        if self.ready.is_empty() || (self.ask_pending && self.spool.is_some()) {
            return;
        }
        let Some(mut committer) = self.committer.take() else {
            return;
        };
        let Some(mut ready) = self.ready.pop_front() else {
            self.committer = Some(committer);
            return;
        };
        let Some(sealed) = ready.sealed.take() else {
            self.spawn(async move |stop| {
                let sealed = stop_or(stop, committer.seal(&ready.segment, closed)).await;
                Done::Sealed(committer, ready, sealed.map(Box::new))
            });
            return;
        };
        let places = ready.places();
        if let Some(spool) = self
            .spool
            .as_mut()
            .filter(|_| !places.is_empty() && !ready.sent)
            && let Err(e) = block_in_place(|| spool.begin(sealed.seq, &sealed.hash, places))
        {
            // Only a crash just now would make a difference.
            self.shared.warn(e.to_string());
        }
        ready.sent = true;
        self.spawn(async move |stop| {
            let sent = stop_or(stop, committer.send(&ready.segment, &sealed)).await;
            ready.sealed = Some(sealed);
            Done::Sent(committer, ready, sent)
        });
    }

    fn hello(&mut self) {
        if let Some(mut committer) = self.committer.take() {
            let vault = self.vault.clone();
            self.spawn(async move |stop| {
                let greet = async {
                    vault.info().await?;
                    vault.path_keys().await?;
                    committer.load().await
                };
                let greeted = stop_or(stop, greet).await;
                Done::Hello(committer, greeted)
            });
        }
    }

    fn spawn<F, T>(&mut self, work: F)
    where
        F: FnOnce(watch::Receiver<bool>) -> T,
        T: Future<Output = Done> + Send + 'static,
    {
        let work = work(self.stop.subscribe());
        self.tasks.spawn(work);
    }

    /// Takes a task's result.
    fn take(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Hello(committer, result)) => {
                self.committer = Some(committer);
                self.judge(result);
            }
            Ok(Done::Pending(committer, result)) => {
                self.committer = Some(committer);
                if let (Some(committed), Some(spool)) = (self.judge(result), &mut self.spool) {
                    self.ask_pending = false;
                    if let Err(e) = block_in_place(|| spool.settle(committed)) {
                        self.shared.warn(e.to_string());
                    }
                }
            }
            Ok(Done::Stored(number, items, result)) => {
                if let Some(slot) = self.window.iter_mut().find(|s| s.number == number) {
                    slot.under_way = false;
                    slot.items = items;
                    if result.is_ok() && slot.is_stored() {
                        let counted = slot
                            .items
                            .iter_mut()
                            .map(|i| std::mem::take(&mut i.counted));
                        self.shared.release(counted);
                    }
                }
                self.judge(result);
            }
            Ok(Done::Sealed(committer, mut ready, result)) => {
                self.committer = Some(committer);
                ready.sealed = self.judge(result);
                ready.sent = false;
                self.ready.push_front(ready);
            }
            Ok(Done::Sent(committer, ready, result)) => {
                self.committer = Some(committer);
                self.take_sent(ready, result);
            }
            Err(e) => self.failed = Some(Error::Threads(e.to_string())),
        }
    }

    fn take_sent(&mut self, mut ready: Box<Ready>, result: Result<Option<SegmentReport>, Error>) {
        if let Err(error @ Error::NotHeld { .. }) = result {
            // Its content is gone from here. The hold is 48 hours, so this is rare enough not to
            // keep every chunk until its segment is committed.
            self.uploader.forget();
            self.shared.stats().dropped += ready.segment.items.len() as u64;
            self.shared.warn(error.to_string());
            self.settle_spool(&ready);
            return;
        }
        match self.judge(result) {
            Some(Some(report)) => {
                self.settle_spool(&ready);
                self.shared.stats().segments += 1;
                (self.shared.on_event)(Event::Segment(report));
            }
            Some(None) => {
                ready.renumbered += 1;
                ready.sealed = None;
                ready.sent = false;
                if ready.renumbered > HASTY_NUMBERS {
                    self.count_retry("renumber");
                    self.link.failed(Instant::now());
                }
                self.ready.push_front(ready);
            }
            None => self.ready.push_front(ready),
        }
    }

    fn settle_spool(&mut self, ready: &Ready) {
        let from_spool = ready.segment.items.iter().any(|i| i.spooled.is_some());
        if let Some(spool) = self.spool.as_mut().filter(|_| from_spool)
            && let Err(e) = block_in_place(|| spool.settle(true))
        {
            self.shared.warn(e.to_string());
        }
    }

    fn count_retry(&self, reason: &'static str) {
        *self.shared.stats().retries.entry(reason).or_default() += 1;
    }

    /// Learns from a request's outcome how the link is; `None` if it has to be made again.
    fn judge<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(value) => {
                if self.link.works() {
                    (self.shared.on_event)(Event::Online);
                }
                Some(value)
            }
            Err(Error::Cancelled) => None,
            Err(error) => {
                self.shared.note(error.to_string());
                match error.retry_reason() {
                    Some(reason) => {
                        self.count_retry(reason);
                        if self.link.failed(Instant::now()) {
                            (self.shared.on_event)(Event::Offline(error.to_string()));
                        }
                    }
                    None => self.failed = Some(error),
                }
                None
            }
        }
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
        let empty = self.window.is_empty() && self.segmenter.is_empty() && self.ready.is_empty();
        let done = empty && self.tasks.is_empty() && self.shared.queue().is_empty();
        let unread = self.spool.as_ref().is_some_and(|s| !s.is_empty());
        let spooled = self.spool.is_some() && !self.has_loose() && self.shared.queue().is_empty();
        if done && !unread || self.link.still_down_after(began) && spooled {
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
        let patience = self.shared.queue().finish_timeout;
        let down = self.link.down_since()?.max(began);
        (now >= down + patience).then(|| Err(self.not_stored(error)))
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

/// Does the work unless told to stop; what it works on stays usable either way.
async fn stop_or<T>(
    mut stop: watch::Receiver<bool>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::select! {
        biased;
        result = work => result,
        _ = stop.wait_for(|stop| *stop) => Err(Error::Cancelled),
    }
}
