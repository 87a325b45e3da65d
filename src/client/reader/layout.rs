// SPDX-License-Identifier: MPL-2.0
//! Which access units lie in which chunks, and putting them together again.

use crate::chunk::{Codec, Joiner};
use crate::manifest::{Framing, Track};
use std::collections::VecDeque;
use std::ops::Range;

/// Where one access unit's content record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// Chunk in which it begins.
    chunk: usize,
    /// Offset in that chunk.
    offset: usize,
    /// Bytes.
    len: usize,
    /// Chunk in which it ends.
    last: usize,
}

/// The layout of one track of a segment: its content stream is the chunks one after the other,
/// and the units' records one after the other.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    framing: Framing,
    places: Vec<Place>,
    /// First unit of each chunk; with the number of units at the end.
    firsts: Vec<usize>,
    /// Bytes of each chunk.
    lens: Vec<usize>,
}

/// A chunk and what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub chunk: usize,
    pub reason: String,
}

impl Fault {
    fn new(chunk: usize, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { chunk, reason }
    }
}

impl Layout {
    /// Checks that units and chunks fit each other.
    pub fn of(track: &Track) -> Result<Self, Fault> {
        let lens: Vec<usize> = track
            .chunks
            .iter()
            .map(|chunk| chunk.content.len as usize)
            .collect();
        let mut units = track.units.iter().map(|unit| unit.content_len as usize);
        let mut places: Vec<Place> = Vec::with_capacity(track.units.len());
        let mut firsts = Vec::with_capacity(lens.len() + 1);
        // Bytes of the last unit that are still to come when a chunk begins.
        let mut lead = 0;
        for (index, (chunk, len)) in track.chunks.iter().zip(&lens).enumerate() {
            firsts.push(places.len());
            let mut at = lead.min(*len);
            lead -= at;
            if let Some(place) = places.last_mut().filter(|_| at > 0) {
                place.last = index;
            }
            for _ in 0..chunk.units {
                let unit = units
                    .next()
                    .ok_or_else(|| Fault::new(index, "the manifest lacks its units"))?;
                if lead > 0 {
                    return Err(Fault::new(index, "its units do not fit it"));
                }
                places.push(Place {
                    chunk: index,
                    offset: at,
                    len: unit,
                    last: index,
                });
                lead = unit.saturating_sub(len - at);
                at = (at + unit).min(*len);
            }
            if at < *len {
                return Err(Fault::new(index, "it holds bytes of no unit"));
            }
        }
        firsts.push(places.len());
        if lead > 0 || units.next().is_some() {
            return Err(Fault::new(
                lens.len().saturating_sub(1),
                "units are left over at the segment's end",
            ));
        }
        Ok(Self {
            framing: track.framing,
            places,
            firsts,
            lens,
        })
    }

    /// The chunks in which a unit's record lies.
    pub fn chunks_of(&self, unit: usize) -> Range<usize> {
        self.places
            .get(unit)
            .map_or(0..0, |place| place.chunk..place.last + 1)
    }

    /// The units that begin in a chunk.
    pub fn units_of(&self, chunk: usize) -> Range<usize> {
        match self.firsts.get(chunk..chunk + 2) {
            Some(&[first, end]) => first..end,
            _ => 0..0,
        }
    }
}

/// A content and its envelope, both checked.
pub type Fetched = (Vec<u8>, Vec<u8>);

/// Takes chunks in order, from any one on, and gives the units that begin in them.
#[derive(Debug)]
pub(super) struct Assembler {
    held: VecDeque<(usize, Fetched)>,
}

impl Assembler {
    pub fn new() -> Self {
        Self {
            held: VecDeque::new(),
        }
    }

    /// Takes the next chunk and appends the units that became whole, with their numbers.
    pub fn push(
        &mut self,
        layout: &Layout,
        chunk: usize,
        fetched: Fetched,
        out: &mut impl Extend<(usize, Vec<u8>)>,
    ) -> Result<(), Fault> {
        if layout.lens.get(chunk) != Some(&fetched.0.len()) {
            return Err(Fault::new(chunk, "its length is not the recorded one"));
        }
        self.held.push_back((chunk, fetched));
        while let Some((first, _)) = self.held.front() {
            let units = layout.units_of(*first);
            // A chunk's envelope is read from its beginning, so all its units have to be there.
            if !units.is_empty() && layout.chunks_of(units.end - 1).end > chunk + 1 {
                break;
            }
            out.extend(self.join(layout, units)?);
            self.held.pop_front();
        }
        Ok(())
    }

    /// The units of the first chunk held.
    fn join(&self, layout: &Layout, units: Range<usize>) -> Result<Vec<(usize, Vec<u8>)>, Fault> {
        let Some((chunk, (_, envelope))) = self.held.front() else {
            return Ok(Vec::new());
        };
        let wrong = |reason: String| Fault::new(*chunk, reason);
        let codec = match layout.framing {
            Framing::Bytes => Codec::Bytes,
            Framing::Records => Codec::Opaque,
        };
        let mut joiner = Joiner::new(&codec, envelope);
        let mut joined = Vec::with_capacity(units.len());
        let mut scratch = Vec::new();
        for unit in units {
            let record = layout
                .places
                .get(unit)
                .and_then(|place| self.record(place, &mut scratch))
                .ok_or_else(|| wrong("a unit's bytes are not there".into()))?;
            let data = joiner.next(record).map_err(|e| wrong(e.to_string()))?;
            joined.push((unit, data));
        }
        match joiner.is_done() {
            true => Ok(joined),
            false => Err(wrong("its envelope goes on after its last unit".into())),
        }
    }

    fn record<'a>(&'a self, place: &Place, scratch: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        let (_, (content, _)) = self.held.front()?;
        let begun = content.get(place.offset..)?;
        if let Some(record) = begun.get(..place.len) {
            return Some(record);
        }
        scratch.clear();
        scratch.extend_from_slice(begun);
        for (_, (content, _)) in self.held.iter().skip(1) {
            let missing = place.len - scratch.len();
            scratch.extend_from_slice(content.get(..missing).unwrap_or(content));
        }
        (scratch.len() == place.len).then_some(scratch.as_slice())
    }
}
