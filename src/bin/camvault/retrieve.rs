// SPDX-License-Identifier: MPL-2.0
use crate::common::{
    self, Failure, IdentityArg, NOT_VERIFIED, VaultArg, expect_party, print, wait,
};
use crate::media;
use crate::sheet::{Kind, Sheet};
use gstcamvault::client::ttp::packing;
use gstcamvault::client::{Error, Gateway, Ttp};
use gstcamvault::homomorphic::packed::{DEFAULT_MODULUS_BITS, SecretKey};
use gstcamvault::homomorphic::retrieval::Sign;
use gstcamvault::identity::{Identity, PublicId};
use gstcamvault::protocol::{
    Agreed, Archive, GatewayRetrieval, Mode, Moment, RetrievalRequest, StoredRemainder, Video,
    decode,
};
use gstcamvault::sealed::stream::{Fit, Kept, Remainder, RemainderReader, Restorer, Unmask, signs};
use serde_json::json;
use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Seek as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Get archived footage back from a gateway as it was before it was marked.
///
/// The gateway and the third party take the mark out together; the owner never sees a marked frame.
/// From a lossless archive frames come back bit for bit, else up to the archive's codec. The ending of
/// the new file chooses its kind: y4m (raw frames), or mkv, mp4, ts (H.264, lossless).
///
/// Every frame is compared with what its owner has kept of it: a digest, which shows whether it is the
/// frame that was sealed, bit for bit, and the remainders of its marks, of which a compressed frame
/// fits the more the less it was changed. From a compressed archive that is all there is to go by: colour,
/// blocks without marks and another frame of the same ticket then pass. Frames missing at the end of a
/// ticket are not noticed.
#[derive(clap::Args)]
pub struct Args {
    /// The gateway, http://HOST:PORT.
    url: VaultArg,
    /// Contract, as `camvault contract` wrote it.
    #[arg(long, value_name = "FILE")]
    contract: PathBuf,
    #[command(flatten)]
    identity: IdentityArg,
    /// File to write; it appears when it is complete.
    #[arg(long, value_name = "FILE", required_unless_present = "list")]
    out: Option<PathBuf>,
    /// Print what is archived instead.
    #[arg(long, conflicts_with = "out")]
    list: bool,
    /// The third party, http://HOST:PORT [default: the gateway's].
    #[arg(long, value_name = "URL")]
    ttp: Option<VaultArg>,
    /// Which archive (see --list) [default: the newest].
    #[arg(long, value_name = "NAME")]
    archive: Option<String>,
    /// First moment: seconds from the archive's beginning, or 2026-01-31T08:00:00Z.
    #[arg(long, value_name = "TIME")]
    from: Option<Moment>,
    /// Last moment.
    #[arg(long, value_name = "TIME")]
    to: Option<Moment>,
    /// How the mark comes out: by masks, or in Paillier ciphertexts as in the paper, which takes a
    /// thousand times as long.
    #[arg(long, value_name = "MODE", default_value = "masked", value_parser = ["masked", "packed"])]
    mode: String,
    /// Bits of the Paillier key that --mode packed makes: 2048, 3072 or 4096.
    #[arg(long, value_name = "BITS", default_value_t = DEFAULT_MODULUS_BITS)]
    bits: u32,
    /// Stop with exit code 3 at a frame that is not bit for bit the one that was sealed: for archives
    /// that are lossless.
    #[arg(long)]
    exact: bool,
}

/// Bytes of masks, or of ciphertexts, that are asked for at once.
const REQUEST_BYTES: usize = 4 << 20;
/// Ciphertexts that are asked for at once: each takes the third party and the gateway milliseconds.
const REQUEST_CIPHERTEXTS: usize = 2048;
/// Frames that are asked for at once.
const REQUEST_FRAMES: usize = 256;
/// Marks of a frame at most.
const MAX_MARKS: usize = 32 << 20;
/// Bytes of one frame's remainders.
const MAX_REMAINDER: u32 = 32 << 20;

