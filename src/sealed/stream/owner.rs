// SPDX-License-Identifier: MPL-2.0
//! The owner's side: from tickets to a sealed stream.

use super::super::{Chroma, Geometry, Picture, Split, Splitter};
use super::evidence::{Evidence, Frames};
use super::message::{self, FrameHeader, Kind, SegmentEnd};
use super::pieces::{Candidates, Commitment};
use super::remainder::Writer;
use super::{Error, KEY_BYTES, arrange, key_info, packing, ticket_ciphertexts};
use crate::homomorphic::oblivious::{LabelPairs, make_labels, randomiser_bits};
use crate::homomorphic::packed::{
    Base, Ciphertext, PublicKey, Randomiser, SignTables, TICKET_EXPONENT_BITS, rerandomise_bits,
};
use crate::homomorphic::ticket::PLANS;
use crate::homomorphic::{self, Packing};
use crate::identity::{Identity, PublicId};
use crate::protocol::{self, Agreed, Mode, SegmentHead, Signed, TicketHead, TicketSecret, Video};
use crate::watermark::{Key, Layout, carried_bits};
use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use zeroize::{Zeroize as _, Zeroizing};

/// A contract as its owner works with it: with the tables of its randomisers.
pub struct Agreement {
    agreed: Agreed,
    key: PublicKey,
    randomiser: Randomiser,
    mode: Mode,
}

impl Agreement {
    /// `key` is the cloud's, after its proof was verified. Makes tables, which takes a few ten
    /// milliseconds.
    pub fn new(agreed: Agreed, key: PublicKey, mode: Mode) -> Result<Self, Error> {
        let base = Base::derive(&key, &agreed.contract.base_seed, &agreed.id);
        let bits = match mode {
            Mode::Oblivious => randomiser_bits(&key),
            Mode::Packed => {
                let slots = packing(&key)?.slots() as u32;
                rerandomise_bits(&key, TICKET_EXPONENT_BITS, 0, 2 * slots)
            }
        };
        Ok(Self {
            randomiser: Randomiser::new(&key, &base, bits)?,
            agreed,
            key,
            mode,
        })
    }

    /// The contract.
    pub fn agreed(&self) -> &Agreed {
        &self.agreed
    }

    /// The cloud's key.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }
}

/// A ticket, opened and checked.
#[derive(Clone)]
pub struct Ticket {
    /// What everyone may know.
    pub head: TicketHead,
    /// The same, signed by the third party: goes to the cloud.
    pub signed: Signed,
    /// Key of positions and dithers (layout 0).
    pub key: Key,
    /// The bits under the cloud's key, see [`crate::homomorphic::ticket`].
    pub ciphertexts: Vec<Ciphertext>,
}

impl Ticket {
    /// Checks a grant: signed by the contract's third party, for this contract and mode, and its
    /// secret the one that was signed. `secret` is the encoded [`TicketSecret`], already unsealed;
    /// `key` the cloud's.
    pub fn new(
        agreed: &Agreed,
        key: &PublicKey,
        mode: Mode,
        signed: Signed,
        secret: &[u8],
    ) -> Result<Self, Error> {
        let head: TicketHead = signed.verify(&[&agreed.contract.ttp.sign])?;
        if *head.contract != agreed.id {
            return Err(Error::Ticket("it is for another contract"));
        }
        if head.mode != mode {
            return Err(Error::Ticket("it is for the other mode"));
        }
        if *head.secret != <[u8; 32]>::from(Sha256::digest(secret)) {
            return Err(Error::Ticket("its secret is not the one that was signed"));
        }
        let form = Error::Form("a ticket's secret");
        let mut secret: TicketSecret = protocol::decode(secret).map_err(|_| form)?;
        let ticket_key = Key::from_bytes(*secret.seed);
        secret.seed.zeroize();
        let bytes = key.ciphertext_bytes();
        if secret.ciphertexts.len() != ticket_ciphertexts(mode, key)? * bytes {
            return Err(Error::Ticket("it holds another number of ciphertexts"));
        }
        let ciphertexts = secret.ciphertexts.chunks_exact(bytes);
        let ciphertexts = ciphertexts.map(|c| key.parse(c));
        Ok(Self {
            ciphertexts: ciphertexts.collect::<Result<_, _>>()?,
            key: ticket_key,
            head,
            signed,
        })
    }
}

