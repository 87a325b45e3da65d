// SPDX-License-Identifier: MPL-2.0
//! Taking the mark out on the way from the cloud to the owner, who never sees a marked value.
//!
//! The cloud stores y = q_0(x) + w·δ where a coefficient is marked and y = x elsewhere; the third
//! party knows w and, from the owner, the signs of δ. *Masked*: the third party draws a pad r for
//! every coefficient that can carry a bit, gives the owner the pad's seed and the cloud
//! r − w·δ mod 2^16 ([`masks`]); the cloud adds y and sends the sums ([`add`]); the owner takes r
//! off ([`subtract`]) and adds its own remainder x − q_0(x). To the cloud every mask is uniform; the
//! owner sees what the original would have shown it. *Packed* is the same under the owner's Paillier
//! key ([`packed_masks`], [`packed_add`]), without pads.

use super::packed::{Ciphertext, Encryptor};
use super::{AdditiveScheme as _, Error, Packing};
use crate::watermark::{Layout, Settings, Word, position};
use aes::Aes256;
use ctr::cipher::{KeyIvInit as _, StreamCipher as _};
use zeroize::Zeroizing;

/// How a mark was put in: two bits a mark in a message, four marks to a byte from the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Not at all: the block had no room.
    None,
    /// δ = s/2.
    Plus,
    /// δ = −s/2.
    Minus,
}

impl Sign {
    /// Packs the signs of a frame.
    pub fn pack(signs: &[Self]) -> Vec<u8> {
        let code = |sign: &Self| match sign {
            Self::None => 0u8,
            Self::Plus => 1,
            Self::Minus => 2,
        };
        let byte = |four: &[Self]| four.iter().rev().fold(0, |acc, sign| acc << 2 | code(sign));
        signs.chunks(4).map(byte).collect()
    }

    /// Reads the signs of `count` marks; `None` for another length or a code that there is not.
    pub fn unpack(bytes: &[u8], count: usize) -> Option<Vec<Self>> {
        if bytes.len() != count.div_ceil(4) {
            return None;
        }
        let sign = |i: usize| match bytes[i / 4] >> (i % 4 * 2) & 3 {
            0 => Some(Self::None),
            1 => Some(Self::Plus),
            2 => Some(Self::Minus),
            _ => None,
        };
        (0..count).map(sign).collect()
    }
}

/// −w·δ of every coefficient that can carry a bit, in order of positions, in a frame of `width` ×
/// `height`. `None` if `signs` are not one for each mark.
fn corrections(
    settings: &Settings,
    [width, height]: [usize; 2],
    layout: &Layout,
    word: Word,
    signs: &[Sign],
) -> Option<Zeroizing<Vec<i16>>> {
    if signs.len() != layout.marks().len() {
        return None;
    }
    let count = (width / 8) * (height / 8) * settings.each();
    let half = i16::try_from(settings.step / 2).ok()?;
    let mut out = Zeroizing::new(vec![0i16; count]);
    for (mark, sign) in layout.marks().iter().zip(signs) {
        let delta = match sign {
            Sign::None => 0,
            Sign::Plus => half,
            Sign::Minus => -half,
        };
        *out.get_mut(position(settings, width, mark)?)? =
            -delta * i16::from(word.bit(mark.bit.into()));
    }
    Some(out)
}

/// The pads of a frame, for `count` coefficients.
fn pads(seed: &[u8; 32], frame: u64, count: usize) -> Zeroizing<Vec<u8>> {
    let mut iv = [0; 16];
    iv[..8].copy_from_slice(&frame.to_be_bytes());
    let mut out = Zeroizing::new(vec![0; 2 * count]);
    ctr::Ctr128BE::<Aes256>::new(seed.into(), (&iv).into()).apply_keystream(&mut out);
    out
}

/// What the third party gives the cloud for frame `frame` of a request: r − w·δ mod 2^16, little
/// endian. `None` if `signs` are not one for each mark.
pub fn masks(
    seed: &[u8; 32],
    frame: u64,
    settings: &Settings,
    size: [usize; 2],
    layout: &Layout,
    word: Word,
    signs: &[Sign],
) -> Option<Vec<u8>> {
    let corrections = corrections(settings, size, layout, word, signs)?;
    let mut out = pads(seed, frame, corrections.len());
    for (pad, correction) in out.chunks_exact_mut(2).zip(&**corrections) {
        let value = u16::from_le_bytes([pad[0], pad[1]]).wrapping_add_signed(*correction);
        pad.copy_from_slice(&value.to_le_bytes());
    }
    Some(std::mem::take(&mut *out))
}

