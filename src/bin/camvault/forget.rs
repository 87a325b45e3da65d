// SPDX-License-Identifier: MPL-2.0
use crate::common::{self, Failure, IdentityArg, VaultArg, expect_party, print, wait};
use gstcamvault::client::{Gateway, Ttp};
use gstcamvault::identity::PublicId;
use gstcamvault::protocol::{Deletion, RecordingUrl};
use std::path::PathBuf;
use std::process::ExitCode;

/// Delete a recording: its owner leaves the groups of all its chunks, and what nobody else owns
/// is destroyed. Or, with --contract, all that a gateway has archived under a contract.
///
/// The gateway then forgets its archives, and the third party destroys the watermarks' secrets and
/// signs a receipt: a copy that turns up later is proof that it was kept. A third party cannot see
/// whether a gateway does as it says.
#[derive(clap::Args)]
pub struct Args {
    /// Recording, camvault://HOST:PORT/NAME.
    #[arg(required_unless_present = "contract", conflicts_with = "contract")]
    url: Option<RecordingUrl>,
    #[command(flatten)]
    identity: IdentityArg,
    /// Contract whose archives are to be forgotten.
    #[arg(long, value_name = "FILE", requires = "receipt")]
    contract: Option<PathBuf>,
    /// The gateway, http://HOST:PORT. Without it only the third party is told.
    #[arg(long, value_name = "URL", requires = "contract")]
    gateway: Option<VaultArg>,
    /// The third party, http://HOST:PORT [default: the gateway's].
    #[arg(long, value_name = "URL", requires = "contract")]
    ttp: Option<VaultArg>,
    /// File for the third party's receipt; never overwritten.
    #[arg(long, value_name = "FILE", requires = "contract")]
    receipt: Option<PathBuf>,
}

pub fn run(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    match (&args.url, &args.contract, &args.receipt) {
        (Some(url), None, _) => recording(args, url, json),
        (None, Some(contract), Some(receipt)) => archives(args, contract, receipt, json),
        _ => Err(Failure::usage(
            "give a recording, or --contract and --receipt",
        )),
    }
}

fn recording(args: &Args, url: &RecordingUrl, json: bool) -> Result<ExitCode, Failure> {
    let vault = VaultArg::of(url).connect(&args.identity)?;
    wait(vault.forget(&vault.identity().recording_id(&url.name)))?;
    let object = serde_json::json!({ "forgotten": url.to_string() });
    print(json, object, || format!("{url} is forgotten"));
    Ok(ExitCode::SUCCESS)
}

fn archives(
    args: &Args,
    contract: &std::path::Path,
    receipt: &std::path::Path,
    json: bool,
) -> Result<ExitCode, Failure> {
    common::is_free(receipt)?;
    let identity = args.identity.load()?;
    let agreed = common::own_contract(contract, &identity)?;
    let mut url = args.ttp.as_ref().map(|ttp| ttp.base().to_owned());
    let gateway = match &args.gateway {
        None => None,
        Some(at) => {
            let gateway = Gateway::connect(at.base(), identity.clone())?;
            let info = wait(gateway.info())?;
            let cloud = PublicId::from(&agreed.contract.cloud);
            expect_party("gateway", at.base(), &info.identity, Some(&cloud))?;
            url.get_or_insert(info.ttp);
            Some(gateway)
        }
    };
    let url = url.ok_or_else(|| {
        Failure::usage("give --gateway, so that the gateway forgets, or at least --ttp")
    })?;
    let ttp = Ttp::connect(&url, identity)?;
    let third = PublicId::from(&agreed.contract.ttp);
    expect_party(
        "third party",
        &url,
        &wait(ttp.info())?.identity,
        Some(&third),
    )?;
    let told = gateway.is_some();
    if let Some(gateway) = gateway {
        wait(gateway.forget(&agreed.id))?;
    }
    let (deletion, signed) = wait(ttp.delete(&agreed))?;
    common::write_document::<Deletion>(receipt, &signed)?;
    let id = gstcamvault::protocol::hex(&agreed.id);
    let when = common::utc_ms(deletion.deleted_ms);
    let object = serde_json::json!({
        "forgotten": id, "gateway_told": told, "receipt": receipt, "index": deletion.index,
        "tickets": deletion.tickets, "deleted_utc": when,
    });
    print(json, object, || {
        format!(
            "contract {id} is forgotten since {when}: {} tickets, receipt {} in {}{}",
            deletion.tickets,
            deletion.index,
            receipt.display(),
            match told {
                true => "",
                false => "\nThe gateway was not told: its archives are still there.",
            }
        )
    });
    Ok(ExitCode::SUCCESS)
}
