// SPDX-License-Identifier: MPL-2.0
//! Whether the detector finds the original in a picture that was cut, resized, mirrored, inverted or
//! turned, from two seconds after x264 CRF 28.

use crate::ffmpeg::{Clip, Codec, Coding};
use crate::method::{Method, detector, mark};
use crate::{Effort, Result, parallel};
use gstcamvault::watermark::{Key, Settings, Word};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A search may take so long.
const LIMIT: Duration = Duration::from_secs(60);

/// What became of one search.
pub struct Outcome {
    pub clip: String,
    pub attack: String,
    pub size_known: bool,
    pub found: bool,
    /// Standard deviations of chance.
    pub score: f64,
    /// Wrong bits.
    pub errors: u32,
    pub seconds: f64,
}

fn cases(clip: &Clip, effort: Effort) -> Vec<(String, Coding)> {
    let usual = || Coding::crf(Codec::H264, 28);
    let part = |side: usize, part: f64| (side as f64 * part / 2.0) as usize * 2;
    let sized = |share: f64| [clip.width, clip.height].map(|side| part(side, share));
    let crop = |share: f64, x: usize, y: usize, more: &str| {
        let [width, height] = sized(share);
        let filter = format!("crop={width}:{height}:{x}:{y}:exact=1{more}");
        usual().filtered(filter).sized([width, height])
    };
    let scale = |share: f64| {
        let [width, height] = sized(share);
        usual()
            .filtered(format!("scale={width}:{height}"))
            .sized([width, height])
    };
    let turn = |degrees: f64| usual().filtered(format!("rotate={degrees}*PI/180"));
    let cases = [
        (
            "crop 30 %",
            crop(0.7, (clip.width / 7) | 1, clip.height / 5, ""),
        ),
        ("mirror", usual().filtered("hflip")),
        ("negative", usual().filtered("negate")),
        ("scale 50 %", scale(0.5)),
        ("scale 72 %", scale(0.72)),
        ("scale 150 %", scale(1.5)),
        ("rotation 1°", turn(1.0)),
        ("rotation −2°", turn(-2.0)),
        ("rotation 3°", turn(3.0)),
        (
            "crop 30 %, mirror, negative",
            crop(0.7, 31, 17, ",hflip,negate"),
        ),
    ];
    let wanted = cases
        .into_iter()
        .map(|(name, coding)| (name.to_owned(), coding));
    match effort {
        Effort::Quick => wanted.take(3).collect(),
        Effort::Full => wanted.collect(),
    }
}

/// All attacks on the beginning of a clip, with the original's size given and not.
pub fn run(
    clip: &Clip,
    key: &Key,
    word: Word,
    effort: Effort,
    folder: &Path,
) -> Result<Vec<Outcome>> {
    let mut start = clip.clone();
    start.frames.truncate(clip.gop());
    let marked = mark(&start, Method::Camvault, key, word);
    let cases = cases(clip, effort);
    let coded = parallel(&cases, |(_, coding)| {
        marked.clip.transcode(&marked.clip.frames, coding, folder)
    })?;
    let mut jobs = Vec::new();
    for ((attack, _), coded) in cases.iter().zip(&coded) {
        jobs.extend([true, false].map(|size_known| (attack, &coded.clip, size_known)));
    }
    parallel(&jobs, |&(attack, coded, size_known)| {
        let original = size_known.then_some([clip.width, clip.height]);
        let settings = Settings::default();
        let mut detector = detector(coded, &coded.frames, key, &settings, original);
        let begin = Instant::now();
        if !detector.is_registered() {
            let search = detector.search();
            let found = limited(|stop| search.run(stop));
            if let Some(found) = found {
                detector.register(found.registration);
            }
        }
        let seconds = begin.elapsed().as_secs_f64();
        let votes = detector.votes();
        Ok(Outcome {
            clip: clip.name.clone(),
            attack: attack.clone(),
            size_known,
            found: detector.is_registered(),
            score: votes.score(),
            errors: votes.word().distance(word),
            seconds,
        })
    })
}

/// Runs something that stops, soon, when it is told to.
fn limited<T>(work: impl FnOnce(&AtomicBool) -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (done, wait) = mpsc::channel::<()>();
        let stop = &stop;
        scope.spawn(move || {
            if wait.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                stop.store(true, Ordering::Relaxed);
            }
        });
        let result = work(stop);
        // The other end of the channel wakes up.
        drop(done);
        result
    })
}
