// SPDX-License-Identifier: MPL-2.0
//! A small run of the example `simulate`: its own checks have to pass.

#[allow(dead_code)]
#[path = "../examples/simulate/simulation/mod.rs"]
mod simulation;

use indicatif::ProgressBar;
use simulation::partitions::{self, Load};
use simulation::world::World;
use simulation::{Result, open, owners, popular};

#[tokio::test]
async fn cameras_record_and_users_forget_for_months() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let world = World {
        name: "small",
        cameras: 4,
        users: 20,
        days: 60,
        every: 20,
        retention: 30,
        segments: 2,
        tags: 5,
        batch: 2,
        clips: 3,
        keepers: 6,
    };
    let store = open(dir.path())?;
    let figures = world
        .run(&store, dir.path(), &ProgressBar::hidden())
        .await?;
    // The last of three days' recordings is kept, of seven recorders; clips besides.
    assert_eq!(figures.stats.recordings, 7 + 6);
    assert_eq!(figures.stats.blobs, figures.stats.variants);
    assert!(figures.meter.of("forget").calls > 0);
    Ok(())
}

#[tokio::test]
async fn many_own_a_chunk_and_one_has_many_recordings() -> Result<()> {
    for owners in [3, 100] {
        let dir = tempfile::tempdir()?;
        let figures = popular::measure(&*open(dir.path())?, owners).await?;
        assert_eq!(figures.owners, owners);
    }
    let dir = tempfile::tempdir()?;
    let hot = owners::hot(&*open(dir.path())?, &[2, 5]).await?;
    assert!(hot[1].bytes > hot[0].bytes);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_needs_the_store_of_its_partition_alone() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let stores = (0..3).map(|n| open(&dir.path().join(n.to_string())));
    let load = Load {
        clients: 2,
        segments: 2,
        tags: 20,
        batch: 7,
    };
    let figures = partitions::measure(stores.collect::<Result<_>>()?, load).await?;
    assert_eq!(figures.touched, 3.0);
    Ok(())
}
