// SPDX-License-Identifier: MPL-2.0
//! Audits: the third party asks an owner to open a few places, drawn at random, of what it has
//! committed to having sent under a ticket.

use super::{B32, Signed};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use std::collections::BTreeSet;

/// HPKE `info` of an [`Opening`], which the owner seals to the third party.
pub const OPENING_INFO: &[u8] = b"camvault audit opening v1";
/// Pieces that are drawn in an audit.
pub const AUDIT_PIECES: u32 = 16;
/// Tickets of a thousand that contracts can name, at most.
pub const AUDIT_ALL: u32 = 1000;
/// How long an owner has for its answer.
pub const AUDIT_ANSWER_MS: u64 = 10 * 60 * 1000;
/// Audits of a contract that may stay unanswered, and tickets that may stay unreported (processes are
/// killed, networks fail), beside a small part of all: see [`AuditCounts::stops`].
pub const MAX_UNANSWERED: u64 = 3;
/// The longest tickets of contracts with audits, in milliseconds: all that was sent under one is
/// kept until it is known whether it is asked for.
pub const MAX_AUDITED_MS: u64 = 60_000;

/// What an owner commits to of a segment, and the cloud finds again from what it received.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Promised {
    /// BLAKE3 of the payload of its head.
    #[n(0)]
    pub head: B32,
    /// Frames.
    #[n(1)]
    pub frames: u64,
    /// BLAKE3 over the frames' payloads, each with its length before it (8 bytes).
    #[n(2)]
    pub sent: B32,
    /// Pieces of candidates.
    #[n(3)]
    pub pieces: u64,
    /// Root of the tree of their hashes; zeros if there is none.
    #[n(4)]
    pub root: B32,
}

impl Promised {
    /// The commitment.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = blake3::Hasher::new();
        hash.update(b"camvault commitment 1");
        hash.update(&*self.head);
        hash.update(&self.frames.to_be_bytes());
        hash.update(&*self.sent);
        hash.update(&self.pieces.to_be_bytes());
        hash.update(&*self.root);
        *hash.finalize().as_bytes()
    }
}

/// What is to be opened; signed by the third party, which draws it when the commitment is there.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Challenge {
    /// Id of the contract.
    #[n(0)]
    pub contract: B32,
    /// The ticket.
    #[n(1)]
    pub ticket: u64,
    /// What was committed to.
    #[n(2)]
    pub commitment: B32,
    /// Which pieces, see [`drawn`].
    #[n(3)]
    pub seed: B32,
    /// When an answer comes too late, Unix milliseconds.
    #[n(4)]
    pub until_ms: u64,
}

impl super::Document for Challenge {
    const KIND: &'static str = "audit";
}

/// The pieces, of `pieces`, that a challenge is about: [`AUDIT_PIECES`] different ones, or all,
/// ascending. Each is as likely as every other.
pub fn drawn(seed: &[u8; 32], pieces: u64) -> Vec<u64> {
    let mut numbers = blake3::Hasher::new_keyed(seed)
        .update(b"camvault audit pieces 1")
        .finalize_xof();
    let wanted = pieces.min(AUDIT_PIECES.into());
    let mut drawn = BTreeSet::new();
    while (drawn.len() as u64) < wanted {
        let mut bytes = [0; 16];
        numbers.fill(&mut bytes);
        // 64 bits more than needed: no bias that shows.
        drawn.insert((u128::from_be_bytes(bytes) % u128::from(pieces)) as u64);
    }
    drawn.into_iter().collect()
}

/// Answer to [`Features`](super::Features).
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Noted {
    /// A [`Challenge`], if one was drawn.
    #[n(0)]
    pub challenge: Option<Signed>,
}

/// `POST /v1/ttp/openings`, by the owner: the answer to a [`Challenge`].
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct SealedOpening {
    /// Id of the contract.
    #[n(0)]
    pub contract: B32,
    /// The ticket.
    #[n(1)]
    pub ticket: u64,
    /// An [`Opening`], sealed to the third party ([`OPENING_INFO`]).
    #[n(2)]
    pub sealed: ByteVec,
}

