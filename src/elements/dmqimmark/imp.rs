// SPDX-License-Identifier: MPL-2.0
/**
 * SECTION:element-dmqimmark
 *
 * Marks raw video: with bits that are known, or with bits that a third party gave encrypted.
 *
 * ## Known bits
 * Embeds a known watermark of 128 bits into the luma of raw video, in place. `dmqimdetect` with the
 * same key reads it back, also from copies that were compressed, resized, cut, mirrored or darkened.
 *
 * Places and dithers come from the key. They take turns every `interval`; with each turn, and with
 * every other change, the encoder behind is asked for a keyframe, because places that move within a
 * group of pictures cost it many bits. Without `watermark` frames pass untouched and uncopied, unless
 * they bring one in a meta `CamvaultWatermark` (see `put_watermark`); without `key-file` they always do.
 *
 * `preset=picture` is for single pictures: more and weaker marks, because nothing but the picture
 * itself can be read. `dmqimdetect` needs the same preset.
 *
 * Whoever knows watermark and key can read and remove the mark: `watermark` cannot be read back.
 *
 * ## Example
 * ```text
 * gst-launch-1.0 videotestsrc num-buffers=300 ! video/x-raw,width=1280,height=720 \
 *     ! dmqimmark key-file=me.id watermark=0123456789abcdef0123456789abcdef \
 *     ! x264enc ! h264parse ! mp4mux ! filesink location=marked.mp4
 * ```
 *
 * ## Bits that nobody here knows
 * With `contract` (a file that `camvault contract` wrote) and `ttp` the output is a sealed stream,
 * `application/x-dmqim-sealed`: only the cloud of the contract can open it, with `dmqimopen`, and gets
 * frames with a mark that this process cannot know. Tickets are fetched ahead of time; of live video
 * only the first frame waits for one. When none comes any more, the last one is used until it expires (minutes),
 * then frames are dropped with a warning until the third party is back. The stream may take any way
 * that keeps its bytes and their order. If the contract has a loss, what is sealed (and comes back at a
 * retrieval, bit for bit) is a little off the frames that came: `sealed-psnr` says how much.
 * ```text
 * gst-launch-1.0 rtspsrc location=rtsp://camera/ ! decodebin ! videoconvert \
 *     ! dmqimmark ttp=http://127.0.0.1:7420 contract=camera.contract identity=me.id \
 *     ! tcpclientsink host=cloud port=7421
 * ```
 */
use super::meta;
use super::sealed::{self, DEFAULT_AHEAD, Frame, Sealed, SealedMode, Terms};
use crate::elements::support::watermark::Properties;
use crate::elements::support::{lock, pictures, video};
use crate::watermark::{Key, Layout, Settings, Word, embed};
use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;
use gst_video::{VideoFrameRef, VideoInfo};
use std::sync::{Arc, LazyLock, Mutex};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "dmqimmark",
        gst::DebugColorFlags::empty(),
        Some("DM-QIM watermarks"),
    )
});

const DEFAULT_INTERVAL: u64 = 2_000_000_000;

#[derive(Clone, Copy)]
struct Own {
    /// The text given was not one: an error.
    watermark: Option<Result<Word, crate::watermark::WordError>>,
    interval: u64,
}

impl Default for Own {
    fn default() -> Self {
        Self {
            watermark: None,
            interval: DEFAULT_INTERVAL,
        }
    }
}

/// What the streaming thread works with.
#[derive(Default)]
struct Stream {
    info: Option<VideoInfo>,
    /// Version of the properties that the rest is from.
    version: u64,
    settings: Settings,
    key: Option<Key>,
    layouts: Vec<Layout>,
    /// What the last marked frame had.
    last: Option<(Word, usize)>,
    keyframes: u32,
}

/// Implementation of `dmqimmark`.
#[derive(Default)]
pub struct DmQimMark {
    common: Properties,
    own: Mutex<Own>,
    // Held by the streaming thread while it marks; never while it pushes or posts.
    stream: Mutex<Stream>,
    sealed: Sealed,
}

fn wrong_watermark(e: crate::watermark::WordError) -> gst::ErrorMessage {
    gst::error_msg!(gst::LibraryError::Settings, ("watermark: {e}"))
}

fn no_key() -> gst::ErrorMessage {
    gst::error_msg!(
        gst::LibraryError::Settings,
        ("There is a watermark but no key: set key-file to 32 secret bytes, or to a file that `camvault keygen --out FILE` made")
    )
}

