// SPDX-License-Identifier: MPL-2.0
//! What the subcommands share: identity, output, exit codes.

use gstcamvault::client::vault::Operator;
use gstcamvault::client::{self, Vault};
use gstcamvault::identity::{self, Identity, PublicId};
use gstcamvault::protocol::{
    Agreed, Code, Contract, Document, DocumentError, Holder, Party, RecordingUrl, Signed, UrlError,
    vault_base,
};
use gstcamvault::server::Config;
use gstcamvault::store::{BlobPlace, PostgresUrl, PostgresUrlError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Shown below every help text.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage
  3  stored data is missing or does not verify; a signature is wrong; a watermark was not found
     (camvault arbitrate: the verdict names no contract)
  4  the vault, the gateway or the third party cannot be reached
  5  it refused (not enrolled, quota, full, wrong token, contract deleted, under legal hold)
  6  there is no such recording or archive";

/// A check found something wrong.
pub const NOT_VERIFIED: u8 = 3;

/// Whose recordings.
#[derive(clap::Args)]
pub struct IdentityArg {
    /// Identity file, as `camvault keygen` wrote it.
    #[arg(long, env = "CAMVAULT_IDENTITY", value_name = "FILE")]
    identity: PathBuf,
}

impl IdentityArg {
    pub fn load(&self) -> Result<Arc<Identity>, Failure> {
        Ok(Arc::new(Identity::load(&self.identity)?))
    }

    pub fn path(&self) -> &std::path::Path {
        &self.identity
    }
}

/// Likewise, where only some uses of a command need one.
#[derive(clap::Args)]
pub struct IdentityFile {
    /// Identity file, as `camvault keygen` wrote it.
    #[arg(long, env = "CAMVAULT_IDENTITY", value_name = "FILE")]
    identity: Option<PathBuf>,
}

impl IdentityFile {
    pub fn load(&self) -> Result<Identity, Failure> {
        let missing = || Failure::usage("give --identity, or CAMVAULT_IDENTITY");
        Ok(Identity::load(self.identity.as_ref().ok_or_else(missing)?)?)
    }
}

/// Who runs a vault.
#[derive(clap::Args)]
pub struct OperatorArg {
    /// File with the vault's admin token (`secrets/admin.token` in its data directory), needed
    /// from another machine.
    #[arg(long, value_name = "FILE")]
    admin_token: Option<PathBuf>,
}

impl OperatorArg {
    pub fn connect(&self, vault: &VaultArg) -> Result<Operator, Failure> {
        let read = |path: &PathBuf| {
            let text = std::fs::read_to_string(path);
            text.map(Zeroizing::new)
                .map_err(|e| Failure::new(format!("{}: {e}", path.display())))
        };
        let token = self.admin_token.as_ref().map(read).transpose()?;
        Ok(Operator::connect(vault.base(), token)?)
    }
}

/// Where a server keeps what is not in its data directory.
#[derive(clap::Args, Clone)]
pub struct Places {
    /// Where blobs are kept: s3://BUCKET[/PREFIX], with credentials and region from the usual
    /// variables (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION…), or a directory
    /// [default: the data directory].
    #[arg(long, value_name = "S3-URL|DIR")]
    blobs: Option<BlobPlace>,
    /// URL of the S3 service [default: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or else AWS].
    #[arg(long, value_name = "URL", requires = "blobs")]
    s3_endpoint: Option<String>,
    /// Directory of the secrets, the same for all servers that share a role; made if it is not
    /// there [default: secrets in the data directory].
    #[arg(long, value_name = "DIR")]
    secrets: Option<PathBuf>,
}

impl Places {
    /// A server's configuration with these places.
    pub fn config(self, data: PathBuf) -> Result<Config, Failure> {
        let mut config = Config::new(data);
        config.secrets = self.secrets;
        config.blobs = blob_place("", self.blobs, self.s3_endpoint)?;
        Ok(config)
    }
}

/// Where blobs are or go, of the options `--{prefix}blobs` and `--{prefix}s3-endpoint`.
pub fn blob_place(
    prefix: &str,
    mut place: Option<BlobPlace>,
    endpoint: Option<String>,
) -> Result<Option<BlobPlace>, Failure> {
    match (&mut place, endpoint) {
        (Some(BlobPlace::Bucket(bucket)), endpoint) => bucket.endpoint = endpoint,
        (_, Some(_)) => {
            return Err(Failure::usage(format!(
                "--{prefix}s3-endpoint needs --{prefix}blobs s3://BUCKET"
            )));
        }
        _ => (),
    }
    Ok(place)
}

/// The database that an option names. What was given is not repeated: there may be a password in it.
pub fn database(option: &str, url: Option<&str>) -> Result<Option<PostgresUrl>, Failure> {
    let wrong = |e: PostgresUrlError| Failure::usage(format!("{option}: {e}"));
    url.map(|url| url.parse().map_err(wrong)).transpose()
}

/// Why a subcommand ended without doing its work.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// A failure in words, exit code 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            code: 1,
            message: message.into(),
        }
    }

    /// Wrong usage.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            code: 2,
            message: message.into(),
        }
    }

    /// Another exit code.
    pub fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// Says first what it is about.
    pub fn prefixed(self, what: &str) -> Self {
        Self {
            message: format!("{what}: {}", self.message),
            ..self
        }
    }

    pub fn report(self, json: bool) -> ExitCode {
        if json {
            println!(
                "{}",
                serde_json::json!({ "error": self.message, "code": self.code })
            );
        }
        eprintln!("camvault: {}", self.message);
        ExitCode::from(self.code)
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        use client::Error as E;
        let code = match &error {
            E::Network { .. } | E::Untrusted { .. } => 4,
            E::NoRecording(_)
            | E::NoArchive(_)
            | E::Refused {
                code: Code::NotFound,
                ..
            } => 6,
            E::Refused { .. } => 5,
            E::Damaged { .. }
            | E::Manifest { .. }
            | E::Chain(_)
            | E::List(_)
            | E::Document(_)
            | E::Deletions(_)
            | E::Homomorphic(_)
            | E::Sealed(_) => NOT_VERIFIED,
            _ => 1,
        };
        Self {
            code,
            message: error.to_string(),
        }
    }
}

