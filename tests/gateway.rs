// SPDX-License-Identifier: MPL-2.0
//! The cloud: sealed streams into its vault, and back to their owner without the mark.

mod common;
#[path = "common/parties.rs"]
mod parties;

use common::{Pipeline, Place};
use gstcamvault::gateway::{Cloud, Encoder, Settings};
use gstcamvault::homomorphic::retrieval::Sign;
use gstcamvault::identity::Identity;
use gstcamvault::protocol::*;
use gstcamvault::sealed::stream::{Remainder, RemainderReader};
use gstcamvault::server::{Gateway, GatewayError, Messages};
use parties::Parties;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(180);
const SCENE: &str = "videotestsrc pattern=zone-plate kx2=6 ky2=4 kt=2 num-buffers=40 \
    ! video/x-raw,format=I420,width=320,height=240,framerate=20/1";

struct World {
    place: Place,
    parties: Parties,
    cloud: Cloud,
    port: u16,
}

impl World {
    fn new(encoder: Encoder) -> Self {
        let place = Place::new();
        let url = place.vault.url.clone();
        let mut settings = Settings::new(
            place.vault.dir.path().join("gateway"),
            ([127, 0, 0, 1], 0).into(),
            &url,
            &url,
        );
        settings.encoder = encoder;
        settings.modulus_bits = 2048;
        let cloud = Cloud::open(settings).unwrap();
        let address = place.vault.block(cloud.start()).unwrap();
        let parties = place.vault.block(Parties::with(&url, &cloud, 1000));
        Self {
            place,
            parties,
            cloud,
            port: address.port(),
        }
    }

    fn caller(&self) -> [u8; 32] {
        self.parties.owner.identity().public().sign
    }

    /// Sends a clip; its raw frames are in the file.
    fn send(&self) -> PathBuf {
        let raw = self.parties.file("raw");
        Pipeline::launch(&format!(
            "{SCENE} ! tee name=t ! queue ! filesink location={} \
             t. ! queue ! {} ! tcpclientsink host=127.0.0.1 port={}",
            raw.display(),
            self.parties.mark(),
            self.port
        ))
        .run(LONG)
        .unwrap();
        raw
    }

