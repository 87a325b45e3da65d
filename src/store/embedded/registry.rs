// SPDX-License-Identifier: MPL-2.0
//! [`Registry`] in an embedded database.

use super::Fjall;
use crate::feature::{PHash, index::Index};
use crate::identity::{AeadKey, Identity};
use crate::protocol::{B32, Deletion, Mode, Signed};
use crate::store::registry::{
    AuditOutcome, CODE, ContractRecord, Issued, Lot, PartyRecord, Received, Registering, Registry,
    Reported, Ticket, TicketAudit, TicketId, TicketSecrets, Used, Wanted, word_mark,
};
use crate::store::tables::{Engine as _, Needs, Space, Tx, behind, parse};
use crate::store::{Error, Hash, Room};
use async_trait::async_trait;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The embedded store of a third party. Clones share one database.
#[derive(Clone)]
pub struct EmbeddedRegistry {
    engine: Fjall,
    key: AeadKey,
    seen: Arc<RwLock<Seen>>,
}

/// What is kept in memory: rebuilt when the store is opened.
#[derive(Default)]
struct Seen {
    /// Features, with a place in `tickets` as their id.
    index: Index,
    tickets: Vec<TicketId>,
    registered: u64,
}

impl Seen {
    fn add(&mut self, id: TicketId, hashes: impl IntoIterator<Item = u64>) {
        let place = self.tickets.len() as u64;
        let mut any = false;
        for hash in hashes {
            any |= self.index.insert(PHash(hash), place);
        }
        if any {
            self.tickets.push(id);
        }
    }
}

/// What is stored of a ticket.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
struct TicketRecord {
    #[n(0)]
    mode: Mode,
    #[n(1)]
    size: (u32, u32),
    #[n(2)]
    issued_ms: u64,
    #[n(3)]
    expires_ms: u64,
    #[n(4)]
    feature: Option<u64>,
    #[n(5)]
    used: Option<Used>,
    /// [`TicketSecrets`].
    #[n(6)]
    sealed: ByteVec,
    #[n(7)]
    retrieved_ms: Option<u64>,
    #[n(8)]
    audit: Option<TicketAudit>,
    #[n(9)]
    received: Option<Received>,
}

/// The end of the log of deletions.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
struct LogEnd {
    #[n(0)]
    next: u64,
    #[n(1)]
    previous: B32,
}

/// Words tried before an owner counts as having had all.
const TRIES: usize = 200;

const LOG_END: &[u8] = b"end";

fn ticket_key((contract, number): &TicketId) -> Vec<u8> {
    [contract.as_slice(), &number.to_be_bytes()].concat()
}

fn ticket_id(key: &[u8]) -> Result<TicketId, Error> {
    let wrong = || Error::Corrupt("ticket key");
    let (contract, number) = key.split_first_chunk::<32>().ok_or_else(wrong)?;
    let number = number.try_into().map_err(|_| wrong())?;
    Ok((*contract, u64::from_be_bytes(number)))
}

impl TicketRecord {
    fn open(self, key: &AeadKey, id: &TicketId) -> Result<Ticket, Error> {
        Ok(Ticket {
            number: id.1,
            mode: self.mode,
            size: self.size.into(),
            issued_ms: self.issued_ms,
            expires_ms: self.expires_ms,
            feature: self.feature,
            used: self.used,
            retrieved_ms: self.retrieved_ms,
            audit: self.audit,
            received: self.received,
            secret: TicketSecrets::open(key, id, &self.sealed)?,
        })
    }
}

