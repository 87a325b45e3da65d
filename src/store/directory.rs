// SPDX-License-Identifier: MPL-2.0
//! [`Blobs`] in a directory: `blobs/ab/<64 hex digits>`.
//!
//! A blob is written to `tmp/`, synced, renamed to its name, and the directory synced: after a
//! kill it is there whole or not at all. The blobs of one batch are stored side by side.
//!
//! Large blobs are written past the page cache where the file system can, all but their last bytes:
//! they are seldom read soon, and filling the cache costs more than all the rest of storing them
//! (measured: 0.7 to 3 CPU seconds a GB against 0.2).

use super::aligned::{Gather, whole_blocks};
use super::{Blob, BlobInfo, Blobs, Error, Hash, Health, Room, Upkeep, hex, ms, now_ms, unhex};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{IoSlice, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Parts of a batch that are worked on at once: most of the time they wait for the disk.
const PARTS: usize = 4;

/// A directory of blobs. Clones share it.
#[derive(Clone, Debug)]
pub struct Directory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    blobs: PathBuf,
    tmp: PathBuf,
    room: Room,
    serial: AtomicU64,
    /// Whether the file system can write past the page cache.
    direct: bool,
}

fn sync_dir(dir: &Path) -> Result<(), Error> {
    let synced = File::open(dir).and_then(|d| d.sync_all());
    synced.map_err(|e| Error::io(dir.display(), e))
}

/// Unfinished files, removed unless they were renamed away.
struct Unfinished(Vec<(PathBuf, File)>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        for (path, _) in &self.0 {
            // A leftover is harmless: the next clean-up takes it.
            let _ = fs::remove_file(path);
        }
    }
}

impl Directory {
    /// Opens or creates `blobs/` and `tmp/` in `dir`, and removes what a killed process left
    /// unfinished. No blob is taken that would touch the reserve of `room`.
    pub fn open(dir: &Path, room: Room) -> Result<Self, Error> {
        let inner = Inner {
            blobs: dir.join("blobs"),
            tmp: dir.join("tmp"),
            room,
            serial: AtomicU64::new(now_ms()),
            direct: can_write_direct(&dir.join("tmp")),
        };
        let make = |path: &Path| fs::create_dir_all(path).map_err(|e| Error::io(path.display(), e));
        make(&inner.tmp)?;
        for first in 0..=255u8 {
            make(&inner.shard(first))?;
        }
        sync_dir(&inner.blobs)?;
        sync_dir(dir)?;
        inner.clean(0)?;
        Ok(Self(Arc::new(inner)))
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = self.0.clone();
        let joined = tokio::task::spawn_blocking(move || work(&inner)).await;
        joined.map_err(|e| Error::Engine(e.to_string()))?
    }

    /// Runs `work` on parts of `items`, on several threads when there are several, and waits for
    /// all of them.
    async fn side_by_side<T: Send + 'static>(
        &self,
        mut items: Vec<T>,
        work: impl Fn(&Inner, &[T]) -> Result<(), Error> + Clone + Send + 'static,
    ) -> Result<(), Error> {
        let share = items.len().div_ceil(PARTS).max(1);
        let mut parts = Vec::new();
        while !items.is_empty() {
            let part = items.split_off(items.len().saturating_sub(share));
            let work = work.clone();
            parts.push(self.run(move |inner| work(inner, &part)));
        }
        join_all(parts).await.into_iter().collect()
    }
}

impl Inner {
    fn shard(&self, first: u8) -> PathBuf {
        self.blobs.join(hex(&[first]))
    }

    fn path(&self, d1: &Hash) -> PathBuf {
        self.shard(d1[0]).join(hex(d1))
    }

