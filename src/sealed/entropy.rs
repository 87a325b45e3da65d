// SPDX-License-Identifier: MPL-2.0
//! Small numbers to bytes: interleaved range asymmetric numeral systems (Duda 2013, "rANS") with
//! static tables, one a context.
//!
//! Numbers come in vectors of sixteen, entry i belongs to state i of a chain. Where there are many
//! vectors, two chains of sixteen states take turns: a vector waits for what the one before it in
//! its chain left, and a processor can work on both meanwhile. A number below 16 is a token of
//! its own, a larger one a token of its size, followed by raw bits. Which of a family of tables a
//! context uses is one byte: they are built from integers alone, and few numbers need no more.

use super::transform::LANES;
use super::{Error, simd};
use std::sync::LazyLock;

/// Contexts there can be.
pub(super) const CONTEXTS: usize = 64;
/// The context of numbers that are 0 and that the reader knows to be: they take no room.
pub(super) const HOLE: u8 = CONTEXTS as u8 - 1;

/// Contexts that have tables.
const CHOICES: usize = CONTEXTS - 1;

/// Numbers below it are tokens of their own.
const DIRECT: u16 = 16;
/// Tokens: those, and one for each number of bits from 5 to 16.
const TOKENS: usize = 28;
/// Entries of a context's tables.
const STRIDE: usize = 32;
/// Bits of a probability.
const BITS: u32 = 11;
const SLOTS: usize = 1 << BITS;
/// Tokens of all contexts.
const ALL: usize = CONTEXTS * STRIDE;
/// Reciprocals are times 2 to this power.
const SHIFT: u32 = 43;
/// Least state; words are 16 bits.
const LEAST: u32 = 1 << 16;

/// The states of a chain.
pub(super) type States = [u32; LANES];
/// Vectors from which on there are two chains: the second one's states take 64 bytes.
const MANY: usize = 1024;

/// No number in this entry of a vector.
const NOTHING: u16 = u16::MAX;
/// In place of a table's number: the context is not used.
const UNUSED: u8 = u8::MAX;

/// Sixteen numbers.
pub(super) type Vector = [u16; LANES];
/// Their contexts.
pub(super) type Contexts = [u8; LANES];

/// 0, −1, 1, −2 … as 0, 1, 2, 3 …
#[inline(always)]
pub(super) fn fold(value: i16) -> u16 {
    ((value << 1) ^ (value >> 15)) as u16
}

/// The inverse of [`fold`].
#[inline(always)]
pub(super) fn unfold(number: u16) -> i16 {
    ((number >> 1) ^ (number & 1).wrapping_neg()) as i16
}

type Table = [u16; STRIDE];

/// Frequencies of tokens: two-sided geometric and normal distributions, and half of each; then those
/// of numbers that are 0 or 1.
static PRESETS: LazyLock<Vec<Table>> = LazyLock::new(presets);

fn presets() -> Vec<Table> {
    const ONE: u64 = 1 << 32;
    let mut all = Vec::new();
    for shape in 0..3u64 {
        // Mean of the geometric one, times 2^16: from 1/64 on.
        let mut mean: u64 = 1 << 10;
        while mean < 600 << 16 {
            let ratio = (mean << 32) / (mean + (1 << 16));
            // A normal distribution of about the same mean: q^(i²) with q = 3m²/(3m² + 1).
            let square = (3 * mean * mean) >> 16;
            let normal = (square << 32) / (square + (1 << 16));
            let weights = |mut step: u64, growth: u64| {
                let mut weights = [0u64; STRIDE];
                let mut weight = ONE;
                for i in 0..=8192u16 {
                    for number in [(2 * i).wrapping_sub(1), 2 * i] {
                        if number < u16::MAX {
                            weights[token(number).0] += weight;
                        }
                    }
                    weight = (weight * step) >> 32;
                    step = (step * growth) >> 32;
                }
                weights
            };
            let geometric = weights(ratio, ONE);
            let bell = weights(normal, ((normal * normal) >> 32).min(ONE));
            let sums = [geometric, bell].map(|w| w.iter().sum::<u64>());
            let mixed = std::array::from_fn(|token| {
                let share = |which: usize| {
                    let weights = [&geometric, &bell][which];
                    (u128::from(weights[token]) << 40) / u128::from(sums[which])
                };
                // Some of the geometric one always: tails are never as light as the normal's.
                ((share(0) * [8, 4, 1][shape as usize] + share(1) * [0, 4, 7][shape as usize]) / 8)
                    as u64
            });
            all.push(normalise(&mixed));
            // A third more each time.
            mean += mean / 3;
        }
    }
    // Yes or no.
    for yes in [1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 60, 62, 63] {
        let mut weights = [0; STRIDE];
        (weights[0], weights[1]) = (64 - yes, yes);
        all.push(normalise(&weights));
    }
    assert!(all.len() < 255);
    all
}

