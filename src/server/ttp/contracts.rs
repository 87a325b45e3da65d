// SPDX-License-Identifier: MPL-2.0
//! Routes about parties, contracts and their deletion.

use super::{Answer, Caller, asked, blocking, caller, read};
use crate::homomorphic::packed::{CertifiedKey, FactorProof, PedersenParameters};
use crate::protocol::{
    CBOR, Code, Contract, ContractBody, DeletionLog, DeletionRequest, Party, PartyRegistration,
    Signed, TtpInfo,
};
use crate::server::app::{App, parse};
use crate::server::auth::Binds;
use crate::server::refusal::{Refusal, cbor};
use crate::store::{CloudKey, PartyRecord, Registering, now_ms, unhex};
use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

/// Bytes of a registration: the proof of a key of 4096 bits takes 70,000.
const REGISTRATION_BYTES: u64 = 128 << 10;
/// Bytes of a contract and of a request about one.
pub(super) const CONTRACT_BYTES: u64 = 16 << 10;
/// Receipts in one answer.
const MAX_RECEIPTS: usize = 1000;

/// `GET /v1/ttp`.
pub async fn info(State(app): State<Arc<App>>) -> Answer<impl IntoResponse + use<>> {
    let role = app.ttp()?;
    Ok(cbor(&TtpInfo {
        identity: role.party(),
        token_needed: role.token.is_some(),
        audit: app.config.audit,
    }))
}

/// `PUT /v1/ttp/party`.
pub async fn register(
    State(app): State<Arc<App>>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let (parts, body) = request.into_parts();
    let sign = app.signer(&parts, Binds::Digest)?;
    let role = app.ttp()?;
    let _memory = app.memory(&parts, REGISTRATION_BYTES).await?;
    let ask: PartyRegistration = parse(&app.body(&parts, body, REGISTRATION_BYTES).await?)?;
    if role.registry.party(sign).await?.is_none() {
        check_token(role.token.as_deref().map(String::as_str), &ask)?;
    }
    // A key that nothing can be sealed to would make every later answer fail.
    let agree = *ask.agree;
    let public = crate::identity::PublicId { sign, agree };
    let sealed = public.seal(b"", b"");
    sealed.map_err(|e| Refusal::malformed(e.to_string()))?;
    let key = match ask.key {
        None => None,
        Some(certified) => {
            let _work = role.work().await?;
            let factors = ask.factors.ok_or_else(|| {
                Refusal::malformed("a cloud's key needs a proof that it has no small factor")
            })?;
            let parameters = role.parameters().await?;
            let check = move || check_key(&parameters, certified.into(), &factors, &sign);
            Some(blocking(check).await?)
        }
    };
    let record = PartyRecord {
        agree: agree.into(),
        key,
    };
    match role.registry.register(sign, record).await? {
        Registering::Done => Ok(axum::http::StatusCode::NO_CONTENT),
        Registering::Conflict => Err(Refusal::new(
            Code::Conflict,
            "this party is registered with another key, which its contracts name: \
             a new key needs a new identity",
        )),
    }
}

fn check_token(right: Option<&str>, ask: &PartyRegistration) -> Answer<()> {
    let Some(right) = right else { return Ok(()) };
    let sent = ask.token.as_deref().unwrap_or_default().trim();
    match bool::from(sent.as_bytes().ct_eq(right.as_bytes())) {
        true => Ok(()),
        false => Err(Refusal::new(
            Code::NotEnrolled,
            "registration needs the token that the third party keeps in its data directory, \
             secrets/register.token",
        )),
    }
}

/// `GET /v1/ttp/parameters`.
pub async fn parameters(State(app): State<Arc<App>>) -> Answer<impl IntoResponse + use<>> {
    let role = app.ttp()?;
    let _work = role.work().await?;
    let parameters = role.parameters().await?.to_bytes();
    Ok(([(CONTENT_TYPE, CBOR)], parameters))
}

fn check_key(
    parameters: &PedersenParameters,
    certified: Vec<u8>,
    factors: &[u8],
    context: &[u8; 32],
) -> Answer<CloudKey> {
    let wrong = |e: crate::homomorphic::Error| Refusal::malformed(e.to_string());
    let key = CertifiedKey::from_bytes(&certified).and_then(|key| key.verify(context));
    let key = key.map_err(wrong)?;
    let factors = FactorProof::from_bytes(factors).map_err(wrong)?;
    let none = factors.verify(&key, parameters, context);
    none.map_err(wrong)?;
    Ok(CloudKey {
        certified: certified.into(),
        modulus: key.modulus().into(),
    })
}

