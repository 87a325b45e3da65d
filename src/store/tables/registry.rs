// SPDX-License-Identifier: MPL-2.0
//! [`Registry`] over an [`Engine`], which several third parties may have open.
//!
//! Perceptual hashes are searched for in memory. So that each process knows those that came through
//! others, whatever adds tickets or hashes adds an entry to a log in the same transaction, and
//! whoever searches first reads what it has not read yet. The log has [`STRANDS`], of which a
//! writer takes any: within one, entries are committed in the order of their numbers, because
//! writers wait for each other there.

use super::copy::{self, Whole};
use super::servers;
use super::{Engine, Needs, Space, Tx, behind, following, parse};
use crate::feature::{PHash, index::Index};
use crate::identity::{AeadKey, Identity};
use crate::mac::hmac;
use crate::protocol::{B32, Deletion, Mode, Signed};
use crate::store::registry::{
    AuditOutcome, CODE, ContractRecord, Issued, Lot, PartyRecord, Received, Registering, Registry,
    Reported, Ticket, TicketAudit, TicketId, TicketSecrets, Used, Wanted, word_mark,
};
use crate::store::{Error, Hash, Mark};
use async_trait::async_trait;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

/// A third party's store over an engine. Clones share it.
#[derive(Clone)]
pub struct TableRegistry<E> {
    engine: E,
    key: AeadKey,
    seen: Arc<Seen>,
}

/// What this process has read of the log of features. Lock order: `read`, then `known`.
#[derive(Default)]
struct Seen {
    read: Mutex<Read>,
    known: RwLock<Known>,
}

/// How far each strand was read: the number of the next entry.
type Read = [u64; STRANDS as usize];

/// What the log says.
#[derive(Default)]
struct Known {
    /// Features, with a place in `tickets` as their id.
    index: Index,
    tickets: Vec<TicketId>,
    registered: u64,
}

impl Known {
    /// Takes note of an entry: what the index has to have of it.
    fn note(&mut self, entry: &Entry) -> Vec<(PHash, u64)> {
        self.registered += u64::from(entry.issued);
        let mut found = Vec::new();
        if !entry.hashes.is_empty() {
            for number in (entry.first..).take(entry.issued.max(1) as usize) {
                let place = self.tickets.len() as u64;
                self.tickets.push((*entry.contract, number));
                found.extend(entry.hashes.iter().map(|&hash| (PHash(hash), place)));
            }
        }
        found
    }
}

/// Strands of the log of features. In fewer, writers wait for each other more often; each is asked
/// for what is new.
const STRANDS: u8 = 16;
/// Entries of a strand, or tickets, that are read at a time.
const PAGE: usize = 512;

/// An entry of the log of features: tickets that were issued, or what was reported of one.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
struct Entry {
    #[n(0)]
    contract: B32,
    /// Number of the ticket, or of the first.
    #[n(1)]
    first: u64,
    /// How many were issued; 0: one was reported.
    #[n(2)]
    issued: u32,
    /// Of each of them.
    #[n(3)]
    hashes: Vec<u64>,
}

/// Chance that an operation has taken beforehand: it stays the same when work is done again.
struct Chance {
    strand: u8,
    words: Zeroizing<[u8; 32]>,
}

impl Chance {
    fn draw() -> Result<Self, Error> {
        let (mut strand, mut words) = ([0], Zeroizing::new([0; 32]));
        getrandom::fill(&mut strand).map_err(|_| Error::Random)?;
        getrandom::fill(&mut *words).map_err(|_| Error::Random)?;
        Ok(Self {
            strand: strand[0] % STRANDS,
            words,
        })
    }