/// How candidates of a segment travel.
enum Cover {
    Labels(LabelPairs),
    Slots {
        packing: Packing,
        tables: Vec<SignTables>,
    },
}

/// All that a segment needs: made off the streaming thread.
pub struct Prepared {
    agreement: Arc<Agreement>,
    head: TicketHead,
    signed: Signed,
    layout: Layout,
    bits: Vec<u8>,
    cover: Cover,
    labels: Vec<u8>,
    /// What labels were drawn from.
    seed: Zeroizing<[u8; 32]>,
    /// The ticket's, if they are to be shown again.
    ciphertexts: Vec<u8>,
    key: Zeroizing<[u8; KEY_BYTES]>,
}

impl Prepared {
    /// Draws a segment's key and labels, or computes its tables: some ten to a hundred
    /// milliseconds.
    pub fn new(agreement: Arc<Agreement>, ticket: Ticket) -> Result<Self, Error> {
        let [width, height] = [ticket.head.width, ticket.head.height].map(|side| side as usize);
        let layout = Layout::new(&ticket.key, 0, &agreement.agreed.settings, width, height);
        let bits = carried_bits(&agreement.agreed.settings, width, height);
        let mut labels = Vec::new();
        let random = || {
            let mut bytes = Zeroizing::new([0; 32]);
            let drawn = getrandom::fill(&mut *bytes);
            drawn.map_err(|_| homomorphic::Error::Random)?;
            Ok::<_, Error>(bytes)
        };
        let seed = random()?;
        let cover = match agreement.mode {
            Mode::Oblivious => {
                let (key, randomiser) = (&agreement.key, &agreement.randomiser);
                let made = make_labels(key, &ticket.ciphertexts, randomiser, &seed);
                let (pairs, ciphertexts) = made?;
                for ciphertext in &ciphertexts {
                    labels.extend_from_slice(&agreement.key.to_bytes(ciphertext));
                }
                Cover::Labels(pairs)
            }
            Mode::Packed => {
                let packing = packing(&agreement.key)?;
                let plans = ticket.ciphertexts.chunks(packing.slots());
                let twice = |plan: &[Ciphertext]| [plan, plan].concat();
                let tables = plans.map(|plan| SignTables::new(&agreement.key, &twice(plan)));
                Cover::Slots {
                    packing,
                    tables: tables.collect::<Result<_, _>>()?,
                }
            }
        };
        let contract = &agreement.agreed.contract;
        let ciphertexts = match contract.is_audited(agreement.mode) {
            true => {
                let each = ticket.ciphertexts.iter();
                each.flat_map(|c| agreement.key.to_bytes(c)).collect()
            }
            false => Vec::new(),
        };
        Ok(Self {
            key: random()?,
            seed,
            ciphertexts,
            agreement,
            head: ticket.head,
            signed: ticket.signed,
            layout,
            bits,
            cover,
            labels,
        })
    }

    /// What everyone may know of its ticket.
    pub fn head(&self) -> &TicketHead {
        &self.head
    }
}

/// What was sent of a segment.
#[derive(Debug)]
pub struct Summary {
    /// The ticket.
    pub ticket: u64,
    /// Frames.
    pub frames: u64,
    /// What was committed to: [`Promised::digest`](crate::protocol::Promised::digest).
    pub commitment: [u8; 32],
    /// Sum of squares of what was sealed of luma less what came.
    pub squares: u64,
    /// What answers an audit, if the contract has any.
    pub evidence: Option<Evidence>,
}

struct Current {
    prepared: Prepared,
    geometry: Geometry,
    splitter: Splitter,
    remainders: Writer,
    cipher: Aes256Gcm,
    /// The head's payload.
    head: Vec<u8>,
    /// What may be asked for.
    kept: Option<Frames>,
    commitment: Commitment,
    squares: u64,
}

/// Makes a sealed stream.
pub struct Sealer {
    identity: Arc<Identity>,
    stream: [u8; 16],
    segment: u32,
    current: Option<Current>,
}

impl Sealer {
    /// A new stream of the contract's owner.
    pub fn new(identity: Arc<Identity>) -> Result<Self, Error> {
        let mut stream = [0; 16];
        getrandom::fill(&mut stream).map_err(|_| homomorphic::Error::Random)?;
        Ok(Self {
            identity,
            stream,
            segment: 0,
            current: None,
        })
    }

