// SPDX-License-Identifier: MPL-2.0
//! A vault's metadata under a population of cameras and users, in simulated time. Everything goes
//! through the trait `Metadata`, so that the figures are those of the store itself.

pub mod measure;
pub mod owners;
pub mod partitions;
pub mod popular;
pub mod world;

use gstcamvault::ownership::Tree;
use gstcamvault::protocol::{ChunkRef, Commit};
use gstcamvault::store::{Embedded, Hash, Item, Metadata, Room};
use std::path::Path;
use std::sync::Arc;

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Milliseconds of a day.
pub const DAY: u64 = 24 * 3600 * 1000;
/// The first simulated day.
pub const START: u64 = 1000 * DAY;
/// The metadata server's master secret.
pub const MASTER: [u8; 32] = [42; 32];

/// An embedded store in a directory.
pub fn open(dir: &Path) -> Result<Arc<dyn Metadata>> {
    let store = Embedded::open(dir, Tree::new(MASTER), Room::new(dir, 64 << 20))?;
    Ok(Arc::new(store))
}

/// `N` bytes that look random and follow from `parts`.
pub fn bytes<const N: usize>(parts: &[u64]) -> [u8; N] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&part.to_le_bytes());
    }
    let mut out = [0; N];
    hasher.finalize_xof().fill(&mut out);
    out
}

/// A number that looks random and follows from `parts`.
pub fn number(parts: &[u64]) -> u64 {
    u64::from_le_bytes(bytes(parts))
}

/// The signing key of a user.
pub fn user_key(user: u64) -> Hash {
    bytes(&[1, user])
}

/// A chunk that follows from `parts`, as its uploader registers it: a blob that is
/// stored, or none to join.
pub fn item(parts: &[u64], len: u32, stored: bool) -> Item {
    let drawn: [u8; 128] = bytes(&[&[2], parts].concat());
    let part = |at: usize| -> Hash { std::array::from_fn(|i| drawn[32 * at + i]) };
    Item {
        tag: part(0),
        c2: part(1),
        c3: part(2),
        d1: part(3),
        len,
        stored,
        refused: vec![],
    }
}

/// A chunk as a segment names it.
pub fn reference(item: &Item) -> ChunkRef {
    ChunkRef {
        tag: item.tag.into(),
        d1: item.d1.into(),
    }
}

/// A segment that names `items`, with sealed parts as long as real ones.
pub fn segment(items: &[Item], sealed: &measure::Sealed, seed: u64) -> Commit {
    let mut drawn = blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof();
    let mut part = |len: usize| {
        let mut out = vec![0; len];
        drawn.fill(&mut out);
        out.into()
    };
    Commit {
        head: part(sealed.head),
        manifest: part(sealed.manifest),
        summary: part(sealed.summary),
        chunks: items.iter().map(reference).collect(),
    }
}

/// Ends the simulation where the store does not answer as it should.
pub fn expect(right: bool, what: impl FnOnce() -> String) -> Result<()> {
    match right {
        true => Ok(()),
        false => Err(what().into()),
    }
}
