// SPDX-License-Identifier: MPL-2.0
//! Cost of a coefficient under the cipher: the paper's Paillier, one coefficient to a ciphertext,
//! beside the packed one. Throughput counts coefficients. `CAMVAULT_BENCH_BITS=2048` for another
//! modulus than 3072 bits. Times are CPU time of the one thread that works.
//!
//! Group `frames` is what a live picture takes: 1024 coefficients of a 1080p frame, as many
//! ciphertexts as they need (6 at 3072 bits). Four frames go at a time, since ciphertexts of one
//! frame alone do not fill all eight lanes; throughput counts frames. The owner packs, combines and
//! writes; the cloud parses, decrypts and unpacks. The paper's scheme is measured on one
//! coefficient, and its time taken 1024 times.
//!
//! Group `oblivious` is all candidates of a 1080p frame of which every block has changed: masking and
//! unmasking alone, the same with the codec of the frame ([`gstcamvault::sealed`]), and what a segment
//! costs beside its frames. Throughput counts frames.

mod common;

use common::{CpuTime, picture};
use criterion::measurement::Measurement as _;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use gstcamvault::homomorphic::naive::{self, Generator};
use gstcamvault::homomorphic::oblivious::{Labels, make_labels, randomiser_bits};
use gstcamvault::homomorphic::packed::{
    Base, CertifiedKey, DEFAULT_MODULUS_BITS, Encryptor, Engine, Randomiser, SecretKey, SignTables,
    TICKET_EXPONENT_BITS, rerandomise_bits,
};
use gstcamvault::homomorphic::ticket;
use gstcamvault::homomorphic::{
    AdditiveScheme, DEFAULT_GUARD_BITS, DEFAULT_SLOT_BITS, Decrypt, Packing,
};
use gstcamvault::sealed::{Chroma, Geometry, Joiner, Splitter};
use gstcamvault::watermark::{Key, Layout, Settings, Word, carried_bits};
use num_bigint::BigUint;
use std::hint::black_box;
use std::time::Duration;

/// Coefficients of a frame, and frames that go together.
const COEFFICIENTS: usize = 1024;
const FRAMES: usize = 4;

fn bits() -> u32 {
    let chosen = std::env::var("CAMVAULT_BENCH_BITS").ok();
    chosen
        .and_then(|bits| bits.parse().ok())
        .unwrap_or(DEFAULT_MODULUS_BITS)
}

fn oblivious(c: &mut Criterion<CpuTime>) {
    let secret = SecretKey::generate(bits()).unwrap();
    let key = secret.public();
    let base = Base::derive(key, &[1; 32], b"bench");
    let tickets = Encryptor::new(Randomiser::new(key, &base, TICKET_EXPONENT_BITS).unwrap());
    let word = Word(0x0123_4567_89ab_cdef_0f1e_2d3c_4b5a_6978);
    let sent = ticket::for_labels(&tickets, word).unwrap();
    let randomiser = Randomiser::new(key, &base, randomiser_bits(key)).unwrap();
    let (pairs, ciphertexts) = make_labels(key, &sent, &randomiser, &[1; 32]).unwrap();
    let labels = Labels::open(&secret, &ciphertexts).unwrap();

    let geometry = Geometry::new(1920, 1080, Chroma::I420).unwrap();
    let settings = Settings::default();
    let layout = Layout::new(&Key::from_bytes([9; 32]), 0, &settings, 1920, 1080);
    let carried = carried_bits(&settings, 1920, 1080);
    let pictures = [picture(geometry, 1), picture(geometry, 2)];
    let mut splitter = Splitter::new(geometry, &settings, Some(&layout)).unwrap();
    let mut joiner = Joiner::new(geometry, &settings).unwrap();
    let split = splitter.split(&pictures[0], true).unwrap();
    assert_eq!(split.positions.len(), 162_000);
    let carries = |positions: &[u32]| -> Vec<u8> {
        let of = |&position: &u32| carried[position as usize];
        positions.iter().map(of).collect()
    };
    let bits = carries(&split.positions);
    let masked = pairs.mask(0, &bits, &split.widths, &split.values, &split.deltas);

    let mut group = c.benchmark_group("oblivious");
    group.throughput(Throughput::Elements(1));
    group.bench_function("owner, mask", |b| {
        b.iter(|| pairs.mask(0, &bits, &split.widths, &split.values, &split.deltas))
    });
    group.bench_function("cloud, unmask", |b| {
        b.iter(|| labels.unmask(0, &bits, &split.widths, &masked).unwrap())
    });
    group.sample_size(20);
    group.bench_function("owner, split and mask", |b| {
        let mut i = 0;
        b.iter(|| {
            i += 1;
            let split = splitter.split(&pictures[i % 2], false).unwrap();
            let bits = carries(&split.positions);
            pairs.mask(0, &bits, &split.widths, &split.values, &split.deltas)
        })
    });
    group.bench_function("cloud, read, unmask and join", |b| {
        b.iter(|| {
            let sent = joiner.read(&split.rest).unwrap();
            let bits = carries(&sent.positions);
            let values = labels.unmask(0, &bits, &sent.widths, &masked).unwrap();
            black_box(joiner.join(&values).unwrap());
        })
    });
    group.sample_size(10);
    group.bench_function("owner, a segment's labels", |b| {
        b.iter(|| make_labels(key, &sent, &randomiser, &[1; 32]).unwrap())
    });
    group.bench_function("cloud, a segment's labels", |b| {
        b.iter(|| Labels::open(&secret, &ciphertexts).unwrap())
    });
    group.finish();
}

