// SPDX-License-Identifier: MPL-2.0
//! One HTTP server: sends a request, signed or not, and reads a bounded answer.

use super::patience::while_busy;
use crate::client::Error;
use crate::identity::Identity;
use crate::protocol::signature::{self, Covered};
use crate::protocol::{BLOBS_HEADER, CBOR, Code, Problem, TOKEN_HEADER, decode, vault_base};
use crate::trust::{self, Lost, Unusable};
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use minicbor::Decode;
use reqwest::{Client, Method, Response};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest silence, unless a server is given more: no byte taken from the request, none given of the answer.
pub(super) const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of an answer that is one message.
const MAX_ANSWER_BYTES: u64 = 64 << 20;
/// Bytes of a refusal that are read.
const MAX_PROBLEM_BYTES: u64 = 64 << 10;
/// Bytes of an upload handed to the connection at once.
const FRAME_BYTES: usize = 64 << 10;

/// Who signs, and how far its clock is from the server's.
pub(super) struct Signer {
    pub identity: Arc<Identity>,
    offset_s: AtomicI64,
}

impl Signer {
    pub fn new(identity: Arc<Identity>) -> Self {
        Self {
            identity,
            offset_s: AtomicI64::new(0),
        }
    }

    fn learn(&self, server_ms: u64) {
        let server_s = (server_ms / 1000).cast_signed();
        let offset = server_s.saturating_sub(unix_seconds().cast_signed());
        self.offset_s.store(offset, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        unix_seconds().saturating_add_signed(self.offset_s.load(Ordering::Relaxed))
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |t| t.as_secs())
}

/// What a request carries.
pub(super) enum Payload {
    /// A message body; empty for most `GET`s.
    Message(Bytes),
    /// Blobs, one after the other.
    Blobs {
        /// Value of [`BLOBS_HEADER`].
        list: String,
        /// Value of [`TOKEN_HEADER`].
        token: String,
        /// The blobs.
        parts: Vec<Bytes>,
    },
}

/// A server at its base URL.
pub(super) struct Server {
    pub base: String,
    authority: String,
    http: Client,
    patience: Duration,
}

impl Server {
    /// Takes a base URL as [`crate::protocol::vault_base`] gives it.
    pub fn new(base: String) -> Result<Self, Error> {
        let wrong = || crate::protocol::UrlError::Vault(base.clone());
        let url: ::url::Url = base.parse().map_err(|_| wrong())?;
        let host = url.host_str().ok_or_else(wrong)?;
        // What the client sends as `Host`: the port unless it is the scheme's own.
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let http = client(&url)?;
        Ok(Self {
            base,
            authority,
            http,
            patience: SILENCE_TIMEOUT,
        })
    }

    /// Waits longer in silence.
    pub fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Sends a request until it is accepted, refused or lost; signs again where the server says
    /// that the clock or the nonce was the only fault.
    pub async fn send(
        &self,
        signer: Option<&Signer>,
        method: Method,
        path: &str,
        payload: &Payload,
    ) -> Result<Response, Error> {
        let mut again = 2;
        loop {
            let response = self.send_once(signer, &method, path, payload).await?;
            if response.status().is_success() {
                return Ok(response);
            }
            let retry_after = retry_after(&response);
            let (problem, what) = (self.problem(response).await?, format!("{method} {path}"));
            match (problem.code, problem.time_ms, signer) {
                (Code::Clock, Some(time), Some(signer)) if again > 0 => signer.learn(time),
                (Code::Replay, _, Some(_)) if again > 0 => (),
                (code, ..) => {
                    return Err(Error::Refused {
                        vault: self.base.clone(),
                        what,
                        code,
                        message: problem.message,
                        retry_after,
                    });
                }
            }
            again -= 1;
        }
    }

