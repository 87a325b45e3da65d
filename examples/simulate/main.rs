// SPDX-License-Identifier: MPL-2.0
//! The metadata store under a whole population, in simulated time: rows, bytes, costs of every
//! operation, what real cameras would need, and where it stops. docs/scaling.md goes on from the
//! figures that this prints.
//!
//! ```text
//! cargo run --release --example simulate -- [--full] [--cameras N] [--users N] [--json FILE]
//! ```
//! The figures are of the store's own work: its files are in memory (`--dir /dev/shm`), where
//! syncing is free. Only the durable transactions a second are measured on a disk (`--disk`).

mod report;
mod simulation;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use simulation::owners::{self, Cover, Formulas, Hot};
use simulation::partitions::{self, Load, Partitioned};
use simulation::popular::{self, Popular};
use simulation::world::{Figures, World};
use simulation::{Result, open};
use std::path::{Path, PathBuf};

/// Drives the metadata store with cameras and users for months of simulated time.
#[derive(Debug, Parser)]
struct Options {
    /// Cameras of the large world; each records on each day that is simulated.
    #[arg(long, default_value_t = 100_000)]
    cameras: u64,
    /// Users of the large world; all are enrolled.
    #[arg(long, default_value_t = 1_000_000)]
    users: u64,
    /// Days that are simulated (default: 40, with --full 180).
    #[arg(long)]
    days: Option<u64>,
    /// Days until a recording is forgotten.
    #[arg(long, default_value_t = 30)]
    retention: u64,
    /// The most owners of one chunk.
    #[arg(long, default_value_t = 1_000_000)]
    members: u32,
    /// Where the stores are; best a file system in memory with 8 GB, with --full 20 GB.
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// Where durable transactions are measured: a disk.
    #[arg(long, default_value = ".")]
    disk: PathBuf,
    /// The long run, an hour or so: more days, chunks, cameras at true density.
    #[arg(long)]
    full: bool,
    /// Writes the figures here, too.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// All that was measured.
struct Outcome {
    /// Pairs of a tenth and the whole.
    worlds: Vec<[Figures; 2]>,
    popular: Vec<Popular>,
    covers: Vec<Cover>,
    formulas: Formulas,
    hot: Vec<Hot>,
    memory: Vec<Partitioned>,
    disk: Vec<Partitioned>,
    /// The smallest transactions a second on the disk, of one client and of eight.
    syncs: [f64; 2],
}

fn worlds(options: &Options) -> [World; 2] {
    let (days, every) = match options.full {
        true => (options.days.unwrap_or(180), 20),
        false => (options.days.unwrap_or(40), 20),
    };
    let thin = World {
        name: "all cameras",
        cameras: options.cameras,
        users: options.users,
        days,
        every,
        retention: options.retention,
        segments: 1,
        tags: if options.full { 3 } else { 1 },
        batch: 3,
        clips: 1000,
        keepers: options.users / 200,
    };
    let dense = World {
        name: "true density",
        cameras: if options.full { 100 } else { 20 },
        users: (options.users / 100).max(100),
        segments: 3,
        // A minute of ten chunks a second, in batches of two seconds.
        tags: 625,
        batch: 21,
        clips: 10,
        keepers: 10,
        ..thin.clone()
    };
    [thin, dense]
}

/// A tenth of a world.
fn tenth(world: &World) -> World {
    World {
        cameras: (world.cameras / 10).max(1),
        users: (world.users / 10).max(10),
        keepers: world.keepers / 10,
        ..world.clone()
    }
}

async fn live(world: &World, options: &Options) -> Result<Figures> {
    let dir = tempfile::tempdir_in(&options.dir)?;
    let bar = ProgressBar::new(1);
    bar.set_style(ProgressStyle::with_template(
        "{msg}: {wide_bar} {pos}/{len}, {eta} left",
    )?);
    world.run(&open(dir.path())?, dir.path(), &bar).await
}

async fn side_by_side(dir: &Path, count: usize, load: Load) -> Result<Partitioned> {
    let dir = tempfile::tempdir_in(dir)?;
    let stores = (0..count).map(|n| open(&dir.path().join(n.to_string())));
    partitions::measure(stores.collect::<Result<_>>()?, load).await
}

async fn measure(options: &Options) -> Result<Outcome> {
    let mut pairs = Vec::new();
    for world in worlds(options) {
        pairs.push([
            live(&tenth(&world), options).await?,
            live(&world, options).await?,
        ]);
    }
    let bar = ProgressBar::new_spinner();
    let mut popular = Vec::new();
    let mut owners = 1;
    while owners <= options.members {
        bar.set_message(format!("a chunk with {owners} owners"));
        bar.tick();
        let dir = tempfile::tempdir_in(&options.dir)?;
        popular.push(popular::measure(&*open(dir.path())?, owners).await?);
        owners = owners.saturating_mul(10);
    }
    bar.set_message("covers");
    bar.tick();
    let sizes = [10, 1000, 100_000].map(|n: u32| n.min(options.members));
    let covers = sizes.map(|n| owners::draw_cover(n, options.users.max(u64::from(n))));
    bar.set_message("an owner of many recordings");
    bar.tick();
    let dir = tempfile::tempdir_in(&options.dir)?;
    let most = options
        .cameras
        .min(if options.full { 1_000_000 } else { 100_000 });
    let hot = owners::hot(&*open(dir.path())?, &[most / 100, most / 10, most]).await?;
    let mut sides = [Vec::new(), Vec::new()];
    for (at, (out, segments)) in [(&options.dir, 10), (&options.disk, 1)]
        .into_iter()
        .enumerate()
    {
        let plans = [(1, 1), (1, 8), (2, 8), (4, 8)];
        for (count, clients) in plans {
            bar.set_message(format!("{count} stores, {clients} clients"));
            bar.tick();
            let load = Load {
                clients,
                segments: segments * 8 / clients,
                tags: 625,
                batch: 21,
            };
            sides[at].push(side_by_side(out, count, load).await?);
        }
    }
    let mut syncs = [0.0; 2];
    for (out, clients) in syncs.iter_mut().zip([1, 8]) {
        let dir = tempfile::tempdir_in(&options.disk)?;
        *out = partitions::syncs(open(dir.path())?, clients).await?;
    }
    bar.finish_and_clear();
    let [memory, disk] = sides;
    Ok(Outcome {
        worlds: pairs,
        popular,
        covers: covers.into(),
        formulas: owners::formulas(),
        hot,
        memory,
        disk,
        syncs,
    })
}

fn main() -> Result<()> {
    let options = Options::parse();
    let began = std::time::Instant::now();
    // As many as there are clients: the CPU time of a process is asked for thread by thread.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(8)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(measure(&options))?;
    print!("{}", report::markdown(&outcome));
    println!("\nThis run took {:.0?}.", began.elapsed());
    if let Some(file) = &options.json {
        std::fs::write(file, format!("{:#}\n", report::json(&outcome)))?;
    }
    Ok(())
}
