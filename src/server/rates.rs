// SPDX-License-Identifier: MPL-2.0
//! Limits that hold for all servers over one metadata store together.
//!
//! So that a request costs no round trip to the store, a server takes from a shared allowance a
//! piece at a time, and gives that out by itself. Where a process has no metadata store (the role
//! storage alone) it keeps its allowances to itself.

use crate::store::{Allowance, Balance, Error, Mark, Metadata, now_ms};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Allowances remembered.
const MAX_PURSES: usize = 100_000;
/// For so long nothing more is allowed when there are too many, ms.
const FULL_MS: u64 = 1000;

/// What this server has of an allowance.
#[derive(Debug, Default)]
struct Purse {
    left: u64,
    until: u64,
    /// So much could not be had until then: whoever asks all the same costs the store nothing.
    lacking: Option<(u64, u64)>,
    /// The allowance itself, where nobody else keeps it.
    own: Option<Balance>,
}

/// Takes from allowances.
pub struct Rates {
    store: Option<Arc<dyn Metadata>>,
    purses: Mutex<HashMap<Mark, Purse>>,
}

impl Rates {
    /// Shared by those who share `store`.
    pub fn new(store: Option<Arc<dyn Metadata>>) -> Self {
        Self {
            store,
            purses: Mutex::default(),
        }
    }

    /// Takes `amount` of an allowance: `None`, or after how many milliseconds there may be so
    /// much. At the store a server takes at least `piece`.
    pub async fn take(
        &self,
        from: Mark,
        amount: u64,
        allowance: Allowance,
        piece: u64,
    ) -> Result<Option<u64>, Error> {
        let now = now_ms();
        {
            let mut purses = self.purses();
            if !has_room(&mut purses, &from, now) {
                return Ok(Some(FULL_MS));
            }
            if let Some(purse) = purses.get_mut(&from) {
                if purse.left >= amount {
                    purse.left -= amount;
                    return Ok(None);
                }
                let lacking = purse.lacking;
                if let Some((_, until)) = lacking.filter(|(least, _)| amount >= *least)
                    && until > now
                {
                    return Ok(Some(until - now));
                }
            }
        }
        // First a piece, then, when there is not so much left, what is needed and no more.
        for wanted in [amount.max(piece.min(allowance.burst)), amount] {
            let wait = match &self.store {
                Some(store) => store.spend(from, wanted, allowance, now).await?,
                None => {
                    let mut purses = self.purses();
                    let purse = put(&mut purses, from, 0, allowance.until);
                    let own = &mut purse.own;
                    own.get_or_insert_with(|| Balance::full(&allowance, now))
                        .take(wanted, &allowance, now)
                }
            };
            match wait {
                None => {
                    put(&mut self.purses(), from, wanted - amount, allowance.until);
                    return Ok(None);
                }
                Some(wait) if wanted == amount => {
                    let lacking = Some((amount, now.saturating_add(wait)));
                    put(&mut self.purses(), from, 0, allowance.until).lacking = lacking;
                    return Ok(Some(wait));
                }
                Some(_) => (),
            }
        }
        Ok(Some(u64::MAX))
    }

    /// Gives back what was not used after all.
    pub fn give_back(&self, to: Mark, amount: u64, until: u64) {
        put(&mut self.purses(), to, amount, until);
    }

    fn purses(&self) -> MutexGuard<'_, HashMap<Mark, Purse>> {
        self.purses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts what was taken at the store, or given back, into a purse.
fn put(purses: &mut HashMap<Mark, Purse>, to: Mark, amount: u64, until: u64) -> &mut Purse {
    let purse = purses.entry(to).or_default();
    purse.left += amount;
    purse.until = until;
    purse.lacking = None;
    purse
}

/// Whether one more purse has room; those that can be done without make some. A piece that is
/// forgotten is lost, which errs on the strict side.
fn has_room(purses: &mut HashMap<Mark, Purse>, for_this: &Mark, now: u64) -> bool {
    if purses.len() < MAX_PURSES || purses.contains_key(for_this) {
        return true;
    }
    purses.retain(|_, purse| purse.until > now);
    if purses.len() >= MAX_PURSES {
        purses.retain(|_, purse| purse.own.is_some());
    }
    purses.len() < MAX_PURSES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_store_a_server_keeps_allowances_itself() {
        let rates = Rates::new(None);
        let token = Allowance {
            burst: 100,
            per_s: 0,
            until: now_ms() + 60_000,
        };
        let take = |mark, amount| rates.take([mark; 16], amount, token, 50);
        assert_eq!(take(1, 70).await.unwrap(), None);
        assert_eq!(take(1, 31).await.unwrap(), Some(u64::MAX));
        assert_eq!(take(1, 30).await.unwrap(), None);
        assert!(take(1, 1).await.unwrap().is_some());
        rates.give_back([1; 16], 1, token.until);
        assert_eq!(take(1, 1).await.unwrap(), None);
        assert_eq!(take(2, 100).await.unwrap(), None);
    }
}
