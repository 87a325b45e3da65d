// SPDX-License-Identifier: MPL-2.0
//! A recording from a position on, as a bounded stream of access units in the order of time.

use super::fetch::{batches, damaged};
use super::layout::{Assembler, Fault, Fetched};
use super::plan::{Place, TrackPlan, Unit, chunks_for, interleave};
use super::{Reader, Timeline};
use crate::client::Error;
use crate::manifest::Manifest;
use futures::{StreamExt as _, stream};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};

/// Pause between two questions for new segments.
const POLL: Duration = Duration::from_millis(500);
/// Questions in vain after which a closed recording is at its end.
const POLLS_AFTER_CLOSE: u32 = 4;
/// Batches that are under way at once.
const BATCHES: usize = 2;
/// Segments that are searched for the start of a group of pictures. Where there is none (intra
/// refresh has one for ever) playback begins in the middle, and the picture builds up.
const SEGMENTS_BACK: u64 = 8;
/// What a delivery costs in the window besides its bytes.
const OVERHEAD: usize = 512;
/// Units of one track may lie so far before the start of their segment, ns.
const OVERLAP: u64 = 2_000_000_000;

/// Where playback begins with respect to the position asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Snap {
    /// There; data begins with the group of pictures around it.
    #[default]
    Accurate,
    /// At the start of a group of pictures before it.
    Before,
    /// … after it, or else before it.
    After,
    /// … nearest to it.
    Nearest,
}

/// What to play.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request {
    /// Recording time, ns.
    pub from: u64,
    /// Where exactly.
    pub snap: Snap,
    /// Recording time at which to stop, ns.
    pub stop: Option<u64>,
    /// Go on with what is recorded meanwhile, until the recorder closes the recording.
    pub follow: bool,
}

/// A track as it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct TrackStart {
    /// Its number.
    pub id: u32,
    /// Its caps, in GStreamer's text form.
    pub caps: Arc<str>,
    /// Its tags, likewise.
    pub tags: Option<Arc<str>>,
    /// What the timestamps of its first unit mean; none if it has no unit yet.
    pub place: Option<Place>,
}

/// One piece of playback.
#[derive(Clone, Debug, PartialEq)]
pub enum Delivery {
    /// The first: recording time of the start, ns, and all tracks.
    Started(u64, Vec<TrackStart>),
    /// An access unit.
    Unit(Unit),
    /// A track has nothing from a recording time on, for so long, ns.
    Gap(u32, u64, u64),
}

type Sent = Result<(Delivery, OwnedSemaphorePermit), Error>;

/// A running playback. Dropping it stops it at once.
pub struct Playback {
    receiver: mpsc::UnboundedReceiver<Sent>,
    task: JoinHandle<()>,
}

impl Playback {
    /// Begins; at most about `window` bytes are held ready.
    pub fn start(runtime: &Handle, reader: Arc<Reader>, request: Request, window: usize) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let out = Out {
            sender,
            window: u32::try_from(window.max(OVERHEAD)).unwrap_or(u32::MAX >> 4),
            room: Arc::new(Semaphore::new(
                window.clamp(OVERHEAD, u32::MAX as usize >> 4),
            )),
        };
        let task = runtime.spawn(async move {
            if let Err(error) = play(&reader, request, &out).await {
                // The receiver may be gone.
                let _ = out.sender.send(Err(error));
            }
        });
        Self { receiver, task }
    }

    /// The next piece; `None` at the end. After an error nothing more comes.
    pub async fn next(&mut self) -> Option<Result<Delivery, Error>> {
        let sent = self.receiver.recv().await?;
        Some(sent.map(|(delivery, _)| delivery))
    }
}

