// SPDX-License-Identifier: MPL-2.0
//! Cost of splitting and joining a 1080p frame, with all blocks changed and with none: CPU time of
//! the one thread that works.
//!
//! Group `stream` is the same frame from a camera's picture to a message and from a message to the
//! marked picture, oblivious, 3072 bits: split, mask, seal the remainders, encrypt, commit; and
//! decrypt, commit, read, unmask, join. With audits the owner also keeps what it sent, in a file.
//! Beside it what an audit of a segment of [`SEGMENT`] frames costs either side.

mod common;

use common::{CpuTime, picture};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use gstcamvault::homomorphic::packed::{
    Base, DEFAULT_MODULUS_BITS, Encryptor, Randomiser, SecretKey, TICKET_EXPONENT_BITS,
};
use gstcamvault::homomorphic::ticket;
use gstcamvault::identity::Identity;
use gstcamvault::protocol::{
    Agreed, Challenge, Contract, DEFAULT_LOSS, DEFAULT_PER_BLOCK, Mode, Signed, TicketHead,
    TicketSecret, encode,
};
use gstcamvault::sealed::stream::message;
use gstcamvault::sealed::stream::{Agreement, Opener, Prepared, Question, Sealer, Ticket};
use gstcamvault::sealed::{Chroma, Geometry, Joiner, Splitter};
use gstcamvault::watermark::{Key, Layout, Settings, Word};
use sha2::{Digest as _, Sha256};
use std::hint::black_box;
use std::sync::Arc;

/// Frames of the segment that the cloud opens and the third party audits.
const SEGMENT: usize = 20;

fn frames(c: &mut Criterion<CpuTime>) {
    let geometry = Geometry::new(1920, 1080, Chroma::I420).expect("a size");
    for (name, per_block, loss) in [
        ("sealed 1080p", DEFAULT_PER_BLOCK, DEFAULT_LOSS),
        ("sealed 1080p, lossless", DEFAULT_PER_BLOCK, 0),
    ] {
        let settings = Settings {
            per_block: Some(per_block as usize),
            ..Settings::default()
        };
        with(c, name, geometry, &settings, loss);
    }
}

fn with(c: &mut Criterion<CpuTime>, name: &str, geometry: Geometry, settings: &Settings, loss: u8) {
    let layout = Layout::new(&Key::from_bytes([9; 32]), 0, settings, 1920, 1080);
    let pictures = [picture(geometry, 1), picture(geometry, 2)];
    let splitter = || {
        let splitter = Splitter::new(geometry, settings, Some(&layout));
        splitter.expect("settings").with_loss(loss).expect("a loss")
    };
    let joiner = || {
        let joiner = Joiner::new(geometry, settings).expect("classes");
        joiner.with_loss(loss).expect("a loss")
    };
    let split = splitter().split(&pictures[0], true).expect("a picture");
    let bits: u64 = split.widths.iter().map(|&width| u64::from(width)).sum();
    println!(
        "{name}: rest {} bytes, candidates {} bytes",
        split.rest.len(),
        bits / 8
    );

    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(1));
    group.bench_function("split, all changed", |b| {
        let (mut splitter, mut i) = (splitter(), 0);
        b.iter(|| {
            i += 1;
            splitter.split(black_box(&pictures[i % 2]), false)
        });
    });
    group.bench_function("split, none changed", |b| {
        let mut splitter = splitter();
        b.iter(|| splitter.split(black_box(&pictures[0]), false));
    });
    group.bench_function("read and join, all changed", |b| {
        let mut joiner = joiner();
        b.iter(|| {
            joiner.read(black_box(&split.rest)).expect("a rest");
            joiner.join(&split.values).expect("values").planes().len()
        });
    });
    group.bench_function("read alone", |b| {
        let mut joiner = joiner();
        b.iter(|| joiner.read(black_box(&split.rest)).expect("a rest"));
    });
    group.finish();
}

/// Owner, cloud and third party.
struct Parties {
    identities: [Arc<Identity>; 3],
    secret: Arc<SecretKey>,
}

impl Parties {
    fn new() -> Self {
        let identity = |n| Arc::new(Identity::from_secret([n; 32]).expect("an identity"));
        Self {
            identities: [1, 2, 3].map(identity),
            secret: Arc::new(SecretKey::generate(DEFAULT_MODULUS_BITS).expect("a key")),
        }
    }

    fn contract(&self, loss: u8, audit: u32) -> Contract {
        let [owner, cloud, ttp] = &self.identities;
        Contract {
            audit,
            loss,
            ..Contract::new(
                owner.public(),
                cloud.public(),
                ttp.public(),
                [0; 32],
                [5; 32],
            )
        }
    }

