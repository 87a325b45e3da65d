// SPDX-License-Identifier: MPL-2.0
//! What `rcededuppay ! dedupsink` recorded comes out of `dedupsrc` as it went in.

use gst::glib;
use gst::prelude::*;
use gstcamvault::client::{Vault, runtime};
use gstcamvault::identity::Identity;
use gstcamvault::server::{Config, Server};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

/// One buffer: hash of its bytes, pts, dts, duration, flags.
type Print = (
    [u8; 32],
    Option<u64>,
    Option<u64>,
    Option<u64>,
    gst::BufferFlags,
);
type Prints = Arc<Mutex<Vec<Print>>>;

fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        gst::init().unwrap();
        gstcamvault::plugin_register_static().unwrap();
    });
}

struct Place {
    dir: tempfile::TempDir,
    server: Option<Server>,
    address: String,
    identity: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            runtime().unwrap().block_on(server.shutdown());
        }
    }
}

impl Place {
    fn new() -> Self {
        init();
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            reserve: 0,
            ..Config::new(dir.path().join("vault"))
        };
        let server = runtime().unwrap().block_on(Server::start(config)).unwrap();
        let address = server.address().to_string();
        let identity = dir.path().join("owner");
        let owner = Identity::generate().unwrap();
        owner.save_new(&identity).unwrap();
        let vault = Vault::connect(&format!("http://{address}"), Arc::new(owner)).unwrap();
        runtime().unwrap().block_on(vault.enroll(None)).unwrap();
        Self {
            dir,
            server: Some(server),
            address,
            identity,
        }
    }

    fn ends(&self, element: &str) -> String {
        format!(
            "{element} uri=camvault://{}/yard identity={}",
            self.address,
            self.identity.display()
        )
    }

    /// Records tracks, each a pipeline up to its parser; what went in, by track.
    fn record(&self, tracks: &[&str], sink: &str) -> Vec<Vec<Print>> {
        let mut text = format!(
            "{} name=sink segment-duration=1000000000 {sink}",
            self.ends("dedupsink")
        );
        for (n, track) in tracks.iter().enumerate() {
            text += &format!(" {track} ! rcededuppay name=pay{n} ! sink.sink_{n}");
        }
        let pipeline = launch(&text);
        let prints: Vec<Prints> = (0..tracks.len())
            .map(|n| {
                let pay = pipeline.by_name(&format!("pay{n}")).unwrap();
                watch(&pay.static_pad("sink").unwrap())
            })
            .collect();
        run(&pipeline).unwrap();
        pipeline.set_state(gst::State::Null).unwrap();
        prints.iter().map(|p| p.lock().unwrap().clone()).collect()
    }

    /// Plays with `dedupsrc`; what came out by track, and the error.
    fn play(&self, settings: &str) -> (Vec<Vec<Print>>, Option<glib::Error>) {
        let pipeline = launch(&format!("{} name=src {settings}", self.ends("dedupsrc")));
        let prints: Arc<Mutex<Vec<(String, Prints)>>> = Arc::default();
        let (weak, all) = (pipeline.downgrade(), prints.clone());
        let source = pipeline.by_name("src").unwrap();
        source.connect_pad_added(move |_, pad| {
            let pipeline = weak.upgrade().unwrap();
            all.lock().unwrap().push((pad.name().into(), watch(pad)));
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
        pipeline.set_state(gst::State::Null).unwrap();
        let mut prints = std::mem::take(&mut *prints.lock().unwrap());
        prints.sort_by(|a, b| a.0.cmp(&b.0));
        let prints = prints.iter().map(|p| p.1.lock().unwrap().clone());
        (prints.collect(), end.err())
    }

    fn blobs(&self) -> Vec<PathBuf> {
        let mut found: Vec<_> = walk(&self.dir.path().join("vault"));
        found.retain(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.len() >= 60 && name.bytes().all(|b| b.is_ascii_hexdigit())
        });
        assert!(!found.is_empty(), "{:?}", walk(self.dir.path()));
        found
    }
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => walk(&path),
            false => vec![path],
        })
        .collect()
}

fn launch(text: &str) -> gst::Pipeline {
    let element = gst::parse::launch(text).unwrap();
    match element.downcast::<gst::Pipeline>() {
        Ok(pipeline) => pipeline,
        Err(element) => {
            let pipeline = gst::Pipeline::new();
            pipeline.add(&element).unwrap();
            pipeline
        }
    }
}

fn watch(pad: &gst::Pad) -> Prints {
    let prints = Prints::default();
    let log = prints.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer() {
            let nanos = |time: Option<gst::ClockTime>| time.map(|t| t.nseconds());
            log.lock().unwrap().push((
                *blake3::hash(&buffer.map_readable().unwrap()).as_bytes(),
                nanos(buffer.pts()),
                nanos(buffer.dts()),
                nanos(buffer.duration()),
                buffer.flags() - gst::BufferFlags::TAG_MEMORY,
            ));
        }
        gst::PadProbeReturn::Ok
    });
    prints
}

