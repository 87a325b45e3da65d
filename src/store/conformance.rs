// SPDX-License-Identifier: MPL-2.0
//! What every backend has to do: one suite per trait, given a fresh store that keeps nothing yet.

use super::tables::{Engine, TableRegistry};
use super::*;
use crate::ownership::{DEPTH, PathKeys, Tree};
use crate::protocol::{MAX_VARIANTS, RecordingEntry};
use futures::future::join_all;
use std::collections::{BTreeMap, BTreeSet};

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

/// The suite of [`Metadata`].
pub async fn metadata(store: &dyn Metadata) {
    let a = store.enroll(hash("a"), hash("a agree")).await.unwrap();
    let b = store.enroll(hash("b"), hash("b agree")).await.unwrap();
    assert_ne!(a, b);
    assert_eq!(store.enroll(hash("a"), hash("other")).await.unwrap(), a);
    let owner = store.owner(hash("a")).await.unwrap().unwrap();
    assert_eq!(
        (owner.leaf, owner.agree, owner.bytes),
        (a, hash("a agree"), 0)
    );
    assert_eq!(store.owner(hash("nobody")).await.unwrap(), None);
    registering(store, a, b).await;
    recordings(store, a, b).await;
    sharing(store, a, b).await;
    lists(store, a, b).await;
    holds(store, a, b).await;
    trash(store, a).await;
    many_variants(store).await;
    upkeep_of_counts(store, a).await;
    quota(store).await;
    retention(store, a).await;
    legal_hold(store, a).await;
    jobs(store).await;
    marks(store).await;
    Crowd::gather(store).await.come_and_go().await;
}

async fn bytes(store: &dyn Metadata, name: &str) -> u64 {
    store.owner(hash(name)).await.unwrap().unwrap().bytes
}

async fn registering(store: &dyn Metadata, a: Leaf, b: Leaf) {
    let first = item("t", "first", true);
    assert_eq!(
        one(store, a, &item("t", "first", false), 1).await,
        Outcome::NoBlob
    );
    assert_eq!(one(store, a, &first, 1).await, Outcome::Added);
    assert_eq!(
        one(store, a, &item("t", "first", false), 1).await,
        Outcome::Joined
    );
    let before = opens(store, a, &first).await.unwrap();
    assert_eq!(opens(store, b, &first).await, None);
    // Joining needs the right C3 and length.
    for wrong in [
        Item {
            c3: [0; 32],
            ..item("t", "first", false)
        },
        Item {
            len: 99,
            ..item("t", "first", false)
        },
    ] {
        assert_eq!(one(store, b, &wrong, 1).await, Outcome::NoBlob);
    }
    let shown = store
        .lookup(b, vec![hash("t"), hash("none")])
        .await
        .unwrap();
    assert_eq!((shown[0].len(), shown[1].len()), (1, 0));
    assert_eq!(*shown[0][0].c2, first.c2);
    assert_eq!(shown[0][0].c3_check, crate::protocol::c3_check(&first.c3));
    // A second first upload meets the first.
    let second = item("t", "second", true);
    let Outcome::Unseen(unseen) = one(store, b, &second, 1).await else {
        panic!("the first variant was not seen");
    };
    assert_eq!(unseen, shown[0]);
    assert_eq!(store.stats().await.unwrap().blobs, 2);
    assert_eq!(
        one(store, b, &item("t", "first", false), 1).await,
        Outcome::Joined
    );
    let after = opens(store, b, &first).await.unwrap();
    assert_ne!(before, after);
    assert_eq!(opens(store, a, &first).await, Some(after));
    // Whoever is in already changes nothing.
    assert_eq!(
        one(store, b, &item("t", "first", false), 1).await,
        Outcome::Joined
    );
    assert_eq!(opens(store, b, &first).await, Some(after));
    let refused = vec![first.d1];
    let own = Item {
        refused,
        ..second.clone()
    };
    assert_eq!(one(store, b, &own, 1).await, Outcome::Added);
    let refused = vec![first.d1, second.d1];
    let third = Item {
        refused,
        ..item("t", "third", true)
    };
    assert_eq!(one(store, b, &third, 1).await, Outcome::SecondVariant);
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.chunks, stats.variants, stats.blobs), (1, 2, 3));
    assert_eq!((stats.bytes_stored, stats.bytes_logical), (200, 0));
    assert_eq!(
        (bytes(store, "a").await, bytes(store, "b").await),
        (100, 200)
    );
    // The same tag twice in one registration.
    let twice = vec![item("u", "u1", true), item("u", "u2", true)];
    let outcomes = store.register(a, twice, None, 1).await.unwrap();
    assert!(matches!(outcomes[..], [Outcome::Added, Outcome::Unseen(_)]));
}

async fn recordings(store: &dyn Metadata, a: Leaf, b: Leaf) {
    let (id, first) = ([1; 16], item("t", "first", false));
    let foreign = item("strange", "strange", false);
    let not_held = store
        .commit(a, id, 0, commit(&[&first, &foreign, &foreign]), 0)
        .await;
    assert_eq!(not_held.unwrap(), Committed::NotHeld(vec![1, 2]));
    assert!(store.recording(a, id, 0).await.unwrap().is_none());
    for seq in 0..3 {
        let done = store.commit(a, id, seq, commit(&[&first, &first]), 0).await;
        assert_eq!(done.unwrap(), Committed::Done);
    }
    let again = store.commit(a, id, 1, commit(&[&first, &first]), 0).await;
    assert_eq!(again.unwrap(), Committed::Done);
    let other = store.commit(a, id, 1, commit(&[&first]), 0).await;
    assert_eq!(other.unwrap(), Committed::NextIs(3));
    let gap = store.commit(a, id, 4, commit(&[&first]), 0).await;
    assert_eq!(gap.unwrap(), Committed::NextIs(3));
    assert_eq!(store.stats().await.unwrap().bytes_logical, 600);
    assert_eq!(bytes(store, "a").await, 700);
    let recording = store.recording(a, id, 1).await.unwrap().unwrap();
    assert_eq!((recording.segments, recording.heads.len()), (3, 2));
    assert!(
        store
            .recording(a, id, 9)
            .await
            .unwrap()
            .unwrap()
            .heads
            .is_empty()
    );
    let manifest = store.segment(a, id, 2).await.unwrap();
    assert_eq!(manifest.as_deref(), Some(b"manifest".as_slice()));
    assert_eq!(store.segment(a, id, 3).await.unwrap(), None);
    assert_eq!(store.segment(b, id, 0).await.unwrap(), None);
    assert_eq!(listed(store, a, "a").await.len(), 1);
    assert_eq!(store.forget(b, id, 2).await.unwrap(), Forgotten::Unknown);
    let before = opens(store, b, &first).await;
    assert_eq!(store.forget(a, id, 2).await.unwrap(), Forgotten::Done);
    assert_eq!(store.forget(a, id, 2).await.unwrap(), Forgotten::Unknown);
    assert_eq!(opens(store, a, &first).await, None);
    let after = opens(store, b, &first).await;
    assert!(after.is_some() && after != before);
    let stats = store.stats().await.unwrap();
    assert_eq!(
        (stats.recordings, stats.segments, stats.bytes_manifests),
        (0, 0, 0)
    );
    assert_eq!((stats.bytes_logical, bytes(store, "a").await), (0, 100));
}

