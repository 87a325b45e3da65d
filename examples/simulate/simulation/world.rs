// SPDX-License-Identifier: MPL-2.0
//! Cameras that record for months, users that own, share, play and forget.

use super::measure::{Began, Disk, Meter, Sealed, resident, written};
use super::{DAY, Result, START, bytes, expect, item, number, reference, segment, user_key};
use gstcamvault::identity::RecordingId;
use gstcamvault::ownership::Leaf;
use gstcamvault::protocol::{ChunkRef, Committed, Outcome, Stats, encode};
use gstcamvault::store::{Forgotten, Hash, Item, Metadata, Via};
use indicatif::ProgressBar;
use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of a chunk: docs/decisions/0002-chunk-size.md, 4 Mbit/s.
pub const CHUNK: u32 = 48_000;
/// Owners of camera `n`: most footage has one to three.
const OWNERS: [u64; 10] = [1, 2, 1, 3, 1, 2, 1, 2, 1, 3];
/// Access units in a chunk, 25 a second.
const UNITS: u32 = 3;
/// Of so many recordings one is shared and played by its reader, and one played by its owner.
const PLAYED: u64 = 20;
/// Of so many recorders one dies on each day that is simulated, with a batch that it has
/// registered and no segment names.
const KILLED: u64 = 100;
/// Blobs deleted in one go, as the server does it.
const SWEEP: usize = 256;

/// Owners of a camera, on average.
pub fn mean_owners() -> f64 {
    OWNERS.iter().sum::<u64>() as f64 / OWNERS.len() as f64
}

/// A population and what it does.
#[derive(Clone, Debug)]
pub struct World {
    pub name: &'static str,
    pub cameras: u64,
    pub users: u64,
    /// Days that are simulated; on every `every`th of them all cameras record.
    pub days: u64,
    pub every: u64,
    /// After so many days a recording is forgotten.
    pub retention: u64,
    /// Segments of a recording.
    pub segments: u64,
    /// Chunks of a segment.
    pub tags: usize,
    /// Chunks of a batch: two seconds.
    pub batch: usize,
    /// Public clips of one chunk each, which users keep by Zipf's law.
    pub clips: usize,
    /// Users that keep a clip, on every day that is simulated.
    pub keepers: u64,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Figures {
    pub world: World,
    pub meter: Meter,
    pub took: Duration,
    pub stats: Stats,
    /// Owners of chunks, added up over chunks.
    pub members: u64,
    /// The most owners that one chunk had.
    pub most_members: usize,
    /// Bytes of a segment's commit.
    pub segment: u64,
    /// After the users were enrolled.
    pub enrolled: Disk,
    /// At the end of the day with the most bytes.
    pub most: (Disk, Stats),
    /// In the end, when the retention has left its part.
    pub end: Disk,
    /// Bytes written to the file system by enrolling, and in all.
    pub written: [u64; 2],
    pub resident: u64,
}

struct Run<'a> {
    world: &'a World,
    store: &'a dyn Metadata,
    sealed: Sealed,
    small: Sealed,
    meter: Meter,
    leaves: Vec<Leaf>,
    /// Recordings of cameras, oldest first: day, owner, id.
    recordings: VecDeque<(u64, Leaf, RecordingId)>,
    /// Kept clips, oldest first: day, clip, user, id.
    kept: VecDeque<(u64, usize, u64, RecordingId)>,
    /// Who keeps each clip, and how often.
    keepers: Vec<HashMap<u64, u32>>,
    /// Day on which each clip was first kept since nobody had it: its blob has another name then.
    lives: Vec<u64>,
    /// Zipf's law, added up.
    zipf: Vec<f64>,
}

