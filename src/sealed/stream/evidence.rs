// SPDX-License-Identifier: MPL-2.0
//! What an owner keeps of a segment until it is known whether it is asked for: the frames as they
//! were sent, encrypted, in a file without a name.

use super::super::{Geometry, Joiner};
use super::message::{self, FrameHeader};
use super::owner::nonce;
use super::pieces::{self, Candidates};
use super::{Error, KEY_BYTES};
use crate::protocol::{Challenge, OpenedPiece, Opening, Promised, Signed, drawn};
use crate::watermark::Settings;
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _, Write as _};
use zeroize::Zeroizing;

/// Bytes that are kept of a segment, at most.
const MAX_BYTES: u64 = 4 << 30;

/// Frames as they were sent.
pub(super) struct Frames {
    file: File,
    bytes: u64,
}

impl Frames {
    pub fn new() -> Result<Self, Error> {
        let file = tempfile::tempfile().map_err(Error::Kept)?;
        Ok(Self { file, bytes: 0 })
    }

    /// Keeps a frame's payload.
    pub fn add(&mut self, payload: &[u8]) -> Result<(), Error> {
        let length = (payload.len() as u64).to_be_bytes();
        let written = self.file.write_all(&length);
        let written = written.and_then(|()| self.file.write_all(payload));
        self.bytes += (length.len() + payload.len()) as u64;
        written.map_err(Error::Kept)
    }

    /// Whether no more should be added.
    pub fn are_many(&self) -> bool {
        self.bytes > MAX_BYTES
    }
}

/// What answers a [`Challenge`].
pub struct Evidence {
    pub(super) third: [u8; 32],
    pub(super) contract: [u8; 32],
    pub(super) ticket: u64,
    pub(super) geometry: Geometry,
    pub(super) settings: Settings,
    pub(super) loss: u8,
    pub(super) bits: Vec<u8>,
    pub(super) head: Vec<u8>,
    pub(super) ciphertexts: Vec<u8>,
    pub(super) seed: Zeroizing<[u8; 32]>,
    pub(super) key: Zeroizing<[u8; KEY_BYTES]>,
    pub(super) frames: Frames,
    pub(super) promised: Promised,
}

/// Says nothing of what it holds.
impl std::fmt::Debug for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Evidence({})", self.ticket)
    }
}

impl Evidence {
    /// Opens what the third party has drawn. Reads all that was sent again, as the cloud does but
    /// for the pictures: some milliseconds a frame.
    pub fn open(&mut self, challenge: &Signed) -> Result<Opening, Error> {
        let challenge: Challenge = challenge.verify(&[&self.third])?;
        let asked = (*challenge.contract, challenge.ticket);
        if asked != (self.contract, self.ticket) || *challenge.commitment != self.promised.digest()
        {
            return Err(Error::Ticket("another one is asked for"));
        }
        let wanted = drawn(&challenge.seed, self.promised.pieces);
        let mut opened = Vec::new();
        let mut leaves: Vec<[u8; 32]> = Vec::new();
        self.each(|piece| {
            if wanted.binary_search(&(leaves.len() as u64)).is_ok() {
                opened.push(piece.to_vec());
            }
            leaves.push(blake3::hash(piece).into());
        })?;
        let pieces = wanted
            .iter()
            .zip(opened)
            .map(|(&index, bytes)| OpenedPiece {
                path: pieces::path(&leaves, index as usize).into(),
                bytes: bytes.into(),
            });
        Ok(Opening {
            pieces: pieces.collect(),
            promised: self.promised.clone(),
            head: self.head.clone().into(),
            ciphertexts: self.ciphertexts.clone().into(),
            seed: (*self.seed).into(),
        })
    }

    /// Hands over all pieces.
    pub(super) fn each(&mut self, mut take: impl FnMut(&[u8])) -> Result<(), Error> {
        let cipher = Aes256Gcm::new((&*self.key).into());
        let mut joiner = Joiner::new(self.geometry, &self.settings)?.with_loss(self.loss)?;
        let form = || Error::Form("a frame that was kept");
        self.frames.file.rewind().map_err(Error::Kept)?;
        let mut file = BufReader::new(&self.frames.file);
        for _ in 0..self.promised.frames {
            let mut length = [0; 8];
            file.read_exact(&mut length).map_err(Error::Kept)?;
            let length = usize::try_from(u64::from_be_bytes(length)).map_err(|_| form())?;
            if length > message::MAX_PAYLOAD {
                return Err(form());
            }
            let mut payload = vec![0; length];
            file.read_exact(&mut payload).map_err(Error::Kept)?;
            let (header, sealed) = FrameHeader::split(&payload)?;
            let sealed = Payload {
                msg: sealed,
                aad: &header.to_bytes(),
            };
            let body = cipher.decrypt(&nonce(header.number), sealed);
            let body = body.map_err(|_| form())?;
            let [rest, masked, _] = message::split_parts(&body).ok_or_else(form)?;
            let sent = joiner.read(rest)?;
            joiner.pass();
            let bit = |&position: &u32| self.bits.get(position as usize).copied();
            let bits: Option<Vec<u8>> = sent.positions.iter().map(bit).collect();
            let candidates = Candidates {
                frame: header.number,
                bits: &bits.ok_or_else(form)?,
                positions: &sent.positions,
                widths: &sent.widths,
                predictions: &sent.predictions,
                masked,
            };
            candidates.pieces(&mut take);
        }
        Ok(())
    }
}
