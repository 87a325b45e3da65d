// SPDX-License-Identifier: MPL-2.0
//! What an owner commits to of a segment ([`Promised`]), such that a few candidates can be shown
//! without the rest.
//!
//! The candidates of a frame are cut into *pieces* of [`CANDIDATES`]. A piece is (big endian):
//!
//! ```text
//! 0 u8  frame u64  at u32  count u32  taken 128×u32  positions u32…  widths u8…  predictions i16…  masked
//! ```
//! `at` is the bit of the frame's masked candidates that its first begins at, whose byte is the
//! first of *masked*; `taken` says how much of each label's key stream those before it have used.
//! The hash of a piece is its BLAKE3; all hashes of a segment are the leaves of a binary tree with
//! nodes BLAKE3(1 ‖ left ‖ right), in which the left part is the largest power of two that leaves
//! something to the right.

use crate::homomorphic::oblivious::Masked;
use crate::protocol::Promised;
use crate::watermark::BITS;

type Hash = [u8; 32];

/// Candidates of one piece; the last of a frame may have fewer.
pub(super) const CANDIDATES: usize = 256;

/// Bytes before positions.
const HEAD: usize = 1 + 8 + 4 + 4 + 4 * BITS;
/// Bytes of a candidate before what is masked.
const EACH: usize = 4 + 1 + 2;

/// The candidates of a frame that travel under labels.
pub(super) struct Candidates<'a> {
    pub frame: u64,
    pub bits: &'a [u8],
    pub positions: &'a [u32],
    pub widths: &'a [u8],
    pub predictions: &'a [i16],
    pub masked: &'a [u8],
}

impl Candidates<'_> {
    /// Hands over the pieces, one after the other.
    pub fn pieces(&self, mut take: impl FnMut(&[u8])) {
        let mut taken = [0u32; BITS];
        let mut at = 0u32;
        let mut out = Vec::new();
        let count = self.bits.len();
        for first in (0..count).step_by(CANDIDATES) {
            let these = first..count.min(first + CANDIDATES);
            out.clear();
            out.push(0);
            out.extend_from_slice(&self.frame.to_be_bytes());
            out.extend_from_slice(&at.to_be_bytes());
            out.extend_from_slice(&(these.len() as u32).to_be_bytes());
            out.extend(taken.iter().flat_map(|taken| taken.to_be_bytes()));
            let begin = at as usize / 8;
            for i in these.clone() {
                let width = u32::from(self.widths[i]);
                taken[usize::from(self.bits[i]) % BITS] += width;
                at += 2 * width;
            }
            let positions = &self.positions[these.clone()];
            out.extend(positions.iter().flat_map(|position| position.to_be_bytes()));
            out.extend_from_slice(&self.widths[these.clone()]);
            let predictions = &self.predictions[these];
            out.extend(predictions.iter().flat_map(|like| like.to_be_bytes()));
            let end = (at as usize).div_ceil(8);
            out.extend_from_slice(self.masked.get(begin..end).unwrap_or_default());
            take(&out);
        }
    }
}

/// A candidate of a piece.
pub(super) struct Shown {
    pub position: u32,
    pub prediction: i16,
    pub masked: Masked,
}

