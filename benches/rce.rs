// SPDX-License-Identifier: MPL-2.0
//! Cost of a chunk at the client, beside the primitives it cannot do without.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ctr::cipher::{KeyIvInit, StreamCipher};
use gstcamvault::chunk::{AccessUnit, Chunker, Codec, Config, Framing};
use gstcamvault::rce::{ChunkId, expected_c3, expected_d1, open, seal};
use sha2::Digest;
use std::hint::black_box;

fn rce(c: &mut Criterion) {
    for (name, size) in [("48 KiB", 48 << 10), ("1 MiB", 1 << 20)] {
        let mut chunk = vec![0u8; size];
        getrandom::fill(&mut chunk).unwrap();
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Bytes(size as u64));

        group.bench_function("floor/SHA-256", |b| {
            b.iter(|| sha2::Sha256::digest(black_box(&chunk)))
        });
        group.bench_function("floor/BLAKE3", |b| {
            b.iter(|| blake3::hash(black_box(&chunk)))
        });
        group.bench_function("floor/AES-256-CTR", |b| {
            let mut data = chunk.clone();
            b.iter(|| {
                ctr::Ctr128BE::<aes::Aes256>::new(&[1; 32].into(), &[0; 16].into())
                    .apply_keystream(&mut data)
            })
        });

        group.bench_function("rce/first upload", |b| {
            let mut data = chunk.clone();
            b.iter(|| {
                let id = ChunkId::of(&data, None);
                seal(&id, &mut data).unwrap()
            })
        });
        let id = ChunkId::of(&chunk, None);
        let mut c1 = chunk.clone();
        let record = seal(&id, &mut c1).unwrap();
        group.bench_function("rce/duplicate, deep", |b| {
            b.iter(|| {
                let id = ChunkId::of(&chunk, None);
                (
                    expected_c3(&id, &record.c2),
                    expected_d1(&id, &chunk, &record.c2),
                )
            })
        });
        group.bench_function("rce/download", |b| {
            let mut data = c1.clone();
            b.iter(|| {
                data.copy_from_slice(&c1);
                open(id.key(), false, None, &record, &mut data).unwrap()
            })
        });
    }
}

/// Taking access units apart and cutting them, beside copying them.
fn chunks(c: &mut Criterion) {
    // 40 pictures of 20 kB: a slice NAL unit behind a delimiter.
    let unit = |i: u32| {
        let mut slice = vec![0u8; 20_000];
        getrandom::fill(&mut slice).unwrap();
        slice.iter_mut().for_each(|b| *b |= 1);
        let kind = if i == 0 { 0x65 } else { 0x41 };
        [&[0, 0, 0, 1, 9, 0x10, 0, 0, 0, 1, kind][..], &slice].concat()
    };
    let units: Vec<Vec<u8>> = (0..40).map(unit).collect();
    let mut group = c.benchmark_group("H.264");
    group.throughput(Throughput::Bytes(
        units.iter().map(|u| u.len() as u64).sum(),
    ));
    group.bench_function("floor/copy", |b| b.iter(|| units.clone()));
    group.bench_function("chunk/structure", |b| {
        b.iter(|| {
            let mut chunker = Chunker::new(Codec::H264(Framing::AnnexB), Config::default());
            let mut out = Vec::new();
            for (i, data) in units.iter().enumerate() {
                let unit = AccessUnit {
                    data,
                    keyframe: i == 0,
                    discont: false,
                    time_ns: None,
                    info: (),
                };
                chunker.push(unit, &mut out).unwrap();
            }
            chunker.finish(&mut out);
            out
        })
    });
}

criterion_group!(benches, rce, chunks);
criterion_main!(benches);
