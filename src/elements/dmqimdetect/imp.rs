// SPDX-License-Identifier: MPL-2.0
/**
 * SECTION:element-dmqimdetect
 *
 * Reads the watermark that `dmqimmark` embedded, from as many frames as it gets; frames pass untouched
 * and uncopied. Every `report-interval`, and at the end, an element message `camvault-watermark` says
 * what was read so far:
 *
 * | field | |
 * |---|---|
 * | `bits` | string: 128 bits, 32 hexadecimal digits |
 * | `confidence` | array of 128 doubles: votes for each bit as a part of what perfect frames would give, 0 to 1 |
 * | `mean-confidence`, `score` | doubles; the score says how far from chance the votes agree, in standard deviations: 6 and more is a mark |
 * | `frames` | uint64 |
 * | `registered`, `scale-x`, `scale-y`, `crop-x`, `crop-y`, `rotation`, `mirrored`, `negative`, `blur`, `contrast` | whether, where and how the original was found in the picture |
 * | `errors`, `ber`, `false-positive`, `accepted` | with `expect` (also with its complement, `complement`): wrong bits, their part, the chance that a video without the mark agrees as well with any of `marks` registered ones, and whether that is proof |
 * | `identity`, `distance` | with `code`: the nearest word's number and how many bits it is away |
 * | `running-time`, `final` | of the last frame; whether it is the end |
 *
 * Where the votes do not agree, the picture may have been cut, resized, mirrored, inverted or turned:
 * a thread of its own then searches for the original. At the end of the stream the element waits for
 * it, `search-time` at most.
 *
 * ## Example
 * ```text
 * gst-launch-1.0 -m filesrc location=leak.mp4 ! decodebin ! videoconvert \
 *     ! dmqimdetect key-file=me.id expect=0123456789abcdef0123456789abcdef ! fakesink
 * ```
 */
use super::Code;
use crate::elements::support::watermark::Properties;
use crate::elements::support::{lock, video};
use crate::watermark::{self, Compared, Detector, Evidence, Found, Word, WordError, code::unmask};
use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;
use gst_video::{VideoFrameRef, VideoInfo};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, mpsc};
use std::time::Duration;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "dmqimdetect",
        gst::DebugColorFlags::empty(),
        Some("Reading DM-QIM watermarks"),
    )
});

const DEFAULT_REPORT_INTERVAL: u64 = 2_000_000_000;
const DEFAULT_REGISTER: bool = true;
const DEFAULT_SEARCH_TIME: u64 = 60_000_000_000;
const DEFAULT_MARKS: u64 = 1;

#[derive(Clone, Copy)]
struct Own {
    expect: Option<Result<Word, WordError>>,
    report_interval: u64,
    register: bool,
    search_time: u64,
    original: [u32; 2],
    marks: u64,
    code: Code,
}

impl Default for Own {
    fn default() -> Self {
        Self {
            expect: None,
            report_interval: DEFAULT_REPORT_INTERVAL,
            register: DEFAULT_REGISTER,
            search_time: DEFAULT_SEARCH_TIME,
            original: [0; 2],
            marks: DEFAULT_MARKS,
            code: Code::default(),
        }
    }
}

