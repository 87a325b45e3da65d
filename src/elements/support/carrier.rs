// SPDX-License-Identifier: MPL-2.0
//! Clear chunks inside the process: they hang on buffers as a meta that no element can write
//! anywhere, so that a file or socket sink in the wrong place gets no content. The buffers' own bytes
//! say so (empty ones upset some elements).

use crate::client::recorder::StreamChunk;
use gst::glib;
use gst::meta::CustomMeta;
use std::sync::{Arc, Once};

/// Name of the meta.
pub const META: &str = "CamvaultChunk";
/// Media type of buffers that carry chunks, clear or sealed.
pub const MEDIA_TYPE: &str = "application/x-rce-chunk";

const FIELD: &str = "chunk";

/// All that the bytes of a buffer with a clear chunk are.
const NOTE: &[u8] =
    b"camvault: this chunk stays in its process; seal=true makes chunks that can leave it\n";

#[derive(Clone, glib::Boxed)]
#[boxed_type(name = "GstCamvaultChunk")]
struct Carried(Arc<StreamChunk>);

/// Makes the meta known to GStreamer; safe to call again.
pub fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if !CustomMeta::is_registered(META) {
            CustomMeta::register(META, &[]);
        }
    });
}

/// Whether a buffer is one of those that carry clear chunks.
pub fn carries(buffer: &gst::BufferRef) -> bool {
    buffer.size() == NOTE.len()
        && buffer
            .map_readable()
            .is_ok_and(|bytes| bytes.as_slice() == NOTE)
}

/// Hangs `chunk` on `buffer`, which is empty.
pub fn put(buffer: &mut gst::BufferRef, chunk: StreamChunk) -> Result<(), glib::BoolError> {
    buffer.append_memory(gst::Memory::from_slice(NOTE));
    let mut meta = CustomMeta::add(buffer, META)?;
    meta.mut_structure().set(FIELD, Carried(Arc::new(chunk)));
    Ok(())
}

/// Takes the chunk off `buffer`. It is copied only if others (behind a `tee`) have the buffer too.
pub fn take(mut buffer: gst::Buffer) -> Option<StreamChunk> {
    let Carried(chunk) = match buffer.get_mut() {
        Some(buffer) => {
            let mut meta = CustomMeta::from_mut_buffer(buffer, META).ok()?;
            let carried = meta.structure().get(FIELD).ok()?;
            meta.mut_structure().remove_field(FIELD);
            carried
        }
        None => CustomMeta::from_buffer(&buffer, META)
            .ok()?
            .structure()
            .get(FIELD)
            .ok()?,
    };
    Some(Arc::unwrap_or_clone(chunk))
}
