// SPDX-License-Identifier: MPL-2.0
//! Limits that hold for all servers over one metadata store together.
//!
//! So that a request costs no round trip to the store, a server takes from a shared allowance a
//! piece at a time, and gives that out by itself. Where a process has no metadata store (the role
//! storage alone) it keeps its allowances to itself.

use crate::store::{Allowance, Bucket, Error, Mark, Metadata, now_ms};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Allowances remembered; a piece that is forgotten is lost, which errs on the strict side.
const MAX_PURSES: usize = 100_000;

/// What this server has of an allowance.
#[derive(Debug, Default)]
struct Purse {
    left: u64,
    until: u64,
    /// The allowance itself, where nobody else keeps it.
    own: Option<Bucket>,
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
            if let Some(purse) = purses.get_mut(&from)
                && purse.left >= amount
            {
                purse.left -= amount;
                return Ok(None);
            }
        }
        // First a piece, then, when there is not so much left, what is needed and no more.
        for wanted in [amount.max(piece.min(allowance.burst)), amount] {
            let wait = match &self.store {
                Some(store) => store.spend(from, wanted, allowance, now).await?,
                None => {
                    let mut purses = self.purses();
                    let own = purses.entry(from).or_default().own.take();
                    let mut own = own.unwrap_or_else(|| Bucket::full(&allowance, now));
                    let wait = own.take(wanted, &allowance, now);
                    self.put(&mut purses, from, 0, allowance.until).own = Some(own);
                    wait
                }
            };
            match wait {
                None => {
                    let mut purses = self.purses();
                    self.put(&mut purses, from, wanted - amount, allowance.until);
                    return Ok(None);
                }
                wait if wanted == amount => return Ok(wait),
                Some(_) => (),
            }
        }
        Ok(Some(u64::MAX))
    }

    /// Gives back what was not used after all.
    pub fn give_back(&self, to: Mark, amount: u64, until: u64) {
        self.put(&mut self.purses(), to, amount, until);
    }

    fn purses(&self) -> MutexGuard<'_, HashMap<Mark, Purse>> {
        self.purses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put<'a>(
        &self,
        purses: &'a mut HashMap<Mark, Purse>,
        to: Mark,
        amount: u64,
        until: u64,
    ) -> &'a mut Purse {
        if purses.len() >= MAX_PURSES {
            let now = now_ms();
            purses.retain(|_, purse| purse.until > now);
        }
        if purses.len() >= MAX_PURSES && !purses.contains_key(&to) {
            purses.clear();
        }
        let purse = purses.entry(to).or_default();
        purse.left += amount;
        purse.until = until;
        purse
    }
}
