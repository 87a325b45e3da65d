// SPDX-License-Identifier: MPL-2.0
//! What client and server say to each other: message bodies (CBOR maps with integer keys, RFC
//! 8949) and request signatures. `docs/protocol.md` is the same for other implementations.

mod audit;
mod blobs;
mod contract;
mod document;
mod gateway;
pub mod signature;
mod ttp;
mod url;

pub use self::url::{DEFAULT_PORT, Moment, RecordingUrl, UrlError, Window, vault_base};
pub use audit::*;
pub use blobs::{BlobList, read_blob_frame, write_blob_frame};
pub use contract::*;
pub use document::{Document, DocumentError, Signed};
pub use gateway::*;
pub use ttp::*;

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

/// 32 bytes as a CBOR byte string.
pub type B32 = ByteArray<32>;

/// Content type of every body that is not a sequence of blobs.
pub const CBOR: &str = "application/cbor";
/// Version of the protocol, the first path segment `/v1`.
pub const VERSION: u32 = 1;
/// Header of a blob upload: base64 of its [`BlobList`]; it is signed in place of a digest.
pub const BLOBS_HEADER: &str = "camvault-blobs";
/// Header of a blob upload: base64 of the put token that a look-up gave.
pub const TOKEN_HEADER: &str = "camvault-token";
/// HPKE `info` of path keys.
pub const PATH_KEYS_INFO: &[u8] = b"camvault path keys v1";
/// HPKE `info` of a shared recording.
pub const SHARE_INFO: &[u8] = b"camvault share v1";

/// Lower-case hexadecimal, as in paths.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        for nibble in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
        out
    })
}

/// Encodes a message body.
pub fn encode<T: Encode<()>>(message: &T) -> Vec<u8> {
    let mut out = Vec::new();
    // Writing to a Vec has no error.
    if minicbor::encode(message, &mut out).is_err() {
        unreachable!("a Vec takes every byte");
    }
    out
}

/// Decodes a message body; bytes left over are an error.
pub fn decode<'b, T: Decode<'b, ()>>(body: &'b [u8]) -> Result<T, minicbor::decode::Error> {
    let mut decoder = minicbor::Decoder::new(body);
    let value = decoder.decode()?;
    match decoder.position() == body.len() {
        true => Ok(value),
        false => Err(minicbor::decode::Error::message("bytes after the message")),
    }
}

/// `GET /v1/vault`, unsigned: what a client has to know first.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct VaultInfo {
    /// [`VERSION`].
    #[n(0)]
    pub version: u32,
    /// Base URL of the storage server, if it is another one than this.
    #[n(1)]
    pub storage: Option<String>,
    /// The server's clock, Unix milliseconds.
    #[n(2)]
    pub time_ms: u64,
    /// Whether enrolment needs a token.
    #[n(3)]
    pub token_needed: bool,
    /// Bounds on what one request may hold.
    #[n(4)]
    pub limits: Limits,
}

/// Bounds on what one request may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Limits {
    /// Bytes of one blob.
    #[n(0)]
    pub blob_bytes: u64,
    /// Bytes of blobs in one upload.
    #[n(1)]
    pub batch_bytes: u64,
    /// Items in one look-up, registration, opening or upload.
    #[n(2)]
    pub batch_items: u64,
    /// Bytes of any other request body, a sealed manifest among them.
    #[n(3)]
    pub body_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            blob_bytes: 16 << 20,
            batch_bytes: 32 << 20,
            batch_items: 1024,
            body_bytes: 16 << 20,
        }
    }
}

/// `POST /v1/enroll`, signed by the new identity. Answer: [`Enrolled`]. Enrolling again gives
/// the same leaf and needs no token.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Enroll {
    /// X25519 public key, which path keys and shares are sealed to.
    #[n(0)]
    pub agree: B32,
    /// The server's enrolment token, where one is needed.
    #[n(1)]
    pub token: Option<String>,
}

/// Answer to an enrolment and to `GET /v1/me`.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Enrolled {
    /// Place in the ownership tree.
    #[n(0)]
    pub leaf: u32,
    /// The 33 × 32 bytes of path keys, leaf first, sealed to the identity ([`PATH_KEYS_INFO`]).
    #[n(1)]
    pub path_keys: ByteVec,
}