    /// Begins a segment, after [`Sealer::end`] if there was one: its first message.
    pub fn begin(
        &mut self,
        prepared: Prepared,
        chroma: Chroma,
        rate: (u32, u32),
        started_ms: u64,
    ) -> Result<Vec<u8>, Error> {
        let agreement = prepared.agreement.clone();
        let (width, height) = (prepared.head.width, prepared.head.height);
        let geometry = Geometry::new(width as usize, height as usize, chroma)?;
        let cloud = PublicId::from(&agreement.agreed.contract.cloud);
        let info = key_info(&agreement.agreed.id, &self.stream, self.segment);
        let head = SegmentHead {
            ticket: prepared.signed.clone(),
            stream: self.stream.into(),
            segment: self.segment,
            video: Video {
                width,
                height,
                chroma: chroma.into(),
                rate,
            },
            key: cloud.seal(&info, &*prepared.key)?.into(),
            labels: prepared.labels.clone().into(),
            started_ms,
        };
        let mut out = Vec::new();
        let signed = Signed::new(&head).sign::<SegmentHead>(&self.identity);
        let head = protocol::encode(&signed);
        message::write(&mut out, Kind::Segment, &head);
        let audited = agreement.agreed.contract.is_audited(agreement.mode);
        self.current = Some(Current {
            geometry,
            splitter: Splitter::new(geometry, &agreement.agreed.settings, Some(&prepared.layout))?
                .with_loss(agreement.agreed.contract.loss)?,
            remainders: Writer::new(&self.identity, agreement.agreed.id, prepared.head.number),
            cipher: Aes256Gcm::new((&*prepared.key).into()),
            commitment: Commitment::new(&head),
            head,
            kept: audited.then(Frames::new).transpose()?,
            squares: 0,
            prepared,
        });
        Ok(out)
    }

    /// A frame of the segment: its message.
    pub fn frame(
        &mut self,
        picture: &Picture,
        pts: Option<u64>,
        duration: Option<u64>,
    ) -> Result<Vec<u8>, Error> {
        let current = self.current.as_mut();
        let current = current.ok_or(Error::Order("a frame before its segment"))?;
        let number = current.commitment.frames();
        let split = current.splitter.split(picture, number == 0)?;
        let bits = current.prepared.bits(&split);
        let masked = current.prepared.cover(number, &split, &bits)?;
        let sent = !split.positions.is_empty();
        // What comes back is what was sealed.
        let sealed = current.splitter.sealed().unwrap_or(picture);
        let remainder =
            current
                .remainders
                .seal(number, sealed, sent, &split.remainders, Split::NONE)?;
        current.squares += split.squares;
        let header = FrameHeader {
            number,
            pts,
            duration,
        };
        let header = header.to_bytes();
        let room = split.rest.len() + masked.len() + remainder.len() + 256;
        let mut out = Vec::with_capacity(room);
        let start = message::begin(&mut out, Kind::Frame);
        out.extend_from_slice(&header);
        let body = out.len();
        message::join_parts(&mut out, [&split.rest, &masked, &remainder]);
        let tag = current
            .cipher
            .encrypt_inout_detached(&nonce(number), &header, (&mut out[body..]).into())
            .map_err(|_| Error::Form("a frame that is too long"))?;
        out.extend_from_slice(&tag);
        message::end(&mut out, start);
        let payload = &out[start..];
        let candidates = Candidates {
            frame: number,
            bits: &bits,
            positions: &split.positions,
            widths: &split.widths,
            predictions: &split.predictions,
            masked: &masked,
        };
        let candidates = current.kept.as_ref().map(|_| &candidates);
        current.commitment.frame(payload, candidates);
        if let Some(kept) = &mut current.kept {
            kept.add(payload)?;
        }
        Ok(out)
    }

    /// Whether so much is kept of the segment that the next should begin.
    pub fn is_full(&self) -> bool {
        let kept = self.current.as_ref().and_then(|c| c.kept.as_ref());
        kept.is_some_and(Frames::are_many)
    }

