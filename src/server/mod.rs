// SPDX-License-Identifier: MPL-2.0
//! `camvault serve`: the metadata, storage and third party's roles over HTTP, in one process or
//! several.
//!
//! [`Server::start`] runs one inside a program or a test; [`serve`] is the whole program.

mod app;
mod auth;
mod body;
mod config;
mod gateway;
mod hints;
mod internal;
mod listen;
mod metadata;
mod metrics;
mod ops;
mod recordings;
mod refusal;
pub(crate) mod secrets;
mod storage;
mod tokens;
mod ttp;
mod upkeep;

pub use body::Pace;
pub use config::{Config, DEFAULT_AUDIT, Role};
pub use gateway::{Gateway, GatewayError, Messages};
pub use ops::ORPHAN_AGE;

use crate::ownership::Tree;
use crate::protocol::ScrubReport;
use crate::store::{self, Embedded, Room};
use app::App;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// A secret is missing or unreadable.
    #[error(transparent)]
    Secret(#[from] secrets::Error),
    /// A store does not open.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Certificate or key are not usable.
    #[error("TLS: {0}")]
    Tls(String),
    /// A metadata server needs a storage server.
    #[error("the role metadata alone needs --storage-url, the storage server's address")]
    NoStorage,
    /// Not an address of a storage server.
    #[error("--storage-url: {0}")]
    StorageUrl(String),
    /// What else the process was to do failed.
    #[error("{0}")]
    Started(String),
    /// Signals, standard output or threads failed.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

/// A running server. Dropping it stops it without waiting for requests; [`Server::shutdown`]
/// waits.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    tls: bool,
    stop: Option<oneshot::Sender<()>>,
    listening: JoinHandle<()>,
    collector: JoinHandle<()>,
}

impl Server {
    /// Opens the stores and starts to listen; requests are taken when it returns.
    pub async fn start(config: Config) -> Result<Self, Error> {
        // Fails if a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listen = config.listen;
        let tls = match &config.tls {
            Some((cert, key)) => Some(listen::tls(cert, key)?),
            None => None,
        };
        let listener = std::net::TcpListener::bind(listen).map_err(|e| Error::Listen(listen, e))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let open_enrolment = address.ip().to_canonical().is_loopback();
        let (header_timeout, max_connections) = (config.header_timeout, config.max_connections);
        let drain = config.drain;
        let blobs = match config.has(Role::Storage) {
            true => Some(config.blob_place().open(config.reserve).await?),
            false => None,
        };
        let open = move || App::open(config, blobs, open_enrolment);
        let opened = tokio::task::spawn_blocking(open).await;
        let (app, wait) = opened.map_err(std::io::Error::other)??;
        tokio::time::sleep(wait).await;
        let listening = listen::Listening {
            listener: TcpListener::from_std(listener)?,
            router: app.router(),
            tls,
            header_timeout,
            max_connections,
            drain,
        };
        let tls = listening.tls.is_some();
        let (stop, stopped) = oneshot::channel();
        Ok(Self {
            address,
            tls,
            stop: Some(stop),
            listening: tokio::spawn(listening.run(stopped)),
            collector: tokio::spawn(upkeep::collector(app)),
        })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL, `http://…` or `https://…`.
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Stops to listen, lets requests end (at most [`Config::drain`]) and closes the stores.
    pub async fn shutdown(mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have ended by itself.
            let _ = stop.send(());
        }
        let _ = (&mut self.listening).await;
        self.collector.abort();
        let _ = (&mut self.collector).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.listening.abort();
        self.collector.abort();
    }
}

/// Runs a server until SIGTERM or SIGINT; prints where it listens on standard output.
/// `started` is done before: what else the process is to do, and a line that says so.
pub async fn serve(
    config: Config,
    started: impl AsyncFnOnce() -> Result<Option<String>, String>,
) -> Result<(), Error> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let server = Server::start(config).await?;
    let more = started().await.map_err(Error::Started)?;
    let mut out = std::io::stdout();
    // At once: who reads but the first line may be gone before the second.
    let more = more.map_or(String::new(), |more| format!("{more}\n"));
    out.write_all(format!("listening on {}\n{more}", server.url()).as_bytes())?;
    out.flush()?;
    tokio::select! {
        _ = term.recv() => (),
        _ = int.recv() => (),
    }
    eprintln!("camvault: shutting down");
    server.shutdown().await;
    Ok(())
}

/// Scrubs what a server keeps that has both roles and does not run.
pub async fn scrub_stopped(config: &Config, orphan_age: Duration) -> Result<ScrubReport, Error> {
    let tree = Tree::new(*secrets::read(&config.secrets_dir().join("master"))?);
    let room = Room::new(&config.data, 0);
    let metadata = Embedded::open(&config.data.join("metadata"), tree, room)?;
    let blobs = config.blob_place().open(0).await?;
    Ok(upkeep::scrub(&metadata, &*blobs, orphan_age, &upkeep::Sweeping::default()).await?)
}
