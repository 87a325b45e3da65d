// SPDX-License-Identifier: MPL-2.0
//! Routes of the storage role.

use super::app::{App, now_s, parse};
use super::auth::{Binds, header};
use super::body;
use super::refusal::{Refusal, cbor};
use crate::protocol::{
    BLOBS_HEADER, BlobList, Code, GetBlobs, Receipts, TOKEN_HEADER, write_blob_frame,
};
use crate::store::{Blob, Blobs, Error, Gather, Hash, now_ms};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use std::sync::Arc;
use std::time::Duration;

type Answer<T> = Result<T, Refusal>;

/// Blobs read ahead of the one being sent.
const READ_AHEAD: usize = 2;

fn refused(what: &str) -> Refusal {
    let message = format!("the {what} is wrong, has expired or is another's: ask for a new one");
    Refusal::new(Code::Capability, message)
}

/// Cuts a body into the blobs that its header lists, hashing as the bytes come.
struct Cutter {
    list: std::vec::IntoIter<(Hash, u32)>,
    current: Option<(Hash, Gather)>,
    done: Vec<Blob>,
}

impl Cutter {
    fn new(list: BlobList) -> Self {
        Self {
            done: Vec::with_capacity(list.0.len()),
            list: list.0.into_iter(),
            current: None,
        }
    }

    /// Finishes the blobs that are complete.
    fn settle(&mut self) -> Answer<()> {
        loop {
            match self.current.take() {
                Some((d1, blob)) if blob.left() == 0 => {
                    let (found, data) = blob.finish();
                    if found != d1 {
                        let at = self.done.len();
                        let message = format!("blob {at} does not have the hash that names it");
                        return Err(Refusal::malformed(message));
                    }
                    self.done.push(Blob { d1, data });
                }
                None => match self.list.next() {
                    None => return Ok(()),
                    Some((d1, len)) => self.current = Some((d1, Gather::new(len as usize))),
                },
                unfinished => {
                    self.current = unfinished;
                    return Ok(());
                }
            }
        }
    }

    fn take(&mut self, mut part: Bytes) -> Answer<()> {
        while !part.is_empty() {
            self.settle()?;
            let Some((_, blob)) = &mut self.current else {
                return Err(Refusal::malformed(
                    "the body is longer than its list of blobs",
                ));
            };
            blob.take(&mut part);
        }
        Ok(())
    }

    fn finish(mut self) -> Answer<Vec<Blob>> {
        self.settle()?;
        match self.current {
            None => Ok(self.done),
            Some(_) => Err(Refusal::malformed(
                "the body is shorter than its list of blobs",
            )),
        }
    }
}

/// `PUT /v1/blobs`.
pub async fn put(
    State(app): State<Arc<App>>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let (parts, body) = request.into_parts();
    let signer = app.signer(&parts, Binds::Blobs)?;
    let role = app.storage()?;
    let limits = app.config.limits;
    let list = BlobList::decode(header(&parts.headers, BLOBS_HEADER)?.as_bytes());
    let list = list.ok_or_else(|| Refusal::malformed("the list of blobs is not understood"))?;
    if list.0.len() as u64 > limits.batch_items {
        return Err(Refusal::too_large(
            "the number of blobs",
            limits.batch_items,
        ));
    }
    if list
        .0
        .iter()
        .any(|(_, len)| u64::from(*len) > limits.blob_bytes)
    {
        return Err(Refusal::too_large("a blob", limits.blob_bytes));
    }
    let total = list.total();
    if total > limits.batch_bytes {
        return Err(Refusal::too_large("the upload", limits.batch_bytes));
    }
    let token = BASE64.decode(header(&parts.headers, TOKEN_HEADER)?);
    let token = token.map_err(|_| Refusal::malformed("the put token is not base64"))?;
    let grant = app.link.check_put(&token, &signer, now_s());
    let grant = grant.ok_or_else(|| refused("put token"))?;
    app.count_request(&signer).await?;
    if let Some(wait) = app.count_bytes(&signer, "up", total).await? {
        return Err(Refusal::too_fast(wait));
    }
    let _memory = app.memory(&parts, total).await?;
    let (mark, allowance) = grant.allowance();
    // Half of it: who takes a token to two servers finds enough at both.
    let piece = allowance.burst / 2;
    if app
        .rates
        .take(mark, total, allowance, piece)
        .await?
        .is_some()
    {
        return Err(refused("put token"));
    }
    let since = now_ms();
    let names = list.clone();
    let stored = async {
        let mut cutter = Cutter::new(list);
        let take = |part| cutter.take(part);
        body::read_parts(&parts.headers, body, total, app.config.pace, take).await?;
        role.store.put(cutter.finish()?).await?;
        Ok::<_, Refusal>(())
    };
    if let Err(refusal) = stored.await {
        app.rates.give_back(mark, total, allowance.until);
        return Err(refusal);
    }
    app.metrics.bytes_in.inc_by(total);
    let receipt = |(d1, len): &(Hash, u32)| app.link.receipt(d1, *len, since).into();
    let receipts = names.0.iter().map(receipt).collect();
    Ok(cbor(&Receipts { receipts }))
}

