// SPDX-License-Identifier: MPL-2.0
use crate::common::{self, Failure, IdentityArg, VaultArg, print, wait};
use gstcamvault::protocol::{Retention, RetentionInfo};
use std::process::ExitCode;
use std::time::Duration;

/// Show or set for how long the identity's footage is kept.
///
/// The oldest segments of all recordings go first, also of one that is still being made; never of
/// one under hold. Without options it shows what is set.
#[derive(clap::Args)]
pub struct Args {
    /// The vault, http://HOST:PORT.
    url: VaultArg,
    /// Forget what was stored longer ago (30d, 12h, 90m).
    #[arg(long, value_name = "TIME", value_parser = common::duration)]
    age: Option<Duration>,
    /// Forget the oldest when there is more (500G, 1.5T; powers of 1024).
    #[arg(long, value_name = "BYTES", value_parser = common::byte_count)]
    bytes: Option<u64>,
    /// Keep everything, as far as the vault does.
    #[arg(long, conflicts_with_all = ["age", "bytes"])]
    off: bool,
    #[command(flatten)]
    identity: IdentityArg,
}

pub fn run(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    let vault = args.url.connect(&args.identity)?;
    if args.off || args.age.is_some() || args.bytes.is_some() {
        let millis = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        wait(vault.set_retention(&Retention {
            age_ms: args.age.map(millis),
            bytes: args.bytes,
        }))?;
    }
    let info = wait(vault.retention())?;
    let object = serde_json::json!({
        "age_ms": info.own.age_ms, "bytes": info.own.bytes,
        "vault_age_ms": info.longest_ms, "bytes_used": info.bytes,
    });
    print(json, object, || text(&info));
    Ok(ExitCode::SUCCESS)
}

fn text(info: &RetentionInfo) -> String {
    const DAY: u64 = 24 * 3600 * 1000;
    let age = |ms: u64| match ms % DAY {
        0 => format!("{} days", ms / DAY),
        _ => format!("{:?}", Duration::from_millis(ms)),
    };
    let mut rules = Vec::new();
    rules.extend(info.own.age_ms.map(|ms| format!("for {}", age(ms))));
    let bytes = info.own.bytes;
    rules.extend(bytes.map(|n| format!("up to {}", common::bytes(n))));
    rules.extend(
        info.longest_ms
            .map(|ms| format!("for {} at most by this vault", age(ms))),
    );
    let rules = match rules.is_empty() {
        true => "until it is forgotten".into(),
        false => rules.join(", "),
    };
    format!("kept {rules}; {} now", common::bytes(info.bytes))
}
