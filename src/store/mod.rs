// SPDX-License-Identifier: MPL-2.0
//! What the servers keep: [`Metadata`] (who owns which chunk, recordings, shares), [`Blobs`]
//! (`C1` by the hash of what arrived) and the third party's [`Registry`]. Each has one conformance suite that every backend passes.
//!
//! Every operation is one transaction: it happens whole or not at all, and what it returns is
//! durable before it returns. Times are Unix milliseconds.

mod aligned;
#[cfg(test)]
pub(crate) mod conformance;
mod copy;
mod directory;
mod embedded;
mod place;
mod postgres;
#[cfg(test)]
#[path = "../../tests/common/postgres.rs"]
pub(crate) mod postgres_server;
mod record;
mod registry;
mod remote;
mod room;
mod s3;
mod tables;

pub use aligned::Gather;
pub use copy::{Copied, copy_blobs};
pub use directory::Directory;
pub use embedded::{Embedded, EmbeddedRegistry};
pub use place::BlobPlace;
pub use postgres::{Postgres, PostgresRegistry, PostgresUrl, UrlError as PostgresUrlError};
pub(crate) use record::Balance;
pub use registry::*;
pub use remote::{Ask, Remote, Reply, Seal, answer};
pub use room::Room;
pub use s3::{Bucket, S3};

use crate::identity::RecordingId;
use crate::ownership::{Leaf, Wrapped};
pub(crate) use crate::protocol::hex;
use crate::protocol::{
    ChunkRef, Commit, Committed, Holder, Job, Outcome, Recording, Recordings, Retention, Stats,
    Variant,
};
use async_trait::async_trait;
use bytes::Bytes;
use minicbor::{Decode, Encode};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes a file that is there whole or not at all, durably.
pub fn write_whole(path: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    std::fs::File::open(dir)?.sync_all()
}

/// A tag, a blob's name `d1`, or a public key.
pub type Hash = [u8; 32];

/// Names something that servers keep for each other: a nonce, an allowance.
pub type Mark = [u8; 16];

/// How long a registered chunk is held for an owner before a recording has to name it.
pub const HOLD_MS: u64 = 48 * 3600 * 1000;
/// How long after it was made a receipt counts.
pub const RECEIPT_MS: u64 = 24 * 3600 * 1000;

/// Why a store did not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No room: nothing was changed.
    #[error("no room left: free some space or forget recordings")]
    Full,
    /// The file system failed.
    #[error("{0}: {1}")]
    Io(String, #[source] std::io::Error),
    /// The database failed.
    #[error("database: {0}")]
    Engine(String),
    /// The database is away. What was asked for may or may not have been done.
    #[error("the database does not answer ({0}): try again")]
    Away(String),
    /// The database had to be closed and opened after a failure. Nothing was changed.
    #[error("the database had to be opened again: try again")]
    Again,
    /// Something stored does not have its form: run a scrub.
    #[error("stored {0} is not readable: run `camvault scrub`")]
    Corrupt(&'static str),
    /// The operating system gave no random numbers.
    #[error("the operating system gave no random numbers")]
    Random,
    /// A bucket: which one, and what is wrong with it.
    #[error("{0}: {1}")]
    Bucket(String, String),
    /// Another process could not be asked.
    #[error("storage server: {0}")]
    Remote(String),
    /// More than the owner may hold. Nothing was changed.
    #[error("{used} of this owner's {quota} bytes are used: forget recordings")]
    Quota {
        /// Bytes that are charged to it.
        used: u64,
        /// Bytes that may be.
        quota: u64,
    },
}

impl Error {
    /// An I/O error at a place; running out of room becomes [`Error::Full`].
    pub(crate) fn io(at: impl std::fmt::Display, error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io(at.to_string(), error),
        }
    }
}

/// An enrolled identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Place in the ownership tree.
    pub leaf: Leaf,
    /// X25519 public key.
    pub agree: Hash,
    /// Bytes of the chunks it holds, counted as often as its recordings name them, at least once.
    pub bytes: u64,
}

/// One chunk to own, with its receipt already checked.
#[derive(Clone, Debug)]
pub struct Item {
    /// `t`.
    pub tag: Hash,
    /// `C2`.
    pub c2: Hash,
    /// `C3`.
    pub c3: Hash,
    /// `d1`.
    pub d1: Hash,
    /// Bytes of the chunk.
    pub len: u32,
    /// A valid receipt says that the storage server has the blob.
    pub stored: bool,
    /// `d1` of variants that the uploader found wrong.
    pub refused: Vec<Hash>,
}

/// A segment of another owner's recording, by which its reader opens chunks.
#[derive(Clone, Copy, Debug)]
pub struct Via {
    /// The owner.
    pub owner: Leaf,
    /// The recording.
    pub id: RecordingId,
    /// The segment.
    pub seq: u64,
}

/// What opens a chunk, without the capability.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Group key and `C2'`.
    pub wrapped: Wrapped,
    /// `C3`.
    pub c3: Hash,
}

