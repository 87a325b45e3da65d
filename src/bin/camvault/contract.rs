// SPDX-License-Identifier: MPL-2.0
use crate::common::{self, Failure, IdentityArg, VaultArg, expect_party, print, wait};
use gstcamvault::client::{Gateway, Ttp};
use gstcamvault::identity::PublicId;
use gstcamvault::protocol::{
    Contract, DEFAULT_LOSS, DEFAULT_PER_BLOCK, DEFAULT_STEP, DEFAULT_THRESHOLD, DEFAULT_TICKET_S,
    NAME_INFO, Signed,
};
use gstcamvault::sealed::MOST_LOSS;
use sha2::{Digest as _, Sha256};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// Make a contract between an owner, a gateway and a third party: for one camera, whose footage
/// the gateway is to get with a watermark that the owner does not know.
///
/// All three sign it. The file is not secret; `dmqimmark`, `camvault retrieve`, `forget` and
/// `arbitrate` take it. Without --ttp-id and --cloud-id whoever answers is believed to be who it
/// says it is: compare the identities that are printed with what the parties themselves say.
#[derive(clap::Args)]
pub struct Args {
    /// The gateway, http://HOST:PORT.
    #[arg(long, value_name = "URL")]
    gateway: VaultArg,
    /// What you call the camera; nobody else can read it.
    #[arg(long, value_name = "TEXT")]
    name: String,
    /// File to write; never overwritten.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    identity: IdentityArg,
    /// The third party, http://HOST:PORT [default: the gateway's].
    #[arg(long, value_name = "URL")]
    ttp: Option<VaultArg>,
    /// Who the third party has to be, camvault1….
    #[arg(long, value_name = "PUBLIC")]
    ttp_id: Option<PublicId>,
    /// Who the gateway has to be, camvault1….
    #[arg(long, value_name = "PUBLIC")]
    cloud_id: Option<PublicId>,
    /// The third party's registration token, if it needs one.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Seconds of footage under one watermark: shorter ones limit what one leaked frame tells.
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_TICKET_S, value_parser = clap::value_parser!(u64).range(1..=3600))]
    ticket: u64,
    /// Wrong bits of 128 up to which a mark is recognised as this contract's.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_THRESHOLD, value_parser = clap::value_parser!(u32).range(0..64))]
    threshold: u32,
    /// Quantiser step: a multiple of 4 from 4 to 200. More stands more, and shows more.
    #[arg(long, value_name = "STEP", default_value_t = DEFAULT_STEP)]
    step: u32,
    /// Marks per 16 blocks of 8x8 pixels; 0: by the size of the picture.
    #[arg(long, value_name = "N", default_value_t = 0)]
    density: u32,
    /// Coefficients a block that can carry a bit, 1 to 5. More hide a mark among more, and each costs
    /// two bytes a changed block.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_PER_BLOCK, value_parser = clap::value_parser!(u32).range(1..=5))]
    per_block: u32,
    /// What other coefficients of a block may be off when frames are sealed, 0 to 15; 0: the camera's
    /// frames come back bit for bit, and streams are several times as large.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LOSS, value_parser = clap::value_parser!(u8).range(..=i64::from(MOST_LOSS)))]
    loss: u8,
}

pub fn run(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    common::is_free(&args.out)?;
    let owner = args.identity.load()?;
    let bar = common::spinner(json, "asking gateway and third party");
    let gateway = Gateway::connect(args.gateway.base(), owner.clone())?;
    let info = wait(gateway.info())?;
    let cloud = info.identity;
    expect_party(
        "gateway",
        args.gateway.base(),
        &cloud,
        args.cloud_id.as_ref(),
    )?;
    let url = match &args.ttp {
        Some(url) => url.base().to_owned(),
        None => info.ttp,
    };
    let ttp = Ttp::connect(&url, owner.clone())?;
    let judge = wait(ttp.info())?;
    let third = judge.identity;
    expect_party("third party", &url, &third, args.ttp_id.as_ref())?;
    wait(ttp.register(None, args.token.as_deref()))?;
    bar.set_message("checking the gateway's key");
    let (key, _) = wait(ttp.cloud_key(&cloud.sign))?;
    let mut base_seed = [0; 32];
    getrandom::fill(&mut base_seed)
        .map_err(|e| Failure::new(format!("the operating system gave no random numbers: {e}")))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let contract = Contract {
        step: args.step,
        density: args.density,
        threshold: args.threshold,
        ticket_ms: args.ticket * 1000,
        created_ms: now.map_or(0, |t| t.as_millis() as u64),
        name: owner.public().seal(NAME_INFO, args.name.as_bytes())?.into(),
        per_block: args.per_block,
        loss: args.loss,
        audit: judge.audit,
        pixels: info.pixels,
        ..Contract::new(
            owner.public(),
            cloud,
            third,
            Sha256::digest(&key).into(),
            base_seed,
        )
    };
    if contract.settings().is_none() {
        return Err(Failure::usage(
            "these numbers cannot be used: a step is a multiple of 4 from 4 to 200, a density at most \
             16 times the coefficients a block, a name has some hundred bytes at most, and a third \
             party that audits has tickets of a minute at most",
        ));
    }
    bar.set_message("signing");
    let signed = Signed::new(&contract).sign::<Contract>(&owner);
    let signed = wait(gateway.contract(signed))?;
    let agreed = wait(ttp.contract(signed))?;
    common::write_document::<Contract>(&args.out, &agreed.signed)?;
    bar.finish_and_clear();
    let id = gstcamvault::protocol::hex(&agreed.id);
    let [owner, cloud, third] = [&contract.owner, &contract.cloud, &contract.ttp]
        .map(|party| PublicId::from(party).to_string());
    let object = serde_json::json!({
        "contract": args.out, "id": id, "owner": owner, "cloud": cloud, "ttp": third,
        "ttp_url": url, "streams_port": info.port, "audit_of_1000": judge.audit,
    });
    print(json, object, || {
        format!(
            "{}: contract {id}\nowner        {owner}\ngateway      {cloud}\nthird party  {third} ({url})\n\
             Sealed streams go to port {} of the gateway. Of 1000 tickets the third party audits {}.",
            args.out.display(),
            info.port,
            judge.audit
        )
    });
    Ok(ExitCode::SUCCESS)
}
