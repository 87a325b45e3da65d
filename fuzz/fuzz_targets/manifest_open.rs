// SPDX-License-Identifier: MPL-2.0
//! What someone with a recording's key sealed into a manifest, head or summary is read and planned
//! for playing without harm, and what was read is sealed so that it reads back.
#![no_main]

use gstcamvault::client::fuzzing::plan;
use gstcamvault::identity::AeadKey;
use gstcamvault::manifest::Sealer;
use gstcamvault::protocol::decode;
use libfuzzer_sys::fuzz_target;

const SEQ: u64 = 3;

fuzz_target!(|data: &[u8]| {
    let Some((&kind, clear)) = data.split_first() else {
        return;
    };
    let sealer = Sealer {
        id: [4; 16],
        key: AeadKey::new([3; 32]),
    };
    let seal = |what: &[u8], seq: &[u8], clear: &[u8]| {
        let context = [b"camvault ", what, b" v1", &sealer.id, seq].concat();
        sealer.key.seal(&context, clear).expect("short")
    };
    let seq = SEQ.to_be_bytes();
    match kind % 4 {
        0 => {
            // Compression would hide from the fuzzer what it does.
            if let Ok(manifest) = decode(clear) {
                let sealed = sealer.seal_manifest(SEQ, &manifest).expect("short");
                let back = sealer.open_manifest(SEQ, &sealed);
                assert_eq!(back.as_ref().ok(), Some(&manifest));
                plan(manifest);
            }
        }
        1 => drop(sealer.open_manifest(SEQ, &seal(b"manifest", &seq, clear))),
        2 => {
            if let Ok(head) = sealer.open_head(SEQ, &seal(b"head", &seq, clear)) {
                let sealed = sealer.seal_head(SEQ, &head).expect("short");
                assert_eq!(sealer.open_head(SEQ, &sealed).ok(), Some(head));
            }
        }
        _ => {
            if let Ok(summary) = sealer.open_summary(&seal(b"summary", b"", clear)) {
                let sealed = sealer.seal_summary(&summary).expect("short");
                assert_eq!(sealer.open_summary(&sealed).ok(), Some(summary));
            }
        }
    }
    let _ = sealer.open_manifest(SEQ, clear);
});
