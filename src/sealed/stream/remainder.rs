// SPDX-License-Identifier: MPL-2.0
//! What the owner must have kept to get the original back: x − q_0(x) of every mark, and the digest
//! of the original, by which it knows that it has it. Sealed to itself; the cloud stores it beside
//! the frame.

use super::Error;
use crate::identity::{AeadKey, Identity};
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use std::io::{Read as _, Write as _};

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
    [b"camvault remainder 1".as_slice(), contract, &numbers].concat()
}

/// Seals remainders. Each frame is written as its difference from the one before.
pub(super) struct Writer {
    key: AeadKey,
    contract: [u8; 32],
    ticket: u64,
    last: Vec<u8>,
}

impl Writer {
    pub fn new(identity: &Identity, contract: [u8; 32], ticket: u64) -> Self {
        Self {
            key: key(identity, &contract),
            contract,
            ticket,
            last: Vec::new(),
        }
    }

    /// `none` stands for marks that were not put in; all others fit a byte.
    /// `digest` is the picture's ([`Picture::digest`](super::super::Picture::digest)).
    pub fn seal(
        &mut self,
        frame: u64,
        remainders: &[i16],
        none: i16,
        digest: &[u8; 32],
    ) -> Result<Vec<u8>, Error> {
        let byte = |&value: &i16| match value == none {
            true => NONE,
            false => value as i8 as u8,
        };
        let bytes: Vec<u8> = remainders.iter().map(byte).collect();
        self.last.resize(bytes.len(), 0);
        let change: Vec<u8> = bytes
            .iter()
            .zip(&self.last)
            .map(|(now, before)| now.wrapping_sub(*before))
            .collect();
        self.last = bytes;
        let mut packed = ZlibEncoder::new(digest.to_vec(), Compression::fast());
        // Writing to a Vec has no error.
        let packed = packed
            .write_all(&change)
            .and_then(|()| packed.finish())
            .map_err(|_| Error::Form("no memory"))?;
        let context = context(&self.contract, self.ticket, frame);
        self.key.seal(&context, &packed).map_err(|_| Error::Changed)
    }
}

/// Opens a segment's remainders again, in the order of its frames from the first.
pub struct RemainderReader {
    key: AeadKey,
    contract: [u8; 32],
    last: Vec<u8>,
    digest: [u8; 32],
}

impl RemainderReader {
    /// For the frames of one segment with so many marks a frame.
    pub fn new(identity: &Identity, contract: [u8; 32], marks: usize) -> Self {
        Self {
            key: key(identity, &contract),
            contract,
            last: vec![0; marks],
            digest: [0; 32],
        }
    }

    /// For a segment that begins with `first`, of which it is not known how many marks a frame has;
    /// [`RemainderReader::open`] then takes `first` as well. There are at most `most`.
    pub fn begin(identity: &Identity, first: &Remainder, most: usize) -> Result<Self, Error> {
        let mut reader = Self::new(identity, *first.contract, 0);
        let (_, change) = reader.unpack(first, most)?;
        reader.last = vec![0; change.len()];
        Ok(reader)
    }

    /// x − q_0(x) of each mark, in the layout's order; `None` where there is none.
    pub fn open(&mut self, remainder: &Remainder) -> Result<Vec<Option<i8>>, Error> {
        let (digest, change) = self.unpack(remainder, self.last.len())?;
        if change.len() != self.last.len() {
            return Err(Error::Form("remainders of another length"));
        }
        self.digest = digest;
        for (last, change) in self.last.iter_mut().zip(change) {
            *last = last.wrapping_add(change);
        }
        let value = |&byte: &u8| (byte != NONE).then_some(byte as i8);
        Ok(self.last.iter().map(value).collect())
    }

    /// Digest of the original frame ([`Picture::digest`](super::super::Picture::digest)) whose
    /// remainders were opened last.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The digest, and what has changed since the frame before: at most `most` bytes.
    fn unpack(&self, remainder: &Remainder, most: usize) -> Result<([u8; 32], Vec<u8>), Error> {
        if *remainder.contract != self.contract {
            return Err(Error::Changed);
        }
        let context = context(&self.contract, remainder.ticket, remainder.frame);
        let packed = self.key.open(&context, &remainder.sealed);
        let packed = packed.map_err(|_| Error::Changed)?;
        let (digest, packed) = packed
            .split_first_chunk()
            .ok_or(Error::Form("remainders without a digest"))?;
        let mut change = Vec::new();
        let mut unpack = ZlibDecoder::new(packed).take(most as u64 + 1);
        match unpack.read_to_end(&mut change) {
            Ok(length) if length <= most => Ok((*digest, change)),
            _ => Err(Error::Form("remainders of another length")),
        }
    }
}
