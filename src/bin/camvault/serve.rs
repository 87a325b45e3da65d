// SPDX-License-Identifier: MPL-2.0
use crate::common::{self, Failure, Places};
use crate::log;
use clap::ArgAction;
use gstcamvault::elements::dmqimopen::DEFAULT_MAX_PIXELS;
use gstcamvault::gateway::{self, Cloud, Encoder};
use gstcamvault::homomorphic::packed::DEFAULT_MODULUS_BITS;
use gstcamvault::server::{self, Config, DEFAULT_AUDIT, Role};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// Run a vault, until SIGTERM.
#[derive(clap::Args)]
pub struct Args {
    /// Directory that everything is kept in that has no place of its own; made if it is not there.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    places: Places,
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7420")]
    listen: SocketAddr,
    /// What this process does: metadata, storage, ttp (default: these three), gateway.
    #[arg(long, value_name = "ROLE", value_delimiter = ',', action = ArgAction::Append)]
    role: Vec<Role>,
    /// PostgreSQL database that metadata and the third party's registry are kept in, for any number
    /// of servers with the same secrets: postgres://USER@HOST[:PORT][,HOST…]/DATABASE; the password also from PGPASSWORD or
    /// ~/.pgpass [default: in DIR].
    #[arg(long, value_name = "URL")]
    metadata: Option<Zeroizing<String>>,
    /// Address of the process that has the role storage, as clients reach it.
    #[arg(long, value_name = "URL")]
    storage_url: Option<String>,
    /// File with the secret that metadata and storage share; made if it is not there
    /// [default: DIR/secrets/link].
    #[arg(long, value_name = "FILE")]
    link_secret: Option<PathBuf>,
    /// Certificate chain for TLS.
    #[arg(long, value_name = "PEM", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key.
    #[arg(long, value_name = "PEM", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Name under which clients reach this server; requests for another are refused (repeatable;
    /// default: any).
    #[arg(long = "name", value_name = "HOST:PORT")]
    names: Vec<String>,
    /// Role gateway: address that takes sealed streams; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7421")]
    sealed_listen: SocketAddr,
    /// Role gateway: the third party [default: this process, if it has that role].
    #[arg(long, value_name = "URL")]
    ttp: Option<String>,
    /// Role gateway: the third party's registration token, where one is needed.
    #[arg(long, value_name = "TOKEN", env = "CAMVAULT_TTP_TOKEN")]
    ttp_token: Option<String>,
    /// Role gateway: the vault to archive in [default: this process, if it has those roles].
    #[arg(long, value_name = "URL")]
    vault: Option<String>,
    /// Role gateway: the vault's enrolment token, where one is needed.
    #[arg(long, value_name = "TOKEN", env = "CAMVAULT_VAULT_TOKEN")]
    vault_token: Option<String>,
    /// Role gateway: how frames are archived: x264, lossless, or elements from raw video to a
    /// parsed stream in the language of gst-launch.
    #[arg(long, value_name = "ENCODER", default_value = "x264")]
    encoder: Encoder,
    /// Role gateway: bits of the Paillier key that is made at the first start: 2048, 3072 or 4096.
    #[arg(long, value_name = "BITS", default_value_t = DEFAULT_MODULUS_BITS)]
    paillier_bits: u32,
    /// Role gateway: pixels of a frame, at most.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_PIXELS, value_parser = clap::value_parser!(u64).range(1..))]
    max_pixels: u64,
    /// Role ttp: tickets of a thousand whose owner has to open a part of what it sent; 0: none.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_AUDIT, value_parser = clap::value_parser!(u32).range(0..=1000))]
    audit: u32,
    /// Bytes of chunks that one owner may hold.
    #[arg(long, value_name = "BYTES")]
    quota: Option<u64>,
    /// Seconds that a blob without owners is kept.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    grace: u64,
    /// Seconds between two searches for such blobs.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    collect_every: u64,
    /// The longest that footage is kept, whatever its owner sets (30d, 12h).
    #[arg(long, value_name = "TIME", value_parser = common::duration)]
    retention_age: Option<Duration>,
    /// Requests that one owner may send in a second, to all servers of the vault together.
    #[arg(long, value_name = "REQUESTS_PER_SECOND")]
    rate: Option<u64>,
    /// Bytes of blobs that one owner may send in a second, and fetch, likewise (20M).
    #[arg(long, value_name = "BYTES_PER_SECOND", value_parser = common::byte_count)]
    rate_bytes: Option<u64>,
    /// Bytes that stay free on the disk.
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    reserve: u64,
    /// Seconds that an arbitration may search for the original in frames that were cut or turned.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    search_time: u64,
    /// Requests worked on at once.
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_requests: usize,
    /// Connections open at once.
    #[arg(long, value_name = "N", default_value_t = 4096)]
    max_connections: usize,
    /// Seconds that requests are still taken after SIGTERM, while /healthz says 503: for balancers.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    drain_notice: u64,
    #[command(flatten)]
    log: log::LogArgs,
}

