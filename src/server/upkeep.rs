// SPDX-License-Identifier: MPL-2.0
//! What keeps the stores tidy, as jobs that servers share: collecting blobs without owners,
//! forgetting what retention no longer keeps, scrubbing.
//!
//! **Deleting blobs from several servers at once.** A server that was frozen between the claim of
//! a blob and its deletion may wake up when another has long deleted that blob and noted it. Were
//! the same blob stored anew meanwhile, the late deletion would lose it. No lease prevents that,
//! for nobody can tell a server that is frozen from one that is gone. So the claim is not a lease:
//! a name that was claimed once cannot be registered again, by anybody, until a day after its
//! deletion was noted ([`Metadata::claim_trash`]). Whatever is deleted late then has no owner. An
//! uploader whose blob has such a name seals the chunk anew, under another key and so another
//! name; that names come again at all takes a client that repeats an upload. What is left is a
//! server that sleeps for a day between looking at the clock and deleting: see [`PROMPT`].

use super::app::App;
use super::jobs::Task;
use crate::ownership::Leaf;
use crate::protocol::{Job, MAX_NAMED, Retention, ScrubReport, decode, encode};
use crate::store::{Error, Hash, Health, Metadata, Upkeep, now_ms};
use async_trait::async_trait;
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use prometheus_client::metrics::counter::Counter;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Blobs deleted or checked in one go.
const BATCH: usize = 256;
/// Claimed blobs are deleted within this time, or not at all and claimed again: well below the day
/// for which a deleted name is not used.
const PROMPT: Duration = Duration::from_secs(3600);
/// How long a step that goes through owners takes, about.
const STEP: Duration = Duration::from_secs(2);
/// Name of the job [`Collect`].
const COLLECT: &str = "collect";
/// Name of the job [`Retain`].
const RETAIN: &str = "retain";
/// Name of the job [`Scrub`].
pub const SCRUB: &str = "scrub";
/// All of them.
pub const JOBS: [&str; 3] = [COLLECT, RETAIN, SCRUB];

/// Deletes what was claimed just before; how many blobs.
async fn delete(
    metadata: &dyn Metadata,
    blobs: &dyn Upkeep,
    claimed: Vec<Hash>,
    since: u64,
) -> Result<u64, Error> {
    let count = claimed.len() as u64;
    // By the clock on the wall: others stand still while a machine sleeps.
    if count == 0 || now_ms().abs_diff(since) > millis(PROMPT) {
        return Ok(0);
    }
    let at = blobs.delete(&claimed).await?;
    metadata.deleted(claimed, at).await?;
    Ok(count)
}

/// Whether the next run of a job that is done every so often is due.
fn is_due(last: &Job, every: Duration, now: u64) -> bool {
    let next = last.finished_ms.map(|at| at.saturating_add(millis(every)));
    // A clock that was set back does not stop it.
    next.is_none_or(|next| next <= now || last.started_ms > now)
}

/// Ends holds that have run out and deletes blobs that have been in the trash for `grace`.
pub struct Collect {
    /// Who owns what.
    pub metadata: Arc<dyn Metadata>,
    /// The blobs.
    pub blobs: Arc<dyn Upkeep>,
    /// How long a blob without owners is kept.
    pub grace: Duration,
    /// How often there is a run.
    pub every: Duration,
    /// Counts deleted blobs.
    pub collected: Counter,
}

#[async_trait]
impl Task for Collect {
    fn name(&self) -> &'static str {
        COLLECT
    }

    fn begin(&self, last: &Job, now: u64) -> Option<ByteVec> {
        is_due(last, self.every, now).then(|| ByteVec::from(Vec::new()))
    }

    async fn step(&self, job: &mut Job) -> Result<(), Error> {
        if self.metadata.expire_holds(now_ms()).await? > 0 {
            return Ok(());
        }
        let since = now_ms();
        let before = since.saturating_sub(millis(self.grace)).saturating_add(1);
        let claimed = self.metadata.claim_trash(before, BATCH).await?;
        if claimed.len() < BATCH {
            job.cursor = None;
        }
        let deleted = delete(&*self.metadata, &*self.blobs, claimed, since).await?;
        self.collected.inc_by(deleted);
        job.done += deleted;
        Ok(())
    }
}

