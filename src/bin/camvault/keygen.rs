// SPDX-License-Identifier: MPL-2.0
use crate::common::{Failure, print};
use gstcamvault::identity::Identity;
use std::path::PathBuf;
use std::process::ExitCode;

/// Make an identity: the one secret that all of an owner's recordings depend on.
#[derive(clap::Args)]
pub struct Args {
    /// File to write; never overwritten.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub fn run(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    let identity = Identity::generate()?;
    identity.save_new(&args.out)?;
    let public = identity.public().to_string();
    let object = serde_json::json!({ "identity": args.out, "public": public });
    print(json, object, || {
        format!(
            "{public}\nThe secret is in {}: keep a copy safe.",
            args.out.display()
        )
    });
    Ok(ExitCode::SUCCESS)
}
