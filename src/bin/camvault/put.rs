// SPDX-License-Identifier: MPL-2.0
use crate::common::{self, Failure, IdentityArg, VaultArg, print};
use crate::media::{self, Running};
use gst::prelude::*;
use gstcamvault::chunk::UnitMode;
use gstcamvault::protocol::RecordingUrl;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Store files as a recording, one after the other: media by its structure, without re-encoding;
/// anything else as bytes.
#[derive(clap::Args)]
pub struct Args {
    /// Files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Recording, camvault://HOST:PORT/NAME.
    url: RecordingUrl,
    #[command(flatten)]
    identity: IdentityArg,
    /// How streams are cut: structure, gop, au, fixed:N, or cdc. With cdc the file's bytes are
    /// stored as they are, media or not.
    #[arg(long, default_value = "structure", value_parser = unit)]
    unit: String,
    /// How stored copies are checked: deep, or tag (as in the paper).
    #[arg(long, default_value = "deep", value_parser = ["deep", "tag"])]
    verify: String,
    /// File with the 32-byte secret of a dedup domain.
    #[arg(long, value_name = "FILE")]
    domain_secret_file: Option<PathBuf>,
}

fn unit(text: &str) -> Result<String, String> {
    let known = text.parse::<UnitMode>();
    known.map(|_| text.to_owned()).map_err(|e| e.to_string())
}

#[derive(Default)]
struct Totals {
    segments: u64,
    chunks: u64,
    new_bytes: u64,
    duplicate_bytes: u64,
}

pub fn run(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    media::init()?;
    let sizes: Vec<u64> = args
        .files
        .iter()
        .map(|f| size(f))
        .collect::<Result<_, _>>()?;
    VaultArg::of(&args.url).reach(&args.identity)?;
    let mut totals = Totals::default();
    for (file, size) in args.files.iter().zip(sizes) {
        store(args, file, size, json, &mut totals)?;
    }
    let Totals {
        segments,
        chunks,
        new_bytes,
        duplicate_bytes,
    } = totals;
    let object = serde_json::json!({
        "recording": args.url.to_string(), "files": args.files.len(), "segments": segments,
        "chunks": chunks, "new_bytes": new_bytes, "duplicate_bytes": duplicate_bytes,
    });
    print(json, object, || {
        format!(
            "{}: {chunks} chunks in {segments} segments, {} new, {} there already",
            args.url,
            common::bytes(new_bytes),
            common::bytes(duplicate_bytes)
        )
    });
    Ok(ExitCode::SUCCESS)
}

/// The size of a file that can be read.
fn size(file: &Path) -> Result<u64, Failure> {
    let at = |e: std::io::Error| Failure::new(format!("{}: {e}", file.display()));
    let found = std::fs::File::open(file)
        .and_then(|f| f.metadata())
        .map_err(at)?;
    match found.is_dir() {
        false if found.is_file() && found.len() == 0 => Err(Failure::new(format!(
            "{} is empty: there is nothing to store",
            file.display()
        ))),
        true => Err(Failure::new(format!(
            "{} is a folder: name its files",
            file.display()
        ))),
        false => Ok(found.len()),
    }
}

fn store(
    args: &Args,
    file: &Path,
    size: u64,
    json: bool,
    totals: &mut Totals,
) -> Result<(), Failure> {
    let pipeline = Running(gst::Pipeline::new());
    let source = media::source(file)?;
    let sink = media::make("dedupsink")?;
    sink.set_property("uri", args.url.to_string());
    sink.set_property("identity", args.identity.path().display().to_string());
    sink.set_property_from_str("verify", &args.verify);
    pipeline.0.add_many([&source, &sink])?;

    let is_media = args.unit != "cdc" && media::is_media(file)?;
    if is_media {
        let parse = media::make("parsebin")?;
        pipeline.0.add(&parse)?;
        source.link(&parse)?;
        let (unit, domain) = (args.unit.clone(), args.domain_secret_file.clone());
        parse.connect_pad_added(move |parse, pad| {
            if let Err(failure) = payload(&sink, pad, &unit, domain.as_deref()) {
                gst::element_error!(parse, gst::StreamError::Failed, ("{failure}"));
            }
        });
    } else {
        payload(
            &sink,
            &media::static_pad(&source, "src")?,
            "cdc",
            args.domain_secret_file.as_deref(),
        )?;
    }

    let bar = common::progress(json, size, &file.display().to_string());
    let position = || source.query_position::<gst::format::Bytes>().map(|b| *b);
    pipeline.to_end(&bar, position, |message| {
        let segment = message
            .structure()
            .filter(|s| s.name() == "camvault-segment");
        let count = |name| segment.and_then(|s| s.get::<u64>(name).ok()).unwrap_or(0);
        totals.segments += u64::from(segment.is_some());
        totals.chunks += count("chunks");
        totals.new_bytes += count("new-bytes");
        totals.duplicate_bytes += count("duplicate-bytes");
        Ok(())
    })
}

/// Links a stream through a payloader to a new pad of the sink.
fn payload(
    sink: &gst::Element,
    pad: &gst::Pad,
    unit: &str,
    domain: Option<&Path>,
) -> Result<(), Failure> {
    let pay = media::make("rcededuppay")?;
    pay.set_property("unit", unit);
    if let Some(domain) = domain {
        pay.set_property("domain-secret-file", domain.display().to_string());
    }
    let bin = sink
        .parent()
        .and_downcast::<gst::Bin>()
        .ok_or_else(|| Failure::new("the pipeline is gone"))?;
    bin.add(&pay)?;
    pay.link(sink)?;
    pay.sync_state_with_parent()?;
    let link = pad.link(&media::static_pad(&pay, "sink")?);
    link.map(drop)
        .map_err(|e| Failure::new(format!("a stream of the file cannot be stored: {e:?}")))
}
