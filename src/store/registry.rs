// SPDX-License-Identifier: MPL-2.0
//! What the third party keeps: parties, contracts, tickets, deletions.

use super::{Error, Hash};
use crate::identity::{AeadKey, Identity};
use crate::mac::hmac;
use crate::protocol::{B32, Mode, Signed};
use crate::watermark::{Code, Key, Word};
use async_trait::async_trait;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use std::sync::Arc;
use zeroize::{Zeroize as _, Zeroizing};

/// A registered party.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PartyRecord {
    /// X25519 public key.
    #[n(0)]
    pub agree: B32,
    /// Of a cloud.
    #[n(1)]
    pub key: Option<CloudKey>,
}

/// A cloud's Paillier key whose proof has been checked.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CloudKey {
    /// The [`CertifiedKey`](crate::homomorphic::packed::CertifiedKey) as it came.
    #[n(0)]
    pub certified: ByteVec,
    /// n, big endian.
    #[n(1)]
    pub modulus: ByteVec,
}

/// A contract and what has become of it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ContractRecord {
    /// A [`Contract`](crate::protocol::Contract) with all signatures.
    #[n(0)]
    pub signed: Signed,
    /// Tickets issued: the next one's number.
    #[n(1)]
    pub tickets: u64,
    /// Place in the log of deletions and Unix milliseconds, if it was deleted.
    #[n(2)]
    pub deleted: Option<(u64, u64)>,
}

/// Names a ticket: contract and number.
pub type TicketId = (Hash, u64);

/// What tickets are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Id of the contract.
    pub contract: Hash,
    /// Ed25519 key of its owner.
    pub owner: Hash,
    /// How many.
    pub count: u32,
    /// What their ciphertexts are for.
    pub mode: Mode,
    /// Width and height of frames.
    pub size: [u32; 2],
    /// Hash of what the camera shows, if it is known.
    pub feature: Option<u64>,
    /// Unix milliseconds.
    pub issued_ms: u64,
    /// Unix milliseconds.
    pub expires_ms: u64,
}

/// What is kept of a ticket. Its [`secret`](Self::secret) is not in `Debug`.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// Which.
    pub number: u64,
    /// What its ciphertexts are for.
    pub mode: Mode,
    /// Width and height of frames.
    pub size: [u32; 2],
    /// Unix milliseconds.
    pub issued_ms: u64,
    /// Unix milliseconds.
    pub expires_ms: u64,
    /// Hash that it was asked for with.
    pub feature: Option<u64>,
    /// What the owner has reported.
    pub used: Option<Used>,
    /// When marks were first taken out, Unix milliseconds.
    pub retrieved_ms: Option<u64>,
    /// Seed and word.
    pub secret: TicketSecrets,
}

/// What the owner reported of a ticket.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Used {
    /// Wall clock of the first frame, Unix milliseconds.
    #[n(0)]
    pub started_ms: u64,
    /// Hashes of frames.
    #[n(1)]
    pub hashes: Vec<u64>,
    /// Frames sent.
    #[n(2)]
    pub frames: u64,
    /// What the owner committed to.
    #[n(3)]
    pub commitment: B32,
}

/// The secrets of a ticket: wiped on drop, silent in `Debug`.
#[derive(Clone)]
pub struct TicketSecrets {
    seed: Zeroizing<[u8; 32]>,
    identity: Zeroizing<u32>,
}

impl std::fmt::Debug for TicketSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TicketSecrets(..)")
    }
}

