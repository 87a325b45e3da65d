// SPDX-License-Identifier: MPL-2.0

use super::*;
use crate::luma::{Luma, LumaMut, Shape};
use crate::watermark::code::{Seeded, unmask};
use crate::watermark::{Code, Key, Layout, Settings, Votes, embed, read};

/// From Python's integers: `sum(comb(128, k) for k in range(d + 1)) / 2**128`.
#[test]
fn tails_are_exact() {
    for (errors, exact) in [
        (0, 2.938735877055719e-39),
        (20, 4.2943114779374537e-16),
        (25, 9.66670199239399e-13),
        (32, 6.420881933046558e-09),
        (38, 2.461423779718757e-06),
        (51, 0.01336758642798774),
    ] {
        assert!((tail(errors) / exact - 1.0).abs() < 1e-15, "{errors}");
    }
    for errors in 0..127 {
        assert!((tail(errors) + tail(127 - errors) - 1.0).abs() < 1e-15);
        assert!(tail(errors) <= tail(errors + 1));
    }
    assert_eq!((tail(128), tail(u32::MAX)), (1.0, 1.0));
}

#[test]
fn the_more_marks_the_fewer_errors() {
    let limits = |complements| {
        [1, 1_000, 1_000_000, 1_000_000_000].map(|marks| {
            let compared = Compared { marks, complements };
            max_errors(compared).unwrap()
        })
    };
    assert_eq!(limits(false), [29, 24, 20, 16]);
    assert_eq!(limits(true), [29, 24, 19, 15]);
    assert_eq!(max_errors(Compared::with(0)), Some(29));
    // Not even a word of 128 bits names one of 2^64 with this certainty by more than 8 wrong bits.
    assert_eq!(max_errors(Compared::with(u64::MAX)), Some(6));
}

/// Evidence for a word read with that many errors, all votes equally strong.
fn plain(errors: usize, compared: Compared) -> Evidence {
    let votes = std::array::from_fn(|bit| if bit < errors { 1.0 } else { -1.0 });
    Evidence::new(&votes, Word(0), compared)
}

#[test]
fn acceptance() {
    let one = Compared::with(1);
    assert!(plain(29, one).accepted() && !plain(30, one).accepted());
    let million = Compared::with(1_000_000);
    assert!(plain(20, million).accepted() && !plain(21, million).accepted());
    let both = Compared {
        complements: true,
        ..million
    };
    assert!(plain(19, both).accepted() && !plain(20, both).accepted());
    // Wrong bits that hardly voted: the soft test accepts more of them, but never above a quarter.
    let weak = |errors| {
        let votes = std::array::from_fn(|bit| if bit < errors { 0.01 } else { -1.0 });
        Evidence::new(&votes, Word(0), million)
    };
    assert!(weak(32).accepted() && weak(32).false_positive < 1e-12);
    assert!(!weak(33).accepted());
    // Bits without votes are wrong, whatever the word.
    for word in [Word(0), Word(u128::MAX)] {
        let nothing = Evidence::new(&[0.0; BITS], word, one);
        assert_eq!((nothing.errors, nothing.false_positive), (128, 1.0));
        assert_eq!(
            Evidence::new(&[f64::NAN; BITS], word, one).false_positive,
            1.0
        );
    }
}

/// How many of each number of errors.
struct Histogram([u32; BITS + 1]);

impl Histogram {
    fn new() -> Self {
        Self([0; BITS + 1])
    }

    /// χ² against the binomial distribution, in standard deviations of χ² from its mean; rare
    /// numbers of errors are taken together.
    fn deviation(&self) -> f64 {
        let total: u32 = self.0.iter().sum();
        let (mut chi, mut cells) = (0.0, 0.0);
        let (mut expected, mut counted, mut below) = (0.0, 0.0, 0.0);
        for errors in 0..=BITS {
            let up_to = tail(errors as u32);
            expected += (up_to - below) * f64::from(total);
            counted += f64::from(self.0[errors]);
            below = up_to;
            let left = (1.0 - below) * f64::from(total);
            if expected >= 10.0 && left >= 10.0 || errors == BITS {
                chi += (counted - expected).powi(2) / expected;
                (expected, counted) = (0.0, 0.0);
                cells += 1.0;
            }
        }
        let freedom: f64 = cells - 1.0;
        (chi - freedom) / (2.0 * freedom).sqrt()
    }
}

