// SPDX-License-Identifier: MPL-2.0
//! Moving what a vault keeps to other engines.

use super::{Config, Error, check_place, secrets, upkeep};
use crate::ownership::Tree;
use crate::protocol::ScrubReport;
use crate::store::{BlobPlace, Copied, Embedded, Postgres, PostgresUrl, Room, copy_blobs, hex};
use std::sync::Arc;
use std::time::Duration;

/// Where a vault is to be kept from now on.
#[derive(Clone, Debug, Default)]
pub struct Destination {
    /// Metadata that is in the data directory goes to this database.
    pub metadata: Option<PostgresUrl>,
    /// Blobs go to this place.
    pub blobs: Option<BlobPlace>,
}

/// How far a migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Blobs are copied.
    Blobs,
    /// So many rows of metadata have been copied.
    Metadata(u64),
    /// Everything is read back, as a scrub does.
    Checking,
}

/// What a migration did.
#[derive(Clone, Debug)]
pub struct Migrated {
    /// Of the blobs, if they were to move.
    pub blobs: Option<Copied>,
    /// What a scrub of the new place found.
    pub report: ScrubReport,
}

/// Moves a vault whose server, with the settings `config`, does not run; then reads all of it at
/// its new place. What is there already is not copied again, so an interrupted migration goes on.
/// Nothing is deleted: the old metadata is renamed (`metadata.migrated`), so that no server takes
/// it for the present one, and the old blobs stay. From then on the same settings with the new
/// places serve the vault.
pub async fn migrate(
    config: &Config,
    to: &Destination,
    told: impl Fn(Step) + Send + Sync,
) -> Result<Migrated, Error> {
    check_place(&config.data, false)?;
    let master = secrets::read(&config.secrets_dir().join("master"))?;
    let link = secrets::read(&config.link_file())?;
    let tree = Tree::new(*master);
    let kept = config.data.join("metadata");
    // Also locks the server out.
    let metadata = Embedded::open(&kept, tree.clone(), Room::new(&config.data, 0))?;
    let blobs = config.blob_place().open(0).await?;
    let moved_to = match &to.blobs {
        Some(place) => Some(place.open(config.reserve).await?),
        None => None,
    };
    let copied = match &moved_to {
        Some(moved_to) => {
            told(Step::Blobs);
            Some(copy_blobs(&*blobs, &**moved_to).await?)
        }
        None => None,
    };
    let blobs = moved_to.unwrap_or(blobs);
    let check = async |scrub: upkeep::Scrub| {
        told(Step::Checking);
        // No blob is an orphan yet.
        scrub.run(Duration::MAX).await
    };
    let Some(url) = &to.metadata else {
        let metadata = Arc::new(metadata);
        let report = check(upkeep::Scrub { metadata, blobs }).await?;
        return Ok(Migrated {
            blobs: copied,
            report,
        });
    };
    let shared = secrets::fingerprint(&[&master, &link]);
    let database = Postgres::open(url, tree, shared).await?;
    let rows = |rows| told(Step::Metadata(rows));
    database.fill(&metadata, &rows).await?;
    drop(metadata);
    let mut aside = config.data.join("metadata.migrated");
    if aside.exists() {
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|_| crate::store::Error::Random)?;
        aside.set_extension(format!("migrated.{}", hex(&random)));
    }
    std::fs::rename(&kept, &aside)?;
    check_place(&config.data, true)?;
    let metadata = Arc::new(database);
    let report = check(upkeep::Scrub { metadata, blobs }).await?;
    Ok(Migrated {
        blobs: copied,
        report,
    })
}
