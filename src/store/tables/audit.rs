// SPDX-License-Identifier: MPL-2.0
//! Recounts everything from the segments.
//!
//! The counting is done in a snapshot, in parts, so that memory is bounded, and nobody waits for
//! it. What is wrong there is mended in small transactions: a total by the difference, whatever it
//! has become since; a single count if it is still what it was, else the next audit sees to it.

use super::owners::{self, usage_of};
use super::{Delta, Engine, Needs, Snapshot, Space, Tx, chunks, members, parse, trash, tx};
use crate::ownership::{Leaf, Tree};
use crate::protocol::Stats;
use crate::store::record::{self, BlobState, Group, RecordingRecord, SegmentRecord, VariantRecord};
use crate::store::{Audit, Error, Hash};
use std::collections::{BTreeMap, HashMap};

/// Records read at once; segments can be large.
const PAGE: usize = 128;
/// Records mended in one transaction.
const BATCH: usize = 64;
/// Variants looked at in one part.
const PART: u64 = 1 << 20;

/// A reference count that is wrong.
#[derive(Clone, Copy)]
struct Member {
    tag: Hash,
    d1: Hash,
    leaf: Leaf,
    recorded: u64,
    counted: u64,
}

/// What is wrong in a snapshot.
#[derive(Default)]
struct Wrong {
    members: Vec<Member>,
    /// Of variants whose members are in rows: how many, recorded and counted.
    numbers: Vec<(Hash, Hash, u64, u64)>,
    /// Recorded and counted.
    usage: Vec<(Leaf, u64, u64)>,
    blobs: Vec<(Hash, Option<BlobState>, u32)>,
}

/// See [`Metadata::audit`](crate::store::Metadata::audit).
pub async fn audit<E: Engine>(engine: &E, tree: &Tree, now: u64) -> Result<Audit, Error> {
    let mut snapshot = engine.snapshot().await?;
    let recorded = snapshot.totals();
    let (mut counted, mut wrong) = (Stats::default(), Wrong::default());
    let mut usage = BTreeMap::new();
    for part in parts(recorded.variants) {
        // Every part reads all segments again.
        counted.segments = 0;
        counted.bytes_manifests = 0;
        let refs = count_refs(&mut snapshot, &part, &mut counted).await?;
        compare_refs(
            &mut snapshot,
            &part,
            refs,
            &mut usage,
            &mut counted,
            &mut wrong,
        )
        .await?;
        compare_blobs(&mut snapshot, &part, &mut counted, &mut wrong).await?;
    }
    compare_usage(&mut snapshot, usage, &mut wrong).await?;
    count_rest(&mut snapshot, &mut counted).await?;
    let mut audit = Audit {
        segments: counted.segments,
        mended: 0,
    };
    // First the totals: mending members changes them, by what it changes.
    let difference = Delta::of(&counted).since(&recorded);
    if difference != Delta::default() {
        let mend = move |tx: &mut Tx<'_>| {
            tx.count(|t| *t = difference);
            Ok(())
        };
        engine.write(Needs::Once, mend).await?;
        audit.mended += 1;
    }
    audit.mended += mend(engine, wrong.usage, |tx, (leaf, recorded, counted)| {
        owners::charge(tx, leaf, recorded, counted)?;
        Ok(true)
    })
    .await?;
    // Before members, who change them when they leave.
    let mend_number = move |tx: &mut Tx<'_>, (tag, d1, recorded, counted)| {
        chunks::mend_number(tx, (&tag, &d1), now, (recorded, counted))
    };
    audit.mended += mend(engine, wrong.numbers, mend_number).await?;
    let tree = tree.clone();
    audit.mended += mend(engine, wrong.members, move |tx, m| {
        chunks::mend(
            tx,
            &tree,
            (&m.tag, &m.d1),
            m.leaf,
            now,
            (m.recorded, m.counted),
        )
    })
    .await?;
    audit.mended += mend(engine, wrong.blobs, |tx, (d1, recorded, counted)| {
        trash::mend(tx, &d1, recorded, counted)
    })
    .await?;
    drop(snapshot);
    Ok(audit)
}

