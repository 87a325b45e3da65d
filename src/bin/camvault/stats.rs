// SPDX-License-Identifier: MPL-2.0
use crate::common::{self, Failure, VaultArg, print, wait};
use gstcamvault::client::Vault;
use gstcamvault::identity::Identity;
use std::process::ExitCode;
use std::sync::Arc;

/// What a vault stores.
#[derive(clap::Args)]
pub struct Args {
    /// The vault, http://HOST:PORT.
    url: VaultArg,
}

pub fn run(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    // Totals are open to all: the identity is any.
    let vault = Vault::connect(args.url.base(), Arc::new(Identity::generate()?))?;
    let s = wait(vault.stats())?;
    let object = serde_json::json!({
        "bytes_logical": s.bytes_logical, "bytes_stored": s.bytes_stored, "bytes_manifests": s.bytes_manifests,
        "chunks": s.chunks, "variants": s.variants, "blobs": s.blobs, "recordings": s.recordings,
        "segments": s.segments, "owners": s.owners,
    });
    print(json, object, || {
        format!(
            "{} of footage in {} ({:.2} to 1) and {} of manifests\n\
             {} chunks in {} variants, {} blobs; {} recordings of {} owners, {} segments",
            common::bytes(s.bytes_logical),
            common::bytes(s.bytes_stored),
            s.bytes_logical as f64 / s.bytes_stored.max(1) as f64,
            common::bytes(s.bytes_manifests),
            s.chunks,
            s.variants,
            s.blobs,
            s.recordings,
            s.owners,
            s.segments
        )
    });
    Ok(ExitCode::SUCCESS)
}