/// Forgets what owners or the server no longer want to keep; the cursor is the next owner.
pub struct Retain {
    /// Who owns what.
    pub metadata: Arc<dyn Metadata>,
    /// The longest that anything is kept.
    pub longest: Option<Duration>,
    /// How often there is a run.
    pub every: Duration,
}

#[async_trait]
impl Task for Retain {
    fn name(&self) -> &'static str {
        RETAIN
    }

    fn begin(&self, last: &Job, now: u64) -> Option<ByteVec> {
        is_due(last, self.every, now).then(|| encode(&0u32).into())
    }

    async fn step(&self, job: &mut Job) -> Result<(), Error> {
        let mut owner: Leaf = cursor(job)?;
        let owners = self.metadata.stats().await?.owners;
        let began = Instant::now();
        while u64::from(owner) < owners && began.elapsed() < STEP {
            let forgotten = match self.longest {
                None if self.metadata.retention(owner).await? == Retention::default() => 0,
                longest => {
                    let now = now_ms();
                    let oldest = longest.map_or(0, |age| now.saturating_sub(millis(age)));
                    self.metadata.trim(owner, oldest, now).await?
                }
            };
            job.done += forgotten;
            if forgotten == 0 {
                owner += 1;
            }
        }
        job.of = None;
        job.cursor = (u64::from(owner) < owners).then(|| encode(&owner).into());
        Ok(())
    }
}

/// Reads every blob, and mends what can be mended: see [`ScrubReport`]. Blobs that no variant
/// names are removed if they are older than some age, unfinished uploads likewise.
pub struct Scrub {
    /// Who owns what.
    pub metadata: Arc<dyn Metadata>,
    /// The blobs.
    pub blobs: Arc<dyn Upkeep>,
}

/// Where a scrub stands.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Place {
    #[n(0)]
    at: Phase,
    /// Age in ms from which a blob without variants is an orphan.
    #[n(1)]
    orphan_age: u64,
}

