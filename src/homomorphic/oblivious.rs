// SPDX-License-Identifier: MPL-2.0
//! Labels: for each bit of the watermark the owner has two, the cloud gets the one of the bit's
//! value, and neither learns the other's secret.
//!
//! The owner draws K_0 and K_1 of 127 bits and computes, from t = E(w) and under fresh randomness,
//! E(K_0 + w·(K_1 − K_0)) = E(K_w) ([`make_labels`]); the cloud decrypts K_w ([`Labels::open`]).
//! It learns w no more than from a ciphertext that is decrypted to a random number: K_0 and K_1 are
//! drawn alike, but for their lowest bit, the *select* bit, in which they differ and which one of
//! the two has it is a fair coin. A coefficient travels as two candidates of equal length, the one
//! for select 0 before the one for select 1, each under AES-128-CTR with its label as the key
//! ([`Labels::mask`]); the cloud opens the one of its select bit. Unmarked coefficients have two
//! equal candidates.
//!
//! A label masks candidates of one segment: the counter is frame number and place, so no key stream
//! is used twice.

use super::packed::TICKET_EXPONENT_BITS;
use super::packed::{Ciphertext, PublicKey, Randomiser, SecretKey, invert_all, rerandomise_bits};
use super::random::Random;
use super::ticket::{LABEL_BITS, labels_per_ciphertext};
use super::{Error, Plaintext};
use crate::watermark::BITS;
use aes::Aes128;
use ctr::cipher::{KeyIvInit as _, StreamCipher as _, StreamCipherSeek as _};
use rand_core::TryRng as _;
use zeroize::Zeroizing;

type Stream = ctr::Ctr128BE<Aes128>;

/// 127 random bits, of which the lowest says which candidate they open.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Label(u128);

impl Label {
    fn select(self) -> usize {
        (self.0 & 1) as usize
    }

    fn cipher(self, frame: u64) -> Stream {
        let key = Zeroizing::new(self.0.to_be_bytes());
        let mut iv = [0; 16];
        iv[..8].copy_from_slice(&frame.to_be_bytes());
        Stream::new((&*key).into(), (&iv).into())
    }

    /// The first bytes of a frame's key stream, into zeros.
    fn stream(self, frame: u64, zeros: &mut [u8]) {
        self.cipher(frame).apply_keystream(zeros);
    }

    /// `width` bits, at most 16, of a frame's key stream, from bit number `at` on.
    fn bits(self, frame: u64, at: u32, width: u8) -> u32 {
        let mut cipher = self.cipher(frame);
        let mut bytes = [0; 4];
        cipher.seek(at / 8);
        cipher.apply_keystream(&mut bytes);
        clip(u32::from_le_bytes(bytes) >> (at % 8), width)
    }
}

/// The owner's labels: two a bit, by value.
pub struct LabelPairs(Zeroizing<Vec<[u128; 2]>>);

/// The cloud's labels: one a bit.
pub struct Labels(Zeroizing<Vec<u128>>);

/// Bits of exponents of the owner's randomiser: those of tickets, times a number of 128 bits, for
/// each label of a ciphertext, and the power 2^127 of their product.
pub fn randomiser_bits(key: &PublicKey) -> u32 {
    let labels = labels_per_ciphertext(key.modulus_bits()) as u32;
    // Twice as many: the constant part has exponents of the same length.
    rerandomise_bits(key, TICKET_EXPONENT_BITS, 128, 2 * labels)
}