async fn sharing(store: &dyn Metadata, a: Leaf, b: Leaf) {
    let (id, chunk) = ([2; 16], item("s", "s", true));
    let hidden = item("hidden", "hidden", true);
    assert_eq!(one(store, a, &chunk, 1).await, Outcome::Added);
    assert_eq!(one(store, a, &hidden, 1).await, Outcome::Added);
    assert!(!store.share(a, id, hash("b"), vec![7]).await.unwrap());
    store.commit(a, id, 0, commit(&[&chunk]), 0).await.unwrap();
    assert!(store.share(a, id, hash("b"), vec![7]).await.unwrap());
    assert_eq!(
        store.shared(hash("a"), id, hash("b")).await.unwrap(),
        Some(a)
    );
    assert_eq!(store.shared(hash("a"), id, hash("c")).await.unwrap(), None);
    let list = listed(store, b, "b").await;
    assert_eq!(list[0].owner, Some(hash("a").into()));
    let via = Some(Via {
        owner: a,
        id,
        seq: 0,
    });
    let chunks = vec![reference(&chunk), reference(&hidden)];
    let opened = store.open(b, chunks, via).await.unwrap();
    let opening = opened[0].as_ref().unwrap();
    let keys = PathKeys::from_bytes(b, &Tree::new(MASTER).path_keys(b)).unwrap();
    assert_eq!(keys.unwrap_c2(&opening.wrapped), Some(chunk.c2));
    assert!(opened[1].is_none());
    assert!(store.unshare(a, id, hash("b")).await.unwrap());
    assert!(!store.unshare(a, id, hash("b")).await.unwrap());
    store.share(a, id, hash("b"), vec![7]).await.unwrap();
    store.forget(a, id, 3).await.unwrap();
    assert_eq!(store.shared(hash("a"), id, hash("b")).await.unwrap(), None);
    assert!(listed(store, b, "b").await.is_empty());
}

/// All recordings of an owner and those shared with it, page by page.
async fn listed(store: &dyn Metadata, leaf: Leaf, key: &str) -> Vec<RecordingEntry> {
    let (mut all, mut after) = (Vec::<RecordingEntry>::new(), None);
    loop {
        let page = store.recordings(leaf, hash(key), after).await.unwrap();
        all.extend(page.recordings);
        if !page.more {
            return all;
        }
        let last = all.last().unwrap();
        after = Some(match &last.owner {
            None => Listed::Own(*last.id),
            Some(owner) => {
                let owner = store.owner(**owner).await.unwrap().unwrap();
                Listed::Shared(owner.leaf, *last.id)
            }
        });
    }
}

