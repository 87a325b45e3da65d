// SPDX-License-Identifier: MPL-2.0
//! `camvault scrub`.

use gstcamvault::protocol::{self, Problem, ScrubReport, vault_base};
use gstcamvault::server::{ORPHAN_AGE, scrub_directory};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of `camvault scrub`. Exit code 0: all fine or mended; 3: blobs are missing or damaged.
#[derive(clap::Args)]
pub struct Args {
    /// Data directory of a server that does not run, or URL of one that does.
    #[arg(value_name = "DIR|URL")]
    vault: String,
    /// File with the server's admin token, needed from another machine.
    #[arg(long, value_name = "FILE")]
    admin_token: Option<PathBuf>,
    /// Seconds after which an upload that nobody registered is removed.
    #[arg(long, value_name = "SECONDS", default_value_t = ORPHAN_AGE.as_secs())]
    orphan_age: u64,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// Scrubs and prints the report.
pub fn run(args: Args) -> Result<ExitCode, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(async {
        match args.vault.contains("://") {
            true => online(&args).await,
            false => {
                let age = Duration::from_secs(args.orphan_age);
                Ok(scrub_directory(Path::new(&args.vault), age).await?)
            }
        }
    })?;
    print(&report, args.json);
    match report.missing.is_empty() && report.damaged.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::from(3)),
    }
}

async fn online(args: &Args) -> Result<ScrubReport, Box<dyn Error>> {
    // Fails if a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let base = vault_base(&args.vault)?;
    let url = format!("{base}/v1/scrub?orphan_age={}", args.orphan_age);
    let mut request = reqwest::Client::new().post(url);
    if let Some(path) = &args.admin_token {
        let token = std::fs::read_to_string(path)?;
        request = request.header("authorization", format!("Bearer {}", token.trim()));
    }
    let answer = request.send().await?;
    let status = answer.status();
    let body = answer.bytes().await?;
    match status.is_success() {
        true => Ok(protocol::decode(&body)?),
        false => match protocol::decode::<Problem>(&body) {
            Ok(problem) => Err(problem.message.into()),
            Err(_) => Err(format!("the server answered {status}").into()),
        },
    }
}

fn print(report: &ScrubReport, json: bool) {
    let hex = |d1: &protocol::B32| d1.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let missing: Vec<_> = report.missing.iter().map(hex).collect();
    let damaged: Vec<_> = report.damaged.iter().map(hex).collect();
    if json {
        let report = serde_json::json!({
            "variants": report.variants,
            "segments": report.segments,
            "orphans_removed": report.orphans_removed,
            "leftovers_removed": report.leftovers_removed,
            "counts_mended": report.counts_mended,
            "missing": missing,
            "damaged": damaged,
        });
        println!("{report}");
        return;
    }
    println!(
        "{} variants in {} segments; removed {} orphans and {} leftovers, mended {} counts",
        report.variants,
        report.segments,
        report.orphans_removed,
        report.leftovers_removed,
        report.counts_mended
    );
    missing.iter().for_each(|d1| println!("missing: {d1}"));
    damaged.iter().for_each(|d1| println!("damaged: {d1}"));
}
