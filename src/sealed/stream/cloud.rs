// SPDX-License-Identifier: MPL-2.0
//! The cloud's side: from a sealed stream to marked frames.
//!
//! Nothing that the owner can see depends on which labels or values come out: an owner that sends
//! garbage under one of two labels must not learn which of them was opened. Labels are taken
//! whatever they are, values are cut to what fits, and what is refused is refused for what everyone
//! can see: signatures, lengths, order.

use super::super::{Geometry, Joiner, Picture};
use super::message::{self, FrameHeader, Kind, SegmentEnd};
use super::owner::nonce;
use super::pieces::{Candidates, Commitment};
use super::remainder::Remainder;
use super::{Error, KEY_BYTES, arrange, key_info, packing};
use crate::homomorphic::Packing;
use crate::homomorphic::oblivious::{Labels, label_ciphertexts};
use crate::homomorphic::packed::SecretKey;
use crate::identity::Identity;
use crate::protocol::{self, Contract, Mode, SegmentHead, Signed, TicketHead, Video};
use crate::watermark::carried_bits;
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Bytes of a segment's head at most: the labels of the largest keys and what is around them.
const MAX_HEAD: usize = 1 << 20;

enum Cover {
    Labels(Labels),
    Slots(Packing),
}

struct Current {
    owner: [u8; 32],
    contract: [u8; 32],
    ticket: u64,
    head: SegmentHead,
    bits: Vec<u8>,
    cover: Cover,
    cipher: Aes256Gcm,
    joiner: Joiner,
    audited: bool,
    commitment: Commitment,
}

/// What a segment's head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Id of the contract.
    pub contract: [u8; 32],
    /// The ticket.
    pub ticket: u64,
    /// The frames' format.
    pub video: Video,
    /// Wall clock of the first frame, Unix milliseconds, as the owner says.
    pub started_ms: u64,
    /// When the ticket can no longer be used, Unix milliseconds.
    pub expires_ms: u64,
}

/// Opens sealed streams, for one cloud and one stream at a time.
pub struct Opener {
    identity: Arc<Identity>,
    secret: Arc<SecretKey>,
    /// Pixels of a frame, at most.
    pixels: u64,
    current: Option<Current>,
    /// Contract, stream and number of the segment that may come next.
    next: Option<([u8; 32], [u8; 16], u32)>,
}

impl Opener {
    /// With the cloud's identity and Paillier key, for frames of at most `pixels`.
    pub fn new(identity: Arc<Identity>, secret: Arc<SecretKey>, pixels: u64) -> Self {
        Self {
            identity,
            secret,
            pixels,
            current: None,
            next: None,
        }
    }

    /// Reads the head of a segment. `contracts` gives the contract of an id, if this cloud has
    /// signed it; `now_ms` is the wall clock, which tickets expire by.
    pub fn segment(
        &mut self,
        payload: &[u8],
        contracts: impl FnOnce(&[u8; 32]) -> Option<Contract>,
        now_ms: u64,
    ) -> Result<Opened, Error> {
        if self.current.is_some() {
            return Err(Error::Order("a segment begins before the last has ended"));
        }
        if payload.len() > MAX_HEAD {
            return Err(Error::Form("a segment's head that is too long"));
        }
        let form = |_| Error::Form("a segment's head");
        let signed: Signed = protocol::decode(payload).map_err(form)?;
        let head: SegmentHead = signed.unverified()?;
        let ticket: TicketHead = head.ticket.unverified()?;
        let unknown = || Error::UnknownContract(protocol::hex(&*ticket.contract));
        let contract = contracts(&ticket.contract).ok_or_else(unknown)?;
        if *contract.cloud.sign != self.identity.public().sign {
            return Err(unknown());
        }
        signed.verify::<SegmentHead>(&[&contract.owner.sign])?;
        let ticket: TicketHead = head.ticket.verify(&[&contract.ttp.sign])?;
        if ticket.expires_ms < now_ms {
            return Err(Error::Ticket("it has expired"));
        }
        let video = head.video;
        if (ticket.width, ticket.height) != (video.width, video.height) {
            return Err(Error::Ticket("it is for frames of another size"));
        }
        let (width, height) = (video.width, video.height);
        // Before anything is made for them.
        if u64::from(width) * u64::from(height) > self.pixels {
            let most = self.pixels;
            return Err(Error::Pixels {
                width,
                height,
                most,
            });
        }
        let this = (*ticket.contract, *head.stream, head.segment);
        if self.next.is_some_and(|next| next != this) {
            return Err(Error::Order("a segment is missing or comes again"));
        }
        let settings = contract.settings().ok_or(Error::Contract)?;
        let [width, height] = [video.width, video.height].map(|side| side as usize);
        let geometry = Geometry::new(width, height, video.chroma.into())?;
        let info = key_info(&ticket.contract, &head.stream, head.segment);
        let key = self.identity.open(&info, &head.key)?;
        let key: Zeroizing<[u8; KEY_BYTES]> = match key.as_slice().try_into() {
            Ok(key) => Zeroizing::new(key),
            Err(_) => return Err(Error::Form("a segment's key")),
        };
        let public = self.secret.public();
        let cover = match ticket.mode {
            Mode::Packed => Cover::Slots(packing(public)?),
            Mode::Oblivious => {
                let bytes = public.ciphertext_bytes();
                if head.labels.len() != label_ciphertexts(public.modulus_bits()) * bytes {
                    return Err(Error::Form("a segment with another number of labels"));
                }
                let labels = head.labels.chunks_exact(bytes).map(|c| public.parse(c));
                Cover::Labels(Labels::open(
                    &self.secret,
                    &labels.collect::<Result<Vec<_>, _>>()?,
                )?)
            }
        };
        let opened = Opened {
            contract: *ticket.contract,
            ticket: ticket.number,
            video,
            started_ms: head.started_ms,
            expires_ms: ticket.expires_ms,
        };
        self.current = Some(Current {
            owner: *contract.owner.sign,
            contract: *ticket.contract,
            ticket: ticket.number,
            head,
            bits: carried_bits(&settings, width, height),
            cover,
            cipher: Aes256Gcm::new((&*key).into()),
            joiner: Joiner::new(geometry, &settings)?.with_loss(contract.loss)?,
            audited: contract.is_audited(ticket.mode),
            commitment: Commitment::new(payload),
        });
        Ok(opened)
    }