/// A search in a thread of its own.
struct Running {
    stop: Arc<AtomicBool>,
    found: mpsc::Receiver<Option<Found>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What the streaming thread works with.
#[derive(Default)]
struct Stream {
    info: Option<VideoInfo>,
    version: u64,
    key: Option<watermark::Key>,
    detector: Option<Detector>,
    running: Option<Running>,
    /// A search found the original, or has to be tried with more frames than there were.
    searched: u64,
    first: Option<gst::ClockTime>,
    reported: Option<gst::ClockTime>,
    last: Option<gst::ClockTime>,
}

/// Implementation of `dmqimdetect`.
#[derive(Default)]
pub struct DmQimDetect {
    common: Properties,
    own: Mutex<Own>,
    // Held by the streaming thread while it reads; never while it posts or waits.
    stream: Mutex<Stream>,
    /// Set when the element is to stop waiting.
    stopping: AtomicBool,
}

fn wrong_watermark(e: WordError) -> gst::ErrorMessage {
    gst::error_msg!(gst::LibraryError::Settings, ("expect: {e}"))
}

impl DmQimDetect {
    /// Reads a frame; gives a message if one is due.
    fn read(&self, buffer: &gst::BufferRef) -> Result<Option<gst::Structure>, gst::ErrorMessage> {
        let own = *lock(&self.own);
        let segment = self.obj().segment();
        let segment = segment.downcast_ref::<gst::ClockTime>();
        let running = segment.and_then(|segment| segment.to_running_time(buffer.pts()));
        let mut stream = lock(&self.stream);
        let stream = &mut *stream;
        let version = self.common.version();
        if stream.detector.is_none() || stream.version != version {
            let (settings, key) = self.common.resolve()?;
            let key = key.ok_or_else(no_key)?;
            let original = (own.original.iter().all(|&side| side > 0))
                .then(|| own.original.map(|side| side as usize));
            stream.key = Some(key.clone());
            stream.detector = Some(Detector::new(key, settings, original));
            stream.running = None;
            stream.version = version;
            stream.searched = 0;
        }
        let info = stream.info.as_ref().ok_or_else(|| {
            gst::error_msg!(
                gst::CoreError::Negotiation,
                ("Frames came before their caps")
            )
        })?;
        let Some(detector) = &mut stream.detector else {
            return Ok(None);
        };
        let unreadable = || {
            gst::error_msg!(
                gst::ResourceError::Read,
                ("A frame cannot be read, or is shorter than its caps say")
            )
        };
        let frame =
            VideoFrameRef::from_buffer_ref_readable(buffer, info).map_err(|_| unreadable())?;
        detector.frame(&video::luma(&frame).ok_or_else(unreadable)?);

        if let Some(search) = &stream.running
            && let Ok(found) = search.found.try_recv()
        {
            stream.running = None;
            if let Some(found) = found {
                gst::info!(CAT, imp = self, "Found with score {:.1}", found.score);
                detector.register(found.registration);
            }
        }
        stream.last = running;
        stream.first = stream.first.or(running);
        let since = stream.reported.or(stream.first);
        let passed = running
            .zip(since)
            .and_then(|(now, since)| now.checked_sub(since));
        let due = own.report_interval > 0
            && passed.is_some_and(|passed| passed.nseconds() >= own.report_interval);
        if !due {
            return Ok(None);
        }
        stream.reported = running;
        self.search(stream, own);
        Ok(Some(report(stream, own, false)?))
    }

    /// Starts a search if the votes so far are chance and there are more frames than last time.
    fn search(&self, stream: &mut Stream, own: Own) {
        let Some(detector) = &stream.detector else {
            return;
        };
        let more = detector.frames() >= 2 * stream.searched;
        if !own.register || detector.is_registered() || stream.running.is_some() || !more {
            return;
        }
        stream.searched = detector.frames().max(1);
        let search = detector.search();
        let stop = Arc::new(AtomicBool::new(false));
        let (send, found) = mpsc::channel();
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("dmqimdetect".into());
        let spawned = thread.spawn(move || {
            // Whoever asked may have stopped listening.
            let _ = send.send(search.run(&stopped));
        });
        match spawned {
            Ok(_) => stream.running = Some(Running { stop, found }),
            Err(e) => gst::warning!(CAT, imp = self, "No thread for a search: {e}"),
        }
    }

    /// The last message, after a search if one is needed.
    fn finish(&self) -> Result<Option<gst::Structure>, gst::ErrorMessage> {
        let own = *lock(&self.own);
        let running = {
            let mut stream = lock(&self.stream);
            match &stream.detector {
                Some(detector) if detector.frames() > 0 => (),
                _ => return Ok(None),
            }
            // What runs knows less than there is now.
            if stream.detector.as_ref().is_some_and(|d| !d.is_registered()) {
                stream.running = None;
                stream.searched = 0;
            }
            self.search(&mut stream, own);
            stream.running.take()
        };
        if let Some(running) = running {
            let mut left = Duration::from_nanos(own.search_time);
            let slice = Duration::from_millis(50);
            let found = loop {
                match running.found.recv_timeout(slice.min(left)) {
                    Ok(found) => break found,
                    Err(mpsc::RecvTimeoutError::Disconnected) => break None,
                    Err(mpsc::RecvTimeoutError::Timeout) => left = left.saturating_sub(slice),
                }
                if left.is_zero() || self.stopping.load(Ordering::Relaxed) {
                    gst::info!(CAT, imp = self, "The search is given up");
                    break None;
                }
            };
            if let (Some(found), Some(detector)) = (found, &mut lock(&self.stream).detector) {
                detector.register(found.registration);
            }
        }
        let mut stream = lock(&self.stream);
        if let Some(detector) = &mut stream.detector
            && own.register
            && detector.is_weak()
        {
            detector.restore();
        }
        report(&stream, own, true).map(Some)
    }