impl TicketSecrets {
    /// A fresh seed, with the code word of `identity`.
    pub fn draw(identity: u32) -> Result<Self, Error> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(|_| Error::Random)?;
        Ok(Self {
            seed,
            identity: Zeroizing::new(identity),
        })
    }

    /// Key of positions, dithers and pad.
    pub fn key(&self) -> Key {
        Key::from_bytes(*self.seed)
    }

    /// The key's bytes, for the owner.
    pub fn expose_seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The watermark: code word ⊕ pad.
    pub fn word(&self) -> Result<Word, Error> {
        let word = CODE.register(*self.identity, self.key().pad());
        word.map_err(|_| Error::Corrupt("ticket"))
    }

    /// For a store's disk, bound to its place.
    pub fn seal(&self, key: &AeadKey, id: &TicketId) -> Result<Vec<u8>, Error> {
        let mut clear = Zeroizing::new([0; 36]);
        clear[..32].copy_from_slice(&*self.seed);
        clear[32..].copy_from_slice(&self.identity.to_be_bytes());
        key.seal(&context(id), &*clear).map_err(|_| Error::Random)
    }

    /// Opens what [`TicketSecrets::seal`] made.
    pub fn open(key: &AeadKey, id: &TicketId, sealed: &[u8]) -> Result<Self, Error> {
        let wrong = || Error::Corrupt("ticket secret");
        let clear = key.open(&context(id), sealed).map_err(|_| wrong())?;
        let (seed, identity) = clear.split_first_chunk::<32>().ok_or_else(wrong)?;
        let mut identity: [u8; 4] = identity.try_into().map_err(|_| wrong())?;
        let secrets = Self {
            seed: Zeroizing::new(*seed),
            identity: Zeroizing::new(u32::from_be_bytes(identity)),
        };
        identity.zeroize();
        Ok(secrets)
    }
}

fn context((contract, number): &TicketId) -> Vec<u8> {
    let number = number.to_be_bytes();
    [b"camvault ttp ticket v1".as_slice(), contract, &number].concat()
}

/// The code whose words are given away.
pub const CODE: Code = Code::Bch29;

/// What stands in a store for "this owner has had this word": who reads the store without the key
/// learns nothing of words.
pub fn word_mark(key: &AeadKey, owner: &Hash, identity: u32) -> [u8; 16] {
    let mac = hmac(
        key.expose(),
        &[b"camvault ttp word v1", owner, &identity.to_be_bytes()],
    );
    std::array::from_fn(|i| mac[i])
}

/// What came of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registering {
    /// It is registered so.
    Done,
    /// It is registered with another key.
    Conflict,
}

/// What came of a request for tickets.
#[derive(Debug)]
pub enum Issued {
    /// These, in the order of their numbers.
    Tickets(Vec<Ticket>),
    /// There is no such contract.
    Unknown,
    /// It was deleted.
    Deleted,
    /// The owner has had nearly all words there are.
    Exhausted,
}

/// What came of a report or a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// It is noted; also when the same was before.
    Done,
    /// There is no such ticket.
    Unknown,
    /// Something else was reported before; of a retrieval: the contract was deleted.
    Conflict,
}

/// Contracts and tickets.
#[async_trait]
pub trait Registry: Send + Sync {
    /// Registers a party. A key may be added to one that had none; nothing else changes.
    async fn register(&self, sign: Hash, party: PartyRecord) -> Result<Registering, Error>;

    /// The party with a signing key.
    async fn party(&self, sign: Hash) -> Result<Option<PartyRecord>, Error>;

    /// Keeps a contract; the one that is there already, if there is.
    async fn add_contract(&self, id: Hash, signed: Signed) -> Result<Signed, Error>;

    /// A contract.
    async fn contract(&self, id: Hash) -> Result<Option<ContractRecord>, Error>;

    /// Issues tickets: numbers that never come again, fresh seeds, and words that the owner has
    /// never had.
    async fn issue(&self, wanted: Wanted) -> Result<Issued, Error>;

    /// A ticket.
    async fn ticket(&self, id: TicketId) -> Result<Option<Ticket>, Error>;

    /// Notes what was seen under a ticket. The first report stands.
    async fn report(&self, id: TicketId, used: Used) -> Result<Reported, Error>;

    /// Notes that marks are about to be taken out. The first time stands.
    async fn retrieved(&self, id: TicketId, now: u64) -> Result<Reported, Error>;

    /// Tickets with a feature at most `radius` bits from any of `hashes`, nearest first, then the
    /// latest first; at most `max`.
    async fn near(&self, hashes: Vec<u64>, radius: u32, max: usize)
    -> Result<Vec<TicketId>, Error>;

    /// Tickets that are registered, all in all.
    async fn registered(&self) -> Result<u64, Error>;

    /// Deletes a contract: its receipt, signed by `ttp` and chained to the one before; the same
    /// one again if it was deleted already. `None`: no such contract.
    async fn delete(
        &self,
        contract: Hash,
        now: u64,
        ttp: Arc<Identity>,
    ) -> Result<Option<Signed>, Error>;

    /// At most `max` receipts from `from` on.
    async fn deletions(&self, from: u64, max: usize) -> Result<Vec<Signed>, Error>;
}
