// SPDX-License-Identifier: MPL-2.0
//! Makes chunks durable and owned: joins a copy that is right, or adds one.

use super::recorder::{Stats, Verify};
use super::{Error, Vault};
use crate::manifest::Stored;
use crate::protocol::{
    B32, Limits, MAX_VARIANTS, Outcome, Registration, Variant, Wanted, c3_check,
};
use crate::rce::{self, ChunkId, Record};
use bytes::Bytes;
use minicbor::bytes::ByteVec;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long one chunk waits for another uploader that is sending it just now.
const MAX_WAIT: Duration = Duration::from_secs(3);
/// How often a chunk is asked for or registered again before the server is not believed.
const MAX_TRIES: u32 = 8;
/// Chunks that are remembered as held, and for how long: well below the server's 48 hours.
const RECENT: usize = 1000;
const RECENT_TIME: Duration = Duration::from_secs(12 * 3600);

/// One chunk to store.
pub(crate) struct Job {
    pub id: ChunkId,
    pub in_domain: bool,
    len: u32,
    data: Data,
    held: Option<Held>,
    refused: Vec<B32>,
}

/// The chunk's bytes, as far as they are still needed.
enum Data {
    Clear(Vec<u8>),
    Sealed(Record, Bytes),
    Gone,
}

/// The copy that is now owned.
#[derive(Clone, Copy)]
pub(crate) struct Held {
    pub d1: B32,
    /// Stored first by this recorder.
    pub new: bool,
}

impl Job {
    pub fn new(id: ChunkId, in_domain: bool, content: Vec<u8>) -> Self {
        Self {
            id,
            in_domain,
            len: u32::try_from(content.len()).unwrap_or(u32::MAX),
            data: Data::Clear(content),
            held: None,
            refused: Vec::new(),
        }
    }

    /// A chunk that was stored in an earlier run.
    pub fn held(id: ChunkId, in_domain: bool, len: u32, held: Held) -> Self {
        Self {
            id,
            in_domain,
            len,
            data: Data::Gone,
            held: Some(held),
            refused: Vec::new(),
        }
    }

    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn holding(&self) -> Option<Held> {
        self.held
    }

    /// What the manifest says of it, once it is stored.
    pub fn stored(&self) -> Option<Stored> {
        Some(Stored {
            key: (*self.id.key().expose()).into(),
            d1: self.held?.d1,
            len: self.len,
            in_domain: self.in_domain,
        })
    }

    /// The chunk in the clear; nothing once it is stored.
    pub fn clear(&mut self) -> Result<&[u8], rce::Error> {
        if let Data::Sealed(record, _) = &self.data {
            let record = *record;
            let Data::Sealed(_, blob) = std::mem::replace(&mut self.data, Data::Gone) else {
                return Ok(&[]);
            };
            let mut chunk = Vec::from(blob);
            rce::open(self.id.key(), self.in_domain, None, &record, &mut chunk)?;
            self.data = Data::Clear(chunk);
        }
        match &self.data {
            Data::Clear(chunk) => Ok(chunk),
            _ => Ok(&[]),
        }
    }

    fn seal(&mut self) -> Result<(Record, Bytes), rce::Error> {
        if let Data::Clear(chunk) = &mut self.data {
            let record = rce::seal(&self.id, chunk)?;
            self.data = Data::Sealed(record, Bytes::from(std::mem::take(chunk)));
        }
        match &self.data {
            Data::Sealed(record, blob) => Ok((*record, blob.clone())),
            _ => Err(rce::Error::Chunk),
        }
    }

    fn hold(&mut self, held: Held) {
        self.held = Some(held);
        self.data = Data::Gone;
    }

    /// The first right copy that was not refused before; wrong ones are refused.
    fn choose(&mut self, shown: &[Variant], verify: Verify) -> Result<Option<Variant>, Error> {
        for variant in shown.iter().take(MAX_VARIANTS) {
            if self.refused.contains(&variant.d1) {
                continue;
            }
            let c3 = rce::expected_c3(&self.id, &variant.c2);
            let mut right = c3_check(&c3) == variant.c3_check;
            if right && verify == Verify::Deep {
                let id = self.id.clone();
                right = rce::expected_d1(&id, self.clear()?, &variant.c2) == *variant.d1;
            }
            if right {
                return Ok(Some(variant.clone()));
            }
            self.refused.push(variant.d1);
        }
        Ok(None)
    }
}

