// SPDX-License-Identifier: MPL-2.0
//! What the owner must have kept to get the original back: x − q_0(x) of every mark, and a digest of
//! the frame, sealed to itself. The cloud stores it beside the frame.
//!
//! Its length depends on what the cloud knows: how large frames are, and whether any block of luma
//! has changed. Compressed it would not: of a frame in which one block has changed the length would
//! show whether that block carries a mark.

use super::super::Picture;
use super::Error;
use crate::identity::{AeadKey, Identity};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

/// Stands for a mark that was not put in.
const NONE: u8 = 0x80;

/// The owner's remainders of one frame, as the cloud keeps them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Remainder {
    /// Id of the contract.
    #[n(0)]
    pub contract: crate::protocol::B32,
    /// The ticket.
    #[n(1)]
    pub ticket: u64,
    /// The frame's number in the ticket's segment.
    #[n(2)]
    pub frame: u64,
    /// Sealed to the owner.
    #[n(3)]
    pub sealed: ByteVec,
}

/// The key of an owner's remainders under a contract.
pub(super) fn key(identity: &Identity, contract: &[u8; 32]) -> AeadKey {
    let mut id = [0; 16];
    id.copy_from_slice(&contract[..16]);
    identity.recording_key(&id)
}

fn context(contract: &[u8; 32], ticket: u64, frame: u64) -> Vec<u8> {
    let numbers = [ticket.to_be_bytes(), frame.to_be_bytes()].concat();
    [b"camvault remainder 2".as_slice(), contract, &numbers].concat()
}

/// Bytes of a frame's digest.
const DIGEST: usize = 16;

fn digest(picture: &Picture) -> [u8; DIGEST] {
    let mut hash = blake3::Hasher::new();
    for plane in picture.planes() {
        hash.update(plane);
    }
    let mut out = [0; DIGEST];
    out.copy_from_slice(&hash.finalize().as_bytes()[..DIGEST]);
    out
}

/// What an owner has kept of one frame.
#[derive(Clone, PartialEq, Eq)]
pub struct Kept {
    /// x − q_0(x) of each mark, in the layout's order; `None` where there is none.
    pub remainders: Vec<Option<i8>>,
    digest: [u8; DIGEST],
}

impl Kept {
    /// Whether this is the picture that was sealed, bit for bit.
    pub fn is_of(&self, picture: &Picture) -> bool {
        digest(picture) == self.digest
    }
}

/// Says how many, not what.
impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kept({} remainders)", self.remainders.len())
    }
}

/// Seals remainders.
pub(super) struct Writer {
    key: AeadKey,
    contract: [u8; 32],
    ticket: u64,
}

impl Writer {
    pub fn new(identity: &Identity, contract: [u8; 32], ticket: u64) -> Self {
        Self {
            key: key(identity, &contract),
            contract,
            ticket,
        }
    }

    /// Of frame number `frame`: a digest and a byte a mark, or the digest alone if no block of luma
    /// is `sent`. `none` stands for marks that were not put in; all others fit a byte.
    pub fn seal(
        &self,
        frame: u64,
        picture: &Picture,
        sent: bool,
        remainders: &[i16],
        none: i16,
    ) -> Result<Vec<u8>, Error> {
        let byte = |&value: &i16| match value == none {
            true => NONE,
            false => value as i8 as u8,
        };
        let mut clear = digest(picture).to_vec();
        if sent {
            clear.extend(remainders.iter().map(byte));
        }
        let context = context(&self.contract, self.ticket, frame);
        self.key.seal(&context, &clear).map_err(|_| Error::Changed)
    }
}

/// Opens a segment's remainders again, in the order of its frames from the first.
pub struct RemainderReader {
    key: AeadKey,
    contract: [u8; 32],
    last: Vec<u8>,
}

impl RemainderReader {
    /// For the frames of one segment with so many marks a frame.
    pub fn new(identity: &Identity, contract: [u8; 32], marks: usize) -> Self {
        Self {
            key: key(identity, &contract),
            contract,
            last: vec![NONE; marks],
        }
    }

    /// For a segment that begins with `first`, of which it is not known how many marks a frame has;
    /// [`RemainderReader::open`] then takes `first` as well. There are at most `most`.
    pub fn begin(identity: &Identity, first: &Remainder, most: usize) -> Result<Self, Error> {
        let mut reader = Self::new(identity, *first.contract, 0);
        let clear = reader.clear(first)?;
        let marks = clear.len().saturating_sub(DIGEST);
        if marks > most {
            return Err(Error::Form("remainders of another length"));
        }
        reader.last = vec![NONE; marks];
        Ok(reader)
    }

    /// What was kept of the next frame.
    pub fn open(&mut self, remainder: &Remainder) -> Result<Kept, Error> {
        let clear = self.clear(remainder)?;
        let length = Error::Form("remainders of another length");
        let Some((digest, bytes)) = clear.split_first_chunk() else {
            return Err(length);
        };
        if bytes.len() == self.last.len() {
            self.last.copy_from_slice(bytes);
        } else if !bytes.is_empty() {
            return Err(length);
        }
        let value = |&byte: &u8| (byte != NONE).then_some(byte as i8);
        Ok(Kept {
            remainders: self.last.iter().map(value).collect(),
            digest: *digest,
        })
    }

    fn clear(&self, remainder: &Remainder) -> Result<Vec<u8>, Error> {
        if *remainder.contract != self.contract {
            return Err(Error::Changed);
        }
        let context = context(&self.contract, remainder.ticket, remainder.frame);
        let clear = self.key.open(&context, &remainder.sealed);
        Ok(clear.map_err(|_| Error::Changed)?.to_vec())
    }
}