impl From<DocumentError> for Failure {
    fn from(error: DocumentError) -> Self {
        Self::new(error.to_string()).with_code(NOT_VERIFIED)
    }
}

impl From<identity::Error> for Failure {
    fn from(error: identity::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<UrlError> for Failure {
    fn from(error: UrlError) -> Self {
        Self {
            code: 2,
            message: error.to_string(),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<gst::glib::BoolError> for Failure {
    fn from(error: gst::glib::BoolError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<gst::glib::Error> for Failure {
    fn from(error: gst::glib::Error) -> Self {
        Self::new(error.to_string())
    }
}

/// Prints one JSON object, or the lines for people.
pub fn print(json: bool, object: serde_json::Value, text: impl FnOnce() -> String) {
    match json {
        true => println!("{object}"),
        false => println!("{}", text()),
    }
}

/// Bytes as people read them.
pub fn bytes(n: u64) -> String {
    indicatif::BinaryBytes(n).to_string()
}

/// A number of bytes as people write it: 500G, powers of 1024.
pub fn byte_count(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no number of bytes: write 500G, 1.5T or 4096");
    let number = text.trim_end_matches(['K', 'M', 'G', 'T']);
    let unit: u64 = match &text[number.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = number * unit as f64;
    match (0.0..=9e15).contains(&bytes) {
        true => Ok(bytes as u64),
        false => Err(wrong()),
    }
}

/// A time as people write it: 30d, 12h, 1h30m.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    let wrong = |e: &dyn std::fmt::Display| format!("{e}: write 30d, 12h or 90m");
    let span: jiff::Span = text.parse().map_err(|e| wrong(&e))?;
    let days = jiff::SpanRelativeTo::days_are_24_hours();
    let duration = span.to_duration(days).map_err(|e| wrong(&e))?;
    duration.try_into().map_err(|e| wrong(&e))
}

/// Whose hold it is.
pub fn holder(holder: Holder) -> &'static str {
    match holder {
        Holder::Owner => "owner",
        Holder::Operator => "operator",
    }
}

/// Unix nanoseconds as RFC 3339.
pub fn utc(ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(ns))
        .map_or_else(|_| ns.to_string(), |t| format!("{t:.3}"))
}

/// Unix milliseconds as RFC 3339.
pub fn utc_ms(ms: u64) -> String {
    let time = i64::try_from(ms)
        .ok()
        .map(jiff::Timestamp::from_millisecond);
    time.and_then(Result::ok)
        .map_or_else(|| ms.to_string(), |t| format!("{t:.3}"))
}

/// Bytes of a document's file at most.
const MAX_DOCUMENT_BYTES: u64 = 1 << 20;

/// Reads a document as [`write_document`] writes it; nothing is verified yet.
pub fn read_document<D: Document>(file: &Path) -> Result<Signed, Failure> {
    let at = |e: &dyn std::fmt::Display| format!("{}: {e}", file.display());
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|f| f.take(MAX_DOCUMENT_BYTES).read_to_string(&mut text))
        .map_err(|e| Failure::new(at(&e)))?;
    Signed::from_text::<D>(&text).map_err(|e| Failure::new(at(&e)).with_code(NOT_VERIFIED))
}

/// Writes a document to a new file, durably; never over another.
pub fn write_document<D: Document>(file: &Path, signed: &Signed) -> Result<(), Failure> {
    let write = || {
        let mut out = std::fs::File::create_new(file)?;
        out.write_all(signed.to_text::<D>().as_bytes())?;
        out.sync_all()
    };
    write().map_err(|e| Failure::new(format!("{}: {e}", file.display())))
}

/// Fails early where [`write_document`] would fail late.
pub fn is_free(file: &Path) -> Result<(), Failure> {
    let message = |e: &str| Failure::new(format!("{}: {e}", file.display()));
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty());
    match dir.unwrap_or(Path::new(".")).is_dir() {
        false => Err(message("there is no such directory")),
        true if file.exists() => Err(message("it exists already, and is not written over")),
        true => Ok(()),
    }
}

/// Reads a contract and checks all of its signatures.
pub fn read_contract(file: &Path) -> Result<Agreed, Failure> {
    let agreed = Agreed::check(read_document::<Contract>(file)?);
    agreed.map_err(|e| Failure::new(format!("{}: {e}", file.display())).with_code(NOT_VERIFIED))
}

/// [`read_contract`] of a contract that `identity` is the owner of.
pub fn own_contract(file: &Path, identity: &Identity) -> Result<Agreed, Failure> {
    let agreed = read_contract(file)?;
    match *agreed.contract.owner.sign == identity.public().sign {
        true => Ok(agreed),
        false => Err(Failure::new(format!(
            "{}: this contract is another identity's: --identity has to be {}",
            file.display(),
            PublicId::from(&agreed.contract.owner)
        ))),
    }
}

/// Fails if `party`, who answers at `url`, is not the one that is expected.
pub fn expect_party(
    what: &str,
    url: &str,
    party: &Party,
    expected: Option<&PublicId>,
) -> Result<(), Failure> {
    let found = PublicId::from(party);
    match expected {
        Some(expected) if *expected != found => Err(Failure::new(format!(
            "the {what} at {url} is {found}, not {expected}: give another address, or find out who that is"
        ))
        .with_code(NOT_VERIFIED)),
        _ => Ok(()),
    }
}

/// What is going on while nothing can be said of how far it is.
pub fn spinner(json: bool, what: &str) -> indicatif::ProgressBar {
    if json {
        return indicatif::ProgressBar::hidden();
    }
    let bar = indicatif::ProgressBar::new_spinner().with_message(what.to_owned());
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    bar
}

/// A progress bar over things that are counted.
pub fn progress_count(json: bool, total: u64, what: &str) -> indicatif::ProgressBar {
    if json {
        return indicatif::ProgressBar::hidden();
    }
    let style = "{msg} [{bar:30}] {pos}/{len} {per_sec} {eta}";
    let style = indicatif::ProgressStyle::with_template(style)
        .unwrap_or_else(|_| indicatif::ProgressStyle::default_bar());
    indicatif::ProgressBar::new(total)
        .with_style(style)
        .with_message(what.to_owned())
}

/// Nanoseconds as seconds.
pub fn seconds(ns: u64) -> String {
    format!("{:.3} s", ns as f64 / 1e9)
}

/// A progress bar over `total` bytes on a terminal; nothing elsewhere or with `--json`.
pub fn progress(json: bool, total: u64, what: &str) -> indicatif::ProgressBar {
    if json {
        return indicatif::ProgressBar::hidden();
    }
    let style = "{msg} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
    let style = indicatif::ProgressStyle::with_template(style)
        .unwrap_or_else(|_| indicatif::ProgressStyle::default_bar());
    indicatif::ProgressBar::new(total)
        .with_style(style)
        .with_message(what.to_owned())
}

/// A progress bar over a time whose length, in nanoseconds, becomes known later.
pub fn progress_time(json: bool, what: &str) -> indicatif::ProgressBar {
    if json {
        return indicatif::ProgressBar::hidden();
    }
    let style = indicatif::ProgressStyle::with_template("{msg} [{bar:30}] {percent} % {eta}")
        .unwrap_or_else(|_| indicatif::ProgressStyle::default_bar());
    indicatif::ProgressBar::new(0)
        .with_style(style)
        .with_message(what.to_owned())
}

/// Waits for the network, outside the runtime that does the work.
pub fn wait<T>(future: impl Future<Output = Result<T, client::Error>>) -> Result<T, Failure> {
    Ok(client::runtime()?.block_on(future)?)
}

/// A vault's address; a recording's does as well.
#[derive(Clone)]
pub struct VaultArg(String);

impl std::str::FromStr for VaultArg {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        vault_base(text).map(Self)
    }
}

impl VaultArg {
    /// The vault of a recording.
    pub fn of(url: &RecordingUrl) -> Self {
        Self(url.vault())
    }

    /// `http://HOST:PORT`.
    pub fn base(&self) -> &str {
        &self.0
    }

    /// Connects and makes one request: players and recorders wait for a vault that is away,
    /// whoever types a command wants to know.
    pub fn reach(&self, identity: &IdentityArg) -> Result<Vault, Failure> {
        let vault = self.connect(identity)?;
        wait(vault.reach())?;
        Ok(vault)
    }

    pub fn connect(&self, identity: &IdentityArg) -> Result<Vault, Failure> {
        Ok(Vault::connect(&self.0, identity.load()?)?)
    }
}
