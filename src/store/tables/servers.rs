// SPDX-License-Identifier: MPL-2.0
//! What servers keep for each other: jobs, requests that were done, allowances.

use super::{Space, Tx, parse};
use crate::protocol::Job;
use crate::store::record::Balance;
use crate::store::{Allowance, Error, Mark};

/// Notes forgotten in one transaction.
const FORGET_BATCH: usize = 32;

const JOB: u8 = b'j';
const ONCE: u8 = b'o';
const BUCKET: u8 = b'b';
/// Time, kind and mark of what is to be forgotten.
const EXPIRY: u8 = b'e';

fn key(kind: u8, name: &[u8]) -> Vec<u8> {
    [&[kind], name].concat()
}

fn expiry_key(until: u64, kind: u8, mark: &Mark) -> Vec<u8> {
    [&[EXPIRY], until.to_be_bytes().as_slice(), &[kind], mark].concat()
}

/// See [`Metadata::jobs`](crate::store::Metadata::jobs).
pub fn jobs(tx: &Tx<'_>) -> Result<Vec<Job>, Error> {
    let all = tx.prefix(Space::Servers, &[JOB])?;
    all.iter().map(|(_, job)| parse(job)).collect()
}

/// See [`Metadata::save_job`](crate::store::Metadata::save_job).
pub fn save_job(tx: &mut Tx<'_>, job: &Job) -> Result<bool, Error> {
    let key = key(JOB, job.name.as_bytes());
    let kept: Option<Job> = tx.get(Space::Servers, &key)?;
    let next = Job {
        version: job.version + 1,
        ..job.clone()
    };
    if kept.as_ref() == Some(&next) {
        // Done before, and nobody knew.
        return Ok(true);
    }
    let fits = kept.map_or(0, |kept| kept.version) == job.version;
    if fits {
        tx.put(Space::Servers, key, &next);
    }
    Ok(fits)
}

/// See [`Metadata::once`](crate::store::Metadata::once).
pub fn once(tx: &mut Tx<'_>, mark: &Mark, until: u64, now: u64) -> Result<bool, Error> {
    forget(tx, now)?;
    let key = key(ONCE, mark);
    let fresh = tx.bytes(Space::Servers, &key)?.is_none();
    if fresh {
        tx.put(Space::Servers, key, &until);
        tx.put_bytes(Space::Servers, expiry_key(until, ONCE, mark), Vec::new());
    }
    Ok(fresh)
}

/// See [`Metadata::spend`](crate::store::Metadata::spend).
pub fn spend(
    tx: &mut Tx<'_>,
    from: &Mark,
    amount: u64,
    allowance: &Allowance,
    now: u64,
) -> Result<Option<u64>, Error> {
    forget(tx, now)?;
    let key = key(BUCKET, from);
    let kept: Option<Balance> = tx.get(Space::Servers, &key)?;
    if kept.is_none() {
        let expiry = expiry_key(allowance.until, BUCKET, from);
        tx.put_bytes(Space::Servers, expiry, Vec::new());
    }
    let mut bucket = kept.unwrap_or_else(|| Balance::full(allowance, now));
    let wait = bucket.take(amount, allowance, now);
    if wait.is_none() {
        tx.put(Space::Servers, key, &bucket);
    }
    Ok(wait)
}

/// Forgets some of what nobody needs any more.
fn forget(tx: &mut Tx<'_>, now: u64) -> Result<(), Error> {
    let wrong = || Error::Corrupt("expiry");
    let end = [&[EXPIRY], now.to_be_bytes().as_slice()].concat();
    for (expiry, _) in tx.queue(Space::Servers, &[EXPIRY], &end, FORGET_BATCH)? {
        let rest = expiry.get(9..).ok_or_else(wrong)?;
        let (kind, mark) = rest.split_first().ok_or_else(wrong)?;
        let mark: &Mark = mark.try_into().map_err(|_| wrong())?;
        let (at, kind, mark) = (key(*kind, mark), *kind, *mark);
        let until = match kind {
            BUCKET => tx.get(Space::Servers, &at)?.map(|b: Balance| b.until),
            _ => tx.get(Space::Servers, &at)?,
        };
        tx.remove(Space::Servers, expiry);
        match until {
            // It was used again since.
            Some(until) if until >= now => {
                let expiry = expiry_key(until, kind, &mark);
                tx.put_bytes(Space::Servers, expiry, Vec::new());
            }
            _ => tx.remove(Space::Servers, at),
        }
    }
    Ok(())
}
