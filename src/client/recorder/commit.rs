// SPDX-License-Identifier: MPL-2.0
//! Writes complete segments: manifest, head, summary, in the order of the recording.

use super::SegmentReport;
use super::item::{Item, Session, Surround};
use super::segments::Segment;
use crate::client::{Error, Vault};
use crate::identity::RecordingId;
use crate::manifest::{Chunk, Head, Manifest, Sealer, Summary, Track};
use crate::protocol::{B32, ChunkRef, Code, Commit, Committed};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// A clock point is kept where the clock has left the last one's line by more, ns.
const CLOCK_DRIFT: u64 = 1_000_000;
/// A running time and its Unix time, ns.
type ClockPoint = (u64, i64);
/// A segment number beyond all others: the answer then has the count and no heads.
const BEYOND: u64 = u32::MAX as u64;

/// Appends to one recording.
pub(crate) struct Committer {
    vault: Vault,
    sealer: Sealer,
    name: String,
    end: Option<End>,
    origin: Option<Origin>,
    clocks: BTreeMap<u32, ClockPoint>,
}

/// The durable end of the recording.
struct End {
    next: u64,
    previous: B32,
    session: Option<Session>,
    summary: Summary,
}

/// Recording time = running time - `running` + `time`, within a session.
#[derive(Clone, Copy)]
struct Origin {
    session: Session,
    running: u64,
    time: u64,
}

/// A segment ready to be sent; sent again unchanged until its fate is known.
pub(crate) struct Sealed {
    pub seq: u64,
    /// SHA-256 of the sealed manifest.
    pub hash: [u8; 32],
    commit: Commit,
    head: Head,
    summary: Summary,
}

impl Committer {
    pub fn new(vault: Vault, id: RecordingId, name: String) -> Self {
        let key = vault.identity().recording_key(&id);
        Self {
            vault,
            sealer: Sealer { id, key },
            name,
            end: None,
            origin: None,
            clocks: BTreeMap::new(),
        }
    }

    /// Finds the end of the recording, unless it is known.
    pub async fn load(&mut self) -> Result<(), Error> {
        if self.end.is_some() {
            return Ok(());
        }
        let id = &self.sealer.id;
        let found = match self.vault.recording(id, None, BEYOND).await {
            Err(Error::Refused {
                code: Code::NotFound,
                ..
            }) => None,
            other => Some(other?),
        };
        let Some(found) = found.filter(|r| r.segments > 0) else {
            self.end = Some(End {
                next: 0,
                previous: [0; 32].into(),
                session: None,
                summary: Summary {
                    name: self.name.clone(),
                    ..Summary::default()
                },
            });
            return Ok(());
        };
        let last = found.segments - 1;
        let at = |source| Error::Manifest { seq: last, source };
        let (summary, head) = self.head(last).await?.ok_or(Error::Chain(last))?;
        let session: Session = *head.session;
        if self.origin.is_none_or(|o| o.session != session) {
            let body = self.vault.segment(id, None, last).await?;
            if *Sha256::digest(&body.manifest[..]) != head.manifest[..] {
                return Err(Error::Chain(last));
            }
            let manifest = self
                .sealer
                .open_manifest(last, &body.manifest)
                .map_err(at)?;
            self.origin = Some(Origin {
                session,
                running: manifest.origin_running,
                time: manifest.origin,
            });
        }
        self.end = Some(End {
            next: found.segments,
            previous: head.manifest,
            session: Some(session),
            summary,
        });
        Ok(())
    }

    async fn head(&self, seq: u64) -> Result<Option<(Summary, Head)>, Error> {
        let at = |source| Error::Manifest { seq, source };
        let found = self.vault.recording(&self.sealer.id, None, seq).await?;
        // Heads begin later where retention has removed this one.
        let Some(head) = found.heads.first().filter(|_| found.first <= seq) else {
            return Ok(None);
        };
        Ok(Some((
            self.sealer.open_summary(&found.summary).map_err(at)?,
            self.sealer.open_head(seq, head).map_err(at)?,
        )))
    }

    /// Whether segment `seq` is the one whose sealed manifest has this hash, asked anew: a commit
    /// whose answer was lost has left no trace here.
    pub async fn is_committed(&mut self, seq: u64, hash: &[u8; 32]) -> Result<bool, Error> {
        self.end = None;
        self.load().await?;
        if self.end.as_ref().is_none_or(|end| end.next <= seq) {
            return Ok(false);
        }
        let head = self.head(seq).await?;
        Ok(head.is_some_and(|(_, head)| *head.manifest == *hash))
    }

