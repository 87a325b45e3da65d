// SPDX-License-Identifier: MPL-2.0
//! Dynamic ownership of [KL19]: a complete binary tree over the owners, whose node keys the
//! server derives from one master secret, and a group key per stored copy of a chunk, wrapped
//! for each owner under a node that covers owners alone ([`Tree::wrap`]).
//!
//! The tree always has [`DEPTH`] levels below the root: a leaf is any `u32`, so owners are added
//! without ever touching the tree. Nodes are numbered as in a heap: the root is 1, the children of
//! `n` are `2n` and `2n + 1`, leaf `j` is `2^DEPTH + j`.

use crate::mac::hmac;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Levels below the root.
pub const DEPTH: u32 = 32;
/// Levels that a member's node is above its leaf, at most, where a group is too large to be read.
const NEAR: u32 = 6;

/// An owner's place in the tree.
pub type Leaf = u32;
/// A node's heap number, 1 (root) to 2^33 - 1.
pub type Node = u64;
/// Public value drawn anew with every group key: it names the key and is the IV of what is
/// encrypted for that key.
pub type Epoch = [u8; 16];

/// The node of a leaf.
pub fn leaf_node(leaf: Leaf) -> Node {
    (1 << DEPTH) + Node::from(leaf)
}

/// The nodes from a leaf up to the root, [`DEPTH`] + 1 of them.
pub fn path(leaf: Leaf) -> impl Iterator<Item = Node> {
    (0..=DEPTH).map(move |up| leaf_node(leaf) >> up)
}

/// The leaves next to one, itself among them, that [`Tree::wrap`] has to know of in a group that is
/// too large to be read: those of the subtree [`NEAR`] levels up.
pub fn near(leaf: Leaf) -> RangeInclusive<Leaf> {
    let below: Leaf = (1 << NEAR) - 1;
    leaf & !below..=leaf | below
}

/// The fewest nodes whose leaves are exactly `group`, in ascending order.
///
/// Two sibling subtrees that are both whole are replaced by their parent, from the leaves up;
/// no other subtree lies inside the group, so no smaller cover exists.
pub fn cover(group: &BTreeSet<Leaf>) -> Vec<Node> {
    let mut level: Vec<Node> = group.iter().map(|leaf| leaf_node(*leaf)).collect();
    let mut done = Vec::new();
    while !level.is_empty() {
        let mut parents = Vec::new();
        let mut nodes = level.iter().copied().peekable();
        while let Some(node) = nodes.next() {
            if node > 1 && node % 2 == 0 && nodes.peek() == Some(&(node + 1)) {
                nodes.next();
                parents.push(node / 2);
            } else {
                done.push(node);
            }
        }
        level = parents;
    }
    done.sort_unstable();
    done
}

/// A 32-byte symmetric key: `KEK` of a node or `GK` of a group.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct GroupSecret([u8; 32]);

impl GroupSecret {
    /// Takes key bytes received from the server.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// E or E^-1 on 32 bytes: AES-256-CTR with the epoch as its initial counter block.
    pub fn apply(&self, epoch: &Epoch, data: &[u8; 32]) -> [u8; 32] {
        let mut out = *data;
        Ctr128BE::<aes::Aes256>::new((&self.0).into(), epoch.into()).apply_keystream(&mut out);
        out
    }
}

impl std::fmt::Debug for GroupSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GroupSecret(..)")
    }
}

/// `GK` and `C2` as a member gets them: `C2' = E_GK(C2)` and the one entry of
/// `C4 = {E_KEK(n)(GK) : n in a cover}` that lies on the member's path.
///
/// The other entries are not sent: the member could not open them, and they would tell it who
/// else owns the chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrapped {
    /// Which group key this is.
    pub epoch: Epoch,
    /// `C2'`.
    pub c2: [u8; 32],
    /// The node whose key wraps `GK`.
    pub node: Node,
    /// `E_KEK(node)(GK)`.
    pub gk: [u8; 32],
}

/// An owner's side: the keys of its path.
#[derive(Clone)]
pub struct PathKeys {
    leaf: Leaf,
    keys: Vec<GroupSecret>,
}

impl PathKeys {
    /// Takes `33 × 32` key bytes from leaf to root, as [`Tree::path_keys`] gave them.
    pub fn from_bytes(leaf: Leaf, bytes: &[u8]) -> Option<Self> {
        let keys: Vec<_> = bytes
            .chunks_exact(32)
            .filter_map(|k| k.try_into().ok().map(GroupSecret))
            .collect();
        (bytes.len() == (DEPTH as usize + 1) * 32).then_some(Self { leaf, keys })
    }

    /// The owner's leaf.
    pub fn leaf(&self) -> Leaf {
        self.leaf
    }

