// SPDX-License-Identifier: MPL-2.0
//! Archives out of the vault: remainders as they are, frames with the third party's masks on them.
//! A marked frame never leaves.

use super::Inner;
use crate::client::ttp::open_masks;
use crate::elements::support::pictures;
use crate::homomorphic::packed::{Base, Encryptor, PublicKey, Randomiser, TICKET_EXPONENT_BITS};
use crate::homomorphic::ticket::packing;
use crate::homomorphic::{AdditiveScheme as _, Packing, retrieval};
use crate::identity::{AeadKey, PublicId};
use crate::protocol::{
    CloudMasks, Contract, GatewayRetrieval, Mode, RETRIEVED_INFO, RetrievedFrame, RetrievedHead,
    StoredRemainder, Video, decode, encode,
};
use crate::sealed::stream::Remainder;
use crate::sealed::{Geometry, Picture, Splitter};
use crate::server::{GatewayError, Messages};
use crate::store::Hash;
use crate::watermark::Settings;
use gst::prelude::*;
use gst_video::{VideoFrameRef, VideoInfo};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Messages that wait for the network.
const WAITING: usize = 4;
/// How long the vault may be silent.
const SILENCE: gst::ClockTime = gst::ClockTime::from_seconds(60);
/// Frames are taken for the same if their times differ by no more, in nanoseconds: some encoders
/// count in microseconds or 90 kHz.
const TOLERANCE: u64 = 1_000_000;
/// Frames of one request.
const MAX_FRAMES: usize = 10_000;

type Sender = mpsc::Sender<Result<Vec<u8>, GatewayError>>;

fn failed(e: impl std::fmt::Display) -> GatewayError {
    GatewayError::Failed(e.to_string())
}

/// Which track is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Track {
    Remainders,
    Frames,
}

/// An archive that plays into a sink.
struct Player {
    pipeline: gst::Pipeline,
    sink: gst_app::AppSink,
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

impl Player {
    fn open(inner: &Inner, archive: &str, track: Track) -> Result<Self, GatewayError> {
        let uri = inner.recording(archive).map_err(failed)?.to_string();
        let pipeline = gst::Pipeline::new();
        let source = gst::ElementFactory::make("dedupsrc")
            .property("uri", uri)
            .property("identity", inner.path("gateway.identity"))
            .build()
            .map_err(failed)?;
        let sink = gst_app::AppSink::builder()
            .sync(false)
            .max_buffers(4)
            .build();
        if track == Track::Frames {
            sink.set_caps(Some(&pictures::caps()));
        }
        pipeline.add(&source).map_err(failed)?;
        pipeline.add(&sink).map_err(failed)?;
        let (into, weak) = (sink.downgrade(), pipeline.downgrade());
        source.connect_pad_added(move |source, pad| {
            let (Some(sink), Some(pipeline)) = (into.upgrade(), weak.upgrade()) else {
                return;
            };
            if let Err(e) = attach(&pipeline, pad, &sink, track) {
                gst::element_error!(source, gst::StreamError::WrongType, ("{e}"));
            }
        });
        Ok(Self { pipeline, sink })
    }

    /// Begins with what is shown at `at`.
    fn play(&self, at: Option<u64>) -> Result<(), GatewayError> {
        let paused = self.pipeline.set_state(gst::State::Paused);
        let ready = paused.is_ok() && self.pipeline.state(SILENCE).0.is_ok();
        if !ready {
            return Err(self.why());
        }
        if let Some(at) = at.filter(|&at| at > 0) {
            // From the keyframe before: an accurate seek would show the frame that was there at
            // that moment, cut to begin then, in place of the one that is wanted.
            let flags =
                gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT | gst::SeekFlags::SNAP_BEFORE;
            let at = gst::ClockTime::from_nseconds(at.saturating_sub(TOLERANCE));
            self.pipeline.seek_simple(flags, at).map_err(failed)?;
        }
        self.pipeline
            .set_state(gst::State::Playing)
            .map_err(|_| self.why())?;
        Ok(())
    }