/// Draws labels for a segment and turns a ticket ([`super::ticket::for_labels`]) into what the
/// cloud opens. `randomiser` must have exponents of [`randomiser_bits`]. All that is drawn comes from
/// `seed`, a fresh one for each segment: who is shown it can make the same again.
pub fn make_labels(
    key: &PublicKey,
    ticket: &[Ciphertext],
    randomiser: &Randomiser,
    seed: &[u8; 32],
) -> Result<(LabelPairs, Vec<Ciphertext>), Error> {
    if ticket.len() != BITS || randomiser.exponent_bits() < randomiser_bits(key) {
        return Err(Error::SignCount {
            found: ticket.len(),
            expected: BITS,
        });
    }
    let mut generator = Random::from_seed(seed);
    let mut random = Zeroizing::new([0u8; BITS * 32]);
    let Ok(()) = generator.try_fill_bytes(&mut *random);
    let pair = |bytes: &[u8]| {
        let mut halves = [0u128; 2];
        for (half, bytes) in halves.iter_mut().zip(bytes.chunks_exact(16)) {
            let drawn = bytes.iter().fold(0u128, |acc, &b| acc << 8 | u128::from(b));
            *half = drawn >> 1;
        }
        // The select bit of the second is the other one.
        halves[1] = halves[1] & !1 | (halves[0] & 1 ^ 1);
        halves
    };
    let pairs: Zeroizing<Vec<[u128; 2]>> =
        Zeroizing::new(random.chunks_exact(32).map(pair).collect());
    let each = labels_per_ciphertext(key.modulus_bits());
    let mut out = Vec::with_capacity(BITS.div_ceil(each));
    for (pairs, ticket) in pairs.chunks(each).zip(ticket.chunks(each)) {
        // K_1 − K_0 + 2^127 is positive; what is too much comes off again with the product of all.
        let exponents: Zeroizing<Vec<u128>> = Zeroizing::new(
            pairs
                .iter()
                .map(|[zero, one]| (one + (1 << LABEL_BITS)) - zero)
                .collect(),
        );
        let powers = key.product_of_powers(ticket, &exponents)?;
        let (first, rest) = ticket.split_first().ok_or(Error::CiphertextValue)?;
        let product = rest
            .iter()
            .try_fold(first.clone(), |product, t| key.add(&product, t))?;
        let excess = key.shift(&product, LABEL_BITS)?;
        let less = invert_all(key, &[excess])?;
        let labels = key.add(&powers, &less[0])?;
        let labels = key.add_plain(&labels, &pack(pairs.iter().map(|[zero, _]| *zero)))?;
        out.push(key.add(&labels, &randomiser.draw_from(&mut generator))?);
    }
    Ok((LabelPairs(pairs), out))
}

/// Σ label_i·2^(127·i).
fn pack(labels: impl ExactSizeIterator<Item = u128>) -> Plaintext {
    let mut words = vec![0u64; labels.len() * LABEL_BITS as usize / 64 + 3];
    for (i, label) in labels.enumerate() {
        let (word, bit) = (i * LABEL_BITS as usize / 64, i * LABEL_BITS as usize % 64);
        words[word] |= (label << bit) as u64;
        words[word + 1] |= (label << bit >> 64) as u64;
        // In two steps: a shift by 128 is none.
        words[word + 2] |= ((label >> (127 - bit)) >> 1) as u64;
    }
    Plaintext::from_words(words)
}

/// Ciphertexts that carry the labels of a segment.
pub fn label_ciphertexts(modulus_bits: u32) -> usize {
    BITS.div_ceil(labels_per_ciphertext(modulus_bits))
}

impl Labels {
    /// Opens what [`make_labels`] made. What an owner puts in, the labels come out as: anything,
    /// if it lied; nothing of them is to be told to it.
    pub fn open(secret: &SecretKey, ciphertexts: &[Ciphertext]) -> Result<Self, Error> {
        let bits = secret.public().modulus_bits();
        let (each, expected) = (labels_per_ciphertext(bits), label_ciphertexts(bits));
        if ciphertexts.len() != expected {
            return Err(Error::SignCount {
                found: ciphertexts.len(),
                expected,
            });
        }
        let mut labels = Zeroizing::new(Vec::with_capacity(expected * each));
        for clear in secret.decrypt_many(ciphertexts)? {
            let words = clear.words();
            let word = |i: usize| u128::from(words.get(i).copied().unwrap_or(0));
            for i in 0..each {
                let bit = i * LABEL_BITS as usize;
                let (at, bit) = (bit / 64, bit % 64);
                let low = (word(at) | word(at + 1) << 64) >> bit;
                let label = low | (word(at + 2) << (127 - bit)) << 1;
                labels.push(label & ((1 << LABEL_BITS) - 1));
            }
        }
        labels.truncate(BITS);
        Ok(Self(labels))
    }

