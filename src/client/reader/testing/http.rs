// SPDX-License-Identifier: MPL-2.0
//! The vault in memory, over HTTP. Believes every signature.

use super::{Fake, GUEST_LEAF};
use crate::client::Error;
use crate::client::reader::Origin as _;
use crate::identity::RecordingId;
use crate::protocol::*;
use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// Serves on a free port and tells where.
pub(crate) fn serve(fake: Arc<Fake>) -> String {
    let runtime = crate::client::runtime().unwrap();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    let app = Router::new().fallback(move |request: Request| {
        let fake = fake.clone();
        async move {
            let uri = request.uri().clone();
            let body = axum::body::to_bytes(request.into_body(), 1 << 24).await;
            answer(&fake, &uri, body.unwrap())
                .await
                .unwrap_or_else(|error| refusal(&error))
        }
    });
    runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
    authority
}

fn refusal(error: &Error) -> Response {
    let code = match error {
        Error::Refused { code, .. } => *code,
        _ => Code::Busy,
    };
    let problem = Problem {
        code,
        message: error.to_string(),
        time_ms: None,
    };
    let status = match code {
        Code::NotFound => StatusCode::NOT_FOUND,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, encode(&problem)).into_response()
}

async fn answer(fake: &Fake, uri: &Uri, body: Bytes) -> Result<Response, Error> {
    let parts: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
    let query = |name: &str| {
        let pairs = uri.query().unwrap_or("").split('&');
        pairs
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
    };
    let owner = query("owner").map(|hex| B32::from(bytes::<32>(&hex)));
    let id = parts.get(2).map(|hex| bytes::<16>(hex));
    let id: RecordingId = id.unwrap_or_default();
    let reply = match parts[1..] {
        ["vault"] => encode(&VaultInfo {
            version: VERSION,
            storage: None,
            time_ms: 0,
            token_needed: false,
            limits: Limits::default(),
        }),
        ["me"] => {
            let keys = fake.tree.path_keys(fake.leaf);
            let sealed = fake.identity.public().seal(PATH_KEYS_INFO, &keys);
            fake.path_keys().await?;
            encode(&Enrolled {
                leaf: fake.leaf,
                path_keys: sealed.unwrap().into(),
            })
        }
        ["recordings"] => encode(&fake.recordings(None).await?),
        ["recordings", _] => {
            let from = query("from").and_then(|from| from.parse().ok());
            let recording = fake.recording(&id, from.unwrap_or(0), owner.as_ref());
            encode(&recording.await?)
        }
        ["recordings", _, "segments", seq] => {
            let seq = seq.parse().unwrap();
            let manifest = fake.segment(&id, seq, owner.as_ref()).await?.into();
            encode(&SegmentBody { manifest })
        }
        ["open"] => {
            let open: Open = decode(&body).unwrap();
            assert_eq!(open.shared.is_some(), fake.leaf == GUEST_LEAF);
            encode(&fake.open(open.chunks, open.shared).await?)
        }
        ["blobs", "get"] => {
            let get: GetBlobs = decode(&body).unwrap();
            let blobs = get.blobs.into_iter().map(|blob| (blob, 0)).collect();
            let mut frames = Vec::new();
            for blob in fake.get_blobs(get.expires, blobs).await? {
                let len = blob.as_ref().ok().map(|blob| blob.len() as u32);
                frames.extend(write_blob_frame(len));
                frames.extend(blob.unwrap_or_default());
            }
            frames
        }
        _ => return Err(fake.refused(Code::NotFound)),
    };
    Ok(reply.into_response())
}

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    std::array::from_fn(|i| {
        let pair = hex.get(2 * i..2 * i + 2).unwrap_or("00");
        u8::from_str_radix(pair, 16).unwrap_or(0)
    })
}
