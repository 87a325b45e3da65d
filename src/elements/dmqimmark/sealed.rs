// SPDX-License-Identifier: MPL-2.0
//! Frames as a sealed stream: what `dmqimmark` does with a contract.

use crate::client::tickets::{Tickets, Wanted};
use crate::elements::support::cancel::Canceller;
use crate::elements::support::{files, lock, pictures};
use crate::feature::{Observer, PHash};
use crate::identity::Identity;
use crate::luma::{Luma, Shape};
use crate::protocol::{Agreed, Features, MAX_FEATURES, Mode};
use crate::sealed::Picture;
use crate::sealed::stream::{Prepared, Sealer, Summary};
use crate::store::now_ms;
use gst::glib;
use gst_video::{VideoFrameRef, VideoInfo};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Media type of sealed streams.
pub const MEDIA_TYPE: &str = "application/x-dmqim-sealed";

/// How long a frame that may wait waits for a ticket.
const TICKET_WAIT: Duration = Duration::from_secs(30);
/// How long EOS waits until the third party knows what was sent and has seen what it asks for.
const LAST_REPORT: Duration = Duration::from_secs(10);
/// Between two looks at what the camera shows.
const LOOK_EVERY: u64 = 1_000_000_000;
/// Bits in which a hash must differ from all that were noted to be noted as well.
const OTHER_SCENE: u32 = 4;

/// How marked coefficients travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstDmqimMode")]
pub enum SealedMode {
    /// For live video.
    #[default]
    #[enum_value(
        name = "Oblivious: two masked candidates a coefficient, a stream cipher a frame",
        nick = "oblivious"
    )]
    Oblivious,
    /// The paper's.
    #[enum_value(
        name = "Packed: coefficients in slots of Paillier ciphertexts, as in the paper; slow",
        nick = "packed"
    )]
    Packed,
}

/// The properties of sealed streams, as they are set at the moment.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// Base URL of the third party.
    pub ttp: Option<String>,
    /// File with the contract.
    pub contract: Option<PathBuf>,
    /// Identity file.
    pub identity: Option<String>,
    /// Mode.
    pub mode: SealedMode,
    /// Segments kept prepared.
    pub ahead: u32,
}

/// Segments kept prepared by default.
pub const DEFAULT_AHEAD: u32 = 2;

impl Default for Chosen {
    fn default() -> Self {
        Self {
            ttp: None,
            contract: None,
            identity: None,
            mode: SealedMode::default(),
            ahead: DEFAULT_AHEAD,
        }
    }
}

/// What is checked when the element starts.
pub struct Terms {
    ttp: String,
    agreed: Agreed,
    identity: Arc<Identity>,
    mode: Mode,
    ahead: usize,
}

impl Terms {
    /// Reads contract and identity.
    pub fn load(chosen: &Chosen, contract: &Path) -> Result<Self, gst::ErrorMessage> {
        let settings = |text: String| gst::error_msg!(gst::LibraryError::Settings, ("{text}"));
        let ttp = chosen.ttp.clone().ok_or_else(|| {
            settings("There is a contract but no third party: set ttp to its URL".into())
        })?;
        let agreed = Agreed::check(files::contract(contract)?)
            .map_err(|e| settings(format!("{}: {e}", contract.display())))?;
        let identity = files::identity(chosen.identity.as_deref())?;
        if *agreed.contract.owner.sign != identity.public().sign {
            return Err(settings(format!(
                "{} is not this identity's contract: set identity to the file of the owner who made it",
                contract.display()
            )));
        }
        Ok(Self {
            ttp,
            agreed,
            identity,
            mode: match chosen.mode {
                SealedMode::Oblivious => Mode::Oblivious,
                SealedMode::Packed => Mode::Packed,
            },
            ahead: chosen.ahead as usize,
        })
    }
}

/// A segment that is being sent.
struct Segment {
    started_ms: u64,
    /// Running time of its first frame.
    started: u64,
    expires_ms: u64,
    hashes: Vec<PHash>,
}

/// Frames of one format on their way.
pub struct Sealing {
    terms: Arc<Terms>,
    tickets: Tickets,
    sealer: Sealer,
    info: VideoInfo,
    picture: Picture,
    segment: Option<Segment>,
    observer: Observer,
    looked: Option<u64>,
    /// Frames that found no ticket.
    lost: u64,
    /// Frames of segments that have ended.
    frames: u64,
    /// What was sealed of their luma less what came, squared, in all.
    squares: u64,
    /// Whether frames cannot wait.
    live: bool,
}

/// What became of a frame.
pub enum Frame {
    /// Bytes of the sealed stream, and whether a segment begins with them.
    Sealed(Vec<u8>, bool),
    /// There was no ticket.
    Lost,
}