#[derive(Encode, Decode)]
enum Phase {
    /// Leftovers and counts.
    #[n(0)]
    Counts,
    /// Variants behind one (tag and d1).
    #[n(1)]
    Variants(#[n(0)] Option<(ByteArray<32>, ByteArray<32>)>),
    /// Blobs whose name begins with this byte.
    #[n(2)]
    Orphans(#[n(0)] u8),
}

impl Scrub {
    /// Where a run begins.
    pub fn beginning(orphan_age: Duration) -> ByteVec {
        let place = Place {
            at: Phase::Counts,
            orphan_age: millis(orphan_age),
        };
        encode(&place).into()
    }

    /// A whole run, where no other server can take part.
    pub async fn run(&self, orphan_age: Duration) -> Result<ScrubReport, Error> {
        let mut job = Job {
            cursor: Some(Self::beginning(orphan_age)),
            ..Job::default()
        };
        while job.cursor.is_some() {
            self.step(&mut job).await?;
        }
        Ok(job.report.unwrap_or_default())
    }
}

#[async_trait]
impl Task for Scrub {
    fn name(&self) -> &'static str {
        SCRUB
    }

    fn begin(&self, _: &Job, _: u64) -> Option<ByteVec> {
        // Only when it is asked for.
        None
    }

    async fn step(&self, job: &mut Job) -> Result<(), Error> {
        let (metadata, blobs) = (&*self.metadata, &*self.blobs);
        let Place { at, orphan_age } = cursor(job)?;
        let mut report = job.report.take().unwrap_or_default();
        let next = match at {
            Phase::Counts => {
                report.leftovers_removed += blobs.clean(orphan_age).await?;
                let audit = metadata.audit(now_ms()).await?;
                report.segments = audit.segments;
                report.counts_mended += audit.mended;
                Some(Phase::Variants(None))
            }
            Phase::Variants(after) => {
                job.of = Some(metadata.stats().await?.variants);
                let after = after.map(|(tag, d1)| (*tag, *d1));
                let last = check_variants(metadata, blobs, after, &mut report).await?;
                job.done = report.variants;
                Some(match last {
                    Some((tag, d1)) => Phase::Variants(Some((tag.into(), d1.into()))),
                    None => Phase::Orphans(0),
                })
            }
            Phase::Orphans(first) => {
                report.orphans_removed +=
                    remove_orphans(metadata, blobs, first, orphan_age).await?;
                first.checked_add(1).map(Phase::Orphans)
            }
        };
        job.report = Some(report);
        job.cursor = next.map(|at| encode(&Place { at, orphan_age }).into());
        Ok(())
    }
}

/// Checks the next variants; the last of them, none at the end.
async fn check_variants(
    metadata: &dyn Metadata,
    blobs: &dyn Upkeep,
    after: Option<(Hash, Hash)>,
    report: &mut ScrubReport,
) -> Result<Option<(Hash, Hash)>, Error> {
    let places = metadata.variants(after, BATCH).await?;
    report.variants += places.len() as u64;
    let names: Vec<Hash> = places.iter().map(|place| place.d1).collect();
    for (place, health) in places.iter().zip(blobs.check(&names).await?) {
        let bad = health != Health::Fine;
        // One that has been forgotten meanwhile is not missing.
        if (bad || place.damaged) && metadata.mark(place.tag, place.d1, bad).await? {
            report.bad += u64::from(bad);
            let named = match health {
                Health::Fine => {
                    report.counts_mended += 1;
                    continue;
                }
                Health::Missing => &mut report.missing,
                Health::Damaged => &mut report.damaged,
            };
            if named.len() < MAX_NAMED {
                named.push(place.d1.into());
            }
        }
    }
    Ok(places.last().map(|last| (last.tag, last.d1)))
}

async fn remove_orphans(
    metadata: &dyn Metadata,
    blobs: &dyn Upkeep,
    first: u8,
    age: u64,
) -> Result<u64, Error> {
    let youngest = now_ms().saturating_sub(age);
    let listed = blobs.list(first).await?;
    let old: Vec<Hash> = listed
        .iter()
        .filter(|blob| blob.written_ms <= youngest)
        .map(|blob| blob.d1)
        .collect();
    let mut removed = 0;
    for names in old.chunks(BATCH) {
        let since = now_ms();
        let claimed = metadata.claim_orphans(names.to_vec()).await?;
        removed += delete(metadata, blobs, claimed, since).await?;
    }
    Ok(removed)
}

fn cursor<T: for<'b> Decode<'b, ()>>(job: &Job) -> Result<T, Error> {
    let bytes = job.cursor.as_deref().map_or(&[][..], |bytes| bytes);
    decode(bytes).map_err(|_| Error::Corrupt("job"))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Takes part in all jobs for ever.
pub async fn work(app: Arc<App>) {
    let Some(role) = &app.metadata else {
        return;
    };
    let (metadata, blobs) = (&role.store, &role.upkeep);
    let tasks: [Box<dyn Task>; 3] = [
        Box::new(Collect {
            metadata: metadata.clone(),
            blobs: blobs.clone(),
            grace: app.config.grace,
            every: app.config.collect_every,
            collected: app.metrics.collected.clone(),
        }),
        Box::new(Retain {
            metadata: metadata.clone(),
            longest: app.config.retention_age,
            every: app.config.retain_every,
        }),
        Box::new(Scrub {
            metadata: metadata.clone(),
            blobs: blobs.clone(),
        }),
    ];
    // Side by side: a scrub of days keeps nobody from collecting.
    let all = tasks.iter().map(|task| async {
        loop {
            tokio::select! {
                () = tokio::time::sleep(app.config.collect_every) => (),
                () = role.wake.notified() => (),
            }
            if let Err(error) = role.jobs.run(&**task).await {
                tracing::error!(job = task.name(), %error, "a job");
                app.metrics.job_failed(task.name());
            }
        }
    });
    futures::future::join_all(all).await;
}
