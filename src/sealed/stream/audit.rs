// SPDX-License-Identifier: MPL-2.0
//! The third party's side of an audit: whether what an owner opens is what it committed to, and
//! what an honest owner sends.

use super::pieces::{self, root_of};
use super::{Error, ticket_ciphertexts};
use crate::homomorphic::oblivious::{make_labels, randomiser_bits};
use crate::homomorphic::packed::{Base, PublicKey, Randomiser};
use crate::protocol::{
    self, Challenge, Contract, Mode, Opening, SegmentHead, Signed, TicketHead, TicketSecret, drawn,
};
use crate::watermark::{Key, Layout, carried_bits, position};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;

/// What is asked about.
pub struct Question<'a> {
    /// What was drawn.
    pub challenge: &'a Challenge,
    /// The contract.
    pub contract: &'a Contract,
    /// The cloud's key.
    pub key: &'a PublicKey,
    /// Pixels in a row and rows, as the ticket has them.
    pub size: [u32; 2],
    /// The ticket's seed.
    pub seed: &'a [u8; 32],
    /// Frames that were reported.
    pub frames: u64,
}

/// Says nothing of the seed.
impl std::fmt::Debug for Question<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Question(ticket {})", self.challenge.ticket)
    }
}

/// What an honest owner has opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Places that were looked at.
    pub places: u64,
    /// … where the layout has a mark.
    pub marks: u64,
    /// … which is there: others had no room.
    pub made: u64,
}

/// Why an audit has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Something else was committed to.
    #[error("what was opened is not what was committed to")]
    Commitment,
    /// The segment's head.
    #[error("the head of the segment is not one of this ticket")]
    Head,
    /// The ciphertexts.
    #[error("the ciphertexts are not those of the ticket")]
    Ticket,
    /// The labels.
    #[error("the labels do not follow from the ticket and the seed")]
    Labels,
    /// A piece that is missing, or no piece.
    #[error("a piece that was drawn is missing or is not the one that was committed to")]
    Piece,
    /// Two candidates where there is no mark.
    #[error("a place without a mark has two different candidates")]
    Unmarked,
    /// A mark that is none.
    #[error("the candidates at a mark are not the two lattice points around it")]
    Marked,
}

impl Question<'_> {
    /// Judges an opening. Fails ([`Err`] outside) only for what is not the owner's doing; takes some
    /// ten to a hundred milliseconds.
    pub fn judge(&self, opening: &Opening) -> Result<Result<Found, Fault>, Error> {
        let id = *self.challenge.contract;
        let promised = &opening.promised;
        if promised.digest() != *self.challenge.commitment
            || promised.frames != self.frames
            || blake3::hash(&opening.head) != *promised.head
            // There are candidates in the first frame, and no more than can be counted.
            || !(1..1 << 48).contains(&promised.pieces)
        {
            return Ok(Err(Fault::Commitment));
        }
        let Some((head, ticket)) = self.head(&opening.head) else {
            return Ok(Err(Fault::Head));
        };
        // What a ticket's secret is, its hash says, which the third party has signed.
        let secret = TicketSecret {
            seed: (*self.seed).into(),
            ciphertexts: opening.ciphertexts.clone(),
        };
        let secret = zeroize::Zeroizing::new(protocol::encode(&secret));
        let bytes = self.key.ciphertext_bytes();
        let count = ticket_ciphertexts(Mode::Oblivious, self.key)?;
        if *ticket.secret != <[u8; 32]>::from(Sha256::digest(&*secret))
            || opening.ciphertexts.len() != count * bytes
        {
            return Ok(Err(Fault::Ticket));
        }
        let ciphertexts = opening.ciphertexts.chunks_exact(bytes);
        let ciphertexts = ciphertexts.map(|c| self.key.parse(c));
        let ciphertexts = ciphertexts.collect::<Result<Vec<_>, _>>()?;
        let base = Base::derive(self.key, &self.contract.base_seed, &id);
        let randomiser = Randomiser::new(self.key, &base, randomiser_bits(self.key))?;
        let (pairs, labels) = make_labels(self.key, &ciphertexts, &randomiser, &opening.seed)?;
        let labels: Vec<u8> = labels.iter().flat_map(|c| self.key.to_bytes(c)).collect();
        if labels != **head.labels {
            return Ok(Err(Fault::Labels));
        }
        let settings = self.contract.settings().ok_or(Error::Contract)?;
        let [width, height] = self.size.map(|side| side as usize);
        let layout = Layout::new(&Key::from_bytes(*self.seed), 0, &settings, width, height);
        let bits = carried_bits(&settings, width, height);
        let step = settings.step as i32;
        let mut dithers = HashMap::new();
        for mark in layout.marks() {
            if let Some(position) = position(&settings, width, mark) {
                // Of two the first.
                let dither = dithers.entry(position);
                dither.or_insert_with(|| mark.whole_dither(step));
            }
        }
        let drawn = drawn(&self.challenge.seed, promised.pieces);
        if drawn.len() != opening.pieces.len() {
            return Ok(Err(Fault::Piece));
        }
        let mut found = Found::default();
        for (index, piece) in drawn.into_iter().zip(&opening.pieces) {
            let leaf = blake3::hash(&piece.bytes).into();
            if root_of(leaf, index, promised.pieces, &piece.path) != Some(*promised.root) {
                return Ok(Err(Fault::Piece));
            }
            let Some((frame, shown)) = pieces::read(&piece.bytes, &bits) else {
                return Ok(Err(Fault::Piece));
            };
            for one in shown {
                let Some([zero, one_value]) = pairs.unmask(frame, &one.masked) else {
                    return Ok(Err(Fault::Piece));
                };
                let delta = i32::from(one_value) - i32::from(zero);
                found.places += 1;
                match dithers.get(&(one.position as usize)) {
                    None if delta != 0 => return Ok(Err(Fault::Unmarked)),
                    None => (),
                    // Its block had no room for it.
                    Some(_) if delta == 0 => found.marks += 1,
                    Some(dither) => {
                        let point = i32::from(zero) + i32::from(one.prediction);
                        if 2 * delta.abs() != step || (point - dither).rem_euclid(step) != 0 {
                            return Ok(Err(Fault::Marked));
                        }
                        found.marks += 1;
                        found.made += 1;
                    }
                }
            }
        }
        Ok(Ok(found))
    }

    /// The segment's head and its ticket, if they are those of the challenge.
    fn head(&self, payload: &[u8]) -> Option<(SegmentHead, TicketHead)> {
        let signed: Signed = protocol::decode(payload).ok()?;
        let head: SegmentHead = signed.verify(&[&self.contract.owner.sign]).ok()?;
        let ticket: TicketHead = head.ticket.verify(&[&self.contract.ttp.sign]).ok()?;
        let right = *ticket.contract == *self.challenge.contract
            && ticket.number == self.challenge.ticket
            && ticket.mode == Mode::Oblivious
            && [ticket.width, ticket.height] == self.size
            && [head.video.width, head.video.height] == self.size;
        right.then_some((head, ticket))
    }
}