impl Sealing {
    /// Begins with frames like `info`; tickets are fetched from now on.
    pub fn new(terms: Arc<Terms>, info: VideoInfo, live: bool) -> Result<Self, gst::ErrorMessage> {
        let geometry = pictures::geometry(&info).map_err(unfit)?;
        let (width, height) = (info.width(), info.height());
        let contract = &terms.agreed.contract;
        if !contract.takes(width, height) {
            let most = contract.pixels;
            let error = crate::sealed::stream::Error::Pixels {
                width,
                height,
                most,
            };
            return Err(gst::error_msg!(gst::StreamError::Format, ("{error}")));
        }
        let wanted = Wanted {
            ttp: terms.ttp.clone(),
            contract: terms.agreed.clone(),
            mode: terms.mode,
            width,
            height,
            ahead: terms.ahead,
        };
        Ok(Self {
            tickets: Tickets::start(wanted, terms.identity.clone()).map_err(network)?,
            sealer: Sealer::new(terms.identity.clone()).map_err(failed)?,
            picture: Picture::new(geometry),
            terms,
            info,
            segment: None,
            observer: Observer::default(),
            looked: None,
            lost: 0,
            frames: 0,
            squares: 0,
            live,
        })
    }

    /// Seals a frame at running time `running`, in nanoseconds.
    pub fn frame(
        &mut self,
        buffer: &gst::BufferRef,
        running: Option<u64>,
        canceller: &Canceller,
    ) -> Result<Frame, gst::ErrorMessage> {
        self.read(buffer)?;
        self.look(running);
        let mut out = Vec::new();
        let mut begins = false;
        let over = self.segment.as_ref().is_none_or(|segment| {
            let length = self.terms.agreed.contract.ticket_ms * 1_000_000;
            let now = running.unwrap_or(segment.started);
            now.saturating_sub(segment.started) >= length
        });
        let full = self.sealer.is_full();
        if (over || full)
            && let Some(prepared) = self.ticket(canceller)?
        {
            begins = true;
            self.end(&mut out);
            self.begin(prepared, running.unwrap_or(0), &mut out)?;
        }
        let alive = |segment: &Segment| segment.expires_ms > now_ms();
        let goes_on = begins || !full;
        if !goes_on || !self.segment.as_ref().is_some_and(alive) {
            self.lost += 1;
            return Ok(Frame::Lost);
        }
        let duration = buffer.duration().map(|d| d.nseconds());
        let frame = self.sealer.frame(&self.picture, running, duration);
        let frame = frame.map_err(failed)?;
        match out.is_empty() {
            true => out = frame,
            false => out.extend_from_slice(&frame),
        }
        Ok(Frame::Sealed(out, begins))
    }

    /// The stream's last bytes; the third party is told what was sent.
    pub fn finish(&mut self, canceller: &Canceller) -> Vec<u8> {
        let mut out = Vec::new();
        self.end(&mut out);
        let told = canceller.wait(async { Ok(self.tickets.finish(LAST_REPORT).await) });
        if !matches!(told, Ok(true)) {
            gst::warning!(
                gst::CAT_RUST,
                "The third party was not told all that was sent"
            );
        }
        out
    }

    /// PSNR in dB of luma as it was sealed against what came, over all segments that have ended; none
    /// while that is the same.
    pub fn psnr(&self) -> Option<f64> {
        let samples = self.frames * u64::from(self.info.width()) * u64::from(self.info.height());
        let off = self.squares as f64 / samples as f64;
        (self.squares > 0).then(|| 10.0 * (255.0 * 255.0 / off).log10())
    }

    /// Frames that found no ticket.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// A ticket: the first frame waits for one, later ones of live video go on with the one there
    /// is.
    fn ticket(&mut self, canceller: &Canceller) -> Result<Option<Prepared>, gst::ErrorMessage> {
        if self.live && (self.segment.is_some() || self.lost > 0) {
            return self.tickets.try_next().map_err(network);
        }
        let tickets = &mut self.tickets;
        let waited =
            canceller.wait(async { Ok(tokio::time::timeout(TICKET_WAIT, tickets.next()).await) });
        match waited {
            Ok(Ok(Ok(prepared))) => Ok(Some(prepared)),
            Ok(Ok(Err(e))) | Err(e) => Err(network(e)),
            Ok(Err(_)) => {
                let why = self.tickets.failure().map_or_else(
                    || "it does not answer".to_owned(),
                    |failure| failure.to_string(),
                );
                Err(gst::error_msg!(
                    gst::ResourceError::OpenRead,
                    ("No ticket came from the third party: {why}")
                ))
            }
        }
    }

    fn begin(
        &mut self,
        prepared: Prepared,
        running: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), gst::ErrorMessage> {
        let started_ms = now_ms();
        let expires_ms = prepared.head().expires_ms;
        let fps = self.info.fps();
        let rate = (fps.numer().max(0) as u32, fps.denom().max(1) as u32);
        let chroma = self.picture.geometry().chroma;
        let head = self.sealer.begin(prepared, chroma, rate, started_ms);
        out.append(&mut head.map_err(failed)?);
        self.segment = Some(Segment {
            started_ms,
            started: running,
            expires_ms,
            hashes: Vec::new(),
        });
        self.looked = None;
        self.look(Some(running));
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        let (Some(segment), Some((mut end, summary))) = (self.segment.take(), self.sealer.end())
        else {
            return;
        };
        out.append(&mut end);
        let Summary {
            ticket,
            frames,
            commitment,
            squares,
            evidence,
        } = summary;
        self.frames += frames;
        self.squares += squares;
        let features = Features {
            contract: self.terms.agreed.id.into(),
            ticket,
            started_ms: segment.started_ms,
            hashes: segment.hashes.iter().map(|hash| hash.0).collect(),
            frames,
            commitment: commitment.into(),
        };
        self.tickets.report(features, evidence);
    }

