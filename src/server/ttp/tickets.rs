// SPDX-License-Identifier: MPL-2.0
//! Routes about tickets: issuing them, what was seen under them, and taking their marks out.

use super::audits::challenge;
use super::contracts::CONTRACT_BYTES;
use super::{Answer, TtpRole, asked, blocking, computing, gone};
use crate::homomorphic::packed::Encryptor;
use crate::homomorphic::retrieval::{Sign, masks, packed_masks};
use crate::homomorphic::ticket;
use crate::identity::PublicId;
use crate::protocol::{
    AUDIT_ALL, Challenge, CloudMasks, Code, Contract, Features, Grant, Grants, MASKS_INFO,
    MAX_FEATURES, MAX_TICKETS, Masks, Mode, Noted, PADS_INFO, RetrievalRequest, SEED_INFO, Signed,
    TICKET_INFO, TicketHead, TicketRequest, TicketSecret, encode,
};
use crate::server::app::App;
use crate::server::refusal::{Refusal, cbor};
use crate::store::{Error, Issued, Lot, Reported, Ticket, Used, Wanted, now_ms};
use crate::watermark::{Layout, Settings};
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use sha2::{Digest as _, Sha256};
use std::ops::RangeInclusive;
use std::sync::Arc;
use zeroize::{Zeroize as _, Zeroizing};

/// Pixels of a side of frames.
const SIDES: RangeInclusive<u32> = 64..=16384;
/// How long a ticket can be used at least, beyond the footage that it is for.
const SLACK_MS: u64 = 10 * 60 * 1000;
/// Bytes of masks in one answer.
const MAX_MASK_BYTES: usize = 32 << 20;
/// Ciphertexts of masks in one answer.
const MAX_MASK_CIPHERTEXTS: usize = 8192;

/// `POST /v1/ttp/tickets`.
pub async fn issue(
    State(app): State<Arc<App>>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let (caller, ask) = asked::<TicketRequest>(&app, request, CONTRACT_BYTES).await?;
    let role = app.ttp()?;
    if !(1..=MAX_TICKETS).contains(&ask.count) {
        let message = format!("a request is for 1 to {MAX_TICKETS} tickets");
        return Err(Refusal::malformed(message));
    }
    if ![ask.width, ask.height]
        .iter()
        .all(|side| SIDES.contains(side))
    {
        let (least, most) = (SIDES.start(), SIDES.end());
        let message = format!("frames have {least} to {most} pixels a side");
        return Err(Refusal::malformed(message));
    }
    let (contract, record) = role.owned(&caller, *ask.contract).await?;
    if record.audits(now_ms()).stops(record.tickets) {
        return Err(Refusal::new(
            Code::Audit,
            "an audit of this contract has failed, or too much was not answered or not reported: there \
             are no more tickets under it (GET /v1/ttp/contracts/ID has the counts)",
        ));
    }
    if !contract.takes(ask.width, ask.height) {
        let message = format!(
            "frames of {}x{} are larger than the contract's cloud takes: {} pixels at most",
            ask.width, ask.height, contract.pixels
        );
        return Err(Refusal::malformed(message));
    }
    let cloud = role.registry.party(*contract.cloud.sign).await?;
    let cloud = cloud.and_then(|cloud| cloud.key);
    let modulus = cloud.ok_or(Error::Corrupt("cloud's key"))?.modulus;
    // First leave to compute, then numbers: none is given away for nothing.
    let _work = role.work().await?;
    role.once(&caller).await?;
    let now = now_ms();
    let wanted = Wanted {
        contract: *ask.contract,
        owner: caller.key,
        count: ask.count,
        mode: ask.mode,
        size: [ask.width, ask.height],
        feature: ask.feature,
        issued_ms: now,
        expires_ms: now + SLACK_MS + u64::from(ask.count) * contract.ticket_ms,
    };
    let tickets = match role.registry.issue(wanted).await? {
        Issued::Tickets(tickets) => tickets,
        Issued::Unknown => return Err(Refusal::not_found("contract")),
        Issued::Deleted => return Err(gone()),
        Issued::Exhausted => {
            return Err(Refusal::new(
                Code::Quota,
                "this owner has had nearly all watermarks there are: go on with a new identity",
            ));
        }
    };
    let (own, id) = (app.clone(), ask.contract);
    let grants = blocking(move || {
        let role = own.ttp()?;
        let encryptor = role.encryptor(&modulus, &contract.base_seed, &id);
        let encryptor = encryptor.map_err(computing)?;
        let grant = |ticket| grant(role, &contract, &encryptor, ticket, *id);
        tickets.into_iter().map(grant).collect::<Answer<Vec<_>>>()
    });
    let grants = grants.await?;
    app.metrics.tickets.inc_by(grants.len() as u64);
    Ok(cbor(&Grants { grants }))
}

