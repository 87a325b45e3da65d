// SPDX-License-Identifier: MPL-2.0
//! Requests to the third party. All but [`TtpInfo`] and keys are signed by their sender.

use super::{AuditCounts, B32, Mode, Party, Signed};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

/// `GET /v1/ttp`, unsigned: who it is.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct TtpInfo {
    /// Its identity: what its signatures are checked with. A client keeps the one it saw first.
    #[n(0)]
    pub identity: Party,
    /// Whether registration needs a token.
    #[n(1)]
    pub token_needed: bool,
    /// Tickets of a thousand that it audits: contracts name as many.
    #[n(2)]
    #[cbor(default)]
    pub audit: u32,
}

/// `PUT /v1/ttp/party`: registers the signer. Again with another key is an error: contracts name
/// the first.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct PartyRegistration {
    /// X25519 public key of the signer.
    #[n(0)]
    pub agree: B32,
    /// Of a cloud: its [`CertifiedKey`](crate::homomorphic::packed::CertifiedKey), proven for the
    /// context that is its Ed25519 key. `GET /v1/ttp/keys/{Ed25519 key, hex}` gives it to anyone.
    #[n(1)]
    pub key: Option<ByteVec>,
    /// The server's registration token, where one is needed.
    #[n(2)]
    pub token: Option<String>,
    /// Of a cloud: the [`FactorProof`](crate::homomorphic::packed::FactorProof) of its key for this
    /// third party's parameters (`GET /v1/ttp/parameters`, unsigned, a
    /// [`PedersenParameters`](crate::homomorphic::packed::PedersenParameters)), with the same
    /// context.
    #[n(3)]
    pub factors: Option<ByteVec>,
}

/// `POST /v1/ttp/contracts` with the signatures of owner and cloud, by the owner; answered with the
/// third party's added.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct ContractBody {
    /// A [`super::Contract`].
    #[n(0)]
    pub contract: Signed,
    /// What audits have found, in answers.
    #[n(1)]
    pub audits: Option<AuditCounts>,
}

/// `POST /v1/ttp/tickets`, by the owner. Answer: [`Grants`].
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct TicketRequest {
    /// Id of the contract.
    #[n(0)]
    pub contract: B32,
    /// What the ciphertexts are for.
    #[n(1)]
    pub mode: Mode,
    /// Pixels in a row of the frames.
    #[n(2)]
    pub width: u32,
    /// Rows of the frames.
    #[n(3)]
    pub height: u32,
    /// Hash of what the camera shows ([`crate::feature::PHash`]), if it is known.
    #[n(4)]
    pub feature: Option<u64>,
    /// How many tickets, at most [`MAX_TICKETS`].
    #[n(5)]
    pub count: u32,
}

/// Tickets of one request.
pub const MAX_TICKETS: u32 = 16;

/// Answer to a [`TicketRequest`].
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Grants {
    /// The tickets, in the order of their numbers.
    #[n(0)]
    pub grants: Vec<Grant>,
}

/// One ticket.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Grant {
    /// A [`super::TicketHead`], signed by the third party.
    #[n(0)]
    pub head: Signed,
    /// The [`super::TicketSecret`], sealed to the owner ([`super::TICKET_INFO`]).
    #[n(1)]
    pub secret: ByteVec,
}

/// `POST /v1/ttp/features`, by the owner, when a ticket has been used: what was seen under it.
/// Answer: [`Noted`](super::Noted).
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Features {
    /// Id of the contract.
    #[n(0)]
    pub contract: B32,
    /// The ticket's number.
    #[n(1)]
    pub ticket: u64,
    /// Wall clock of the first frame, Unix milliseconds.
    #[n(2)]
    pub started_ms: u64,
    /// Hashes of frames ([`crate::feature::PHash`]), of different scenes; at most
    /// [`MAX_FEATURES`].
    #[n(3)]
    pub hashes: Vec<u64>,
    /// Frames sent.
    #[n(4)]
    pub frames: u64,
    /// What the owner commits to: [`Promised::digest`](super::Promised::digest).
    #[n(5)]
    pub commitment: B32,
}

/// Hashes of one ticket.
pub const MAX_FEATURES: usize = 64;

/// `POST /v1/ttp/retrievals`, by the owner. Answer: [`Masks`].
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct RetrievalRequest {
    /// Id of the contract.
    #[n(0)]
    pub contract: B32,
    /// The ticket that the frames were marked with.
    #[n(1)]
    pub ticket: u64,
    /// How the marks come out.
    #[n(2)]
    pub mode: Mode,
    /// For [`Mode::Packed`]: the owner's public Paillier key (n, big endian), which the answer is
    /// under.
    #[n(3)]
    pub key: Option<ByteVec>,
    /// Per frame two bits a mark, in the layout's order, four to a byte from the lowest: 0 not
    /// marked, 1 δ > 0, 2 δ < 0.
    #[n(4)]
    pub frames: Vec<ByteVec>,
}

