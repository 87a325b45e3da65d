// SPDX-License-Identifier: MPL-2.0
//! Parties that lie.

use super::message::{self, FrameHeader, Kind, SegmentEnd};
use super::owner::nonce;
use super::pieces::{Candidates, Commitment};
use super::secrecy::{body, cipher};
use super::tests::{WORLD, messages, sealed_as};
use super::*;
use crate::homomorphic::packed::{Base, Ciphertext, Encryptor, Randomiser};
use crate::homomorphic::{AdditiveScheme as _, Plaintext};
use crate::protocol::{Promised, SegmentHead, Signed, TicketHead, decode, encode};
use crate::sealed::{Chroma, Geometry, Joiner, Picture};
use crate::watermark::{Word, carried_bits};
use aes_gcm::aead::{Aead as _, Payload};
use proptest::prelude::*;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

const SIZE: [usize; 2] = [64, 64];
const SEED: [u8; 32] = [3; 32];

fn picture(n: usize) -> Picture {
    let geometry = Geometry::new(SIZE[0], SIZE[1], Chroma::I420).unwrap();
    let mut picture = Picture::new(geometry);
    for plane in 0..3 {
        for (i, sample) in picture.plane_mut(plane).iter_mut().enumerate() {
            *sample = (90 + (i * 7 + i / 64 * 3 + n * 5) % 60) as u8;
        }
    }
    picture
}

/// A stream of one segment, as messages.
fn stream(mode: Mode, word: Word, frames: usize) -> Vec<(Kind, Vec<u8>)> {
    let world = &*WORLD;
    let mut sealer = Sealer::new(world.owner.clone()).unwrap();
    let prepared = world.prepared_of(mode, SEED, word, SIZE);
    let mut out = sealer.begin(prepared, Chroma::I420, (10, 1), 0).unwrap();
    for n in 0..frames {
        out.extend(sealer.frame(&picture(n), Some(n as u64), None).unwrap());
    }
    out.extend(sealer.end().unwrap().0);
    messages(&out)
}

/// A head with other labels, which its owner has signed.
pub(super) fn relabel(payload: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let signed: Signed = decode(payload).unwrap();
    let mut head: SegmentHead = signed.unverified().unwrap();
    let mut labels = head.labels.to_vec();
    change(&mut labels);
    head.labels = labels.into();
    encode(&Signed::new(&head).sign::<SegmentHead>(&WORLD.owner))
}

/// A frame with other candidates, under the segment's key.
pub(super) fn recover(head: &[u8], payload: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let cipher = cipher(head);
    let clear = body(&cipher, payload);
    let [rest, masked, remainder] = message::split_parts(&clear).unwrap();
    let mut masked = masked.to_vec();
    change(&mut masked);
    let mut parts = Vec::new();
    message::join_parts(&mut parts, [rest, &masked, remainder]);
    let clear = parts;
    let (header, _) = FrameHeader::split(payload).unwrap();
    let header_bytes = header.to_bytes();
    let sealed = Payload {
        msg: &clear,
        aad: &header_bytes,
    };
    let sealed = cipher.encrypt(&nonce(header.number), sealed).unwrap();
    [header_bytes.as_slice(), &sealed].concat()
}

