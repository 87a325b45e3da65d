// SPDX-License-Identifier: MPL-2.0
//! `dedupsink`: stores the chunks of one or more tracks as a recording in a vault.

mod imp;
mod settings;
mod track;

use crate::client::recorder;
use gst::glib;
use gst::prelude::*;

/// How copies that are there already are checked before they are relied on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstCamvaultVerify")]
pub enum Verify {
    /// By what the server knows of them, and by encrypting again.
    #[default]
    #[enum_value(
        name = "Deep: finds a garbage blob behind right metadata",
        nick = "deep"
    )]
    Deep,
    /// By what the server knows of them.
    #[enum_value(name = "Tag: as in the paper", nick = "tag")]
    Tag,
}

impl From<Verify> for recorder::Verify {
    fn from(verify: Verify) -> Self {
        match verify {
            Verify::Deep => Self::Deep,
            Verify::Tag => Self::Tag,
        }
    }
}

glib::wrapper! {
    /// The element.
    pub struct DedupSink(ObjectSubclass<imp::DedupSink>)
        @extends gst::Element, gst::Object;
}

/// Registers the element.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "dedupsink",
        gst::Rank::NONE,
        DedupSink::static_type(),
    )
}
