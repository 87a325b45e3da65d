// SPDX-License-Identifier: MPL-2.0
//! The generated street, drawn and encoded at its own pace whether somebody watches or not.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::hub::Hub;
use super::scene::Scene;
use super::{CameraConfig, Codec, Error};

pub struct Generator {
    pipeline: gst::Pipeline,
    stop: mpsc::Sender<()>,
    painter: Option<thread::JoinHandle<()>>,
}

/// The caps names of the tracks that [`Generator::start`] publishes.
pub fn tracks(config: &CameraConfig) -> Vec<String> {
    let video = match config.codec {
        Codec::H264 => "video/x-h264",
        Codec::H265 => "video/x-h265",
        Codec::Mjpeg => "image/jpeg",
    };
    let audio = config.audio.then_some("audio/mpeg");
    [Some(video), audio]
        .into_iter()
        .flatten()
        .map(str::to_owned)
        .collect()
}

/// One thread per encoder: x264 and x265 give the same bytes again only so.
fn description(config: &CameraConfig) -> String {
    let CameraConfig {
        gop,
        slices,
        bitrate,
        ..
    } = config;
    let video = match config.codec {
        Codec::H264 => format!(
            "x264enc threads=1 tune=zerolatency speed-preset=superfast aud=false \
             key-int-max={gop} bitrate={bitrate} option-string=scenecut=0:slices={slices} \
             ! h264parse config-interval=0 ! video/x-h264,stream-format=avc,alignment=au"
        ),
        Codec::H265 => format!(
            "x265enc tune=zerolatency speed-preset=ultrafast key-int-max={gop} bitrate={bitrate} \
             option-string=pools=1:frame-threads=1:scenecut=0:log-level=0:slices={slices} \
             ! h265parse config-interval=0 ! video/x-h265,stream-format=hvc1,alignment=au"
        ),
        Codec::Mjpeg => "jpegenc quality=70 ! jpegparse".to_owned(),
    };
    let video = format!(
        "appsrc name=frames is-live=true format=time block=true max-buffers=4 max-bytes=0 \
         ! {video} ! appsink name=track0 sync=false async=false"
    );
    if !config.audio {
        return video;
    }
    let encoder = ["avenc_aac", "voaacenc"]
        .into_iter()
        .find(|name| gst::ElementFactory::find(name).is_some())
        .unwrap_or("avenc_aac");
    format!(
        "{video} audiotestsrc is-live=true wave=pink-noise volume=0.05 \
         ! audio/x-raw,rate=16000,channels=1 ! {encoder} bitrate=32000 \
         ! aacparse ! audio/mpeg,stream-format=raw ! appsink name=track1 sync=false async=false"
    )
}

impl Generator {
    pub fn start(config: &CameraConfig, hub: &Arc<Hub>) -> Result<Self, Error> {
        let pipeline = gst::parse::launch(&description(config))?
            .downcast::<gst::Pipeline>()
            .map_err(|_| "the camera's description is not a pipeline")?;
        for track in 0..tracks(config).len() {
            let sink = pipeline
                .by_name(&format!("track{track}"))
                .and_downcast::<gst_app::AppSink>()
                .ok_or("the camera's pipeline has no such track")?;
            let hub = hub.clone();
            sink.set_callbacks(
                gst_app::AppSinkCallbacks::builder()
                    .new_sample(move |sink| {
                        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                        publish(&hub, track, &sample);
                        Ok(gst::FlowSuccess::Ok)
                    })
                    .build(),
            );
        }
        let frames = pipeline
            .by_name("frames")
            .and_downcast::<gst_app::AppSrc>()
            .ok_or("the camera's pipeline has no source")?;
        frames.set_caps(Some(
            &gst::Caps::builder("video/x-raw")
                .field("format", "I420")
                .field("width", config.width as i32)
                .field("height", config.height as i32)
                .field("framerate", gst::Fraction::new(config.fps as i32, 1))
                .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
                .field("interlace-mode", "progressive")
                .build(),
        ));
        let scene = Scene::new(config.width, config.height, config.fps, config.seed);
        pipeline.set_state(gst::State::Playing)?;
        let (stop, stopped) = mpsc::channel();
        let (fps, number) = (config.fps, config.seed % 100);
        let painter = thread::Builder::new()
            .name("camera-scene".into())
            .spawn(move || paint(&scene, &frames, u64::from(fps), number, &stopped))?;
        Ok(Self {
            pipeline,
            stop,
            painter: Some(painter),
        })
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        let _ = self.stop.send(());
        let _ = self.pipeline.set_state(gst::State::Null);
        if let Some(painter) = self.painter.take() {
            let _ = painter.join();
        }
    }
}

/// Encoders start their segments where they like: what counts is the running time.
fn publish(hub: &Hub, track: usize, sample: &gst::Sample) {
    let (Some(caps), Some(buffer)) = (sample.caps(), sample.buffer()) else {
        return;
    };
    let segment = sample
        .segment()
        .and_then(|s| s.downcast_ref::<gst::ClockTime>());
    let running = segment.and_then(|segment| segment.to_running_time(buffer.pts()));
    let (Some(pts), Some(running)) = (buffer.pts(), running) else {
        return;
    };
    let shift = running.nseconds() as i64 - pts.nseconds() as i64;
    hub.publish(track, &caps.to_owned(), buffer, shift);
}

fn paint(
    scene: &Scene,
    frames: &gst_app::AppSrc,
    fps: u64,
    number: u64,
    stopped: &mpsc::Receiver<()>,
) {
    let start = Instant::now();
    let due = |frame: u64| Duration::from_nanos(frame * 1_000_000_000 / fps);
    let mut frame = 0;
    loop {
        let wait = due(frame).saturating_sub(start.elapsed());
        if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        // A machine that cannot keep up gets fewer frames, not later ones.
        while start.elapsed() > due(frame + 2) {
            frame += 1;
        }
        let now = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S UTC");
        let picture = scene.frame(frame, &format!("CAM {number:02}  {now}"));
        let mut buffer = gst::Buffer::from_mut_slice(picture);
        let timed = buffer.make_mut();
        timed.set_pts(gst::ClockTime::from_nseconds(due(frame).as_nanos() as u64));
        timed.set_duration(gst::ClockTime::from_nseconds(1_000_000_000 / fps));
        if frames.push_buffer(buffer).is_err() {
            return;
        }
        frame += 1;
    }
}