pub fn run(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    media::init()?;
    let identity = args.identity.load()?;
    let agreed = common::own_contract(&args.contract, &identity)?;
    let gateway = Gateway::connect(args.url.base(), identity.clone())?;
    let info = wait(gateway.info())?;
    let cloud = PublicId::from(&agreed.contract.cloud);
    expect_party("gateway", args.url.base(), &info.identity, Some(&cloud))?;
    let archives = wait(gateway.archives(&agreed.id))?;
    let Some(out) = args.out.as_deref().filter(|_| !args.list) else {
        list(&archives, json);
        return Ok(ExitCode::SUCCESS);
    };
    let kind = Kind::of(out)?;
    let archive = match &args.archive {
        Some(name) => archives.iter().find(|archive| archive.name == *name),
        None => archives.last(),
    };
    let archive = archive.ok_or_else(|| match &args.archive {
        Some(name) => Failure::from(Error::NoArchive(name.clone())),
        None => Failure::new("nothing is archived under this contract").with_code(6),
    })?;
    let url = match &args.ttp {
        Some(url) => url.base().to_owned(),
        None => info.ttp,
    };
    let ttp = Ttp::connect(&url, identity.clone())?;
    let third = PublicId::from(&agreed.contract.ttp);
    expect_party(
        "third party",
        &url,
        &wait(ttp.info())?.identity,
        Some(&third),
    )?;
    let secret = match args.mode.as_str() {
        "packed" => Some(Arc::new(
            SecretKey::generate(args.bits).map_err(|e| Failure::usage(e.to_string()))?,
        )),
        _ => None,
    };
    let (stored, span, count) = download(args, json, &gateway, &agreed, archive)?;
    let bar = common::progress_count(json, count, &out.display().to_string());
    let mut found = Found::default();
    let bytes = media::write_whole(out, |part| {
        let mut retrieval = Retrieval {
            args,
            agreed: &agreed,
            identity: &identity,
            gateway: &gateway,
            ttp: &ttp,
            archive,
            secret,
            sheet: Sheet::new(kind, part),
            current: None,
            restorer: None,
            batch: Vec::new(),
            video: None,
            found: Found::default(),
            bar: &bar,
        };
        retrieval.all(stored, &span)?;
        found = retrieval.found;
        retrieval.sheet.finish()
    })?;
    bar.finish_and_clear();
    let share = found.wrong as f64 / found.marks.max(1) as f64;
    let object = json!({
        "archive": archive.name, "file": out, "bytes": bytes, "frames": found.frames,
        "fitting_frames": found.fitting, "exact_frames": found.exact, "marks": found.marks, "wrong_marks": found.wrong,
    });
    print(json, object, || {
        let fit = match found.frames - found.fitting {
            _ if found.exact == found.frames => {
                "all of them bit for bit as they were sealed".into()
            }
            0 => format!(
                "the marks of all of them fit what their owner has kept, {} are bit for bit as they were \
                 sealed: the archive is compressed, or was changed",
                found.exact
            ),
            others => format!(
                "{others} of them do not fit what their owner has kept ({:.1} % of all marks): the archive \
                 is compressed, or was changed",
                100.0 * share
            ),
        };
        format!(
            "{}: {}, {} frames of {}; {fit}",
            out.display(),
            common::bytes(bytes),
            found.frames,
            archive.name
        )
    });
    Ok(ExitCode::SUCCESS)
}

fn list(archives: &[Archive], json: bool) {
    let object = |archive: &Archive| {
        let began = common::utc_ms(archive.started_ms);
        json!({ "name": archive.name, "start_utc": began, "live": archive.live })
    };
    let all = archives.iter().map(object).collect::<Vec<_>>().into();
    print(json, all, || {
        let line = |archive: &Archive| {
            let live = if archive.live { "  (live)" } else { "" };
            format!(
                "{}  {}{live}",
                common::utc_ms(archive.started_ms),
                archive.name
            )
        };
        match archives {
            [] => "nothing is archived under this contract".into(),
            some => some.iter().map(line).collect::<Vec<_>>().join("\n"),
        }
    });
}

/// Presentation times that are wanted.
type Span = std::ops::RangeInclusive<u64>;

/// What is wanted of an archive whose first frame has the time `first`.
fn span(args: &Args, archive: &Archive, first: u64) -> Span {
    let at = |moment: Moment| match moment {
        Moment::Offset(ns) => first.saturating_add(ns),
        Moment::Utc(ns) => {
            let began = i128::from(archive.started_ms) * 1_000_000;
            let at = i128::from(first) + i128::from(ns) - began;
            at.clamp(0, i128::from(u64::MAX)) as u64
        }
    };
    args.from.map_or(0, at)..=args.to.map_or(u64::MAX, at)
}