    /// `C2` (equations 15-16 of [KL19]); `None` if the wrapping node is not on the path.
    pub fn unwrap_c2(&self, wrapped: &Wrapped) -> Option<[u8; 32]> {
        let at = path(self.leaf).position(|node| node == wrapped.node)?;
        let gk = GroupSecret(self.keys.get(at)?.apply(&wrapped.epoch, &wrapped.gk));
        Some(gk.apply(&wrapped.epoch, &wrapped.c2))
    }
}

/// The server's side: every node key and group key follows from one master secret, so nothing
/// of the tree is stored.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Tree {
    master: [u8; 32],
}

impl Tree {
    /// Takes the metadata server's master secret.
    pub fn new(master: [u8; 32]) -> Self {
        Self { master }
    }

    fn derive(&self, label: &[u8], parts: &[&[u8]]) -> GroupSecret {
        let parts: Vec<&[u8]> = [&[label], parts].concat();
        GroupSecret(*hmac(&self.master, &parts))
    }

    /// `KEK(node)`.
    pub fn kek(&self, node: Node) -> GroupSecret {
        self.derive(b"camvault kek\0", &[&node.to_be_bytes()])
    }

    /// `GK` of the copy `d1` of the chunk `tag` in an epoch.
    pub fn group_key(&self, tag: &[u8; 32], d1: &[u8; 32], epoch: &Epoch) -> GroupSecret {
        self.derive(b"camvault group\0", &[tag, d1, epoch])
    }

    /// The keys of a leaf's path, leaf first, for [`PathKeys::from_bytes`].
    pub fn path_keys(&self, leaf: Leaf) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity((DEPTH as usize + 1) * 32));
        for node in path(leaf) {
            out.extend_from_slice(&self.kek(node).0);
        }
        out
    }

    /// Wraps `GK` for one member: under the highest node on its path all of whose leaves are in
    /// `group`, or, for a reader that was granted access without being an owner, under its own
    /// leaf.
    ///
    /// `group` may be a part of the group: of a large one the members [`near`] the reader. Then
    /// the node may be lower than in the minimal cover. It is as safe: what counts is that all
    /// leaves below it are members, at whatever height. Nor does it cost anything: [KL19] wants
    /// few nodes because its server stores the cover and sends all of it; here an entry is made
    /// when a member asks for it, and is the only one that the member is sent.
    pub fn wrap(&self, copy: &Copy<'_>, group: &BTreeSet<Leaf>, reader: Leaf) -> Wrapped {
        let node = cover_of_member(group, reader).unwrap_or(leaf_node(reader));
        let gk = self.group_key(copy.tag, copy.d1, &copy.epoch);
        Wrapped {
            epoch: copy.epoch,
            c2: *copy.c2_sealed,
            node,
            gk: self.kek(node).apply(&copy.epoch, &gk.0),
        }
    }

    /// Joining and leaving: a new epoch, and `C2` encrypted under its group key.
    /// The first owner's copy comes with `C2` in the clear ([`Tree::admit`]).
    pub fn renew(&self, copy: &Copy<'_>, fresh: Epoch) -> [u8; 32] {
        self.admit(copy.tag, copy.d1, &fresh, &self.c2(copy))
    }

    /// `C2' = E_GK(C2)` for the first epoch of a copy.
    pub fn admit(&self, tag: &[u8; 32], d1: &[u8; 32], epoch: &Epoch, c2: &[u8; 32]) -> [u8; 32] {
        self.group_key(tag, d1, epoch).apply(epoch, c2)
    }

    /// `C2`, for a later uploader of the same chunk, who needs it to check the copy.
    pub fn c2(&self, copy: &Copy<'_>) -> [u8; 32] {
        self.group_key(copy.tag, copy.d1, &copy.epoch)
            .apply(&copy.epoch, copy.c2_sealed)
    }
}

/// One stored copy as the ownership tree sees it.
pub struct Copy<'a> {
    /// Tag of the chunk.
    pub tag: &'a [u8; 32],
    /// Name of the blob.
    pub d1: &'a [u8; 32],
    /// Epoch of its group key.
    pub epoch: Epoch,
    /// `C2'`.
    pub c2_sealed: &'a [u8; 32],
}

/// The highest node on a member's path all of whose leaves are in the group: of a whole group, the
/// minimal cover's.
fn cover_of_member(group: &BTreeSet<Leaf>, member: Leaf) -> Option<Node> {
    let mut found = None;
    for (up, node) in (0u32..).zip(path(member)) {
        let width = 1u64 << up;
        let first = (node << up) - (1 << DEPTH);
        // `first + width - 1` is a leaf again, at most u32::MAX.
        let (first, last) = (first as Leaf, (first + width - 1) as Leaf);
        // A wider subtree than the group has members cannot be whole.
        if width > group.len() as u64 || group.range(first..=last).count() as u64 != width {
            break;
        }
        found = Some(node);
    }
    found
}

#[cfg(test)]
mod tests;