/// `POST /v1/lookup`: are these chunks stored? Answer: [`Found`].
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Lookup {
    /// The chunks.
    #[n(0)]
    pub chunks: Vec<Wanted>,
}

/// One chunk of a look-up.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Wanted {
    /// `t`.
    #[n(0)]
    pub tag: B32,
    /// Bytes of the chunk.
    #[n(1)]
    pub len: u32,
}

/// Answer to a look-up.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Found {
    /// One entry per chunk asked for, in that order.
    #[n(0)]
    pub chunks: Vec<FoundChunk>,
    /// Allows the asker to upload copies of the missing chunks at the storage server.
    #[n(1)]
    pub put_token: ByteVec,
}

/// What is stored of one chunk.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct FoundChunk {
    /// Its variants, oldest first, at most [`MAX_VARIANTS`].
    #[n(0)]
    pub variants: Vec<Variant>,
    /// Another uploader is sending this chunk just now: ask again after so many milliseconds
    /// (0: no). A hint to save bandwidth; a client waits at most a few seconds for one chunk.
    #[n(1)]
    pub wait_ms: u32,
}

/// Variants of one chunk that a look-up shows at most.
pub const MAX_VARIANTS: usize = 8;

/// One stored copy as a would-be joiner sees it. `C3` itself is withheld: sending it is the
/// joiner's proof that it holds the chunk.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Variant {
    /// `C2`.
    #[n(0)]
    pub c2: B32,
    /// `SHA-256("camvault c3" ‖ C3)`.
    #[n(1)]
    pub c3_check: B32,
    /// `d1`.
    #[n(2)]
    pub d1: B32,
}

/// [`Variant::c3_check`] of a `C3`.
pub fn c3_check(c3: &[u8; 32]) -> B32 {
    use sha2::{Digest, Sha256};
    let digest: [u8; 32] = Sha256::new()
        .chain_update(b"camvault c3")
        .chain_update(c3)
        .finalize()
        .into();
    digest.into()
}

/// `POST /v1/register`: join or add variants. Answer: [`Registered`]. Idempotent.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Register {
    /// The chunks.
    #[n(0)]
    pub chunks: Vec<Registration>,
}

/// One chunk to own.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Registration {
    /// `t`.
    #[n(0)]
    pub tag: B32,
    /// `C2`.
    #[n(1)]
    pub c2: B32,
    /// `C3`: of the variant to join, or of the uploader's own.
    #[n(2)]
    pub c3: B32,
    /// `d1`, likewise.
    #[n(3)]
    pub d1: B32,
    /// Bytes of the chunk.
    #[n(4)]
    pub len: u32,
    /// The storage server's receipt for `d1`, if the uploader sent the blob; none to join.
    #[n(5)]
    pub receipt: Option<ByteVec>,
    /// `d1` of variants that the uploader has checked and found wrong.
    #[n(6)]
    pub refused: Vec<B32>,
}

/// Answer to a registration: one outcome per chunk, in order.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Registered {
    /// The outcomes.
    #[n(0)]
    pub chunks: Vec<Outcome>,
}

/// What became of one registration.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// The caller now holds the variant it named, which existed.
    #[n(0)]
    Joined,
    /// The caller now holds the variant it added.
    #[n(1)]
    Added,
    /// There are variants that the caller has neither named nor refused: check them, then join
    /// one or register again with them refused.
    #[n(2)]
    Unseen(#[n(0)] Vec<Variant>),
    /// No such variant, and no valid receipt to add one: look up and upload again.
    #[n(3)]
    NoBlob,
    /// The caller has already added another variant of this chunk and may add only one.
    #[n(4)]
    SecondVariant,
}

/// `PUT /v1/recordings/{id}/segments/{seq}`. Answer: [`Committed`]. Segments of a recording are
/// numbered from 0 without gaps.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Commit {
    /// Sealed head of the segment: place in time, totals.
    #[n(0)]
    pub head: ByteVec,
    /// Sealed manifest.
    #[n(1)]
    pub manifest: ByteVec,
    /// Sealed summary of the whole recording, replacing the one before.
    #[n(2)]
    pub summary: ByteVec,
    /// Every stored chunk that the manifest names, once for each time it does.
    #[n(3)]
    pub chunks: Vec<ChunkRef>,
}