impl Drop for Playback {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The sending side: waits while the window is full.
struct Out {
    sender: mpsc::UnboundedSender<Sent>,
    room: Arc<Semaphore>,
    window: u32,
}

impl Out {
    async fn send(&self, delivery: Delivery) -> Result<(), Error> {
        let bytes = match &delivery {
            Delivery::Unit(unit) => unit.data.len() + OVERHEAD,
            _ => OVERHEAD,
        };
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.window);
        let permit = self.room.clone().acquire_many_owned(permits).await;
        let permit = permit.map_err(|_| Error::Cancelled)?;
        let sent = self.sender.send(Ok((delivery, permit)));
        sent.map_err(|_| Error::Cancelled)
    }
}

async fn play(reader: &Arc<Reader>, request: Request, out: &Out) -> Result<(), Error> {
    if request.follow {
        reader.refresh().await?;
        while reader.timeline().is_empty() && grown(reader).await? {}
    }
    let mut timeline = reader.timeline();
    let (start, tracks) = loop {
        match begin(reader, &timeline, &request).await {
            Ok(found) => break found,
            // Retention has taken away the segments that it was to begin with.
            Err(error) if reader.is_trimmed(timeline.first(), &error).await => (),
            Err(error) => return Err(error),
        }
        timeline = reader.timeline();
    };
    let mut known: Vec<u32> = tracks.iter().map(|track| track.id).collect();
    out.send(Delivery::Started(start.position, tracks)).await?;
    let mut ahead = JoinSet::new();
    let mut seq = start.seq;
    loop {
        seq = seq.max(timeline.first());
        let Some(head) = timeline.head(seq) else {
            if !(request.follow && grown(reader).await?) {
                return Ok(());
            }
            timeline = reader.timeline();
            continue;
        };
        let past = |stop: u64| head.start >= stop.saturating_add(OVERLAP);
        if request.stop.is_some_and(past) {
            return Ok(());
        }
        // An error shows when the segment is asked for again.
        ahead.join_next().await;
        let next = timeline.head(seq + 1).is_some().then_some(seq + 1);
        let played = async {
            let manifest = reader.segment(seq).await?;
            if let Some(next) = next {
                let reader = reader.clone();
                ahead.spawn(async move { reader.segment(next).await.map(drop) });
            }
            let plans = start.plans(seq, &manifest, request.stop)?;
            for id in known.iter().filter(|id| plans.iter().all(|p| p.id != **id)) {
                let from = head.start.max(start.position);
                let gap = (head.start + head.duration).saturating_sub(from);
                out.send(Delivery::Gap(*id, from, gap)).await?;
            }
            known.extend(
                plans
                    .iter()
                    .map(|p| p.id)
                    .filter(|id| !known.contains(id))
                    .collect::<Vec<_>>(),
            );
            deliver(reader, seq, &manifest, &plans, out).await
        };
        match played.await {
            Ok(()) => (),
            // Retention has overtaken the player: it goes on with what is kept.
            Err(error) if reader.is_trimmed(seq, &error).await => timeline = reader.timeline(),
            Err(error) => return Err(error),
        }
        seq += 1;
    }
}

/// Where playback begins, and the tracks there.
async fn begin(
    reader: &Reader,
    timeline: &Timeline,
    request: &Request,
) -> Result<(Start, Vec<TrackStart>), Error> {
    let start = Start::find(reader, timeline, request).await?;
    let tracks = start.tracks(reader).await?;
    Ok((start, tracks))
}