    /// Bytes that the payload of the next message has at most, if it is of this kind.
    pub fn room(&self, kind: Kind) -> usize {
        match (kind, &self.current) {
            (Kind::Frame, Some(current)) => {
                let Video { width, height, .. } = current.head.video;
                // Three planes. Of a sample as noise needs it, in either mode.
                let samples = 3 * width as usize * height as usize;
                (16 * samples + MAX_HEAD).min(message::MAX_PAYLOAD)
            }
            _ => MAX_HEAD,
        }
    }

    /// Opens a frame: the marked picture, and the owner's remainders to keep beside it.
    pub fn frame(&mut self, payload: &[u8]) -> Result<(&Picture, FrameHeader, Remainder), Error> {
        let current = self.current.as_mut();
        let current = current.ok_or(Error::Order("a frame outside of a segment"))?;
        let (header, sealed) = FrameHeader::split(payload)?;
        if header.number != current.commitment.frames() {
            return Err(Error::Order("a frame is missing or comes again"));
        }
        let payload_of = Payload {
            msg: sealed,
            aad: &header.to_bytes(),
        };
        let body = current.cipher.decrypt(&nonce(header.number), payload_of);
        let body = body.map_err(|_| Error::Changed)?;
        let parts = message::split_parts(&body).ok_or(Error::Form("a frame without its parts"))?;
        let [rest, masked, remainder] = parts;
        let sent = current.joiner.read(rest)?;
        let bits: Option<Vec<u8>> = sent
            .positions
            .iter()
            .map(|&position| current.bits.get(position as usize).copied())
            .collect();
        let length = Error::Form("candidates of another length");
        let bits = bits.ok_or(Error::Form("candidates where there are none"))?;
        let values = match &current.cover {
            Cover::Labels(labels) => {
                let values = labels.unmask(header.number, &bits, &sent.widths, masked);
                values.ok_or(length)?
            }
            Cover::Slots(packing) => {
                let places = arrange::places(packing, &bits);
                let bytes = self.secret.public().ciphertext_bytes();
                if masked.len() != arrange::ciphertexts(&places) * bytes {
                    return Err(length);
                }
                let masked: Vec<&[u8]> = masked.chunks_exact(bytes).collect();
                let masked = self.secret.public().parse_many(&masked)?;
                let clear = self.secret.decrypt_many(&masked)?;
                // What overflows is the owner's doing, and may depend on a bit: it gets another
                // picture, and no answer.
                let unpack = |clear| packing.unpack(clear).unwrap_or(vec![0; packing.slots()]);
                let clear: Vec<Vec<i32>> = clear.iter().map(unpack).collect();
                places
                    .iter()
                    .map(|&(ciphertext, slot)| clear[ciphertext][slot] as i16)
                    .collect()
            }
        };
        let candidates = Candidates {
            frame: header.number,
            bits: &bits,
            positions: &sent.positions,
            widths: &sent.widths,
            predictions: &sent.predictions,
            masked,
        };
        let candidates = current.audited.then_some(&candidates);
        current.commitment.frame(payload, candidates);
        let remainder = Remainder {
            contract: current.contract.into(),
            ticket: current.ticket,
            frame: header.number,
            sealed: remainder.to_vec().into(),
        };
        Ok((current.joiner.join(&values)?, header, remainder))
    }

    /// Reads the end of a segment: nothing of it is missing, and its owner commits to what was
    /// received. What the owner has signed is for the third party, see
    /// [`Receipt`](crate::protocol::Receipt).
    pub fn end(&mut self, payload: &[u8]) -> Result<Signed, Error> {
        let current = self.current.take();
        let current = current.ok_or(Error::Order("the end of no segment"))?;
        let signed: Signed =
            protocol::decode(payload).map_err(|_| Error::Form("the end of a segment"))?;
        let end: SegmentEnd = signed.verify(&[&current.owner])?;
        let promised = current.commitment.promised();
        if end.frames != promised.frames {
            return Err(Error::Order("frames are missing at the end of a segment"));
        }
        let expected = SegmentEnd {
            stream: current.head.stream,
            segment: current.head.segment,
            frames: promised.frames,
            commitment: promised.digest().into(),
            contract: current.contract.into(),
            ticket: current.ticket,
        };
        if end != expected {
            return Err(Error::Commitment);
        }
        let next = current.head.segment + 1;
        self.next = Some((current.contract, *current.head.stream, next));
        Ok(signed)
    }

    /// Whether the stream stopped in the middle of a segment.
    pub fn is_open(&self) -> bool {
        self.current.is_some()
    }
}
