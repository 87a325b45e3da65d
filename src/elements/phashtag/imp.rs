// SPDX-License-Identifier: MPL-2.0
/**
 * SECTION:element-phashtag
 *
 * Takes the perceptual hash of frames, hangs it on them as the meta `CamvaultPhash`, and announces
 * every scene with an element message `camvault-phash`. Frames themselves pass untouched and
 * uncopied.
 *
 * The hash is that of Python's `ImageHash.phash` of the frame's luma as an 8-bit grey picture.
 * Luma is what the frame has: of a JPEG the Y that is in the file, where Pillow converts to RGB and
 * back and may be 1 off in pixels, of RGB the weighted sum that Pillow's `convert("L")` makes. The
 * meta also has mean and standard deviation of the luma. Encoders and parsers pass it on, so that
 * it is there where the stream is stored.
 *
 * Hashing a frame of 1080p costs about as much as converting it, so by default only the first
 * frame of every second is hashed. Seconds are counted from timestamp 0: elements that
 * see the same stream hash the same frames, whenever they joined.
 *
 * A message is posted for the first hash, and for every hash that differs from the last announced
 * one in at least `scene-distance` bits. Fields: `phash`, `timestamp` and `running-time` (of the
 * frame), and except in the first message `previous` (hash of the scene before) and `distance`
 * (bits between the two).
 *
 * ## Example
 * ```text
 * gst-launch-1.0 -m videotestsrc num-buffers=300 ! phashtag ! x264enc ! h264parse ! fakesink
 * ```
 */
use super::meta;
use crate::elements::support::{lock, video};
use crate::feature::{Feature, Observer, PHash};
use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;
use gst_video::{VideoFrameRef, VideoInfo};
use std::sync::{LazyLock, Mutex};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "phashtag",
        gst::DebugColorFlags::empty(),
        Some("Perceptual hashes"),
    )
});

const DEFAULT_INTERVAL: u64 = 1_000_000_000;
/// Bits: above those that marking and compressing change (6), below those between cameras (26).
const DEFAULT_SCENE_DISTANCE: u32 = 16;

#[derive(Clone, Copy, Debug)]
struct Settings {
    interval: u64,
    scene_distance: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interval: DEFAULT_INTERVAL,
            scene_distance: DEFAULT_SCENE_DISTANCE,
        }
    }
}

/// What is known of the stream so far.
#[derive(Default)]
struct Stream {
    info: Option<VideoInfo>,
    observer: Observer,
    /// Number and length of the interval whose frame has been hashed.
    interval: Option<(u64, u64)>,
    /// Hash of the scene's first frame.
    scene: Option<PHash>,
}

impl Stream {
    /// Whether a frame is the first of its interval. One without a timestamp always is.
    fn is_due(&mut self, pts: Option<gst::ClockTime>, length: u64) -> bool {
        let interval = pts
            .filter(|_| length > 0)
            .map(|pts| (pts.nseconds() / length, length));
        let due = interval.is_none() || interval != self.interval;
        self.interval = interval;
        due
    }
}

/// Implementation of `phashtag`.
#[derive(Default)]
pub struct PhashTag {
    settings: Mutex<Settings>,
    // Held by the streaming thread while it hashes; never while it pushes or posts.
    stream: Mutex<Stream>,
    // Apart, so that reading it never waits.
    last: Mutex<Option<PHash>>,
}

/// A scene that has begun.
struct Scene {
    phash: PHash,
    previous: Option<PHash>,
}

impl PhashTag {
    /// Hashes a frame if it is due. Says whether a scene begins with it.
    fn tag(&self, buffer: &mut gst::Buffer) -> Result<Option<Scene>, gst::ErrorMessage> {
        let settings = *lock(&self.settings);
        let mut stream = lock(&self.stream);
        if !stream.is_due(buffer.pts(), settings.interval) {
            return Ok(None);
        }
        let Feature { phash, .. } = {
            let stream = &mut *stream;
            let info = stream.info.as_ref().ok_or_else(|| {
                gst::error_msg!(
                    gst::CoreError::Negotiation,
                    ("Frames came before their caps")
                )
            })?;
            let unreadable = || {
                gst::error_msg!(
                    gst::ResourceError::Read,
                    ("A frame cannot be read, or is shorter than its caps say")
                )
            };
            let frame = VideoFrameRef::from_buffer_ref_readable(buffer.as_ref(), info)
                .map_err(|_| unreadable())?;
            let luma = video::luma(&frame).ok_or_else(unreadable)?;
            let feature = stream.observer.look(&luma).ok_or_else(unreadable)?;
            drop(frame);
            // If others have the buffer, a new one is made; both share the memory.
            meta::put(buffer.make_mut(), &feature)
                .map_err(|e| gst::error_msg!(gst::LibraryError::Failed, ("{e}")))?;
            feature
        };
        gst::log!(CAT, imp = self, "{phash} at {}", buffer.pts().display());
        *lock(&self.last) = Some(phash);
        let begins = stream.scene.is_none_or(|scene| {
            settings.scene_distance > 0 && phash.distance(scene) >= settings.scene_distance
        });
        if !begins {
            return Ok(None);
        }
        let previous = stream.scene.replace(phash);
        // 0: no scenes are announced, not even the first.
        Ok((settings.scene_distance > 0).then_some(Scene { phash, previous }))
    }

