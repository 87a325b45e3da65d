// SPDX-License-Identifier: MPL-2.0
//! SECTION:element-dedupsrc
//!
//! Plays a recording out of a vault, exactly as it was recorded: the same bytes, timestamps,
//! durations and flags. What was changed in storage is an error, never data.
//!
//! ```bash
//! export CAMVAULT_IDENTITY=~/.config/camvault/identity
//! gst-play-1.0 camvault://127.0.0.1:7420/yard
//! gst-launch-1.0 dedupsrc uri='camvault://127.0.0.1:7420/yard?from=60&to=90' ! decodebin ! autovideosink
//! ```
//!
//! A pad `src_%u` is added for every track. Seconds in `from`, `to`, positions and seeks are
//! recording time: from 0 at the recording's start, without the pauses between its sessions.

// Locks are taken in this order: control, the task's own, stream, stopping, shared. None but the
// first three is held while something is pushed, waited for or posted.

use super::settings::{DEFAULT_FOLLOW, Settings, Target};
use super::stream::{Stop, Stream};
use super::timing::{Course, Seek};
use crate::client::reader::Reader;
use crate::elements::support::cancel::Canceller;
use crate::protocol::RecordingUrl;
use gst::ClockTime;
use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "dedupsrc",
        gst::DebugColorFlags::empty(),
        Some("Plays recordings out of a vault"),
    )
});

/// What is to be played next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pending {
    /// The window of the settings.
    Window,
    /// What a seek event asks for, and its number.
    Seek(Seek, gst::Seqnum),
}

/// What the streaming task and those who ask and seek both know.
#[derive(Default)]
pub(super) struct Shared {
    pub reader: Option<Arc<Reader>>,
    pub pending: Option<Pending>,
    pub course: Option<Course>,
    /// Recording time of the last buffer, ns.
    pub position: u64,
    /// Recording time up to which something was pushed, ns.
    pub reached: u64,
    /// The first buffers of new pads are marked.
    pub discont: bool,
    /// Somebody sent EOS to the element.
    pub eos: bool,
    pub units: u64,
    pub suspect: u64,
    pub last_error: Option<String>,
}

/// Resources from PAUSED on.
struct Started {
    task: gst::Task,
    lock: gst::TaskLock,
    last_seek: Option<gst::Seqnum>,
}

/// Element instance.
#[derive(Default)]
pub struct DedupSrc {
    settings: Mutex<Settings>,
    target: Mutex<Option<Arc<Target>>>,
    control: Mutex<Option<Started>>,
    stream: Mutex<Option<Stream>>,
    pub(super) shared: Mutex<Shared>,
    pub(super) canceller: Canceller,
    /// The task is about to be stopped, and must not pause itself any more.
    stopping: Mutex<bool>,
}

