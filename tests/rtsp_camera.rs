// SPDX-License-Identifier: MPL-2.0
//! The test camera itself: what the other tests record must behave like a camera.

#[path = "common/camera/mod.rs"]
mod camera;

use std::time::{Duration, Instant};

use camera::{Camera, CameraConfig, Codec, Error, ParameterSets, Transport};
use gst::prelude::*;

/// Small enough for several at once on one core.
fn small() -> CameraConfig {
    CameraConfig {
        width: 320,
        height: 192,
        bitrate: 400,
        gop: 25,
        ..CameraConfig::default()
    }
}

/// A client that keeps every access unit.
struct Viewer {
    pipeline: gst::Pipeline,
    sink: gst_app::AppSink,
}

impl Viewer {
    /// `transport` is an rtspsrc protocol, `chain` a depayloader and a parser.
    fn connect(camera: &Camera, transport: &str, chain: &str) -> Result<Self, Error> {
        let url = camera.url();
        let description = format!(
            "rtspsrc location={url} protocols={transport} latency=200 ! {chain} \
             ! appsink name=units sync=false"
        );
        let pipeline = gst::parse::launch(&description)?
            .downcast::<gst::Pipeline>()
            .map_err(|_| "not a pipeline")?;
        let sink = pipeline
            .by_name("units")
            .and_downcast()
            .ok_or("no appsink")?;
        pipeline.set_state(gst::State::Playing)?;
        Ok(Self { pipeline, sink })
    }

    fn h264(camera: &Camera, transport: &str) -> Result<Self, Error> {
        let parse = "h264parse ! video/x-h264,stream-format=byte-stream,alignment=au";
        Self::connect(camera, transport, &format!("rtph264depay ! {parse}"))
    }

    /// What arrives until `span` after the first unit.
    fn watch(&self, span: Duration) -> Result<Vec<Unit>, Error> {
        let mut units: Vec<Unit> = Vec::new();
        let mut end = Instant::now() + Duration::from_secs(15);
        while Instant::now() < end {
            let Some(sample) = self
                .sink
                .try_pull_sample(gst::ClockTime::from_mseconds(100))
            else {
                self.check()?;
                continue;
            };
            let buffer = sample.buffer().ok_or("a sample without a buffer")?;
            if units.is_empty() {
                end = Instant::now() + span;
            }
            units.push(Unit {
                key: !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
                pts: buffer.pts(),
                data: buffer.map_readable()?.to_vec(),
            });
        }
        self.check()?;
        Ok(units)
    }

    fn check(&self) -> Result<(), Error> {
        let bus = self.pipeline.bus().ok_or("no bus")?;
        match bus.pop_filtered(&[gst::MessageType::Error, gst::MessageType::Eos]) {
            Some(message) => Err(format!("the stream broke: {message:?}").into()),
            None => Ok(()),
        }
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

struct Unit {
    key: bool,
    pts: Option<gst::ClockTime>,
    data: Vec<u8>,
}

/// The NAL units of an Annex B access unit.
fn nals(data: &[u8]) -> Vec<&[u8]> {
    let starts: Vec<usize> = (0..data.len().saturating_sub(2))
        .filter(|&at| data[at..at + 3] == [0, 0, 1])
        .map(|at| at + 3)
        .collect();
    let ends = starts
        .iter()
        .skip(1)
        .map(|start| start - 3)
        .chain([data.len()]);
    let trimmed = |nal: &mut &[u8]| {
        while let Some((0, rest)) = nal.split_last() {
            *nal = rest;
        }
    };
    starts
        .iter()
        .zip(ends)
        .map(|(&start, end)| {
            let mut nal = &data[start..end];
            trimmed(&mut nal);
            nal
        })
        .collect()
}

fn of_types<'a>(unit: &'a Unit, types: &[u8]) -> Vec<&'a [u8]> {
    let mut nals = nals(&unit.data);
    nals.retain(|nal| types.contains(&(nal[0] & 0x1f)));
    nals
}

const SLICES: [u8; 2] = [1, 5];
const SPS: [u8; 1] = [7];

#[track_caller]
fn assert_live(units: &[Unit], span: Duration, fps: u32) {
    let keys = units.iter().filter(|unit| unit.key).count();
    assert!(keys >= 1, "no keyframe among {} units", units.len());
    let expected = span.as_secs_f64() * f64::from(fps);
    let ratio = units.len() as f64 / expected;
    assert!(
        (0.7..1.5).contains(&ratio),
        "{} units, not {expected}",
        units.len()
    );
    let mut steps: Vec<u64> = units
        .windows(2)
        .filter_map(|pair| {
            Some(
                pair[1]
                    .pts?
                    .nseconds()
                    .saturating_sub(pair[0].pts?.nseconds()),
            )
        })
        .collect();
    steps.sort_unstable();
    let step = steps[steps.len() / 2] as f64 * f64::from(fps) / 1e9;
    assert!(
        (0.9..1.1).contains(&step),
        "the median step is {step} frames"
    );
}

#[test]
fn frames_arrive_at_their_rate_over_tcp_and_udp() -> Result<(), Error> {
    let camera = Camera::start(small())?;
    let span = Duration::from_secs(3);
    for transport in ["tcp", "udp"] {
        let units = Viewer::h264(&camera, transport)?.watch(span)?;
        assert_live(&units, span, 25);
    }
    Ok(())
}