/// A variant as a scrub sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// `t`.
    pub tag: Hash,
    /// `d1`.
    pub d1: Hash,
    /// Bytes of its blob.
    pub len: u32,
    /// Known to be missing or damaged.
    pub damaged: bool,
}

/// What an audit of the counts found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Segments read.
    pub segments: u64,
    /// Counts that were wrong and have been corrected.
    pub mended: u64,
}

/// What became of a request to forget a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// It is gone.
    Done,
    /// There is none.
    Unknown,
    /// It is under legal hold: what was there when the hold began is there.
    Held,
}

/// What servers allow together: so much at once, and so much more with every second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// At once, at most.
    pub burst: u64,
    /// What comes back in a second.
    pub per_s: u64,
    /// When all about it may be forgotten.
    pub until: u64,
}

/// A place in an owner's list of recordings; its own are before all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// One of its own.
    Own(RecordingId),
    /// One that this owner shares with it.
    Shared(Leaf, RecordingId),
}

/// Who owns what.
#[async_trait]
pub trait Metadata: Send + Sync {
    /// Gives an identity its leaf; the same one if it has one already.
    async fn enroll(&self, key: Hash, agree: Hash) -> Result<Leaf, Error>;

    /// The identity with a signing key.
    async fn owner(&self, key: Hash) -> Result<Option<Owner>, Error>;

    /// The variants that `owner` should look at for each tag, oldest first, at most
    /// [`MAX_VARIANTS`](crate::protocol::MAX_VARIANTS), one that it holds among them. Damaged ones
    /// are left out.
    async fn lookup(&self, owner: Leaf, tags: Vec<Hash>) -> Result<Vec<Vec<Variant>>, Error>;

    /// Joins or adds variants, see [`Outcome`]. A blob that arrived and is not needed goes to the
    /// trash. Held until `now` + [`HOLD_MS`] (up to an hour longer) or a commit. What would bring
    /// the owner over `quota` bytes is refused whole ([`Error::Quota`]).
    async fn register(
        &self,
        owner: Leaf,
        items: Vec<Item>,
        quota: Option<u64>,
        now: u64,
    ) -> Result<Vec<Outcome>, Error>;

    /// Adds a segment, see [`Committed`].
    async fn commit(
        &self,
        owner: Leaf,
        id: RecordingId,
        seq: u64,
        commit: Commit,
        now: u64,
    ) -> Result<Committed, Error>;

    /// Recordings of an owner and those shared with its signing key: the first thousand behind
    /// `after`, or fewer if they are large.
    async fn recordings(
        &self,
        owner: Leaf,
        key: Hash,
        after: Option<Listed>,
    ) -> Result<Recordings, Error>;

    /// One recording with at most 1000 heads from segment `from` on, or from the first that is
    /// kept.
    async fn recording(
        &self,
        owner: Leaf,
        id: RecordingId,
        from: u64,
    ) -> Result<Option<Recording>, Error>;

    /// The sealed manifest of a segment.
    async fn segment(
        &self,
        owner: Leaf,
        id: RecordingId,
        seq: u64,
    ) -> Result<Option<Vec<u8>>, Error>;

    /// Forgets a recording, unless it is held. Its owner leaves the groups of all chunks that no
    /// other of its recordings names; a chunk without owners loses its record at once and its
    /// blob goes to the trash. A very long recording takes several transactions, first segments
    /// first: what a kill leaves is a recording without its beginning, to be forgotten again.
    async fn forget(&self, owner: Leaf, id: RecordingId, now: u64) -> Result<Forgotten, Error>;

    /// Puts a recording under hold, or ends that; `false` if there is no such recording.
    async fn hold(&self, owner: Leaf, id: RecordingId, by: Holder, on: bool)
    -> Result<bool, Error>;

    /// For how long an owner wants its footage kept.
    async fn retention(&self, owner: Leaf) -> Result<Retention, Error>;

    /// Sets that.
    async fn set_retention(&self, owner: Leaf, retention: Retention) -> Result<(), Error>;

    /// Forgets, as [`Metadata::forget`] does, some of those segments of an owner, the oldest ones
    /// first, that its retention no longer keeps, or that were committed before `oldest`. How
    /// many: 0 when there are no more. Of a recording under hold nothing is forgotten.
    async fn trim(&self, owner: Leaf, oldest: u64, now: u64) -> Result<u64, Error>;

    /// Wrapped keys of those chunks that `reader` holds or, with `via`, that the named segment of
    /// an owner's recording holds. Whether the recording is shared is the caller's to check.
    async fn open(
        &self,
        reader: Leaf,
        chunks: Vec<ChunkRef>,
        via: Option<Via>,
    ) -> Result<Vec<Option<Opening>>, Error>;

    /// Shares a recording with a signing key, replacing what was shared with it before; `false`
    /// if there is no such recording.
    async fn share(
        &self,
        owner: Leaf,
        id: RecordingId,
        reader: Hash,
        sealed: Vec<u8>,
    ) -> Result<bool, Error>;

