// SPDX-License-Identifier: MPL-2.0
//! Storing, joining, reading, sharing and forgetting through HTTP.

#[path = "common/raw.rs"]
mod common;

use common::*;
use gstcamvault::protocol::*;

#[tokio::test]
async fn two_owners_store_a_chunk_once_and_forget_it_apart() {
    let vault = vault().await;
    let (a, b) = (vault.owner().await, vault.owner().await);
    let (one, two) = (bytes("one", 100_000), bytes("two", 50_000));
    let of_a = a.record("yard", &[&one, &two]).await.unwrap();
    let of_b = b.record("yard", &[&one]).await.unwrap();
    assert_eq!(of_a[0], of_b[0]);
    let stats = a.stats().await;
    assert_eq!((stats.chunks, stats.variants, stats.blobs), (2, 2, 2));
    assert_eq!(
        (stats.bytes_logical, stats.bytes_stored),
        (250_000, 150_000)
    );
    assert_eq!((stats.recordings, stats.segments, stats.owners), (2, 2, 2));
    for (chunk, reference) in [(&one, &of_a[0]), (&two, &of_a[1])] {
        assert!(a.fetches(chunk, reference).await);
    }
    assert!(b.fetches(&one, &of_b[0]).await);
    assert!(!b.fetches(&two, &of_a[1]).await);

    let before = a.open(of_a.clone()).await.unwrap();
    a.forget("yard").await.unwrap();
    assert!(
        a.open(of_a.clone())
            .await
            .unwrap()
            .chunks
            .iter()
            .all(Option::is_none)
    );
    assert!(b.fetches(&one, &of_b[0]).await);
    assert_eq!(a.forget("yard").await.unwrap_err().code, Code::NotFound);
    eventually("the blob goes", || async { a.stats().await.blobs == 1 }).await;
    // A capability from before does not bring the forgotten chunk back.
    let ask = GetBlobs {
        expires: before.expires,
        blobs: vec![GetBlob {
            d1: of_a[1].d1,
            capability: before.chunks[1].as_ref().unwrap().capability,
        }],
    };
    assert_eq!(a.get(&ask).await.unwrap(), vec![None]);
    b.forget("yard").await.unwrap();
    eventually("all blobs go", || async { a.stats().await.blobs == 0 }).await;
    let stats = a.stats().await;
    let gone = Stats {
        owners: 2,
        ..Stats::default()
    };
    assert_eq!(stats, gone);
    let report = a.scrub(0).await;
    assert_eq!(report, ScrubReport::default());
}

#[tokio::test]
async fn segments_are_numbered_and_committed_once() {
    let vault = vault().await;
    let a = vault.owner().await;
    let chunk = bytes("x", 1000);
    let refs = a.record("cam", &[&chunk]).await.unwrap();
    let first = commit_of(refs.clone(), "cam");
    assert_eq!(a.commit("cam", 0, &first).await.unwrap(), Committed::Done);
    let other = commit_of(refs.clone(), "else");
    assert_eq!(
        a.commit("cam", 0, &other).await.unwrap(),
        Committed::NextIs(1)
    );
    assert_eq!(
        a.commit("cam", 5, &other).await.unwrap(),
        Committed::NextIs(1)
    );
    // Twice in one segment is two references.
    let twice = commit_of([refs.clone(), refs.clone()].concat(), "twice");
    assert_eq!(a.commit("cam", 1, &twice).await.unwrap(), Committed::Done);
    assert_eq!(a.stats().await.bytes_logical, 3000);
    let strange = ChunkRef {
        tag: [9; 32].into(),
        d1: [9; 32].into(),
    };
    let mixed = commit_of(vec![refs[0].clone(), strange], "mixed");
    assert_eq!(
        a.commit("cam", 2, &mixed).await.unwrap(),
        Committed::NotHeld(vec![1])
    );
    assert_eq!(a.stats().await.bytes_logical, 3000);

    let id = hex(&a.id.recording_id("cam"));
    let got: Recording = a
        .fetch(&format!("/v1/recordings/{id}?from=1"))
        .await
        .unwrap();
    assert_eq!((got.segments, got.heads.len()), (2, 1));
    assert_eq!(got.summary.as_slice(), b"summary twice");
    assert_eq!(got.heads[0].as_slice(), b"head twice");
    let path = format!("/v1/recordings/{id}/segments/0");
    let segment: SegmentBody = a.fetch(&path).await.unwrap();
    assert_eq!(segment.manifest.as_slice(), b"manifest cam");
    let all: Recordings = a.fetch("/v1/recordings").await.unwrap();
    assert_eq!((all.recordings.len(), all.recordings[0].segments), (1, 2));
    let b = vault.owner().await;
    let path = format!("/v1/recordings/{id}/segments/0?owner={}", hex(&a.key()));
    let refused = b.fetch::<SegmentBody>(&path).await.unwrap_err();
    assert_eq!(refused.code, Code::NotFound);
}

