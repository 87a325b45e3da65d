// SPDX-License-Identifier: MPL-2.0
//! The third party: its routes, and what they share.

mod arbitration;
mod audits;
mod contracts;
mod tickets;

pub use arbitration::arbitrate;
pub use audits::{demand, open, receive};
pub use contracts::{add, delete, deletions, info, key, one, parameters, register};
pub use tickets::{features, issue, retrieve};

use super::app::{App, parse};
use super::auth::Binds;
use super::measured::Engine;
use super::refusal::Refusal;
use super::secrets;
use crate::homomorphic;
use crate::homomorphic::packed::{
    Base, Encryptor, PedersenParameters, PublicKey, Randomiser, TICKET_EXPONENT_BITS,
};
use crate::identity::{AeadKey, Identity};
use crate::protocol::{Code, Contract, Party, Signed};
use crate::store::{
    ContractRecord, EmbeddedRegistry, Hash, PartyRecord, Registry, Room, write_whole,
};
use axum::extract::Request;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

type Answer<T> = Result<T, Refusal>;

/// Longest wait until heavy work begins.
const WORK_WAIT: Duration = Duration::from_secs(10);
/// Arbitrations at once: each may hold all of a suspect's frames.
const ARBITRATIONS: usize = 2;
/// Bits of the parameters' modulus. Its factors are worth nothing but a proof that is a lie; drawing
/// more bits takes a minute.
const PARAMETER_BITS: u32 = 2048;
/// Contracts whose tables for randomisers are kept; up to half a MiB each.
const KEPT: usize = 32;

/// What the third party has.
pub struct TtpRole {
    /// Its identity.
    pub identity: Arc<Identity>,
    /// The store.
    pub registry: Arc<dyn Registry>,
    /// Needed to register, where a token is needed.
    pub token: Option<zeroize::Zeroizing<String>>,
    /// File of the parameters, and they, once they were needed.
    parameters: (PathBuf, Mutex<Option<Arc<PedersenParameters>>>),
    /// Heavy computations at once.
    work: Semaphore,
    /// Arbitrations at once.
    arbitrations: Semaphore,
    /// Most recently used last.
    encryptors: Mutex<Vec<(Hash, Arc<Encryptor>)>>,
}

impl TtpRole {
    /// Opens the store below `data`; makes what is missing in `secrets`.
    pub fn open(
        data: &Path,
        secrets: &Path,
        room: Room,
        open_registration: bool,
        numbers: &Engine,
    ) -> Result<Self, crate::server::Error> {
        let identity = secrets::identity(&secrets.join("ttp.identity"))?;
        let key = AeadKey::new(*secrets::read_or_make(&secrets.join("ttp.key"))?);
        let token = secrets::read_or_make(&secrets.join("register.token"))?;
        let registry = EmbeddedRegistry::open(&data.join("ttp"), key, room)?;
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Ok(Self {
            identity: Arc::new(identity),
            registry: numbers.over(Arc::new(registry)),
            token: (!open_registration).then(|| secrets::as_token(&token)),
            parameters: (data.join("ttp.parameters"), Mutex::default()),
            work: Semaphore::new(cores),
            arbitrations: Semaphore::new(ARBITRATIONS),
            encryptors: Mutex::default(),
        })
    }

