// SPDX-License-Identifier: MPL-2.0
//! The meta `CamvaultPhash` on buffers: what their frame looked like.
//!
//! It has no tags, so elements that keep metas they know nothing of keep it: converters, scalers,
//! encoders, parsers. It stays in its process.

use crate::feature::Feature;
use gst::glib;
use gst::meta::CustomMeta;
use std::sync::Once;

/// Name of the meta. Its fields: `phash` (string of 16 hexadecimal digits), `luma-mean` and
/// `luma-deviation` (double, 0 to 255), `timestamp` (uint64, nanoseconds: the frame's, absent if
/// it had none).
pub const META: &str = "CamvaultPhash";

/// Makes the meta known to GStreamer; safe to call again.
pub fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if !CustomMeta::is_registered(META) {
            CustomMeta::register(META, &[]);
        }
    });
}

/// Hangs `feature` on `buffer`, in the place of one that is there.
pub fn put(buffer: &mut gst::BufferRef, feature: &Feature) -> Result<(), glib::BoolError> {
    let timestamp = buffer.pts();
    let there = CustomMeta::from_buffer(buffer, META).is_ok();
    let mut meta = match there {
        true => CustomMeta::from_mut_buffer(buffer, META)?,
        false => CustomMeta::add(buffer, META)?,
    };
    let structure = meta.mut_structure();
    structure.set("phash", feature.phash.to_string());
    structure.set("luma-mean", feature.mean);
    structure.set("luma-deviation", feature.deviation);
    match timestamp {
        Some(timestamp) => structure.set("timestamp", timestamp),
        None => structure.remove_field("timestamp"),
    }
    Ok(())
}

/// What hangs on `buffer`, and the timestamp of the frame that it was taken of.
pub fn feature(buffer: &gst::BufferRef) -> Option<(Feature, Option<gst::ClockTime>)> {
    let meta = CustomMeta::from_buffer(buffer, META).ok()?;
    let structure = meta.structure();
    let feature = Feature {
        phash: structure.get::<&str>("phash").ok()?.parse().ok()?,
        mean: structure.get("luma-mean").ok()?,
        deviation: structure.get("luma-deviation").ok()?,
    };
    Some((feature, structure.get("timestamp").ok()))
}
