// SPDX-License-Identifier: MPL-2.0
use super::*;
use crate::client::recorder::{StreamChunk, Surround};
use crate::client::uploader::{Held, Job};
use crate::manifest::Framing;
use crate::rce::ChunkId;
use std::sync::Arc;

#[path = "../../../tests/common/small.rs"]
mod small;

fn item(number: u64) -> Item {
    let content = vec![number as u8; 100];
    let chunk = StreamChunk {
        track: 0,
        id: ChunkId::of(&content, None),
        in_domain: false,
        content,
        envelope: vec![1; 3],
        envelope_id: None,
        framing: Framing::Bytes,
        units: Vec::new(),
        gop_start: true,
        suspect: false,
        prev_suspect: false,
        caps: None,
        time: None,
        tags: None,
        running: Some((number, number + 1)),
        clock: None,
    };
    Item::new(chunk, [1; 8], number, Arc::default(), 5)
}

fn numbers(items: &[Item]) -> Vec<u64> {
    items.iter().map(|item| item.number).collect()
}

fn read_all(spool: &mut Spool) -> Vec<u64> {
    let mut all = Vec::new();
    while let Some(items) = spool.read_next().unwrap() {
        all.extend(numbers(&items));
    }
    all
}

fn open(dir: &Path, identity: &Identity) -> Spool {
    let (spool, damaged) = Spool::open(dir, identity, [9; 16], 1 << 20).unwrap();
    assert!(damaged.is_empty());
    spool
}

#[test]
fn chunks_come_back_as_they_went_in() {
    let (dir, identity) = (tempfile::tempdir().unwrap(), Identity::generate().unwrap());
    let mut spool = open(dir.path(), &identity);
    let mut items = vec![item(1), item(2)];
    let held = Held {
        d1: [3; 32].into(),
        new: true,
    };
    items[1].content = Job::held(items[1].content.id.clone(), false, 100, held);
    assert!(spool.append(&mut items).is_none() && items.is_empty());
    drop(spool);
    let mut spool = open(dir.path(), &identity);
    let mut back = spool.read_next().unwrap().unwrap();
    assert_eq!(back[0].content.clear().unwrap(), [1; 100]);
    assert_eq!(back[0].content.id.tag(), item(1).content.id.tag());
    assert!(matches!(&back[0].envelope, Surround::Inline(bytes) if *bytes == [1; 3]));
    assert_eq!(
        (back[0].session, back[0].running, back[0].arrived),
        ([1; 8], Some((1, 2)), 5)
    );
    let held = back[1].content.holding().unwrap();
    assert_eq!((*held.d1, held.new), ([3; 32], true));
}

#[test]
fn what_is_under_way_goes_before_what_waits() {
    let (dir, identity) = (tempfile::tempdir().unwrap(), Identity::generate().unwrap());
    let mut spool = open(dir.path(), &identity);
    spool.append(&mut vec![item(3)]);
    let mut under_way =
        [vec![item(1), item(2)], spool.read_next().unwrap().unwrap()].concat_items();
    spool.append(&mut vec![item(5)]);
    under_way.push(item(4));
    assert!(spool.insert(under_way.iter_mut().collect()).unwrap());
    spool.rewind();
    assert_eq!(read_all(&mut spool), [1, 2, 3, 4, 5]);
    // Without room for all, nothing of it is left.
    let bytes = spool.bytes();
    spool.max_bytes = bytes + 10;
    let mut more = item(6);
    assert!(!spool.insert(vec![&mut more]).unwrap());
    assert_eq!((spool.bytes(), more.spooled), (bytes, None));
}

fn spool_files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join(hex(&[9; 16]))).unwrap();
    let mut files: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "spool"));
    files.sort();
    files
}

fn on_disk(dir: &Path) -> u64 {
    let files = spool_files(dir).into_iter();
    files.map(|f| f.metadata().unwrap().len()).sum()
}

#[test]
fn a_file_grows_until_it_is_read_or_its_process_ends() {
    let (dir, identity) = (tempfile::tempdir().unwrap(), Identity::generate().unwrap());
    let mut spool = open(dir.path(), &identity);
    for n in 1..=3 {
        spool.append(&mut vec![item(n)]);
    }
    assert_eq!(spool_files(dir.path()).len(), 1);
    assert_eq!(read_all(&mut spool), [1, 2, 3]);
    spool.append(&mut vec![item(4)]);
    spool.append(&mut vec![item(5)]);
    assert_eq!(
        spool_files(dir.path()).len(),
        2,
        "one is at work on the first"
    );
    drop(spool);
    let mut spool = open(dir.path(), &identity);
    spool.append(&mut vec![item(6)]);
    let files = spool_files(dir.path());
    assert_eq!(files.len(), 3);
    assert_eq!(spool.bytes(), on_disk(dir.path()));
    // What is committed is known across batches.
    let items = spool.read_next().unwrap().unwrap();
    let places = items[1..].iter().filter_map(|item| item.spooled).collect();
    spool.begin(7, &[8; 32], places).unwrap();
    spool.settle(true).unwrap();
    drop(spool);
    let mut spool = open(dir.path(), &identity);
    assert_eq!(read_all(&mut spool), [1, 4, 5, 6]);
    // A large file grows no more.
    let mut large = item(7);
    large.content = Job::new(
        large.content.id.clone(),
        false,
        vec![0; FILE_BYTES as usize],
    );
    spool.max_bytes = 3 * FILE_BYTES;
    assert!(spool.append(&mut vec![large]).is_none());
    assert!(spool.append(&mut vec![item(8)]).is_none());
    assert_eq!(spool_files(dir.path()).len(), 5);
}

