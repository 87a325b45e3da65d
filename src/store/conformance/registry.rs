// SPDX-License-Identifier: MPL-2.0
//! The suite of [`Registry`].

use super::*;
use crate::store::tables::{Engine, TableRegistry};

/// The contract of [`registry`] that is not deleted.
pub const CONTRACT: Hash = [0xc1; 32];
/// A feature of its first ticket.
pub const FEATURE: u64 = 0x0123_4567_89ab_cdef;

/// The suite of [`Registry`].
pub async fn registry(store: &dyn Registry) {
    let ttp = std::sync::Arc::new(crate::identity::Identity::from_secret([9; 32]).unwrap());
    parties(store).await;
    let signed = |name: &str| {
        let note = crate::protocol::Deletion {
            index: 0,
            previous: [0; 32].into(),
            contract: hash(name).into(),
            tickets: 0,
            deleted_ms: 0,
        };
        crate::protocol::Signed::new(&note)
    };
    let (first, other) = (signed("first"), signed("other"));
    let added = store.add_contract(CONTRACT, first.clone()).await.unwrap();
    assert_eq!(added, first);
    let again = store.add_contract(CONTRACT, other.clone()).await.unwrap();
    assert_eq!(again, first);
    let gone = [0xc2; 32];
    store.add_contract(gone, other).await.unwrap();
    assert_eq!(store.contract([0; 32]).await.unwrap(), None);
    let record = store.contract(CONTRACT).await.unwrap().unwrap();
    assert_eq!((record.tickets, record.deleted), (0, None));

    tickets(store, gone).await;
    reports(store).await;
    deletions(store, gone, ttp).await;

    assert_eq!(store.parameters().await.unwrap(), None);
    for made in [vec![1; 900], vec![2; 900]] {
        assert_eq!(store.add_parameters(made).await.unwrap(), [1; 900]);
    }
    assert_eq!(store.parameters().await.unwrap(), Some(vec![1; 900]));
    // They are no party.
    assert_eq!(
        store
            .party(*b"parameters                      ")
            .await
            .unwrap(),
        None
    );
    let (a, b) = ([0xd1; 16], [0xd2; 16]);
    for (mark, now, fresh) in [(a, 5, true), (a, 6, false), (b, 6, true), (a, 200, true)] {
        let once = store.once(mark, now + 100, now).await;
        assert_eq!(once.unwrap(), fresh, "{mark:?} at {now}");
    }
}

