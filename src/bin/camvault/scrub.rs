// SPDX-License-Identifier: MPL-2.0
use crate::common::{self, Failure, OperatorArg, Places, print, wait};
use gstcamvault::protocol::{self, Job, ScrubReport};
use gstcamvault::server::{ORPHAN_AGE, scrub_stopped};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Check everything that a vault stores against its disk, and mend what can be mended.
///
/// A vault that runs does so in the background: whichever of its servers is there goes on with it,
/// and this command can be stopped and started again to see how far it is.
#[derive(clap::Args)]
pub struct Args {
    /// URL of a vault that runs, or data directory of one that does not (with the options below,
    /// if it is served with them).
    #[arg(value_name = "URL|DIR")]
    vault: String,
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    operator: OperatorArg,
    /// Seconds after which an upload that nobody registered is removed.
    #[arg(long, value_name = "SECONDS", default_value_t = ORPHAN_AGE.as_secs())]
    orphan_age: u64,
}

pub fn run(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    let report = match args.vault.contains("://") {
        true => online(args, json)?,
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
        "counts_mended": report.counts_mended, "bad": report.bad, "missing": missing, "damaged": damaged,
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
        let named = (missing.len() + damaged.len()) as u64;
        if report.bad > named {
            text.push_str(&format!("\n… and {} more", report.bad - named));
        }
        text
    });
    let whole = report.bad == 0;
    Ok(ExitCode::from(if whole { 0 } else { common::NOT_VERIFIED }))
}

fn online(args: &Args, json: bool) -> Result<ScrubReport, Failure> {
    let operator = args.operator.connect(&args.vault.parse()?)?;
    let bar = common::progress_count(json, 0, "scrubbing");
    let progress = |job: &Job| {
        bar.set_length(job.of.unwrap_or(0));
        bar.set_position(job.done);
    };
    let report = wait(operator.scrub(args.orphan_age, progress));
    bar.finish_and_clear();
    report
}
