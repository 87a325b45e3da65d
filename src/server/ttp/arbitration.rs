// SPDX-License-Identifier: MPL-2.0
//! Whose footage a suspect's frames are.

use super::{Answer, TtpRole, blocking, caller, permit, read};
use crate::arbiter::{self, Candidate, Finding};
use crate::luma::Plane;
use crate::protocol::{
    Audited, Code, Contract, Judged, Leak, Signed, Suspect, Verdict, suspect_digest,
};
use crate::server::app::{App, parse};
use crate::server::refusal::{Refusal, cbor};
use crate::store::{ContractRecord, Error, Hash, TicketId, now_ms};
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Bytes of a suspect.
const SUSPECT_BYTES: u64 = 128 << 20;
/// Tickets that a suspect is compared with.
const MAX_CANDIDATES: usize = 16_384;
/// Tickets that are read at a time.
const BATCH: usize = 512;
/// Longest wait until an arbitration begins.
const WAIT: Duration = Duration::from_secs(10);

/// Ends the work when nobody waits for it any more.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What is compared.
struct Compared {
    id: TicketId,
    issued_ms: u64,
    retrieved_ms: Option<u64>,
    audited: Option<Audited>,
    received: bool,
    candidate: Candidate,
}

/// `POST /v1/ttp/arbitrations`.
pub async fn arbitrate(
    State(app): State<Arc<App>>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let (parts, body) = request.into_parts();
    caller(&app, &parts).await?;
    let role = app.ttp()?;
    let _memory = app.memory(&parts, SUSPECT_BYTES).await?;
    let suspect: Suspect = parse(&app.body(&parts, body, SUSPECT_BYTES).await?)?;
    let _alone = permit(&role.arbitrations, WAIT).await?;
    let (file, named) = (suspect.file, suspect.contract.map(|id| *id));
    let look = move || {
        let frames = arbiter::open(&suspect);
        let frames = frames.map_err(|e| Refusal::new(code(&e), e.to_string()))?;
        let luma = frames.iter().map(Plane::data);
        let digest = suspect_digest(suspect.width, suspect.height, luma);
        let hashes = arbiter::hashes(&frames);
        Ok((frames, digest, hashes))
    };
    let (frames, digest, hashes) = blocking(look).await?;
    let compared = candidates(role, hashes, named).await?;
    let registered = role.registry.registered().await?;
    let stop = Stop(Arc::default());
    let (flag, time) = (stop.0.clone(), app.config.search_time);
    let work = move || {
        let candidates: Vec<_> = compared.iter().map(|c| c.candidate.clone()).collect();
        let finding = arbiter::judge(&frames, &candidates, registered, time, &flag);
        Ok((compared, finding))
    };
    let (compared, finding) = blocking(work).await?;
    let (leak, contract, bits) = match finding {
        None => (None, None, None),
        Some(finding) => {
            let found = compared.get(finding.candidate);
            let found = found.ok_or(Error::Corrupt("ticket"))?;
            // It may have been deleted since.
            let record = role.registry.contract(found.id.0).await?;
            let record = record.ok_or(Error::Corrupt("contract"))?;
            let leak = leak(&read(&record.signed)?, &record, found, &finding);
            (Some(leak), Some(record.signed), Some(finding.bits))
        }
    };
    app.metrics.arbitrated(leak.is_some());
    let verdict = Signed::new(&Verdict {
        frames: digest.into(),
        file,
        judged_ms: now_ms(),
        compared: compared.len() as u64,
        registered,
        leak,
    });
    Ok(cbor(&Judged {
        verdict: verdict.sign::<Verdict>(&role.identity),
        contract,
        bits,
    }))
}

fn code(error: &arbiter::SuspectError) -> Code {
    match error {
        arbiter::SuspectError::Total => Code::TooLarge,
        _ => Code::Malformed,
    }
}

fn leak(contract: &Contract, record: &ContractRecord, found: &Compared, finding: &Finding) -> Leak {
    Leak {
        contract: found.id.0.into(),
        owner: contract.owner,
        cloud: contract.cloud,
        ticket: found.id.1,
        issued_ms: found.issued_ms,
        errors: finding.evidence.errors,
        false_positive: finding.evidence.false_positive,
        registration: arbiter::describe(&finding.registration),
        deleted: record.deleted,
        retrieved_ms: found.retrieved_ms,
        audited: found.audited,
        audits: record.audits(now_ms()),
        received: found.received,
    }
}

/// The tickets to compare with: of a named contract those that look alike, then its latest; then
/// those of others that look alike.
async fn candidates(
    role: &TtpRole,
    hashes: Vec<u64>,
    named: Option<Hash>,
) -> Answer<Vec<Compared>> {
    let near = role
        .registry
        .near(hashes, arbiter::RADIUS, MAX_CANDIDATES)
        .await?;
    let (mut ids, others): (Vec<_>, Vec<_>) =
        near.into_iter().partition(|(id, _)| Some(*id) == named);
    if let Some(named) = named {
        let record = role.registry.contract(named).await?;
        let count = record
            .ok_or_else(|| Refusal::not_found("contract"))?
            .tickets;
        let before: HashSet<u64> = ids.iter().map(|(_, number)| *number).collect();
        let rest = (0..count).rev().filter(|number| !before.contains(number));
        // Half of the room at most: others are heard too.
        ids.extend(rest.take(MAX_CANDIDATES / 2).map(|number| (named, number)));
    }
    ids.extend(others);
    ids.truncate(MAX_CANDIDATES);
    let mut compared = Vec::with_capacity(ids.len());
    let mut contracts: HashMap<Hash, Option<Contract>> = HashMap::new();
    let mut tickets = Vec::with_capacity(ids.len());
    for batch in ids.chunks(BATCH) {
        tickets.extend(role.registry.tickets(batch.to_vec()).await?);
    }
    for (id, ticket) in ids.into_iter().zip(tickets) {
        if let std::collections::hash_map::Entry::Vacant(entry) = contracts.entry(id.0) {
            let record = role.registry.contract(id.0).await?;
            entry.insert(record.map(|record| read(&record.signed)).transpose()?);
        }
        let contract = contracts.get(&id.0).and_then(Option::as_ref);
        let (Some(contract), Some(ticket)) = (contract, ticket) else {
            continue;
        };
        let settings = contract.settings().ok_or(Error::Corrupt("contract"))?;
        compared.push(Compared {
            id,
            issued_ms: ticket.issued_ms,
            retrieved_ms: ticket.retrieved_ms,
            audited: ticket.audit.as_ref().map(|audit| audit.state(now_ms())),
            received: ticket.agrees(),
            candidate: Candidate {
                key: ticket.secret.key(),
                settings,
                word: ticket.secret.word()?,
                size: ticket.size.map(|side| side as usize),
                threshold: contract.threshold,
            },
        });
    }
    Ok(compared)
}