/// What a stream's owner has to commit to, for the cloud to take it.
pub(super) fn promised(all: &[(Kind, Vec<u8>)]) -> Promised {
    let head = &all[0].1;
    let signed: Signed = decode(head).unwrap();
    let said: SegmentHead = signed.unverified().unwrap();
    let ticket: TicketHead = said.ticket.unverified().unwrap();
    let settings = WORLD.contract.settings().unwrap();
    let size = [said.video.width, said.video.height].map(|side| side as usize);
    let bits = carried_bits(&settings, size[0], size[1]);
    let geometry = Geometry::new(size[0], size[1], Chroma::I420).unwrap();
    let mut joiner = Joiner::new(geometry, &settings)
        .unwrap()
        .with_loss(WORLD.contract.loss)
        .unwrap();
    let cipher = cipher(head);
    let mut commitment = Commitment::new(head);
    for (_, payload) in all.iter().filter(|(kind, _)| *kind == Kind::Frame) {
        let clear = body(&cipher, payload);
        let [rest, masked, _] = message::split_parts(&clear).unwrap();
        let sent = joiner.read(rest).unwrap();
        joiner.pass();
        let bits: Vec<u8> = sent.positions.iter().map(|&p| bits[p as usize]).collect();
        let candidates = Candidates {
            frame: commitment.frames(),
            bits: &bits,
            positions: &sent.positions,
            widths: &sent.widths,
            predictions: &sent.predictions,
            masked,
        };
        let audited = WORLD.contract.is_audited(ticket.mode);
        commitment.frame(payload, audited.then_some(&candidates));
    }
    commitment.promised()
}

/// The end that goes with the frames, signed by the owner.
fn again_ended(mut all: Vec<(Kind, Vec<u8>)>) -> Vec<(Kind, Vec<u8>)> {
    let promised = promised(&all);
    let (_, last) = all.last_mut().unwrap();
    let signed: Signed = decode(last).unwrap();
    let mut end: SegmentEnd = signed.unverified().unwrap();
    end.commitment = promised.digest().into();
    *last = encode(&Signed::new(&end).sign::<SegmentEnd>(&WORLD.owner));
    all
}

/// Everything that can be seen of a cloud from outside: of each message whether it was taken, and if
/// not, why; and the time that frames took.
fn outcome(all: &[(Kind, Vec<u8>)]) -> (Vec<String>, Vec<Picture>, Duration) {
    let mut opener = WORLD.opener();
    let (mut out, mut pictures, mut time) = (Vec::new(), Vec::new(), Duration::ZERO);
    for (kind, payload) in all {
        let result = match kind {
            Kind::Segment => opener
                .segment(payload, WORLD.contracts(), 1500)
                .map(|opened| format!("{opened:?}")),
            Kind::Frame => {
                let began = Instant::now();
                let frame = opener.frame(payload);
                time += began.elapsed();
                frame.map(|(picture, header, remainder)| {
                    pictures.push(picture.clone());
                    format!("{header:?} {}", remainder.sealed.len())
                })
            }
            Kind::End => opener.end(payload).map(|_| "ended".into()),
        };
        out.push(result.unwrap_or_else(|e| format!("refused: {e}")));
    }
    (out, pictures, time)
}

fn encryptor() -> Encryptor {
    let key = WORLD.secret.public();
    let base = Base::derive(key, &[1; 32], b"malice");
    Encryptor::new(Randomiser::new(key, &base, 300).unwrap())
}

fn garbage(seed: u64) -> Plaintext {
    let mut x = seed | 1;
    let words = (0..31).map(|_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    });
    // Positive, and below half of the modulus.
    Plaintext::from_words(words.chain([0]).collect::<Vec<u64>>())
}