    async fn send_once(
        &self,
        signer: Option<&Signer>,
        method: &Method,
        path: &str,
        payload: &Payload,
    ) -> Result<Response, Error> {
        let mut request = self
            .http
            .request(method.clone(), format!("{}{path}", self.base));
        let (field, value) = match payload {
            Payload::Message(body) => {
                if !body.is_empty() {
                    request = request.header("content-type", CBOR);
                }
                ("content-digest", signature::content_digest(body))
            }
            Payload::Blobs { list, token, .. } => {
                request = request.header(TOKEN_HEADER, token);
                (BLOBS_HEADER, list.clone())
            }
        };
        if let Some(signer) = signer {
            let (bare, query) = path.split_once('?').unwrap_or((path, ""));
            let covered = Covered {
                method: method.as_str(),
                authority: &self.authority,
                path: bare,
                query,
                body_field: field,
                body_value: &value,
            };
            let nonce = signature::nonce().ok_or(crate::identity::Error::Random)?;
            let (input, signed) = signature::sign(&signer.identity, &covered, signer.now(), &nonce);
            request = request
                .header("signature-input", input)
                .header("signature", signed);
        }
        request = request.header(field, value);
        let progress = Arc::new(AtomicU64::new(0));
        request = match payload {
            Payload::Message(body) => request.body(body.clone()),
            Payload::Blobs { parts, .. } => {
                request.body(reqwest::Body::wrap(Upload::new(parts, progress.clone())))
            }
        };
        let mut sent = std::pin::pin!(request.send());
        let mut seen = 0;
        loop {
            match tokio::time::timeout(self.patience, &mut sent).await {
                Ok(answer) => return answer.map_err(|e| self.lost(&e)),
                Err(_) => {
                    let now = progress.load(Ordering::Relaxed);
                    if std::mem::replace(&mut seen, now) == now {
                        return Err(self.silent());
                    }
                }
            }
        }
    }

    /// The next piece of an answer.
    pub async fn piece(&self, response: &mut Response) -> Result<Option<Bytes>, Error> {
        match tokio::time::timeout(self.patience, response.chunk()).await {
            Ok(piece) => piece.map_err(|e| self.lost(&e)),
            Err(_) => Err(self.silent()),
        }
    }

    /// A whole answer of at most `limit` bytes.
    pub async fn body(&self, mut response: Response, limit: u64) -> Result<Bytes, Error> {
        let mut body = bytes::BytesMut::new();
        while let Some(piece) = self.piece(&mut response).await? {
            if (body.len() + piece.len()) as u64 > limit {
                let path = response.url().path().to_owned();
                return Err(self.answer(path, format!("longer than {limit} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }

    /// An answer that is not of the protocol.
    pub fn answer(&self, what: String, reason: String) -> Error {
        Error::Answer {
            vault: self.base.clone(),
            what,
            reason,
        }
    }

    /// The reason for a refusal; a server or proxy that says none is judged by the status.
    async fn problem(&self, response: Response) -> Result<Problem, Error> {
        let status = response.status();
        let what = response.url().path().to_owned();
        let body = self.body(response, MAX_PROBLEM_BYTES).await;
        if let Some(problem) = body.ok().and_then(|b| decode::<Problem>(&b).ok()) {
            return Ok(problem);
        }
        let code = match status.as_u16() {
            408 => Code::Slow,
            429 | 502..=504 => Code::Busy,
            500..=599 => Code::Internal,
            _ => return Err(self.answer(what, format!("status {status}"))),
        };
        Ok(Problem {
            code,
            message: format!("status {status}"),
            time_ms: None,
        })
    }

    fn silent(&self) -> Error {
        Error::Network {
            vault: self.base.clone(),
            reason: format!("nothing heard for {} s", self.patience.as_secs()),
        }
    }

    fn lost(&self, error: &reqwest::Error) -> Error {
        lost(&self.base, error)
    }
}

/// A signed connection to one server that answers some requests late. Clones share it.
#[derive(Clone)]
pub(super) struct Connection(Arc<Connected>);

struct Connected {
    soon: Server,
    late: Server,
    signer: Signer,
}

/// Says where.
impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.soon.base)
    }
}

impl Connection {
    /// To a URL such as `http://127.0.0.1:7420`; an answer may let wait for `soon`, a late one for
    /// `late`. Nothing is sent yet.
    pub fn new(
        base_url: &str,
        identity: Arc<Identity>,
        [soon, late]: [Duration; 2],
    ) -> Result<Self, Error> {
        let base = vault_base(base_url)?;
        Ok(Self(Arc::new(Connected {
            soon: Server::new(base.clone())?.patient(soon),
            late: Server::new(base)?.patient(late),
            signer: Signer::new(identity),
        })))
    }

    pub fn identity(&self) -> &Arc<Identity> {
        &self.0.signer.identity
    }

    /// For most requests.
    pub fn soon(&self) -> Way<'_> {
        let (server, signer) = (&self.0.soon, &self.0.signer);
        Way { server, signer }
    }

    /// For those that take long.
    pub fn late(&self) -> Way<'_> {
        let (server, signer) = (&self.0.late, &self.0.signer);
        Way { server, signer }
    }

    /// An answer that is not of the protocol.
    pub fn wrong(&self, path: &str, reason: &str) -> Error {
        self.0.soon.answer(path.to_owned(), reason.to_owned())
    }
}

/// How requests go, see [`Connection`]: again while the server is too busy for them, since there is
/// somebody who waits.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub server: &'a Server,
    signer: &'a Signer,
}

impl Way<'_> {
    /// A signed request.
    pub async fn send(
        self,
        method: Method,
        path: &str,
        message: Vec<u8>,
    ) -> Result<Response, Error> {
        let payload = Payload::Message(message.into());
        let signer = Some(self.signer);
        let send = || self.server.send(signer, method.clone(), path, &payload);
        while_busy(send).await
    }