/// Frequencies that sum to [`SLOTS`], none of them zero.
fn normalise(weights: &[u64; STRIDE]) -> Table {
    let sum: u64 = weights.iter().sum::<u64>().max(1);
    let free = (SLOTS - TOKENS) as u128;
    let mut table = [0u16; STRIDE];
    for (entry, &weight) in table.iter_mut().zip(weights).take(TOKENS) {
        *entry = 1 + (u128::from(weight) * free / u128::from(sum)) as u16;
    }
    let missing = SLOTS as u16 - table.iter().sum::<u16>();
    let most = (0..TOKENS).max_by_key(|&i| table[i]).unwrap_or(0);
    table[most] += missing;
    table
}

/// Token of a number and how many raw bits follow.
#[inline(always)]
fn token(number: u16) -> (usize, u32) {
    match number < DIRECT {
        true => (number.into(), 0),
        false => {
            let bits = 15 - number.leading_zeros();
            (bits as usize + 12, bits)
        }
    }
}

/// −log2(frequency/SLOTS) in 1/256 of a bit.
fn cost(frequency: u16) -> u64 {
    // log2 by squaring: no floating point, so that the choice is the same everywhere.
    let frequency = u64::from(frequency.max(1));
    let whole = frequency.ilog2();
    let mut x = (frequency << 31) >> whole;
    let mut log = u64::from(whole);
    for _ in 0..8 {
        x = (x * x) >> 31;
        log <<= 1;
        if x >= 1 << 32 {
            x >>= 1;
            log |= 1;
        }
    }
    (u64::from(BITS) << 8) - log
}

static COSTS: LazyLock<Vec<[u64; STRIDE]>> =
    LazyLock::new(|| PRESETS.iter().map(|table| table.map(cost)).collect());

/// Collects numbers, then writes them.
#[derive(Default)]
pub(super) struct Encoder {
    symbols: Vec<u16>,
    raw: Vec<u8>,
    held: u64,
    holds: u32,
    words: Vec<u16>,
}

impl Encoder {
    /// Forgets everything but its memory.
    pub(super) fn clear(&mut self) {
        self.symbols.clear();
        self.raw.clear();
        self.words.clear();
        (self.held, self.holds) = (0, 0);
    }

    /// The first `count` numbers of a vector.
    #[inline(always)]
    pub(super) fn vector(&mut self, contexts: &Contexts, numbers: &Vector, count: usize) {
        let mut symbols = [0; LANES];
        for i in 0..LANES {
            symbols[i] = u16::from(contexts[i]) << 5 | numbers[i] & 15;
        }
        let large = numbers.iter().fold(0, |all, number| all | number) >= DIRECT;
        if large || count < LANES {
            for i in 0..LANES {
                let (token, bits) = token(numbers[i]);
                symbols[i] = match i < count {
                    true => u16::from(contexts[i]) << 5 | token as u16,
                    false => NOTHING,
                };
                if i < count {
                    self.bits(numbers[i], bits);
                }
            }
        }
        self.symbols.extend_from_slice(&symbols);
    }

    /// The lowest `count` bits of a number, 16 at most, as they are.
    #[inline(always)]
    pub(super) fn bits(&mut self, number: u16, count: u32) {
        let mask = (1u32 << count) - 1;
        self.held |= u64::from(u32::from(number) & mask) << self.holds;
        self.holds += count;
        while self.holds >= 8 {
            self.raw.push(self.held as u8);
            self.held >>= 8;
            self.holds -= 8;
        }
    }