    /// The next buffer with its stream time, or `None` at the end.
    fn next(&self) -> Result<Option<(gst::Sample, u64)>, GatewayError> {
        loop {
            match self.sink.try_pull_sample(SILENCE) {
                Some(sample) => {
                    let segment = sample.segment();
                    let segment = segment.and_then(|s| s.downcast_ref::<gst::ClockTime>());
                    let pts = sample.buffer().and_then(|buffer| buffer.pts());
                    let time = segment.and_then(|segment| segment.to_stream_time(pts));
                    if let Some(time) = time {
                        return Ok(Some((sample, time.nseconds())));
                    }
                }
                None if self.sink.is_eos() => return Ok(None),
                None => return Err(self.why()),
            }
        }
    }

    /// What the bus says about a failure.
    fn why(&self) -> GatewayError {
        let bus = self.pipeline.bus();
        let error = bus.and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
        let text = error.and_then(|message| match message.view() {
            gst::MessageView::Error(e) => Some(e.error().to_string()),
            _ => None,
        });
        failed(text.unwrap_or_else(|| "the archive does not play".into()))
    }
}

/// Links a track of the archive, or lets it run dry.
fn attach(
    pipeline: &gst::Pipeline,
    pad: &gst::Pad,
    sink: &gst_app::AppSink,
    track: Track,
) -> Result<(), gst::glib::BoolError> {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    let of_remainders = caps
        .structure(0)
        .is_some_and(|s| s.name() == crate::elements::dmqimopen::REMAINDER_TYPE);
    let wanted = of_remainders == (track == Track::Remainders);
    let static_pad = |element: &gst::Element| {
        let missing = || gst::glib::bool_error!("an element without a pad");
        element.static_pad("sink").ok_or_else(missing)
    };
    let link = |element: &gst::Element| -> Result<(), gst::glib::BoolError> {
        let linked = pad.link(&static_pad(element)?);
        linked.map_err(|e| gst::glib::bool_error!("{e}"))?;
        Ok(())
    };
    if !wanted {
        // A sink would hold up the other track until the pipeline plays.
        let types = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        pad.add_probe(types, |_, _| gst::PadProbeReturn::Drop);
        return Ok(());
    }
    if track == Track::Remainders {
        return link(sink.upcast_ref());
    }
    let decode = gst::ElementFactory::make("decodebin").build()?;
    pipeline.add(&decode)?;
    let target = static_pad(sink.upcast_ref())?.downgrade();
    decode.connect_pad_added(move |_, pad| {
        if let Some(target) = target.upgrade().filter(|target| !target.is_linked()) {
            // If it does not fit, the pipeline says so.
            let _ = pad.link(&target);
        }
    });
    decode.sync_state_with_parent()?;
    link(&decode)
}

async fn permit(inner: &Inner) -> Result<OwnedSemaphorePermit, GatewayError> {
    let permit = inner.playing.clone().acquire_owned().await;
    permit.map_err(failed)
}

/// Runs `work` on a thread of its own; what it fails with is the answer's last message.
fn thread(
    permit: OwnedSemaphorePermit,
    work: impl FnOnce(&Sender) -> Result<(), GatewayError> + Send + 'static,
) -> Messages {
    let (sender, messages) = mpsc::channel(WAITING);
    std::thread::spawn(move || {
        let _permit = permit;
        if let Err(e) = work(&sender) {
            // Nobody listens any more otherwise.
            let _ = sender.blocking_send(Err(e));
        }
    });
    messages
}

/// The remainders of an archive, in order.
pub async fn remainders(inner: Arc<Inner>, archive: String) -> Result<Messages, GatewayError> {
    let permit = permit(&inner).await?;
    Ok(thread(permit, move |sender| {
        let player = Player::open(&inner, &archive, Track::Remainders)?;
        player.play(None)?;
        while let Some((sample, pts)) = player.next()? {
            let bytes = sample.buffer().and_then(|b| b.map_readable().ok());
            let bytes = bytes.ok_or_else(|| failed("a remainder cannot be read"))?;
            let remainder = bytes.to_vec().into();
            let message = encode(&StoredRemainder { pts, remainder });
            if sender.blocking_send(Ok(message)).is_err() {
                break;
            }
        }
        Ok(())
    }))
}

/// Frames with the third party's masks on them.
pub async fn retrieve(
    inner: Arc<Inner>,
    contract: Hash,
    terms: Contract,
    archive: String,
    ask: GatewayRetrieval,
) -> Result<Messages, GatewayError> {
    let refused = |why: &str| GatewayError::Refused(why.into());
    let masks = open_masks(&inner.identity, &terms.ttp.sign, &ask.masks)
        .map_err(|e| GatewayError::Refused(e.to_string()))?;
    if *masks.contract != contract {
        return Err(refused("the masks are for another contract"));
    }
    let ascending = ask.pts.windows(2).all(|pair| pair[0] < pair[1]);
    if masks.frames.len() != ask.pts.len() || ask.pts.len() > MAX_FRAMES || !ascending {
        return Err(refused("give one time a frame of the masks, ascending"));
    }
    let settings = terms
        .settings()
        .ok_or_else(|| failed("a contract without sense"))?;
    let permit = permit(&inner).await?;
    let work = Retrieving {
        inner,
        owner: PublicId::from(&terms.owner),
        settings,
        masks,
        pts: ask.pts,
        archive,
    };
    Ok(thread(permit, move |sender| work.run(sender)))
}

struct Retrieving {
    inner: Arc<Inner>,
    owner: PublicId,
    settings: Settings,
    masks: CloudMasks,
    pts: Vec<u64>,
    archive: String,
}

impl Retrieving {
    /// Whether all frames that are asked for, and what is too near to tell apart, were marked with
    /// the ticket that the masks are of. With another ticket's, the mark would stay in: the owner
    /// could read it, and the third party would know of no retrieval.
    fn check_tickets(&self) -> Result<(), GatewayError> {
        const NEAR: u64 = 2 * TOLERANCE;
        let Some(first) = self.pts.first() else {
            return Ok(());
        };
        let player = Player::open(&self.inner, &self.archive, Track::Remainders)?;
        player.play(Some(first.saturating_sub(NEAR)))?;
        let mut found = vec![false; self.pts.len()];
        let mut from = 0;
        while let Some((sample, time)) = player.next()? {
            while self
                .pts
                .get(from)
                .is_some_and(|pts| pts.saturating_add(NEAR) < time)
            {
                from += 1;
            }
            let Some(rest) = self.pts.get(from..).filter(|rest| !rest.is_empty()) else {
                break;
            };
            let near = rest
                .iter()
                .take_while(|&&pts| pts <= time.saturating_add(NEAR))
                .count();
            if near == 0 {
                continue;
            }
            let bytes = sample.buffer().and_then(|b| b.map_readable().ok());
            let bytes = bytes.ok_or_else(|| failed("a remainder cannot be read"))?;
            let remainder: Remainder = decode(&bytes).map_err(failed)?;
            let of = (*remainder.contract, remainder.ticket);
            if of != (*self.masks.contract, self.masks.ticket) {
                return Err(GatewayError::Refused(
                    "the masks are for another ticket than these frames are marked with".into(),
                ));
            }
            found[from..from + near].fill(true);
        }
        match found.iter().all(|found| *found) {
            true => Ok(()),
            false => Err(failed("a frame is missing in the archive")),
        }
    }