    /// A signed request whose answer is empty.
    pub async fn done(self, method: Method, path: &str, message: Vec<u8>) -> Result<(), Error> {
        self.send(method, path, message).await.map(drop)
    }

    /// A signed request and its answer.
    pub async fn ask<T: for<'b> Decode<'b, ()>>(
        self,
        method: Method,
        path: &str,
        message: Vec<u8>,
    ) -> Result<T, Error> {
        let response = self.send(method, path, message).await?;
        self.read(path, &self.server.body(response, MAX_ANSWER_BYTES).await?)
    }

    /// What anyone is told, as bytes.
    pub async fn bytes(self, path: &str) -> Result<Bytes, Error> {
        let empty = Payload::Message(Bytes::new());
        let send = || self.server.send(None, Method::GET, path, &empty);
        let response = while_busy(send).await?;
        self.server.body(response, MAX_ANSWER_BYTES).await
    }

    /// What anyone is told.
    pub async fn get<T: for<'b> Decode<'b, ()>>(self, path: &str) -> Result<T, Error> {
        self.read(path, &self.bytes(path).await?)
    }

    fn read<T: for<'b> Decode<'b, ()>>(self, path: &str, body: &[u8]) -> Result<T, Error> {
        decode(body).map_err(|e| self.server.answer(path.to_owned(), e.to_string()))
    }
}

/// How long a refusal asks to wait: whole seconds, as this project's servers and most proxies say
/// it.
pub(super) fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(reqwest::header::RETRY_AFTER)?;
    let seconds = value.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

pub(super) fn lost(base: &str, error: &reqwest::Error) -> Error {
    let (vault, lost) = (base.to_owned(), Lost::of(error));
    let reason = lost.reason;
    match lost.untrusted {
        true => Error::Untrusted { vault, reason },
        false => Error::Network { vault, reason },
    }
}

pub(super) fn client(url: &::url::Url) -> Result<Client, Error> {
    let client = trust::client(url.scheme() == "https", |builder| {
        let builder = builder
            .http1_only()
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none());
        match trust::is_loopback(url) {
            true => builder.no_proxy(),
            false => builder,
        }
    });
    client.map_err(|Unusable { path, reason }| Error::Certificates { path, reason })
}

/// An upload's body: the blobs as they lie in memory, without a copy.
struct Upload {
    parts: VecDeque<Bytes>,
    left: u64,
    progress: Arc<AtomicU64>,
}

impl Upload {
    fn new(parts: &[Bytes], progress: Arc<AtomicU64>) -> Self {
        Self {
            left: parts.iter().map(|p| p.len() as u64).sum(),
            parts: parts.iter().filter(|p| !p.is_empty()).cloned().collect(),
            progress,
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(mut first) = self.parts.pop_front() else {
            return Poll::Ready(None);
        };
        let piece = first.split_to(first.len().min(FRAME_BYTES));
        if !first.is_empty() {
            self.parts.push_front(first);
        }
        self.left -= piece.len() as u64;
        self.progress.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
