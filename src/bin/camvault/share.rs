// SPDX-License-Identifier: MPL-2.0
use crate::common::{Failure, IdentityArg, VaultArg, print, wait};
use gstcamvault::identity::PublicId;
use gstcamvault::protocol::{RecordingUrl, SHARE_INFO, SharedKey, encode};
use std::process::ExitCode;
use zeroize::Zeroizing;

/// Let another identity read a recording, as long as its owner keeps it.
#[derive(clap::Args)]
pub struct Args {
    /// Recording, camvault://HOST:PORT/NAME.
    url: RecordingUrl,
    /// The reader's public identity (camvault1…), enrolled at the same vault.
    #[arg(long, value_name = "PUBLIC")]
    to: PublicId,
    /// Take the share back. What the reader kept a copy of, it keeps.
    #[arg(long)]
    revoke: bool,
    #[command(flatten)]
    identity: IdentityArg,
}

pub fn run(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    let vault = VaultArg::of(&args.url).connect(&args.identity)?;
    let id = vault.identity().recording_id(&args.url.name);
    if args.revoke {
        wait(vault.unshare(&id, &args.to))?;
    } else {
        let key = (*vault.identity().recording_key(&id).expose()).into();
        let clear = Zeroizing::new(encode(&SharedKey {
            name: args.url.name.clone(),
            key,
        }));
        wait(vault.share(&id, &args.to, args.to.seal(SHARE_INFO, &clear)?))?;
    }
    let done = if args.revoke {
        "no longer shared with"
    } else {
        "shared with"
    };
    let object = serde_json::json!({ "recording": args.url.to_string(), "to": args.to.to_string(), "shared": !args.revoke });
    print(json, object, || {
        format!("{} is {done} {}", args.url, args.to)
    });
    Ok(ExitCode::SUCCESS)
}
