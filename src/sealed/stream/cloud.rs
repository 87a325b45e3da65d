// SPDX-License-Identifier: MPL-2.0
//! The cloud's side: from a sealed stream to marked frames.
//!
//! Nothing that the owner can see depends on which labels or values come out: an owner that sends
//! garbage under one of two labels must not learn which of them was opened. Labels are taken
//! whatever they are, values are cut to what fits, and what is refused is refused for what everyone
//! can see: signatures, lengths, order.

use super::super::{Geometry, Joiner, Picture};
use super::message::{self, FrameHeader, SegmentEnd};
use super::owner::nonce;
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
use sha2::{Digest, Sha256};
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
    frames: u64,
    commitment: Sha256,
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
}

/// Opens sealed streams, for one cloud and one stream at a time.
pub struct Opener {
    identity: Arc<Identity>,
    secret: Arc<SecretKey>,
    current: Option<Current>,
    /// Contract, stream and number of the segment that may come next.
    next: Option<([u8; 32], [u8; 16], u32)>,
}

impl Opener {
    /// With the cloud's identity and Paillier key.
    pub fn new(identity: Arc<Identity>, secret: Arc<SecretKey>) -> Self {
        Self {
            identity,
            secret,
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
            frames: 0,
            commitment: Sha256::new(),
        });
        Ok(opened)
    }

    /// Opens a frame: the marked picture, and the owner's remainders to keep beside it.
    pub fn frame(&mut self, payload: &[u8]) -> Result<(&Picture, FrameHeader, Remainder), Error> {
        let current = self.current.as_mut();
        let current = current.ok_or(Error::Order("a frame outside of a segment"))?;
        let (header, sealed) = FrameHeader::split(payload)?;
        if header.number != current.frames {
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
        current.commitment.update(Sha256::digest(payload));
        current.frames += 1;
        let remainder = Remainder {
            contract: current.contract.into(),
            ticket: current.ticket,
            frame: header.number,
            sealed: remainder.to_vec().into(),
        };
        Ok((current.joiner.join(&values)?, header, remainder))
    }

    /// Reads the end of a segment: nothing of it is missing.
    pub fn end(&mut self, payload: &[u8]) -> Result<(), Error> {
        let current = self.current.take();
        let current = current.ok_or(Error::Order("the end of no segment"))?;
        let signed: Signed =
            protocol::decode(payload).map_err(|_| Error::Form("the end of a segment"))?;
        let end: SegmentEnd = signed.verify(&[&current.owner])?;
        let commitment: [u8; 32] = current.commitment.finalize().into();
        let expected = SegmentEnd {
            stream: current.head.stream,
            segment: current.head.segment,
            frames: current.frames,
            commitment: commitment.into(),
        };
        if end != expected {
            return Err(Error::Order("frames are missing at the end of a segment"));
        }
        let next = current.head.segment + 1;
        self.next = Some((current.contract, *current.head.stream, next));
        Ok(())
    }

    /// Whether the stream stopped in the middle of a segment.
    pub fn is_open(&self) -> bool {
        self.current.is_some()
    }
}
