// SPDX-License-Identifier: MPL-2.0
//! Raw video frames as planar pictures, and back.

use crate::sealed::{Chroma, Error, Geometry, Picture};
use gst_video::prelude::*;
use gst_video::{VideoFormat, VideoFrameRef, VideoInfo};

/// Planar formats of 8 bits.
const FORMATS: [(VideoFormat, Chroma); 4] = [
    (VideoFormat::I420, Chroma::I420),
    (VideoFormat::Y42b, Chroma::Y42B),
    (VideoFormat::Y444, Chroma::Y444),
    (VideoFormat::Gray8, Chroma::None),
];

/// `video/x-raw` in a format that pictures have, in system memory.
pub fn caps() -> gst::Caps {
    gst_video::VideoCapsBuilder::new()
        .format_list(FORMATS.map(|(format, _)| format))
        .build()
}

/// The geometry of frames like `info`.
pub fn geometry(info: &VideoInfo) -> Result<Geometry, Error> {
    let found = FORMATS.iter().find(|(format, _)| *format == info.format());
    // Caps are checked before.
    let chroma = found.map_or(Chroma::None, |(_, chroma)| *chroma);
    Geometry::new(info.width() as usize, info.height() as usize, chroma)
}

/// The format of pictures with this chroma.
pub fn format(chroma: Chroma) -> VideoFormat {
    let found = FORMATS.iter().find(|(_, c)| *c == chroma);
    found.map_or(VideoFormat::Gray8, |(format, _)| *format)
}

/// Copies a frame into a picture of its geometry; `None` if it is not one.
pub fn read(frame: &VideoFrameRef<&gst::BufferRef>, picture: &mut Picture) -> Option<()> {
    let geometry = picture.geometry();
    for plane in 0..geometry.planes() {
        let [width, height] = geometry.plane(plane);
        let stride = usize::try_from(*frame.plane_stride().get(plane)?).ok()?;
        let data = frame.plane_data(plane as u32).ok()?;
        let rows = picture.plane_mut(plane).chunks_exact_mut(width);
        for (y, row) in rows.enumerate().take(height) {
            row.copy_from_slice(data.get(y * stride..)?.get(..width)?);
        }
    }
    Some(())
}

/// Copies a picture into a frame of its geometry; `None` if it is not one.
pub fn write(picture: &Picture, frame: &mut VideoFrameRef<&mut gst::BufferRef>) -> Option<()> {
    let geometry = picture.geometry();
    for (plane, samples) in picture.planes().iter().enumerate() {
        let [width, _] = geometry.plane(plane);
        let stride = usize::try_from(*frame.plane_stride().get(plane)?).ok()?;
        let data = frame.plane_data_mut(plane as u32).ok()?;
        for (y, row) in samples.chunks_exact(width).enumerate() {
            data.get_mut(y * stride..)?
                .get_mut(..width)?
                .copy_from_slice(row);
        }
    }
    Some(())
}
