// SPDX-License-Identifier: MPL-2.0
//! Routes for those who run the server.

use super::app::{App, Peer};
use super::auth::header;
use super::refusal::{Refusal, cbor};
use super::upkeep;
use crate::protocol::{Code, VERSION, VaultInfo};
use crate::store::now_ms;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq as _;

/// Age from which a blob without variants is an orphan: younger ones may be about to be
/// registered.
pub const ORPHAN_AGE: Duration = Duration::from_secs(3600);

/// Every other path.
pub async fn not_found() -> Refusal {
    Refusal::not_found("path or method")
}

/// `GET /v1/vault`.
pub async fn vault(State(app): State<Arc<App>>) -> impl IntoResponse {
    let token_needed = |role: &super::app::MetadataRole| role.enroll_token.is_some();
    cbor(&VaultInfo {
        version: VERSION,
        storage: app.config.storage_url.clone(),
        time_ms: now_ms(),
        token_needed: app.metadata.as_ref().is_some_and(token_needed),
        limits: app.config.limits,
    })
}

/// `GET /v1/stats`.
pub async fn stats(State(app): State<Arc<App>>) -> Result<impl IntoResponse + use<>, Refusal> {
    Ok(cbor(&app.metadata()?.store.stats().await?))
}

/// `POST /v1/scrub?orphan_age=SECONDS`: from the machine itself, or with the admin token.
pub async fn scrub(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<impl IntoResponse + use<>, Refusal> {
    let near = request.extensions().get::<Peer>();
    if !near.is_some_and(|peer| peer.0.ip().to_canonical().is_loopback()) {
        let sent = header(request.headers(), "authorization").unwrap_or_default();
        let sent = sent.strip_prefix("Bearer ").unwrap_or_default().trim();
        if !bool::from(sent.as_bytes().ct_eq(app.admin_token.as_bytes())) {
            return Err(Refusal::new(
                Code::Signature,
                "a scrub needs the token in the server's data directory, secrets/admin.token",
            ));
        }
    }
    let query = request.uri().query().unwrap_or_default();
    let orphan_age = match query.strip_prefix("orphan_age=") {
        None if query.is_empty() => ORPHAN_AGE,
        age => {
            let seconds = age.and_then(|age| age.parse().ok());
            let wrong = || Refusal::malformed("only orphan_age=SECONDS is understood");
            Duration::from_secs(seconds.ok_or_else(wrong)?)
        }
    };
    let role = app.metadata()?;
    let report = upkeep::scrub(&*role.store, &*role.upkeep, orphan_age, &role.sweeping).await?;
    app.metrics.scrubbed(&report);
    Ok(cbor(&report))
}
