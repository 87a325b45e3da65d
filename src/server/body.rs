// SPDX-License-Identifier: MPL-2.0
//! Reads request bodies within their limits of size and time.

use super::refusal::Refusal;
use crate::protocol::Code;
use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures::StreamExt as _;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// A body has this long, ...
const GRACE: Duration = Duration::from_secs(30);
/// ... and a second more for each so many bytes.
const SLOWEST: u64 = 64 << 10;

/// How slow a body may be.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Time that any body has.
    pub grace: Duration,
    /// Bytes for each of which a second is added.
    pub bytes_per_second: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            grace: GRACE,
            bytes_per_second: SLOWEST,
        }
    }
}

/// The length that a request announces; none if it is chunked.
pub fn announced(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// Reads a body of at most `limit` bytes piece by piece. Returns how many bytes came.
pub async fn read_parts(
    headers: &HeaderMap,
    body: Body,
    limit: u64,
    pace: Pace,
    mut take: impl FnMut(Bytes) -> Result<(), Refusal>,
) -> Result<u64, Refusal> {
    let too_large = || Refusal::too_large("the request's body", limit);
    let expected = announced(headers).unwrap_or(limit);
    if expected > limit {
        return Err(too_large());
    }
    let more = Duration::from_secs(expected / pace.bytes_per_second.max(1));
    let deadline = Instant::now() + pace.grace + more;
    let mut stream = body.into_data_stream();
    let mut read = 0;
    loop {
        let slow = |_| {
            Refusal::new(
                Code::Slow,
                "the request's body came too slowly: send it again",
            )
        };
        match timeout_at(deadline, stream.next()).await.map_err(slow)? {
            None => return Ok(read),
            Some(Err(_)) => return Err(Refusal::malformed("the request's body ended early")),
            Some(Ok(part)) => {
                read += part.len() as u64;
                if read > limit {
                    return Err(too_large());
                }
                take(part)?;
            }
        }
    }
}

/// Reads a whole body of at most `limit` bytes.
pub async fn read(
    headers: &HeaderMap,
    body: Body,
    limit: u64,
    pace: Pace,
) -> Result<Bytes, Refusal> {
    let mut parts = Vec::new();
    let keep = |part| {
        parts.push(part);
        Ok(())
    };
    read_parts(headers, body, limit, pace, keep).await?;
    Ok(match parts.len() {
        0 | 1 => parts.pop().unwrap_or_default(),
        _ => parts.concat().into(),
    })
}