fn grant(
    role: &TtpRole,
    contract: &Contract,
    encryptor: &Encryptor,
    ticket: Ticket,
    id: [u8; 32],
) -> Answer<Grant> {
    let (word, key) = (ticket.secret.word()?, encryptor.key());
    let ciphertexts = match ticket.mode {
        Mode::Oblivious => ticket::for_labels(encryptor, word),
        Mode::Packed => ticket::packing(key)
            .and_then(|packing| ticket::for_slots(encryptor, &packing, word, contract.step)),
    };
    let ciphertexts = ciphertexts.map_err(computing)?;
    let bytes: Vec<u8> = ciphertexts.iter().flat_map(|c| key.to_bytes(c)).collect();
    let mut secret = TicketSecret {
        seed: (*ticket.secret.expose_seed()).into(),
        ciphertexts: bytes.into(),
    };
    let encoded = Zeroizing::new(encode(&secret));
    secret.seed.zeroize();
    let head = Signed::new(&TicketHead {
        contract: id.into(),
        number: ticket.number,
        mode: ticket.mode,
        width: ticket.size[0],
        height: ticket.size[1],
        issued_ms: ticket.issued_ms,
        expires_ms: ticket.expires_ms,
        secret: <[u8; 32]>::from(Sha256::digest(&*encoded)).into(),
    });
    let sealed = PublicId::from(&contract.owner).seal(TICKET_INFO, &encoded);
    Ok(Grant {
        head: head.sign::<TicketHead>(&role.identity),
        secret: sealed.map_err(|e| Refusal::failed(&e))?.into(),
    })
}

/// `POST /v1/ttp/features`.
pub async fn features(
    State(app): State<Arc<App>>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let (caller, ask) = asked::<Features>(&app, request, CONTRACT_BYTES).await?;
    let role = app.ttp()?;
    if ask.hashes.len() > MAX_FEATURES {
        let message = format!("a ticket has at most {MAX_FEATURES} hashes");
        return Err(Refusal::malformed(message));
    }
    // Also of a deleted contract: a copy of what was sent under it may be found.
    let (contract, _) = role.of(&caller, *ask.contract).await?;
    let id = (*ask.contract, ask.ticket);
    let ticket = role.registry.ticket(id).await?;
    let ticket = ticket.ok_or_else(|| Refusal::not_found("ticket"))?;
    let used = Used {
        started_ms: ask.started_ms,
        hashes: ask.hashes,
        frames: ask.frames,
        commitment: ask.commitment,
    };
    let commitment = used.commitment;
    let lot = lot(app.config.audit, &contract, &ticket, &used)?;
    match role.registry.report(id, used, lot).await? {
        (Reported::Done, audit) => {
            let challenge = audit.map(|audit| {
                let challenge = challenge(id, commitment, &audit);
                Signed::new(&challenge).sign::<Challenge>(&role.identity)
            });
            Ok(cbor(&Noted { challenge }))
        }
        (Reported::Unknown, _) => Err(Refusal::not_found("ticket")),
        (Reported::Conflict, _) => Err(Refusal::new(
            Code::Conflict,
            "something else was reported of this ticket before, and the first report stands",
        )),
    }
}

/// Draws, now that the report is there, whether it is audited, and where.
fn lot(audit: u32, contract: &Contract, ticket: &Ticket, used: &Used) -> Answer<Lot> {
    let mut random = [0; 36];
    getrandom::fill(&mut random).map_err(|_| Error::Random)?;
    let (number, seed) = random.split_at(4);
    let number = number.iter().fold(0, |n, &byte| n << 8 | u32::from(byte));
    let mut lot = Lot {
        seed: [0; 32],
        drawn: number % AUDIT_ALL < contract.audit,
        possible: audit > 0 && contract.is_audited(ticket.mode) && used.frames > 0,
        now: now_ms(),
    };
    lot.seed.copy_from_slice(seed);
    Ok(lot)
}

