// SPDX-License-Identifier: MPL-2.0
/**
 * SECTION:element-dmqimmark
 *
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
 */
use super::meta;
use crate::elements::support::watermark::Properties;
use crate::elements::support::{lock, video};
use crate::watermark::{Key, Layout, Settings, Word, embed};
use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;
use gst_video::{VideoFrameRef, VideoInfo};
use std::sync::{LazyLock, Mutex};

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

    /// Without a key nothing is marked, and nothing copied.
    fn pass_or_mark(&self) {
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
            name if self.common.set(name, value) => (),
            name => gst::warning!(CAT, imp = self, "Property {name} is not known"),
        }
        self.pass_or_mark();
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "interval" => lock(&self.own).interval.to_value(),
            name => self
                .common
                .get(name)
                .unwrap_or_else(|| pspec.default_value().clone()),
        }
    }
}

impl GstObjectImpl for DmQimMark {}

impl ElementImpl for DmQimMark {
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
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(video::pad_templates);
        &TEMPLATES
    }
}

impl BaseTransformImpl for DmQimMark {
    const MODE: gst_base::subclass::BaseTransformMode =
        gst_base::subclass::BaseTransformMode::AlwaysInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn start(&self) -> Result<(), gst::ErrorMessage> {
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
        let mut stream = lock(&self.stream);
        stream.info = Some(info);
        stream.layouts.clear();
        Ok(())
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
        Ok(())
    }
}
