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
    let wrong = || {
        Refusal::new(
            Code::Signature,
            "the two servers do not share a link secret",
        )
    };
    let (created, nonce) = sealed.ok_or_else(wrong)?;
    app.fresh_internal(created, nonce)?;
    let upkeep = app.storage()?.store.clone();
    Ok(cbor(&answer(&*upkeep, parse(&body)?).await?))
}

#[cfg(test)]
mod tests {
    use crate::server::{Config, Role, Server, secrets, tokens};
    use crate::store::conformance::{blob, upkeep};
    use crate::store::{Blobs as _, Directory, Error, Remote, Room};

    #[tokio::test]
    async fn the_remote_store_conforms() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path());
        config.listen = ([127, 0, 0, 1], 0).into();
        config.roles = vec![Role::Storage];
        config.reserve = 0;
        let secret = config.secrets_dir().join("link");
        let server = Server::start(config).await.unwrap();
        let directory = Directory::open(dir.path(), Room::new(dir.path(), 0)).unwrap();
        let contents: Vec<_> = (0..20u8).map(|i| vec![i; 1000]).collect();
        let blobs = contents.iter().map(|c| blob(c)).collect();
        directory.put(blobs).await.unwrap();
        let secret = secrets::read(&secret).unwrap();
        let remote = |secret: &[u8; 32], ahead: u64| {
            let link = tokens::Link::new(secret);
            let seal = move |body: &[u8], created: u64| {
                let sealed = link.seal_internal(body, created + ahead);
                Ok((tokens::INTERNAL_HEADER, sealed.ok_or(Error::Random)?))
            };
            let url = format!("{}{}", server.url(), super::PATH);
            Remote::new(url, Box::new(seal)).unwrap()
        };
        let harm = |d1: &[u8; 32]| {
            let name = crate::store::hex(d1);
            let path = dir.path().join("blobs").join(&name[..2]).join(name);
            std::fs::write(path, b"garbage").unwrap();
        };
        upkeep(&remote(&secret, 0), &contents, harm).await;
        use crate::store::Upkeep as _;
        assert!(remote(&[1; 32], 0).ready().await.is_err());
        assert!(remote(&secret, 1000).ready().await.is_err());
    }
}
