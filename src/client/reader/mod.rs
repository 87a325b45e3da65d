// SPDX-License-Identifier: MPL-2.0
//! Brings recordings back: finds them, checks that no segment is missing, fetches, decrypts and
//! checks chunks, puts access units together and delivers them in the order of time.
//!
//! What does not pass every check is an error, never data.

mod fetch;
mod layout;
mod origin;
mod plan;
mod playback;
mod timeline;
mod verify;

pub use layout::Fetched;
pub use origin::Origin;
pub use plan::{Place, Unit};
pub use playback::{Delivery, Playback, Request, Snap, TrackStart};
pub use timeline::Timeline;
pub use verify::{Finding, Report};

use super::Error;
use super::patience::PATIENCE;
use crate::identity::{AeadKey, Identity, RecordingId};
use crate::manifest::{Manifest, Sealer, Summary};
use crate::protocol::{self, B32, Code, Held, RecordingEntry, RecordingUrl, SHARE_INFO, SharedKey};
use crate::rce::DomainSecret;
use origin::Listing;
use sha2::{Digest as _, Sha256};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use subtle::ConstantTimeEq as _;

/// Manifests that are kept.
const MANIFESTS: usize = 4;

/// One recording, open for reading.
pub struct Reader {
    origin: Arc<dyn Origin>,
    sealer: Sealer,
    /// Whose recording, if it is shared with us.
    owner: Option<B32>,
    domain: Option<DomainSecret>,
    patience: Duration,
    index: Mutex<Index>,
    manifests: Mutex<VecDeque<(u64, Arc<Manifest>)>>,
    fetched: (AtomicU64, AtomicU64),
}

/// What is known of the recording by now.
#[derive(Clone, Default)]
struct Index {
    timeline: Arc<Timeline>,
    summary: Summary,
}

/// A recording in a list.
pub struct Listed {
    /// Its name, as far as it is known.
    pub name: Option<String>,
    /// Its id.
    pub id: RecordingId,
    /// The owner's signing key, if it is another's.
    pub owner: Option<[u8; 32]>,
    /// Number of segments.
    pub segments: u64,
    /// Number of the first segment that is kept; retention has removed those before it.
    pub first: u64,
    /// Who holds it, so that nothing of it is deleted.
    pub held: Held,
    /// What it is, if it can be read.
    pub summary: Result<Summary, Error>,
}

impl Reader {
    /// Opens the recording that a URL names: the identity's own, or else one shared with it.
    pub async fn open(url: &RecordingUrl, identity: &Arc<Identity>) -> Result<Self, Error> {
        let origin = origin::connect(url, identity)?;
        Self::open_at(origin, &url.name, identity, None).await
    }

    /// Opens a recording by name. With `domain`, the keys of chunks made under that secret are
    /// checked too.
    pub async fn open_at(
        origin: Arc<dyn Origin>,
        name: &str,
        identity: &Identity,
        domain: Option<DomainSecret>,
    ) -> Result<Self, Error> {
        let id = identity.recording_id(name);
        let own = Sealer {
            key: identity.recording_key(&id),
            id,
        };
        let exists = origin::patiently(PATIENCE, || async {
            match origin.recording(&own.id, 0, None).await {
                Ok(_) => Ok(true),
                Err(Error::Refused {
                    code: Code::NotFound,
                    ..
                }) => Ok(false),
                Err(error) => Err(error),
            }
        })
        .await?;
        let (sealer, owner) = match exists {
            true => (own, None),
            false => Self::find_shared(&*origin, name, identity).await?,
        };
        let reader = Self {
            origin,
            sealer,
            owner,
            domain,
            patience: PATIENCE,
            index: Mutex::default(),
            manifests: Mutex::default(),
            fetched: Default::default(),
        };
        reader.refresh().await?;
        Ok(reader)
    }

