// SPDX-License-Identifier: MPL-2.0
use super::testing::*;
use super::*;
use crate::chunk::Config;
use crate::client::vault::ListPlace;
use std::time::Instant;

fn block<T>(future: impl Future<Output = T>) -> T {
    crate::client::runtime().unwrap().block_on(future)
}

fn open(fake: Fake) -> Result<Arc<Reader>, Error> {
    let identity = fake.identity.clone();
    let reader = block(Reader::open_at(Arc::new(fake), "yard", &identity, None))?;
    Ok(Arc::new(reader.with_patience(Duration::from_millis(500))))
}

const SECOND: u64 = 1_000_000_000;

/// Start, units, gaps and the error that ended it.
#[derive(Default)]
struct Played {
    start: u64,
    tracks: Vec<TrackStart>,
    units: Vec<Unit>,
    gaps: Vec<(u32, u64, u64)>,
    error: Option<Error>,
}

fn play(reader: &Arc<Reader>, request: Request) -> Played {
    let runtime = crate::client::runtime().unwrap().handle();
    let mut playback = Playback::start(runtime, reader.clone(), request, 20_000);
    let mut played = Played::default();
    while let Some(delivery) = block(playback.next()) {
        match delivery {
            Ok(Delivery::Started(at, tracks)) => (played.start, played.tracks) = (at, tracks),
            Ok(Delivery::Unit(unit)) => played.units.push(unit),
            Ok(Delivery::Gap(track, from, length)) => played.gaps.push((track, from, length)),
            Err(error) => played.error = Some(error),
        }
    }
    played
}

fn from(from: u64) -> Request {
    Request {
        from,
        ..Request::default()
    }
}

fn of_track(played: &Played, track: u32) -> Vec<&Unit> {
    played.units.iter().filter(|u| u.track == track).collect()
}

#[test]
fn every_unit_comes_back_in_order_however_it_was_cut() {
    let reader = open(sample()).unwrap();
    assert_eq!(reader.timeline().len(), 4);
    assert_eq!(reader.summary().name, "yard");
    let played = play(&reader, Request::default());
    assert!(played.error.is_none(), "{:?}", played.error);
    assert_eq!((played.start, played.tracks.len()), (0, 2));
    for (track, expected) in [(0, video(0..120, 10)), (1, sound(0..400))] {
        let units = of_track(&played, track);
        assert_eq!(units.len(), expected.len());
        for (unit, au) in units.iter().zip(&expected) {
            assert_eq!(unit.data, au.data);
            let info = crate::manifest::UnitInfo {
                content_len: unit.info.content_len,
                ..au.info
            };
            assert_eq!(unit.info, info);
        }
    }
    let times: Vec<_> = played.units.iter().map(|u| u.info.pts).collect();
    assert!(times.is_sorted(), "interleaved by time");
    let unit = &played.units[40];
    let since = unit.place.recording_time(unit.info.pts.unwrap());
    let expected = 1_700_000_000 * SECOND as i64 - SECOND as i64 + since;
    assert_eq!(unit.utc, Some(expected));
}

#[test]
fn playback_begins_where_it_is_asked_to() {
    let reader = open(sample()).unwrap();
    let at = 4 * SECOND + 350_000_000;
    for (snap, start, first) in [
        (Snap::Accurate, at, 4 * SECOND),
        (Snap::Before, 4 * SECOND, 4 * SECOND),
        (Snap::After, 5 * SECOND, 5 * SECOND),
        (Snap::Nearest, 4 * SECOND, 4 * SECOND),
    ] {
        let request = Request {
            snap,
            stop: Some(7 * SECOND),
            ..from(at)
        };
        let played = play(&reader, request);
        assert!(played.error.is_none(), "{snap:?}: {:?}", played.error);
        assert_eq!(played.start, start, "{snap:?}");
        let [picture, voice] = [0, 1].map(|track| of_track(&played, track));
        assert_eq!(picture[0].info.pts, Some(10 * SECOND + first), "{snap:?}");
        assert!(picture[0].gop_start);
        let sounds = voice[0].info.pts.unwrap() - 10 * SECOND;
        assert!(sounds <= start && sounds + 30_000_000 > start, "{snap:?}");
        for units in [picture, voice] {
            let last = units[units.len() - 1].info;
            assert!(last.pts < Some(17 * SECOND));
            assert!(last.pts.unwrap() + last.duration.unwrap() >= 17 * SECOND);
        }
    }
    // Behind the end: the last group of pictures.
    let played = play(&reader, from(100 * SECOND));
    assert_eq!(of_track(&played, 0).len(), 10);
}

