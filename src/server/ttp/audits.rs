// SPDX-License-Identifier: MPL-2.0
//! Routes about audits: what owners open, and what clouds say they have received.

use super::contracts::CONTRACT_BYTES;
use super::{Answer, Caller, TtpRole, asked, blocking, computing, read};
use crate::homomorphic::packed::PublicKey;
use crate::protocol::{
    AuditDemand, Audited, B32, Challenge, Code, Contract, OPENING_INFO, Opening, Receipt,
    SealedOpening, decode,
};
use crate::sealed::stream::Question;
use crate::sealed::stream::message::SegmentEnd;
use crate::server::app::App;
use crate::server::refusal::Refusal;
use crate::store::{
    AuditOutcome, Error, Hash, Received, Reported, Ticket, TicketAudit, TicketId, now_ms,
};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use std::sync::Arc;

/// Bytes of an opening: ciphertexts of a ticket of 4096 bits, the head and the pieces.
const OPENING_BYTES: u64 = 1 << 20;

/// What is asked of a ticket.
pub(super) fn challenge(
    (contract, ticket): TicketId,
    commitment: B32,
    audit: &TicketAudit,
) -> Challenge {
    Challenge {
        contract: contract.into(),
        ticket,
        commitment,
        seed: audit.seed,
        until_ms: audit.until_ms,
    }
}

/// `POST /v1/ttp/openings`.
pub async fn open(
    State(app): State<Arc<App>>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let (caller, ask) = asked::<SealedOpening>(&app, request, OPENING_BYTES).await?;
    let role = app.ttp()?;
    let (contract, _) = role.of(&caller, *ask.contract).await?;
    let id = (*ask.contract, ask.ticket);
    let ticket = role.registry.ticket(id).await?;
    let ticket = ticket.ok_or_else(|| Refusal::not_found("ticket"))?;
    let none = || Refusal::not_found("audit");
    let audit = ticket.audit.clone().ok_or_else(none)?;
    if audit.state(now_ms()) == Audited::Asked {
        let malformed = |what: &dyn std::fmt::Display| {
            Refusal::malformed(format!("the opening is not understood: {what}"))
        };
        let clear = role.identity.open(OPENING_INFO, &ask.sealed);
        let clear = zeroize::Zeroizing::new(clear.map_err(|e| malformed(&e))?.to_vec());
        let opening: Opening = decode(&clear).map_err(|e| malformed(&e))?;
        let cloud = role.registry.party(*contract.cloud.sign).await?;
        let cloud = cloud.and_then(|cloud| cloud.key);
        let modulus = cloud.ok_or(Error::Corrupt("cloud's key"))?.modulus;
        let _work = role.work().await?;
        let asked = audit.clone();
        let judge = move || judge(&contract, &modulus, id, &ticket, &asked, &opening);
        let outcome = blocking(judge).await?;
        role.registry.audited(id, outcome, now_ms()).await?;
    }
    // What stands, also of an answer that came twice.
    let ticket = role.registry.ticket(id).await?;
    let audit = ticket.and_then(|ticket| ticket.audit).ok_or_else(none)?;
    match audit.outcome {
        Some(outcome) if outcome.passed => Ok(StatusCode::NO_CONTENT),
        Some(outcome) => Err(Refusal::new(
            Code::Audit,
            format!("the audit has failed: {}", outcome.note),
        )),
        None => Err(Refusal::new(Code::Audit, "the answer came too late")),
    }
}

fn judge(
    contract: &Contract,
    modulus: &[u8],
    id: TicketId,
    ticket: &Ticket,
    audit: &TicketAudit,
    opening: &Opening,
) -> Answer<AuditOutcome> {
    let used = ticket.used.as_ref().ok_or(Error::Corrupt("ticket"))?;
    let question = Question {
        challenge: &challenge(id, used.commitment, audit),
        contract,
        key: &PublicKey::from_modulus(modulus).map_err(computing)?,
        size: ticket.size,
        seed: ticket.secret.expose_seed(),
        frames: used.frames,
    };
    let judged = question.judge(opening);
    Ok(match judged.map_err(|e| Refusal::failed(&e))? {
        Ok(found) => AuditOutcome {
            passed: true,
            note: format!(
                "{} places, {} of {} marks made",
                found.places, found.made, found.marks
            ),
        },
        Err(fault) => AuditOutcome {
            passed: false,
            note: fault.to_string(),
        },
    })
}

/// `POST /v1/ttp/receipts`.
pub async fn receive(
    State(app): State<Arc<App>>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let (caller, ask) = asked::<Receipt>(&app, request, CONTRACT_BYTES).await?;
    let role = app.ttp()?;
    let malformed = |e: crate::protocol::DocumentError| Refusal::malformed(e.to_string());
    let unread: SegmentEnd = ask.end.unverified().map_err(malformed)?;
    let contract = of_cloud(role, &caller, *unread.contract).await?;
    let end: SegmentEnd = ask.end.verify(&[&contract.owner.sign]).map_err(malformed)?;
    let received = Received {
        frames: end.frames,
        commitment: end.commitment,
    };
    let id = (*end.contract, end.ticket);
    answer(role.registry.received(id, received).await?)
}

/// `POST /v1/ttp/audits`.
pub async fn demand(
    State(app): State<Arc<App>>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let (caller, ask) = asked::<AuditDemand>(&app, request, CONTRACT_BYTES).await?;
    let role = app.ttp()?;
    let contract = of_cloud(role, &caller, *ask.contract).await?;
    if app.config.audit == 0 || contract.audit == 0 {
        return Err(Refusal::malformed(
            "there are no audits under this contract",
        ));
    }
    role.once(&caller).await?;
    answer(role.registry.demand(*ask.contract).await?)
}

fn answer(reported: Reported) -> Answer<StatusCode> {
    match reported {
        Reported::Done => Ok(StatusCode::NO_CONTENT),
        Reported::Unknown => Err(Refusal::not_found("ticket")),
        Reported::Conflict => Err(Refusal::new(
            Code::Conflict,
            "the owner has told the third party something else: it is noted as a failed audit",
        )),
    }
}

/// The contract, if `caller` is its cloud. Of another's it is not said that it exists.
async fn of_cloud(role: &TtpRole, caller: &Caller, id: Hash) -> Answer<Contract> {
    let none = || Refusal::not_found("contract");
    let record = role.registry.contract(id).await?;
    let contract = read(&record.ok_or_else(none)?.signed)?;
    match *contract.cloud.sign == caller.key {
        true => Ok(contract),
        false => Err(none()),
    }
}