    /// Appends all that was collected to `out`.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        // Four times, so that equal numbers in a row need not wait for each other. The last
        // context's last token is none: what is not there is counted there.
        let mut counts = vec![[0u32; ALL]; 4];
        for symbols in self.symbols.chunks_exact(4) {
            for (counts, &symbol) in counts.iter_mut().zip(symbols) {
                counts[usize::from(symbol) % ALL] += 1;
            }
        }
        let mut steps = vec![Step::default(); ALL];
        // Steps that do nothing are there already: of what is not used, and of holes.
        let all = steps.chunks_exact_mut(STRIDE).enumerate();
        for (context, steps) in all.take(CHOICES) {
            let count = |token: usize| -> u64 {
                let parts = counts
                    .iter()
                    .map(|c| u64::from(c[context * STRIDE + token]));
                parts.sum()
            };
            let counts: [u64; TOKENS] = std::array::from_fn(count);
            let total = |costs: &[u64; STRIDE]| -> u64 {
                costs.iter().zip(&counts).map(|(cost, n)| cost * n).sum()
            };
            if counts == [0; TOKENS] {
                out.push(UNUSED);
                continue;
            }
            let best = (0..COSTS.len()).min_by_key(|&i| total(&COSTS[i]));
            let best = best.unwrap_or(0);
            out.push(best as u8);
            let mut start = 0;
            for (step, frequency) in steps.iter_mut().zip(PRESETS[best]) {
                *step = Step::new(start, frequency.into());
                start += u32::from(frequency);
            }
        }
        let chains = 1 + usize::from(self.symbols.len() >= MANY * LANES);
        let states = simd::states(&self.symbols, chains, &steps, &mut self.words);
        if self.holds > 0 {
            self.raw.push(self.held as u8);
        }
        let states = states[..chains].as_flattened();
        out.reserve(5 + 4 * states.len() + 2 * self.words.len() + self.raw.len());
        out.push(chains as u8);
        out.extend_from_slice(&(self.words.len() as u32).to_le_bytes());
        out.extend(states.iter().flat_map(|state| state.to_le_bytes()));
        out.extend(self.words.iter().flat_map(|word| word.to_le_bytes()));
        out.extend_from_slice(&self.raw);
    }
}

/// Takes symbols from the last to the first. Returns the states they leave in each chain, with all
/// words in `words`, the last one taken first.
pub(super) fn states(
    symbols: &[u16],
    chains: usize,
    steps: &[Step],
    words: &mut Vec<u16>,
) -> [States; 2] {
    let mut both = [[LEAST; LANES]; 2];
    let mut some = [0; LANES];
    words.clear();
    for (i, vector) in symbols.chunks_exact(LANES).enumerate().rev() {
        let states = &mut both[i % chains];
        let mut count = 0;
        for lane in (0..LANES).rev() {
            // What is not there has a step that does nothing.
            let step = &steps[usize::from(vector[lane]) % ALL];
            let x = states[lane];
            let full = x >> (32 - BITS) >= step.frequency;
            some[count % LANES] = x as u16;
            count += usize::from(full);
            let x = if full { x >> 16 } else { x };
            let quotient = ((u64::from(x) * step.reciprocal) >> SHIFT) as u32;
            states[lane] = x + step.start + quotient * (SLOTS as u32 - step.frequency);
        }
        words.extend_from_slice(&some[..count]);
    }
    words.reverse();
    both
}