#[test]
fn random_votes_are_never_accepted_and_follow_the_bounds() {
    const TRIALS: u32 = 210_000;
    let mut random = Seeded::new(3);
    let mut histogram = Histogram::new();
    let (mut least, mut above) = (1.0f64, [0u32; 5]);
    for trial in 0..TRIALS {
        let (signs, word) = (random.word(), random.word());
        // Equal, of all sizes, and a few that outweigh all others.
        let votes = std::array::from_fn(|bit| {
            let size = match trial % 3 {
                0 => 1.0,
                1 => 0.01 + ((bit * 37 + trial as usize) % 101) as f64,
                _ => 1.0 / (1 + (bit * 13 + trial as usize) % 128) as f64,
            };
            if signs.bit(bit) { size } else { -size }
        });
        let evidence = Evidence::new(&votes, word, Compared::with(1));
        assert!(!evidence.accepted());
        histogram.0[evidence.errors as usize] += 1;
        least = least.min(evidence.false_positive);
        let t = statistic(&votes, word);
        for (i, above) in above.iter_mut().enumerate() {
            *above += u32::from(t >= i as f64);
        }
    }
    println!("χ² {:.1} σ, least {least:.1e}", histogram.deviation());
    assert!(histogram.deviation().abs() < 4.0);
    // A false positive of p in no more than p of all trials.
    assert!(least > 0.02 / f64::from(TRIALS));
    for (i, above) in above.into_iter().enumerate() {
        let bound = (-((i * i) as f64) / 2.0).exp();
        let rate = f64::from(above) / f64::from(TRIALS);
        println!("P(T >= {i}) = {rate:.1e}, bound {bound:.1e}");
        assert!(rate <= bound);
    }
}

const WIDTH: usize = 320;
const HEIGHT: usize = 240;

/// A picture that nobody marked: shapes and texture, the same for the same number.
fn picture(kind: usize) -> Vec<u8> {
    let mut random = Seeded::new(kind as u64);
    let sample = |i: usize| {
        let (x, y) = ((i % WIDTH) as f64, (i / WIDTH) as f64);
        match kind {
            0 => 128.0,
            1 => 128.0 + 60.0 * (x / 17.0).sin() * (y / 23.0).cos() + 6.0 * random.normal(),
            2 => (x * 0.4 + y * 0.3).rem_euclid(200.0),
            _ => {
                [30.0, 220.0][usize::from(((x + y * 0.2) / 13.0).sin() > 0.3)]
                    + 9.0 * random.normal()
            }
        }
    };
    (0..WIDTH * HEIGHT).map(sample).map(|s| s as u8).collect()
}

fn settings() -> Settings {
    Settings {
        density: Some(0.4),
        ..Settings::default()
    }
}

fn key(random: &mut Seeded) -> Key {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&random.word().0.to_be_bytes());
    Key::from_bytes(bytes)
}

fn votes(data: &[u8], layout: &Layout) -> Votes {
    read(
        &Luma::new(data, Shape::plane(WIDTH, HEIGHT)).unwrap(),
        layout,
    )
}

