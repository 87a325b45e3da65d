// SPDX-License-Identifier: MPL-2.0
//! The whole module: split and join, and pieces of made-up cameras.

use std::collections::HashSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const CODECS: [Codec; 10] = [
    Codec::H264(Framing::AnnexB),
    Codec::H264(Framing::LengthPrefixed(4)),
    Codec::H264(Framing::LengthPrefixed(1)),
    Codec::H265(Framing::AnnexB),
    Codec::H265(Framing::LengthPrefixed(3)),
    Codec::H264(Framing::LengthPrefixed(9)),
    Codec::Jpeg,
    Codec::AacAdts,
    Codec::Opaque,
    Codec::Bytes,
];

const MODES: [UnitMode; 5] = [
    UnitMode::Structure,
    UnitMode::Gop,
    UnitMode::Au,
    UnitMode::Fixed(1000),
    UnitMode::Cdc,
];

fn any_codec() -> impl Strategy<Value = Codec> {
    prop::sample::select(CODECS.to_vec())
}

fn parts(codec: &Codec, au: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut content, mut envelope) = (Vec::new(), EnvelopeWriter::new());
    split(codec, au, &mut content, &mut envelope);
    (content, envelope.take())
}

/// Splits into one piece and joins again; the access units and the length of the envelope.
fn round_trip(codec: &Codec, aus: &[Vec<u8>]) -> (Vec<Vec<u8>>, usize) {
    let mut envelope = EnvelopeWriter::new();
    let records: Vec<_> = aus
        .iter()
        .map(|au| {
            let mut content = Vec::new();
            split(codec, au, &mut content, &mut envelope);
            content
        })
        .collect();
    let envelope = envelope.take();
    let mut joiner = Joiner::new(codec, &envelope);
    let joined = records
        .iter()
        .map(|record| joiner.next(record).unwrap())
        .collect();
    assert!(joiner.is_done());
    (joined, envelope.len())
}

/// Bytes that look like what the codecs look for.
fn tokens() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        Just(vec![0, 0, 1]),
        Just(vec![0, 0, 0, 1]),
        Just(vec![0; 3]),
        Just(vec![0x65, 0x88]),
        Just(vec![0x26, 0x01]),
        Just(vec![0x67, 0x42]),
        Just(vec![0, 0, 0, 5, 0x41, 9, 9, 0, 0]),
        Just(vec![0, 0, 3, 2, 1, 0]),
        Just(vec![2, 0x41, 7]),
        Just(vec![0xff, 0xd8]),
        Just(vec![0xff, 0xd9]),
        Just([&[0xff, 0xdb, 0, 67, 0][..], &[7; 64]].concat()),
        Just(vec![0xff, 0xda, 0, 3, 1]),
        Just(vec![0xff, 0xd3]),
        Just(vec![0xff, 0xf1, 0x50, 0x80, 0x01, 0x1f, 0xfc, 1]),
        Just(vec![0xff, 0xf0, 0x50, 0x80, 0x01, 0x5f, 0xfc, 1, 2, 3]),
        vec(any::<u8>(), 0..12),
    ];
    vec(token, 0..14).prop_map(|tokens| tokens.concat())
}

proptest! {
    #[test]
    fn joined_is_what_was_split(codec in any_codec(), au in vec(any::<u8>(), 0..600)) {
        let aus = [au.clone(), au];
        prop_assert_eq!(&round_trip(&codec, &aus).0[..], &aus[..]);
    }

    #[test]
    fn joined_is_what_was_split_of_look_alikes(codec in any_codec(), aus in vec(tokens(), 1..4)) {
        prop_assert_eq!(round_trip(&codec, &aus).0, aus);
    }

    #[test]
    fn nothing_makes_the_joiner_panic(
        codec in any_codec(),
        envelope in vec(prop_oneof![0u8..8, any::<u8>()], 0..60),
        contents in vec(vec(prop_oneof![0u8..4, any::<u8>()], 0..40), 1..4),
    ) {
        let mut joiner = Joiner::new(&codec, &envelope);
        for content in contents {
            if let Ok(au) = joiner.next(&content) {
                prop_assert!(au.len() <= content.len() + envelope.len() + (64 << 10) * content.len());
            }
        }
    }

    #[test]
    fn damaged_records_never_make_the_joiner_panic(
        codec in any_codec(), au in tokens(), at: prop::sample::Index, bit in 0..8, of_content: bool,
    ) {
        let (mut content, mut envelope) = parts(&codec, &au);
        let damaged = if of_content { &mut content } else { &mut envelope };
        if !damaged.is_empty() {
            let at = at.index(damaged.len());
            damaged[at] ^= 1u8 << bit;
        }
        let _ = Joiner::new(&codec, &envelope).next(&content);
    }
}

