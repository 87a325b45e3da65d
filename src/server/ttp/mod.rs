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
use super::auth::{self, Binds, Once};
use super::measured::Engine;
use super::refusal::Refusal;
use super::{Config, Kept, check_place, secrets};
use crate::homomorphic;
use crate::homomorphic::packed::{
    Base, Encryptor, PedersenParameters, PublicKey, Randomiser, TICKET_EXPONENT_BITS,
};
use crate::identity::{AeadKey, Identity};
use crate::protocol::{Code, Contract, Party, Signed};
use crate::store::{
    ContractRecord, EmbeddedRegistry, Hash, PartyRecord, PostgresRegistry, Registry, Room, now_ms,
};
use axum::extract::Request;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use zeroize::Zeroizing;

type Answer<T> = Result<T, Refusal>;

/// Files of [`Keys`].
const IDENTITY: &str = "ttp.identity";
const KEY: &str = "ttp.key";
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
    /// Once they were needed.
    parameters: OnceCell<Arc<PedersenParameters>>,
    /// Heavy computations at once.
    work: Semaphore,
    /// Arbitrations at once.
    arbitrations: Semaphore,
    /// Most recently used last.
    encryptors: Mutex<Vec<(Hash, Arc<Encryptor>)>>,
}

impl TtpRole {
    /// Opens the store; makes what is missing of the secrets.
    pub async fn open(
        config: &Config,
        room: Room,
        open_registration: bool,
        numbers: &Engine,
    ) -> Result<Self, crate::server::Error> {
        let dir = config.secrets_dir();
        let token = secrets::read_or_make(&dir.join("register.token"))?;
        let Keys {
            identity,
            key,
            fingerprint,
        } = Keys::read_or_make(&dir)?;
        check_place(&config.data, Kept::Registry, config.metadata.is_some())?;
        let registry: Arc<dyn Registry> = match &config.metadata {
            None => {
                let dir = Kept::Registry.below(&config.data);
                Arc::new(EmbeddedRegistry::open(&dir, key, room).await?)
            }
            Some(url) => Arc::new(PostgresRegistry::open(url, key, fingerprint).await?),
        };
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Ok(Self {
            identity: Arc::new(identity),
            registry: numbers.over(registry),
            token: (!open_registration).then(|| secrets::as_token(&token)),
            parameters: OnceCell::new(),
            work: Semaphore::new(cores),
            arbitrations: Semaphore::new(ARBITRATIONS),
            encryptors: Mutex::default(),
        })
    }

    /// Its parameters for proofs that keys have no small factors: the same at all processes, for a
    /// cloud may ask one for them and bring its proof to another. They are drawn when they are
    /// first needed, which takes seconds.
    async fn parameters(&self) -> Answer<Arc<PedersenParameters>> {
        let get = || async {
            let kept = match self.registry.parameters().await? {
                Some(kept) => kept,
                None => {
                    let draw = || PedersenParameters::generate(PARAMETER_BITS).map_err(computing);
                    let made = blocking(draw).await?;
                    self.registry.add_parameters(made.to_bytes()).await?
                }
            };
            let parse = move || PedersenParameters::from_bytes(&kept).map_err(computing);
            Ok::<_, Refusal>(Arc::new(blocking(parse).await?))
        };
        self.parameters.get_or_try_init(get).await.cloned()
    }

    /// Makes sure that no other process over the same registry has done a request or will do it,
    /// as [`App::once`] does for owners.
    async fn once(&self, caller: &Caller) -> Answer<()> {
        let Once { mark, until } = caller.once;
        match self.registry.once(mark, until, now_ms()).await? {
            true => Ok(()),
            false => Err(auth::replayed()),
        }
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

/// The secrets that all processes over a registry have.
pub struct Keys {
    identity: Identity,
    /// Seals the secrets of tickets.
    pub key: AeadKey,
    /// Tells whether they are the same.
    pub fingerprint: [u8; 32],
}

impl Keys {
    /// Reads them in the directory of secrets.
    pub fn read(dir: &Path) -> Result<Self, secrets::Error> {
        let identity = Identity::load(&dir.join(IDENTITY))?;
        let key = secrets::read(&dir.join(KEY))?;
        let public = Zeroizing::new(identity.public().sign);
        Ok(Self {
            fingerprint: secrets::fingerprint(&[&key, &public]),
            key: AeadKey::new(*key),
            identity,
        })
    }

    /// Likewise; makes those that are missing.
    fn read_or_make(dir: &Path) -> Result<Self, secrets::Error> {
        secrets::identity(&dir.join(IDENTITY))?;
        secrets::read_or_make(&dir.join(KEY))?;
        Self::read(dir)
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
    once: Once,
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
    let (key, once) = app.verified(parts, Binds::Digest)?;
    let party = app.ttp()?.registry.party(key).await?;
    let not = || {
        Refusal::new(
            Code::NotEnrolled,
            "not registered with this third party: PUT /v1/ttp/party first",
        )
    };
    let record = party.ok_or_else(not)?;
    Ok(Caller { key, record, once })
}
