// SPDX-License-Identifier: MPL-2.0
//! Chunks that wait on disk, encrypted, while the vault cannot be reached.
//!
//! A directory per recording, named by the recording's id, locked by the process that uses it:
//!
//! | file | content |
//! |---|---|
//! | `NNNNNNNNNNNNNNNNNNNN.spool` | batches of chunks with all that is known of them, in order: for each its length (4, big-endian), and the batch |
//! | `journal` | the segment that was being committed from here, and what is committed of files that are still needed |
//! | `*.bad` | a file that could not be read, kept for inspection |
//! | `lock` | empty |
//!
//! Batches and the journal are sealed with the identity's spool key (context `camvault spool v1` ‖
//! recording id ‖ number of the file ‖ of the batch in it, 4 bytes; the journal is number 2^64 - 1
//! and ends there). A file is written aside, synced and renamed; the process that made it appends
//! further batches, each synced before it counts, up to 4 MiB and until it is read. What a crash
//! leaves of a batch is cut off. A file goes when every chunk of it is in a committed segment. Whether the commit under way at a crash
//! reached the vault is found out by its manifest's hash, so nothing is lost or recorded twice.

mod record;

use super::recorder::Item;
use super::{Error, hex};
use crate::identity::{AeadKey, Identity, RecordingId};
use crate::protocol::{B32, decode, encode};
use minicbor::{Decode, Encode};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Bytes of chunks in one file.
const FILE_BYTES: u64 = 4 << 20;
/// Numbers kept free for what may have to go before.
const GAP: u64 = 1 << 16;
/// The journal's number.
const JOURNAL: u64 = u64::MAX;

/// A chunk's place: file and index in it.
pub(crate) type Place = (u64, u32);

/// The spool of one recording.
pub(crate) struct Spool {
    dir: PathBuf,
    key: AeadKey,
    id: RecordingId,
    max_bytes: u64,
    bytes: u64,
    files: BTreeMap<u64, SpoolFile>,
    /// Files from here on have not been read.
    cursor: u64,
    next: u64,
    /// The file that may grow: the last that was appended here.
    tail: Option<u64>,
    journal: Journal,
    /// What was found not to be committed. It may still become so, if its request is on its way.
    doubted: Option<Pending>,
    /// Held as long as this lives.
    _lock: File,
}

struct SpoolFile {
    bytes: u64,
    /// Number of chunks, once known.
    items: Option<u32>,
    /// Number of batches, in a file of this process.
    batches: u32,
    done: BTreeSet<u32>,
}

#[derive(Default, Encode, Decode)]
#[cbor(map)]
struct Journal {
    #[n(0)]
    pending: Option<Pending>,
    #[n(1)]
    done: Vec<Place>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Pending {
    #[n(0)]
    seq: u64,
    #[n(1)]
    hash: B32,
    #[n(2)]
    items: Vec<Place>,
}

impl Spool {
    /// Opens or makes a recording's spool. Also returns what was found damaged.
    pub fn open(
        dir: &Path,
        identity: &Identity,
        id: RecordingId,
        max_bytes: u64,
    ) -> Result<(Self, Vec<String>), Error> {
        let dir = dir.join(hex(&id));
        let at = |path: &Path| {
            let path = path.display().to_string();
            move |source| Error::Spool { path, source }
        };
        fs::create_dir_all(&dir).map_err(at(&dir))?;
        let lock_path = dir.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(at(&lock_path))?;
        if lock.try_lock().is_err() {
            let busy = io::Error::new(io::ErrorKind::ResourceBusy, "another recorder uses it");
            return Err(at(&lock_path)(busy));
        }
        let mut spool = Self {
            key: identity.spool_key(),
            id,
            max_bytes,
            bytes: 0,
            files: BTreeMap::new(),
            cursor: 0,
            next: 0,
            doubted: None,
            tail: None,
            journal: Journal::default(),
            _lock: lock,
            dir: dir.clone(),
        };
        for entry in fs::read_dir(&dir).map_err(at(&dir))? {
            let entry = entry.map_err(at(&dir))?;
            let path = entry.path();
            if path.extension().is_some_and(|e| e == "tmp") {
                fs::remove_file(&path).map_err(at(&path))?;
                continue;
            }
            let name = entry.file_name();
            let number = name.to_str().and_then(|n| n.strip_suffix(".spool"));
            let Some(number) = number.and_then(|n| n.parse::<u64>().ok()) else {
                continue;
            };
            let file = SpoolFile {
                bytes: entry.metadata().map_err(at(&path))?.len(),
                items: None,
                batches: 0,
                done: BTreeSet::new(),
            };
            spool.bytes += file.bytes;
            spool.next = spool.next.max(number.saturating_add(1));
            spool.files.insert(number, file);
        }
        let damaged = spool.load_journal()?;
        Ok((spool, damaged))
    }