async fn lists(store: &dyn Metadata, a: Leaf, b: Leaf) {
    // So large that three fill a page.
    let large = Commit {
        summary: vec![7; 400_000].into(),
        ..commit(&[])
    };
    for (owner, count) in [(a, 4), (b, 5)] {
        for n in 0..count {
            let done = store.commit(owner, [n; 16], 0, large.clone(), 0).await;
            assert_eq!(done.unwrap(), Committed::Done);
        }
    }
    // With itself too, which is not the same entry as its own.
    for (owner, n) in [(a, 3), (a, 1), (a, 0), (b, 4)] {
        assert!(
            store
                .share(owner, [n; 16], hash("b"), vec![7])
                .await
                .unwrap()
        );
    }
    let all = listed(store, b, "b").await;
    let own = all.iter().filter(|e| e.owner.is_none()).map(|e| e.id[0]);
    assert_eq!(own.collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert!(all[..5].iter().all(|e| e.owner.is_none()));
    let of = |owner: &str| {
        let owner = Some(hash(owner).into());
        let ids = all.iter().filter(move |e| e.owner == owner);
        ids.map(|e| e.id[0]).collect::<Vec<_>>()
    };
    assert_eq!((of("a"), of("b")), (vec![0, 1, 3], vec![4]));
    // Pages, the first of own, one of both, one of shared ones.
    let sizes = [
        (None, 3, true),
        (Some(Listed::Own([2; 16])), 3, true),
        (Some(Listed::Own([4; 16])), 3, true),
        (Some(Listed::Own([0xff; 16])), 3, true),
        (Some(Listed::Shared(a, [0; 16])), 3, false),
        (Some(Listed::Shared(b, [4; 16])), 0, false),
    ];
    for (after, count, more) in sizes {
        let page = store.recordings(b, hash("b"), after).await.unwrap();
        let found = (page.recordings.len(), page.more);
        assert_eq!(found, (count, more), "{after:?}");
    }
    // What the next page would begin behind may go meanwhile.
    assert!(store.unshare(a, [1; 16], hash("b")).await.unwrap());
    let after = Some(Listed::Shared(a, [1; 16]));
    let page = store.recordings(b, hash("b"), after).await.unwrap();
    assert_eq!(page.recordings.len(), 2);
    for (owner, count) in [(a, 4), (b, 5)] {
        for n in 0..count {
            store.forget(owner, [n; 16], 3).await.unwrap();
        }
    }
    assert!(listed(store, b, "b").await.is_empty());

    // A page has a thousand entries.
    let ids = || (0..1001u128).map(u128::to_be_bytes);
    let commits = ids().map(|id| store.commit(a, id, 0, commit(&[]), 0));
    for done in join_all(commits).await {
        assert_eq!(done.unwrap(), Committed::Done);
    }
    let page = store.recordings(a, hash("a"), None).await.unwrap();
    assert_eq!((page.recordings.len(), page.more), (1000, true));
    assert_eq!(listed(store, a, "a").await.len(), 1001);
    for done in join_all(ids().map(|id| store.forget(a, id, 3))).await {
        assert_eq!(done.unwrap(), Forgotten::Done);
    }
}

async fn holds(store: &dyn Metadata, a: Leaf, b: Leaf) {
    let chunk = item("h", "h", true);
    assert_eq!(one(store, a, &chunk, HOUR).await, Outcome::Added);
    assert_eq!(one(store, b, &chunk, HOUR).await, Outcome::Joined);
    store
        .commit(b, [3; 16], 0, commit(&[&chunk]), 0)
        .await
        .unwrap();
    // Registering again holds for longer.
    assert_eq!(one(store, a, &chunk, 10 * HOUR).await, Outcome::Added);
    while store.expire_holds(5 * HOUR + HOLD_MS).await.unwrap() > 0 {}
    assert!(opens(store, a, &chunk).await.is_some());
    while store.expire_holds(12 * HOUR + HOLD_MS).await.unwrap() > 0 {}
    assert_eq!(opens(store, a, &chunk).await, None);
    // What a recording names stays.
    assert!(opens(store, b, &chunk).await.is_some());
    assert_eq!((bytes(store, "a").await, bytes(store, "b").await), (0, 100));
    let not_held = store.commit(a, [3; 16], 0, commit(&[&chunk]), 0).await;
    assert_eq!(not_held.unwrap(), Committed::NotHeld(vec![0]));
    store.forget(b, [3; 16], 20 * HOUR).await.unwrap();
    assert!(store.variants(None, 100).await.unwrap().is_empty());
}

async fn trash(store: &dyn Metadata, a: Leaf) {
    // All that the tests before have left.
    let waiting = store.stats().await.unwrap().blobs;
    let claimed = store.claim_trash(u64::MAX, 1000).await.unwrap();
    assert_eq!(claimed.len() as u64, waiting);
    assert_eq!(store.claim_trash(u64::MAX, 1000).await.unwrap(), claimed);
    store.deleted(claimed, 50).await.unwrap();
    assert_eq!(store.stats().await.unwrap().blobs, 0);
    assert!(store.claim_trash(u64::MAX, 1000).await.unwrap().is_empty());
    // The name of a deleted blob is not used for a day: somebody else may still be deleting it.
    let again = item("h", "h", true);
    for (hours, outcome) in [
        (0, Outcome::NoBlob),
        (24, Outcome::NoBlob),
        (26, Outcome::Added),
    ] {
        store.deleted(vec![], 50 + hours * HOUR).await.unwrap();
        assert_eq!(one(store, a, &again, 60).await, outcome, "{hours} h");
    }
    let chunk = item("h", "h", false);
    store
        .commit(a, [4; 16], 0, commit(&[&chunk]), 0)
        .await
        .unwrap();
    store.forget(a, [4; 16], 100).await.unwrap();
    assert!(store.claim_trash(100, 10).await.unwrap().is_empty());
    // Out of the trash again.
    assert_eq!(
        one(store, a, &item("h", "h", true), 101).await,
        Outcome::Added
    );
    assert!(store.claim_trash(u64::MAX, 10).await.unwrap().is_empty());
    store
        .commit(a, [4; 16], 0, commit(&[&chunk]), 0)
        .await
        .unwrap();
    store.forget(a, [4; 16], 200).await.unwrap();
    assert_eq!(store.claim_trash(201, 10).await.unwrap(), [chunk.d1]);
    // Not while it is being deleted.
    assert_eq!(
        one(store, a, &item("h", "h", true), 300).await,
        Outcome::NoBlob
    );
    store.deleted(vec![chunk.d1], 400).await.unwrap();
    // Two tags may name one blob: it goes with the last.
    let (x, y) = (item("x", "blob", true), item("y", "blob", true));
    for (id, chunk) in [([5; 16], &x), ([6; 16], &y)] {
        assert_eq!(one(store, a, chunk, 500).await, Outcome::Added);
        store.commit(a, id, 0, commit(&[chunk]), 0).await.unwrap();
    }
    assert!(store.claim_orphans(vec![x.d1]).await.unwrap().is_empty());
    store.forget(a, [5; 16], 600).await.unwrap();
    assert!(store.claim_trash(u64::MAX, 10).await.unwrap().is_empty());
    store.forget(a, [6; 16], 600).await.unwrap();
    assert_eq!(store.claim_trash(u64::MAX, 10).await.unwrap(), [x.d1]);
    store.deleted(vec![x.d1], 700).await.unwrap();
    let orphan = hash("orphan");
    assert_eq!(store.claim_orphans(vec![orphan]).await.unwrap(), [orphan]);
    store.deleted(vec![orphan], 800).await.unwrap();
    assert_eq!(store.stats().await.unwrap().blobs, 0);
}

async fn many_variants(store: &dyn Metadata) {
    let mut seen: Vec<Hash> = vec![];
    for i in 0..MAX_VARIANTS + 3 {
        let key = hash(&format!("filler {i}"));
        let owner = store.enroll(key, key).await.unwrap();
        let refused = seen.clone();
        let copy = Item {
            refused,
            ..item("full", &format!("copy {i}"), true)
        };
        assert_eq!(one(store, owner, &copy, 1000).await, Outcome::Added);
        seen.push(copy.d1);
        let shown = store.lookup(owner, vec![copy.tag]).await.unwrap().remove(0);
        assert!(shown.len() <= MAX_VARIANTS);
        assert_eq!(*shown[0].d1, seen[0]);
        assert!(
            shown.iter().any(|v| *v.d1 == copy.d1),
            "its own is among them"
        );
    }
}

async fn upkeep_of_counts(store: &dyn Metadata, a: Leaf) {
    let chunk = item("full", "copy 0", false);
    assert_eq!(one(store, a, &chunk, 1000).await, Outcome::Joined);
    store
        .commit(a, [7; 16], 0, commit(&[&chunk, &chunk]), 0)
        .await
        .unwrap();
    let all = store.variants(None, 100).await.unwrap();
    assert_eq!(all.len(), MAX_VARIANTS + 3);
    let mut paged = vec![];
    let mut after = None;
    loop {
        let page = store.variants(after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some((last.tag, last.d1));
        paged.extend(page);
    }
    assert_eq!(paged, all);
    let stats = store.stats().await.unwrap();
    let audit = store.audit(1000).await.unwrap();
    assert_eq!((audit.segments, audit.mended), (1, 0));
    assert_eq!(store.stats().await.unwrap(), stats);
    // A damaged one is neither offered nor joined nor named, until its bytes come again.
    assert!(store.mark(chunk.tag, chunk.d1, true).await.unwrap());
    assert!(!store.mark(chunk.tag, hash("none"), true).await.unwrap());
    let shown = store.lookup(a, vec![chunk.tag]).await.unwrap().remove(0);
    assert!(shown.iter().all(|v| *v.d1 != chunk.d1));
    assert_eq!(one(store, a, &chunk, 1000).await, Outcome::NoBlob);
    let refused = store
        .commit(a, [7; 16], 1, commit(&[&chunk]), 0)
        .await
        .unwrap();
    assert_eq!(refused, Committed::NotHeld(vec![0]));
    let again = item("full", "copy 0", true);
    assert_eq!(one(store, a, &again, 2000).await, Outcome::Joined);
    let done = store
        .commit(a, [7; 16], 1, commit(&[&chunk]), 0)
        .await
        .unwrap();
    assert_eq!(done, Committed::Done);
}

/// What an owner may hold is counted where it is added, also when two servers add it at once.
async fn quota(store: &dyn Metadata) {
    let owner = store.enroll(hash("quota"), hash("quota")).await.unwrap();
    let register = |names: &[&str], quota| {
        let items = names.iter().map(|name| item(name, name, true)).collect();
        store.register(owner, items, Some(quota), 1)
    };
    register(&["q1", "q2"], 200).await.unwrap();
    // What is held already adds nothing.
    register(&["q1", "q2"], 150).await.unwrap();
    let refused = register(&["q1", "q3"], 299).await;
    assert!(matches!(
        refused,
        Err(Error::Quota {
            used: 200,
            quota: 299
        })
    ));
    assert_eq!(bytes(store, "quota").await, 200);
    let (one, two) = tokio::join!(register(&["q3"], 300), register(&["q4"], 300));
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
    assert_eq!(bytes(store, "quota").await, 300);
}

/// Adds a segment with one chunk of its own to a recording, at an hour.
async fn segment(store: &dyn Metadata, a: Leaf, id: RecordingId, seq: u64, hour: u64) -> Item {
    let name = format!("{} {seq}", id[0]);
    let chunk = item(&name, &name, true);
    assert_eq!(one(store, a, &chunk, hour * HOUR).await, Outcome::Added);
    let done = store
        .commit(a, id, seq, commit(&[&chunk]), hour * HOUR)
        .await;
    assert_eq!(done.unwrap(), Committed::Done);
    chunk
}

async fn retention(store: &dyn Metadata, a: Leaf) {
    let (ring, other) = ([8; 16], [9; 16]);
    let none = Retention::default();
    assert_eq!(store.retention(a).await.unwrap(), none);
    let before = (store.stats().await.unwrap(), bytes(store, "a").await);
    let mut chunks = vec![];
    for seq in 0..6 {
        chunks.push(segment(store, a, ring, seq, 100 + seq).await);
    }
    segment(store, a, other, 0, 103).await;
    assert!(store.share(a, other, hash("b"), vec![7]).await.unwrap());
    assert_eq!(store.trim(a, 0, 105 * HOUR).await.unwrap(), 0);
    let age_ms = Some(3 * HOUR);
    let set = Retention {
        age_ms,
        bytes: None,
    };
    store.set_retention(a, set).await.unwrap();
    assert_eq!(store.retention(a).await.unwrap(), set);
    // The first of the recordings before are older than anything here.
    let trimmed = |now| async move {
        let mut all = 0;
        loop {
            match store.trim(a, 0, now).await.unwrap() {
                0 => return all,
                n => all += n,
            }
        }
    };
    let old = before.0.segments;
    assert_eq!(trimmed(105 * HOUR).await, old + 2);
    let recording = store.recording(a, ring, 0).await.unwrap().unwrap();
    assert_eq!((recording.segments, recording.first), (6, 2));
    assert_eq!(recording.heads.len(), 4);
    let heads = store.recording(a, ring, 3).await.unwrap().unwrap().heads;
    assert_eq!(heads.len(), 3);
    assert_eq!(store.segment(a, ring, 1).await.unwrap(), None);
    assert!(store.segment(a, ring, 2).await.unwrap().is_some());
    for (seq, chunk) in chunks.iter().enumerate() {
        assert_eq!(opens(store, a, chunk).await.is_some(), seq >= 2, "{seq}");
    }
    let list = listed(store, a, "a").await;
    let listed = list.iter().find(|entry| *entry.id == ring).unwrap();
    assert_eq!((listed.segments, listed.first), (6, 2));
    // It goes on where it was, and a commit that is repeated is known as long as it is kept.
    segment(store, a, ring, 6, 106).await;
    let again = store.commit(a, ring, 2, commit(&[&chunks[2]]), 0).await;
    assert_eq!(again.unwrap(), Committed::Done);
    let gone = store.commit(a, ring, 1, commit(&[&chunks[1]]), 0).await;
    assert_eq!(gone.unwrap(), Committed::NextIs(7));

    // By bytes, the oldest of all recordings first.
    let used = bytes(store, "a").await;
    let bytes_left = Some(used - 150);
    let set = Retention {
        age_ms: None,
        bytes: bytes_left,
    };
    store.set_retention(a, set).await.unwrap();
    assert_eq!(trimmed(107 * HOUR).await, 2);
    assert_eq!(bytes(store, "a").await, used - 200);
    let recording = store.recording(a, ring, 0).await.unwrap().unwrap();
    let others = store.recording(a, other, 0).await.unwrap();
    // Hours 102 and 103; of the two of 103 either.
    assert_eq!(recording.first + u64::from(others.is_none()), 4);
    let audit = store.audit(107 * HOUR).await.unwrap();
    assert_eq!(audit.mended, 0);

    // The server's bound takes the rest, and the recordings with their last segment.
    store.set_retention(a, none).await.unwrap();
    while store.trim(a, 200 * HOUR, 200 * HOUR).await.unwrap() > 0 {}
    assert!(store.recording(a, ring, 0).await.unwrap().is_none());
    assert_eq!(
        store.shared(hash("a"), other, hash("b")).await.unwrap(),
        None
    );
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.segments, stats.bytes_manifests), (0, 0));
    assert_eq!(bytes(store, "a").await, 0);
    // A recorder that goes on begins anew.
    let next = store.commit(a, ring, 7, commit(&[]), 0).await;
    assert_eq!(next.unwrap(), Committed::NextIs(0));
}