    /// Its parameters for proofs that keys have no small factors. They are drawn when they are first
    /// needed, which takes seconds.
    fn parameters(&self) -> Answer<Arc<PedersenParameters>> {
        let (path, parameters) = &self.parameters;
        let mut parameters = parameters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(parameters) = &*parameters {
            return Ok(parameters.clone());
        }
        let failed = |e: &dyn std::error::Error| {
            Refusal::failed(&std::io::Error::other(format!("{}: {e}", path.display())))
        };
        let made = match std::fs::read(path) {
            Ok(bytes) => PedersenParameters::from_bytes(&bytes).map_err(|e| failed(&e))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let made = PedersenParameters::generate(PARAMETER_BITS).map_err(computing)?;
                write_whole(path, &made.to_bytes()).map_err(|e| failed(&e))?;
                made
            }
            Err(e) => return Err(failed(&e)),
        };
        Ok(parameters.insert(Arc::new(made)).clone())
    }

    fn party(&self) -> Party {
        self.identity.public().into()
    }

    /// Leave to compute.
    async fn work(&self) -> Answer<SemaphorePermit<'_>> {
        permit(&self.work, WORK_WAIT).await
    }

    /// The contract that `caller` owns, not deleted.
    async fn owned(&self, caller: &Caller, id: Hash) -> Answer<(Contract, ContractRecord)> {
        let (contract, record) = self.of(caller, id).await?;
        match record.deleted {
            None => Ok((contract, record)),
            Some(_) => Err(gone()),
        }
    }

    /// The contract that `caller` owns. Of another's it is not said that it exists.
    async fn of(&self, caller: &Caller, id: Hash) -> Answer<(Contract, ContractRecord)> {
        let found = self.registry.contract(id).await?;
        let record = found.ok_or_else(|| Refusal::not_found("contract"))?;
        let contract = read(&record.signed)?;
        match *contract.owner.sign == caller.key {
            true => Ok((contract, record)),
            false => Err(Refusal::not_found("contract")),
        }
    }

    /// What encrypts for a modulus with the contract's own base.
    fn encryptor(
        &self,
        modulus: &[u8],
        base_seed: &[u8; 32],
        contract: &Hash,
    ) -> Result<Arc<Encryptor>, homomorphic::Error> {
        let mut name = blake3::Hasher::new();
        name.update(contract).update(modulus);
        let name = *name.finalize().as_bytes();
        let kept = || {
            self.encryptors
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let before = {
            let mut kept = kept();
            let place = kept.iter().position(|(this, _)| *this == name);
            place.map(|place| {
                let entry = kept.remove(place);
                let encryptor = entry.1.clone();
                kept.push(entry);
                encryptor
            })
        };
        if let Some(encryptor) = before {
            return Ok(encryptor);
        }
        let key = PublicKey::from_modulus(modulus)?;
        let base = Base::derive(&key, base_seed, contract);
        let randomiser = Randomiser::new(&key, &base, TICKET_EXPONENT_BITS)?;
        let encryptor = Arc::new(Encryptor::new(randomiser));
        let mut kept = kept();
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push((name, encryptor.clone()));
        Ok(encryptor)
    }
}

async fn permit(of: &Semaphore, wait: Duration) -> Answer<SemaphorePermit<'_>> {
    let busy = || Refusal::new(Code::Busy, "the third party is busy: try again");
    let permit = tokio::time::timeout(wait, of.acquire()).await;
    permit.map_err(|_| busy())?.map_err(|_| busy())
}

fn gone() -> Refusal {
    Refusal::new(
        Code::Gone,
        "this contract was deleted: GET /v1/ttp/deletions has the receipt",
    )
}

/// A contract out of the store.
fn read(signed: &Signed) -> Answer<Contract> {
    let read = signed.unverified::<Contract>();
    read.map_err(|_| Refusal::from(crate::store::Error::Corrupt("contract")))
}

/// Does work that takes long, off the threads that answer.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Answer<T> + Send + 'static,
) -> Answer<T> {
    let failed = |e: tokio::task::JoinError| Refusal::failed(&e);
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
        .await
        .map_err(failed)?
}

/// What cannot happen with keys and sizes that were checked.
fn computing(error: homomorphic::Error) -> Refusal {
    Refusal::failed(&error)
}

/// A registered party that signed a request.
struct Caller {
    key: Hash,
    record: PartyRecord,
}

/// Who registered signed a request, and its message of at most `limit` bytes.
async fn asked<T: for<'b> minicbor::Decode<'b, ()>>(
    app: &App,
    request: Request,
    limit: u64,
) -> Answer<(Caller, T)> {
    let (parts, body) = request.into_parts();
    let caller = caller(app, &parts).await?;
    let _memory = app.memory(&parts, limit).await?;
    let bytes = app.body(&parts, body, limit).await?;
    Ok((caller, parse(&bytes)?))
}

async fn caller(app: &App, parts: &axum::http::request::Parts) -> Answer<Caller> {
    let key = app.signer(parts, Binds::Digest)?;
    let party = app.ttp()?.registry.party(key).await?;
    let not = || {
        Refusal::new(
            Code::NotEnrolled,
            "not registered with this third party: PUT /v1/ttp/party first",
        )
    };
    let record = party.ok_or_else(not)?;
    Ok(Caller { key, record })
}