#[test]
fn what_a_crash_left_of_a_batch_is_cut_off() {
    let identity = Identity::generate().unwrap();
    let written = |dir: &Path| {
        let mut spool = open(dir, &identity);
        for n in 1..=3 {
            spool.append(&mut vec![item(n)]);
        }
        let file = spool_files(dir).remove(0);
        (fs::read(&file).unwrap(), file)
    };
    let dir = tempfile::tempdir().unwrap();
    let (whole, _) = written(dir.path());
    let batch = whole.len() / 3;
    for (len, left) in [
        (whole.len() - 1, &[1, 2][..]),
        (2 * batch + 3, &[1, 2]),
        (2 * batch, &[1, 2]),
        (batch + 1, &[1]),
        (batch - 1, &[]),
        (0, &[]),
    ] {
        // A crash may also leave zeros in place of what was written.
        for zeros in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let (mut bytes, file) = written(dir.path());
            bytes.truncate(len);
            if zeros {
                bytes.resize(whole.len(), 0);
            }
            fs::write(&file, bytes).unwrap();
            let mut spool = open(dir.path(), &identity);
            let said = (len != 2 * batch || zeros).then(|| spool.read_next().err().unwrap());
            assert!(said.is_none_or(|said| said.contains("is damaged")));
            assert_eq!(read_all(&mut spool), left, "{len}");
            assert_eq!(spool.bytes(), on_disk(dir.path()));
        }
    }
}

#[test]
fn a_batch_that_finds_no_room_on_the_disk_leaves_the_file_as_it_was() {
    let Some(disk) = small::Small::mount(1) else {
        return;
    };
    let identity = Identity::generate().unwrap();
    let mut spool = open(disk.path(), &identity);
    let large = || {
        let mut large = item(2);
        large.content = Job::new(large.content.id.clone(), false, vec![0; 20_000]);
        vec![large]
    };
    spool.append(&mut vec![item(1)]);
    let ballast = disk.fill();
    assert!(spool.append(&mut large()).is_some());
    fs::remove_file(ballast).unwrap();
    assert!(spool.append(&mut large()).is_none());
    drop(spool);
    assert_eq!(spool_files(disk.path()).len(), 2);
    assert_eq!(read_all(&mut open(disk.path(), &identity)), [1, 2]);
}

trait Concat {
    fn concat_items(self) -> Vec<Item>;
}

impl Concat for [Vec<Item>; 2] {
    fn concat_items(self) -> Vec<Item> {
        self.into_iter().flatten().collect()
    }
}

#[test]
fn a_crash_around_a_commit_neither_loses_nor_repeats() {
    let (dir, identity) = (tempfile::tempdir().unwrap(), Identity::generate().unwrap());
    for committed in [true, false] {
        let mut spool = open(dir.path(), &identity);
        spool.append(&mut vec![item(1), item(2), item(3)]);
        let items = spool.read_next().unwrap().unwrap();
        let places = items[..2].iter().filter_map(|item| item.spooled).collect();
        spool.begin(7, &[8; 32], places).unwrap();
        drop(spool);
        let mut spool = open(dir.path(), &identity);
        assert_eq!(spool.pending(), Some((7, [8; 32])));
        spool.settle(committed).unwrap();
        // What was found missing, and then its number was taken, is asked for once more.
        assert!(!spool.doubt(6).unwrap());
        assert_eq!(spool.doubt(7).unwrap(), !committed);
        assert_eq!(spool.pending(), (!committed).then_some((7, [8; 32])));
        assert!(!spool.doubt(7).unwrap());
        spool.settle(committed).unwrap();
        drop(spool);
        let mut spool = open(dir.path(), &identity);
        assert_eq!(spool.pending(), None);
        let items = spool.read_next().unwrap().unwrap();
        let left: &[u64] = if committed { &[3] } else { &[1, 2, 3] };
        assert_eq!(numbers(&items), left);
        let places = items.iter().filter_map(|item| item.spooled).collect();
        spool.begin(8, &[9; 32], places).unwrap();
        spool.settle(true).unwrap();
        assert!(spool.is_empty() && spool.bytes() == 0);
    }
}

#[test]
fn what_is_committed_makes_room_for_the_note_of_it() {
    let Some(disk) = small::Small::mount(1) else {
        return;
    };
    let identity = Identity::generate().unwrap();
    let mut spool = open(disk.path(), &identity);
    spool.append(&mut vec![item(1)]);
    let first = spool.read_next().unwrap().unwrap();
    disk.fill();
    let mut items = vec![item(2)];
    let full = spool.append(&mut items).unwrap().to_string();
    assert!(full.contains("No space left"), "{full}");
    assert_eq!(items.len(), 1, "it stays with who has it");
    let places = first.iter().filter_map(|item| item.spooled).collect();
    assert!(spool.begin(7, &[8; 32], places).is_err());
    spool.settle(true).unwrap();
    drop(spool);
    let spool = open(disk.path(), &identity);
    assert!(spool.is_empty() && spool.pending().is_none());
}

#[test]
fn one_recorder_at_a_time_and_only_with_its_identity() {
    let (dir, identity) = (tempfile::tempdir().unwrap(), Identity::generate().unwrap());
    let mut spool = open(dir.path(), &identity);
    let error = Spool::open(dir.path(), &identity, [9; 16], 0)
        .err()
        .unwrap();
    assert!(error.to_string().contains("another recorder"), "{error}");
    spool.append(&mut vec![item(1)]);
    drop(spool);
    let mut other = open(dir.path(), &Identity::generate().unwrap());
    let damage = other.read_next().err().unwrap();
    assert!(damage.contains(".bad"), "{damage}");
    assert!(other.is_empty() && other.bytes() == 0);
}
