// SPDX-License-Identifier: MPL-2.0
//! Which certificates this side of a connection trusts: the system's, and those in the PEM file
//! that `CAMVAULT_CA_FILE` names.

use std::error::Error;
use std::fmt;

/// The file of trusted certificates, or the system's, cannot be used.
#[derive(Debug)]
pub struct Unusable {
    /// Which.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}

/// An HTTP client to be, for a server with or without TLS.
pub fn client(
    tls: bool,
    set: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
) -> Result<reqwest::Client, Unusable> {
    // A second installation is refused and harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = set(reqwest::Client::builder());
    let file = std::env::var_os("CAMVAULT_CA_FILE").filter(|_| tls);
    let path = file
        .as_ref()
        .map_or("the system's".into(), |f| f.display().to_string());
    let wrong = |reason: String| Unusable {
        path: path.clone(),
        reason,
    };
    if let Some(file) = &file {
        let pem = std::fs::read(file).map_err(|e| wrong(e.to_string()))?;
        let certificates =
            reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| wrong(e.to_string()))?;
        if certificates.is_empty() {
            return Err(wrong("no certificate in it".into()));
        }
        builder = builder.tls_certs_merge(certificates);
    }
    if !tls {
        // Reading the system's certificates takes time, and fails where there are none.
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|e| wrong(e.to_string()))
}

/// Whether a URL names this machine: no proxy leads there.
pub fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Why a request was lost.
pub struct Lost {
    /// In words.
    pub reason: String,
    /// The server showed a certificate that is not accepted.
    pub untrusted: bool,
}

impl Lost {
    /// The innermost cause says what happened; the outer ones repeat the URL.
    pub fn of(error: &reqwest::Error) -> Self {
        let mut cause: &(dyn Error + 'static) = error;
        let mut untrusted = false;
        loop {
            // What an I/O error wraps is not among its sources.
            let wrapped = cause
                .downcast_ref::<std::io::Error>()
                .and_then(std::io::Error::get_ref)
                .map(|inner| inner as &(dyn Error + 'static));
            let Some(inner) = wrapped.or_else(|| cause.source()) else {
                break;
            };
            cause = inner;
            untrusted |= matches!(
                cause.downcast_ref(),
                Some(rustls::Error::InvalidCertificate(_))
            );
        }
        Self {
            reason: cause.to_string(),
            untrusted,
        }
    }
}