/// Of pictures without a mark, and of one with somebody else's, under many keys.
#[test]
fn pictures_without_the_mark_are_coins() {
    let mut random = Seeded::new(4);
    let mut pictures: Vec<_> = (0..4).map(picture).collect();
    let mut marked = picture(1);
    let layout = Layout::new(&key(&mut random), 0, &settings(), WIDTH, HEIGHT);
    let mut luma = LumaMut::new(&mut marked, Shape::plane(WIDTH, HEIGHT)).unwrap();
    embed(&mut luma, &layout, Word(u128::MAX / 3), None);
    pictures.push(marked);
    // Against the registered word; and against the bare code word, which the keyed dithers make as
    // unlikely.
    let mut histograms = [Histogram::new(), Histogram::new()];
    for trial in 0..4000 {
        let key = key(&mut random);
        let identity = random.bits() as u32 % Code::Bch29.identities();
        let layout = Layout::new(&key, 0, &settings(), WIDTH, HEIGHT);
        let votes = votes(&pictures[trial % pictures.len()], &layout);
        let pads = [key.pad(), Word(0)];
        for (histogram, pad) in histograms.iter_mut().zip(pads) {
            let word = Code::Bch29.register(identity, pad).unwrap();
            let evidence = Evidence::new(votes.sums(), word, Compared::with(1));
            assert!(!evidence.accepted());
            histogram.0[evidence.errors as usize] += 1;
        }
    }
    for histogram in histograms {
        println!("χ² {:.1} σ", histogram.deviation());
        assert!(histogram.deviation().abs() < 4.0);
    }
}

/// The best of many registrations by [`Votes::score`], of a picture without a mark.
#[test]
fn choosing_by_score_accuses_nobody() {
    let mut random = Seeded::new(15);
    let pictures: Vec<_> = (0..4).map(picture).collect();
    let mut histogram = Histogram::new();
    for trial in 0..400 {
        let key = key(&mut random);
        let layout = Layout::new(&key, 0, &settings(), WIDTH, HEIGHT);
        let data = &pictures[trial % pictures.len()];
        let shifted = (0..16).map(|shift| {
            votes(
                &[&data[shift * 331..], &data[..shift * 331]].concat(),
                &layout,
            )
        });
        let best = shifted
            .max_by(|a, b| a.score().total_cmp(&b.score()))
            .unwrap();
        let word = Code::Concatenated16.register(77, key.pad()).unwrap();
        let evidence = Evidence::new(best.sums(), word, Compared::with(1));
        assert!(!evidence.accepted());
        // A bit without a vote counts as wrong: not chance, but on the safe side.
        if best.sums().iter().all(|&sum| sum != 0.0) {
            histogram.0[evidence.errors as usize] += 1;
        }
    }
    println!("χ² {:.1} σ", histogram.deviation());
    assert!(histogram.deviation().abs() < 4.0 && histogram.0.iter().sum::<u32>() > 250);
}

/// The nearest of all words is near by chance; that it is one of so many is taken into account.
#[test]
fn the_nearest_word_of_random_votes_is_not_accepted() {
    let mut random = Seeded::new(6);
    for code in [Code::Bch29, Code::Concatenated16] {
        let compared = Compared {
            marks: code.identities().into(),
            complements: true,
        };
        let mut least = BITS as u32;
        for _ in 0..50 {
            let votes = std::array::from_fn(|_| random.normal());
            let read = code.decode(&votes);
            assert!(!Evidence::new(&votes, read.word, compared).accepted());
            least = least.min(read.distance);
        }
        println!(
            "{code:?}: {least} wrong bits, accepted up to {:?}",
            max_errors(compared)
        );
        assert!(least > max_errors(compared).unwrap());
    }
}

#[test]
fn a_marked_picture_is_accepted_among_all_identities() {
    let mut random = Seeded::new(7);
    let key = key(&mut random);
    let layout = Layout::new(&key, 0, &settings(), WIDTH, HEIGHT);
    for code in [Code::Bch29, Code::Concatenated16] {
        let compared = Compared {
            marks: code.identities().into(),
            complements: true,
        };
        let word = code.register(12_345, key.pad()).unwrap();
        let mut data = picture(1);
        let mut luma = LumaMut::new(&mut data, Shape::plane(WIDTH, HEIGHT)).unwrap();
        embed(&mut luma, &layout, word, None);
        let votes = votes(&data, &layout);
        let read = code.decode(&unmask(votes.sums(), key.pad()));
        assert_eq!((read.identity, read.complement), (12_345, false));
        assert!(Evidence::new(votes.sums(), word, compared).accepted());
    }
}
