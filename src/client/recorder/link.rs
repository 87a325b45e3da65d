// SPDX-License-Identifier: MPL-2.0
//! Whether the vault can be reached, and when to try again.

use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The state of the connection: pauses grow from 0.2 s to 10 s, with jitter.
#[derive(Default)]
pub(super) struct Link {
    attempt: u32,
    until: Option<Instant>,
    since: Option<Instant>,
    failed: Option<Instant>,
}

impl Link {
    /// Whether a request may go out: any while the link works, else one at a time after a pause.
    pub fn may_send(&self, now: Instant, under_way: bool) -> bool {
        self.until.is_none_or(|until| now >= until && !under_way)
    }

    /// A request was answered; `true` if the link was down.
    pub fn works(&mut self) -> bool {
        let was_down = self.since.is_some();
        *self = Self::default();
        was_down
    }

    /// A request was not answered; `true` if the link worked before.
    pub fn failed(&mut self, now: Instant) -> bool {
        // Requests that were under way together fail together: that is one failure.
        if self.until.is_none_or(|until| now >= until) {
            let pause = FIRST_PAUSE.saturating_mul(1 << self.attempt.min(10));
            self.until = Some(now + jitter(pause.min(LONGEST_PAUSE)));
            self.attempt += 1;
        }
        self.failed = Some(now);
        let first = self.since.is_none();
        self.since.get_or_insert(now);
        first
    }

    /// Since when it is down.
    pub fn down_since(&self) -> Option<Instant> {
        self.since
    }

    /// Tries again at once.
    pub fn hurry(&mut self) {
        self.until = self.until.map(|until| until.min(Instant::now()));
    }

    /// Whether it is down, and was still found so after a moment.
    pub fn still_down_after(&self, moment: Instant) -> bool {
        self.since.is_some() && self.failed.is_some_and(|failed| failed >= moment)
    }

    /// When to try again.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }
}

/// Between half and the whole of a pause, so that recorders do not come back all at once.
fn jitter(pause: Duration) -> Duration {
    let mut random = [0u8; 2];
    // Without random numbers there is no jitter.
    let _ = getrandom::fill(&mut random);
    let part = 0.5 + f64::from(u16::from_be_bytes(random)) / 131_072.0;
    pause.mul_f64(part)
}
