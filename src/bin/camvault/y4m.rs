// SPDX-License-Identifier: MPL-2.0
//! YUV4MPEG2: raw frames in a file that players read, byte for byte.

use gstcamvault::protocol::Video;
use gstcamvault::sealed::{Chroma, Picture};
use std::io::{self, Write};

/// Writes the line before all frames. Frames of a rate that varies are written as 25 a second.
pub fn write_head(out: &mut impl Write, video: &Video) -> io::Result<()> {
    let (frames, seconds) = rate(video);
    let chroma = match video.chroma.into() {
        Chroma::None => "mono",
        Chroma::I420 => "420jpeg",
        Chroma::Y42B => "422",
        Chroma::Y444 => "444",
    };
    let (width, height) = (video.width, video.height);
    writeln!(
        out,
        "YUV4MPEG2 W{width} H{height} F{frames}:{seconds} Ip A1:1 C{chroma}"
    )
}

/// Frames in so many seconds.
pub fn rate(video: &Video) -> (u32, u32) {
    match video.rate {
        (0, _) | (_, 0) => (25, 1),
        rate => rate,
    }
}

/// Writes a frame.
pub fn write_frame(out: &mut impl Write, picture: &Picture) -> io::Result<()> {
    out.write_all(b"FRAME\n")?;
    let mut planes = picture.planes().iter();
    planes.try_for_each(|plane| out.write_all(plane))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gstcamvault::protocol::ChromaKind;
    use gstcamvault::sealed::Geometry;

    #[test]
    fn odd_sizes_have_chroma_for_every_sample() {
        let video = Video {
            width: 5,
            height: 3,
            chroma: ChromaKind::I420,
            rate: (30000, 1001),
        };
        let mut out = Vec::new();
        write_head(&mut out, &video).unwrap();
        let picture = Picture::new(Geometry::new(5, 3, Chroma::I420).unwrap());
        write_frame(&mut out, &picture).unwrap();
        let head = b"YUV4MPEG2 W5 H3 F30000:1001 Ip A1:1 C420jpeg\nFRAME\n";
        assert!(out.starts_with(head));
        assert_eq!(out.len(), head.len() + 15 + 2 * 6);
    }
}
