// SPDX-License-Identifier: MPL-2.0
//! Several recorders of one RTSP camera store its footage once.

#[path = "common/camera/mod.rs"]
mod camera;
mod common;

use camera::{Camera, CameraConfig, Codec, ParameterSets};
use common::{Pipeline, TestVault, stat};
use gst::prelude::*;
use std::thread::sleep;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// A recorder: how it receives and what it does to the stream on its way.
struct Recorder {
    transport: &'static str,
    receive: &'static str,
    own_sei: bool,
}

fn record(vault: &TestVault, camera: &Camera, name: &str, recorder: &Recorder) -> Pipeline {
    let identity = vault.owner(name);
    let pipeline = Pipeline::launch(&format!(
        "rtspsrc location={} protocols={} latency=200 ! {} ! rcededuppay name=pay \
         ! dedupsink name=sink uri={} identity={} segment-duration=4000000000",
        camera.url(),
        recorder.transport,
        recorder.receive,
        vault.recording("camera"),
        identity.display()
    ));
    if recorder.own_sei {
        let text = format!("recorder {name}");
        let pad = pipeline.element("pay").static_pad("sink").unwrap();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data {
                *buffer = with_sei(buffer, &text);
            }
            gst::PadProbeReturn::Ok
        });
    }
    pipeline.play();
    pipeline
}

/// The access unit with a user-data SEI of this recorder in front.
fn with_sei(buffer: &gst::Buffer, text: &str) -> gst::Buffer {
    let mut bytes = vec![0, 0, 0, 1, 6, 5, 16 + text.len() as u8];
    bytes.extend([0x5a; 16]);
    bytes.extend(text.bytes());
    bytes.push(0x80);
    bytes.extend_from_slice(&buffer.map_readable().unwrap());
    let mut out = gst::Buffer::from_mut_slice(bytes);
    let _ = buffer.copy_into(
        out.get_mut().unwrap(),
        gst::BufferCopyFlags::all() - gst::BufferCopyFlags::MEMORY,
        ..,
    );
    out
}

/// Records with three recorders; the first begins first and ends last. The part of the later
/// ones' bytes that was stored although the first had it too.
fn new_part(config: CameraConfig, recorders: [Recorder; 3], seconds: u32) -> f64 {
    common::init();
    let camera = Camera::start(config).unwrap();
    let vault = TestVault::start();
    let first = record(&vault, &camera, "first", &recorders[0]);
    sleep(Duration::from_millis(3300));
    let second = record(&vault, &camera, "second", &recorders[1]);
    sleep(Duration::from_millis(1700));
    let third = record(&vault, &camera, "third", &recorders[2]);
    sleep(seconds * SECOND);
    second.finish(20 * SECOND).unwrap();
    third.finish(20 * SECOND).unwrap();
    sleep(SECOND);
    first.finish(20 * SECOND).unwrap();

    let bytes_in = |p: &Pipeline| stat(&p.element("sink"), "bytes-in");
    let later = bytes_in(&second) + bytes_in(&third);
    assert!(later > 300_000, "the recorders recorded: {later} bytes");
    let new = vault.stats().bytes_stored.saturating_sub(bytes_in(&first));
    println!("first {}, later {later}, new {new} bytes", bytes_in(&first));
    new as f64 / later as f64
}

fn h264(transport: &'static str, receive: &'static str) -> Recorder {
    Recorder {
        transport,
        receive,
        own_sei: false,
    }
}

const PLAIN: &str = "rtph264depay ! h264parse";
const AVC: &str = "rtph264depay ! h264parse ! video/x-h264,stream-format=avc,alignment=au";
const REPEATED: &str = "rtph264depay ! h264parse config-interval=-1 ! video/x-h264,stream-format=byte-stream,alignment=au";

fn config() -> CameraConfig {
    CameraConfig {
        width: 640,
        height: 360,
        gop: 30,
        bitrate: 1500,
        ..Default::default()
    }
}

#[test]
fn over_tcp_and_udp_with_parameter_sets_in_every_gop() {
    let new = new_part(
        config(),
        [h264("tcp", PLAIN), h264("udp", AVC), h264("tcp", REPEATED)],
        14,
    );
    assert!(new <= 0.01, "{new}");
}

#[test]
fn several_slices_parameter_sets_in_the_sdp_and_an_own_sei() {
    let config = CameraConfig {
        slices: 4,
        parameter_sets: ParameterSets::SdpOnly,
        ..config()
    };
    let own = Recorder {
        own_sei: true,
        ..h264("udp", REPEATED)
    };
    let new = new_part(config, [h264("tcp", AVC), own, h264("tcp", PLAIN)], 14);
    assert!(new <= 0.01, "{new}");
}

#[test]
fn parameter_sets_now_and_then() {
    let config = CameraConfig {
        parameter_sets: ParameterSets::Every(3 * SECOND),
        ..config()
    };
    let new = new_part(
        config,
        [h264("udp", REPEATED), h264("tcp", PLAIN), h264("udp", AVC)],
        14,
    );
    assert!(new <= 0.01, "{new}");
}

#[test]
fn h265() {
    let receive = |s| Recorder {
        transport: s,
        receive: "rtph265depay ! h265parse",
        own_sei: false,
    };
    let hvc1 = Recorder {
        transport: "tcp",
        receive: "rtph265depay ! h265parse ! video/x-h265,stream-format=hvc1,alignment=au",
        own_sei: false,
    };
    let config = CameraConfig {
        codec: Codec::H265,
        ..config()
    };
    let new = new_part(config, [receive("tcp"), receive("udp"), hvc1], 14);
    assert!(new <= 0.01, "{new}");
}

#[test]
fn mjpeg() {
    let receive = |s| Recorder {
        transport: s,
        receive: "rtpjpegdepay ! jpegparse",
        own_sei: false,
    };
    let config = CameraConfig {
        codec: Codec::Mjpeg,
        ..config()
    };
    let new = new_part(config, [receive("tcp"), receive("tcp"), receive("tcp")], 30);
    assert!(new <= 0.01, "{new}");
}

/// RTP packets lost at one recorder only.
fn loss(probability: f64) -> f64 {
    common::init();
    let camera = Camera::start(CameraConfig {
        bitrate: 4000,
        ..config()
    })
    .unwrap();
    let vault = TestVault::start();
    let lossy = format!("identity drop-probability={probability} ! rtph264depay ! h264parse");
    let lossy = Box::leak(lossy.into_boxed_str());
    let whole = record(&vault, &camera, "whole", &h264("tcp", PLAIN));
    sleep(2 * SECOND);
    let lossy = record(&vault, &camera, "lossy", &h264("tcp", lossy));
    sleep(20 * SECOND);
    lossy.finish(20 * SECOND).unwrap();
    sleep(SECOND);
    whole.finish(20 * SECOND).unwrap();
    let stat = |p: &Pipeline| stat(&p.element("sink"), "bytes-in");
    let new = vault.stats().bytes_stored.saturating_sub(stat(&whole));
    println!(
        "loss {probability}: {new} of {} bytes are new",
        stat(&lossy)
    );
    new as f64 / stat(&lossy) as f64
}

#[test]
fn a_tenth_of_a_percent_loss_makes_at_most_a_tenth_new() {
    let new = loss(0.001);
    assert!(new <= 0.10, "{new}");
}

#[test]
fn one_percent_loss_makes_at_most_sixty_percent_new() {
    let new = loss(0.01);
    assert!(new <= 0.60, "{new}");
}
