// SPDX-License-Identifier: MPL-2.0
//! Raw video frames as luma.

use crate::luma::{Luma, LumaMut, Samples, Shape};
use gst_video::prelude::*;
use gst_video::{VideoFormat, VideoFrameRef, VideoInfo};

/// Formats whose luma is at hand: 8 bits, a plane of its own or packed RGB.
pub const FORMATS: [VideoFormat; 17] = [
    VideoFormat::I420,
    VideoFormat::Nv12,
    VideoFormat::Yv12,
    VideoFormat::Y42b,
    VideoFormat::Y444,
    VideoFormat::Nv21,
    VideoFormat::Gray8,
    VideoFormat::Rgb,
    VideoFormat::Bgr,
    VideoFormat::Rgbx,
    VideoFormat::Bgrx,
    VideoFormat::Xrgb,
    VideoFormat::Xbgr,
    VideoFormat::Rgba,
    VideoFormat::Bgra,
    VideoFormat::Argb,
    VideoFormat::Abgr,
];

/// `video/x-raw` in one of [`FORMATS`], in system memory, at any size and frame rate.
pub fn caps() -> gst::Caps {
    gst_video::VideoCapsBuilder::new()
        .format_list(FORMATS)
        .build()
}

/// An always sink and an always source pad with [`caps`].
pub fn pad_templates() -> Vec<gst::PadTemplate> {
    let caps = caps();
    let pads = [
        ("sink", gst::PadDirection::Sink),
        ("src", gst::PadDirection::Src),
    ];
    pads.into_iter()
        .filter_map(|(name, direction)| {
            gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).ok()
        })
        .collect()
}

/// Where the luma of frames like `info` is; `None` for other formats.
fn shape(info: &VideoInfo) -> Option<Shape> {
    let samples = match info.format() {
        format if !FORMATS.contains(&format) => return None,
        _ if info.is_rgb() => Samples::Rgb {
            step: info.comp_pstride(0).try_into().ok()?,
            offsets: [
                info.comp_poffset(0) as usize,
                info.comp_poffset(1) as usize,
                info.comp_poffset(2) as usize,
            ],
        },
        _ => Samples::Plane,
    };
    Some(Shape {
        width: info.width() as usize,
        height: info.height() as usize,
        stride: 0,
        samples,
    })
}

/// A mapped frame's luma, to read; `None` for other formats than [`FORMATS`].
pub fn luma<'a>(frame: &'a VideoFrameRef<&gst::BufferRef>) -> Option<Luma<'a>> {
    let shape = Shape {
        stride: usize::try_from(*frame.plane_stride().first()?).ok()?,
        ..shape(frame.info())?
    };
    Luma::new(frame.plane_data(0).ok()?, shape)
}

/// A mapped frame's luma, to change; `None` for other formats than [`FORMATS`].
pub fn luma_mut<'a>(frame: &'a mut VideoFrameRef<&mut gst::BufferRef>) -> Option<LumaMut<'a>> {
    let shape = Shape {
        stride: usize::try_from(*frame.plane_stride().first()?).ok()?,
        ..shape(frame.info())?
    };
    LumaMut::new(frame.plane_data_mut(0).ok()?, shape)
}
