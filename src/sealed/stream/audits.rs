// SPDX-License-Identifier: MPL-2.0
//! Audits of owners who are honest, and of owners who are not.

use super::evidence::Frames;
use super::malice::{promised, recover, relabel};
use super::message::Kind;
use super::tests::{WORLD, messages, picture};
use super::*;
use crate::homomorphic::oblivious::{make_labels, randomiser_bits};
use crate::homomorphic::packed::{Base, Randomiser};
use crate::protocol::{AUDIT_PIECES, Challenge, Opening, Promised, Signed};
use crate::sealed::{Chroma, Split, Splitter};
use crate::watermark::{Key, Layout, Word, carried_bits};

const SIZE: [usize; 2] = [320, 240];
const SEED: [u8; 32] = [77; 32];
const FRAMES: usize = 20;

/// What an owner has sent, and what it has kept.
struct Sent {
    messages: Vec<(Kind, Vec<u8>)>,
    evidence: Evidence,
}

fn sent() -> Sent {
    let world = &*WORLD;
    let mut sealer = Sealer::new(world.owner.clone()).unwrap();
    let prepared = world.prepared_of(Mode::Oblivious, SEED, Word(12345 << 64 | 678), SIZE);
    let mut out = sealer.begin(prepared, Chroma::I420, (10, 1), 0).unwrap();
    for n in 0..FRAMES {
        out.extend(sealer.frame(&picture(n), None, None).unwrap());
    }
    let (end, summary) = sealer.end().unwrap();
    out.extend(end);
    let evidence = summary.evidence.unwrap();
    assert_eq!(summary.commitment, evidence.promised.digest());
    let messages = messages(&out);
    assert_eq!(promised(&messages), evidence.promised);
    Sent { messages, evidence }
}

impl Sent {
    /// What its owner has to commit to and to keep, if it sends this instead.
    fn instead(&mut self, change: impl FnOnce(&mut Vec<(Kind, Vec<u8>)>)) {
        change(&mut self.messages);
        let evidence = &mut self.evidence;
        evidence.promised = promised(&self.messages);
        evidence.head = self.messages[0].1.clone();
        evidence.frames = Frames::new().unwrap();
        for (_, payload) in self
            .messages
            .iter()
            .filter(|(kind, _)| *kind == Kind::Frame)
        {
            evidence.frames.add(payload).unwrap();
        }
    }

    /// The pieces that this seed draws.
    fn open(&mut self, seed: [u8; 32]) -> (Challenge, Opening) {
        let challenge = challenge(&self.evidence.promised, seed);
        let signed = Signed::new(&challenge).sign::<Challenge>(&WORLD.ttp);
        let opening = self.evidence.open(&signed).unwrap();
        (challenge, opening)
    }

    /// The labels of the segment.
    fn cover(&self, change: impl Fn(&mut Split)) -> Vec<Vec<u8>> {
        let agreement = WORLD.agreement(Mode::Oblivious);
        let key = agreement.key();
        let base = Base::derive(key, &WORLD.contract.base_seed, &WORLD.id());
        let randomiser = Randomiser::new(key, &base, randomiser_bits(key)).unwrap();
        let bytes = self
            .evidence
            .ciphertexts
            .chunks_exact(key.ciphertext_bytes());
        let ticket: Vec<_> = bytes.map(|c| key.parse(c).unwrap()).collect();
        let (pairs, _) = make_labels(key, &ticket, &randomiser, &self.evidence.seed).unwrap();
        let settings = WORLD.contract.settings().unwrap();
        let layout = Layout::new(&Key::from_bytes(SEED), 0, &settings, SIZE[0], SIZE[1]);
        let bits = carried_bits(&settings, SIZE[0], SIZE[1]);
        let geometry = picture(0).geometry();
        let splitter = Splitter::new(geometry, &settings, Some(&layout)).unwrap();
        let mut splitter = splitter.with_loss(WORLD.contract.loss).unwrap();
        let mut masked = Vec::new();
        for n in 0..FRAMES {
            let mut split = splitter.split(&picture(n), n == 0).unwrap();
            change(&mut split);
            let bits: Vec<u8> = split.positions.iter().map(|&p| bits[p as usize]).collect();
            let (values, deltas) = (&split.values, &split.deltas);
            masked.push(pairs.mask(n as u64, &bits, &split.widths, values, deltas));
        }
        masked
    }

    /// Sends other candidates.
    fn candidates(&mut self, change: impl Fn(&mut Split)) {
        let other = self.cover(change);
        self.instead(|messages| {
            let head = messages[0].1.clone();
            let frames = messages.iter_mut().filter(|(kind, _)| *kind == Kind::Frame);
            for ((_, payload), other) in frames.zip(other) {
                *payload = recover(&head, payload, |masked| *masked = other);
            }
        });
    }
}

