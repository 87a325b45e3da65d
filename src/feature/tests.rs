// SPDX-License-Identifier: MPL-2.0
//! Against `ImageHash` 4.3.2 with Pillow 13.0.0 and SciPy 1.17.1 (`phash_sizes.json`), and the
//! 32×32 pictures of `phash.json`.

use super::*;
use crate::luma::Shape;
use proptest::prelude::*;
use sha2::Digest;

fn look(pixels: &[u8], width: usize, height: usize) -> Feature {
    let picture = Luma::new(pixels, Shape::plane(width, height)).unwrap();
    Observer::default().look(&picture).unwrap()
}

/// A number that anyone can compute from three (the finaliser of SplitMix64).
fn noise(x: u64, y: u64, width: u64, seed: u64) -> u64 {
    let v = (x + y * width).wrapping_add(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let v = (v ^ (v >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let v = (v ^ (v >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (v ^ (v >> 31)) >> 56
}

/// The picture that a vector stands for.
fn picture(kind: &str, width: u64, height: u64, seed: u64) -> Vec<u8> {
    let sample = |x: u64, y: u64| match kind {
        "flat" => seed,
        "noise" => noise(x, y, width, seed),
        "blocks" => {
            let n = noise(x / 16, y / 16, width.div_ceil(16), seed);
            (2 * n).saturating_sub(128).min(255)
        }
        "waves" => (x * x * seed + y * y * 3 + x * y) / 64,
        "ramp" => x * 255 / (width - 1).max(1) + y * seed,
        kind => panic!("{kind}"),
    };
    let row = |y| (0..width).map(move |x| sample(x, y) as u8);
    (0..height).flat_map(row).collect()
}

#[test]
fn equals_imagehash_at_every_size() {
    let vectors = include_str!("../../tests/data/phash_sizes.json");
    let vectors: Vec<serde_json::Value> = serde_json::from_str(vectors).unwrap();
    assert!(vectors.len() > 20);
    for vector in vectors {
        let number = |name: &str| vector[name].as_u64().unwrap();
        let (width, height) = (number("width"), number("height"));
        let kind = vector["kind"].as_str().unwrap();
        let pixels = picture(kind, width, height, number("seed"));
        let (width, height) = (width as usize, height as usize);
        let luma = Luma::new(&pixels, Shape::plane(width, height)).unwrap();
        let small = Resizer::new(width, height).unwrap().resize(&luma, |_| ());
        let digest = sha2::Sha256::digest(small);
        let digest: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(vector["small"], digest, "{vector}");
        let feature = look(&pixels, width, height);
        assert_eq!(vector["phash"], feature.phash.to_string(), "{vector}");
        for (name, value) in [("mean", feature.mean), ("deviation", feature.deviation)] {
            assert!((vector[name].as_f64().unwrap() - value).abs() < 1e-6);
        }
    }
}

#[test]
fn equals_the_oracle() {
    let vectors = include_str!("../../tests/data/phash.json");
    let vectors: Vec<serde_json::Value> = serde_json::from_str(vectors).unwrap();
    let mut compared = 0;
    for vector in vectors {
        let pixels: Vec<Vec<u8>> = serde_json::from_value(vector["pixels"].clone()).unwrap();
        let (width, height) = (pixels[0].len(), pixels.len());
        // The others the oracle has resized in its own way, or decided by noise.
        if (width, height) == (SIZE, SIZE) && vector["degenerate"] == false {
            let found = look(&pixels.concat(), width, height).phash;
            assert_eq!(vector["median_ortho"], found.to_string(), "{vector}");
            compared += 1;
        }
    }
    assert_eq!(compared, 3);
}

/// What is equal to the median but for noise gives 0.
#[test]
fn noise_of_arithmetic_decides_nothing() {
    for level in 1..=255 {
        assert_eq!(look(&[level; 1500], 50, 30).phash.0, 1 << 63);
    }
    // Only the first row of frequencies is not zero, and of these the odd ones, by symmetry.
    let ramp = look(&picture("ramp", 32, 32, 0), 32, 32).phash.0;
    assert_eq!(ramp & 0x00ff_ffff_ffff_ffff, 0, "{ramp:016x}");
    // Both halves of the table of a symmetric picture.
    let pixels: Vec<u8> = (0..1024u64)
        .map(|i| noise(i / 32 + i % 32, 0, 0, 1) as u8)
        .collect();
    let hash = look(&pixels, 32, 32).phash.0;
    let bit = |u: usize, v: usize| hash >> (63 - 8 * u - v) & 1;
    assert!((0..8).all(|u| (0..8).all(|v| bit(u, v) == bit(v, u))));
}

#[test]
fn stride_and_colour_do_not_matter() {
    let (width, height) = (123, 77);
    let plane = picture("blocks", width as u64, height as u64, 3);
    let expected = look(&plane, width, height);
    let padded: Vec<u8> = plane
        .chunks(width)
        .flat_map(|row| row.iter().copied().chain([99; 13]))
        .collect();
    let rgb: Vec<u8> = plane.iter().flat_map(|&s| [7, s, s, s]).collect();
    let shapes = [
        (&padded, crate::luma::Samples::Plane, width + 13),
        (
            &rgb,
            crate::luma::Samples::Rgb {
                step: 4,
                offsets: [1, 2, 3],
            },
            4 * width,
        ),
    ];
    // One observer for all, another size between.
    let mut observer = Observer::default();
    for (data, samples, stride) in shapes {
        let shape = Shape {
            samples,
            stride,
            ..Shape::plane(width, height)
        };
        let picture = Luma::new(data, shape).unwrap();
        assert_eq!(observer.look(&picture), Some(expected));
        let other = Luma::new(&plane, Shape::plane(77, 5)).unwrap();
        assert!(observer.look(&other).is_some());
    }
    let nothing = Luma::new(&[], Shape::plane(0, 4)).unwrap();
    assert_eq!(observer.look(&nothing), None);
}

proptest! {
    #[test]
    fn text_and_back(bits: u64) {
        prop_assert_eq!(PHash(bits).to_string().parse(), Ok(PHash(bits)));
        prop_assert_eq!(PHash(bits).to_string().to_uppercase().parse(), Ok(PHash(bits)));
    }

    #[test]
    fn what_parses_is_sixteen_digits(text in "[0-9a-fA-F+ -]{0,20}|.*") {
        match text.parse::<PHash>() {
            Ok(hash) => prop_assert_eq!(hash.to_string(), text.to_lowercase()),
            Err(PHashError) => prop_assert!(text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit())),
        }
    }
}