impl EmbeddedRegistry {
    /// Opens or creates the store in `dir`. `key` seals the secrets of tickets; writes that add
    /// something stop while the file system has less than `room`'s reserve free.
    pub fn open(dir: &Path, key: AeadKey, room: Room) -> Result<Self, Error> {
        let engine = Fjall::open(dir, Space::REGISTRY, room)?;
        let seen = engine.read_now(|tx| {
            let (mut tickets, mut registered, mut hashes) = (Vec::new(), 0, Vec::new());
            for (key, value) in tx.walk(Space::Tickets, &[], &behind(&[]), usize::MAX)? {
                let record: TicketRecord = parse(&value)?;
                registered += 1;
                let used = record.used.iter().flat_map(|used| &used.hashes).copied();
                let before = hashes.len();
                let place = tickets.len() as u64;
                hashes.extend(used.chain(record.feature).map(|hash| (PHash(hash), place)));
                if hashes.len() > before {
                    tickets.push(ticket_id(&key)?);
                }
            }
            Ok(Seen {
                index: Index::build(hashes),
                tickets,
                registered,
            })
        })?;
        let seen = Arc::new(RwLock::new(seen));
        Ok(Self { engine, key, seen })
    }

    fn seen(&self) -> RwLockReadGuard<'_, Seen> {
        self.seen.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen_mut(&self) -> RwLockWriteGuard<'_, Seen> {
        self.seen.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A word that the owner has never had, from now on given away; `None` if none was found.
fn draw_word(tx: &mut Tx<'_>, key: &AeadKey, owner: &Hash) -> Result<Option<u32>, Error> {
    for _ in 0..TRIES {
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|_| Error::Random)?;
        // The number of identities is a power of two.
        let identity = u32::from_be_bytes(random) & (CODE.identities() - 1);
        let mark = word_mark(key, owner, identity).to_vec();
        if tx.bytes(Space::Words, &mark)?.is_none() {
            tx.put_bytes(Space::Words, mark, Vec::new());
            return Ok(Some(identity));
        }
    }
    Ok(None)
}

fn issue(tx: &mut Tx<'_>, key: &AeadKey, wanted: &Wanted) -> Result<Issued, Error> {
    let contract: Option<ContractRecord> = tx.get(Space::Contracts, &wanted.contract)?;
    let Some(mut contract) = contract else {
        return Ok(Issued::Unknown);
    };
    if contract.deleted.is_some() {
        return Ok(Issued::Deleted);
    }
    let mut tickets = Vec::new();
    for _ in 0..wanted.count {
        let Some(identity) = draw_word(tx, key, &wanted.owner)? else {
            tx.abandon();
            return Ok(Issued::Exhausted);
        };
        let secret = TicketSecrets::draw(identity)?;
        let id = (wanted.contract, contract.tickets);
        contract.tickets += 1;
        let record = TicketRecord {
            mode: wanted.mode,
            size: wanted.size.into(),
            issued_ms: wanted.issued_ms,
            expires_ms: wanted.expires_ms,
            feature: wanted.feature,
            used: None,
            sealed: secret.seal(key, &id)?.into(),
            retrieved_ms: None,
            audit: None,
            received: None,
        };
        tx.put(Space::Tickets, ticket_key(&id), &record);
        tickets.push(record.open(key, &id)?);
    }
    tx.put(Space::Contracts, wanted.contract.to_vec(), &contract);
    Ok(Issued::Tickets(tickets))
}

/// A ticket and its contract.
fn both(tx: &Tx<'_>, id: &TicketId) -> Result<Option<(ContractRecord, TicketRecord)>, Error> {
    let contract: Option<ContractRecord> = tx.get(Space::Contracts, &id.0)?;
    let record: Option<TicketRecord> = tx.get(Space::Tickets, &ticket_key(id))?;
    Ok(contract.zip(record))
}

fn store(tx: &mut Tx<'_>, id: &TicketId, contract: &ContractRecord, record: &TicketRecord) {
    tx.put(Space::Contracts, id.0.to_vec(), contract);
    tx.put(Space::Tickets, ticket_key(id), record);
}

