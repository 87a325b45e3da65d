// SPDX-License-Identifier: MPL-2.0
//! Memory that a file can be written from past the page cache. It is used again: fresh memory costs
//! more than the copy into it.

use super::Hash;
use bytes::Bytes;
use std::sync::{Mutex, PoisonError};

/// What addresses and lengths of writes past the page cache are multiples of.
pub(super) const BLOCK: usize = 4096;
/// Bytes of one piece of memory.
const PIECE: usize = 256 << 10;
/// Pieces kept for later: 16 MiB.
const KEPT: usize = 64;

static FREE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Bytes at an aligned address, at most [`PIECE`].
struct Piece {
    /// Never grows, so that it stays where it is.
    memory: Vec<u8>,
    start: usize,
}

impl Piece {
    fn new() -> Self {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut memory = free.unwrap_or_else(|| Vec::with_capacity(PIECE + BLOCK));
        let start = memory.as_ptr().align_offset(BLOCK).min(BLOCK);
        memory.resize(start, 0);
        Self { memory, start }
    }

    fn room(&self) -> usize {
        self.start + PIECE - self.memory.len()
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self.memory.get(self.start..).unwrap_or_default()
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut memory = std::mem::take(&mut self.memory);
        memory.clear();
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT {
            free.push(memory);
        }
    }
}

/// Gathers a blob as it arrives and hashes it: a large one in aligned pieces that are full except
/// for the last, a small one as it comes.
pub struct Gather {
    left: usize,
    large: bool,
    open: Option<Piece>,
    data: Vec<Bytes>,
    hasher: blake3::Hasher,
}

impl Gather {
    /// Blobs of at least so many bytes are large.
    pub(super) const LARGE: usize = 128 << 10;

    /// For a blob of `len` bytes.
    pub fn new(len: usize) -> Self {
        Self {
            left: len,
            large: len >= Self::LARGE,
            open: None,
            data: Vec::new(),
            hasher: blake3::Hasher::new(),
        }
    }

    /// Bytes that are still to come.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Takes what belongs to the blob off the front of `part`.
    pub fn take(&mut self, part: &mut Bytes) {
        let mut now = part.split_to(part.len().min(self.left));
        self.left -= now.len();
        if !self.large {
            self.hasher.update(&now);
            self.data.push(now);
            return;
        }
        while !now.is_empty() {
            let open = self.open.get_or_insert_with(Piece::new);
            let fits = now.split_to(now.len().min(open.room()));
            open.memory.extend_from_slice(&fits);
            if open.room() == 0 {
                self.close();
            }
        }
    }

    /// The name that the bytes have, and the bytes in order.
    pub fn finish(mut self) -> (Hash, Vec<Bytes>) {
        self.close();
        (*self.hasher.finalize().as_bytes(), self.data)
    }

    fn close(&mut self) {
        if let Some(piece) = self.open.take() {
            self.hasher.update(piece.as_ref());
            self.data.push(Bytes::from_owner(piece));
        }
    }
}

/// Splits parts into whole blocks at aligned addresses, which can be written past the page cache,
/// and the bytes of the last block, which cannot; `None` if they are not such parts.
pub(super) fn whole_blocks(parts: &[Bytes]) -> Option<(Vec<&[u8]>, &[u8])> {
    let (last, full) = parts.split_last()?;
    let (blocks, rest) = last.split_at(last.len() / BLOCK * BLOCK);
    let blocks: Vec<_> = full.iter().map(|part| &part[..]).chain([blocks]).collect();
    let aligned = |part: &&[u8]| {
        part.as_ptr().addr().is_multiple_of(BLOCK) && part.len().is_multiple_of(BLOCK)
    };
    let some = blocks.first().is_some_and(|first| !first.is_empty());
    (some && blocks.iter().all(aligned)).then_some((blocks, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_blobs_are_gathered_in_whole_blocks_and_small_ones_as_they_come() {
        for len in [0, 1, 5000, 128 << 10, 1_000_003] {
            let content: Vec<u8> = (0..len).map(|i: usize| (i % 251) as u8).collect();
            let mut gather = Gather::new(len);
            for part in content.chunks(70_001) {
                gather.take(&mut Bytes::copy_from_slice(part));
            }
            let mut next = Bytes::from_static(b"next");
            gather.take(&mut next);
            assert_eq!((gather.left(), &next[..]), (0, &b"next"[..]));
            let (d1, data) = gather.finish();
            assert_eq!(
                (blake3::hash(&content), data.concat()),
                (d1.into(), content)
            );
            let split = whole_blocks(&data);
            assert_eq!(split.is_some(), len >= 128 << 10);
            if let Some((blocks, rest)) = split {
                assert_eq!(
                    (blocks.concat().len() + rest.len(), rest.len()),
                    (len, len % BLOCK)
                );
            }
        }
    }
}