impl DmQimMark {
    /// Marks a frame. Says whether the encoder should begin anew with it.
    fn mark(&self, buffer: &mut gst::BufferRef) -> Result<bool, gst::ErrorMessage> {
        let own = *lock(&self.own);
        let word = match meta::take(buffer).or(own.watermark) {
            None => {
                let mut stream = lock(&self.stream);
                return Ok(stream.last.take().is_some());
            }
            Some(word) => word.map_err(wrong_watermark)?,
        };
        let mut stream = lock(&self.stream);
        let stream = &mut *stream;
        let version = self.common.version();
        let changed = stream.version != version;
        if changed {
            (stream.settings, stream.key) = self.common.resolve()?;
            stream.layouts.clear();
            stream.version = version;
        }
        let info = stream.info.as_ref().ok_or_else(|| {
            gst::error_msg!(
                gst::CoreError::Negotiation,
                ("Frames came before their caps")
            )
        })?;
        let key = stream.key.as_ref().ok_or_else(no_key)?;
        if stream.layouts.is_empty() {
            let [width, height] = [info.width(), info.height()].map(|side| side as usize);
            let layouts = 0..stream.settings.layouts;
            stream.layouts = layouts
                .map(|epoch| Layout::new(key, epoch, &stream.settings, width, height))
                .collect();
        }
        let layout = self.turn(buffer, own.interval, stream.layouts.len());
        let unwritable = || {
            gst::error_msg!(
                gst::ResourceError::Write,
                ("A frame cannot be written, or is shorter than its caps say")
            )
        };
        let mut frame =
            VideoFrameRef::from_buffer_ref_writable(buffer, info).map_err(|_| unwritable())?;
        let mut luma = video::luma_mut(&mut frame).ok_or_else(unwritable)?;
        embed(&mut luma, &stream.layouts[layout], word, None);
        let before = stream.last.replace((word, layout));
        Ok(before.is_some_and(|before| changed || before != (word, layout)))
    }

    /// Which layout's turn it is.
    fn turn(&self, buffer: &gst::BufferRef, interval: u64, layouts: usize) -> usize {
        let segment = self.obj().segment();
        let segment = segment.downcast_ref::<gst::ClockTime>();
        let running = segment.and_then(|segment| segment.to_running_time(buffer.pts()));
        match (running, interval) {
            (None, _) | (_, 0) => 0,
            (Some(running), interval) => (running.nseconds() / interval) as usize % layouts,
        }
    }

    /// Asks the encoder behind to begin a group of pictures with this frame.
    fn ask_for_keyframe(&self, buffer: &gst::BufferRef) {
        let count = {
            let mut stream = lock(&self.stream);
            stream.keyframes += 1;
            stream.keyframes
        };
        let segment = self.obj().segment();
        let running = segment
            .downcast_ref::<gst::ClockTime>()
            .and_then(|segment| segment.to_running_time(buffer.pts()));
        let event = gst_video::DownstreamForceKeyUnitEvent::builder()
            .timestamp(buffer.pts())
            .running_time(running)
            .all_headers(true)
            .count(count)
            .build();
        gst::debug!(CAT, imp = self, "Keyframe at {}", running.display());
        self.obj().src_pad().push_event(event);
    }

    /// Seals a frame: what to push, if anything.
    fn seal(&self, buffer: &gst::Buffer) -> Result<Option<gst::Buffer>, gst::ErrorMessage> {
        let segment = self.obj().segment();
        let running = segment
            .downcast_ref::<gst::ClockTime>()
            .and_then(|segment| segment.to_running_time(buffer.pts()));
        let frame = self
            .sealed
            .frame(buffer, running.map(|time| time.nseconds()))?;
        let Frame::Sealed(bytes, begins) = frame else {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Read,
                ("No ticket from the third party: frames are dropped until it is back")
            );
            return Ok(None);
        };
        let mut out = gst::Buffer::from_mut_slice(bytes);
        if let Some(out) = out.get_mut() {
            out.set_pts(buffer.pts());
            out.set_duration(buffer.duration());
            if !begins {
                out.set_flags(gst::BufferFlags::DELTA_UNIT);
            }
        }
        Ok(Some(out))
    }

    /// Pushes bytes that end a sealed stream.
    fn push_end(&self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            let mut out = gst::Buffer::from_mut_slice(bytes);
            if let Some(out) = out.get_mut() {
                out.set_flags(gst::BufferFlags::DELTA_UNIT);
            }
            if let Err(e) = self.obj().src_pad().push(out) {
                gst::debug!(CAT, imp = self, "The stream's end was not taken: {e}");
            }
        }
    }

    /// Without a key nothing is marked, and nothing copied.
    fn pass_or_mark(&self) {
        if self.sealed.is_on() {
            return self.obj().set_passthrough(false);
        }
        let off = match self.common.resolve() {
            Ok((_, key)) => key.is_none() && lock(&self.own).watermark.is_none(),
            Err(_) => false,
        };
        self.obj().set_passthrough(off);
    }
}