#[test]
fn clients_receive_the_same_slices() -> Result<(), Error> {
    let camera = Camera::start(CameraConfig {
        slices: 3,
        ..small()
    })?;
    let first = Viewer::h264(&camera, "tcp")?;
    let early = first.watch(Duration::from_millis(1300))?;
    let second = Viewer::h264(&camera, "udp")?;
    let joined = second.watch(Duration::from_secs(3))?;
    let mut all = early;
    all.extend(first.watch(Duration::from_millis(500))?);

    let key = joined
        .iter()
        .position(|unit| unit.key)
        .ok_or("no keyframe")?;
    let slices: Vec<_> = joined[key..]
        .iter()
        .map(|unit| of_types(unit, &SLICES))
        .collect();
    assert!(
        slices.iter().all(|unit| unit.len() == 3),
        "three slices make a picture"
    );
    let all: Vec<_> = all.iter().map(|unit| of_types(unit, &SLICES)).collect();
    let from = all.iter().position(|unit| *unit == slices[0]);
    let from = from.ok_or("the first client has not seen the second one's keyframe")?;
    let both = (all.len() - from).min(slices.len());
    assert!(both > 25, "only {both} pictures in common");
    assert!(all[from..from + both] == slices[..both], "slices differ");
    Ok(())
}

#[test]
fn parameter_sets_come_as_configured() -> Result<(), Error> {
    let watch = |parameter_sets| -> Result<Vec<bool>, Error> {
        let camera = Camera::start(CameraConfig {
            parameter_sets,
            gop: 10,
            ..small()
        })?;
        let units = Viewer::h264(&camera, "tcp")?.watch(Duration::from_secs(3))?;
        // The depayloader puts the SDP's sets before the first unit that it sees.
        let keys = units.iter().skip(1).filter(|unit| unit.key);
        Ok(keys.map(|unit| !of_types(unit, &SPS).is_empty()).collect())
    };
    let every = watch(ParameterSets::EveryGop)?;
    assert!(
        every.len() >= 5 && every.iter().all(|sets| *sets),
        "{every:?}"
    );
    let never = watch(ParameterSets::SdpOnly)?;
    assert!(
        never.len() >= 5 && never.iter().all(|sets| !*sets),
        "{never:?}"
    );
    let some = watch(ParameterSets::Every(Duration::from_secs(1)))?;
    let with = some.iter().filter(|sets| **sets).count();
    assert!((1..some.len() - 1).contains(&with), "{some:?}");
    Ok(())
}

#[test]
fn other_codecs_and_sound() -> Result<(), Error> {
    let span = Duration::from_secs(2);
    let h265 = CameraConfig {
        codec: Codec::H265,
        slices: 2,
        ..small()
    };
    let camera = Camera::start(h265)?;
    let chain = "rtph265depay ! h265parse ! video/x-h265,alignment=au";
    assert_live(
        &Viewer::connect(&camera, "tcp", chain)?.watch(span)?,
        span,
        25,
    );
    drop(camera);

    let mjpeg = CameraConfig {
        codec: Codec::Mjpeg,
        fps: 10,
        audio: true,
        ..small()
    };
    let camera = Camera::start(CameraConfig {
        transport: Transport::Tcp,
        ..mjpeg
    })?;
    let viewer = Viewer::connect(&camera, "tcp+udp", "rtpjpegdepay ! jpegparse")?;
    assert_live(&viewer.watch(span)?, span, 10);
    let viewer = Viewer::connect(&camera, "tcp", "rtpmp4gdepay ! aacparse")?;
    let frames = viewer.watch(span)?.len();
    // 1024 samples each at 16 kHz.
    assert!(
        (20..48).contains(&frames),
        "{frames} AAC frames in two seconds"
    );
    Ok(())
}

#[test]
fn footage_is_looped_as_it_is() -> Result<(), Error> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("footage.mp4");
    gst::init()?;
    let pipeline = gst::parse::launch(&format!(
        "videotestsrc num-buffers=30 pattern=ball \
         ! video/x-raw,format=I420,width=320,height=192,framerate=30/1 \
         ! x264enc threads=1 bframes=2 key-int-max=15 ! h264parse ! mp4mux ! filesink location={}",
        file.display()
    ))?;
    pipeline.set_state(gst::State::Playing)?;
    let bus = pipeline.bus().ok_or("no bus")?;
    let ended = bus.timed_pop_filtered(gst::ClockTime::from_seconds(30), &[gst::MessageType::Eos]);
    pipeline.set_state(gst::State::Null)?;
    ended.ok_or("no footage was written")?;

    let camera = Camera::start(CameraConfig {
        footage: Some(file),
        ..small()
    })?;
    let span = Duration::from_secs(4);
    let units = Viewer::h264(&camera, "tcp")?.watch(span)?;
    let ratio = units.len() as f64 / 120.0;
    assert!(
        (0.7..1.5).contains(&ratio),
        "{} units, not 120",
        units.len()
    );
    let slices: Vec<_> = units.iter().map(|unit| of_types(unit, &SLICES)).collect();
    assert!(
        slices.len() > 60 && slices[15..30] == slices[45..60],
        "it comes again unchanged"
    );
    Ok(())
}

#[test]
fn a_taken_port_is_an_error() -> Result<(), Error> {
    let camera = Camera::start(small())?;
    let port = camera.url().split([':', '/']).nth(4).ok_or("no port")?;
    let listen = format!("127.0.0.1:{port}").parse()?;
    let error = Camera::start(CameraConfig { listen, ..small() })
        .err()
        .ok_or("it started")?;
    assert!(error.to_string().contains(port), "{error}");
    Ok(())
}
