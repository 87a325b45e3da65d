// SPDX-License-Identifier: MPL-2.0
//! Whether the vault can be reached, when to try again, and what to tell of it.

use crate::client::Error;
use crate::client::patience::jitter;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A server may be busy for so long before that is told.
const BUSY_UNTOLD: Duration = Duration::from_secs(5);

/// Kinds of requests: one may work while another does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// How the vault is, and what it has of the recording.
    Ask,
    /// Storing a batch of chunks.
    Store,
    /// Committing a segment.
    Commit,
}

/// The state of the connection. Pauses grow from 0.2 s to 10 s, with jitter, until the *outage* is
/// over: until something of each kind that failed has worked again. (Of questions, anything.)
#[derive(Default)]
pub(super) struct Link {
    attempt: u32,
    until: Option<Instant>,
    /// Nothing has worked since.
    since: Option<Instant>,
    /// When it last gave no answer.
    silent: Option<Instant>,
    outage: Option<Outage>,
}

struct Outage {
    began: Instant,
    /// What has failed and not worked since.
    awaited: BTreeSet<Kind>,
    told: bool,
}

impl Link {
    /// Whether a request may go out: after a pause any if something has worked since the last
    /// failure, else one at a time.
    pub fn may_send(&self, now: Instant, under_way: bool) -> bool {
        let paused = self.until.is_some_and(|until| now < until);
        !paused && (self.since.is_none() || !under_way)
    }

    /// A request was answered; `true` if that ends an outage that was told.
    pub fn works(&mut self, kind: Kind) -> bool {
        self.since = None;
        let Some(outage) = &mut self.outage else {
            self.attempt = 0;
            return false;
        };
        outage.awaited.remove(&Kind::Ask);
        outage.awaited.remove(&kind);
        if !outage.awaited.is_empty() {
            return false;
        }
        let told = outage.told;
        *self = Self::default();
        told
    }

    /// A request was not answered, or not done; `true` if that has to be told: once in an outage,
    /// and of a server that is only busy after a while.
    pub fn failed(&mut self, kind: Kind, error: &Error, now: Instant) -> bool {
        self.pause(now, error.retry_after());
        if !matches!(error, Error::Refused { .. }) {
            self.silent = Some(now);
        }
        self.since.get_or_insert(now);
        let outage = self.outage.get_or_insert_with(|| Outage {
            began: now,
            awaited: BTreeSet::new(),
            told: false,
        });
        outage.awaited.insert(kind);
        let untold = !outage.told && (!error.is_busy() || now >= outage.began + BUSY_UNTOLD);
        outage.told |= untold;
        untold
    }

    /// Sends nothing for a while, and for as long as the server asks.
    pub fn pause(&mut self, now: Instant, asked_for: Duration) {
        // Requests that were under way together fail together: that is one failure.
        if self.until.is_none_or(|until| now >= until) {
            let pause = FIRST_PAUSE.saturating_mul(1 << self.attempt.min(10));
            self.until = Some(now + asked_for + jitter(pause.min(LONGEST_PAUSE)));
            self.attempt += 1;
        }
    }

    /// Since when it is down.
    pub fn down_since(&self) -> Option<Instant> {
        self.since
    }

    /// Tries again at once.
    pub fn hurry(&mut self) {
        self.until = self.until.map(|until| until.min(Instant::now()));
    }

    /// Whether it is down, and has been away since a moment: gave no answer, where one that is busy,
    /// full or without its storage says so.
    pub fn away_since(&self, moment: Instant) -> bool {
        self.since.is_some() && self.silent.is_some_and(|silent| silent >= moment)
    }

    /// When to try again.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Code;

    fn refused(code: Code, retry_after: Option<Duration>) -> Error {
        Error::Refused {
            vault: "it".into(),
            what: "PUT /v1/blobs".into(),
            code,
            message: "not now".into(),
            retry_after,
        }
    }

    fn busy() -> Error {
        refused(Code::Busy, Some(Duration::from_secs(1)))
    }

    fn away() -> Error {
        Error::Network {
            vault: "it".into(),
            reason: "down".into(),
        }
    }

    #[test]
    fn of_a_server_that_stays_busy_is_told_once() {
        let (mut link, start) = (Link::default(), Instant::now());
        let (mut now, mut tries, mut told) = (start, 0, 0);
        while now < start + Duration::from_secs(20) {
            if link.may_send(now, false) {
                tries += 1;
                told += u32::from(link.failed(Kind::Store, &busy(), now));
            }
            // All else works.
            assert!(!link.works(Kind::Ask) && !link.works(Kind::Commit));
            now += Duration::from_millis(10);
        }
        assert_eq!(told, 1);
        assert!(!link.away_since(start), "it is there");
        assert!((4..=9).contains(&tries), "{tries}");
        assert!(link.works(Kind::Store), "the end is told");
        assert!(!link.works(Kind::Store), "once");
        assert!(link.may_send(now, true));
    }

    #[test]
    fn a_moment_of_that_is_not_worth_telling() {
        let (mut link, now) = (Link::default(), Instant::now());
        assert!(!link.failed(Kind::Store, &busy(), now));
        assert!(!link.failed(Kind::Commit, &busy(), now));
        let later = now + Duration::from_millis(999);
        assert!(!link.may_send(later, false), "sooner than it asked for");
        let later = now + Duration::from_millis(1201);
        assert!(link.may_send(later, false) && !link.may_send(later, true));
        assert!(!link.works(Kind::Store) && !link.works(Kind::Commit));
        // It begins anew.
        assert!(!link.failed(Kind::Store, &busy(), now + BUSY_UNTOLD));
    }

    #[test]
    fn a_server_that_fails_is_told_at_once_and_is_there() {
        for code in [Code::Internal, Code::Full] {
            let (mut link, now) = (Link::default(), Instant::now());
            assert!(link.failed(Kind::Store, &refused(code, None), now));
            assert!(link.down_since().is_some() && !link.away_since(now));
        }
    }

    #[test]
    fn of_a_server_that_is_away_is_told_at_once() {
        let (mut link, now) = (Link::default(), Instant::now());
        assert!(link.failed(Kind::Store, &away(), now));
        assert!(!link.failed(Kind::Store, &away(), now));
        assert!(!link.failed(Kind::Ask, &away(), now));
        assert_eq!(link.down_since(), Some(now));
        assert!(link.away_since(now));
        // An answer lets others try, and says nothing of what failed.
        assert!(!link.works(Kind::Ask));
        assert_eq!(link.down_since(), None);
        assert!(link.works(Kind::Store));
        // Any answer is one to a question.
        assert!(link.failed(Kind::Ask, &away(), now));
        assert!(link.works(Kind::Commit));
    }
}
