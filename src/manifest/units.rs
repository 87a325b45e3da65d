// SPDX-License-Identifier: MPL-2.0
//! Times and sizes of access units, stored as columns of differences that compress well.

use minicbor::{Decode, Encode};

/// One access unit as its buffer was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnitInfo {
    /// Bytes of its record in the content stream.
    pub content_len: u32,
    /// `GstBufferFlags`, without `TAG_MEMORY`.
    pub flags: u32,
    /// Presentation time, ns, in the track's time segment.
    pub pts: Option<u64>,
    /// Decoding time, ns.
    pub dts: Option<u64>,
    /// Duration, ns.
    pub duration: Option<u64>,
}

/// The access units of a track in a segment. `pts` and `dts` hold the difference to the last
/// value of the same column that was not null (to 0 at first), modulo 2^64.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Units {
    #[n(0)]
    content_len: Vec<u32>,
    #[n(1)]
    flags: Vec<u32>,
    #[n(2)]
    pts: Vec<Option<i64>>,
    #[n(3)]
    dts: Vec<Option<i64>>,
    #[n(4)]
    duration: Vec<Option<u64>>,
}

impl FromIterator<UnitInfo> for Units {
    fn from_iter<I: IntoIterator<Item = UnitInfo>>(units: I) -> Self {
        let mut out = Self::default();
        let (mut pts, mut dts) = (0u64, 0u64);
        let difference = |last: &mut u64, now: Option<u64>| {
            let now = now?;
            Some(now.wrapping_sub(std::mem::replace(last, now)).cast_signed())
        };
        for unit in units {
            out.content_len.push(unit.content_len);
            out.flags.push(unit.flags);
            out.pts.push(difference(&mut pts, unit.pts));
            out.dts.push(difference(&mut dts, unit.dts));
            out.duration.push(unit.duration);
        }
        out
    }
}

impl Units {
    /// Number of units; columns of different lengths count as the shortest.
    pub fn len(&self) -> usize {
        let Self {
            content_len,
            flags,
            pts,
            dts,
            duration,
        } = self;
        [
            content_len.len(),
            flags.len(),
            pts.len(),
            dts.len(),
            duration.len(),
        ]
        .into_iter()
        .min()
        .unwrap_or(0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The units, in order.
    pub fn iter(&self) -> impl Iterator<Item = UnitInfo> {
        let (mut pts, mut dts) = (0u64, 0u64);
        let sum = |last: &mut u64, difference: Option<i64>| {
            *last = last.wrapping_add_signed(difference?);
            Some(*last)
        };
        let columns = self
            .content_len
            .iter()
            .zip(&self.flags)
            .zip(&self.pts)
            .zip(&self.dts)
            .zip(&self.duration);
        columns.map(move |((((content_len, flags), p), d), duration)| UnitInfo {
            content_len: *content_len,
            flags: *flags,
            pts: sum(&mut pts, *p),
            dts: sum(&mut dts, *d),
            duration: *duration,
        })
    }
}
