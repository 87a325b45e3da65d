// SPDX-License-Identifier: MPL-2.0
//! What owner, cloud and third party sign: contracts, tickets, deletions, verdicts ([RTBF]
//! sections 4 to 8). All are [`Document`]s.

use super::{
    AUDIT_ALL, AuditCounts, Audited, B32, Document, DocumentError, MAX_AUDITED_MS, Signed,
};
use crate::identity::PublicId;
use crate::sealed::{Chroma, MOST_LOSS};
use crate::watermark::{Class, Dither, Placement, Settings};
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

/// HPKE `info` of a ticket's secret, which the third party seals to the owner.
pub const TICKET_INFO: &[u8] = b"camvault ticket v1";
/// HPKE `info` of a segment's key, which the owner seals to the cloud.
pub const SEGMENT_INFO: &[u8] = b"camvault sealed segment v1";
/// HPKE `info` of the owner's half of a retrieval's masks.
pub const PADS_INFO: &[u8] = b"camvault retrieval pads v1";
/// HPKE `info` of a ticket's seed, which the owner needs again for a retrieval.
pub const SEED_INFO: &[u8] = b"camvault ticket seed v1";
/// HPKE `info` of a camera's name, which the owner seals to itself.
pub const NAME_INFO: &[u8] = b"camvault contract name v1";
/// HPKE `info` of the cloud's half.
pub const MASKS_INFO: &[u8] = b"camvault retrieval masks v1";

/// A party as documents name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Party {
    /// Ed25519 verification key.
    #[n(0)]
    pub sign: B32,
    /// X25519 public key.
    #[n(1)]
    pub agree: B32,
}

impl From<&PublicId> for Party {
    fn from(id: &PublicId) -> Self {
        Self {
            sign: id.sign.into(),
            agree: id.agree.into(),
        }
    }
}

impl From<&Party> for PublicId {
    fn from(party: &Party) -> Self {
        Self {
            sign: *party.sign,
            agree: *party.agree,
        }
    }
}

/// How a marked coefficient travels to the cloud.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Mode {
    /// As two candidates under two labels, of which the cloud has one. For live video.
    #[default]
    #[n(0)]
    Oblivious,
    /// In slots of Paillier ciphertexts, as in the paper.
    #[n(1)]
    Packed,
}

/// What owner, cloud and third party agree on for one camera; signed by all three. Its
/// [`Signed::id`] names it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Contract {
    /// Version of this document, 1.
    #[n(0)]
    pub version: u32,
    /// Who owns the footage.
    #[n(1)]
    pub owner: Party,
    /// Who stores it.
    #[n(2)]
    pub cloud: Party,
    /// Who issues tickets and arbitrates.
    #[n(3)]
    pub ttp: Party,
    /// SHA-256 of the cloud's [`CertifiedKey`](crate::homomorphic::packed::CertifiedKey), as the
    /// third party has it on file.
    #[n(4)]
    pub cloud_key: B32,
    /// Seed of the base of randomisers, drawn by the owner.
    #[n(5)]
    pub base_seed: B32,
    /// Quantiser step in units of luma coefficients.
    #[n(6)]
    pub step: u32,
    /// Coefficients that can carry a bit, as [`Settings::classes_text`] writes them.
    #[n(7)]
    pub classes: String,
    /// Marks per 16 blocks; 0: by the size of the picture.
    #[n(8)]
    pub density: u32,
    /// Wrong bits of 128 up to which the owner recognises its mark: by its attack battery ([RTBF]
    /// Algorithm 1). Arbitration never accepts more than the false-positive bound allows.
    #[n(9)]
    pub threshold: u32,
    /// How long a ticket may be used, in milliseconds of footage.
    #[n(10)]
    pub ticket_ms: u64,
    /// When the owner made it, Unix milliseconds.
    #[n(11)]
    pub created_ms: u64,
    /// What the owner calls the camera, sealed to itself; the others cannot read it.
    #[n(12)]
    pub name: ByteVec,
    /// Of how many of the coefficients each block has one that can carry a bit
    /// ([`Settings::per_block`]).
    #[n(13)]
    pub per_block: u32,
    /// Tickets of a thousand that the third party audits: the owner opens a part of what it sent.
    #[n(14)]
    #[cbor(default)]
    pub audit: u32,
    /// Pixels of a frame that the cloud takes, at most; 0: it has not said.
    #[n(15)]
    #[cbor(default)]
    pub pixels: u64,
    /// What the other coefficients may be off the camera's: 0 to [`MOST_LOSS`]; 0: nothing.
    #[n(16)]
    pub loss: u8,
}