/// A stored chunk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
pub struct ChunkRef {
    /// `t`.
    #[n(0)]
    pub tag: B32,
    /// `d1` of the variant.
    #[n(1)]
    pub d1: B32,
}

/// Answer to a commit.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Committed {
    /// Durable (now, or by the same commit before).
    #[n(0)]
    Done,
    /// The recording's next segment is another: somebody else wrote this one. Number again.
    #[n(1)]
    NextIs(#[n(0)] u64),
    /// These chunks are not held by the caller (an index into `chunks` each): register them again.
    #[n(2)]
    NotHeld(#[n(0)] Vec<u32>),
}

/// `GET /v1/recordings[?after=ID[&owner=HEX]]`: the caller's own and those shared with it, a page
/// at a time. The next page is asked for with id and owner of the last entry of this one.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Recordings {
    /// The caller's own, in order of their ids, before all others.
    #[n(0)]
    pub recordings: Vec<RecordingEntry>,
    /// There are more behind these.
    #[n(1)]
    #[cbor(default)]
    pub more: bool,
}

/// One recording in a list.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct RecordingEntry {
    /// The recording's id.
    #[n(0)]
    pub id: ByteArray<16>,
    /// The owner's signing key, if the recording is another's and shared with the caller.
    #[n(1)]
    pub owner: Option<B32>,
    /// For a shared one: name and key, sealed to the caller ([`SharedKey`], [`SHARE_INFO`]).
    #[n(2)]
    pub shared: Option<ByteVec>,
    /// Number of segments, those that are no longer kept among them; the next one's number.
    #[n(3)]
    pub segments: u64,
    /// Sealed summary.
    #[n(4)]
    pub summary: ByteVec,
    /// The first segment that is still kept: retention removes the oldest ones.
    #[n(5)]
    #[cbor(default)]
    pub first: u64,
    /// Who holds it, so that nothing of it is deleted.
    #[n(6)]
    #[cbor(default)]
    pub held: Held,
}

/// Who may put a recording under legal hold. While anybody does, no segment of it is deleted;
/// each can end its own hold alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Holder {
    /// Its owner.
    #[n(0)]
    Owner,
    /// Who runs the server.
    #[n(1)]
    Operator,
}

/// The holds that a recording is under.
pub type Held = std::collections::BTreeSet<Holder>;

/// `PUT /v1/retention`, and part of the answer to `GET`: for how long footage is kept. What is
/// absent is not bounded. Applied some time after, oldest segments first; never to recordings
/// under hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Retention {
    /// Milliseconds after which a segment is forgotten, from when it was committed.
    #[n(0)]
    pub age_ms: Option<u64>,
    /// Bytes of chunks that the owner's recordings may add up to.
    #[n(1)]
    pub bytes: Option<u64>,
}

/// Answer to `GET /v1/retention`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RetentionInfo {
    /// What the owner has set.
    #[n(0)]
    pub own: Retention,
    /// The longest that this server keeps anything, milliseconds.
    #[n(1)]
    pub longest_ms: Option<u64>,
    /// Bytes that count against [`Retention::bytes`] now.
    #[n(2)]
    pub bytes: u64,
}

/// What is sealed to the one a recording is shared with.
#[derive(Clone, Encode, Decode)]
#[cbor(map)]
pub struct SharedKey {
    /// The recording's name at its owner.
    #[n(0)]
    pub name: String,
    /// The recording's key.
    #[n(1)]
    pub key: B32,
}

/// `GET /v1/recordings/{id}?from=SEQ[&owner=HEX]`: the recording and its segments' heads from
/// `SEQ` on, or from the first that is kept, at most 1000 of them.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Recording {
    /// Number of segments, those that are no longer kept among them; the next one's number.
    #[n(0)]
    pub segments: u64,
    /// Sealed summary.
    #[n(1)]
    pub summary: ByteVec,
    /// Sealed heads of the segments `max(from, first)` and on.
    #[n(2)]
    pub heads: Vec<ByteVec>,
    /// The first segment that is still kept.
    #[n(3)]
    #[cbor(default)]
    pub first: u64,
    /// Who holds it.
    #[n(4)]
    #[cbor(default)]
    pub held: Held,
}

