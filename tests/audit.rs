// SPDX-License-Identifier: MPL-2.0
//! What keeps owners of sealed streams honest, and what gateways do not take.

mod common;
#[path = "common/parties.rs"]
mod parties;

use common::{Pipeline, Place};
use gstcamvault::client::{Error, Ttp};
use gstcamvault::gateway::{Cloud, Encoder, Settings};
use gstcamvault::identity::Identity;
use gstcamvault::protocol::*;
use gstcamvault::sealed::stream::message::SegmentEnd;
use gstcamvault::server::Gateway;
use parties::Parties;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(180);
const SCENE: &str = "videotestsrc pattern=zone-plate kx2=6 ky2=4 kt=2 num-buffers=20 \
    ! video/x-raw,format=I420,width=160,height=120,framerate=10/1";

struct World {
    place: Place,
    parties: Parties,
    settings: Settings,
    cloud: Cloud,
    port: u16,
}

impl World {
    /// Every ticket is audited.
    fn new(max_pixels: u64) -> Self {
        let place = Place::with(|config| config.audit = AUDIT_ALL);
        let url = place.vault.url.clone();
        let data = place.vault.dir.path().join("gateway");
        let mut settings = Settings::new(data, ([127, 0, 0, 1], 0).into(), &url, &url);
        settings.encoder = Encoder::Lossless;
        settings.modulus_bits = 2048;
        settings.max_pixels = max_pixels;
        let cloud = Cloud::open(settings.clone()).unwrap();
        let port = place.vault.block(cloud.start()).unwrap().port();
        let parties = place.vault.block(Parties::with(&url, &cloud, 1000));
        Self {
            place,
            parties,
            settings,
            cloud,
            port,
        }
    }

    /// Sends a clip, and keeps the stream in a file.
    fn send(&self) -> Result<Vec<gst::Message>, String> {
        Pipeline::launch(&format!(
            "{SCENE} ! {} ! tee name=t ! queue ! filesink location={} \
             t. ! queue ! tcpclientsink host=127.0.0.1 port={}",
            self.parties.mark(),
            self.parties.file("sealed").display(),
            self.port
        ))
        .run(LONG)
    }

    /// Opens the kept stream as the gateway does.
    fn open(&self, more: &str) -> Result<Vec<gst::Message>, String> {
        let at = |name| self.settings.data.join(name).display().to_string();
        Pipeline::launch(&format!(
            "filesrc location={} ! application/x-dmqim-sealed ! dmqimopen key-file={} identity={} \
             contracts={} {more} ! fakesink",
            self.parties.file("sealed").display(),
            at("gateway.paillier"),
            at("gateway.identity"),
            at("contracts"),
        ))
        .run(LONG)
    }

    /// Complete archives.
    fn archives(&self) -> usize {
        let caller = self.parties.owner.identity().public().sign;
        let list = self.cloud.archives(caller, self.parties.agreed.id);
        let list = self.place.vault.block(list).unwrap().archives;
        list.iter().filter(|archive| !archive.live).count()
    }

    fn audits(&self) -> AuditCounts {
        let audits = self.parties.owner.audits(&self.parties.agreed.id);
        self.place.vault.block(audits).unwrap()
    }

    /// The cloud, as a client of the third party.
    fn as_cloud(&self) -> Ttp {
        let identity = Identity::load(&self.settings.data.join("gateway.identity")).unwrap();
        Ttp::connect(&self.place.vault.url, Arc::new(identity)).unwrap()
    }

    /// A ticket that nobody uses.
    fn ticket(&self) -> Result<u64, Error> {
        let (owner, agreed) = (&self.parties.owner, &self.parties.agreed);
        self.place.vault.block(async {
            let key = owner.contract_key(agreed).await?;
            let request = TicketRequest {
                contract: agreed.id.into(),
                mode: Mode::Oblivious,
                width: 160,
                height: 120,
                feature: None,
                count: 1,
            };
            let tickets = owner.tickets(agreed, &key, &request).await?;
            Ok(tickets[0].head.number)
        })
    }

