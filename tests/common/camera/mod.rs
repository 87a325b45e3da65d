// SPDX-License-Identifier: MPL-2.0
//! An RTSP camera in this process: a generated street, or a file, on gst-rtsp-server.
//!
//! ```ignore
//! #[path = "common/camera/mod.rs"]
//! mod camera;
//!
//! let camera = Camera::start(CameraConfig { gop: 25, ..CameraConfig::default() })?;
//! // … rtspsrc location=camera.url() …
//! ```
//!
//! The stream is encoded once and goes on whether somebody watches or not, so that a client joins
//! in the middle of a GOP like at a real camera, and all of them receive the same slices.
#![allow(dead_code, reason = "each test and the example take a part of it")]

mod footage;
mod generated;
mod hub;
mod nal;
mod scene;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use gst::glib;
use gst_rtsp_server::gst_rtsp::RTSPLowerTrans;
use gst_rtsp_server::prelude::*;

use footage::{Footage, Projector};
use generated::Generator;
use hub::Hub;

pub type Error = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    H264,
    H265,
    Mjpeg,
}

/// Where SPS and PPS (and VPS) are, beside the SDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterSets {
    /// Before every keyframe.
    EveryGop,
    /// In the SDP alone.
    SdpOnly,
    /// Before a keyframe, when the last ones were sent that long ago.
    Every(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Any,
    Tcp,
    Udp,
}

#[derive(Clone, Debug)]
pub struct CameraConfig {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Begins with a slash.
    pub path: String,
    /// This file, looped, instead of the street. What is below and describes the encoding is then
    /// the file's.
    pub footage: Option<PathBuf>,
    pub parameter_sets: ParameterSets,
    pub transport: Transport,
    pub codec: Codec,
    /// Even.
    pub width: u32,
    pub height: u32,
    pub fps: u32,
    /// Frames from keyframe to keyframe.
    pub gop: u32,
    /// In kbit/s; MJPEG has a fixed quality instead.
    pub bitrate: u32,
    /// Per picture.
    pub slices: u32,
    /// An AAC track beside the video.
    pub audio: bool,
    /// Which street, and who walks there.
    pub seed: u64,
}

impl Default for CameraConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            path: "/street".to_owned(),
            footage: None,
            parameter_sets: ParameterSets::EveryGop,
            transport: Transport::Any,
            codec: Codec::H264,
            width: 1280,
            height: 720,
            fps: 25,
            gop: 50,
            bitrate: 2000,
            slices: 1,
            audio: false,
            seed: 1,
        }
    }
}

impl CameraConfig {
    fn check(&self) -> Result<(), Error> {
        let Self {
            width,
            height,
            fps,
            gop,
            slices,
            ..
        } = *self;
        if !self.path.starts_with('/') {
            return Err(format!("path {:?} does not begin with a slash", self.path).into());
        }
        if width % 2 + height % 2 != 0 {
            return Err(format!("size {width}x{height}: both sides must be even").into());
        }
        if width < 64 || height < 64 || width > 4096 || height > 4096 {
            return Err(format!("size {width}x{height}: each side is 64 to 4096 pixels").into());
        }
        if !(1..=120).contains(&fps) || gop == 0 || slices == 0 {
            return Err("fps is 1 to 120; gop and slices are at least 1".into());
        }
        Ok(())
    }
}

/// What feeds the hub; stops when dropped.
enum Stream {
    Generated(Generator),
    Footage(Projector),
}

/// A running camera; stops when dropped.
pub struct Camera {
    url: String,
    server: gst_rtsp_server::RTSPServer,
    listener: glib::Source,
    main_loop: glib::MainLoop,
    thread: Option<thread::JoinHandle<()>>,
    hub: Arc<Hub>,
    stream: Option<Stream>,
}

