// SPDX-License-Identifier: MPL-2.0

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const BOTH: [Code; 2] = [Code::Bch29, Code::Concatenated16];

/// Votes for a word without noise.
fn clean(word: Word) -> [f64; BITS] {
    std::array::from_fn(|bit| if word.bit(bit) { 1.0 } else { -1.0 })
}

/// A word's votes after a channel that turns signs with the probability of a normal number being
/// below −1/σ.
fn noisy(word: Word, sigma: f64, random: &mut Seeded) -> [f64; BITS] {
    clean(word).map(|vote| vote + sigma * random.normal())
}

#[test]
fn weights_of_all_words_of_the_small_code() {
    let mut weights = BTreeMap::new();
    for message in 0..1 << 16 {
        *weights
            .entry(concatenated::encode(message).count_ones())
            .or_insert(0) += 1;
    }
    println!("{weights:?}");
    assert_eq!(weights.values().sum::<u32>(), 1 << 16);
    assert_eq!((weights[&0], weights[&BITS.try_into().unwrap()]), (1, 1));
    assert!(
        weights
            .keys()
            .all(|w| matches!(w, 0 | 128) || (52..=76).contains(w))
    );
    assert!(weights.contains_key(&52));
}

#[test]
fn weights_of_a_million_words_of_the_large_code() {
    let mut random = Seeded::new(1);
    for _ in 0..1_000_000 {
        let identity = random.bits() as u32 % Code::Bch29.identities();
        let weight = bch::encode(identity).count_ones();
        assert!(identity == 0 || (44..=84).contains(&weight) && weight.is_multiple_of(4));
    }
}

/// Desaki, Fujiwara and Kasami, "The weight distributions of extended binary primitive BCH codes of
/// length 128", 1997.
#[test]
#[ignore = "counts 2^28 words"]
fn weights_of_all_words_of_the_large_code() {
    let mut weights = [0u32; 129];
    // Gray code: from one identity to the next, one row.
    let mut word = 0;
    weights[0] = 1;
    let rows: [u128; 28] = std::array::from_fn(|i| bch::encode(1 << i));
    for i in 1..Code::Bch29.identities() {
        word ^= rows[i.trailing_zeros() as usize];
        weights[word.count_ones() as usize] += 1;
    }
    let both = |weight: usize| match weight {
        64 => 2 * weights[64],
        _ => weights[weight] + weights[128 - weight],
    };
    let counted = [0, 44, 48, 52, 56, 60, 64].map(both);
    let published = [
        1,
        373_888,
        2_546_096,
        16_044_672,
        56_408_320,
        116_750_592,
        152_623_774,
    ];
    assert_eq!(counted, published);
    assert_eq!(
        published[..6].iter().sum::<u32>() + published[6] / 2,
        1 << 28
    );
}

#[test]
fn identities_that_are_not_there_are_refused() {
    for code in BOTH {
        assert!(code.encode(code.identities() - 1).is_ok());
        assert!(code.encode(code.identities()).is_err());
        assert!(code.encode(u32::MAX).is_err());
    }
}

#[test]
fn no_votes_are_decoded_to_something() {
    for code in BOTH {
        for votes in [[0.0; BITS], [f64::NAN; BITS], [f64::INFINITY; BITS]] {
            assert!(code.decode(&votes).identity < code.identities());
        }
    }
}

