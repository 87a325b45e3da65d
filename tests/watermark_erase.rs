// SPDX-License-Identifier: MPL-2.0
//! Marks come out again bit for bit, on every frame of real footage and of a generated film.

mod common;

use gstcamvault::luma::{LumaMut, Shape};
use gstcamvault::watermark::{Key, Layout, Settings, Trace, Word, embed, erase};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

/// Every frame's luma, cut to an odd size, through mark and erasure. Returns how many there were.
fn comes_back(input: &[&str], width: usize, height: usize) -> usize {
    let crop = format!("crop={width}:{height}:3:1:exact=1,format=gray");
    let mut child = Command::new("ffmpeg")
        .args(["-loglevel", "error", "-nostdin", "-noautorotate"])
        .args(input)
        .args(["-vf", &crop, "-f", "rawvideo", "-"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("ffmpeg is installed by tests/run.sh");
    let mut frames = child.stdout.take().unwrap();
    let (key, shape) = (Key::from_bytes([1; 32]), Shape::plane(width, height));
    let settings = Settings::default();
    let layouts: Vec<Layout> = (0..settings.layouts)
        .map(|epoch| Layout::new(&key, epoch, &settings, width, height))
        .collect();
    let (mut frame, mut trace, mut count) = (vec![0; width * height], Trace::default(), 0);
    while frames.read_exact(&mut frame).is_ok() {
        let original = frame.clone();
        let layout = &layouts[count % layouts.len()];
        // Another word each time.
        let word =
            Word(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834_u128.wrapping_mul(count as u128 + 1));
        embed(
            &mut LumaMut::new(&mut frame, shape).unwrap(),
            layout,
            word,
            Some(&mut trace),
        );
        assert!(frame != original, "frame {count} was marked");
        erase(
            &mut LumaMut::new(&mut frame, shape).unwrap(),
            layout,
            &trace,
        );
        assert!(frame == original, "frame {count}");
        count += 1;
    }
    child.wait().unwrap();
    count
}

#[test]
fn a_generated_film() {
    let film = [
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=646x363:rate=25",
        "-t",
        "2",
    ];
    assert_eq!(comes_back(&film, 641, 359), 50);
}

#[test]
fn the_footage() {
    let Some(folder) = common::footage() else {
        eprintln!("NOT TESTED: there is no folder with footage");
        return;
    };
    let mut all = 0;
    for file in common::walk(&folder) {
        let film = ["mp4", "mkv"]
            .map(|e| file.extension() == Some(e.as_ref()))
            .contains(&true);
        if film {
            let name = file.display().to_string();
            let portrait = Path::new(&file)
                .file_name()
                .unwrap()
                .to_string_lossy()
                .contains("axis");
            let (width, height) = if portrait { (475, 637) } else { (763, 429) };
            let frames = comes_back(&["-i", &name], width, height);
            println!("{name}: {frames} frames");
            all += frames;
        }
    }
    assert!(all > 1000, "{all}");
}
