// SPDX-License-Identifier: MPL-2.0
//! `phashtag`: says what frames look like, in 64 bits each.

mod imp;
mod meta;

pub use meta::{META, feature};

use gst::glib;
use gst::prelude::*;

glib::wrapper! {
    /// The element.
    pub struct PhashTag(ObjectSubclass<imp::PhashTag>)
        @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

/// Registers the element and its meta.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    meta::register();
    gst::Element::register(
        Some(plugin),
        "phashtag",
        gst::Rank::NONE,
        PhashTag::static_type(),
    )
}
