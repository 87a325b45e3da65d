// SPDX-License-Identifier: MPL-2.0
use crate::common::{self, Failure, print};
use gstcamvault::homomorphic::packed::{DEFAULT_MODULUS_BITS, SecretKey, write_secret_key};
use gstcamvault::identity::Identity;
use std::path::PathBuf;
use std::process::ExitCode;

/// Make an identity: the one secret that all of an owner's recordings depend on. Or, with
/// --paillier, the key that a gateway opens sealed streams with.
#[derive(clap::Args)]
pub struct Args {
    /// File to write; never overwritten.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Make a secret Paillier key in place of an identity.
    #[arg(long)]
    paillier: bool,
    /// Bits of the Paillier key's modulus: 2048, 3072 or 4096.
    #[arg(long, value_name = "BITS", default_value_t = DEFAULT_MODULUS_BITS, requires = "paillier")]
    bits: u32,
}

pub fn run(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    match args.paillier {
        true => paillier(args, json),
        false => identity(args, json),
    }
}

fn identity(args: &Args, json: bool) -> Result<ExitCode, Failure> {
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

fn paillier(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    common::is_free(&args.out)?;
    let bar = common::spinner(json, "looking for primes");
    let failure = |e: gstcamvault::homomorphic::Error| Failure::new(e.to_string());
    let secret = SecretKey::generate(args.bits).map_err(failure)?;
    write_secret_key(&args.out, &secret).map_err(failure)?;
    bar.finish_and_clear();
    let object = serde_json::json!({ "paillier": args.out, "bits": args.bits });
    print(json, object, || {
        format!(
            "A Paillier key of {} bits is in {}: keep a copy safe.",
            args.bits,
            args.out.display()
        )
    });
    Ok(ExitCode::SUCCESS)
}