/// Waits until there are more segments; false when the recording is closed and none came.
async fn grown(reader: &Reader) -> Result<bool, Error> {
    let mut in_vain = 0;
    loop {
        if reader.refresh().await? {
            return Ok(true);
        }
        in_vain = if reader.summary().closed {
            in_vain + 1
        } else {
            0
        };
        if in_vain >= POLLS_AFTER_CLOSE {
            return Ok(false);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Sends the wanted units of a segment.
async fn deliver(
    reader: &Arc<Reader>,
    seq: u64,
    manifest: &Arc<Manifest>,
    plans: &[TrackPlan],
    out: &Out,
) -> Result<(), Error> {
    let order = interleave(plans);
    let chunks = chunks_for(plans, &order);
    let all = chunks
        .iter()
        .map(|(plan, chunk)| &plans[*plan].track().chunks[*chunk]);
    let fetches: Vec<_> = batches(all)
        .into_iter()
        .map(|batch| {
            let (reader, manifest) = (reader.clone(), manifest.clone());
            let batch = chunks[batch].to_vec();
            let tracks: Vec<usize> = batch.iter().map(|(plan, _)| plans[*plan].index).collect();
            async move {
                let wanted = batch.iter().zip(tracks);
                let wanted: Vec<_> = wanted
                    .map(|((_, chunk), track)| (*chunk, &manifest.tracks[track].chunks[*chunk]))
                    .collect();
                let fetched = reader.fetch_batch(seq, &wanted).await?;
                Ok::<_, Error>(batch.into_iter().zip(fetched).collect())
            }
        })
        .collect();
    let mut fetches = stream::iter(fetches).buffered(BATCHES);
    let mut lines: Vec<_> = plans.iter().map(|_| Line::new()).collect();
    for (plan, unit) in order {
        let data = loop {
            if let Some(data) = lines[plan].take(unit) {
                break data;
            }
            let batch: Vec<((usize, usize), Fetched)> = match fetches.next().await {
                Some(batch) => batch?,
                None => return Err(damaged(seq, 0, "a unit is in none of its chunks")),
            };
            for ((plan, chunk), fetched) in batch {
                let Line { assembler, ready } = &mut lines[plan];
                let pushed = assembler.push(&plans[plan].layout, chunk, fetched, ready);
                pushed.map_err(|Fault { chunk, reason }| damaged(seq, chunk, &reason))?;
            }
        };
        out.send(Delivery::Unit(plans[plan].unit(unit, data)))
            .await?;
    }
    Ok(())
}

/// One track on its way.
struct Line {
    assembler: Assembler,
    ready: VecDeque<(usize, Vec<u8>)>,
}

impl Line {
    fn new() -> Self {
        Self {
            assembler: Assembler::new(),
            ready: VecDeque::new(),
        }
    }

    /// Takes a unit that is ready; those before it are not wanted.
    fn take(&mut self, unit: usize) -> Option<Vec<u8>> {
        loop {
            let (at, data) = self.ready.pop_front()?;
            if at == unit {
                return Some(data);
            }
        }
    }
}

/// Where playback begins.
struct Start {
    position: u64,
    seq: u64,
    /// Segment and unit with which each track begins; one that is not here begins with its
    /// first unit.
    entries: BTreeMap<u32, (u64, usize)>,
}

impl Start {
    async fn find(reader: &Reader, timeline: &Timeline, request: &Request) -> Result<Self, Error> {
        let mut start = Self {
            position: request.from.max(timeline.start()),
            seq: timeline.first(),
            entries: BTreeMap::new(),
        };
        let within = request.from > timeline.start();
        let Some(mut seq) = timeline.locate(request.from).filter(|_| within) else {
            return Ok(start);
        };
        if request.snap != Snap::Accurate {
            start.position = snapped(reader, timeline, request, seq).await?;
            seq = timeline.locate(start.position).unwrap_or(seq);
        }
        start.seq = seq;
        for plan in all_plans(reader, seq).await? {
            let found = entry_before(reader, timeline, plan.id, seq, start.position).await?;
            let (at, unit, _) = found.unwrap_or((seq, 0, 0));
            start.seq = start.seq.min(at);
            start.entries.insert(plan.id, (at, unit));
        }
        Ok(start)
    }

    /// The units of a segment that are wanted.
    fn plans(
        &self,
        seq: u64,
        manifest: &Arc<Manifest>,
        stop: Option<u64>,
    ) -> Result<Vec<TrackPlan>, Error> {
        let mut plans = Vec::with_capacity(manifest.tracks.len());
        for index in 0..manifest.tracks.len() {
            let mut plan = TrackPlan::new(seq, manifest, index)?;
            let end = plan.wanted.end;
            match self.entries.get(&plan.id) {
                Some((first, _)) if seq < *first => plan.wanted = end..end,
                Some((first, unit)) if seq == *first => plan.wanted = (*unit).min(end)..end,
                _ => (),
            }
            if let Some(stop) = stop {
                plan.stop_at(signed(stop));
            }
            plans.push(plan);
        }
        Ok(plans)
    }

    /// All tracks of the recording as they begin here.
    async fn tracks(&self, reader: &Reader) -> Result<Vec<TrackStart>, Error> {
        let mut tracks = BTreeMap::new();
        for (id, caps) in reader.summary().recorded() {
            let track = TrackStart {
                id,
                caps: caps.into(),
                tags: None,
                place: None,
            };
            tracks.insert(id, track);
        }
        let segments = self.entries.values().map(|(seq, _)| *seq);
        let mut segments: Vec<u64> = segments.chain([self.seq]).collect();
        segments.sort_unstable();
        segments.dedup();
        if reader.timeline().is_empty() {
            segments.clear();
        }
        for seq in segments {
            for plan in self.plans(seq, &reader.segment(seq).await?, None)? {
                let first = plan.wanted.start;
                let begun = tracks.get(&plan.id).is_some_and(|t| t.place.is_some());
                if begun || plan.wanted.is_empty() {
                    continue;
                }
                let track = TrackStart {
                    id: plan.id,
                    caps: plan.caps(first),
                    tags: plan.tags(),
                    place: Some(plan.place(first)),
                };
                tracks.insert(plan.id, track);
            }
        }
        Ok(tracks.into_values().collect())
    }
}

fn signed(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}

async fn all_plans(reader: &Reader, seq: u64) -> Result<Vec<TrackPlan>, Error> {
    let manifest = reader.segment(seq).await?;
    (0..manifest.tracks.len())
        .map(|index| TrackPlan::new(seq, &manifest, index))
        .collect()
}

/// Segment, number and time of the last unit of a track from which `time` can be decoded.
async fn entry_before(
    reader: &Reader,
    timeline: &Timeline,
    id: u32,
    seq: u64,
    time: u64,
) -> Result<Option<(u64, usize, i64)>, Error> {
    let session = timeline.head(seq).map(|head| head.session);
    for at in (seq.saturating_sub(SEGMENTS_BACK)..=seq).rev() {
        if timeline.head(at).map(|head| head.session) != session {
            break;
        }
        let plans = all_plans(reader, at).await?;
        let found = plans.iter().find(|plan| plan.id == id).and_then(|plan| {
            let unit = plan.entry_before(signed(time))?;
            Some((at, unit, plan.shown(unit)?))
        });
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The position of a seek to a group of pictures: of the first track that has such.
async fn snapped(
    reader: &Reader,
    timeline: &Timeline,
    request: &Request,
    seq: u64,
) -> Result<u64, Error> {
    let plans = all_plans(reader, seq).await?;
    let Some(id) = plans
        .iter()
        .find(|plan| plan.has_delta)
        .or(plans.first())
        .map(|plan| plan.id)
    else {
        return Ok(request.from);
    };
    let from = request.from;
    let before = entry_before(reader, timeline, id, seq, from).await?;
    let before = before.and_then(|(_, _, time)| u64::try_from(time).ok());
    let mut after = None;
    if request.snap != Snap::Before {
        for at in seq..=(seq + 1).min(timeline.end().saturating_sub(1)) {
            let plans = all_plans(reader, at).await?;
            after = plans.iter().find(|plan| plan.id == id).and_then(|plan| {
                let time = plan.shown(plan.entry_after(signed(from))?)?;
                u64::try_from(time).ok()
            });
            if after.is_some() {
                break;
            }
        }
    }
    Ok(match (request.snap, before, after) {
        (Snap::Nearest, Some(before), Some(after)) if from - before <= after - from => before,
        (Snap::After | Snap::Nearest, _, Some(after)) => after,
        (_, Some(before), _) => before,
        _ => from,
    })
}