/// `POST /v1/ttp/retrievals`.
pub async fn retrieve(
    State(app): State<Arc<App>>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let limit = app.config.limits.body_bytes;
    let (caller, ask) = asked::<RetrievalRequest>(&app, request, limit).await?;
    let role = app.ttp()?;
    let (contract, _) = role.owned(&caller, *ask.contract).await?;
    let id = (*ask.contract, ask.ticket);
    let ticket = role.registry.ticket(id).await?;
    let ticket = ticket.ok_or_else(|| Refusal::not_found("ticket"))?;
    let settings = contract.settings().ok_or(Error::Corrupt("contract"))?;
    let _work = role.work().await?;
    let own = app.clone();
    let masks = blocking(move || retrieval(own.ttp()?, &contract, &settings, &ticket, ask)).await?;
    match role.registry.retrieved(id, now_ms()).await? {
        Reported::Done => {
            app.metrics.retrievals.inc();
            Ok(cbor(&masks))
        }
        Reported::Unknown => Err(Refusal::not_found("ticket")),
        // Deleted meanwhile.
        Reported::Conflict => Err(gone()),
    }
}

fn retrieval(
    role: &TtpRole,
    contract: &Contract,
    settings: &Settings,
    ticket: &Ticket,
    ask: RetrievalRequest,
) -> Answer<Masks> {
    let size = ticket.size.map(|side| side as usize);
    let layout = Layout::new(&ticket.secret.key(), 0, settings, size[0], size[1]);
    let signs = |frame: &[u8]| {
        let wrong = || {
            Refusal::malformed(format!(
                "signs are two bits for each of the {} marks of a frame",
                layout.marks().len()
            ))
        };
        Sign::unpack(frame, layout.marks().len()).ok_or_else(wrong)
    };
    let word = ticket.secret.word()?;
    let coefficients = (size[0] / 8) * (size[1] / 8) * settings.each();
    let most = |frames: usize| match ask.frames.len() <= frames.max(1) {
        true => Ok(()),
        false => Err(Refusal::too_large(
            "the number of frames",
            frames.max(1) as u64,
        )),
    };
    let unsealable = |e: crate::identity::Error| Refusal::failed(&e);
    let (pads, frames) = match ask.mode {
        Mode::Oblivious => {
            most(MAX_MASK_BYTES / (2 * coefficients).max(1))?;
            let mut seed = Zeroizing::new([0; 32]);
            getrandom::fill(&mut *seed).map_err(|_| Error::Random)?;
            let mask = |(frame, bytes): (u64, &minicbor::bytes::ByteVec)| {
                let signs = signs(bytes)?;
                let masks = masks(&seed, frame, settings, size, &layout, word, &signs);
                let masks = masks.ok_or(Error::Corrupt("ticket"))?;
                Ok(masks.into())
            };
            let frames: Answer<Vec<_>> = (0..).zip(&ask.frames).map(mask).collect();
            let pads = PublicId::from(&contract.owner).seal(PADS_INFO, &*seed);
            (Some(pads.map_err(unsealable)?.into()), frames?)
        }
        Mode::Packed => {
            let modulus = ask.key.as_ref().ok_or_else(|| {
                Refusal::malformed("packed retrieval needs the owner's public Paillier key")
            })?;
            let encryptor = role.encryptor(modulus, &contract.base_seed, &ask.contract);
            let encryptor = encryptor.map_err(|e| Refusal::malformed(e.to_string()))?;
            let key = encryptor.key();
            let packing = ticket::packing(key).map_err(computing)?;
            most(MAX_MASK_CIPHERTEXTS / coefficients.div_ceil(packing.slots()).max(1))?;
            let mask = |bytes: &minicbor::bytes::ByteVec| {
                let signs = signs(bytes)?;
                let masks =
                    packed_masks(&encryptor, &packing, settings, size, &layout, word, &signs);
                let masks = masks.ok_or(Error::Corrupt("ticket"))?.map_err(computing)?;
                let bytes: Vec<u8> = masks.iter().flat_map(|c| key.to_bytes(c)).collect();
                Ok(bytes.into())
            };
            let frames: Answer<Vec<_>> = ask.frames.iter().map(mask).collect();
            (None, frames?)
        }
    };
    let masks = Signed::new(&CloudMasks {
        contract: ask.contract,
        ticket: ask.ticket,
        mode: ask.mode,
        key: ask.key,
        frames,
    });
    let masks = encode(&masks.sign::<CloudMasks>(&role.identity));
    let sealed = PublicId::from(&contract.cloud).seal(MASKS_INFO, &masks);
    let seed = PublicId::from(&contract.owner).seal(SEED_INFO, ticket.secret.expose_seed());
    Ok(Masks {
        pads,
        masks: sealed.map_err(unsealable)?.into(),
        seed: Some(seed.map_err(unsealable)?.into()),
    })
}
