// SPDX-License-Identifier: MPL-2.0
//! The recorder: takes chunks, stores them, commits segments; waits, spools and resumes by itself.
//!
//! [`Recorder::push`] hands chunks to a queue in memory. One task on the [runtime](super::runtime)
//! takes them from there in batches, has them [stored](super::uploader), sorts them into
//! [segments](segments) and [commits](commit) these. Locks: the queue's, then the statistics';
//! neither is held during I/O.

mod commit;
mod item;
mod link;
mod queue;
mod segments;
mod types;
mod worker;

pub(crate) use item::{Format, Item, Surround};
pub use types::{Config, Event, SegmentReport, Stats, StreamChunk, Verify};

use super::spool::Spool;
use super::{Error, Vault, runtime};
use item::Session;
use queue::{Phase, Queue};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long [`Recorder::open`] waits for the vault's first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(3);
/// How long [`Recorder::finish`] goes on without a spool while the vault cannot be reached.
pub const DEFAULT_FINISH_TIMEOUT: Duration = Duration::from_secs(30);
/// How long [`Recorder::abort`] still tries to commit.
const ABORT_TIME: Duration = Duration::from_secs(2);
/// [`Event::Dropped`] comes at most this often.
const DROPPED_EVERY: Duration = Duration::from_secs(10);

/// What became of a chunk that was pushed.
pub enum Push {
    /// Taken.
    Accepted,
    /// No room now; the chunk comes back.
    Full(Box<StreamChunk>),
    /// The recorder has finished or failed and takes nothing more.
    Closed,
}

/// Records into one recording. Dropping it is [`Recorder::abort`].
pub struct Recorder {
    shared: Arc<Shared>,
}

type OnEvent = Box<dyn Fn(Event) + Send + Sync>;

/// What the handle and its task share.
struct Shared {
    config: Config,
    session: Session,
    on_event: OnEvent,
    queue: Mutex<Queue>,
    /// Signalled when there is room, and when the task has ended.
    changed: Condvar,
    /// Wakes the task.
    wake: Notify,
    stats: Arc<Mutex<Stats>>,
    dropped: Mutex<Dropped>,
}

#[derive(Default)]
struct Dropped {
    chunks: u64,
    bytes: u64,
    told: Option<Instant>,
}

