// SPDX-License-Identifier: MPL-2.0
//! One stream through the chunker: buffers and their descriptions in, chunks out.

use crate::chunk::{AccessUnit, Chunker, Codec, Config, FrameError, Piece};
use crate::client::recorder::StreamChunk;
use crate::elements::support::{clock, media};
use crate::manifest::{Framing, MAX_INLINE_ENVELOPE, TimeSegment, UnitInfo};
use crate::rce::{ChunkId, DomainSecret};
use std::sync::Arc;

/// What holds for all units of a chunk.
#[derive(Clone, Debug, PartialEq)]
struct Context {
    caps: String,
    time: TimeSegment,
    framing: Framing,
}

/// What is remembered of a unit until its chunk is cut.
#[derive(Clone)]
struct Unit {
    info: UnitInfo,
    /// Running time of its begin and end.
    running: Option<(u64, u64)>,
    utc: Option<i64>,
    context: Arc<Context>,
}

/// A group of pictures with losses.
#[derive(Debug)]
pub struct Damage {
    /// Running time, about, ns.
    pub running: Option<u64>,
    /// Whether it was sent on.
    pub kept: bool,
}

/// What came out.
#[derive(Default)]
pub struct Output {
    /// Chunks, in order.
    pub chunks: Vec<StreamChunk>,
    /// Damage to announce.
    pub damage: Vec<Damage>,
}

/// Totals of a stream.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Access units, or buffers of bytes, taken in.
    pub units: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Chunks sent on.
    pub chunks: u64,
    /// Their bytes.
    pub content_bytes: u64,
    /// Bytes of their envelopes.
    pub envelope_bytes: u64,
    /// Chunks marked as suspect.
    pub suspect: u64,
    /// Groups of pictures with losses.
    pub damaged: u64,
    /// Access units dropped because of losses.
    pub dropped: u64,
    /// Access units dropped before the first keyframe.
    pub before_keyframe: u64,
}

/// A stream.
pub struct Track {
    chunker: Chunker<Unit>,
    codec: Codec,
    domain: Option<DomainSecret>,
    caps: Option<gst::Caps>,
    segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    context: Arc<Context>,
    /// What the chunks so far said.
    told: Option<Arc<Context>>,
    tags: Option<gst::TagList>,
    new_tags: bool,
    /// The group of pictures at hand was announced as damaged.
    announced: bool,
    last_running: Option<u64>,
    pieces: Vec<Piece<Unit>>,
    /// Totals.
    pub stats: Stats,
}

impl Track {
    /// A stream of which nothing is known yet.
    pub fn new(config: Config, domain: Option<DomainSecret>) -> Self {
        let context = Context {
            caps: media::BYTES.into(),
            time: time_of(None),
            framing: Framing::Bytes,
        };
        Self {
            chunker: Chunker::new(Codec::Bytes, config),
            codec: Codec::Bytes,
            domain,
            caps: None,
            segment: None,
            context: Arc::new(context),
            told: None,
            tags: None,
            new_tags: false,
            announced: false,
            last_running: None,
            pieces: Vec::new(),
            stats: Stats::default(),
        }
    }

    /// Buffers begin anew after a flush; caps and tags hold on, a segment comes.
    pub fn reset(&mut self, config: Config) {
        let old = std::mem::replace(self, Self::new(config, self.domain.clone()));
        self.caps = old.caps;
        self.tags = old.tags;
        self.stats = old.stats;
        self.describe();
    }

    /// The caps of the stream, if it has any.
    pub fn caps(&self) -> Option<&gst::Caps> {
        self.caps.as_ref()
    }

    /// Other caps from the next buffer on.
    pub fn set_caps(&mut self, caps: gst::Caps) -> Output {
        self.caps = Some(caps);
        self.describe()
    }

    /// Another segment from the next buffer on; without times unless it is one of time.
    pub fn set_segment(&mut self, segment: &gst::Segment) -> Output {
        self.segment = segment.downcast_ref::<gst::ClockTime>().cloned();
        self.describe()
    }

