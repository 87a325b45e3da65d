// SPDX-License-Identifier: MPL-2.0
use super::primitive::count;
use super::*;
use proptest::prelude::*;

fn open_plain(key: &Key, record: &Record, c1: &mut [u8]) -> Result<(), Error> {
    open(key, false, None, record, c1)
}

/// [KL19] Table 1. A download is counted there with the two unwrappings E^-1 that give `GK` and
/// `C2`; those are the ownership module's, and the hash of `K` that we add is the second H here.
#[test]
fn operation_counts_of_table_1() {
    let chunk = vec![7u8; 100_000];
    count::take();

    let id = ChunkId::of(&chunk, None);
    let mut c1 = chunk.clone();
    let record = seal(&id, &mut c1).unwrap();
    assert_eq!(count::take(), (3, 1, 1), "first upload: 3H + 1SE + 1xor");

    let id = ChunkId::of(&chunk, None);
    assert_eq!(expected_c3(&id, &record.c2), record.c3);
    assert_eq!(count::take(), (3, 0, 1), "subsequent upload: 3H + 1xor");

    let id = ChunkId::of(&chunk, None);
    let poisoned = [9u8; 32];
    assert_ne!(expected_c3(&id, &poisoned), record.c3);
    let (h, se, x) = count::take();
    seal(&id, &mut chunk.clone()).unwrap();
    let (h2, se2, x2) = count::take();
    // The check's own xor is not in the table's row.
    assert_eq!(
        (h + h2, se + se2, x + x2 - 1),
        (4, 1, 1),
        "poisoned: 4H + 1SE + 1xor"
    );

    open_plain(id.key(), &record, &mut c1).unwrap();
    let (h, se, x) = count::take();
    // H: the paper's check of C3, and ours of K from the same pass. SE: C1; GK and C2 are two more.
    assert_eq!((h - 1, se + 2, x), (1, 3, 1), "download: 1H + 3SE + 1xor");
    assert_eq!(c1, chunk);
}

/// Known answers, made with Python's hashlib and cryptography (see docs/protocol.md).
#[test]
fn known_answers() {
    let chunk = b"camvault known answer chunk".to_vec();
    let id = ChunkId::of(&chunk, None);
    let data_key: Bytes32 = std::array::from_fn(|i| i as u8);
    let mut c1 = chunk.clone();
    let record = seal_with(&id, &mut c1, &data_key);
    let text = include_str!("../../tests/data/rce1.txt");
    let expect = |name: &str| {
        text.lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix(' '))
            .unwrap()
            .to_owned()
    };
    let hex = |b: &[u8]| b.iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert_eq!(hex(id.key().expose()), expect("K"));
    assert_eq!(hex(id.tag()), expect("t"));
    assert_eq!(hex(&c1), expect("C1"));
    assert_eq!(hex(&record.c2), expect("C2"));
    assert_eq!(hex(&record.c3), expect("C3"));
    assert_eq!(hex(&record.d1), expect("d1"));
    let domain = DomainSecret::from_bytes([0xd0; 32]);
    assert_eq!(
        hex(ChunkId::of(&chunk, Some(&domain)).key().expose()),
        expect("K_domain")
    );
}

proptest! {
    #[test]
    fn sealed_opens_and_two_uploaders_agree(chunk in proptest::collection::vec(any::<u8>(), 0..70_000), secret: Option<[u8; 32]>) {
        let domain = secret.map(DomainSecret::from_bytes);
        let id = ChunkId::of(&chunk, domain.as_ref());
        let mut c1 = chunk.clone();
        let record = seal(&id, &mut c1).unwrap();
        let other = ChunkId::of(&chunk, domain.as_ref());
        prop_assert_eq!(other.tag(), id.tag());
        prop_assert_eq!(expected_c3(&other, &record.c2), record.c3);
        prop_assert_eq!(expected_d1(&other, &chunk, &record.c2), record.d1);
        open(id.key(), domain.is_some(), domain.as_ref(), &record, &mut c1).unwrap();
        prop_assert_eq!(c1, chunk);
    }

    #[test]
    fn several_chunks_have_the_ids_of_each(lengths in proptest::collection::vec(0usize..2000, 0..7), secret: Option<[u8; 32]>) {
        let domain = secret.map(DomainSecret::from_bytes);
        let chunks: Vec<_> = lengths.iter().map(|&len| vec![len as u8; len]).collect();
        let chunks: Vec<_> = chunks.iter().map(|chunk| &chunk[..]).collect();
        let ids = ChunkId::of_each(&chunks, domain.as_ref());
        prop_assert_eq!(ids.len(), chunks.len());
        for (id, chunk) in ids.iter().zip(chunks) {
            let alone = ChunkId::of(chunk, domain.as_ref());
            prop_assert_eq!(id.key(), alone.key());
            prop_assert_eq!(expected_c3(id, &[7; 32]), expected_c3(&alone, &[7; 32]));
        }
    }

    #[test]
    fn any_changed_byte_is_found(chunk in proptest::collection::vec(any::<u8>(), 1..2000), at: prop::sample::Index, bit in 0u8..8, which in 0usize..4) {
        let id = ChunkId::of(&chunk, None);
        let mut c1 = chunk.clone();
        let mut record = seal(&id, &mut c1).unwrap();
        let flip = |b: &mut [u8]| { let i = at.index(b.len()); b[i] ^= 1 << bit };
        match which {
            0 => flip(&mut c1),
            1 => flip(&mut record.c2),
            2 => flip(&mut record.c3),
            _ => flip(&mut record.d1),
        }
        prop_assert!(open_plain(id.key(), &record, &mut c1).is_err());
        prop_assert!(c1.iter().all(|b| *b == 0), "no wrong data is handed out");
    }

    /// The weakness of the paper that `d1` closes: garbage as C1 with right C2 and C3.
    #[test]
    fn garbage_blob_passes_the_papers_check_only(chunk in proptest::collection::vec(any::<u8>(), 1..2000)) {
        let id = ChunkId::of(&chunk, None);
        let mut c1 = chunk.clone();
        let mut record = seal(&id, &mut c1).unwrap();
        record.d1 = *blake3::hash(b"garbage").as_bytes();
        prop_assert_eq!(expected_c3(&id, &record.c2), record.c3);
        prop_assert_ne!(expected_d1(&id, &chunk, &record.c2), record.d1);
    }
}
