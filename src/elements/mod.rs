// SPDX-License-Identifier: MPL-2.0
//! The GStreamer elements.

pub mod dedupsink;
pub mod dedupsrc;
pub mod dmqimdetect;
pub mod dmqimmark;
pub mod dmqimopen;
pub mod phashtag;
pub mod rcededuppay;
pub mod support;

use gst::glib;

/// Registers all elements and what they share with `plugin`.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    support::carrier::register();
    rcededuppay::register(plugin)?;
    dedupsink::register(plugin)?;
    dedupsrc::register(plugin)?;
    phashtag::register(plugin)?;
    dmqimmark::register(plugin)?;
    dmqimopen::register(plugin)?;
    dmqimdetect::register(plugin)
}
