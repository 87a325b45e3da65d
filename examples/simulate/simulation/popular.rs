// SPDX-License-Identifier: MPL-2.0
//! One chunk that very many own: what joining, naming, opening and leaving cost.

use super::measure::{Sealed, written};
use super::{DAY, Result, START, bytes, expect, item, reference, segment, user_key};
use gstcamvault::ownership::{Leaf, PathKeys, Tree};
use gstcamvault::protocol::{Committed, Outcome};
use gstcamvault::store::{Forgotten, Item, Metadata};
use std::time::Instant;

/// Owners that are only measured with.
const PROBES: u32 = 8;

/// Seconds and bytes with so many owners.
#[derive(Clone, Debug, Default)]
pub struct Popular {
    pub owners: u32,
    /// Of each of them: enrolled, joined, named it.
    pub grow: f64,
    pub lookup: f64,
    pub join: f64,
    /// A commit that names the chunk.
    pub commit: f64,
    pub open: f64,
    pub leave: f64,
    /// Bytes written to the file system by one that joins, commits and leaves.
    pub written: u64,
}

/// Measures in a fresh store.
pub async fn measure(store: &dyn Metadata, owners: u32) -> Result<Popular> {
    let chunk = item(&[12], 48_000, true);
    let sealed = Sealed::of(1, 3)?;
    let mut probes = Vec::new();
    for user in 0..u64::from(PROBES) {
        probes.push(store.enroll(user_key(user), bytes(&[8, user])).await?);
    }
    let (began, mut member) = (Instant::now(), None);
    for user in u64::from(PROBES)..u64::from(PROBES + owners) {
        let leaf = store.enroll(user_key(user), bytes(&[8, user])).await?;
        own(store, leaf, &chunk, &sealed).await?;
        member.get_or_insert(leaf);
    }
    let member = member.ok_or("a chunk without owners")?;
    let tree = Tree::new(super::MASTER);
    let mut out = Popular {
        owners,
        grow: began.elapsed().as_secs_f64() / f64::from(owners),
        ..Popular::default()
    };
    let before = written();
    for leaf in &probes {
        let began = Instant::now();
        let found = store.lookup(*leaf, vec![chunk.tag]).await?;
        out.lookup += began.elapsed().as_secs_f64();
        expect(found[0].len() == 1, || "the chunk is not found".into())?;
        let (join, commit) = own(store, *leaf, &chunk, &sealed).await?;
        out.join += join;
        out.commit += commit;
        let began = Instant::now();
        let opened = store.open(member, vec![reference(&chunk)], None).await?;
        out.open += began.elapsed().as_secs_f64();
        let keys = PathKeys::from_bytes(member, &tree.path_keys(member)).ok_or("path keys")?;
        let opening = opened.into_iter().next().flatten().ok_or("not opened")?;
        expect(keys.unwrap_c2(&opening.wrapped) == Some(chunk.c2), || {
            "a member's keys do not open the chunk".into()
        })?;
    }
    for leaf in &probes {
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
