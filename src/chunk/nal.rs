// SPDX-License-Identifier: MPL-2.0
//! Finding the slices (VCL NAL units) of an H.264 or H.265 access unit, and the payload of an
//! ADTS frame.
//!
//! Rec. ITU-T H.264 section 7.3.1 and annex B, H.265 section 7.3.1 and annex B; ISO/IEC 14496-15
//! for the length-prefixed form; ISO/IEC 13818-7 for ADTS.

use super::Framing;
use super::envelope::{Item, MAX_PAD, Prefix, adts_has_crc, adts_length};

/// Most slices looked for in one access unit: H.265 level 6.2 permits 600.
const MAX_ITEMS: usize = 4096;

/// Whether the NAL unit that begins with this byte is an H.264 slice, data partition or slice
/// extension (types 1-5, 20 and 21).
pub(super) fn h264_slice(header: u8) -> bool {
    matches!(header & 0x1f, 1..=5 | 20 | 21)
}

/// Whether the NAL unit that begins with this byte is an H.265 slice segment (types 0-31).
pub(super) fn h265_slice(header: u8) -> bool {
    header & 0x40 == 0
}

/// The slices of an access unit, or `None` if it is not framed as said.
pub(super) fn slices(au: &[u8], framing: Framing, slice: fn(u8) -> bool) -> Option<Vec<Item>> {
    match framing {
        Framing::AnnexB => annex_b(au, slice),
        Framing::LengthPrefixed(size @ 1..=4) => length_prefixed(au, size, slice),
        Framing::LengthPrefixed(_) => None,
    }
}

fn annex_b(au: &[u8], slice: fn(u8) -> bool) -> Option<Vec<Item>> {
    let mut items = Vec::new();
    let mut code = start_code(au, 0)?;
    loop {
        let start = code + 3;
        let next = start_code(au, start);
        let end = next.unwrap_or(au.len());
        let at = match au[..code].last() {
            Some(0) => code - 1,
            _ => code,
        };
        // The zero byte of a long start code is not the padding of the NAL unit before it.
        let limit = end - usize::from(next.is_some() && au[start..end].last() == Some(&0));
        let prefix = if at < code {
            Prefix::Start4
        } else {
            Prefix::Start3
        };
        push(
            &mut items,
            au,
            slice,
            Item {
                at,
                prefix,
                start,
                end: limit,
                pad: 0,
            },
        )?;
        match next {
            Some(next) => code = next,
            None => return Some(items),
        }
    }
}

fn length_prefixed(au: &[u8], size: u8, slice: fn(u8) -> bool) -> Option<Vec<Item>> {
    let mut items = Vec::new();
    let mut at = 0;
    while at < au.len() {
        let start = at + usize::from(size);
        let len = au
            .get(at..start)?
            .iter()
            .fold(0usize, |len, &b| len << 8 | usize::from(b));
        let end = start.checked_add(len).filter(|&end| end <= au.len())?;
        push(
            &mut items,
            au,
            slice,
            Item {
                at,
                prefix: Prefix::Length(size),
                start,
                end,
                pad: 0,
            },
        )?;
        at = end;
    }
    Some(items)
}

/// Adds a NAL unit, without the zero bytes at its end, if it is a slice. `None` if there are too
/// many.
fn push(items: &mut Vec<Item>, au: &[u8], slice: fn(u8) -> bool, mut item: Item) -> Option<()> {
    let nal = &au[item.start..item.end];
    let Some(last) = nal.iter().rposition(|&b| b != 0) else {
        return Some(());
    };
    if !nal.first().is_some_and(|&header| slice(header)) {
        return Some(());
    }
    let pad = nal.len() - last - 1;
    if pad <= MAX_PAD {
        item.pad = pad;
        item.end -= pad;
    }
    items.push(item);
    (items.len() <= MAX_ITEMS).then_some(())
}

/// Offset of the first `00 00 01` at or after `from`.
fn start_code(au: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    // Whatever follows a third byte above 1 cannot be inside a start code: most steps are of 3.
    while let Some(&[a, b, c]) = au.get(at..at + 3) {
        match (a, b, c) {
            (0, 0, 1) => return Some(at),
            (_, _, 2..) => at += 3,
            (_, 1.., _) => at += 2,
            _ => at += 1,
        }
    }
    None
}

/// The payload of an access unit that is exactly one ADTS frame, or `None`.
pub(super) fn adts(au: &[u8]) -> Option<Item> {
    let mut header: [u8; 7] = *au.first_chunk()?;
    let sync = header[0] == 0xff && header[1] & 0xf6 == 0xf0;
    if !sync || adts_length(&header) != au.len() {
        return None;
    }
    let crc = match adts_has_crc(&header) {
        true => Some(*au.get(7..)?.first_chunk()?),
        false => None,
    };
    header[3] &= !3;
    header[4] = 0;
    header[5] &= 0x1f;
    let start = 7 + if crc.is_some() { 2 } else { 0 };
    Some(Item {
        at: 0,
        prefix: Prefix::Adts(header, crc),
        start,
        end: au.len(),
        pad: 0,
    })
}