    /// More tags.
    pub fn add_tags(&mut self, tags: &gst::TagListRef) {
        let merged = match &self.tags {
            Some(old) => old.merge(tags, gst::TagMergeMode::Replace),
            None => tags.to_owned(),
        };
        self.new_tags |= self.tags.as_ref() != Some(&merged);
        self.tags = Some(merged);
    }

    /// A new stream has its own tags.
    pub fn forget_tags(&mut self) {
        self.tags = None;
    }

    /// The running time of a buffer, if it has one.
    pub fn running(&self, buffer: &gst::BufferRef) -> Option<u64> {
        let time = buffer.pts().or(buffer.dts())?;
        let running = self.segment.as_ref()?.to_running_time_full(time)?;
        running.positive().map(gst::ClockTime::nseconds)
    }

    /// Takes a buffer; `now` is the running time in a live pipeline.
    pub fn push(
        &mut self,
        buffer: &gst::BufferRef,
        data: &[u8],
        now: Option<gst::ClockTime>,
    ) -> Result<Output, FrameError> {
        let timed = self.segment.is_some();
        let ns =
            |time: Option<gst::ClockTime>| time.filter(|_| timed).map(gst::ClockTime::nseconds);
        let (pts, dts, duration) = (ns(buffer.pts()), ns(buffer.dts()), ns(buffer.duration()));
        let begin = self.running(buffer);
        let running = begin.map(|begin| (begin, begin.saturating_add(duration.unwrap_or(0))));
        let flags = buffer.flags();
        let unit = Unit {
            info: UnitInfo {
                content_len: 0,
                flags: recorded(flags),
                pts,
                dts,
                duration,
            },
            running,
            utc: begin.and_then(|begin| {
                clock::of_sender(buffer).or_else(|| clock::of_machine(begin, now?))
            }),
            context: self.context.clone(),
        };
        self.last_running = begin.or(self.last_running);
        let before = self.chunker.dropped();
        self.chunker.push(
            AccessUnit {
                data,
                keyframe: !flags.contains(gst::BufferFlags::DELTA_UNIT),
                discont: flags.contains(gst::BufferFlags::DISCONT),
                time_ns: pts.or(dts),
                info: unit,
            },
            &mut self.pieces,
        )?;
        self.stats.units += 1;
        self.stats.bytes_in += data.len() as u64;
        let mut out = Output::default();
        let dropped = self.chunker.dropped();
        self.stats.before_keyframe = dropped.before_keyframe.units;
        self.stats.dropped = dropped.damaged.units;
        if dropped.damaged != before.damaged {
            self.stats.damaged += 1;
            out.damage.push(Damage {
                running: self.last_running,
                kept: false,
            });
        }
        self.collect(&mut out);
        Ok(out)
    }

    /// The stream ends.
    pub fn finish(&mut self) -> Output {
        let before = self.chunker.dropped().damaged;
        self.chunker.finish(&mut self.pieces);
        let mut out = Output::default();
        let dropped = self.chunker.dropped().damaged;
        self.stats.dropped = dropped.units;
        if dropped != before {
            self.stats.damaged += 1;
            out.damage.push(Damage {
                running: self.last_running,
                kept: false,
            });
        }
        self.collect(&mut out);
        out
    }

    /// Takes notice of caps and segment. A piece has one description, so the one at hand ends.
    fn describe(&mut self) -> Output {
        let mut out = Output::default();
        let codec = media::codec(self.caps.as_deref(), self.segment.is_some());
        let context = Context {
            caps: match &self.caps {
                Some(caps) => caps.to_string(),
                None => media::BYTES.into(),
            },
            time: time_of(self.segment.as_ref()),
            framing: match codec {
                Codec::Bytes => Framing::Bytes,
                _ => Framing::Records,
            },
        };
        if *self.context == context {
            return out;
        }
        self.chunker.flush(&mut self.pieces);
        self.chunker.set_codec(codec, &mut self.pieces);
        self.codec = codec;
        self.collect(&mut out);
        self.context = Arc::new(context);
        out
    }

