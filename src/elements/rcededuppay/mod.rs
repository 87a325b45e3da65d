// SPDX-License-Identifier: MPL-2.0
//! `rcededuppay`: cuts a stream into chunks that every recorder of it cuts alike.

mod imp;
mod track;

use gst::glib;
use gst::prelude::*;

/// What happens to a group of pictures in which packets were lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstCamvaultDamaged")]
pub enum Damaged {
    /// Recorded, and marked.
    #[default]
    #[enum_value(name = "Keep: record and mark what is damaged", nick = "keep")]
    Keep,
    /// Dropped.
    #[enum_value(name = "Drop: refuse groups of pictures with losses", nick = "drop")]
    Drop,
}

glib::wrapper! {
    /// The element.
    pub struct RceDedupPay(ObjectSubclass<imp::RceDedupPay>)
        @extends gst::Element, gst::Object;
}

/// Registers the element.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "rcededuppay",
        gst::Rank::NONE,
        RceDedupPay::static_type(),
    )
}