#[tokio::test]
async fn a_list_goes_on_behind_any_of_its_entries() {
    let vault = vault().await;
    let (a, b) = (vault.owner().await, vault.owner().await);
    for name in ["one", "two", "three"] {
        a.record(name, &[&bytes(name, 100)]).await.unwrap();
        b.record(name, &[&bytes(name, 100)]).await.unwrap();
        let id = hex(&b.id.recording_id(name));
        let path = format!("/v1/recordings/{id}/shares/{}", hex(&a.key()));
        let share = Share {
            sealed: name.as_bytes().to_vec().into(),
        };
        b.raw("PUT", &path, encode(&share)).await.unwrap();
    }
    let all: Recordings = a.fetch("/v1/recordings").await.unwrap();
    assert_eq!((all.recordings.len(), all.more), (6, false));
    let own: Vec<_> = all.recordings[..3].iter().map(|e| e.id).collect();
    assert!(own.is_sorted_by_key(|id| **id));
    for (n, entry) in all.recordings.iter().enumerate() {
        assert_eq!(entry.owner, (n >= 3).then(|| b.key().into()));
        let owner = entry.owner.map_or(String::new(), |key| {
            format!("&owner={}", hex(key.as_slice()))
        });
        let path = format!("/v1/recordings?after={}{owner}", hex(entry.id.as_slice()));
        let rest: Recordings = a.fetch(&path).await.unwrap();
        let ids = |list: &[RecordingEntry]| list.iter().map(|e| e.id).collect::<Vec<_>>();
        assert_eq!(ids(&rest.recordings), ids(&all.recordings[n + 1..]));
    }
    let id = hex(&[1; 16]);
    for (query, code) in [
        ("after=12".to_owned(), Code::Malformed),
        ("behind=12".to_owned(), Code::Malformed),
        (format!("after={id}&owner={id}"), Code::Malformed),
        (format!("after={id}&owner={id}{id}"), Code::NotFound),
    ] {
        let refused = a
            .fetch::<Recordings>(&format!("/v1/recordings?{query}"))
            .await;
        assert_eq!(refused.unwrap_err().code, code, "{query}");
    }
}

