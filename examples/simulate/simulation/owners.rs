// SPDX-License-Identifier: MPL-2.0
//! What ownership costs apart from the store: keys, covers, and an owner of very many recordings.

use super::measure::Sealed;
use super::{Result, START, bytes, expect, item, number, segment, user_key};
use gstcamvault::ownership::{Copy, DEPTH, Leaf, Tree, cover};
use gstcamvault::protocol::Committed;
use gstcamvault::store::{Listed, Metadata};
use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::Instant;

/// Seconds for each, of the formulas alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Formulas {
    /// The keys of one leaf's path.
    pub path_keys: f64,
    /// A new group key, and `C2` under it.
    pub renew: f64,
    /// Bytes of path keys.
    pub path_bytes: usize,
}

fn each(rounds: u32, mut work: impl FnMut(u32)) -> f64 {
    let began = Instant::now();
    (0..rounds).for_each(&mut work);
    began.elapsed().as_secs_f64() / f64::from(rounds)
}

/// Measures the formulas.
pub fn formulas() -> Formulas {
    let tree = Tree::new(super::MASTER);
    let copy = Copy {
        tag: &[1; 32],
        d1: &[2; 32],
        epoch: [3; 16],
        c2_sealed: &[4; 32],
    };
    Formulas {
        path_keys: each(2000, |leaf| drop(black_box(tree.path_keys(leaf)))),
        renew: each(20_000, |n| {
            black_box(tree.renew(&copy, [n as u8; 16]));
        }),
        path_bytes: tree.path_keys(0).len(),
    }
}

/// What the paper's server would write at every change of a group: its cover.
#[derive(Clone, Copy, Debug)]
pub struct Cover {
    pub owners: u32,
    pub of: u64,
    pub nodes: usize,
    pub seconds: f64,
}

/// The cover of a group drawn from `of` users.
pub fn draw_cover(owners: u32, of: u64) -> Cover {
    let mut group: BTreeSet<Leaf> = BTreeSet::new();
    let mut n = 0;
    while group.len() < owners as usize {
        group.insert((number(&[14, n]) % of) as Leaf);
        n += 1;
    }
    let began = Instant::now();
    let nodes = black_box(cover(&group)).len();
    Cover {
        owners,
        of,
        nodes,
        seconds: began.elapsed().as_secs_f64(),
    }
}

/// Owners that the tree has room for.
pub fn leaves() -> u64 {
    1 << DEPTH
}

/// An owner's list of recordings.
#[derive(Clone, Copy, Debug)]
pub struct Hot {
    pub recordings: u64,
    /// Seconds of the first page of the list.
    pub list: f64,
    /// Bytes of that answer.
    pub bytes: usize,
    /// Seconds of all pages.
    pub all: f64,
    /// Seconds of the last commits, each.
    pub commit: f64,
}

/// Gives one owner more and more recordings of one chunk.
pub async fn hot(store: &dyn Metadata, sizes: &[u64]) -> Result<Vec<Hot>> {
    let leaf = store.enroll(user_key(0), bytes(&[8, 0])).await?;
    let sealed = Sealed::of(1, 3)?;
    let (mut out, mut made) = (Vec::new(), 0);
    for recordings in sizes.iter().copied() {
        let began = Instant::now();
        let first = made;
        while made < recordings {
            let chunk = item(&[15, made], 48_000, true);
            let items = [chunk];
            store.register(leaf, items.to_vec(), None, START).await?;
            let commit = segment(&items, &sealed, made);
            let done = store
                .commit(leaf, bytes(&[16, made]), 0, commit, START)
                .await?;
            expect(done == Committed::Done, || format!("commit: {done:?}"))?;
            made += 1;
        }
        let commit = began.elapsed().as_secs_f64() / (made - first).max(1) as f64;
        let began = Instant::now();
        let mut page = store.recordings(leaf, user_key(0), None).await?;
        let list = began.elapsed().as_secs_f64();
        let bytes = gstcamvault::protocol::encode(&page).len();
        let mut listed = page.recordings.len();
        while let Some(last) = page.recordings.last().filter(|_| page.more) {
            let after = Some(Listed::Own(*last.id));
            page = store.recordings(leaf, user_key(0), after).await?;
            listed += page.recordings.len();
        }
        expect(listed as u64 == recordings, || "a short list".into())?;
        out.push(Hot {
            recordings,
            list,
            bytes,
            all: began.elapsed().as_secs_f64(),
            commit,
        });
    }
    Ok(out)
}
