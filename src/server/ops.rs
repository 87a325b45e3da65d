// SPDX-License-Identifier: MPL-2.0
//! Routes for those who run the server.

use super::app::{App, Peer};
use super::auth::header;
use super::refusal::{Refusal, cbor};
use super::upkeep;
use crate::protocol::{Code, Jobs, VERSION, VaultInfo};
use crate::store::now_ms;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
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

/// Whether a request has the admin token.
pub fn has_admin_token(app: &App, headers: &HeaderMap) -> bool {
    let sent = header(headers, "authorization").unwrap_or_default();
    let sent = sent.strip_prefix("Bearer ").unwrap_or_default().trim();
    bool::from(sent.as_bytes().ct_eq(app.admin_token.as_bytes()))
}

/// Lets a request pass that comes from the machine itself or has the admin token.
fn check_operator(app: &App, request: &Request) -> Result<(), Refusal> {
    let peer = request.extensions().get::<Peer>();
    let near = peer.is_some_and(|peer| peer.0.ip().to_canonical().is_loopback());
    match near || has_admin_token(app, request.headers()) {
        true => Ok(()),
        false => Err(Refusal::new(
            Code::Signature,
            "this needs the token in the server's data directory, secrets/admin.token",
        )),
    }
}

/// `POST /v1/scrub?orphan_age=SECONDS`, for operators: begins a scrub or joins the one that runs,
/// and says how far it is.
pub async fn scrub(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<impl IntoResponse + use<>, Refusal> {
    check_operator(&app, &request)?;
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
    let beginning = upkeep::Scrub::beginning(orphan_age);
    let job = role.jobs.start(upkeep::SCRUB, beginning).await?;
    role.wake.notify_waiters();
    Ok(cbor(&job))
}

/// `GET /v1/jobs`, for operators.
pub async fn jobs(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<impl IntoResponse + use<>, Refusal> {
    check_operator(&app, &request)?;
    let jobs = app.metadata()?.store.jobs().await?;
    let time_ms = now_ms();
    Ok(cbor(&Jobs { jobs, time_ms }))
}