/// A job on its way.
struct Work<'a> {
    job: &'a mut Job,
    step: Step,
    waited: Duration,
    tries: u32,
}

enum Step {
    /// Ask what is stored.
    Ask,
    /// Send a copy.
    Send,
    /// Join this copy.
    Join(Variant),
    /// Add the copy that was sent.
    Add(Record, ByteVec),
}

/// Stores chunks at one vault.
pub(crate) struct Uploader {
    vault: Vault,
    verify: Verify,
    stats: Arc<Mutex<Stats>>,
    recent: Mutex<Recent>,
}

#[derive(Default)]
struct Recent {
    held: HashMap<[u8; 32], (B32, Instant)>,
    order: VecDeque<[u8; 32]>,
}

impl Uploader {
    pub fn new(vault: Vault, verify: Verify, stats: Arc<Mutex<Stats>>) -> Self {
        Self {
            vault,
            verify,
            stats,
            recent: Mutex::default(),
        }
    }

    /// Stores every chunk, or fails; those that were done stay done. May be cancelled anywhere.
    pub async fn store(&self, jobs: Vec<&mut Job>) -> Result<(), Error> {
        let limits = self.vault.limits().await?;
        let mut first: HashMap<[u8; 32], Work<'_>> = HashMap::new();
        let mut order = Vec::new();
        let mut again = Vec::new();
        for job in jobs.into_iter().filter(|job| job.held.is_none()) {
            if let Some(d1) = self.recently(job.id.tag()) {
                job.hold(Held { d1, new: false });
                self.count(|s| s.hits += 1);
            } else if first.contains_key(job.id.tag()) {
                again.push(job);
            } else {
                let tag = *job.id.tag();
                order.push(tag);
                let work = Work {
                    job,
                    step: Step::Ask,
                    waited: Duration::ZERO,
                    tries: 0,
                };
                first.insert(tag, work);
            }
        }
        let mut works: Vec<_> = order.iter().filter_map(|tag| first.remove(tag)).collect();
        let group = usize::try_from(limits.batch_items).map_or(1, |n| n.clamp(1, 4096));
        while !works.is_empty() {
            let rest = works.split_off(works.len().min(group));
            self.group(std::mem::replace(&mut works, rest), &limits)
                .await?;
        }
        for job in again {
            if let Some(d1) = self.recently(job.id.tag()) {
                job.hold(Held { d1, new: false });
                self.count(|s| s.hits += 1);
            }
        }
        Ok(())
    }

