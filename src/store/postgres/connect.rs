// SPDX-License-Identifier: MPL-2.0
//! Where the database is, and connections to whichever of its hosts takes writes.
//!
//! A frozen host still accepts connections, and one that was replaced may still answer: so all
//! hosts are tried at once, each under a timeout that covers everything up to the check that it
//! takes writes, and that check is repeated while a connection is used.

use super::statements::Statements;
use crate::store::tables::Space;
use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use futures::stream::{FuturesUnordered, StreamExt as _};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Until a host has to have taken a connection and said that it takes writes.
const CONNECT: Duration = Duration::from_secs(3);
/// Within this a connection that was found to take writes counts as one that does.
const FRESH: Duration = Duration::from_secs(1);

/// Where a PostgreSQL database is: `postgres://USER@HOST[:PORT][,HOST…]/DATABASE[?OPTION=VALUE…]`.
///
/// The password comes from the URL, the environment variable `PGPASSWORD`, or `~/.pgpass`
/// (`PGPASSFILE`); it is not in `Debug` or in errors. `sslmode` is `disable`, `prefer` (default),
/// `require`, or `verify-full`, which alone, or with `sslrootcert=FILE`, checks who the server is.
#[derive(Clone)]
pub struct PostgresUrl {
    config: tokio_postgres::Config,
    /// Whether certificates are checked, and against what: a file, or the system's roots.
    verify: bool,
    roots: Option<PathBuf>,
}

impl std::fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hosts: Vec<String> = (0..self.config.get_hosts().len())
            .map(|i| self.name(i))
            .collect();
        let database = self.config.get_dbname().unwrap_or_default();
        write!(f, "postgres://{}/{database}", hosts.join(","))
    }
}

/// Why an address is none.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// Not understood.
    #[error(
        "{0}: expected postgres://USER@HOST[:PORT][,HOST[:PORT]…]/DATABASE[?sslmode=…&sslrootcert=FILE]"
    )]
    Form(String),
    /// The file with certificates.
    #[error("sslrootcert={0}: {1}")]
    Roots(PathBuf, String),
}

impl FromStr for PostgresUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let form = |why: &str| UrlError::Form(why.into());
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(form("not the address of a PostgreSQL database"));
        }
        let (base, query) = text.split_once('?').unwrap_or((text, ""));
        let (mut verify, mut roots, mut rest) = (false, None, Vec::new());
        for option in query.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("sslmode", "verify-full")) => {
                    verify = true;
                    rest.push("sslmode=require");
                }
                Some(("sslrootcert", file)) => {
                    let file = percent_encoding::percent_decode_str(file).decode_utf8();
                    roots = Some(PathBuf::from(&*file.map_err(|_| form("sslrootcert"))?));
                    verify = true;
                }
                _ => rest.push(option),
            }
        }
        let url = zeroize::Zeroizing::new(format!("{base}?{}", rest.join("&")));
        // What it says is which parameter is wrong, never a value.
        let config = tokio_postgres::Config::from_str(&url);
        let mut config = config.map_err(|e| {
            let cause = std::error::Error::source(&e).map(ToString::to_string);
            form(&cause.unwrap_or_else(|| e.to_string()))
        })?;
        if config.get_hosts().is_empty() {
            return Err(form("it names no host"));
        }
        let user = std::env::var("PGUSER").ok();
        let Some(user) = config.get_user().map(str::to_owned).or(user) else {
            return Err(form("it names no user"));
        };
        config.user(&user);
        if config.get_dbname().is_none() {
            config.dbname(&user);
        }
        if config.get_application_name().is_none() {
            config.application_name("camvault");
        }
        // A host that vanishes is noticed in seconds.
        config.keepalives_idle(Duration::from_secs(5));
        config.keepalives_interval(Duration::from_secs(2));
        config.keepalives_retries(3);
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(Duration::from_secs(10));
        }
        Ok(Self {
            config,
            verify,
            roots,
        })
    }
}