    fn post(&self, report: gst::Structure) {
        let message = gst::message::Element::builder(report).src(&*self.obj());
        self.post_message(message.build());
    }
}

fn no_key() -> gst::ErrorMessage {
    gst::error_msg!(
        gst::LibraryError::Settings,
        ("No key: set key-file to the file that the mark was made with")
    )
}

/// What was read so far, as a message.
fn report(stream: &Stream, own: Own, last: bool) -> Result<gst::Structure, gst::ErrorMessage> {
    let (Some(detector), Some(key)) = (&stream.detector, &stream.key) else {
        return Err(no_key());
    };
    let votes = detector.votes();
    let confidence = votes.confidence();
    let mean = confidence.iter().sum::<f64>() / confidence.len() as f64;
    let mut structure = gst::Structure::builder("camvault-watermark")
        .field("bits", votes.word().to_string())
        .field("confidence", gst::Array::new(confidence))
        .field("mean-confidence", mean)
        .field("score", votes.score())
        .field("frames", detector.frames())
        .field("registered", detector.is_registered())
        .field("running-time", stream.last)
        .field("final", last);
    if let Some(registration) = detector.registration() {
        let (scale, corner) = (registration.scale(), registration.corner());
        structure = structure
            .field("scale-x", scale[0])
            .field("scale-y", scale[1])
            .field("crop-x", corner[0])
            .field("crop-y", corner[1])
            .field("rotation", registration.rotation())
            .field("mirrored", registration.is_mirrored())
            .field("negative", registration.negative)
            .field("blur", registration.blur)
            .field("contrast", registration.contrast);
    }
    if let Some(word) = own.expect {
        let word = word.map_err(wrong_watermark)?;
        let compared = Compared {
            marks: own.marks,
            complements: true,
        };
        let plain = Evidence::new(votes.sums(), word, compared);
        let turned = Evidence::new(votes.sums(), word.complement(), compared);
        let complement = turned.errors < plain.errors;
        let evidence = if complement { turned } else { plain };
        structure = structure
            .field("complement", complement)
            .field("errors", evidence.errors)
            .field("ber", evidence.ber)
            .field("false-positive", evidence.false_positive)
            .field("accepted", evidence.accepted());
    }
    let code = match own.code {
        Code::None => None,
        Code::Bch29 => Some(watermark::Code::Bch29),
        Code::Concatenated16 => Some(watermark::Code::Concatenated16),
    };
    if let Some(code) = code {
        let decoded = code.decode(&unmask(votes.sums(), key.pad()));
        structure = structure
            .field("identity", decoded.identity)
            .field("distance", decoded.distance);
    }
    Ok(structure.build())
}

#[glib::object_subclass]
impl ObjectSubclass for DmQimDetect {
    const NAME: &'static str = "GstDmQimDetect";
    type Type = super::DmQimDetect;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for DmQimDetect {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let mut properties = Properties::specs();
            let original = |name, nick, what| {
                glib::ParamSpecUInt::builder(name)
                    .nick(nick)
                    .blurb(what)
                    .mutable_ready()
                    .build()
            };
            properties.extend([
                glib::ParamSpecString::builder("expect")
                    .nick("Expected watermark")
                    .blurb("The 128 bits that are expected, 32 hexadecimal digits; reports then say how far they agree (none or empty = not known); cannot be read back")
                    .write_only()
                    .mutable_playing()
                    .build(),
                glib::ParamSpecUInt64::builder("marks")
                    .nick("Registered marks")
                    .blurb("How many registered watermarks this video is compared with, one of which is expect: more need stronger evidence")
                    .minimum(1)
                    .default_value(DEFAULT_MARKS)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecEnum::builder_with_default("code", Code::default())
                    .nick("Code")
                    .blurb("The code whose words watermarks are, under the key's pad; reports then name the nearest word's identity")
                    .mutable_playing()
                    .build(),
                glib::ParamSpecUInt64::builder("report-interval")
                    .nick("Report interval")
                    .blurb("Nanoseconds of running time from one message to the next (0 = only at the end)")
                    .default_value(DEFAULT_REPORT_INTERVAL)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecBoolean::builder("register")
                    .nick("Register")
                    .blurb("Search for the original in pictures that were cut, resized, mirrored, inverted or turned")
                    .default_value(DEFAULT_REGISTER)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecUInt64::builder("search-time")
                    .nick("Search time")
                    .blurb("How long, in nanoseconds, the end of the stream waits for a search")
                    .default_value(DEFAULT_SEARCH_TIME)
                    .mutable_playing()
                    .build(),
                original(
                    "original-width",
                    "Original width",
                    "Width of the marked video in pixels (0 = not known)",
                ),
                original(
                    "original-height",
                    "Original height",
                    "Height of the marked video in pixels (0 = not known)",
                ),
            ]);
            properties
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        // GObject has checked the types.
        let mut own = lock(&self.own);
        match pspec.name() {
            "expect" => {
                let text = value.get::<Option<String>>().ok().flatten();
                let text = text.filter(|text| !text.is_empty());
                own.expect = text.map(|text| text.parse());
            }
            "marks" => own.marks = value.get().unwrap_or(DEFAULT_MARKS),
            "code" => own.code = value.get().unwrap_or_default(),
            "report-interval" => {
                own.report_interval = value.get().unwrap_or(DEFAULT_REPORT_INTERVAL);
            }
            "register" => own.register = value.get().unwrap_or(DEFAULT_REGISTER),
            "search-time" => own.search_time = value.get().unwrap_or(DEFAULT_SEARCH_TIME),
            "original-width" => own.original[0] = value.get().unwrap_or(0),
            "original-height" => own.original[1] = value.get().unwrap_or(0),
            name if self.common.set(name, value) => (),
            name => gst::warning!(CAT, imp = self, "Property {name} is not known"),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let own = *lock(&self.own);
        match pspec.name() {
            "marks" => own.marks.to_value(),
            "code" => own.code.to_value(),
            "report-interval" => own.report_interval.to_value(),
            "register" => own.register.to_value(),
            "search-time" => own.search_time.to_value(),
            "original-width" => own.original[0].to_value(),
            "original-height" => own.original[1].to_value(),
            name => self
                .common
                .get(name)
                .unwrap_or_else(|| pspec.default_value().clone()),
        }
    }
}

impl GstObjectImpl for DmQimDetect {}

impl ElementImpl for DmQimDetect {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "DM-QIM watermark detector",
                "Filter/Analyzer/Video",
                "Reads a watermark from raw video, wherever the original is in the picture",
                "The camvault developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(video::pad_templates);
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::ReadyToPaused => self.stopping.store(false, Ordering::Relaxed),
            // Before the pads are taken down, which waits for the streaming thread.
            gst::StateChange::PausedToReady => self.stopping.store(true, Ordering::Relaxed),
            _ => (),
        }
        self.parent_change_state(transition)
    }
}

