// SPDX-License-Identifier: MPL-2.0
use crate::common::{self, Failure, Places, print, wait};
use gstcamvault::client::vault;
use gstcamvault::protocol::{self, ScrubReport};
use gstcamvault::server::{ORPHAN_AGE, scrub_stopped};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Check everything that a vault stores against its disk, and mend what can be mended.
#[derive(clap::Args)]
pub struct Args {
    /// URL of a vault that runs, or data directory of one that does not (with the options below,
    /// if it is served with them).
    #[arg(value_name = "URL|DIR")]
    vault: String,
    #[command(flatten)]
    places: Places,
    /// File with the vault's admin token (`secrets/admin.token` in its data directory), needed
    /// from another machine.
    #[arg(long, value_name = "FILE")]
    admin_token: Option<PathBuf>,
    /// Seconds after which an upload that nobody registered is removed.
    #[arg(long, value_name = "SECONDS", default_value_t = ORPHAN_AGE.as_secs())]
    orphan_age: u64,
}

pub fn run(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    let report = match args.vault.contains("://") {
        true => online(args)?,
        false => {
            let age = Duration::from_secs(args.orphan_age);
            let config = args.places.clone().config(PathBuf::from(&args.vault))?;
            let scrubbed = gstcamvault::client::runtime()?.block_on(scrub_stopped(&config, age));
            scrubbed.map_err(|e| Failure::new(e.to_string()))?
        }
    };
    let hex = |list: &[protocol::B32]| {
        list.iter()
            .map(|d1| gstcamvault::protocol::hex(&d1[..]))
            .collect::<Vec<_>>()
    };
    let (missing, damaged) = (hex(&report.missing), hex(&report.damaged));
    let object = serde_json::json!({
        "variants": report.variants, "segments": report.segments,
        "orphans_removed": report.orphans_removed, "leftovers_removed": report.leftovers_removed,
        "counts_mended": report.counts_mended, "missing": missing, "damaged": damaged,
    });
    print(json, object, || {
        let mut text = format!(
            "{} variants, {} segments; {} orphans and {} leftovers removed, {} counts mended",
            report.variants,
            report.segments,
            report.orphans_removed,
            report.leftovers_removed,
            report.counts_mended
        );
        missing
            .iter()
            .for_each(|d1| text.push_str(&format!("\nmissing: {d1}")));
        damaged
            .iter()
            .for_each(|d1| text.push_str(&format!("\ndamaged: {d1}")));
        text
    });
    let whole = missing.is_empty() && damaged.is_empty();
    Ok(ExitCode::from(if whole { 0 } else { common::NOT_VERIFIED }))
}

fn online(args: &Args) -> Result<ScrubReport, Failure> {
    let token = args.admin_token.as_ref().map(|path| {
        std::fs::read_to_string(path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))
    });
    let token = token.transpose()?;
    let token = token.as_deref().map(str::trim);
    wait(vault::scrub(&args.vault, args.orphan_age, token))
}
