// SPDX-License-Identifier: MPL-2.0
//! Waiting for the network on a streaming thread, until somebody says stop.

use crate::client::Error;
use tokio::sync::watch;

/// Ends the waits of a streaming thread.
#[derive(Debug)]
pub struct Canceller(watch::Sender<bool>);

impl Default for Canceller {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Canceller {
    /// Ends all waits, also those to come.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }

    /// Whether waits end at once.
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Lets waits wait again.
    pub fn reset(&self) {
        self.0.send_replace(false);
    }

    /// Runs `future` to its end. Not for use on a thread of the runtime.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; the future is dropped then.
    pub fn wait<T>(&self, future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let mut cancelled = self.0.subscribe();
        crate::client::runtime()?.block_on(async {
            tokio::select! {
                biased;
                _ = cancelled.wait_for(|cancelled| *cancelled) => Err(Error::Cancelled),
                done = future => done,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    #[test]
    fn a_wait_ends_when_it_is_told_to() {
        let canceller = Arc::new(Canceller::default());
        assert!(matches!(canceller.wait(async { Ok(3) }), Ok(3)));
        let other = canceller.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            other.cancel();
        });
        let begun = Instant::now();
        let waited = canceller.wait(std::future::pending::<Result<(), Error>>());
        assert!(matches!(waited, Err(Error::Cancelled)));
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert!(
            canceller.wait(async { Ok(()) }).is_err(),
            "until it is reset"
        );
        canceller.reset();
        assert!(canceller.wait(async { Ok(()) }).is_ok());
        thread.join().unwrap();
    }
}