    fn run(&self, sender: &Sender) -> Result<(), GatewayError> {
        self.check_tickets()?;
        let player = Player::open(&self.inner, &self.archive, Track::Frames)?;
        player.play(self.pts.first().copied())?;
        let adder = Adder::new(&self.masks)?;
        let mut key = zeroize::Zeroizing::new([0; 32]);
        getrandom::fill(&mut *key).map_err(failed)?;
        let sealed_key = self.owner.seal(RETRIEVED_INFO, &*key).map_err(failed)?;
        let key = AeadKey::new(*key);
        let mut format: Option<(VideoInfo, Picture, Splitter)> = None;
        for (number, &pts) in self.pts.iter().enumerate() {
            let sample = loop {
                let next = player.next()?;
                let (sample, time) = next.ok_or_else(|| failed("the archive ends too early"))?;
                match time {
                    _ if time.saturating_add(TOLERANCE) < pts => continue,
                    _ if time > pts.saturating_add(TOLERANCE) => {
                        return Err(failed("a frame is missing in the archive"));
                    }
                    _ => break sample,
                }
            };
            let info = sample
                .caps()
                .and_then(|caps| VideoInfo::from_caps(caps).ok());
            let info = info.ok_or_else(|| failed("frames without a format"))?;
            if format.as_ref().is_none_or(|(before, ..)| *before != info) {
                if number > 0 {
                    return Err(failed("the format of frames changes within a ticket"));
                }
                let geometry = pictures::geometry(&info).map_err(failed)?;
                let splitter = Splitter::new(geometry, &self.settings, None).map_err(failed)?;
                let head = RetrievedHead {
                    key: sealed_key.clone().into(),
                    video: video(&info, geometry),
                    mode: self.masks.mode,
                    contract: self.masks.contract,
                };
                if sender.blocking_send(Ok(encode(&head))).is_err() {
                    return Ok(());
                }
                format = Some((info, Picture::new(geometry), splitter));
            }
            let Some((info, picture, splitter)) = &mut format else {
                return Err(failed("frames without a format"));
            };
            let buffer = sample.buffer().ok_or_else(|| failed("no frame"))?;
            let frame = VideoFrameRef::from_buffer_ref_readable(buffer, info).map_err(failed)?;
            pictures::read(&frame, picture).ok_or_else(|| failed("a frame cannot be read"))?;
            let mut split = splitter.split(picture, true).map_err(failed)?;
            let sums = adder.add(&split.values, &self.masks.frames[number])?;
            let frame = RetrievedFrame {
                pts,
                rest: std::mem::take(&mut split.rest).into(),
                sums: sums.into(),
            };
            let context = (number as u64).to_be_bytes();
            let sealed = key.seal(&context, &encode(&frame)).map_err(failed)?;
            if sender.blocking_send(Ok(sealed)).is_err() {
                break;
            }
        }
        Ok(())
    }
}

fn video(info: &VideoInfo, geometry: Geometry) -> Video {
    let fps = info.fps();
    Video {
        width: info.width(),
        height: info.height(),
        chroma: geometry.chroma.into(),
        rate: (fps.numer().max(0) as u32, fps.denom().max(1) as u32),
    }
}

/// Puts masks on values.
enum Adder {
    Masked,
    Packed(Box<Encryptor>, Packing),
}

impl Adder {
    fn new(masks: &CloudMasks) -> Result<Self, GatewayError> {
        let (Mode::Packed, Some(modulus)) = (masks.mode, &masks.key) else {
            return Ok(Self::Masked);
        };
        let key = PublicKey::from_modulus(modulus).map_err(failed)?;
        let base = Base::derive(&key, &masks.contract, b"camvault retrieval");
        let randomiser = Randomiser::new(&key, &base, TICKET_EXPONENT_BITS).map_err(failed)?;
        let packing = packing(&key).map_err(failed)?;
        Ok(Self::Packed(Box::new(Encryptor::new(randomiser)), packing))
    }

    fn add(&self, values: &[i16], masks: &[u8]) -> Result<Vec<u8>, GatewayError> {
        let length = || GatewayError::Refused("masks for frames of another size".into());
        match self {
            Self::Masked => retrieval::add(values, masks).ok_or_else(length),
            Self::Packed(encryptor, packing) => {
                let bytes = encryptor.ciphertext_bytes();
                if !masks.len().is_multiple_of(bytes) {
                    return Err(length());
                }
                let masks: Vec<&[u8]> = masks.chunks_exact(bytes).collect();
                let masks = encryptor.key().parse_many(&masks).map_err(failed)?;
                let sums = retrieval::packed_add(encryptor, packing, values, &masks);
                let sums = sums.map_err(failed)?;
                Ok(sums.iter().flat_map(|c| encryptor.to_bytes(c)).collect())
            }
        }
    }
}
