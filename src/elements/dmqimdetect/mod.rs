// SPDX-License-Identifier: MPL-2.0
//! `dmqimdetect`: reads a watermark back.

mod imp;

use gst::glib;
use gst::prelude::*;

/// Codes that watermarks can be words of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstDmqimCode")]
pub enum Code {
    /// Any 128 bits.
    #[default]
    #[enum_value(name = "None: any 128 bits", nick = "none")]
    None,
    /// [128,29,44].
    #[enum_value(name = "BCH: 2^28 identities, 44 bits apart", nick = "bch29")]
    Bch29,
    /// [128,16,52].
    #[enum_value(
        name = "Concatenated: 2^15 identities, 52 bits apart",
        nick = "concatenated16"
    )]
    Concatenated16,
}

glib::wrapper! {
    /// The element.
    pub struct DmQimDetect(ObjectSubclass<imp::DmQimDetect>)
        @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

/// Registers the element.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "dmqimdetect",
        gst::Rank::NONE,
        DmQimDetect::static_type(),
    )
}