    /// Sets how long requests are tried again while the vault cannot be reached.
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    async fn find_shared(
        origin: &dyn Origin,
        name: &str,
        identity: &Identity,
    ) -> Result<(Sealer, Option<B32>), Error> {
        // The server knows no names: the one who looks reads them all.
        let mut list = Listing::shared(origin);
        while let Some(page) = list.next().await? {
            let found = page.iter().find_map(|entry| {
                let shared = open_share(entry, identity).ok()?;
                (shared.name == name).then(|| (share_sealer(entry, &shared), entry.owner))
            });
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Err(Error::NoRecording(name.to_owned()))
    }

    /// All recordings of an identity and those shared with it.
    pub async fn list(origin: &dyn Origin, identity: &Identity) -> Result<Vec<Listed>, Error> {
        let listed = |entry: &RecordingEntry| {
            let shared = entry.owner.map(|_| open_share(entry, identity));
            let sealer = match &shared {
                None => Ok(Sealer {
                    id: *entry.id,
                    key: identity.recording_key(&entry.id),
                }),
                Some(Ok(shared)) => Ok(share_sealer(entry, shared)),
                Some(Err(_)) => Err(Error::Identity(crate::identity::Error::Sealed)),
            };
            let summary = sealer.and_then(|sealer| {
                let seq = entry.segments.saturating_sub(1);
                let opened = sealer.open_summary(&entry.summary);
                opened.map_err(|source| Error::Manifest { seq, source })
            });
            let name = match shared {
                Some(shared) => shared.ok().map(|shared| shared.name),
                None => summary.as_ref().ok().map(|summary| summary.name.clone()),
            };
            Listed {
                name,
                id: *entry.id,
                owner: entry.owner.map(|owner| *owner),
                segments: entry.segments,
                first: entry.first,
                held: entry.held.clone(),
                summary,
            }
        };
        let (mut list, mut all) = (Listing::new(origin), Vec::new());
        while let Some(page) = list.next().await? {
            all.extend(page.iter().map(&listed));
        }
        Ok(all)
    }

    /// Asks for segments that were added since, and whether there are any.
    pub async fn refresh(&self) -> Result<bool, Error> {
        let mut index = self.index();
        let before = index.timeline.end();
        let mut timeline = Timeline::clone(&index.timeline);
        loop {
            let from = timeline.end();
            let page = origin::patiently(self.patience, || {
                self.origin
                    .recording(&self.sealer.id, from, self.owner.as_ref())
            })
            .await?;
            if page.first > page.segments {
                return Err(Error::Chain(page.segments));
            }
            timeline.trim(page.first);
            for (seq, sealed) in (timeline.end()..page.segments).zip(&page.heads) {
                let head = self.sealer.open_head(seq, sealed);
                timeline.push(head.map_err(|source| Error::Manifest { seq, source })?)?;
            }
            if timeline.end() < page.segments && timeline.end() > from {
                continue;
            }
            if timeline.end() != page.segments {
                // Heads are lacking, or segments that were there are gone.
                return Err(Error::Chain(page.segments.min(timeline.end())));
            }
            let summary = self.sealer.open_summary(&page.summary);
            let seq = timeline.end().saturating_sub(1);
            index.summary = summary.map_err(|source| Error::Manifest { seq, source })?;
            break;
        }
        index.timeline = Arc::new(timeline);
        let grown = index.timeline.end() > before;
        *lock(&self.index) = index;
        Ok(grown)
    }

    /// Whether a request for a segment failed only because retention has removed it meanwhile,
    /// and all before it.
    async fn is_trimmed(&self, seq: u64, error: &Error) -> bool {
        let gone = matches!(
            error,
            Error::Damaged { .. }
                | Error::Chain(_)
                | Error::Refused {
                    code: Code::NotFound,
                    ..
                }
        );
        gone && self.refresh().await.is_ok() && self.timeline().first() > seq
    }

    fn index(&self) -> Index {
        lock(&self.index).clone()
    }

    /// Where the segments lie in time.
    pub fn timeline(&self) -> Arc<Timeline> {
        lock(&self.index).timeline.clone()
    }

    /// The recording as a list shows it.
    pub fn summary(&self) -> Summary {
        lock(&self.index).summary.clone()
    }

    /// Stored chunks fetched so far, and their bytes.
    pub fn fetched(&self) -> (u64, u64) {
        let (chunks, bytes) = &self.fetched;
        (
            chunks.load(Ordering::Relaxed),
            bytes.load(Ordering::Relaxed),
        )
    }

    /// The key and id of the recording, to share it.
    pub fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// The owner's signing key, if the recording is another's.
    pub fn owner(&self) -> Option<[u8; 32]> {
        self.owner.map(|owner| *owner)
    }

    /// The manifest of a segment, checked against its head.
    pub async fn segment(&self, seq: u64) -> Result<Arc<Manifest>, Error> {
        if let Some((_, kept)) = lock(&self.manifests).iter().find(|(at, _)| *at == seq) {
            return Ok(kept.clone());
        }
        let head = self
            .timeline()
            .head(seq)
            .cloned()
            .ok_or(Error::Chain(seq))?;
        let sealed = origin::patiently(self.patience, || {
            self.origin
                .segment(&self.sealer.id, seq, self.owner.as_ref())
        })
        .await?;
        let digest: [u8; 32] = Sha256::digest(&sealed).into();
        if !bool::from(digest.ct_eq(&*head.manifest)) {
            return Err(Error::Chain(seq));
        }
        let manifest = self.sealer.open_manifest(seq, &sealed);
        let manifest = Arc::new(manifest.map_err(|source| Error::Manifest { seq, source })?);
        let mut kept = lock(&self.manifests);
        kept.push_back((seq, manifest.clone()));
        let excess = kept.len().saturating_sub(MANIFESTS);
        kept.drain(..excess);
        Ok(manifest)
    }
}

fn open_share(entry: &RecordingEntry, identity: &Identity) -> Result<SharedKey, Error> {
    let sealed = entry.shared.as_deref().map_or(&[][..], |v| v);
    let clear = identity.open(SHARE_INFO, sealed)?;
    protocol::decode(&clear).map_err(|_| Error::Identity(crate::identity::Error::Sealed))
}

fn share_sealer(entry: &RecordingEntry, shared: &SharedKey) -> Sealer {
    Sealer {
        id: *entry.id,
        key: AeadKey::new(*shared.key),
    }
}

/// For fuzzing: does with a segment all that playing does before anything is fetched.
#[cfg(fuzzing)]
pub fn plan_all(manifest: Manifest) {
    let manifest = Arc::new(manifest);
    let plans = (0..manifest.tracks.len()).map(|index| plan::TrackPlan::new(0, &manifest, index));
    let Ok(mut plans) = plans.collect::<Result<Vec<_>, _>>() else {
        return;
    };
    for plan in &mut plans {
        for unit in plan.wanted.clone() {
            let time = plan.shown(unit).unwrap_or_default();
            let entries = (plan.entry_before(time), plan.entry_after(time));
            assert!(entries.0.is_none_or(|entry| plan.entry(entry)));
            plan.place(unit).timestamp(time);
            plan.unit(unit, Vec::new());
        }
        plan.stop_at(0);
        plan.wanted = 0..plan.infos.len();
    }
    let order = plan::interleave(&plans);
    plan::chunks_for(&plans, &order);
}

/// What these locks guard is replaced whole, so a panic elsewhere leaves it usable.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
