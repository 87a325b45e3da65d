// SPDX-License-Identifier: MPL-2.0
use crate::common::{self, Failure, IdentityArg, VaultArg, print};
use crate::media::{self, Running};
use gst::prelude::*;
use gstcamvault::chunk::UnitMode;
use gstcamvault::protocol::RecordingUrl;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

/// Store files as a recording, one after the other: media by its structure, without re-encoding;
/// anything else, and what only looks like media, as bytes.
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

/// Stores one file by its structure, or else as bytes.
fn store(
    args: &Args,
    file: &Path,
    size: u64,
    json: bool,
    totals: &mut Totals,
) -> Result<(), Failure> {
    if args.unit != "cdc" && media::is_media(file)? {
        let failure = match store_as(args, file, size, json, totals, &args.unit) {
            Err(Refused::Parser(failure)) => failure,
            done => return done.map_err(Failure::from),
        };
        // What it is was guessed from its first bytes.
        let why = failure.to_string();
        let why = why.lines().next().unwrap_or_default();
        eprintln!(
            "camvault: {}: is stored as bytes, for it cannot be taken apart: {why}",
            file.display()
        );
    }
    store_as(args, file, size, json, totals, "cdc").map_err(Failure::from)
}

/// Why a file was not stored.
enum Refused {
    /// It is not what it seemed to be, and nothing of it has been stored.
    Parser(Failure),
    Other(Failure),
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Parser(failure) | Refused::Other(failure) => failure,
        }
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}

impl From<gst::glib::BoolError> for Refused {
    fn from(error: gst::glib::BoolError) -> Self {
        Self::Other(error.into())
    }
}

fn store_as(
    args: &Args,
    file: &Path,
    size: u64,
    json: bool,
    totals: &mut Totals,
    unit: &str,
) -> Result<(), Refused> {
    let pipeline = Running(gst::Pipeline::new());
    let source = media::source(file)?;
    let sink = media::make("dedupsink")?;
    sink.set_property("uri", args.url.to_string());
    sink.set_property("identity", args.identity.path().display().to_string());
    sink.set_property_from_str("verify", &args.verify);
    // Half a file is of no use.
    sink.set_property("commit-on-stop", false);
    pipeline.0.add_many([&source, &sink])?;

    let mut parser = None;
    if unit == "cdc" {
        let domain = args.domain_secret_file.as_deref();
        payload(&sink, &media::static_pad(&source, "src")?, unit, domain)?;
    } else {
        let parse = media::make("parsebin")?;
        pipeline.0.add(&parse)?;
        source.link(&parse)?;
        parser = Some(parse.clone());
        let (sink, unit) = (sink.clone(), unit.to_owned());
        let domain = args.domain_secret_file.clone();
        parse.connect_pad_added(move |parse, pad| {
            see_all(parse, pad, size);
            if let Err(failure) = payload(&sink, pad, &unit, domain.as_deref()) {
                gst::element_error!(parse, gst::StreamError::Failed, ("{failure}"));
            }
        });
    }

    let bar = common::progress(json, size, &file.display().to_string());
    let position = || source.query_position::<gst::format::Bytes>().map(|b| *b);
    let mut by_parser = false;
    let played = pipeline.to_end(&bar, position, |message| {
        by_parser = matches!(message.view(), gst::MessageView::Error(_))
            && message
                .src()
                .zip(parser.as_ref())
                .is_some_and(|(at, parser)| at == parser || at.has_as_ancestor(parser));
        let segment = message
            .structure()
            .filter(|s| s.name() == "camvault-segment");
        let count = |name| segment.and_then(|s| s.get::<u64>(name).ok()).unwrap_or(0);
        totals.segments += u64::from(segment.is_some());
        totals.chunks += count("chunks");
        totals.new_bytes += count("new-bytes");
        totals.duplicate_bytes += count("duplicate-bytes");
        Ok(())
    });
    let Err(failure) = played else {
        return Ok(());
    };
    // It waits for a commit that is under way.
    drop(pipeline);
    let stats = sink.property::<gst::Structure>("stats");
    match stats.get::<u64>("segments").unwrap_or(0) {
        0 if by_parser => Err(Refused::Parser(failure)),
        0 => Err(failure.into()),
        n => {
            let part = format!("{n} segments are stored, and not the rest");
            Err(failure.prefixed(&part).into())
        }
    }
}

/// Bytes of a file of frames alone that they have to make up, of ten: a parser passes over what is
/// no frame without a word, and so would all of a file that only begins like one.
const FRAMES: u64 = 9;

/// Ends a pipeline in an error when it has brought the smaller part of a file that has no
/// container.
fn see_all(parse: &gst::Element, pad: &gst::Pad, size: u64) {
    let parse = parse.downgrade();
    let kinds = gst::PadProbeType::BUFFER
        | gst::PadProbeType::BUFFER_LIST
        | gst::PadProbeType::EVENT_DOWNSTREAM;
    let passed = Mutex::new(0u64);
    pad.add_probe(kinds, move |_, info| {
        let mut seen = passed.lock().unwrap_or_else(PoisonError::into_inner);
        match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => *seen += buffer.size() as u64,
            Some(gst::PadProbeData::BufferList(list)) => {
                *seen += list.iter().map(|buffer| buffer.size() as u64).sum::<u64>();
            }
            Some(gst::PadProbeData::Event(event)) if event.type_() == gst::EventType::Eos => {
                let parse = parse.upgrade().filter(|parse| !has_demuxer(parse));
                if let Some(parse) = parse.filter(|_| *seen < size / 10 * FRAMES) {
                    let words = format!("only {} of {size} bytes are in its frames", *seen);
                    gst::element_error!(parse, gst::StreamError::WrongType, ("{words}"));
                    return gst::PadProbeReturn::Handled;
                }
            }
            _ => (),
        }
        gst::PadProbeReturn::Ok
    });
}

fn has_demuxer(parse: &gst::Element) -> bool {
    let Some(bin) = parse.downcast_ref::<gst::Bin>() else {
        return true;
    };
    bin.children().iter().any(|element| {
        let factory = element.factory();
        factory.is_some_and(|f| f.has_type(gst::ElementFactoryType::DEMUXER))
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
