// SPDX-License-Identifier: MPL-2.0
//! Recounts everything from the segments.

use super::chunks;
use super::owners::usage_of;
use super::recordings::segment_key;
use super::tx::{Space, Tx, parse};
use crate::ownership::{Leaf, Tree};
use crate::protocol::Stats;
use crate::store::record::{BlobState, SegmentRecord, VariantRecord};
use crate::store::{Audit, Error, Hash};
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

type Refs = HashMap<(Hash, Hash), BTreeMap<Leaf, u64>>;

/// See [`Metadata::audit`](crate::store::Metadata::audit).
pub fn audit(tx: &mut Tx<'_>, tree: &Tree, now: u64) -> Result<Audit, Error> {
    let mut audit = Audit::default();
    let mut stats = Stats::default();
    let refs = count_refs(tx, &mut stats)?;
    audit.segments = stats.segments;
    // First the members, whose changes keep the totals right by themselves ...
    let mut wrong = Vec::new();
    chunks::each(tx, None, |place, record| {
        let counted = refs.get(&(place.tag, place.d1));
        for (leaf, member) in &record.members {
            let counted = counted.and_then(|c| c.get(leaf)).copied().unwrap_or(0);
            if member.refs != counted || (counted == 0 && member.hold_until == 0) {
                wrong.push((place.tag, place.d1, *leaf, counted));
            }
        }
        ControlFlow::Continue(())
    })?;
    audit.mended += wrong.len() as u64;
    for (tag, d1, leaf, counted) in wrong {
        chunks::release(tx, tree, (&tag, &d1), leaf, now, |m| m.refs = counted)?;
    }
    if audit.mended > 0 {
        // ... then, in a later audit, the totals of what has been committed by then.
        return Ok(audit);
    }
    mend_totals(tx, stats, &mut audit)?;
    Ok(audit)
}

fn count_refs(tx: &Tx<'_>, stats: &mut Stats) -> Result<Refs, Error> {
    let mut refs = Refs::new();
    let end = vec![0xff; segment_key(0, &[0; 16], 0).len() + 1];
    for pair in tx.walk(Space::Segments, Vec::new(), end) {
        let (key, value) = pair?;
        let (leaf, _) = key
            .split_first_chunk()
            .ok_or(Error::Corrupt("segment key"))?;
        let segment: SegmentRecord = parse(&value)?;
        stats.segments += 1;
        stats.bytes_manifests += segment.manifest.len() as u64 + segment.head_len;
        for chunk in segment.chunks {
            let members = refs.entry((*chunk.tag, *chunk.d1)).or_default();
            *members.entry(Leaf::from_be_bytes(*leaf)).or_default() += 1;
        }
    }
    Ok(refs)
}

fn mend_totals(tx: &mut Tx<'_>, mut stats: Stats, audit: &mut Audit) -> Result<(), Error> {
    let mut usage: BTreeMap<Leaf, u64> = BTreeMap::new();
    let mut uses: HashMap<Hash, u32> = HashMap::new();
    let mut last_tag = None;
    let count = |place: super::Place, record: VariantRecord| {
        stats.variants += 1;
        stats.bytes_stored += u64::from(place.len);
        stats.chunks += u64::from(last_tag.replace(place.tag) != Some(place.tag));
        *uses.entry(place.d1).or_default() += 1;
        for (leaf, member) in record.members {
            *usage.entry(leaf).or_default() += member.charged() * u64::from(place.len);
            stats.bytes_logical += member.refs * u64::from(place.len);
        }
        ControlFlow::Continue(())
    };
    chunks::each(tx, None, count)?;
    for pair in tx.walk(Space::Owners, b"u".to_vec(), usage_of(Leaf::MAX)) {
        // Signing keys may begin with the same letter; only usages have this length.
        let (key, value) = pair?;
        if let Some((_, leaf)) = key.split_first().filter(|_| key.len() == 5) {
            let leaf = leaf.try_into().map_err(|_| Error::Corrupt("usage"))?;
            let leaf = Leaf::from_be_bytes(leaf);
            let counted = usage.remove(&leaf).unwrap_or(0);
            if parse::<u64>(&value)? != counted {
                audit.mended += 1;
                tx.put(Space::Owners, key, &counted);
            }
        }
    }
    for (leaf, counted) in usage {
        audit.mended += 1;
        tx.put(Space::Owners, usage_of(leaf), &counted);
    }
    for pair in tx.walk(Space::Blobs, Vec::new(), vec![0xff; 33]) {
        let (key, value) = pair?;
        let d1 = Hash::try_from(key.as_slice()).map_err(|_| Error::Corrupt("blob key"))?;
        match (parse::<BlobState>(&value)?, uses.remove(&d1)) {
            (BlobState::Used(n), Some(counted)) if n == counted => stats.blobs += 1,
            (BlobState::Trash(_) | BlobState::Claimed(_), None) => stats.blobs += 1,
            (BlobState::Deleted(_), None) => (),
            (_, Some(counted)) => {
                audit.mended += 1;
                stats.blobs += 1;
                tx.put(Space::Blobs, key, &BlobState::Used(counted));
            }
            // Counted as used by nothing: an orphan again, found by its name on the disk.
            (BlobState::Used(_), None) => {
                audit.mended += 1;
                tx.remove(Space::Blobs, key);
            }
        }
    }
    for (d1, counted) in uses {
        audit.mended += 1;
        stats.blobs += 1;
        tx.put(Space::Blobs, d1.to_vec(), &BlobState::Used(counted));
    }
    let end = b"s".to_vec();
    for pair in tx.walk(Space::Records, b"r".to_vec(), end) {
        let recording: crate::store::record::RecordingRecord = parse(&pair?.1)?;
        stats.recordings += 1;
        stats.bytes_manifests += recording.summary.len() as u64;
    }
    stats.owners = tx.totals()?.next_leaf;
    if tx.totals()?.stats != stats {
        audit.mended += 1;
        tx.count(|t| t.stats = stats)?;
    }
    Ok(())
}
