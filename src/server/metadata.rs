// SPDX-License-Identifier: MPL-2.0
//! Routes of the metadata role about owners and chunks.

use super::app::{App, Caller, MetadataRole, now_s, parse};
use super::auth::Binds;
use super::refusal::{Refusal, cbor};
use super::tokens::CAPABILITY_S;
use crate::identity::PublicId;
use crate::ownership::Leaf;
use crate::protocol::{
    Code, Enroll, Enrolled, Found, FoundChunk, Lookup, Open, Opened, OpenedChunk, Outcome,
    PATH_KEYS_INFO, Register, Registered,
};
use crate::store::{Error, Item, Via, now_ms};
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

type Answer<T> = Result<T, Refusal>;

/// Bytes of an enrolment's body.
const ENROLL_BYTES: u64 = 4096;

fn enrolled(role: &MetadataRole, leaf: Leaf, public: &PublicId) -> Answer<Enrolled> {
    let sealed = public.seal(PATH_KEYS_INFO, &role.tree.path_keys(leaf));
    let path_keys = sealed.map_err(|e| Refusal::malformed(e.to_string()))?;
    Ok(Enrolled {
        leaf,
        path_keys: path_keys.into(),
    })
}

/// `POST /v1/enroll`.
pub async fn enroll(
    State(app): State<Arc<App>>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let (parts, body) = request.into_parts();
    let sign = app.signer(&parts, Binds::Digest)?;
    let role = app.metadata()?;
    let ask: Enroll = parse(&app.body(&parts, body, ENROLL_BYTES).await?)?;
    let public = match role.store.owner(sign).await? {
        Some(owner) => {
            let agree = owner.agree;
            PublicId { sign, agree }
        }
        None => {
            check_token(role, &ask)?;
            let agree = *ask.agree;
            let public = PublicId { sign, agree };
            // A key that nothing can be sealed to is refused before it gets a leaf.
            enrolled(role, 0, &public)?;
            public
        }
    };
    let leaf = role.store.enroll(public.sign, public.agree).await?;
    Ok(cbor(&enrolled(role, leaf, &public)?))
}

fn check_token(role: &MetadataRole, ask: &Enroll) -> Answer<()> {
    let Some(right) = &role.enroll_token else {
        return Ok(());
    };
    let sent = ask.token.as_deref().unwrap_or_default().trim();
    match bool::from(sent.as_bytes().ct_eq(right.as_bytes())) {
        true => Ok(()),
        false => Err(Refusal::new(
            Code::NotEnrolled,
            "enrolment needs the token that the server keeps in its data directory, \
             secrets/enroll.token: run `camvault enroll --token`",
        )),
    }
}

/// `GET /v1/me`.
pub async fn me(
    State(app): State<Arc<App>>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let (caller, _) = app.signed_empty(request).await?;
    let role = app.metadata()?;
    let owner = role.store.owner(caller.key).await?;
    let owner = owner.ok_or_else(|| Refusal::new(Code::NotEnrolled, "not enrolled"))?;
    let public = PublicId {
        sign: caller.key,
        agree: owner.agree,
    };
    Ok(cbor(&enrolled(role, owner.leaf, &public)?))
}

fn check_items(app: &App, items: usize) -> Answer<()> {
    let limit = app.config.limits.batch_items;
    match items as u64 <= limit {
        true => Ok(()),
        false => Err(Refusal::too_large("the number of items", limit)),
    }
}

fn check_len(app: &App, len: u32) -> Answer<()> {
    let limit = app.config.limits.blob_bytes;
    match u64::from(len) <= limit {
        true => Ok(()),
        false => Err(Refusal::too_large("a chunk", limit)),
    }
}

/// Refuses an owner that is over the quota, before it uploads anything. What counts is the check
/// when it registers.
async fn check_quota(app: &App, caller: &Caller) -> Answer<()> {
    let Some(quota) = app.config.quota else {
        return Ok(());
    };
    let owner = app.metadata()?.store.owner(caller.key).await?;
    let used = owner.map_or(0, |o| o.bytes);
    match used <= quota {
        true => Ok(()),
        false => Err(Error::Quota { used, quota }.into()),
    }
}