#[test]
fn a_shared_recording_is_found_and_read() {
    let fake = sample();
    let guest = Arc::new(Identity::generate().unwrap());
    let guest_view = fake.for_guest(guest.clone());
    let listed = block(Reader::list(&guest_view, &guest)).unwrap();
    assert_eq!(listed[0].name.as_deref(), Some("yard"));
    assert!(listed[0].owner.is_some());
    let reader = open(guest_view).unwrap();
    assert_eq!(play(&reader, Request::default()).units.len(), 520);
    let listed = block(Reader::list(&fake, &fake.identity)).unwrap();
    assert_eq!(listed[0].summary.as_ref().unwrap().duration, 12 * SECOND);
    let identity = fake.identity.clone();
    let missing = block(Reader::open_at(Arc::new(fake), "door", &identity, None));
    assert!(matches!(missing, Err(Error::NoRecording(_))));
}

/// Pages of two of a list, behind `after`.
fn page(all: &[RecordingEntry], after: Option<ListPlace>) -> protocol::Recordings {
    let place = |e: &RecordingEntry| (*e.id, e.owner.map(|owner| *owner));
    let begin = match after {
        // The caller's own come first.
        Some((id, None)) if id == [u8::MAX; 16] => all.iter().position(|e| e.owner.is_some()),
        Some(after) => all.iter().position(|e| place(e) == after).map(|n| n + 1),
        None => Some(0),
    };
    let rest = &all[begin.unwrap_or(all.len())..];
    protocol::Recordings {
        recordings: rest.iter().take(2).cloned().collect(),
        more: rest.len() > 2,
    }
}

#[test]
fn a_long_list_is_read_page_by_page() {
    let fake = sample();
    let guest = Arc::new(Identity::generate().unwrap());
    let guest_view = fake.for_guest(guest.clone());
    let shared = block(guest_view.recordings(None)).unwrap().recordings;
    let entry = |n: u8| RecordingEntry {
        id: [n; 16].into(),
        owner: None,
        shared: None,
        ..shared[0].clone()
    };
    let other = |n: u8| RecordingEntry {
        owner: Some([n; 32].into()),
        shared: Some(vec![n].into()),
        ..shared[0].clone()
    };
    let own: Vec<_> = (0..5).map(entry).collect();
    let all = [own, vec![other(1), other(2), other(3)], shared].concat();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (of, heard) = (all.clone(), asked.clone());
    guest_view.state().list = Some(Box::new(move |after| {
        heard.lock().unwrap().push(after);
        page(&of, after)
    }));
    let listed = block(Reader::list(&guest_view, &guest)).unwrap();
    let ids = |e: &RecordingEntry| (*e.id, e.owner.map(|owner| *owner));
    let found: Vec<_> = listed.iter().map(|l| (l.id, l.owner)).collect();
    assert_eq!(found, all.iter().map(ids).collect::<Vec<_>>());
    assert_eq!(asked.lock().unwrap().len(), 5);
    // Who looks for one that is shared does not read its own.
    asked.lock().unwrap().clear();
    assert_eq!(open(guest_view).unwrap().summary().name, "yard");
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0], Some(([u8::MAX; 16], None)));
}

#[test]
fn a_list_that_does_not_go_on_is_an_error() {
    type Lie = fn(&[RecordingEntry], Option<ListPlace>) -> protocol::Recordings;
    let lies: [(&str, Lie); 4] = [
        ("the same page for ever", |all, _| page(all, None)),
        ("back to the first page", |all, after| {
            protocol::Recordings {
                more: true,
                ..match after {
                    Some(([3, ..], _)) => page(all, None),
                    after => page(all, after),
                }
            }
        }),
        ("one recording twice", |all, after| match after {
            None => page(all, None),
            Some(_) => page(all, Some((*all[0].id, None))),
        }),
        ("empty pages for ever", |_, _| protocol::Recordings {
            recordings: vec![],
            more: true,
        }),
    ];
    for (name, lie) in lies {
        let fake = sample();
        let entry = block(fake.recordings(None)).unwrap().recordings.remove(0);
        let entry = |n: u8| RecordingEntry {
            id: [n; 16].into(),
            ..entry.clone()
        };
        let all: Vec<_> = (0..6).map(entry).collect();
        fake.state().list = Some(Box::new(move |after| lie(&all, after)));
        let listed = block(Reader::list(&fake, &fake.identity));
        assert!(matches!(listed, Err(Error::List(_))), "{name}");
        // Nor does a look for a shared one go on for ever.
        let identity = fake.identity.clone();
        let opened = block(Reader::open_at(Arc::new(fake), "door", &identity, None));
        let Err(error) = opened else {
            panic!("{name}: found")
        };
        let ended = matches!(error, Error::List(_) | Error::NoRecording(_));
        assert!(ended, "{name}: {error}");
    }
}

