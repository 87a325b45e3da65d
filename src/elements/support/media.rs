// SPDX-License-Identifier: MPL-2.0
//! What caps say about a stream.

use crate::chunk::{Codec, Framing};
use std::sync::LazyLock;

/// Caps of a stream that came without any.
pub const BYTES: &str = "application/octet-stream";

/// The media types that have to come in a certain form. Others are taken as they are.
static FORMS: LazyLock<gst::Caps> = LazyLock::new(|| {
    let mut forms: gst::Caps = [
        "video/x-h264, stream-format=(string){ avc, avc3, byte-stream }, alignment=(string)au",
        "video/x-h265, stream-format=(string){ hvc1, hev1, byte-stream }, alignment=(string)au",
        "image/jpeg, parsed=(boolean)true",
        "audio/mpeg, mpegversion=(int){ 2, 4 }, stream-format=(string){ raw, adts }, framed=(boolean)true",
        "audio/mpeg, mpegversion=(int)1, parsed=(boolean)true",
        "video/x-raw",
        "audio/x-raw",
    ]
    .iter()
    .filter_map(|text| text.parse::<gst::Caps>().ok())
    .collect();
    forms.make_mut().mark_may_be_leaked();
    forms
});

/// Whether a stream with `caps` can be taken.
pub fn accepts(caps: &gst::CapsRef) -> bool {
    caps.is_any() || !offered(Some(caps)).is_empty()
}

/// The part of `filter` that can be taken. What is not in `filter` cannot be listed: there is no
/// way to say "anything but" in caps.
pub fn offered(filter: Option<&gst::CapsRef>) -> gst::Caps {
    let Some(filter) = filter.filter(|filter| !filter.is_any()) else {
        return gst::Caps::new_any();
    };
    let mut caps = gst::Caps::new_empty();
    for (structure, features) in filter.iter_with_features() {
        let one = gst::Caps::builder_full()
            .structure_with_features(structure.to_owned(), features.to_owned())
            .build();
        let has_form = FORMS.iter().any(|form| form.name() == structure.name());
        caps.merge(match has_form {
            true => one.intersect(&FORMS),
            false => one,
        });
    }
    caps
}

/// How a stream is taken apart. Streams that nothing is known of are bytes, unless they have
/// times: then every buffer is an access unit.
pub fn codec(caps: Option<&gst::CapsRef>, in_time: bool) -> Codec {
    let Some(structure) = caps.and_then(|caps| caps.structure(0)) else {
        return Codec::Bytes;
    };
    let format = structure.get::<&str>("stream-format").unwrap_or_default();
    match structure.name().as_str() {
        "video/x-h264" => Codec::H264(framing(structure, format, 4)),
        "video/x-h265" => Codec::H265(framing(structure, format, 21)),
        "image/jpeg" => Codec::Jpeg,
        "audio/mpeg" if format == "adts" => Codec::AacAdts,
        "audio/mpeg" | "audio/x-opus" | "audio/x-mulaw" | "audio/x-alaw" | "audio/x-raw"
        | "video/x-raw" => Codec::Opaque,
        BYTES => Codec::Bytes,
        _ if in_time => Codec::Opaque,
        _ => Codec::Bytes,
    }
}

/// The length size stands in two bits at `offset` of the decoder configuration record; 4 bytes
/// where there is none.
fn framing(structure: &gst::StructureRef, format: &str, offset: usize) -> Framing {
    if format == "byte-stream" {
        return Framing::AnnexB;
    }
    let size = structure
        .get::<gst::Buffer>("codec_data")
        .ok()
        .and_then(|data| data.map_readable().ok()?.get(offset).copied())
        .map_or(4, |byte| (byte & 3) + 1);
    Framing::LengthPrefixed(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(text: &str) -> gst::Caps {
        text.parse().unwrap()
    }

    #[test]
    fn forms_are_asked_for_and_everything_else_is_taken() {
        gst::init().unwrap();
        for (text, taken) in [
            ("video/x-h264, stream-format=avc, alignment=au", true),
            ("video/x-h264, stream-format=avc, alignment=nal", false),
            ("image/jpeg", true),
            ("image/jpeg, parsed=false", false),
            ("audio/mpeg, mpegversion=4, stream-format=raw", true),
            (
                "audio/mpeg, mpegversion=4, stream-format=adts, framed=false",
                false,
            ),
            ("audio/mpeg, mpegversion=1, layer=3, parsed=true", true),
            ("video/x-raw, format=I420", true),
            ("video/x-raw(memory:DMABuf), format=I420", false),
            ("video/x-vp9", true),
            ("application/x-none-that-is-known", true),
        ] {
            assert_eq!(accepts(&caps(text)), taken, "{text}");
        }
        assert!(offered(None).is_any());
    }

    #[test]
    fn codecs() {
        gst::init().unwrap();
        let of = |text: &str, in_time| codec(Some(&caps(text)), in_time);
        let avc = "video/x-h264, stream-format=avc, codec_data=(buffer)01640028fd";
        assert_eq!(of(avc, true), Codec::H264(Framing::LengthPrefixed(2)));
        let short = "video/x-h265, stream-format=hvc1, codec_data=(buffer)01";
        assert_eq!(of(short, true), Codec::H265(Framing::LengthPrefixed(4)));
        assert_eq!(
            of("video/x-h264, stream-format=byte-stream", true),
            Codec::H264(Framing::AnnexB)
        );
        assert_eq!(of("video/x-vp8", true), Codec::Opaque);
        assert_eq!(of("video/mpegts", false), Codec::Bytes);
        assert_eq!(of(BYTES, true), Codec::Bytes);
        assert_eq!(codec(None, true), Codec::Bytes);
    }
}
