// SPDX-License-Identifier: MPL-2.0
//! The tables, made and brought up to date at the start of a server.

use super::Part;
use super::cache::named_lock;
use super::connect::said;
use crate::store::Error;
use tokio_postgres::Client;

/// What leads from each version to the next. A server of an older version may still run on the
/// tables: a migration adds, and takes away only what no version before it uses.
const MIGRATIONS: &[&str] = &[include_str!("schema/1.sql"), include_str!("schema/2.sql")];

/// Makes or updates the tables, under a lock, so that servers that start at once do it once.
pub async fn migrate(client: &mut Client) -> Result<(), Error> {
    let failed = |e: tokio_postgres::Error| Error::Engine(said(&e));
    let newest = MIGRATIONS.len();
    if version(client).await.map_err(failed)? == Some(newest) {
        return Ok(());
    }
    let lock = named_lock(b"camvault schema");
    let tx = client.transaction().await.map_err(failed)?;
    tx.execute("select pg_advisory_xact_lock($1)", &[&lock])
        .await
        .map_err(failed)?;
    let found = version(tx.client()).await.map_err(failed)?.unwrap_or(0);
    if found > newest {
        return Err(Error::Engine(format!(
            "its tables have version {found}, this server knows {newest}: use a newer camvault"
        )));
    }
    for migration in &MIGRATIONS[found..] {
        tx.batch_execute(migration).await.map_err(failed)?;
    }
    if found < newest {
        let number = i32::try_from(newest).unwrap_or(i32::MAX);
        tx.execute("update camvault.settings set version = $1", &[&number])
            .await
            .map_err(failed)?;
    }
    tx.commit().await.map_err(failed)
}

async fn version(client: &Client) -> Result<Option<usize>, tokio_postgres::Error> {
    // Not `to_regclass`: within a transaction it may go on to say what it said before.
    let there = "select exists (select from pg_catalog.pg_tables
                                where schemaname = 'camvault' and tablename = 'settings')";
    if !client.query_one(there, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(None);
    }
    let row = client
        .query_one("select version from camvault.settings", &[])
        .await?;
    let version: i32 = row.try_get(0)?;
    Ok(usize::try_from(version).ok())
}

/// The first server leaves a fingerprint of its secrets; the others have to have the same.
pub async fn check_secrets(
    client: &Client,
    part: &Part,
    fingerprint: &[u8; 32],
) -> Result<(), Error> {
    let (mine, column) = (fingerprint.as_slice(), part.fingerprint);
    let leave = format!(
        "update camvault.settings set {column} = coalesce({column}, $1) returning {column}"
    );
    let left = client.query_one(&leave, &[&mine]).await;
    let left: Vec<u8> = left
        .and_then(|row| row.try_get(0))
        .map_err(|e| Error::Engine(said(&e)))?;
    match left == mine {
        true => Ok(()),
        false => Err(Error::Engine(format!(
            "it belongs to servers with other secrets: copy the files {} from another server's \
             DIR/secrets, or use another database",
            part.secrets
        ))),
    }
}