fn challenge(promised: &Promised, seed: [u8; 32]) -> Challenge {
    Challenge {
        contract: WORLD.id().into(),
        ticket: 7,
        commitment: promised.digest().into(),
        seed: seed.into(),
        until_ms: 0,
    }
}

fn judge(challenge: &Challenge, opening: &Opening) -> Result<Found, Fault> {
    let question = Question {
        challenge,
        contract: &WORLD.contract,
        key: WORLD.secret.public(),
        size: SIZE.map(|side| side as u32),
        seed: &SEED,
        frames: FRAMES as u64,
    };
    question.judge(opening).unwrap()
}

/// What becomes of an audit with the pieces of this seed.
fn audit(sent: &mut Sent, seed: [u8; 32]) -> Result<Found, Fault> {
    let (challenge, opening) = sent.open(seed);
    judge(&challenge, &opening)
}

#[test]
fn an_honest_owner_passes_whatever_is_drawn() {
    let mut sent = sent();
    let mut all = Found::default();
    for n in 0..6 {
        let found = audit(&mut sent, [n; 32]).unwrap();
        all.places += found.places;
        all.marks += found.marks;
        all.made += found.made;
    }
    // Drawn are 16 pieces of up to 256 places; one place in ten or more of a small picture is a mark.
    assert!(all.places > 6 * 16 * 128, "{all:?}");
    assert!(
        all.marks > all.places / 100 && all.made > all.marks / 2,
        "{all:?}"
    );
    // Again the same.
    assert_eq!(audit(&mut sent, [1; 32]), audit(&mut sent, [1; 32]));
}

#[test]
fn a_label_that_does_not_follow_from_the_ticket_is_found_always() {
    let mut sent = sent();
    sent.instead(|messages| {
        let head = &mut messages[0].1;
        // Two ciphertexts of labels change places: each is one, and signed.
        let bytes = WORLD.secret.public().ciphertext_bytes();
        *head = relabel(head, |labels| {
            let (first, rest) = labels.split_at_mut(bytes);
            first.swap_with_slice(&mut rest[..bytes]);
        });
    });
    assert_eq!(audit(&mut sent, [1; 32]), Err(Fault::Labels));
    // Nor does another seed explain them.
    sent.evidence.seed = [9; 32].into();
    assert_eq!(audit(&mut sent, [1; 32]), Err(Fault::Labels));
    // Ciphertexts that are not the ticket's.
    sent.evidence.ciphertexts[5] ^= 1;
    assert_eq!(audit(&mut sent, [1; 32]), Err(Fault::Ticket));
}

/// Noise in some pieces is found when one of them is drawn, so of a fraction f with a probability of
/// 1 − (1 − f)^16 or more.
#[test]
fn garbled_candidates_are_found_when_they_are_drawn() {
    let leaves = |sent: &mut Sent| {
        let mut leaves = Vec::new();
        let take = |piece: &[u8]| leaves.push(blake3::hash(piece));
        sent.evidence.each(take).unwrap();
        leaves
    };
    for bad in [1, 4, 16] {
        let mut sent = sent();
        let before = leaves(&mut sent);
        let masked = sent.cover(|_| ());
        sent.instead(|messages| {
            let head = messages[0].1.clone();
            // In the first frame, here and there a candidate.
            messages[1].1 = recover(&head, &messages[1].1, |sent| {
                assert_eq!(*sent, masked[0]);
                let each = sent.len() / bad;
                (0..bad).for_each(|i| sent[i * each + each / 2] ^= 0x55);
            });
        });
        let after = leaves(&mut sent);
        let differ = |&i: &usize| before[i] != after[i];
        let garbled: Vec<u64> = (0..before.len()).filter(differ).map(|i| i as u64).collect();
        assert!((1..=bad).contains(&garbled.len()), "{garbled:?}");
        let seed = |n: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            bytes
        };
        let pieces = before.len() as u64;
        let hit = |n: u32| {
            let drawn = crate::protocol::drawn(&seed(n), pieces);
            drawn.iter().any(|piece| garbled.contains(piece))
        };
        for n in 0..6 {
            assert_eq!(
                audit(&mut sent, seed(n)).is_err(),
                hit(n),
                "{bad}, seed {n}"
            );
        }
        let rounds = 3000;
        let found = (0..rounds).filter(|n| hit(*n)).count() as f64 / f64::from(rounds);
        let f = garbled.len() as f64 / pieces as f64;
        let expected = 1.0 - (1.0 - f).powi(AUDIT_PIECES as i32);
        println!(
            "{} of {pieces} pieces: {found:.3}, bound {expected:.3}",
            garbled.len()
        );
        assert!(found > expected - 0.03, "{found}, {expected}");
    }
}

