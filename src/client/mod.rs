// SPDX-License-Identifier: MPL-2.0
//! The owner's side of the protocol: a signed connection to a vault, the recorder that stores
//! chunks and commits segments, the reader that brings them back, and a connection to a third
//! party and one to a gateway. Knows no GStreamer.

mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod gateway;
mod http;
pub(crate) mod patience;
pub mod reader;
pub mod recorder;
mod spool;
pub mod tickets;
pub mod transport;
pub mod ttp;
mod uploader;
pub mod vault;

pub(crate) use crate::protocol::hex;
pub use error::Error;
pub use gateway::Gateway;
pub use ttp::Ttp;
pub use vault::Vault;

use nix::sys::signal::{SigSet, Signal};
use std::sync::OnceLock;
use tokio::runtime::{Builder, Runtime};

/// The process's one runtime for the network, two threads named `camvault-net`; made when it is
/// first asked for.
pub fn runtime() -> Result<&'static Runtime, Error> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let make = || {
        Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("camvault-net")
            // A program in C that uses the plugin dies of SIGPIPE when a server closes a connection
            // that is being written to (writev knows no MSG_NOSIGNAL). Blocked in these threads,
            // and only there, it is an error of the connection.
            .on_thread_start(|| {
                let _ = SigSet::from(Signal::SIGPIPE).thread_block();
            })
            .enable_all()
            .build()
            .map_err(|e| e.to_string())
    };
    RUNTIME
        .get_or_init(make)
        .as_ref()
        .map_err(|e| Error::Threads(e.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_connection_kills_no_program() {
        let blocked = || SigSet::thread_get_mask().map(|set| set.contains(Signal::SIGPIPE));
        let runtime = runtime().unwrap();
        let worker = runtime.spawn(async move { blocked() });
        assert_eq!(runtime.block_on(worker).unwrap(), Ok(true));
        let other = runtime.spawn_blocking(blocked);
        assert_eq!(runtime.block_on(other).unwrap(), Ok(true));
        assert_eq!(
            blocked(),
            Ok(false),
            "the caller's own thread is its own affair"
        );
    }
}