/// State behind these locks is consistent between any two statements, so a panic leaves it usable.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DedupSrc {
    /// What is asked for, from READY on.
    pub(super) fn target(&self) -> Option<Arc<Target>> {
        lock(&self.target).clone()
    }

    /// A pad for a track.
    pub(super) fn new_pad(&self, track: u32) -> gst::Pad {
        let mut pad = match self.obj().pad_template("src_%u") {
            Some(template) => gst::Pad::builder_from_template(&template),
            None => gst::Pad::builder(gst::PadDirection::Src),
        };
        pad = pad
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.src_event(pad, event))
            })
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(
                    parent,
                    || false,
                    |imp| {
                        imp.answer(query) || {
                            gst::Pad::query_default(pad, Some(&*imp.obj()), query)
                        }
                    },
                )
            })
            .flags(gst::PadFlags::FIXED_CAPS);
        pad.name(format!("src_{track}")).build()
    }

    fn start(&self) {
        *lock(&self.stopping) = false;
        self.canceller.reset();
        *lock(&self.stream) = Some(Stream::new());
        *lock(&self.shared) = Shared {
            pending: Some(Pending::Window),
            ..Shared::default()
        };
        let weak = self.obj().downgrade();
        let task_lock = gst::TaskLock::new();
        let turn = move |task: &gst::Task| match weak.upgrade() {
            Some(element) => element.imp().turn(task),
            None => drop(task.stop()),
        };
        let task = gst::Task::builder(turn).lock(&task_lock).build();
        let _ = task.start();
        *lock(&self.control) = Some(Started {
            task,
            lock: task_lock,
            last_seek: None,
        });
    }

    /// The streaming task, again and again.
    fn turn(&self, task: &gst::Task) {
        let mut stream = lock(&self.stream);
        let Some(stream) = stream.as_mut() else {
            self.pause(task);
            return;
        };
        // A panic was posted as an error by then.
        let failed = || Err(Stop::Flow(gst::FlowError::Flushing));
        if let Err(stop) = self.catch_panic(failed, |imp| stream.step(imp)) {
            self.pause(task);
            stream.end(self, stop);
        }
    }

    /// Pauses the task from within, or stops it if that is under way: pausing after a stop would
    /// undo it.
    fn pause(&self, task: &gst::Task) {
        let stopping = lock(&self.stopping);
        let _ = if *stopping { task.stop() } else { task.pause() };
    }

    /// Nothing waits any longer.
    fn interrupt(&self) {
        *lock(&self.stopping) = true;
        self.canceller.cancel();
    }

    fn stop(&self) {
        if let Some(started) = lock(&self.control).take() {
            let _ = started.task.stop();
            let _ = started.task.join();
        }
        *lock(&self.stream) = None;
        *lock(&self.shared) = Shared::default();
        let element = self.obj();
        for pad in element.src_pads() {
            let _ = element.remove_pad(&pad);
        }
    }

    fn src_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        gst::log!(CAT, obj = pad, "event {event:?}");
        match event.view() {
            gst::EventView::Seek(seek) => self.seek(seek),
            gst::EventView::Qos(_) | gst::EventView::Latency(_) => true,
            gst::EventView::Reconfigure(_) => true,
            _ => false,
        }
    }

    fn seek(&self, event: &gst::event::Seek) -> bool {
        let mut control = lock(&self.control);
        let Some(started) = control.as_mut() else {
            gst::warning!(CAT, imp = self, "seeking needs PAUSED or PLAYING");
            return false;
        };
        // Every sink sends the same one.
        if started.last_seek == Some(event.seqnum()) {
            return true;
        }
        let (position, stop, duration) = {
            let shared = lock(&self.shared);
            let duration = shared
                .reader
                .as_ref()
                .map_or(0, |r| r.timeline().duration());
            (
                shared.position,
                shared.course.and_then(|c| c.stop),
                duration,
            )
        };
        let Some(seek) = Seek::read(event, position, stop, duration) else {
            gst::warning!(CAT, imp = self, "this seek cannot be done: {event:?}");
            return false;
        };
        started.last_seek = Some(event.seqnum());
        let flush = seek.flags.contains(gst::SeekFlags::FLUSH);
        let pads = self.obj().src_pads();
        if flush {
            for pad in &pads {
                let event = gst::event::FlushStart::builder().seqnum(event.seqnum());
                pad.push_event(event.build());
            }
        }
        self.canceller.cancel();
        let _ = started.task.pause();
        let quiet = started.lock.lock();
        if !*lock(&self.stopping) {
            self.canceller.reset();
        }
        if flush {
            for pad in &pads {
                let event = gst::event::FlushStop::builder(true).seqnum(event.seqnum());
                pad.push_event(event.build());
            }
        }
        {
            let mut shared = lock(&self.shared);
            shared.pending = Some(Pending::Seek(seek, event.seqnum()));
            shared.position = seek.start;
            shared.eos = false;
        }
        drop(quiet);
        started.task.start().is_ok()
    }

    /// Ends the stream in order, as `gst-launch-1.0 -e` asks for.
    fn end_of_stream(&self) -> bool {
        let control = lock(&self.control);
        let Some(started) = control.as_ref() else {
            return false;
        };
        lock(&self.shared).eos = true;
        self.canceller.cancel();
        // A task that pauses after its end stays so.
        match started.task.state() {
            gst::TaskState::Started => true,
            _ => started.task.start().is_ok(),
        }
    }

    /// Answers what can be answered without asking anybody.
    fn answer(&self, query: &mut gst::QueryRef) -> bool {
        let (reader, course, position) = {
            let shared = lock(&self.shared);
            (shared.reader.clone(), shared.course, shared.position)
        };
        let span = reader.map(|reader| {
            let timeline = reader.timeline();
            [timeline.start(), timeline.duration()].map(ClockTime::from_nseconds)
        });
        let duration = span.map(|[_, end]| end);
        match query.view_mut() {
            gst::QueryViewMut::Duration(q) if q.format() == gst::Format::Time => {
                duration.inspect(|duration| q.set(*duration)).is_some()
            }
            gst::QueryViewMut::Position(q) if q.format() == gst::Format::Time => {
                q.set(ClockTime::from_nseconds(position));
                course.is_some()
            }
            gst::QueryViewMut::Seeking(q) if q.format() == gst::Format::Time => {
                let start = span.map_or(ClockTime::ZERO, |[start, _]| start);
                q.set(true, start, duration);
                true
            }
            gst::QueryViewMut::Segment(q) => {
                let Some(course) = course else {
                    return false;
                };
                let stop = course.stop.map(ClockTime::from_nseconds).or(duration);
                q.set(course.rate, ClockTime::from_nseconds(course.start), stop);
                true
            }
            gst::QueryViewMut::Latency(q) => {
                q.set(false, ClockTime::ZERO, ClockTime::NONE);
                true
            }
            gst::QueryViewMut::Scheduling(q) => {
                q.set(gst::SchedulingFlags::SEEKABLE, 1, -1, 0);
                q.add_scheduling_modes([gst::PadMode::Push]);
                true
            }
            gst::QueryViewMut::Uri(q) => {
                let uri = lock(&self.settings).uri.clone();
                q.set_uri(uri.as_deref());
                uri.is_some()
            }
            _ => false,
        }
    }

    fn stats(&self) -> gst::Structure {
        let shared = lock(&self.shared);
        let (chunks, bytes) = shared.reader.as_ref().map_or((0, 0), |r| r.fetched());
        let segments = shared.reader.as_ref().map_or(0, |r| r.timeline().len());
        let mut stats = gst::Structure::builder("dedupsrc-stats")
            .field("chunks", chunks)
            .field("bytes", bytes)
            .field("segments", segments)
            .field("units", shared.units)
            .field("suspect", shared.suspect)
            .field("position", ClockTime::from_nseconds(shared.position))
            .build();
        if let Some(error) = &shared.last_error {
            stats.set("last-error", error);
        }
        stats
    }
}