    /// Identities in a random order, in which they may come again.
    fn identities(&self) -> impl Iterator<Item = Zeroizing<u32>> {
        (0u64..).map(|i| {
            let random = hmac(&self.words, &[b"camvault ttp draw v1", &i.to_be_bytes()]);
            let first = random.iter().take(4);
            let number = first.fold(0, |n, &byte| n << 8 | u32::from(byte));
            // The number of identities is a power of two.
            Zeroizing::new(number & (CODE.identities() - 1))
        })
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

/// Where the parameters of key proofs are, among the parties.
const PARAMETERS: &[u8] = b"parameters";

/// What follows the last entry of a strand: the next one's number.
const NEXT: &[u8] = b"next";

fn next_key(strand: u8) -> Vec<u8> {
    [&[strand], NEXT].concat()
}

fn entry_key(strand: u8, number: u64) -> Vec<u8> {
    [&[strand], number.to_be_bytes().as_slice()].concat()
}

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

impl<E: Engine> TableRegistry<E> {
    /// Over an open database; `key` seals the secrets of tickets.
    pub(in crate::store) async fn new(engine: E, key: AeadKey) -> Result<Self, Error> {
        copy::check_whole(&engine, &Whole::REGISTRY).await?;
        begin_log(&engine).await?;
        let (mut read, mut known, mut hashes) = (Read::default(), Known::default(), Vec::new());
        while let Some(entries) = entries(&engine, &mut read).await? {
            hashes.extend(entries.iter().flat_map(|entry| known.note(entry)));
        }
        known.index = Index::build(hashes);
        let seen = Seen {
            read: Mutex::new(read),
            known: RwLock::new(known),
        };
        Ok(Self {
            engine,
            key,
            seen: Arc::new(seen),
        })
    }

    /// Copies everything into a database, which holds no registry or what an interrupted copy has
    /// left; then compares both. Nobody may serve this one meanwhile. `told` hears how many rows
    /// there are by now.
    pub(in crate::store) async fn copy_into<F: Engine>(
        &self,
        to: &F,
        told: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Error> {
        copy::fill(&self.engine, to, &Whole::REGISTRY, told).await
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        let known = self.seen.known.read();
        known.unwrap_or_else(PoisonError::into_inner)
    }

    fn known_mut(&self) -> RwLockWriteGuard<'_, Known> {
        let known = self.seen.known.write();
        known.unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of all that was added before, by whichever process.
    async fn catch_up(&self) -> Result<(), Error> {
        let mut read = self.seen.read.lock().await;
        while let Some(entries) = entries(&self.engine, &mut read).await? {
            let mut known = self.known_mut();
            for entry in &entries {
                for (hash, place) in known.note(entry) {
                    known.index.insert(hash, place);
                }
            }
        }
        Ok(())
    }

    /// Issues tickets whose words are tried in an order that `words` says.
    #[cfg(test)]
    pub(in crate::store) async fn issue_alike(&self, words: [u8; 32], wanted: Wanted) -> Issued {
        let (key, words) = (self.key.clone(), Zeroizing::new(words));
        let chance = Chance { strand: 0, words };
        let work = move |tx: &mut Tx<'_>| issue(tx, &key, &chance, &wanted);
        self.engine.write(Needs::Room, work).await.unwrap()
    }

    /// Forgets the log, as it was before there was one.
    #[cfg(test)]
    pub(in crate::store) async fn forget_log(&self) {
        let forget = |tx: &mut Tx<'_>| {
            let all = tx.walk(Space::Features, &[], &behind(&[]), usize::MAX)?;
            all.into_iter()
                .for_each(|(key, _)| tx.remove(Space::Features, key));
            Ok(())
        };
        self.engine.write(Needs::Reserve, forget).await.unwrap();
    }
}

/// The next entries of the log, of all strands; `None`: there are no more.
async fn entries<E: Engine>(engine: &E, read: &mut Read) -> Result<Option<Vec<Entry>>, Error> {
    let from = *read;
    let work = move |tx: &Tx<'_>| {
        let strand = |(strand, &from): (u8, &u64)| {
            let (first, end) = (entry_key(strand, from), next_key(strand));
            tx.walk(Space::Features, &first, &end, PAGE)
        };
        (0..STRANDS)
            .zip(&from)
            .map(strand)
            .collect::<Result<Vec<_>, _>>()
    };
    let strands = engine.read(work).await?;
    let (mut after, mut entries) = (from, Vec::new());
    for (pairs, after) in strands.iter().zip(&mut after) {
        for (key, value) in pairs {
            let number = key.get(1..).and_then(|number| number.try_into().ok());
            let number = number.ok_or(Error::Corrupt("log of features"))?;
            *after = u64::from_be_bytes(number).saturating_add(1);
            entries.push(parse(value)?);
        }
    }
    // Nothing is waited for from here until the caller has taken note.
    *read = after;
    Ok((!entries.is_empty()).then_some(entries))
}

/// Adds an entry to the log of features.
fn note(tx: &mut Tx<'_>, chance: &Chance, entry: &Entry) -> Result<(), Error> {
    let next = next_key(chance.strand);
    let number: u64 = tx.get(Space::Features, &next)?.unwrap_or_default();
    tx.put(Space::Features, entry_key(chance.strand, number), entry);
    tx.put(Space::Features, next, &(number + 1));
    Ok(())
}

/// Whether there is a log.
fn has_log(tx: &Tx<'_>) -> Result<bool, Error> {
    let next = |strand| Ok(tx.bytes(Space::Features, &next_key(strand))?.is_some());
    // All are asked for, so that all are locked.
    let found: Vec<bool> = (0..STRANDS).map(next).collect::<Result<_, Error>>()?;
    Ok(found.contains(&true))
}

/// Makes the log of a registry that is older than it, from the tickets.
async fn begin_log<E: Engine>(engine: &E) -> Result<(), Error> {
    if engine.read(has_log).await? {
        return Ok(());
    }
    let (mut next, mut from) = (0u64, Vec::new());
    loop {
        let first = from.clone();
        let page = move |tx: &Tx<'_>| tx.walk(Space::Tickets, &first, &behind(&[]), PAGE);
        let page = engine.read(page).await?;
        let Some((last, _)) = page.last() else { break };
        from = following(last);
        let entry = |(key, value): &(Vec<u8>, Vec<u8>)| {
            let (contract, first) = ticket_id(key)?;
            let record: TicketRecord = parse(value)?;
            let used = record.used.into_iter().flat_map(|used| used.hashes);
            Ok(Entry {
                contract: contract.into(),
                first,
                issued: 1,
                hashes: used.chain(record.feature).collect(),
            })
        };
        let entries: Vec<Entry> = page.iter().map(entry).collect::<Result<_, Error>>()?;
        let begin = next;
        next += entries.len() as u64;
        let put = move |tx: &mut Tx<'_>| {
            // Another process may have made it meanwhile.
            if !has_log(tx)? {
                for (number, entry) in (begin..).zip(&entries) {
                    tx.put(Space::Features, entry_key(0, number), entry);
                }
            }
            Ok(())
        };
        engine.write(Needs::Reserve, put).await?;
    }
    let end = move |tx: &mut Tx<'_>| {
        if next > 0 && !has_log(tx)? {
            tx.put(Space::Features, next_key(0), &next);
        }
        Ok(())
    };
    engine.write(Needs::Reserve, end).await
}