#[tokio::test]
async fn a_shared_recording_is_read_until_it_is_taken_back() {
    let vault = vault().await;
    let (a, b, c) = (
        vault.owner().await,
        vault.owner().await,
        vault.owner().await,
    );
    let chunk = bytes("shared", 10_000);
    let refs = a.record("gate", &[&chunk]).await.unwrap();
    let hidden = a.record("private", &[&bytes("hidden", 100)]).await.unwrap();
    let id = a.id.recording_id("gate");
    let path = format!("/v1/recordings/{}/shares/{}", hex(&id), hex(&b.key()));
    let share = Share {
        sealed: b"sealed".to_vec().into(),
    };
    a.raw("PUT", &path, encode(&share)).await.unwrap();
    let list: Recordings = b.fetch("/v1/recordings").await.unwrap();
    assert_eq!(list.recordings.len(), 1);
    assert_eq!(list.recordings[0].owner, Some(a.key().into()));
    assert_eq!(
        list.recordings[0].shared.as_ref().unwrap().as_slice(),
        b"sealed"
    );
    let open = |chunk: &ChunkRef| Open {
        chunks: vec![chunk.clone()],
        shared: Some(SharedSegment {
            owner: a.key().into(),
            id: id.into(),
            seq: 0,
        }),
    };
    let opened: Opened = b.call("POST", "/v1/open", &open(&refs[0])).await.unwrap();
    assert!(b.reads(&chunk, &refs[0], &opened).await);
    let other: Opened = b.call("POST", "/v1/open", &open(&hidden[0])).await.unwrap();
    assert!(other.chunks[0].is_none());
    let refused = c.call::<Opened>("POST", "/v1/open", &open(&refs[0])).await;
    assert_eq!(refused.unwrap_err().code, Code::NotFound);
    let owned = format!("/v1/recordings/{}?owner={}", hex(&id), hex(&a.key()));
    assert!(b.fetch::<Recording>(&owned).await.is_ok());
    a.raw("DELETE", &path, vec![]).await.unwrap();
    assert!(b.fetch::<Recording>(&owned).await.is_err());
    let refused = b.call::<Opened>("POST", "/v1/open", &open(&refs[0])).await;
    assert_eq!(refused.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn first_uploads_at_the_same_moment_end_as_one_variant() {
    let vault = vault().await;
    let chunks: Vec<_> = (0..6)
        .map(|i| bytes(&format!("race {i}"), 20_000))
        .collect();
    let mut owners = vec![];
    for _ in 0..8 {
        owners.push(vault.owner().await);
    }
    let store = |owner: Client, chunks: Vec<Vec<u8>>| async move {
        let parts: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        let refs = owner.record("race", &parts).await.unwrap();
        for (chunk, reference) in chunks.iter().zip(&refs) {
            assert!(owner.fetches(chunk, reference).await);
        }
        owner
    };
    let running: Vec<_> = owners
        .into_iter()
        .map(|owner| tokio::spawn(store(owner, chunks.clone())))
        .collect();
    let mut owners = vec![];
    for task in running {
        owners.push(task.await.unwrap());
    }
    let stats = owners[0].stats().await;
    assert_eq!((stats.chunks, stats.variants), (6, 6));
    assert_eq!(stats.bytes_logical, 8 * 6 * 20_000);
    eventually("losers' blobs go", || async {
        owners[0].stats().await.blobs == 6
    })
    .await;
    let report = owners[0].scrub(0).await;
    assert_eq!(
        (
            report.variants,
            report.orphans_removed,
            report.counts_mended
        ),
        (6, 0, 0)
    );
    assert!(report.missing.is_empty() && report.damaged.is_empty());
}

#[tokio::test]
async fn damage_is_found_and_the_next_uploader_heals() {
    let vault = vault().await;
    let (a, b) = (vault.owner().await, vault.owner().await);
    let (one, two) = (bytes("damage", 5000), bytes("loss", 5000));
    let refs = a.record("cam", &[&one, &two]).await.unwrap();
    let file = |r: &ChunkRef| {
        let name = hex(r.d1.as_slice());
        vault.dir.path().join("blobs").join(&name[..2]).join(name)
    };
    std::fs::write(file(&refs[0]), b"garbage").unwrap();
    std::fs::remove_file(file(&refs[1])).unwrap();
    std::fs::write(vault.dir.path().join("tmp/left"), b"over").unwrap();
    std::fs::write(
        vault.dir.path().join("blobs/00").join("0".repeat(64)),
        b"orphan",
    )
    .unwrap();
    let report = a.scrub(0).await;
    assert_eq!(report.damaged, vec![refs[0].d1]);
    assert_eq!(report.missing, vec![refs[1].d1]);
    assert_eq!((report.orphans_removed, report.leftovers_removed), (1, 1));
    assert!(!a.fetches(&one, &refs[0]).await);
    let healed = b.record("cam", &[&one, &two]).await.unwrap();
    assert!(healed[0].d1 != refs[0].d1 && healed[1].d1 != refs[1].d1);
    assert!(b.fetches(&one, &healed[0]).await && b.fetches(&two, &healed[1]).await);
    a.forget("cam").await.unwrap();
    assert_eq!(a.stats().await.variants, 2);
    let report = a.scrub(0).await;
    assert!(report.damaged.is_empty() && report.missing.is_empty());
    assert_eq!(report.counts_mended, 0);
}

#[tokio::test]
async fn a_chunk_has_no_second_life_after_its_blob_was_deleted() {
    let vault = vault().await;
    let a = vault.owner().await;
    let chunk = sealed(&bytes("zombie", 1000));
    let found = a.lookup(vec![chunk.wanted()]).await.unwrap();
    let receipt = a
        .put(&found.put_token, std::slice::from_ref(&chunk))
        .await
        .unwrap()
        .remove(0);
    let registration = chunk.registration(Some(receipt));
    assert_eq!(
        a.register(vec![registration.clone()]).await.unwrap(),
        [Outcome::Added]
    );
    assert_eq!(
        a.register(vec![registration.clone()]).await.unwrap(),
        [Outcome::Added]
    );
    let commit = commit_of(vec![chunk.reference()], "z");
    assert_eq!(a.commit("z", 0, &commit).await.unwrap(), Committed::Done);
    a.forget("z").await.unwrap();
    eventually("the blob goes", || async { a.stats().await.blobs == 0 }).await;
    // The old receipt would add a variant without a blob.
    assert_eq!(
        a.register(vec![registration]).await.unwrap(),
        [Outcome::NoBlob]
    );
    // Nor does a new one bring the name back, which somebody else may still be deleting: the chunk
    // comes under another.
    assert_eq!(a.upload(&[chunk]).await.unwrap(), [Outcome::NoBlob]);
    let anew = sealed(&bytes("zombie", 1000));
    assert_eq!(a.upload(&[anew]).await.unwrap(), [Outcome::Added]);
}

#[tokio::test]
async fn the_second_asker_of_a_missing_chunk_is_told_to_wait() {
    let vault = vault().await;
    let (a, b) = (vault.owner().await, vault.owner().await);
    let chunk = sealed(&bytes("hint", 1000));
    let ask = || vec![chunk.wanted()];
    assert_eq!(a.lookup(ask()).await.unwrap().chunks[0].wait_ms, 0);
    assert_eq!(a.lookup(ask()).await.unwrap().chunks[0].wait_ms, 0);
    assert!(b.lookup(ask()).await.unwrap().chunks[0].wait_ms > 0);
    a.store(&chunk.chunk).await.unwrap();
    let found = b.lookup(ask()).await.unwrap().chunks.remove(0);
    assert_eq!((found.wait_ms, found.variants.len()), (0, 1));
}