impl PostgresUrl {
    fn port(&self, i: usize) -> u16 {
        let ports = self.config.get_ports();
        ports.get(i).or(ports.first()).copied().unwrap_or(5432)
    }

    fn host(&self, i: usize) -> String {
        match self.config.get_hosts().get(i) {
            Some(Host::Tcp(name)) => name.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => String::new(),
        }
    }

    fn name(&self, i: usize) -> String {
        format!("{}:{}", self.host(i), self.port(i))
    }

    /// The settings of one host.
    fn one(&self, i: usize) -> tokio_postgres::Config {
        let mut one = tokio_postgres::Config::new();
        let all = &self.config;
        match all.get_hosts().get(i) {
            Some(Host::Tcp(name)) => one.host(name),
            Some(Host::Unix(path)) => one.host_path(path),
            None => &mut one,
        };
        if let Some(address) = all.get_hostaddrs().get(i) {
            one.hostaddr(*address);
        }
        one.port(self.port(i));
        one.user(all.get_user().unwrap_or_default());
        one.dbname(all.get_dbname().unwrap_or_default());
        one.application_name(all.get_application_name().unwrap_or_default());
        if let Some(options) = all.get_options() {
            one.options(options);
        }
        let password = all.get_password().map(<[u8]>::to_vec);
        if let Some(password) = password.or_else(|| self.kept_password(i)) {
            one.password(password);
        }
        one.ssl_mode(all.get_ssl_mode());
        one.ssl_negotiation(all.get_ssl_negotiation());
        one.channel_binding(all.get_channel_binding());
        one.keepalives(all.get_keepalives());
        one.keepalives_idle(all.get_keepalives_idle());
        if let Some(interval) = all.get_keepalives_interval() {
            one.keepalives_interval(interval);
        }
        if let Some(retries) = all.get_keepalives_retries() {
            one.keepalives_retries(retries);
        }
        if let Some(timeout) = all.get_tcp_user_timeout() {
            one.tcp_user_timeout(*timeout);
        }
        one
    }

    /// From the environment or the file of passwords, as `psql` has them.
    fn kept_password(&self, i: usize) -> Option<Vec<u8>> {
        if let Some(password) = std::env::var_os("PGPASSWORD") {
            return Some(password.into_encoded_bytes());
        }
        let file = std::env::var_os("PGPASSFILE").map(PathBuf::from);
        let file = file.or_else(|| Some(std::env::home_dir()?.join(".pgpass")))?;
        let text = zeroize::Zeroizing::new(std::fs::read_to_string(file).ok()?);
        let (host, port) = (self.host(i), self.port(i).to_string());
        let database = self.config.get_dbname().unwrap_or_default();
        let user = self.config.get_user().unwrap_or_default();
        find_password(&text, [&host, &port, database, user])
    }

    fn tls(&self) -> Result<MakeRustlsConnect, UrlError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| UrlError::Form(e.to_string()))?;
        let config = match self.verify {
            false => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
                .with_no_client_auth(),
            true => builder
                .with_root_certificates(self.roots()?)
                .with_no_client_auth(),
        };
        Ok(MakeRustlsConnect::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, UrlError> {
        let mut roots = RootCertStore::empty();
        match &self.roots {
            None => {
                let system = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(system.certs);
            }
            Some(file) => {
                let wrong =
                    |e: &dyn std::fmt::Display| UrlError::Roots(file.clone(), e.to_string());
                let certificates = CertificateDer::pem_file_iter(file).map_err(|e| wrong(&e))?;
                for certificate in certificates {
                    let certificate = certificate.map_err(|e| wrong(&e))?;
                    roots.add(certificate).map_err(|e| wrong(&e))?;
                }
            }
        }
        Ok(roots)
    }
}

