// SPDX-License-Identifier: MPL-2.0
//! Any rests, one after the other, are an error or a picture; and a picture made of any bytes comes
//! back from its own split.
#![no_main]

use gstcamvault::sealed::{Chroma, Geometry, Joiner, Picture, Splitter};
use gstcamvault::watermark::Settings;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&[width, height, chroma], data)) = data.split_first_chunk() else {
        return;
    };
    let chroma = match chroma % 4 {
        0 => Chroma::None,
        1 => Chroma::I420,
        2 => Chroma::Y42B,
        _ => Chroma::Y444,
    };
    let Ok(geometry) = Geometry::new(width.into(), height.into(), chroma) else {
        return;
    };
    let settings = Settings::default();
    let mut joiner = Joiner::new(geometry, &settings).expect("the default classes");
    for rest in data.chunks(data.len().div_ceil(2).max(1)) {
        if let Ok(sent) = joiner.read(rest) {
            assert_eq!(sent.positions.len(), sent.widths.len());
            let values: Vec<i16> = (0..sent.widths.len()).map(|i| i as i16).collect();
            joiner.join(&values).expect("as many as were wanted");
        }
    }
    let mut picture = Picture::new(geometry);
    let mut bytes = data.iter().copied().cycle();
    for i in 0..geometry.planes() {
        for sample in picture.plane_mut(i) {
            *sample = bytes.next().unwrap_or(0);
        }
    }
    let mut splitter = Splitter::new(geometry, &settings, None).expect("the default settings");
    let split = splitter.split(&picture, true).expect("of its geometry");
    let mut joiner = Joiner::new(geometry, &settings).expect("the default classes");
    joiner.read(&split.rest).expect("a rest");
    assert!(joiner.join(&split.values).expect("values") == &picture);
});