    /// Notes what the camera shows, once a second.
    fn look(&mut self, running: Option<u64>) {
        let second = running.map(|running| running / LOOK_EVERY);
        if second.is_some() && second == self.looked {
            return;
        }
        self.looked = second;
        let shape = Shape::plane(self.info.width() as usize, self.info.height() as usize);
        let luma = self.picture.planes().first();
        let luma = luma.and_then(|luma| Luma::new(luma, shape));
        let Some(feature) = luma.and_then(|luma| self.observer.look(&luma)) else {
            return;
        };
        self.tickets.observe(feature.phash.0);
        if let Some(segment) = &mut self.segment {
            let near = |hash: &PHash| hash.distance(feature.phash) < OTHER_SCENE;
            if segment.hashes.len() < MAX_FEATURES && !segment.hashes.iter().any(near) {
                segment.hashes.push(feature.phash);
            }
        }
    }

    fn read(&mut self, buffer: &gst::BufferRef) -> Result<(), gst::ErrorMessage> {
        let unreadable = || {
            gst::error_msg!(
                gst::ResourceError::Read,
                ("A frame cannot be read, or is shorter than its caps say")
            )
        };
        let frame = VideoFrameRef::from_buffer_ref_readable(buffer, &self.info);
        pictures::read(&frame.map_err(|_| unreadable())?, &mut self.picture).ok_or_else(unreadable)
    }
}

fn unfit(error: crate::sealed::Error) -> gst::ErrorMessage {
    gst::error_msg!(gst::StreamError::Format, ("{error}"))
}

fn failed(error: crate::sealed::stream::Error) -> gst::ErrorMessage {
    gst::error_msg!(gst::StreamError::Encode, ("{error}"))
}

fn network(error: crate::client::Error) -> gst::ErrorMessage {
    gst::error_msg!(gst::ResourceError::OpenRead, ("{error}"))
}

/// What the element has of sealed streams.
#[derive(Default)]
pub struct Sealed {
    /// The properties.
    pub chosen: Mutex<Chosen>,
    /// From start to stop.
    pub terms: Mutex<Option<Arc<Terms>>>,
    // Held by the streaming thread while it seals; never while it pushes or posts.
    sealing: Mutex<Option<Sealing>>,
    /// PSNR in dB of luma as it was sealed, over the segments that have ended.
    pub psnr: Mutex<Option<f64>>,
    /// Ends waits.
    pub canceller: Canceller,
}

impl Sealed {
    /// Whether there is a contract: the element's output is then a sealed stream.
    pub fn is_on(&self) -> bool {
        lock(&self.chosen).contract.is_some()
    }

    /// Frames have a format. What was sent in another is ended: its last bytes.
    pub fn set_info(&self, info: VideoInfo, live: bool) -> Result<Vec<u8>, gst::ErrorMessage> {
        let terms = lock(&self.terms).clone();
        let terms = terms.ok_or_else(|| {
            gst::error_msg!(gst::CoreError::StateChange, ("Frames before the start"))
        })?;
        let mut sealing = lock(&self.sealing);
        if sealing.as_ref().is_some_and(|sealing| sealing.info == info) {
            return Ok(Vec::new());
        }
        let end = sealing.take().map(|mut old| old.finish(&self.canceller));
        *sealing = Some(Sealing::new(terms, info, live)?);
        Ok(end.unwrap_or_default())
    }

    /// Seals a frame.
    pub fn frame(
        &self,
        buffer: &gst::BufferRef,
        running: Option<u64>,
    ) -> Result<Frame, gst::ErrorMessage> {
        let mut sealing = lock(&self.sealing);
        let sealing = sealing.as_mut().ok_or_else(|| {
            gst::error_msg!(
                gst::CoreError::Negotiation,
                ("Frames came before their caps")
            )
        })?;
        let frame = sealing.frame(buffer, running, &self.canceller);
        *lock(&self.psnr) = sealing.psnr();
        frame
    }

    /// The stream's last bytes, and how many frames found no ticket.
    pub fn finish(&self) -> Option<(Vec<u8>, u64)> {
        let mut sealing = lock(&self.sealing).take()?;
        let end = sealing.finish(&self.canceller);
        *lock(&self.psnr) = sealing.psnr();
        Some((end, sealing.lost()))
    }

    /// Forgets everything; nothing is sent any more.
    pub fn stop(&self) {
        *lock(&self.sealing) = None;
        *lock(&self.terms) = None;
    }
}