impl World {
    /// Lives through all days in a store whose files are under `dir`.
    pub async fn run(
        &self,
        store: &Arc<dyn Metadata>,
        dir: &Path,
        bar: &ProgressBar,
    ) -> Result<Figures> {
        let began = Instant::now();
        let before = written();
        let mut sum = 0.0;
        let add = |n: usize| {
            sum += 1.0 / n as f64;
            sum
        };
        let mut run = Run {
            world: self,
            store: &**store,
            sealed: Sealed::of(self.tags, UNITS)?,
            small: Sealed::of(1, UNITS)?,
            meter: Meter::default(),
            leaves: Vec::new(),
            recordings: VecDeque::new(),
            kept: VecDeque::new(),
            keepers: vec![HashMap::new(); self.clips],
            lives: vec![0; self.clips],
            zipf: (1..=self.clips).map(add).collect(),
        };
        let rounds = self.days.div_ceil(self.every);
        bar.set_length(self.users + rounds * (self.cameras + self.keepers));
        bar.set_message(self.name);
        run.enroll(bar).await?;
        let enrolled = (Disk::of(dir)?, written() - before);
        let (mut most, mut most_members) = ((enrolled.0, Stats::default()), 0);
        for day in (0..self.days).step_by(usize::try_from(self.every)?) {
            run.upkeep(day).await?;
            for camera in 0..self.cameras {
                run.record(camera, day).await?;
                bar.inc(1);
            }
            for n in 0..self.keepers {
                run.keep(n, day).await?;
                bar.inc(1);
            }
            let disk = Disk::of(dir)?;
            if disk.all() > most.0.all() {
                most = (disk, store.stats().await?);
            }
            let members = run.keepers.iter().map(HashMap::len).max();
            most_members = most_members.max(members.unwrap_or(0));
        }
        // Once more, so that all that is left is what the retention leaves.
        run.upkeep(self.days).await?;
        run.upkeep(self.days + 3).await?;
        let took = began.elapsed();
        let members = run.check().await?;
        bar.finish_and_clear();
        let named: Vec<Item> = (0..self.tags as u64)
            .map(|i| item(&[i], CHUNK, false))
            .collect();
        let segment = encode(&segment(&named, &run.sealed, 0)).len() as u64;
        Ok(Figures {
            world: self.clone(),
            stats: store.stats().await?,
            meter: run.meter,
            took,
            members,
            most_members,
            segment,
            enrolled: enrolled.0,
            most,
            end: Disk::of(dir)?,
            written: [enrolled.1, written() - before],
            resident: resident(),
        })
    }
}

fn recording_id(parts: &[u64]) -> RecordingId {
    bytes(&[&[7], parts].concat())
}