#[test]
fn marks_that_are_none_are_found() {
    // Turned bits: what stands for a 0 stands where a 1 should, and the other way round.
    let mut turned = sent();
    turned.candidates(|split| {
        for (value, delta) in split.values.iter_mut().zip(&mut split.deltas) {
            *value += *delta;
            *delta = -*delta;
        }
    });
    assert_eq!(audit(&mut turned, [1; 32]), Err(Fault::Marked));
    // Smaller steps than agreed on.
    let mut small = sent();
    small.candidates(|split| split.deltas.iter_mut().for_each(|delta| *delta /= 2));
    assert_eq!(audit(&mut small, [1; 32]), Err(Fault::Marked));
    // Marks where there are none: the owner's own pattern.
    let mut own = sent();
    own.candidates(|split| {
        let marked: Vec<bool> = split.deltas.iter().map(|delta| *delta != 0).collect();
        for i in 1..marked.len() {
            if marked[i - 1] && !marked[i] && split.values[i].abs() < 60 {
                split.deltas[i] = if split.values[i] > 0 { -50 } else { 50 };
            }
        }
    });
    assert_eq!(audit(&mut own, [1; 32]), Err(Fault::Unmarked));
    // None at all cannot be told from blocks without room: but it is counted.
    let mut none = sent();
    none.candidates(|split| split.deltas.fill(0));
    assert_eq!(audit(&mut none, [1; 32]).unwrap().made, 0);
}

#[test]
fn what_is_opened_is_what_was_committed_to() {
    let (mut honest, mut liar) = (sent(), sent());
    liar.candidates(|split| split.deltas.iter_mut().for_each(|delta| *delta /= 2));
    // It shows what it should have sent, which is not what it has committed to.
    let (challenge, mut opening) = honest.open([3; 32]);
    let lied = challenge_of(&liar, [3; 32]);
    assert_eq!(judge(&lied, &opening), Err(Fault::Commitment));
    opening.promised = liar.evidence.promised.clone();
    opening.head = liar.evidence.head.clone().into();
    opening.seed = (*liar.evidence.seed).into();
    opening.ciphertexts = liar.evidence.ciphertexts.clone().into();
    assert_eq!(judge(&lied, &opening), Err(Fault::Piece));
    // Other pieces than were drawn, fewer, a changed one.
    let (_, other) = honest.open([4; 32]);
    assert_eq!(judge(&challenge, &other), Err(Fault::Piece));
    let (_, right) = honest.open([3; 32]);
    let mut fewer = right.clone();
    fewer.pieces.pop();
    assert_eq!(judge(&challenge, &fewer), Err(Fault::Piece));
    let mut changed = right.clone();
    let mut bytes = changed.pieces[2].bytes.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    changed.pieces[2].bytes = bytes.into();
    assert_eq!(judge(&challenge, &changed), Err(Fault::Piece));
    assert!(judge(&challenge, &right).is_ok());
    // Another owner's head.
    let mut foreign = right.clone();
    let signed: Signed = crate::protocol::decode(&foreign.head).unwrap();
    let head: crate::protocol::SegmentHead = signed.unverified().unwrap();
    let forged = Signed::new(&head).sign::<crate::protocol::SegmentHead>(&WORLD.cloud);
    foreign.head = crate::protocol::encode(&forged).into();
    foreign.promised.head = <[u8; 32]>::from(blake3::hash(&foreign.head)).into();
    let of_it = super::audits::challenge(&foreign.promised, [3; 32]);
    assert_eq!(judge(&of_it, &foreign), Err(Fault::Head));
    // What another third party asks is not answered.
    let signed = Signed::new(&challenge).sign::<Challenge>(&WORLD.cloud);
    assert!(honest.evidence.open(&signed).is_err());
}

fn challenge_of(sent: &Sent, seed: [u8; 32]) -> Challenge {
    challenge(&sent.evidence.promised, seed)
}

/// What is kept is what was sent: nothing in it can be read without the segment's key.
#[test]
fn the_cloud_finds_the_same_commitment_and_no_other() {
    let sent = sent();
    let open = |end: &[u8]| {
        let mut opener = WORLD.opener();
        let head = opener.segment(&sent.messages[0].1, WORLD.contracts(), 1500);
        head.unwrap();
        for (_, payload) in &sent.messages[1..=FRAMES] {
            opener.frame(payload).unwrap();
        }
        opener.end(end)
    };
    let end = &sent.messages[FRAMES + 1].1;
    assert!(open(end).is_ok());
    let signed: Signed = crate::protocol::decode(end).unwrap();
    let mut other: super::message::SegmentEnd = signed.unverified().unwrap();
    other.commitment = [1; 32].into();
    let other = Signed::new(&other).sign::<super::message::SegmentEnd>(&WORLD.owner);
    let refused = open(&crate::protocol::encode(&other));
    assert!(matches!(refused, Err(Error::Commitment)));
}
