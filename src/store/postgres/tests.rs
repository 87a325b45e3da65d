// SPDX-License-Identifier: MPL-2.0
//! The suite of [`Metadata`], and what several servers over one database have to keep to, on a
//! PostgreSQL server that the tests start.

use super::*;
use crate::protocol::{ChunkRef, Commit, Committed, Outcome};
use crate::store::postgres_server::PostgresServer;
use crate::store::{
    EmbeddedRegistry, Forgotten, Hash, Item, Metadata, Registry as _, Room, conformance,
};

async fn open(url: &str) -> Postgres {
    let tree = Tree::new(conformance::MASTER);
    Postgres::open(&url.parse().unwrap(), tree, [1; 32])
        .await
        .unwrap()
}

#[tokio::test]
async fn conforms_and_mends_wrong_counts() {
    let server = PostgresServer::start();
    let url = server.database("vault");
    let store = open(&url).await;
    conformance::metadata(&store).await;
    let right = store.stats().await.unwrap();
    let spoilt = store.spoil().await;
    drop(store);
    let store = open(&url).await;
    conformance::mended(&store, spoilt, right).await;
}

#[tokio::test]
async fn other_secrets_and_newer_tables_are_refused() {
    let server = PostgresServer::start();
    let url = server.database("vault");
    open(&url).await;
    let tree = || Tree::new(conformance::MASTER);
    let address: PostgresUrl = url.parse().unwrap();
    let other = Postgres::open(&address, tree(), [2; 32]).await;
    let error = other.err().unwrap().to_string();
    assert!(error.contains("other secrets"), "{error}");
    server.run("vault", "update camvault.settings set version = 99");
    let newer = Postgres::open(&address, tree(), [1; 32]).await;
    let error = newer.err().unwrap().to_string();
    assert!(error.contains("newer camvault"), "{error}");
}

#[tokio::test]
async fn tables_of_the_first_version_are_brought_up_to_date() {
    let server = PostgresServer::start();
    let url = server.database("vault");
    let leaf = open(&url).await.enroll([1; 32], [1; 32]).await.unwrap();
    server.run(
        "vault",
        "drop table camvault.members, camvault.parties, camvault.contracts, camvault.tickets,
             camvault.words, camvault.log, camvault.features;
         alter table camvault.settings drop column registry_secrets;
         update camvault.settings set version = 1",
    );
    let store = open(&url).await;
    let owner = store.owner([1; 32]).await.unwrap().unwrap();
    assert_eq!(owner.leaf, leaf);
    assert_eq!(store.audit(0).await.unwrap().mended, 0);
    let version = "select 1 / (version = 2)::int from camvault.settings";
    server.run("vault", version);
    assert_eq!(registry(&url).await.registered().await.unwrap(), 0);
}

async fn registry(url: &str) -> PostgresRegistry {
    let key = AeadKey::new([7; 32]);
    PostgresRegistry::open(&url.parse().unwrap(), key, [3; 32])
        .await
        .unwrap()
}