/// What two registries over one empty database have to keep to, which draw the same words. Without
/// `calm` their connections break, and more tickets may be issued than they know of.
pub async fn registries<E: Engine>(one: &TableRegistry<E>, other: &TableRegistry<E>, calm: bool) {
    use crate::protocol::{Deletion, Signed};
    use std::collections::HashSet;
    const CONTRACTS: u8 = 6;
    const ROUNDS: u8 = 5;
    let ttp = std::sync::Arc::new(crate::identity::Identity::from_secret([9; 32]).unwrap());
    let contract = |n: u8| [n; 32];
    let signed = |n: u8| {
        Signed::new(&Deletion {
            index: 0,
            previous: [0; 32].into(),
            contract: contract(n).into(),
            tickets: 0,
            deleted_ms: 0,
        })
    };
    // The same contract brought to both stands once.
    for n in 0..CONTRACTS {
        let (a, b) = tokio::join!(
            one.add_contract(contract(n), signed(n)),
            other.add_contract(contract(n), signed(n + 100)),
        );
        assert_eq!(a.unwrap(), b.unwrap());
    }
    // One owner's tickets, of all contracts from both, the same words in the same order.
    let mut issuing = vec![];
    for n in 0..CONTRACTS {
        for store in [one.clone(), other.clone()] {
            issuing.push(tokio::spawn(async move {
                let mut issued = vec![];
                for round in 0..ROUNDS {
                    let wanted = wanted(contract(n), "owner", 3);
                    match store.issue_alike([round; 32], wanted).await {
                        Issued::Tickets(tickets) => issued.extend(tickets),
                        other => panic!("{other:?}"),
                    }
                }
                (n, issued)
            }));
        }
    }
    let (mut words, mut numbers) = (HashSet::new(), HashSet::new());
    for issued in issuing {
        let (n, tickets) = issued.await.unwrap();
        for ticket in tickets {
            let word = ticket.secret.word().unwrap();
            assert!(words.insert(word.0 ^ ticket.secret.key().pad().0));
            assert!(numbers.insert((n, ticket.number)));
        }
    }
    let each = u64::from(ROUNDS) * 6;
    let all = u64::from(CONTRACTS) * each;
    assert_eq!(words.len() as u64, all);
    let is = |count: u64, expected| count == expected || !calm && count > expected;
    assert!(!calm || numbers.iter().all(|(_, number)| *number < each));
    let registered = one.registered().await.unwrap();
    assert!(is(registered, all), "{registered}");
    for store in [one, other] {
        assert_eq!(store.registered().await.unwrap(), registered);
        let near = store.near(vec![FEATURE], 0, 1000).await.unwrap();
        assert_eq!(near.len() as u64, registered);
    }
    // What was reported to either is found by both, at once.
    for (n, store) in [(0, one), (1, other)] {
        let used = Used {
            started_ms: 1,
            hashes: vec![!FEATURE ^ u64::from(n)],
            frames: 1,
            commitment: [0; 32].into(),
        };
        let lot = Lot {
            seed: [0; 32],
            drawn: false,
            possible: false,
            now: 1,
        };
        let reported = store.report((contract(n), 3), used, lot).await.unwrap();
        assert_eq!(reported.0, Reported::Done);
        for store in [one, other] {
            let near = store.near(vec![!FEATURE ^ u64::from(n)], 0, 9).await;
            assert_eq!(near.unwrap(), [(contract(n), 3)]);
        }
    }
    // A request that was sent to both.
    let (a, b) = tokio::join!(one.once([1; 16], 100, 50), other.once([1; 16], 100, 50));
    let [a, b] = [a, b].map(|once| {
        if calm {
            once.unwrap()
        } else {
            once.unwrap_or(false)
        }
    });
    assert!(!(a && b) && (a || b || !calm));
    // One chain of deletions, with each contract once.
    let mut deleting = vec![];
    for n in 0..CONTRACTS {
        for store in [one.clone(), other.clone()] {
            let ttp = ttp.clone();
            deleting.push(tokio::spawn(async move {
                store.delete(contract(n), u64::from(n), ttp).await.unwrap()
            }));
        }
    }
    for deleted in deleting {
        assert!(deleted.await.unwrap().is_some());
    }
    let log = one.deletions(0, 99).await.unwrap();
    assert_eq!(log, other.deletions(0, 99).await.unwrap());
    assert_eq!(log.len(), usize::from(CONTRACTS));
    let (key, mut previous) = (ttp.public().sign, [0; 32]);
    let mut deleted = HashSet::new();
    for (index, receipt) in (0..).zip(&log) {
        let deletion = receipt.verify::<Deletion>(&[&key]).unwrap();
        assert_eq!((deletion.index, *deletion.previous), (index, previous));
        assert!(is(deletion.tickets, each), "{}", deletion.tickets);
        assert!(deleted.insert(*deletion.contract));
        previous = receipt.id::<Deletion>();
    }
}

async fn parties(store: &dyn Registry) {
    let key = |n: u8| CloudKey {
        certified: vec![n].into(),
        modulus: vec![n, n].into(),
    };
    let party = |agree: &str, key| PartyRecord {
        agree: hash(agree).into(),
        key,
    };
    let sign = hash("party");
    assert_eq!(store.party(sign).await.unwrap(), None);
    for (record, expected) in [
        (party("a", None), Registering::Done),
        (party("b", None), Registering::Conflict),
        (party("a", Some(key(1))), Registering::Done),
        (party("a", None), Registering::Done),
        (party("a", Some(key(2))), Registering::Conflict),
        (party("a", Some(key(1))), Registering::Done),
    ] {
        assert_eq!(store.register(sign, record).await.unwrap(), expected);
    }
    let kept = store.party(sign).await.unwrap().unwrap();
    assert_eq!(kept, party("a", Some(key(1))));
}

