// SPDX-License-Identifier: MPL-2.0
//! The recorder against a real server, and against servers that go away or lie.

#[path = "common/chunks.rs"]
mod chunks;
mod common;
#[path = "common/small.rs"]
mod small;

use chunks::*;
use common::{TestVault, walk};
use gstcamvault::client::recorder::{Event, Push, Recorder, Verify};
use gstcamvault::identity::Identity;
use gstcamvault::manifest::Envelope;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

const SECOND: u64 = 1_000_000_000;

/// Pushes chunks of a camera: one per second of running time.
fn feed(recorder: &Recorder, from: u64, to: u64) {
    for n in from..to {
        push(recorder, video(n));
    }
}

#[test]
fn a_second_recorder_finds_everything_there() {
    let vault = TestVault::start();
    let alice = vault.enrolled();
    let bob = vault.enrolled();
    let (recorder, events) = vault.record(&alice, |_| ());
    feed(&recorder, 0, 30);
    for n in 0..30 {
        push(&recorder, audio(n));
    }
    recorder.finish().unwrap();
    let stats = recorder.stats();
    // Every tenth envelope is too large for the manifest.
    assert_eq!((stats.misses, stats.hits, stats.dropped), (63, 0, 0));
    assert_eq!(stats.chunks, 63);
    let segments = events.segments();
    assert_eq!(segments.len(), 3, "30 s in segments of 10 s");
    assert_eq!(
        segments.iter().map(|s| s.seq).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    assert!(
        segments
            .iter()
            .all(|s| s.duplicate_bytes == 0 && s.duration == 10 * SECOND)
    );

    let (recorder, events) = vault.record(&bob, |_| ());
    feed(&recorder, 5, 30);
    recorder.finish().unwrap();
    let stats = recorder.stats();
    assert_eq!((stats.misses, stats.bytes_sent), (0, 0));
    assert!(events.segments().iter().all(|s| s.new_bytes == 0));

    let played = vault.play(&alice);
    assert_eq!(played.seconds(), (0..30).collect::<Vec<_>>());
    assert_eq!(played.of(1).len(), 30);
    assert!(played.summary.closed);
    assert_eq!(played.summary.duration, 30 * SECOND);
    assert_eq!(played.summary.tracks, ["video/x-h264", "audio/mpeg"]);
    assert!(played.chunks.iter().all(|c| match &c.chunk.envelope {
        Envelope::Inline(bytes) => bytes.len() <= 1024,
        Envelope::Stored(stored) => stored.len > 1024,
    }));
    assert_eq!(vault.play(&bob).seconds(), (5..30).collect::<Vec<_>>());
}

#[test]
fn a_restarted_recorder_goes_on_behind_what_is_there() {
    let vault = TestVault::start();
    let owner = vault.enrolled();
    for round in 0..3 {
        let (recorder, _) = vault.record(&owner, |_| ());
        feed(&recorder, round * 15, round * 15 + 15);
        recorder.finish().unwrap();
    }
    let played = vault.play(&owner);
    assert_eq!(played.seconds(), (0..45).collect::<Vec<_>>());
    let starts: Vec<_> = played.heads.iter().map(|h| h.start / SECOND).collect();
    assert_eq!(starts, [0, 10, 15, 25, 30, 40]);
}

#[test]
fn two_recorders_of_one_recording_number_around_each_other() {
    let vault = TestVault::start();
    let owner = vault.enrolled();
    let (a, _) = vault.record(&owner, |_| ());
    let (b, _) = vault.record(&owner, |_| ());
    feed(&a, 0, 25);
    feed(&b, 100, 125);
    let other = std::thread::spawn(move || b.finish());
    a.finish().unwrap();
    other.join().unwrap().unwrap();
    let mut all = vault.play(&owner).seconds();
    all.sort();
    let mut wanted: Vec<_> = (0..25).chain(100..125).collect();
    wanted.sort();
    assert_eq!(all, wanted);
}

#[test]
fn an_unknown_identity_is_refused_at_once() {
    let vault = TestVault::start();
    let stranger = Arc::new(Identity::generate().unwrap());
    let error = Recorder::open(vault.config(&stranger), Box::new(|_| ())).unwrap_err();
    assert!(error.to_string().contains("enroll"), "{error}");
}

#[test]
fn a_server_that_was_away_gets_everything_in_order() {
    let mut vault = TestVault::start();
    let owner = vault.enrolled();
    let (recorder, events) = vault.record(&owner, |_| ());
    feed(&recorder, 0, 12);
    events.wait("a segment", |e| matches!(e, Event::Segment(_)));
    vault.stop();
    feed(&recorder, 12, 31);
    events.wait("offline", |e| matches!(e, Event::Offline(_)));
    std::thread::sleep(Duration::from_secs(3));
    vault.restart();
    feed(&recorder, 31, 40);
    recorder.finish().unwrap();
    events.wait("online", |e| matches!(e, Event::Online));
    assert!(recorder.stats().retries["network"] > 0);
    assert_eq!(recorder.stats().dropped, 0);
    assert_eq!(vault.play(&owner).seconds(), (0..40).collect::<Vec<_>>());
}

#[test]
fn of_a_vault_that_is_busy_a_recorder_tells_once() {
    let vault = TestVault::start();
    let owner = vault.enrolled();
    let front = Liar::busy(&vault);
    let mut config = vault.config(&owner);
    config.url = format!("camvault://{}/yard", front.authority())
        .parse()
        .unwrap();
    let (recorder, events) = open(config);
    let (offline, online) = (
        |e: &Event| matches!(e, Event::Offline(_)),
        |e: &Event| matches!(e, Event::Online),
    );
    let record = |from: u64, to: u64| {
        for n in from..to {
            push(&recorder, video(n));
            push(&recorder, audio(n));
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    // For a moment: nothing is told.
    front.set_busy(true);
    record(0, 25);
    front.set_busy(false);
    record(25, 60);
    assert!(front.count() > 0);
    assert!(events.none(offline) && events.none(online));
    // For longer: once, although other requests go through, and with pauses in between.
    let before = front.count();
    front.set_busy(true);
    record(60, 160);
    assert_eq!((events.count(offline), events.count(online)), (1, 0));
    let refused = front.count() - before;
    assert!((2..=15).contains(&refused), "{refused}");
    front.set_busy(false);
    recorder.finish().unwrap();
    assert_eq!((events.count(offline), events.count(online)), (1, 1));
    assert_eq!(recorder.stats().dropped, 0);
    assert_eq!(vault.play(&owner).seconds(), (0..160).collect::<Vec<_>>());
}

#[test]
fn a_spool_survives_its_recorder_and_is_drained_by_the_next() {
    let mut vault = TestVault::start();
    let owner = vault.enrolled();
    let dir = tempfile::tempdir().unwrap();
    let spooled = |c: &mut gstcamvault::client::recorder::Config| {
        c.spool_dir = Some(dir.path().to_owned());
    };
    let (recorder, events) = vault.record(&owner, spooled);
    feed(&recorder, 0, 15);
    events.wait("a segment", |e| matches!(e, Event::Segment(_)));
    vault.stop();
    feed(&recorder, 15, 30);
    events.wait("offline", |e| matches!(e, Event::Offline(_)));
    drop(recorder);
    assert!(events.none(|e| matches!(e, Event::Failed(_))));

    // Still away: what comes is put behind.
    let (recorder, _) = vault.record(&owner, spooled);
    feed(&recorder, 30, 45);
    recorder.finish().unwrap();
    assert!(recorder.stats().spool_bytes > 0);
    drop(recorder);
    let files: Vec<_> = walk(dir.path());
    assert!(
        files
            .iter()
            .any(|f| f.extension().is_some_and(|e| e == "spool"))
    );
    for file in &files {
        let bytes = std::fs::read(file).unwrap();
        assert!(
            !bytes
                .windows(16)
                .any(|w| content(20).windows(16).next() == Some(w))
        );
    }

    vault.restart();
    let (recorder, _) = vault.record(&owner, spooled);
    feed(&recorder, 45, 60);
    recorder.finish().unwrap();
    assert_eq!(recorder.stats().spool_bytes, 0);
    drop(recorder);
    assert_eq!(vault.play(&owner).seconds(), (0..60).collect::<Vec<_>>());
    assert!(
        walk(dir.path())
            .iter()
            .all(|f| f.extension().is_none_or(|e| e != "spool"))
    );
}

#[test]
fn a_running_recorder_spools_and_drains_by_itself() {
    let mut vault = TestVault::start();
    let owner = vault.enrolled();
    let dir = tempfile::tempdir().unwrap();
    let (recorder, events) = vault.record(&owner, |c| {
        c.spool_dir = Some(dir.path().to_owned());
        c.max_size_bytes = 40 * CHUNK as u64;
    });
    feed(&recorder, 0, 15);
    events.wait("a segment", |e| matches!(e, Event::Segment(_)));
    vault.stop();
    for n in 15..200 {
        push(&recorder, video(n));
    }
    assert!(recorder.stats().spool_bytes > 0);
    let mut files = walk(dir.path());
    files.retain(|f| f.extension().is_some_and(|e| e == "spool"));
    assert!(files.len() <= 4, "many batches lie in a file: {files:?}");
    vault.restart();
    for n in 200..250 {
        push(&recorder, video(n));
    }
    recorder.finish().unwrap();
    assert_eq!(
        (recorder.stats().spool_bytes, recorder.stats().dropped),
        (0, 0)
    );
    assert_eq!(vault.play(&owner).seconds(), (0..250).collect::<Vec<_>>());
}

#[test]
fn a_damaged_spool_file_is_set_aside() {
    let mut vault = TestVault::start();
    let owner = vault.enrolled();
    let dir = tempfile::tempdir().unwrap();
    vault.stop();
    let spooled = |c: &mut gstcamvault::client::recorder::Config| {
        c.spool_dir = Some(dir.path().to_owned());
    };
    for round in 0..2 {
        let (recorder, _) = vault.record(&owner, spooled);
        feed(&recorder, round * 5, round * 5 + 5);
        recorder.finish().unwrap();
    }
    let mut files = walk(dir.path());
    files.retain(|f| f.extension().is_some_and(|e| e == "spool"));
    files.sort();
    assert_eq!(files.len(), 2);
    let mut bytes = std::fs::read(&files[0]).unwrap();
    bytes.truncate(bytes.len() / 2);
    std::fs::write(&files[0], bytes).unwrap();
    vault.restart();
    let (recorder, events) = vault.record(&owner, spooled);
    recorder.finish().unwrap();
    events.wait(
        "a warning",
        |e| matches!(e, Event::Warning(w) if w.contains("damaged")),
    );
    assert_eq!(vault.play(&owner).seconds(), (5..10).collect::<Vec<_>>());
    assert!(
        walk(dir.path())
            .iter()
            .any(|f| f.extension().is_some_and(|e| e == "bad"))
    );
}

/// Pushes as a camera does, which cannot wait: what was taken, and how many were not.
fn live(recorder: &Recorder, from: u64, to: u64) -> (Vec<u64>, u64) {
    let (mut accepted, mut dropped) = (Vec::new(), 0);
    for n in from..to {
        match recorder.push(video(n)) {
            Push::Accepted => accepted.push(n),
            Push::Full(chunk) => {
                recorder.dropped(1, chunk.content.len() as u64);
                dropped += 1;
            }
            Push::Closed => panic!("closed"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    (accepted, dropped)
}

#[test]
fn without_room_chunks_come_back_and_drops_are_counted() {
    let mut vault = TestVault::start();
    let owner = vault.enrolled();
    let dir = tempfile::tempdir().unwrap();
    vault.stop();
    let (recorder, events) = vault.record(&owner, |c| {
        c.spool_dir = Some(dir.path().to_owned());
        c.spool_max_bytes = 20 * CHUNK as u64;
        c.max_size_bytes = 10 * CHUNK as u64;
    });
    let began = Instant::now();
    let (accepted, dropped) = live(&recorder, 0, 60);
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "push never waits"
    );
    assert!(
        dropped > 20 && accepted.len() >= 10,
        "{dropped} {}",
        accepted.len()
    );
    assert_eq!(recorder.stats().dropped, dropped);
    events.wait("dropped", |e| matches!(e, Event::Dropped { .. }));
    assert_eq!(events.count(|e| matches!(e, Event::Dropped { .. })), 1);
    vault.restart();
    recorder.finish().unwrap();
    drop(recorder);
    assert_eq!(vault.play(&owner).seconds(), accepted);
}

#[test]
fn a_spool_that_fills_its_disk_is_drained_all_the_same() {
    let Some(small) = small::Small::mount(1) else {
        return;
    };
    let mut vault = TestVault::start();
    let owner = vault.enrolled();
    vault.stop();
    let (recorder, events) = vault.record(&owner, |c| {
        c.spool_dir = Some(small.path().to_owned());
        c.max_size_bytes = 10 * CHUNK as u64;
    });
    let (accepted, dropped) = live(&recorder, 0, 120);
    assert!(accepted.len() > 40 && dropped > 40, "{dropped} dropped");
    events.wait(
        "a warning",
        |e| matches!(e, Event::Warning(w) if w.contains("No space left")),
    );
    // Not even room for a note of what is committed.
    small.fill();
    vault.restart();
    recorder.finish().unwrap();
    assert_eq!(recorder.stats().spool_bytes, 0);
    drop(recorder);
    assert_eq!(vault.play(&owner).seconds(), accepted);
    // Nor is anything left that the next recorder would record again.
    let (recorder, _) = vault.record(&owner, |c| c.spool_dir = Some(small.path().to_owned()));
    recorder.finish().unwrap();
    drop(recorder);
    assert_eq!(vault.play(&owner).seconds(), accepted);
}

#[test]
fn finishing_without_spool_gives_up_and_says_what_is_lost() {
    let mut vault = TestVault::start();
    let owner = vault.enrolled();
    vault.stop();
    let (recorder, _) = vault.record(&owner, |_| ());
    recorder.set_finish_timeout(Duration::from_secs(1));
    feed(&recorder, 0, 5);
    let error = recorder.finish().unwrap_err().to_string();
    assert!(error.contains("5 chunks"), "{error}");
    assert!(matches!(recorder.push(video(9)), Push::Closed));
}

#[test]
fn bulk_input_waits_for_room() {
    let vault = TestVault::start();
    let owner = vault.enrolled();
    let (recorder, _) = vault.record(&owner, |c| c.max_size_bytes = 8 * CHUNK as u64);
    recorder.set_live(false);
    let never = AtomicBool::new(false);
    for n in 0..100 {
        let mut chunk = video(n);
        while let Push::Full(back) = recorder.push(chunk) {
            assert!(recorder.wait_room(&never));
            chunk = *back;
        }
    }
    recorder.finish().unwrap();
    assert_eq!(vault.play(&owner).seconds(), (0..100).collect::<Vec<_>>());
}

#[test]
fn tracks_that_are_behind_fall_into_their_segment() {
    let vault = TestVault::start();
    let owner = vault.enrolled();
    let (recorder, _) = vault.record(&owner, |_| ());
    feed(&recorder, 0, 12);
    for n in 0..12 {
        push(&recorder, audio(n));
    }
    feed(&recorder, 12, 14);
    recorder.finish().unwrap();
    let played = vault.play(&owner);
    let first: Vec<_> = played.chunks.iter().filter(|c| c.seq == 0).collect();
    assert_eq!(first.iter().filter(|c| c.track == 1).count(), 10);
    assert_eq!(first.iter().filter(|c| c.track == 0).count(), 10);
}

#[test]
fn loss_that_shows_late_marks_the_group_before() {
    let vault = TestVault::start();
    let owner = vault.enrolled();
    let (recorder, _) = vault.record(&owner, |_| ());
    feed(&recorder, 0, 5);
    let mut chunk = video(5);
    chunk.prev_suspect = true;
    push(&recorder, chunk);
    recorder.finish().unwrap();
    let suspect: Vec<_> = vault
        .play(&owner)
        .chunks
        .iter()
        .map(|c| c.chunk.suspect)
        .collect();
    assert_eq!(suspect, [false, false, false, false, true, false]);
}

#[test]
fn a_garbage_copy_is_found_and_another_added() {
    let vault = TestVault::start();
    let (mallory, owner) = (vault.enrolled(), vault.enrolled());
    vault.poison(&mallory, &video(0), Poison::Blob);
    vault.poison(&mallory, &video(1), Poison::C3);
    let (recorder, _) = vault.record(&owner, |_| ());
    feed(&recorder, 0, 3);
    recorder.finish().unwrap();
    let stats = recorder.stats();
    assert_eq!((stats.poisoned, stats.misses, stats.hits), (2, 3, 0));
    assert_eq!(vault.play(&owner).seconds(), (0..3).collect::<Vec<_>>());
}

#[test]
fn the_papers_check_does_not_find_a_garbage_blob() {
    let vault = TestVault::start();
    let (mallory, owner) = (vault.enrolled(), vault.enrolled());
    vault.poison(&mallory, &video(1), Poison::Blob);
    let (recorder, _) = vault.record(&owner, |c| c.verify = Verify::Tag);
    push(&recorder, video(1));
    recorder.finish().unwrap();
    assert_eq!((recorder.stats().poisoned, recorder.stats().hits), (0, 1));
}

#[test]
fn wrong_answers_are_tried_again() {
    let vault = TestVault::start();
    let owner = vault.enrolled();
    let liar = Liar::before(&vault);
    let mut config = vault.config(&owner);
    config.url.authority = liar.authority();
    let (recorder, _) = open(config);
    feed(&recorder, 0, 15);
    recorder.finish().unwrap();
    let retries = recorder.stats().retries;
    assert!(
        retries["answer"] >= 3 && retries["busy"] >= 1,
        "{retries:?}"
    );
    assert_eq!(vault.play(&owner).seconds(), (0..15).collect::<Vec<_>>());
}

/// The server commits what nobody waits for any more: the answer was lost, what was sent went to the
/// spool, and comes from there as another segment of the same number.
#[test]
fn a_commit_that_arrives_late_is_not_made_twice() {
    let vault = TestVault::start();
    let owner = vault.enrolled();
    let liar = Liar::late(&vault);
    let dir = tempfile::tempdir().unwrap();
    let mut config = vault.config(&owner);
    config.url.authority = liar.authority();
    config.spool_dir = Some(dir.path().to_owned());
    config.max_size_bytes = 40 * CHUNK as u64;
    let (recorder, _) = open(config);
    feed(&recorder, 0, 60);
    recorder.finish().unwrap();
    assert!(liar.count() >= 6);
    assert_eq!(vault.play(&owner).seconds(), (0..60).collect::<Vec<_>>());
}