proptest! {
    #[test]
    fn clean_words_are_read(identity in 0u32..1 << 28, complement: bool, pad: u128) {
        for code in BOTH {
            let identity = identity % code.identities();
            let registered = code.register(identity, Word(pad)).unwrap();
            let sent = if complement { registered.complement() } else { registered };
            let read = code.decode(&unmask(&clean(sent), Word(pad)));
            prop_assert_eq!((read.identity, read.complement), (identity, complement));
            prop_assert_eq!((read.distance, read.correlation), (0, 1.0));
            prop_assert_eq!(read.word.0 ^ pad, sent.0);
        }
    }

    /// Whatever the reliabilities: here even the wrong bits are the most reliable ones.
    #[test]
    fn up_to_21_wrong_bits_are_corrected(
        identity in 0u32..1 << 28,
        wrong in proptest::collection::btree_set(0usize..BITS, 0..=21),
        reliabilities in proptest::collection::vec(0.01f64..1.0, BITS),
        loud: bool,
    ) {
        let word = Code::Bch29.encode(identity).unwrap();
        let mut votes = clean(word);
        for (bit, vote) in votes.iter_mut().enumerate() {
            *vote *= reliabilities[bit];
            if wrong.contains(&bit) {
                *vote *= if loud { -1000.0 } else { -1.0 };
            }
        }
        let read = Code::Bch29.decode(&votes);
        prop_assert_eq!((read.identity, read.complement), (identity, false));
        prop_assert_eq!(read.distance as usize, wrong.len());
    }

    /// Half the distance, with equal reliabilities.
    #[test]
    fn up_to_25_wrong_bits_are_corrected_by_the_small_code(
        identity in 0u32..1 << 15,
        wrong in proptest::collection::btree_set(0usize..BITS, 0..=25),
    ) {
        let word = Code::Concatenated16.encode(identity).unwrap();
        let mut votes = clean(word);
        wrong.iter().for_each(|&bit| votes[bit] *= -1.0);
        let read = Code::Concatenated16.decode(&votes);
        prop_assert_eq!((read.identity, read.complement), (identity, false));
    }
}

/// Failures, how many of them the likeliest word would have avoided, and the rate of wrong bits.
fn failures(code: Code, sigma: f64, words: u32, seed: u64) -> (u32, u32, f64) {
    let mut random = Seeded::new(seed);
    let (mut failed, mut missed, mut wrong) = (0, 0, 0);
    let start = Instant::now();
    for _ in 0..words {
        let identity = random.bits() as u32 % code.identities();
        let word = code.encode(identity).unwrap();
        let votes = noisy(word, sigma, &mut random);
        let read = code.decode(&votes);
        wrong += word.distance(Word(hard(&votes)));
        if (read.identity, read.complement) != (identity, false) {
            failed += 1;
            // With the true word more likely than the one found, the search was at fault.
            missed += u32::from(correlation(&votes, word) > correlation(&votes, read.word) + 1e-9);
        }
    }
    let ber = f64::from(wrong) / f64::from(words) / BITS as f64;
    println!(
        "{code:?}: BER {:.1} %: {failed} of {words} wrong, {missed} by the search, {:.2} ms each",
        100.0 * ber,
        start.elapsed().as_secs_f64() * 1e3 / f64::from(words),
    );
    (failed, missed, ber)
}

#[test]
fn noise_is_decoded() {
    // σ for hard error rates of 15, 20 and 25 %; at most so many failures of 25.
    let rates = [(0.965, 0.15), (1.188, 0.20), (1.483, 0.25)];
    for (code, most) in [(Code::Bch29, [0, 2, 8]), (Code::Concatenated16, [0, 0, 1])] {
        for ((sigma, rate), most) in rates.into_iter().zip(most) {
            let (failed, missed, ber) = failures(code, sigma, 25, 7);
            assert!((ber - rate).abs() < 0.02);
            assert!(failed <= most && missed == 0);
        }
    }
}

#[test]
#[ignore = "figures: run it with --release --nocapture"]
fn noise_is_decoded_figures() {
    for code in BOTH {
        for sigma in [0.965, 1.188, 1.302, 1.483, 1.715, 2.0] {
            failures(code, sigma, 5_000, 8);
        }
    }
}

#[test]
fn random_search_finds_less() {
    let mut random = Seeded::new(2);
    let code = random_code(|| random.word(), 39, true, Duration::MAX, 3000);
    for (i, word) in code.iter().enumerate() {
        assert!(far_from(*word, &code[..i], 39, true));
        assert!(far_from(word.complement(), &code[..i], 39, false));
    }
    assert!(code.len() > 2000);
    let mut random = Seeded::new(2);
    let again = random_code(|| random.word(), 39, true, Duration::MAX, 3000);
    assert!(again == code);
    let mut random = Seeded::new(2);
    let far = random_code(|| random.word(), 52, false, Duration::MAX, 3000);
    println!("39 bits: {}, 52 bits: {} of 3000", code.len(), far.len());
    assert!(far.len() < code.len());
    assert!(random_code(|| random.word(), 39, false, Duration::ZERO, 1000).len() <= 1);
}