fn wanted(contract: Hash, owner: &str, count: u32) -> Wanted {
    Wanted {
        contract,
        owner: hash(owner),
        count,
        mode: crate::protocol::Mode::Packed,
        size: [640, 480],
        feature: Some(FEATURE),
        issued_ms: 5,
        expires_ms: 6,
    }
}

async fn issue(store: &dyn Registry, wanted: Wanted) -> Vec<Ticket> {
    match store.issue(wanted).await.unwrap() {
        Issued::Tickets(tickets) => tickets,
        other => panic!("{other:?}"),
    }
}

async fn tickets(store: &dyn Registry, gone: Hash) {
    assert_eq!(store.registered().await.unwrap(), 0);
    let unknown = store.issue(wanted([0; 32], "owner", 1)).await.unwrap();
    assert!(matches!(unknown, Issued::Unknown));
    let mut words = std::collections::HashSet::new();
    let mut seeds = std::collections::HashSet::new();
    for round in 0..3 {
        let tickets = issue(store, wanted(CONTRACT, "owner", 4)).await;
        for (i, ticket) in tickets.iter().enumerate() {
            assert_eq!(ticket.number, round * 4 + i as u64);
            let word = ticket.secret.word().unwrap();
            assert!(words.insert(word.0 ^ ticket.secret.key().pad().0));
            assert!(seeds.insert(*ticket.secret.expose_seed()));
            let kept = store.ticket((CONTRACT, ticket.number)).await.unwrap();
            let kept = kept.unwrap();
            assert_eq!(kept.secret.expose_seed(), ticket.secret.expose_seed());
            assert_eq!(kept.secret.word().unwrap(), word);
            assert_eq!((kept.size, kept.issued_ms), ([640, 480], 5));
            assert_eq!((kept.expires_ms, kept.used), (6, None));
        }
    }
    assert!(store.ticket((CONTRACT, 12)).await.unwrap().is_none());
    let plain = Wanted {
        feature: None,
        ..wanted(gone, "owner", 2)
    };
    assert_eq!(issue(store, plain).await[0].number, 0);
    assert_eq!(store.registered().await.unwrap(), 14);
    let record = store.contract(CONTRACT).await.unwrap().unwrap();
    assert_eq!(record.tickets, 12);
}

async fn reports(store: &dyn Registry) {
    // 10 bits away from the feature that tickets were asked for with.
    let far = FEATURE ^ 0x3ff;
    let used = Used {
        started_ms: 1,
        hashes: vec![!FEATURE, far],
        frames: 30,
        commitment: hash("frames").into(),
    };
    let (first, second) = ((CONTRACT, 0), (CONTRACT, 7));
    let lot = |drawn, n| Lot {
        seed: [n; 32],
        drawn,
        possible: true,
        now: 1000,
    };
    let report = async |id, used: &Used, lot| store.report(id, used.clone(), lot).await.unwrap();
    let unknown = report((CONTRACT, 99), &used, lot(true, 1)).await;
    assert_eq!(unknown, (Reported::Unknown, None));
    // What was drawn first stands.
    let audit = lot(true, 1).audit();
    for n in [1, 2] {
        let done = report(second, &used, lot(true, n)).await;
        assert_eq!(done, (Reported::Done, Some(audit.clone())));
    }
    let other = Used {
        frames: 31,
        ..used.clone()
    };
    let conflict = report(second, &other, lot(true, 1)).await;
    assert_eq!(conflict, (Reported::Conflict, None));
    audits(store, &used, second, lot).await;
    assert_eq!(
        store.ticket(second).await.unwrap().unwrap().used,
        Some(used)
    );
    assert_eq!(
        store.near(vec![!FEATURE], 10, 9).await.unwrap(),
        vec![second]
    );
    assert_eq!(store.near(vec![far], 9, 9).await.unwrap(), vec![second]);
    for (id, now, expected) in [
        ((CONTRACT, 99), 1, Reported::Unknown),
        (second, 2, Reported::Done),
        (second, 3, Reported::Done),
    ] {
        assert_eq!(store.retrieved(id, now).await.unwrap(), expected);
    }
    let kept = store.ticket(second).await.unwrap().unwrap();
    assert_eq!((kept.retrieved_ms, kept.used.is_some()), (Some(2), true));
    let all = store.near(vec![far], 10, 99).await.unwrap();
    assert_eq!((all.len(), all[0]), (12, second));
    assert_eq!(all[1], (CONTRACT, 11));
    assert_eq!(all[11], first);
    assert_eq!(store.near(vec![far, !far], 10, 3).await.unwrap().len(), 3);
}

