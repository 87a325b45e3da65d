// SPDX-License-Identifier: MPL-2.0
use crate::common::{Failure, IdentityArg, VaultArg, print, wait};
use std::process::ExitCode;

/// Make an identity known to a vault. Doing it again changes nothing.
#[derive(clap::Args)]
pub struct Args {
    /// The vault.
    #[arg(long, value_name = "URL")]
    vault: VaultArg,
    #[command(flatten)]
    identity: IdentityArg,
    /// Enrolment token: the content of `secrets/enroll.token` in the vault's data directory.
    /// Not needed on a loopback address.
    #[arg(long, value_name = "T")]
    token: Option<String>,
}

pub fn run(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    let vault = args.vault.connect(&args.identity)?;
    let keys = wait(vault.enroll(args.token.as_deref().map(str::trim)))?;
    let public = vault.identity().public().to_string();
    let object =
        serde_json::json!({ "vault": args.vault.base(), "public": public, "leaf": keys.leaf() });
    print(json, object, || {
        format!("{public} is enrolled at {}", args.vault.base())
    });
    Ok(ExitCode::SUCCESS)
}
