// SPDX-License-Identifier: MPL-2.0
//! The owner's side of a retrieval: from what cloud and third party give back to the original.

use super::super::{Geometry, Joiner, Picture, Split, Splitter};
use super::{Error, Kept, packing};
use crate::homomorphic::packed::SecretKey;
use crate::homomorphic::retrieval::{self, Sign};
use crate::protocol::{Agreed, Video};
use crate::watermark::{Key, Layout, position};
use zeroize::Zeroizing;

/// What takes the third party's masks off again.
pub enum Unmask {
    /// The seed of the pads of a request ([`crate::protocol::Mode::Oblivious`]).
    Pads(Zeroizing<[u8; 32]>),
    /// The key that a request was made under ([`crate::protocol::Mode::Packed`]).
    Packed(std::sync::Arc<SecretKey>),
}

/// Says nothing of what is in it.
impl std::fmt::Debug for Unmask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pads(_) => "Unmask::Pads",
            Self::Packed(_) => "Unmask::Packed",
        })
    }
}

impl Unmask {
    /// The `count` values of frame number `frame` of a request, from the cloud's sums.
    fn values(&self, frame: u64, sums: &[u8], count: usize) -> Result<Vec<i16>, Error> {
        let length = || Error::Form("sums of another length");
        match self {
            Self::Pads(seed) => match sums.len() == 2 * count {
                true => Ok(retrieval::subtract(seed, frame, sums)),
                false => Err(length()),
            },
            Self::Packed(secret) => {
                let (key, packing) = (secret.public(), packing(secret.public())?);
                let (bytes, ciphertexts) =
                    (key.ciphertext_bytes(), count.div_ceil(packing.slots()));
                if sums.len() != ciphertexts * bytes {
                    return Err(length());
                }
                let sums: Vec<&[u8]> = sums.chunks_exact(bytes).collect();
                let mut values = Vec::with_capacity(ciphertexts * packing.slots());
                for clear in secret.decrypt_many(&key.parse_many(&sums)?)? {
                    // Slots have 15 bits.
                    values.extend(packing.unpack(&clear)?.into_iter().map(|v| v as i16));
                }
                values.truncate(count);
                Ok(values)
            }
        }
    }
}

/// How marks were put in, as the third party wants to know it.
pub fn signs(remainders: &[Option<i8>]) -> Vec<Sign> {
    let sign = |remainder: &Option<i8>| match remainder {
        None => Sign::None,
        // x was moved from q_0(x) towards the other side of x.
        Some(0..) => Sign::Plus,
        Some(_) => Sign::Minus,
    };
    remainders.iter().map(sign).collect()
}

/// How a restored frame goes with what its owner has kept. Another frame of the same ticket has its
/// marks on the same grid: the marks alone do not tell it from the right one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fit {
    /// Marks.
    pub marks: usize,
    /// Those whose remainder in the restored frame is another than the one that the owner has kept:
    /// none if the archive is lossless and nobody has changed it. Where a mark has room in one of
    /// them only, nothing can be said: room depends a little on what was sent around it.
    pub wrong: usize,
    /// The frame is the one that was sealed, bit for bit, colour and all.
    pub exact: bool,
}

/// Restores the frames of one ticket.
pub struct Restorer {
    geometry: Geometry,
    joiner: Joiner,
    splitter: Splitter,
    /// Of each mark.
    positions: Vec<usize>,
    count: usize,
}

impl Restorer {
    /// `key` is the ticket's, `video` the format of its frames.
    pub fn new(agreed: &Agreed, key: &Key, video: &Video) -> Result<Self, Error> {
        let settings = &agreed.settings;
        let [width, height] = [video.width, video.height].map(|side| side as usize);
        let geometry = Geometry::new(width, height, video.chroma.into())?;
        let layout = Layout::new(key, 0, settings, width, height);
        let positions = layout.marks().iter();
        let positions = positions.map(|mark| position(settings, width, mark));
        Ok(Self {
            geometry,
            joiner: Joiner::new(geometry, settings)?,
            splitter: Splitter::new(geometry, settings, Some(&layout))?,
            positions: positions.collect::<Option<_>>().ok_or(Error::Contract)?,
            count: geometry.candidates(settings.each()),
        })
    }

    /// Frame number `frame` of a request, from its rest, its sums and what the owner has kept, and
    /// how well it fits them.
    pub fn restore(
        &mut self,
        unmask: &Unmask,
        frame: u64,
        rest: &[u8],
        sums: &[u8],
        kept: &Kept,
    ) -> Result<(&Picture, Fit), Error> {
        let remainders = &kept.remainders;
        if remainders.len() != self.positions.len() {
            return Err(Error::Form("remainders of frames of another size"));
        }
        let mut values = unmask.values(frame, sums, self.count)?;
        for (&at, remainder) in self.positions.iter().zip(remainders) {
            let value = values.get_mut(at).ok_or(Error::Contract)?;
            *value = value.wrapping_add(i16::from(remainder.unwrap_or(0)));
        }
        let sent = self.joiner.read(rest)?;
        if sent.positions.len() != self.count {
            // What builds on another frame would show that one's marks.
            return Err(Error::Form("a frame that is not whole"));
        }
        let picture = self.joiner.join(&values)?;
        let again = self.splitter.split(picture, true)?;
        let wrong = again.remainders.iter().zip(remainders);
        let wrong = wrong.filter(|&(&now, kept)| {
            kept.is_some_and(|kept| now != Split::NONE && now != i16::from(kept))
        });
        let fit = Fit {
            marks: remainders.len(),
            wrong: wrong.count(),
            exact: kept.is_of(picture),
        };
        Ok((picture, fit))
    }

    /// The frames' geometry.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }
}

/// Says nothing of marks.
impl std::fmt::Debug for Restorer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Restorer({:?})", self.geometry)
    }
}