    /// Seals a segment behind the recording's end.
    pub async fn seal(&mut self, segment: &Segment, closed: bool) -> Result<Sealed, Error> {
        self.load().await?;
        let Some(end) = &self.end else {
            return Err(Error::Cancelled);
        };
        let seq = end.next;
        let session = segment.session;
        let start = segment.start;
        let known = self.origin.filter(|o| o.session == session);
        let origin = match known {
            // Somebody else wrote behind this session's last segment: go on behind that.
            Some(origin) if end.session == Some(session) => origin,
            _ => {
                self.clocks.clear();
                let starts = segment.items.iter().filter_map(|item| item.running);
                let running = starts.map(|(first, _)| first).min().unwrap_or(start);
                Origin {
                    session,
                    running: running.min(start),
                    time: end.summary.duration,
                }
            }
        };
        let built = build(segment, &origin, &mut self.clocks)?;
        let at = |source| Error::Manifest { seq, source };
        let manifest = self
            .sealer
            .seal_manifest(seq, &built.manifest)
            .map_err(at)?;
        let hash: [u8; 32] = Sha256::digest(&manifest).into();
        let place = |running: u64| {
            let time = running.saturating_add(origin.time);
            time.saturating_sub(origin.running)
        };
        let ends = segment.items.iter().filter_map(|item| item.running);
        let head = Head {
            start: place(start),
            duration: ends
                .map(|(_, end)| end.saturating_sub(start))
                .max()
                .unwrap_or(0),
            start_utc: start_utc(segment),
            bytes: built.bytes,
            chunks: built.chunks.len() as u32,
            session: session.into(),
            manifest: hash.into(),
            previous: end.previous,
            suspect: segment.items.iter().filter(|i| i.suspect).count() as u32,
        };
        let mut summary = end.summary.clone();
        if seq == 0 {
            summary.start_utc = head.start_utc;
        }
        summary.name.clone_from(&self.name);
        summary.duration = summary
            .duration
            .max(head.start.saturating_add(head.duration));
        summary.bytes = summary.bytes.saturating_add(head.bytes);
        summary.closed = closed;
        for track in &built.manifest.tracks {
            let (id, caps) = (track.id as usize, track.caps.first());
            // Track numbers are small; a list with gaps shows empty caps.
            if id < 256 && summary.tracks.len() <= id {
                summary.tracks.resize(id + 1, String::new());
            }
            if let (Some(known), Some((_, caps))) = (summary.tracks.get_mut(id), caps)
                && known.is_empty()
            {
                known.clone_from(caps);
            }
        }
        let commit = Commit {
            head: self.sealer.seal_head(seq, &head).map_err(at)?.into(),
            manifest: manifest.into(),
            summary: self.sealer.seal_summary(&summary).map_err(at)?.into(),
            chunks: built.chunks,
        };
        self.origin = Some(origin);
        Ok(Sealed {
            seq,
            hash,
            commit,
            head,
            summary,
        })
    }

    /// Sends a sealed segment. `None`: its number is taken, seal it again.
    pub async fn send(
        &mut self,
        segment: &Segment,
        sealed: &Sealed,
    ) -> Result<Option<SegmentReport>, Error> {
        let seq = sealed.seq;
        match self
            .vault
            .commit(&self.sealer.id, seq, &sealed.commit)
            .await?
        {
            Committed::Done => {
                self.end = Some(End {
                    next: seq + 1,
                    previous: sealed.hash.into(),
                    session: Some(segment.session),
                    summary: sealed.summary.clone(),
                });
                Ok(Some(report(segment, sealed)))
            }
            Committed::NextIs(_) => {
                self.end = None;
                Ok(None)
            }
            Committed::NotHeld(which) => Err(Error::NotHeld {
                seq,
                chunks: which.len(),
            }),
        }
    }
}

fn report(segment: &Segment, sealed: &Sealed) -> SegmentReport {
    let (mut new_bytes, mut duplicate_bytes) = (0, 0);
    for item in &segment.items {
        let envelope = match &item.envelope {
            Surround::Chunk(job) => Some(&**job),
            Surround::Inline(_) => None,
        };
        for job in std::iter::once(&item.content).chain(envelope) {
            match job.holding().is_some_and(|held| held.new) {
                true => new_bytes += u64::from(job.len()),
                false => duplicate_bytes += u64::from(job.len()),
            }
        }
    }
    SegmentReport {
        seq: sealed.seq,
        running_time: segment.start,
        utc: sealed.head.start_utc,
        duration: sealed.head.duration,
        chunks: u64::from(sealed.head.chunks),
        new_bytes,
        duplicate_bytes,
    }
}