impl Document for Contract {
    const KIND: &'static str = "contract";
}

/// Coefficients a block that can carry a bit, if nothing else is asked for.
pub const DEFAULT_PER_BLOCK: u32 = 1;
/// What other coefficients may be off, if nothing else is asked for.
pub const DEFAULT_LOSS: u8 = 5;

/// Quantiser step, if nothing else is asked for.
pub const DEFAULT_STEP: u32 = 100;
/// Wrong bits up to which an owner recognises its mark, if nothing else is asked for.
pub const DEFAULT_THRESHOLD: u32 = 30;
/// How long a ticket may be used, if nothing else is asked for: seconds of footage.
pub const DEFAULT_TICKET_S: u64 = 10;

/// Steps that contracts allow: remainders fit one byte.
pub const STEPS: std::ops::RangeInclusive<u32> = 4..=200;

impl Contract {
    /// A contract with the defaults: without name and date, not audited, for frames of any size.
    pub fn new(
        owner: impl Into<Party>,
        cloud: impl Into<Party>,
        ttp: impl Into<Party>,
        cloud_key: [u8; 32],
        base_seed: [u8; 32],
    ) -> Self {
        Self {
            version: 1,
            owner: owner.into(),
            cloud: cloud.into(),
            ttp: ttp.into(),
            cloud_key: cloud_key.into(),
            base_seed: base_seed.into(),
            step: DEFAULT_STEP,
            classes: Settings::default().classes_text(),
            density: 0,
            threshold: DEFAULT_THRESHOLD,
            ticket_ms: DEFAULT_TICKET_S * 1000,
            created_ms: 0,
            name: Vec::new().into(),
            per_block: DEFAULT_PER_BLOCK,
            audit: 0,
            pixels: 0,
            loss: DEFAULT_LOSS,
        }
    }

    /// Whether owner and cloud build what audits are about: pieces that can be opened one by one.
    pub fn is_audited(&self, mode: Mode) -> bool {
        // Packed, nothing says which randomisers were drawn.
        self.audit > 0 && mode == Mode::Oblivious
    }

    /// Whether the cloud takes frames of this size.
    pub fn takes(&self, width: u32, height: u32) -> bool {
        self.pixels == 0 || u64::from(width) * u64::from(height) <= self.pixels
    }

    /// How marks are laid out, if the contract's numbers make sense. Every ticket has a layout of
    /// its own, number 0 under the ticket's seed.
    pub fn settings(&self) -> Option<Settings> {
        let classes: Vec<Class> = Settings::parse_classes(&self.classes).ok()?;
        let settings = Settings {
            step: self.step,
            dither: Dither::Keyed,
            classes,
            per_block: Some(self.per_block as usize),
            density: (self.density > 0).then(|| f64::from(self.density) / 16.0),
            layouts: 1,
            placement: Placement::Keyed,
            lift: 0,
        };
        let fits = self.version == 1
            && STEPS.contains(&self.step)
            && self.threshold < 64
            && self.loss <= MOST_LOSS
            && (1_000..=3_600_000).contains(&self.ticket_ms)
            && self.name.len() <= 1024
            && self.audit <= AUDIT_ALL
            && (self.audit == 0 || self.ticket_ms <= MAX_AUDITED_MS)
            // The mean of a block is not for marks: what else is predicted comes from it.
            && settings.classes.iter().all(|class| class.index() != 0);
        (fits && settings.check().is_ok()).then_some(settings)
    }
}