/// Of a ticket that was reported and is audited.
async fn audits(store: &dyn Registry, used: &Used, first: TicketId, lot: impl Fn(bool, u8) -> Lot) {
    use crate::protocol::{AuditCounts, Audited};
    let used = Used {
        hashes: Vec::new(),
        ..used.clone()
    };
    let outcome = |passed, note: &str| AuditOutcome {
        passed,
        note: note.into(),
    };
    let audited = async |id, outcome, now| store.audited(id, outcome, now).await.unwrap();
    let counts = async |now| {
        let record = store.contract(CONTRACT).await.unwrap().unwrap();
        let AuditCounts {
            passed,
            failed,
            unanswered,
            ..
        } = record.audits(now);
        (passed, failed, unanswered)
    };
    let state = async |id, now| {
        let ticket = store.ticket(id).await.unwrap().unwrap();
        ticket.audit.map(|audit| audit.state(now))
    };
    let until = lot(true, 1).audit().until_ms;
    assert_eq!(counts(until).await, (0, 0, 0));
    assert_eq!(counts(until + 1).await, (0, 0, 1));
    assert_eq!(state(first, until).await, Some(Audited::Asked));
    assert_eq!(state(first, until + 1).await, Some(Audited::Unanswered));
    let unknown = audited((CONTRACT, 99), outcome(true, ""), 1000).await;
    assert_eq!(unknown, Reported::Unknown);
    for (passed, now, expected) in [
        (true, until + 1, Reported::Conflict),
        (true, until, Reported::Done),
        (true, until, Reported::Done),
        (false, until, Reported::Conflict),
    ] {
        assert_eq!(audited(first, outcome(passed, "x"), now).await, expected);
    }
    assert_eq!(counts(until + 1).await, (1, 0, 0));
    assert_eq!(state(first, until + 1).await, Some(Audited::Passed));

    // Not drawn; then demanded, once.
    let report = async |id, lot| store.report(id, used.clone(), lot).await.unwrap().1;
    assert_eq!(report((CONTRACT, 2), lot(false, 1)).await, None);
    let none = audited((CONTRACT, 2), outcome(true, ""), 1000).await;
    assert_eq!(none, Reported::Conflict);
    assert_eq!(store.demand([0; 32]).await.unwrap(), Reported::Unknown);
    assert_eq!(store.demand(CONTRACT).await.unwrap(), Reported::Done);
    let impossible = Lot {
        possible: false,
        ..lot(true, 1)
    };
    assert_eq!(report((CONTRACT, 3), impossible).await, None);
    assert!(report((CONTRACT, 4), lot(false, 3)).await.is_some());
    assert_eq!(report((CONTRACT, 5), lot(false, 3)).await, None);
    let failed = audited((CONTRACT, 4), outcome(false, "why"), 1000).await;
    assert_eq!(failed, Reported::Done);
    assert_eq!(counts(until + 1).await, (1, 1, 0));
    assert_eq!(state((CONTRACT, 4), until + 1).await, Some(Audited::Failed));

    // What the cloud has received.
    let (same, other) = (
        used.sent(),
        Received {
            frames: 1,
            ..used.sent()
        },
    );
    let agrees = async |id| store.ticket(id).await.unwrap().unwrap().agrees();
    assert!(!agrees((CONTRACT, 5)).await);
    for (number, received, expected, failed) in [
        (99, same, Reported::Unknown, 1),
        (5, same, Reported::Done, 1),
        (5, same, Reported::Done, 1),
        (4, other, Reported::Conflict, 2),
        // Before the report.
        (6, other, Reported::Done, 2),
        (6, same, Reported::Conflict, 3),
    ] {
        let id = (CONTRACT, number);
        assert_eq!(store.received(id, received).await.unwrap(), expected);
        assert_eq!(counts(until + 1).await, (1, failed, 0), "{number}");
    }
    assert!(agrees((CONTRACT, 5)).await);
    assert!(!agrees((CONTRACT, 4)).await);
    let unreported = async || {
        let record = store.contract(CONTRACT).await.unwrap().unwrap();
        record.audits(0).unreported
    };
    assert_eq!(unreported().await, 1);
    report((CONTRACT, 6), lot(false, 1)).await;
    assert_eq!(unreported().await, 0);
    assert!(!agrees((CONTRACT, 6)).await);
    assert_eq!(counts(until + 1).await, (1, 4, 0));
}

