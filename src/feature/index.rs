// SPDX-License-Identifier: MPL-2.0
//! Finds hashes within a Hamming radius: multi-index hashing (Norouzi, Punjani & Fleet, *Fast
//! exact search in Hamming space with multi-index hashing*, TPAMI 2014).
//!
//! A hash is four words of 16 bits, and each word has a table of buckets, one for each of its
//! values. Two hashes at most r = 4a + b bits apart (b < 4) differ in at most a bits in one of the
//! first b + 1 words, or in at most a − 1 in one of the others; else they would be at least
//! (b + 1)(a + 1) + (3 − b)a = r + 1 apart. So a query looks into the buckets that near, and
//! counts the bits of what it finds there.
//!
//! In memory an entry is 32 bytes (hash, id, and its place in four buckets), up to half more after
//! many insertions.

use super::PHash;
use std::sync::LazyLock;

/// Words of a hash.
const WORDS: usize = 4;
/// Values of a word.
const VALUES: usize = 1 << 16;

/// A hash near the one asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// What was inserted with it.
    pub id: u64,
    /// The hash.
    pub phash: PHash,
    /// Bits in which it differs from the one asked for.
    pub distance: u32,
}

/// Hashes with an id each. The same hash or id may be there many times. At most 2^32 entries.
#[derive(Debug)]
pub struct Index {
    hashes: Vec<u64>,
    ids: Vec<u64>,
    /// Per word and value, places in `hashes`.
    tables: [Vec<Vec<u32>>; WORDS],
}

impl Default for Index {
    fn default() -> Self {
        Self {
            hashes: Vec::new(),
            ids: Vec::new(),
            tables: std::array::from_fn(|_| vec![Vec::new(); VALUES]),
        }
    }
}

fn word(hash: u64, i: usize) -> usize {
    usize::from((hash >> (16 * i)) as u16)
}

/// All values of a word, by their number of ones, and how many have at most n ones.
fn changes() -> &'static (Vec<u16>, [usize; 17]) {
    static CHANGES: LazyLock<(Vec<u16>, [usize; 17])> = LazyLock::new(|| {
        let mut values: Vec<u16> = (0..=u16::MAX).collect();
        values.sort_by_key(|value| value.count_ones());
        let up_to = |n| values.partition_point(|value| value.count_ones() as usize <= n);
        let counts = std::array::from_fn(up_to);
        (values, counts)
    });
    &CHANGES
}

