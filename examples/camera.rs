// SPDX-License-Identifier: MPL-2.0
//! A street camera to try things with: generated, or a file's footage looped live.
//!
//! ```text
//! cargo run --example camera -- --listen 127.0.0.1:8554 --path /street
//! gst-play-1.0 rtsp://127.0.0.1:8554/street
//! ```
//!
//! It prints its URL, then `READY`, and ends on SIGINT or SIGTERM.

#[path = "../tests/common/camera/mod.rs"]
mod camera;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use camera::{Camera, CameraConfig, Codec, Error, ParameterSets, Transport};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// Serves a street camera by RTSP. All clients receive the same encoded stream.
#[derive(Parser)]
struct Options {
    /// Address and port; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8554")]
    listen: SocketAddr,
    /// Path of the stream.
    #[arg(long, default_value = "/street")]
    path: String,
    /// Loop this file (H.264, H.265, MJPEG; AAC, G.711) as it is instead of the generated street.
    #[arg(long, value_name = "FILE")]
    footage: Option<PathBuf>,
    #[arg(long, value_parser = parse_codec, default_value = "h264", value_name = "h264|h265|mjpeg")]
    codec: Codec,
    #[arg(long, value_parser = parse_size, default_value = "1280x720", value_name = "WxH")]
    size: (u32, u32),
    /// Frames per second.
    #[arg(long, default_value_t = 25)]
    fps: u32,
    /// Frames from keyframe to keyframe.
    #[arg(long, default_value_t = 50)]
    gop: u32,
    /// In kbit/s (not for MJPEG).
    #[arg(long, default_value_t = 2000)]
    bitrate: u32,
    /// Slices per picture.
    #[arg(long, default_value_t = 1)]
    slices: u32,
    /// Parameter sets before every keyframe, in the SDP alone, or every so many seconds.
    #[arg(long, value_parser = parse_sets, default_value = "gop", value_name = "gop|sdp|SECONDS")]
    parameter_sets: ParameterSets,
    /// A sound track beside the picture.
    #[arg(long, value_parser = ["aac", "none"], default_value = "none")]
    audio: String,
    /// Refuse UDP.
    #[arg(long, conflicts_with = "udp_only")]
    tcp_only: bool,
    /// Refuse RTP interleaved in the RTSP connection.
    #[arg(long)]
    udp_only: bool,
    /// Another seed is another street.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn parse_codec(text: &str) -> Result<Codec, String> {
    match text {
        "h264" => Ok(Codec::H264),
        "h265" => Ok(Codec::H265),
        "mjpeg" => Ok(Codec::Mjpeg),
        _ => Err("h264, h265 or mjpeg".to_owned()),
    }
}

fn parse_size(text: &str) -> Result<(u32, u32), String> {
    let sides = text
        .split_once('x')
        .and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    sides.ok_or_else(|| "WIDTHxHEIGHT in pixels, such as 1280x720".to_owned())
}

fn parse_sets(text: &str) -> Result<ParameterSets, String> {
    match text {
        "gop" => Ok(ParameterSets::EveryGop),
        "sdp" => Ok(ParameterSets::SdpOnly),
        _ => text
            .parse()
            .ok()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .map(ParameterSets::Every)
            .ok_or_else(|| "gop, sdp or a number of seconds".to_owned()),
    }
}

impl From<Options> for CameraConfig {
    fn from(options: Options) -> Self {
        Self {
            listen: options.listen,
            path: options.path,
            footage: options.footage,
            parameter_sets: options.parameter_sets,
            transport: match (options.tcp_only, options.udp_only) {
                (true, _) => Transport::Tcp,
                (_, true) => Transport::Udp,
                _ => Transport::Any,
            },
            codec: options.codec,
            width: options.size.0,
            height: options.size.1,
            fps: options.fps,
            gop: options.gop,
            bitrate: options.bitrate,
            slices: options.slices,
            audio: options.audio == "aac",
            seed: options.seed,
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let options = Options::parse();
    // Before READY: whoever waits for it may signal at once.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let camera = Camera::start(options.into())?;
    println!("{}\nREADY", camera.url());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