    fn announce(&self, scene: &Scene, pts: Option<gst::ClockTime>) {
        let segment = self.obj().segment();
        let time = segment.downcast_ref::<gst::ClockTime>();
        let running = time.and_then(|segment| segment.to_running_time(pts));
        let mut structure = gst::Structure::builder("camvault-phash")
            .field("phash", scene.phash.to_string())
            .field("timestamp", pts)
            .field("running-time", running);
        if let Some(previous) = scene.previous {
            structure = structure
                .field("previous", previous.to_string())
                .field("distance", scene.phash.distance(previous));
        }
        self.post_message(
            gst::message::Element::builder(structure.build())
                .src(&*self.obj())
                .build(),
        );
    }

    /// Frames begin anew.
    fn reset(&self) {
        let mut stream = lock(&self.stream);
        (stream.interval, stream.scene) = (None, None);
        drop(stream);
        *lock(&self.last) = None;
    }
}

#[glib::object_subclass]
impl ObjectSubclass for PhashTag {
    const NAME: &'static str = "GstPhashTag";
    type Type = super::PhashTag;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for PhashTag {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                glib::ParamSpecUInt64::builder("interval")
                    .nick("Interval")
                    .blurb("Of how much time one frame is hashed, the first, in nanoseconds counted from timestamp 0 (0 = every frame is hashed)")
                    .default_value(DEFAULT_INTERVAL)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecUInt::builder("scene-distance")
                    .nick("Scene distance")
                    .blurb("In how many of its 64 bits a hash must differ from the one announced last to be announced as a new scene (0 = none is announced)")
                    .maximum(64)
                    .default_value(DEFAULT_SCENE_DISTANCE)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecString::builder("last-phash")
                    .nick("Last hash")
                    .blurb("The hash taken last, 16 hexadecimal digits (none = there was no frame yet)")
                    .read_only()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut settings = lock(&self.settings);
        // GObject has checked the types.
        match pspec.name() {
            "interval" => settings.interval = value.get().unwrap_or(DEFAULT_INTERVAL),
            "scene-distance" => {
                settings.scene_distance = value.get().unwrap_or(DEFAULT_SCENE_DISTANCE);
            }
            name => gst::warning!(CAT, imp = self, "Property {name} is not known"),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = *lock(&self.settings);
        match pspec.name() {
            "interval" => settings.interval.to_value(),
            "scene-distance" => settings.scene_distance.to_value(),
            "last-phash" => lock(&self.last).map(|phash| phash.to_string()).to_value(),
            _ => pspec.default_value().clone(),
        }
    }
}

impl GstObjectImpl for PhashTag {}

impl ElementImpl for PhashTag {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Perceptual hash tagger",
                "Filter/Analyzer/Video",
                "Hangs a perceptual hash on frames and announces scenes",
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

impl BaseTransformImpl for PhashTag {
    const MODE: gst_base::subclass::BaseTransformMode =
        gst_base::subclass::BaseTransformMode::AlwaysInPlace;
    // Buffers pass, and so do queries for memory: nothing is allocated or copied for this element.
    const PASSTHROUGH_ON_SAME_CAPS: bool = true;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn set_caps(&self, incaps: &gst::Caps, _outcaps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let info = VideoInfo::from_caps(incaps)
            .map_err(|_| gst::loggable_error!(CAT, "Caps {incaps} are not taken"))?;
        lock(&self.stream).info = Some(info);
        Ok(())
    }

    fn submit_input_buffer(
        &self,
        is_discont: bool,
        mut buffer: gst::Buffer,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        match self.tag(&mut buffer) {
            Ok(scene) => {
                if let Some(scene) = scene {
                    self.announce(&scene, buffer.pts());
                }
            }
            Err(e) => {
                self.post_error_message(e);
                return Err(gst::FlowError::Error);
            }
        }
        self.parent_submit_input_buffer(is_discont, buffer)
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        if event.type_() == gst::EventType::FlushStop {
            self.reset();
        }
        self.parent_sink_event(event)
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        self.reset();
        *lock(&self.stream) = Stream::default();
        Ok(())
    }
}