/// Whatever an owner does to learn which of two labels or candidates was opened, cloud and word
/// are the same from outside.
#[test]
fn what_a_lying_owner_can_see_of_the_cloud_does_not_depend_on_the_word() {
    type Change = (
        &'static str,
        Mode,
        fn(Vec<(Kind, Vec<u8>)>) -> Vec<(Kind, Vec<u8>)>,
    );
    let changes: [Change; 7] = [
        ("nothing", Mode::Oblivious, |all| all),
        ("labels that are noise", Mode::Oblivious, |mut all| {
            all[0].1 = relabel(&all[0].1, |labels| {
                let (key, with) = (WORLD.secret.public(), encryptor());
                let noise = with.encrypt(&garbage(77)).unwrap();
                let bytes = key.ciphertext_bytes();
                labels[..bytes].copy_from_slice(&key.to_bytes(&noise));
            });
            all
        }),
        ("labels that overflow", Mode::Oblivious, |mut all| {
            all[0].1 = relabel(&all[0].1, |labels| {
                let (key, with) = (WORLD.secret.public(), encryptor());
                let bytes = key.ciphertext_bytes();
                for labels in labels.chunks_exact_mut(bytes) {
                    let label: Ciphertext = key.parse(labels).unwrap();
                    // Multiplied by -3: digits of other labels, and negative.
                    let changed = with.mul_plain(&label, -3).unwrap();
                    labels.copy_from_slice(&key.to_bytes(&changed));
                }
            });
            all
        }),
        (
            "candidates of select bit 1 are noise",
            Mode::Oblivious,
            |mut all| {
                let head = all[0].1.clone();
                for (_, payload) in all.iter_mut().filter(|(kind, _)| *kind == Kind::Frame) {
                    // All are narrow here: two bytes a candidate, of which the second is for 1.
                    *payload = recover(&head, payload, |masked| {
                        masked
                            .iter_mut()
                            .skip(1)
                            .step_by(2)
                            .for_each(|byte| *byte ^= 0x7f);
                    });
                }
                again_ended(all)
            },
        ),
        ("candidates are cut off", Mode::Oblivious, |mut all| {
            let head = all[0].1.clone();
            all[2].1 = recover(&head, &all[2].1, |masked| masked.truncate(masked.len() - 1));
            again_ended(all)
        }),
        ("slots that overflow", Mode::Packed, |mut all| {
            let head = all[0].1.clone();
            all[1].1 = recover(&head, &all[1].1, |masked| {
                let (key, with) = (WORLD.secret.public(), encryptor());
                let bytes = key.ciphertext_bytes();
                for slots in masked.chunks_exact_mut(bytes) {
                    let cipher: Ciphertext = key.parse(slots).unwrap();
                    let sum = with
                        .add(&cipher, &with.encrypt(&garbage(5)).unwrap())
                        .unwrap();
                    let sum = with.mul_plain(&sum, 1 << 40).unwrap();
                    slots.copy_from_slice(&key.to_bytes(&sum));
                }
            });
            again_ended(all)
        }),
        ("a ciphertext that is none", Mode::Packed, |mut all| {
            let head = all[0].1.clone();
            all[1].1 = recover(&head, &all[1].1, |masked| {
                let bytes = WORLD.secret.public().ciphertext_bytes();
                masked[..bytes].fill(0);
            });
            again_ended(all)
        }),
    ];
    for (name, mode, change) in changes {
        let [(zero, shown, took), (one, others, took_one)] =
            [Word(0), Word(u128::MAX)].map(|word| outcome(&change(stream(mode, word, 2))));
        println!(
            "{name}: {took:.1?} and {took_one:.1?}; {}",
            zero.iter()
                .find(|o| o.starts_with("refused"))
                .map_or("taken", |o| o)
        );
        assert_eq!(zero, one, "{name}");
        assert_eq!(shown.len(), others.len(), "{name}");
    }
}

/// A good stream, and the same as bytes.
static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut out = Vec::new();
    for (kind, payload) in stream(Mode::Oblivious, Word(1 << 77), 3) {
        message::write(&mut out, kind, &payload);
    }
    out
});

/// Frames that come out of bytes, and whether anything was refused or is missing.
fn take(mut bytes: &[u8]) -> (Vec<Picture>, bool) {
    let mut opener = WORLD.opener();
    let mut pictures = Vec::new();
    let mut ended = false;
    loop {
        let message = match message::read(bytes) {
            Err(_) => return (pictures, true),
            Ok(None) => return (pictures, !ended || opener.is_open() || !bytes.is_empty()),
            Ok(Some(message)) => message,
        };
        let payload = message.payload;
        let taken = match message.kind {
            Kind::Segment => opener.segment(payload, WORLD.contracts(), 1500).map(|_| ()),
            Kind::Frame => opener.frame(payload).map(|(picture, ..)| {
                pictures.push(picture.clone());
            }),
            Kind::End => opener.end(payload).map(|_| ended = true),
        };
        if taken.is_err() {
            return (pictures, true);
        }
        bytes = &bytes[message.length..];
    }
}