/// What the cloud sends: its values plus its masks. `None` for masks of another length.
pub fn add(values: &[i16], masks: &[u8]) -> Option<Vec<u8>> {
    (masks.len() == 2 * values.len()).then(|| {
        let sums = values.iter().zip(masks.chunks_exact(2));
        sums.flat_map(|(&value, mask)| {
            let sum = u16::from_le_bytes([mask[0], mask[1]]).wrapping_add_signed(value);
            sum.to_le_bytes()
        })
        .collect()
    })
}

/// What the owner reads: the cloud's sums without the pads.
pub fn subtract(seed: &[u8; 32], frame: u64, sums: &[u8]) -> Vec<i16> {
    let pads = pads(seed, frame, sums.len() / 2);
    let pairs = sums.chunks_exact(2).zip(pads.chunks_exact(2));
    pairs
        .map(|(sum, pad)| {
            let sum = u16::from_le_bytes([sum[0], sum[1]]);
            sum.wrapping_sub(u16::from_le_bytes([pad[0], pad[1]])) as i16
        })
        .collect()
}

/// What the third party gives the cloud in the paper's way: −w·δ in slots, under the owner's key.
/// The outer error is for signs that are not one for each mark.
pub fn packed_masks(
    encryptor: &Encryptor,
    packing: &Packing,
    settings: &Settings,
    size: [usize; 2],
    layout: &Layout,
    word: Word,
    signs: &[Sign],
) -> Option<Result<Vec<Ciphertext>, Error>> {
    let corrections = corrections(settings, size, layout, word, signs)?;
    let slots = corrections.chunks(packing.slots()).map(|values| {
        let values: Zeroizing<Vec<i32>> =
            Zeroizing::new(values.iter().map(|&v| i32::from(v)).collect());
        encryptor.encrypt(&packing.pack(&values)?)
    });
    Some(slots.collect())
}

/// What the cloud sends in the paper's way: its values multiplied in, and made fresh.
pub fn packed_add(
    encryptor: &Encryptor,
    packing: &Packing,
    values: &[i16],
    masks: &[Ciphertext],
) -> Result<Vec<Ciphertext>, Error> {
    let chunks = values.chunks(packing.slots());
    if chunks.len() != masks.len() {
        return Err(Error::SignCount {
            found: masks.len(),
            expected: chunks.len(),
        });
    }
    let sum = |(values, mask): (&[i16], &Ciphertext)| {
        let values: Vec<i32> = values.iter().map(|&v| i32::from(v)).collect();
        encryptor.add(mask, &encryptor.encrypt(&packing.pack(&values)?)?)
    };
    chunks.zip(masks).map(sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watermark::Key;

    #[test]
    fn the_owner_gets_what_it_had_and_the_cloud_adds_noise() {
        let settings = Settings::default();
        let size = [320, 240];
        let layout = Layout::new(&Key::from_bytes([9; 32]), 0, &settings, size[0], size[1]);
        let word = Word(0x5555_1234_ffff_0000_dead_beef_0123_4567);
        let some = |i: usize| [Sign::Plus, Sign::Minus, Sign::None][i % 3];
        let signs: Vec<Sign> = (0..layout.marks().len()).map(some).collect();
        assert_eq!(
            Sign::unpack(&Sign::pack(&signs), signs.len()),
            Some(signs.clone())
        );
        assert_eq!(Sign::unpack(&[3], 1), None);
        let count = 30 * 40 * settings.each();
        let plain: Vec<i16> = (0..count).map(|i| (i * 31 % 900) as i16 - 450).collect();
        let mut stored = plain.clone();
        for (mark, sign) in layout.marks().iter().zip(&signs) {
            let delta = match sign {
                Sign::None => 0,
                Sign::Plus => 50,
                Sign::Minus => -50,
            };
            let at = position(&settings, size[0], mark).unwrap();
            stored[at] += delta * i16::from(word.bit(mark.bit.into()));
        }
        assert_ne!(stored, plain);
        let masks = masks(&[4; 32], 7, &settings, size, &layout, word, &signs).unwrap();
        let sums = add(&stored, &masks).unwrap();
        assert_eq!(subtract(&[4; 32], 7, &sums), plain);
        assert!(add(&stored[1..], &masks).is_none());
        let short = &signs[1..];
        assert!(super::masks(&[4; 32], 7, &settings, size, &layout, word, short).is_none());
    }
}