    async fn group(&self, mut works: Vec<Work<'_>>, limits: &Limits) -> Result<(), Error> {
        let mut token = ByteVec::from(Vec::new());
        while !works.is_empty() {
            let pause = self.ask(&mut works, &mut token).await?;
            self.send(&mut works, &token, limits).await?;
            self.register(&mut works).await?;
            works.retain(|work| work.job.held.is_none());
            if works.iter().any(|work| work.tries > MAX_TRIES) {
                return Err(Error::Answer {
                    vault: format!("{:?}", self.vault),
                    what: "registration".into(),
                    reason: format!("no agreement on a chunk in {MAX_TRIES} attempts"),
                });
            }
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
                works.iter_mut().for_each(|work| work.waited += pause);
            }
        }
        Ok(())
    }

    /// Looks chunks up and checks what is there. Returns how long to wait for those that another
    /// uploader is sending.
    async fn ask(
        &self,
        works: &mut [Work<'_>],
        token: &mut ByteVec,
    ) -> Result<Option<Duration>, Error> {
        let mut asked: Vec<_> = works
            .iter_mut()
            .filter(|w| matches!(w.step, Step::Ask))
            .collect();
        if asked.is_empty() {
            return Ok(None);
        }
        let wanted = asked.iter().map(|work| Wanted {
            tag: (*work.job.id.tag()).into(),
            len: work.job.len,
        });
        let found = self.vault.lookup(wanted.collect()).await?;
        *token = found.put_token;
        let mut pause: Option<Duration> = None;
        for (work, found) in asked.iter_mut().zip(found.chunks) {
            if let Some(variant) = self.choose(work.job, &found.variants)? {
                work.step = Step::Join(variant);
            } else if found.wait_ms > 0 && work.waited < MAX_WAIT {
                let hint = Duration::from_millis(u64::from(found.wait_ms.max(50)));
                let hint = hint.min(MAX_WAIT - work.waited);
                pause = Some(pause.map_or(hint, |p| p.min(hint)));
            } else {
                work.step = Step::Send;
            }
        }
        Ok(pause)
    }

    async fn send(
        &self,
        works: &mut [Work<'_>],
        token: &[u8],
        limits: &Limits,
    ) -> Result<(), Error> {
        let mut missing: VecDeque<_> = works
            .iter_mut()
            .filter(|w| matches!(w.step, Step::Send))
            .collect();
        while !missing.is_empty() {
            let (mut sending, mut blobs, mut bytes) = (Vec::new(), Vec::new(), 0u64);
            while let Some(work) = missing.pop_front() {
                if !blobs.is_empty() && bytes + u64::from(work.job.len) > limits.batch_bytes {
                    missing.push_front(work);
                    break;
                }
                let (record, blob) = work.job.seal()?;
                bytes += blob.len() as u64;
                blobs.push((record.d1, blob));
                sending.push((work, record));
            }
            let receipts = self.vault.upload_blobs(token, &blobs).await?;
            self.count(|s| s.bytes_sent += bytes);
            for ((work, record), receipt) in sending.into_iter().zip(receipts) {
                work.step = Step::Add(record, receipt);
            }
        }
        Ok(())
    }

    async fn register(&self, works: &mut [Work<'_>]) -> Result<(), Error> {
        let mut ready = Vec::new();
        let mut registrations = Vec::new();
        for work in works.iter_mut() {
            let id = &work.job.id;
            let (c2, c3, d1, receipt) = match &work.step {
                Step::Join(v) => (*v.c2, rce::expected_c3(id, &v.c2), *v.d1, None),
                Step::Add(r, receipt) => (r.c2, r.c3, r.d1, Some(receipt.clone())),
                Step::Ask | Step::Send => continue,
            };
            registrations.push(Registration {
                tag: (*id.tag()).into(),
                c2: c2.into(),
                c3: c3.into(),
                d1: d1.into(),
                len: work.job.len,
                receipt,
                refused: work.job.refused.clone(),
            });
            ready.push((work, B32::from(d1)));
        }
        if ready.is_empty() {
            return Ok(());
        }
        let registered = self.vault.register(registrations).await?;
        for ((work, d1), outcome) in ready.into_iter().zip(registered.chunks) {
            match outcome {
                Outcome::Joined | Outcome::Added => {
                    let new = matches!(work.step, Step::Add(..));
                    work.job.hold(Held { d1, new });
                    self.remember(*work.job.id.tag(), d1);
                    self.count(|s| match new {
                        true => s.misses += 1,
                        false => s.hits += 1,
                    });
                    continue;
                }
                Outcome::Unseen(shown) => match self.choose(work.job, &shown)? {
                    Some(variant) => work.step = Step::Join(variant),
                    None if matches!(work.step, Step::Join(_)) => work.step = Step::Ask,
                    // Registered again with the wrong ones refused.
                    None => (),
                },
                Outcome::NoBlob => {
                    // A copy that was deleted meanwhile does not come back under its name soon.
                    if matches!(work.step, Step::Add(..)) {
                        work.job.clear()?;
                    }
                    work.step = Step::Ask;
                }
                Outcome::SecondVariant => return Err(Error::NoGoodCopy),
            }
            work.tries += 1;
        }
        Ok(())
    }

    fn choose(&self, job: &mut Job, shown: &[Variant]) -> Result<Option<Variant>, Error> {
        let before = job.refused.len();
        let chosen = job.choose(shown, self.verify)?;
        let wrong = (job.refused.len() - before) as u64;
        if wrong > 0 {
            self.count(|s| s.poisoned += wrong);
        }
        Ok(chosen)
    }

    fn count(&self, change: impl FnOnce(&mut Stats)) {
        change(&mut self.stats.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Relies no longer on chunks that were stored before.
    pub fn forget(&self) {
        *self.recent.lock().unwrap_or_else(PoisonError::into_inner) = Recent::default();
    }

    fn recently(&self, tag: &[u8; 32]) -> Option<B32> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let (d1, since) = recent.held.get(tag)?;
        (since.elapsed() < RECENT_TIME).then_some(*d1)
    }

    fn remember(&self, tag: [u8; 32], d1: B32) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.held.insert(tag, (d1, Instant::now())).is_none() {
            recent.order.push_back(tag);
        }
        while recent.order.len() > RECENT {
            if let Some(oldest) = recent.order.pop_front() {
                recent.held.remove(&oldest);
            }
        }
    }
}