async fn legal_hold(store: &dyn Metadata, a: Leaf) {
    let (id, free) = ([10; 16], [11; 16]);
    assert!(!store.hold(a, id, Holder::Owner, true).await.unwrap());
    let kept = segment(store, a, id, 0, 300).await;
    segment(store, a, free, 0, 301).await;
    for by in [Holder::Owner, Holder::Operator, Holder::Owner] {
        assert!(store.hold(a, id, by, true).await.unwrap());
    }
    // Adding goes on; forgetting and retention do not.
    segment(store, a, id, 1, 302).await;
    assert_eq!(store.trim(a, 400 * HOUR, 400 * HOUR).await.unwrap(), 1);
    assert_eq!(store.trim(a, 400 * HOUR, 400 * HOUR).await.unwrap(), 0);
    assert!(store.recording(a, free, 0).await.unwrap().is_none());
    for release in [Some(Holder::Owner), None] {
        let held = store.recording(a, id, 0).await.unwrap().unwrap().held;
        assert!(held.contains(&Holder::Operator));
        assert_eq!(held.contains(&Holder::Owner), release.is_some());
        let refused = store.forget(a, id, 400 * HOUR).await.unwrap();
        assert_eq!(refused, Forgotten::Held);
        assert!(opens(store, a, &kept).await.is_some());
        if let Some(by) = release {
            assert!(store.hold(a, id, by, false).await.unwrap());
        }
    }
    assert!(store.hold(a, id, Holder::Operator, false).await.unwrap());
    let done = store.forget(a, id, 400 * HOUR).await.unwrap();
    assert_eq!(done, Forgotten::Done);
}