static SENT: LazyLock<Vec<Picture>> = LazyLock::new(|| {
    let (sent, failed) = take(&GOOD);
    assert!(!failed && sent.len() == 3);
    sent
});

#[derive(Clone, Debug)]
enum Damage {
    Flip(usize, u8),
    Cut(usize, usize),
    Insert(usize, Vec<u8>),
    Truncate(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = || 0..GOOD.len();
    prop_oneof![
        (at(), 1u8..).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        (at(), 1usize..200).prop_map(|(at, count)| Damage::Cut(at, count)),
        (at(), prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(at, b)| Damage::Insert(at, b)),
        at().prop_map(Damage::Truncate),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever happens to a sealed stream on its way, it is noticed, and no frame comes out that was
    /// not sent.
    #[test]
    fn damage_is_noticed_and_no_other_frame_comes_out(damage in damage()) {
        let mut bytes = GOOD.clone();
        match damage {
            Damage::Flip(at, bits) => bytes[at] ^= bits,
            Damage::Cut(at, count) => drop(bytes.drain(at..(at + count).min(GOOD.len()))),
            Damage::Insert(at, more) => drop(bytes.splice(at..at, more)),
            Damage::Truncate(at) => bytes.truncate(at),
        }
        let sent = &*SENT;
        let (came, failed) = take(&bytes);
        // What was put in may be a copy of what follows.
        prop_assert!(failed || bytes == *GOOD);
        prop_assert!(came.len() <= 3 && came.iter().zip(sent).all(|(a, b)| a == b));
    }
}

/// Of footage that the cloud has altered the owner notices wherever a mark is; of remainders every
/// bit.
#[test]
fn altered_footage_does_not_fit_what_its_owner_has_kept() {
    use crate::homomorphic::retrieval;
    use crate::watermark::{Key, Layout};
    let world = &*WORLD;
    let (settings, word) = (world.contract.settings().unwrap(), Word(0x1234 << 60));
    let mut opener = world.opener();
    let (mut frames, mut video) = (Vec::new(), None);
    for (kind, payload) in stream(Mode::Oblivious, word, 3) {
        match kind {
            Kind::Segment => {
                let opened = opener.segment(&payload, world.contracts(), 1500);
                video = Some(opened.unwrap().video);
            }
            Kind::Frame => {
                let (picture, _, remainder) = opener.frame(&payload).unwrap();
                frames.push((picture.clone(), remainder));
            }
            Kind::End => {
                opener.end(&payload).unwrap();
            }
        }
    }
    let agreement = world.agreement(Mode::Oblivious);
    let key = Key::from_bytes(SEED);
    let layout = Layout::new(&key, 0, &settings, SIZE[0], SIZE[1]);
    let mut restorer = Restorer::new(agreement.agreed(), &key, &video.unwrap()).unwrap();
    let mut reader = RemainderReader::new(&world.owner, world.id(), layout.marks().len());
    let pads = Unmask::Pads([9; 32].into());
    let originals = sealed_as(&[0, 1, 2].map(picture));
    for (n, (marked, remainder)) in frames.iter().enumerate() {
        let kept = reader.open(remainder).unwrap();
        let signs = signs(&kept.remainders);
        let masks = retrieval::masks(&[9; 32], 0, &settings, SIZE, &layout, word, &signs).unwrap();
        let mut restore = |picture: &Picture| {
            let mut splitter =
                crate::sealed::Splitter::new(picture.geometry(), &settings, None).unwrap();
            let split = splitter.split(picture, true).unwrap();
            let sums = retrieval::add(&split.values, &masks).unwrap();
            let (picture, fit) = restorer
                .restore(&pads, 0, &split.rest, &sums, &kept)
                .unwrap();
            (picture.clone(), fit)
        };
        let (restored, fit) = restore(marked);
        assert!(restored == originals[n] && fit.wrong == 0 && fit.exact);
        // Somebody is painted over.
        let mut altered = marked.clone();
        for row in altered.plane_mut(0).chunks_mut(SIZE[0]).skip(16).take(32) {
            row[16..48].fill(100);
        }
        let (_, fit) = restore(&altered);
        println!(
            "a quarter painted over: {} of {} marks do not fit",
            fit.wrong, fit.marks
        );
        assert!(fit.wrong > 0 && !fit.exact);
        // Another frame of the ticket in its place has its marks on the same grid, …
        let (_, fit) = restore(&frames[(n + 1) % 3].0);
        assert!(!fit.exact && fit.wrong == 0, "{fit:?}");
        // … and colour has none.
        let mut coloured = marked.clone();
        coloured.plane_mut(1)[7] ^= 1;
        let (_, fit) = restore(&coloured);
        assert!(!fit.exact && fit.wrong == 0);
        for at in [0, remainder.sealed.len() / 2, remainder.sealed.len() - 1] {
            let mut changed = remainder.clone();
            changed.sealed[at] ^= 1;
            assert!(matches!(reader.open(&changed), Err(Error::Changed)));
        }
        let mut moved = remainder.clone();
        moved.frame += 1;
        assert!(matches!(reader.open(&moved), Err(Error::Changed)));
        moved.frame -= 1;
        moved.ticket += 1;
        assert!(matches!(reader.open(&moved), Err(Error::Changed)));
    }
}

/// A replayed head is of another contract, another run or too late.
#[test]
fn a_ticket_is_for_its_contract_its_mode_its_size_and_its_time() {
    let world = &*WORLD;
    let all = stream(Mode::Oblivious, Word(5), 1);
    let signed: Signed = decode(&all[0].1).unwrap();
    let head: SegmentHead = signed.unverified().unwrap();
    let ticket: TicketHead = head.ticket.unverified().unwrap();
    let refused = |change: &dyn Fn(&mut TicketHead), by_ttp: bool, now: u64| {
        let (mut ticket, mut head) = (ticket.clone(), head.clone());
        change(&mut ticket);
        let signer = if by_ttp { &world.ttp } else { &*world.owner };
        head.ticket = Signed::new(&ticket).sign::<TicketHead>(signer);
        let signed = encode(&Signed::new(&head).sign::<SegmentHead>(&world.owner));
        world.opener().segment(&signed, world.contracts(), now)
    };
    assert!(refused(&|_| (), true, 1500).is_ok());
    assert!(matches!(
        refused(&|_| (), false, 1500),
        Err(Error::Document(_))
    ));
    assert!(matches!(
        refused(&|_| (), true, 2001),
        Err(Error::Ticket(_))
    ));
    let other = refused(&|t| t.contract = [9; 32].into(), true, 1500);
    assert!(matches!(other, Err(Error::UnknownContract(_))));
    let wider = refused(&|t| t.width += 8, true, 1500);
    assert!(matches!(wider, Err(Error::Ticket(_))));
    // As if it were for the other mode: the frames do not fit it.
    let mut other = ticket.clone();
    other.mode = Mode::Packed;
    let mut changed = head.clone();
    changed.ticket = Signed::new(&other).sign::<TicketHead>(&world.ttp);
    let signed = encode(&Signed::new(&changed).sign::<SegmentHead>(&world.owner));
    let mut opener = world.opener();
    opener.segment(&signed, world.contracts(), 1500).unwrap();
    assert!(opener.frame(&all[1].1).is_err());
    // Signed by somebody else than the contract's owner.
    let signed = encode(&Signed::new(&head).sign::<SegmentHead>(&world.ttp));
    let stolen = world.opener().segment(&signed, world.contracts(), 1500);
    assert!(matches!(stolen, Err(Error::Document(_))));
}
