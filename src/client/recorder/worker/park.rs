// SPDX-License-Identifier: MPL-2.0
//! The worker's dealings with the spool.

use super::{Entry, Worker};
use crate::client::Error;
use crate::client::recorder::Item;
use std::time::{Duration, Instant};
use tokio::task::block_in_place;

/// The vault may be away so long before what waits for it is written to the spool.
pub(super) const PARK_AFTER: Duration = Duration::from_secs(5);
/// How long a spool without room is left alone.
const SPOOL_PAUSE: Duration = Duration::from_secs(5);

impl Worker {
    /// Whether anything is under way here that is not in the spool.
    pub(super) fn has_loose(&self) -> bool {
        let loose = |items: &[Item]| items.iter().any(|item| item.spooled.is_none());
        self.window
            .iter()
            .any(|slot| slot.under_way || loose(&slot.items))
            || self.ready.iter().any(|ready| loose(&ready.segment.items))
            || self.segmenter.has_loose()
    }

    pub(super) fn must_park(&self, now: Instant) -> bool {
        if self.disputed {
            return self.spool_full.is_none_or(|until| now >= until);
        }
        let Some(down) = self.link.down_since().filter(|_| self.spool.is_some()) else {
            return false;
        };
        let wanted =
            now >= down + PARK_AFTER || self.ending.is_some() || self.shared.queue().half_full();
        wanted && self.spool_full.is_none_or(|until| now >= until) && self.has_loose()
    }

    /// Writes everything that is not committed to the spool and starts again from there. Without
    /// room everything stays here.
    pub(super) async fn park(&mut self) {
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
        self.disputed = false;
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
        let news = self.spool_full.is_none();
        self.spool_full = Some(Instant::now() + SPOOL_PAUSE);
        if let Some(error) = error.filter(|_| news) {
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
    pub(super) fn spool_queue(&mut self) {
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
}