/// `GET /v1/ttp/keys/{key}`.
pub async fn key(
    State(app): State<Arc<App>>,
    Path(sign): Path<String>,
) -> Answer<impl IntoResponse + use<>> {
    let none = || Refusal::not_found("cloud's key");
    let sign = unhex(&sign).ok_or_else(none)?;
    let party = app.ttp()?.registry.party(sign).await?;
    let key = party.and_then(|party| party.key).ok_or_else(none)?;
    Ok(([(CONTENT_TYPE, CBOR)], Vec::from(key.certified)))
}

/// `POST /v1/ttp/contracts`.
pub async fn add(
    State(app): State<Arc<App>>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let (caller, ask) = asked::<ContractBody>(&app, request, CONTRACT_BYTES).await?;
    let role = app.ttp()?;
    let unread = ask.contract.unverified::<Contract>();
    let contract = unread.map_err(|e| Refusal::malformed(e.to_string()))?;
    let keys = [&*contract.owner.sign, &*contract.cloud.sign];
    let signed = ask.contract.verify::<Contract>(&keys);
    signed.map_err(|e| Refusal::malformed(e.to_string()))?;
    let wrong = |what: &str| Err(Refusal::malformed(format!("this contract {what}")));
    if *contract.owner.sign != caller.key {
        return wrong("names another owner: its owner has to bring it");
    }
    if contract.ttp != role.party() {
        return wrong("names another third party: GET /v1/ttp says which this is");
    }
    if contract.settings().is_none() {
        return wrong(
            "has numbers that cannot be used: steps are multiples of 4 up to 200, and with audits \
             a ticket lasts a minute at most",
        );
    }
    let cloud = role.registry.party(*contract.cloud.sign).await?;
    let fits = |party: &Party, record: &PartyRecord| party.agree == record.agree;
    let Some(cloud) = cloud.filter(|cloud| fits(&contract.cloud, cloud)) else {
        return wrong("names a cloud that is not registered here with these keys");
    };
    if !fits(&contract.owner, &caller.record) {
        return wrong("names another agreement key of its owner than is registered");
    }
    let digest = cloud.key.map(|key| Sha256::digest(&**key.certified));
    if digest.is_none_or(|digest| digest.as_slice() != contract.cloud_key.as_slice()) {
        return wrong("names another Paillier key of the cloud than is registered");
    }
    let id = ask.contract.id::<Contract>();
    let audit = app.config.audit;
    if contract.audit != audit && role.registry.contract(id).await?.is_none() {
        let named = contract.audit;
        return wrong(&format!(
            "names {named} audits in 1000 tickets where this third party makes {audit}"
        ));
    }
    let signed = ask.contract.sign::<Contract>(&role.identity);
    let contract = role.registry.add_contract(id, signed).await?;
    app.metrics.contracts.inc();
    let audits = None;
    Ok(cbor(&ContractBody { contract, audits }))
}

/// `GET /v1/ttp/contracts/{id}`.
pub async fn one(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let (parts, body) = request.into_parts();
    let Caller { key, .. } = caller(&app, &parts).await?;
    app.body(&parts, body, 0).await?;
    let none = || Refusal::not_found("contract");
    let id = unhex(&id).ok_or_else(none)?;
    let record = app.ttp()?.registry.contract(id).await?;
    let record = record.ok_or_else(none)?;
    let contract = read(&record.signed)?;
    match [&contract.owner, &contract.cloud]
        .iter()
        .any(|party| *party.sign == key)
    {
        true => Ok(cbor(&ContractBody {
            audits: Some(record.audits(now_ms())),
            contract: record.signed,
        })),
        false => Err(none()),
    }
}

/// `POST /v1/ttp/deletions`.
pub async fn delete(
    State(app): State<Arc<App>>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let (caller, ask) = asked::<DeletionRequest>(&app, request, CONTRACT_BYTES).await?;
    let role = app.ttp()?;
    role.of(&caller, *ask.contract).await?;
    let identity = role.identity.clone();
    let deleted = role
        .registry
        .delete(*ask.contract, now_ms(), identity)
        .await?;
    let receipt: Signed = deleted.ok_or_else(|| Refusal::not_found("contract"))?;
    app.metrics.deletions.inc();
    Ok(cbor(&receipt))
}

/// `GET /v1/ttp/deletions?from=INDEX`.
pub async fn deletions(
    State(app): State<Arc<App>>,
    request: Request,
) -> Answer<impl IntoResponse + use<>> {
    let query = request.uri().query().unwrap_or_default();
    let from = match query.strip_prefix("from=") {
        None if query.is_empty() => Some(0),
        from => from.and_then(|from| from.parse().ok()),
    };
    let from = from.ok_or_else(|| Refusal::malformed("only from=INDEX is understood"))?;
    let receipts = app.ttp()?.registry.deletions(from, MAX_RECEIPTS).await?;
    Ok(cbor(&DeletionLog { receipts }))
}
