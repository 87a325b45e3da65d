// SPDX-License-Identifier: MPL-2.0
//! Up to where queues are empty.
//!
//! What is taken from the head of a queue leaves a tombstone there until tables are merged, and
//! who walks from the first key walks over all of them. So each queue's walks begin where the last
//! one found the first entry, or where it ended without any.
//!
//! No entry is passed over, whatever time its key has and whatever clocks say: one process has the
//! database, only its writer walks with these, one at a time, and every entry is written by that
//! writer, who calls [`Queues::added`] first. They begin anew with each opening of the database.
//! (PostgreSQL, with many writers, needs no such thing: an index marks dead entries for whoever
//! comes next, and vacuum takes them out.)

use crate::store::Error;
use crate::store::tables::{Pair, Space};
use std::collections::BTreeMap;

/// Space and first bytes of a queue → nothing in it is before this key.
#[derive(Default)]
pub struct Queues(BTreeMap<(Space, Vec<u8>), Vec<u8>>);

impl Queues {
    /// The first `limit` pairs of a queue up to and without `to`; `range` reads committed pairs.
    pub fn walk(
        &mut self,
        (space, queue): (Space, &[u8]),
        to: &[u8],
        limit: usize,
        range: impl FnOnce(&[u8]) -> Result<Vec<Pair>, Error>,
    ) -> Result<Vec<Pair>, Error> {
        let queue = queue.to_vec();
        let head = self
            .0
            .entry((space, queue))
            .or_insert_with_key(|(_, q)| q.clone());
        if head.as_slice() >= to || limit == 0 {
            return Ok(Vec::new());
        }
        let found = range(head)?;
        *head = found.first().map_or(to, |(first, _)| first).to_vec();
        Ok(found)
    }

    /// To be called before a key is written.
    pub fn added(&mut self, space: Space, key: &[u8]) {
        for ((of, queue), head) in &mut self.0 {
            if *of == space && key.starts_with(queue) && key < head.as_slice() {
                *head = key.to_vec();
            }
        }
    }
}