/// A contract with the signatures of all three, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Agreed {
    /// Names it.
    pub id: [u8; 32],
    /// What was agreed on.
    pub contract: Contract,
    /// How marks are laid out under it.
    pub settings: Settings,
    /// As it was signed.
    pub signed: Signed,
}

impl Agreed {
    /// Checks the signatures of owner, cloud and third party, and that the numbers make sense.
    /// Whether these are the right parties is the caller's to judge.
    pub fn check(signed: Signed) -> Result<Self, DocumentError> {
        let unread: Contract = signed.unverified()?;
        let parties = [&*unread.owner.sign, &*unread.cloud.sign, &*unread.ttp.sign];
        let contract: Contract = signed.verify(&parties)?;
        let settings = contract.settings().ok_or_else(|| DocumentError::Form {
            kind: "contract",
            reason: "its numbers cannot be used".into(),
        })?;
        Ok(Self {
            id: signed.id::<Contract>(),
            contract,
            settings,
            signed,
        })
    }
}

/// What everyone may know of a ticket; signed by the third party.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TicketHead {
    /// Id of the contract.
    #[n(0)]
    pub contract: B32,
    /// Which of the contract's tickets, from 0.
    #[n(1)]
    pub number: u64,
    /// What its ciphertexts are made for.
    #[n(2)]
    pub mode: Mode,
    /// Pixels in a row of the frames it is for.
    #[n(3)]
    pub width: u32,
    /// Rows of the frames it is for.
    #[n(4)]
    pub height: u32,
    /// When it was issued, Unix milliseconds.
    #[n(5)]
    pub issued_ms: u64,
    /// When it can no longer be used, Unix milliseconds.
    #[n(6)]
    pub expires_ms: u64,
    /// SHA-256 of its [`TicketSecret`], encoded.
    #[n(7)]
    pub secret: B32,
}

impl Document for TicketHead {
    const KIND: &'static str = "ticket";
}

/// What the owner alone gets.
#[derive(Clone, Encode, Decode)]
#[cbor(map)]
pub struct TicketSecret {
    /// Key of positions, dithers and pad ([`crate::watermark::Key`]).
    #[n(0)]
    pub seed: B32,
    /// The bits under the cloud's key ([`crate::homomorphic::ticket`]), one after the other.
    #[n(1)]
    pub ciphertexts: ByteVec,
}

/// Says nothing of what is in it.
impl std::fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TicketSecret({} bytes)", self.ciphertexts.len())
    }
}

/// That the third party gives out nothing more of a contract, neither tickets nor what takes marks
/// out; signed by it. Seeds and words stay with it, to trace copies that turn up later. The
/// receipts of all deletions are one chain.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Deletion {
    /// Place in the log, from 0.
    #[n(0)]
    pub index: u64,
    /// Id of the receipt before; 32 zeros for the first.
    #[n(1)]
    pub previous: B32,
    /// Id of the contract.
    #[n(2)]
    pub contract: B32,
    /// Tickets that were issued for it.
    #[n(3)]
    pub tickets: u64,
    /// When, Unix milliseconds.
    #[n(4)]
    pub deleted_ms: u64,
}

impl Document for Deletion {
    const KIND: &'static str = "deletion";
}

/// What the third party found in a suspect's frames; signed by it.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Verdict {
    /// SHA-256 over the frames that were judged, as [`super::suspect_digest`] has it.
    #[n(0)]
    pub frames: B32,
    /// SHA-256 of the file that they came from, as the one who brought it says.
    #[n(1)]
    pub file: Option<B32>,
    /// When, Unix milliseconds.
    #[n(2)]
    pub judged_ms: u64,
    /// Tickets that the frames were compared with.
    #[n(3)]
    pub compared: u64,
    /// Tickets that are registered, all in all: what the probability takes into account.
    #[n(4)]
    pub registered: u64,
    /// Whom it leaked from; `None`: no mark was found.
    #[n(5)]
    pub leak: Option<Leak>,
}

impl Document for Verdict {
    const KIND: &'static str = "verdict";
}