/// `GET /v1/recordings/{id}/segments/{seq}[?owner=HEX]`: one sealed manifest.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct SegmentBody {
    /// Sealed manifest.
    #[n(0)]
    pub manifest: ByteVec,
}

/// `POST /v1/open`: records and capabilities for chunks. Answer: [`Opened`].
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Open {
    /// The chunks.
    #[n(0)]
    pub chunks: Vec<ChunkRef>,
    /// For a recording shared with the caller: whose, which, and the segment they are in.
    #[n(1)]
    pub shared: Option<SharedSegment>,
}

/// A segment of another's recording.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct SharedSegment {
    /// The owner's signing key.
    #[n(0)]
    pub owner: B32,
    /// The recording.
    #[n(1)]
    pub id: ByteArray<16>,
    /// The segment.
    #[n(2)]
    pub seq: u64,
}

/// Answer to [`Open`].
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Opened {
    /// One entry per chunk, in order; none where the caller holds no such chunk.
    #[n(0)]
    pub chunks: Vec<Option<OpenedChunk>>,
    /// Until when the capabilities are good, Unix seconds.
    #[n(1)]
    pub expires: u64,
}

/// What opens one chunk.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct OpenedChunk {
    /// Epoch of the group key.
    #[n(0)]
    pub epoch: ByteArray<16>,
    /// `C2'`.
    #[n(1)]
    pub c2: B32,
    /// Node whose key wraps the group key.
    #[n(2)]
    pub node: u64,
    /// `E_KEK(node)(GK)`.
    #[n(3)]
    pub gk: B32,
    /// `C3`.
    #[n(4)]
    pub c3: B32,
    /// The metadata server's permission to fetch `d1`, for the caller alone.
    #[n(5)]
    pub capability: ByteArray<16>,
}

/// `POST /v1/blobs/get` at the storage server. Answer: a frame per blob, see
/// [`read_blob_frame`].
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct GetBlobs {
    /// [`Opened::expires`].
    #[n(0)]
    pub expires: u64,
    /// The blobs.
    #[n(1)]
    pub blobs: Vec<GetBlob>,
}

/// One blob to fetch.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct GetBlob {
    /// Its name.
    #[n(0)]
    pub d1: B32,
    /// [`OpenedChunk::capability`].
    #[n(1)]
    pub capability: ByteArray<16>,
}

/// Answer to `PUT /v1/blobs`: a receipt per blob, in order. All are durable.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Receipts {
    /// The receipts.
    #[n(0)]
    pub receipts: Vec<ByteVec>,
}

/// `PUT /v1/recordings/{id}/shares/{hex of the reader's signing key}`; `DELETE` takes it back.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Share {
    /// [`SharedKey`], sealed to the reader with [`SHARE_INFO`].
    #[n(0)]
    pub sealed: ByteVec,
}

/// `GET /v1/stats`, unsigned: totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Stats {
    /// Bytes of all chunks, counted as often as recordings hold them.
    #[n(0)]
    pub bytes_logical: u64,
    /// Bytes of all variants' blobs.
    #[n(1)]
    pub bytes_stored: u64,
    /// Distinct tags.
    #[n(2)]
    pub chunks: u64,
    /// Stored copies; more than `chunks` only where an uploader found none that was right.
    #[n(3)]
    pub variants: u64,
    /// Blobs known to the metadata server: those of variants and those waiting to be deleted.
    #[n(4)]
    pub blobs: u64,
    /// Recordings.
    #[n(5)]
    pub recordings: u64,
    /// Enrolled identities.
    #[n(6)]
    pub owners: u64,
    /// Bytes of manifests, heads and summaries.
    #[n(7)]
    pub bytes_manifests: u64,
    /// Committed segments.
    #[n(8)]
    pub segments: u64,
}

