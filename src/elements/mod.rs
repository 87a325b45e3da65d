// SPDX-License-Identifier: MPL-2.0
//! The GStreamer elements.

pub mod dedupsrc;
pub mod support;

use gst::glib;

/// Registers all elements and what they share with `plugin`.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    dedupsrc::register(plugin)
}
