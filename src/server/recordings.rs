// SPDX-License-Identifier: MPL-2.0
//! Routes of the metadata role about recordings.

use super::app::{App, Caller};
use super::ops;
use super::refusal::{Refusal, cbor};
use crate::identity::RecordingId;
use crate::ownership::Leaf;
use crate::protocol::{Code, Commit, Holder, Retention, RetentionInfo, SegmentBody, Share};
use crate::store::{Forgotten, Hash, Listed, now_ms, unhex};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::IntoResponse;
use std::sync::Arc;

type Answer<T> = Result<T, Refusal>;

/// The part of a path behind so many slashes: `/v1/recordings/ID` has the id at 3.
fn part(parts: &Parts, at: usize) -> &str {
    parts.uri.path().split('/').nth(at).unwrap_or_default()
}

fn id(parts: &Parts) -> Answer<RecordingId> {
    unhex(part(parts, 3)).ok_or_else(|| Refusal::malformed("a recording's id is 32 hex digits"))
}

fn seq(parts: &Parts) -> Answer<u64> {
    let wrong = |_| Refusal::malformed("a segment's number is a whole number");
    part(parts, 5).parse().map_err(wrong)
}

fn reader(parts: &Parts) -> Answer<Hash> {
    unhex(part(parts, 5)).ok_or_else(|| Refusal::malformed("a reader's key is 64 hex digits"))
}

/// What a query asks for.
#[derive(Default)]
struct Query {
    from: u64,
    owner: Option<Hash>,
    after: Option<RecordingId>,
}

fn query(parts: &Parts) -> Answer<Query> {
    let mut query = Query::default();
    let text = parts.uri.query().unwrap_or_default();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let wrong = || Refusal::malformed(format!("{pair:?} in the query is not understood"));
        match pair.split_once('=').ok_or_else(wrong)? {
            ("from", value) => query.from = value.parse().map_err(|_| wrong())?,
            ("owner", value) => query.owner = Some(unhex(value).ok_or_else(wrong)?),
            ("after", value) => query.after = Some(unhex(value).ok_or_else(wrong)?),
            _ => return Err(wrong()),
        }
    }
    Ok(query)
}

/// The leaf whose recording is meant: the caller's, or that of an owner who shares it.
async fn whose(app: &App, caller: &Caller, owner: Option<Hash>, id: RecordingId) -> Answer<Leaf> {
    match owner.filter(|owner| *owner != caller.key) {
        None => Ok(caller.leaf),
        Some(owner) => {
            let shared = app.metadata()?.store.shared(owner, id, caller.key).await?;
            shared.ok_or_else(|| Refusal::not_found("recording"))
        }
    }
}

/// `GET /v1/recordings`.
pub async fn list(
    State(app): State<Arc<App>>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let (caller, parts) = app.signed_empty(request).await?;
    let store = &app.metadata()?.store;
    let after = match query(&parts)? {
        Query {
            after: Some(id),
            owner: Some(owner),
            ..
        } => {
            let owner = store.owner(owner).await?;
            let owner = owner.ok_or_else(|| Refusal::not_found("owner"))?;
            Some(Listed::Shared(owner.leaf, id))
        }
        Query { after, .. } => after.map(Listed::Own),
    };
    Ok(cbor(
        &store.recordings(caller.leaf, caller.key, after).await?,
    ))
}

/// `GET /v1/recordings/{id}`.
pub async fn one(
    State(app): State<Arc<App>>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let (caller, parts) = app.signed_empty(request).await?;
    let (id, query) = (id(&parts)?, query(&parts)?);
    let owner = whose(&app, &caller, query.owner, id).await?;
    let store = &app.metadata()?.store;
    let recording = store.recording(owner, id, query.from).await?;
    Ok(cbor(
        &recording.ok_or_else(|| Refusal::not_found("recording"))?,
    ))
}

/// `DELETE /v1/recordings/{id}`.
pub async fn forget(State(app): State<Arc<App>>, request: Request) -> Answer<StatusCode> {
    let (caller, parts) = app.signed_empty(request).await?;
    let id = id(&parts)?;
    app.once(&caller).await?;
    let store = &app.metadata()?.store;
    match store.forget(caller.leaf, id, now_ms()).await? {
        Forgotten::Done => Ok(StatusCode::NO_CONTENT),
        Forgotten::Unknown => Err(Refusal::not_found("recording")),
        Forgotten::Held => Err(Refusal::new(
            Code::Held,
            "the recording is under legal hold, and nothing of it is deleted: `camvault ls` says \
             whose hold it is, `camvault hold --release` ends the owner's own",
        )),
    }
}

