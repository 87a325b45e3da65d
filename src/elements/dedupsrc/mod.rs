// SPDX-License-Identifier: MPL-2.0
//! `dedupsrc`: plays a recording out of a vault, exactly as it was recorded.

mod errors;
mod imp;
mod settings;
mod stream;
mod timing;

use gst::glib;
use gst::prelude::*;

glib::wrapper! {
    /// The element.
    pub struct DedupSrc(ObjectSubclass<imp::DedupSrc>)
        @extends gst::Element, gst::Object,
        @implements gst::URIHandler;
}

/// Registers the element.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "dedupsrc",
        gst::Rank::PRIMARY,
        DedupSrc::static_type(),
    )
}

#[cfg(test)]
mod tests;
