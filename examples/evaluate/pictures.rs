// SPDX-License-Identifier: MPL-2.0
//! The attacks of [RTBF]'s tables, on single pictures in memory.

use crate::Result;
use crate::ffmpeg::Clip;
use crate::method::{Method, planes, psnr_of};
use crate::parallel;
use crate::rows::{Row, Subject, Window};
use gstcamvault::luma::{Luma, Plane, Shape};
use gstcamvault::watermark::battery::Attack;
use gstcamvault::watermark::code::Seeded;
use gstcamvault::watermark::{Key, Layout, Settings, embed};

/// Behind the name of a picture of half the size.
pub const HALVED: &str = " 1/2";

/// A picture's luma.
pub struct Picture {
    pub name: String,
    pub plane: Plane,
}

/// The middle frame of a clip, and half its size: pictures of few blocks have denser marks.
pub fn of_clip(clip: &Clip) -> Option<[Picture; 2]> {
    let plane = planes(clip).nth(clip.frames.len() / 2)?;
    let (width, height) = (plane.width() / 2, plane.height() / 2);
    let pairs = plane.data().chunks_exact(2 * plane.width()).take(height);
    let halved: Vec<u8> = pairs
        .flat_map(|rows| {
            let at = |i: usize| u16::from(rows[i]);
            let below = plane.width();
            let mean = move |x: usize| at(x) + at(x + 1) + at(x + below) + at(x + below + 1);
            (0..width).map(move |x| ((mean(2 * x) + 2) / 4) as u8)
        })
        .collect();
    let picture = |name: String, plane| Picture { name, plane };
    Some([
        picture(clip.name.clone(), plane),
        picture(
            format!("{}{HALVED}", clip.name),
            Plane::new(width, height, halved)?,
        ),
    ])
}

/// Experiment, series, x, what is done.
pub fn attacks() -> Vec<(&'static str, String, f64, Attack)> {
    let mut attacks = Vec::new();
    for quality in (10..=90).step_by(10) {
        let attack = Attack::Jpeg(quality);
        attacks.push(("jpeg", String::new(), f64::from(quality), attack));
    }
    for size in [3, 5, 7, 9, 15] {
        for sigma in [0.5, 1.0, 1.5, 2.0, 3.0, 5.0] {
            let attack = Attack::Blur { size, sigma };
            attacks.push(("blur", format!("{size}x{size}"), sigma, attack));
        }
    }
    for sigma in [2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0] {
        attacks.push(("noise", String::new(), sigma, Attack::Noise { sigma }));
    }
    attacks
}

/// All attacks on all pictures, each marked by all methods under `keys` keys.
pub fn run(pictures: &[Picture], keys: u8) -> Result<(Vec<Row>, Vec<Subject>)> {
    let mut jobs = Vec::new();
    for picture in pictures {
        for method in Method::ALL {
            jobs.extend((0..keys).map(|key| (picture, method, key)));
        }
    }
    let results = parallel(&jobs, |&(picture, method, key)| one(picture, method, key))?;
    let (rows, subjects): (Vec<Vec<Row>>, Vec<Option<Subject>>) = results.into_iter().unzip();
    Ok((rows.concat(), subjects.into_iter().flatten().collect()))
}

fn one(picture: &Picture, method: Method, key: u8) -> Result<(Vec<Row>, Option<Subject>)> {
    let mut random = Seeded::new(key.into());
    let (number, key) = (key, Key::from_bytes([key + 1; 32]));
    let word = random.word();
    let plane = &picture.plane;
    let [width, height] = [plane.width(), plane.height()];
    let ours = Settings::picture();
    let settings = method.settings(&ours, std::slice::from_ref(plane), &key, word);
    let layout = Layout::new(&key, 0, &settings, width, height);
    let mut marked = plane.clone();
    embed(&mut marked.luma_mut(), &layout, word, None);
    let mut rows = Vec::new();
    for (experiment, series, x, attack) in attacks() {
        let attacked = attack.apply(&marked.luma(), random.bits());
        let luma = Luma::new(&attacked, Shape::plane(width, height))
            .ok_or("an attack changed the size of a picture")?;
        let mut row = Row::new(experiment, &series, x, &picture.name, method);
        row.window = Window::Frame;
        row.count(method.read_picture(&luma, &key, &settings).distance(word));
        rows.push(row);
    }
    // What is said of a picture is the same for all keys, nearly.
    let subject = (number == 0).then(|| {
        let pictures = std::slice::from_ref(plane);
        Subject {
            name: picture.name.clone(),
            what: "picture",
            size: [width, height],
            frames: 1,
            method,
            psnr: psnr_of(pictures, &key, &settings, word),
            as_published: psnr_of(pictures, &key, &Settings::paper(), word),
            settings,
        }
    });
    Ok((rows, subject))
}