fn homomorphic(c: &mut Criterion<CpuTime>) {
    let secret = SecretKey::generate(bits()).unwrap();
    let key = secret.public();
    let (p, q) = secret.expose_primes();
    let (p, q) = (BigUint::from_bytes_be(&p), BigUint::from_bytes_be(&q));

    let mut group = c.benchmark_group("naive");
    group.sample_size(10);
    group.throughput(Throughput::Elements(1));
    let naive = naive::SecretKey::from_primes(&p, &q, Generator::Random).unwrap();
    let public = naive.public();
    let one = public.encrypt(&1.into()).unwrap();
    group.bench_function("encrypt", |b| {
        b.iter(|| public.encrypt(&black_box(-1234).into()).unwrap())
    });
    group.bench_function("add", |b| b.iter(|| public.add(&one, &one).unwrap()));
    group.bench_function("times -1", |b| {
        b.iter(|| public.mul_plain(&one, black_box(-1)).unwrap())
    });
    group.bench_function("decrypt", |b| b.iter(|| naive.decrypt(&one).unwrap()));
    group.finish();

    let packing = Packing::new(DEFAULT_SLOT_BITS, DEFAULT_GUARD_BITS, bits()).unwrap();
    let slots = packing.slots();
    let base = Base::derive(key, &[1; 32], b"bench");
    let tickets = Encryptor::new(Randomiser::new(key, &base, TICKET_EXPONENT_BITS).unwrap());
    let shifted: Vec<_> = (0..slots)
        .map(|_| tickets.encrypt(&1.into()).unwrap())
        .collect();
    let values: Vec<i32> = (0..slots as i32).map(|i| i * 7 - 500).collect();
    let signs: Vec<bool> = (0..slots).map(|i| i % 3 == 0).collect();
    let tables = SignTables::new(key, &shifted).unwrap();
    let sum = packing.pack(&values).unwrap();

    let mut group = c.benchmark_group("packed");
    group.sample_size(20);
    group.throughput(Throughput::Elements(slots as u64));
    group.bench_function("pack", |b| b.iter(|| packing.pack(&values).unwrap()));
    for (name, shift) in [
        ("short exponent", 0),
        ("full exponent", packing.shift(slots)),
    ] {
        let bits = rerandomise_bits(key, TICKET_EXPONENT_BITS, shift, slots as u32);
        let encryptor = Encryptor::new(Randomiser::new(key, &base, bits).unwrap());
        group.bench_function(format!("encrypt, {name}"), |b| {
            b.iter(|| encryptor.encrypt(&sum).unwrap())
        });
        group.bench_function(format!("combine with signs, {name}"), |b| {
            b.iter(|| {
                let randomiser = encryptor.randomiser();
                tables.combine(&sum, &signs, randomiser).unwrap()
            })
        });
    }
    group.bench_function("signs alone", |b| {
        b.iter_batched(
            || shifted[0].clone(),
            |start| tables.multiply(start, &signs).unwrap(),
            BatchSize::SmallInput,
        )
    });
    let sent = tables.combine(&sum, &signs, tickets.randomiser()).unwrap();
    let bytes = key.to_bytes(&sent);
    group.bench_function("parse", |b| b.iter(|| key.parse(&bytes).unwrap()));
    group.bench_function("decrypt", |b| b.iter(|| secret.decrypt(&sent).unwrap()));
    let opened = secret.decrypt(&sent).unwrap();
    group.bench_function("unpack", |b| b.iter(|| packing.unpack(&opened).unwrap()));
    group.finish();

    let mut group = c.benchmark_group("frames");
    group.sample_size(10);
    group.throughput(Throughput::Elements(1));
    let times = |one: &mut dyn FnMut(), count: u64| -> Duration {
        let start = CpuTime.start();
        (0..count).for_each(|_| one());
        CpuTime.end(start) * COEFFICIENTS as u32
    };
    group.bench_function("owner, one coefficient a ciphertext", |b| {
        let mut send = || {
            let own = public.encrypt(&black_box(-1234).into()).unwrap();
            black_box(public.to_bytes(&public.add(&own, &one).unwrap()));
        };
        b.iter_custom(|count| times(&mut send, count))
    });
    group.bench_function("cloud, one coefficient a ciphertext", |b| {
        let bytes = public.to_bytes(&one);
        let mut open = || {
            black_box(naive.decrypt(&public.parse(&bytes).unwrap()).unwrap());
        };
        b.iter_custom(|count| times(&mut open, count))
    });
    group.throughput(Throughput::Elements(FRAMES as u64));
    let count = COEFFICIENTS.div_ceil(slots) * FRAMES;
    for (engine, name) in [
        (Engine::detect(), "eight side by side"),
        (Engine::PORTABLE, "portable"),
    ] {
        if name != "portable" && !engine.is_parallel() {
            continue;
        }
        for (exponent, shift) in [("short", 0), ("full", packing.shift(slots))] {
            let bits = rerandomise_bits(key, TICKET_EXPONENT_BITS, shift, slots as u32);
            let randomiser = Randomiser::new(key, &base, bits).unwrap();
            group.bench_function(format!("owner, {exponent} exponent, {name}"), |b| {
                b.iter(|| {
                    let sums: Vec<_> = (0..count)
                        .map(|_| (packing.pack(&values).unwrap(), &signs[..]))
                        .collect();
                    let out = tables.combine_many_by(engine, &sums, &randomiser);
                    let sent: Vec<_> = out.unwrap().iter().map(|c| key.to_bytes(c)).collect();
                    black_box(sent);
                })
            });
        }
        let sent = vec![bytes.clone(); count];
        group.bench_function(format!("cloud, {name}"), |b| {
            b.iter(|| {
                let parsed = key.parse_many(&sent).unwrap();
                let opened = secret.decrypt_many_by(engine, &parsed).unwrap();
                let unpacked: Vec<_> = opened.iter().map(|p| packing.unpack(p).unwrap()).collect();
                black_box(unpacked);
            })
        });
    }
    group.finish();

    let mut group = c.benchmark_group("set-up");
    group.sample_size(10);
    group.bench_function("randomiser, short exponent", |b| {
        let bits = rerandomise_bits(key, TICKET_EXPONENT_BITS, 0, slots as u32);
        b.iter(|| Randomiser::new(key, &base, bits).unwrap())
    });
    group.bench_function("sign tables", |b| {
        b.iter(|| SignTables::new(key, &shifted).unwrap())
    });
    group.bench_function("times -1", |b| {
        b.iter(|| key.mul_plain(&sent, black_box(-1)).unwrap())
    });
    let proof = CertifiedKey::prove(&secret, b"bench").unwrap();
    group.bench_function("verify key", |b| b.iter(|| proof.verify(b"bench").unwrap()));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = homomorphic, oblivious
}
criterion_main!(benches);
