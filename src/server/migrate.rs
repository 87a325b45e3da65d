// SPDX-License-Identifier: MPL-2.0
//! Moving what a vault and a third party keep to other engines.

use super::ttp::Keys;
use super::{Config, Error, Kept, check_place, note_place, secrets, upkeep};
use crate::ownership::Tree;
use crate::protocol::ScrubReport;
use crate::store::{
    BlobPlace, Copied, Embedded, EmbeddedRegistry, Postgres, PostgresUrl, Room, copy_blobs, hex,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Where a vault is to be kept from now on.
#[derive(Clone, Debug, Default)]
pub struct Destination {
    /// Metadata and registry that are in the data directory go to this database.
    pub metadata: Option<PostgresUrl>,
    /// Blobs go to this place.
    pub blobs: Option<BlobPlace>,
}

/// How far a migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many rows of the third party's registry have been copied.
    Registry(u64),
    /// Blobs are copied.
    Blobs,
    /// So many rows of metadata have been copied.
    Metadata(u64),
    /// Everything is read back, as a scrub does.
    Checking,
}

/// What a migration did.
#[derive(Clone, Debug, Default)]
pub struct Migrated {
    /// Rows of the third party's registry that were copied, if there was one that was to move.
    pub registry: Option<u64>,
    /// Of the blobs, if they were to move.
    pub blobs: Option<Copied>,
    /// What a scrub of the new place found. A third party by itself has none.
    pub report: Option<ScrubReport>,
}

/// Moves what a server keeps that does not run, with the settings `config`; then reads all of it
/// at its new place. What is there already is not copied again, so an interrupted migration goes
/// on. Nothing is deleted: what was metadata and registry is renamed (`metadata.migrated`,
/// `ttp.migrated`), so that no server takes it for the present one, and the old blobs stay. From
/// then on the same settings with the new places serve the vault.
pub async fn migrate(
    config: &Config,
    to: &Destination,
    told: impl Fn(Step) + Send + Sync,
) -> Result<Migrated, Error> {
    // A registry first: as long as there is metadata, all is done again.
    let registry = match &to.metadata {
        Some(url) if Kept::Registry.below(&config.data).exists() => {
            Some(move_registry(config, url, &told).await?)
        }
        _ => None,
    };
    if registry.is_some() && to.blobs.is_none() && !Kept::Metadata.below(&config.data).exists() {
        return Ok(Migrated {
            registry,
            ..Migrated::default()
        });
    }
    let vault = move_vault(config, to, &told).await?;
    Ok(Migrated { registry, ..vault })
}

/// How many rows were copied.
async fn move_registry(
    config: &Config,
    to: &PostgresUrl,
    told: &(impl Fn(Step) + Send + Sync),
) -> Result<u64, Error> {
    let data = &config.data;
    let Keys {
        key, fingerprint, ..
    } = Keys::read(&config.secrets_dir())?;
    // Also locks the server out.
    let kept = Kept::Registry.below(data);
    let registry = EmbeddedRegistry::open(&kept, key, Room::new(data, 0)).await?;
    let copied = AtomicU64::new(0);
    let rows = |rows| {
        copied.store(rows, Ordering::Relaxed);
        told(Step::Registry(rows));
    };
    registry.copy_to(to, fingerprint, &rows).await?;
    drop(registry);
    set_aside(data, Kept::Registry)?;
    Ok(copied.into_inner())
}

async fn move_vault(
    config: &Config,
    to: &Destination,
    told: &(impl Fn(Step) + Send + Sync),
) -> Result<Migrated, Error> {
    let kept = Kept::Metadata.below(&config.data);
    // Both it and the note that a database has it: a migration was interrupted.
    if !kept.exists() {
        check_place(&config.data, Kept::Metadata, false)?;
    }
    let master = secrets::read(&config.secrets_dir().join("master"))?;
    let link = secrets::read(&config.link_file())?;
    let tree = Tree::new(*master);
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
    let report = match &to.metadata {
        None => {
            let metadata = Arc::new(metadata);
            check(upkeep::Scrub { metadata, blobs }).await?
        }
        Some(url) => {
            let shared = secrets::fingerprint(&[&master, &link]);
            let database = Postgres::open(url, tree, shared).await?;
            let rows = |rows| told(Step::Metadata(rows));
            database.fill(&metadata, &rows).await?;
            drop(metadata);
            set_aside(&config.data, Kept::Metadata)?;
            let metadata = Arc::new(database);
            check(upkeep::Scrub { metadata, blobs }).await?
        }
    };
    Ok(Migrated {
        registry: None,
        blobs: copied,
        report: Some(report),
    })
}

/// Notes where it is and renames what has moved. Interrupted in between, no server opens it in
/// either place, and a migration goes on.
fn set_aside(data: &Path, what: Kept) -> Result<(), Error> {
    note_place(data, what)?;
    let kept = what.below(data);
    let mut aside = kept.with_extension("migrated");
    if aside.exists() {
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|_| crate::store::Error::Random)?;
        aside.set_extension(format!("migrated.{}", hex(&random)));
    }
    Ok(std::fs::rename(&kept, &aside)?)
}