    fn put(&self, blobs: &[Blob]) -> Result<(), Error> {
        let mut unfinished = Unfinished(Vec::with_capacity(blobs.len()));
        for blob in blobs {
            let serial = self.serial.fetch_add(1, Ordering::Relaxed);
            let path = self.tmp.join(format!("{serial:016x}"));
            let at = |e| Error::io(path.display(), e);
            let blocks = match self.direct {
                true => whole_blocks(&blob.data),
                false => None,
            };
            let file = create(&path, blocks.is_some()).map_err(at)?;
            unfinished.0.push((path.clone(), file));
            if let Some((_, file)) = unfinished.0.last_mut() {
                let written = match blocks {
                    Some((blocks, rest)) => write_direct(file, &blocks, rest),
                    None => {
                        let parts: Vec<_> = blob.data.iter().map(|part| &part[..]).collect();
                        write_parts(file, &parts)
                    }
                };
                written.map_err(at)?;
            }
        }
        for (path, file) in &unfinished.0 {
            file.sync_data().map_err(|e| Error::io(path.display(), e))?;
        }
        let mut shards = BTreeSet::new();
        for ((from, _), blob) in unfinished.0.iter().zip(blobs) {
            let to = self.path(&blob.d1);
            fs::rename(from, &to).map_err(|e| Error::io(to.display(), e))?;
            shards.insert(self.shard(blob.d1[0]));
        }
        unfinished.0.clear();
        shards.iter().try_for_each(|dir| sync_dir(dir))
    }

    fn read(&self, d1: &Hash) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path(d1);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(path.display(), e)),
        }
    }

    /// Removes files; the time after that, and the directories to sync.
    fn delete(&self, blobs: &[Hash]) -> Result<(u64, BTreeSet<PathBuf>), Error> {
        let mut shards = BTreeSet::new();
        for d1 in blobs {
            let path = self.path(d1);
            match fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io(path.display(), e));
                }
                _ => shards.insert(self.shard(d1[0])),
            };
        }
        Ok((now_ms(), shards))
    }

    fn list(&self, first: u8) -> Result<Vec<BlobInfo>, Error> {
        let mut found = Vec::new();
        for (path, len, written_ms) in files(&self.shard(first))? {
            let name = path.file_name().and_then(|n| n.to_str());
            // Whatever else lies there is not ours.
            if let Some(d1) = name.and_then(unhex) {
                found.push(BlobInfo {
                    d1,
                    len,
                    written_ms,
                });
            }
        }
        Ok(found)
    }

    fn check(&self, d1: &Hash) -> Result<Health, Error> {
        let path = self.path(d1);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Health::Missing),
            Err(e) => return Err(Error::io(path.display(), e)),
        };
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 1 << 17];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => hasher.update(buffer.get(..n).unwrap_or_default()),
                // A sector that cannot be read.
                Err(_) => return Ok(Health::Damaged),
            };
        }
        match hasher.finalize() == *d1 {
            true => Ok(Health::Fine),
            false => Ok(Health::Damaged),
        }
    }

    fn clean(&self, age_ms: u64) -> Result<u64, Error> {
        let mut removed = 0;
        for (path, _, written_ms) in files(&self.tmp)? {
            if now_ms().saturating_sub(written_ms) >= age_ms {
                fs::remove_file(&path).map_err(|e| Error::io(path.display(), e))?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// A new file to write, past the page cache or not.
fn create(path: &Path, direct: bool) -> std::io::Result<File> {
    let flags = match direct {
        true => rustix::fs::OFlags::DIRECT.bits().cast_signed(),
        false => 0,
    };
    let mut options = File::options();
    options
        .write(true)
        .create_new(true)
        .custom_flags(flags)
        .open(path)
}

/// Tries whether the file system below a directory takes writes past the page cache.
fn can_write_direct(dir: &Path) -> bool {
    let mut probe = Gather::new(Gather::LARGE);
    probe.take(&mut Bytes::from_static(&[0; Gather::LARGE]));
    let (_, probe) = probe.finish();
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().make_in(dir, |path| create(path, true))?;
        match whole_blocks(&probe) {
            Some((blocks, rest)) => write_direct(file.as_file_mut(), &blocks, rest),
            None => Err(std::io::ErrorKind::Unsupported.into()),
        }
    };
    fs::create_dir_all(dir).and_then(|()| write()).is_ok()
}

/// Writes whole blocks, and the rest through the page cache: cutting a padded block off would read
/// it first.
fn write_direct(file: &mut File, blocks: &[&[u8]], rest: &[u8]) -> std::io::Result<()> {
    write_parts(file, blocks)?;
    if !rest.is_empty() {
        rustix::fs::fcntl_setfl(&*file, rustix::fs::OFlags::empty())?;
        file.write_all(rest)?;
    }
    Ok(())
}

/// Writes all parts in order.
fn write_parts(file: &mut File, parts: &[&[u8]]) -> std::io::Result<()> {
    for parts in parts.chunks(64) {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|p| IoSlice::new(p)).collect();
        let mut slices = slices.as_mut_slice();
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            match file.write_vectored(slices)? {
                0 => return Err(std::io::ErrorKind::WriteZero.into()),
                n => IoSlice::advance_slices(&mut slices, n),
            }
        }
    }
    Ok(())
}

