// SPDX-License-Identifier: MPL-2.0
use super::*;
use proptest::prelude::*;

fn unit() -> impl Strategy<Value = UnitInfo> {
    any::<(u32, u32, Option<u64>, Option<u64>, Option<u64>)>().prop_map(
        |(content_len, flags, pts, dts, duration)| UnitInfo {
            content_len,
            flags,
            pts,
            dts,
            duration,
        },
    )
}

fn manifest(units: Vec<UnitInfo>) -> Manifest {
    let stored = Stored {
        key: [1; 32].into(),
        d1: [2; 32].into(),
        len: 3,
        in_domain: false,
    };
    Manifest {
        session: [7; 8].into(),
        origin_running: 5,
        origin: 6,
        tracks: vec![Track {
            id: 0,
            framing: Framing::Records,
            caps: vec![(0, "video/x-h264".into())],
            times: vec![(
                0,
                TimeSegment {
                    start: 0,
                    stop: None,
                    time: 0,
                    base: 0,
                },
            )],
            chunks: vec![Chunk {
                content: stored.clone(),
                units: units.len() as u32,
                envelope: Envelope::Stored(stored),
                gop_start: true,
                suspect: false,
            }],
            units: units.into_iter().collect(),
            clock: vec![(0, -1)],
            tags: None,
        }],
    }
}

fn sealer() -> Sealer {
    Sealer {
        id: [4; 16],
        key: AeadKey::new([3; 32]),
    }
}

proptest! {
    #[test]
    fn units_and_manifests_read_back(units in proptest::collection::vec(unit(), 0..50), seq: u64) {
        let columns: Units = units.iter().copied().collect();
        prop_assert_eq!(columns.iter().collect::<Vec<_>>(), units.clone());
        let manifest = manifest(units);
        let sealed = sealer().seal_manifest(seq, &manifest).unwrap();
        prop_assert_eq!(sealer().open_manifest(seq, &sealed).unwrap(), manifest);
        prop_assert!(sealer().open_manifest(seq ^ 1, &sealed).is_err(), "bound to its place");
        prop_assert!(sealer().open_head(seq, &sealed).is_err(), "bound to its kind");
    }

    #[test]
    fn sealed_bytes_cannot_be_changed(at: prop::sample::Index, bit in 0u8..8) {
        let mut sealed = sealer().seal_manifest(1, &manifest(vec![])).unwrap();
        let i = at.index(sealed.len());
        sealed[i] ^= 1 << bit;
        prop_assert!(sealer().open_manifest(1, &sealed).is_err());
    }
}