async fn mend<E: Engine, T: Copy + Send + Sync + 'static>(
    engine: &E,
    wrong: Vec<T>,
    one: impl Fn(&mut Tx<'_>, T) -> Result<bool, Error> + Clone + Send + Sync + 'static,
) -> Result<u64, Error> {
    let mut mended = 0;
    for batch in wrong.chunks(BATCH) {
        let (batch, one) = (batch.to_vec(), one.clone());
        let work = move |tx: &mut Tx<'_>| {
            let mut done = 0;
            for wrong in &batch {
                done += u64::from(one(tx, *wrong)?);
            }
            Ok(done)
        };
        mended += engine.write(Needs::Once, work).await?;
    }
    Ok(mended)
}

/// Names (tags, `d1`) whose first byte is in a range.
struct Part {
    first: u8,
    last: u8,
}

impl Part {
    fn has(&self, name: &[u8]) -> bool {
        name.first()
            .is_some_and(|b| (self.first..=self.last).contains(b))
    }

    fn range(&self) -> (Vec<u8>, Vec<u8>) {
        (vec![self.first], tx::behind(&[self.last]))
    }
}

/// So many that one has about [`PART`] variants.
fn parts(variants: i64) -> impl Iterator<Item = Part> {
    let count = (variants.unsigned_abs() / PART + 1)
        .next_power_of_two()
        .min(256);
    let width = 256 / count;
    // Both fit: at most 255.
    (0..count).map(move |i| Part {
        first: (i * width) as u8,
        last: (i * width + width - 1) as u8,
    })
}

/// The pairs of a range, a page at a time.
struct Walk {
    space: Space,
    next: Vec<u8>,
    to: Vec<u8>,
    more: bool,
}

impl Walk {
    fn new(space: Space, from: &[u8], to: &[u8]) -> Self {
        Self {
            space,
            next: from.to_vec(),
            to: to.to_vec(),
            more: true,
        }
    }

    fn all(space: Space) -> Self {
        Self::new(space, &[], &tx::behind(&[]))
    }

    async fn page(&mut self, snapshot: &mut impl Snapshot) -> Result<Option<Vec<tx::Pair>>, Error> {
        if !self.more {
            return Ok(None);
        }
        let page = snapshot
            .page(self.space, &self.next, &self.to, PAGE)
            .await?;
        self.more = page.len() == PAGE;
        if let Some((last, _)) = page.last() {
            self.next = tx::following(last);
        }
        Ok(Some(page))
    }
}

type Refs = HashMap<(Hash, Hash), BTreeMap<Leaf, u64>>;

async fn count_refs(
    snapshot: &mut impl Snapshot,
    part: &Part,
    counted: &mut Stats,
) -> Result<Refs, Error> {
    let mut refs = Refs::new();
    let mut walk = Walk::all(Space::Segments);
    while let Some(page) = walk.page(snapshot).await? {
        for (key, value) in page {
            let leaf = key.first_chunk().ok_or(Error::Corrupt("segment key"))?;
            let segment: SegmentRecord = parse(&value)?;
            counted.segments += 1;
            counted.bytes_manifests += segment.manifest.len() as u64 + segment.head_len;
            for chunk in segment.chunks {
                if part.has(&*chunk.tag) {
                    let members = refs.entry((*chunk.tag, *chunk.d1)).or_default();
                    *members.entry(Leaf::from_be_bytes(*leaf)).or_default() += 1;
                }
            }
        }
    }
    Ok(refs)
}

async fn compare_refs(
    snapshot: &mut impl Snapshot,
    part: &Part,
    refs: Refs,
    usage: &mut BTreeMap<Leaf, u64>,
    counted: &mut Stats,
    wrong: &mut Wrong,
) -> Result<(), Error> {
    let (from, to) = part.range();
    let mut walk = Walk::new(Space::Variants, &from, &to);
    let mut last_tag = None;
    while let Some(page) = walk.page(snapshot).await? {
        for (key, value) in page {
            let (tag, d1) = chunks::split(&key)?;
            let record: VariantRecord = parse(&value)?;
            let len = u64::from(record.len);
            counted.variants += 1;
            counted.bytes_stored += len;
            counted.chunks += u64::from(last_tag.replace(tag) != Some(tag));
            let named = refs.get(&(tag, d1));
            let mut compare = |leaf: Leaf, member: record::Member| {
                *usage.entry(leaf).or_default() += member.charged() * len;
                counted.bytes_logical += member.refs * len;
                let named = named.and_then(|n| n.get(&leaf)).copied().unwrap_or(0);
                if member.refs != named || (named == 0 && member.hold_until == 0) {
                    wrong.members.push(Member {
                        tag,
                        d1,
                        leaf,
                        recorded: member.refs,
                        counted: named,
                    });
                }
            };
            match record.group {
                Group::Here(members) => members.into_iter().for_each(|(l, m)| compare(l, m)),
                Group::Rows(recorded) => {
                    let mut number = 0;
                    let mut rows = Walk::new(Space::Members, &key, &tx::behind(&key));
                    while let Some(page) = rows.page(snapshot).await? {
                        number += page.len() as u64;
                        for (row, member) in page {
                            compare(members::leaf_of(&row)?, parse(&member)?);
                        }
                    }
                    if number != recorded {
                        wrong.numbers.push((tag, d1, recorded, number));
                    }
                }
            }
        }
    }
    Ok(())
}