impl Args {
    /// The gateway, if this process is one.
    fn gateway(&self) -> Result<Option<Cloud>, Failure> {
        if !self.role.contains(&Role::Gateway) {
            return Ok(None);
        }
        let own = |roles: &[Role]| {
            let has = roles.iter().all(|role| self.role.contains(role));
            let scheme = if self.tls_cert.is_some() {
                "https"
            } else {
                "http"
            };
            (has && self.listen.port() > 0).then(|| format!("{scheme}://{}", self.listen))
        };
        let needed = |option| {
            move || {
                Failure::usage(format!(
                    "the role gateway needs {option}, unless this process has that role and --listen a port"
                ))
            }
        };
        let ttp = self.ttp.clone().or_else(|| own(&[Role::Ttp]));
        let vault = self.vault.clone();
        let vault = vault.or_else(|| own(&[Role::Metadata, Role::Storage]));
        let settings = gateway::Settings {
            ttp_token: self.ttp_token.clone(),
            vault_token: self.vault_token.clone(),
            encoder: self.encoder.clone(),
            modulus_bits: self.paillier_bits,
            max_pixels: self.max_pixels,
            ..gateway::Settings::new(
                self.data.join("gateway"),
                self.sealed_listen,
                &ttp.ok_or_else(needed("--ttp"))?,
                &vault.ok_or_else(needed("--vault"))?,
            )
        };
        let cloud = Cloud::open(settings).map_err(|e| Failure::new(e.to_string()))?;
        Ok(Some(cloud))
    }

    fn config(self) -> Result<Config, Failure> {
        let mut config = self.places.config(self.data)?;
        let metadata = self.metadata.as_ref().map(|url| url.as_str());
        config.metadata = common::database("--metadata", metadata)?;
        config.listen = self.listen;
        if !self.role.is_empty() {
            config.roles = self.role;
        }
        config.storage_url = self.storage_url;
        config.link_secret = self.link_secret;
        config.tls = self.tls_cert.zip(self.tls_key);
        config.names = self.names.iter().map(|n| n.to_ascii_lowercase()).collect();
        config.quota = self.quota;
        config.grace = Duration::from_secs(self.grace);
        config.collect_every = Duration::from_secs(self.collect_every.max(1));
        config.retention_age = self.retention_age;
        config.rate = self.rate;
        config.rate_bytes = self.rate_bytes;
        config.reserve = self.reserve;
        config.audit = self.audit;
        config.search_time = Duration::from_secs(self.search_time);
        config.max_requests = self.max_requests;
        config.max_connections = self.max_connections;
        config.drain_notice = Duration::from_secs(self.drain_notice);
        Ok(config)
    }
}

pub fn run(args: Args) -> Result<ExitCode, Failure> {
    let log = log::start(&args.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(e.to_string()))?;
    let gateway = args.gateway()?;
    let mut config = args.config()?;
    if let Some(gateway) = &gateway {
        config.gateway = Some(Arc::new(gateway.clone()));
    }
    let started = async || match &gateway {
        None => Ok(None),
        Some(gateway) => {
            let address = gateway.start().await.map_err(|e| e.to_string())?;
            Ok(Some(format!("sealed streams on {address}")))
        }
    };
    let served = runtime.block_on(server::serve(config, started));
    log.end();
    served.map_err(|e| Failure::new(e.to_string()))?;
    Ok(ExitCode::SUCCESS)
}