/// `PUT /v1/recordings/{id}/hold`: by the owner, or with the admin token and `?owner=HEX` by the
/// operator.
pub async fn hold(State(app): State<Arc<App>>, request: Request) -> Answer<StatusCode> {
    set_hold(&app, request, true).await
}

/// `DELETE /v1/recordings/{id}/hold`: each ends its own hold.
pub async fn release(State(app): State<Arc<App>>, request: Request) -> Answer<StatusCode> {
    set_hold(&app, request, false).await
}

async fn set_hold(app: &App, request: Request, on: bool) -> Answer<StatusCode> {
    let store = &app.metadata()?.store;
    let (owner, id, by) = match ops::has_admin_token(app, request.headers()) {
        true => {
            let parts = request.into_parts().0;
            let wanted = query(&parts)?.owner;
            let missing = || Refusal::malformed("an operator says whose recording: ?owner=HEX");
            let owner = store.owner(wanted.ok_or_else(missing)?).await?;
            let owner = owner.ok_or_else(|| Refusal::not_found("owner"))?;
            (owner.leaf, id(&parts)?, Holder::Operator)
        }
        false => {
            let (caller, parts) = app.signed_empty(request).await?;
            let id = id(&parts)?;
            app.once(&caller).await?;
            (caller.leaf, id, Holder::Owner)
        }
    };
    match store.hold(owner, id, by, on).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Refusal::not_found("recording")),
    }
}

/// `GET /v1/retention`.
pub async fn retention(
    State(app): State<Arc<App>>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let (caller, _) = app.signed_empty(request).await?;
    let store = &app.metadata()?.store;
    let owner = store.owner(caller.key).await?;
    let longest = app.config.retention_age;
    Ok(cbor(&RetentionInfo {
        own: store.retention(caller.leaf).await?,
        longest_ms: longest.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        bytes: owner.map_or(0, |owner| owner.bytes),
    }))
}

/// `PUT /v1/retention`.
pub async fn set_retention(State(app): State<Arc<App>>, request: Request) -> Answer<StatusCode> {
    let (caller, _, retention) = app.signed::<Retention>(request).await?;
    app.once(&caller).await?;
    let store = &app.metadata()?.store;
    store.set_retention(caller.leaf, retention).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/recordings/{id}/segments/{seq}`.
pub async fn segment(
    State(app): State<Arc<App>>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let (caller, parts) = app.signed_empty(request).await?;
    let (id, seq) = (id(&parts)?, seq(&parts)?);
    let owner = whose(&app, &caller, query(&parts)?.owner, id).await?;
    let manifest = app.metadata()?.store.segment(owner, id, seq).await?;
    let manifest = manifest
        .ok_or_else(|| Refusal::not_found("segment"))?
        .into();
    Ok(cbor(&SegmentBody { manifest }))
}

/// `PUT /v1/recordings/{id}/segments/{seq}`.
pub async fn commit(
    State(app): State<Arc<App>>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let (caller, parts, commit) = app.signed::<Commit>(request).await?;
    let (id, seq) = (id(&parts)?, seq(&parts)?);
    app.once(&caller).await?;
    let store = &app.metadata()?.store;
    let committed = store.commit(caller.leaf, id, seq, commit, now_ms()).await?;
    Ok(cbor(&committed))
}

/// `PUT /v1/recordings/{id}/shares/{key}`.
pub async fn share(State(app): State<Arc<App>>, request: Request) -> Answer<StatusCode> {
    let (caller, parts, share) = app.signed::<Share>(request).await?;
    let (id, reader) = (id(&parts)?, reader(&parts)?);
    app.once(&caller).await?;
    let store = &app.metadata()?.store;
    let sealed = share.sealed.into();
    match store.share(caller.leaf, id, reader, sealed).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Refusal::not_found("recording")),
    }
}

/// `DELETE /v1/recordings/{id}/shares/{key}`.
pub async fn unshare(State(app): State<Arc<App>>, request: Request) -> Answer<StatusCode> {
    let (caller, parts) = app.signed_empty(request).await?;
    let (id, reader) = (id(&parts)?, reader(&parts)?);
    app.once(&caller).await?;
    let store = &app.metadata()?.store;
    match store.unshare(caller.leaf, id, reader).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Refusal::not_found("share")),
    }
}