async fn compare_usage(
    snapshot: &mut impl Snapshot,
    mut usage: BTreeMap<Leaf, u64>,
    wrong: &mut Wrong,
) -> Result<(), Error> {
    let mut walk = Walk::new(Space::Owners, b"u", &tx::behind(b"u"));
    while let Some(page) = walk.page(snapshot).await? {
        // Signing keys may begin with the same letter; only usages have this length.
        for (key, value) in page.into_iter().filter(|(key, _)| key.len() == 5) {
            let (_, leaf) = key.split_last_chunk().ok_or(Error::Corrupt("usage"))?;
            let leaf = Leaf::from_be_bytes(*leaf);
            debug_assert_eq!(key, usage_of(leaf));
            let (recorded, counted) = (parse(&value)?, usage.remove(&leaf).unwrap_or(0));
            if recorded != counted {
                wrong.usage.push((leaf, recorded, counted));
            }
        }
    }
    let rest = usage.into_iter().filter(|(_, counted)| *counted > 0);
    wrong
        .usage
        .extend(rest.map(|(leaf, counted)| (leaf, 0, counted)));
    Ok(())
}

async fn compare_blobs(
    snapshot: &mut impl Snapshot,
    part: &Part,
    counted: &mut Stats,
    wrong: &mut Wrong,
) -> Result<(), Error> {
    let mut uses: HashMap<Hash, u32> = HashMap::new();
    let mut walk = Walk::all(Space::Variants);
    while let Some(page) = walk.page(snapshot).await? {
        for (key, _) in page {
            let (_, d1) = chunks::split(&key)?;
            if part.has(&d1) {
                *uses.entry(d1).or_default() += 1;
            }
        }
    }
    let (from, to) = part.range();
    let mut walk = Walk::new(Space::Blobs, &from, &to);
    while let Some(page) = walk.page(snapshot).await? {
        for (key, value) in page {
            let d1 = Hash::try_from(key.as_slice()).map_err(|_| Error::Corrupt("blob key"))?;
            let state: BlobState = parse(&value)?;
            let used = uses.remove(&d1).unwrap_or(0);
            let waits = matches!(state, BlobState::Trash(_) | BlobState::Claimed(_));
            let right = match state {
                BlobState::Used(n) => n == used,
                _ => used == 0,
            };
            // As it is recorded: mending it counts what it changes.
            counted.blobs += u64::from(waits || matches!(state, BlobState::Used(_)));
            if !right {
                wrong.blobs.push((d1, Some(state), used));
            }
        }
    }
    wrong
        .blobs
        .extend(uses.into_iter().map(|(d1, used)| (d1, None, used)));
    Ok(())
}

async fn count_rest(snapshot: &mut impl Snapshot, counted: &mut Stats) -> Result<(), Error> {
    let mut walk = Walk::new(Space::Records, b"r", b"s");
    while let Some(page) = walk.page(snapshot).await? {
        for (_, value) in page {
            let recording: RecordingRecord = parse(&value)?;
            counted.recordings += 1;
            counted.bytes_manifests += recording.summary.len() as u64;
        }
    }
    let next = snapshot
        .page(
            Space::Owners,
            owners::NEXT_LEAF,
            &tx::behind(owners::NEXT_LEAF),
            1,
        )
        .await?;
    if let Some((_, leaf)) = next.first() {
        counted.owners = u64::from(parse::<Leaf>(leaf)?);
    }
    Ok(())
}