async fn jobs(store: &dyn Metadata) {
    assert_eq!(store.jobs().await.unwrap(), []);
    let job = |name: &str, version, done| Job {
        name: name.into(),
        version,
        done,
        ..Job::default()
    };
    assert!(store.save_job(job("one", 0, 1)).await.unwrap());
    // The same again is what a lost answer asks for.
    assert!(store.save_job(job("one", 0, 1)).await.unwrap());
    assert!(!store.save_job(job("one", 0, 2)).await.unwrap());
    assert!(store.save_job(job("one", 1, 3)).await.unwrap());
    assert!(!store.save_job(job("one", 1, 4)).await.unwrap());
    assert!(!store.save_job(job("two", 7, 0)).await.unwrap());
    assert!(store.save_job(job("two", 0, 0)).await.unwrap());
    let (x, y) = tokio::join!(
        store.save_job(job("two", 1, 5)),
        store.save_job(job("two", 1, 6))
    );
    assert!(x.unwrap() != y.unwrap());
    let kept = store.jobs().await.unwrap();
    assert_eq!(kept[0], job("one", 2, 3));
    assert_eq!((kept.len(), kept[1].version), (2, 2));
}

async fn marks(store: &dyn Metadata) {
    let [a, b] = [[1; 16], [2; 16]];
    assert!(store.once(a, 100, 50).await.unwrap());
    assert!(!store.once(a, 100, 60).await.unwrap());
    let (x, y) = tokio::join!(store.once(b, 100, 60), store.once(b, 100, 60));
    assert!(x.unwrap() != y.unwrap());
    // Forgotten when it does not matter any more.
    assert!(store.once([3; 16], 500, 101).await.unwrap());
    assert!(store.once(a, 500, 101).await.unwrap());

    let rate = Allowance {
        burst: 10,
        per_s: 5,
        until: 3000,
    };
    let spend = |from, amount, rate, now| async move {
        store.spend(from, amount, rate, now).await.unwrap()
    };
    assert_eq!(spend(a, 11, rate, 1000).await, Some(201));
    assert_eq!(spend(a, 8, rate, 1000).await, None);
    assert_eq!(spend(a, 3, rate, 1000).await, Some(201));
    assert_eq!(spend(a, 3, rate, 1201).await, None);
    // Time that makes less than one is not lost.
    for now in [1300, 1390] {
        assert!(spend(a, 1, rate, now).await.is_some());
    }
    assert_eq!(spend(a, 1, rate, 1400).await, None);
    // Another server's clock may be behind.
    assert!(spend(a, 1, rate, 900).await.is_some());
    let once = Allowance { per_s: 0, ..rate };
    assert_eq!(spend(b, 10, once, 1000).await, None);
    assert_eq!(spend(b, 1, once, 2999).await, Some(u64::MAX));
    let later = Allowance {
        until: 9000,
        ..once
    };
    assert_eq!(spend([4; 16], 1, later, 3001).await, None);
    assert_eq!(spend(b, 10, later, 3001).await, None);
}

/// More than a record has room for.
const PEOPLE: usize = 100;

