// SPDX-License-Identifier: MPL-2.0
//! Answers that are not 2xx.

use crate::protocol::{self, CBOR, Code, Problem};
use crate::store;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Why a request was not done. Becomes a [`Problem`].
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    code: Code,
    message: String,
    time_ms: Option<u64>,
    retry_s: u64,
}

impl Refusal {
    /// A refusal of a kind, with what happened and what to do.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            time_ms: None,
            retry_s: 1,
        }
    }

    /// [`Code::Busy`] for so many milliseconds, by a limit of this owner's.
    pub fn too_fast(wait_ms: u64) -> Self {
        let message = "more than this server allows one owner in a second: wait, and go on";
        Self {
            retry_s: wait_ms.div_ceil(1000).clamp(1, 60),
            ..Self::new(Code::Busy, message)
        }
    }

    /// [`Code::Malformed`].
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(Code::Malformed, message)
    }

    /// [`Code::NotFound`].
    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("there is no such {what}"))
    }

    /// [`Code::TooLarge`].
    pub fn too_large(what: &str, limit: u64) -> Self {
        let message = format!("{what} is over this server's limit of {limit}: see GET /v1/vault");
        Self::new(Code::TooLarge, message)
    }

    /// [`Code::Clock`] with the server's clock.
    pub fn clock(now_ms: u64) -> Self {
        let message = "the signature's time is too far from the server's: sign again by its clock";
        Self {
            time_ms: Some(now_ms),
            ..Self::new(Code::Clock, message)
        }
    }

    /// [`Code::Internal`]; what exactly failed is for the operator's eyes.
    pub fn failed(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "a request failed");
        Self::new(Code::Internal, "the server failed: its log says why")
    }

    fn status(&self) -> StatusCode {
        match self.code {
            Code::Malformed => StatusCode::BAD_REQUEST,
            Code::Signature | Code::Clock | Code::Replay => StatusCode::UNAUTHORIZED,
            Code::NotEnrolled | Code::Capability => StatusCode::FORBIDDEN,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Code::Quota | Code::Full => StatusCode::INSUFFICIENT_STORAGE,
            Code::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Code::Slow => StatusCode::REQUEST_TIMEOUT,
            Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Code::Conflict => StatusCode::CONFLICT,
            Code::Gone => StatusCode::GONE,
            Code::Audit => StatusCode::FORBIDDEN,
            Code::Held => StatusCode::LOCKED,
        }
    }
}

impl From<store::Error> for Refusal {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Full => Self::new(Code::Full, format!("the server has {error}")),
            store::Error::Again => Self::new(Code::Busy, error.to_string()),
            store::Error::Quota { .. } => Self::new(Code::Quota, error.to_string()),
            store::Error::Away(_) => {
                tracing::warn!(error = %error, "the database is away");
                Self::new(Code::Busy, "the database does not answer: try again")
            }
            error => Self::failed(&error),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, retry_s) = (self.status(), self.retry_s);
        let problem = Problem {
            code: self.code,
            message: self.message,
            time_ms: self.time_ms,
        };
        let mut response = (status, cbor(&problem)).into_response();
        let headers = response.headers_mut();
        if problem.code == Code::Busy {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_s));
        }
        // What may be left of the request's body is not worth reading.
        if matches!(problem.code, Code::TooLarge | Code::Slow) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// A CBOR body.
pub fn cbor<T: minicbor::Encode<()>>(message: &T) -> impl IntoResponse + use<T> {
    ([(header::CONTENT_TYPE, CBOR)], protocol::encode(message))
}
