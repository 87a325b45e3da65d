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
mod health;
mod hints;
mod internal;
mod jobs;
mod listen;
mod measured;
mod metadata;
mod metrics;
mod migrate;
mod ops;
mod rates;
mod recordings;
mod refusal;
pub(crate) mod secrets;
mod storage;
#[cfg(test)]
mod tests;
mod tokens;
mod trace;
mod ttp;
mod upkeep;

pub use body::Pace;
pub use config::{Config, DEFAULT_AUDIT, Role};
pub use gateway::{Activity, Gateway, GatewayError, Messages};
pub use migrate::{Destination, Migrated, Step, migrate};
pub use ops::ORPHAN_AGE;

use crate::ownership::Tree;
use crate::protocol::ScrubReport;
use crate::store::{self, Embedded, Metadata, Room};
use app::App;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
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
    /// Metadata or registry are not where they were said to be.
    #[error("{0}")]
    Place(String),
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
    upkeep: JoinHandle<()>,
}

impl Server {
    /// Opens the stores and starts to listen; requests are taken when it returns.
    pub async fn start(config: Config) -> Result<Self, Error> {
        Self::start_over(config, None).await
    }

    /// Likewise, over a metadata store that others may have open too.
    async fn start_over(config: Config, shared: Option<Arc<dyn Metadata>>) -> Result<Self, Error> {
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
        let blobs = match config.has(Role::Storage) {
            true => Some(config.blob_place().open(config.reserve).await?),
            false => None,
        };
        let open = move || App::open(config, blobs, open_enrolment, shared);
        let opened = tokio::task::spawn_blocking(open).await;
        let (app, wait) = opened.map_err(std::io::Error::other)??;
        tokio::time::sleep(wait).await;
        let listening = listen::Listening {
            listener: TcpListener::from_std(listener)?,
            app: app.clone(),
            tls,
        };
        let tls = listening.tls.is_some();
        let (stop, stopped) = oneshot::channel();
        Ok(Self {
            address,
            tls,
            stop: Some(stop),
            listening: tokio::spawn(listening.run(stopped)),
            upkeep: tokio::spawn(upkeep::work(app)),
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

    /// Says so to balancers ([`Config::drain_notice`]), lets requests end (at most
    /// [`Config::drain`]), stops to listen and closes the stores.
    pub async fn shutdown(mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have ended by itself.
            let _ = stop.send(());
        }
        let _ = (&mut self.listening).await;
        self.upkeep.abort();
        let _ = (&mut self.upkeep).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.listening.abort();
        self.upkeep.abort();
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
    tracing::info!("stopping");
    server.shutdown().await;
    Ok(())
}

/// What a data directory keeps, or says that a database does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// The metadata.
    Metadata,
    /// The third party's registry.
    Registry,
}

impl Kept {
    fn name(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Registry => "registry",
        }
    }

    /// Where it is.
    fn below(self, data: &Path) -> PathBuf {
        data.join(match self {
            Self::Metadata => "metadata",
            Self::Registry => "ttp",
        })
    }

    /// Where it says that a database has it.
    fn note(self, data: &Path) -> PathBuf {
        self.below(data).with_extension("postgres")
    }
}

/// Fails if a data directory is opened the other way than before: all blobs would look as if nobody
/// owned them, and a third party would give numbers and words away again.
fn check_place(data: &Path, what: Kept, in_database: bool) -> Result<(), Error> {
    let (name, kept, elsewhere) = (what.name(), what.below(data), what.note(data));
    if in_database && kept.exists() {
        return Err(Error::Place(format!(
            "{} holds the {name}: move it with `camvault migrate {} --to-metadata URL`, start \
             without --metadata, or take another data directory",
            kept.display(),
            data.display()
        )));
    }
    if !in_database && elsewhere.exists() {
        let scrub = match what {
            Kept::Metadata => {
                "; a scrub needs the running server's address instead of its directory"
            }
            Kept::Registry => "",
        };
        return Err(Error::Place(format!(
            "{} says that the {name} is in a PostgreSQL database: give --metadata{scrub}",
            elsewhere.display()
        )));
    }
    if in_database && !elsewhere.exists() {
        note_place(data, what)?;
    }
    Ok(())
}

/// Notes that a database has what a data directory could keep.
fn note_place(data: &Path, what: Kept) -> Result<(), Error> {
    let name = what.name();
    let note =
        format!("The {name} of this data directory is in a PostgreSQL database (--metadata).\n");
    // With secrets and blobs elsewhere nobody has made it yet.
    std::fs::create_dir_all(data)?;
    Ok(store::write_whole(&what.note(data), note.as_bytes())?)
}

/// Scrubs what a server keeps that has both roles and does not run.
pub async fn scrub_stopped(config: &Config, orphan_age: Duration) -> Result<ScrubReport, Error> {
    check_place(&config.data, Kept::Metadata, false)?;
    let tree = Tree::new(*secrets::read(&config.secrets_dir().join("master"))?);
    let room = Room::new(&config.data, 0);
    let metadata = Embedded::open(&Kept::Metadata.below(&config.data), tree, room)?;
    let scrub = upkeep::Scrub {
        metadata: Arc::new(metadata),
        blobs: config.blob_place().open(0).await?,
    };
    Ok(scrub.run(orphan_age).await?)
}
