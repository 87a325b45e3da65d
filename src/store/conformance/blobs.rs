// SPDX-License-Identifier: MPL-2.0
//! The suites of [`Blobs`] and [`Upkeep`].

use super::*;

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