async fn deletions(
    store: &dyn Registry,
    gone: Hash,
    ttp: std::sync::Arc<crate::identity::Identity>,
) {
    use crate::protocol::Deletion;
    let none = store.delete([0; 32], 1, ttp.clone()).await.unwrap();
    assert_eq!(none, None);
    assert_eq!(store.deletions(0, 9).await.unwrap(), vec![]);
    let mut receipts = vec![];
    for (id, now) in [(gone, 70), ([0xc3; 32], 71)] {
        let note = crate::protocol::Signed::new(&Deletion {
            index: 0,
            previous: [0; 32].into(),
            contract: id.into(),
            tickets: 0,
            deleted_ms: 0,
        });
        store.add_contract(id, note).await.unwrap();
        let receipt = store.delete(id, now, ttp.clone()).await.unwrap().unwrap();
        let again = store.delete(id, 99, ttp.clone()).await.unwrap().unwrap();
        assert_eq!(receipt, again);
        receipts.push(receipt);
    }
    let key = &ttp.public().sign;
    let [first, second] = [0, 1].map(|i| receipts[i].verify::<Deletion>(&[key]).unwrap());
    assert_eq!((first.index, *first.previous), (0, [0; 32]));
    assert_eq!((first.tickets, first.deleted_ms), (2, 70));
    assert_eq!((second.index, second.tickets), (1, 0));
    assert_eq!(*second.previous, receipts[0].id::<Deletion>());
    assert_eq!(store.deletions(0, 9).await.unwrap(), receipts);
    assert_eq!(store.deletions(0, 1).await.unwrap(), receipts[..1]);
    assert_eq!(store.deletions(1, 9).await.unwrap(), receipts[1..]);
    assert_eq!(store.deletions(u64::MAX, 9).await.unwrap(), vec![]);
    let record = store.contract(gone).await.unwrap().unwrap();
    assert_eq!(record.deleted, Some((0, 70)));
    let refused = store.issue(wanted(gone, "owner", 1)).await.unwrap();
    assert!(matches!(refused, Issued::Deleted));
    let refused = store.retrieved((gone, 0), 1).await.unwrap();
    assert_eq!(refused, Reported::Conflict);
    // What arbitration needs stays.
    assert!(store.ticket((gone, 0)).await.unwrap().is_some());
}