#[test]
fn what_is_changed_in_storage_is_an_error_and_never_data() {
    type Attack = fn(&mut testing::State);
    let attacks: [(&str, Attack); 6] = [
        ("tampered", |s| s.blobs.values_mut().for_each(|b| b[0] ^= 1)),
        ("truncated", |s| {
            s.blobs.values_mut().for_each(|b| b.truncate(b.len() / 2))
        }),
        ("missing", |s| s.blobs.clear()),
        ("swapped", |s| {
            let all: Vec<_> = s.blobs.values().cloned().collect();
            s.blobs
                .values_mut()
                .zip(all.into_iter().cycle().skip(1))
                .for_each(|(b, o)| *b = o);
        }),
        ("no record", |s| s.records.clear()),
        ("wrong record", |s| {
            s.records.values_mut().for_each(|r| r.0[3] ^= 4)
        }),
    ];
    for (name, attack) in attacks {
        let fake = sample();
        attack(&mut fake.state());
        let reader = open(fake).unwrap();
        let played = play(&reader, Request::default());
        assert!(played.units.is_empty(), "{name}");
        assert!(
            matches!(played.error, Some(Error::Damaged { .. })),
            "{name}: {:?}",
            played.error
        );
    }
}

#[test]
fn a_missing_or_exchanged_segment_is_noticed() {
    let fake = sample();
    fake.state().segments.remove(1);
    assert!(matches!(
        open(fake),
        Err(Error::Manifest { .. } | Error::Chain(_))
    ));
    let fake = sample();
    fake.state().segments.swap(1, 2);
    assert!(matches!(
        open(fake),
        Err(Error::Manifest { .. } | Error::Chain(_))
    ));
    let fake = sample();
    let reader = open(fake.for_guest(Arc::new(Identity::generate().unwrap()))).unwrap();
    fake.state().segments[0].1[40] ^= 1;
    let error = play(&reader, Request::default()).error;
    assert!(matches!(error, Some(Error::Chain(0))), "{error:?}");
    fake.state().segments.truncate(2);
    let again = block(reader.refresh());
    assert!(matches!(again, Err(Error::Chain(2))), "{again:?}");
}

#[test]
fn verification_names_what_is_damaged_and_checks_the_rest() {
    let fake = sample();
    let view = fake.for_guest(Arc::new(Identity::generate().unwrap()));
    let reader = open(view).unwrap();
    let mut calls = 0;
    let report = block(reader.verify(|_| calls += 1)).unwrap();
    assert_eq!((report.segments, report.units), (4, 520));
    assert_eq!(report.errors, []);
    assert!(report.chunks as usize == fake.state().blobs.len() && calls > 4);
    assert_eq!(report.bytes, fake.state().bytes);
    // One chunk in the middle of the second segment.
    let manifest = block(reader.segment(1)).unwrap();
    let hit = &manifest.tracks[0].chunks[5].content;
    fake.state().blobs.get_mut(&*hit.d1).unwrap()[7] ^= 1;
    let report = block(reader.verify(|_| ())).unwrap();
    let [
        Finding {
            seq: 1,
            track: Some(0),
            what,
        },
    ] = &report.errors[..]
    else {
        panic!("{:?}", report.errors);
    };
    assert!(what.contains("segment 1, chunk 5"), "{what}");
    assert!(report.units > 480 && report.units < 520, "{}", report.units);
}