/// The same with AVX-512: a chain's states in a register.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
pub(super) fn states_512(
    symbols: &[u16],
    chains: usize,
    steps: &[Step],
    words: &mut Vec<u16>,
) -> [States; 2] {
    use std::arch::x86_64::*;
    // Start and, above it, frequency.
    let mut both = [0u32; ALL];
    let mut reciprocals = [0u64; ALL];
    for (i, step) in steps.iter().enumerate().take(ALL) {
        both[i] = step.start | step.frequency << 16;
        reciprocals[i] = step.reciprocal;
    }
    // At most a word each; they fill it from its end.
    words.clear();
    words.resize(symbols.len(), 0);
    let mut first = words.len();
    // The states of the chain that is next, and of the other one.
    let [mut x, mut other] = [_mm512_set1_epi32(LEAST as i32); 2];
    for vector in symbols.as_chunks::<LANES>().0.iter().rev() {
        // SAFETY: 32 bytes are read from a vector of as many.
        let symbol = unsafe { _mm256_loadu_epi16(vector.as_ptr().cast()) };
        let symbol = _mm256_and_si256(symbol, _mm256_set1_epi16(ALL as i16 - 1));
        let symbol = _mm512_cvtepu16_epi32(symbol);
        let halves = [
            _mm512_castsi512_si256(symbol),
            _mm512_extracti64x4_epi64::<1>(symbol),
        ];
        // SAFETY: symbols are below ALL, the length of both arrays.
        let (step, reciprocal) = unsafe {
            (
                _mm512_i32gather_epi32::<4>(symbol, both.as_ptr().cast()),
                halves.map(|half| _mm512_i32gather_epi64::<8>(half, reciprocals.as_ptr().cast())),
            )
        };
        let frequency = _mm512_srli_epi32::<16>(step);
        let start = _mm512_and_si512(step, _mm512_set1_epi32(0xffff));
        let full = _mm512_cmpge_epu32_mask(_mm512_srli_epi32::<{ 32 - BITS }>(x), frequency);
        let out = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(full, x));
        let count = full.count_ones();
        first -= count as usize;
        if let Some(to) = words.get_mut(first..first + count as usize) {
            let mask = ((1u32 << count) - 1) as u16;
            // SAFETY: writes the first `count` of sixteen words, for which there is room.
            unsafe { _mm256_mask_storeu_epi16(to.as_mut_ptr().cast(), mask, out) };
        }
        x = _mm512_mask_srli_epi32::<16>(x, full, x);
        let quotient = |half, reciprocal| {
            let product = _mm512_mullo_epi64(_mm512_cvtepu32_epi64(half), reciprocal);
            _mm512_cvtepi64_epi32(_mm512_srli_epi64::<SHIFT>(product))
        };
        let low = quotient(_mm512_castsi512_si256(x), reciprocal[0]);
        let high = quotient(_mm512_extracti64x4_epi64::<1>(x), reciprocal[1]);
        let quotient = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
        let others = _mm512_sub_epi32(_mm512_set1_epi32(SLOTS as i32), frequency);
        x = _mm512_add_epi32(x, start);
        x = _mm512_add_epi32(x, _mm512_mullo_epi32(quotient, others));
        if chains > 1 {
            (x, other) = (other, x);
        }
    }
    // The first vector, which is the first chain's, came last.
    if chains > 1 {
        (x, other) = (other, x);
    }
    words.drain(..first);
    [x, other].map(|x| {
        let mut states = [0u32; LANES];
        // SAFETY: 64 bytes into an array of as many.
        unsafe { _mm512_storeu_epi32(states.as_mut_ptr().cast(), x) };
        states
    })
}

/// How a state takes a token.
#[derive(Clone, Copy)]
pub(super) struct Step {
    start: u32,
    frequency: u32,
    /// 2^43/frequency, rounded up: x·reciprocal >> 43 is x/frequency for all x below
    /// frequency·2^21, and the product fits 64 bits.
    reciprocal: u64,
}

impl Step {
    fn new(start: u32, frequency: u32) -> Self {
        Self {
            start,
            frequency,
            reciprocal: (1u64 << SHIFT).div_ceil(u64::from(frequency.max(1))),
        }
    }
}

/// Takes nothing.
impl Default for Step {
    fn default() -> Self {
        Self::new(0, SLOTS as u32)
    }
}

const SHORT: Error = Error::Rest("it ends too early");

/// What a [`Decoder`] looks up. Pictures that follow each other choose much the same tables, so it
/// is kept from one to the next.
pub(super) struct Tables {
    choices: [u8; CHOICES],
    /// Per context and slot: token, frequency << 8, distance from the token's first slot << 20.
    slots: Vec<u32>,
}