/// Reads a piece: its frame and its candidates. `bits` says which bit a position carries. `None`
/// if it is none.
pub(super) fn read(piece: &[u8], bits: &[u8]) -> Option<(u64, Vec<Shown>)> {
    let (head, body) = piece.split_at_checked(HEAD)?;
    let frame = u64::from_be_bytes(*head.get(1..)?.first_chunk()?);
    let at = u32::from_be_bytes(*head.get(9..)?.first_chunk()?);
    let count = u32::from_be_bytes(*head.get(13..)?.first_chunk()?) as usize;
    let (taken, _) = head.get(17..)?.as_chunks::<4>();
    let mut taken: Vec<u32> = taken.iter().map(|t| u32::from_be_bytes(*t)).collect();
    // A leaf, no node.
    if head.first() != Some(&0) || !(1..=CANDIDATES).contains(&count) {
        return None;
    }
    let widths = body.get(4 * count..5 * count)?;
    let wide: usize = widths.iter().map(|&width| 2 * usize::from(width)).sum();
    let masked = (at as usize % 8 + wide).div_ceil(8);
    if body.len() != EACH * count + masked {
        return None;
    }
    let (positions, rest) = body.split_at(4 * count);
    let (widths, rest) = rest.split_at(count);
    let (predictions, masked) = rest.split_at(2 * count);
    let mut from = at as usize % 8;
    let each = positions
        .as_chunks::<4>()
        .0
        .iter()
        .zip(widths)
        .zip(predictions.as_chunks::<2>().0);
    let shown = each.map(|((position, &width), prediction)| {
        let position = u32::from_be_bytes(*position);
        let bit = *bits.get(position as usize)?;
        let taken = taken.get_mut(usize::from(bit))?;
        let one = Masked {
            bit,
            width,
            taken: *taken,
            both: bits_at(masked, from, 2 * usize::from(width)),
        };
        *taken = taken.checked_add(width.into())?;
        from += 2 * usize::from(width);
        Some(Shown {
            position,
            prediction: i16::from_be_bytes(*prediction),
            masked: one,
        })
    });
    Some((frame, shown.collect::<Option<_>>()?))
}

/// Bits, at most 32, of a row of bytes, the lowest of each first.
fn bits_at(bytes: &[u8], at: usize, count: usize) -> u32 {
    let bit = |i: usize| {
        bytes
            .get(i / 8)
            .map_or(0, |byte| u32::from(byte >> (i % 8) & 1))
    };
    (0..count.min(32)).fold(0, |all, i| all | bit(at + i) << i)
}

fn node(left: &Hash, right: &Hash) -> Hash {
    let mut hash = blake3::Hasher::new();
    hash.update(&[1]).update(left).update(right);
    *hash.finalize().as_bytes()
}

/// A tree of hashes that grows; holds one hash a level.
#[derive(Default)]
pub(super) struct Tree {
    /// Roots of complete trees, the largest first, with how many leaves they have.
    roots: Vec<(Hash, u64)>,
    leaves: u64,
}

impl Tree {
    pub fn push(&mut self, leaf: Hash) {
        self.leaves += 1;
        let mut this = (leaf, 1);
        while let Some(&(left, size)) = self.roots.last().filter(|last| last.1 == this.1) {
            self.roots.pop();
            this = (node(&left, &this.0), 2 * size);
        }
        self.roots.push(this);
    }

    /// Zeros if there are no leaves.
    pub fn root(&self) -> Hash {
        let roots = self.roots.iter().map(|(root, _)| *root).rev();
        roots
            .reduce(|right, left| node(&left, &right))
            .unwrap_or_default()
    }
}

impl FromIterator<Hash> for Tree {
    fn from_iter<I: IntoIterator<Item = Hash>>(leaves: I) -> Self {
        let mut tree = Self::default();
        leaves.into_iter().for_each(|leaf| tree.push(leaf));
        tree
    }
}

/// Leaves of the left part of a tree of more than one.
fn left(leaves: u64) -> u64 {
    leaves.next_power_of_two() / 2
}

/// The hashes beside a leaf's way to the root, the lowest first.
pub(super) fn path(leaves: &[Hash], index: usize) -> Vec<u8> {
    if leaves.len() < 2 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(left(leaves.len() as u64) as usize);
    let (own, index, other) = match index.checked_sub(left.len()) {
        None => (left, index, right),
        Some(index) => (right, index, left),
    };
    let other: Tree = other.iter().copied().collect();
    let mut path = path(own, index);
    path.extend_from_slice(&other.root());
    path
}

/// The root above a leaf; `None` if the path is of another length.
pub(super) fn root_of(leaf: Hash, index: u64, leaves: u64, path: &[u8]) -> Option<Hash> {
    if leaves == 1 {
        return (path.is_empty() && index == 0).then_some(leaf);
    }
    let (path, other) = path.split_last_chunk::<32>()?;
    let left = left(leaves);
    Some(match index.checked_sub(left) {
        None => node(&root_of(leaf, index, left, path)?, other),
        Some(index) => node(other, &root_of(leaf, index, leaves - left, path)?),
    })
}

