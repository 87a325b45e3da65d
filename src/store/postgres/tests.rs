// SPDX-License-Identifier: MPL-2.0
//! The suite of [`Metadata`], and what several servers over one database have to keep to, on a
//! PostgreSQL server that the tests start.

#[path = "../../../tests/common/postgres.rs"]
mod server;

use super::*;
use crate::store::{Metadata, conformance};
use server::PostgresServer;

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
    store.spoil().await;
    drop(store);
    let store = open(&url).await;
    assert!(store.audit(0).await.unwrap().mended > 10);
    assert_eq!(store.audit(0).await.unwrap().mended, 0);
    assert_eq!(store.stats().await.unwrap(), right);
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