    fn report(&self, ticket: u64) -> Signed {
        let features = Features {
            contract: self.parties.agreed.id.into(),
            ticket,
            started_ms: 1,
            hashes: Vec::new(),
            frames: 3,
            commitment: [4; 32].into(),
        };
        let noted = self.parties.owner.features(&features);
        self.place.vault.block(noted).unwrap().unwrap()
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..600 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{what}");
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> Code {
    match result {
        Err(Error::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_honest_owner_passes_and_its_stream_is_taken_once() {
    let world = World::new(160 * 120);
    world.send().unwrap();
    until("nothing was archived", || world.archives() == 1);
    // A ticket a second, and perhaps one that was begun with for nothing.
    until("no audit", || world.audits().passed >= 2);
    // What the cloud received is what was reported, whichever came first.
    let counts = || {
        let audits = world.audits();
        (audits.failed, audits.unanswered, audits.unreported)
    };
    until("unreported", || counts() == (0, 0, 0));
    let sealed = std::fs::read(world.parties.file("sealed")).unwrap();
    world.ticket().unwrap();

    // The same stream again, to the same gateway and to one that was started again.
    let cloud = Cloud::open(world.settings.clone()).unwrap();
    let again = world.place.vault.block(cloud.start()).unwrap().port();
    for port in [world.port, again] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        // It may be cut off before its end.
        let _ = stream.write_all(&sealed);
        drop(stream);
    }
    let taken = world.settings.data.join("tickets");
    let refused = world.open(&format!("tickets={}", taken.display()));
    assert!(refused.unwrap_err().contains("used before"));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(world.archives(), 1);
    // Without that memory it opens, unless its frames are too large.
    world.open("").unwrap();
    let refused = world.open("max-pixels=19199");
    assert!(refused.unwrap_err().contains("160x120 are larger"));
}

#[test]
fn frames_that_the_cloud_does_not_take_are_an_error_at_the_owner() {
    let world = World::new(160 * 120 - 1);
    assert!(
        world
            .send()
            .unwrap_err()
            .contains("larger than this cloud takes")
    );
    // The third party does not give tickets for them either.
    assert_eq!(refusal(world.ticket()), Code::Malformed);
}

#[test]
fn an_owner_that_lies_gets_no_more_tickets() {
    let world = World::new(1 << 20);
    let (owner, agreed) = (&world.parties.owner, &world.parties.agreed);
    let block = &world.place.vault;
    let cloud = world.as_cloud();
    // Audits are demanded by the cloud alone.
    block.block(cloud.demand_audit(&agreed.id)).unwrap();
    assert_eq!(
        refusal(block.block(owner.demand_audit(&agreed.id))),
        Code::NotFound
    );
    // What is asked is signed, and the same when it is asked again.
    let ticket = world.ticket().unwrap();
    let asked = world.report(ticket);
    let challenge: Challenge = asked.verify(&[&agreed.contract.ttp.sign]).unwrap();
    assert_eq!(*challenge.commitment, [4; 32]);
    assert_eq!(world.report(ticket), asked);
    // No answer yet, so nothing is held against it.
    assert_eq!(world.audits(), AuditCounts::default());
    let opening = Opening {
        promised: Promised {
            head: [1; 32].into(),
            frames: 3,
            sent: [2; 32].into(),
            pieces: 9,
            root: [3; 32].into(),
        },
        head: Vec::new().into(),
        ciphertexts: Vec::new().into(),
        seed: [5; 32].into(),
        pieces: Vec::new(),
    };
    for _ in 0..2 {
        let answer = block.block(owner.open(agreed, ticket, &opening));
        assert_eq!(refusal(answer), Code::Audit);
    }
    assert_eq!(world.audits().failed, 1);
    assert_eq!(refusal(world.ticket()), Code::Audit);
    assert!(world.send().unwrap_err().contains("audit"));
}

#[test]
fn an_owner_that_tells_cloud_and_third_party_different_things_is_found_out() {
    let world = World::new(1 << 20);
    let block = &world.place.vault;
    let cloud = world.as_cloud();
    let owner = world.parties.owner.identity();
    let end = |ticket, commitment: u8| {
        let end = SegmentEnd {
            stream: [1; 16].into(),
            segment: 0,
            frames: 3,
            commitment: [commitment; 32].into(),
            contract: world.parties.agreed.id.into(),
            ticket,
        };
        Signed::new(&end)
    };
    let [first, second] = [0, 1].map(|_| world.ticket().unwrap());
    world.report(first);
    let signed = |ticket, commitment| end(ticket, commitment).sign::<SegmentEnd>(owner);
    block.block(cloud.receipt(signed(first, 4))).unwrap();
    assert_eq!(world.audits().failed, 0);
    // What the owner has not signed says nothing; nor does what somebody else brings.
    let forged = end(second, 5).sign::<SegmentEnd>(cloud.identity());
    assert_eq!(refusal(block.block(cloud.receipt(forged))), Code::Malformed);
    let brought = block.block(world.parties.owner.receipt(signed(second, 5)));
    assert_eq!(refusal(brought), Code::NotFound);
    block.block(cloud.receipt(signed(second, 5))).unwrap();
    assert_eq!(world.audits().failed, 0);
    world.report(second);
    assert_eq!(world.audits().failed, 1);
    assert_eq!(refusal(world.ticket()), Code::Audit);
}
