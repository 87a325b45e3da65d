// SPDX-License-Identifier: MPL-2.0
//! What `rcededuppay ! dedupsink` recorded comes out of `dedupsrc` as it went in.

mod common;

use common::{Pipeline, Place, Unit, units_at};
use gst::glib;
use gst::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Units = Arc<Mutex<Vec<Unit>>>;

/// Records tracks, each a pipeline up to its parser; what went in, by track.
fn record(place: &Place, tracks: &[&str], sink: &str) -> Vec<Vec<Unit>> {
    let mut text = format!(
        "{} name=sink segment-duration=1000000000 {sink}",
        place.element("dedupsink", "yard")
    );
    for (n, track) in tracks.iter().enumerate() {
        text += &format!(" {track} ! rcededuppay name=pay{n} ! sink.sink_{n}");
    }
    let pipeline = Pipeline::launch(&text);
    let units: Vec<Units> = (0..tracks.len())
        .map(|n| {
            let pay = pipeline.element(&format!("pay{n}"));
            units_at(&pay.static_pad("sink").unwrap())
        })
        .collect();
    run(&pipeline).unwrap();
    drop(pipeline);
    units.iter().map(|p| p.lock().unwrap().clone()).collect()
}

/// Plays with `dedupsrc`; what came out by track, and the error.
fn play(place: &Place, settings: &str) -> (Vec<Vec<Unit>>, Option<glib::Error>) {
    let pipeline = Pipeline::launch(&format!(
        "{} name=src {settings}",
        place.element("dedupsrc", "yard")
    ));
    let units: Arc<Mutex<Vec<(String, Units)>>> = Arc::default();
    let (weak, all) = (pipeline.0.downgrade(), units.clone());
    let source = pipeline.element("src");
    source.connect_pad_added(move |_, pad| {
        let pipeline = weak.upgrade().unwrap();
        all.lock().unwrap().push((pad.name().into(), units_at(pad)));
        let queue = gst::ElementFactory::make("queue").build().unwrap();
        let sink = gst::ElementFactory::make("fakesink").build().unwrap();
        pipeline.add_many([&queue, &sink]).unwrap();
        queue.link(&sink).unwrap();
        for element in [&sink, &queue] {
            element.sync_state_with_parent().unwrap();
        }
        pad.link(&queue.static_pad("sink").unwrap()).unwrap();
    });
    let end = run(&pipeline);
    drop(pipeline);
    let mut units = std::mem::take(&mut *units.lock().unwrap());
    units.sort_by(|a, b| a.0.cmp(&b.0));
    let units = units.iter().map(|p| p.1.lock().unwrap().clone());
    (units.collect(), end.err())
}

fn run(pipeline: &Pipeline) -> Result<(), glib::Error> {
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let bus = pipeline.play().0.bus().unwrap();
    let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(40), &kinds);
    match message.expect("EOS or an error").view() {
        gst::MessageView::Error(e) => Err(e.error()),
        _ => Ok(()),
    }
}

const RAW: &str =
    "videotestsrc num-buffers=90 pattern=ball ! video/x-raw,width=160,height=120,framerate=30/1";
const H264: &str = "x264enc threads=1 key-int-max=15 bframes=2 speed-preset=ultrafast ! h264parse";
const SOUND: &str =
    "audiotestsrc num-buffers=130 ! audio/x-raw,rate=44100,channels=1 ! avenc_aac ! aacparse";

#[test]
fn every_kind_of_stream_comes_back_bit_for_bit() {
    for codec in [
        H264,
        "x264enc threads=1 key-int-max=15 tune=zerolatency ! h264parse ! video/x-h264,stream-format=avc,alignment=au",
        "x265enc key-int-max=15 speed-preset=ultrafast ! h265parse",
        "jpegenc ! jpegparse",
        "videoconvert ! video/x-raw,format=I420",
    ] {
        let place = Place::new();
        let put = record(&place, &[&format!("{RAW} ! {codec}")], "");
        let (got, error) = play(&place, "");
        assert_eq!(error, None, "{codec}");
        assert_eq!(put[0].len(), 90, "{codec}");
        assert_eq!(got, put, "{codec}");
    }
    let place = Place::new();
    let put = record(&place, &[SOUND], "");
    assert_eq!(play(&place, ""), (put, None));
}

#[test]
fn a_track_of_which_nothing_came_is_none() {
    let place = Place::new();
    let put = record(&place, &["fakesrc num-buffers=0", SOUND], "");
    assert!(put[0].is_empty());
    assert_eq!(play(&place, ""), (put[1..].to_vec(), None));
}

