// SPDX-License-Identifier: MPL-2.0
//! Fetches and checks all of a recording.

use super::Reader;
use super::fetch::{batches, damaged, pieces, reference};
use super::layout::{Assembler, Fault, Fetched};
use super::plan::TrackPlan;
use crate::client::Error;
use crate::manifest::Chunk;
use std::collections::BTreeSet;

/// What a check has found, so far or in the end.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Segments looked at.
    pub segments: u64,
    /// Segments of the recording.
    pub of_segments: u64,
    /// Segments before those, which retention had removed: the server's word alone.
    pub removed: u64,
    /// Stored chunks looked at, each counted once.
    pub chunks: u64,
    /// Bytes fetched and checked.
    pub bytes: u64,
    /// Access units put together.
    pub units: u64,
    /// Chunks of groups of pictures in which packets were lost at recording time.
    pub suspect: u64,
    /// What is wrong.
    pub errors: Vec<Finding>,
}

/// Something that is wrong with a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Segment.
    pub seq: u64,
    /// Track, if it is about one.
    pub track: Option<u32>,
    /// What, in words.
    pub what: String,
}

impl Reader {
    /// Checks every manifest, every chunk and every access unit, and goes on behind what is
    /// damaged. The chain of the segments was checked when the recording was opened.
    ///
    /// # Errors
    /// What has nothing to do with the recording: no network, no permission.
    pub async fn verify(&self, mut progress: impl FnMut(&Report)) -> Result<Report, Error> {
        let timeline = self.timeline();
        let mut check = Check {
            reader: self,
            report: Report {
                of_segments: timeline.len(),
                removed: timeline.first(),
                ..Report::default()
            },
            seen: BTreeSet::new(),
        };
        for seq in timeline.first()..timeline.end() {
            let errors = check.report.errors.len();
            let checked = check.segment(seq, &mut progress).await;
            let error = match checked {
                Ok(()) if check.report.errors.len() == errors => None,
                Ok(()) => Some(Error::Chain(seq)),
                Err(error) => Some(error),
            };
            match error {
                // What retention removed meanwhile is not damaged.
                Some(error) if self.is_trimmed(seq, &error).await => {
                    check.report.errors.truncate(errors);
                    check.report.of_segments -= 1;
                    check.report.removed += 1;
                    continue;
                }
                None | Some(Error::Chain(_)) => (),
                Some(error) => return Err(error),
            }
            check.report.segments += 1;
            progress(&check.report);
        }
        Ok(check.report)
    }
}

struct Check<'a> {
    reader: &'a Reader,
    report: Report,
    seen: BTreeSet<([u8; 32], [u8; 32])>,
}

impl Check<'_> {
    /// Notes what is wrong with the recording; any other error ends the check.
    fn note(&mut self, seq: u64, track: Option<u32>, error: Error) -> Result<(), Error> {
        if !matches!(
            error,
            Error::Damaged { .. } | Error::Manifest { .. } | Error::Chain(_)
        ) {
            return Err(error);
        }
        let what = error.to_string();
        self.report.errors.push(Finding { seq, track, what });
        Ok(())
    }

    async fn segment(&mut self, seq: u64, progress: &mut impl FnMut(&Report)) -> Result<(), Error> {
        let manifest = match self.reader.segment(seq).await {
            Ok(manifest) => manifest,
            Err(error) => return self.note(seq, None, error),
        };
        for (index, track) in manifest.tracks.iter().enumerate() {
            let plan = match TrackPlan::new(seq, &manifest, index) {
                Ok(plan) => plan,
                Err(error) => {
                    self.note(seq, Some(track.id), error)?;
                    continue;
                }
            };
            let chunks: Vec<(usize, &Chunk)> = track.chunks.iter().enumerate().collect();
            let mut assembler = Assembler::new();
            for batch in batches(track.chunks.iter()) {
                let batch = &chunks[batch];
                let mut fetched = match self.reader.fetch_batch(seq, batch).await {
                    Ok(fetched) => fetched.into_iter().map(Some).collect(),
                    Err(Error::Damaged { .. }) => self.one_by_one(seq, track.id, batch).await?,
                    Err(error) => {
                        self.note(seq, Some(track.id), error)?;
                        Vec::new()
                    }
                }
                .into_iter();
                for (at, chunk) in batch {
                    self.count(chunk);
                    match fetched.next().flatten() {
                        Some(fetched) => {
                            self.assemble(seq, &plan, &mut assembler, *at, fetched)?;
                        }
                        // What hung on it is lost; the next chunk begins anew.
                        None => assembler = Assembler::new(),
                    }
                }
                progress(&self.report);
            }
        }
        Ok(())
    }

    /// Finds out which chunks of a batch are damaged.
    async fn one_by_one(
        &mut self,
        seq: u64,
        track: u32,
        batch: &[(usize, &Chunk)],
    ) -> Result<Vec<Option<Fetched>>, Error> {
        let mut all = Vec::with_capacity(batch.len());
        for one in batch {
            match self.reader.fetch_batch(seq, &[*one]).await {
                Ok(fetched) => all.extend(fetched.into_iter().map(Some)),
                Err(error) => {
                    self.note(seq, Some(track), error)?;
                    all.push(None);
                }
            }
        }
        Ok(all)
    }

    fn count(&mut self, chunk: &Chunk) {
        self.report.suspect += u64::from(chunk.suspect);
        for stored in pieces(chunk) {
            let name = reference(stored);
            self.report.chunks += u64::from(self.seen.insert((*name.tag, *name.d1)));
            self.report.bytes += u64::from(stored.len);
        }
    }

    fn assemble(
        &mut self,
        seq: u64,
        plan: &TrackPlan,
        assembler: &mut Assembler,
        at: usize,
        fetched: Fetched,
    ) -> Result<(), Error> {
        let mut units: Vec<(usize, Vec<u8>)> = Vec::new();
        let pushed = assembler.push(&plan.layout, at, fetched, &mut units);
        self.report.units += units.len() as u64;
        if let Err(Fault { chunk, reason }) = pushed {
            self.note(seq, Some(plan.id), damaged(seq, chunk, &reason))?;
            *assembler = Assembler::new();
        }
        Ok(())
    }
}
