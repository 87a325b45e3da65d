// SPDX-License-Identifier: MPL-2.0
//! A chunk with many owners.

use super::*;
use crate::ownership::DEPTH;
use crate::protocol::MAX_VARIANTS;
use std::collections::{BTreeMap, BTreeSet};

/// More than a record has room for.
const PEOPLE: usize = 100;

/// Many owners of one chunk, and a plain model of what each of them is.
pub struct Crowd<'a> {
    store: &'a dyn Metadata,
    people: Vec<(String, Leaf)>,
    chunk: Item,
    /// Recordings that name the chunk, and how often; none: it is held.
    members: BTreeMap<Leaf, Vec<(RecordingId, u64)>>,
    /// Without the chunk.
    before: Stats,
    now: u64,
    recordings: u64,
    drawn: blake3::OutputReader,
}

impl<'a> Crowd<'a> {
    pub async fn gather(store: &'a dyn Metadata) -> Self {
        let now = 1000 * HOUR;
        while store.expire_holds(now).await.unwrap() > 0 {}
        // Variants of the tag, as many as are shown, that others have added before.
        let mut refused = vec![];
        for i in 0..MAX_VARIANTS {
            let key = hash(&format!("filler {i}"));
            let owner = store.enroll(key, key).await.unwrap();
            let copy = Item {
                refused: refused.clone(),
                ..item("crowd", &format!("other {i}"), true)
            };
            assert_eq!(one(store, owner, &copy, now).await, Outcome::Added);
            let named = store.commit(owner, [12; 16], 0, commit(&[&copy]), now);
            assert_eq!(named.await.unwrap(), Committed::Done);
            refused.push(copy.d1);
        }
        let mut people = vec![];
        for i in 0..PEOPLE {
            let name = format!("person {i}");
            let key = hash(&name);
            people.push((name, store.enroll(key, key).await.unwrap()));
        }
        let chunk = Item {
            refused,
            ..item("crowd", "crowd", true)
        };
        Self {
            store,
            people,
            chunk,
            members: BTreeMap::new(),
            before: store.stats().await.unwrap(),
            now,
            recordings: 0,
            drawn: blake3::Hasher::new().finalize_xof(),
        }
    }

    fn draw(&mut self, below: usize) -> usize {
        let mut drawn = [0; 2];
        self.drawn.fill(&mut drawn);
        usize::from(u16::from_le_bytes(drawn)) % below
    }

    async fn join(&mut self, leaf: Leaf) {
        let outcome = one(self.store, leaf, &self.chunk, self.now).await;
        let fine = matches!(outcome, Outcome::Added | Outcome::Joined);
        assert!(fine, "{outcome:?}");
        self.members.entry(leaf).or_default();
    }

    async fn name(&mut self, leaf: Leaf, refs: usize) {
        let mut id = [13; 16];
        id[8..].copy_from_slice(&self.recordings.to_be_bytes());
        self.recordings += 1;
        let segment = commit(&vec![&self.chunk; refs]);
        let named = self.store.commit(leaf, id, 0, segment, self.now).await;
        match self.members.get_mut(&leaf) {
            Some(member) => {
                assert_eq!(named.unwrap(), Committed::Done);
                member.push((id, refs as u64));
            }
            None => assert!(matches!(named.unwrap(), Committed::NotHeld(_))),
        }
    }

    /// Forgets one of its recordings, the last of which makes it leave.
    async fn forget(&mut self, leaf: Leaf) {
        let Some((id, _)) = self.members.get_mut(&leaf).and_then(Vec::pop) else {
            return;
        };
        let forgotten = self.store.forget(leaf, id, self.now).await.unwrap();
        assert_eq!(forgotten, Forgotten::Done);
        if self.members[&leaf].is_empty() {
            self.members.remove(&leaf);
        }
    }

    async fn end_holds(&mut self) {
        self.now += HOLD_MS + 2 * HOUR;
        while self.store.expire_holds(self.now).await.unwrap() > 0 {}
        self.members.retain(|_, named| !named.is_empty());
    }

