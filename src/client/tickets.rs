// SPDX-License-Identifier: MPL-2.0
//! Tickets ahead of time: a task that keeps a few segments prepared, so that whoever marks live
//! video never waits for the third party, and tells the third party what was sent.

use super::patience::until_it_arrives;
use super::{Error, Ttp, runtime};
use crate::identity::Identity;
use crate::protocol::{Agreed, Features, Mode, TicketRequest};
use crate::sealed::stream::{Agreement, Evidence, Prepared};
use crate::store::now_ms;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// Tickets that have less time left are not begun with.
const LEAST_LEFT_MS: u64 = 5_000;

/// What tickets are wanted for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The third party's base URL.
    pub ttp: String,
    /// The contract, with all signatures.
    pub contract: Agreed,
    /// How marked coefficients travel.
    pub mode: Mode,
    /// Pixels in a row of the frames.
    pub width: u32,
    /// Rows of the frames.
    pub height: u32,
    /// Segments kept prepared.
    pub ahead: usize,
}

/// A supply of prepared segments. Dropping it stops the task.
pub struct Tickets {
    ready: mpsc::Receiver<Result<Prepared, Error>>,
    reports: Option<mpsc::UnboundedSender<(Features, Option<Evidence>)>>,
    feature: Arc<AtomicU64>,
    failure: watch::Receiver<Option<Arc<Error>>>,
    fetching: JoinHandle<()>,
    reporting: JoinHandle<()>,
}

impl Tickets {
    /// Begins to fetch. What is wrong with `wanted` or with the network shows at
    /// [`Tickets::next`].
    pub fn start(wanted: Wanted, identity: Arc<Identity>) -> Result<Self, Error> {
        let ttp = Ttp::connect(&wanted.ttp, identity)?;
        let (ready, receiver) = mpsc::channel(wanted.ahead.max(1));
        let (reports, features) = mpsc::unbounded_channel();
        let feature = Arc::new(AtomicU64::new(0));
        let (failed, failure) = watch::channel(None);
        let runtime = runtime()?;
        let fetching = Fetching {
            ttp: ttp.clone(),
            wanted: wanted.clone(),
            ready,
            feature: feature.clone(),
            failed,
        };
        Ok(Self {
            ready: receiver,
            reports: Some(reports),
            feature,
            failure,
            fetching: runtime.spawn(fetching.run()),
            reporting: runtime.spawn(report(ttp, wanted.contract, features)),
        })
    }

    /// A prepared segment, if there is one; never waits. An error is final.
    pub fn try_next(&mut self) -> Result<Option<Prepared>, Error> {
        loop {
            match self.ready.try_recv() {
                Ok(Ok(prepared)) if is_stale(&prepared) => (),
                Ok(next) => return next.map(Some),
                Err(_) => return Ok(None),
            }
        }
    }

    /// A prepared segment, when there is one. What failed meanwhile is tried again.
    pub async fn next(&mut self) -> Result<Prepared, Error> {
        loop {
            match self.ready.recv().await {
                Some(Ok(prepared)) if is_stale(&prepared) => (),
                Some(next) => return next,
                None => return Err(Error::Cancelled),
            }
        }
    }

    /// What failed last, if nothing has worked since: for messages while waiting.
    pub fn failure(&self) -> Option<Arc<Error>> {
        self.failure.borrow().clone()
    }

    /// What the camera shows now ([`crate::feature::PHash`]): goes with the next request.
    pub fn observe(&self, hash: u64) {
        self.feature.store(hash, Ordering::Relaxed);
    }

    /// Tells the third party what was sent under a ticket, and opens what it then asks for; does not
    /// wait.
    pub fn report(&self, features: Features, evidence: Option<Evidence>) {
        if let Some(reports) = &self.reports {
            // The task runs as long as this has the sender.
            let _ = reports.send((features, evidence));
        }
    }

    /// Stops to fetch, and ends when all that was reported has arrived or `patience` is over:
    /// whether all has.
    pub async fn finish(&mut self, patience: Duration) -> bool {
        self.fetching.abort();
        self.reports = None;
        let done = tokio::time::timeout(patience, &mut self.reporting).await;
        done.is_ok()
    }
}

