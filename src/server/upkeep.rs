// SPDX-License-Identifier: MPL-2.0
//! What keeps the stores tidy: collecting blobs without owners, and scrubbing.

use super::app::App;
use crate::protocol::ScrubReport;
use crate::store::{Error, Hash, Health, Metadata, Upkeep, now_ms};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// Blobs deleted or checked in one go.
const BATCH: usize = 256;

/// For so long a server alone may delete blobs, longer than a deletion may take by far.
const LEAD: Duration = Duration::from_secs(180);
/// A deletion that takes longer has failed.
const DELETION: Duration = Duration::from_secs(60);

/// Held from the claim of blobs until their deletion is noted: a second deletion of the same name
/// could otherwise hit a blob that was stored and registered again in between. In this process by
/// a lock, among servers by [`Metadata::may_delete`].
#[derive(Debug)]
pub struct Sweeping {
    server: [u8; 16],
    alone: Mutex<()>,
}

impl Sweeping {
    /// Of a server that has just started.
    pub fn new() -> Result<Self, Error> {
        let mut server = [0; 16];
        getrandom::fill(&mut server).map_err(|_| Error::Random)?;
        let alone = Mutex::default();
        Ok(Self { server, alone })
    }

    /// Whether this server may delete what it claims next.
    async fn may_delete(&self, metadata: &dyn Metadata) -> Result<bool, Error> {
        let now = now_ms();
        metadata
            .may_delete(self.server, now, now.saturating_add(millis(LEAD)))
            .await
    }

    /// Lets other servers delete: what this one has claimed is deleted and noted.
    async fn done(&self, metadata: &dyn Metadata) -> Result<(), Error> {
        metadata.may_delete(self.server, now_ms(), 0).await?;
        Ok(())
    }
}

/// Deletes claimed blobs and notes it.
async fn delete(
    metadata: &dyn Metadata,
    blobs: &dyn Upkeep,
    claimed: Vec<Hash>,
) -> Result<(), Error> {
    let deleted = tokio::time::timeout(DELETION, blobs.delete(&claimed)).await;
    let at = deleted.map_err(|_| Error::Remote("deleting takes too long".into()))??;
    metadata.deleted(claimed, at).await
}

/// Ends holds that have run out and deletes blobs that have been in the trash for `grace`; how
/// many blobs.
pub async fn collect(
    metadata: &dyn Metadata,
    blobs: &dyn Upkeep,
    grace: Duration,
    sweeping: &Sweeping,
) -> Result<u64, Error> {
    while metadata.expire_holds(now_ms()).await? > 0 {}
    let before = now_ms().saturating_sub(millis(grace)).saturating_add(1);
    let mut collected = 0;
    let _alone = sweeping.alone.lock().await;
    while sweeping.may_delete(metadata).await? {
        let claimed = metadata.claim_trash(before, BATCH).await?;
        if claimed.is_empty() {
            sweeping.done(metadata).await?;
            break;
        }
        collected += claimed.len() as u64;
        delete(metadata, blobs, claimed).await?;
    }
    Ok(collected)
}

/// Collects for ever.
pub async fn collector(app: Arc<App>) {
    let Some(role) = &app.metadata else {
        return;
    };
    loop {
        tokio::time::sleep(app.config.collect_every).await;
        match collect(
            &*role.store,
            &*role.upkeep,
            app.config.grace,
            &role.sweeping,
        )
        .await
        {
            Ok(count) => app.metrics.collected.inc_by(count),
            Err(error) => {
                tracing::error!(%error, "collecting blobs without owners");
                app.metrics.collections_failed.inc()
            }
        };
    }
}

/// Reads every blob, and mends what can be mended: see [`ScrubReport`]. Blobs that no variant
/// names are removed if they are older than `orphan_age`, unfinished uploads likewise.
pub async fn scrub(
    metadata: &dyn Metadata,
    blobs: &dyn Upkeep,
    orphan_age: Duration,
    sweeping: &Sweeping,
) -> Result<ScrubReport, Error> {
    let mut report = ScrubReport {
        leftovers_removed: blobs.clean(millis(orphan_age)).await?,
        ..ScrubReport::default()
    };
    let audit = metadata.audit(now_ms()).await?;
    report.segments = audit.segments;
    report.counts_mended = audit.mended;
    check_variants(metadata, blobs, &mut report).await?;
    let _alone = sweeping.alone.lock().await;
    remove_orphans(metadata, blobs, orphan_age, sweeping, &mut report).await?;
    Ok(report)
}

async fn check_variants(
    metadata: &dyn Metadata,
    blobs: &dyn Upkeep,
    report: &mut ScrubReport,
) -> Result<(), Error> {
    let mut after = None;
    loop {
        let places = metadata.variants(after, BATCH).await?;
        let Some(last) = places.last() else {
            return Ok(());
        };
        after = Some((last.tag, last.d1));
        report.variants += places.len() as u64;
        let names: Vec<Hash> = places.iter().map(|place| place.d1).collect();
        for (place, health) in places.iter().zip(blobs.check(&names).await?) {
            let bad = health != Health::Fine;
            // One that has been forgotten meanwhile is not missing.
            if (bad || place.damaged) && metadata.mark(place.tag, place.d1, bad).await? {
                match health {
                    Health::Fine => report.counts_mended += 1,
                    Health::Missing => report.missing.push(place.d1.into()),
                    Health::Damaged => report.damaged.push(place.d1.into()),
                }
            }
        }
    }
}

async fn remove_orphans(
    metadata: &dyn Metadata,
    blobs: &dyn Upkeep,
    age: Duration,
    sweeping: &Sweeping,
    report: &mut ScrubReport,
) -> Result<(), Error> {
    for first in 0..=255 {
        let youngest = now_ms().saturating_sub(millis(age));
        let listed = blobs.list(first).await?;
        let old: Vec<Hash> = listed
            .iter()
            .filter(|blob| blob.written_ms <= youngest)
            .map(|blob| blob.d1)
            .collect();
        for names in old.chunks(BATCH) {
            // Another server that deletes ends soon, or has died.
            while !sweeping.may_delete(metadata).await? {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let claimed = metadata.claim_orphans(names.to_vec()).await?;
            if !claimed.is_empty() {
                report.orphans_removed += claimed.len() as u64;
                delete(metadata, blobs, claimed).await?;
            }
            sweeping.done(metadata).await?;
        }
    }
    Ok(())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
