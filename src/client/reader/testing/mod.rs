// SPDX-License-Identifier: MPL-2.0
//! A vault in memory with one recording, to be read over HTTP or directly, that can lie and fail.

mod http;

pub(crate) use http::serve;

use super::Origin;
use crate::chunk::{AccessUnit, Chunker, Codec, Config};
use crate::client::Error;
use crate::client::vault::ListPlace;
use crate::identity::{Identity, PublicId, RecordingId};
use crate::manifest::{
    Chunk, Envelope, Framing, Head, MAX_INLINE_ENVELOPE, Manifest, Sealer, Stored, Summary,
    TimeSegment, Track, UnitInfo,
};
use crate::ownership::{Copy, Leaf, PathKeys, Tree};
use crate::protocol::*;
use crate::rce::{self, ChunkId};
use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

pub(crate) const OWNER_LEAF: Leaf = 5;
pub(crate) const GUEST_LEAF: Leaf = 9;

/// One access unit before it is stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Au {
    pub data: Vec<u8>,
    pub info: UnitInfo,
}

type Pair = ([u8; 32], [u8; 32]);

#[derive(Default)]
pub(crate) struct State {
    /// `C2'` and `C3` by tag and `d1`.
    pub records: HashMap<Pair, Pair>,
    pub blobs: HashMap<[u8; 32], Vec<u8>>,
    pub segments: Vec<(Vec<u8>, Vec<u8>)>,
    /// The first that is kept.
    pub first: u64,
    pub summary: Summary,
    pub guest: Option<PublicId>,
    pub share: Option<Vec<u8>>,
    /// So many requests fail before one succeeds.
    pub failures: u32,
    /// In place of the list of the one recording.
    pub list: Option<Box<dyn Fn(Option<ListPlace>) -> Recordings + Send>>,
    /// Requests are never answered.
    pub hangs: bool,
    pub last: Option<Head>,
    pub bytes: u64,
}

pub(crate) struct Fake {
    pub identity: Arc<Identity>,
    pub sealer: Sealer,
    tree: Tree,
    leaf: Leaf,
    state: Arc<Mutex<State>>,
}

const EPOCH: [u8; 16] = [3; 16];