fn annex_b(nals: &[&[u8]], long: bool) -> Vec<u8> {
    nals.iter()
        .flat_map(|nal| [&[0, 0, 0, 1][usize::from(!long)..], nal].concat())
        .collect()
}

fn prefixed(nals: &[&[u8]]) -> Vec<u8> {
    nals.iter()
        .flat_map(|nal| [&(nal.len() as u32).to_be_bytes()[..], nal].concat())
        .collect()
}

#[test]
fn the_envelope_does_not_change_the_content() {
    let (one, two) = (&[0x65, 1, 0, 0, 3, 9][..], &[0x65, 2, 2][..]);
    let (aud, sps, sei) = (
        &[9, 0xf0][..],
        &[0x67, 0x42, 1][..],
        &[6, 5, 1, 7, 0x80][..],
    );
    let h264 = Codec::H264(Framing::AnnexB);
    let expected = parts(&h264, &annex_b(&[one, two], true)).0;
    assert_eq!(expected, [&[2, 6][..], one, &[3], two].concat());
    for au in [
        annex_b(&[one, two], false),
        annex_b(&[aud, sps, sei, one, two], true),
        annex_b(&[aud, one, sei, two], false),
        annex_b(&[one, &[0x65, 2, 2, 0, 0]], true),
        annex_b(&[&[one, &[0, 0, 0]].concat(), two], false),
        [
            &[0, 0][..],
            &annex_b(&[one, two, &[12, 255, 255, 0x80]], true),
        ]
        .concat(),
    ] {
        assert_eq!(parts(&h264, &au).0, expected, "{au:02x?}");
    }
    let avc = Codec::H264(Framing::LengthPrefixed(4));
    for nals in [
        &[one, two][..],
        &[aud, sps, one, sei, two],
        &[one, &[0x65, 2, 2, 0]],
    ] {
        assert_eq!(parts(&avc, &prefixed(nals)).0, expected, "{nals:02x?}");
    }
    let hevc = (&[0x26, 1, 7, 7][..], &[0x40, 1, 3][..]);
    assert_eq!(
        parts(
            &Codec::H265(Framing::AnnexB),
            &annex_b(&[hevc.1, hevc.0, &[0x50, 1, 4]], true)
        )
        .0,
        parts(
            &Codec::H265(Framing::LengthPrefixed(4)),
            &prefixed(&[hevc.0])
        )
        .0,
    );
}

#[test]
fn a_steady_stream_costs_a_byte_per_unit() {
    let units = |make: fn(usize) -> Vec<u8>| (1..101).map(make).collect::<Vec<_>>();
    let adts = units(|n| {
        let len = n + 7;
        let mut au = vec![
            0xff,
            0xf1,
            0x50,
            0x80,
            (len >> 3) as u8,
            (len << 5) as u8 | 0x1f,
            0xfc,
        ];
        au.resize(len, n as u8);
        au
    });
    let jpeg = units(|n| {
        let table = [&[0xff, 0xdb, 0, 67, 0][..], &[n as u8; 64]].concat();
        let scan = [
            &[0xff, 0xda, 0, 3, 1][..],
            &vec![5; n],
            &[0xff, 0, 0xff, 0xd0, 8],
        ]
        .concat();
        [&[0xff, 0xd8][..], &table, &scan, &[0xff, 0xd9]].concat()
    });
    let avc = units(|n| prefixed(&[&[9, 0xf0], &vec![0x41; n], &vec![0x41; 2 * n]]));
    for (codec, aus) in [
        (Codec::AacAdts, adts),
        (Codec::Jpeg, jpeg),
        (Codec::H264(Framing::LengthPrefixed(4)), avc),
        (Codec::Opaque, units(|n| vec![1; n])),
    ] {
        let (joined, envelope) = round_trip(&codec, &aus);
        assert_eq!(joined, aus);
        assert!(envelope < 99 + 60, "{codec:?}: {envelope}");
    }
}