/// Nothing is chosen, and there is no memory for it yet.
impl Default for Tables {
    fn default() -> Self {
        Self {
            choices: [UNUSED; CHOICES],
            slots: Vec::new(),
        }
    }
}

impl Tables {
    fn choose(&mut self, choices: &[u8]) -> Result<(), Error> {
        if self.slots.is_empty() {
            self.slots.resize(CONTEXTS * SLOTS, 0);
            for (distance, slot) in (0..).zip(&mut self.slots[usize::from(HOLE) * SLOTS..]) {
                *slot = (SLOTS as u32) << 8 | distance << 20;
            }
        }
        let slots = self.slots.chunks_exact_mut(SLOTS);
        for ((chosen, &choice), slots) in self.choices.iter_mut().zip(choices).zip(slots) {
            if *chosen == choice {
                continue;
            }
            if choice == UNUSED {
                slots.fill(0);
            } else {
                let table = PRESETS.get(usize::from(choice));
                let table = table.ok_or(Error::Rest("an unknown table"))?;
                let mut slots = slots.iter_mut();
                for (token, &frequency) in table.iter().enumerate() {
                    for distance in 0..u32::from(frequency) {
                        if let Some(slot) = slots.next() {
                            *slot = token as u32 | u32::from(frequency) << 8 | distance << 20;
                        }
                    }
                }
            }
            *chosen = choice;
        }
        Ok(())
    }
}

/// Reads what [`Encoder`] wrote, in the same order.
pub(super) struct Decoder<'a> {
    tables: Tables,
    states: [States; 2],
    /// Which chain is next, and the last one.
    chain: usize,
    last: usize,
    words: Vec<u16>,
    next: usize,
    raw: &'a [u8],
    held: u64,
    holds: u32,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8], mut tables: Tables) -> Result<Self, Error> {
        let (choices, bytes) = bytes.split_at_checked(CHOICES).ok_or(SHORT)?;
        let (&chains, bytes) = bytes.split_first().ok_or(SHORT)?;
        let last = match chains {
            1 | 2 => usize::from(chains) - 1,
            _ => return Err(Error::Rest("an unknown number of chains")),
        };
        let (count, bytes) = bytes.split_first_chunk::<4>().ok_or(SHORT)?;
        let (start, bytes) = bytes
            .split_at_checked(4 * LANES * usize::from(chains))
            .ok_or(SHORT)?;
        let length = (u32::from_le_bytes(*count) as usize).checked_mul(2);
        let (words, raw) = length
            .and_then(|length| bytes.split_at_checked(length))
            .ok_or(SHORT)?;
        tables.choose(choices)?;
        let word = |pair: &[u8]| u16::from_le_bytes([pair[0], pair[1]]);
        let mut states = [[LEAST; LANES]; 2];
        let flat = states.as_flattened_mut();
        for (state, bytes) in flat.iter_mut().zip(start.chunks_exact(4)) {
            *state = u32::from(word(bytes)) | u32::from(word(&bytes[2..])) << 16;
        }
        // Sixteen more, so that a whole vector can be read at once.
        let words = words.chunks_exact(2).map(word);
        let words = words.chain(std::iter::repeat_n(0, LANES)).collect();
        Ok(Self {
            tables,
            states,
            chain: 0,
            last,
            words,
            next: 0,
            raw,
            held: 0,
            holds: 0,
        })
    }

    /// The next `count` numbers; the vector's others are 0. With `WIDE` by AVX-512: for functions that
    /// are compiled for it.
    #[inline(always)]
    pub(super) fn vector<const WIDE: bool>(
        &mut self,
        contexts: &Contexts,
        count: usize,
    ) -> Result<Vector, Error> {
        let words: &[u16; LANES] = self
            .words
            .get(self.next..)
            .and_then(|words| words.first_chunk())
            .ok_or(SHORT)?;
        let tables: &[u32; CONTEXTS * SLOTS] =
            self.tables.slots.as_slice().try_into().map_err(|_| SHORT)?;
        let states = &mut self.states[self.chain % 2];
        self.chain = (self.chain ^ 1) & self.last;
        let mut numbers = [0; LANES];
        let mut taken = 0;
        #[cfg(target_arch = "x86_64")]
        if WIDE && count >= LANES {
            // SAFETY: `WIDE` is for processors that have AVX-512.
            (numbers, taken) = unsafe { take_512(tables, states, contexts, words) };
            self.next += taken;
            return self.complete(numbers);
        }
        let mut one = |i: usize| {
            let x = states[i];
            let slot = usize::from(contexts[i]) % CONTEXTS * SLOTS + x as usize % SLOTS;
            let entry = tables[slot];
            let x = (entry >> 8 & 0xfff) * (x >> BITS) + (entry >> 20);
            let empty = x < LEAST;
            let filled = x << 16 | u32::from(words[taken % LANES]);
            states[i] = if empty { filled } else { x };
            taken += usize::from(empty);
            numbers[i] = (entry & 0xff) as u16;
        };
        if count >= LANES {
            // A constant number: unrolled.
            for i in 0..LANES {
                one(i);
            }
        } else {
            for i in 0..count {
                one(i);
            }
        }
        self.next += taken;
        self.complete(numbers)
    }

    /// Tokens to numbers.
    #[inline(always)]
    fn complete(&mut self, mut numbers: Vector) -> Result<Vector, Error> {
        if numbers.iter().fold(0, |all, number| all | number) >= DIRECT {
            for number in &mut numbers {
                if *number >= DIRECT {
                    let bits = (u32::from(*number) - 12).min(15);
                    *number = 1 << bits | self.bits(bits)?;
                }
            }
        }
        Ok(numbers)
    }

    /// Raw bits, 16 at most.
    #[inline(always)]
    pub(super) fn bits(&mut self, count: u32) -> Result<u16, Error> {
        while self.holds < count {
            let (&byte, raw) = self.raw.split_first().ok_or(SHORT)?;
            self.raw = raw;
            self.held |= u64::from(byte) << self.holds;
            self.holds += 8;
        }
        let bits = self.held & ((1 << count) - 1);
        self.held >>= count;
        self.holds -= count;
        Ok(bits as u16)
    }

    /// Whether everything was read, and nothing else. Gives back its tables, for the next one.
    pub(super) fn finish(self) -> Result<Tables, Error> {
        let all = self.next + LANES == self.words.len()
            && self.raw.is_empty()
            && self.states == [[LEAST; LANES]; 2];
        match all {
            true => Ok(self.tables),
            false => Err(Error::Rest("its numbers do not add up")),
        }
    }
}