    fn prepared(&self, contract: &Contract) -> Prepared {
        let [owner, cloud, ttp] = &self.identities;
        let signed = Signed::new(contract)
            .sign::<Contract>(owner)
            .sign::<Contract>(cloud)
            .sign::<Contract>(ttp);
        let agreed = Agreed::check(signed).expect("a contract");
        let key = self.secret.public().clone();
        let base = Base::derive(&key, &contract.base_seed, &agreed.id);
        let randomiser = Randomiser::new(&key, &base, TICKET_EXPONENT_BITS).expect("a base");
        let ciphertexts = ticket::for_labels(&Encryptor::new(randomiser), Word(0x5555));
        let ciphertexts = ciphertexts.expect("a ticket");
        let bytes: Vec<u8> = ciphertexts.iter().flat_map(|c| key.to_bytes(c)).collect();
        let secret = encode(&TicketSecret {
            seed: [9; 32].into(),
            ciphertexts: bytes.into(),
        });
        let head = Signed::new(&TicketHead {
            contract: agreed.id.into(),
            number: 0,
            mode: Mode::Oblivious,
            width: 1920,
            height: 1080,
            issued_ms: 0,
            expires_ms: 2000,
            secret: <[u8; 32]>::from(Sha256::digest(&secret)).into(),
        })
        .sign::<TicketHead>(ttp);
        let agreement = Agreement::new(agreed, key, Mode::Oblivious).expect("an agreement");
        let (agreed, key) = (agreement.agreed(), agreement.key());
        let ticket = Ticket::new(agreed, key, Mode::Oblivious, head, &secret).expect("a ticket");
        Prepared::new(Arc::new(agreement), ticket).expect("labels")
    }
}

fn payload(bytes: &[u8]) -> Vec<u8> {
    let message = message::read(bytes).expect("a message").expect("all of it");
    message.payload.to_vec()
}

fn streams(c: &mut Criterion<CpuTime>) {
    let parties = Parties::new();
    let geometry = Geometry::new(1920, 1080, Chroma::I420).expect("a size");
    let pictures = [picture(geometry, 1), picture(geometry, 2)];
    let mut group = c.benchmark_group("stream");
    group.sample_size(10);
    for (name, loss, audit) in [
        ("default", DEFAULT_LOSS, 1000),
        ("default, no audits", DEFAULT_LOSS, 0),
        ("lossless", 0, 1000),
        ("lossless, no audits", 0, 0),
    ] {
        let contract = parties.contract(loss, audit);
        let begin = || {
            let mut sealer = Sealer::new(parties.identities[0].clone()).expect("random bytes");
            let head = sealer.begin(parties.prepared(&contract), Chroma::I420, (25, 1), 0);
            (sealer, payload(&head.expect("a head")))
        };
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("{name}: owner, a frame"), |b| {
            let ((mut sealer, _), mut i) = (begin(), 0);
            b.iter(|| {
                i += 1;
                let frame = sealer.frame(black_box(&pictures[i % 2]), None, None);
                frame.expect("a frame").len()
            });
        });
        let (mut sealer, head) = begin();
        let frame = |i: usize| sealer.frame(&pictures[i % 2], None, None);
        let frames: Vec<Vec<u8>> = (0..SEGMENT)
            .map(frame)
            .map(|frame| payload(&frame.expect("a frame")))
            .collect();
        group.throughput(Throughput::Elements(SEGMENT as u64));
        let opener = || {
            let (cloud, secret) = (parties.identities[1].clone(), parties.secret.clone());
            let mut opener = Opener::new(cloud, secret, u64::MAX);
            let contract = |_: &[u8; 32]| Some(contract.clone());
            opener.segment(&head, contract, 1000).expect("a segment");
            opener
        };
        let open = |mut opener: Opener| {
            for frame in &frames {
                black_box(opener.frame(frame).expect("a frame"));
            }
            opener
        };
        group.bench_function(format!("{name}: cloud, {SEGMENT} frames"), |b| {
            b.iter_batched(opener, open, BatchSize::PerIteration);
        });
        let (_, summary) = sealer.end().expect("a segment");
        let Some(mut evidence) = summary.evidence else {
            continue;
        };
        let challenge = Challenge {
            contract: Signed::new(&contract).id::<Contract>().into(),
            ticket: summary.ticket,
            commitment: summary.commitment.into(),
            seed: [3; 32].into(),
            until_ms: 0,
        };
        let asked = Signed::new(&challenge).sign::<Challenge>(&parties.identities[2]);
        group.bench_function(format!("{name}: owner, open {SEGMENT} frames"), |b| {
            b.iter(|| evidence.open(&asked).expect("an opening").pieces.len());
        });
        let opening = evidence.open(&asked).expect("an opening");
        println!("{name}: an opening has {} bytes", encode(&opening).len());
        let question = Question {
            challenge: &challenge,
            contract: &contract,
            key: parties.secret.public(),
            size: [1920, 1080],
            seed: &[9; 32],
            frames: summary.frames,
        };
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("{name}: third party, an audit"), |b| {
            b.iter(|| question.judge(&opening).expect("a key").expect("honest"));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = frames, streams
}
criterion_main!(benches);
