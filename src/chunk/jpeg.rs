// SPDX-License-Identifier: MPL-2.0
//! Finding the content of a JPEG picture: the values of its quantisation tables and the entropy
//! coded data of its scans, up to the first end of image.
//!
//! Rec. ITU-T T.81 annex B. What a transport rewrites (RFC 2435 sends no headers at all: the
//! receiver makes them) is left to the envelope.

use super::envelope::{Item, Prefix};

const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const DQT: u8 = 0xdb;

/// Most tables and scans looked for in one picture.
const MAX_ITEMS: usize = 1024;

/// The content of a picture, or `None` if it is malformed.
pub(super) fn items(au: &[u8]) -> Option<Vec<Item>> {
    let mut items = Vec::new();
    if au.get(..2)? != [0xff, SOI] {
        return None;
    }
    let mut at = 2;
    loop {
        // Any number of fill bytes may precede a marker.
        if *au.get(at)? != 0xff {
            return None;
        }
        while *au.get(at)? == 0xff {
            at += 1;
        }
        let marker = *au.get(at)?;
        at += 1;
        match marker {
            EOI => return Some(items),
            // Markers without a segment: TEM and the restart markers.
            0x01 | 0xd0..=0xd7 => continue,
            0x00 | SOI => return None,
            _ => {}
        }
        let len = usize::from(u16::from_be_bytes(*au.get(at..)?.first_chunk()?));
        let end = at + len;
        if len < 2 || end > au.len() {
            return None;
        }
        if marker == DQT {
            tables(au, at + 2, end, &mut items)?;
        }
        at = end;
        if marker == SOS {
            at = scan_end(au, end)?;
            items.push(item(end, at));
        }
        if items.len() > MAX_ITEMS {
            return None;
        }
    }
}

fn item(start: usize, end: usize) -> Item {
    Item {
        at: start,
        prefix: Prefix::None,
        start,
        end,
        pad: 0,
    }
}

/// Adds the tables of a DQT segment: each a byte with precision and number, then 64 values.
fn tables(au: &[u8], mut at: usize, end: usize, items: &mut Vec<Item>) -> Option<()> {
    while at < end {
        let len = match au.get(at)? >> 4 {
            0 => 64,
            1 => 128,
            _ => return None,
        };
        let start = at + 1;
        at = start + len;
        if at > end {
            return None;
        }
        items.push(item(start, at));
    }
    Some(())
}

/// Offset of the first marker at or after `from` that is no restart marker.
fn scan_end(au: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += au.get(at..)?.iter().position(|&b| b == 0xff)?;
        match au.get(at + 1)? {
            0x00 | 0xd0..=0xd7 => at += 2,
            // A fill byte: what follows decides.
            0xff => at += 1,
            _ => return Some(at),
        }
    }
}
