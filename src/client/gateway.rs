// SPDX-License-Identifier: MPL-2.0
//! A gateway, the cloud that archives sealed streams, as the owner of a contract uses it. Streams
//! are read piece by piece; no part of one may be longer than its kind allows.

use super::http::{Connection, SILENCE_TIMEOUT};
use super::{Error, hex};
use crate::identity::{AeadKey, Identity};
use crate::protocol::{
    Agreed, Archive, Archives, Contract, GatewayContract, GatewayInfo, GatewayRetrieval,
    RETRIEVED_INFO, RetrievedFrame, RetrievedHead, Signed, StoredRemainder, decode, encode,
};
use crate::sealed::stream::message;
use bytes::{Buf as _, Bytes, BytesMut};
use minicbor::Decode;
use reqwest::{Method, Response};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// Bytes of one frame's remainders: a byte a mark, and there are fewer marks than that.
const MAX_REMAINDER_BYTES: u32 = 32 << 20;
/// Bytes of the head of retrieved frames.
const MAX_HEAD_BYTES: u32 = 64 << 10;
/// How long a retrieval may take without a sign of life.
const RETRIEVAL: Duration = Duration::from_secs(3600);

/// A signed connection to a gateway. Clones share connections.
#[derive(Clone, Debug)]
pub struct Gateway(Connection);

/// Whether an archive's name is one that can stand in a path: letters, digits, `-`, `_` and `.`,
/// not at the beginning.
pub fn is_archive_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=128).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(allowed)
}

impl Gateway {
    /// A gateway at a URL such as `http://127.0.0.1:7430`. Nothing is sent yet.
    pub fn connect(base_url: &str, identity: Arc<Identity>) -> Result<Self, Error> {
        let patience = [SILENCE_TIMEOUT, RETRIEVAL];
        Connection::new(base_url, identity, patience).map(Self)
    }

    /// The identity that signs.
    pub fn identity(&self) -> &Arc<Identity> {
        self.0.identity()
    }

    /// Who it is, and where its third party is. Nobody vouches for the answer: compare the
    /// identity with one from elsewhere.
    pub async fn info(&self) -> Result<GatewayInfo, Error> {
        self.0.soon().get("/v1/gateway").await
    }

    /// Has the gateway sign a contract that its owner has signed. The same contract comes back,
    /// with both signatures, checked.
    pub async fn contract(&self, contract: Signed) -> Result<Signed, Error> {
        let (path, id) = ("/v1/gateway/contracts", contract.id::<Contract>());
        let message = encode(&GatewayContract { contract });
        let soon = self.0.soon();
        let answer: GatewayContract = soon.ask(Method::POST, path, message).await?;
        let unread: Contract = answer.contract.unverified()?;
        let parties = [&*unread.owner.sign, &*unread.cloud.sign];
        answer.contract.verify::<Contract>(&parties)?;
        match answer.contract.id::<Contract>() == id {
            true => Ok(answer.contract),
            false => Err(self.wrong(path, "another contract")),
        }
    }

    /// What is archived under a contract, the oldest first. Archives whose names cannot stand in
    /// a path are an error.
    pub async fn archives(&self, contract: &[u8; 32]) -> Result<Vec<Archive>, Error> {
        let path = contract_path(contract);
        let soon = self.0.soon();
        let answer: Archives = soon.ask(Method::GET, &path, Vec::new()).await?;
        let mut archives = answer.archives;
        archives.sort_by_key(|archive| archive.started_ms);
        match archives
            .iter()
            .all(|archive| is_archive_name(&archive.name))
        {
            true => Ok(archives),
            false => Err(self.wrong(&path, "an archive with a name that cannot be one")),
        }
    }

    /// The owner's remainders of an archive, in the order of its frames.
    pub async fn remainders(
        &self,
        contract: &[u8; 32],
        archive: &str,
    ) -> Result<Remainders, Error> {
        let path = self.archive_path(contract, archive)?;
        let parts = self.parts(Method::GET, path, Vec::new()).await?;
        Ok(Remainders(parts))
    }

    /// Frames of one ticket without their mark, as `request` says.
    pub async fn retrieve(
        &self,
        agreed: &Agreed,
        archive: &str,
        request: &GatewayRetrieval,
    ) -> Result<Retrieved, Error> {
        let path = self.archive_path(&agreed.id, archive)?;
        let mut parts = self.parts(Method::POST, path, encode(request)).await?;
        let head = parts.next(MAX_HEAD_BYTES).await?;
        let head = head.ok_or_else(|| parts.wrong("no frames"))?;
        let head: RetrievedHead = parts.decode(&head)?;
        if *head.contract != agreed.id {
            return Err(parts.wrong("frames of another contract"));
        }
        let key = self.identity().open(RETRIEVED_INFO, &head.key)?;
        let key = <[u8; 32]>::try_from(key.as_slice()).map(Zeroizing::new);
        let key = key.map_err(|_| parts.wrong("a key of a wrong length"))?;
        Ok(Retrieved {
            key: AeadKey::new(*key),
            head,
            wanted: request.pts.clone().into_iter().enumerate(),
            parts,
        })
    }

