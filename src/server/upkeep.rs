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

/// Held from the claim of blobs until their deletion is noted: a second deletion of the same name
/// could otherwise hit a blob that was stored and registered again in between.
#[derive(Debug, Default)]
pub struct Sweeping(Mutex<()>);

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
    let _alone = sweeping.0.lock().await;
    loop {
        let claimed = metadata.claim_trash(before, BATCH).await?;
        if claimed.is_empty() {
            return Ok(collected);
        }
        collected += claimed.len() as u64;
        let at = blobs.delete(&claimed).await?;
        metadata.deleted(claimed, at).await?;
    }
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
    let _alone = sweeping.0.lock().await;
    remove_orphans(metadata, blobs, orphan_age, &mut report).await?;
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
            let claimed = metadata.claim_orphans(names.to_vec()).await?;
            if !claimed.is_empty() {
                report.orphans_removed += claimed.len() as u64;
                let at = blobs.delete(&claimed).await?;
                metadata.deleted(claimed, at).await?;
            }
        }
    }
    Ok(())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
