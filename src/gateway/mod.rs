// SPDX-License-Identifier: MPL-2.0
//! The cloud: takes sealed streams, opens and encodes them, archives them in a vault under its own
//! identity, and gives owners their footage back without the mark.
//!
//! Below its data directory: `gateway.identity` and `gateway.paillier`, its keys;
//! `contracts/ID.contract`, what it has signed; `archives/ID/NAME`, a file for each archived stream
//! with the time it began; `tickets/ID`, which tickets were used.

mod ingest;
mod playback;

use crate::client::{self, Ttp, Vault};
use crate::elements::dmqimopen::DEFAULT_MAX_PIXELS;
use crate::homomorphic;
use crate::homomorphic::packed::{
    DEFAULT_MODULUS_BITS, SecretKey, read_secret_key, write_secret_key,
};
use crate::identity::Identity;
use crate::protocol::{
    Archive, Archives, Contract, GatewayInfo, GatewayRetrieval, RecordingUrl, Signed, UrlError,
    Window, hex, vault_base,
};
use crate::server::{Activity, Gateway, GatewayError, Messages, secrets};
use crate::store::{Hash, now_ms, write_whole};
use async_trait::async_trait;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Archives that are played at once.
const PLAYING: usize = 4;
/// Sealed streams at once.
const STREAMS: usize = 256;

/// How a gateway is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where its keys and lists are.
    pub data: PathBuf,
    /// Address that takes sealed streams.
    pub listen: SocketAddr,
    /// Base URL of the third party.
    pub ttp: String,
    /// Registration token of the third party, where one is needed.
    pub ttp_token: Option<String>,
    /// Base URL of the vault that it archives in.
    pub vault: String,
    /// Enrolment token of the vault, where one is needed.
    pub vault_token: Option<String>,
    /// How frames are encoded.
    pub encoder: Encoder,
    /// Bits of its Paillier key, when one is made.
    pub modulus_bits: u32,
    /// Pixels of a frame, at most.
    pub max_pixels: u64,
}

impl Settings {
    /// With the defaults: encodes by x264, 3072 bits, frames of up to 8192 × 4320 pixels.
    pub fn new(data: impl Into<PathBuf>, listen: SocketAddr, ttp: &str, vault: &str) -> Self {
        Self {
            data: data.into(),
            listen,
            ttp: ttp.into(),
            ttp_token: None,
            vault: vault.into(),
            vault_token: None,
            encoder: Encoder::X264,
            modulus_bits: DEFAULT_MODULUS_BITS,
            max_pixels: DEFAULT_MAX_PIXELS,
        }
    }
}

/// How frames are encoded before they are archived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encoder {
    /// x264 at constant quality (CRF 23).
    X264,
    /// x264 without loss: the original comes back bit for bit.
    Lossless,
    /// Elements in the language of gst-launch, from raw video to a parsed stream.
    Other(String),
}

impl std::str::FromStr for Encoder {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "x264" => Self::X264,
            "lossless" => Self::Lossless,
            other => Self::Other(other.to_owned()),
        })
    }
}

impl Encoder {
    fn description(&self) -> &str {
        match self {
            Self::X264 => "x264enc speed-preset=veryfast pass=qual quantizer=23 ! h264parse",
            Self::Lossless => "x264enc speed-preset=veryfast pass=quant quantizer=0 ! h264parse",
            Self::Other(text) => text,
        }
    }
}

