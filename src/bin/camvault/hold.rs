// SPDX-License-Identifier: MPL-2.0
use crate::common::{self, Failure, IdentityFile, OperatorArg, VaultArg, print, wait};
use gstcamvault::client::Vault;
use gstcamvault::identity::{PublicId, RecordingId};
use gstcamvault::protocol::RecordingUrl;
use std::process::ExitCode;
use std::sync::Arc;

/// Put a recording under legal hold: nothing of it is deleted, not even by its owner, until whoever
/// put it under hold releases it. It can still be added to.
///
/// The owner names its recording. Who runs the vault has its admin token, and says whose recording
/// it is and which by --owner and --id: names are sealed. (`camvault ls --json` shows its owner the
/// id.)
#[derive(clap::Args)]
pub struct Args {
    /// Recording, camvault://HOST:PORT/NAME; with --owner the vault, http://HOST:PORT.
    url: String,
    /// End the hold.
    #[arg(long)]
    release: bool,
    /// As the operator: the owner's public identity (camvault1…).
    #[arg(long, value_name = "PUBLIC", requires_all = ["id", "admin_token"])]
    owner: Option<PublicId>,
    /// As the operator: the recording's id.
    #[arg(long, value_name = "HEX", requires = "owner", value_parser = id)]
    id: Option<RecordingId>,
    #[command(flatten)]
    operator: OperatorArg,
    #[command(flatten)]
    identity: IdentityFile,
}

fn id(text: &str) -> Result<RecordingId, String> {
    let wrong = || String::from("a recording's id is 32 hex digits");
    let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let bytes = u128::from_str_radix(text, 16).ok().filter(|_| digits);
    Ok(bytes.ok_or_else(wrong)?.to_be_bytes())
}

pub fn run(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    let on = !args.release;
    match (&args.owner, &args.id) {
        (Some(owner), Some(id)) => {
            let vault: VaultArg = args.url.parse()?;
            wait(args.operator.connect(&vault)?.hold(&owner.sign, id, on))?;
        }
        _ => {
            let url: RecordingUrl = args.url.parse()?;
            let identity = Arc::new(args.identity.load()?);
            let vault = Vault::connect(VaultArg::of(&url).base(), identity)?;
            wait(vault.hold(&vault.identity().recording_id(&url.name), on))?;
        }
    }
    let by = common::holder(match args.owner {
        Some(_) => gstcamvault::protocol::Holder::Operator,
        None => gstcamvault::protocol::Holder::Owner,
    });
    let object = serde_json::json!({ "recording": args.url, "by": by, "held": on });
    print(json, object, || match on {
        true => format!("{} is under hold by its {by}", args.url),
        false => format!("{} is no longer under hold by its {by}", args.url),
    });
    Ok(ExitCode::SUCCESS)
}