#[glib::object_subclass]
impl ObjectSubclass for DedupSrc {
    const NAME: &'static str = "GstCamvaultDedupSrc";
    type Type = super::DedupSrc;
    type ParentType = gst::Element;
    type Interfaces = (gst::URIHandler,);
}

impl ObjectImpl for DedupSrc {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                glib::ParamSpecString::builder("uri")
                    .nick("URI")
                    .blurb("Recording: camvault://HOST:PORT/NAME[?from=…&to=…], camvaults over TLS")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder("identity")
                    .nick("Identity file")
                    .blurb("Path of the identity file (none: environment CAMVAULT_IDENTITY)")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder("from")
                    .nick("From")
                    .blurb(
                        "Where to begin: seconds from the start, or RFC 3339 (none: as in the uri)",
                    )
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder("to")
                    .nick("To")
                    .blurb(
                        "Where to end: seconds from the start, or RFC 3339 (none: as in the uri)",
                    )
                    .mutable_ready()
                    .build(),
                glib::ParamSpecBoolean::builder("follow")
                    .nick("Follow")
                    .blurb("Go on with what is recorded meanwhile, until the recording is closed")
                    .default_value(DEFAULT_FOLLOW)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb("Chunks and bytes fetched, segments known, units played, position")
                    .read_only()
                    .build(),
            ]
        });
        PROPERTIES.as_ref()
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut settings = lock(&self.settings);
        // GObject has checked the types by the declarations above.
        let text = || value.get().unwrap_or_default();
        match pspec.name() {
            "uri" => settings.uri = text(),
            "identity" => settings.identity = text(),
            "from" => settings.from = text(),
            "to" => settings.to = text(),
            "follow" => settings.follow = value.get().unwrap_or(DEFAULT_FOLLOW),
            _ => (),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        if pspec.name() == "stats" {
            return self.stats().to_value();
        }
        let settings = lock(&self.settings);
        match pspec.name() {
            "uri" => settings.uri.to_value(),
            "identity" => settings.identity.to_value(),
            "from" => settings.from.to_value(),
            "to" => settings.to.to_value(),
            _ => settings.follow.to_value(),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        let element = self.obj();
        element.set_element_flags(gst::ElementFlags::SOURCE);
    }
}

impl GstObjectImpl for DedupSrc {}

impl ElementImpl for DedupSrc {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Deduplicated recording source",
                "Source/Network",
                "Plays a recording out of a vault, exactly as it was recorded",
                env!("CARGO_PKG_REPOSITORY"),
            )
        });
        Some(&*METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let src = gst::PadTemplate::new(
                "src_%u",
                gst::PadDirection::Src,
                gst::PadPresence::Sometimes,
                &gst::Caps::new_any(),
            );
            src.into_iter().collect()
        });
        TEMPLATES.as_ref()
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::NullToReady => {
                let settings = lock(&self.settings).clone();
                let target = Target::new(&settings).map_err(|message| {
                    self.post_error_message(message);
                    gst::StateChangeError
                })?;
                gst::debug!(CAT, imp = self, "recording {}", target.url);
                *lock(&self.target) = Some(Arc::new(target));
            }
            gst::StateChange::PausedToReady => self.interrupt(),
            _ => (),
        }
        let changed = self.parent_change_state(transition)?;
        match transition {
            gst::StateChange::ReadyToPaused => self.start(),
            gst::StateChange::PausedToReady => self.stop(),
            gst::StateChange::ReadyToNull => *lock(&self.target) = None,
            _ => (),
        }
        Ok(changed)
    }

    fn send_event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Seek(seek) => self.seek(seek),
            gst::EventView::Eos(_) => self.end_of_stream(),
            _ => self.parent_send_event(event),
        }
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        self.answer(query) || self.parent_query(query)
    }
}

impl URIHandlerImpl for DedupSrc {
    const URI_TYPE: gst::URIType = gst::URIType::Src;

    fn protocols() -> &'static [&'static str] {
        &["camvault", "camvaults"]
    }

    fn uri(&self) -> Option<String> {
        lock(&self.settings).uri.clone()
    }

    fn set_uri(&self, uri: &str) -> Result<(), glib::Error> {
        if self.obj().current_state() > gst::State::Ready {
            let text = "the URI can only be changed in NULL or READY";
            return Err(glib::Error::new(gst::URIError::BadState, text));
        }
        let parsed = uri.parse::<RecordingUrl>();
        parsed.map_err(|e| glib::Error::new(gst::URIError::BadUri, &e.to_string()))?;
        lock(&self.settings).uri = Some(uri.to_owned());
        Ok(())
    }
}
