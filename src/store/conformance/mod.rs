// SPDX-License-Identifier: MPL-2.0
//! What every backend has to do: one suite per trait, given a fresh store that keeps nothing yet.

mod blobs;
mod crowd;
mod metadata;
mod registry;

pub use blobs::{blob, blobs, upkeep};
pub use crowd::mended;
pub use metadata::metadata;
pub use registry::{CONTRACT, FEATURE, registries, registry};

use super::*;
use crate::ownership::{PathKeys, Tree};

const HOUR: u64 = 3600 * 1000;

/// The master secret that a metadata store has to be opened with for [`metadata`].
pub const MASTER: [u8; 32] = [42; 32];

fn hash(seed: &str) -> Hash {
    *blake3::hash(seed.as_bytes()).as_bytes()
}

/// A registration of the copy `name` of a chunk; the blob is stored or not.
fn item(tag: &str, name: &str, stored: bool) -> Item {
    Item {
        tag: hash(tag),
        c2: hash(&format!("{name} c2")),
        c3: hash(&format!("{name} c3")),
        d1: hash(name),
        len: 100,
        stored,
        refused: vec![],
    }
}

fn reference(item: &Item) -> ChunkRef {
    ChunkRef {
        tag: item.tag.into(),
        d1: item.d1.into(),
    }
}

fn commit(chunks: &[&Item]) -> Commit {
    Commit {
        head: b"head".to_vec().into(),
        manifest: b"manifest".to_vec().into(),
        summary: b"summary".to_vec().into(),
        chunks: chunks.iter().map(|item| reference(item)).collect(),
    }
}

async fn one(store: &dyn Metadata, owner: Leaf, item: &Item, now: u64) -> Outcome {
    let outcomes = store.register(owner, vec![item.clone()], None, now).await;
    outcomes.unwrap().remove(0)
}

/// Whether an owner's path keys open the chunk, and its epoch.
async fn opens(store: &dyn Metadata, owner: Leaf, item: &Item) -> Option<crate::ownership::Epoch> {
    let opened = store
        .open(owner, vec![reference(item)], None)
        .await
        .unwrap();
    let opening = opened.into_iter().next().flatten()?;
    let keys = PathKeys::from_bytes(owner, &Tree::new(MASTER).path_keys(owner)).unwrap();
    assert_eq!(keys.unwrap_c2(&opening.wrapped), Some(item.c2));
    assert_eq!(opening.c3, item.c3);
    Some(opening.wrapped.epoch)
}

async fn bytes(store: &dyn Metadata, name: &str) -> u64 {
    store.owner(hash(name)).await.unwrap().unwrap().bytes
}