    /// Has all archives of a contract forgotten; it takes no more streams.
    pub async fn forget(&self, contract: &[u8; 32]) -> Result<(), Error> {
        let path = contract_path(contract);
        self.0.late().done(Method::DELETE, &path, Vec::new()).await
    }

    fn archive_path(&self, contract: &[u8; 32], archive: &str) -> Result<String, Error> {
        let path = contract_path(contract);
        match is_archive_name(archive) {
            true => Ok(format!("{path}/archives/{archive}")),
            false => Err(Error::NoArchive(archive.to_owned())),
        }
    }

    async fn parts(&self, method: Method, path: String, message: Vec<u8>) -> Result<Parts, Error> {
        let response = self.0.late().send(method, &path, message).await?;
        Ok(Parts {
            gateway: self.clone(),
            path,
            response,
            pending: BytesMut::new(),
        })
    }

    fn wrong(&self, path: &str, reason: &str) -> Error {
        self.0.wrong(path, reason)
    }
}

fn contract_path(contract: &[u8; 32]) -> String {
    format!("/v1/gateway/contracts/{}", hex(contract))
}

/// What [`front`] found.
#[derive(Debug, PartialEq)]
enum Front {
    /// A part, taken off.
    Part(Bytes),
    /// Not all of it is there.
    More,
    /// It is longer than allowed, or says that it is missing.
    Wrong(u32),
}

/// Takes the part at the front, of at most `limit` bytes.
fn front(pending: &mut BytesMut, limit: u32) -> Front {
    let Some((header, rest)) = pending.split_first_chunk::<4>() else {
        return Front::More;
    };
    let length = u32::from_be_bytes(*header);
    match length {
        length if length > limit => Front::Wrong(length),
        length if rest.len() < length as usize => Front::More,
        length => {
            pending.advance(4);
            Front::Part(pending.split_to(length as usize).freeze())
        }
    }
}

/// An answer in parts, each with its length before it.
struct Parts {
    gateway: Gateway,
    path: String,
    response: Response,
    pending: BytesMut,
}

impl Parts {
    /// The next part; `None` at the end.
    async fn next(&mut self, limit: u32) -> Result<Option<Bytes>, Error> {
        loop {
            match front(&mut self.pending, limit) {
                Front::Part(part) => return Ok(Some(part)),
                Front::Wrong(length) => {
                    let reason = format!("a part of {length} bytes, where {limit} are allowed");
                    return Err(self.wrong(&reason));
                }
                Front::More => (),
            }
            let server = self.gateway.0.late().server;
            match server.piece(&mut self.response).await? {
                Some(piece) => self.pending.extend_from_slice(&piece),
                None if self.pending.is_empty() => return Ok(None),
                None => return Err(self.wrong("it ends in the middle of a part")),
            }
        }
    }

    fn decode<T: for<'b> Decode<'b, ()>>(&self, part: &[u8]) -> Result<T, Error> {
        decode(part).map_err(|e| self.wrong(&e.to_string()))
    }

    fn wrong(&self, reason: &str) -> Error {
        self.gateway.wrong(&self.path, reason)
    }
}

/// Remainders as they come.
pub struct Remainders(Parts);

impl std::fmt::Debug for Remainders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Remainders({})", self.0.path)
    }
}

impl Remainders {
    /// The next frame's, as bytes that [`StoredRemainder`] reads; `None` at the end.
    pub async fn next_bytes(&mut self) -> Result<Option<Bytes>, Error> {
        self.0.next(MAX_REMAINDER_BYTES).await
    }

    /// The next frame's; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<StoredRemainder>, Error> {
        let bytes = self.next_bytes().await?;
        bytes.map(|bytes| self.0.decode(&bytes)).transpose()
    }
}

/// Retrieved frames as they come.
pub struct Retrieved {
    parts: Parts,
    head: RetrievedHead,
    key: AeadKey,
    wanted: std::iter::Enumerate<std::vec::IntoIter<u64>>,
}

impl std::fmt::Debug for Retrieved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Retrieved({})", self.parts.path)
    }
}

impl Retrieved {
    /// What they are.
    pub fn head(&self) -> &RetrievedHead {
        &self.head
    }

    /// The next frame; `None` after the last that was asked for. One that is missing, changed or
    /// in another's place is an error.
    pub async fn next(&mut self) -> Result<Option<RetrievedFrame>, Error> {
        let Some((number, pts)) = self.wanted.next() else {
            return match self.parts.next(0).await? {
                None => Ok(None),
                Some(_) => Err(self.parts.wrong("more frames than were asked for")),
            };
        };
        // At most message::MAX_PAYLOAD, which fits.
        let sealed = self.parts.next(message::MAX_PAYLOAD as u32).await?;
        let sealed = sealed.ok_or_else(|| self.parts.wrong("fewer frames than were asked for"))?;
        let clear = self.key.open(&(number as u64).to_be_bytes(), &sealed);
        let clear = clear.map_err(|e| self.parts.wrong(&e.to_string()))?;
        let frame: RetrievedFrame = self.parts.decode(&clear)?;
        match frame.pts == pts {
            true => Ok(Some(frame)),
            false => Err(self.parts.wrong("a frame of another time")),
        }
    }
}

#[cfg(test)]
mod tests;
