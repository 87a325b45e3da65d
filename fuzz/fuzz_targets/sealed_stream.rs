// SPDX-License-Identifier: MPL-2.0
//! Any bytes as a sealed stream, and what an owner who has all keys of its own may send as labels,
//! as the content of a frame and as candidates, are refused or taken by a cloud with a key of 2048
//! bits. The first byte says which.
#![no_main]

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use gstcamvault::homomorphic::packed::{
    Base, Encryptor, Randomiser, SecretKey, TICKET_EXPONENT_BITS, read_secret_key,
};
use gstcamvault::homomorphic::ticket;
use gstcamvault::identity::Identity;
use gstcamvault::protocol::{
    Agreed, Contract, Mode, SEGMENT_INFO, SegmentHead, Signed, TicketHead, TicketSecret, decode,
    encode,
};
use gstcamvault::sealed::stream::message::{self, FrameHeader, Kind};
use gstcamvault::sealed::stream::{Agreement, Opener, Prepared, Sealer, Ticket};
use gstcamvault::sealed::{Chroma, Geometry, Picture};
use gstcamvault::watermark::Word;
use libfuzzer_sys::fuzz_target;
use sha2::{Digest as _, Sha256};
use std::io::Write as _;
use std::sync::{Arc, LazyLock};

const SIDE: usize = 24;
const EXPECT: &str = "a key and a stream";

struct World {
    owner: Arc<Identity>,
    cloud: Arc<Identity>,
    secret: Arc<SecretKey>,
    contract: Contract,
    id: [u8; 32],
    /// Head and first frame of a good stream in each mode.
    good: [[Vec<u8>; 2]; 2],
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let [owner, cloud, ttp] = [1, 2, 3].map(|n| Identity::from_secret([n; 32]).expect(EXPECT));
    let mut file = tempfile::NamedTempFile::new().expect(EXPECT);
    file.write_all(include_bytes!("../test.paillier"))
        .expect(EXPECT);
    let secret = read_secret_key(file.path()).expect(EXPECT);
    let contract = Contract {
        audit: 1000,
        ..Contract::new(owner.public(), cloud.public(), ttp.public(), [0; 32], [5; 32])
    };
    let signed = Signed::new(&contract)
        .sign::<Contract>(&owner)
        .sign::<Contract>(&cloud)
        .sign::<Contract>(&ttp);
    let (owner, cloud) = (Arc::new(owner), Arc::new(cloud));
    let good = [Mode::Oblivious, Mode::Packed].map(|mode| {
        let agreed = Agreed::check(signed.clone()).expect(EXPECT);
        let key = secret.public().clone();
        let base = Base::derive(&key, &contract.base_seed, &agreed.id);
        let randomiser = Randomiser::new(&key, &base, TICKET_EXPONENT_BITS).expect(EXPECT);
        let encryptor = Encryptor::new(randomiser);
        let ciphertexts = match mode {
            Mode::Oblivious => ticket::for_labels(&encryptor, Word(0x5555)),
            Mode::Packed => {
                let packing = ticket::packing(&key).expect(EXPECT);
                ticket::for_slots(&encryptor, &packing, Word(0x5555), 100)
            }
        };
        let ciphertexts = ciphertexts.expect(EXPECT);
        let bytes: Vec<u8> = ciphertexts.iter().flat_map(|c| key.to_bytes(c)).collect();
        let secret = encode(&TicketSecret {
            seed: [7; 32].into(),
            ciphertexts: bytes.into(),
        });
        let head = TicketHead {
            contract: agreed.id.into(),
            number: 0,
            mode,
            width: SIDE as u32,
            height: SIDE as u32,
            issued_ms: 0,
            expires_ms: 2000,
            secret: <[u8; 32]>::from(Sha256::digest(&secret)).into(),
        };
        let head = Signed::new(&head).sign::<TicketHead>(&ttp);
        let agreement = Arc::new(Agreement::new(agreed, key, mode).expect(EXPECT));
        let ticket = Ticket::new(agreement.agreed(), agreement.key(), mode, head, &secret);
        let prepared = Prepared::new(agreement, ticket.expect(EXPECT)).expect(EXPECT);
        let mut sealer = Sealer::new(owner.clone()).expect(EXPECT);
        let head = sealer.begin(prepared, Chroma::I420, (10, 1), 0);
        let geometry = Geometry::new(SIDE, SIDE, Chroma::I420).expect(EXPECT);
        let frame = sealer.frame(&Picture::new(geometry), None, None);
        [head, frame].map(|message| {
            let bytes = message.expect(EXPECT);
            let read = message::read(&bytes).expect(EXPECT).expect(EXPECT);
            read.payload.to_vec()
        })
    });
    World {
        id: signed.id::<Contract>(),
        owner,
        cloud,
        secret: Arc::new(secret),
        contract,
        good,
    }
});