impl Fake {
    pub fn new(name: &str) -> Self {
        let identity = Arc::new(Identity::from_secret([11; 32]).unwrap());
        let id = identity.recording_id(name);
        let key = identity.recording_key(&id);
        let state = State {
            summary: Summary {
                name: name.into(),
                ..Summary::default()
            },
            ..State::default()
        };
        Self {
            sealer: Sealer { id, key },
            identity,
            tree: Tree::new([8; 32]),
            leaf: OWNER_LEAF,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The same vault as a guest sees it, who was given the recording.
    pub fn for_guest(&self, guest: Arc<Identity>) -> Self {
        let shared = SharedKey {
            name: self.state().summary.name.clone(),
            key: (*self.sealer.key.expose()).into(),
        };
        let sealed = guest.public().seal(SHARE_INFO, &encode(&shared)).unwrap();
        self.state().share = Some(sealed);
        self.state().guest = Some(*guest.public());
        Self {
            identity: guest,
            sealer: self.sealer.clone(),
            tree: self.tree.clone(),
            leaf: GUEST_LEAF,
            state: self.state.clone(),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn store(&self, clear: &[u8]) -> Stored {
        let id = ChunkId::of(clear, None);
        let mut blob = clear.to_vec();
        let record = rce::seal(&id, &mut blob).unwrap();
        let c2 = self.tree.admit(id.tag(), &record.d1, &EPOCH, &record.c2);
        let mut state = self.state();
        state.bytes += clear.len() as u64;
        state
            .records
            .insert((*id.tag(), record.d1), (c2, record.c3));
        state.blobs.insert(record.d1, blob);
        Stored {
            key: (*id.key().expose()).into(),
            d1: record.d1.into(),
            len: clear.len() as u32,
            in_domain: false,
        }
    }

    pub fn track(
        &self,
        (id, caps, codec): (u32, &str, Codec),
        config: &Config,
        units: &[Au],
    ) -> Track {
        let mut chunker = Chunker::new(codec, config.clone());
        let mut pieces = Vec::new();
        for unit in units {
            let au = AccessUnit {
                data: &unit.data,
                keyframe: unit.info.flags & (1 << 13) == 0,
                discont: false,
                time_ns: unit.info.pts,
                info: unit.info,
            };
            chunker.push(au, &mut pieces).unwrap();
        }
        chunker.finish(&mut pieces);
        let mut infos = Vec::new();
        let mut chunks = Vec::new();
        for piece in pieces {
            infos.extend(piece.units.iter().map(|unit| UnitInfo {
                content_len: unit.content_len,
                ..unit.info
            }));
            chunks.push(Chunk {
                content: self.store(&piece.content),
                units: piece.units.len() as u32,
                envelope: match piece.envelope.len() > MAX_INLINE_ENVELOPE {
                    true => Envelope::Stored(self.store(&piece.envelope)),
                    false => Envelope::Inline(piece.envelope.into()),
                },
                gop_start: piece.gop_start,
                suspect: piece.suspect,
            });
        }
        Track {
            id,
            framing: match codec {
                Codec::Bytes => Framing::Bytes,
                _ => Framing::Records,
            },
            caps: vec![(0, caps.into())],
            times: vec![(0, TIME)],
            chunks,
            units: infos.into_iter().collect(),
            clock: vec![(1_000_000_000, 1_700_000_000_000_000_000)],
            tags: None,
        }
    }

    /// Appends a segment.
    pub fn commit(&self, manifest: &Manifest, (start, duration): (u64, u64)) {
        let mut state = self.state();
        let seq = state.segments.len() as u64;
        let sealed = self.sealer.seal_manifest(seq, manifest).unwrap();
        let digest: [u8; 32] = Sha256::digest(&sealed).into();
        let head = Head {
            start,
            duration,
            start_utc: 1_700_000_000_000_000_000 + start as i64,
            bytes: 0,
            chunks: 0,
            session: manifest.session,
            manifest: digest.into(),
            previous: state.last.as_ref().map_or([0; 32].into(), |h| h.manifest),
            suspect: 0,
        };
        let sealed_head = self.sealer.seal_head(seq, &head).unwrap();
        state.segments.push((sealed_head, sealed));
        for track in &manifest.tracks {
            let known = state.summary.tracks.len();
            if track.id as usize >= known {
                state.summary.tracks.push(track.caps[0].1.clone());
            }
        }
        state.summary.duration = start + duration;
        state.last = Some(head);
    }

    fn refused(&self, code: Code) -> Error {
        Error::Refused {
            vault: "fake".into(),
            what: "it".into(),
            code,
            message: "no".into(),
            retry_after: None,
        }
    }

    async fn pass(&self) -> Result<(), Error> {
        if self.state().hangs {
            std::future::pending::<()>().await;
        }
        let mut state = self.state();
        if state.failures > 0 {
            state.failures -= 1;
            return Err(Error::Network {
                vault: "fake".into(),
                reason: "down".into(),
            });
        }
        Ok(())
    }

    fn mine(&self, id: &RecordingId, owner: Option<&B32>) -> Result<(), Error> {
        let expected = (self.leaf == GUEST_LEAF).then(|| Identity::from_secret([11; 32]).unwrap());
        let expected = expected.map(|owner| owner.public().sign);
        match *id == self.sealer.id && owner.map(|o| **o) == expected {
            true => Ok(()),
            false => Err(self.refused(Code::NotFound)),
        }
    }
}

pub(crate) const TIME: TimeSegment = TimeSegment {
    start: 10_000_000_000,
    stop: None,
    time: 0,
    base: 0,
};

#[async_trait]
impl Origin for Fake {
    async fn path_keys(&self) -> Result<Arc<PathKeys>, Error> {
        self.pass().await?;
        let bytes = self.tree.path_keys(self.leaf);
        Ok(Arc::new(PathKeys::from_bytes(self.leaf, &bytes).unwrap()))
    }

    async fn recordings(&self, after: Option<ListPlace>) -> Result<Recordings, Error> {
        self.pass().await?;
        let state = self.state();
        if let Some(list) = &state.list {
            return Ok(list(after));
        }
        let guest = self.leaf == GUEST_LEAF;
        let owner = Identity::from_secret([11; 32]).unwrap().public().sign;
        let summary = self.sealer.seal_summary(&state.summary).unwrap();
        Ok(Recordings {
            recordings: vec![RecordingEntry {
                id: self.sealer.id.into(),
                owner: guest.then(|| owner.into()),
                shared: guest.then(|| state.share.clone().unwrap().into()),
                segments: state.segments.len() as u64,
                summary: summary.into(),
                first: state.first,
                held: Held::new(),
            }],
            more: false,
        })
    }

    async fn recording(
        &self,
        id: &RecordingId,
        from: u64,
        owner: Option<&B32>,
    ) -> Result<Recording, Error> {
        self.pass().await?;
        self.mine(id, owner)?;
        let state = self.state();
        let summary = self.sealer.seal_summary(&state.summary).unwrap();
        // Pages of two.
        let from = from.max(state.first);
        let page = state.segments.iter().skip(from as usize).take(2);
        Ok(Recording {
            segments: state.segments.len() as u64,
            summary: summary.into(),
            heads: page.map(|(head, _)| head.clone().into()).collect(),
            first: state.first,
            held: Held::new(),
        })
    }

    async fn segment(
        &self,
        id: &RecordingId,
        seq: u64,
        owner: Option<&B32>,
    ) -> Result<Vec<u8>, Error> {
        self.pass().await?;
        self.mine(id, owner)?;
        let state = self.state();
        let kept = state
            .segments
            .get(seq as usize)
            .filter(|_| seq >= state.first);
        let found = kept.map(|s| s.1.clone());
        drop(state);
        found.ok_or_else(|| self.refused(Code::NotFound))
    }

    async fn open(
        &self,
        chunks: Vec<ChunkRef>,
        shared: Option<SharedSegment>,
    ) -> Result<Opened, Error> {
        self.pass().await?;
        assert_eq!(shared.is_some(), self.leaf == GUEST_LEAF);
        let state = self.state();
        let opened = |chunk: &ChunkRef| {
            let (c2_sealed, c3) = state.records.get(&(*chunk.tag, *chunk.d1))?;
            let copy = Copy {
                tag: &chunk.tag,
                d1: &chunk.d1,
                epoch: EPOCH,
                c2_sealed,
            };
            let group = BTreeSet::from([OWNER_LEAF]);
            let wrapped = self.tree.wrap(&copy, &group, self.leaf);
            Some(OpenedChunk {
                epoch: EPOCH.into(),
                c2: wrapped.c2.into(),
                node: wrapped.node,
                gk: wrapped.gk.into(),
                c3: (*c3).into(),
                capability: [1; 16].into(),
            })
        };
        Ok(Opened {
            chunks: chunks.iter().map(opened).collect(),
            expires: 7,
        })
    }

    async fn get_blobs(
        &self,
        expires: u64,
        blobs: Vec<(GetBlob, u32)>,
    ) -> Result<Vec<Result<Vec<u8>, String>>, Error> {
        self.pass().await?;
        assert_eq!(expires, 7);
        let state = self.state();
        let got = |(blob, _): &(GetBlob, u32)| {
            let found = state.blobs.get(&*blob.d1).cloned();
            found.ok_or_else(|| "the server does not have its blob".to_owned())
        };
        Ok(blobs.iter().map(got).collect())
    }
}

/// 100 ms a unit; units of one `gop` have a keyframe in front. H.264 in form: one slice and SEI.
pub(crate) fn video(units: std::ops::Range<u64>, gop: u64) -> Vec<Au> {
    units
        .map(|n| {
            let key = n % gop == 0;
            let mut data = vec![0, 0, 0, 1, 6, 5, n as u8, 0x80, 0, 0, 1];
            data.push(if key { 0x65 } else { 0x41 });
            data.extend((0..if key { 4000 } else { 900 }).map(|i| 1 | (n * 31 + i * 7) as u8));
            Au {
                data,
                info: UnitInfo {
                    content_len: 0,
                    flags: if key { 0 } else { 1 << 13 },
                    pts: Some(10_000_000_000 + n * 100_000_000),
                    dts: None,
                    duration: Some(100_000_000),
                },
            }
        })
        .collect()
}

/// 30 ms a unit, no delta units.
pub(crate) fn sound(units: std::ops::Range<u64>) -> Vec<Au> {
    units
        .map(|n| Au {
            data: (0..300).map(|i| (n * 13 + i) as u8).collect(),
            info: UnitInfo {
                content_len: 0,
                flags: 0,
                pts: Some(10_000_000_000 + n * 30_000_000),
                dts: None,
                duration: Some(30_000_000),
            },
        })
        .collect()
}

pub(crate) const VIDEO: (u32, &str, Codec) = (
    0,
    "video/x-h264, stream-format=(string)byte-stream, alignment=(string)au",
    Codec::H264(crate::chunk::Framing::AnnexB),
);
pub(crate) const SOUND: (u32, &str, Codec) = (1, "audio/x-test", Codec::Opaque);

pub(crate) fn manifest(tracks: Vec<Track>) -> Manifest {
    Manifest {
        session: [1; 8].into(),
        origin_running: 0,
        origin: 0,
        tracks,
    }
}

/// Four segments of 3 s of video with groups of 1 s, and sound; every cut mode in turn.
pub(crate) fn sample() -> Fake {
    use crate::chunk::UnitMode::*;
    let fake = Fake::new("yard");
    for (seq, unit) in (0u64..).zip([Structure, Gop, Fixed(1500), Cdc]) {
        let config = Config {
            unit,
            max_bytes: 3000,
            ..Config::default()
        };
        let picture = fake.track(VIDEO, &config, &video(seq * 30..seq * 30 + 30, 10));
        let voice = fake.track(SOUND, &config, &sound(seq * 100..seq * 100 + 100));
        let place = (seq * 3_000_000_000, 3_000_000_000);
        fake.commit(&manifest(vec![picture, voice]), place);
    }
    fake.state().summary.closed = true;
    fake
}
