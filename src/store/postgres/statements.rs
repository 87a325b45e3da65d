// SPDX-License-Identifier: MPL-2.0
//! What is asked of the database: many keys and ranges at once, always by key.

use crate::store::tables::{Changes, Delta, Pair, Space};
use futures::future::try_join_all;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row, Statement};

/// Rows among which the totals are spread: writers add to any of them.
pub const STRIPES: i16 = 16;

/// Prepared statements of one connection.
pub struct Statements {
    spaces: Vec<(Space, OfSpace)>,
    add_totals: Statement,
    lock: Statement,
    try_lock: Statement,
}

struct OfSpace {
    get: Statement,
    range: Statement,
    put: Statement,
    remove: Statement,
}

/// The totals' columns, in the order of [`numbers`] and [`totals`].
const COLUMNS: &str = "bytes_logical, bytes_stored, chunks, variants, blobs, recordings, owners, \
                       bytes_manifests, segments";

fn numbers(delta: &Delta) -> [i64; 9] {
    [
        delta.bytes_logical,
        delta.bytes_stored,
        delta.chunks,
        delta.variants,
        delta.blobs,
        delta.recordings,
        delta.owners,
        delta.bytes_manifests,
        delta.segments,
    ]
}

/// The totals.
pub async fn totals(client: &Client) -> Result<Delta, Error> {
    let sums: Vec<String> = COLUMNS
        .split(", ")
        .map(|column| format!("coalesce(sum({column}), 0)::bigint"))
        .collect();
    let query = format!("select {} from totals", sums.join(", "));
    let row = client.query_one(&query, &[]).await?;
    Ok(Delta {
        bytes_logical: row.try_get(0)?,
        bytes_stored: row.try_get(1)?,
        chunks: row.try_get(2)?,
        variants: row.try_get(3)?,
        blobs: row.try_get(4)?,
        recordings: row.try_get(5)?,
        owners: row.try_get(6)?,
        bytes_manifests: row.try_get(7)?,
        segments: row.try_get(8)?,
    })
}

impl Statements {
    /// Prepares all that a store of these spaces needs, in one go.
    pub async fn prepare(client: &Client, spaces: &[Space]) -> Result<Self, Error> {
        let bytes = Type::BYTEA_ARRAY;
        let two = [bytes.clone(), bytes.clone()];
        let three = [bytes.clone(), bytes.clone(), Type::INT8_ARRAY];
        let of_space = |space: Space| {
            let (two, three) = (&two, &three);
            async move {
                let table = space.name();
                let (get, range, put, remove) = (
                    format!("select key, value from {table} where key = any($1)"),
                    format!(
                        "select wanted.number, found.key, found.value
                         from unnest($1, $2, $3) with ordinality
                             as wanted(first, behind, most, number),
                         lateral (select key, value from {table}
                             where key >= wanted.first and key < wanted.behind
                             order by key limit wanted.most) as found
                         order by wanted.number, found.key"
                    ),
                    format!(
                        "insert into {table} (key, value) select * from unnest($1, $2)
                         on conflict (key) do update set value = excluded.value"
                    ),
                    format!("delete from {table} where key = any($1)"),
                );
                let (get, range, put, remove) = futures::try_join!(
                    client.prepare_typed(&get, &two[..1]),
                    client.prepare_typed(&range, three),
                    client.prepare_typed(&put, two),
                    client.prepare_typed(&remove, &two[..1]),
                )?;
                let statements = OfSpace {
                    get,
                    range,
                    put,
                    remove,
                };
                Ok((space, statements))
            }
        };
        let spaces = spaces.iter().map(|space| of_space(*space));
        let sets: Vec<String> = COLUMNS
            .split(", ")
            .map(|c| format!("{c} = totals.{c} + excluded.{c}"))
            .collect();
        let add = format!(
            "insert into totals (stripe, {COLUMNS})
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             on conflict (stripe) do update set {}",
            sets.join(", ")
        );
        let longs = [Type::INT8_ARRAY];
        let (spaces, add_totals, lock, try_lock) = futures::try_join!(
            try_join_all(spaces),
            client.prepare(&add),
            client.prepare_typed(
                "select pg_advisory_xact_lock(key) from unnest($1) as wanted(key)",
                &longs
            ),
            client.prepare_typed(
                "select bool_and(pg_try_advisory_xact_lock(key)) from unnest($1) as wanted(key)",
                &longs
            ),
        )?;
        Ok(Self {
            spaces,
            add_totals,
            lock,
            try_lock,
        })
    }