/// The password in lines of `host:port:database:user:password`, in which `*` stands for anything
/// and a backslash before `:` and `\`.
fn find_password(text: &str, wanted: [&str; 4]) -> Option<Vec<u8>> {
    let fits = |line: &str| {
        let mut fields = vec![String::new()];
        let mut letters = line.chars();
        while let Some(letter) = letters.next() {
            match (letter, fields.len()) {
                ('\\', _) => fields.last_mut()?.extend(letters.next()),
                (':', ..5) => fields.push(String::new()),
                _ => fields.last_mut()?.push(letter),
            }
        }
        let password = fields.pop()?;
        let fits = fields.len() == 4
            && fields
                .iter()
                .zip(wanted)
                .all(|(field, wanted)| field == "*" || field == wanted);
        fits.then(|| password.into_bytes())
    };
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(fits)
}

/// Encrypts without asking who the other end is: `sslmode` `prefer` and `require`.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The database said this, or the connection broke.
    #[error("{}", said(.0))]
    Database(#[from] tokio_postgres::Error),
    /// Too slow.
    #[error("does not answer")]
    Slow,
    /// Another host is the one to write to.
    #[error("takes no writes")]
    ReadOnly,
    /// None of the hosts, why, and whether waiting would not help.
    #[error("{0}")]
    None(String, bool),
}

impl ConnectError {
    /// Whether it is user, password or database that is wrong.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Database(error) => error.code().is_some_and(|code| {
                *code == SqlState::INVALID_CATALOG_NAME || code.code().starts_with("28")
            }),
            Self::None(_, is_final) => *is_final,
            Self::Slow | Self::ReadOnly => false,
        }
    }
}

/// An error with its cause.
pub fn said(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(db), _) => format!("{} ({})", db.message(), db.code().code()),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}

/// A connection to the host that takes writes.
pub struct Connection {
    /// Asks.
    pub client: Client,
    /// What it asks.
    pub statements: Statements,
    unfinished: AtomicU32,
    checked: Instant,
    /// Failures before it was made, and up to now.
    before: u32,
    failures: Arc<AtomicU32>,
}

/// Something on a connection that has to come to its end, or the connection is not used again.
pub struct InUse<'a>(&'a Connection);

impl Connection {
    /// The host did not answer: none of the connections that there are is used again, since each
    /// would be waited for.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Something begins.
    pub fn in_use(&self) -> InUse<'_> {
        self.unfinished.fetch_add(1, Ordering::Relaxed);
        InUse(self)
    }
}