/// Notes a report: what came of it, what is asked, and whether it is new.
fn report(
    tx: &mut Tx<'_>,
    id: &TicketId,
    used: Used,
    lot: &Lot,
) -> Result<(Reported, Option<TicketAudit>, bool), Error> {
    let Some((mut contract, mut record)) = both(tx, id)? else {
        return Ok((Reported::Unknown, None, false));
    };
    if let Some(before) = &record.used {
        return Ok(match *before == used {
            true => (Reported::Done, record.audit, false),
            false => (Reported::Conflict, None, false),
        });
    }
    if let Some(received) = record.received {
        contract.unreported = contract.unreported.saturating_sub(1);
        contract.failed += u64::from(received != used.sent());
    }
    if lot.possible && (lot.drawn || contract.demanded) {
        let audit = lot.audit();
        contract.demanded = false;
        contract.awaited.push(audit.until_ms);
        record.audit = Some(audit);
    }
    record.used = Some(used);
    store(tx, id, &contract, &record);
    Ok((Reported::Done, record.audit, true))
}

fn delete(tx: &mut Tx<'_>, id: Hash, now: u64, ttp: &Identity) -> Result<Option<Signed>, Error> {
    let contract: Option<ContractRecord> = tx.get(Space::Contracts, &id)?;
    let Some(mut contract) = contract else {
        return Ok(None);
    };
    if let Some((index, _)) = contract.deleted {
        let receipt = tx.get(Space::Log, &index.to_be_bytes())?;
        return receipt.map(Some).ok_or(Error::Corrupt("log of deletions"));
    }
    let end: Option<LogEnd> = tx.get(Space::Log, LOG_END)?;
    let (index, previous) = end.map_or((0, [0; 32].into()), |end| (end.next, end.previous));
    let receipt = Signed::new(&Deletion {
        index,
        previous,
        contract: id.into(),
        tickets: contract.tickets,
        deleted_ms: now,
    });
    let receipt = receipt.sign::<Deletion>(ttp);
    let end = LogEnd {
        next: index + 1,
        previous: receipt.id::<Deletion>().into(),
    };
    contract.deleted = Some((index, now));
    tx.put(Space::Contracts, id.to_vec(), &contract);
    tx.put(Space::Log, index.to_be_bytes().to_vec(), &receipt);
    tx.put(Space::Log, LOG_END.to_vec(), &end);
    Ok(Some(receipt))
}

