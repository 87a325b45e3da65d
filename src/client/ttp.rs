// SPDX-License-Identifier: MPL-2.0
//! The third party as one identity uses it: contracts, tickets, retrieval, deletion, arbitration.
//! What it answers is checked against its signatures before it is believed.

pub use crate::homomorphic::ticket::packing;
pub use crate::protocol::Agreed;
pub use crate::sealed::stream::Ticket;

use super::http::Connection;
use super::{Error, hex};
use crate::homomorphic::packed::{
    CertifiedKey, FactorProof, PedersenParameters, PublicKey, SecretKey,
};
use crate::identity::{Identity, PublicId};
use crate::protocol::{
    AuditCounts, AuditDemand, CloudMasks, Contract, ContractBody, Deletion, DeletionLog,
    DeletionRequest, DocumentError, Features, Grant, Grants, Judged, MASKS_INFO, Masks, Mode,
    Noted, OPENING_INFO, Opening, PADS_INFO, PartyRegistration, Receipt, RetrievalRequest,
    SEED_INFO, SealedOpening, Signed, Suspect, TICKET_INFO, TicketHead, TicketRequest, TtpInfo,
    Verdict, decode, encode,
};
use crate::watermark::Key;
use minicbor::Decode;
use reqwest::Method;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// How long other requests may: the largest tickets take their time.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long an arbitration or a retrieval may take without a sign of life.
const ARBITRATION: Duration = Duration::from_secs(3600);

/// A signed connection to a third party. Clones share connections.
#[derive(Clone, Debug)]
pub struct Ttp(Connection);

/// A cloud's key with the proofs that it is a Blum modulus without small factors.
#[derive(Clone, Debug)]
pub struct CloudProof {
    /// For everyone.
    pub key: CertifiedKey,
    /// For one third party.
    pub factors: FactorProof,
}

/// What the third party gives for taking marks out.
pub struct Retrieval {
    /// [`Mode::Oblivious`]: the seed of the pads.
    pub pads: Option<Zeroizing<[u8; 32]>>,
    /// For the cloud, see [`open_masks`].
    pub masks: Vec<u8>,
    /// Key of the ticket's positions and dithers (layout 0).
    pub key: Key,
}

impl std::fmt::Debug for Retrieval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Retrieval({} bytes of masks)", self.masks.len())
    }
}

/// A verdict whose signatures were checked.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// What was found.
    pub verdict: Verdict,
    /// The same, signed by the third party.
    pub signed: Signed,
    /// The contract that it names.
    pub contract: Option<Agreed>,
    /// Per bit how sure it was read as it was marked, −1 to 1.
    pub bits: Option<Vec<f32>>,
}

/// The cloud's side of a retrieval: opens what the owner passed on, and checks that the third
/// party `ttp` (Ed25519 key) made it.
pub fn open_masks(identity: &Identity, ttp: &[u8; 32], sealed: &[u8]) -> Result<CloudMasks, Error> {
    let clear = identity.open(MASKS_INFO, sealed)?;
    let form = |e: minicbor::decode::Error| DocumentError::Form {
        kind: "message of retrieval masks",
        reason: e.to_string(),
    };
    let signed: Signed = decode(&clear).map_err(form)?;
    Ok(signed.verify(&[ttp])?)
}

/// Checks that `receipts` are the whole log of the third party `ttp` (Ed25519 key) from its first
/// on: nothing changed, left out or put in.
pub fn check_deletions(ttp: &[u8; 32], receipts: &[Signed]) -> Result<Vec<Deletion>, Error> {
    let mut previous = [0; 32];
    let checked = (0..).zip(receipts).map(|(index, signed)| {
        let receipt: Deletion = signed.verify(&[ttp])?;
        if receipt.index != index || *receipt.previous != previous {
            return Err(Error::Deletions(index));
        }
        previous = signed.id::<Deletion>();
        Ok(receipt)
    });
    checked.collect()
}