    /// The values of a frame's coefficients, of which each has a place in `bits` (its bit, below
    /// 128) and in `widths` (1 to 16). `None` if `masked` is of another length.
    pub fn unmask(
        &self,
        frame: u64,
        bits: &[u8],
        widths: &[u8],
        masked: &[u8],
    ) -> Option<Vec<i16>> {
        let count = bits.len().min(widths.len());
        let (bits, widths) = (&bits[..count], &widths[..count]);
        let mut cursors = Cursors::new(bits, widths)?;
        if masked.len() != cursors.masked() {
            return None;
        }
        let labels: Vec<Label> = self.0.iter().map(|&label| Label(label)).collect();
        let streams = cursors.streams(labels.iter().copied(), frame);
        let selects: Vec<u32> = labels.iter().map(|label| label.0 as u32 & 1).collect();
        let selects: &[u32; BITS] = selects.as_slice().try_into().ok()?;
        let mut input = BitReader::new(masked);
        let mut values = Vec::with_capacity(count);
        values.extend(bits.iter().zip(widths).map(|(&bit, &width)| {
            let bit = usize::from(bit) % BITS;
            let mask = streams.take(cursors.next(bit, width));
            let both = input.take(2 * u32::from(width));
            let chosen = both >> (selects[bit] * u32::from(width));
            extend(chosen ^ mask, width)
        }));
        Some(values)
    }
}

impl LabelPairs {
    /// Candidates of a frame's coefficients: of each, `values[i]` for a 0 and
    /// `values[i] + deltas[i]` for a 1, masked in `widths[i]` bits (1 to 16).
    ///
    /// # Panics
    /// If a bit is not below 128 or a width not from 1 to 16.
    pub fn mask(
        &self,
        frame: u64,
        bits: &[u8],
        widths: &[u8],
        values: &[i16],
        deltas: &[i16],
    ) -> Vec<u8> {
        let count = bits.len().min(widths.len());
        let (bits, widths) = (&bits[..count], &widths[..count]);
        let Some(mut cursors) = Cursors::new(bits, widths) else {
            panic!("bits below 128 and widths from 1 to 16");
        };
        // By select bit.
        let by_select = |select: usize| {
            let order = move |pair: &[u128; 2]| Label(pair[select ^ Label(pair[0]).select()]);
            self.0.iter().map(order)
        };
        let streams = [0, 1].map(|select| cursors.streams(by_select(select), frame));
        // The value that select 0 stands for, as a mask: all ones for a 1.
        let mut zero_is = [0i16; BITS];
        for (zero_is, pair) in zero_is.iter_mut().zip(&*self.0) {
            *zero_is = -((pair[0] & 1) as i16);
        }
        let mut out = BitWriter::new(cursors.masked());
        for (((&bit, &width), &value), &delta) in bits.iter().zip(widths).zip(values).zip(deltas) {
            let bit = usize::from(bit) % BITS;
            let at = cursors.next(bit, width);
            let first = value.wrapping_add(delta & zero_is[bit]);
            let second = value.wrapping_add(delta & !zero_is[bit]);
            let first = clip(first as u32 ^ streams[0].take(at), width);
            let second = clip(second as u32 ^ streams[1].take(at), width);
            out.put(first | second << width, 2 * u32::from(width));
        }
        out.end()
    }
}

/// One masked candidate, as [`LabelPairs::mask`] has it.
#[derive(Clone, Copy, Debug)]
pub struct Masked {
    /// The bit that it would carry, below 128.
    pub bit: u8,
    /// Bits of its value, from 1 to 16.
    pub width: u8,
    /// Bits of its label's key stream that the frame's candidates before it have taken.
    pub taken: u32,
    /// Both, the one for select 0 in the lower bits.
    pub both: u32,
}

impl LabelPairs {
    /// Takes the masks off a candidate: its values for a 0 and for a 1. `None` if its bit or width
    /// is none.
    pub fn unmask(&self, frame: u64, masked: &Masked) -> Option<[i16; 2]> {
        let pair = self.0.get(usize::from(masked.bit))?;
        if !(1..=16).contains(&masked.width) {
            return None;
        }
        Some(pair.map(|label| {
            let label = Label(label);
            let mask = label.bits(frame, masked.taken, masked.width);
            let own = masked.both >> (label.select() as u32 * u32::from(masked.width));
            extend(own ^ mask, masked.width)
        }))
    }
}

/// The lowest bits of a number.
#[inline(always)]
fn clip(value: u32, width: u8) -> u32 {
    value & ((1 << width) - 1)
}

