// SPDX-License-Identifier: MPL-2.0
use super::super::{Chroma, Geometry, Joiner, Picture, Split, Splitter};
use super::message::{self, Kind};
use super::*;
use crate::homomorphic::packed::{Base, Encryptor, Randomiser, SecretKey, TICKET_EXPONENT_BITS};
use crate::homomorphic::retrieval;
use crate::homomorphic::ticket;
use crate::identity::Identity;
use crate::luma::{Luma, Shape};
use crate::protocol::{Agreed, Contract, Signed, TicketHead, TicketSecret, encode};
use crate::watermark::{Key, Layout, Word, read};
use sha2::{Digest, Sha256};
use std::sync::{Arc, LazyLock};

/// Parties with keys of 2048 bits, made once.
pub(super) struct World {
    pub(super) owner: Arc<Identity>,
    pub(super) cloud: Arc<Identity>,
    pub(super) ttp: Identity,
    pub(super) secret: Arc<SecretKey>,
    pub(super) contract: Contract,
    pub(super) signed: Signed,
}

pub(super) static WORLD: LazyLock<World> = LazyLock::new(|| {
    let [owner, cloud, ttp] = [1, 2, 3].map(|n| Identity::from_secret([n; 32]).unwrap());
    let secret = SecretKey::generate(2048).unwrap();
    let contract = Contract {
        audit: 1000,
        ..Contract::new(
            owner.public(),
            cloud.public(),
            ttp.public(),
            [0; 32],
            [5; 32],
        )
    };
    let signed = Signed::new(&contract)
        .sign::<Contract>(&owner)
        .sign::<Contract>(&cloud)
        .sign::<Contract>(&ttp);
    World {
        owner: Arc::new(owner),
        cloud: Arc::new(cloud),
        ttp,
        secret: Arc::new(secret),
        contract,
        signed,
    }
});

fn open_ticket(agreement: &Agreement, head: Signed, secret: &[u8]) -> Result<Ticket, Error> {
    Ticket::new(
        agreement.agreed(),
        agreement.key(),
        Mode::Oblivious,
        head,
        secret,
    )
}

const SEED: [u8; 32] = [77; 32];
const WORD: Word = Word(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);
const SIZE: [usize; 2] = [320, 240];

impl World {
    pub(super) fn id(&self) -> [u8; 32] {
        self.signed.id::<Contract>()
    }

    pub(super) fn agreement(&self, mode: Mode) -> Arc<Agreement> {
        let key = self.secret.public().clone();
        let agreed = Agreed::check(self.signed.clone()).unwrap();
        Arc::new(Agreement::new(agreed, key, mode).unwrap())
    }

    /// What the third party gives.
    fn grant(&self, mode: Mode, contract: [u8; 32]) -> (Signed, Vec<u8>) {
        self.grant_of(mode, contract, SEED, WORD, SIZE)
    }

    /// … with this seed and word, for frames of this size.
    pub(super) fn grant_of(
        &self,
        mode: Mode,
        contract: [u8; 32],
        seed: [u8; 32],
        word: Word,
        size: [usize; 2],
    ) -> (Signed, Vec<u8>) {
        let key = self.secret.public();
        let base = Base::derive(key, &self.contract.base_seed, &self.id());
        let encryptor = Encryptor::new(Randomiser::new(key, &base, TICKET_EXPONENT_BITS).unwrap());
        let ciphertexts = match mode {
            Mode::Oblivious => ticket::for_labels(&encryptor, word),
            Mode::Packed => ticket::for_slots(&encryptor, &packing(key).unwrap(), word, 100),
        };
        let ciphertexts: Vec<Vec<u8>> = ciphertexts
            .unwrap()
            .iter()
            .map(|c| key.to_bytes(c))
            .collect();
        let secret = encode(&TicketSecret {
            seed: seed.into(),
            ciphertexts: ciphertexts.concat().into(),
        });
        let head = TicketHead {
            contract: contract.into(),
            number: 7,
            mode,
            width: size[0] as u32,
            height: size[1] as u32,
            issued_ms: 1000,
            expires_ms: 2000,
            secret: <[u8; 32]>::from(Sha256::digest(&secret)).into(),
        };
        (Signed::new(&head).sign::<TicketHead>(&self.ttp), secret)
    }

    fn prepared(&self, mode: Mode) -> Prepared {
        self.prepared_of(mode, SEED, WORD, SIZE)
    }