impl Camera {
    pub fn start(config: CameraConfig) -> Result<Self, Error> {
        config.check()?;
        gst::init()?;
        let hub = Hub::new(config.parameter_sets);
        let footage = config.footage.as_deref().map(Footage::load).transpose()?;
        let tracks = match &footage {
            Some(footage) => footage.tracks.clone(),
            None => generated::tracks(&config),
        };

        let server = gst_rtsp_server::RTSPServer::new();
        server.set_address(&config.listen.ip().to_string());
        server.set_service(&config.listen.port().to_string());
        let mounts = server
            .mount_points()
            .ok_or("the server has no mount points")?;
        mounts.add_factory(&config.path, factory(&config, &tracks, &hub)?);
        let context = glib::MainContext::new();
        let listener = server
            .create_source(gst_rtsp_server::gio::Cancellable::NONE)
            .map_err(|error| format!("cannot listen on {}: {error}", config.listen))?;
        listener.attach(Some(&context));
        let url = SocketAddr::new(config.listen.ip(), u16::try_from(server.bound_port())?);
        let url = format!("rtsp://{url}{}", config.path);

        let pool = server.session_pool();
        let sweep = glib::timeout_source_new_seconds(2, None, glib::Priority::LOW, move || {
            pool.as_ref().map(|pool| pool.cleanup());
            glib::ControlFlow::Continue
        });
        sweep.attach(Some(&context));
        let main_loop = glib::MainLoop::new(Some(&context), false);
        let turning = main_loop.clone();
        let thread = thread::Builder::new()
            .name("camera-server".into())
            .spawn(move || {
                // The context is this thread's alone, so it can be acquired.
                let _ = context.with_thread_default(|| turning.run());
                sweep.destroy();
            })?;

        let mut camera = Self {
            url,
            server,
            listener,
            main_loop,
            thread: Some(thread),
            hub: hub.clone(),
            stream: None,
        };
        camera.stream = Some(match footage {
            Some(footage) => Stream::Footage(footage.start(hub)?),
            None => Stream::Generated(Generator::start(&config, &hub)?),
        });
        Ok(camera)
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Closes every client's connection, as a camera does that restarts its server.
    pub fn disconnect_clients(&self) {
        use gst_rtsp_server::RTSPFilterResult::Remove;
        self.server.client_filter(Some(&mut |_, _| Remove));
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.stream = None;
        self.hub.detach();
        self.listener.destroy();
        self.disconnect_clients();
        // A loop that has not begun to run would miss this.
        let main_loop = self.main_loop.clone();
        self.main_loop.context().invoke(move || main_loop.quit());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A media for each client, all fed by the hub.
fn factory(
    config: &CameraConfig,
    tracks: &[String],
    hub: &Arc<Hub>,
) -> Result<gst_rtsp_server::RTSPMediaFactory, Error> {
    let mut launch = String::from("( ");
    for (track, caps) in tracks.iter().enumerate() {
        let payloader = match caps.as_str() {
            "video/x-h264" => "rtph264pay config-interval=0",
            "video/x-h265" => "rtph265pay config-interval=0",
            "image/jpeg" => "rtpjpegpay",
            "audio/mpeg" => "rtpmp4gpay",
            "audio/x-mulaw" => "rtppcmupay",
            "audio/x-alaw" => "rtppcmapay",
            other => return Err(format!("no payloader for {other}").into()),
        };
        // A client that has asked for the description and never plays must not fill the memory.
        launch += &format!(
            "appsrc name=source{track} is-live=true format=time max-bytes=16777216 \
             leaky-type=upstream ! {payloader} name=pay{track} pt={} ",
            96 + track
        );
    }
    launch.push(')');
    let factory = gst_rtsp_server::RTSPMediaFactory::new();
    factory.set_launch(&launch);
    factory.set_protocols(match config.transport {
        Transport::Any => RTSPLowerTrans::TCP | RTSPLowerTrans::UDP,
        Transport::Tcp => RTSPLowerTrans::TCP,
        Transport::Udp => RTSPLowerTrans::UDP,
    });
    let hub = hub.clone();
    factory.connect_media_configure(move |_, media| hub.attach(media));
    Ok(factory)
}