/// Answer to a [`RetrievalRequest`].
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Masks {
    /// [`Mode::Oblivious`] (`masked`): the seed of the pads r, sealed to the owner
    /// ([`super::PADS_INFO`]).
    #[n(0)]
    pub pads: Option<ByteVec>,
    /// For the cloud: a [`CloudMasks`] signed by the third party and sealed
    /// ([`super::MASKS_INFO`]); the owner passes it on.
    #[n(1)]
    pub masks: ByteVec,
    /// The ticket's seed ([`super::TicketSecret::seed`]), sealed to the owner
    /// ([`super::SEED_INFO`]), who has not kept it: it says where the remainders belong.
    #[n(2)]
    pub seed: Option<ByteVec>,
}

/// What the cloud adds to what it stores; signed by the third party.
#[derive(Clone, Encode, Decode)]
#[cbor(map)]
pub struct CloudMasks {
    /// Id of the contract.
    #[n(0)]
    pub contract: B32,
    /// The ticket.
    #[n(1)]
    pub ticket: u64,
    /// How.
    #[n(2)]
    pub mode: Mode,
    /// For [`Mode::Packed`]: the owner's public Paillier key.
    #[n(3)]
    pub key: Option<ByteVec>,
    /// Per frame. `masked`: for each coefficient that can carry a bit, in order of positions,
    /// r − w·δ mod 2^16, little endian. `packed`: ciphertexts of −w·δ in slots.
    #[n(4)]
    pub frames: Vec<ByteVec>,
}

impl super::Document for CloudMasks {
    const KIND: &'static str = "retrieval masks";
}

/// Says nothing of what is in it.
impl std::fmt::Debug for CloudMasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CloudMasks({} frames)", self.frames.len())
    }
}

/// `POST /v1/ttp/deletions`, by the owner; answered with a [`Signed`] [`super::Deletion`].
/// `GET /v1/ttp/deletions?from=INDEX` gives anyone the log ([`DeletionLog`]).
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct DeletionRequest {
    /// Id of the contract.
    #[n(0)]
    pub contract: B32,
}

/// A part of the log of deletions.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct DeletionLog {
    /// [`super::Deletion`]s in the order of their indices.
    #[n(0)]
    pub receipts: Vec<Signed>,
}

/// `POST /v1/ttp/arbitrations`: frames of footage that may have leaked, by anyone registered.
/// Answer: [`Judged`].
#[derive(Clone, Encode, Decode)]
#[cbor(map)]
pub struct Suspect {
    /// Pixels in a row.
    #[n(0)]
    pub width: u32,
    /// Rows.
    #[n(1)]
    pub height: u32,
    /// Luma of frames in their order, each width × height bytes, compressed by zlib (RFC 1950); at
    /// most [`MAX_SUSPECT_FRAMES`].
    #[n(2)]
    pub frames: Vec<ByteVec>,
    /// SHA-256 of the file.
    #[n(3)]
    pub file: Option<B32>,
    /// The contract that is suspected, to compare with its tickets first.
    #[n(4)]
    pub contract: Option<B32>,
}

/// Frames of one suspect.
pub const MAX_SUSPECT_FRAMES: usize = 64;

impl std::fmt::Debug for Suspect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (frames, w, h) = (self.frames.len(), self.width, self.height);
        write!(f, "Suspect({frames} frames of {w}x{h})")
    }
}

/// SHA-256 over size and luma of a suspect's frames, width and height as 4 bytes, big endian.
pub fn suspect_digest<'a>(
    width: u32,
    height: u32,
    frames: impl IntoIterator<Item = &'a [u8]>,
) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"camvault suspect 1");
    hash.update(width.to_be_bytes());
    hash.update(height.to_be_bytes());
    for frame in frames {
        hash.update(frame);
    }
    hash.finalize().into()
}

/// Answer to a [`Suspect`].
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Judged {
    /// A [`super::Verdict`], signed by the third party.
    #[n(0)]
    pub verdict: Signed,
    /// The contract that it names, with all signatures: a judge checks who agreed to what.
    #[n(1)]
    pub contract: Option<Signed>,
    /// Per bit how sure it was read as it was marked: vote · (±1), for the report's picture.
    #[n(2)]
    pub bits: Option<Vec<f32>>,
}
