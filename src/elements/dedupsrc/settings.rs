// SPDX-License-Identifier: MPL-2.0
//! What is asked for, and whether it makes sense.

use super::errors;
use crate::client::reader::{Request, Snap, Timeline};
use crate::identity::Identity;
use crate::protocol::{RecordingUrl, Window};
use std::path::Path;
use std::sync::Arc;

/// Environment variable with the path of the identity file.
pub(super) const IDENTITY_VARIABLE: &str = "CAMVAULT_IDENTITY";
pub(super) const DEFAULT_FOLLOW: bool = false;

/// The properties.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub uri: Option<String>,
    pub identity: Option<String>,
    pub from: Option<String>,
    pub to: Option<String>,
    pub follow: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            uri: None,
            identity: None,
            from: None,
            to: None,
            follow: DEFAULT_FOLLOW,
        }
    }
}

/// Settings that make sense.
#[derive(Debug)]
pub(super) struct Target {
    pub url: RecordingUrl,
    pub identity: Arc<Identity>,
    pub window: Window,
    pub follow: bool,
}

impl Target {
    pub fn new(settings: &Settings) -> Result<Self, gst::ErrorMessage> {
        let wrong = |error: crate::client::Error| errors::message(&error, true);
        let uri = given(&settings.uri).ok_or_else(|| {
            gst::error_msg!(
                gst::ResourceError::NotFound,
                ("no recording: set uri to camvault://HOST:PORT/NAME")
            )
        })?;
        let url: RecordingUrl = uri
            .parse()
            .map_err(|e| wrong(crate::client::Error::Url(e)))?;
        let variable = std::env::var(IDENTITY_VARIABLE).ok();
        let path = given(&settings.identity).or(given(&variable));
        let path = path.ok_or_else(|| {
            gst::error_msg!(
                gst::LibraryError::Settings,
                ("no identity file: set identity, or {IDENTITY_VARIABLE} in the environment")
            )
        })?;
        let identity = Identity::load(Path::new(path)).map_err(|e| wrong(e.into()))?;
        let mut window = url.window;
        for (text, moment) in [
            (&settings.from, &mut window.from),
            (&settings.to, &mut window.to),
        ] {
            if let Some(text) = given(text) {
                *moment = Some(
                    text.parse()
                        .map_err(|e| wrong(crate::client::Error::Url(e)))?,
                );
            }
        }
        Ok(Self {
            url,
            identity: Arc::new(identity),
            window,
            follow: settings.follow,
        })
    }

    /// What is to be played first.
    pub fn request(&self, timeline: &Timeline) -> Result<Request, gst::ErrorMessage> {
        let from = self.window.from.map_or(0, |from| timeline.resolve(from));
        let from = from.max(timeline.start());
        let stop = self.window.to.map(|to| timeline.resolve(to));
        if stop.is_some_and(|stop| stop <= from) {
            return Err(gst::error_msg!(
                gst::LibraryError::Settings,
                (
                    "nothing was recorded from {} to {}: from must be before to",
                    from,
                    stop.unwrap_or(0)
                )
            ));
        }
        Ok(Request {
            from,
            snap: Snap::Accurate,
            stop,
            follow: self.follow,
        })
    }
}

fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}