impl Ttp {
    /// A third party at a URL such as `http://127.0.0.1:7420`. Nothing is sent yet.
    pub fn connect(base_url: &str, identity: Arc<Identity>) -> Result<Self, Error> {
        let patience = [PATIENCE, ARBITRATION];
        Connection::new(base_url, identity, patience).map(Self)
    }

    /// The identity that signs.
    pub fn identity(&self) -> &Arc<Identity> {
        self.0.identity()
    }

    /// Who it is. Keep the identity that was seen first.
    pub async fn info(&self) -> Result<TtpInfo, Error> {
        self.0.soon().get("/v1/ttp").await
    }

    /// Proves to this third party that a cloud's key is one that owners can trust. Takes seconds.
    pub async fn prove(&self, secret: Arc<SecretKey>) -> Result<CloudProof, Error> {
        // They are drawn when they are first asked for, which takes a while.
        let parameters = self.0.late().bytes("/v1/ttp/parameters").await?;
        let sign = self.identity().public().sign;
        blocking(move || {
            let parameters = PedersenParameters::from_bytes(&parameters)?;
            Ok(CloudProof {
                key: CertifiedKey::prove(&secret, &sign)?,
                factors: FactorProof::prove(&secret, &parameters, &sign)?,
            })
        })
        .await
    }

    /// Registers this identity; a cloud with its key, proven by the same identity. Again is
    /// harmless.
    pub async fn register(
        &self,
        proof: Option<&CloudProof>,
        token: Option<&str>,
    ) -> Result<(), Error> {
        let message = encode(&PartyRegistration {
            agree: self.identity().public().agree.into(),
            key: proof.map(|proof| proof.key.to_bytes().into()),
            token: token.map(str::to_owned),
            factors: proof.map(|proof| proof.factors.to_bytes().into()),
        });
        self.done(Method::PUT, "/v1/ttp/party", message).await
    }

    /// The key that a cloud (Ed25519 key) has registered, as bytes, and its checked public key.
    /// The SHA-256 of the bytes goes into contracts.
    pub async fn cloud_key(&self, cloud: &[u8; 32]) -> Result<(Vec<u8>, PublicKey), Error> {
        let path = format!("/v1/ttp/keys/{}", hex(cloud));
        let bytes = self.0.soon().bytes(&path).await?.to_vec();
        let cloud = *cloud;
        let checked = blocking(move || {
            let key = CertifiedKey::from_bytes(&bytes)?.verify(&cloud)?;
            Ok((bytes, key))
        });
        checked.await
    }

    /// The key that tickets of a contract are under: the one that the contract names, with its
    /// proof checked.
    pub async fn contract_key(&self, agreed: &Agreed) -> Result<PublicKey, Error> {
        let contract = &agreed.contract;
        let (bytes, key) = self.cloud_key(&contract.cloud.sign).await?;
        match Sha256::digest(&bytes).as_slice() == contract.cloud_key.as_slice() {
            true => Ok(key),
            false => Err(self.wrong("/v1/ttp/keys", "another key than the contract names")),
        }
    }

    /// Brings a contract that owner and cloud have signed; the third party adds its signature.
    /// Again is harmless.
    pub async fn contract(&self, contract: Signed) -> Result<Agreed, Error> {
        let (path, id) = ("/v1/ttp/contracts", contract.id::<Contract>());
        let audits = None;
        let ask = encode(&ContractBody { contract, audits });
        let body: ContractBody = self.post(path, ask).await?;
        self.agreed(path, id, body)
    }

    /// A contract of which this identity is owner or cloud.
    pub async fn get_contract(&self, id: &[u8; 32]) -> Result<Agreed, Error> {
        let path = format!("/v1/ttp/contracts/{}", hex(id));
        let body = self.0.soon().ask(Method::GET, &path, Vec::new()).await?;
        self.agreed(&path, *id, body)
    }

