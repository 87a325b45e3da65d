// SPDX-License-Identifier: MPL-2.0
use crate::common::{self, Failure, OperatorArg, VaultArg, print, wait};
use gstcamvault::protocol::Job;
use std::process::ExitCode;

/// Show what a vault's servers do besides requests: collecting, retention, scrubs.
#[derive(clap::Args)]
pub struct Args {
    /// The vault, http://HOST:PORT.
    url: VaultArg,
    #[command(flatten)]
    operator: OperatorArg,
}

pub fn run(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    let answer = wait(args.operator.connect(&args.url)?.jobs())?;
    let jobs: Vec<_> = answer.jobs.iter().map(object).collect();
    print(json, serde_json::Value::Array(jobs), || {
        let lines: Vec<String> = answer
            .jobs
            .iter()
            .map(|job| line(job, answer.time_ms))
            .collect();
        match lines.is_empty() {
            true => "no job has run yet".into(),
            false => lines.join("\n"),
        }
    });
    Ok(ExitCode::SUCCESS)
}

fn object(job: &Job) -> serde_json::Value {
    serde_json::json!({
        "name": job.name, "running": job.cursor.is_some(), "server": job.holder,
        "lease_utc": job.holder.as_ref().map(|_| common::utc_ms(job.lease_ms)),
        "done": job.done, "of": job.of, "started_utc": common::utc_ms(job.started_ms),
        "finished_utc": job.finished_ms.map(common::utc_ms), "error": job.error,
    })
}

fn line(job: &Job, now: u64) -> String {
    let of = job.of.map_or(String::new(), |of| format!(" of {of}"));
    let done = format!("{}{of} done", job.done);
    let started = common::utc_ms(job.started_ms);
    let holder = job.holder.as_deref().filter(|_| job.lease_ms > now);
    let state = match (job.finished_ms, holder) {
        (Some(at), _) => format!("finished {}", common::utc_ms(at)),
        (None, Some(holder)) => format!("running on {holder}"),
        (None, None) => "waiting for a server".into(),
    };
    let error = job.error.as_ref();
    let error = error.map_or(String::new(), |error| format!("; failed: {error}"));
    format!("{}  begun {started}, {state}, {done}{error}", job.name)
}