impl World {
    fn opener(&self) -> Opener {
        Opener::new(self.cloud.clone(), self.secret.clone(), u64::MAX)
    }

    fn begin(&self, opener: &mut Opener, head: &[u8]) -> bool {
        let find = |id: &[u8; 32]| (*id == self.id).then(|| self.contract.clone());
        opener.segment(head, find, 1000).is_ok()
    }

    /// A frame with this under the key of the good stream's segment.
    fn frame(&self, head: &[u8], clear: &[u8]) -> Vec<u8> {
        let signed: Signed = decode(head).expect(EXPECT);
        let head: SegmentHead = signed.unverified().expect(EXPECT);
        let segment = head.segment.to_be_bytes();
        let info = [SEGMENT_INFO, &self.id, &*head.stream, &segment].concat();
        let key = self.cloud.open(&info, &head.key).expect(EXPECT);
        let cipher = Aes256Gcm::new_from_slice(&key).expect(EXPECT);
        let header = FrameHeader {
            number: 0,
            pts: None,
            duration: None,
        };
        let header = header.to_bytes();
        let payload = Payload {
            msg: clear,
            aad: &header,
        };
        let sealed = cipher.encrypt(&Nonce::from([0; 12]), payload);
        [header.as_slice(), &sealed.expect(EXPECT)].concat()
    }

    /// What is under the key in a frame.
    fn clear(&self, head: &[u8], payload: &[u8]) -> Vec<u8> {
        let signed: Signed = decode(head).expect(EXPECT);
        let head: SegmentHead = signed.unverified().expect(EXPECT);
        let segment = head.segment.to_be_bytes();
        let info = [SEGMENT_INFO, &self.id, &*head.stream, &segment].concat();
        let key = self.cloud.open(&info, &head.key).expect(EXPECT);
        let cipher = Aes256Gcm::new_from_slice(&key).expect(EXPECT);
        let (header, sealed) = FrameHeader::split(payload).expect(EXPECT);
        let payload = Payload {
            msg: sealed,
            aad: &header.to_bytes(),
        };
        cipher
            .decrypt(&Nonce::from([0; 12]), payload)
            .expect(EXPECT)
    }
}

/// Messages as they come.
fn stream(mut bytes: &[u8]) {
    let mut opener = WORLD.opener();
    while let Ok(Some(message)) = message::read(bytes) {
        match message.kind {
            Kind::Segment => drop(WORLD.begin(&mut opener, message.payload)),
            Kind::Frame => drop(opener.frame(message.payload).map(|_| ())),
            Kind::End => drop(opener.end(message.payload)),
        }
        bytes = &bytes[message.length..];
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&how, data)) = data.split_first() else {
        return;
    };
    let world = &*WORLD;
    let [head, frame] = &world.good[usize::from(how & 1)];
    let mut opener = world.opener();
    match how >> 1 & 3 {
        0 => {
            stream(data);
            // Behind a good head.
            let mut bytes = Vec::new();
            message::write(&mut bytes, Kind::Segment, head);
            bytes.extend_from_slice(data);
            stream(&bytes);
        }
        1 => {
            // Labels.
            let signed: Signed = decode(head).expect(EXPECT);
            let mut of: SegmentHead = signed.unverified().expect(EXPECT);
            for (label, byte) in of.labels.iter_mut().skip(1).zip(data) {
                *label ^= byte;
            }
            let head = encode(&Signed::new(&of).sign::<SegmentHead>(&world.owner));
            if world.begin(&mut opener, &head) {
                opener.frame(frame).expect("a frame of the right form");
            }
        }
        2 => {
            // Everything that is in a frame.
            assert!(world.begin(&mut opener, head));
            let _ = opener.frame(&world.frame(head, data)).map(|_| ());
        }
        _ => {
            // A good frame with some bytes changed.
            assert!(world.begin(&mut opener, head));
            let mut clear = world.clear(head, frame);
            for change in data.chunks_exact(3) {
                let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % clear.len();
                clear[at] ^= change[2];
            }
            let _ = opener.frame(&world.frame(head, &clear)).map(|_| ());
        }
    }
});
