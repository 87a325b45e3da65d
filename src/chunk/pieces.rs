// SPDX-License-Identifier: MPL-2.0
//! Access units in, pieces out: keyframes, limits and damage.

use super::cut::{Filled, Rule};
use super::envelope::{EnvelopeWriter, write_records};
use super::{AccessUnit, Codec, Config, FrameError, MAX_AU_BYTES, Piece, Unit};

/// While damaged groups are dropped, a group is held back up to this many longest pieces.
const HELD_PIECES: usize = 16;

/// Access units that were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DroppedCount {
    /// How many.
    pub units: u64,
    /// Their length in bytes.
    pub bytes: u64,
}

impl DroppedCount {
    fn add(&mut self, units: u64, bytes: u64) {
        self.units += units;
        self.bytes += bytes;
    }
}

/// What a [`Chunker`] has dropped since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Before the first keyframe.
    pub before_keyframe: DroppedCount,
    /// Because of [`Config::drop_damaged`].
    pub damaged: DroppedCount,
}

/// What is known of the group of pictures at hand.
#[derive(Debug, Default)]
struct Gop {
    /// Access units in it, and their bytes.
    units: u64,
    bytes: u64,
    /// Something of it was lost.
    suspect: bool,
    /// Pieces of it went out without the mark.
    unmarked: bool,
    /// It is not held back (any more).
    released: bool,
}

/// Makes the pieces of one track.
#[derive(Debug)]
pub struct Chunker<T> {
    codec: Codec,
    config: Config,
    rule: Rule,
    /// The piece at hand, without its envelope.
    open: Piece<T>,
    envelope: EnvelopeWriter,
    /// Time of the first access unit of the piece at hand.
    began_ns: Option<u64>,
    /// Length in bytes of the last record.
    last: usize,
    /// There was an access unit, and there was a keyframe.
    seen: bool,
    started: bool,
    gop: Gop,
    held: Vec<Piece<T>>,
    held_bytes: usize,
    dropped: Dropped,
    /// The records of the access unit at hand; kept for their memory.
    records: (Vec<u8>, Vec<u8>),
}

fn empty<T>() -> Piece<T> {
    Piece {
        content: Vec::new(),
        envelope: Vec::new(),
        units: Vec::new(),
        lead: 0,
        gop_start: false,
        suspect: false,
        prev_suspect: false,
    }
}

impl<T: Clone> Chunker<T> {
    /// A chunker for a track of `codec`. A `config` out of range is brought into it, see [`Config`].
    pub fn new(codec: Codec, config: Config) -> Self {
        Chunker {
            rule: Rule::new(&codec, &config),
            codec,
            config,
            open: empty(),
            envelope: EnvelopeWriter::new(),
            began_ns: None,
            last: 0,
            seen: false,
            started: false,
            gop: Gop::default(),
            held: Vec::new(),
            held_bytes: 0,
            dropped: Dropped::default(),
            records: Default::default(),
        }
    }

    /// Takes the next access unit and appends the pieces that are complete to `out`.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`]; the access unit is not taken, and nothing else has changed.
    pub fn push(
        &mut self,
        au: AccessUnit<'_, T>,
        out: &mut Vec<Piece<T>>,
    ) -> Result<(), FrameError> {
        if au.data.len() > MAX_AU_BYTES && self.codec != Codec::Bytes {
            return Err(FrameError::TooLarge);
        }
        // The first buffer of every stream is marked; nothing was lost before it.
        let damaged = au.discont && self.seen;
        self.seen = true;
        if self.codec.has_delta_units() {
            if au.keyframe {
                self.next_gop(damaged, out);
            } else if !self.started {
                self.dropped.before_keyframe.add(1, au.data.len() as u64);
                return Ok(());
            }
            self.gop.units += 1;
            self.gop.bytes += au.data.len() as u64;
            self.gop.suspect |= damaged;
        } else if damaged && self.config.drop_damaged && self.codec != Codec::Bytes {
            self.dropped.damaged.add(1, au.data.len() as u64);
            return Ok(());
        }
        self.add(au, damaged, out);
        Ok(())
    }

    /// Appends all that is left to `out`. What is pushed after it begins like a new stream, at a
    /// keyframe.
    pub fn finish(&mut self, out: &mut Vec<Piece<T>>) {
        self.end_gop(false, out);
        self.started = false;
    }

    /// Continues with another codec: as [`finish`](Self::finish), then `codec`. Does nothing if it
    /// is the same, as caps often come twice.
    pub fn set_codec(&mut self, codec: Codec, out: &mut Vec<Piece<T>>) {
        if codec != self.codec {
            self.finish(out);
            self.rule = Rule::new(&codec, &self.config);
            self.codec = codec;
        }
    }

