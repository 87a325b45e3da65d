// SPDX-License-Identifier: MPL-2.0

use super::*;
use crate::watermark::{Key, Settings};
use proptest::prelude::*;

fn textured(width: usize, height: usize) -> Vec<u8> {
    let mut random = Seeded::new(9);
    let sample = |i: usize| {
        let (x, y) = ((i % width) as f64, (i / width) as f64);
        128.0 + 70.0 * (x / 19.0).sin() * (y / 31.0).cos() + 4.0 * random.normal()
    };
    (0..width * height).map(sample).map(|y| y as u8).collect()
}

fn outcome(usable: bool, errors: u32) -> Outcome {
    Outcome {
        attack: format!("{usable} {errors}"),
        psnr: 30.0,
        usable,
        errors,
        bits: 128,
    }
}

#[test]
fn the_worst_useful_picture_decides() {
    let report = Report::new(vec![
        outcome(true, 4),
        outcome(true, 10),
        outcome(false, 60),
    ]);
    let margin = report.threshold - 10.0 / 128.0;
    assert!((0.023..0.025).contains(&margin), "{margin}");
    assert_eq!(
        (report.covered().count(), report.uncovered().count()),
        (2, 0)
    );
    // An attack that the bits do not survive is said to be so, and moves the threshold no further.
    let report = Report::new(vec![outcome(true, 50), outcome(true, 0), outcome(false, 3)]);
    assert_eq!(report.threshold, MAX_BER);
    let lost: Vec<_> = report.uncovered().map(|o| o.errors).collect();
    assert_eq!((lost, report.covered().count()), (vec![50], 2));
    // No errors in 128 bits are not none for ever.
    assert!(Report::new(vec![outcome(true, 0)]).threshold > 0.005);
    assert_eq!(Report::new(vec![outcome(false, 0)]).threshold, 0.0);
    assert_eq!(Report::new(Vec::new()).threshold, 0.0);
}

#[test]
fn tables_of_qualities() {
    assert_eq!(quantisers(50), LUMINANCE);
    assert_eq!(quantisers(100), [1; 64]);
    // `cjpeg -quality 75` and `10`.
    assert_eq!(quantisers(75)[..8], [8, 6, 5, 8, 12, 20, 26, 31]);
    assert_eq!(quantisers(10)[..8], [80, 55, 50, 80, 120, 200, 255, 255]);
    assert_eq!(quantisers(0), quantisers(1));
}

#[test]
fn attacks_do_what_they_say() {
    let (width, height) = (96, 64);
    let data = textured(width, height);
    let luma = Luma::new(&data, Shape::plane(width, height)).unwrap();
    let distance = |attack: Attack| psnr(&data, &attack.apply(&luma, 1));
    for sigma in [2.0, 10.0] {
        let expected = 20.0 * (255.0f64 / sigma).log10();
        assert!((distance(Attack::Noise { sigma }) - expected).abs() < 0.3);
    }
    // A kernel of equal weights is a mean.
    let mean = Attack::Blur {
        size: 3,
        sigma: 1e6,
    }
    .apply(&luma, 1);
    let at = |x: usize, y: usize| f64::from(data[y * width + x]);
    let expected: f64 = (4..7)
        .flat_map(|x| (8..11).map(move |y| (x, y)))
        .map(|(x, y)| at(x, y))
        .sum();
    assert_eq!(mean[9 * width + 5], (expected / 9.0 + 0.5).floor() as u8);
    let half = Attack::Contrast(0.5).apply(&luma, 1);
    assert!(
        data.iter()
            .zip(&half)
            .all(|(a, b)| { (128.0 + (f64::from(*a) - 128.0) / 2.0 - f64::from(*b)).abs() <= 0.5 })
    );
    assert!(
        Attack::Gamma(0.7)
            .apply(&luma, 1)
            .iter()
            .zip(&data)
            .all(|(b, a)| b >= a)
    );
    // Finer is nearer.
    let jpeg = [10, 30, 70, 100].map(|quality| distance(Attack::Jpeg(quality)));
    assert!(
        jpeg.is_sorted() && jpeg[0] > 25.0 && jpeg[3] > 50.0,
        "{jpeg:?}"
    );
    let resize = [0.25, 0.5, 2.0].map(|factor| distance(Attack::Resize(factor)));
    assert!(resize.is_sorted() && resize[0] > 20.0, "{resize:?}");
}

proptest! {
    #[test]
    fn any_attack_on_any_picture(
        width in 0usize..40,
        height in 0usize..40,
        fill in any::<u8>(),
        number in prop_oneof![0.0f64..4.0, Just(f64::NAN), Just(-1.0), Just(1e300)],
        seed: u64,
    ) {
        let data = vec![fill; width * height];
        let luma = Luma::new(&data, Shape::plane(width, height)).unwrap();
        let size = number as usize;
        for attack in [
            Attack::Noise { sigma: number },
            Attack::Blur { size, sigma: number },
            Attack::Gamma(number),
            Attack::Contrast(number),
            Attack::Jpeg(seed as u8),
            Attack::Resize(number),
        ] {
            let once = attack.apply(&luma, seed);
            prop_assert_eq!(once.len(), data.len());
            prop_assert_eq!(attack.apply(&luma, seed), once);
        }
        for attack in [
            Attack::Noise { sigma: 0.0 },
            Attack::Blur { size: 5, sigma: 1.0 },
            Attack::Gamma(1.0),
            Attack::Contrast(1.0),
            Attack::Jpeg(100),
            Attack::Resize(0.6),
        ] {
            prop_assert_eq!(&attack.apply(&luma, seed), &data);
        }
    }
}

#[test]
fn a_battery_on_a_frame() {
    let (width, height) = (480, 360);
    let data = textured(width, height);
    let luma = Luma::new(&data, Shape::plane(width, height)).unwrap();
    let key = Key::from_bytes([3; 32]);
    let layout = Layout::new(&key, 0, &Settings::default(), width, height);
    let word = Word(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);
    let report = battery(&luma, &layout, word, 1);
    for o in &report.outcomes {
        println!(
            "{:32} {:5.1} dB, usable {:5}, BER {:.3}",
            o.attack,
            o.psnr,
            o.usable,
            o.ber()
        );
    }
    println!("threshold {:.3}", report.threshold);
    assert!(report.threshold > 0.0 && report.threshold <= MAX_BER);
    let errors = |attack: Attack| {
        let name = attack.to_string();
        report
            .outcomes
            .iter()
            .find(|o| o.attack == name)
            .unwrap()
            .errors
    };
    assert_eq!(errors(Attack::Jpeg(50)), 0);
    assert_eq!(errors(Attack::Noise { sigma: 5.0 }), 0);
    assert!(battery(&luma, &layout, word, 1) == report);
    // Nothing to read in a picture without blocks.
    let small = Luma::new(&data, Shape::plane(7, 7)).unwrap();
    let none = Layout::new(&key, 0, &Settings::default(), 7, 7);
    assert!(
        battery(&small, &none, word, 1)
            .outcomes
            .iter()
            .all(|o| o.errors > 50)
    );
}