    /// Ends the segment: its last message, and what it was. `None` if there is none.
    pub fn end(&mut self) -> Option<(Vec<u8>, Summary)> {
        let current = self.current.take()?;
        let promised = current.commitment.promised();
        let agreed = &current.prepared.agreement.agreed;
        let ticket = current.prepared.head.number;
        let end = SegmentEnd {
            stream: self.stream.into(),
            segment: self.segment,
            frames: promised.frames,
            commitment: promised.digest().into(),
            contract: agreed.id.into(),
            ticket,
        };
        self.segment += 1;
        let mut out = Vec::new();
        let signed = Signed::new(&end).sign::<SegmentEnd>(&self.identity);
        message::write(&mut out, Kind::End, &protocol::encode(&signed));
        let summary = Summary {
            ticket,
            frames: promised.frames,
            commitment: promised.digest(),
            squares: current.squares,
            evidence: current.kept.map(|frames| Evidence {
                third: *agreed.contract.ttp.sign,
                contract: agreed.id,
                ticket,
                geometry: current.geometry,
                settings: agreed.settings.clone(),
                loss: agreed.contract.loss,
                bits: current.prepared.bits,
                head: current.head,
                ciphertexts: current.prepared.ciphertexts,
                seed: current.prepared.seed,
                key: current.prepared.key,
                frames,
                promised,
            }),
        };
        Some((out, summary))
    }
}

impl Prepared {
    /// The bits that candidates of a frame would carry.
    fn bits(&self, split: &Split) -> Vec<u8> {
        let bit = |&position: &u32| self.bits[position as usize];
        split.positions.iter().map(bit).collect()
    }

    /// The candidates of a frame, as the cloud gets them.
    fn cover(&self, frame: u64, split: &Split, bits: &[u8]) -> Result<Vec<u8>, Error> {
        match &self.cover {
            Cover::Labels(pairs) => {
                Ok(pairs.mask(frame, bits, &split.widths, &split.values, &split.deltas))
            }
            Cover::Slots { packing, tables } => self.slots(packing, tables, bits, split),
        }
    }

    fn slots(
        &self,
        packing: &Packing,
        tables: &[SignTables],
        bits: &[u8],
        split: &Split,
    ) -> Result<Vec<u8>, Error> {
        let places = arrange::places(packing, bits);
        let count = arrange::ciphertexts(&places);
        let slots = packing.slots();
        let mut values = Zeroizing::new(vec![0i32; count * slots]);
        // Tables have every ticket twice: what is not marked takes it once and its inverse once.
        let mut negative = Zeroizing::new(vec![false; count * 2 * slots]);
        for ciphertext in negative.chunks_exact_mut(2 * slots) {
            ciphertext[slots..].fill(true);
        }
        for (i, (ciphertext, slot)) in places.into_iter().enumerate() {
            values[ciphertext * slots + slot] = split.values[i].into();
            let delta = split.deltas[i];
            let signs = &mut negative[ciphertext * 2 * slots..][..2 * slots];
            signs[slot] = delta < 0;
            signs[slots + slot] = delta <= 0;
        }
        let sums = values
            .chunks_exact(slots)
            .map(|values| packing.pack(values));
        let sums = sums.collect::<Result<Vec<_>, _>>()?;
        let items: Vec<_> = sums
            .into_iter()
            .zip(negative.chunks_exact(2 * slots))
            .collect();
        let agreement = &self.agreement;
        let bytes = agreement.key.ciphertext_bytes();
        let mut out = vec![0; count * bytes];
        for (plan, table) in tables.iter().enumerate() {
            let of_plan = |i: &usize| i % PLANS == plan;
            let own: Vec<usize> = (0..count).filter(of_plan).collect();
            let own_items: Vec<_> = own.iter().map(|&i| items[i].clone()).collect();
            let made = table.combine_many(&own_items, &agreement.randomiser)?;
            for (i, ciphertext) in own.into_iter().zip(made) {
                out[i * bytes..][..bytes].copy_from_slice(&agreement.key.to_bytes(&ciphertext));
            }
        }
        Ok(out)
    }
}

/// A key encrypts one frame of each number.
pub(super) fn nonce(frame: u64) -> Nonce<<Aes256Gcm as aes_gcm::aead::AeadCore>::NonceSize> {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&frame.to_be_bytes());
    bytes.into()
}

/// Say nothing of what they hold.
impl std::fmt::Debug for Agreement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Agreement({})", protocol::hex(&self.agreed.id))
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ticket({})", self.head.number)
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Prepared({})", self.head.number)
    }
}