#[glib::object_subclass]
impl ObjectSubclass for DmQimMark {
    const NAME: &'static str = "GstDmQimMark";
    type Type = super::DmQimMark;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for DmQimMark {
    fn constructed(&self) {
        self.parent_constructed();
        self.pass_or_mark();
    }

    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let mut properties = Properties::specs();
            properties.extend([
                glib::ParamSpecString::builder("watermark")
                    .nick("Watermark")
                    .blurb("The 128 bits, 32 hexadecimal digits (none or empty = frames pass unmarked); cannot be read back")
                    .write_only()
                    .mutable_playing()
                    .build(),
                glib::ParamSpecUInt64::builder("interval")
                    .nick("Interval")
                    .blurb("After how much running time, in nanoseconds, the next layout takes its turn, with a keyframe (0 = never)")
                    .default_value(DEFAULT_INTERVAL)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecString::builder("contract")
                    .nick("Contract")
                    .blurb("File that `camvault contract` wrote: frames leave as a sealed stream that its cloud alone can open (none = they leave as frames)")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder("ttp")
                    .nick("Third party")
                    .blurb("URL of the contract's third party, where tickets come from")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder("identity")
                    .nick("Identity")
                    .blurb("Identity file of the contract's owner (none = the environment's CAMVAULT_IDENTITY)")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecEnum::builder_with_default("mode", SealedMode::default())
                    .nick("Mode")
                    .blurb("How marked coefficients travel in a sealed stream")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt::builder("tickets-ahead")
                    .nick("Tickets ahead")
                    .blurb("How many tickets are kept ready")
                    .minimum(1)
                    .maximum(16)
                    .default_value(DEFAULT_AHEAD)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecDouble::builder("sealed-psnr")
                    .nick("Sealed PSNR")
                    .blurb(
                        "PSNR in dB of luma as it is sealed, before any mark, over the tickets that are \
                         used up; 0: nothing is lost",
                    )
                    .minimum(0.0)
                    .maximum(200.0)
                    .read_only()
                    .build(),
            ]);
            properties
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        // GObject has checked the types.
        match pspec.name() {
            "watermark" => {
                let text = value.get::<Option<String>>().ok().flatten();
                let text = text.filter(|text| !text.is_empty());
                lock(&self.own).watermark = text.map(|text| text.parse());
            }
            "interval" => lock(&self.own).interval = value.get().unwrap_or(DEFAULT_INTERVAL),
            "contract" => {
                let file = value.get::<Option<String>>().ok().flatten();
                let file = file.filter(|file| !file.is_empty());
                lock(&self.sealed.chosen).contract = file.map(Into::into);
            }
            "ttp" => lock(&self.sealed.chosen).ttp = value.get().ok().flatten(),
            "identity" => lock(&self.sealed.chosen).identity = value.get().ok().flatten(),
            "mode" => lock(&self.sealed.chosen).mode = value.get().unwrap_or_default(),
            "tickets-ahead" => {
                lock(&self.sealed.chosen).ahead = value.get().unwrap_or(DEFAULT_AHEAD);
            }
            name if self.common.set(name, value) => (),
            name => gst::warning!(CAT, imp = self, "Property {name} is not known"),
        }
        self.pass_or_mark();
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "interval" => lock(&self.own).interval.to_value(),
            "contract" => lock(&self.sealed.chosen)
                .contract
                .as_ref()
                .map(|file| file.display().to_string())
                .to_value(),
            "ttp" => lock(&self.sealed.chosen).ttp.to_value(),
            "identity" => lock(&self.sealed.chosen).identity.to_value(),
            "mode" => lock(&self.sealed.chosen).mode.to_value(),
            "tickets-ahead" => lock(&self.sealed.chosen).ahead.to_value(),
            "sealed-psnr" => lock(&self.sealed.psnr).unwrap_or(0.0).to_value(),
            name => self
                .common
                .get(name)
                .unwrap_or_else(|| pspec.default_value().clone()),
        }
    }
}

impl GstObjectImpl for DmQimMark {}