    fn load_journal(&mut self) -> Result<Vec<String>, Error> {
        let path = self.dir.join("journal");
        let sealed = match fs::read(&path) {
            Ok(sealed) => sealed,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(self.error(&path, e)),
        };
        let clear = self.key.open(&self.context(JOURNAL, None), &sealed).ok();
        let journal = clear.and_then(|clear| decode::<Journal>(&clear).ok());
        let Some(journal) = journal else {
            return Ok(vec![self.set_aside(&path)]);
        };
        let pending = journal.pending.iter().flat_map(|p| &p.items);
        for (file, _) in journal.done.iter().chain(pending) {
            // What is noted of a file must never be taken for a later one.
            self.next = self.next.max(file.saturating_add(1));
        }
        for (file, index) in &journal.done {
            if let Some(file) = self.files.get_mut(file) {
                file.done.insert(*index);
            }
        }
        self.journal = journal;
        Ok(Vec::new())
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether files wait to be read.
    pub fn has_unread(&self) -> bool {
        self.files.range(self.cursor..).next().is_some()
    }

    /// Whether there is nothing here.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Writes chunks behind all others. Those that are written leave `items`; what stays found no
    /// room, for the reason given or because of the configured bound.
    pub fn append(&mut self, items: &mut Vec<Item>) -> Option<Error> {
        if !self.has_unread() {
            // What the caller is at work on comes before these, should it be inserted.
            self.next += GAP;
        }
        while !items.is_empty() {
            let mut batch: Vec<_> = items.iter_mut().collect();
            batch.truncate(batch_len(&batch));
            let count = batch.len();
            let written = match self.growing(&batch) {
                Some(number) => self.extend(number, &mut batch),
                None => self.write_batch(self.next, &mut batch).inspect(|done| {
                    if *done {
                        self.tail = Some(self.next);
                        self.next += 1;
                    }
                }),
            };
            match written {
                Ok(true) => drop(items.drain(..count)),
                full => return full.err(),
            }
        }
        None
    }

    /// The file to which a batch can be appended: the last one, not read yet, with room.
    fn growing(&self, batch: &[&mut Item]) -> Option<u64> {
        let number = self
            .tail
            .filter(|n| *n >= self.cursor && n + 1 == self.next)?;
        let more: u64 = batch.iter().map(|item| item.bytes()).sum();
        (self.files.get(&number)?.bytes + more <= FILE_BYTES).then_some(number)
    }

    /// Appends a batch to a file: all of it, or nothing (`false`: no room).
    fn extend(&mut self, number: u64, items: &mut [&mut Item]) -> Result<bool, Error> {
        let Some((batches, first, end)) = self
            .files
            .get(&number)
            .and_then(|file| Some((file.batches, file.items?, file.bytes)))
        else {
            return Ok(false);
        };
        let sealed = self.seal_batch(number, batches, items)?;
        let bytes = sealed.len() as u64;
        if self.bytes.saturating_add(bytes) > self.max_bytes {
            return Ok(false);
        }
        let path = self.path(number);
        let write = || {
            let mut file = File::options().append(true).open(&path)?;
            let written = file.write_all(&sealed).and_then(|()| file.sync_all());
            written.inspect_err(|_| drop(file.set_len(end)))
        };
        if let Err(e) = write() {
            // Nothing may come behind half a batch, should that stay.
            self.tail = None;
            return Err(self.error(&path, e));
        }
        for (index, item) in (first..).zip(items.iter_mut()) {
            item.spooled = Some((number, index));
        }
        if let Some(file) = self.files.get_mut(&number) {
            file.bytes += bytes;
            file.batches += 1;
            file.items = Some(first + items.len() as u32);
        }
        self.bytes += bytes;
        Ok(true)
    }

    /// Writes those chunks of an ordered list that are not here yet, each before the ones behind
    /// it and before all unread ones: all of them, or none (`false`: no room).
    pub fn insert(&mut self, items: Vec<&mut Item>) -> Result<bool, Error> {
        let mut before = self.files.range(self.cursor..).next().map(|(n, _)| *n);
        let mut groups: Vec<(Option<u64>, Vec<&mut Item>)> = Vec::new();
        for item in items.into_iter().rev() {
            match (item.spooled, groups.last_mut()) {
                (Some((file, _)), _) => before = Some(file),
                (None, Some((at, group))) if *at == before => group.push(item),
                (None, _) => groups.push((before, vec![item])),
            }
        }
        let mut written = Vec::new();
        let mut done = Ok(true);
        for (before, group) in groups.iter_mut().rev() {
            group.reverse();
            done = self.insert_group(*before, group, &mut written);
            if !matches!(done, Ok(true)) {
                break;
            }
        }
        if !matches!(done, Ok(true)) {
            for item in groups.iter_mut().flat_map(|(_, group)| group) {
                item.spooled = None;
            }
            written.into_iter().for_each(|number| self.remove(number));
        }
        done
    }

    fn insert_group(
        &mut self,
        before: Option<u64>,
        mut items: &mut [&mut Item],
        written: &mut Vec<u64>,
    ) -> Result<bool, Error> {
        let mut lengths = Vec::new();
        let mut at = 0;
        while at < items.len() {
            lengths.push(batch_len(&items[at..]));
            at += lengths.last().copied().unwrap_or(1);
        }
        let files = lengths.len() as u64;
        let first = match before {
            None => self.next,
            Some(end) => match end.checked_sub(files) {
                Some(first) if self.files.range(first..end).next().is_none() => first,
                _ => return Ok(false),
            },
        };
        self.next = self.next.max(first + files);
        for (number, count) in (first..).zip(lengths) {
            let (batch, rest) = items.split_at_mut(count);
            items = rest;
            if !self.write_batch(number, batch)? {
                return Ok(false);
            }
            written.push(number);
        }
        Ok(true)
    }

    fn write_batch(&mut self, number: u64, items: &mut [&mut Item]) -> Result<bool, Error> {
        let sealed = self.seal_batch(number, 0, items)?;
        let bytes = sealed.len() as u64;
        if self.bytes.saturating_add(bytes) > self.max_bytes {
            return Ok(false);
        }
        self.write(&format!("{number:020}.spool"), &sealed)?;
        for (index, item) in (0..).zip(items.iter_mut()) {
            item.spooled = Some((number, index));
        }
        let file = SpoolFile {
            bytes,
            items: Some(items.len() as u32),
            batches: 1,
            done: BTreeSet::new(),
        };
        self.files.insert(number, file);
        self.bytes += bytes;
        Ok(true)
    }

    fn remove(&mut self, number: u64) {
        let path = self.path(number);
        let gone = match fs::remove_file(&path) {
            Ok(()) => true,
            Err(e) => e.kind() == io::ErrorKind::NotFound,
        };
        if gone && let Some(file) = self.files.remove(&number) {
            self.bytes -= file.bytes;
        }
    }

    /// The next unread file's chunks that are not committed yet. A damaged file is set aside and
    /// its story told.
    pub fn read_next(&mut self) -> Result<Option<Vec<Item>>, String> {
        let Some((&number, _)) = self.files.range(self.cursor..).next() else {
            return Ok(None);
        };
        self.cursor = number + 1;
        let path = self.path(number);
        let content = fs::read(&path).unwrap_or_default();
        let (items, whole) = self.read_batches(number, &content);
        if whole > 0 && whole < content.len() {
            return Err(self.cut(number, &content, whole));
        }
        let Some(file) = self.files.get_mut(&number).filter(|_| whole > 0) else {
            if let Some(file) = self.files.remove(&number) {
                self.bytes -= file.bytes;
            }
            return Err(self.set_aside(&path));
        };
        let mut items = items;
        file.items = Some(items.len() as u32);
        for (index, item) in (0..).zip(items.iter_mut()) {
            item.spooled = Some((number, index));
        }
        let done = file.done.clone();
        items.retain(|item| item.spooled.is_none_or(|(_, index)| !done.contains(&index)));
        self.sweep();
        Ok(Some(items))
    }

    /// The chunks of a file's whole batches, and where these end.
    fn read_batches(&self, number: u64, content: &[u8]) -> (Vec<Item>, usize) {
        let mut items = Vec::new();
        let mut rest = content;
        for batch in 0.. {
            let next = rest.split_first_chunk::<4>().and_then(|(len, rest)| {
                let (sealed, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
                let context = self.context(number, Some(batch));
                let clear = self.key.open(&context, sealed).ok()?;
                Some((record::read(&clear)?, rest))
            });
            let Some((read, after)) = next else { break };
            items.extend(read);
            rest = after;
        }
        (items, content.len() - rest.len())
    }

    /// Cuts off what is behind a file's whole batches and sets that aside; the rest is read next.
    /// Tells the story.
    fn cut(&mut self, number: u64, content: &[u8], end: usize) -> String {
        let path = self.path(number);
        let opened = File::options().write(true).open(&path);
        let cut = opened.and_then(|file| file.set_len(end as u64).and_then(|()| file.sync_all()));
        let off = (content.len() - end) as u64;
        if cut.is_err() {
            if let Some(file) = self.files.remove(&number) {
                self.bytes -= file.bytes;
            }
            return self.set_aside(&path);
        }
        self.cursor = number;
        self.tail = None;
        if let Some(file) = self.files.get_mut(&number) {
            let off = off.min(file.bytes);
            file.bytes -= off;
            self.bytes -= off;
        }
        let path = path.display();
        let kept = match fs::write(format!("{path}.bad"), &content[end..]) {
            Ok(()) => format!("set aside as {path}.bad"),
            Err(e) => format!("setting them aside: {e}"),
        };
        format!(
            "spool file {path} is damaged: its last {off} bytes are skipped, as after a crash; {kept}"
        )
    }

    /// Reads again from the first file on.
    pub fn rewind(&mut self) {
        self.cursor = 0;
    }

    /// The segment whose commit was begun and not settled.
    pub fn pending(&self) -> Option<(u64, [u8; 32])> {
        let pending = self.journal.pending.as_ref()?;
        Some((pending.seq, *pending.hash))
    }

    /// Notes that a segment with chunks from here is about to be committed.
    pub fn begin(&mut self, seq: u64, hash: &[u8; 32], items: Vec<Place>) -> Result<(), Error> {
        self.journal.pending = Some(Pending {
            seq,
            hash: (*hash).into(),
            items,
        });
        self.write_journal()
    }

    /// Somebody has committed this segment: if it may have been the one that was found missing,
    /// that one is pending again.
    pub fn doubt(&mut self, seq: u64) -> Result<bool, Error> {
        let doubted = self.doubted.take_if(|doubted| doubted.seq == seq);
        let again = doubted.is_some();
        if again {
            self.journal.pending = doubted;
            self.write_journal()?;
        }
        Ok(again)
    }

    /// Notes how that ended, and deletes what is no longer needed.
    pub fn settle(&mut self, committed: bool) -> Result<(), Error> {
        let Some(pending) = self.journal.pending.take() else {
            return Ok(());
        };
        if committed {
            for (file, index) in pending.items {
                if let Some(file) = self.files.get_mut(&file) {
                    file.done.insert(index);
                }
            }
        } else {
            self.doubted = Some(pending);
        }
        let files = self.files.iter();
        let kept = files.flat_map(|(number, f)| f.done.iter().map(|index| (*number, *index)));
        self.journal.done = kept.collect();
        // First the note, then the deletion: a crash between them leaves a file that is known to
        // be done with. On a full disk the other way round: what goes makes room for the note, and
        // until that is written the one before it leads to the same end.
        let noted = self.write_journal();
        self.sweep();
        noted.or_else(|_| self.write_journal())
    }

    /// Deletes files of which everything is committed.
    fn sweep(&mut self) {
        let complete = |f: &SpoolFile| f.items.is_some_and(|items| f.done.len() >= items as usize);
        let files = self.files.iter().filter(|(_, f)| complete(f));
        let numbers: Vec<u64> = files.map(|(number, _)| *number).collect();
        numbers.into_iter().for_each(|number| self.remove(number));
    }

    fn write_journal(&self) -> Result<(), Error> {
        let sealed = self.seal(JOURNAL, None, &encode(&self.journal))?;
        self.write("journal", &sealed)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:020}.spool"))
    }

    fn context(&self, number: u64, batch: Option<u32>) -> Vec<u8> {
        let mut context = b"camvault spool v1".to_vec();
        context.extend_from_slice(&self.id);
        context.extend(number.to_be_bytes());
        context.extend(batch.into_iter().flat_map(u32::to_be_bytes));
        context
    }

    fn seal(&self, number: u64, batch: Option<u32>, clear: &[u8]) -> Result<Vec<u8>, Error> {
        self.key
            .seal(&self.context(number, batch), clear)
            .map_err(|_| crate::identity::Error::Random.into())
    }

    /// A batch with its length in front.
    fn seal_batch(
        &self,
        number: u64,
        batch: u32,
        items: &mut [&mut Item],
    ) -> Result<Vec<u8>, Error> {
        let clear = Zeroizing::new(record::write(items)?);
        let sealed = self.seal(number, Some(batch), &clear)?;
        let long = |_| self.error(&self.path(number), io::ErrorKind::FileTooLarge.into());
        let len = u32::try_from(sealed.len()).map_err(long)?;
        Ok([len.to_be_bytes().as_slice(), &sealed].concat())
    }

    /// Writes a file so that it is there whole or not at all.
    fn write(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        let path = self.dir.join(name);
        let aside = self.dir.join(format!("{name}.tmp"));
        let write = || {
            let mut file = File::create(&aside)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&aside, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|e| {
            // It would take room that is needed.
            let _ = fs::remove_file(&aside);
            self.error(&path, e)
        })
    }

    fn set_aside(&self, path: &Path) -> String {
        let mut bad = path.as_os_str().to_owned();
        bad.push(".bad");
        let moved = fs::rename(path, &bad);
        let path = path.display();
        match moved {
            Ok(()) => format!("spool file {path} is damaged: set aside as {path}.bad and skipped"),
            Err(e) => format!("spool file {path} is damaged and skipped; renaming it: {e}"),
        }
    }

    fn error(&self, path: &Path, source: io::Error) -> Error {
        Error::Spool {
            path: path.display().to_string(),
            source,
        }
    }
}

/// How many of these chunks make a file.
fn batch_len(items: &[&mut Item]) -> usize {
    let mut bytes = 0;
    let fits = |item: &&&mut Item| {
        bytes += item.bytes();
        bytes <= FILE_BYTES
    };
    items.iter().take_while(fits).count().max(1)
}

/// For fuzzing: reads the content of a file and writes it again.
#[cfg(fuzzing)]
pub fn rewrite(clear: &[u8]) -> Option<Vec<u8>> {
    let mut items = record::read(clear)?;
    let mut items: Vec<_> = items.iter_mut().collect();
    items.iter().for_each(|item| {
        let _ = (item.balance(), item.is_stored(), item.manifest_envelope());
    });
    batch_len(&items);
    record::write(&mut items).ok()
}

#[cfg(test)]
mod tests;