impl InUse<'_> {
    /// It has come to its end.
    pub fn done(self) {
        self.0.unfinished.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Makes connections for the pool.
pub struct Connector {
    url: PostgresUrl,
    spaces: &'static [Space],
    tls: MakeRustlsConnect,
    failures: Arc<AtomicU32>,
}

const SESSION: &str = "
    set search_path = camvault;
    set statement_timeout = '10s';
    set idle_in_transaction_session_timeout = '15s';
    set enable_seqscan = off;
    set plan_cache_mode = force_generic_plan;
    set jit = off";

const TAKES_WRITES: &str =
    "select not pg_is_in_recovery() and current_setting('transaction_read_only') = 'off'";

impl Connector {
    /// To the hosts of `url`, for a store of these spaces.
    pub fn new(url: &PostgresUrl, spaces: &'static [Space]) -> Result<Self, UrlError> {
        Ok(Self {
            spaces,
            tls: url.tls()?,
            url: url.clone(),
            failures: Arc::default(),
        })
    }

    async fn connect_one(&self, i: usize) -> Result<Client, ConnectError> {
        let config = self.url.one(i);
        let client = if config.get_ssl_mode() == SslMode::Disable {
            let (client, connection) = config.connect(NoTls).await?;
            // Its errors are the client's.
            tokio::spawn(connection);
            client
        } else {
            let (client, connection) = config.connect(self.tls.clone()).await?;
            tokio::spawn(connection);
            client
        };
        let (writes, session) = futures::join!(
            client.query_one(TAKES_WRITES, &[]),
            client.batch_execute(SESSION)
        );
        if !writes?.try_get::<_, bool>(0)? {
            return Err(ConnectError::ReadOnly);
        }
        session?;
        Ok(client)
    }

    /// To the first host that takes writes.
    pub async fn connect(&self) -> Result<Client, ConnectError> {
        let hosts = 0..self.url.config.get_hosts().len();
        let mut tried: FuturesUnordered<_> = hosts
            .map(|i| async move {
                let connected = tokio::time::timeout(CONNECT, self.connect_one(i)).await;
                (i, connected.unwrap_or(Err(ConnectError::Slow)))
            })
            .collect();
        let (mut why, mut is_final) = (Vec::new(), false);
        while let Some((i, connected)) = tried.next().await {
            match connected {
                Ok(client) => return Ok(client),
                Err(error) => {
                    is_final |= error.is_final();
                    why.push(format!("{}: {error}", self.url.name(i)));
                }
            }
        }
        Err(ConnectError::None(why.join("; "), is_final))
    }
}

impl Manager for Connector {
    type Type = Connection;
    type Error = ConnectError;

    async fn create(&self) -> Result<Connection, ConnectError> {
        let before = self.failures.load(Ordering::Relaxed);
        let client = self.connect().await?;
        let statements =
            tokio::time::timeout(CONNECT, Statements::prepare(&client, self.spaces)).await;
        Ok(Connection {
            statements: statements.map_err(|_| ConnectError::Slow)??,
            client,
            unfinished: AtomicU32::new(0),
            checked: Instant::now(),
            before,
            failures: self.failures.clone(),
        })
    }

    async fn recycle(
        &self,
        connection: &mut Connection,
        _: &Metrics,
    ) -> RecycleResult<ConnectError> {
        let unfinished = connection.unfinished.load(Ordering::Relaxed) > 0;
        let old = connection.before != self.failures.load(Ordering::Relaxed);
        if unfinished || old || connection.client.is_closed() {
            return Err(RecycleError::message("not to be used again"));
        }
        if connection.checked.elapsed() > FRESH {
            let check = connection.client.query_one(TAKES_WRITES, &[]);
            let writes = match tokio::time::timeout(CONNECT, check).await {
                Err(_) => Err(ConnectError::Slow),
                Ok(row) => row.and_then(|row| row.try_get(0)).map_err(Into::into),
            };
            match writes {
                Ok(true) => connection.checked = Instant::now(),
                other => {
                    connection.failed();
                    return Err(other.err().unwrap_or(ConnectError::ReadOnly).into());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_passwords_stay_inside() {
        let url = "postgres://me:s3cret@one,two:5433/db?sslmode=verify-full";
        let url: PostgresUrl = url.parse().unwrap();
        assert_eq!(format!("{url:?}"), "postgres://one:5432,two:5433/db");
        assert!(url.verify);
        assert_eq!(url.one(1).get_ports(), [5433]);
        assert_eq!(url.one(1).get_password(), Some(b"s3cret".as_slice()));
        for wrong in [
            "http://me:s3cret@one/db",
            "postgres://me:s3cret@/db",
            "postgres://me:s3cret@one/db?sslmode=s3cret",
            "postgres://me:s3cret@one:s3cret/db",
            "postgres://me:s3cret@one/db?s3cret=1",
        ] {
            let error = wrong.parse::<PostgresUrl>().unwrap_err();
            let parameter = wrong.contains("?s3cret");
            assert!(
                parameter || !error.to_string().contains("s3cret"),
                "{error}"
            );
        }
    }

    #[test]
    fn passwords_are_found_as_psql_finds_them() {
        let file = "#one:5432:db:me:no\nother:*:*:*:no\none:5432:*:me:a\\:b\\\\c:d\n*:*:*:*:last\n";
        let found = |host| find_password(file, [host, "5432", "db", "me"]);
        assert_eq!(found("one").unwrap(), b"a:b\\c:d");
        assert_eq!(found("two").unwrap(), b"last");
        assert_eq!(
            find_password("one:1:db:me:x", ["one", "2", "db", "me"]),
            None
        );
    }
}
