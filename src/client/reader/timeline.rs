// SPDX-License-Identifier: MPL-2.0
//! Where the segments of a recording lie in time.

use crate::client::Error;
use crate::manifest::Head;
use crate::protocol::Moment;

/// The heads of all segments that are kept, in order: a chain, each naming the manifest before it.
/// Where retention has removed the beginning, what the first one names is gone, so that nothing
/// but the server's word says how much was before it.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    first: u64,
    heads: Vec<Head>,
}

impl Timeline {
    /// Adds the next segment.
    ///
    /// # Errors
    /// [`Error::Chain`] if it does not follow the last one.
    pub(super) fn push(&mut self, head: Head) -> Result<(), Error> {
        let expected = match self.heads.last() {
            Some(last) => Some(last.manifest),
            None => (self.first == 0).then_some([0; 32].into()),
        };
        if expected.is_some_and(|expected| head.previous != expected) {
            return Err(Error::Chain(self.end().saturating_sub(1)));
        }
        self.heads.push(head);
        Ok(())
    }

    /// Lets go of the segments before `first`.
    pub(super) fn trim(&mut self, first: u64) {
        let gone = usize::try_from(first.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.heads.drain(..gone.min(self.heads.len()));
        self.first = self.first.max(first);
    }

    /// Number of the first segment; more than 0 where retention has removed the beginning.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Number of the segment that comes next.
    pub fn end(&self) -> u64 {
        self.first + self.len()
    }

    /// Number of segments.
    pub fn len(&self) -> u64 {
        self.heads.len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// The head of a segment.
    pub fn head(&self, seq: u64) -> Option<&Head> {
        let index = seq.checked_sub(self.first)?;
        self.heads.get(usize::try_from(index).ok()?)
    }

    /// All heads.
    pub fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// Recording time at which it begins, ns: 0 unless the beginning was removed.
    pub fn start(&self) -> u64 {
        match self.first {
            0 => 0,
            _ => self.heads.first().map_or(0, |head| head.start),
        }
    }

    /// Recording time of the end, ns.
    pub fn duration(&self) -> u64 {
        self.heads.iter().map(end).max().unwrap_or(0)
    }

    /// The segment that a recording time lies in: the last one that begins at or before it, or
    /// else the first.
    pub fn locate(&self, time: u64) -> Option<u64> {
        let found = self.heads.iter().rposition(|head| head.start <= time);
        (!self.is_empty()).then(|| self.first + found.unwrap_or(0) as u64)
    }

    /// The recording time of a moment. A UTC time at which nothing was recorded is the next one
    /// at which something was, or the end.
    pub fn resolve(&self, moment: Moment) -> u64 {
        let utc = match moment {
            Moment::Offset(time) => return time,
            Moment::Utc(utc) => utc,
        };
        let within = |head: &&Head| {
            let passed = utc.checked_sub(head.start_utc);
            passed.is_some_and(|ns| u64::try_from(ns).is_ok_and(|ns| ns < head.duration.max(1)))
        };
        if let Some(head) = self.heads.iter().find(within) {
            return head.start + utc.abs_diff(head.start_utc);
        }
        let later = self.heads.iter().find(|head| head.start_utc > utc);
        later.map_or(self.duration(), |head| head.start)
    }

    /// The Unix time of a recording time, ns.
    pub fn utc(&self, time: u64) -> Option<i64> {
        let head = self.head(self.locate(time)?)?;
        let passed = i64::try_from(time.saturating_sub(head.start)).ok()?;
        head.start_utc.checked_add(passed)
    }
}

fn end(head: &Head) -> u64 {
    head.start.saturating_add(head.duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(n: u8, start: u64, duration: u64, start_utc: i64) -> Head {
        Head {
            start,
            duration,
            start_utc,
            bytes: 0,
            chunks: 0,
            session: [0; 8].into(),
            manifest: [n + 1; 32].into(),
            previous: if n == 0 { [0; 32] } else { [n; 32] }.into(),
            suspect: 0,
        }
    }

    fn timeline() -> Timeline {
        let mut timeline = Timeline::default();
        // A pause of 900 between the second and the third.
        for (n, start, utc) in [(0, 0, 1000), (1, 100, 1100), (2, 200, 2100)] {
            timeline.push(head(n, start, 100, utc)).unwrap();
        }
        timeline
    }

    #[test]
    fn a_chain_has_no_gap_and_no_stranger() {
        let mut timeline = timeline();
        assert!(matches!(
            timeline.push(head(4, 400, 100, 0)),
            Err(Error::Chain(2))
        ));
        assert!(matches!(
            Timeline::default().push(head(1, 0, 1, 0)),
            Err(Error::Chain(0))
        ));
        assert_eq!((timeline.len(), timeline.duration()), (3, 300));
    }

    #[test]
    fn a_removed_beginning_is_not_missed() {
        let mut timeline = timeline();
        timeline.trim(2);
        timeline.trim(1);
        assert_eq!(
            (timeline.first(), timeline.len(), timeline.end()),
            (2, 1, 3)
        );
        assert_eq!((timeline.start(), timeline.duration()), (200, 300));
        assert!(timeline.head(1).is_none() && timeline.head(2).is_some());
        assert_eq!(timeline.locate(0), Some(2));
        assert_eq!(timeline.resolve(Moment::Utc(1050)), 200);
        timeline.push(head(3, 300, 100, 2200)).unwrap();
        // All that was known is gone: what comes next follows nothing that could be checked.
        timeline.trim(9);
        assert_eq!((timeline.first(), timeline.end()), (9, 9));
        timeline.push(head(9, 900, 100, 3000)).unwrap();
        assert!(timeline.push(head(11, 1100, 100, 3200)).is_err());
    }

    #[test]
    fn times_are_found() {
        let timeline = timeline();
        assert_eq!(timeline.locate(0), Some(0));
        assert_eq!(timeline.locate(199), Some(1));
        assert_eq!(timeline.locate(9999), Some(2));
        assert_eq!(Timeline::default().locate(0), None);
        for (utc, time) in [(0, 0), (1000, 0), (1150, 150), (1500, 200), (2150, 250)] {
            assert_eq!(timeline.resolve(Moment::Utc(utc)), time, "{utc}");
        }
        assert_eq!(timeline.resolve(Moment::Utc(9999)), 300);
        assert_eq!(timeline.utc(250), Some(2150));
        assert_eq!(timeline.resolve(Moment::Utc(i64::MIN)), 0);
    }
}