/// The next of `identities` that the owner has never had, from now on given away; `None` if none
/// was found.
fn draw_word(
    tx: &mut Tx<'_>,
    key: &AeadKey,
    owner: &Hash,
    identities: impl Iterator<Item = Zeroizing<u32>>,
) -> Result<Option<Zeroizing<u32>>, Error> {
    for identity in identities.take(TRIES) {
        let mark = word_mark(key, owner, *identity).to_vec();
        if tx.bytes(Space::Words, &mark)?.is_none() {
            tx.put_bytes(Space::Words, mark, Vec::new());
            return Ok(Some(identity));
        }
    }
    Ok(None)
}

fn issue(
    tx: &mut Tx<'_>,
    key: &AeadKey,
    chance: &Chance,
    wanted: &Wanted,
) -> Result<Issued, Error> {
    let contract: Option<ContractRecord> = tx.get(Space::Contracts, &wanted.contract)?;
    // Before it is known whether there is a contract, so that all is asked for at once.
    let (mut words, mut identities) = (Vec::new(), chance.identities());
    for _ in 0..wanted.count {
        words.push(draw_word(tx, key, &wanted.owner, &mut identities)?);
    }
    let entry = Entry {
        contract: wanted.contract.into(),
        first: contract.as_ref().map_or(0, |contract| contract.tickets),
        issued: wanted.count,
        hashes: wanted.feature.into_iter().collect(),
    };
    note(tx, chance, &entry)?;
    let Some(mut contract) = contract else {
        tx.abandon();
        return Ok(Issued::Unknown);
    };
    if contract.deleted.is_some() {
        tx.abandon();
        return Ok(Issued::Deleted);
    }
    let mut tickets = Vec::new();
    for word in words {
        let Some(identity) = word else {
            tx.abandon();
            return Ok(Issued::Exhausted);
        };
        let secret = TicketSecrets::draw(*identity)?;
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

/// Notes a report: what came of it, and what is asked.
fn report(
    tx: &mut Tx<'_>,
    id: &TicketId,
    used: &Used,
    lot: &Lot,
    chance: &Chance,
) -> Result<(Reported, Option<TicketAudit>), Error> {
    if !used.hashes.is_empty() {
        // Before anything else, so that all is asked for at once.
        let entry = Entry {
            contract: id.0.into(),
            first: id.1,
            issued: 0,
            hashes: used.hashes.clone(),
        };
        note(tx, chance, &entry)?;
    }
    let Some((mut contract, mut record)) = both(tx, id)? else {
        tx.abandon();
        return Ok((Reported::Unknown, None));
    };
    if let Some(before) = &record.used {
        tx.abandon();
        return Ok(match before == used {
            true => (Reported::Done, record.audit),
            false => (Reported::Conflict, None),
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
    record.used = Some(used.clone());
    store(tx, id, &contract, &record);
    Ok((Reported::Done, record.audit))
}

fn delete(tx: &mut Tx<'_>, id: Hash, now: u64, ttp: &Identity) -> Result<Option<Signed>, Error> {
    let contract: Option<ContractRecord> = tx.get(Space::Contracts, &id)?;
    let end: Option<LogEnd> = tx.get(Space::Log, LOG_END)?;
    let Some(mut contract) = contract else {
        return Ok(None);
    };
    if let Some((index, _)) = contract.deleted {
        let receipt = tx.get(Space::Log, &index.to_be_bytes())?;
        return receipt.map(Some).ok_or(Error::Corrupt("log of deletions"));
    }
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
impl<E: Engine> Registry for TableRegistry<E> {
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
        let (key, chance) = (self.key.clone(), Chance::draw()?);
        let work = move |tx: &mut Tx<'_>| issue(tx, &key, &chance, &wanted);
        self.engine.write(Needs::Room, work).await
    }

    async fn tickets(&self, ids: Vec<TicketId>) -> Result<Vec<Option<Ticket>>, Error> {
        let key = self.key.clone();
        let work = move |tx: &Tx<'_>| {
            let open = |id: &TicketId| {
                let record: Option<TicketRecord> = tx.get(Space::Tickets, &ticket_key(id))?;
                record.map(|record| record.open(&key, id)).transpose()
            };
            ids.iter().map(open).collect()
        };
        self.engine.read(work).await
    }

    async fn report(
        &self,
        id: TicketId,
        used: Used,
        lot: Lot,
    ) -> Result<(Reported, Option<TicketAudit>), Error> {
        let chance = Chance::draw()?;
        let work = move |tx: &mut Tx<'_>| report(tx, &id, &used, &lot, &chance);
        self.engine.write(Needs::Room, work).await
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
        self.catch_up().await?;
        let this = self.clone();
        let work = move || {
            let known = this.known();
            let mut nearest: HashMap<TicketId, u32> = HashMap::new();
            for hash in hashes {
                for found in known.index.within(PHash(hash), radius) {
                    let id = usize::try_from(found.id).ok();
                    if let Some(id) = id.and_then(|id| known.tickets.get(id)) {
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
        self.catch_up().await?;
        Ok(self.known().registered)
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

    async fn parameters(&self) -> Result<Option<Vec<u8>>, Error> {
        self.engine
            .read(|tx| tx.bytes(Space::Parties, PARAMETERS))
            .await
    }

    async fn add_parameters(&self, made: Vec<u8>) -> Result<Vec<u8>, Error> {
        let work = move |tx: &mut Tx<'_>| {
            if let Some(before) = tx.bytes(Space::Parties, PARAMETERS)? {
                return Ok(before);
            }
            tx.put_bytes(Space::Parties, PARAMETERS.to_vec(), made.clone());
            Ok(made.clone())
        };
        self.engine.write(Needs::Room, work).await
    }

    async fn once(&self, what: Mark, until: u64, now: u64) -> Result<bool, Error> {
        self.engine
            .write(Needs::Once, move |tx| servers::once(tx, &what, until, now))
            .await
    }
}