    /// Ends the piece at hand before its time, because what follows is described otherwise (other
    /// caps, another time segment). The group of pictures goes on.
    pub fn flush(&mut self, out: &mut Vec<Piece<T>>) {
        self.cut(out);
    }

    /// What was dropped so far.
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// Ends the group at hand and begins the next, whose keyframe came `damaged` or after a loss.
    fn next_gop(&mut self, damaged: bool, out: &mut Vec<Piece<T>>) {
        self.open.prev_suspect = self.end_gop(damaged, out);
        self.open.gop_start = true;
        self.started = true;
    }

    /// Ends the group at hand. Whether the next must say that it is suspect.
    fn end_gop(&mut self, damaged: bool, out: &mut Vec<Piece<T>>) -> bool {
        self.gop.suspect |= damaged && self.gop.units > 0;
        self.cut(out);
        let gop = std::mem::take(&mut self.gop);
        self.held_bytes = 0;
        if gop.suspect && !self.held.is_empty() {
            self.held.clear();
            self.dropped.damaged.add(gop.units, gop.bytes);
            return false;
        }
        out.append(&mut self.held);
        gop.suspect && (damaged || gop.unmarked)
    }

    fn add(&mut self, au: AccessUnit<'_, T>, damaged: bool, out: &mut Vec<Piece<T>>) {
        let (mut content, mut envelope) = std::mem::take(&mut self.records);
        content.clear();
        envelope.clear();
        let record = match self.codec {
            Codec::Bytes => au.data,
            _ => {
                write_records(
                    au.data,
                    &self.codec.items(au.data),
                    &mut content,
                    &mut envelope,
                );
                &content
            }
        };
        if self.ends_before(record, au.time_ns) {
            self.cut(out);
        }
        self.feed(record, &envelope, au.time_ns, damaged, au.info, out);
        self.last = record.len();
        self.records = (content, envelope);
    }

    fn ends_before(&self, record: &[u8], time_ns: Option<u64>) -> bool {
        let len = self.open.content.len();
        if len == 0 {
            return false;
        }
        let late = self.config.max_time_ns > 0
            && self
                .began_ns
                .zip(time_ns)
                .is_some_and(|(began, now)| began.abs_diff(now) >= self.config.max_time_ns);
        // An envelope may grow without content, but no honest one does.
        late || self.envelope.len() > self.rule.max_bytes
            || self.rule.cut_before(
                Filled {
                    len,
                    lead: self.open.lead > 0,
                    last: self.last,
                },
                record,
            )
    }

    /// Adds a record to the piece at hand and to those that it fills.
    fn feed(
        &mut self,
        record: &[u8],
        envelope: &[u8],
        time_ns: Option<u64>,
        damaged: bool,
        info: T,
        out: &mut Vec<Piece<T>>,
    ) {
        let plain = self.codec == Codec::Bytes;
        // Below 2^32: a record is little longer than its access unit.
        let content_len = u32::try_from(record.len()).unwrap_or(u32::MAX);
        let mut rest = record;
        while !rest.is_empty() {
            let (take, full) = self.rule.within.scan(self.open.content.len(), rest);
            let (now, later) = rest.split_at(take);
            if take > 0 {
                if self.open.content.is_empty() {
                    self.began_ns = time_ns;
                }
                let begins = rest.len() == record.len();
                if begins && !plain || plain && self.open.units.is_empty() {
                    self.open.units.push(Unit {
                        info: info.clone(),
                        content_len,
                    });
                    if !plain {
                        self.envelope.push(envelope);
                    }
                } else if self.open.units.is_empty() {
                    self.open.lead += take as u32;
                }
                self.open.content.extend_from_slice(now);
                self.open.suspect |= damaged;
            }
            if full {
                self.cut(out);
            }
            rest = later;
        }
    }

    /// Ends the piece at hand, if there is anything in it.
    fn cut(&mut self, out: &mut Vec<Piece<T>>) {
        self.rule.within.reset();
        if self.open.content.is_empty() {
            return;
        }
        let mut piece = std::mem::replace(&mut self.open, empty());
        piece.envelope = self.envelope.take();
        if self.codec == Codec::Bytes
            && let Some(unit) = piece.units.first_mut()
        {
            unit.content_len = piece.content.len() as u32;
        }
        if !self.codec.has_delta_units() {
            piece.gop_start = !piece.units.is_empty();
            out.push(piece);
            return;
        }
        piece.suspect = self.gop.suspect;
        self.gop.unmarked |= !piece.suspect;
        if !self.config.drop_damaged || self.gop.released {
            out.push(piece);
            return;
        }
        self.held_bytes += piece.content.len() + piece.envelope.len();
        self.held.push(piece);
        if self.held_bytes > self.rule.max_bytes.saturating_mul(HELD_PIECES) {
            self.gop.released = true;
            out.append(&mut self.held);
        }
    }
}