impl BaseTransformImpl for DmQimDetect {
    const MODE: gst_base::subclass::BaseTransformMode =
        gst_base::subclass::BaseTransformMode::AlwaysInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = true;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = true;

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let (_, key) = self.common.resolve()?;
        key.ok_or_else(no_key)?;
        lock(&self.own)
            .expect
            .transpose()
            .map_err(wrong_watermark)
            .map(|_| ())
    }

    fn set_caps(&self, incaps: &gst::Caps, _outcaps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let info = VideoInfo::from_caps(incaps)
            .map_err(|_| gst::loggable_error!(CAT, "Caps {incaps} are not taken"))?;
        lock(&self.stream).info = Some(info);
        Ok(())
    }

    fn transform_ip_passthrough(
        &self,
        buffer: &gst::Buffer,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        match self.read(buffer) {
            Ok(report) => {
                if let Some(report) = report {
                    self.post(report);
                }
                Ok(gst::FlowSuccess::Ok)
            }
            Err(e) => {
                self.post_error_message(e);
                Err(gst::FlowError::Error)
            }
        }
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::FlushStart(_) => self.stopping.store(true, Ordering::Relaxed),
            gst::EventView::FlushStop(_) => {
                self.stopping.store(false, Ordering::Relaxed);
                // Where the video goes on is another place of the same video: votes count on.
                let mut stream = lock(&self.stream);
                (stream.first, stream.reported) = (None, None);
            }
            gst::EventView::Eos(_) => match self.finish() {
                Ok(Some(report)) => self.post(report),
                Ok(None) => (),
                Err(e) => {
                    self.post_error_message(e);
                }
            },
            _ => (),
        }
        self.parent_sink_event(event)
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *lock(&self.stream) = Stream::default();
        Ok(())
    }
}
