// SPDX-License-Identifier: MPL-2.0
//! Routes of the role gateway: contracts with the cloud, archives, retrieval. What is behind them
//! decodes video, which a server does not: it is handed in ([`Gateway`]).

use super::app::{App, parse};
use super::auth::Binds;
use super::refusal::{Refusal, cbor};
use crate::protocol::{
    Archives, Code, GatewayContract, GatewayInfo, GatewayRetrieval, Signed, write_blob_frame,
};
use crate::store::{Hash, unhex};
use async_trait::async_trait;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use bytes::Bytes;
use futures::{Stream, stream};
use std::sync::Arc;
use tokio::sync::mpsc;

type Answer<T> = Result<T, Refusal>;

/// Bytes of a contract.
const CONTRACT_BYTES: u64 = 16 << 10;

/// Why a gateway does not do what it is asked for.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// There is no such contract or archive for this owner.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// It makes no sense or is not allowed.
    #[error("{0}")]
    Refused(String),
    /// Archives are under legal hold.
    #[error("{0}")]
    Held(String),
    /// The archive or this machine failed.
    #[error("{0}")]
    Failed(String),
}

/// Messages of a long answer; an error breaks it off.
pub type Messages = mpsc::Receiver<Result<Vec<u8>, GatewayError>>;

/// What a gateway has done since it was started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Activity {
    /// Sealed streams that come in.
    pub streams_open: usize,
    /// Sealed streams that have ended.
    pub streams_ended: u64,
    /// Those of them that ended with an error.
    pub streams_failed: u64,
    /// Frames opened.
    pub frames: u64,
    /// Bytes of sealed streams taken.
    pub bytes: u64,
    /// Archives begun.
    pub archives: u64,
    /// Archives that are played.
    pub archives_playing: usize,
    /// Requests for frames without their mark.
    pub retrievals: u64,
}

/// What a gateway does. `caller` is the Ed25519 key that signed a request, `contract` an id.
#[async_trait]
pub trait Gateway: Send + Sync + std::fmt::Debug {
    /// Who it is.
    fn info(&self) -> GatewayInfo;

    /// What it has done.
    fn activity(&self) -> Activity;

    /// Whether the vault that it archives in answers.
    async fn vault(&self) -> Result<(), GatewayError>;

    /// Whether the third party answers.
    async fn third_party(&self) -> Result<(), GatewayError>;

    /// Takes no more streams and ends those that run; what they brought is archived first.
    async fn stop(&self);

    /// Signs a contract that its owner has signed, and keeps it.
    async fn contract(&self, caller: Hash, contract: Signed) -> Result<Signed, GatewayError>;

    /// What is archived under a contract.
    async fn archives(&self, caller: Hash, contract: Hash) -> Result<Archives, GatewayError>;

    /// Forgets all of it, and takes no more.
    async fn forget(&self, caller: Hash, contract: Hash) -> Result<(), GatewayError>;

    /// The owner's remainders of an archive
    /// ([`StoredRemainder`](crate::protocol::StoredRemainder)).
    async fn remainders(
        &self,
        caller: Hash,
        contract: Hash,
        archive: String,
    ) -> Result<Messages, GatewayError>;

    /// Frames without their mark: [`RetrievedHead`](crate::protocol::RetrievedHead) and sealed
    /// [`RetrievedFrame`](crate::protocol::RetrievedFrame)s.
    async fn retrieve(
        &self,
        caller: Hash,
        contract: Hash,
        archive: String,
        ask: GatewayRetrieval,
    ) -> Result<Messages, GatewayError>;
}

impl From<GatewayError> for Refusal {
    fn from(error: GatewayError) -> Self {
        match error {
            GatewayError::NotFound(what) => Self::not_found(what),
            GatewayError::Refused(why) => Self::new(Code::Malformed, why),
            GatewayError::Held(why) => Self::new(Code::Held, why),
            GatewayError::Failed(why) => {
                tracing::error!(%why, "the gateway failed");
                Self::new(Code::Internal, "the gateway failed: its log says why")
            }
        }
    }
}

fn gateway(app: &App) -> Answer<&dyn Gateway> {
    let gateway = app.config.gateway.as_deref();
    gateway.ok_or_else(|| Refusal::not_found("path"))
}

fn id(text: &str) -> Answer<Hash> {
    unhex(text).ok_or_else(|| Refusal::malformed("a contract's id is 64 hex digits"))
}

/// Who signed a request, and its body.
async fn signed(app: &App, request: Request, limit: u64) -> Answer<(Hash, Bytes)> {
    let (parts, body) = request.into_parts();
    let caller = app.signer(&parts, Binds::Digest)?;
    let _memory = app.memory(&parts, limit).await?;
    Ok((caller, app.body(&parts, body, limit).await?))
}

/// `GET /v1/gateway`.
pub async fn info(State(app): State<Arc<App>>) -> Answer<impl IntoResponse + use<>> {
    Ok(cbor(&gateway(&app)?.info()))
}

/// `POST /v1/gateway/contracts`.
pub async fn contract(
    State(app): State<Arc<App>>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let (caller, body) = signed(&app, request, CONTRACT_BYTES).await?;
    let ask: GatewayContract = parse(&body)?;
    let contract = gateway(&app)?.contract(caller, ask.contract).await?;
    Ok(cbor(&GatewayContract { contract }))
}

/// `GET /v1/gateway/contracts/{id}`.
pub async fn archives(
    State(app): State<Arc<App>>,
    Path(contract): Path<String>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let (caller, _) = signed(&app, request, 0).await?;
    Ok(cbor(
        &gateway(&app)?.archives(caller, id(&contract)?).await?,
    ))
}

/// `DELETE /v1/gateway/contracts/{id}`.
pub async fn forget(
    State(app): State<Arc<App>>,
    Path(contract): Path<String>,
    request: Request,
) -> Answer<StatusCode> {
    let (caller, _) = signed(&app, request, 0).await?;
    gateway(&app)?.forget(caller, id(&contract)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/gateway/contracts/{id}/archives/{name}`.
pub async fn remainders(
    State(app): State<Arc<App>>,
    Path((contract, name)): Path<(String, String)>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let (caller, _) = signed(&app, request, 0).await?;
    let messages = gateway(&app)?.remainders(caller, id(&contract)?, name);
    Ok(frames(messages.await?))
}

/// `POST /v1/gateway/contracts/{id}/archives/{name}`.
pub async fn retrieve(
    State(app): State<Arc<App>>,
    Path((contract, name)): Path<(String, String)>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let limit = app.config.limits.body_bytes.max(64 << 20);
    let (caller, body) = signed(&app, request, limit).await?;
    let ask: GatewayRetrieval = parse(&body)?;
    let messages = gateway(&app)?.retrieve(caller, id(&contract)?, name, ask);
    Ok(frames(messages.await?))
}

/// Messages with their lengths before them.
fn frames(messages: Messages) -> impl IntoResponse + use<> {
    let frames = framed(messages);
    (
        [(CONTENT_TYPE, "application/octet-stream")],
        Body::from_stream(frames),
    )
}

fn framed(messages: Messages) -> impl Stream<Item = Result<Bytes, GatewayError>> {
    let span = tracing::Span::current();
    stream::unfold((messages, span), |(mut messages, span)| async {
        let message = messages.recv().await?;
        let frame = message.map(|message| {
            let length = u32::try_from(message.len()).ok();
            Bytes::from([write_blob_frame(length).as_slice(), &message].concat())
        });
        if let Err(e) = &frame {
            span.in_scope(|| tracing::error!(%e, "the gateway broke an answer off"));
        }
        Some((frame, (messages, span)))
    })
}
