// SPDX-License-Identifier: MPL-2.0
//! `dmqimmark`: embeds a watermark into raw video.

mod imp;
mod meta;
mod sealed;

pub use meta::put as put_watermark;
pub use sealed::MEDIA_TYPE;

use gst::glib;
use gst::prelude::*;

glib::wrapper! {
    /// The element.
    pub struct DmQimMark(ObjectSubclass<imp::DmQimMark>)
        @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

/// Registers the element and the meta that can bring it watermarks.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    meta::register();
    gst::Element::register(
        Some(plugin),
        "dmqimmark",
        gst::Rank::NONE,
        DmQimMark::static_type(),
    )
}
