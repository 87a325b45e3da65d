// SPDX-License-Identifier: MPL-2.0
//! Requests to a gateway, the cloud that opens sealed streams. All but [`GatewayInfo`] are signed
//! by the contract's owner.

use super::{B32, Mode, Party, Signed};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

/// HPKE `info` of the key of retrieved frames, which the gateway seals to the owner.
pub const RETRIEVED_INFO: &[u8] = b"camvault retrieved frames v1";

/// `GET /v1/gateway`, unsigned: who it is and where sealed streams go.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct GatewayInfo {
    /// Its identity.
    #[n(0)]
    pub identity: Party,
    /// Base URL of the third party where its key is registered.
    #[n(1)]
    pub ttp: String,
    /// TCP port that takes sealed streams.
    #[n(2)]
    pub port: u16,
    /// Pixels of a frame that it takes, at most; goes into contracts.
    #[n(3)]
    #[cbor(default)]
    pub pixels: u64,
}

/// `POST /v1/gateway/contracts`: a [`super::Contract`] with the owner's signature; answered with
/// the gateway's added. The gateway signs what its own numbers allow.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct GatewayContract {
    /// The contract.
    #[n(0)]
    pub contract: Signed,
}

/// `GET /v1/gateway/contracts/{id}`: what is archived under a contract. `DELETE`: all of it is
/// forgotten, and the contract takes no more streams.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Archives {
    /// In the order of their beginning.
    #[n(0)]
    pub archives: Vec<Archive>,
}

/// One stream that was archived.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Archive {
    /// Names it in requests.
    #[n(0)]
    pub name: String,
    /// Wall clock of its first frame by the owner's clock, Unix milliseconds.
    #[n(1)]
    pub started_ms: u64,
    /// Whether it is still being written.
    #[n(2)]
    pub live: bool,
}

/// `GET /v1/gateway/contracts/{id}/archives/{name}`: the owner's remainders, as frames of
/// [`super::write_blob_frame`], each a [`StoredRemainder`], in the order of frames.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct StoredRemainder {
    /// Presentation time in nanoseconds of the stream.
    #[n(0)]
    pub pts: u64,
    /// A [`crate::sealed::stream::Remainder`].
    #[n(1)]
    pub remainder: ByteVec,
}

/// `POST /v1/gateway/contracts/{id}/archives/{name}`: frames of one ticket without their mark.
/// Answer: a [`RetrievedHead`], then a [`RetrievedFrame`] for each frame, all as frames of
/// [`super::write_blob_frame`]; the frames sealed (AES-256-GCM, context: their number in the
/// answer, 8 bytes big endian).
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct GatewayRetrieval {
    /// [`super::Masks::masks`] for these frames.
    #[n(0)]
    pub masks: ByteVec,
    /// Their presentation times, as [`StoredRemainder::pts`], one for each frame of the masks.
    #[n(1)]
    pub pts: Vec<u64>,
}

/// What retrieved frames are.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct RetrievedHead {
    /// Key of the frames, sealed to the owner ([`RETRIEVED_INFO`]).
    #[n(0)]
    pub key: ByteVec,
    /// Their format.
    #[n(1)]
    pub video: super::Video,
    /// How marks come out.
    #[n(2)]
    pub mode: Mode,
    /// Id of the contract.
    #[n(3)]
    pub contract: B32,
}

/// A retrieved frame.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct RetrievedFrame {
    /// Presentation time, as asked for.
    #[n(0)]
    pub pts: u64,
    /// All but the coefficients that can carry a bit ([`crate::sealed::Split::rest`] of the whole
    /// frame).
    #[n(1)]
    pub rest: ByteVec,
    /// Those: sums with the third party's masks ([`crate::homomorphic::retrieval`]); packed:
    /// ciphertexts.
    #[n(2)]
    pub sums: ByteVec,
}