    pub(super) fn prepared_of(
        &self,
        mode: Mode,
        seed: [u8; 32],
        word: Word,
        size: [usize; 2],
    ) -> Prepared {
        let agreement = self.agreement(mode);
        let (head, secret) = self.grant_of(mode, self.id(), seed, word, size);
        let ticket = Ticket::new(agreement.agreed(), agreement.key(), mode, head, &secret).unwrap();
        Prepared::new(agreement, ticket).unwrap()
    }

    pub(super) fn opener(&self) -> Opener {
        Opener::new(self.cloud.clone(), self.secret.clone(), u64::MAX)
    }

    pub(super) fn contracts(&self) -> impl FnOnce(&[u8; 32]) -> Option<Contract> {
        let (id, contract) = (self.id(), self.contract.clone());
        move |asked| (*asked == id).then_some(contract)
    }
}

/// Something like a camera's picture, a little different in every frame.
pub(super) fn picture(n: usize) -> Picture {
    let geometry = Geometry::new(SIZE[0], SIZE[1], Chroma::I420).unwrap();
    let mut picture = Picture::new(geometry);
    for plane in 0..3 {
        let [width, _] = geometry.plane(plane);
        for (i, sample) in picture.plane_mut(plane).iter_mut().enumerate() {
            let (x, y) = ((i % width) as f64, (i / width) as f64);
            let moved = if y > 100.0 { n as f64 * 3.0 } else { 0.0 };
            let wave = ((x + moved) / 17.0).sin() * 40.0 + (y / 23.0).cos() * 30.0;
            let noise = (i * 7919 + (i / 77) * 104_729) % 11;
            *sample = (128.0 + wave + noise as f64) as u8;
        }
    }
    picture
}

/// What is sealed of each: no mark changes it.
pub(super) fn sealed_as(pictures: &[Picture]) -> Vec<Picture> {
    let settings = WORLD.contract.settings().unwrap();
    let splitter = Splitter::new(pictures[0].geometry(), &settings, None).unwrap();
    let mut splitter = splitter.with_loss(WORLD.contract.loss).unwrap();
    let seal = |picture: &Picture| {
        splitter.split(picture, false).unwrap();
        splitter.sealed().unwrap().clone()
    };
    pictures.iter().map(seal).collect()
}

pub(super) fn messages(mut bytes: &[u8]) -> Vec<(Kind, Vec<u8>)> {
    let mut out = Vec::new();
    while let Some(message) = message::read(bytes).unwrap() {
        out.push((message.kind, message.payload.to_vec()));
        bytes = &bytes[message.length..];
    }
    assert!(bytes.is_empty());
    out
}

/// A stream of one segment with so many frames.
fn sealed(mode: Mode, frames: usize) -> Vec<u8> {
    let world = &*WORLD;
    let mut sealer = Sealer::new(world.owner.clone()).unwrap();
    let mut out = sealer
        .begin(world.prepared(mode), Chroma::I420, (10, 1), 1234)
        .unwrap();
    for n in 0..frames {
        let pts = n as u64 * 100_000_000;
        let frame = sealer.frame(&picture(n), Some(pts), Some(100_000_000));
        out.append(&mut frame.unwrap());
    }
    let (mut end, summary) = sealer.end().unwrap();
    assert_eq!((summary.ticket, summary.frames), (7, frames as u64));
    out.append(&mut end);
    out
}

fn open(stream: &[u8]) -> Result<Vec<(Picture, Remainder)>, Error> {
    let world = &*WORLD;
    let mut opener = world.opener();
    let mut out = Vec::new();
    for (kind, payload) in messages(stream) {
        match kind {
            Kind::Segment => {
                let opened = opener.segment(&payload, world.contracts(), 1500)?;
                assert_eq!((opened.ticket, opened.started_ms), (7, 1234));
            }
            Kind::Frame => {
                let (picture, header, remainder) = opener.frame(&payload)?;
                assert_eq!(header.pts, Some(header.number * 100_000_000));
                out.push((picture.clone(), remainder));
            }
            Kind::End => {
                opener.end(&payload)?;
            }
        }
    }
    assert!(!opener.is_open());
    Ok(out)
}