/// Whom a leak came from.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Leak {
    /// Id of the contract.
    #[n(0)]
    pub contract: B32,
    /// Whose footage it is.
    #[n(1)]
    pub owner: Party,
    /// Who alone had it marked so.
    #[n(2)]
    pub cloud: Party,
    /// Which ticket.
    #[n(3)]
    pub ticket: u64,
    /// When that ticket was issued, Unix milliseconds.
    #[n(4)]
    pub issued_ms: u64,
    /// Bits that read otherwise than they were marked, of 128.
    #[n(5)]
    pub errors: u32,
    /// Upper bound of the probability that footage without any mark is taken for any registered.
    #[n(6)]
    pub false_positive: f64,
    /// How the frames lie in the original.
    #[n(7)]
    pub registration: String,
    /// The receipt's place in the deletion log and its time, Unix milliseconds, if the footage had
    /// been forgotten.
    #[n(8)]
    pub deleted: Option<(u64, u64)>,
    /// When the owner first had marks of this ticket taken out, Unix milliseconds. An owner that
    /// gives wrong signs then can learn the word; before, nobody but the third party and the cloud
    /// can have made these frames.
    #[n(9)]
    pub retrieved_ms: Option<u64>,
    /// What became of the audit of this ticket, if there was one.
    #[n(10)]
    pub audited: Option<Audited>,
    /// The contract's audits.
    #[n(11)]
    #[cbor(default)]
    pub audits: AuditCounts,
    /// Whether the cloud has brought what the owner signed at the end of this ticket's segment, and
    /// it is what the owner reported: what an audit opened is then what the cloud received.
    #[n(12)]
    #[cbor(default)]
    pub received: bool,
}

/// A stream of sealed frames, up to the next ticket; signed by the owner.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SegmentHead {
    /// The ticket, signed by the third party.
    #[n(0)]
    pub ticket: Signed,
    /// Which run of the owner's element: drawn when it starts.
    #[n(1)]
    pub stream: ByteArray<16>,
    /// Which segment of the run, from 0.
    #[n(2)]
    pub segment: u32,
    /// The frames' format.
    #[n(3)]
    pub video: Video,
    /// Key of the segment's frames, sealed to the cloud ([`SEGMENT_INFO`]).
    #[n(4)]
    pub key: ByteVec,
    /// Labels under the cloud's Paillier key ([`Mode::Oblivious`]), one ciphertext after the other.
    #[n(5)]
    pub labels: ByteVec,
    /// Wall clock of the segment's first frame, Unix milliseconds.
    #[n(6)]
    pub started_ms: u64,
}

impl Document for SegmentHead {
    const KIND: &'static str = "sealed segment";
}

/// The format of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Video {
    /// Pixels in a row.
    #[n(0)]
    pub width: u32,
    /// Rows.
    #[n(1)]
    pub height: u32,
    /// Planes besides luma.
    #[n(2)]
    pub chroma: ChromaKind,
    /// Frames in `rate.1` seconds; 0 if that varies.
    #[n(3)]
    pub rate: (u32, u32),
}

/// Planes besides luma, as messages name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum ChromaKind {
    /// Grey.
    #[n(0)]
    None,
    /// Half the width and height.
    #[n(1)]
    I420,
    /// Half the width.
    #[n(2)]
    Y42B,
    /// Full size.
    #[n(3)]
    Y444,
}

impl From<Chroma> for ChromaKind {
    fn from(chroma: Chroma) -> Self {
        match chroma {
            Chroma::None => Self::None,
            Chroma::I420 => Self::I420,
            Chroma::Y42B => Self::Y42B,
            Chroma::Y444 => Self::Y444,
        }
    }
}

impl From<ChromaKind> for Chroma {
    fn from(kind: ChromaKind) -> Self {
        match kind {
            ChromaKind::None => Self::None,
            ChromaKind::I420 => Self::I420,
            ChromaKind::Y42B => Self::Y42B,
            ChromaKind::Y444 => Self::Y444,
        }
    }
}