/// What was committed to so far: the same at owner and cloud.
pub(super) struct Commitment {
    head: Hash,
    frames: u64,
    sent: blake3::Hasher,
    tree: Tree,
}

impl Commitment {
    /// Of a segment whose head has this payload.
    pub fn new(head: &[u8]) -> Self {
        Self {
            head: blake3::hash(head).into(),
            frames: 0,
            sent: blake3::Hasher::new(),
            tree: Tree::default(),
        }
    }

    /// The next frame's payload, and its candidates if they are to be opened.
    pub fn frame(&mut self, payload: &[u8], candidates: Option<&Candidates<'_>>) {
        self.frames += 1;
        self.sent.update(&(payload.len() as u64).to_be_bytes());
        self.sent.update(payload);
        if let Some(candidates) = candidates {
            candidates.pieces(|piece| self.tree.push(blake3::hash(piece).into()));
        }
    }

    /// All of it.
    pub fn promised(&self) -> Promised {
        Promised {
            head: self.head.into(),
            frames: self.frames,
            sent: <Hash>::from(self.sent.finalize()).into(),
            pieces: self.tree.leaves,
            root: self.tree.root().into(),
        }
    }

    /// Frames so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_leaf_has_a_path_to_the_root_and_no_other_hash_has() {
        for count in 1..40u64 {
            let leaves: Vec<Hash> = (0..count).map(|i| [i as u8; 32]).collect();
            let root = leaves.iter().copied().collect::<Tree>().root();
            for (i, leaf) in leaves.iter().enumerate() {
                let path = path(&leaves, i);
                let found = |leaf, i, path: &[u8]| root_of(leaf, i, count, path);
                assert_eq!(found(*leaf, i as u64, &path), Some(root), "{i} of {count}");
                assert_ne!(found([99; 32], i as u64, &path), Some(root));
                if count > 1 {
                    let other = (i as u64 + 1) % count;
                    assert_ne!(found(*leaf, other, &path), Some(root));
                    assert_ne!(found(*leaf, i as u64, &path[32..]), Some(root));
                }
            }
        }
        assert_eq!(Tree::default().root(), [0; 32]);
    }

    #[test]
    fn pieces_say_all_of_their_candidates() {
        let count = 700;
        let bits: Vec<u8> = (0..2000).map(|i| (i * 37 % 128) as u8).collect();
        let positions: Vec<u32> = (0..count).map(|i| i * 2 + 1).collect();
        let own: Vec<u8> = positions.iter().map(|&p| bits[p as usize]).collect();
        for narrow in [8, 5] {
            let widths: Vec<u8> = (0..count)
                .map(|i| [narrow, 12][i as usize / 3 % 2])
                .collect();
            let predictions: Vec<i16> = (0..count).map(|i| i as i16 - 300).collect();
            let all: usize = widths.iter().map(|&w| 2 * usize::from(w)).sum();
            let masked: Vec<u8> = (0..all.div_ceil(8)).map(|i| (i * 31 % 251) as u8).collect();
            let candidates = Candidates {
                frame: 9,
                bits: &own,
                positions: &positions,
                widths: &widths,
                predictions: &predictions,
                masked: &masked,
            };
            let (mut pieces, mut i, mut at) = (0, 0, 0);
            let mut taken = [0; BITS];
            candidates.pieces(|piece| {
                pieces += 1;
                let (frame, shown) = read(piece, &bits).unwrap();
                assert_eq!(frame, 9);
                for one in shown {
                    let bit = usize::from(own[i]);
                    assert_eq!(one.position, positions[i]);
                    assert_eq!(one.prediction, predictions[i]);
                    let masked_one = one.masked;
                    assert_eq!((masked_one.bit, masked_one.width), (own[i], widths[i]));
                    assert_eq!(masked_one.taken, taken[bit]);
                    let width = 2 * usize::from(widths[i]);
                    assert_eq!(masked_one.both, bits_at(&masked, at, width));
                    taken[bit] += u32::from(widths[i]);
                    at += width;
                    i += 1;
                }
                assert!(read(&piece[..piece.len() - 1], &bits).is_none());
                assert!(read(&piece[1..], &bits).is_none());
            });
            assert_eq!((pieces, i), (3, count as usize));
        }
    }
}
