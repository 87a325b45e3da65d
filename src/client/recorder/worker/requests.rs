// SPDX-License-Identifier: MPL-2.0
//! The worker's requests: what is sent when, and what follows from the answers.

use super::{Done, Ready, Worker};
use crate::client::Error;
use crate::client::recorder::link::Kind;
use crate::client::recorder::queue::Phase;
use crate::client::recorder::{Event, Item, SegmentReport};
use crate::client::spool::Spool;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::block_in_place;

/// Numbers taken by others in a row, after which it is slower about it.
const HASTY_NUMBERS: u32 = 3;

impl Worker {
    /// Starts requests.
    pub(super) fn launch(&mut self, now: Instant) {
        if self.spool.as_ref().is_none_or(|s| s.pending().is_none()) {
            self.ask_pending = false;
        }
        if self.ask_pending
            && !self.is_down()
            && self.link.may_send(now, false)
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

    pub(super) fn hello(&mut self) {
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
    pub(super) fn take(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Hello(committer, result)) => {
                self.committer = Some(committer);
                self.judge(Kind::Ask, result);
            }
            Ok(Done::Pending(committer, result)) => {
                self.committer = Some(committer);
                let committed = self.judge(Kind::Ask, result);
                if let (Some(committed), Some(spool)) = (committed, &mut self.spool) {
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
                self.judge(Kind::Store, result);
            }
            Ok(Done::Sealed(committer, mut ready, result)) => {
                self.committer = Some(committer);
                // That it was sealed says nothing of the vault.
                ready.sealed = match result {
                    Ok(sealed) => Some(sealed),
                    failed => self.judge(Kind::Ask, failed),
                };
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
        match self.judge(Kind::Commit, result) {
            Some(Some(report)) => {
                self.settle_spool(&ready);
                self.shared.stats().segments += 1;
                (self.shared.on_event)(Event::Segment(report));
            }
            Some(None) => {
                if let (Some(sealed), Some(spool)) = (&ready.sealed, &mut self.spool) {
                    match block_in_place(|| spool.doubt(sealed.seq)) {
                        Ok(again) => self.disputed |= again,
                        Err(e) => self.shared.warn(e.to_string()),
                    }
                }
                ready.renumbered += 1;
                ready.sealed = None;
                ready.sent = false;
                if ready.renumbered > HASTY_NUMBERS {
                    self.count_retry("renumber");
                    self.link.pause(Instant::now(), Duration::ZERO);
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
    fn judge<T>(&mut self, kind: Kind, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(value) => {
                if self.link.works(kind) {
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
                        if self.link.failed(kind, &error, Instant::now()) {
                            (self.shared.on_event)(Event::Offline(error.to_string()));
                        }
                    }
                    None => self.failed = Some(error),
                }
                None
            }
        }
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