/// The signed value of the lowest bits.
#[inline(always)]
fn extend(raw: u32, width: u8) -> i16 {
    let shift = 32 - u32::from(width);
    ((raw << shift) as i32 >> shift) as i16
}

/// Where each label's key stream stands, in bits from the start of all of them: one behind the
/// other, each as long as the frame's candidates of its bit need it.
struct Cursors {
    at: [u32; BITS],
    /// First byte of each stream, and the end of the last.
    starts: [usize; BITS + 1],
    /// Bits of all candidates, of one of the two.
    total: usize,
}

impl Cursors {
    /// `None` if a bit is none of 128 or a width not from 1 to 16, or if it is all too much.
    fn new(bits: &[u8], widths: &[u8]) -> Option<Self> {
        let mut lengths = [0usize; 256];
        let mut fine = true;
        for (&bit, &width) in bits.iter().zip(widths) {
            lengths[usize::from(bit)] += usize::from(width);
            fine &= (1..=16).contains(&width);
        }
        fine &= lengths[BITS..].iter().all(|&length| length == 0);
        let (mut at, mut starts) = ([0; BITS], [0; BITS + 1]);
        for (i, length) in lengths[..BITS].iter().enumerate() {
            at[i] = u32::try_from(8 * starts[i]).ok()?;
            starts[i + 1] = starts[i] + length.div_ceil(8);
        }
        u32::try_from(8 * starts[BITS]).ok()?;
        let total = lengths[..BITS].iter().sum();
        fine.then_some(Self { at, starts, total })
    }

    /// Bytes of a frame's masked candidates.
    fn masked(&self) -> usize {
        (2 * self.total).div_ceil(8)
    }

    #[inline(always)]
    fn next(&mut self, bit: usize, width: u8) -> u32 {
        let at = self.at[bit];
        self.at[bit] += u32::from(width);
        at
    }

    /// The key streams of 128 labels.
    fn streams(&self, labels: impl Iterator<Item = Label>, frame: u64) -> Streams {
        // Some more, so that a number is read at once wherever it lies.
        let mut bytes = Zeroizing::new(vec![0; self.starts[BITS] + 4]);
        for (label, ends) in labels.zip(self.starts.windows(2)) {
            if let Some(zeros) = bytes.get_mut(ends[0]..ends[1]) {
                label.stream(frame, zeros);
            }
        }
        Streams(bytes)
    }
}

/// Key streams, one behind the other.
struct Streams(Zeroizing<Vec<u8>>);

impl Streams {
    /// 24 bits and more from a bit on.
    #[inline(always)]
    fn take(&self, at: u32) -> u32 {
        let bytes = self.0.get(at as usize / 8..).and_then(|b| b.first_chunk());
        u32::from_le_bytes(*bytes.unwrap_or(&[0; 4])) >> (at % 8)
    }
}

/// Writes bits, the first into the lowest bit of the first byte.
struct BitWriter {
    out: Vec<u8>,
    bits: u64,
    count: u32,
}

impl BitWriter {
    fn new(bytes: usize) -> Self {
        Self {
            out: Vec::with_capacity(bytes + 8),
            bits: 0,
            count: 0,
        }
    }

    /// At most 32, and none above them.
    #[inline(always)]
    fn put(&mut self, value: u32, width: u32) {
        self.bits |= u64::from(value) << self.count;
        self.count += width;
        if self.count >= 32 {
            self.out
                .extend_from_slice(&(self.bits as u32).to_le_bytes());
            self.bits >>= 32;
            self.count -= 32;
        }
    }

    fn end(mut self) -> Vec<u8> {
        let bytes = self.count.div_ceil(8) as usize;
        self.out
            .extend_from_slice(&self.bits.to_le_bytes()[..bytes]);
        self.out
    }
}

/// Reads what [`BitWriter`] wrote; zeros after its end.
struct BitReader<'a> {
    input: &'a [u8],
    bits: u64,
    count: u32,
}

impl<'a> BitReader<'a> {
    fn new(input: &'a [u8]) -> Self {
        Self {
            input,
            bits: 0,
            count: 0,
        }
    }

