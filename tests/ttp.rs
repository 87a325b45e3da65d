// SPDX-License-Identifier: MPL-2.0
//! The third party, with real servers: contracts, tickets, retrieval, deletion, arbitration.

#[path = "common/postgres.rs"]
mod postgres;
#[path = "common/serve.rs"]
mod serve;

use gstcamvault::client::ttp::{Agreed, CloudProof, check_deletions, open_masks};
use gstcamvault::client::{Error, Ttp};
use gstcamvault::feature::Observer;
use gstcamvault::homomorphic::packed::{PublicKey, SecretKey};
use gstcamvault::homomorphic::{retrieval, ticket};
use gstcamvault::identity::Identity;
use gstcamvault::luma::Plane;
use gstcamvault::protocol::*;
use gstcamvault::server::{Config, DEFAULT_AUDIT, Role, Server};
use gstcamvault::watermark::{Layout, Word, embed, position};
use postgres::PostgresServer;
use serve::Program;
use sha2::{Digest as _, Sha256};
use std::collections::HashSet;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

static SECRET: LazyLock<Arc<SecretKey>> =
    LazyLock::new(|| Arc::new(SecretKey::generate(2048).unwrap()));

/// Owner and cloud at a third party, with a contract.
struct World {
    owner: Ttp,
    cloud: Ttp,
    contract: Contract,
    agreed: Agreed,
    key: PublicKey,
}

async fn serve(data: &Path) -> Server {
    let mut config = Config::new(data);
    config.listen.set_port(0);
    config.roles = vec![Role::Ttp];
    // Frames that nobody marked are searched for nothing.
    config.search_time = Duration::from_secs(1);
    Server::start(config).await.unwrap()
}

fn party(url: &str, secret: u8) -> Ttp {
    let identity = Identity::from_secret([secret; 32]).unwrap();
    Ttp::connect(url, Arc::new(identity)).unwrap()
}

