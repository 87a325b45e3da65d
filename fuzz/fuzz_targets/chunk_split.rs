// SPDX-License-Identifier: MPL-2.0
//! Every access unit comes back bit for bit, and so do those of a whole track.
#![no_main]

use gstcamvault::chunk::{
    AccessUnit, Chunker, Codec, Config, EnvelopeWriter, Framing, Joiner, UnitMode, split,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&[codec, mode, cut], au)) = data.split_first_chunk() else {
        return;
    };
    let codec = match codec % 16 {
        0 => Codec::H264(Framing::AnnexB),
        1 => Codec::H265(Framing::AnnexB),
        2 => Codec::Jpeg,
        3 => Codec::AacAdts,
        4 => Codec::Opaque,
        5 => Codec::Bytes,
        n @ 6..11 => Codec::H264(Framing::LengthPrefixed(n - 6)),
        n => Codec::H265(Framing::LengthPrefixed(n - 10)),
    };
    let (mut content, mut envelope) = (Vec::new(), EnvelopeWriter::new());
    split(&codec, au, &mut content, &mut envelope);
    let envelope = envelope.take();
    assert_eq!(
        Joiner::new(&codec, &envelope).next(&content).as_deref(),
        Ok(au)
    );

    let unit = [
        UnitMode::Structure,
        UnitMode::Gop,
        UnitMode::Au,
        UnitMode::Fixed(u32::from(cut)),
        UnitMode::Cdc,
    ][usize::from(mode % 5)];
    let config = Config {
        unit,
        target_bytes: 512,
        max_bytes: 1024,
        ..Config::default()
    };
    let (mut chunker, mut pieces) = (Chunker::new(codec, config), Vec::new());
    let aus: Vec<&[u8]> = au.chunks(usize::from(cut) * 16 + 1).collect();
    for (n, data) in aus.iter().enumerate() {
        let keyframe = n.is_multiple_of(3);
        let au = AccessUnit {
            data,
            keyframe,
            discont: false,
            time_ns: None,
            info: n,
        };
        chunker
            .push(au, &mut pieces)
            .expect("an access unit of a fuzzer is short");
    }
    chunker.finish(&mut pieces);
    let content: Vec<u8> = pieces
        .iter()
        .flat_map(|piece| piece.content.clone())
        .collect();
    let (mut rest, mut got) = (&content[..], Vec::new());
    for piece in &pieces {
        let mut joiner = Joiner::new(&codec, &piece.envelope);
        for unit in &piece.units {
            let (record, after) = rest.split_at(unit.content_len as usize);
            got.push(joiner.next(record).expect("a record that was just written"));
            rest = after;
        }
        assert!(joiner.is_done());
    }
    assert_eq!(got.concat(), aus.concat());
});