impl ElementImpl for DmQimMark {
    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        // The streaming thread may wait for a ticket, and has to end first.
        if transition == gst::StateChange::PausedToReady {
            self.sealed.canceller.cancel();
        }
        self.parent_change_state(transition)
    }

    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "DM-QIM watermark embedder",
                "Filter/Effect/Video",
                "Embeds 128 bits into the luma of raw video",
                "The camvault developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let mut out = video::caps();
            out.merge(gst::Caps::new_empty_simple(sealed::MEDIA_TYPE));
            let pads = [
                ("sink", gst::PadDirection::Sink, video::caps()),
                ("src", gst::PadDirection::Src, out),
            ];
            pads.into_iter()
                .filter_map(|(name, direction, caps)| {
                    gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).ok()
                })
                .collect()
        });
        &TEMPLATES
    }
}

impl BaseTransformImpl for DmQimMark {
    const MODE: gst_base::subclass::BaseTransformMode =
        gst_base::subclass::BaseTransformMode::AlwaysInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let chosen = lock(&self.sealed.chosen).clone();
        if let Some(contract) = &chosen.contract {
            let terms = Terms::load(&chosen, contract)?;
            *lock(&self.sealed.terms) = Some(Arc::new(terms));
            self.sealed.canceller.reset();
            return Ok(());
        }
        let (_, key) = self.common.resolve()?;
        match lock(&self.own).watermark {
            Some(Err(e)) => Err(wrong_watermark(e)),
            Some(Ok(_)) if key.is_none() => Err(no_key()),
            _ => Ok(()),
        }
    }

    fn set_caps(&self, incaps: &gst::Caps, _outcaps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let info = VideoInfo::from_caps(incaps)
            .map_err(|_| gst::loggable_error!(CAT, "Caps {incaps} are not taken"))?;
        if self.sealed.is_on() {
            let mut latency = gst::query::Latency::new();
            let live = self.obj().sink_pad().peer_query(&mut latency) && latency.result().0;
            return match self.sealed.set_info(info, live) {
                Ok(end) => {
                    self.push_end(end);
                    Ok(())
                }
                Err(e) => {
                    self.post_error_message(e);
                    Err(gst::loggable_error!(
                        CAT,
                        "Frames like {incaps} are not sealed"
                    ))
                }
            };
        }
        let mut stream = lock(&self.stream);
        stream.info = Some(info);
        stream.layouts.clear();
        Ok(())
    }

    fn transform_caps(
        &self,
        direction: gst::PadDirection,
        caps: &gst::Caps,
        filter: Option<&gst::Caps>,
    ) -> Option<gst::Caps> {
        let other = match (self.sealed.is_on(), direction) {
            (false, _) => caps.intersect(&video::caps()),
            (true, gst::PadDirection::Sink) => gst::Caps::new_empty_simple(sealed::MEDIA_TYPE),
            (true, _) => pictures::caps(),
        };
        Some(match filter {
            Some(filter) => filter.intersect_with_mode(&other, gst::CapsIntersectMode::First),
            None => other,
        })
    }

    fn generate_output(
        &self,
    ) -> Result<gst_base::subclass::base_transform::GenerateOutputSuccess, gst::FlowError> {
        use gst_base::subclass::base_transform::GenerateOutputSuccess as Output;
        if !self.sealed.is_on() {
            return self.parent_generate_output();
        }
        let Some(buffer) = self.take_queued_buffer() else {
            return Ok(Output::NoOutput);
        };
        match self.seal(&buffer) {
            Ok(Some(out)) => Ok(Output::Buffer(out)),
            Ok(None) => Ok(Output::NoOutput),
            Err(e) => {
                if !self.sealed.canceller.is_cancelled() {
                    self.post_error_message(e);
                    return Err(gst::FlowError::Error);
                }
                Err(gst::FlowError::Flushing)
            }
        }
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Eos(_) => {
                if let Some((end, lost)) = self.sealed.finish() {
                    self.push_end(end);
                    if lost > 0 {
                        gst::warning!(CAT, imp = self, "{lost} frames found no ticket");
                    }
                }
            }
            gst::EventView::FlushStart(_) => self.sealed.canceller.cancel(),
            gst::EventView::FlushStop(_) => self.sealed.canceller.reset(),
            _ => (),
        }
        self.parent_sink_event(event)
    }

    fn transform_ip(
        &self,
        buffer: &mut gst::BufferRef,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        match self.mark(buffer) {
            Ok(anew) => {
                if anew {
                    self.ask_for_keyframe(buffer);
                }
                Ok(gst::FlowSuccess::Ok)
            }
            Err(e) => {
                self.post_error_message(e);
                Err(gst::FlowError::Error)
            }
        }
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *lock(&self.stream) = Stream::default();
        self.sealed.stop();
        Ok(())
    }
}