    /// Goes up and down across the number of members that a record has room for, and down to
    /// none; then leaves more than that many, each with a recording.
    pub async fn come_and_go(mut self) {
        for target in [75, 30, 70, 0, 70] {
            let mut steps = 0;
            while self.members.len() != target {
                let grow = self.members.len() < target;
                let at = self.draw(PEOPLE);
                let anybody = self.people[at].1;
                match self.draw(12) {
                    0..=5 if grow => {
                        self.join(anybody).await;
                        if self.draw(4) > 0 {
                            self.name(anybody, 1).await;
                        }
                    }
                    0..=4 => {
                        let at = self.draw(self.members.len());
                        let member = self.members.keys().nth(at).copied();
                        self.forget(member.unwrap()).await;
                    }
                    5 => self.end_holds().await,
                    6..=7 => {
                        let refs = 1 + self.draw(3);
                        self.name(anybody, refs).await;
                    }
                    8 => self.forget(anybody).await,
                    _ if self.draw(100) == 0 => self.end_holds().await,
                    _ => (),
                }
                steps += 1;
                if steps % 100 == 0 {
                    self.check().await;
                }
            }
            self.check().await;
        }
        let held = self.members.iter().filter(|(_, named)| named.is_empty());
        for leaf in held.map(|(leaf, _)| *leaf).collect::<Vec<_>>() {
            self.name(leaf, 1).await;
        }
        self.check().await;
    }

    async fn check(&self) {
        let Self { store, members, .. } = self;
        let stats = store.stats().await.unwrap();
        let refs = |named: &[(RecordingId, u64)]| named.iter().map(|(_, refs)| refs).sum::<u64>();
        let all: u64 = members.values().map(|named| refs(named)).sum();
        assert_eq!(stats.bytes_logical, self.before.bytes_logical + 100 * all);
        let there = u64::from(!members.is_empty());
        assert_eq!(stats.variants, self.before.variants + there);
        assert_eq!(stats.bytes_stored, self.before.bytes_stored + 100 * there);
        let shared = members.iter().find_map(|(leaf, named)| {
            let (id, _) = named.first()?;
            let (owner, id, seq) = (*leaf, *id, 0);
            Some(Via { owner, id, seq })
        });
        let mut epochs = BTreeSet::new();
        for (name, leaf) in &self.people {
            let member = members.get(leaf);
            let charged = member.map_or(0, |named| 100 * refs(named).max(1));
            assert_eq!(bytes(*store, name).await, charged);
            let found = store.lookup(*leaf, vec![self.chunk.tag]).await.unwrap();
            let found = found[0].iter().any(|v| *v.d1 == self.chunk.d1);
            assert_eq!(found, member.is_some(), "of those it holds one is shown");
            // Others open it as readers of a recording that names it.
            let via = if member.is_some() { None } else { shared };
            let wanted = vec![reference(&self.chunk)];
            let opened = store.open(*leaf, wanted, via).await.unwrap().remove(0);
            assert_eq!(opened.is_some(), member.is_some() || via.is_some());
            let Some(Opening { wrapped, .. }) = opened else {
                continue;
            };
            let keys = PathKeys::from_bytes(*leaf, &Tree::new(MASTER).path_keys(*leaf)).unwrap();
            assert_eq!(keys.unwrap_c2(&wrapped), Some(self.chunk.c2));
            epochs.insert(wrapped.epoch);
            // Nobody else has the key.
            let up = DEPTH - wrapped.node.ilog2();
            for i in 0..1u64 << up {
                let below = ((wrapped.node << up) + i - (1 << DEPTH)) as Leaf;
                assert!(below == *leaf || members.contains_key(&below));
            }
        }
        assert!(epochs.len() <= 1);
        assert_eq!(store.audit(self.now).await.unwrap().mended, 0);
    }
}

/// What an audit makes of counts of which so many are wrong, in records, in rows, and of rows.
pub async fn mended(store: &dyn Metadata, spoilt: [u64; 3], right: Stats) {
    assert_eq!(spoilt[0], MAX_VARIANTS as u64);
    assert_eq!(spoilt[1..], [70, 1]);
    let mended = store.audit(0).await.unwrap().mended;
    assert!(mended > spoilt.iter().sum::<u64>());
    assert_eq!(store.audit(0).await.unwrap().mended, 0);
    assert_eq!(store.stats().await.unwrap(), right);
    // The variant ends with its last member, neither before nor after.
    let tag = hash("crowd");
    let variants = async || {
        let all = store.variants(None, 1000).await.unwrap();
        all.iter().filter(|place| place.tag == tag).count()
    };
    for i in 0..PEOPLE {
        assert_eq!(variants().await, MAX_VARIANTS + 1);
        let key = hash(&format!("person {i}"));
        let leaf = store.owner(key).await.unwrap().unwrap().leaf;
        for recording in store.recordings(leaf, key, None).await.unwrap().recordings {
            let forgotten = store.forget(leaf, *recording.id, 0).await.unwrap();
            assert_eq!(forgotten, Forgotten::Done);
        }
        if store.stats().await.unwrap().variants < right.variants {
            break;
        }
    }
    assert_eq!(variants().await, MAX_VARIANTS);
    assert_eq!(store.audit(0).await.unwrap().mended, 0);
}