    /// Takes a share back; `false` if there was none.
    async fn unshare(&self, owner: Leaf, id: RecordingId, reader: Hash) -> Result<bool, Error>;

    /// The leaf of the owner that shares a recording with `reader`, if it does.
    async fn shared(
        &self,
        owner: Hash,
        id: RecordingId,
        reader: Hash,
    ) -> Result<Option<Leaf>, Error>;

    /// Ends holds that have run out, a bounded number in one go; how many.
    async fn expire_holds(&self, now: u64) -> Result<usize, Error>;

    /// Takes at most `max` blobs that have been in the trash since before `before`, to be deleted.
    /// They are given again, to anybody, until [`Metadata::deleted`]. From the claim until a day
    /// after the deletion nobody can register a blob of that name: however many servers delete
    /// it, and however late one of them does, nothing that anybody owns is lost.
    async fn claim_trash(&self, before: u64, max: usize) -> Result<Vec<Hash>, Error>;

    /// Claims those of `blobs` that no variant names.
    async fn claim_orphans(&self, blobs: Vec<Hash>) -> Result<Vec<Hash>, Error>;

    /// Notes that claimed blobs were deleted, by `at`, which [`Upkeep::delete`] returned.
    async fn deleted(&self, blobs: Vec<Hash>, at: u64) -> Result<(), Error>;

    /// Totals.
    async fn stats(&self) -> Result<Stats, Error>;

    /// Up to `max` variants behind `after` (tag and `d1`), in order.
    async fn variants(&self, after: Option<(Hash, Hash)>, max: usize) -> Result<Vec<Place>, Error>;

    /// Marks a variant as damaged or not; damaged ones are not offered and cannot be joined.
    async fn mark(&self, tag: Hash, d1: Hash, damaged: bool) -> Result<bool, Error>;

    /// Recounts references, quotas and totals from the segments and corrects them.
    async fn audit(&self, now: u64) -> Result<Audit, Error>;

    /// All jobs that were ever begun.
    async fn jobs(&self) -> Result<Vec<Job>, Error>;

    /// Keeps a job, with its version raised by one, if the one that is kept has the version given
    /// (none: 0); `false` if not: then somebody else has changed it.
    async fn save_job(&self, job: Job) -> Result<bool, Error>;

    /// Notes something that may happen once; `false` if it was noted before. Forgotten after
    /// `until`.
    async fn once(&self, what: Mark, until: u64, now: u64) -> Result<bool, Error>;

    /// Takes from an allowance: `None` if it is taken, else for how many milliseconds there will
    /// not be so much of it.
    async fn spend(
        &self,
        from: Mark,
        amount: u64,
        allowance: Allowance,
        now: u64,
    ) -> Result<Option<u64>, Error>;
}

/// A blob that arrived: its name, already computed from its bytes, and the bytes in pieces.
#[derive(Clone, Debug)]
pub struct Blob {
    /// BLAKE3 of the bytes.
    pub d1: Hash,
    /// The bytes, in order; of a large blob best as [`Gather`] makes them.
    pub data: Vec<Bytes>,
}

/// A stored blob in a list.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct BlobInfo {
    /// Its name.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub d1: Hash,
    /// Its bytes.
    #[n(1)]
    pub len: u64,
    /// When it was written.
    #[n(2)]
    pub written_ms: u64,
}

/// What a check of a blob found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Health {
    /// Has its hash.
    #[n(0)]
    Fine,
    /// Is not there.
    #[n(1)]
    Missing,
    /// Is there and has another hash.
    #[n(2)]
    Damaged,
}

/// Upkeep of stored blobs, which a metadata server can also do at a distance.
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// Deletes blobs, durably; those that are not there are fine. Returns a time: a put that began
    /// later by the clock of its server was not undone.
    async fn delete(&self, blobs: &[Hash]) -> Result<u64, Error>;

    /// The blobs whose name begins with a byte.
    async fn list(&self, first: u8) -> Result<Vec<BlobInfo>, Error>;

    /// Reads blobs and compares their hash with their name.
    async fn check(&self, blobs: &[Hash]) -> Result<Vec<Health>, Error>;

    /// Removes what unfinished uploads left that are older than `age_ms`; how many.
    async fn clean(&self, age_ms: u64) -> Result<u64, Error>;

    /// Whether the store answers and can take blobs.
    async fn ready(&self) -> Result<(), Error>;
}

/// Blobs under the hash of their bytes.
#[async_trait]
pub trait Blobs: Upkeep {
    /// Stores blobs, replacing those that are there. All are durable when it returns; after a
    /// kill each is there whole or not at all.
    async fn put(&self, blobs: Vec<Blob>) -> Result<(), Error>;

    /// Reads one; the caller's reader checks its hash.
    async fn get(&self, d1: &Hash) -> Result<Option<Bytes>, Error>;
}

/// Reads `2 N` hexadecimal digits, lower case.
pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() || pairs.len() != N {
        return None;
    }
    let mut out = [0; N];
    for (byte, [high, low]) in out.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(out)
}

/// Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    ms(SystemTime::now())
}

fn ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