    /// At most 32, and whatever follows above them.
    #[inline(always)]
    fn take(&mut self, width: u32) -> u32 {
        if self.count < width {
            let word = match self.input.split_first_chunk() {
                Some((word, rest)) => {
                    self.input = rest;
                    *word
                }
                None => {
                    let mut word = [0; 4];
                    word[..self.input.len()].copy_from_slice(self.input);
                    self.input = &[];
                    word
                }
            };
            self.bits |= u64::from(u32::from_le_bytes(word)) << self.count;
            self.count += 32;
        }
        let taken = self.bits as u32;
        self.bits >>= width;
        self.count -= width;
        taken
    }
}

/// Say nothing of the labels.
impl std::fmt::Debug for LabelPairs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LabelPairs(…)")
    }
}

impl std::fmt::Debug for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Labels(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::super::packed::{Base, Encryptor};
    use super::super::ticket;
    use super::*;
    use crate::watermark::Word;

    fn keys() -> (SecretKey, Encryptor, Randomiser) {
        let secret = SecretKey::generate(2048).unwrap();
        let key = secret.public().clone();
        let base = Base::derive(&key, &[3; 32], b"test");
        let tickets = Randomiser::new(&key, &base, TICKET_EXPONENT_BITS).unwrap();
        let owner = Randomiser::new(&key, &base, randomiser_bits(&key)).unwrap();
        (secret, Encryptor::new(tickets), owner)
    }

    fn fresh() -> [u8; 32] {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).unwrap();
        seed
    }

    #[test]
    fn the_cloud_gets_the_label_of_each_bit_and_its_candidates_and_no_other() {
        let (secret, ttp, owner) = keys();
        for word in [0, u128::MAX, 0x0123_4567_89ab_cdef_0f1e_2d3c_4b5a_6978].map(Word) {
            let ticket = ticket::for_labels(&ttp, word).unwrap();
            let (pairs, sent) = make_labels(secret.public(), &ticket, &owner, &fresh()).unwrap();
            assert_eq!(sent.len(), label_ciphertexts(2048));
            let labels = Labels::open(&secret, &sent).unwrap();
            for bit in 0..BITS {
                let value = usize::from(word.bit(bit));
                assert_eq!(labels.0[bit], pairs.0[bit][value], "bit {bit}");
                assert_ne!(labels.0[bit] & 1, pairs.0[bit][1 - value] & 1);
            }
            let count = 1000;
            let bits: Vec<u8> = (0..count).map(|i| (i * 37 % 128) as u8).collect();
            let widths: Vec<u8> = (0..count).map(|i| 8 + (i % 9) as u8).collect();
            let values: Vec<i16> = (0..count).map(|i| (i * 7919 % 70) as i16 - 60).collect();
            let deltas: Vec<i16> = (0..count).map(|i| [0, 50, -50][i % 3]).collect();
            let masked = pairs.mask(5, &bits, &widths, &values, &deltas);
            let read = labels.unmask(5, &bits, &widths, &masked).unwrap();
            for i in 0..count {
                let bit = word.bit(usize::from(bits[i]));
                assert_eq!(read[i], values[i] + deltas[i] * i16::from(bit), "{i}");
            }
            let mut input = BitReader::new(&masked);
            let mut taken = [0; BITS];
            for i in 0..count {
                let bit = usize::from(bits[i]);
                let one = Masked {
                    bit: bits[i],
                    width: widths[i],
                    taken: taken[bit],
                    both: input.take(2 * u32::from(widths[i])),
                };
                taken[bit] += u32::from(widths[i]);
                let both = [values[i], values[i] + deltas[i]];
                assert_eq!(pairs.unmask(5, &one), Some(both), "{i}");
            }
            assert_ne!(labels.unmask(6, &bits, &widths, &masked).unwrap(), read);
            assert!(labels.unmask(5, &bits, &widths, &masked[1..]).is_none());
            assert!(labels.unmask(5, &[200], &[8], &[0; 2]).is_none());
        }
    }

    /// Σ (seen − expected)² / expected.
    fn chi_square(counts: &[f64]) -> f64 {
        let expected = counts.iter().sum::<f64>() / counts.len() as f64;
        let part = |count: &f64| (count - expected).powi(2) / expected;
        counts.iter().map(part).sum()
    }

    /// Of the candidate that is not opened the cloud sees noise, marked or not; and which of the two
    /// it opens is a fair coin, whatever the bit.
    #[test]
    fn select_bits_and_candidates_that_are_not_opened_are_noise() {
        let (secret, ttp, owner) = keys();
        let word = Word(0x0123_4567_89ab_cdef_0f1e_2d3c_4b5a_6978);
        let ticket = ticket::for_labels(&ttp, word).unwrap();
        // Select bits of the opened label, by the bit's value.
        let mut selects = [[0.0f64; 2]; 2];
        // Bytes of what is not opened, of unmarked and marked ones.
        let mut hidden = [[0.0; 256]; 2];
        for segment in 0..6 {
            let (pairs, sent) = make_labels(secret.public(), &ticket, &owner, &fresh()).unwrap();
            let labels = Labels::open(&secret, &sent).unwrap();
            for (bit, label) in labels.0.iter().enumerate() {
                selects[usize::from(word.bit(bit))][Label(*label).select()] += 1.0;
            }
            let count = 8000;
            let bits: Vec<u8> = (0..count).map(|i| (i * 37 % 128) as u8).collect();
            let widths = vec![8; count];
            // The same few values over and over.
            let values: Vec<i16> = (0..count).map(|i| (i % 3) as i16).collect();
            let deltas: Vec<i16> = (0..count).map(|i| [0, 50][i / 128 % 2]).collect();
            let masked = pairs.mask(segment, &bits, &widths, &values, &deltas);
            for i in 0..count {
                let open = Label(labels.0[usize::from(bits[i])]).select();
                let byte = masked[2 * i + 1 - open];
                hidden[i / 128 % 2][usize::from(byte)] += 1.0;
            }
        }
        for of_value in selects {
            let [zero, one] = of_value;
            assert!(
                (zero - one).abs() < 4.0 * f64::sqrt(zero + one),
                "{selects:?}"
            );
        }
        for counts in hidden {
            // 255 degrees of freedom: 4.5 standard deviations.
            let chi = chi_square(&counts);
            assert!((153.0..357.0).contains(&chi), "{chi}");
        }
        let differ = hidden[0].iter().zip(&hidden[1]);
        let differ: f64 = differ.map(|(a, b)| (a - b).powi(2) / (a + b)).sum();
        assert!((153.0..357.0).contains(&differ), "{differ}");
    }

    fn jacobi(mut a: num_bigint::BigUint, mut n: num_bigint::BigUint) -> i32 {
        use num_bigint::BigUint;
        let small = |x: &BigUint, m: u32| (x % m).to_u32_digits().first().copied().unwrap_or(0);
        let mut sign = 1;
        a %= &n;
        while a.bits() > 0 {
            let twos = a.trailing_zeros().unwrap_or(0);
            a >>= twos;
            if twos % 2 == 1 && [3, 5].contains(&small(&n, 8)) {
                sign = -sign;
            }
            std::mem::swap(&mut a, &mut n);
            if small(&a, 4) == 3 && small(&n, 4) == 3 {
                sign = -sign;
            }
            a %= &n;
        }
        sign
    }

    /// What simple statistics tell an owner of a ticket's bits, before and after it made labels of
    /// them: nothing.
    #[test]
    fn tickets_of_two_words_look_the_same() {
        use num_bigint::BigUint;
        let (secret, ttp, owner) = keys();
        let key = secret.public();
        let n = BigUint::from_bytes_be(&key.modulus());
        let mut low = [[0.0; 16]; 2];
        for (which, word) in [Word(0), Word(u128::MAX)].into_iter().enumerate() {
            for _ in 0..4 {
                let ticket = ticket::for_labels(&ttp, word).unwrap();
                let (_, labels) = make_labels(key, &ticket, &owner, &fresh()).unwrap();
                for ciphertext in ticket.iter().chain(&labels) {
                    let bytes = key.to_bytes(ciphertext);
                    low[which][usize::from(bytes[bytes.len() - 1] & 15)] += 1.0;
                    // The base is −x² to the n, and n a Blum number: always 1.
                    let value = BigUint::from_bytes_be(&bytes);
                    assert_eq!(jacobi(value, n.clone()), 1);
                }
            }
            // 15 degrees of freedom, one in 100,000.
            let chi = chi_square(&low[which]);
            assert!(chi < 50.0, "{chi}");
        }
        let differ = low[0].iter().zip(&low[1]);
        let differ: f64 = differ.map(|(a, b)| (a - b).powi(2) / (a + b)).sum();
        assert!(differ < 50.0, "{differ}");
    }
}
