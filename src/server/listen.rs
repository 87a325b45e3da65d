// SPDX-License-Identifier: MPL-2.0
//! Takes connections and serves HTTP/1.1 on them, in the clear or over TLS.

use super::Error;
use super::app::{App, Peer, Phase};
use super::metrics::Counted;
use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

/// Largest size of a request's headers: a list of 1024 blobs takes 48 KiB.
const HEADER_BYTES: usize = 256 << 10;

/// How connections are served.
pub struct Listening {
    /// Where they come in.
    pub listener: TcpListener,
    /// What is served.
    pub app: Arc<App>,
    /// TLS, if it is wanted.
    pub tls: Option<TlsAcceptor>,
}

/// Reads a certificate chain and its key.
pub fn tls(cert: &Path, key: &Path) -> Result<TlsAcceptor, Error> {
    let at =
        |path: &Path, e: &dyn std::fmt::Display| Error::Tls(format!("{}: {e}", path.display()));
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| at(cert, &e))?;
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|e| at(key, &e))?;
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .map_err(|e| at(cert, &e))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl Listening {
    /// Serves until `stop`, then until balancers have noticed, then until requests have ended.
    pub async fn run(self, stop: oneshot::Receiver<()>) {
        let app = self.app.clone();
        let graceful = GracefulShutdown::new();
        let serve = |connection: Connection, stream| {
            let watcher = graceful.watcher();
            tokio::spawn(connection.open(stream, self.tls.clone(), Some(watcher)));
        };
        tokio::select! {
            _ = stop => (),
            () = self.accept(serve) => (),
        }
        app.enter(Phase::Leaving);
        let left = async {
            let streams = async {
                if let Some(gateway) = &app.config.gateway {
                    gateway.stop().await;
                }
            };
            tokio::join!(streams, tokio::time::sleep(app.config.drain_notice))
        };
        tokio::select! {
            _ = left => (),
            () = self.accept(serve) => (),
        }
        app.enter(Phase::Ending);
        // Who still comes is told that the server stops. These connections end with it.
        let late = Mutex::new(JoinSet::new());
        let tell = |connection: Connection, stream| {
            let mut late = late.lock().unwrap_or_else(PoisonError::into_inner);
            while late.try_join_next().is_some() {}
            late.spawn(connection.open(stream, self.tls.clone(), None));
        };
        let ended = tokio::time::timeout(app.config.drain, graceful.shutdown());
        tokio::select! {
            ended = ended => if ended.is_err() {
                tracing::warn!("some requests did not end in time and are broken off");
            },
            () = self.accept(tell) => (),
        }
    }

    /// Takes connections for ever.
    async fn accept(&self, mut open: impl FnMut(Connection, TcpStream)) {
        let router = self.app.router();
        loop {
            // A connection too many waits in the kernel's queue.
            let Ok(permit) = self.app.connections.clone().acquire_owned().await else {
                return;
            };
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let connection = Connection {
                        router: router.clone(),
                        peer,
                        header_timeout: self.app.config.header_timeout,
                        _permit: permit,
                        _counted: Counted::new(&self.app.metrics.connections),
                    };
                    open(connection, stream);
                }
                Err(error) => {
                    // Out of file descriptors, most likely: some will come back.
                    tracing::error!(%error, "accepting a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

struct Connection {
    router: Router,
    peer: SocketAddr,
    header_timeout: Duration,
    _permit: OwnedSemaphorePermit,
    _counted: Counted,
}

impl Connection {
    /// Serves it; a watched one is asked to end when the server stops.
    async fn open(self, stream: TcpStream, tls: Option<TlsAcceptor>, watcher: Option<Watcher>) {
        // Without it an answer may wait for an acknowledgement; it works either way.
        let _ = stream.set_nodelay(true);
        match tls {
            None => self.serve(stream, watcher).await,
            Some(tls) => {
                let handshake = tokio::time::timeout(self.header_timeout, tls.accept(stream));
                // A failed handshake is the other side's trouble.
                if let Ok(Ok(stream)) = handshake.await {
                    self.serve(stream, watcher).await;
                }
            }
        }
    }

    async fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        watcher: Option<Watcher>,
    ) {
        let peer = Peer(self.peer);
        let service = self
            .router
            .map_request(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(peer);
                request.map(axum::body::Body::new)
            });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout)
            .max_buf_size(HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        // Whatever ends a connection early, the other side sees it too.
        let _ = match watcher {
            Some(watcher) => watcher.watch(connection).await,
            None => connection.await,
        };
    }
}
