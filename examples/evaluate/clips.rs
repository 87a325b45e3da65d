// SPDX-License-Identifier: MPL-2.0
//! Marked clips through video codecs and what else happens to videos.

use crate::ffmpeg::{Clip, Codec, Coding, Rate};
use crate::method::{Marked, Method, detector, mark, planes, psnr_of};
use crate::parallel;
use crate::rows::{Cost, Row, Subject, Window};
use crate::{Effort, Result};
use gstcamvault::watermark::{Key, Settings, Word};
use std::path::Path;

/// Frames of a clip that are read one by one.
const SINGLE: usize = 8;

/// Something done to a clip.
struct Case {
    experiment: &'static str,
    x: f64,
    coding: Coding,
    /// Only every so many-th frame is left.
    every: usize,
}

fn cases(clip: &Clip, effort: Effort) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |experiment, x, coding, every| {
        cases.push(Case {
            experiment,
            x,
            coding,
            every,
        });
    };
    for codec in [Codec::H264, Codec::H265] {
        for crf in effort.crfs() {
            add("crf", f64::from(*crf), Coding::crf(codec, *crf), 1);
        }
        for rate in effort.rates() {
            add("bitrate", f64::from(*rate), Coding::kbit(codec, *rate), 1);
        }
    }
    // Behind these, what is usual.
    let usual = || Coding::crf(Codec::H264, 28);
    for percent in effort.scales() {
        let even = |side: usize| (side * percent / 200).max(8) * 2;
        let [width, height] = [clip.width, clip.height].map(even);
        let coding = usual()
            .filtered(format!("scale={width}:{height}"))
            .sized([width, height]);
        add("scale", *percent as f64, coding, 1);
    }
    for gamma in effort.gammas() {
        let filter = format!("lutyuv=y=gammaval({gamma})");
        add("gamma", *gamma, usual().filtered(filter), 1);
    }
    for every in effort.drops() {
        add("frame drop", *every as f64, usual(), *every);
    }
    cases
}

/// What was found for one clip.
#[derive(Default)]
pub struct Results {
    pub rows: Vec<Row>,
    pub subjects: Vec<Subject>,
    pub costs: Vec<Cost>,
}

/// Marks a clip by `methods`, does everything to it and reads it.
pub fn run(
    clip: &Clip,
    key: &Key,
    word: Word,
    effort: Effort,
    methods: &[Method],
    folder: &Path,
) -> Result<Results> {
    let marked = parallel(methods, |&method| {
        Ok((method, mark(clip, method, key, word)))
    })?;
    let few: Vec<_> = planes(clip).take(1).collect();
    let subjects = marked.iter().map(|(method, marked)| Subject {
        name: clip.name.clone(),
        what: "clip",
        size: [clip.width, clip.height],
        frames: clip.frames.len(),
        method: *method,
        settings: marked.settings.clone(),
        psnr: marked.psnr,
        as_published: psnr_of(&few, key, &Settings::paper(), word),
    });
    let subjects = subjects.collect();
    let cases = cases(clip, effort);
    let mut jobs = Vec::new();
    for case in &cases {
        jobs.extend(marked.iter().map(|marked| (case, marked)));
    }
    let done = parallel(&jobs, |&(case, (method, marked))| {
        let every = marked.clip.frames.iter().step_by(case.every);
        let frames: Vec<Vec<u8>> = every.cloned().collect();
        let coded = marked.clip.transcode(&frames, &case.coding, folder)?;
        Ok((
            read(clip, &coded.clip, case, *method, marked, key, word),
            coded.bytes,
        ))
    })?;
    let plain: Vec<&Case> = cases.iter().filter(|case| has_cost(case)).collect();
    let plain_bytes = parallel(&plain, |case| {
        let coded = clip.transcode(&clip.frames, &case.coding, folder)?;
        Ok(coded.bytes)
    })?;
    let mut costs = Vec::new();
    for (case, plain_bytes) in plain.iter().zip(&plain_bytes) {
        let same = |job: &(&Case, &(Method, Marked))| std::ptr::eq(job.0, *case);
        for ((_, (method, _)), (_, bytes)) in jobs.iter().zip(&done).filter(|(job, _)| same(job)) {
            let seconds = clip.frames.len() as f64 / clip.fps;
            costs.push(Cost {
                clip: clip.name.clone(),
                method: *method,
                codec: case.coding.codec.name(),
                crf: case.x as u32,
                kbit: *plain_bytes as f64 * 8.0 / 1000.0 / seconds,
                percent: 100.0 * (*bytes as f64 / *plain_bytes as f64 - 1.0),
            });
        }
    }
    Ok(Results {
        rows: done.into_iter().flat_map(|(rows, _)| rows).collect(),
        subjects,
        costs,
    })
}

fn has_cost(case: &Case) -> bool {
    let usual = matches!(case.coding.rate, Rate::Crf(28 | 33));
    usual && case.experiment == "crf"
}

fn read(
    original: &Clip,
    coded: &Clip,
    case: &Case,
    method: Method,
    marked: &Marked,
    key: &Key,
    word: Word,
) -> Vec<Row> {
    let per_second = (coded.fps / case.every as f64).max(1.0);
    let mut windows = vec![Window::Seconds(1.0), Window::Clip];
    if case.experiment == "crf" {
        windows.extend([Window::Frame, Window::Seconds(2.0), Window::Seconds(5.0)]);
    }
    let series = match case.experiment {
        "crf" | "bitrate" => case.coding.codec.name(),
        _ => "",
    };
    let rows = windows.iter().map(|window| {
        let all = coded.frames.len();
        let (length, step) = match window {
            Window::Frame => (1, all.div_ceil(SINGLE)),
            Window::Seconds(seconds) => {
                let length = ((seconds * per_second).round() as usize).clamp(1, all);
                (length, length)
            }
            Window::Clip => (all, all),
        };
        let mut row = Row::new(case.experiment, series, case.x, &original.name, method);
        row.window = *window;
        // A remainder is no window.
        for start in (0..=all - length).step_by(step) {
            let frames = &coded.frames[start..start + length];
            let size = Some([original.width, original.height]);
            let mut detector = detector(coded, frames, key, &marked.settings, size);
            // Frame by frame is for the plots against time, and long.
            if *window != Window::Frame {
                method.restore(&mut detector);
            }
            row.count(detector.votes().word().distance(word));
        }
        row
    });
    rows.collect()
}
