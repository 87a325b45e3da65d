// SPDX-License-Identifier: MPL-2.0
//! Chunks on their way from one process of an owner to another (`rcededuppay seal=true`).
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `CVCH` |
//! | 1 | version, 1 |
//! | 4 | length of the header, big-endian |
//! | … | header: CBOR map, sealed under the identity's transport key with context `camvault transport v1` |
//! | … | `C1`, up to the end |
//!
//! The header holds `K`, `C2`, `C3` and `d1`, which binds `C1` to it, and all that is known of the
//! chunk. A stream number, drawn at random, and a count in it show chunks that were lost, and
//! those that come again.

use super::recorder::StreamChunk;
use crate::identity::{AeadKey, OpenError};
use crate::manifest::{Framing, TimeSegment, Units};
use crate::protocol::{B32, decode, encode};
use crate::rce::{self, ChunkId, Key, Record};
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

const MAGIC: &[u8; 4] = b"CVCH";
const VERSION: u8 = 1;
const CONTEXT: &[u8] = b"camvault transport v1";

/// Place of a chunk in a sealed stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The stream.
    pub stream: [u8; 8],
    /// Chunks before it.
    pub seq: u64,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Header {
    #[n(0)]
    stream: ByteArray<8>,
    #[n(1)]
    seq: u64,
    #[n(2)]
    key: B32,
    #[n(3)]
    in_domain: bool,
    #[n(4)]
    c2: B32,
    #[n(5)]
    c3: B32,
    #[n(6)]
    d1: B32,
    #[n(7)]
    envelope: ByteVec,
    #[n(8)]
    envelope_key: Option<B32>,
    #[n(9)]
    framing: Framing,
    #[n(10)]
    units: Units,
    #[n(11)]
    gop_start: bool,
    #[n(12)]
    suspect: bool,
    #[n(13)]
    prev_suspect: bool,
    #[n(14)]
    caps: Option<String>,
    #[n(15)]
    time: Option<TimeSegment>,
    #[n(16)]
    tags: Option<String>,
    #[n(17)]
    running: Option<(u64, u64)>,
    #[n(18)]
    clock: Option<(u64, i64)>,
}

/// Why sealed bytes are not a chunk for this identity.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// They do not begin as a chunk does, or end too early.
    #[error("not a sealed chunk: {0}")]
    Form(&'static str),
    /// A version that is not known.
    #[error(
        "sealed chunk of version {0}, only version 1 is known: use the same release on both ends"
    )]
    Version(u8),
    /// The header does not open.
    #[error("sealed chunk does not open: it was changed, or sealed by another identity")]
    Sealed(#[from] OpenError),
    /// The header opened, but is not understood.
    #[error("header of a sealed chunk cannot be read: {0}")]
    Header(String),
    /// The content does not fit its record, or no data key could be drawn.
    #[error(transparent)]
    Rce(#[from] rce::Error),
}

/// Seals a chunk: the head, and `C1`, which follows it.
pub fn seal(
    key: &AeadKey,
    place: Place,
    mut chunk: StreamChunk,
) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let record = rce::seal(&chunk.id, &mut chunk.content)?;
    let header = zeroize::Zeroizing::new(encode(&Header {
        stream: place.stream.into(),
        seq: place.seq,
        key: (*chunk.id.key().expose()).into(),
        in_domain: chunk.in_domain,
        c2: record.c2.into(),
        c3: record.c3.into(),
        d1: record.d1.into(),
        envelope: chunk.envelope.into(),
        envelope_key: chunk.envelope_id.map(|id| (*id.key().expose()).into()),
        framing: chunk.framing,
        units: chunk.units.into_iter().collect(),
        gop_start: chunk.gop_start,
        suspect: chunk.suspect,
        prev_suspect: chunk.prev_suspect,
        caps: chunk.caps,
        time: chunk.time,
        tags: chunk.tags,
        running: chunk.running,
        clock: chunk.clock,
    }));
    let sealed = key.seal(CONTEXT, &header)?;
    let len = u32::try_from(sealed.len()).map_err(|_| Error::Form("header is too long"))?;
    let head = [MAGIC.as_slice(), &[VERSION], &len.to_be_bytes(), &sealed].concat();
    Ok((head, chunk.content))
}

