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
use super::ticket::{LABEL_BITS, labels_per_ciphertext};
use super::{Error, Plaintext};
use crate::watermark::BITS;
use aes::Aes128;
use ctr::cipher::{KeyIvInit as _, StreamCipher as _};
use zeroize::Zeroizing;

type Stream = ctr::Ctr128BE<Aes128>;

/// 127 random bits, of which the lowest says which candidate they open.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Label(u128);

impl Label {
    fn select(self) -> usize {
        (self.0 & 1) as usize
    }

    fn stream(self, frame: u64) -> Stream {
        let key = Zeroizing::new(self.0.to_be_bytes());
        let mut iv = [0; 16];
        iv[..8].copy_from_slice(&frame.to_be_bytes());
        Stream::new((&*key).into(), (&iv).into())
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
/// cloud opens. `randomiser` must have exponents of [`randomiser_bits`].
pub fn make_labels(
    key: &PublicKey,
    ticket: &[Ciphertext],
    randomiser: &Randomiser,
) -> Result<(LabelPairs, Vec<Ciphertext>), Error> {
    if ticket.len() != BITS || randomiser.exponent_bits() < randomiser_bits(key) {
        return Err(Error::SignCount {
            found: ticket.len(),
            expected: BITS,
        });
    }
    let mut random = Zeroizing::new([0u8; BITS * 32]);
    getrandom::fill(&mut *random).map_err(|_| Error::Random)?;
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
        out.push(key.add(&labels, &randomiser.draw()?)?);
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
        for ciphertext in ciphertexts {
            let clear = secret.decrypt(ciphertext)?;
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
        let chosen = self.0.iter().map(|&label| Label(label));
        let mut streams: Vec<(usize, BitStream)> = chosen
            .map(|label| (label.select(), BitStream::new(label.stream(frame))))
            .collect();
        let mut input = BitReader::new(masked);
        let mut values = Vec::with_capacity(bits.len());
        for (&bit, &width) in bits.iter().zip(widths) {
            let (select, stream) = streams.get_mut(usize::from(bit))?;
            let both = [input.take(width)?, input.take(width)?];
            let raw = both[*select] ^ stream.take(width);
            values.push(extend(raw, width));
        }
        input.ended().then_some(values)
    }
}

impl LabelPairs {
    /// Candidates of a frame's coefficients: of each, `values[i]` for a 0 and
    /// `values[i] + deltas[i]` for a 1, masked in `widths[i]` bits (1 to 16).
    pub fn mask(
        &self,
        frame: u64,
        bits: &[u8],
        widths: &[u8],
        values: &[i16],
        deltas: &[i16],
    ) -> Vec<u8> {
        // By select bit: the value that it stands for, and the label's stream.
        let mut streams: Vec<[(i16, BitStream); 2]> = self
            .0
            .iter()
            .map(|&[zero, one]| {
                let (zero, one) = (Label(zero), Label(one));
                let zero_is = zero.select() as i16;
                let by_select = match zero.select() {
                    0 => [zero, one],
                    _ => [one, zero],
                };
                let [a, b] = by_select.map(|label| BitStream::new(label.stream(frame)));
                [(zero_is, a), (1 - zero_is, b)]
            })
            .collect();
        let mut out = BitWriter::default();
        for (i, &bit) in bits.iter().enumerate() {
            let (width, value, delta) = (widths[i], values[i], deltas[i]);
            for (chosen, stream) in &mut streams[usize::from(bit)] {
                let candidate = value.wrapping_add(delta.wrapping_mul(*chosen));
                out.put(clip(candidate, width) ^ stream.take(width), width);
            }
        }
        out.end()
    }
}

/// The lowest bits of a value.
fn clip(value: i16, width: u8) -> u32 {
    u32::from(value as u16) & ((1 << width) - 1)
}

/// The signed value of so many bits.
fn extend(raw: u32, width: u8) -> i16 {
    let shift = 32 - u32::from(width);
    ((raw << shift) as i32 >> shift) as i16
}

/// Bits from a key stream.
struct BitStream {
    cipher: Stream,
    buffer: Zeroizing<[u8; 128]>,
    next: usize,
    bits: u64,
    count: u8,
}

impl BitStream {
    fn new(cipher: Stream) -> Self {
        Self {
            cipher,
            buffer: Zeroizing::new([0; 128]),
            next: 128,
            bits: 0,
            count: 0,
        }
    }

    #[inline]
    fn take(&mut self, width: u8) -> u32 {
        if self.count < width {
            if self.next == self.buffer.len() {
                self.buffer.fill(0);
                self.cipher.apply_keystream(&mut *self.buffer);
                self.next = 0;
            }
            let mut word = [0; 4];
            word.copy_from_slice(&self.buffer[self.next..self.next + 4]);
            self.next += 4;
            self.bits |= u64::from(u32::from_le_bytes(word)) << self.count;
            self.count += 32;
        }
        let taken = self.bits as u32 & ((1 << width) - 1);
        self.bits >>= width;
        self.count -= width;
        taken
    }
}

/// Writes bits, the first into the lowest bit of the first byte.
#[derive(Default)]
struct BitWriter {
    out: Vec<u8>,
    bits: u64,
    count: u8,
}

impl BitWriter {
    #[inline]
    fn put(&mut self, value: u32, width: u8) {
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
        let bytes = usize::from(self.count.div_ceil(8));
        self.out
            .extend_from_slice(&self.bits.to_le_bytes()[..bytes]);
        self.out
    }
}

/// Reads what [`BitWriter`] wrote.
struct BitReader<'a> {
    input: &'a [u8],
    bits: u64,
    count: u8,
}

impl<'a> BitReader<'a> {
    fn new(input: &'a [u8]) -> Self {
        Self {
            input,
            bits: 0,
            count: 0,
        }
    }

    #[inline]
    fn take(&mut self, width: u8) -> Option<u32> {
        while self.count < width {
            let (&byte, rest) = self.input.split_first()?;
            self.bits |= u64::from(byte) << self.count;
            self.count += 8;
            self.input = rest;
        }
        let taken = self.bits as u32 & ((1 << width) - 1);
        self.bits >>= width;
        self.count -= width;
        Some(taken)
    }

    fn ended(&self) -> bool {
        self.input.is_empty() && self.count < 8
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

    #[test]
    fn the_cloud_gets_the_label_of_each_bit_and_its_candidates_and_no_other() {
        let (secret, ttp, owner) = keys();
        for word in [0, u128::MAX, 0x0123_4567_89ab_cdef_0f1e_2d3c_4b5a_6978].map(Word) {
            let ticket = ticket::for_labels(&ttp, word).unwrap();
            let (pairs, sent) = make_labels(secret.public(), &ticket, &owner).unwrap();
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
            let (pairs, sent) = make_labels(secret.public(), &ticket, &owner).unwrap();
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
                let (_, labels) = make_labels(key, &ticket, &owner).unwrap();
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