impl Recorder {
    /// Starts recording. Waits shortly for the vault's first answer: a refusal is an error here,
    /// a vault that cannot be reached is not.
    pub fn open(config: Config, on_event: Box<dyn Fn(Event) + Send + Sync>) -> Result<Self, Error> {
        let vault = Vault::connect(&config.url.vault(), config.identity.clone())?;
        let id = config.identity.recording_id(&config.url.name);
        let (spool, damaged) = match &config.spool_dir {
            Some(dir) => {
                let (spool, damaged) =
                    Spool::open(dir, &config.identity, id, config.spool_max_bytes)?;
                (Some(spool), damaged)
            }
            None => (None, Vec::new()),
        };
        let mut session = Session::default();
        getrandom::fill(&mut session).map_err(|_| crate::identity::Error::Random)?;
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::new(config.max_size_bytes, config.max_size_time)),
            config,
            session,
            on_event,
            changed: Condvar::new(),
            wake: Notify::new(),
            stats: Arc::default(),
            dropped: Mutex::default(),
        });
        for message in damaged {
            shared.warn(message);
        }
        let (first, answer) = std::sync::mpsc::sync_channel(1);
        let worker = worker::Worker::new(shared.clone(), vault, id, spool);
        runtime()?.spawn(worker.run(first));
        let recorder = Self { shared };
        match answer.recv_timeout(FIRST_ANSWER) {
            Ok(Err(error)) => Err(error),
            _ => Ok(recorder),
        }
    }

    /// Takes a chunk, if there is room. Never waits for network or disk.
    pub fn push(&self, chunk: StreamChunk) -> Push {
        let (pushed, wake) = {
            let mut queue = self.shared.queue();
            let pushed = queue.push(chunk, self.shared.session);
            (pushed, queue.take_wake())
        };
        if wake {
            self.shared.wake.notify_one();
        }
        if let Ok((chunks, bytes)) = pushed {
            let mut stats = self.shared.stats();
            stats.chunks += chunks;
            stats.bytes_in += bytes;
        }
        match pushed {
            Ok(_) => Push::Accepted,
            Err(Some(chunk)) => Push::Full(chunk),
            Err(None) => Push::Closed,
        }
    }

    /// Waits until there is room; `false` if it was cancelled or the recorder has ended.
    pub fn wait_room(&self, cancelled: &AtomicBool) -> bool {
        let mut queue = self.shared.queue();
        loop {
            if cancelled.load(Ordering::Relaxed) || queue.phase != Phase::Running {
                return false;
            }
            if queue.has_room() {
                return true;
            }
            if queue.hurry() {
                self.shared.wake.notify_one();
            }
            // Cancelling does not signal: look again from time to time.
            let waited = self
                .shared
                .changed
                .wait_timeout(queue, Duration::from_millis(100));
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether chunks come in real time (the default): they wait at most two seconds for a batch
    /// to fill, else longer.
    pub fn set_live(&self, live: bool) {
        self.shared.queue().live = live;
    }

    /// How long [`Recorder::finish`] goes on without a spool while the vault cannot be reached, and
    /// with a spool while it answers but is busy, full or failing.
    pub fn set_finish_timeout(&self, timeout: Duration) {
        self.shared.queue().finish_timeout = timeout;
    }

    /// Counts chunks that the caller dropped because there was no room, and announces them.
    pub fn dropped(&self, chunks: u64, bytes: u64) {
        self.shared.stats().dropped += chunks;
        let mut dropped = lock(&self.shared.dropped);
        dropped.chunks += chunks;
        dropped.bytes += bytes;
        let now = Instant::now();
        if dropped.told.is_some_and(|t| now - t < DROPPED_EVERY) {
            return;
        }
        dropped.told = Some(now);
        let event = Event::Dropped {
            chunks: dropped.chunks,
            bytes: dropped.bytes,
        };
        drop(dropped);
        (self.shared.on_event)(event);
    }

    /// No more chunks of this track: segments do not wait for it.
    pub fn end_track(&self, track: u32) {
        self.shared.queue().end_track(track);
        self.shared.wake.notify_one();
    }

    /// Commits everything, closes the recording and waits until that is durable: at the vault or,
    /// while it cannot be reached, in the spool. Without a spool it gives up after a while.
    pub fn finish(&self) -> Result<(), Error> {
        self.end(Phase::Finishing, None)
    }

    /// Ends soon: what cannot be committed in two seconds goes into the spool, if there is one.
    pub fn abort(&self) -> Result<(), Error> {
        self.end(Phase::Aborting, Some(ABORT_TIME * 3))
    }

    /// Ends soon, and lets go of all that is not committed or in the spool. A commit that is under
    /// way is waited for.
    pub fn discard(&self) -> Result<(), Error> {
        self.end(Phase::Discarding, Some(ABORT_TIME * 3))
    }

    fn end(&self, phase: Phase, patience: Option<Duration>) -> Result<(), Error> {
        let mut queue = self.shared.queue();
        if queue.phase == Phase::Running || phase != Phase::Finishing {
            queue.end(phase);
        }
        self.shared.wake.notify_one();
        self.shared.changed.notify_all();
        let deadline = patience.map(|p| Instant::now() + p);
        loop {
            if let Some(result) = queue.result.take() {
                queue.result = Some(Ok(()));
                return result;
            }
            let wait = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => Duration::from_secs(3600),
            };
            if wait.is_zero() {
                return Err(queue.not_stored("the recorder did not end in time".into()));
            }
            let waited = self.shared.changed.wait_timeout(queue, wait);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Totals so far. Never waits.
    pub fn stats(&self) -> Stats {
        self.shared.stats().clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        match self.abort() {
            Ok(()) | Err(Error::NotStored { chunks: 0, .. }) => (),
            Err(error) => (self.shared.on_event)(Event::Failed(error)),
        }
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recorder({})", self.shared.config.url)
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    fn stats(&self) -> MutexGuard<'_, Stats> {
        lock(&self.stats)
    }

    /// Makes room: chunks with these counted sizes are stored, or on disk.
    fn release(&self, counted: impl Iterator<Item = u64>) {
        let (chunks, bytes) = counted
            .filter(|bytes| *bytes > 0)
            .fold((0, 0), |(chunks, sum), bytes| (chunks + 1, sum + bytes));
        self.queue().release(chunks, bytes);
        self.changed.notify_all();
    }

    /// Announces what is wrong but can be got over.
    fn warn(&self, message: String) {
        self.note(message.clone());
        (self.on_event)(Event::Warning(message));
    }

    /// Keeps an error's words for [`Stats::last_error`].
    fn note(&self, message: String) {
        self.stats().last_error = Some(message);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
