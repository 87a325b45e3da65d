// SPDX-License-Identifier: MPL-2.0
//! The client's errors as element messages.

use crate::client::Error;
use crate::protocol::Code;

/// The message for an error; `opening` while the recording is being opened.
pub(super) fn message(error: &Error, opening: bool) -> gst::ErrorMessage {
    use gst::{CoreError, LibraryError, ResourceError, StreamError};
    match error {
        Error::Damaged { .. } | Error::Manifest { .. } | Error::Chain(_) => {
            gst::error_msg!(StreamError::Decrypt, ("{error}"))
        }
        Error::NoRecording(_) => gst::error_msg!(ResourceError::NotFound, ("{error}")),
        Error::Refused { code, .. } => match code {
            Code::NotFound => gst::error_msg!(ResourceError::NotFound, ("{error}")),
            Code::NotEnrolled | Code::Signature | Code::Capability => {
                gst::error_msg!(ResourceError::NotAuthorized, ("{error}"))
            }
            _ => gst::error_msg!(ResourceError::Read, ("{error}")),
        },
        Error::Identity(_) | Error::Url(_) => {
            gst::error_msg!(LibraryError::Settings, ("{error}"))
        }
        Error::Network { .. } | Error::Untrusted { .. } if opening => {
            gst::error_msg!(ResourceError::OpenRead, ("{error}"))
        }
        Error::Cancelled => gst::error_msg!(CoreError::Failed, ("{error}")),
        _ => gst::error_msg!(ResourceError::Read, ("{error}")),
    }
}