/// `POST /v1/blobs/get`.
pub async fn get(
    State(app): State<Arc<App>>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let (parts, body) = request.into_parts();
    let signer = app.signer(&parts, Binds::Digest)?;
    let limits = app.config.limits;
    let _memory = app.memory(&parts, limits.body_bytes).await?;
    let ask: GetBlobs = parse(&app.body(&parts, body, limits.body_bytes).await?)?;
    if ask.blobs.len() as u64 > limits.batch_items {
        return Err(Refusal::too_large(
            "the number of blobs",
            limits.batch_items,
        ));
    }
    let now = now_s();
    let (expires, link) = (ask.expires, &app.link);
    let good = ask
        .blobs
        .iter()
        .all(|blob| link.check_capability(&blob.capability, &blob.d1, &signer, expires, now));
    if !good {
        return Err(refused("capability"));
    }
    app.count_request(&signer).await?;
    let names = ask.blobs.iter().map(|blob| *blob.d1).collect();
    let frames = frames(app.clone(), app.storage()?.store.clone(), signer, names);
    let body = Body::from_stream(frames);
    Ok(([(CONTENT_TYPE, "application/octet-stream")], body))
}

/// Frames of blobs, few of which are in memory at once. A blob that cannot be read breaks the
/// answer off.
fn frames(
    app: Arc<App>,
    store: Arc<dyn Blobs>,
    reader: Hash,
    names: Vec<Hash>,
) -> impl Stream<Item = Result<Bytes, Error>> {
    let rated = app.clone();
    let read = move |d1: Hash| {
        let (store, app) = (store.clone(), rated.clone());
        async move {
            let blob = store.get(&d1).await?;
            let bytes = blob.as_ref().map_or(0, Bytes::len) as u64;
            // An answer that has begun goes on, as slowly as it has to.
            while let Some(wait) = app.count_bytes(&reader, "down", bytes).await? {
                tokio::time::sleep(Duration::from_millis(wait.clamp(1, 1000))).await;
            }
            Ok(blob)
        }
    };
    let span = tracing::Span::current();
    let blobs = stream::iter(names).map(read).buffered(READ_AHEAD);
    blobs.flat_map(move |blob| {
        let parts = match blob {
            Err(error) => {
                span.in_scope(|| tracing::error!(%error, "a blob cannot be read"));
                vec![Err(error)]
            }
            Ok(None) => vec![Ok(frame(None))],
            Ok(Some(blob)) => {
                app.metrics.bytes_out.inc_by(blob.len() as u64);
                let len = u32::try_from(blob.len()).ok();
                vec![Ok(frame(len)), Ok(blob)]
            }
        };
        stream::iter(parts)
    })
}

fn frame(len: Option<u32>) -> Bytes {
    Bytes::copy_from_slice(&write_blob_frame(len))
}