#[test]
fn hostile_lengths_are_refused() {
    let refused = |content: &[u8], envelope: &[u8]| {
        Joiner::new(&Codec::Opaque, envelope)
            .next(content)
            .unwrap_err()
    };
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    assert_eq!(refused(&[0], &[0]), FrameError::NoPrevious);
    assert_eq!(refused(&[0], &[7]), FrameError::Marker(7));
    assert_eq!(refused(&[0], &[1, 0]), FrameError::Truncated);
    assert_eq!(
        refused(&[0], &[&[1, 0][..], &huge].concat()),
        FrameError::Truncated
    );
    assert_eq!(
        refused(&[0], &[[0xff; 10], [0xff; 10]].concat()[1..]),
        FrameError::Marker(255)
    );
    assert_eq!(
        refused(&[0], &[&[1][..], &[0xff; 11]].concat()),
        FrameError::Varint
    );
    assert_eq!(
        refused(&[1, 0], &[1, 1, 0, 0, 0xff, 0xff, 7, 0]),
        FrameError::Padding(0x1ffff)
    );
    assert_eq!(refused(&[1, 0], &[1, 1, 0, 8, 0, 0]), FrameError::Prefix(8));
    assert_eq!(refused(&[0, 5], &[1, 0, 0]), FrameError::Trailing(1));
    assert_eq!(
        refused(&[0], &[1, 1, 0, 0, 0, 0]),
        FrameError::ItemCount {
            content: 0,
            envelope: 1
        }
    );
    let long = [&[1, 0x80, 2][..], &[0; 256]].concat();
    let overflow = FrameError::PrefixOverflow { len: 256, kind: 3 };
    assert_eq!(refused(&long, &[1, 1, 0, 3, 0, 0]), overflow);
    let zeros = [&[0, 0, 0, 1, 0x65, 1][..], &[0; 70_000]].concat();
    assert_eq!(
        round_trip(&Codec::H264(Framing::AnnexB), std::slice::from_ref(&zeros)).0,
        [zeros]
    );
}

#[test]
fn modes_read_what_they_write() {
    for mode in MODES {
        assert_eq!(mode.to_string().parse(), Ok(mode));
    }
    for text in [
        "",
        "fixed",
        "fixed:",
        "fixed:0",
        "fixed:-1",
        "fixed:4294967296",
        "GOP",
    ] {
        assert!(text.parse::<UnitMode>().is_err(), "{text}");
    }
}

/// A made-up camera: every tenth unit is a larger keyframe.
fn camera(units: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut x = seed | 1;
    let mut next = move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    (0..units)
        .map(|n| {
            let len = if n % 10 == 0 {
                9000
            } else {
                300 + next() % 3000
            };
            let slice: Vec<u8> = [0x65]
                .into_iter()
                .chain((0..len).map(|_| (next() >> 9) as u8 | 1))
                .collect();
            annex_b(&[&[9, 0xf0], &slice], true)
        })
        .collect()
}

fn unit(n: usize, data: &[u8]) -> AccessUnit<'_, usize> {
    AccessUnit {
        data,
        keyframe: n.is_multiple_of(10),
        discont: false,
        time_ns: None,
        info: n,
    }
}

const H264: Codec = Codec::H264(Framing::AnnexB);

fn config(unit: UnitMode) -> Config {
    Config {
        unit,
        target_bytes: 4096,
        max_bytes: 8192,
        ..Config::default()
    }
}

