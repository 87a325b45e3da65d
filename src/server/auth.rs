// SPDX-License-Identifier: MPL-2.0
//! Who sent a request, and that it is fresh.

use super::refusal::Refusal;
use crate::protocol::signature::{Covered, verify};
use crate::protocol::{BLOBS_HEADER, Code};
use crate::store::{Hash, Mark, now_ms};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Seconds that a signature's time may lie back.
const OLDEST_S: u64 = 300;
/// Seconds that it may lie ahead. Few, because nonces are forgotten at a restart: see
/// [`Freshness::restarted`].
const AHEAD_S: u64 = 1;
/// Nonces are kept for at least this long: until their signature is too old anyway.
const KEEP: Duration = Duration::from_secs(OLDEST_S + AHEAD_S + 1);
/// Nonces of one generation.
const MAX_NONCES: usize = 2_000_000;

/// Tells repeated and outdated requests from fresh ones.
#[derive(Debug)]
pub struct Freshness {
    /// Nothing made before counts, Unix seconds.
    not_before: u64,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    since: Instant,
    now: HashSet<[u8; 16]>,
    before: HashSet<[u8; 16]>,
}

impl Freshness {
    fn from(not_before: u64) -> Self {
        Self {
            not_before,
            seen: Mutex::new(Seen {
                since: Instant::now(),
                now: HashSet::new(),
                before: HashSet::new(),
            }),
        }
    }

    /// Of a server that has never run.
    pub fn first_start() -> Self {
        Self::from(now_ms() / 1000 - AHEAD_S)
    }

    /// Of a server that may have run until now. Whatever it has accepted was made at most
    /// [`AHEAD_S`] from now; the caller waits for the returned time, so that nothing accepted
    /// before is accepted again and nobody's fresh request is refused.
    pub fn restarted() -> (Self, Duration) {
        let now = now_ms();
        let not_before = now / 1000 + AHEAD_S + 1;
        let wait = Duration::from_millis(not_before * 1000 - now);
        (Self::from(not_before), wait)
    }

    /// Accepts a request once: by its time (Unix seconds), signer and nonce.
    pub fn check(&self, created: u64, signer: &[u8], nonce: &str) -> Result<Once, Refusal> {
        let now = now_ms();
        let oldest = (now / 1000).saturating_sub(OLDEST_S).max(self.not_before);
        if !(oldest..=now / 1000 + AHEAD_S).contains(&created) {
            return Err(Refusal::clock(now));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(signer).update(nonce.as_bytes());
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.since.elapsed() > KEEP {
            seen.before = std::mem::take(&mut seen.now);
            seen.since = Instant::now();
        }
        if seen.now.len() >= MAX_NONCES {
            return Err(Refusal::new(
                Code::Busy,
                "too many requests: try again later",
            ));
        }
        match !seen.before.contains(&id) && seen.now.insert(id) {
            true => Ok(Once {
                mark: id,
                until: (created + OLDEST_S + AHEAD_S + 1) * 1000,
            }),
            false => Err(replayed()),
        }
    }
}

/// A request that this server has not seen before. Others over the same stores may have: those
/// that must not be done twice note it in the metadata store.
#[derive(Clone, Copy, Debug)]
pub struct Once {
    /// Names it.
    pub mark: Mark,
    /// When its signature is too old anyway, Unix milliseconds.
    pub until: u64,
}

/// For a request that was seen before.
pub fn replayed() -> Refusal {
    Refusal::new(Code::Replay, "this request was sent before: sign again")
}

/// The value of a header that occurs once.
pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Refusal> {
    let mut all = headers.get_all(name).iter();
    let value = all.next().and_then(|v| v.to_str().ok());
    match (value, all.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(Refusal::malformed(format!(
            "the header {name} must be there once"
        ))),
    }
}

/// Which field binds the body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binds {
    /// `content-digest`.
    Digest,
    /// [`BLOBS_HEADER`].
    Blobs,
}

/// Checks the signature and the freshness of a request, whose body has not been read yet: the
/// signing key. `names` are the authorities that this server answers to; empty: any.
pub fn signer(
    parts: &Parts,
    binds: Binds,
    freshness: &Freshness,
    names: &[String],
) -> Result<(Hash, Once), Refusal> {
    let missing = |_| Refusal::new(Code::Signature, "the request is not signed");
    let body_field = match binds {
        Binds::Digest => "content-digest",
        Binds::Blobs => BLOBS_HEADER,
    };
    let authority = header(&parts.headers, "host")?.to_ascii_lowercase();
    let elsewhere = || {
        Refusal::new(
            Code::Signature,
            "the request is addressed to another server",
        )
    };
    if !names.is_empty() && !names.contains(&authority) {
        return Err(elsewhere());
    }
    let covered = Covered {
        method: parts.method.as_str(),
        authority: &authority,
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        body_field,
        body_value: header(&parts.headers, body_field).map_err(missing)?,
    };
    let input = header(&parts.headers, "signature-input").map_err(missing)?;
    let signature = header(&parts.headers, "signature").map_err(missing)?;
    let params = verify(&covered, input, signature)
        .ok_or_else(|| Refusal::new(Code::Signature, "the request's signature is wrong"))?;
    let once = freshness.check(params.created, &params.key, &params.nonce)?;
    Ok((params.key, once))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_once_and_within_its_time() {
        let fresh = Freshness::from(0);
        let now = now_ms() / 1000;
        assert!(fresh.check(now, b"a", "n1").is_ok());
        assert!(fresh.check(now, b"a", "n1").is_err());
        assert!(fresh.check(now, b"a", "n2").is_ok());
        assert!(fresh.check(now, b"b", "n1").is_ok());
        assert!(fresh.check(now - OLDEST_S - 1, b"a", "n3").is_err());
        assert!(fresh.check(now + 10, b"a", "n4").is_err());
        let (restarted, wait) = Freshness::restarted();
        assert!(wait > Duration::from_secs(AHEAD_S) && wait <= Duration::from_secs(AHEAD_S + 1));
        assert!(restarted.check(now + AHEAD_S, b"a", "n5").is_err());
    }
}