#[test]
fn two_tracks_a_window_and_players() {
    let place = Place::new();
    let put = record(
        &place,
        &[
            &format!("{RAW} ! {H264} ! queue"),
            &format!("{SOUND} ! queue"),
        ],
        "",
    );
    let (got, error) = play(&place, "");
    assert_eq!(error, None);
    assert_eq!(got, put);
    // From 1.1 s, whose group of pictures begins at 1 s, to 2 s.
    let (got, error) = play(&place, "from=1.1 to=2");
    assert_eq!(error, None);
    assert_ne!(got[0][0].flags & gst::BufferFlags::DISCONT.bits(), 0);
    let first = put[0]
        .iter()
        .position(|p| p.hash == got[0][0].hash)
        .unwrap();
    assert_eq!(first, 30);
    assert_eq!(got[0][1..], put[0][31..30 + got[0].len()]);
    assert!((30..=33).contains(&got[0].len()), "{}", got[0].len());
    let uri = place.vault.recording("yard");
    // As players do it.
    for text in [
        format!("uridecodebin uri={uri} ! videoconvert ! fakesink"),
        format!(
            "uridecodebin3 uri={uri} name=d d. ! video/x-raw ! queue ! fakesink \
             d. ! audio/x-raw ! queue ! fakesink"
        ),
        format!("playbin3 uri={uri} video-sink=fakesink audio-sink=fakesink"),
    ] {
        let pipeline = Pipeline::launch(&text);
        let identity = place.identity.to_str().unwrap().to_owned();
        pipeline.0.connect_deep_element_added(move |_, _, element| {
            if element.factory().is_some_and(|f| f.name() == "dedupsrc") {
                element.set_property("identity", &identity);
            }
        });
        let end = run(&pipeline);
        assert!(end.is_ok(), "{text}: {end:?}");
    }
}

#[test]
fn gst_play_plays_to_the_end() {
    let place = Place::new();
    record(&place, &[&format!("{RAW} ! {H264}")], "");
    let plugins = Path::new(env!("CARGO_BIN_EXE_camvault")).parent().unwrap();
    let registry = place.vault.dir.path().join("registry");
    let status = std::process::Command::new("timeout")
        .args([
            "60",
            "gst-play-1.0",
            "--no-interactive",
            "--videosink=fakesink",
        ])
        .arg(place.vault.recording("yard"))
        .env("GST_PLUGIN_PATH", plugins)
        .env("GST_REGISTRY", registry)
        .env("CAMVAULT_IDENTITY", &place.identity)
        .output();
    let output = status.expect("gst-play-1.0 of gstreamer1.0-plugins-base-apps");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("Reached end of play list"),
        "{output:?}"
    );
}

#[test]
fn what_is_spoilt_on_the_disk_is_an_error_and_never_data() {
    type Attack = fn(&[PathBuf]);
    let attacks: [(&str, Attack); 4] = [
        ("tampered", |blobs| {
            for path in blobs {
                let mut bytes = std::fs::read(path).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                std::fs::write(path, bytes).unwrap();
            }
        }),
        ("truncated", |blobs| {
            for path in blobs {
                let bytes = std::fs::read(path).unwrap();
                std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
            }
        }),
        ("swapped", |blobs| {
            let all: Vec<_> = blobs
                .iter()
                .map(|path| std::fs::read(path).unwrap())
                .collect();
            for (path, bytes) in blobs.iter().zip(all.iter().cycle().skip(1)) {
                std::fs::write(path, bytes).unwrap();
            }
        }),
        ("missing", |blobs| {
            blobs
                .iter()
                .for_each(|path| std::fs::remove_file(path).unwrap());
        }),
    ];
    for (name, attack) in attacks {
        let place = Place::new();
        record(&place, &[&format!("{RAW} ! {H264}")], "");
        attack(&common::blobs(&place.vault.dir.path().join("vault")));
        let (got, error) = play(&place, "");
        let error = error.unwrap();
        assert!(error.matches(gst::StreamError::Decrypt), "{name}: {error}");
        assert!(got.iter().all(Vec::is_empty), "{name}");
    }
}

#[test]
fn following_plays_along_while_it_is_recorded() {
    let place = Place::new();
    let recorder = Pipeline::launch(&format!(
        "videotestsrc is-live=true num-buffers=120 ! video/x-raw,width=160,height=120,framerate=30/1 \
         ! x264enc threads=1 key-int-max=15 tune=zerolatency speed-preset=ultrafast ! h264parse \
         ! rcededuppay name=pay ! {} segment-duration=1000000000",
        place.element("dedupsink", "yard")
    ));
    let put = units_at(&recorder.element("pay").static_pad("sink").unwrap());
    recorder.play();
    std::thread::sleep(Duration::from_millis(2500));
    let reader = std::thread::scope(|scope| {
        let reader = scope.spawn(|| play(&place, "follow=true"));
        recorder.wait(Duration::from_secs(30)).unwrap();
        drop(recorder);
        reader.join().unwrap()
    });
    let put = put.lock().unwrap().clone();
    assert_eq!(put.len(), 120);
    assert_eq!(reader, (vec![put], None));
}