impl Index {
    /// An index of all `entries`; faster than inserting them one by one, and smaller.
    pub fn build(entries: impl IntoIterator<Item = (PHash, u64)>) -> Self {
        let mut index = Self::default();
        for (PHash(hash), id) in entries {
            index.hashes.push(hash);
            index.ids.push(id);
        }
        index.hashes.shrink_to_fit();
        index.ids.shrink_to_fit();
        for (i, table) in index.tables.iter_mut().enumerate() {
            let mut sizes = vec![0; VALUES];
            for &hash in &index.hashes {
                sizes[word(hash, i)] += 1;
            }
            for (bucket, size) in table.iter_mut().zip(sizes) {
                bucket.reserve_exact(size);
            }
            for (place, &hash) in (0..=u32::MAX).zip(&index.hashes) {
                table[word(hash, i)].push(place);
            }
        }
        index
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Bytes of memory that it holds.
    pub fn bytes(&self) -> usize {
        let buckets = self.tables.iter().flatten();
        let places: usize = buckets.map(Vec::capacity).sum();
        let headers = WORDS * VALUES * size_of::<Vec<u32>>();
        8 * (self.hashes.capacity() + self.ids.capacity()) + 4 * places + headers
    }

    /// Adds an entry. `false`, and nothing changes, if there are 2^32 of them already.
    pub fn insert(&mut self, phash: PHash, id: u64) -> bool {
        let Ok(place) = u32::try_from(self.hashes.len()) else {
            return false;
        };
        for (i, table) in self.tables.iter_mut().enumerate() {
            table[word(phash.0, i)].push(place);
        }
        self.hashes.push(phash.0);
        self.ids.push(id);
        true
    }

    /// Removes one entry with this hash and id; `false` if there is none. Takes as long as its
    /// fullest bucket is long.
    pub fn remove(&mut self, phash: PHash, id: u64) -> bool {
        // In the shortest of the buckets that it must be in.
        let buckets = (0..WORDS).map(|i| &self.tables[i][word(phash.0, i)]);
        let Some(place) = buckets.min_by_key(|bucket| bucket.len()).and_then(|b| {
            let mut places = b.iter().map(|&place| place as usize);
            places.find(|&place| self.hashes[place] == phash.0 && self.ids[place] == id)
        }) else {
            return false;
        };
        // The last one moves to its place.
        let last = self.hashes.len() - 1;
        for (i, table) in self.tables.iter_mut().enumerate() {
            let bucket = &mut table[word(phash.0, i)];
            if let Some(at) = bucket.iter().position(|&p| p as usize == place) {
                bucket.swap_remove(at);
            }
            if last != place {
                let bucket = &mut table[word(self.hashes[last], i)];
                if let Some(moved) = bucket.iter_mut().find(|p| **p as usize == last) {
                    *moved = place as u32;
                }
            }
        }
        self.hashes.swap_remove(place);
        self.ids.swap_remove(place);
        true
    }

    /// All entries at most `radius` bits from `phash`, nearest first, then by id.
    pub fn within(&self, phash: PHash, radius: u32) -> Vec<Match> {
        let mut found = Vec::new();
        let (values, counts) = changes();
        let reach = |i: usize| reach(radius, i);
        let buckets: usize = (0..WORDS).filter_map(|i| Some(counts[reach(i)?])).sum();
        let mut look = |place: usize, before: usize| {
            let hash = PHash(self.hashes[place]);
            let distance = hash.distance(phash);
            // What an earlier table has shown was found there.
            let anew = |&i: &usize| {
                let differing = (word(hash.0, i) ^ word(phash.0, i)).count_ones() as usize;
                reach(i).is_none_or(|reach| differing > reach)
            };
            if distance <= radius && (0..before).all(|i| anew(&i)) {
                found.push(Match {
                    id: self.ids[place],
                    phash: hash,
                    distance,
                });
            }
        };
        if self.hashes.len() <= buckets {
            (0..self.hashes.len()).for_each(|place| look(place, 0));
        } else {
            for (i, table) in self.tables.iter().enumerate() {
                let Some(reach) = reach(i) else { continue };
                for &change in &values[..counts[reach]] {
                    let bucket = &table[word(phash.0, i) ^ usize::from(change)];
                    bucket.iter().for_each(|&place| look(place as usize, i));
                }
            }
        }
        found.sort_unstable_by_key(|m| (m.distance, m.id, m.phash));
        found
    }
}

/// In how many bits word `i` may differ where no other word is looked at; `None` if the other words
/// suffice.
fn reach(radius: u32, i: usize) -> Option<usize> {
    let radius = radius.min(64) as usize;
    let (whole, rest) = (radius / WORDS, radius % WORDS);
    match i <= rest {
        true => Some(whole),
        false => whole.checked_sub(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Some hashes around a few centres, so that many are near each other.
    fn entries() -> impl Strategy<Value = Vec<(PHash, u64)>> {
        let near = (0u64..4, any::<[u8; 10]>(), 0usize..=10, 0u64..50);
        let near = near.prop_map(|(centre, bits, count, id)| {
            let hash = centre.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let flip = |hash, bit: &u8| hash ^ 1 << (bit % 64);
            (PHash(bits[..count].iter().fold(hash, flip)), id)
        });
        prop::collection::vec(near, 0..400)
    }

    fn scan(entries: &[(PHash, u64)], phash: PHash, radius: u32) -> Vec<Match> {
        let mut found: Vec<_> = entries
            .iter()
            .map(|&(hash, id)| Match {
                id,
                phash: hash,
                distance: hash.distance(phash),
            })
            .filter(|m| m.distance <= radius)
            .collect();
        found.sort_unstable_by_key(|m| (m.distance, m.id, m.phash));
        found
    }

    #[test]
    fn every_entry_is_found_at_every_distance() {
        // Enough others that the tables are used.
        let noise = (0..20_000u64).map(|i| (PHash(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)), i));
        let entries: Vec<_> = noise.collect();
        let index = Index::build(entries.iter().copied());
        for radius in 0..=16 {
            for query in [
                0,
                u64::MAX,
                0x0123_4567_89ab_cdef,
                entries[777].0.0 ^ 0x8001,
            ] {
                let found = index.within(PHash(query), radius);
                assert_eq!(found, scan(&entries, PHash(query), radius), "{radius}");
            }
        }
        // One bit pattern for each way to share 12 bits among four words.
        for (a, b, c) in (0..=12u32)
            .flat_map(|a| (0..=12 - a).flat_map(move |b| (0..=12 - a - b).map(move |c| (a, b, c))))
        {
            let ones = |n: u32| (1u64 << n) - 1;
            let bits = ones(a) | ones(b) << 16 | ones(c) << 32 | ones(12 - a - b - c) << 48;
            let near = index.within(PHash(entries[5].0.0 ^ bits), 12);
            assert!(near.iter().any(|m| m.id == 5), "{a} {b} {c}");
        }
    }

    proptest! {
        #[test]
        fn finds_what_a_scan_finds(
            entries in entries(),
            more in entries(),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..50),
            query in 0usize..400,
            radius in 0u32..=14,
        ) {
            let mut model = entries.clone();
            let mut index = Index::build(entries);
            for (phash, id) in more {
                prop_assert!(index.insert(phash, id));
                model.push((phash, id));
            }
            for at in removed {
                if model.is_empty() {
                    break;
                }
                let (phash, id) = model.swap_remove(at.index(model.len()));
                prop_assert!(index.remove(phash, id));
            }
            prop_assert_eq!(index.len(), model.len());
            let absent = PHash(0x5555_5555_5555_5555);
            prop_assert!(!index.remove(absent, 1000));
            let query = model.get(query).map_or(absent, |entry| entry.0);
            prop_assert_eq!(index.within(query, radius), scan(&model, query, radius));
        }

        #[test]
        fn any_radius(query: u64, radius: u32) {
            let entries = [(PHash(0), 1), (PHash(u64::MAX), 2), (PHash(query ^ 1), 3)];
            let index = Index::build(entries);
            prop_assert_eq!(index.within(PHash(query), radius), scan(&entries, PHash(query), radius));
        }
    }
}