/// Pieces of the units in `range`, with DISCONT on `disconts` and without the `lost`.
fn record(
    codec: Codec,
    config: Config,
    aus: &[Vec<u8>],
    range: std::ops::Range<usize>,
    disconts: &[usize],
    lost: &[usize],
) -> (Vec<Piece<usize>>, Dropped) {
    let (mut chunker, mut out) = (Chunker::new(codec, config), Vec::new());
    for n in range.filter(|n| !lost.contains(n)) {
        let au = AccessUnit {
            discont: disconts.contains(&n),
            ..unit(n, &aus[n])
        };
        chunker.push(au, &mut out).unwrap();
    }
    chunker.finish(&mut out);
    (out, chunker.dropped())
}

/// What a reader does: the units of consecutive pieces.
fn play(codec: &Codec, pieces: &[Piece<usize>]) -> Vec<(usize, Vec<u8>)> {
    let content: Vec<u8> = pieces
        .iter()
        .flat_map(|piece| piece.content.clone())
        .collect();
    let (mut rest, mut units) = (&content[..], Vec::new());
    for piece in pieces {
        let mut joiner = Joiner::new(codec, &piece.envelope);
        for unit in &piece.units {
            let (record, after) = rest.split_at(unit.content_len as usize);
            units.push((unit.info, joiner.next(record).unwrap()));
            rest = after;
        }
        assert!(joiner.is_done());
    }
    assert!(rest.is_empty());
    units
}

#[test]
fn pieces_hold_all_units_within_limits() {
    let aus = camera(200, 7);
    for mode in MODES {
        for codec in [H264, Codec::Opaque] {
            let (pieces, _) = record(codec, config(mode), &aus, 3..200, &[], &[]);
            let first = if codec == H264 { 10 } else { 3 };
            let expected: Vec<_> = (first..200).map(|n| (n, aus[n].clone())).collect();
            assert!(play(&codec, &pieces) == expected, "{mode} {codec:?}");
            let (mut left, mut starts) = (0, 0);
            for piece in &pieces {
                assert!(
                    !piece.content.is_empty() && piece.content.len() <= 8192,
                    "{mode}"
                );
                assert_eq!(piece.lead as usize, left.min(piece.content.len()), "{mode}");
                left += piece
                    .units
                    .iter()
                    .map(|u| u.content_len as usize)
                    .sum::<usize>();
                left -= piece.content.len();
                starts += usize::from(piece.gop_start);
                assert!(!piece.suspect && !piece.prev_suspect);
            }
            if codec == H264 {
                assert_eq!(starts, 19, "{mode}");
                assert!(
                    pieces
                        .iter()
                        .all(|p| !p.gop_start || p.units[0].info.is_multiple_of(10))
                );
            }
        }
        let bytes = aus.concat();
        let blocks: Vec<_> = bytes.chunks(5000).map(<[u8]>::to_vec).collect();
        let all = 0..blocks.len();
        let (pieces, _) = record(Codec::Bytes, config(mode), &blocks, all, &[], &[]);
        assert_eq!(
            play(&Codec::Bytes, &pieces)
                .into_iter()
                .flat_map(|u| u.1)
                .collect::<Vec<_>>(),
            bytes
        );
        assert!(
            pieces
                .iter()
                .all(|p| p.units.len() == 1 && p.envelope.is_empty() && p.gop_start)
        );
        let mut before = 0;
        for piece in &pieces {
            assert_eq!(piece.units[0].info, before / 5000, "{mode}");
            before += piece.content.len();
        }
    }
}

