// SPDX-License-Identifier: MPL-2.0
use crate::common::{self, Failure, Places, print};
use crate::scrub::Bad;
use gstcamvault::protocol::hex;
use gstcamvault::server::{Destination, Step, migrate};
use gstcamvault::store::BlobPlace;
use std::path::PathBuf;
use std::process::ExitCode;
use zeroize::Zeroizing;

/// Move a vault or a third party that does not run to other engines, and check all of it there.
///
/// Stop its server first. Nothing is deleted; interrupted, it goes on where it was. Afterwards
/// serve it as before with the new places as --metadata and --blobs.
#[derive(clap::Args)]
pub struct Args {
    /// Its data directory.
    #[arg(value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    places: Places,
    /// PostgreSQL database that metadata and the third party's registry go to; it holds none yet.
    #[arg(long, value_name = "URL", required_unless_present = "to_blobs")]
    to_metadata: Option<Zeroizing<String>>,
    /// Where the blobs go.
    #[arg(long, value_name = "S3-URL|DIR")]
    to_blobs: Option<BlobPlace>,
    /// URL of the S3 service that they go to [default: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or
    /// else AWS].
    #[arg(long, value_name = "URL", requires = "to_blobs")]
    to_s3_endpoint: Option<String>,
}

pub fn run(args: Args, json: bool) -> Result<ExitCode, Failure> {
    let config = args.places.config(args.data)?;
    let metadata = args.to_metadata.as_ref().map(|url| url.as_str());
    let to = Destination {
        metadata: common::database("--to-metadata", metadata)?,
        blobs: common::blob_place("to-", args.to_blobs, args.to_s3_endpoint)?,
    };
    let bar = common::spinner(json, "opening");
    let told = |step| {
        bar.set_message(match step {
            Step::Registry(rows) => format!("copying the registry: {rows} rows"),
            Step::Blobs => "copying blobs".into(),
            Step::Metadata(rows) => format!("copying metadata: {rows} rows"),
            Step::Checking => "reading everything back".into(),
        })
    };
    let migrating = migrate(&config, &to, told);
    let migrated = gstcamvault::client::runtime()?.block_on(migrating);
    bar.finish_and_clear();
    let migrated = migrated.map_err(|e| Failure::new(e.to_string()))?;
    let blobs = migrated.blobs.unwrap_or_default();
    let report = migrated.report.unwrap_or_default();
    let bad = Bad::of(&report);
    let not_copied: Vec<_> = blobs.damaged.iter().map(|d1| hex(d1)).collect();
    let object = serde_json::json!({
        "blobs_copied": blobs.blobs, "bytes_copied": blobs.bytes, "blobs_there": blobs.there,
        "blobs_not_copied": not_copied, "variants": report.variants,
        "segments": report.segments, "counts_mended": report.counts_mended, "missing": bad.missing,
        "damaged": bad.damaged, "registry_rows": migrated.registry,
    });
    print(json, object, || {
        let mut text = format!(
            "{} blobs ({}) copied, {} were there; {} variants in {} segments read back",
            blobs.blobs,
            common::bytes(blobs.bytes),
            blobs.there,
            report.variants,
            report.segments
        );
        if let Some(rows) = migrated.registry {
            text.push_str(&format!(
                "\n{rows} rows of the third party's registry copied and compared"
            ));
        }
        text + &bad.lines()
    });
    Ok(bad.exit_code())
}