/// The next sixteen tokens, and how many words they took.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
fn take_512(
    tables: &[u32; CONTEXTS * SLOTS],
    states: &mut States,
    contexts: &Contexts,
    words: &[u16; LANES],
) -> (Vector, usize) {
    use std::arch::x86_64::*;
    // SAFETY: all are read whole.
    let (context, x, words) = unsafe {
        (
            _mm512_cvtepu8_epi32(_mm_loadu_si128(contexts.as_ptr().cast())),
            _mm512_loadu_epi32(states.as_ptr().cast()),
            _mm512_cvtepu16_epi32(_mm256_loadu_epi16(words.as_ptr().cast())),
        )
    };
    let context = _mm512_and_si512(context, _mm512_set1_epi32(CONTEXTS as i32 - 1));
    let slot = _mm512_and_si512(x, _mm512_set1_epi32(SLOTS as i32 - 1));
    let slot = _mm512_or_si512(_mm512_slli_epi32::<BITS>(context), slot);
    // SAFETY: context · SLOTS + slot is below the length of the tables.
    let entry = unsafe { _mm512_i32gather_epi32::<4>(slot, tables.as_ptr().cast()) };
    let frequency = _mm512_and_si512(_mm512_srli_epi32::<8>(entry), _mm512_set1_epi32(0xfff));
    let x = _mm512_mullo_epi32(frequency, _mm512_srli_epi32::<BITS>(x));
    let x = _mm512_add_epi32(x, _mm512_srli_epi32::<20>(entry));
    let empty = _mm512_cmplt_epu32_mask(x, _mm512_set1_epi32(LEAST as i32));
    let words = _mm512_maskz_expand_epi32(empty, words);
    let filled = _mm512_or_si512(_mm512_slli_epi32::<16>(x), words);
    let x = _mm512_mask_mov_epi32(x, empty, filled);
    let token = _mm512_and_si512(entry, _mm512_set1_epi32(0xff));
    let mut numbers = [0; LANES];
    // SAFETY: both are written whole.
    unsafe {
        _mm512_storeu_epi32(states.as_mut_ptr().cast(), x);
        _mm256_storeu_epi16(numbers.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(token));
    }
    (numbers, empty.count_ones() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watermark::code::Seeded;

    #[test]
    fn tables_are_whole() {
        for table in PRESETS.iter() {
            assert_eq!(table.iter().map(|&f| usize::from(f)).sum::<usize>(), SLOTS);
        }
        assert_eq!(cost(SLOTS as u16), 0);
        assert_eq!(cost(1), u64::from(BITS) << 8);
    }

    #[test]
    fn numbers_come_back() {
        for (vectors, chains) in [(0, 1), (1, 1), (500, 1), (MANY, 2), (MANY + 501, 2)] {
            numbers_come_back_from(vectors, chains);
        }
        for value in [0, -1, 1, i16::MIN, i16::MAX] {
            assert_eq!(unfold(fold(value)), value);
        }
    }

    fn numbers_come_back_from(vectors: usize, chains: u8) {
        let mut random = Seeded::new(5);
        let mut encoder = Encoder::default();
        let mut sent = Vec::new();
        for _ in 0..vectors {
            let contexts = std::array::from_fn(|_| (random.bits() % 64) as u8);
            let mut numbers: Vector = std::array::from_fn(|_| {
                let bits = random.bits() % 17;
                (random.bits() & ((1 << bits) - 1)) as u16
            });
            for lane in 0..LANES {
                if contexts[lane] == HOLE {
                    numbers[lane] = 0;
                }
            }
            let count = match random.bits() % 4 {
                0 => (random.bits() % 17) as usize,
                _ => LANES,
            };
            encoder.vector(&contexts, &numbers, count);
            encoder.bits(numbers[0], 7);
            sent.push((contexts, numbers, count));
        }
        let mut bytes = Vec::new();
        encoder.finish(&mut bytes);
        assert_eq!(bytes[CHOICES], chains);
        for wrong in [0, 3, 255] {
            let mut bytes = bytes.clone();
            bytes[CHOICES] = wrong;
            assert!(Decoder::new(&bytes, Tables::default()).is_err());
        }
        let mut plain = Decoder::new(&bytes, Tables::default()).unwrap();
        let mut fast = Decoder::new(&bytes, Tables::default()).unwrap();
        for (contexts, numbers, count) in sent {
            let found = plain.vector::<false>(&contexts, count).unwrap();
            assert_eq!(found[..count], numbers[..count]);
            assert_eq!(plain.bits(7).unwrap(), numbers[0] & 127);
            let found = simd::vector(&mut fast, &contexts, count).unwrap();
            assert_eq!(found[..count], numbers[..count]);
            assert_eq!(fast.bits(7).unwrap(), numbers[0] & 127);
        }
        plain.finish().unwrap();
        fast.finish().unwrap();
    }

    /// Whoever has AVX-512 and who has not write the same.
    #[test]
    fn states_are_the_same_everywhere() {
        let mut random = Seeded::new(6);
        let step = |_| Step::new(random.bits() as u32 % 1000, 1 + random.bits() as u32 % 1000);
        let steps: Vec<Step> = (0..ALL).map(step).collect();
        for vectors in 0..50 {
            let symbols: Vec<u16> = (0..vectors * LANES)
                .map(|_| random.bits() as u16 % ALL as u16)
                .collect();
            for chains in [1, 2] {
                let (mut plain, mut fast) = (Vec::new(), Vec::new());
                assert_eq!(
                    states(&symbols, chains, &steps, &mut plain),
                    simd::states(&symbols, chains, &steps, &mut fast)
                );
                assert_eq!(plain, fast);
            }
        }
    }
}
