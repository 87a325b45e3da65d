// SPDX-License-Identifier: MPL-2.0
//! What a transaction has read so far, what it still wants to read, and what that has to lock.

use super::connect::Connection;
use crate::store::Error;
use crate::store::tables::{Pair, Source, Space, behind};
use futures::future::join_all;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// First key, key behind the last, and how many at most.
type Range = (Vec<u8>, Vec<u8>, usize);

/// Reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    keys: BTreeSet<(Space, Vec<u8>)>,
    ranges: BTreeSet<(Space, Range)>,
}

impl Wanted {
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.ranges.is_empty()
    }

    pub fn add(&mut self, more: Self) {
        self.keys.extend(more.keys);
        self.ranges.extend(more.ranges);
    }

    /// The locks of a writer that reads these.
    pub fn locks(&self) -> BTreeSet<i64> {
        let keys = self.keys.iter().filter_map(|(space, key)| {
            let scope = scope(*space, key)?;
            Some(lock(*space, scope))
        });
        let ranges = self.ranges.iter().filter_map(|(space, (first, to, _))| {
            // A range that lies within a scope; a wider one is a walk.
            let scope = scope(*space, first)?;
            (*to <= behind(scope)).then(|| lock(*space, scope))
        });
        keys.chain(ranges).collect()
    }
}

/// What is locked of a key: everything that a writer has to see as a whole. Every range that one
/// reads as such ([`Tx::prefix`](crate::store::tables::Tx::prefix)) lies within one scope, so that
/// nobody can add to it meanwhile.
fn scope(space: Space, key: &[u8]) -> Option<&[u8]> {
    match space {
        // The tag with all its variants and their members.
        Space::Variants | Space::Members => key.get(..32),
        // Owner and recording: with its heads, shares and segments.
        Space::Records if key.first() != Some(&b'i') => key.get(1..21),
        Space::Segments => key.get(..20),
        // Every entry belongs to a variant or a blob.
        Space::Queues => None,
        _ => Some(key),
    }
}

fn lock(space: Space, scope: &[u8]) -> i64 {
    let space = match space {
        Space::Segments => Space::Records,
        Space::Members => Space::Variants,
        other => other,
    };
    named_lock(&[space.name().as_bytes(), b"\0", scope].concat())
}

/// The lock of a name. Two names with the same lock only wait for each other.
pub fn named_lock(name: &[u8]) -> i64 {
    let hash = blake3::hash(name);
    let (first, _) = hash
        .as_bytes()
        .split_first_chunk()
        .unwrap_or((&[0; 8], &[]));
    i64::from_be_bytes(*first)
}

/// What has been read. What has not is noted, and looks as if there was nothing.
#[derive(Default)]
pub struct Cache {
    keys: BTreeMap<(Space, Vec<u8>), Option<Vec<u8>>>,
    ranges: BTreeMap<(Space, Range), Vec<Pair>>,
    wanted: RefCell<Wanted>,
}

impl Cache {
    /// What was wanted and not there, since this was last asked.
    pub fn take_wanted(&mut self) -> Wanted {
        self.wanted.take()
    }

