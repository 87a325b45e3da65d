// SPDX-License-Identifier: MPL-2.0
//! What the reader asks of a vault, and how long it goes on asking.

use crate::client::patience::{self, PATIENCE};
use crate::client::vault::ListPlace;
use crate::client::{Error, Vault};
use crate::identity::{Identity, RecordingId};
use crate::ownership::PathKeys;
use crate::protocol::{
    B32, ChunkRef, Code, GetBlob, Opened, Recording, RecordingEntry, RecordingUrl, Recordings,
    SharedSegment,
};
use async_trait::async_trait;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// A vault as a reader sees it.
#[async_trait]
pub trait Origin: Send + Sync + 'static {
    /// The caller's path keys.
    async fn path_keys(&self) -> Result<Arc<PathKeys>, Error>;
    /// A page of the recordings of the caller and those shared with it, behind `after`.
    async fn recordings(&self, after: Option<ListPlace>) -> Result<Recordings, Error>;
    /// A recording and its heads from a segment on.
    async fn recording(
        &self,
        id: &RecordingId,
        from: u64,
        owner: Option<&B32>,
    ) -> Result<Recording, Error>;
    /// A sealed manifest.
    async fn segment(
        &self,
        id: &RecordingId,
        seq: u64,
        owner: Option<&B32>,
    ) -> Result<Vec<u8>, Error>;
    /// Records and capabilities.
    async fn open(
        &self,
        chunks: Vec<ChunkRef>,
        shared: Option<SharedSegment>,
    ) -> Result<Opened, Error>;
    /// Blobs of the lengths given, in order; in place of one that is not there or not of its
    /// length what is wrong with it, and the ones behind it may be left out then.
    async fn get_blobs(
        &self,
        expires: u64,
        blobs: Vec<(GetBlob, u32)>,
    ) -> Result<Vec<Result<Vec<u8>, String>>, Error>;
}

/// The vault that a recording lies in.
pub(super) fn connect(
    url: &RecordingUrl,
    identity: &Arc<Identity>,
) -> Result<Arc<dyn Origin>, Error> {
    Ok(Arc::new(Vault::connect(&url.vault(), identity.clone())?))
}

#[async_trait]
impl Origin for Vault {
    async fn path_keys(&self) -> Result<Arc<PathKeys>, Error> {
        Vault::path_keys(self).await
    }

    async fn recordings(&self, after: Option<ListPlace>) -> Result<Recordings, Error> {
        Vault::recordings(self, after).await
    }

    async fn recording(
        &self,
        id: &RecordingId,
        from: u64,
        owner: Option<&B32>,
    ) -> Result<Recording, Error> {
        Vault::recording(self, id, owner.map(|key| &**key), from).await
    }

    async fn segment(
        &self,
        id: &RecordingId,
        seq: u64,
        owner: Option<&B32>,
    ) -> Result<Vec<u8>, Error> {
        let body = Vault::segment(self, id, owner.map(|key| &**key), seq).await?;
        Ok(body.manifest.into())
    }

    async fn open(
        &self,
        chunks: Vec<ChunkRef>,
        shared: Option<SharedSegment>,
    ) -> Result<Opened, Error> {
        Vault::open(self, chunks, shared).await
    }

    async fn get_blobs(
        &self,
        expires: u64,
        blobs: Vec<(GetBlob, u32)>,
    ) -> Result<Vec<Result<Vec<u8>, String>>, Error> {
        let mut got = Vec::with_capacity(blobs.len());
        let mut stream = Vault::get_blobs(self, expires, blobs).await?;
        loop {
            match stream.next().await {
                Ok(Some(Some(blob))) => got.push(Ok(blob)),
                Ok(Some(None)) => got.push(Err("the server does not have its blob".into())),
                Ok(None) => return Ok(got),
                Err(Error::Answer { reason, .. }) => {
                    got.push(Err(reason));
                    return Ok(got);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// A list of recordings, page by page.
pub(super) struct Listing<'a> {
    origin: &'a dyn Origin,
    after: Option<ListPlace>,
    more: bool,
    seen: HashSet<ListPlace>,
}

impl<'a> Listing<'a> {
    /// From the beginning.
    pub fn new(origin: &'a dyn Origin) -> Self {
        Self {
            origin,
            after: None,
            more: true,
            seen: HashSet::new(),
        }
    }

    /// Without the caller's own, which come first, in order of their ids.
    pub fn shared(origin: &'a dyn Origin) -> Self {
        Self {
            after: Some(([u8::MAX; 16], None)),
            ..Self::new(origin)
        }
    }

    /// The next page; none behind the last. A list that does not go on is an error.
    pub async fn next(&mut self) -> Result<Option<Vec<RecordingEntry>>, Error> {
        if !self.more {
            return Ok(None);
        }
        let ask = || self.origin.recordings(self.after);
        let Recordings { recordings, more } = patiently(PATIENCE, ask).await?;
        for entry in &recordings {
            let place = (*entry.id, entry.owner.map(|owner| *owner));
            if !self.seen.insert(place) {
                return Err(Error::List("names a recording twice"));
            }
            self.after = Some(place);
        }
        if more && recordings.is_empty() {
            return Err(Error::List("goes on behind a page without recordings"));
        }
        self.more = more;
        Ok(Some(recordings))
    }
}

/// Makes a request again while it fails for a reason that may pass.
pub(super) async fn patiently<T, F: Future<Output = Result<T, Error>>>(
    patience: Duration,
    attempt: impl FnMut() -> F,
) -> Result<T, Error> {
    patience::patiently(patience, passing, attempt).await
}

/// Whether another try may succeed. A capability may have expired on its way.
fn passing(error: &Error) -> bool {
    match error {
        Error::Network { .. } => true,
        Error::Refused { code, .. } => matches!(
            code,
            Code::Busy
                | Code::Slow
                | Code::Internal
                | Code::Capability
                | Code::Replay
                | Code::Clock
        ),
        _ => false,
    }
}
