// SPDX-License-Identifier: MPL-2.0
//! One chunk that very many own: what joining, naming, opening and leaving cost.
//!
//! Up to [`JOINED`] owners really join, one after the other. That takes the square of their number,
//! so more of them are written into the record by this module, in the form in which the store
//! keeps it; a store that was written so answers as before, which is checked.

use super::measure::{Sealed, written};
use super::{DAY, Result, START, bytes, expect, item, reference, segment, user_key};
use gstcamvault::ownership::{Leaf, PathKeys, Tree};
use gstcamvault::protocol::{Committed, Outcome};
use gstcamvault::store::{Forgotten, Item, Metadata};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Owners that join through the store itself.
pub const JOINED: u32 = 1000;
/// Owners that are only measured with.
const PROBES: u32 = 8;

/// Seconds and bytes with so many owners.
#[derive(Clone, Debug, Default)]
pub struct Popular {
    pub owners: u32,
    /// Whether all of them joined through the store.
    pub joined: bool,
    /// Bytes of the variant's record, if this module has written it.
    pub record: Option<u64>,
    pub lookup: f64,
    pub join: f64,
    /// A commit that names the chunk.
    pub commit: f64,
    pub open: f64,
    pub leave: f64,
    /// Bytes written to the file system by one that joins, commits and leaves.
    pub written: u64,
}

/// Measures in a fresh store under `dir`, which `open` opens.
pub async fn measure(
    dir: &Path,
    owners: u32,
    open: fn(&Path) -> Result<Arc<dyn Metadata>>,
) -> Result<Popular> {
    let chunk = item(&[12], 48_000, true);
    let mut store = open(dir)?;
    let joined = owners <= JOINED;
    let mut leaves = Vec::new();
    for user in 0..u64::from(PROBES + if joined { owners } else { 1 }) {
        let leaf = store.enroll(user_key(user), bytes(&[8, user])).await?;
        leaves.push(leaf);
    }
    let sealed = Sealed::of(1, 3)?;
    let (probes, members) = leaves.split_at(PROBES as usize);
    for leaf in members {
        own(&*store, *leaf, &chunk, &sealed).await?;
    }
    let mut record = None;
    if !joined {
        drop(store);
        record = Some(planted::fill(dir, &chunk, PROBES, owners)?);
        store = open(dir)?;
    }
    let tree = Tree::new(super::MASTER);
    let mut out = Popular {
        owners,
        joined,
        record,
        ..Popular::default()
    };
    let before = written();
    for leaf in probes {
        let began = Instant::now();
        let found = store.lookup(*leaf, vec![chunk.tag]).await?;
        out.lookup += began.elapsed().as_secs_f64();
        expect(found[0].len() == 1, || "the chunk is not found".into())?;
        let (join, commit) = own(&*store, *leaf, &chunk, &sealed).await?;
        out.join += join;
        out.commit += commit;
        let member = members.first().copied().unwrap_or(*leaf);
        let began = Instant::now();
        let opened = store.open(member, vec![reference(&chunk)], None).await?;
        out.open += began.elapsed().as_secs_f64();
        let keys = PathKeys::from_bytes(member, &tree.path_keys(member)).ok_or("path keys")?;
        let opening = opened.into_iter().next().flatten().ok_or("not opened")?;
        expect(keys.unwrap_c2(&opening.wrapped) == Some(chunk.c2), || {
            "a member's keys do not open the chunk".into()
        })?;
    }
    for leaf in probes {
        let began = Instant::now();
        let forgotten = store.forget(*leaf, id(*leaf), START + DAY).await?;
        out.leave += began.elapsed().as_secs_f64();
        let done = forgotten == Forgotten::Done;
        expect(done, || "nothing to forget".into())?;
        let gone = store.open(*leaf, vec![reference(&chunk)], None).await?;
        expect(gone[0].is_none(), || "one that left still opens".into())?;
    }
    out.written = (written() - before) / u64::from(PROBES);
    for part in [
        &mut out.lookup,
        &mut out.join,
        &mut out.commit,
        &mut out.open,
        &mut out.leave,
    ] {
        *part /= f64::from(PROBES);
    }
    Ok(out)
}

fn id(leaf: Leaf) -> [u8; 16] {
    bytes(&[13, leaf.into()])
}

/// Registers and commits; the seconds of each.
async fn own(
    store: &dyn Metadata,
    leaf: Leaf,
    chunk: &Item,
    sealed: &Sealed,
) -> Result<(f64, f64)> {
    let began = Instant::now();
    let outcomes = store
        .register(leaf, vec![chunk.clone()], None, START)
        .await?;
    let join = began.elapsed().as_secs_f64();
    let fine = matches!(outcomes[..], [Outcome::Added | Outcome::Joined]);
    expect(fine, || format!("join: {outcomes:?}"))?;
    let commit = segment(std::slice::from_ref(chunk), sealed, leaf.into());
    let began = Instant::now();
    let done = store.commit(leaf, id(leaf), 0, commit, START).await?;
    expect(done == Committed::Done, || format!("commit: {done:?}"))?;
    Ok((join, began.elapsed().as_secs_f64()))
}

/// Writes owners into a record of an embedded store that is closed.
mod planted {
    use super::{Item, Path, Result};
    use fjall::{Database, KeyspaceCreateOptions, PersistMode};
    use minicbor::{Decoder, Encoder};

    /// Number of the members in the record's map.
    const MEMBERS: u32 = 8;

    /// Replaces the members by the leaves `first..first + count`, each naming the chunk once; the
    /// record's bytes.
    pub fn fill(dir: &Path, chunk: &Item, first: u32, count: u32) -> Result<u64> {
        let database = Database::builder(dir).open()?;
        let variants = database.keyspace("variants", KeyspaceCreateOptions::default)?;
        let key = [chunk.tag, chunk.d1].concat();
        let record = variants.get(&key)?.ok_or("no record to fill")?;
        let mut decoder = Decoder::new(&record);
        let fields = decoder.map()?.ok_or("a map of unknown length")?;
        for _ in 1..fields {
            decoder.skip()?;
            decoder.skip()?;
        }
        if decoder.u32()? != MEMBERS {
            return Err("the record's last field is not its members".into());
        }
        let mut encoder = Encoder::new(record[..decoder.position()].to_vec());
        encoder.map(count.into())?;
        for leaf in first..first + count {
            encoder.u32(leaf)?.array(2)?.u64(1)?.u64(0)?;
        }
        let filled = encoder.into_writer();
        let bytes = filled.len() as u64;
        variants.insert(key, filled)?;
        database.persist(PersistMode::SyncAll)?;
        Ok(bytes)
    }
}
