// SPDX-License-Identifier: MPL-2.0
//! What the third party keeps: parties, contracts, tickets, deletions.

use super::{Error, Hash, Mark};
use crate::identity::{AeadKey, Identity};
use crate::mac::hmac;
use crate::protocol::{AUDIT_ANSWER_MS, AuditCounts, Audited, B32, Mode, Signed};
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
    /// Audits that are over: [`ContractRecord::audits`] has all.
    #[n(3)]
    #[cbor(default)]
    pub passed: u64,
    /// … and failed.
    #[n(4)]
    #[cbor(default)]
    pub failed: u64,
    /// When the answers that have not come are too late, Unix milliseconds.
    #[n(5)]
    #[cbor(default)]
    pub awaited: Vec<u64>,
    /// Whether the next ticket that is reported is to be audited.
    #[n(6)]
    #[cbor(default)]
    pub demanded: bool,
    /// Tickets that the cloud has received and that are not reported.
    #[n(7)]
    #[cbor(default)]
    pub unreported: u64,
}

impl ContractRecord {
    /// A contract of which nothing has come yet.
    pub fn new(signed: Signed) -> Self {
        Self {
            signed,
            tickets: 0,
            deleted: None,
            passed: 0,
            failed: 0,
            awaited: Vec::new(),
            demanded: false,
            unreported: 0,
        }
    }

    /// What became of its audits until `now`.
    pub fn audits(&self, now: u64) -> AuditCounts {
        AuditCounts {
            passed: self.passed,
            failed: self.failed,
            unanswered: self.awaited.iter().filter(|until| **until < now).count() as u64,
            unreported: self.unreported,
        }
    }
}

/// An audit of a ticket.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TicketAudit {
    /// What says which places are asked for.
    #[n(0)]
    pub seed: B32,
    /// When an answer is too late, Unix milliseconds.
    #[n(1)]
    pub until_ms: u64,
    /// What was found: whether it passed, and why not.
    #[n(2)]
    pub outcome: Option<AuditOutcome>,
}

/// The outcome of an audit.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AuditOutcome {
    /// Whether what was opened is what it should be.
    #[n(0)]
    pub passed: bool,
    /// For people: what was found.
    #[n(1)]
    pub note: String,
}

impl TicketAudit {
    /// What it has come to until `now`.
    pub fn state(&self, now: u64) -> Audited {
        match &self.outcome {
            Some(outcome) if outcome.passed => Audited::Passed,
            Some(_) => Audited::Failed,
            None if self.until_ms < now => Audited::Unanswered,
            None => Audited::Asked,
        }
    }
}

/// Whether a ticket is audited: drawn by the server when its report is there.
#[derive(Clone, Copy, Debug)]
pub struct Lot {
    /// Fresh random bytes.
    pub seed: Hash,
    /// Whether it is this ticket's turn. It is also if that was demanded ([`Registry::demand`]).
    pub drawn: bool,
    /// Whether it can be audited.
    pub possible: bool,
    /// Unix milliseconds.
    pub now: u64,
}

impl Lot {
    /// The audit.
    pub fn audit(&self) -> TicketAudit {
        TicketAudit {
            seed: self.seed.into(),
            until_ms: self.now + AUDIT_ANSWER_MS,
            outcome: None,
        }
    }
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
    /// Its audit.
    pub audit: Option<TicketAudit>,
    /// What the cloud has received, by what the owner signed for it.
    pub received: Option<Received>,
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

impl Ticket {
    /// Whether the owner told the third party what it told the cloud, and the cloud says so.
    pub fn agrees(&self) -> bool {
        let used = self.used.as_ref().map(Used::sent);
        used.is_some() && used == self.received
    }
}

/// What was sent under a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Received {
    /// Frames.
    #[n(0)]
    pub frames: u64,
    /// What the owner committed to.
    #[n(1)]
    pub commitment: B32,
}

impl Used {
    /// What was sent.
    pub fn sent(&self) -> Received {
        Received {
            frames: self.frames,
            commitment: self.commitment,
        }
    }
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

    /// These tickets.
    async fn tickets(&self, ids: Vec<TicketId>) -> Result<Vec<Option<Ticket>>, Error>;

    /// A ticket.
    async fn ticket(&self, id: TicketId) -> Result<Option<Ticket>, Error> {
        Ok(self.tickets(vec![id]).await?.pop().flatten())
    }

    /// Notes what was seen under a ticket, and whether it is audited. The first report stands, and
    /// what was drawn with it. A report that is not what the cloud received stands too, and counts
    /// as a failed audit.
    async fn report(
        &self,
        id: TicketId,
        used: Used,
        lot: Lot,
    ) -> Result<(Reported, Option<TicketAudit>), Error>;

    /// Notes what the cloud has received under a ticket: by what the owner signed, so the first
    /// stands and another is the owner's doing, as is one that is not what was reported; either
    /// counts as a failed audit.
    async fn received(&self, id: TicketId, received: Received) -> Result<Reported, Error>;

    /// The next ticket of a contract that is reported is to be audited.
    async fn demand(&self, contract: Hash) -> Result<Reported, Error>;

    /// Notes what an audit has found. The first outcome stands; `Conflict`: nothing is asked, or no
    /// longer.
    async fn audited(
        &self,
        id: TicketId,
        outcome: AuditOutcome,
        now: u64,
    ) -> Result<Reported, Error>;

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

    /// The parameters that clouds prove their keys under, if there are any yet.
    async fn parameters(&self) -> Result<Option<Vec<u8>>, Error>;

    /// Keeps parameters; those that are there already, if there are.
    async fn add_parameters(&self, made: Vec<u8>) -> Result<Vec<u8>, Error>;

    /// Whether nobody has asked this of `what` before; kept until `until`. See
    /// [`Metadata::once`](super::Metadata::once).
    async fn once(&self, what: Mark, until: u64, now: u64) -> Result<bool, Error>;
}