/// Opens what [`seal`] made, and checks it as after a download. The track is 0.
pub fn open(key: &AeadKey, bytes: &[u8]) -> Result<(Place, StreamChunk), Error> {
    let short = Error::Form("it ends early");
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or(Error::Form("it does not begin with CVCH"))?;
    let Some((&version, rest)) = rest.split_first() else {
        return Err(short);
    };
    if version != VERSION {
        return Err(Error::Version(version));
    }
    let Some((len, rest)) = rest.split_first_chunk::<4>() else {
        return Err(short);
    };
    let Some((sealed, c1)) = rest.split_at_checked(u32::from_be_bytes(*len) as usize) else {
        return Err(short);
    };
    let header = key.open(CONTEXT, sealed)?;
    let header: Header = decode(&header).map_err(|e| Error::Header(e.to_string()))?;

    let chunk_key = Key::from_bytes(*header.key);
    let record = Record {
        c2: *header.c2,
        c3: *header.c3,
        d1: *header.d1,
    };
    let mut content = c1.to_vec();
    rce::open(&chunk_key, header.in_domain, None, &record, &mut content)?;
    let envelope: Vec<u8> = header.envelope.into();
    let place = Place {
        stream: *header.stream,
        seq: header.seq,
    };
    let chunk = StreamChunk {
        track: 0,
        id: ChunkId::with_key(chunk_key, &content),
        in_domain: header.in_domain,
        envelope_id: header
            .envelope_key
            .map(|key| ChunkId::with_key(Key::from_bytes(*key), &envelope)),
        content,
        envelope,
        framing: header.framing,
        units: header.units.iter().collect(),
        gop_start: header.gop_start,
        suspect: header.suspect,
        prev_suspect: header.prev_suspect,
        caps: header.caps,
        time: header.time,
        tags: header.tags,
        running: header.running,
        clock: header.clock,
    };
    Ok((place, chunk))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::UnitInfo;
    use proptest::prelude::*;

    fn chunk(content: Vec<u8>, envelope: Vec<u8>) -> StreamChunk {
        StreamChunk {
            track: 0,
            id: ChunkId::of(&content, None),
            in_domain: false,
            envelope_id: (envelope.len() > 8).then(|| ChunkId::of(&envelope, None)),
            units: vec![UnitInfo {
                content_len: content.len() as u32,
                flags: 64,
                pts: Some(5),
                ..UnitInfo::default()
            }],
            content,
            envelope,
            framing: Framing::Records,
            gop_start: true,
            suspect: false,
            prev_suspect: true,
            caps: Some("video/x-h264".into()),
            time: None,
            tags: None,
            running: Some((1, 2)),
            clock: Some((1, -3)),
        }
    }

    const PLACE: Place = Place {
        stream: [7; 8],
        seq: 9,
    };

    fn sealed(content: &[u8], envelope: &[u8]) -> Vec<u8> {
        let key = AeadKey::new([1; 32]);
        let (head, c1) = seal(&key, PLACE, chunk(content.to_vec(), envelope.to_vec())).unwrap();
        [head, c1].concat()
    }

    proptest! {
        #[test]
        fn a_sealed_chunk_opens_to_itself(
            content in prop::collection::vec(any::<u8>(), 0..300),
            envelope in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let (place, back) = open(&AeadKey::new([1; 32]), &sealed(&content, &envelope)).unwrap();
            let was = chunk(content, envelope);
            prop_assert_eq!(place, PLACE);
            prop_assert_eq!(back.id.tag(), was.id.tag());
            prop_assert_eq!(back.envelope_id.map(|id| *id.tag()), was.envelope_id.map(|id| *id.tag()));
            prop_assert_eq!((back.content, back.envelope), (was.content, was.envelope));
            prop_assert_eq!((back.units, back.caps), (was.units, was.caps));
            prop_assert_eq!((back.running, back.clock), (was.running, was.clock));
        }

        #[test]
        fn a_changed_or_shortened_one_does_not(at in 0usize..600, bit in 0u8..8) {
            let mut bytes = sealed(b"slices of a picture", b"sei");
            let at = at % bytes.len();
            let key = AeadKey::new([1; 32]);
            prop_assert!(open(&key, &bytes[..at]).is_err());
            bytes[at] ^= 1 << bit;
            prop_assert!(open(&key, &bytes).is_err());
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let bytes = [b"CVCH\x01".as_slice(), &bytes].concat();
            prop_assert!(open(&AeadKey::new([1; 32]), &bytes).is_err());
        }
    }

    #[test]
    fn it_is_closed_to_other_identities() {
        let bytes = sealed(b"slices", b"sei");
        assert!(matches!(
            open(&AeadKey::new([2; 32]), &bytes),
            Err(Error::Sealed(_))
        ));
        assert!(!bytes.windows(6).any(|w| w == b"slices"));
    }
}