/// Many owners of one chunk, and a plain model of what each of them is.
struct Crowd<'a> {
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
    async fn gather(store: &'a dyn Metadata) -> Self {
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
    async fn come_and_go(mut self) {
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

/// A blob of some bytes, in two parts.
pub fn blob(content: &[u8]) -> Blob {
    let (left, right) = content.split_at(content.len() / 2);
    Blob {
        d1: *blake3::hash(content).as_bytes(),
        data: vec![Bytes::copy_from_slice(left), Bytes::copy_from_slice(right)],
    }
}

/// The suite of [`Blobs`]. `harm` overwrites a stored blob with garbage.
pub async fn blobs(store: &dyn Blobs, harm: impl Fn(&Hash)) {
    let contents: Vec<Vec<u8>> = (0..20u8).map(|i| vec![i; usize::from(i) * 1000]).collect();
    store
        .put(contents.iter().map(|c| blob(c)).collect())
        .await
        .unwrap();
    store.put(vec![blob(&contents[3])]).await.unwrap();
    store.put(vec![]).await.unwrap();
    for content in &contents {
        let got = store.get(&blob(content).d1).await.unwrap();
        assert_eq!(got.as_deref(), Some(content.as_slice()));
    }
    assert_eq!(store.get(&[9; 32]).await.unwrap(), None);
    upkeep(store, &contents, harm).await;
    store.put(vec![blob(&contents[5])]).await.unwrap();
    let d1 = blob(&contents[5]).d1;
    assert_eq!(
        store.check(&[d1]).await.unwrap(),
        [Health::Fine],
        "put mends"
    );
}

/// The suite of [`Upkeep`] over a store of these blobs, of which the sixth gets harmed and the
/// first deleted.
pub async fn upkeep(store: &dyn Upkeep, contents: &[Vec<u8>], harm: impl Fn(&Hash)) {
    store.ready().await.unwrap();
    let names: Vec<Hash> = contents.iter().map(|c| blob(c).d1).collect();
    let mut listed = vec![];
    for first in 0..=255 {
        let part = store.list(first).await.unwrap();
        assert!(part.iter().all(|info| info.d1[0] == first));
        listed.extend(part.into_iter().map(|info| (info.d1, info.len)));
    }
    let mut expected: Vec<_> = contents
        .iter()
        .map(|c| (blob(c).d1, c.len() as u64))
        .collect();
    listed.sort_unstable();
    expected.sort_unstable();
    assert_eq!(listed, expected);
    harm(&names[5]);
    let before = now_ms();
    let at = store.delete(&[names[0], [9; 32]]).await.unwrap();
    assert!(at >= before);
    let health = store.check(&names[..6]).await.unwrap();
    assert_eq!(
        (health[0], health[1], health[5]),
        (Health::Missing, Health::Fine, Health::Damaged)
    );
    assert_eq!(store.clean(0).await.unwrap(), 0);
}

/// The contract of [`registry`] that is not deleted.
pub const CONTRACT: Hash = [0xc1; 32];
/// A feature of its first ticket.
pub const FEATURE: u64 = 0x0123_4567_89ab_cdef;

/// The suite of [`Registry`].
pub async fn registry(store: &dyn Registry) {
    let ttp = std::sync::Arc::new(crate::identity::Identity::from_secret([9; 32]).unwrap());
    parties(store).await;
    let signed = |name: &str| {
        let note = crate::protocol::Deletion {
            index: 0,
            previous: [0; 32].into(),
            contract: hash(name).into(),
            tickets: 0,
            deleted_ms: 0,
        };
        crate::protocol::Signed::new(&note)
    };
    let (first, other) = (signed("first"), signed("other"));
    let added = store.add_contract(CONTRACT, first.clone()).await.unwrap();
    assert_eq!(added, first);
    let again = store.add_contract(CONTRACT, other.clone()).await.unwrap();
    assert_eq!(again, first);
    let gone = [0xc2; 32];
    store.add_contract(gone, other).await.unwrap();
    assert_eq!(store.contract([0; 32]).await.unwrap(), None);
    let record = store.contract(CONTRACT).await.unwrap().unwrap();
    assert_eq!((record.tickets, record.deleted), (0, None));

    tickets(store, gone).await;
    reports(store).await;
    deletions(store, gone, ttp).await;

    assert_eq!(store.parameters().await.unwrap(), None);
    for made in [vec![1; 900], vec![2; 900]] {
        assert_eq!(store.add_parameters(made).await.unwrap(), [1; 900]);
    }
    assert_eq!(store.parameters().await.unwrap(), Some(vec![1; 900]));
    // They are no party.
    assert_eq!(
        store
            .party(*b"parameters                      ")
            .await
            .unwrap(),
        None
    );
    let (a, b) = ([0xd1; 16], [0xd2; 16]);
    for (mark, now, fresh) in [(a, 5, true), (a, 6, false), (b, 6, true), (a, 200, true)] {
        let once = store.once(mark, now + 100, now).await;
        assert_eq!(once.unwrap(), fresh, "{mark:?} at {now}");
    }
}

/// What two registries over one empty database have to keep to, which draw the same words. Without
/// `calm` their connections break, and more tickets may be issued than they know of.
pub async fn registries<E: Engine>(one: &TableRegistry<E>, other: &TableRegistry<E>, calm: bool) {
    use crate::protocol::{Deletion, Signed};
    use std::collections::HashSet;
    const CONTRACTS: u8 = 6;
    const ROUNDS: u8 = 5;
    let ttp = std::sync::Arc::new(crate::identity::Identity::from_secret([9; 32]).unwrap());
    let contract = |n: u8| [n; 32];
    let signed = |n: u8| {
        Signed::new(&Deletion {
            index: 0,
            previous: [0; 32].into(),
            contract: contract(n).into(),
            tickets: 0,
            deleted_ms: 0,
        })
    };
    // The same contract brought to both stands once.
    for n in 0..CONTRACTS {
        let (a, b) = tokio::join!(
            one.add_contract(contract(n), signed(n)),
            other.add_contract(contract(n), signed(n + 100)),
        );
        assert_eq!(a.unwrap(), b.unwrap());
    }
    // One owner's tickets, of all contracts from both, the same words in the same order.
    let mut issuing = vec![];
    for n in 0..CONTRACTS {
        for store in [one.clone(), other.clone()] {
            issuing.push(tokio::spawn(async move {
                let mut issued = vec![];
                for round in 0..ROUNDS {
                    let wanted = wanted(contract(n), "owner", 3);
                    match store.issue_alike([round; 32], wanted).await {
                        Issued::Tickets(tickets) => issued.extend(tickets),
                        other => panic!("{other:?}"),
                    }
                }
                (n, issued)
            }));
        }
    }
    let (mut words, mut numbers) = (HashSet::new(), HashSet::new());
    for issued in issuing {
        let (n, tickets) = issued.await.unwrap();
        for ticket in tickets {
            let word = ticket.secret.word().unwrap();
            assert!(words.insert(word.0 ^ ticket.secret.key().pad().0));
            assert!(numbers.insert((n, ticket.number)));
        }
    }
    let each = u64::from(ROUNDS) * 6;
    let all = u64::from(CONTRACTS) * each;
    assert_eq!(words.len() as u64, all);
    let is = |count: u64, expected| count == expected || !calm && count > expected;
    assert!(!calm || numbers.iter().all(|(_, number)| *number < each));
    let registered = one.registered().await.unwrap();
    assert!(is(registered, all), "{registered}");
    for store in [one, other] {
        assert_eq!(store.registered().await.unwrap(), registered);
        let near = store.near(vec![FEATURE], 0, 1000).await.unwrap();
        assert_eq!(near.len() as u64, registered);
    }
    // What was reported to either is found by both, at once.
    for (n, store) in [(0, one), (1, other)] {
        let used = Used {
            started_ms: 1,
            hashes: vec![!FEATURE ^ u64::from(n)],
            frames: 1,
            commitment: [0; 32].into(),
        };
        let lot = Lot {
            seed: [0; 32],
            drawn: false,
            possible: false,
            now: 1,
        };
        let reported = store.report((contract(n), 3), used, lot).await.unwrap();
        assert_eq!(reported.0, Reported::Done);
        for store in [one, other] {
            let near = store.near(vec![!FEATURE ^ u64::from(n)], 0, 9).await;
            assert_eq!(near.unwrap(), [(contract(n), 3)]);
        }
    }
    // A request that was sent to both.
    let (a, b) = tokio::join!(one.once([1; 16], 100, 50), other.once([1; 16], 100, 50));
    let [a, b] = [a, b].map(|once| {
        if calm {
            once.unwrap()
        } else {
            once.unwrap_or(false)
        }
    });
    assert!(!(a && b) && (a || b || !calm));
    // One chain of deletions, with each contract once.
    let mut deleting = vec![];
    for n in 0..CONTRACTS {
        for store in [one.clone(), other.clone()] {
            let ttp = ttp.clone();
            deleting.push(tokio::spawn(async move {
                store.delete(contract(n), u64::from(n), ttp).await.unwrap()
            }));
        }
    }
    for deleted in deleting {
        assert!(deleted.await.unwrap().is_some());
    }
    let log = one.deletions(0, 99).await.unwrap();
    assert_eq!(log, other.deletions(0, 99).await.unwrap());
    assert_eq!(log.len(), usize::from(CONTRACTS));
    let (key, mut previous) = (ttp.public().sign, [0; 32]);
    let mut deleted = HashSet::new();
    for (index, receipt) in (0..).zip(&log) {
        let deletion = receipt.verify::<Deletion>(&[&key]).unwrap();
        assert_eq!((deletion.index, *deletion.previous), (index, previous));
        assert!(is(deletion.tickets, each), "{}", deletion.tickets);
        assert!(deleted.insert(*deletion.contract));
        previous = receipt.id::<Deletion>();
    }
}

async fn parties(store: &dyn Registry) {
    let key = |n: u8| CloudKey {
        certified: vec![n].into(),
        modulus: vec![n, n].into(),
    };
    let party = |agree: &str, key| PartyRecord {
        agree: hash(agree).into(),
        key,
    };
    let sign = hash("party");
    assert_eq!(store.party(sign).await.unwrap(), None);
    for (record, expected) in [
        (party("a", None), Registering::Done),
        (party("b", None), Registering::Conflict),
        (party("a", Some(key(1))), Registering::Done),
        (party("a", None), Registering::Done),
        (party("a", Some(key(2))), Registering::Conflict),
        (party("a", Some(key(1))), Registering::Done),
    ] {
        assert_eq!(store.register(sign, record).await.unwrap(), expected);
    }
    let kept = store.party(sign).await.unwrap().unwrap();
    assert_eq!(kept, party("a", Some(key(1))));
}

fn wanted(contract: Hash, owner: &str, count: u32) -> Wanted {
    Wanted {
        contract,
        owner: hash(owner),
        count,
        mode: crate::protocol::Mode::Packed,
        size: [640, 480],
        feature: Some(FEATURE),
        issued_ms: 5,
        expires_ms: 6,
    }
}

async fn issue(store: &dyn Registry, wanted: Wanted) -> Vec<Ticket> {
    match store.issue(wanted).await.unwrap() {
        Issued::Tickets(tickets) => tickets,
        other => panic!("{other:?}"),
    }
}

async fn tickets(store: &dyn Registry, gone: Hash) {
    assert_eq!(store.registered().await.unwrap(), 0);
    let unknown = store.issue(wanted([0; 32], "owner", 1)).await.unwrap();
    assert!(matches!(unknown, Issued::Unknown));
    let mut words = std::collections::HashSet::new();
    let mut seeds = std::collections::HashSet::new();
    for round in 0..3 {
        let tickets = issue(store, wanted(CONTRACT, "owner", 4)).await;
        for (i, ticket) in tickets.iter().enumerate() {
            assert_eq!(ticket.number, round * 4 + i as u64);
            let word = ticket.secret.word().unwrap();
            assert!(words.insert(word.0 ^ ticket.secret.key().pad().0));
            assert!(seeds.insert(*ticket.secret.expose_seed()));
            let kept = store.ticket((CONTRACT, ticket.number)).await.unwrap();
            let kept = kept.unwrap();
            assert_eq!(kept.secret.expose_seed(), ticket.secret.expose_seed());
            assert_eq!(kept.secret.word().unwrap(), word);
            assert_eq!((kept.size, kept.issued_ms), ([640, 480], 5));
            assert_eq!((kept.expires_ms, kept.used), (6, None));
        }
    }
    assert!(store.ticket((CONTRACT, 12)).await.unwrap().is_none());
    let plain = Wanted {
        feature: None,
        ..wanted(gone, "owner", 2)
    };
    assert_eq!(issue(store, plain).await[0].number, 0);
    assert_eq!(store.registered().await.unwrap(), 14);
    let record = store.contract(CONTRACT).await.unwrap().unwrap();
    assert_eq!(record.tickets, 12);
}

async fn reports(store: &dyn Registry) {
    // 10 bits away from the feature that tickets were asked for with.
    let far = FEATURE ^ 0x3ff;
    let used = Used {
        started_ms: 1,
        hashes: vec![!FEATURE, far],
        frames: 30,
        commitment: hash("frames").into(),
    };
    let (first, second) = ((CONTRACT, 0), (CONTRACT, 7));
    let lot = |drawn, n| Lot {
        seed: [n; 32],
        drawn,
        possible: true,
        now: 1000,
    };
    let report = async |id, used: &Used, lot| store.report(id, used.clone(), lot).await.unwrap();
    let unknown = report((CONTRACT, 99), &used, lot(true, 1)).await;
    assert_eq!(unknown, (Reported::Unknown, None));
    // What was drawn first stands.
    let audit = lot(true, 1).audit();
    for n in [1, 2] {
        let done = report(second, &used, lot(true, n)).await;
        assert_eq!(done, (Reported::Done, Some(audit.clone())));
    }
    let other = Used {
        frames: 31,
        ..used.clone()
    };
    let conflict = report(second, &other, lot(true, 1)).await;
    assert_eq!(conflict, (Reported::Conflict, None));
    audits(store, &used, second, lot).await;
    assert_eq!(
        store.ticket(second).await.unwrap().unwrap().used,
        Some(used)
    );
    assert_eq!(
        store.near(vec![!FEATURE], 10, 9).await.unwrap(),
        vec![second]
    );
    assert_eq!(store.near(vec![far], 9, 9).await.unwrap(), vec![second]);
    for (id, now, expected) in [
        ((CONTRACT, 99), 1, Reported::Unknown),
        (second, 2, Reported::Done),
        (second, 3, Reported::Done),
    ] {
        assert_eq!(store.retrieved(id, now).await.unwrap(), expected);
    }
    let kept = store.ticket(second).await.unwrap().unwrap();
    assert_eq!((kept.retrieved_ms, kept.used.is_some()), (Some(2), true));
    let all = store.near(vec![far], 10, 99).await.unwrap();
    assert_eq!((all.len(), all[0]), (12, second));
    assert_eq!(all[1], (CONTRACT, 11));
    assert_eq!(all[11], first);
    assert_eq!(store.near(vec![far, !far], 10, 3).await.unwrap().len(), 3);
}

/// Of a ticket that was reported and is audited.
async fn audits(store: &dyn Registry, used: &Used, first: TicketId, lot: impl Fn(bool, u8) -> Lot) {
    use crate::protocol::{AuditCounts, Audited};
    let used = Used {
        hashes: Vec::new(),
        ..used.clone()
    };
    let outcome = |passed, note: &str| AuditOutcome {
        passed,
        note: note.into(),
    };
    let audited = async |id, outcome, now| store.audited(id, outcome, now).await.unwrap();
    let counts = async |now| {
        let record = store.contract(CONTRACT).await.unwrap().unwrap();
        let AuditCounts {
            passed,
            failed,
            unanswered,
            ..
        } = record.audits(now);
        (passed, failed, unanswered)
    };
    let state = async |id, now| {
        let ticket = store.ticket(id).await.unwrap().unwrap();
        ticket.audit.map(|audit| audit.state(now))
    };
    let until = lot(true, 1).audit().until_ms;
    assert_eq!(counts(until).await, (0, 0, 0));
    assert_eq!(counts(until + 1).await, (0, 0, 1));
    assert_eq!(state(first, until).await, Some(Audited::Asked));
    assert_eq!(state(first, until + 1).await, Some(Audited::Unanswered));
    let unknown = audited((CONTRACT, 99), outcome(true, ""), 1000).await;
    assert_eq!(unknown, Reported::Unknown);
    for (passed, now, expected) in [
        (true, until + 1, Reported::Conflict),
        (true, until, Reported::Done),
        (true, until, Reported::Done),
        (false, until, Reported::Conflict),
    ] {
        assert_eq!(audited(first, outcome(passed, "x"), now).await, expected);
    }
    assert_eq!(counts(until + 1).await, (1, 0, 0));
    assert_eq!(state(first, until + 1).await, Some(Audited::Passed));

    // Not drawn; then demanded, once.
    let report = async |id, lot| store.report(id, used.clone(), lot).await.unwrap().1;
    assert_eq!(report((CONTRACT, 2), lot(false, 1)).await, None);
    let none = audited((CONTRACT, 2), outcome(true, ""), 1000).await;
    assert_eq!(none, Reported::Conflict);
    assert_eq!(store.demand([0; 32]).await.unwrap(), Reported::Unknown);
    assert_eq!(store.demand(CONTRACT).await.unwrap(), Reported::Done);
    let impossible = Lot {
        possible: false,
        ..lot(true, 1)
    };
    assert_eq!(report((CONTRACT, 3), impossible).await, None);
    assert!(report((CONTRACT, 4), lot(false, 3)).await.is_some());
    assert_eq!(report((CONTRACT, 5), lot(false, 3)).await, None);
    let failed = audited((CONTRACT, 4), outcome(false, "why"), 1000).await;
    assert_eq!(failed, Reported::Done);
    assert_eq!(counts(until + 1).await, (1, 1, 0));
    assert_eq!(state((CONTRACT, 4), until + 1).await, Some(Audited::Failed));

    // What the cloud has received.
    let (same, other) = (
        used.sent(),
        Received {
            frames: 1,
            ..used.sent()
        },
    );
    let agrees = async |id| store.ticket(id).await.unwrap().unwrap().agrees();
    assert!(!agrees((CONTRACT, 5)).await);
    for (number, received, expected, failed) in [
        (99, same, Reported::Unknown, 1),
        (5, same, Reported::Done, 1),
        (5, same, Reported::Done, 1),
        (4, other, Reported::Conflict, 2),
        // Before the report.
        (6, other, Reported::Done, 2),
        (6, same, Reported::Conflict, 3),
    ] {
        let id = (CONTRACT, number);
        assert_eq!(store.received(id, received).await.unwrap(), expected);
        assert_eq!(counts(until + 1).await, (1, failed, 0), "{number}");
    }
    assert!(agrees((CONTRACT, 5)).await);
    assert!(!agrees((CONTRACT, 4)).await);
    let unreported = async || {
        let record = store.contract(CONTRACT).await.unwrap().unwrap();
        record.audits(0).unreported
    };
    assert_eq!(unreported().await, 1);
    report((CONTRACT, 6), lot(false, 1)).await;
    assert_eq!(unreported().await, 0);
    assert!(!agrees((CONTRACT, 6)).await);
    assert_eq!(counts(until + 1).await, (1, 4, 0));
}

async fn deletions(
    store: &dyn Registry,
    gone: Hash,
    ttp: std::sync::Arc<crate::identity::Identity>,
) {
    use crate::protocol::Deletion;
    let none = store.delete([0; 32], 1, ttp.clone()).await.unwrap();
    assert_eq!(none, None);
    assert_eq!(store.deletions(0, 9).await.unwrap(), vec![]);
    let mut receipts = vec![];
    for (id, now) in [(gone, 70), ([0xc3; 32], 71)] {
        let note = crate::protocol::Signed::new(&Deletion {
            index: 0,
            previous: [0; 32].into(),
            contract: id.into(),
            tickets: 0,
            deleted_ms: 0,
        });
        store.add_contract(id, note).await.unwrap();
        let receipt = store.delete(id, now, ttp.clone()).await.unwrap().unwrap();
        let again = store.delete(id, 99, ttp.clone()).await.unwrap().unwrap();
        assert_eq!(receipt, again);
        receipts.push(receipt);
    }
    let key = &ttp.public().sign;
    let [first, second] = [0, 1].map(|i| receipts[i].verify::<Deletion>(&[key]).unwrap());
    assert_eq!((first.index, *first.previous), (0, [0; 32]));
    assert_eq!((first.tickets, first.deleted_ms), (2, 70));
    assert_eq!((second.index, second.tickets), (1, 0));
    assert_eq!(*second.previous, receipts[0].id::<Deletion>());
    assert_eq!(store.deletions(0, 9).await.unwrap(), receipts);
    assert_eq!(store.deletions(0, 1).await.unwrap(), receipts[..1]);
    assert_eq!(store.deletions(1, 9).await.unwrap(), receipts[1..]);
    assert_eq!(store.deletions(u64::MAX, 9).await.unwrap(), vec![]);
    let record = store.contract(gone).await.unwrap().unwrap();
    assert_eq!(record.deleted, Some((0, 70)));
    let refused = store.issue(wanted(gone, "owner", 1)).await.unwrap();
    assert!(matches!(refused, Issued::Deleted));
    let refused = store.retrieved((gone, 0), 1).await.unwrap();
    assert_eq!(refused, Reported::Conflict);
    // What arbitration needs stays.
    assert!(store.ticket((gone, 0)).await.unwrap().is_some());
}
