// SPDX-License-Identifier: MPL-2.0
//! The suite of [`Metadata`].

use super::crowd::Crowd;
use super::*;
use crate::protocol::{MAX_VARIANTS, RecordingEntry};
use futures::future::join_all;

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