/// What a scrub found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ScrubReport {
    /// Variants looked at.
    #[n(0)]
    pub variants: u64,
    /// Segments looked at.
    #[n(1)]
    pub segments: u64,
    /// Blobs that no variant names, deleted.
    #[n(2)]
    pub orphans_removed: u64,
    /// Unfinished uploads, deleted.
    #[n(3)]
    pub leftovers_removed: u64,
    /// Counts that did not agree with the segments, corrected.
    #[n(4)]
    pub counts_mended: u64,
    /// `d1` of variants whose blob is gone, the first [`MAX_NAMED`]. No longer offered to
    /// uploaders.
    #[n(5)]
    pub missing: Vec<B32>,
    /// `d1` of variants whose blob no longer has its hash, likewise.
    #[n(6)]
    pub damaged: Vec<B32>,
    /// Variants that are missing or damaged.
    #[n(7)]
    pub bad: u64,
}

/// Blobs of a kind that a [`ScrubReport`] names at most.
pub const MAX_NAMED: usize = 1000;

/// Answer to `GET /v1/jobs`, for operators.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Jobs {
    /// In order of their names.
    #[n(0)]
    pub jobs: Vec<Job>,
    /// The server's clock, Unix milliseconds.
    #[n(1)]
    pub time_ms: u64,
}

/// Work that servers over the same stores share: at any time one of them does it, step by step,
/// and another goes on from the last step when that one is gone. Answer to `POST /v1/scrub`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Job {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Rises with every change. Who knows an older one has lost the job.
    #[n(1)]
    pub version: u64,
    /// The server that does it.
    #[n(2)]
    pub holder: Option<String>,
    /// Until when nobody else takes it over, Unix milliseconds.
    #[n(3)]
    pub lease_ms: u64,
    /// Where the next step begins, as the job itself writes it; none while it does not run.
    #[n(4)]
    pub cursor: Option<ByteVec>,
    /// Done in this run, or in the last one: blobs deleted, segments forgotten, variants checked.
    #[n(5)]
    pub done: u64,
    /// How many there are to do, where that is known.
    #[n(6)]
    pub of: Option<u64>,
    /// What a scrub has found.
    #[n(7)]
    pub report: Option<ScrubReport>,
    /// When this run began.
    #[n(8)]
    pub started_ms: u64,
    /// When it ended; none while it runs.
    #[n(9)]
    pub finished_ms: Option<u64>,
    /// Why the last step failed; it is tried again.
    #[n(10)]
    pub error: Option<String>,
}

/// Body of every answer that is not 2xx.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Problem {
    /// What kind, for programs.
    #[n(0)]
    pub code: Code,
    /// What happened and what to do, for people.
    #[n(1)]
    pub message: String,
    /// The server's clock, Unix milliseconds, where the request's was refused.
    #[n(2)]
    pub time_ms: Option<u64>,
}

/// Kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Code {
    /// 400: not understood.
    #[n(0)]
    Malformed,
    /// 401: no valid signature.
    #[n(1)]
    Signature,
    /// 401: the signature's time is too far from the server's: correct by `time_ms`, sign again.
    #[n(2)]
    Clock,
    /// 401: this nonce was seen before: sign again.
    #[n(3)]
    Replay,
    /// 403: not enrolled, or a wrong token.
    #[n(4)]
    NotEnrolled,
    /// 403: a capability, put token or receipt that is wrong, expired or another's.
    #[n(5)]
    Capability,
    /// 404: no such recording, segment or path.
    #[n(6)]
    NotFound,
    /// 413: over one of [`Limits`].
    #[n(7)]
    TooLarge,
    /// 507: the owner's quota is used up.
    #[n(8)]
    Quota,
    /// 507: the server's disk is full.
    #[n(9)]
    Full,
    /// 503: too many requests at once, or shutting down: try again.
    #[n(10)]
    Busy,
    /// 408: the request came too slowly.
    #[n(11)]
    Slow,
    /// 500: the server failed.
    #[n(12)]
    Internal,
    /// 409: something else was said before, and that stands.
    #[n(13)]
    Conflict,
    /// 410: the contract was deleted.
    #[n(14)]
    Gone,
    /// 403: an audit of the contract has failed, or too many were not answered.
    #[n(15)]
    Audit,
    /// 423: the recording is under legal hold.
    #[n(16)]
    Held,
}