async fn prove(party: &Ttp) -> CloudProof {
    party.prove(SECRET.clone()).await.unwrap()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> Code {
    match result {
        Err(Error::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

impl World {
    async fn at(url: &str, owner: u8) -> Self {
        let (owner, cloud) = (party(url, owner), party(url, 200));
        owner.register(None, None).await.unwrap();
        cloud
            .register(Some(&prove(&cloud).await), None)
            .await
            .unwrap();
        let info = owner.info().await.unwrap();
        assert!(!info.token_needed);
        let sign = cloud.identity().public().sign;
        let (bytes, key) = owner.cloud_key(&sign).await.unwrap();
        assert_eq!(&key, SECRET.public());
        let contract = Contract {
            ticket_ms: 60_000,
            created_ms: 1_700_000_000_000,
            name: vec![1; 40].into(),
            audit: DEFAULT_AUDIT,
            ..Contract::new(
                owner.identity().public(),
                cloud.identity().public(),
                info.identity,
                Sha256::digest(&bytes).into(),
                [7; 32],
            )
        };
        let signed = sign_by(&contract, &[&owner, &cloud]);
        let agreed = owner.contract(signed).await.unwrap();
        let (checked, same) = (owner.contract_key(&agreed).await.unwrap(), key.clone());
        assert_eq!(checked, same);
        Self {
            owner,
            cloud,
            contract,
            agreed,
            key,
        }
    }

    /// Another contract between the same.
    async fn another(&self, created_ms: u64) -> Agreed {
        let contract = Contract {
            created_ms,
            ..self.contract.clone()
        };
        let signed = sign_by(&contract, &[&self.owner, &self.cloud]);
        self.owner.contract(signed).await.unwrap()
    }

    async fn tickets(
        &self,
        agreed: &Agreed,
        request: TicketRequest,
    ) -> Result<Vec<gstcamvault::client::ttp::Ticket>, Error> {
        self.owner.tickets(agreed, &self.key, &request).await
    }
}

fn sign_by(contract: &Contract, parties: &[&Ttp]) -> Signed {
    let unsigned = Signed::new(contract);
    let sign = |signed: Signed, party: &&Ttp| signed.sign::<Contract>(party.identity());
    parties.iter().fold(unsigned, sign)
}

fn wanted(agreed: &Agreed, mode: Mode, count: u32) -> TicketRequest {
    TicketRequest {
        contract: agreed.id.into(),
        mode,
        width: 640,
        height: 360,
        feature: None,
        count,
    }
}

/// The word that a ticket's ciphertexts hold, as only the cloud can read it.
fn word(ticket: &gstcamvault::client::ttp::Ticket) -> Word {
    let bits = SECRET.public().modulus_bits();
    let packing = ticket::packing(SECRET.public()).unwrap();
    let open = |i: usize| SECRET.decrypt(&ticket.ciphertexts[i]).unwrap();
    let each = ticket::labels_per_ciphertext(bits);
    Word::from_bits(|bit| {
        let (at, shift) = match ticket.head.mode {
            Mode::Oblivious => (bit, ticket::LABEL_BITS * (bit % each) as u32),
            Mode::Packed => {
                let slots = packing.slots();
                let at = (0..ticket::PLANS * slots)
                    .find(|at| ticket::slot_bit(&packing, at / slots, at % slots) == bit)
                    .unwrap();
                (at, packing.shift(at % slots))
            }
        };
        let clear = open(at);
        let words = clear.words();
        // The value stands alone at its place: anything there is a one.
        let place = shift as usize / 64;
        let one = words
            .iter()
            .enumerate()
            .any(|(i, &word)| word != 0 && i >= place);
        assert!(words.iter().take(place).all(|&word| word == 0));
        one
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn contracts_need_everyones_signature_and_registered_keys() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let url = server.url();
    let stranger = party(&url, 9);
    assert_eq!(
        refusal(stranger.get_contract(&[0; 32]).await),
        Code::NotEnrolled
    );
    // A key proven for somebody else.
    let proof = prove(&party(&url, 10)).await;
    assert_eq!(
        refusal(stranger.register(Some(&proof), None).await),
        Code::Malformed
    );
    let world = World::at(&url, 1).await;
    stranger.register(None, None).await.unwrap();
    // Again is harmless; with another key it is refused.
    world.owner.register(None, None).await.unwrap();
    let other = Arc::new(SecretKey::generate(2048).unwrap());
    let other = world.cloud.prove(other).await.unwrap();
    assert_eq!(
        refusal(world.cloud.register(Some(&other), None).await),
        Code::Conflict
    );
    assert!(stranger.cloud_key(&[3; 32]).await.is_err());

    let (owner, cloud) = (&world.owner, &world.cloud);
    let signed = sign_by(&world.contract, &[owner, cloud]);
    let again = owner.contract(signed.clone()).await.unwrap();
    assert_eq!(again, world.agreed);
    for (who, allowed) in [(owner, true), (cloud, true), (&stranger, false)] {
        let got = who.get_contract(&world.agreed.id).await;
        match allowed {
            true => assert_eq!(got.unwrap(), world.agreed),
            false => assert_eq!(refusal(got), Code::NotFound),
        }
    }
    let change = |change: &dyn Fn(&mut Contract)| {
        let mut contract = world.contract.clone();
        change(&mut contract);
        sign_by(&contract, &[owner, cloud])
    };
    let alone = sign_by(&world.contract, &[owner]);
    let forged = sign_by(&world.contract, &[owner, &stranger]);
    for refused in [
        alone,
        forged,
        change(&|c| c.cloud_key = [1; 32].into()),
        change(&|c| c.ttp.agree = [1; 32].into()),
        change(&|c| c.owner.agree = [1; 32].into()),
        change(&|c| c.cloud.agree = [1; 32].into()),
        change(&|c| c.cloud = stranger.identity().public().into()),
        change(&|c| c.step = 99),
        change(&|c| c.threshold = 64),
        change(&|c| c.per_block = 0),
        change(&|c| c.per_block = 6),
        change(&|c| c.loss = 16),
        change(&|c| c.version = 2),
    ] {
        assert_eq!(refusal(owner.contract(refused).await), Code::Malformed);
    }
    // By another than its owner.
    for other in [cloud, &stranger] {
        let brought = other.contract(signed.clone()).await;
        assert_eq!(refusal(brought), Code::Malformed);
    }
    let asked = wanted(&world.agreed, Mode::Oblivious, 1);
    for other in [cloud, &stranger] {
        let taken = other.tickets(&world.agreed, &world.key, &asked).await;
        assert_eq!(refusal(taken), Code::NotFound);
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_needed_where_others_can_reach_it() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::listen("0.0.0.0:0", dir.path(), &["--role", "ttp"]);
    let url = program.url.replace("0.0.0.0", "127.0.0.1");
    let party = party(&url, 1);
    assert!(party.info().await.unwrap().token_needed);
    for wrong in [None, Some("wrong")] {
        let refused = refusal(party.register(None, wrong).await);
        assert_eq!(refused, Code::NotEnrolled);
    }
    let path = dir.path().join("secrets/register.token");
    let token = std::fs::read_to_string(path).unwrap();
    party.register(None, Some(&token)).await.unwrap();
    party.register(None, None).await.unwrap();
    // No stores of the other roles.
    assert!(!dir.path().join("blobs").exists() && !dir.path().join("metadata").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_open_to_their_word_at_the_cloud_and_no_word_comes_twice() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let world = World::at(&server.url(), 1).await;
    let other = world.another(1).await;
    let (mut words, mut number) = (HashSet::new(), 0);
    for (agreed, mode, count) in [
        (&world.agreed, Mode::Oblivious, 2),
        (&world.agreed, Mode::Packed, 1),
        (&other, Mode::Oblivious, 1),
    ] {
        let request = wanted(agreed, mode, count);
        let tickets = world.tickets(agreed, request).await.unwrap();
        for ticket in &tickets {
            let word = word(ticket);
            let ones = word.0.count_ones();
            assert!((30..98).contains(&ones), "{ones}");
            // The code word beneath the pad.
            assert!(words.insert(word.0 ^ ticket.key.pad().0));
            let head = &ticket.head;
            let same = agreed.id == world.agreed.id;
            assert_eq!(head.number, if same { number } else { 0 });
            number += u64::from(same);
            let validity = head.expires_ms - head.issued_ms;
            assert!(validity >= 60_000 * u64::from(count));
        }
    }
    for (request, code) in [
        (wanted(&other, Mode::Oblivious, 0), Code::Malformed),
        (
            wanted(&other, Mode::Oblivious, MAX_TICKETS + 1),
            Code::Malformed,
        ),
        (
            TicketRequest {
                width: 63,
                ..wanted(&other, Mode::Oblivious, 1)
            },
            Code::Malformed,
        ),
        (
            TicketRequest {
                contract: [0; 32].into(),
                ..wanted(&other, Mode::Oblivious, 1)
            },
            Code::NotFound,
        ),
    ] {
        assert_eq!(refusal(world.tickets(&other, request).await), code);
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retrieval_takes_the_mark_out_and_ends_with_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let world = World::at(&server.url(), 1).await;
    let agreed = &world.agreed;
    let request = TicketRequest {
        width: 128,
        height: 72,
        ..wanted(agreed, Mode::Oblivious, 1)
    };
    let ticket = world.tickets(agreed, request).await.unwrap().remove(0);
    let (word, settings, size) = (word(&ticket), &agreed.settings, [128, 72]);
    let layout = Layout::new(&ticket.key, 0, settings, size[0], size[1]);
    let count = size[0] / 8 * (size[1] / 8) * settings.each();
    let sign = |i: usize| {
        [
            retrieval::Sign::None,
            retrieval::Sign::Plus,
            retrieval::Sign::Minus,
        ][i % 3]
    };
    let signs: Vec<_> = (0..layout.marks().len()).map(sign).collect();
    let plain: Vec<i16> = (0..count).map(|i| (i * 37 % 500) as i16 - 250).collect();
    let mut stored = plain.clone();
    for (mark, sign) in layout.marks().iter().zip(&signs) {
        let delta = match sign {
            retrieval::Sign::None => 0,
            retrieval::Sign::Plus => 50,
            retrieval::Sign::Minus => -50,
        };
        let at = position(settings, size[0], mark).unwrap();
        stored[at] += delta * i16::from(word.bit(mark.bit.into()));
    }
    let mut ask = RetrievalRequest {
        contract: agreed.id.into(),
        ticket: 0,
        mode: Mode::Oblivious,
        key: None,
        frames: vec![retrieval::Sign::pack(&signs).into(); 2],
    };
    let first = world.owner.retrieval(&ask).await.unwrap();
    let pads = first.pads.unwrap();
    let ttp = *agreed.contract.ttp.sign;
    assert!(open_masks(world.owner.identity(), &ttp, &first.masks).is_err());
    assert!(open_masks(world.cloud.identity(), &[1; 32], &first.masks).is_err());
    let masks = open_masks(world.cloud.identity(), &ttp, &first.masks).unwrap();
    assert_eq!((*masks.contract, masks.ticket), (agreed.id, 0));
    for (frame, masks) in (0..).zip(&masks.frames) {
        let sums = retrieval::add(&stored, masks).unwrap();
        assert_eq!(retrieval::subtract(&pads, frame, &sums), plain);
    }
    // Fresh pads every time.
    let second = world.owner.retrieval(&ask).await.unwrap();
    assert_ne!(*second.pads.unwrap(), *pads);
    // In the paper's way, under a key of the owner's.
    ask.mode = Mode::Packed;
    assert_eq!(refusal(world.owner.retrieval(&ask).await), Code::Malformed);
    ask.key = Some(SECRET.public().modulus().into());
    ask.frames.truncate(1);
    let packed = world.owner.retrieval(&ask).await.unwrap();
    assert!(packed.pads.is_none());
    let masks = open_masks(world.cloud.identity(), &ttp, &packed.masks).unwrap();
    let (key, packing) = (SECRET.public(), ticket::packing(SECRET.public()).unwrap());
    let clear: Vec<i32> = masks.frames[0]
        .chunks(key.ciphertext_bytes())
        .flat_map(|bytes| {
            let clear = SECRET.decrypt(&key.parse(bytes).unwrap()).unwrap();
            packing.unpack(&clear).unwrap()
        })
        .collect();
    let expected = plain.iter().zip(&stored).map(|(p, s)| i32::from(p - s));
    assert!(clear.iter().take(count).copied().eq(expected));

    for frames in [vec![vec![0u8; 3].into()], vec![vec![0xff; 100].into(); 1]] {
        ask.frames = frames;
        let refused = world.owner.retrieval(&ask).await;
        assert_eq!(refusal(refused), Code::Malformed);
    }
    ask.frames = vec![retrieval::Sign::pack(&signs).into()];
    ask.ticket = 1;
    let refused = world.owner.retrieval(&ask).await;
    assert_eq!(refusal(refused), Code::NotFound);
    ask.ticket = 0;
    assert_eq!(refusal(world.cloud.retrieval(&ask).await), Code::NotFound);
    world.owner.delete(agreed).await.unwrap();
    assert_eq!(refusal(world.owner.retrieval(&ask).await), Code::Gone);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_are_one_chain_that_shows_what_was_changed() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let world = World::at(&server.url(), 1).await;
    let ttp = *world.agreed.contract.ttp.sign;
    assert_eq!(world.owner.deletion_log(&ttp).await.unwrap(), vec![]);
    let others = [world.another(1).await, world.another(2).await];
    let request = wanted(&others[0], Mode::Oblivious, 2);
    world.tickets(&others[0], request.clone()).await.unwrap();
    let features = Features {
        contract: others[0].id.into(),
        ticket: 1,
        started_ms: 5,
        hashes: vec![1, 2],
        frames: 3,
        commitment: [4; 32].into(),
    };
    world.owner.features(&features).await.unwrap();
    assert_eq!(
        refusal(world.cloud.delete(&others[0]).await),
        Code::NotFound
    );
    let mut receipts = vec![];
    for (agreed, tickets) in [(&others[0], 2), (&world.agreed, 0), (&others[1], 0)] {
        let (deletion, receipt) = world.owner.delete(agreed).await.unwrap();
        assert_eq!(deletion.tickets, tickets);
        let again = world.owner.delete(agreed).await.unwrap();
        assert_eq!(again, (deletion, receipt.clone()));
        receipts.push(receipt);
    }
    let refused = world.tickets(&others[0], request).await;
    assert_eq!(refusal(refused), Code::Gone);
    // What was seen can still be said, once.
    world.owner.features(&features).await.unwrap();
    let other = Features {
        frames: 4,
        ..features
    };
    assert_eq!(refusal(world.owner.features(&other).await), Code::Conflict);
    // A new start does not break the chain.
    let url = server.url();
    server.shutdown().await;
    let mut config = Config::new(dir.path());
    config.listen = url.strip_prefix("http://").unwrap().parse().unwrap();
    config.roles = vec![Role::Ttp];
    let server = Server::start(config).await.unwrap();
    let log = world.owner.deletion_log(&ttp).await.unwrap();
    assert_eq!(log.len(), 3);
    let last = world.another(3).await;
    let (_, receipt) = world.owner.delete(&last).await.unwrap();
    receipts.push(receipt);
    assert_eq!(check_deletions(&ttp, &receipts).unwrap()[..3], log);
    // Left out, exchanged, signed by another.
    let mut gap = receipts.clone();
    gap.remove(1);
    assert!(matches!(
        check_deletions(&ttp, &gap),
        Err(Error::Deletions(1))
    ));
    let mut turned = receipts.clone();
    turned.swap(2, 3);
    assert!(check_deletions(&ttp, &turned).is_err());
    let mut forged = receipts.clone();
    let mut deletion: Deletion = forged[2].unverified().unwrap();
    deletion.tickets = 9;
    forged[2] = Signed::new(&deletion).sign::<Deletion>(world.owner.identity());
    assert!(check_deletions(&ttp, &forged).is_err());
    assert!(check_deletions(&ttp, &receipts).is_ok());
    server.shutdown().await;
}

/// A made picture of a place, whose 64 lowest frequencies are all there, with some noise.
fn picture(place: u32, frame: u32) -> Plane {
    let (width, height) = (640, 360);
    let mut noise = place;
    let mut random = move || {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise >> 24
    };
    let waves: Vec<f64> = (0..64)
        .map(|_| match random() {
            up @ 128.. => f64::from(up & 3) + 5.0,
            down => -f64::from(down & 3) - 5.0,
        })
        .collect();
    let cosine = |u: usize, x: usize, side: usize| {
        (std::f64::consts::PI * u as f64 * (x as f64 + 0.5) / side as f64).cos()
    };
    let columns: Vec<[f64; 8]> = (0..width)
        .map(|x| std::array::from_fn(|u| cosine(u, x, width)))
        .collect();
    let mut data = Vec::with_capacity(width * height);
    for y in 0..height {
        let row: [f64; 8] = std::array::from_fn(|u| {
            (0..8)
                .map(|v| waves[8 * v + u] * cosine(v, y, height))
                .sum()
        });
        for column in &columns {
            let wave: f64 = row.iter().zip(column).map(|(a, b)| a * b).sum();
            let noise = f64::from((random() + frame * 7) & 7);
            data.push((124.0 + wave + noise).clamp(30.0, 225.0) as u8);
        }
    }
    Plane::new(width, height, data).unwrap()
}

/// Pictures of a place as the cloud gets them under a ticket.
fn marked(agreed: &Agreed, ticket: &gstcamvault::client::ttp::Ticket, place: u32) -> Vec<Plane> {
    let layout = Layout::new(&ticket.key, 0, &agreed.settings, 640, 360);
    let word = word(ticket);
    let frame = |i| {
        let mut plane = picture(place, i);
        embed(&mut plane.luma_mut(), &layout, word, None);
        plane
    };
    (0..4).map(frame).collect()
}

fn feature(plane: &Plane) -> u64 {
    Observer::default().look(&plane.luma()).unwrap().phash.0
}

fn suspect(frames: &[Plane], contract: Option<&Agreed>) -> Suspect {
    let zlib = |plane: &Plane| {
        let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(plane.data()).unwrap();
        out.finish().unwrap().into()
    };
    Suspect {
        width: 640,
        height: 360,
        frames: frames.iter().map(zlib).collect(),
        file: Some([5; 32].into()),
        contract: contract.map(|agreed| agreed.id.into()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leak_names_its_contract_and_footage_without_a_mark_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let world = World::at(&server.url(), 1).await;
    let ttp = *world.agreed.contract.ttp.sign;
    let other = world.another(1).await;
    let judge = party(&server.url(), 50);
    let (place, elsewhere) = (picture(1, 0), picture(4, 0));
    // Three tickets that look alike, and one of another camera.
    let request = TicketRequest {
        feature: Some(feature(&place)),
        ..wanted(&world.agreed, Mode::Oblivious, 3)
    };
    let tickets = world.tickets(&world.agreed, request).await.unwrap();
    let plain = world.tickets(&other, wanted(&other, Mode::Packed, 1)).await;
    let plain = plain.unwrap().remove(0);
    let report = Features {
        contract: other.id.into(),
        ticket: 0,
        started_ms: 1,
        hashes: vec![feature(&elsewhere)],
        frames: 4,
        commitment: [0; 32].into(),
    };
    world.owner.features(&report).await.unwrap();
    let mark = |ticket, at| marked(&world.agreed, ticket, at);
    let clip = mark(&tickets[1], 1);
    let sent = suspect(&clip, None);
    let refused = judge.arbitrate(&ttp, &sent).await;
    assert_eq!(refusal(refused), Code::NotEnrolled);
    judge.register(None, None).await.unwrap();

    let judged = judge.arbitrate(&ttp, &sent).await.unwrap();
    let digest = suspect_digest(640, 360, clip.iter().map(Plane::data));
    assert_eq!(*judged.verdict.frames, digest);
    assert_eq!(judged.verdict.file, Some([5; 32].into()));
    assert_eq!((judged.verdict.compared, judged.verdict.registered), (3, 4));
    let leak = judged.verdict.leak.unwrap();
    assert_eq!(leak.retrieved_ms, None);
    assert_eq!((*leak.contract, leak.ticket), (world.agreed.id, 1));
    assert_eq!(leak.owner, world.contract.owner);
    assert_eq!(leak.cloud, world.contract.cloud);
    assert_eq!(leak.issued_ms, tickets[1].head.issued_ms);
    assert!(leak.errors < 5 && leak.false_positive < 1e-12, "{leak:?}");
    assert_eq!(leak.deleted, None);
    assert_eq!(judged.contract.unwrap(), world.agreed);
    assert_eq!(judged.bits.unwrap().len(), 128);

    // Once the owner had marks taken out, the verdict says so.
    let layout = Layout::new(&tickets[1].key, 0, &world.agreed.settings, 640, 360);
    let ask = RetrievalRequest {
        contract: world.agreed.id.into(),
        ticket: 1,
        mode: Mode::Oblivious,
        key: None,
        frames: vec![vec![0; layout.marks().len().div_ceil(4)].into()],
    };
    world.owner.retrieval(&ask).await.unwrap();
    let judged = judge.arbitrate(&ttp, &sent).await.unwrap();
    let leak = judged.verdict.leak.unwrap();
    assert!(leak.retrieved_ms.unwrap() >= leak.issued_ms);

    // Forgotten footage that turns up again; found by what was reported.
    world.owner.delete(&other).await.unwrap();
    let clip = mark(&plain, 4);
    let judged = judge.arbitrate(&ttp, &suspect(&clip, None)).await.unwrap();
    let leak = judged.verdict.leak.unwrap();
    assert_eq!((*leak.contract, leak.ticket), (other.id, 0));
    let log = world.owner.deletion_log(&ttp).await.unwrap();
    assert_eq!(leak.deleted, Some((0, log[0].deleted_ms)));

    // A picture that nobody has reported: only if the contract is named.
    let clip = mark(&tickets[2], 7);
    let sent = suspect(&clip, None);
    let judged = judge.arbitrate(&ttp, &sent).await.unwrap();
    assert_eq!((judged.verdict.leak, judged.verdict.compared), (None, 0));
    let sent = suspect(&clip, Some(&world.agreed));
    let judged = judge.arbitrate(&ttp, &sent).await.unwrap();
    assert_eq!(judged.verdict.leak.unwrap().ticket, 2);

    let unmarked: Vec<_> = (0..4).map(|i| picture(1, i)).collect();
    let judged = judge.arbitrate(&ttp, &suspect(&unmarked, None)).await;
    let judged = judged.unwrap();
    assert_eq!((judged.verdict.leak, judged.verdict.compared), (None, 3));
    assert!(judged.contract.is_none() && judged.bits.is_none());
    let mut wrong = suspect(&unmarked, None);
    wrong.width = 641;
    let refused = judge.arbitrate(&ttp, &wrong).await;
    assert_eq!(refusal(refused), Code::Malformed);
    // Another third party's verdict does not count.
    let sent = suspect(&unmarked, None);
    assert!(judge.arbitrate(&[1; 32], &sent).await.is_err());
    server.shutdown().await;
}

/// What was acknowledged: contract, number and code word.
type Acknowledged = Arc<Mutex<Vec<([u8; 32], u64, u128)>>>;

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_issues_it_repeats_no_number_and_no_word() {
    let dir = tempfile::tempdir().unwrap();
    let done = Acknowledged::default();
    let mut deleted = vec![];
    let mut program = Program::start(dir.path(), &["--role", "ttp"]);
    for round in 0..3u64 {
        let world = Arc::new(World::at(&program.url, 1).await);
        let gone = world.another(round).await;
        let (_, receipt) = world.owner.delete(&gone).await.unwrap();
        deleted.push(receipt);
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let (world, done) = (world.clone(), done.clone());
                tokio::spawn(async move {
                    loop {
                        let request = wanted(&world.agreed, Mode::Oblivious, 1);
                        let Ok(tickets) = world.tickets(&world.agreed, request).await else {
                            return;
                        };
                        for ticket in tickets {
                            let code = word(&ticket).0 ^ ticket.key.pad().0;
                            let entry = (world.agreed.id, ticket.head.number, code);
                            done.lock().unwrap().push(entry);
                        }
                    }
                })
            })
            .collect();
        let before = done.lock().unwrap().len();
        while done.lock().unwrap().len() < before + 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(137 * round)).await;
        program.kill();
        for writer in writers {
            writer.await.unwrap();
        }
        program.again();
    }
    let done = done.lock().unwrap().clone();
    assert!(done.len() > 3, "{}", done.len());
    let numbers: HashSet<_> = done.iter().map(|(id, number, _)| (id, number)).collect();
    let words: HashSet<_> = done.iter().map(|(.., word)| word).collect();
    assert_eq!((numbers.len(), words.len()), (done.len(), done.len()));
    let world = World::at(&program.url, 1).await;
    let ttp = *world.agreed.contract.ttp.sign;
    let log = world.owner.deletion_log(&ttp).await.unwrap();
    assert_eq!(check_deletions(&ttp, &deleted).unwrap(), log);
    let request = wanted(&world.agreed, Mode::Oblivious, 1);
    let next = world.tickets(&world.agreed, request).await.unwrap();
    let greatest = done.iter().map(|(_, number, _)| *number).max();
    assert!(next[0].head.number > greatest.unwrap());
    assert_eq!(world.agreed.id, done[0].0);
}

/// The same signed request to two servers: how they answer.
async fn send_to_both(who: &Ttp, urls: [&str; 2], path: &str, body: Vec<u8>) -> [u16; 2] {
    let digest = signature::content_digest(&body);
    let covered = signature::Covered {
        method: "POST",
        authority: "ttp.example",
        path,
        query: "",
        body_field: "content-digest",
        body_value: &digest,
    };
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let nonce = signature::nonce().unwrap();
    let (input, signed) = signature::sign(who.identity(), &covered, since.as_secs(), &nonce);
    let mut answers = [0; 2];
    for (url, answer) in urls.iter().zip(&mut answers) {
        let sent = reqwest::Client::new()
            .post(format!("{url}{path}"))
            .header("host", "ttp.example")
            .header("content-digest", &digest)
            .header("signature-input", &input)
            .header("signature", &signed)
            .body(body.clone());
        *answer = sent.send().await.unwrap().status().as_u16();
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_over_one_database_are_one_third_party() {
    let database = PostgresServer::start();
    let url = database.database("ttp");
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let start = |name: &str, secrets: &str| {
        let places = ["--metadata", &url, "--secrets", secrets];
        let arguments = [&["--role", "ttp", "--search-time", "1"], &places[..]].concat();
        Program::start(&dir.path().join(name), &arguments)
    };
    let (mut first, second) = (start("one", &at("secrets")), start("two", &at("secrets")));
    // One with other secrets does not start.
    let said = Program::refused(
        &dir.path().join("three"),
        &["--role", "ttp", "--metadata", &url],
    );
    assert!(said.contains("ttp.key"), "{said}");

    // A contract made at one, tickets from both.
    let world = World::at(&first.url, 1).await;
    let ttp = *world.agreed.contract.ttp.sign;
    let there = party(&second.url, 1);
    assert_eq!(
        there.get_contract(&world.agreed.id).await.unwrap(),
        world.agreed
    );
    // A key that is proven with what one asks, brought to the other.
    let proof = prove(&party(&first.url, 201)).await;
    let cloud = party(&second.url, 201);
    cloud.register(Some(&proof), None).await.unwrap();
    let place = picture(1, 0);
    let request = TicketRequest {
        feature: Some(feature(&place)),
        ..wanted(&world.agreed, Mode::Oblivious, 1)
    };
    let (mut tickets, mut codes) = (vec![], HashSet::new());
    for _ in 0..3 {
        let (a, b) = tokio::join!(
            world.owner.tickets(&world.agreed, &world.key, &request),
            there.tickets(&world.agreed, &world.key, &request),
        );
        tickets.extend(a.unwrap());
        tickets.extend(b.unwrap());
    }
    for ticket in &tickets {
        assert!(codes.insert(word(ticket).0 ^ ticket.key.pad().0));
    }
    let mut numbers: Vec<u64> = tickets.iter().map(|ticket| ticket.head.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);

    // Who has heard a request sends it again to the other.
    let demand = AuditDemand {
        contract: world.agreed.id.into(),
    };
    for (who, path, body) in [
        (&world.owner, "/v1/ttp/tickets", encode(&request)),
        (&world.cloud, "/v1/ttp/audits", encode(&demand)),
    ] {
        let [once, again] = send_to_both(who, [&first.url, &second.url], path, body).await;
        assert_eq!((once / 100, again), (2, 401), "{path}");
    }

    // What is reported to one is found through the other.
    let report = Features {
        contract: world.agreed.id.into(),
        ticket: tickets[4].head.number,
        started_ms: 1,
        hashes: vec![feature(&picture(4, 0))],
        frames: 4,
        commitment: [0; 32].into(),
    };
    there.features(&report).await.unwrap();
    let judge = party(&first.url, 50);
    judge.register(None, None).await.unwrap();
    let sent = suspect(&marked(&world.agreed, &tickets[4], 4), None);
    let judged = judge.arbitrate(&ttp, &sent).await.unwrap();
    assert_eq!((judged.verdict.compared, judged.verdict.registered), (1, 7));
    let leak = judged.verdict.leak.unwrap();
    assert_eq!(leak.ticket, tickets[4].head.number);

    // One chain of deletions; it goes on when one of them dies.
    let others = [world.another(1).await, world.another(2).await];
    let (a, b) = tokio::join!(world.owner.delete(&others[0]), there.delete(&others[1]));
    let mut receipts = vec![a.unwrap().1, b.unwrap().1];
    receipts.sort_by_key(|receipt| receipt.unverified::<Deletion>().unwrap().index);
    first.kill();
    let (deletion, receipt) = there.delete(&world.agreed).await.unwrap();
    assert_eq!((deletion.index, deletion.tickets), (2, 7));
    receipts.push(receipt);
    let log = there.deletion_log(&ttp).await.unwrap();
    assert_eq!(check_deletions(&ttp, &receipts).unwrap(), log);
    first.again();
    assert_eq!(world.owner.deletion_log(&ttp).await.unwrap(), log);
    let refused = world.tickets(&world.agreed, request).await;
    assert_eq!(refusal(refused), Code::Gone);
}
