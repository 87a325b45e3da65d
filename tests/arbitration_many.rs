// SPDX-License-Identifier: MPL-2.0
//! A small run of the example `arbitrate_many`: leaks of made scenes are traced, unmarked clips are
//! not.

#[allow(dead_code)]
#[path = "../examples/evaluate/ffmpeg.rs"]
mod ffmpeg;
#[allow(dead_code)]
#[path = "../examples/arbitrate_many/trial.rs"]
mod trial;

use ffmpeg::Clip;
use std::time::Duration;
use trial::{Attack, Part, Random, Registry};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Small, for speed: two or three marks a bit, too few for copies that were made smaller still.
const SIZE: [usize; 2] = [480, 288];

#[test]
fn leaks_are_traced_and_unmarked_clips_are_not() {
    let scenes = [
        (
            "wall",
            "gradients=s=512x320:r=4:speed=0.01,noise=alls=30:all_seed=7",
        ),
        (
            "grain",
            "testsrc2=s=512x320:r=4,boxblur=4,noise=alls=14:allf=t",
        ),
    ];
    let load = |(name, source): &(&str, &str)| Clip {
        fps: 4.0,
        ..Clip::generated(name, source, 7.0).unwrap()
    };
    let clips: Vec<Clip> = scenes.iter().map(load).collect();
    let registry = Registry::new(&clips, SIZE, 20).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::new(5);
    for attack in [
        Attack::X264(28),
        Attack::X265(28),
        Attack::Scale(150),
        Attack::Gamma(140),
        Attack::Drop,
        Attack::Short,
    ] {
        let id = random.below(20);
        let clip = registry.parts[id].cut(&clips, SIZE, attack.seconds());
        let marked = registry.mark(id, &clip).unwrap();
        let attacked = attack.apply(&marked, dir.path(), &mut random).unwrap();
        let (found, compared) = registry.judge(&attacked, None, Duration::ZERO).unwrap();
        println!("{attack:?} of {id}: {found:?} of {compared}");
        assert_eq!(found.map(|(found, _)| found), Some(id), "{attack:?}");
    }
    for n in 0..10 {
        let part = Part::draw(&clips, SIZE, &mut random);
        let clip = part.cut(&clips, SIZE, 1.0);
        let (found, compared) = registry.judge(&clip, None, Duration::ZERO).unwrap();
        assert_eq!(found, None, "clip {n}, compared with {compared}");
    }
}