#[tokio::test]
async fn a_registry_conforms_also_beside_metadata() {
    let server = PostgresServer::start();
    let url = server.database("vault");
    conformance::metadata(&open(&url).await).await;
    let store = registry(&url).await;
    conformance::registry(&store).await;
    let near = store.near(vec![conformance::FEATURE], 10, 9).await.unwrap();
    assert!(!near.is_empty());
    let log = store.deletions(0, 9).await.unwrap();
    let registered = store.registered().await.unwrap();
    drop(store);
    for old in [false, true] {
        let store = registry(&url).await;
        let found = store.near(vec![conformance::FEATURE], 10, 9).await.unwrap();
        assert_eq!(found, near, "{old}");
        assert_eq!(store.registered().await.unwrap(), registered);
        assert_eq!(store.deletions(0, 9).await.unwrap(), log);
        store.forget_log().await;
    }
    let address: PostgresUrl = url.parse().unwrap();
    let other = PostgresRegistry::open(&address, AeadKey::new([7; 32]), [4; 32]).await;
    let error = other.err().unwrap().to_string();
    assert!(error.contains("ttp.key"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_registries_agree_also_while_connections_break() {
    let server = PostgresServer::start();
    let url = server.database("calm");
    let (one, other) = tokio::join!(registry(&url), registry(&url));
    conformance::registries(&one, &other, true).await;
    let url = server.database("ttp");
    let (one, other) = tokio::join!(registry(&url), registry(&url));
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let breaking = tokio::task::spawn_blocking(move || {
        while stopped.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
            server.run(
                "postgres",
                "select pg_terminate_backend(pid) from pg_stat_activity
                 where application_name = 'camvault' and random() < 0.3",
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    });
    conformance::registries(&one, &other, false).await;
    let _ = stop.send(());
    breaking.await.unwrap();
}

#[tokio::test]
async fn a_registry_moves_into_a_database() {
    let server = PostgresServer::start();
    let url = server.database("ttp");
    let dir = tempfile::tempdir().unwrap();
    let room = Room::new(dir.path(), 0);
    let kept = EmbeddedRegistry::open(dir.path(), AeadKey::new([7; 32]), room);
    let kept = kept.await.unwrap();
    conformance::registry(&kept).await;
    let address: PostgresUrl = url.parse().unwrap();
    kept.copy_to(&address, [3; 32], &|_| ()).await.unwrap();
    let moved = registry(&url).await;
    assert_eq!(
        moved.registered().await.unwrap(),
        kept.registered().await.unwrap()
    );
    assert_eq!(
        moved.deletions(0, 9).await.unwrap(),
        kept.deletions(0, 9).await.unwrap()
    );
    let hashes = vec![conformance::FEATURE];
    assert_eq!(
        moved.near(hashes.clone(), 10, 99).await.unwrap(),
        kept.near(hashes, 10, 99).await.unwrap()
    );
    let id = (conformance::CONTRACT, 0);
    let (a, b) = tokio::join!(moved.ticket(id), kept.ticket(id));
    let [a, b] = [a, b].map(|ticket| *ticket.unwrap().unwrap().secret.expose_seed());
    assert_eq!(a, b);
    // The same again is no harm; something else is left alone.
    kept.copy_to(&address, [3; 32], &|_| ()).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    let room = Room::new(other.path(), 0);
    let other = EmbeddedRegistry::open(other.path(), AeadKey::new([7; 32]), room).await;
    let again = other.unwrap().copy_to(&address, [3; 32], &|_| ()).await;
    let again = again.unwrap_err().to_string();
    assert!(again.contains("holds a registry already"), "{again}");
    // What is half there is not served.
    server.run(
        "ttp",
        "insert into camvault.servers values ('copy registry', '\\x820040')",
    );
    let half = PostgresRegistry::open(&address, AeadKey::new([7; 32]), [3; 32]).await;
    let half = half.err().unwrap().to_string();
    assert!(half.contains("not finished"), "{half}");
}

fn hash(seed: &str) -> Hash {
    *blake3::hash(seed.as_bytes()).as_bytes()
}

/// Owner `owner`'s own copy of a chunk.
fn item(tag: &str, owner: usize) -> Item {
    let name = format!("{tag} of {owner}");
    Item {
        tag: hash(tag),
        c2: hash(&format!("{name} c2")),
        c3: hash(&format!("{name} c3")),
        d1: hash(&name),
        len: 100,
        stored: true,
        refused: vec![],
    }
}

/// Registers chunks, joining what others have added first.
async fn settle(store: &Postgres, leaf: u32, owner: usize, names: &[String]) -> Vec<ChunkRef> {
    let mut items: Vec<Item> = names.iter().map(|name| item(name, owner)).collect();
    loop {
        let outcomes = store
            .register(leaf, items.clone(), None, 1000)
            .await
            .unwrap();
        let mut all = true;
        for ((item, name), outcome) in items.iter_mut().zip(names).zip(outcomes) {
            match outcome {
                Outcome::Added | Outcome::Joined => (),
                Outcome::Unseen(variants) => {
                    // Every copy is right in this test, and named by whose it is.
                    let copies = (0..8).map(|owner| self::item(name, owner));
                    let is = |copy: &Item| copy.d1 == *variants[0].d1;
                    let copy = copies.into_iter().find(is).unwrap();
                    let stored = false;
                    *item = Item { stored, ..copy };
                    all = false;
                }
                // Forgotten meanwhile by all that had it.
                Outcome::NoBlob => {
                    *item = self::item(name, owner);
                    all = false;
                }
                other => panic!("{other:?}"),
            }
        }
        if all {
            let reference = |i: &Item| ChunkRef {
                tag: i.tag.into(),
                d1: i.d1.into(),
            };
            return items.iter().map(reference).collect();
        }
    }
}

fn commit(chunks: Vec<ChunkRef>) -> Commit {
    Commit {
        head: b"head".to_vec().into(),
        manifest: b"manifest".to_vec().into(),
        summary: b"summary".to_vec().into(),
        chunks,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_agree_while_connections_break() {
    const OWNERS: usize = 6;
    let server = PostgresServer::start();
    let url = server.database("vault");
    let stores = [open(&url).await, open(&url).await];
    let mut owners = vec![];
    for owner in 0..OWNERS {
        let store = stores[owner % 2].clone();
        owners.push(tokio::spawn(async move {
            let key = hash(&format!("owner {owner}"));
            let leaf = store.enroll(key, key).await.unwrap();
            for round in 0..10 {
                // Every owner the same chunks, in an order of its own.
                let mut names: Vec<String> = (0..40)
                    .map(|i| format!("chunk {}", round * 40 + i))
                    .collect();
                names.rotate_left(owner * 7);
                if owner % 2 == 1 {
                    names.reverse();
                }
                let chunks = settle(&store, leaf, owner, &names).await;
                let id = [round as u8; 16];
                let done = store.commit(leaf, id, 0, commit(chunks), 1000).await;
                assert_eq!(done.unwrap(), Committed::Done);
                if round % 3 == 0 {
                    let forgotten = store.forget(leaf, id, 2000).await.unwrap();
                    assert_eq!(forgotten, Forgotten::Done);
                }
            }
        }));
    }
    let breaking = tokio::task::spawn_blocking(move || {
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(150));
            server.run(
                "postgres",
                "select pg_terminate_backend(pid) from pg_stat_activity
                 where application_name = 'camvault'",
            );
        }
        server
    });
    for owner in owners {
        owner.await.unwrap();
    }
    let _server = breaking.await.unwrap();
    // Four rounds in ten were forgotten by all.
    let stats = stores[0].stats().await.unwrap();
    assert_eq!((stats.chunks, stats.variants), (240, 240));
    assert_eq!((stats.owners, stats.recordings), (6, 36));
    assert_eq!(stats.bytes_logical, 36 * 4000);
    let audit = stores[1].audit(3000).await.unwrap();
    assert_eq!((audit.segments, audit.mended), (36, 0));
    for owner in 0..OWNERS {
        let owner = stores[1].owner(hash(&format!("owner {owner}"))).await;
        assert_eq!(owner.unwrap().unwrap().bytes, 6 * 4000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_locks_than_the_database_has_room_for() {
    let server = PostgresServer::start();
    let store = open(&server.database("vault")).await;
    let leaf = store.enroll([1; 32], [1; 32]).await.unwrap();
    // Beside small ones.
    let mut writers = vec![];
    for writer in 0..8 {
        let store = store.clone();
        writers.push(tokio::spawn(async move {
            let many = if writer < 2 { 8000 } else { 100 };
            let items = (0..many).map(|i| item(&format!("{writer} {i}"), 0));
            let outcomes = store
                .register(leaf, items.collect(), None, 1000)
                .await
                .unwrap();
            assert!(outcomes.iter().all(|o| *o == Outcome::Added));
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(store.stats().await.unwrap().variants, 16_600);
    assert_eq!(store.audit(1000).await.unwrap().mended, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_while_the_first_host_is_frozen() {
    let first = PostgresServer::start();
    let url = first.database("vault");
    let second = first.standby();
    let both = url.replace("/vault", &format!(",{}/vault", second.address()));
    let store = open(&both).await;
    let leaf = store.enroll([1; 32], [1; 32]).await.unwrap();
    let began = Instant::now();
    let mut writers = vec![];
    for writer in 0..4 {
        let store = store.clone();
        writers.push(tokio::spawn(async move {
            let (mut done, mut longest) = (0, Duration::ZERO);
            while began.elapsed() < Duration::from_secs(30) {
                let items = (0..10).map(|i| item(&format!("{writer} {done} {i}"), 0));
                let asked = Instant::now();
                // Until it is there: as clients do.
                while let Err(error) = store
                    .register(leaf, items.clone().collect(), None, 1000)
                    .await
                {
                    assert!(matches!(error, Error::Away(_)), "{error}");
                }
                longest = longest.max(asked.elapsed());
                done += 1;
            }
            (done, longest)
        }));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    first.freeze();
    second.promote();
    let (mut done, mut longest) = (0, Duration::ZERO);
    for writer in writers {
        let (registered, pause) = writer.await.unwrap();
        done += registered;
        longest = longest.max(pause);
    }
    assert!(
        longest > Duration::from_secs(2),
        "the first host was not in use"
    );
    assert!(longest < Duration::from_secs(25), "{longest:?}");
    assert_eq!(store.stats().await.unwrap().variants, done * 10);
    assert_eq!(store.audit(1000).await.unwrap().mended, 0);
    println!("{done} registrations, the longest took {longest:?}");
}

#[tokio::test]
async fn tls_asks_who_the_server_is_where_the_address_says_so() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = PostgresServer::start();
    let url = server.database("vault");
    let issued = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    server.use_tls(&issued.cert.pem(), &issued.signing_key.serialize_pem());
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root.pem");
    std::fs::write(&root, issued.cert.pem()).unwrap();
    let connect = async |options: &str| {
        let url = format!("{url}?{options}").parse().unwrap();
        let client = Connector::new(&url, Space::METADATA)?.connect().await?;
        let tls = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
        let tls: bool = client.query_one(tls, &[]).await?.try_get(0)?;
        Ok::<_, Box<dyn std::error::Error>>(tls)
    };
    assert!(!connect("sslmode=disable").await.unwrap());
    assert!(connect("sslmode=prefer").await.unwrap());
    assert!(connect("sslmode=require").await.unwrap());
    let checked = format!("sslmode=verify-full&sslrootcert={}", root.display());
    assert!(connect(&checked).await.unwrap());
    let unknown = connect("sslmode=verify-full").await.unwrap_err();
    assert!(unknown.to_string().contains("certificate"), "{unknown}");
}