#[test]
fn the_cloud_gets_marked_frames_and_the_owner_its_original_back() {
    let world = &*WORLD;
    for (mode, frames) in [(Mode::Oblivious, 5), (Mode::Packed, 2)] {
        let stream = sealed(mode, frames);
        let opened = open(&stream).unwrap();
        assert_eq!(opened.len(), frames);
        let settings = world.contract.settings().unwrap();
        let layout = Layout::new(&Key::from_bytes(SEED), 0, &settings, SIZE[0], SIZE[1]);
        let pictures: Vec<Picture> = (0..frames).map(picture).collect();
        let originals = sealed_as(&pictures);
        let mut tally = [0.0; 128];
        let mut reader = RemainderReader::new(&world.owner, world.id(), layout.marks().len());
        for (n, (marked, remainder)) in opened.iter().enumerate() {
            let original = &originals[n];
            assert!(*original != pictures[n], "something is lost");
            assert_eq!(
                marked.planes()[1..],
                original.planes()[1..],
                "chroma is not touched"
            );
            let shape = Shape::plane(SIZE[0], SIZE[1]);
            let luma = Luma::new(&marked.planes()[0], shape).unwrap();
            let votes = read(&luma, &layout);
            tally
                .iter_mut()
                .zip(votes.sums())
                .for_each(|(sum, vote)| *sum += vote);
            // Retrieval from a lossless archive.
            let remainders = reader.open(remainder).unwrap().remainders;
            let signs = signs(&remainders);
            let masks =
                retrieval::masks(&[9; 32], n as u64, &settings, SIZE, &layout, WORD, &signs);
            let geometry = marked.geometry();
            let mut splitter = Splitter::new(geometry, &settings, None).unwrap();
            let split: Split = splitter.split(marked, true).unwrap();
            let sums = retrieval::add(&split.values, &masks.unwrap()).unwrap();
            let mut values = retrieval::subtract(&[9; 32], n as u64, &sums);
            for (mark, remainder) in layout.marks().iter().zip(&remainders) {
                let at = crate::watermark::position(&settings, SIZE[0], mark).unwrap();
                values[at] += i16::from(remainder.unwrap_or(0));
            }
            let mut joiner = Joiner::new(geometry, &settings).unwrap();
            joiner.read(&split.rest).unwrap();
            assert!(
                joiner.join(&values).unwrap() == original,
                "{mode:?}, frame {n}"
            );
        }
        let bits = tally;
        let wrong = (0..128)
            .filter(|&bit| (bits[bit] > 0.0) != WORD.bit(bit))
            .count();
        // One or two marks a bit, some of them without room.
        assert!(wrong <= 4, "{mode:?}: {wrong} wrong bits");
    }
}

#[test]
fn what_was_changed_replayed_or_meant_for_others_is_refused() {
    let world = &*WORLD;
    let stream = sealed(Mode::Oblivious, 3);
    let all = messages(&stream);
    let segment = &all[0].1;
    let mut opener = world.opener();
    let refused = |opener: &mut Opener, payload: &[u8], now| {
        opener.segment(payload, world.contracts(), now).unwrap_err()
    };
    assert!(
        matches!(refused(&mut opener, segment, 3000), Error::Ticket(_)),
        "expired"
    );
    for at in [10, segment.len() / 2, segment.len() - 10] {
        let mut changed = segment.clone();
        changed[at] ^= 1;
        refused(&mut opener, &changed, 1500);
    }
    let other = opener.segment(segment, |_| None, 1500);
    assert!(matches!(other, Err(Error::UnknownContract(_))));
    assert!(matches!(opener.frame(&all[1].1), Err(Error::Order(_))));
    opener.segment(segment, world.contracts(), 1500).unwrap();
    assert!(matches!(opener.frame(&all[2].1), Err(Error::Order(_))));
    let mut changed = all[1].1.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert!(matches!(opener.frame(&changed), Err(Error::Changed)));
    opener.frame(&all[1].1).unwrap();
    assert!(matches!(opener.frame(&all[1].1), Err(Error::Order(_))));
    assert!(
        matches!(opener.end(&all[4].1), Err(Error::Order(_))),
        "cut short"
    );

    // Tickets.
    let agreement = world.agreement(Mode::Oblivious);
    let (head, secret) = world.grant(Mode::Oblivious, [8; 32]);
    assert!(matches!(
        open_ticket(&agreement, head, &secret),
        Err(Error::Ticket(_))
    ));
    let (head, secret) = world.grant(Mode::Packed, world.id());
    assert!(matches!(
        open_ticket(&agreement, head, &secret),
        Err(Error::Ticket(_))
    ));
    let (head, mut secret) = world.grant(Mode::Oblivious, world.id());
    secret[50] ^= 1;
    assert!(matches!(
        open_ticket(&agreement, head, &secret),
        Err(Error::Ticket(_))
    ));
    let (head, secret) = world.grant(Mode::Oblivious, world.id());
    let forged: TicketHead = head.unverified().unwrap();
    let forged = Signed::new(&forged).sign::<TicketHead>(&world.owner);
    assert!(matches!(
        open_ticket(&agreement, forged, &secret),
        Err(Error::Document(_))
    ));
}