#[async_trait]
impl Registry for EmbeddedRegistry {
    async fn register(&self, sign: Hash, party: PartyRecord) -> Result<Registering, Error> {
        let work = move |tx: &mut Tx<'_>| {
            let before: Option<PartyRecord> = tx.get(Space::Parties, &sign)?;
            if let Some(before) = &before {
                let other = before.key.is_some() && party.key.is_some() && before.key != party.key;
                if before.agree != party.agree || other {
                    return Ok(Registering::Conflict);
                }
            }
            let key = before.and_then(|before| before.key).or(party.key.clone());
            let agree = party.agree;
            tx.put(Space::Parties, sign.to_vec(), &PartyRecord { agree, key });
            Ok(Registering::Done)
        };
        self.engine.write(Needs::Room, work).await
    }

    async fn party(&self, sign: Hash) -> Result<Option<PartyRecord>, Error> {
        self.engine
            .read(move |tx| tx.get(Space::Parties, &sign))
            .await
    }

    async fn add_contract(&self, id: Hash, signed: Signed) -> Result<Signed, Error> {
        let work = move |tx: &mut Tx<'_>| {
            if let Some(before) = tx.get::<ContractRecord>(Space::Contracts, &id)? {
                return Ok(before.signed);
            }
            let record = ContractRecord::new(signed.clone());
            tx.put(Space::Contracts, id.to_vec(), &record);
            Ok(record.signed)
        };
        self.engine.write(Needs::Room, work).await
    }

    async fn contract(&self, id: Hash) -> Result<Option<ContractRecord>, Error> {
        self.engine
            .read(move |tx| tx.get(Space::Contracts, &id))
            .await
    }

    async fn issue(&self, wanted: Wanted) -> Result<Issued, Error> {
        let key = self.key.clone();
        let work = move |tx: &mut Tx<'_>| issue(tx, &key, &wanted);
        let issued = self.engine.write(Needs::Room, work).await?;
        if let Issued::Tickets(tickets) = &issued {
            let mut seen = self.seen_mut();
            for ticket in tickets {
                seen.registered += 1;
                seen.add((wanted.contract, ticket.number), ticket.feature);
            }
        }
        Ok(issued)
    }

    async fn ticket(&self, id: TicketId) -> Result<Option<Ticket>, Error> {
        let key = self.key.clone();
        let work = move |tx: &Tx<'_>| {
            let record: Option<TicketRecord> = tx.get(Space::Tickets, &ticket_key(&id))?;
            record.map(|record| record.open(&key, &id)).transpose()
        };
        self.engine.read(work).await
    }

    async fn report(
        &self,
        id: TicketId,
        used: Used,
        lot: Lot,
    ) -> Result<(Reported, Option<TicketAudit>), Error> {
        let hashes = used.hashes.clone();
        let work = move |tx: &mut Tx<'_>| report(tx, &id, used.clone(), &lot);
        let (reported, audit, anew) = self.engine.write(Needs::Room, work).await?;
        if anew {
            self.seen_mut().add(id, hashes);
        }
        Ok((reported, audit))
    }

    async fn received(&self, id: TicketId, received: Received) -> Result<Reported, Error> {
        let work = move |tx: &mut Tx<'_>| {
            let Some((mut contract, mut record)) = both(tx, &id)? else {
                return Ok(Reported::Unknown);
            };
            let reported = record.used.as_ref().map(Used::sent);
            let other = |said: Option<Received>| said.is_some_and(|said| said != received);
            if record.received == Some(received) {
                return Ok(match other(reported) {
                    true => Reported::Conflict,
                    false => Reported::Done,
                });
            }
            let lied = other(reported) || other(record.received);
            if lied {
                contract.failed += 1;
            }
            if record.used.is_none() && record.received.is_none() {
                contract.unreported += 1;
            }
            record.received.get_or_insert(received);
            store(tx, &id, &contract, &record);
            Ok(match lied {
                true => Reported::Conflict,
                false => Reported::Done,
            })
        };
        self.engine.write(Needs::Reserve, work).await
    }

    async fn demand(&self, contract: Hash) -> Result<Reported, Error> {
        let work = move |tx: &mut Tx<'_>| {
            let found: Option<ContractRecord> = tx.get(Space::Contracts, &contract)?;
            let Some(mut found) = found else {
                return Ok(Reported::Unknown);
            };
            found.demanded = true;
            tx.put(Space::Contracts, contract.to_vec(), &found);
            Ok(Reported::Done)
        };
        self.engine.write(Needs::Reserve, work).await
    }

    async fn audited(
        &self,
        id: TicketId,
        outcome: AuditOutcome,
        now: u64,
    ) -> Result<Reported, Error> {
        let work = move |tx: &mut Tx<'_>| {
            let Some((mut contract, mut record)) = both(tx, &id)? else {
                return Ok(Reported::Unknown);
            };
            let Some(audit) = &mut record.audit else {
                return Ok(Reported::Conflict);
            };
            if let Some(before) = &audit.outcome {
                return Ok(match *before == outcome {
                    true => Reported::Done,
                    false => Reported::Conflict,
                });
            }
            if audit.until_ms < now {
                return Ok(Reported::Conflict);
            }
            let awaited = contract
                .awaited
                .iter()
                .position(|&until| until == audit.until_ms);
            awaited.map(|place| contract.awaited.remove(place));
            match outcome.passed {
                true => contract.passed += 1,
                false => contract.failed += 1,
            }
            audit.outcome = Some(outcome.clone());
            store(tx, &id, &contract, &record);
            Ok(Reported::Done)
        };
        self.engine.write(Needs::Reserve, work).await
    }

    async fn retrieved(&self, id: TicketId, now: u64) -> Result<Reported, Error> {
        let work = move |tx: &mut Tx<'_>| {
            let Some((contract, mut record)) = both(tx, &id)? else {
                return Ok(Reported::Unknown);
            };
            if contract.deleted.is_some() {
                return Ok(Reported::Conflict);
            }
            if record.retrieved_ms.is_none() {
                record.retrieved_ms = Some(now);
                tx.put(Space::Tickets, ticket_key(&id), &record);
            }
            Ok(Reported::Done)
        };
        self.engine.write(Needs::Room, work).await
    }

    async fn near(
        &self,
        hashes: Vec<u64>,
        radius: u32,
        max: usize,
    ) -> Result<Vec<TicketId>, Error> {
        let this = self.clone();
        let work = move || {
            let seen = this.seen();
            let mut nearest: HashMap<TicketId, u32> = HashMap::new();
            for hash in hashes {
                for found in seen.index.within(PHash(hash), radius) {
                    let id = usize::try_from(found.id).ok();
                    if let Some(id) = id.and_then(|id| seen.tickets.get(id)) {
                        let distance = nearest.entry(*id).or_insert(found.distance);
                        *distance = found.distance.min(*distance);
                    }
                }
            }
            let mut found: Vec<_> = nearest.into_iter().collect();
            found.sort_unstable_by_key(|((contract, number), distance)| {
                (*distance, std::cmp::Reverse(*number), *contract)
            });
            found.truncate(max);
            found.into_iter().map(|(id, _)| id).collect()
        };
        let joined = tokio::task::spawn_blocking(work).await;
        joined.map_err(|e| Error::Engine(e.to_string()))
    }

    async fn registered(&self) -> Result<u64, Error> {
        Ok(self.seen().registered)
    }

    async fn delete(
        &self,
        contract: Hash,
        now: u64,
        ttp: Arc<Identity>,
    ) -> Result<Option<Signed>, Error> {
        let work = move |tx: &mut Tx<'_>| delete(tx, contract, now, &ttp);
        self.engine.write(Needs::Reserve, work).await
    }

    async fn deletions(&self, from: u64, max: usize) -> Result<Vec<Signed>, Error> {
        let work = move |tx: &Tx<'_>| {
            // The end of the log sorts behind every index there will be.
            if from.to_be_bytes().as_slice() >= LOG_END {
                return Ok(Vec::new());
            }
            let receipts = tx.walk(Space::Log, &from.to_be_bytes(), LOG_END, max)?;
            receipts.iter().map(|(_, receipt)| parse(receipt)).collect()
        };
        self.engine.read(work).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    fn open(dir: &Path) -> EmbeddedRegistry {
        EmbeddedRegistry::open(dir, AeadKey::new([7; 32]), Room::new(dir, 0)).unwrap()
    }

    #[tokio::test]
    async fn conforms_and_everything_is_there_after_opening_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        conformance::registry(&store).await;
        let near = store.near(vec![conformance::FEATURE], 10, 9).await.unwrap();
        let (registered, log) = (store.registered().await, store.deletions(0, 9).await);
        drop(store);
        let store = open(dir.path());
        assert_eq!(
            store.near(vec![conformance::FEATURE], 10, 9).await.unwrap(),
            near
        );
        assert!(!near.is_empty());
        assert_eq!(store.registered().await.unwrap(), registered.unwrap());
        assert_eq!(store.deletions(0, 9).await.unwrap(), log.unwrap());
    }

    #[tokio::test]
    async fn secrets_are_not_on_the_disk_in_the_clear() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        conformance::registry(&store).await;
        let ticket = store.ticket((conformance::CONTRACT, 0)).await.unwrap();
        let seed = *ticket.unwrap().secret.expose_seed();
        drop(store);
        let mut dirs = vec![dir.path().to_owned()];
        let mut bytes = 0;
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                    continue;
                }
                let content = std::fs::read(path).unwrap();
                bytes += content.len();
                assert!(!content.windows(32).any(|w| w == seed));
            }
        }
        assert!(bytes > 100);
        // With another key nothing opens.
        let other = AeadKey::new([8; 32]);
        let store = EmbeddedRegistry::open(dir.path(), other, Room::new(dir.path(), 0)).unwrap();
        assert!(store.ticket((conformance::CONTRACT, 0)).await.is_err());
    }
}