/// Why a gateway does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory.
    #[error("{0}: {1}")]
    File(PathBuf, #[source] std::io::Error),
    /// The address cannot be listened on.
    #[error("cannot listen for sealed streams on {0}: {1}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// Its identity.
    #[error(transparent)]
    Secret(#[from] secrets::Error),
    /// Its Paillier key.
    #[error(transparent)]
    Key(#[from] homomorphic::Error),
    /// The third party or the vault.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// A URL.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// GStreamer does not start.
    #[error("GStreamer: {0}")]
    Gst(#[from] gst::glib::Error),
    /// The elements of this library do not register.
    #[error("GStreamer: {0}")]
    Elements(#[from] gst::glib::BoolError),
}

/// A gateway. Clones are the same.
#[derive(Clone)]
pub struct Cloud(Arc<Inner>);

struct Inner {
    settings: Settings,
    identity: Arc<Identity>,
    secret: Arc<SecretKey>,
    vault: Vault,
    ttp: Ttp,
    port: u16,
    listener: Mutex<Option<std::net::TcpListener>>,
    /// Streams that are being archived, by name: ends them.
    live: Mutex<HashMap<String, Arc<AtomicBool>>>,
    playing: Arc<Semaphore>,
    /// No more streams are taken.
    stopping: AtomicBool,
    counts: Counts,
}

/// What has been done, see [`Activity`].
#[derive(Default)]
struct Counts {
    ended: AtomicU64,
    failed: AtomicU64,
    frames: AtomicU64,
    bytes: AtomicU64,
    archives: AtomicU64,
    retrievals: AtomicU64,
}

impl std::fmt::Debug for Cloud {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cloud({})", self.0.identity.public())
    }
}

impl Cloud {
    /// Reads or makes its keys (a Paillier key of 3072 bits takes seconds) and takes its port.
    pub fn open(settings: Settings) -> Result<Self, Error> {
        gst::init()?;
        crate::plugin_register_static()?;
        let inner = Inner::open(settings)?;
        Ok(Self(Arc::new(inner)))
    }

    /// Registers its key at the third party and enrols at the vault, both of which must answer;
    /// from then on takes sealed streams, until the process ends.
    pub async fn start(&self) -> Result<SocketAddr, Error> {
        let inner = &self.0;
        let sign = inner.identity.public().sign;
        // A key is proven once: the proof on file is what contracts name.
        if inner.ttp.cloud_key(&sign).await.is_err() {
            let token = inner.settings.ttp_token.as_deref();
            let proof = inner.ttp.prove(inner.secret.clone()).await?;
            inner.ttp.register(Some(&proof), token).await?;
        }
        let token = inner.settings.vault_token.as_deref();
        inner.vault.enroll(token).await?;
        let mut address = inner.settings.listen;
        address.set_port(inner.port);
        let listener = lock(&inner.listener).take();
        if let Some(listener) = listener {
            let this = self.0.clone();
            std::thread::spawn(move || ingest::listen(&this, &listener));
        }
        Ok(address)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn open(settings: Settings) -> Result<Self, Error> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |e| Error::File(path, e)
        };
        for dir in ["contracts", "archives", "tickets"] {
            let dir = settings.data.join(dir);
            std::fs::create_dir_all(&dir).map_err(at(&dir))?;
        }
        let path = settings.data.join("gateway.identity");
        let identity = Arc::new(secrets::identity(&path)?);
        let path = settings.data.join("gateway.paillier");
        if !path.exists() {
            write_secret_key(&path, &SecretKey::generate(settings.modulus_bits)?)?;
        }
        let listen = settings.listen;
        let refused = |e| Error::Listen(listen, e);
        let listener = std::net::TcpListener::bind(listen).map_err(refused)?;
        Ok(Self {
            secret: Arc::new(read_secret_key(&path)?),
            vault: Vault::connect(&settings.vault, identity.clone())?,
            ttp: Ttp::connect(&settings.ttp, identity.clone())?,
            port: listener.local_addr().map_err(refused)?.port(),
            listener: Mutex::new(Some(listener)),
            live: Mutex::default(),
            playing: Arc::new(Semaphore::new(PLAYING)),
            stopping: AtomicBool::new(false),
            counts: Counts::default(),
            identity,
            settings,
        })
    }

    fn path(&self, name: &str) -> String {
        self.settings.data.join(name).display().to_string()
    }

    fn contract_file(&self, id: &Hash) -> PathBuf {
        let name = format!("{}.contract", hex(id));
        self.settings.data.join("contracts").join(name)
    }

    fn archive_dir(&self, id: &Hash) -> PathBuf {
        self.settings.data.join("archives").join(hex(id))
    }

    /// The address of an archive in the vault.
    fn recording(&self, name: &str) -> Result<RecordingUrl, UrlError> {
        let base = vault_base(&self.settings.vault)?;
        let (scheme, authority) = base.split_once("://").unwrap_or(("http", &base));
        Ok(RecordingUrl {
            tls: scheme == "https",
            authority: authority.to_owned(),
            name: name.to_owned(),
            window: Window::default(),
        })
    }

    /// The contract, if `caller` is its owner. Of another's it is not said that it exists.
    fn owned(&self, caller: &Hash, id: &Hash) -> Result<Contract, GatewayError> {
        Self::owned_at(&self.contract_file(id), caller)
    }

    fn owned_at(path: &Path, caller: &Hash) -> Result<Contract, GatewayError> {
        let missing = || GatewayError::NotFound("contract");
        let text = std::fs::read_to_string(path).map_err(|_| missing())?;
        let signed = Signed::from_text::<Contract>(&text).map_err(|_| missing())?;
        let contract: Contract = signed.unverified().map_err(|_| missing())?;
        match *contract.owner.sign == *caller {
            true => Ok(contract),
            false => Err(missing()),
        }
    }

    /// What is archived under a contract, the oldest first.
    fn list(&self, id: &Hash) -> Vec<Archive> {
        let Ok(entries) = std::fs::read_dir(self.archive_dir(id)) else {
            return Vec::new();
        };
        let live = lock(&self.live);
        let archive = |entry: std::fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            let started = std::fs::read_to_string(entry.path()).ok()?;
            Some(Archive {
                started_ms: started.trim().parse().ok()?,
                live: live.contains_key(&name),
                name,
            })
        };
        let mut archives: Vec<Archive> = entries.flatten().filter_map(archive).collect();
        archives.sort_by(|a, b| (a.started_ms, &a.name).cmp(&(b.started_ms, &b.name)));
        archives
    }

    /// The contract, and the archive that the caller means.
    fn archive(&self, caller: &Hash, id: &Hash, name: &str) -> Result<Contract, GatewayError> {
        let contract = self.owned(caller, id)?;
        let known = self.list(id).iter().any(|archive| archive.name == name);
        match known {
            true => Ok(contract),
            false => Err(GatewayError::NotFound("archive")),
        }
    }

    fn sign(&self, caller: &Hash, signed: &Signed) -> Result<Signed, GatewayError> {
        let refused = |why: String| GatewayError::Refused(why);
        let contract: Contract = signed
            .verify(&[caller])
            .map_err(|e| refused(e.to_string()))?;
        let own = self.identity.public();
        let fits = *contract.owner.sign == *caller
            && *contract.cloud.sign == own.sign
            && *contract.cloud.agree == own.agree
            && contract.settings().is_some();
        if !fits {
            return Err(refused(
                "the contract is not between this caller and this gateway, or its settings make no sense".into(),
            ));
        }
        let most = self.settings.max_pixels;
        if !(1..=most).contains(&contract.pixels) {
            return Err(refused(format!(
                "the contract is for frames of up to {} pixels, and this gateway takes {most}: ask it and name as many",
                contract.pixels
            )));
        }
        let both = signed.clone().sign::<Contract>(&self.identity);
        let path = self.contract_file(&signed.id::<Contract>());
        if forgotten(&path).exists() {
            return Err(refused(
                "what was archived under this contract is forgotten: make another".into(),
            ));
        }
        write_whole(&path, both.to_text::<Contract>().as_bytes())
            .map_err(|e| GatewayError::Failed(format!("{}: {e}", path.display())))?;
        Ok(both)
    }

    async fn forget(&self, id: &Hash) -> Result<(), GatewayError> {
        let failed = |e: String| GatewayError::Failed(e);
        // No more streams, and those that run end.
        let path = self.contract_file(id);
        let aside = forgotten(&path);
        match std::fs::rename(&path, &aside) {
            // The second time, because the first did not get through.
            Err(_) if aside.exists() => (),
            renamed => renamed.map_err(|e| failed(format!("{}: {e}", path.display())))?,
        }
        let mut held = Vec::new();
        for archive in self.list(id) {
            self.end(&archive.name).await;
            let recording = self.identity.recording_id(&archive.name);
            match self.vault.forget(&recording).await {
                Ok(())
                | Err(client::Error::Refused {
                    code: crate::protocol::Code::NotFound,
                    ..
                }) => (),
                Err(client::Error::Refused {
                    code: crate::protocol::Code::Held,
                    ..
                }) => {
                    held.push(archive.name);
                    continue;
                }
                Err(e) => return Err(failed(e.to_string())),
            }
            let file = self.archive_dir(id).join(&archive.name);
            std::fs::remove_file(&file).map_err(|e| failed(format!("{}: {e}", file.display())))?;
        }
        match held.is_empty() {
            true => Ok(()),
            false => Err(GatewayError::Held(format!(
                "under legal hold and therefore still there: {}; all other archives are forgotten. \
                 Ask again when the hold has ended",
                held.join(", ")
            ))),
        }
    }

    /// Ends a stream that is being archived.
    async fn end(&self, name: &str) {
        let flag = lock(&self.live).get(name).cloned();
        let Some(flag) = flag else {
            return;
        };
        flag.store(true, Ordering::Relaxed);
        while lock(&self.live).contains_key(name) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

/// Where a contract stays when its archives are forgotten.
fn forgotten(contract: &Path) -> PathBuf {
    contract.with_extension("forgotten")
}

#[async_trait]
impl Gateway for Cloud {
    fn info(&self) -> GatewayInfo {
        GatewayInfo {
            identity: self.0.identity.public().into(),
            ttp: self.0.settings.ttp.clone(),
            port: self.0.port,
            pixels: self.0.settings.max_pixels,
        }
    }

    fn activity(&self) -> Activity {
        let counts = &self.0.counts;
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        Activity {
            streams_open: lock(&self.0.live).len(),
            streams_ended: count(&counts.ended),
            streams_failed: count(&counts.failed),
            frames: count(&counts.frames),
            bytes: count(&counts.bytes),
            archives: count(&counts.archives),
            archives_playing: PLAYING - self.0.playing.available_permits(),
            retrievals: count(&counts.retrievals),
        }
    }

    async fn vault(&self) -> Result<(), GatewayError> {
        let info = self.0.vault.info().await;
        info.map_err(|e| GatewayError::Failed(e.to_string()))?;
        Ok(())
    }

    async fn third_party(&self) -> Result<(), GatewayError> {
        let info = self.0.ttp.info().await;
        info.map_err(|e| GatewayError::Failed(e.to_string()))?;
        Ok(())
    }

    async fn stop(&self) {
        self.0.stopping.store(true, Ordering::Relaxed);
        let names: Vec<String> = lock(&self.0.live).keys().cloned().collect();
        futures::future::join_all(names.iter().map(|name| self.0.end(name))).await;
    }

    async fn contract(&self, caller: Hash, contract: Signed) -> Result<Signed, GatewayError> {
        self.0.sign(&caller, &contract)
    }

    async fn archives(&self, caller: Hash, contract: Hash) -> Result<Archives, GatewayError> {
        self.0.owned(&caller, &contract)?;
        let archives = self.0.list(&contract);
        Ok(Archives { archives })
    }

    async fn forget(&self, caller: Hash, contract: Hash) -> Result<(), GatewayError> {
        let owned = self.0.owned(&caller, &contract);
        let aside = forgotten(&self.0.contract_file(&contract));
        owned.or_else(|_| Inner::owned_at(&aside, &caller))?;
        self.0.forget(&contract).await
    }

    async fn remainders(
        &self,
        caller: Hash,
        contract: Hash,
        archive: String,
    ) -> Result<Messages, GatewayError> {
        self.0.archive(&caller, &contract, &archive)?;
        playback::remainders(self.0.clone(), archive).await
    }

    async fn retrieve(
        &self,
        caller: Hash,
        contract: Hash,
        archive: String,
        ask: GatewayRetrieval,
    ) -> Result<Messages, GatewayError> {
        let terms = self.0.archive(&caller, &contract, &archive)?;
        self.0.counts.retrievals.fetch_add(1, Ordering::Relaxed);
        playback::retrieve(self.0.clone(), contract, terms, archive, ask).await
    }
}

/// A name for a stream that begins now.
fn new_name() -> Result<String, homomorphic::Error> {
    let mut random = [0; 4];
    getrandom::fill(&mut random).map_err(|_| homomorphic::Error::Random)?;
    Ok(format!("sealed-{}-{}", now_ms(), hex(&random)))
}