/// The remainders, in a file of this process alone: while frames are retrieved nobody has to wait
/// with an open connection, and no memory is needed. Also what is wanted, and how many frames that is.
fn download(
    args: &Args,
    json: bool,
    gateway: &Gateway,
    agreed: &Agreed,
    archive: &Archive,
) -> Result<(BufReader<File>, Span, u64), Failure> {
    let spinner = common::spinner(json, "fetching remainders");
    let at = |e: std::io::Error| Failure::new(format!("a temporary file: {e}"));
    let mut file = BufWriter::new(tempfile::tempfile().map_err(at)?);
    let mut remainders = wait(gateway.remainders(&agreed.id, &archive.name))?;
    let (mut wanted, mut count) = (None, 0);
    while let Some(bytes) = wait(remainders.next_bytes())? {
        let stored: StoredRemainder = decode(&bytes).map_err(|_| damaged("not understood"))?;
        let span = wanted.get_or_insert_with(|| span(args, archive, stored.pts));
        count += u64::from(span.contains(&stored.pts));
        let length = (bytes.len() as u32).to_be_bytes();
        file.write_all(&length).map_err(at)?;
        file.write_all(&bytes).map_err(at)?;
        spinner.inc(1);
    }
    spinner.finish_and_clear();
    let mut file = file.into_inner().map_err(|e| at(e.into_error()))?;
    file.rewind().map_err(at)?;
    match wanted.filter(|_| count > 0) {
        Some(span) => Ok((BufReader::new(file), span, count)),
        None => Err(Failure::new(format!(
            "{}: nothing was archived in that time",
            archive.name
        ))
        .with_code(6)),
    }
}

fn damaged(what: &str) -> Failure {
    Failure::new(format!("the archive's remainders are damaged: {what}")).with_code(NOT_VERIFIED)
}

fn sealed(error: gstcamvault::sealed::stream::Error) -> Failure {
    Failure::from(Error::from(error))
}

/// The next remainder in the temporary file.
fn next(file: &mut impl Read) -> Result<Option<(u64, Remainder)>, Failure> {
    let at = |e: std::io::Error| Failure::new(format!("a temporary file: {e}"));
    let mut length = [0; 4];
    match file.read_exact(&mut length) {
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        read => read.map_err(at)?,
    }
    let length = u32::from_be_bytes(length).min(MAX_REMAINDER);
    let mut bytes = vec![0; length as usize];
    file.read_exact(&mut bytes).map_err(at)?;
    let stored: StoredRemainder = decode(&bytes).map_err(|_| damaged("not understood"))?;
    let remainder = decode(&stored.remainder).map_err(|_| damaged("not understood"))?;
    Ok(Some((stored.pts, remainder)))
}

/// A frame that is to be asked for.
struct Wanted {
    pts: u64,
    kept: Kept,
}

/// The ticket whose remainders are read.
struct Current {
    ticket: u64,
    next: u64,
    reader: RemainderReader,
}

/// What came back.
#[derive(Default)]
struct Found {
    frames: u64,
    fitting: u64,
    exact: u64,
    marks: usize,
    wrong: usize,
}

struct Retrieval<'a> {
    args: &'a Args,
    agreed: &'a Agreed,
    identity: &'a Identity,
    gateway: &'a Gateway,
    ttp: &'a Ttp,
    archive: &'a Archive,
    secret: Option<Arc<SecretKey>>,
    sheet: Sheet<'a>,
    current: Option<Current>,
    /// Of this ticket.
    restorer: Option<(u64, Restorer)>,
    /// Frames of one ticket that are yet to be asked for.
    batch: Vec<Wanted>,
    video: Option<Video>,
    found: Found,
    bar: &'a indicatif::ProgressBar,
}

