// SPDX-License-Identifier: MPL-2.0
#![warn(missing_docs)]
//! camvault: camera feeds go in; encrypted, deduplicated, provably forgettable footage comes out.

pub mod arbiter;
pub mod chunk;
pub mod client;
pub mod elements;
pub mod feature;
pub mod gateway;
pub mod homomorphic;
pub mod identity;
pub mod luma;
mod mac;
pub mod manifest;
pub mod ownership;
pub mod protocol;
pub mod rce;
pub mod sealed;
pub mod server;
pub mod store;
mod trust;
pub mod watermark;

pub use plugin::plugin_desc::plugin_register_static;

/// What GStreamer looks for in the library.
#[allow(missing_docs)]
mod plugin {
    use crate::elements::register;

    gst::plugin_define!(
        camvault,
        env!("CARGO_PKG_DESCRIPTION"),
        register,
        concat!(env!("CARGO_PKG_VERSION"), "-", env!("COMMIT_ID")),
        "MPL-2.0",
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_REPOSITORY"),
        env!("BUILD_REL_DATE")
    );
}
