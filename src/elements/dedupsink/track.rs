// SPDX-License-Identifier: MPL-2.0
//! One track on its way into the recorder: chunks in, those that follow each other out.

use crate::client::recorder::StreamChunk;
use crate::client::transport::Place;
use crate::manifest::TimeSegment;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where a chunk stands among the others of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Bytes of content before it and with it, from the buffer's offsets; without, nothing is known.
    Offset(Option<(u64, u64)>),
    /// As the sealed stream says.
    Sealed(Place),
}

/// What becomes of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It follows the chunk before.
    Take,
    /// It follows something that is not there: left out up to the next group of pictures.
    Skip,
    /// It was there before: left out.
    Again,
}

/// A track.
#[derive(Debug, Default)]
pub struct Track {
    /// No more buffers come.
    pub eos: bool,
    /// Between FLUSH_START and FLUSH_STOP.
    pub flushing: bool,
    /// Whether upstream is live; asked at the first buffer.
    pub live: Option<bool>,
    /// Waiting for room shall end.
    pub cancelled: Arc<AtomicBool>,
    /// At least one chunk was taken.
    pub begun: bool,
    last: Option<Position>,
    /// Nothing is taken up to the next group of pictures.
    skipping: bool,
    caps: Option<String>,
    time: Option<TimeSegment>,
    tags: Option<String>,
}

impl Track {
    /// Judges a chunk by its place.
    pub fn judge(&mut self, position: Position, gop_start: bool) -> Verdict {
        let follows = match (self.last, position) {
            (None, _) => false,
            (Some(Position::Offset(Some((_, end)))), Position::Offset(Some((begin, _)))) => {
                begin == end
            }
            (Some(Position::Sealed(last)), Position::Sealed(now)) if last.stream == now.stream => {
                if now.seq <= last.seq {
                    return Verdict::Again;
                }
                now.seq == last.seq + 1
            }
            (Some(Position::Offset(_)), Position::Offset(_)) => true,
            _ => false,
        };
        self.last = Some(position);
        self.skipping = (self.skipping || !follows) && !gop_start;
        match self.skipping {
            true => Verdict::Skip,
            false => Verdict::Take,
        }
    }

    /// There was no room for a chunk: those up to the next group of pictures cannot follow.
    pub fn skip(&mut self) {
        self.skipping = true;
    }

    /// Takes from a chunk what the recorder has been told already.
    pub fn describe(&self, chunk: &mut StreamChunk) {
        chunk.caps.take_if(|caps| self.caps.as_ref() == Some(caps));
        chunk.time.take_if(|time| self.time.as_ref() == Some(time));
        chunk.tags.take_if(|tags| self.tags.as_ref() == Some(tags));
    }

    /// The recorder has taken a chunk that told this.
    pub fn told(
        &mut self,
        (caps, time, tags): (Option<String>, Option<TimeSegment>, Option<String>),
    ) {
        self.begun = true;
        self.caps = caps.or(self.caps.take());
        self.time = time.or(self.time);
        self.tags = tags.or(self.tags.take());
    }

    /// Ends waiting for room.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Buffers on their way are of no use any more.
    pub fn flush(&mut self) {
        self.flushing = true;
        self.cancel();
    }

    /// After a flush, buffers come anew; what the recorder was told stays.
    pub fn restart(&mut self) {
        self.eos = false;
        self.flushing = false;
        self.cancelled = Arc::default();
        self.live = None;
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_track_begins_and_goes_on_after_a_gap_at_a_group_of_pictures() {
        let at = |begin| Position::Offset(Some((begin, begin + 10)));
        let mut track = Track::default();
        let judged: Vec<_> = [
            (at(0), false),
            (at(10), true),
            (at(20), false),
            (at(40), false),
            (at(50), false),
            (at(60), true),
        ]
        .map(|(position, start)| track.judge(position, start))
        .into();
        use Verdict::{Skip, Take};
        assert_eq!(judged, [Skip, Take, Take, Skip, Skip, Take]);
    }

    #[test]
    fn chunks_that_come_again_are_left_out() {
        let at = |stream, seq| {
            Position::Sealed(Place {
                stream: [stream; 8],
                seq,
            })
        };
        let mut track = Track::default();
        assert_eq!(track.judge(at(1, 0), true), Verdict::Take);
        assert_eq!(track.judge(at(1, 1), false), Verdict::Take);
        assert_eq!(track.judge(at(1, 0), true), Verdict::Again);
        assert_eq!(track.judge(at(1, 2), false), Verdict::Take);
        assert_eq!(track.judge(at(1, 4), false), Verdict::Skip);
        assert_eq!(track.judge(at(2, 0), true), Verdict::Take);
    }
}