impl Retrieval<'_> {
    fn all(&mut self, mut stored: impl Read, span: &Span) -> Result<(), Failure> {
        while let Some((pts, remainder)) = next(&mut stored)? {
            let (ticket, frame) = (remainder.ticket, remainder.frame);
            if self.current.as_ref().is_none_or(|c| c.ticket != ticket) {
                self.flush()?;
                let reader = RemainderReader::begin(self.identity, &remainder, MAX_MARKS);
                self.current = Some(Current {
                    ticket,
                    next: 0,
                    reader: reader.map_err(sealed)?,
                });
            }
            let Some(current) = &mut self.current else {
                continue;
            };
            if *remainder.contract != self.agreed.id || frame != current.next {
                return Err(damaged(&format!(
                    "frame {frame} of ticket {ticket} where frame {} is due",
                    current.next
                )));
            }
            current.next += 1;
            let kept = current.reader.open(&remainder).map_err(sealed)?;
            if span.contains(&pts) {
                self.batch.push(Wanted { pts, kept });
            }
            if self.batch.len() >= self.most()? {
                self.flush()?;
            }
        }
        self.flush()
    }

    /// Frames of a request: one until their size is known.
    fn most(&self) -> Result<usize, Failure> {
        let Some(video) = &self.video else {
            return Ok(1);
        };
        let [columns, rows] = [video.width, video.height].map(|side| side as usize / 8);
        let values = columns * rows * self.agreed.settings.each();
        let most = match &self.secret {
            None => REQUEST_BYTES / (2 * values).max(1),
            Some(secret) => {
                let key = secret.public();
                let packing = packing(key).map_err(Error::from)?;
                let ciphertexts = values.div_ceil(packing.slots()).max(1);
                let bytes = ciphertexts * key.ciphertext_bytes();
                (REQUEST_CIPHERTEXTS / ciphertexts).min(REQUEST_BYTES / bytes)
            }
        };
        Ok(most.clamp(1, REQUEST_FRAMES))
    }

    /// Gets the frames of the batch.
    fn flush(&mut self) -> Result<(), Failure> {
        let batch = std::mem::take(&mut self.batch);
        let Some(ticket) = self.current.as_ref().map(|current| current.ticket) else {
            return Ok(());
        };
        if batch.is_empty() {
            return Ok(());
        }
        let packed = |wanted: &Wanted| Sign::pack(&signs(&wanted.kept.remainders)).into();
        let mode = match self.secret {
            None => Mode::Oblivious,
            Some(_) => Mode::Packed,
        };
        let request = RetrievalRequest {
            contract: self.agreed.id.into(),
            ticket,
            mode,
            key: self.secret.as_ref().map(|s| s.public().modulus().into()),
            frames: batch.iter().map(packed).collect(),
        };
        let given = wait(self.ttp.retrieval(&request))?;
        let unmask = match (given.pads, &self.secret) {
            (Some(pads), None) => Unmask::Pads(pads),
            (None, Some(secret)) => Unmask::Packed(secret.clone()),
            _ => return Err(Failure::new("the third party answers in another mode")),
        };
        let request = GatewayRetrieval {
            masks: given.masks.into(),
            pts: batch.iter().map(|wanted| wanted.pts).collect(),
        };
        let asked = self
            .gateway
            .retrieve(self.agreed, &self.archive.name, &request);
        let mut frames = wait(asked)?;
        let (video, answered) = (frames.head().video, frames.head().mode);
        if answered != mode {
            return Err(Failure::new("the gateway answers in another mode"));
        }
        if *self.video.get_or_insert(video) != video {
            return Err(Failure::new(
                "the frames' format changes in the middle of the archive: take the parts with --from and --to",
            ));
        }
        let mut restorer = match self.restorer.take() {
            Some((before, restorer)) if before == ticket => restorer,
            _ => Restorer::new(self.agreed, &given.key, &video).map_err(sealed)?,
        };
        for (number, wanted) in (0..).zip(&batch) {
            let frame = wait(frames.next())?;
            let frame = frame.ok_or_else(|| Failure::new("the gateway sends fewer frames"))?;
            let restored =
                restorer.restore(&unmask, number, &frame.rest, &frame.sums, &wanted.kept);
            let (picture, fit) = restored.map_err(sealed)?;
            self.sheet.frame(&video, picture, wanted.pts)?;
            count(&mut self.found, fit);
            if self.args.exact && !fit.exact {
                return Err(Failure::new(format!(
                    "frame {} (at {}) is not the one that was sealed ({} of {} marks are others): the \
                     archive is compressed, or was changed",
                    self.found.frames,
                    common::seconds(wanted.pts),
                    fit.wrong,
                    fit.marks
                ))
                .with_code(NOT_VERIFIED));
            }
            self.bar.inc(1);
        }
        // It says so if there are more.
        wait(frames.next())?;
        self.restorer = Some((ticket, restorer));
        Ok(())
    }
}

fn count(found: &mut Found, fit: Fit) {
    found.frames += 1;
    found.fitting += u64::from(fit.wrong == 0);
    found.exact += u64::from(fit.exact);
    found.marks += fit.marks;
    found.wrong += fit.wrong;
}