fn run(pipeline: &gst::Pipeline) -> Result<(), glib::Error> {
    pipeline.set_state(gst::State::Playing).unwrap();
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let bus = pipeline.bus().unwrap();
    let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(40), &kinds);
    let result = match message.expect("EOS or an error").view() {
        gst::MessageView::Error(e) => Err(e.error()),
        _ => Ok(()),
    };
    if result.is_err() {
        pipeline.set_state(gst::State::Null).unwrap();
    }
    result
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
        let put = place.record(&[&format!("{RAW} ! {codec}")], "");
        let (got, error) = place.play("");
        assert_eq!(error, None, "{codec}");
        assert_eq!(put[0].len(), 90, "{codec}");
        assert_eq!(got, put, "{codec}");
    }
    let place = Place::new();
    let put = place.record(&[SOUND], "");
    assert_eq!(place.play(""), (put, None));
}

#[test]
fn two_tracks_a_window_and_players() {
    let place = Place::new();
    let put = place.record(
        &[
            &format!("{RAW} ! {H264} ! queue"),
            &format!("{SOUND} ! queue"),
        ],
        "",
    );
    let (got, error) = place.play("");
    assert_eq!(error, None);
    assert_eq!(got, put);
    // From 1.1 s, whose group of pictures begins at 1 s, to 2 s.
    let (got, error) = place.play("from=1.1 to=2");
    assert_eq!(error, None);
    assert!(got[0][0].4.contains(gst::BufferFlags::DISCONT));
    let first = put[0].iter().position(|p| p.0 == got[0][0].0).unwrap();
    assert_eq!(first, 30);
    assert_eq!(got[0][1..], put[0][31..30 + got[0].len()]);
    assert!((30..=33).contains(&got[0].len()), "{}", got[0].len());
    let uri = format!("camvault://{}/yard", place.address);
    // As players do it.
    for text in [
        format!("uridecodebin uri={uri} ! videoconvert ! fakesink"),
        format!(
            "uridecodebin3 uri={uri} name=d d. ! video/x-raw ! queue ! fakesink \
             d. ! audio/x-raw ! queue ! fakesink"
        ),
        format!("playbin3 uri={uri} video-sink=fakesink audio-sink=fakesink"),
    ] {
        let pipeline = launch(&text);
        let identity = place.identity.to_str().unwrap().to_owned();
        pipeline.connect_deep_element_added(move |_, _, element| {
            if element.factory().is_some_and(|f| f.name() == "dedupsrc") {
                element.set_property("identity", &identity);
            }
        });
        let end = run(&pipeline);
        pipeline.set_state(gst::State::Null).unwrap();
        assert!(end.is_ok(), "{text}: {end:?}");
    }
}

#[test]
fn gst_play_plays_to_the_end() {
    let place = Place::new();
    place.record(&[&format!("{RAW} ! {H264}")], "");
    let plugins = Path::new(env!("CARGO_BIN_EXE_camvault")).parent().unwrap();
    let registry = place.dir.path().join("registry");
    let status = std::process::Command::new("timeout")
        .args([
            "60",
            "gst-play-1.0",
            "--no-interactive",
            "--videosink=fakesink",
        ])
        .arg(format!("camvault://{}/yard", place.address))
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
        place.record(&[&format!("{RAW} ! {H264}")], "");
        attack(&place.blobs());
        let (got, error) = place.play("");
        let error = error.unwrap();
        assert!(error.matches(gst::StreamError::Decrypt), "{name}: {error}");
        assert!(got.iter().all(Vec::is_empty), "{name}");
    }
}

#[test]
fn following_plays_along_while_it_is_recorded() {
    let place = Place::new();
    let recorder = launch(&format!(
        "videotestsrc is-live=true num-buffers=120 ! video/x-raw,width=160,height=120,framerate=30/1 \
         ! x264enc threads=1 key-int-max=15 tune=zerolatency speed-preset=ultrafast ! h264parse \
         ! rcededuppay name=pay ! {} segment-duration=1000000000",
        place.ends("dedupsink")
    ));
    let put = watch(&recorder.by_name("pay").unwrap().static_pad("sink").unwrap());
    recorder.set_state(gst::State::Playing).unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    let reader = std::thread::scope(|scope| {
        let reader = scope.spawn(|| place.play("follow=true"));
        let bus = recorder.bus().unwrap();
        let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
        let end = bus.timed_pop_filtered(gst::ClockTime::from_seconds(30), &kinds);
        assert_eq!(end.unwrap().type_(), gst::MessageType::Eos);
        recorder.set_state(gst::State::Null).unwrap();
        reader.join().unwrap()
    });
    let put = put.lock().unwrap().clone();
    assert_eq!(put.len(), 120);
    assert_eq!(reader, (vec![put], None));
}
