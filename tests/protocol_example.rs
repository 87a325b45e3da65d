// SPDX-License-Identifier: MPL-2.0
//! The worked example of docs/protocol.md, value by value.

use gstcamvault::chunk::{self, Codec, EnvelopeWriter, Framing, Joiner};
use gstcamvault::identity::Identity;
use gstcamvault::manifest::{Sealer, Summary};
use gstcamvault::ownership::{Copy, PathKeys, Tree};
use gstcamvault::protocol::signature::{Covered, content_digest, sign, verify};
use gstcamvault::protocol::{SHARE_INFO, SharedKey, decode, encode};
use gstcamvault::rce::{self, ChunkId, Key, Record};
use std::collections::BTreeMap;

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
        .collect()
}

/// `name = value` lines of the example; a value may go on in lines that begin with more space.
fn example() -> BTreeMap<String, String> {
    let text = include_str!("../docs/protocol.md")
        .split("## Worked example")
        .nth(1)
        .unwrap();
    let mut values = BTreeMap::new();
    let mut last = String::new();
    for line in text.lines().filter_map(|l| l.strip_prefix("    ")) {
        match line.split_once(" = ") {
            Some((name, value)) if !line.starts_with(' ') => {
                last = name.trim().to_owned();
                values.insert(last.clone(), value.trim().to_owned());
            }
            _ => values.get_mut(&last).unwrap().push_str(line.trim()),
        }
    }
    values
}

#[test]
fn every_value_of_the_worked_example() {
    let example = example();
    let mut checked = 0;
    let mut check = |name: &str, value: &str| {
        checked += 1;
        assert_eq!(
            example.get(name).map(String::as_str),
            Some(value),
            "{name} = {value}"
        );
    };

    // The identity, a recording's id and key.
    let secret: [u8; 32] = std::array::from_fn(|i| i as u8);
    let identity = Identity::from_secret(secret).unwrap();
    let id = identity.recording_id("street");
    check("S", &hex(secret));
    check("A", &hex(identity.public().sign));
    check("X", &hex(identity.public().agree));
    check("public", &identity.public().to_string());
    check("id", &hex(id));
    check("RK", &hex(identity.recording_key(&id).expose()));

    // A request.
    let body = unhex("a10080");
    let covered = Covered {
        method: "POST",
        authority: "127.0.0.1:7420",
        path: "/v1/lookup",
        query: "",
        body_field: "content-digest",
        body_value: &content_digest(&body),
    };
    let (input, signature) = sign(&identity, &covered, 1_800_000_000, "bm9uY2Vub25jZW5vbmNlbg");
    check("body", &hex(&body));
    check("content-digest", covered.body_value);
    check("signature-input", &input);
    check("signature", &signature);
    assert!(verify(&covered, &input, &signature).is_some());

    // Ownership: leaves 0, 2 and 3 own a copy; leaf 2 reads it under the node above 2 and 3.
    let tree = Tree::new([0x2a; 32]);
    let c2 = [0xc2; 32];
    let (tag, d1, epoch) = ([0x11; 32], [0xd1; 32], [0xe0; 16]);
    let sealed = tree.admit(&tag, &d1, &epoch, &c2);
    let copy = Copy {
        tag: &tag,
        d1: &d1,
        epoch,
        c2_sealed: &sealed,
    };
    let wrapped = tree.wrap(&copy, &[0, 2, 3].into(), 2);
    let keys = tree.path_keys(2);
    check("path key 1", &hex(&keys[32..64]));
    check("epoch", &hex(wrapped.epoch));
    check("node", &wrapped.node.to_string());
    check("E_KEK(GK)", &hex(wrapped.gk));
    check("C2'", &hex(wrapped.c2));
    check("C2 unwrapped", &hex(c2));
    assert_eq!(
        PathKeys::from_bytes(2, &keys).unwrap().unwrap_c2(&wrapped),
        Some(c2)
    );

    // A chunk, as in tests/data/rce1.txt.
    let known: BTreeMap<_, _> = include_str!("data/rce1.txt")
        .lines()
        .filter_map(|l| l.split_once(' '))
        .collect();
    for name in ["chunk", "L", "K", "t", "C1", "C2", "C3", "d1"] {
        check(name, known[name]);
    }
    let bytes = |name: &str| <[u8; 32]>::try_from(unhex(known[name])).unwrap();
    let record = Record {
        c2: bytes("C2"),
        c3: bytes("C3"),
        d1: bytes("d1"),
    };
    let mut c1 = unhex(known["C1"]);
    rce::open(&Key::from_bytes(bytes("K")), false, None, &record, &mut c1).unwrap();
    assert_eq!(hex(&c1), known["chunk"]);
    assert_eq!(ChunkId::of(&c1, None).tag(), &bytes("t"));

    // Sealed with random nonces: what the page shows must open.
    let sealer = Sealer {
        id,
        key: identity.recording_key(&id),
    };
    let summary = Summary {
        name: "street".into(),
        start_utc: 1_800_000_000_000_000_000,
        duration: 60_000_000_000,
        bytes: 123_456,
        tracks: vec!["video/x-h264".into()],
        closed: true,
    };
    check("summary", &hex(encode(&summary)));
    let fresh = hex(sealer.seal_summary(&summary).unwrap());
    let shown = example
        .get("sealed summary")
        .unwrap_or_else(|| panic!("sealed summary = {fresh}"));
    assert_eq!(
        sealer.open_summary(&unhex(shown)).unwrap(),
        summary,
        "sealed summary = {fresh}"
    );

    let shared = SharedKey {
        name: "street".into(),
        key: (*sealer.key.expose()).into(),
    };
    check("share", &hex(encode(&shared)));
    let fresh = hex(identity
        .public()
        .seal(SHARE_INFO, &encode(&shared))
        .unwrap());
    let shown = example
        .get("sealed share")
        .unwrap_or_else(|| panic!("sealed share = {fresh}"));
    let opened = identity
        .open(SHARE_INFO, &unhex(shown))
        .unwrap_or_else(|_| panic!("sealed share = {fresh}"));
    assert_eq!(decode::<SharedKey>(&opened).unwrap().name, "street");

    // An access unit: delimiter, parameter set, one slice that a muxer padded with a zero.
    let unit = unhex("00000001091000000001674201000001658884213f00");
    let (mut content, mut envelope) = (Vec::new(), EnvelopeWriter::new());
    chunk::split(
        &Codec::H264(Framing::AnnexB),
        &unit,
        &mut content,
        &mut envelope,
    );
    let envelope = envelope.take();
    check("access unit", &hex(&unit));
    check("content record", &hex(&content));
    check("envelope record", &hex(&envelope));
    let mut joiner = Joiner::new(&Codec::H264(Framing::AnnexB), &envelope);
    assert_eq!(joiner.next(&content).unwrap(), unit);

    assert_eq!(example.len(), checked + 2, "every value shown is checked");
}
