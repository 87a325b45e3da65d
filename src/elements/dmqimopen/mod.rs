// SPDX-License-Identifier: MPL-2.0
//! `dmqimopen`: the cloud's side of sealed streams.

mod imp;
mod taken;

pub use imp::DEFAULT_MAX_PIXELS;

use gst::glib;
use gst::prelude::*;

glib::wrapper! {
    /// The element.
    pub struct DmQimOpen(ObjectSubclass<imp::DmQimOpen>) @extends gst::Element, gst::Object;
}

/// Media type of the owner's remainders, which the cloud keeps beside the frames.
pub const REMAINDER_TYPE: &str = "application/x-dmqim-remainder";

/// Registers the element.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "dmqimopen",
        gst::Rank::NONE,
        DmQimOpen::static_type(),
    )
}
