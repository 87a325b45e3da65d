// SPDX-License-Identifier: MPL-2.0
use crate::common::{Failure, IdentityArg, VaultArg, print, wait};
use gstcamvault::protocol::RecordingUrl;
use std::process::ExitCode;

/// Delete a recording: its owner leaves the groups of all its chunks, and what nobody else owns
/// is destroyed.
#[derive(clap::Args)]
pub struct Args {
    /// Recording, camvault://HOST:PORT/NAME.
    url: RecordingUrl,
    #[command(flatten)]
    identity: IdentityArg,
}

pub fn run(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    let vault = VaultArg::of(&args.url).connect(&args.identity)?;
    wait(vault.forget(&vault.identity().recording_id(&args.url.name)))?;
    let object = serde_json::json!({ "forgotten": args.url.to_string() });
    print(json, object, || format!("{} is forgotten", args.url));
    Ok(ExitCode::SUCCESS)
}