    /// What audits under a contract of which this identity is owner or cloud have found.
    pub async fn audits(&self, id: &[u8; 32]) -> Result<AuditCounts, Error> {
        let path = format!("/v1/ttp/contracts/{}", hex(id));
        let soon = self.0.soon();
        let body: ContractBody = soon.ask(Method::GET, &path, Vec::new()).await?;
        Ok(body.audits.unwrap_or_default())
    }

    fn agreed(&self, path: &str, id: [u8; 32], body: ContractBody) -> Result<Agreed, Error> {
        let agreed = Agreed::check(body.contract)?;
        match agreed.id == id {
            true => Ok(agreed),
            false => Err(self.wrong(path, "another contract")),
        }
    }

    /// Tickets of a contract, at most [`MAX_TICKETS`](crate::protocol::MAX_TICKETS): as
    /// `request` says, under the cloud's `key` ([`Ttp::contract_key`]).
    pub async fn tickets(
        &self,
        agreed: &Agreed,
        key: &PublicKey,
        request: &TicketRequest,
    ) -> Result<Vec<Ticket>, Error> {
        let path = "/v1/ttp/tickets";
        let granted: Grants = self.post(path, encode(request)).await?;
        if granted.grants.len() != request.count as usize {
            return Err(self.wrong(path, "another number of tickets than were asked for"));
        }
        let this = self.clone();
        let (agreed, key, request) = (agreed.clone(), key.clone(), request.clone());
        let checked = move || {
            let open = |grant| this.open_grant(&agreed, &key, &request, grant);
            granted.grants.into_iter().map(open).collect()
        };
        blocking(checked).await
    }

    fn open_grant(
        &self,
        agreed: &Agreed,
        key: &PublicKey,
        request: &TicketRequest,
        grant: Grant,
    ) -> Result<Ticket, Error> {
        let wrong = |reason: &str| self.wrong("/v1/ttp/tickets", reason);
        let head: TicketHead = grant.head.verify(&[&agreed.contract.ttp.sign])?;
        let asked = (request.mode, request.width, request.height);
        if *head.contract != agreed.id || (head.mode, head.width, head.height) != asked {
            return Err(wrong("a ticket for something else"));
        }
        let clear = self.identity().open(TICKET_INFO, &grant.secret)?;
        Ok(Ticket::new(agreed, key, request.mode, grant.head, &clear)?)
    }

    /// Says what was seen under a ticket. The first report of a ticket stands. A [`Challenge`] is
    /// answered by [`Ttp::open`].
    ///
    /// [`Challenge`]: crate::protocol::Challenge
    pub async fn features(&self, features: &Features) -> Result<Option<Signed>, Error> {
        let noted: Noted = self.post("/v1/ttp/features", encode(features)).await?;
        Ok(noted.challenge)
    }

    /// Opens what is asked for in an audit: an error if it is not what it should be.
    pub async fn open(
        &self,
        contract: &Agreed,
        ticket: u64,
        opening: &Opening,
    ) -> Result<(), Error> {
        let third = PublicId::from(&contract.contract.ttp);
        let clear = Zeroizing::new(encode(opening));
        let message = encode(&SealedOpening {
            contract: contract.id.into(),
            ticket,
            sealed: third.seal(OPENING_INFO, &clear)?.into(),
        });
        self.done(Method::POST, "/v1/ttp/openings", message).await
    }

    /// As the cloud: what the owner signed of a segment that has been received
    /// ([`Opener::end`](crate::sealed::stream::Opener::end)).
    pub async fn receipt(&self, end: Signed) -> Result<(), Error> {
        let message = encode(&Receipt { end });
        self.done(Method::POST, "/v1/ttp/receipts", message).await
    }

    /// As the cloud: has the next ticket of a contract audited.
    pub async fn demand_audit(&self, contract: &[u8; 32]) -> Result<(), Error> {
        let contract = (*contract).into();
        let message = encode(&AuditDemand { contract });
        self.done(Method::POST, "/v1/ttp/audits", message).await
    }