/// Absolute time of a segment's start: by a clock point, else by when its first chunk arrived,
/// which is taken to be the end of that chunk.
fn start_utc(segment: &Segment) -> i64 {
    let shifted = |utc: i64, running: u64| {
        utc.saturating_add(segment.start.wrapping_sub(running).cast_signed())
    };
    let clock = segment.items.iter().find_map(|item| item.clock);
    if let Some((running, utc)) = clock {
        return shifted(utc, running);
    }
    match segment.items.first() {
        Some(item) => shifted(
            item.arrived,
            item.running.map_or(segment.start, |(_, end)| end),
        ),
        None => 0,
    }
}

struct Built {
    manifest: Manifest,
    chunks: Vec<ChunkRef>,
    bytes: u64,
}

fn build(
    segment: &Segment,
    origin: &Origin,
    clocks: &mut BTreeMap<u32, ClockPoint>,
) -> Result<Built, Error> {
    let ids: BTreeSet<u32> = segment.items.iter().map(|item| item.track).collect();
    let mut built = Built {
        manifest: Manifest {
            session: segment.session.into(),
            origin_running: origin.running,
            origin: origin.time,
            tracks: Vec::new(),
        },
        chunks: Vec::new(),
        bytes: 0,
    };
    for id in ids {
        let items: Vec<&Item> = segment.items.iter().filter(|i| i.track == id).collect();
        let (points, last) = clock_points(&items, clocks.get(&id).copied());
        clocks.extend(last.map(|point| (id, point)));
        let mut track = Track {
            id,
            framing: items[0].framing,
            caps: Vec::new(),
            times: Vec::new(),
            chunks: Vec::new(),
            units: items.iter().flat_map(|i| i.units.iter().copied()).collect(),
            clock: points,
            tags: items.iter().rev().find_map(|i| i.tags.clone()),
        };
        let mut units = 0u32;
        for item in items {
            changed(&mut track.caps, units, &item.format.caps);
            changed(&mut track.times, units, &item.format.time);
            units += item.units.len() as u32;
            let (Some(content), Some(envelope)) = (item.content.stored(), item.manifest_envelope())
            else {
                return Err(Error::Cancelled);
            };
            let envelope_job = match &item.envelope {
                Surround::Chunk(job) => Some(&**job),
                Surround::Inline(_) => None,
            };
            for job in std::iter::once(&item.content).chain(envelope_job) {
                built.bytes += u64::from(job.len());
                built.chunks.extend(job.holding().map(|held| ChunkRef {
                    tag: (*job.id.tag()).into(),
                    d1: held.d1,
                }));
            }
            track.chunks.push(Chunk {
                content,
                units: item.units.len() as u32,
                envelope,
                gop_start: item.gop_start,
                suspect: item.suspect,
            });
        }
        built.manifest.tracks.push(track);
    }
    Ok(built)
}

/// Notes a value from unit `at` on, if it is another than before.
fn changed<T: Clone + PartialEq>(list: &mut Vec<(u32, T)>, at: u32, value: &T) {
    match list.last_mut() {
        Some((_, last)) if last == value => (),
        Some((unit, last)) if *unit == at => *last = value.clone(),
        _ => list.push((at, value.clone())),
    }
}

/// The clock points that a track's segment needs, and the last one for the segments after it.
fn clock_points(
    items: &[&Item],
    before: Option<ClockPoint>,
) -> (Vec<ClockPoint>, Option<ClockPoint>) {
    let mut points: Vec<ClockPoint> = Vec::new();
    let mut last = before;
    for (running, utc) in items.iter().filter_map(|item| item.clock) {
        let off = points.last().map(|(r, u)| {
            let expected = u.saturating_add(running.wrapping_sub(*r).cast_signed());
            expected.abs_diff(utc)
        });
        if off.is_none_or(|off| off > CLOCK_DRIFT) {
            points.push((running, utc));
        }
        last = Some((running, utc));
    }
    if points.is_empty() {
        points.extend(before);
    }
    (points, last)
}