impl Run<'_> {
    async fn enroll(&mut self, bar: &ProgressBar) -> Result<()> {
        for user in 0..self.world.users {
            let enrolled = self.store.enroll(user_key(user), bytes(&[8, user]));
            self.leaves
                .push(self.meter.time("enroll", 1, enrolled).await?);
            bar.inc(1);
        }
        Ok(())
    }

    fn owner(&self, camera: u64, n: u64) -> u64 {
        // Never the same one twice.
        let users = self.world.users;
        (number(&[9, camera]) % users + n * (users / 3).max(1)) % users
    }

    fn leaf(&self, user: u64) -> Leaf {
        self.leaves[user as usize]
    }

    /// One batch of a recorder: look up, then add or join.
    async fn batch(&mut self, leaf: Leaf, items: &mut [Item], now: u64) -> Result<()> {
        let tags: Vec<Hash> = items.iter().map(|item| item.tag).collect();
        let looked = self.store.lookup(leaf, tags);
        let found = self.meter.time("lookup", items.len(), looked).await?;
        let new = found[0].is_empty();
        for (item, variants) in items.iter_mut().zip(found) {
            expect(variants.is_empty() == new, || {
                "half a batch is there".into()
            })?;
            item.stored = new;
        }
        let (operation, right) = match new {
            true => ("register, new", Outcome::Added),
            false => ("register, join", Outcome::Joined),
        };
        let registered = self.store.register(leaf, items.to_vec(), None, now);
        let outcomes = self.meter.time(operation, items.len(), registered).await?;
        expect(outcomes.iter().all(|o| *o == right), || {
            format!("{operation}: {outcomes:?}")
        })
    }

    /// A camera's recording of a day, by all its recorders.
    async fn record(&mut self, camera: u64, day: u64) -> Result<()> {
        let now = START + day * DAY;
        let World { segments, tags, .. } = *self.world;
        for n in 0..OWNERS[(camera % OWNERS.len() as u64) as usize] {
            let user = self.owner(camera, n);
            let leaf = self.leaf(user);
            let id = recording_id(&[camera, n, day]);
            let mut first = Vec::new();
            for seq in 0..segments {
                let chunk = |i| item(&[camera, day, seq, i], CHUNK, false);
                let mut items: Vec<Item> = (0..tags as u64).map(chunk).collect();
                for batch in items.chunks_mut(self.world.batch) {
                    self.batch(leaf, batch, now).await?;
                }
                if seq == 0 {
                    first = items.iter().map(reference).collect();
                }
                let commit = segment(&items, &self.sealed, number(&[camera, n, day, seq]));
                let done = self.store.commit(leaf, id, seq, commit, now);
                let done = self.meter.time("commit", tags, done).await?;
                expect(done == Committed::Done, || format!("commit: {done:?}"))?;
            }
            self.recordings.push_back((day, leaf, id));
            let chance = number(&[10, camera, n, day]);
            if chance.is_multiple_of(PLAYED) {
                self.play(leaf, user, id, None, first).await?;
            } else if chance % PLAYED == 1 {
                self.share(leaf, user, id, first).await?;
            }
            if (chance / PLAYED).is_multiple_of(KILLED) {
                let chunk = |i| item(&[camera, day, segments, i, n], CHUNK, false);
                let mut items: Vec<Item> = (0..self.world.batch as u64).map(chunk).collect();
                self.batch(leaf, &mut items, now).await?;
            }
        }
        Ok(())
    }

    async fn share(
        &mut self,
        owner: Leaf,
        user: u64,
        id: RecordingId,
        chunks: Vec<ChunkRef>,
    ) -> Result<()> {
        let reader = (user + 1) % self.world.users;
        let shared = self.store.share(owner, id, user_key(reader), vec![7; 100]);
        let shared = self.meter.time("share", 1, shared).await?;
        expect(shared, || "there is nothing to share".into())?;
        self.play(self.leaf(reader), reader, id, Some(owner), chunks)
            .await
    }

    /// Reads a recording as a player does, through `owner` where it is shared.
    async fn play(
        &mut self,
        reader: Leaf,
        user: u64,
        id: RecordingId,
        owner: Option<Leaf>,
        chunks: Vec<ChunkRef>,
    ) -> Result<()> {
        let list = self.store.recordings(reader, user_key(user), None);
        let list = self.meter.time("recordings", 1, list).await?;
        expect(list.recordings.iter().any(|r| *r.id == id), || {
            "not in the list".into()
        })?;
        let of = owner.unwrap_or(reader);
        let heads = self.store.recording(of, id, 0);
        let heads = self.meter.time("heads", 1, heads).await?;
        expect(heads.is_some(), || "no recording".into())?;
        let manifest = self.store.segment(of, id, 0);
        let manifest = self.meter.time("manifest", 1, manifest).await?;
        expect(manifest.is_some(), || "no manifest".into())?;
        let via = owner.map(|owner| Via { owner, id, seq: 0 });
        let count = chunks.len();
        let opened = self.store.open(reader, chunks, via);
        let opened = self.meter.time("open", count, opened).await?;
        expect(opened.iter().all(Option::is_some), || {
            "does not open".into()
        })
    }

    /// A user keeps a public clip.
    async fn keep(&mut self, n: u64, day: u64) -> Result<()> {
        let now = START + day * DAY;
        let drawn = number(&[11, n, day]);
        let user = drawn % self.world.users;
        let at = (drawn >> 32) as f64 / (1u64 << 32) as f64 * self.zipf.last().unwrap_or(&0.0);
        let clip = self.zipf.partition_point(|sum| *sum < at);
        let leaf = self.leaf(user);
        let id = recording_id(&[u64::MAX, n, day]);
        if self.keepers[clip].is_empty() {
            self.lives[clip] = day;
        }
        let life = self.lives[clip];
        let mut items = [item(&[u64::MAX, clip as u64, life], CHUNK, false)];
        let before = self.keepers[clip].contains_key(&user);
        match before {
            // Whoever has it does not send it again.
            true => (),
            false => self.batch(leaf, &mut items, now).await?,
        }
        let commit = segment(&items, &self.small, drawn);
        let done = self.store.commit(leaf, id, 0, commit, now);
        let done = self.meter.time("commit, clip", 1, done).await?;
        expect(done == Committed::Done, || format!("commit: {done:?}"))?;
        *self.keepers[clip].entry(user).or_default() += 1;
        self.kept.push_back((day, clip, user, id));
        Ok(())
    }

    async fn forget(
        &mut self,
        operation: &'static str,
        count: usize,
        leaf: Leaf,
        id: RecordingId,
        now: u64,
    ) -> Result<()> {
        let forgotten = self.store.forget(leaf, id, now);
        let forgotten = self.meter.time(operation, count, forgotten).await?;
        expect(forgotten == Forgotten::Done, || "nothing to forget".into())
    }

    /// Forgets what is old, ends holds, deletes what nobody owns.
    async fn upkeep(&mut self, day: u64) -> Result<()> {
        let now = START + day * DAY;
        let old = |made: u64| made + self.world.retention <= day;
        let chunks = self.world.tags * usize::try_from(self.world.segments)?;
        while self.recordings.front().is_some_and(|(made, ..)| old(*made))
            && let Some((_, leaf, id)) = self.recordings.pop_front()
        {
            self.forget("forget", chunks, leaf, id, now).await?;
        }
        while self.kept.front().is_some_and(|(made, ..)| old(*made))
            && let Some((_, clip, user, id)) = self.kept.pop_front()
        {
            self.forget("forget, clip", 1, self.leaf(user), id, now)
                .await?;
            if let Some(refs) = self.keepers[clip].get_mut(&user) {
                *refs -= 1;
                if *refs == 0 {
                    self.keepers[clip].remove(&user);
                }
            }
        }
        let mut ended = 1;
        while ended > 0 {
            let began = Began::now();
            ended = self.store.expire_holds(now).await?;
            let operation = match ended {
                0 => "expire holds, none due",
                _ => "expire holds",
            };
            self.meter.add(operation, ended, began);
        }
        loop {
            let began = Began::now();
            let claimed = self.store.claim_trash(now, SWEEP).await?;
            let count = claimed.len();
            if count == 0 {
                self.meter.add("claim trash, none there", 0, began);
                return Ok(());
            }
            self.meter.add("claim trash", count, began);
            let noted = self.store.deleted(claimed, now);
            self.meter.time("note deletions", count, noted).await?;
        }
    }

    /// Whether the store's counts are those of the simulation and agree with its segments; the
    /// members of all chunks.
    async fn check(&mut self) -> Result<u64> {
        let World { segments, tags, .. } = *self.world;
        let stats = self.store.stats().await?;
        let logical =
            self.recordings.len() as u64 * segments * tags as u64 + self.kept.len() as u64;
        expect(stats.bytes_logical == logical * u64::from(CHUNK), || {
            format!("{stats:?}, where recordings name {logical} chunks")
        })?;
        let recordings = (self.recordings.len() + self.kept.len()) as u64;
        expect(
            stats.recordings == recordings && stats.owners == self.world.users,
            || format!("{stats:?}, where there are {recordings} recordings"),
        )?;
        let now = START + (self.world.days + 3) * DAY;
        let audited = self.store.audit(now);
        let audit = self
            .meter
            .time("audit", usize::try_from(stats.variants)?, audited)
            .await?;
        expect(audit.mended == 0, || format!("{audit:?}"))?;
        let kept: usize = self.keepers.iter().map(HashMap::len).sum();
        Ok(self.recordings.len() as u64 * segments * tags as u64 + kept as u64)
    }
}