impl Drop for Tickets {
    fn drop(&mut self) {
        self.fetching.abort();
        self.reporting.abort();
    }
}

fn is_stale(prepared: &Prepared) -> bool {
    prepared.head().expires_ms < now_ms() + LEAST_LEFT_MS
}

struct Fetching {
    ttp: Ttp,
    wanted: Wanted,
    ready: mpsc::Sender<Result<Prepared, Error>>,
    feature: Arc<AtomicU64>,
    failed: watch::Sender<Option<Arc<Error>>>,
}

impl Fetching {
    async fn run(self) {
        let agreement = loop {
            match self.patient(self.agreement()).await {
                Some(Ok(agreement)) => break agreement,
                Some(Err(e)) => return self.give_up(e).await,
                None => (),
            }
        };
        loop {
            // Room before a ticket is asked for: tickets get old.
            let Ok(room) = self.ready.reserve().await else {
                return;
            };
            match self.patient(self.prepare(agreement.clone())).await {
                Some(Ok(prepared)) => room.send(Ok(prepared)),
                Some(Err(e)) => return room.send(Err(e)),
                None => (),
            }
        }
    }

    async fn give_up(&self, error: Error) {
        // Nobody waits for it if this fails.
        let _ = self.ready.send(Err(error)).await;
    }

    /// The outcome, or `None` after a failure that may pass and a wait.
    async fn patient<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Option<Result<T, Error>> {
        match work.await {
            Err(e) if e.is_transient() => {
                let tries = self.failed.borrow().is_some();
                let wait = Duration::from_secs(if tries { 5 } else { 1 });
                self.failed.send_replace(Some(Arc::new(e)));
                tokio::time::sleep(wait).await;
                None
            }
            outcome => {
                self.failed.send_replace(None);
                Some(outcome)
            }
        }
    }

    async fn agreement(&self) -> Result<Arc<Agreement>, Error> {
        let key = self.ttp.contract_key(&self.wanted.contract).await?;
        let (agreed, mode) = (self.wanted.contract.clone(), self.wanted.mode);
        let made = blocking(move || Agreement::new(agreed, key, mode)).await?;
        Ok(Arc::new(made))
    }

    async fn prepare(&self, agreement: Arc<Agreement>) -> Result<Prepared, Error> {
        let feature = self.feature.load(Ordering::Relaxed);
        let request = TicketRequest {
            contract: agreement.agreed().id.into(),
            mode: self.wanted.mode,
            width: self.wanted.width,
            height: self.wanted.height,
            feature: (feature != 0).then_some(feature),
            count: 1,
        };
        let (agreed, key) = (agreement.agreed(), agreement.key());
        let mut tickets = self.ttp.tickets(agreed, key, &request).await?;
        let none = || Error::Answer {
            vault: self.wanted.ttp.clone(),
            what: "POST /v1/ttp/tickets".into(),
            reason: "it holds no ticket".into(),
        };
        let ticket = tickets.pop().ok_or_else(none)?;
        blocking(move || Prepared::new(agreement, ticket)).await
    }
}

/// Tells what was sent, in order, each until it has arrived or was refused, and answers audits. That
/// one has failed shows at the next ticket.
async fn report(
    ttp: Ttp,
    agreed: Agreed,
    mut reports: mpsc::UnboundedReceiver<(Features, Option<Evidence>)>,
) {
    while let Some((features, evidence)) = reports.recv().await {
        let noted = until_it_arrives(|| ttp.features(&features)).await;
        let (Ok(Some(challenge)), Some(mut evidence)) = (noted, evidence) else {
            continue;
        };
        if let Ok(opening) = blocking(move || evidence.open(&challenge)).await {
            // A refusal is final.
            let _ = until_it_arrives(|| ttp.open(&agreed, features.ticket, &opening)).await;
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, crate::sealed::stream::Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Error::Cancelled)?.map_err(Into::into)
}