#[test]
fn failures_that_pass_are_waited_out_and_others_reported() {
    let fake = sample();
    let view = fake.for_guest(Arc::new(Identity::generate().unwrap()));
    let reader = open(view).unwrap();
    fake.state().failures = 2;
    assert_eq!(play(&reader, Request::default()).units.len(), 520);
    fake.state().failures = 1000;
    let begun = Instant::now();
    let played = play(&reader, from(5 * SECOND));
    assert!(matches!(played.error, Some(Error::Network { .. })));
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn following_goes_on_until_the_recording_is_closed() {
    let fake = sample();
    fake.state().summary.closed = false;
    let view = fake.for_guest(Arc::new(Identity::generate().unwrap()));
    let reader = open(view).unwrap();
    let request = Request {
        follow: true,
        ..from(10 * SECOND)
    };
    let later = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(700));
        let track = fake.track(VIDEO, &Config::default(), &video(120..130, 10));
        fake.commit(&manifest(vec![track]), (12 * SECOND, SECOND));
        fake.state().summary.closed = true;
    });
    let played = play(&reader, request);
    later.join().unwrap();
    assert!(played.error.is_none(), "{:?}", played.error);
    assert_eq!(of_track(&played, 0).len(), 30);
    assert_eq!(played.gaps, [(1, 12 * SECOND, SECOND)]);
}

#[test]
fn a_dropped_playback_leaves_nothing_running() {
    let fake = sample();
    let view = fake.for_guest(Arc::new(Identity::generate().unwrap()));
    let reader = open(view).unwrap();
    fake.state().hangs = true;
    let runtime = crate::client::runtime().unwrap().handle();
    let playback = Playback::start(runtime, reader.clone(), Request::default(), 1 << 20);
    std::thread::sleep(Duration::from_millis(50));
    drop(playback);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(Arc::strong_count(&reader), 1);
}

#[test]
fn what_retention_has_removed_is_passed_over() {
    let fake = sample();
    fake.state().first = 1;
    let view = fake.for_guest(Arc::new(Identity::generate().unwrap()));
    let reader = open(view).unwrap();
    let timeline = reader.timeline();
    assert_eq!((timeline.first(), timeline.len()), (1, 3));
    assert_eq!(
        (timeline.start(), timeline.duration()),
        (3 * SECOND, 12 * SECOND)
    );
    // Before the beginning is the beginning, and times are those of the whole recording.
    for asked in [0, SECOND, 3 * SECOND] {
        for snap in [Snap::Accurate, Snap::Before, Snap::After] {
            let played = play(
                &reader,
                Request {
                    snap,
                    ..from(asked)
                },
            );
            assert!(played.error.is_none(), "{:?}", played.error);
            assert_eq!((played.start, played.units.len()), (3 * SECOND, 390));
            let first = of_track(&played, 0)[0];
            assert_eq!((first.seq, first.info.pts), (1, Some(13 * SECOND)));
            let place = first.place.recording_time(13 * SECOND);
            assert_eq!(place, 3 * SECOND as i64);
        }
    }
    let played = play(&reader, from(7 * SECOND));
    assert_eq!(played.start, 7 * SECOND);
    let report = block(reader.verify(|_| ())).unwrap();
    assert_eq!((report.removed, report.segments), (1, 3));
    assert_eq!(report.errors, []);
    // More goes while it is open, which is no fault of the vault's ...
    let reader = open(fake.for_guest(Arc::new(Identity::generate().unwrap()))).unwrap();
    fake.state().first = 2;
    let report = block(reader.verify(|_| ())).unwrap();
    assert_eq!((report.removed, report.of_segments), (2, 2));
    assert_eq!(report.errors, []);
    let played = play(&reader, from(0));
    assert!(played.error.is_none(), "{:?}", played.error);
    assert_eq!((played.start, played.units.len()), (6 * SECOND, 260));
    // ... but a segment that is missing among those that are kept is.
    let fake = sample();
    let reader = open(fake.for_guest(Arc::new(Identity::generate().unwrap()))).unwrap();
    fake.state().segments[2].1.clear();
    assert!(matches!(
        play(&reader, from(0)).error,
        Some(Error::Chain(2))
    ));
}

#[test]
fn playback_that_retention_overtakes_goes_on() {
    let fake = sample();
    let view = fake.for_guest(Arc::new(Identity::generate().unwrap()));
    let reader = open(view).unwrap();
    let runtime = crate::client::runtime().unwrap().handle();
    // A small window: little is fetched ahead.
    let mut playback = Playback::start(runtime, reader.clone(), Request::default(), 4000);
    let mut seqs = Vec::new();
    while let Some(delivery) = block(playback.next()) {
        if let Delivery::Unit(unit) = delivery.unwrap() {
            fake.state().first = 3;
            seqs.push(unit.seq);
        }
    }
    assert_eq!((seqs[0], seqs.last()), (0, Some(&3)));
    assert!(!seqs.contains(&2), "{seqs:?}");
    assert_eq!(seqs.iter().filter(|seq| **seq == 3).count(), 130);
}