/// `POST /v1/lookup`.
pub async fn lookup(
    State(app): State<Arc<App>>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let (caller, _, ask) = app.signed::<Lookup>(request).await?;
    let role = app.metadata()?;
    check_items(&app, ask.chunks.len())?;
    ask.chunks.iter().try_for_each(|c| check_len(&app, c.len))?;
    check_quota(&app, &caller).await?;
    let tags: Vec<_> = ask.chunks.iter().map(|wanted| *wanted.tag).collect();
    let found = role.store.lookup(caller.leaf, tags).await?;
    let chunks = found
        .into_iter()
        .zip(&ask.chunks)
        .map(|(variants, wanted)| {
            let wait_ms = match variants.is_empty() {
                true => role.hints.missing(&wanted.tag, caller.leaf),
                false => 0,
            };
            FoundChunk { variants, wait_ms }
        });
    let chunks = chunks.collect();
    let bytes = ask.chunks.iter().map(|wanted| u64::from(wanted.len)).sum();
    let put_token = app.link.put_token(&caller.key, bytes, now_s());
    let put_token = put_token.ok_or(Error::Random)?.into();
    Ok(cbor(&Found { chunks, put_token }))
}

/// `POST /v1/register`.
pub async fn register(
    State(app): State<Arc<App>>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let (caller, _, ask) = app.signed::<Register>(request).await?;
    let role = app.metadata()?;
    check_items(&app, ask.chunks.len())?;
    ask.chunks.iter().try_for_each(|c| check_len(&app, c.len))?;
    let now = now_ms();
    let tags: Vec<_> = ask.chunks.iter().map(|c| c.tag).collect();
    let items = ask.chunks.into_iter().map(|c| Item {
        tag: *c.tag,
        c2: *c.c2,
        c3: *c.c3,
        d1: *c.d1,
        len: c.len,
        stored: c
            .receipt
            .is_some_and(|r| app.link.check_receipt(&r, &c.d1, c.len, now)),
        refused: c.refused.iter().map(|d1| **d1).collect(),
    });
    let chunks = role
        .store
        .register(caller.leaf, items.collect(), app.config.quota, now)
        .await?;
    for (tag, outcome) in tags.iter().zip(&chunks) {
        if matches!(outcome, Outcome::Added | Outcome::Joined) {
            role.hints.stored(tag);
        }
    }
    Ok(cbor(&Registered { chunks }))
}

/// `POST /v1/open`.
pub async fn open(
    State(app): State<Arc<App>>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let (caller, _, ask) = app.signed::<Open>(request).await?;
    let role = app.metadata()?;
    check_items(&app, ask.chunks.len())?;
    let via = match ask.shared {
        None => None,
        Some(shared) => {
            let owner = role
                .store
                .shared(*shared.owner, *shared.id, caller.key)
                .await?;
            let owner = owner.ok_or_else(|| Refusal::not_found("recording"))?;
            Some(Via {
                owner,
                id: *shared.id,
                seq: shared.seq,
            })
        }
    };
    let expires = now_s() + CAPABILITY_S;
    let names: Vec<_> = ask.chunks.iter().map(|c| *c.d1).collect();
    let opened = role.store.open(caller.leaf, ask.chunks, via).await?;
    let chunks = opened.into_iter().zip(names).map(|(opening, d1)| {
        let opening = opening?;
        Some(OpenedChunk {
            epoch: opening.wrapped.epoch.into(),
            c2: opening.wrapped.c2.into(),
            node: opening.wrapped.node,
            gk: opening.wrapped.gk.into(),
            c3: opening.c3.into(),
            capability: app.link.capability(&d1, &caller.key, expires).into(),
        })
    });
    let chunks = chunks.collect();
    Ok(cbor(&Opened { chunks, expires }))
}
