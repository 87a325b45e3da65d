// SPDX-License-Identifier: MPL-2.0
//! Takes connections and serves HTTP/1.1 on them, in the clear or over TLS.

use super::Error;
use super::app::Peer;
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
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

/// Largest size of a request's headers: a list of 1024 blobs takes 48 KiB.
const HEADER_BYTES: usize = 256 << 10;

/// How connections are served.
pub struct Listening {
    /// Where they come in.
    pub listener: TcpListener,
    /// What is served.
    pub router: Router,
    /// TLS, if it is wanted.
    pub tls: Option<TlsAcceptor>,
    /// Time for a handshake and for a request's headers.
    pub header_timeout: Duration,
    /// Connections at once.
    pub max_connections: usize,
    /// Time for requests to end after `stop`.
    pub drain: Duration,
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
    /// Serves until `stop`, then lets requests end.
    pub async fn run(self, mut stop: oneshot::Receiver<()>) {
        let graceful = GracefulShutdown::new();
        let connections = Arc::new(Semaphore::new(self.max_connections));
        loop {
            let accept = async {
                // A connection too many waits in the kernel's queue.
                let permit = connections.clone().acquire_owned().await;
                (self.listener.accept().await, permit)
            };
            let (accepted, permit) = tokio::select! {
                _ = &mut stop => break,
                accepted = accept => accepted,
            };
            match (accepted, permit) {
                (Ok((stream, peer)), Ok(permit)) => {
                    let connection = Connection {
                        router: self.router.clone(),
                        peer,
                        header_timeout: self.header_timeout,
                        watcher: graceful.watcher(),
                        _permit: permit,
                    };
                    tokio::spawn(connection.open(stream, self.tls.clone()));
                }
                (Err(error), _) => {
                    // Out of file descriptors, most likely: some will come back.
                    eprintln!("camvault: accepting a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                (_, Err(_)) => break,
            }
        }
        drop(self.listener);
        if tokio::time::timeout(self.drain, graceful.shutdown())
            .await
            .is_err()
        {
            eprintln!("camvault: some requests did not end in time and are broken off");
        }
    }
}

struct Connection {
    router: Router,
    peer: SocketAddr,
    header_timeout: Duration,
    watcher: Watcher,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn open(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        // Without it an answer may wait for an acknowledgement; it works either way.
        let _ = stream.set_nodelay(true);
        match tls {
            None => self.serve(stream).await,
            Some(tls) => {
                let handshake = tokio::time::timeout(self.header_timeout, tls.accept(stream));
                // A failed handshake is the other side's trouble.
                if let Ok(Ok(stream)) = handshake.await {
                    self.serve(stream).await;
                }
            }
        }
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
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
        let _ = self.watcher.watch(connection).await;
    }
}
