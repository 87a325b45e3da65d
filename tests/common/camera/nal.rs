// SPDX-License-Identifier: MPL-2.0
//! Parameter sets in and out of length-prefixed H.264 and H.265 access units.

use std::iter;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Codec {
    H264,
    H265,
}

/// What the caps say about an access unit's framing.
pub struct NalFormat {
    codec: Codec,
    length_size: usize,
    /// Every VPS, SPS and PPS of the codec data, in order.
    sets: Vec<Vec<u8>>,
}

impl NalFormat {
    /// `None` for anything but length-prefixed H.264 or H.265.
    pub fn from_caps(caps: &gst::Caps) -> Option<Self> {
        let structure = caps.structure(0)?;
        let codec = match structure.name().as_str() {
            "video/x-h264" => Codec::H264,
            "video/x-h265" => Codec::H265,
            _ => return None,
        };
        let codec_data = structure.get::<gst::Buffer>("codec_data").ok()?;
        let codec_data = codec_data.map_readable().ok()?;
        match codec {
            Codec::H264 => Self::from_avcc(&codec_data),
            Codec::H265 => Self::from_hvcc(&codec_data),
        }
    }

    fn from_avcc(data: &[u8]) -> Option<Self> {
        let length_size = usize::from(data.get(4)? & 3) + 1;
        let mut rest = data.get(5..)?;
        let mut sets = Vec::new();
        // Sequence, then picture parameter sets.
        for mask in [0x1f, 0xff] {
            let count = take(&mut rest, 1)?[0] & mask;
            for _ in 0..count {
                sets.push(take_prefixed(&mut rest, 2)?.to_vec());
            }
        }
        Some(Self {
            codec: Codec::H264,
            length_size,
            sets,
        })
    }

    fn from_hvcc(data: &[u8]) -> Option<Self> {
        let length_size = usize::from(data.get(21)? & 3) + 1;
        let mut rest = data.get(22..)?;
        let mut sets = Vec::new();
        let arrays = take(&mut rest, 1)?[0];
        for _ in 0..arrays {
            let header = take(&mut rest, 3)?;
            for _ in 0..u16::from_be_bytes([header[1], header[2]]) {
                sets.push(take_prefixed(&mut rest, 2)?.to_vec());
            }
        }
        Some(Self {
            codec: Codec::H265,
            length_size,
            sets,
        })
    }

    fn is_set(&self, nal: &[u8]) -> bool {
        match (self.codec, nal.first()) {
            (Codec::H264, Some(head)) => matches!(head & 0x1f, 7 | 8 | 13 | 15),
            (Codec::H265, Some(head)) => matches!(head >> 1 & 0x3f, 32..=34),
            (_, None) => false,
        }
    }

    fn is_delimiter(&self, nal: &[u8]) -> bool {
        match (self.codec, nal.first()) {
            (Codec::H264, Some(head)) => head & 0x1f == 9,
            (Codec::H265, Some(head)) => head >> 1 & 0x3f == 35,
            (_, None) => false,
        }
    }
}

fn take<'a>(rest: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(n)?;
    *rest = tail;
    Some(head)
}

fn take_prefixed<'a>(rest: &mut &'a [u8], length_size: usize) -> Option<&'a [u8]> {
    let prefix = take(rest, length_size)?;
    let length = prefix.iter().fold(0, |n, b| n << 8 | usize::from(*b));
    take(rest, length)
}

/// The access unit with its parameter sets (`due`) or without any. Sets that the unit brings
/// along are kept as they are; else those of the codec data go in.
pub fn place_sets(format: &NalFormat, unit: &[u8], due: bool) -> Vec<u8> {
    let mut rest = unit;
    let nals: Vec<&[u8]> = iter::from_fn(|| take_prefixed(&mut rest, format.length_size)).collect();
    let brought = nals.iter().any(|nal| format.is_set(nal));
    let mut placed = Vec::with_capacity(unit.len() + 256);
    let mut put = |nal: &[u8]| {
        let length = (nal.len() as u32).to_be_bytes();
        placed.extend_from_slice(&length[4 - format.length_size..]);
        placed.extend_from_slice(nal);
    };
    let mut wanted = due && !brought;
    for nal in nals {
        if wanted && !format.is_delimiter(nal) {
            format.sets.iter().for_each(|set| put(set));
            wanted = false;
        }
        if due || !format.is_set(nal) {
            put(nal);
        }
    }
    placed
}