    /// What takes the marks out of some frames.
    pub async fn retrieval(&self, request: &RetrievalRequest) -> Result<Retrieval, Error> {
        let path = "/v1/ttp/retrievals";
        let answer: Masks = self
            .0
            .late()
            .ask(Method::POST, path, encode(request))
            .await?;
        if answer.pads.is_some() != (request.mode == Mode::Oblivious) {
            return Err(self.wrong(path, "pads where there are none, or none"));
        }
        let open = |info: &[u8], sealed: &[u8]| {
            let clear = self.identity().open(info, sealed)?;
            let seed = <[u8; 32]>::try_from(clear.as_slice()).map(Zeroizing::new);
            seed.map_err(|_| self.wrong(path, "a seed of a wrong length"))
        };
        let seed = answer.seed.as_deref();
        let seed = seed.ok_or_else(|| self.wrong(path, "the ticket's seed is missing"))?;
        let pads = answer.pads.as_deref();
        Ok(Retrieval {
            pads: pads.map(|sealed| open(PADS_INFO, sealed)).transpose()?,
            masks: answer.masks.into(),
            key: Key::from_bytes(*open(SEED_INFO, seed)?),
        })
    }

    /// Has a contract deleted: from then on no tickets and no retrievals. The receipt, which the
    /// third party has signed; the same again if it was deleted before.
    pub async fn delete(&self, agreed: &Agreed) -> Result<(Deletion, Signed), Error> {
        let path = "/v1/ttp/deletions";
        let contract = agreed.id.into();
        let receipt: Signed = self
            .post(path, encode(&DeletionRequest { contract }))
            .await?;
        let deletion: Deletion = receipt.verify(&[&agreed.contract.ttp.sign])?;
        match *deletion.contract == agreed.id {
            true => Ok((deletion, receipt)),
            false => Err(self.wrong(path, "a receipt of another contract")),
        }
    }

    /// The whole log of deletions of the third party `ttp` (Ed25519 key), checked.
    pub async fn deletion_log(&self, ttp: &[u8; 32]) -> Result<Vec<Deletion>, Error> {
        let mut receipts = Vec::new();
        loop {
            let path = format!("/v1/ttp/deletions?from={}", receipts.len());
            let part: DeletionLog = self.0.soon().get(&path).await?;
            if part.receipts.is_empty() {
                return check_deletions(ttp, &receipts);
            }
            receipts.extend(part.receipts);
        }
    }

    /// Has frames judged by the third party `ttp` (Ed25519 key). Takes from seconds to many
    /// minutes.
    pub async fn arbitrate(&self, ttp: &[u8; 32], suspect: &Suspect) -> Result<Judgement, Error> {
        let path = "/v1/ttp/arbitrations";
        let judged: Judged = self
            .0
            .late()
            .ask(Method::POST, path, encode(suspect))
            .await?;
        let verdict: Verdict = judged.verdict.verify(&[ttp])?;
        let contract = judged.contract.map(Agreed::check).transpose()?;
        let named = verdict.leak.as_ref().map(|leak| *leak.contract);
        if named != contract.as_ref().map(|contract| contract.id) {
            return Err(self.wrong(path, "a contract that the verdict does not name"));
        }
        Ok(Judgement {
            verdict,
            signed: judged.verdict,
            contract,
            bits: judged.bits,
        })
    }

    async fn post<T: for<'b> Decode<'b, ()>>(
        &self,
        path: &str,
        message: Vec<u8>,
    ) -> Result<T, Error> {
        self.0.soon().ask(Method::POST, path, message).await
    }

    async fn done(&self, method: Method, path: &str, message: Vec<u8>) -> Result<(), Error> {
        self.0.soon().done(method, path, message).await
    }

    fn wrong(&self, path: &str, reason: &str) -> Error {
        self.0.wrong(path, reason)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|e| Error::Threads(e.to_string()))?
}
