// SPDX-License-Identifier: MPL-2.0
//! Copying all blobs of one store into another.

use super::{Blob, Blobs, Error, Hash};
use futures::{StreamExt as _, stream};
use std::collections::HashMap;

/// Blobs read at once.
const READ_AHEAD: usize = 8;
/// Bytes that are put at once, or a little more.
const BATCH_BYTES: usize = 8 << 20;

/// What a copy did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Blobs copied.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that were there already.
    pub there: u64,
    /// Blobs that do not have their hash, and were not copied.
    pub damaged: Vec<Hash>,
}

/// Copies every blob that is not there with its length. The hash of what is copied is checked.
/// After an interruption it goes on where it was; what is added to `from` meanwhile may be missed.
pub async fn copy_blobs(from: &dyn Blobs, to: &dyn Blobs) -> Result<Copied, Error> {
    let mut copied = Copied::default();
    for first in 0..=255 {
        let there = to.list(first).await?;
        let there: HashMap<Hash, u64> = there.iter().map(|blob| (blob.d1, blob.len)).collect();
        let mut wanted = from.list(first).await?;
        let all = wanted.len();
        wanted.retain(|blob| there.get(&blob.d1) != Some(&blob.len));
        copied.there += (all - wanted.len()) as u64;
        let read = |blob: super::BlobInfo| async move { (blob.d1, from.get(&blob.d1).await) };
        let mut blobs = stream::iter(wanted).map(read).buffered(READ_AHEAD);
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some((d1, blob)) = blobs.next().await {
            // One that has been deleted meanwhile is not missed.
            let Some(blob) = blob? else { continue };
            if blake3::hash(&blob) != d1 {
                copied.damaged.push(d1);
                continue;
            }
            copied.blobs += 1;
            copied.bytes += blob.len() as u64;
            bytes += blob.len();
            let data = vec![blob];
            batch.push(Blob { d1, data });
            if bytes >= BATCH_BYTES {
                to.put(std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
        }
        to.put(batch).await?;
    }
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::blob;
    use crate::store::{Directory, Room};

    #[tokio::test]
    async fn what_is_there_is_skipped_and_what_is_damaged_said() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [from, to] = dirs
            .each_ref()
            .map(|dir| Directory::open(dir.path(), Room::new(dir.path(), 0)).unwrap());
        let all: Vec<Blob> = (0..30u8).map(|i| blob(&vec![i; 1000])).collect();
        from.put(all.clone()).await.unwrap();
        to.put(all[..10].to_vec()).await.unwrap();
        let path = |dir: &tempfile::TempDir, d1: &Hash| {
            let name = crate::store::hex(d1);
            dir.path().join("blobs").join(&name[..2]).join(name)
        };
        // A short one is copied again; one that is wrong where it comes from is not.
        std::fs::write(path(&dirs[1], &all[3].d1), b"half").unwrap();
        std::fs::write(path(&dirs[0], &all[20].d1), b"garbage").unwrap();
        let expected = Copied {
            blobs: 20,
            bytes: 20_000,
            there: 9,
            damaged: vec![all[20].d1],
        };
        assert_eq!(copy_blobs(&from, &to).await.unwrap(), expected);
        let again = copy_blobs(&from, &to).await.unwrap();
        assert_eq!((again.blobs, again.there), (0, 29));
        for one in &all {
            let found = to.get(&one.d1).await.unwrap();
            let wanted = (one.d1 != all[20].d1).then(|| one.data.concat());
            assert_eq!(found.as_deref(), wanted.as_deref());
        }
    }
}