#[test]
fn recorders_that_join_late_cut_alike() {
    let aus = camera(600, 11);
    for mode in MODES {
        let contents = |range: std::ops::Range<usize>, lost: &[usize]| {
            let (pieces, _) = record(H264, config(mode), &aus, range, &[], lost);
            pieces.into_iter().map(|p| p.content).collect::<Vec<_>>()
        };
        let (early, late) = (contents(0..600, &[]), contents(333..600, &[]));
        assert!(early.ends_with(&late), "{mode}");
        assert_eq!(late[0][3..5], aus[340][10..12]);
        let early: HashSet<_> = early.into_iter().collect();
        let new = |lost: &[usize]| {
            contents(0..600, lost)
                .iter()
                .filter(|&c| !early.contains(c))
                .map(Vec::len)
                .sum::<usize>()
        };
        // A lost unit, a lost keyframe.
        assert!(new(&[345]) <= 2 * 9 * 3300 + 9000, "{mode}");
        assert!(new(&[340]) <= 2 * 9 * 3300 + 2 * 9000, "{mode}");
        if mode == UnitMode::Structure {
            assert!(new(&[345]) <= 3 * 8192, "{}", new(&[345]));
        }
    }
    // Without keyframes to hold on to, too.
    let contents = |range: std::ops::Range<usize>| -> Vec<_> {
        let (pieces, _) = record(
            Codec::Opaque,
            config(UnitMode::Structure),
            &aus,
            range,
            &[],
            &[],
        );
        pieces.into_iter().map(|p| p.content).collect()
    };
    let (early, late) = (contents(0..600), contents(333..600));
    assert!(early.ends_with(&late[5..]));
}

#[test]
fn the_default_target_follows_the_units() {
    let mean = |len: usize| {
        let mut aus = camera(400, 5);
        aus.iter_mut()
            .for_each(|au| *au = [&au[10..], &vec![1; len]].concat()[..len].to_vec());
        let pieces = record(Codec::Opaque, Config::default(), &aus, 0..400, &[], &[]).0;
        len * 400 / pieces.len()
    };
    // Sound.
    assert!((2_000..4_500).contains(&mean(300)), "{}", mean(300));
    assert!((40_000..90_000).contains(&mean(20_000)), "{}", mean(20_000));
    assert_eq!(mean(60_000), 60_000);
}

#[test]
fn time_and_envelope_end_pieces() {
    let (mut chunker, mut out) = (Chunker::new(Codec::Opaque, Config::default()), Vec::new());
    for n in 0..100 {
        let au = AccessUnit {
            time_ns: Some(n as u64 * 1_000_000_000),
            ..unit(n, b"tick")
        };
        chunker.push(au, &mut out).unwrap();
    }
    assert!(out.iter().all(|piece| piece.units.len() == 10), "{out:?}");
    assert_eq!(out.len(), 9);

    let mut aus = camera(10, 1);
    for (n, au) in aus.iter_mut().enumerate() {
        *au = annex_b(&[&vec![6 + 64 * (n as u8 % 2); 5000], &[0x65, 1]], true);
    }
    let gop = Config {
        max_bytes: 8192,
        unit: UnitMode::Gop,
        ..Config::default()
    };
    let pieces = record(H264, gop, &aus, 0..10, &[], &[]).0;
    assert!(pieces.iter().all(|piece| piece.envelope.len() < 16_000));
    assert_eq!(pieces.len(), 5);
}

#[test]
fn losses_are_marked() {
    let aus = camera(50, 3);
    let marks = |disconts: &[usize]| -> Vec<_> {
        let (pieces, dropped) = record(H264, config(UnitMode::Au), &aus, 0..50, disconts, &[]);
        assert_eq!(dropped, Dropped::default());
        let first = |f: fn(&Piece<usize>) -> bool| {
            pieces
                .iter()
                .filter(|&p| f(p))
                .map(|p| p.units.first().map(|u| u.info))
                .collect::<Vec<_>>()
        };
        vec![
            first(|p| p.suspect && !p.units.is_empty()),
            first(|p| p.prev_suspect),
        ]
    };
    let some = |range: std::ops::Range<usize>| range.map(Some).collect::<Vec<_>>();
    assert_eq!(
        marks(&[0]),
        [vec![], vec![]],
        "nothing before the first unit was lost"
    );
    // In the middle: what was cut before went out unmarked.
    assert_eq!(marks(&[17]), [some(16..20), some(20..21)]);
    // On a keyframe: it and the one before are suspect.
    assert_eq!(marks(&[20]), [some(19..30), some(20..21)]);
    // Within the first piece of a group: all of it is marked.
    let gop = Config {
        unit: UnitMode::Gop,
        ..Config::default()
    };
    let (pieces, _) = record(H264, gop.clone(), &aus, 0..50, &[12], &[]);
    let suspect: Vec<_> = pieces.iter().map(|p| p.suspect).collect();
    assert_eq!(suspect, [false, true, false, false, false]);
    assert!(pieces.iter().all(|p| !p.prev_suspect));
    // Without groups: the piece of the unit alone.
    let (pieces, _) = record(
        Codec::Opaque,
        config(UnitMode::Au),
        &aus,
        1..9,
        &[1, 5],
        &[],
    );
    assert_eq!(pieces.iter().filter(|p| p.suspect).count(), 1);
    assert!(pieces[4].suspect && pieces.iter().all(|p| p.gop_start && !p.prev_suspect));
}