/// What the owner opens.
#[derive(Clone, Encode, Decode)]
#[cbor(map)]
pub struct Opening {
    /// What makes up the commitment.
    #[n(0)]
    pub promised: Promised,
    /// Payload of the segment's head, as the cloud got it.
    #[n(1)]
    pub head: ByteVec,
    /// [`TicketSecret::ciphertexts`](super::TicketSecret), which the third party has not kept.
    #[n(2)]
    pub ciphertexts: ByteVec,
    /// What the segment's labels and their randomisers were drawn from.
    #[n(3)]
    pub seed: B32,
    /// The pieces that were drawn, in their order.
    #[n(4)]
    pub pieces: Vec<OpenedPiece>,
}

/// Says nothing of what is in it.
impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opening({} pieces)", self.pieces.len())
    }
}

/// A piece and why it is one of those that were committed to.
#[derive(Clone, Encode, Decode)]
#[cbor(map)]
pub struct OpenedPiece {
    /// The piece.
    #[n(0)]
    pub bytes: ByteVec,
    /// Hashes beside its way to the root, the lowest first, 32 bytes each.
    #[n(1)]
    pub path: ByteVec,
}

/// `POST /v1/ttp/receipts`, by the cloud: what it received under a ticket.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Receipt {
    /// A [`SegmentEnd`](crate::sealed::stream::message::SegmentEnd) that agrees with what was
    /// received, signed by the owner.
    #[n(0)]
    pub end: Signed,
}

/// `POST /v1/ttp/audits`, by the cloud: the next ticket that is reported is to be audited.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct AuditDemand {
    /// Id of the contract.
    #[n(0)]
    pub contract: B32,
}

/// What became of an audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Audited {
    /// There is time left for an answer.
    #[n(0)]
    Asked,
    /// What was opened is what it should be.
    #[n(1)]
    Passed,
    /// It is not.
    #[n(2)]
    Failed,
    /// Nothing was opened in time.
    #[n(3)]
    Unanswered,
}

/// The audits of a contract.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AuditCounts {
    /// Passed.
    #[n(0)]
    pub passed: u64,
    /// Failed; or the owner said one thing to the cloud and another to the third party.
    #[n(1)]
    pub failed: u64,
    /// Not answered in time.
    #[n(2)]
    pub unanswered: u64,
    /// Tickets that the cloud has received a segment of, and of which the owner has not reported
    /// anything (yet): nothing is asked of them.
    #[n(3)]
    #[cbor(default)]
    pub unreported: u64,
}

impl AuditCounts {
    /// Whether there are no more tickets for such an owner under this contract, of which `tickets`
    /// have been issued: one audit has failed; or more than three, and one in a hundred, were not
    /// answered; or more than three tickets, and one in ten, were not reported.
    pub fn stops(&self, tickets: u64) -> bool {
        self.failed > 0
            || self.unanswered > MAX_UNANSWERED + self.passed / 100
            || self.unreported > MAX_UNANSWERED + tickets / 10
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lie_stops_tickets_and_so_does_too_much_silence() {
        let counts = |passed, failed, unanswered, unreported| AuditCounts {
            passed,
            failed,
            unanswered,
            unreported,
        };
        for (counts, stops) in [
            (counts(5, 0, 3, 3), false),
            (counts(5000, 1, 0, 0), true),
            (counts(5, 0, 4, 0), true),
            (counts(500, 0, 8, 0), false),
            (counts(500, 0, 9, 0), true),
            (counts(5, 0, 0, 13), false),
            (counts(5, 0, 0, 14), true),
        ] {
            assert_eq!(counts.stops(100), stops, "{counts:?}");
        }
    }

    #[test]
    fn what_is_drawn_is_all_or_so_many_different_ones_each_as_likely() {
        assert!(drawn(&[1; 32], 0).is_empty());
        assert_eq!(drawn(&[1; 32], 5), [0, 1, 2, 3, 4]);
        let mut counts = [0u32; 64];
        for n in 0..2000u32 {
            let mut seed = [0; 32];
            seed[..4].copy_from_slice(&n.to_be_bytes());
            let drawn = drawn(&seed, 64);
            assert_eq!(drawn.len(), 16);
            assert!(drawn.is_sorted_by(|a, b| a < b));
            drawn.iter().for_each(|&i| counts[i as usize] += 1);
        }
        // 500 each, within six standard deviations.
        assert!(counts.iter().all(|count| (384..616).contains(count)));
    }
}
