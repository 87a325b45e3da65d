// SPDX-License-Identifier: MPL-2.0
use crate::common::{self, Failure, IdentityArg, VaultArg, print, wait};
use gstcamvault::client::reader::Reader;
use gstcamvault::protocol::RecordingUrl;
use std::process::ExitCode;

/// Fetch a whole recording and check every byte of it.
#[derive(clap::Args)]
pub struct Args {
    /// Recording, camvault://HOST:PORT/NAME.
    url: RecordingUrl,
    #[command(flatten)]
    identity: IdentityArg,
}

pub fn run(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    let vault = VaultArg::of(&args.url).reach(&args.identity)?;
    let reader = wait(Reader::open(&args.url, vault.identity()))?;
    let bar = common::progress(json, reader.summary().bytes, "verifying");
    let report = wait(reader.verify(|so_far| bar.set_position(so_far.bytes)))?;
    bar.finish_and_clear();
    let errors: Vec<String> = report
        .errors
        .iter()
        .map(|e| format!("segment {}: {}", e.seq, e.what))
        .collect();
    let object = serde_json::json!({
        "recording": args.url.to_string(), "segments": report.segments, "chunks": report.chunks, "units": report.units,
        "bytes": report.bytes, "suspect": report.suspect, "removed_segments": report.removed, "errors": errors,
    });
    print(json, object, || {
        let lost = match report.suspect {
            0 => String::new(),
            n => format!(", {n} of them recorded with packet loss"),
        };
        let mut text = format!(
            "{}: {} segments, {} chunks{lost}, {} access units, {}",
            args.url,
            report.segments,
            report.chunks,
            report.units,
            common::bytes(report.bytes)
        );
        if report.removed > 0 {
            text.push_str(&format!(
                "; retention has removed {} segments before these, which only the vault can know",
                report.removed
            ));
        }
        match errors.is_empty() {
            true => text.push_str(": every byte is as it was recorded"),
            false => errors
                .iter()
                .for_each(|e| text.push_str(&format!("\n  {e}"))),
        }
        text
    });
    Ok(ExitCode::from(if errors.is_empty() {
        0
    } else {
        common::NOT_VERIFIED
    }))
}