    /// The spaces of the store.
    pub fn spaces(&self) -> impl Iterator<Item = Space> {
        self.spaces.iter().map(|(space, _)| *space)
    }

    fn of(&self, space: Space) -> &OfSpace {
        match self.spaces.iter().find(|(this, _)| *this == space) {
            Some((_, statements)) => statements,
            None => unreachable!("a store uses its own spaces"),
        }
    }

    /// The pairs that are there.
    pub async fn get(
        &self,
        client: &Client,
        space: Space,
        keys: &[&[u8]],
    ) -> Result<Vec<Pair>, Error> {
        let rows = client.query(&self.of(space).get, &[&keys]).await?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .collect()
    }

    /// The first pairs of each range.
    pub async fn ranges(
        &self,
        client: &Client,
        space: Space,
        ranges: &[(&[u8], &[u8], usize)],
    ) -> Result<Vec<Vec<Pair>>, Error> {
        let first: Vec<&[u8]> = ranges.iter().map(|(first, ..)| *first).collect();
        let behind: Vec<&[u8]> = ranges.iter().map(|(_, behind, _)| *behind).collect();
        let most: Vec<i64> = ranges
            .iter()
            .map(|(.., most)| i64::try_from(*most).unwrap_or(i64::MAX))
            .collect();
        let statement = &self.of(space).range;
        let rows = client.query(statement, &[&first, &behind, &most]).await?;
        let mut found = vec![Vec::new(); ranges.len()];
        for row in &rows {
            let number: i64 = row.try_get(0)?;
            let place = usize::try_from(number - 1).ok();
            if let Some(pairs) = place.and_then(|place| found.get_mut(place)) {
                pairs.push((row.try_get(1)?, row.try_get(2)?));
            }
        }
        Ok(found)
    }

    /// Waits for locks, in their order.
    pub async fn lock(&self, client: &Client, locks: &[i64]) -> Result<(), Error> {
        if !locks.is_empty() {
            client.execute(&self.lock, &[&locks]).await?;
        }
        Ok(())
    }

    /// Takes locks if they are free; `false` if one is not.
    pub async fn try_lock(&self, client: &Client, locks: &[i64]) -> Result<bool, Error> {
        if locks.is_empty() {
            return Ok(true);
        }
        let row: Row = client.query_one(&self.try_lock, &[&locks]).await?;
        row.try_get(0)
    }

    /// Sends everything without waiting in between; the first error is the one that counts.
    pub async fn write(
        &self,
        client: &Client,
        changes: &Changes,
        delta: &Delta,
        stripe: i16,
    ) -> Result<(), Error> {
        let mut sent = Vec::new();
        for (space, statements) in &self.spaces {
            let (mut keys, mut values, mut gone) = (Vec::new(), Vec::new(), Vec::new());
            for ((_, key), value) in changes.iter().filter(|((this, _), _)| this == space) {
                match value {
                    Some(value) => {
                        keys.push(key.as_slice());
                        values.push(value.as_slice());
                    }
                    None => gone.push(key.as_slice()),
                }
            }
            sent.push(async move {
                let put = async {
                    match keys.is_empty() {
                        true => Ok(0),
                        false => client.execute(&statements.put, &[&keys, &values]).await,
                    }
                };
                let remove = async {
                    match gone.is_empty() {
                        true => Ok(0),
                        false => client.execute(&statements.remove, &[&gone]).await,
                    }
                };
                let (put, remove) = futures::join!(put, remove);
                put.and(remove)
            });
        }
        let totals = async {
            if *delta == Delta::default() {
                return Ok(0);
            }
            let numbers = numbers(delta);
            let mut values: Vec<&(dyn ToSql + Sync)> = vec![&stripe];
            values.extend(numbers.iter().map(|n| n as &(dyn ToSql + Sync)));
            client.execute(&self.add_totals, &values).await
        };
        let (written, totals) = futures::join!(futures::future::join_all(sent), totals);
        written.into_iter().collect::<Result<Vec<_>, _>>()?;
        totals.map(|_| ())
    }
}