#[test]
fn damaged_groups_are_dropped_and_counted() {
    let aus = camera(60, 3);
    let bytes = |range: std::ops::Range<usize>| DroppedCount {
        units: range.len() as u64,
        bytes: aus[range].iter().map(|au| au.len() as u64).sum(),
    };
    for mode in MODES {
        let drop = Config {
            drop_damaged: true,
            ..config(mode)
        };
        let (pieces, dropped) = record(H264, drop.clone(), &aus, 5..60, &[5, 25, 40], &[]);
        assert_eq!(dropped.before_keyframe, bytes(5..10));
        let (one, two) = (bytes(20..30), bytes(30..50));
        assert_eq!(dropped.damaged.units, one.units + two.units);
        assert_eq!(dropped.damaged.bytes, one.bytes + two.bytes);
        let kept: Vec<_> = play(&H264, &pieces).into_iter().map(|u| u.0).collect();
        assert_eq!(kept, (10..20).chain(50..60).collect::<Vec<_>>());
        assert!(pieces.iter().all(|p| !p.suspect && !p.prev_suspect));
        let (pieces, dropped) = record(Codec::Opaque, drop, &aus, 5..60, &[9], &[]);
        assert_eq!(dropped.damaged, bytes(9..10));
        assert_eq!(play(&Codec::Opaque, &pieces).len(), 54);
    }
    // A group too long to hold goes out, and then stays.
    let one = [camera(10, 1), camera(400, 2)].concat();
    let (mut chunker, mut out) = (
        Chunker::new(
            H264,
            Config {
                drop_damaged: true,
                ..config(UnitMode::Structure)
            },
        ),
        Vec::new(),
    );
    for (n, au) in one.iter().enumerate() {
        let au = AccessUnit {
            keyframe: n == 0,
            discont: n == 300,
            ..unit(n, au)
        };
        chunker.push(au, &mut out).unwrap();
    }
    assert!(out.len() > 100);
    chunker.push(unit(1000, &one[0]), &mut out).unwrap();
    chunker.finish(&mut out);
    assert_eq!(play(&H264, &out).len(), 411);
    assert_eq!(chunker.dropped(), Dropped::default());
    assert!(out.iter().any(|p| p.suspect) && out[out.len() - 2..].iter().any(|p| p.prev_suspect));
}

#[test]
fn another_codec_begins_anew() {
    let aus = camera(30, 9);
    let (mut chunker, mut out) = (Chunker::new(H264, Config::default()), Vec::new());
    for (n, au) in aus.iter().enumerate().take(5) {
        chunker.push(unit(n, au), &mut out).unwrap();
    }
    let before = out.len();
    chunker.set_codec(H264, &mut out);
    assert_eq!(out.len(), before, "caps often come twice");
    chunker.set_codec(Codec::H264(Framing::LengthPrefixed(4)), &mut out);
    assert_eq!(play(&H264, &out).len(), 5);
    chunker.push(unit(6, &aus[6]), &mut out).unwrap();
    assert_eq!(chunker.dropped().before_keyframe.units, 1);
}
