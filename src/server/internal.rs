// SPDX-License-Identifier: MPL-2.0
//! The storage role's endpoint for the metadata role of another process.

use super::app::{App, parse};
use super::auth::header;
use super::body;
use super::refusal::{Refusal, cbor};
use super::tokens::INTERNAL_HEADER;
use crate::protocol::Code;
use crate::store::answer;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use std::sync::Arc;

/// Where it is.
pub const PATH: &str = "/v1/internal/blobs";
/// Bytes of a question.
const BODY_BYTES: u64 = 1 << 20;

/// `POST /v1/internal/blobs`: an [`Ask`](crate::store::Ask), authenticated with the link secret.
pub async fn ask(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<impl IntoResponse + use<>, Refusal> {
    let (parts, body) = request.into_parts();
    let seal = header(&parts.headers, INTERNAL_HEADER)?;
    let body = body::read(&parts.headers, body, BODY_BYTES, app.config.pace).await?;
    let sealed = app.link.check_internal(seal, &body);
    let wrong = || Refusal::new(Code::Signature, "the two servers do not share a link secret");
    let (created, nonce) = sealed.ok_or_else(wrong)?;
    app.fresh_internal(created, nonce)?;
    let upkeep = app.storage()?.store.clone();
    Ok(cbor(&answer(&*upkeep, parse(&body)?).await?))
}