    /// Makes chunks of the pieces.
    fn collect(&mut self, out: &mut Output) {
        let pieces = std::mem::take(&mut self.pieces);
        let contents: Vec<_> = pieces.iter().map(|piece| &piece.content[..]).collect();
        let ids = ChunkId::of_each(&contents, self.domain.as_ref());
        for (piece, id) in pieces.into_iter().zip(ids) {
            self.announce(&piece, &mut out.damage);
            let chunk = self.chunk(piece, id);
            self.stats.chunks += 1;
            self.stats.content_bytes += chunk.content.len() as u64;
            self.stats.envelope_bytes += chunk.envelope.len() as u64;
            self.stats.suspect += u64::from(chunk.suspect);
            out.chunks.push(chunk);
        }
    }

    fn announce(&mut self, piece: &Piece<Unit>, damage: &mut Vec<Damage>) {
        let late = piece.prev_suspect && !self.announced;
        if piece.gop_start {
            self.announced = false;
        }
        let here = piece.suspect && !self.announced;
        self.announced |= here;
        for _ in 0..u8::from(late) + u8::from(here) {
            self.stats.damaged += 1;
            damage.push(Damage {
                running: piece
                    .units
                    .first()
                    .and_then(|unit| Some(unit.info.running?.0))
                    .or(self.last_running),
                kept: true,
            });
        }
    }

    fn chunk(&mut self, piece: Piece<Unit>, id: ChunkId) -> StreamChunk {
        let domain = self.domain.as_ref();
        let first = piece.units.first().map(|unit| unit.info.clone());
        let context = match &first {
            Some(unit) => unit.context.clone(),
            // It goes on with a unit of the chunk before.
            None => self.told.as_ref().unwrap_or(&self.context).clone(),
        };
        // A group of pictures says all that is needed to begin with it.
        let told = self.told.as_ref().filter(|_| !piece.gop_start);
        let caps =
            (told.map(|told| &told.caps) != Some(&context.caps)).then(|| context.caps.clone());
        let time = (told.map(|told| &told.time) != Some(&context.time)).then_some(context.time);
        let new_tags = std::mem::take(&mut self.new_tags) || piece.gop_start;
        let running = piece
            .units
            .iter()
            .filter_map(|unit| unit.info.running)
            .reduce(|(begin, end), (b, e)| (begin.min(b), end.max(e)));
        let chunk = StreamChunk {
            track: 0,
            id,
            in_domain: domain.is_some(),
            envelope_id: (piece.envelope.len() > MAX_INLINE_ENVELOPE)
                .then(|| ChunkId::of(&piece.envelope, domain)),
            content: piece.content,
            envelope: piece.envelope,
            framing: context.framing,
            units: piece
                .units
                .into_iter()
                .map(|unit| UnitInfo {
                    content_len: unit.content_len,
                    ..unit.info.info
                })
                .collect(),
            gop_start: piece.gop_start,
            suspect: piece.suspect,
            prev_suspect: piece.prev_suspect,
            caps,
            time,
            tags: self
                .tags
                .as_ref()
                .filter(|_| new_tags)
                .map(|tags| tags.to_string()),
            running,
            clock: first.and_then(|unit| Some((unit.running?.0, unit.utc?))),
        };
        self.told = Some(context);
        chunk
    }
}

/// Flags of the buffer, without those of mini objects and the note of how its memory was got.
fn recorded(flags: gst::BufferFlags) -> u32 {
    (flags - gst::BufferFlags::TAG_MEMORY).bits() & !0xf
}

fn time_of(segment: Option<&gst::FormattedSegment<gst::ClockTime>>) -> TimeSegment {
    let ns = |time: Option<gst::ClockTime>| time.map_or(0, gst::ClockTime::nseconds);
    match segment {
        None => TimeSegment {
            start: 0,
            stop: None,
            time: 0,
            base: 0,
        },
        Some(segment) => TimeSegment {
            start: ns(segment.start()).saturating_add(ns(segment.offset())),
            stop: segment.stop().map(gst::ClockTime::nseconds),
            time: ns(segment.time()).saturating_add(ns(segment.offset())),
            base: ns(segment.base()),
        },
    }
}
