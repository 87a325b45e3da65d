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
    let bad = Bad::of(&report);
    let object = serde_json::json!({
        "variants": report.variants, "segments": report.segments,
        "orphans_removed": report.orphans_removed, "leftovers_removed": report.leftovers_removed,
        "counts_mended": report.counts_mended, "bad": report.bad, "missing": bad.missing, "damaged": bad.damaged,
    });
    print(json, object, || {
        let text = format!(
            "{} variants, {} segments; {} orphans and {} leftovers removed, {} counts mended",
            report.variants,
            report.segments,
            report.orphans_removed,
            report.leftovers_removed,
            report.counts_mended
        );
        text + &bad.lines()
    });
    Ok(bad.exit_code())
}

/// The blobs that a scrub found bad.
pub struct Bad {
    pub missing: Vec<String>,
    pub damaged: Vec<String>,
    /// All of them: it names so many at most.
    all: u64,
}

impl Bad {
    pub fn of(report: &ScrubReport) -> Self {
        let names = |list: &[protocol::B32]| list.iter().map(|d1| protocol::hex(&d1[..])).collect();
        Self {
            missing: names(&report.missing),
            damaged: names(&report.damaged),
            all: report.bad,
        }
    }

    /// A line for each, each begun on a new one.
    pub fn lines(&self) -> String {
        let missing = self.missing.iter().map(|d1| format!("\nmissing: {d1}"));
        let damaged = self.damaged.iter().map(|d1| format!("\ndamaged: {d1}"));
        let mut lines: String = missing.chain(damaged).collect();
        let named = (self.missing.len() + self.damaged.len()) as u64;
        if self.all > named {
            lines.push_str(&format!("\n… and {} more", self.all - named));
        }
        lines
    }

    pub fn exit_code(&self) -> ExitCode {
        let whole = self.all == 0;
        ExitCode::from(if whole { 0 } else { common::NOT_VERIFIED })
    }
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