/// Files of a directory: path, length, time of writing.
fn files(dir: &Path) -> Result<Vec<(PathBuf, u64, u64)>, Error> {
    let at = |e| Error::io(dir.display(), e);
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(at)? {
        let entry = entry.map_err(at)?;
        match entry.metadata() {
            Ok(meta) if meta.is_file() => {
                let written = meta.modified().map(ms).map_err(at)?;
                found.push((entry.path(), meta.len(), written));
            }
            Ok(_) => (),
            // Deleted while we looked.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => (),
            Err(e) => return Err(at(e)),
        }
    }
    Ok(found)
}

#[async_trait]
impl Upkeep for Directory {
    async fn delete(&self, blobs: &[Hash]) -> Result<u64, Error> {
        let blobs = blobs.to_vec();
        let (at, shards) = self.run(move |inner| inner.delete(&blobs)).await?;
        let shards = shards.into_iter().collect();
        let sync = |_: &Inner, dirs: &[PathBuf]| dirs.iter().try_for_each(|dir| sync_dir(dir));
        self.side_by_side(shards, sync).await?;
        Ok(at)
    }

    async fn list(&self, first: u8) -> Result<Vec<BlobInfo>, Error> {
        self.run(move |inner| inner.list(first)).await
    }

    async fn check(&self, blobs: &[Hash]) -> Result<Vec<Health>, Error> {
        let blobs = blobs.to_vec();
        self.run(move |inner| blobs.iter().map(|d1| inner.check(d1)).collect())
            .await
    }

    async fn clean(&self, age_ms: u64) -> Result<u64, Error> {
        self.run(move |inner| inner.clean(age_ms)).await
    }

    async fn ready(&self) -> Result<(), Error> {
        self.run(|inner| inner.room.check(0)).await
    }
}

#[async_trait]
impl Blobs for Directory {
    async fn put(&self, mut blobs: Vec<Blob>) -> Result<(), Error> {
        // A directory with several of them is synced once.
        blobs.sort_unstable_by_key(|blob| blob.d1);
        let parts = blobs.iter().flat_map(|blob| &blob.data);
        let bytes = parts.map(|part| part.len() as u64).sum();
        let put = move |inner: &Inner, part: &[Blob]| {
            inner.room.check(bytes)?;
            inner.put(part)
        };
        self.side_by_side(blobs, put).await
    }

    async fn get(&self, d1: &Hash) -> Result<Option<Bytes>, Error> {
        let d1 = *d1;
        let bytes = self.run(move |inner| inner.read(&d1)).await?;
        Ok(bytes.map(Bytes::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[tokio::test]
    async fn conforms() {
        let dir = tempfile::tempdir().unwrap();
        let store = Directory::open(dir.path(), Room::new(dir.path(), 0)).unwrap();
        let harm = |d1: &Hash| fs::write(store.0.path(d1), b"garbage").unwrap();
        conformance::blobs(&store, harm).await;
    }

    #[tokio::test]
    async fn large_blobs_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Directory::open(dir.path(), Room::new(dir.path(), 0)).unwrap();
        for len in [Gather::LARGE, 1_000_003] {
            let content: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let mut gather = Gather::new(len);
            gather.take(&mut Bytes::from(content.clone()));
            let (d1, data) = gather.finish();
            store.put(vec![Blob { d1, data }]).await.unwrap();
            assert_eq!(store.get(&d1).await.unwrap().unwrap(), content);
            assert_eq!(store.check(&[d1]).await.unwrap(), [Health::Fine]);
        }
    }

    #[tokio::test]
    async fn leftovers_go_at_the_start_and_a_full_disk_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let room = Room::new(dir.path(), u64::MAX);
        let store = Directory::open(dir.path(), room.clone()).unwrap();
        let refused = store.put(vec![conformance::blob(b"x")]).await;
        assert!(matches!(refused, Err(Error::Full)));
        fs::write(dir.path().join("tmp/0"), b"half a bl").unwrap();
        Directory::open(dir.path(), room).unwrap();
        assert_eq!(files(&dir.path().join("tmp")).unwrap(), []);
    }
}