    /// Reads what is wanted, all in one go.
    pub async fn fetch(
        &mut self,
        connection: &Connection,
        wanted: &Wanted,
    ) -> Result<(), tokio_postgres::Error> {
        let (client, statements) = (&connection.client, &connection.statements);
        let keys = join_all(statements.spaces().map(|space| {
            let keys = wanted.keys.iter().filter(|(this, _)| *this == space);
            let keys: Vec<&[u8]> = keys.map(|(_, key)| key.as_slice()).collect();
            async move {
                match keys.is_empty() {
                    true => Ok((space, Vec::new())),
                    false => Ok((space, statements.get(client, space, &keys).await?)),
                }
            }
        }));
        let ranges = join_all(statements.spaces().map(|space| {
            let ranges = wanted.ranges.iter().filter(|(this, _)| *this == space);
            let ranges: Vec<&(Space, Range)> = ranges.collect();
            async move {
                if ranges.is_empty() {
                    return Ok(Vec::new());
                }
                let bounds: Vec<_> = ranges
                    .iter()
                    .map(|(_, (first, to, most))| (first.as_slice(), to.as_slice(), *most))
                    .collect();
                let found = statements.ranges(client, space, &bounds).await?;
                let ranges = ranges.into_iter().cloned();
                Ok::<_, tokio_postgres::Error>(ranges.zip(found).collect::<Vec<_>>())
            }
        }));
        let (keys, ranges) = futures::join!(keys, ranges);
        // What is not found is not there.
        self.keys
            .extend(wanted.keys.iter().map(|key| (key.clone(), None)));
        for found in keys {
            let (space, pairs): (Space, Vec<Pair>) = found?;
            let pairs = pairs.into_iter();
            self.keys
                .extend(pairs.map(|(key, value)| ((space, key), Some(value))));
        }
        for found in ranges {
            self.ranges.extend(found?);
        }
        Ok(())
    }
}

impl Source for Cache {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        if let Some(value) = self.keys.get(&(space, key.to_vec())) {
            return Ok(value.clone());
        }
        let last = (space, (key.to_vec(), vec![u8::MAX; 129], usize::MAX));
        let before = self.ranges.range(..=last).next_back();
        if let Some(((of, (_, to, usize::MAX)), pairs)) = before
            && *of == space
            && key < to.as_slice()
        {
            let place = pairs.binary_search_by(|(this, _)| this.as_slice().cmp(key));
            return Ok(place.ok().map(|place| pairs[place].1.clone()));
        }
        let wanted = (space, key.to_vec());
        self.wanted.borrow_mut().keys.insert(wanted);
        Ok(None)
    }

    fn range(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, Error> {
        let range = (space, (from.to_vec(), to.to_vec(), limit));
        if let Some(pairs) = self.ranges.get(&range) {
            return Ok(pairs.clone());
        }
        self.wanted.borrow_mut().ranges.insert(range);
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_belongs_together_has_one_lock() {
        let locks = |keys: &[(Space, &[u8])], ranges: &[(Space, &[u8], &[u8])]| {
            let wanted = Wanted {
                keys: keys.iter().map(|(s, k)| (*s, k.to_vec())).collect(),
                ranges: ranges
                    .iter()
                    .map(|(s, a, b)| (*s, (a.to_vec(), b.to_vec(), 9)))
                    .collect(),
            };
            wanted.locks().len()
        };
        let (tag, last) = ([7; 64], [u8::MAX; 64]);
        let of_tag = (Space::Variants, &tag[..32], &behind(&tag[..32])[..]);
        let of_members = (Space::Members, &tag[..], &behind(&tag)[..]);
        let member = [tag.as_slice(), &[1; 4]].concat();
        let (variant, member) = ((Space::Variants, &tag[..]), (Space::Members, &member[..]));
        assert_eq!(locks(&[variant, member], &[of_tag, of_members]), 1);
        let of_last = (Space::Variants, &last[..32], &behind(&last[..32])[..]);
        assert_eq!(locks(&[(Space::Variants, &last)], &[of_last]), 1);
        assert_eq!(
            locks(&[(Space::Variants, &last), (Space::Blobs, &tag[..32])], &[]),
            2
        );
        // A recording, its heads and its segments.
        let (recording, head) = ([b"r", &tag[..20]].concat(), [b"h", &tag[..28]].concat());
        let one: [(Space, &[u8]); 3] = [
            (Space::Records, &recording),
            (Space::Records, &head),
            (Space::Segments, &tag[..28]),
        ];
        assert_eq!(locks(&one, &[]), 1);
        // Walks lock nothing.
        let walks = [
            (Space::Queues, &b"t"[..], &b"u"[..]),
            (Space::Variants, &[], &last[..]),
            (Space::Segments, &tag[..28], &last[..]),
        ];
        assert_eq!(locks(&[], &walks), 0);
    }
}
