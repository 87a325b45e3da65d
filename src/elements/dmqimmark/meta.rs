// SPDX-License-Identifier: MPL-2.0
//! The meta `CamvaultWatermark` on buffers: which watermark `dmqimmark` is to embed into a frame.

use crate::watermark::Word;
use gst::glib;
use gst::meta::CustomMeta;
use std::sync::Once;

/// Name of the meta. Its field `watermark` is a string of 32 hexadecimal digits.
const META: &str = "CamvaultWatermark";

/// Makes the meta known to GStreamer; safe to call again.
pub(super) fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if !CustomMeta::is_registered(META) {
            CustomMeta::register(META, &[]);
        }
    });
}

/// Hangs a watermark on a frame, for a `dmqimmark` behind; it counts instead of the property. The
/// element takes the meta off: what is behind it cannot read the watermark there.
pub fn put(buffer: &mut gst::BufferRef, word: Word) -> Result<(), glib::BoolError> {
    register();
    let mut meta = CustomMeta::add(buffer, META)?;
    meta.mut_structure().set("watermark", word.to_string());
    Ok(())
}

/// Takes the watermark off a frame: `None` if there is none, an error if it is not one.
pub(super) fn take(
    buffer: &mut gst::BufferRef,
) -> Option<Result<Word, crate::watermark::WordError>> {
    let meta = CustomMeta::from_mut_buffer(buffer, META).ok()?;
    let text = meta
        .structure()
        .get::<&str>("watermark")
        .unwrap_or_default();
    let word = text.parse();
    if let Err(e) = meta.remove() {
        gst::warning!(gst::CAT_RUST, "A watermark stays on its buffer: {e}");
    }
    Some(word)
}