    /// The archive, when it is complete.
    fn archive(&self) -> Archive {
        for _ in 0..600 {
            let list = self.cloud.archives(self.caller(), self.parties.agreed.id);
            let list = self.place.vault.block(list).unwrap();
            if let Some(archive) = list.archives.into_iter().find(|a| !a.live) {
                return archive;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("nothing was archived");
    }

    fn all(&self, mut messages: Messages) -> Result<Vec<Vec<u8>>, GatewayError> {
        self.place.vault.block(async {
            let mut out = Vec::new();
            while let Some(message) = messages.recv().await {
                out.push(message?);
            }
            Ok(out)
        })
    }

    fn remainders(&self, archive: &str) -> Vec<(u64, Remainder)> {
        let stored = self
            .cloud
            .remainders(self.caller(), self.parties.agreed.id, archive.into());
        let stored = self.all(self.place.vault.block(stored).unwrap()).unwrap();
        let read = |message: &Vec<u8>| {
            let stored: StoredRemainder = decode(message).unwrap();
            (stored.pts, decode(&stored.remainder).unwrap())
        };
        stored.iter().map(read).collect()
    }
}

/// An owner that asks with masks of one ticket for frames of another would get these with their mark
/// in, and the third party would note a retrieval of the first alone.
#[test]
fn masks_take_out_marks_of_their_own_ticket_only() {
    let world = World::new(Encoder::Lossless);
    world.send();
    let archive = world.archive();
    let id = world.parties.agreed.id;
    let remainders = world.remainders(&archive.name);
    let owner = world.parties.owner.identity();
    let ask = |ticket: u64, frames: std::ops::Range<usize>| {
        // Tickets have 20 frames here.
        let first = &remainders[20 * ticket as usize].1;
        let mut reader = RemainderReader::begin(owner, first, 1 << 20).unwrap();
        let signs = vec![Sign::None; reader.open(first).unwrap().remainders.len()];
        let request = RetrievalRequest {
            contract: id.into(),
            ticket,
            mode: Mode::Oblivious,
            key: None,
            frames: vec![Sign::pack(&signs).into(); frames.len()],
        };
        let given = world.parties.owner.retrieval(&request);
        let given = world.place.vault.block(given).unwrap();
        let ask = GatewayRetrieval {
            masks: given.masks.into(),
            pts: remainders[frames].iter().map(|(pts, _)| *pts).collect(),
        };
        let (cloud, caller) = (&world.cloud, world.caller());
        let answer = cloud.retrieve(caller, id, archive.name.clone(), ask);
        world.all(world.place.vault.block(answer).unwrap())
    };
    for (ticket, frames) in [(0, 0..20), (0, 17..20), (1, 20..40), (1, 25..26)] {
        let count = frames.len();
        assert_eq!(ask(ticket, frames).unwrap().len(), 1 + count);
    }
    for (ticket, frames) in [
        (0, 20..40),
        (0, 19..21),
        (1, 19..21),
        (1, 0..1),
        (0, 39..40),
    ] {
        let refused = ask(ticket, frames.clone());
        assert!(
            matches!(refused, Err(GatewayError::Refused(_))),
            "ticket {ticket}, frames {frames:?}: {:?}",
            refused.map(|messages| messages.len())
        );
    }
}

#[test]
fn a_stream_is_archived_with_the_owners_remainders() {
    let world = World::new(Encoder::Lossless);
    world.send();
    let archive = world.archive();
    let done = world.cloud.activity();
    let streams = (done.streams_open, done.streams_failed, done.archives);
    assert_eq!((streams, done.frames), ((0, 0, 1), 40), "{done:?}");
    assert!(done.bytes > 100_000, "{done:?}");
    let remainders = world.remainders(&archive.name);
    assert_eq!(remainders.len(), 40);
    for (n, (pts, remainder)) in remainders.iter().enumerate() {
        assert_eq!(*pts, n as u64 * 50_000_000);
        assert_eq!(
            (remainder.ticket, remainder.frame),
            (n as u64 / 20, n as u64 % 20)
        );
    }
    let stranger = [1; 32];
    let id = world.parties.agreed.id;
    let list = world.place.vault.block(world.cloud.archives(stranger, id));
    assert!(matches!(list, Err(GatewayError::NotFound(_))));
    // An archive under legal hold stays, and it is said which.
    let vault = &world.place.vault;
    let file = vault.dir.path().join("gateway/gateway.identity");
    let cloud = Arc::new(Identity::load(&file).unwrap());
    let recording = cloud.recording_id(&archive.name);
    let connected = vault.connect(&cloud);
    vault.block(connected.hold(&recording, true)).unwrap();
    let held = vault.block(world.cloud.forget(world.caller(), id));
    let says = |why: &String| why.contains("legal hold") && why.contains(&archive.name);
    assert!(matches!(&held, Err(GatewayError::Held(why)) if says(why)));
    assert!(vault.stats().chunks > 0);
    vault.block(connected.hold(&recording, false)).unwrap();
    world
        .place
        .vault
        .block(world.cloud.forget(world.caller(), id))
        .unwrap();
    assert_eq!(world.place.vault.stats().chunks, 0, "nothing is left");
}

#[test]
fn a_gateway_that_stops_keeps_what_has_come() {
    let world = World::new(Encoder::X264);
    let endless = SCENE.replace("num-buffers=40", "is-live=true");
    let camera = Pipeline::launch(&format!(
        "{endless} ! {} ! tcpclientsink host=127.0.0.1 port={}",
        world.parties.mark(),
        world.port
    ));
    camera.play();
    let end = Instant::now() + LONG;
    while world.cloud.activity().frames < 30 {
        assert!(Instant::now() < end, "{:?}", world.cloud.activity());
        std::thread::sleep(Duration::from_millis(50));
    }
    // One that says nothing does not hold it up.
    let silent = std::net::TcpStream::connect(("127.0.0.1", world.port)).unwrap();
    while world.cloud.activity().streams_open < 2 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let (frames, stopping) = (world.cloud.activity().frames, Instant::now());
    world.place.vault.block(world.cloud.stop());
    assert!(stopping.elapsed() < Duration::from_secs(20));
    drop(silent);
    let done = world.cloud.activity();
    assert_eq!((done.streams_open, done.streams_failed), (0, 0), "{done:?}");
    let archive = world.archive();
    let kept = world.remainders(&archive.name).len() as u64;
    assert!(kept >= frames, "{kept} of {frames}");
}
