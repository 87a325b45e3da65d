// SPDX-License-Identifier: MPL-2.0
//! How a server is set up.

use super::Gateway;
use super::body::Pace;
use crate::protocol::{DEFAULT_PORT, Limits};
use crate::store::{BlobPlace, PostgresUrl};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Part of the work that a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Who owns what: tags, owner groups, sealed manifests.
    Metadata,
    /// The blobs.
    Storage,
    /// The third party: contracts, tickets, arbitration.
    Ttp,
    /// The cloud that opens sealed streams ([`Config::gateway`] does it).
    Gateway,
}

impl Role {
    /// Its name, as it is given to `--role`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Storage => "storage",
            Self::Ttp => "ttp",
            Self::Gateway => "gateway",
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "metadata" => Ok(Self::Metadata),
            "storage" => Ok(Self::Storage),
            "ttp" => Ok(Self::Ttp),
            "gateway" => Ok(Self::Gateway),
            _ => Err(format!(
                "{text:?} is no role: expected metadata, storage, ttp or gateway"
            )),
        }
    }
}

/// Tickets of a thousand that are audited by default.
pub const DEFAULT_AUDIT: u32 = 50;

/// How a server is set up. [`Config::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything is kept that has no place of its own; made if it is not there.
    pub data: PathBuf,
    /// Where the secrets are; `None`: `secrets` in the data directory. Servers that share a role
    /// need the same.
    pub secrets: Option<PathBuf>,
    /// Where the storage role keeps blobs; `None`: in the data directory.
    pub blobs: Option<BlobPlace>,
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What this process does.
    pub roles: Vec<Role>,
    /// The database that metadata and the third party's registry are kept in; `None`: in the data
    /// directory.
    pub metadata: Option<PostgresUrl>,
    /// Base URL of the storage role, if another process has it.
    pub storage_url: Option<String>,
    /// File with the secret that metadata and storage share; `None`: made in the data directory.
    pub link_secret: Option<PathBuf>,
    /// What does the work of the role gateway.
    pub gateway: Option<Arc<dyn Gateway>>,
    /// Certificate chain and key (PEM) for TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// `host:port` under which clients reach this server; requests signed for another are
    /// refused. Empty: any.
    pub names: Vec<String>,
    /// Bytes of chunks that one owner may hold.
    pub quota: Option<u64>,
    /// How long a blob without owners is kept.
    pub grace: Duration,
    /// How often blobs without owners are looked for.
    pub collect_every: Duration,
    /// How often it is looked what retention no longer keeps.
    pub retain_every: Duration,
    /// The longest that footage is kept, whatever its owner wants.
    pub retention_age: Option<Duration>,
    /// How long another server waits for one that has a job and says nothing.
    pub lease: Duration,
    /// Requests of one owner in a second, at all servers over one metadata store together.
    pub rate: Option<u64>,
    /// Bytes of blobs that one owner sends, and that it fetches, in a second, likewise.
    pub rate_bytes: Option<u64>,
    /// Bytes that stay free on the disk.
    pub reserve: u64,
    /// Requests worked on at once.
    pub max_requests: usize,
    /// Connections open at once.
    pub max_connections: usize,
    /// Bytes of request bodies in memory at once.
    pub memory: u64,
    /// Bounds on what one request may hold.
    pub limits: Limits,
    /// How long an arbitration may search for originals in frames that were cut or turned.
    pub search_time: Duration,
    /// Tickets of a thousand whose owner has to open a part of what it sent, drawn at random. New
    /// contracts name as many; with 0 there are no audits, whatever contracts name.
    pub audit: u32,
    /// How slow a request's body may be.
    pub pace: Pace,
    /// How long a request's headers may take, and how long a connection may idle.
    pub header_timeout: Duration,
    /// How long requests are still taken after shutdown was asked for, while `/healthz` sends
    /// balancers elsewhere.
    pub drain_notice: Duration,
    /// How long requests may go on after that.
    pub drain: Duration,
}

impl Config {
    /// All roles on the default port of the loopback address, with its data in `data`.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            secrets: None,
            blobs: None,
            listen: (Ipv4Addr::LOCALHOST, DEFAULT_PORT).into(),
            roles: vec![Role::Metadata, Role::Storage, Role::Ttp],
            metadata: None,
            storage_url: None,
            link_secret: None,
            gateway: None,
            tls: None,
            names: Vec::new(),
            quota: None,
            grace: Duration::from_secs(60),
            collect_every: Duration::from_secs(10),
            retain_every: Duration::from_secs(60),
            retention_age: None,
            lease: Duration::from_secs(30),
            rate: None,
            rate_bytes: None,
            reserve: 64 << 20,
            max_requests: 128,
            max_connections: 4096,
            memory: 512 << 20,
            limits: Limits::default(),
            search_time: Duration::from_secs(600),
            audit: DEFAULT_AUDIT,
            pace: Pace::default(),
            header_timeout: Duration::from_secs(30),
            drain_notice: Duration::ZERO,
            drain: Duration::from_secs(30),
        }
    }

    /// The directory of secrets.
    pub fn secrets_dir(&self) -> PathBuf {
        let default = || self.data.join("secrets");
        self.secrets.clone().unwrap_or_else(default)
    }

    /// The file with the secret that metadata and storage share.
    pub fn link_file(&self) -> PathBuf {
        let default = || self.secrets_dir().join("link");
        self.link_secret.clone().unwrap_or_else(default)
    }

    /// Where the storage role keeps blobs.
    pub fn blob_place(&self) -> BlobPlace {
        let default = || BlobPlace::Directory(self.data.clone());
        self.blobs.clone().unwrap_or_else(default)
    }

    /// Whether this process has a role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}
