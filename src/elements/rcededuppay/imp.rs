// SPDX-License-Identifier: MPL-2.0
/**
 * SECTION:element-rcededuppay
 *
 * Cuts an elementary stream into chunks that every recorder of the stream cuts alike, whenever it
 * joined and whatever transport or muxer it came through, and derives their keys and tags. What
 * differs between recorders (delimiters, repeated parameter sets, SEI) travels beside the content
 * and comes back bit for bit.
 *
 * The chunks are in the clear and stay in the process: the buffers are empty, so that no other
 * sink can write them anywhere. With `seal=true` every chunk is sealed for the identity, and may
 * go to a `dedupsink` of the same identity in another process.
 *
 * ## Example
 * ```text
 * gst-launch-1.0 videotestsrc num-buffers=300 ! x264enc tune=zerolatency key-int-max=30 \
 *     ! h264parse ! rcededuppay ! dedupsink uri=camvault://127.0.0.1:7420/test identity=id
 * ```
 * In two processes:
 * ```text
 * gst-launch-1.0 tcpserversrc port=5000 ! gdpdepay \
 *     ! dedupsink uri=camvault://127.0.0.1:7420/test identity=id
 * gst-launch-1.0 videotestsrc is-live=true ! x264enc ! h264parse \
 *     ! rcededuppay seal=true identity=id ! gdppay ! tcpclientsink port=5000 sync=false
 * ```
 */
use super::Damaged;
use super::track::{Output, Stats, Track};
use crate::chunk;
use crate::client::recorder::StreamChunk;
use crate::client::transport::{self, Place};
use crate::elements::support::{carrier, files, lock, media};
use crate::identity::AeadKey;
use crate::rce::SUITE;
use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rcededuppay",
        gst::DebugColorFlags::empty(),
        Some("Chunks for deduplication"),
    )
});

const DEFAULT_UNIT: chunk::UnitMode = chunk::UnitMode::Structure;
const DEFAULT_TARGET_CHUNK_BYTES: u32 = chunk::DEFAULT_TARGET_BYTES;
const DEFAULT_MAX_CHUNK_BYTES: u32 = chunk::DEFAULT_MAX_BYTES;
const DEFAULT_MAX_CHUNK_TIME: u64 = chunk::DEFAULT_MAX_TIME_NS;
const DEFAULT_DAMAGED: Damaged = Damaged::Keep;
const DEFAULT_SEAL: bool = false;

/// Shortest and longest `max-chunk-bytes`. A blob of 16 MiB is what a vault takes by default.
const CHUNK_BYTES: std::ops::RangeInclusive<u32> = 1 << 10..=15 << 20;

#[derive(Clone, Debug)]
struct Settings {
    unit: String,
    target_chunk_bytes: u32,
    max_chunk_bytes: u32,
    max_chunk_time: u64,
    damaged: Damaged,
    seal: bool,
    domain_secret_file: Option<PathBuf>,
    identity: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            unit: DEFAULT_UNIT.to_string(),
            target_chunk_bytes: DEFAULT_TARGET_CHUNK_BYTES,
            max_chunk_bytes: DEFAULT_MAX_CHUNK_BYTES,
            max_chunk_time: DEFAULT_MAX_CHUNK_TIME,
            damaged: DEFAULT_DAMAGED,
            seal: DEFAULT_SEAL,
            domain_secret_file: None,
            identity: None,
        }
    }
}

/// Seals what leaves.
struct Sealer {
    key: AeadKey,
    place: Place,
}

struct Started {
    config: chunk::Config,
    sealer: Option<Sealer>,
    track: Track,
    /// Whether upstream is live; asked at the first buffer.
    live: Option<bool>,
    /// Bytes of content before the next buffer.
    offset: u64,
}

impl Started {
    fn new(settings: &Settings) -> Result<Self, gst::ErrorMessage> {
        let config = chunk::Config {
            unit: settings
                .unit
                .parse()
                .map_err(|e| gst::error_msg!(gst::LibraryError::Settings, ("{e}")))?,
            target_bytes: settings.target_chunk_bytes,
            max_bytes: settings.max_chunk_bytes,
            max_time_ns: settings.max_chunk_time,
            drop_damaged: settings.damaged == Damaged::Drop,
        };
        let domain = settings
            .domain_secret_file
            .as_deref()
            .map(files::domain_secret)
            .transpose()?;
        let sealer = match settings.seal {
            false => None,
            true => {
                let mut stream = [0; 8];
                getrandom::fill(&mut stream).map_err(|_| {
                    gst::error_msg!(
                        gst::LibraryError::Init,
                        ("The operating system gave no random numbers")
                    )
                })?;
                Some(Sealer {
                    key: files::identity(settings.identity.as_deref())?.transport_key(),
                    place: Place { stream, seq: 0 },
                })
            }
        };
        Ok(Self {
            track: Track::new(config.clone(), domain),
            config,
            sealer,
            live: None,
            offset: 0,
        })
    }

    fn src_caps(&self) -> gst::Caps {
        // Codec data stays inside where content does.
        let media = match (self.track.caps(), &self.sealer) {
            (Some(caps), None) => caps.clone(),
            (caps, _) => gst::Caps::new_empty_simple(
                caps.and_then(|caps| caps.structure(0))
                    .map_or(media::BYTES, |structure| structure.name().as_str()),
            ),
        };
        gst::Caps::builder(carrier::MEDIA_TYPE)
            .field("suite", SUITE)
            .field("sealed", self.sealer.is_some())
            .field("media-caps", media)
            .build()
    }

    /// The buffer of a chunk.
    fn buffer(&mut self, chunk: StreamChunk) -> Result<gst::Buffer, transport::Error> {
        let pts = chunk
            .units
            .first()
            .and_then(|unit| unit.pts.or(unit.dts))
            .map(gst::ClockTime::from_nseconds);
        let duration = chunk
            .running
            .map(|(begin, end)| gst::ClockTime::from_nseconds(end - begin));
        let (begin, len) = (self.offset, chunk.content.len() as u64);
        self.offset += len;
        let gop_start = chunk.gop_start;
        let mut buffer = gst::Buffer::new();
        let b = buffer.make_mut();
        match &mut self.sealer {
            Some(sealer) => {
                let (head, c1) = transport::seal(&sealer.key, sealer.place, chunk)?;
                sealer.place.seq += 1;
                b.append_memory(gst::Memory::from_slice(head));
                b.append_memory(gst::Memory::from_slice(c1));
            }
            None => carrier::put(b, chunk)
                .map_err(|_| transport::Error::Form("the meta for chunks is not registered"))?,
        }
        b.set_pts(pts);
        b.set_duration(duration);
        b.set_offset(begin);
        b.set_offset_end(begin + len);
        if !gop_start {
            b.set_flags(gst::BufferFlags::DELTA_UNIT);
        }
        Ok(buffer)
    }

    /// Buffers begin anew.
    fn reset(&mut self) {
        self.track.reset(self.config.clone());
        self.live = None;
    }
}

#[derive(Default)]
enum State {
    #[default]
    Stopped,
    Started(Box<Started>),
}

/// Implementation of `rcededuppay`.
pub struct RceDedupPay {
    sinkpad: gst::Pad,
    srcpad: gst::Pad,
    settings: Mutex<Settings>,
    // Held by the streaming thread while it cuts; never while it pushes.
    state: Mutex<State>,
    // A copy, so that reading them never waits.
    stats: Mutex<Stats>,
}

impl RceDedupPay {
    fn chain(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let live = match &*lock(&self.state) {
            State::Stopped => return Err(gst::FlowError::Flushing),
            State::Started(started) => started.live,
        };
        let live = live.unwrap_or_else(|| {
            let mut latency = gst::query::Latency::new();
            self.sinkpad.peer_query(&mut latency) && latency.result().0
        });
        let now = match live {
            true => self.obj().current_running_time(),
            false => None,
        };
        let data = buffer.map_readable().map_err(|_| {
            gst::element_imp_error!(self, gst::ResourceError::Read, ("Buffer cannot be read"));
            gst::FlowError::Error
        })?;
        let mut failed = None;
        let flow = self.step(|started| {
            started.live = Some(live);
            started.track.push(&buffer, &data, now).unwrap_or_else(|e| {
                failed = Some(e);
                Output::default()
            })
        });
        match failed {
            Some(e) => {
                gst::element_imp_error!(self, gst::StreamError::Format, ("{e}"));
                Err(gst::FlowError::Error)
            }
            None => flow,
        }
    }

    /// Runs `step` on the state and sends on what comes out of it.
    fn step(
        &self,
        step: impl FnOnce(&mut Started) -> Output,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let (buffers, damage) = {
            let mut state = lock(&self.state);
            let State::Started(started) = &mut *state else {
                return Err(gst::FlowError::Flushing);
            };
            let out = step(started);
            lock(&self.stats).clone_from(&started.track.stats);
            let buffers = out
                .chunks
                .into_iter()
                .map(|chunk| started.buffer(chunk))
                .collect::<Result<Vec<_>, _>>();
            (buffers, out.damage)
        };
        for damage in damage {
            self.announce(damage.running, damage.kept);
        }
        let buffers = buffers.map_err(|e| {
            gst::element_imp_error!(self, gst::StreamError::Failed, ("{e}"));
            gst::FlowError::Error
        })?;
        for buffer in buffers {
            gst::log!(CAT, imp = self, "Chunk {buffer:?}");
            self.srcpad.push(buffer)?;
        }
        Ok(gst::FlowSuccess::Ok)
    }

    fn announce(&self, running: Option<u64>, kept: bool) {
        let action = if kept { "kept" } else { "dropped" };
        let running = running.map(gst::ClockTime::from_nseconds);
        gst::warning!(
            CAT,
            imp = self,
            "Packets were lost in the group of pictures about {}; {action}",
            running.display()
        );
        let structure = gst::Structure::builder("camvault-damage")
            .field("running-time", running)
            .field("action", action)
            .build();
        self.post_message(
            gst::message::Element::builder(structure)
                .src(&*self.obj())
                .build(),
        );
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        use gst::EventView;
        gst::log!(CAT, imp = self, "Event {event:?}");
        let done = match event.view() {
            EventView::Caps(caps) => {
                let caps = caps.caps_owned();
                if !media::accepts(&caps) {
                    gst::warning!(CAT, imp = self, "Caps {caps} are not taken");
                    return false;
                }
                // Replaced by those of the chunks.
                return self.step(|started| started.track.set_caps(caps)).is_ok()
                    && self.send_caps();
            }
            EventView::Segment(segment) => {
                let done = self
                    .step(|started| started.track.set_segment(segment.segment()))
                    .is_ok();
                done && self.send_caps()
            }
            EventView::Tag(tag) => {
                let mut sealed = false;
                let done = self.step(|started| {
                    started.track.add_tags(tag.tag());
                    sealed = started.sealer.is_some();
                    Output::default()
                });
                if sealed {
                    // They go with the chunks, and not beside them.
                    return done.is_ok();
                }
                done.is_ok()
            }
            EventView::StreamStart(_) => self
                .step(|started| {
                    let rest = started.track.finish();
                    started.track.forget_tags();
                    rest
                })
                .is_ok(),
            EventView::FlushStop(_) => {
                if let State::Started(started) = &mut *lock(&self.state) {
                    started.reset();
                }
                true
            }
            EventView::Eos(_) => {
                // A refusal downstream is downstream's to report; EOS goes there all the same.
                let _ = self.step(|started| started.track.finish());
                true
            }
            _ => true,
        };
        // Only flushing or a refusal downstream can stop an event here.
        done && gst::Pad::event_default(&self.sinkpad, Some(&*self.obj()), event)
    }

    fn send_caps(&self) -> bool {
        let caps = match &*lock(&self.state) {
            State::Stopped => return false,
            State::Started(started) => started.src_caps(),
        };
        self.srcpad.current_caps().as_ref() == Some(&caps)
            || self.srcpad.push_event(gst::event::Caps::new(&caps))
    }

    fn sink_query(&self, query: &mut gst::QueryRef) -> bool {
        use gst::QueryViewMut;
        match query.view_mut() {
            QueryViewMut::Caps(query) => {
                let caps = media::offered(query.filter());
                query.set_result(&caps);
                true
            }
            QueryViewMut::AcceptCaps(query) => {
                let accepted = media::accepts(query.caps());
                query.set_result(accepted);
                true
            }
            // Of the clear stream's buffers; chunks are others.
            QueryViewMut::Allocation(_) => false,
            _ => gst::Pad::query_default(&self.sinkpad, Some(&*self.obj()), query),
        }
    }
}

#[glib::object_subclass]
impl ObjectSubclass for RceDedupPay {
    const NAME: &'static str = "GstRceDedupPay";
    type Type = super::RceDedupPay;
    type ParentType = gst::Element;

    fn with_class(klass: &Self::Class) -> Self {
        let templ = |name| klass.pad_template(name);
        let (Some(sink), Some(src)) = (templ("sink"), templ("src")) else {
            unreachable!("pad_templates() has both");
        };
        let sinkpad = gst::Pad::builder_from_template(&sink)
            .chain_function(|_, parent, buffer| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |this| this.chain(buffer),
                )
            })
            .event_function(|_, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |this| this.sink_event(event))
            })
            .query_function(|_, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |this| this.sink_query(query))
            })
            .build();
        let srcpad = gst::Pad::builder_from_template(&src).build();
        Self {
            sinkpad,
            srcpad,
            settings: Mutex::default(),
            state: Mutex::default(),
            stats: Mutex::default(),
        }
    }
}

impl ObjectImpl for RceDedupPay {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                glib::ParamSpecString::builder("unit")
                    .nick("Unit")
                    .blurb("What a chunk is: structure (some access units, cut where their content says), gop, au, fixed:BYTES or cdc; recorders that shall share chunks need the same. Bytes without structure are cut as with cdc")
                    .default_value(Some(DEFAULT_UNIT.to_string().as_str()))
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt::builder("target-chunk-bytes")
                    .nick("Target chunk bytes")
                    .blurb("Bytes of content that chunks of unit structure and cdc shall have about (0 = automatic)")
                    .maximum(*CHUNK_BYTES.end())
                    .default_value(DEFAULT_TARGET_CHUNK_BYTES)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt::builder("max-chunk-bytes")
                    .nick("Maximum chunk bytes")
                    .blurb("Bytes of content that a chunk may have")
                    .minimum(*CHUNK_BYTES.start())
                    .maximum(*CHUNK_BYTES.end())
                    .default_value(DEFAULT_MAX_CHUNK_BYTES)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt64::builder("max-chunk-time")
                    .nick("Maximum chunk time")
                    .blurb("Time that a chunk may span, in nanoseconds (0 = no limit)")
                    .default_value(DEFAULT_MAX_CHUNK_TIME)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecEnum::builder_with_default("damaged", DEFAULT_DAMAGED)
                    .nick("Damaged")
                    .blurb("What happens to a group of pictures in which packets were lost; drop holds every group back until it is complete")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecBoolean::builder("seal")
                    .nick("Seal")
                    .blurb("Whether chunks are sealed for the identity, so that they may leave the process")
                    .default_value(DEFAULT_SEAL)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder("domain-secret-file")
                    .nick("Domain secret file")
                    .blurb("File with the 32-byte secret of the dedup domain, raw, in hexadecimal or in base64; only recorders with the same secret share chunks (none = all do)")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder("identity")
                    .nick("Identity")
                    .blurb("Identity file, needed with seal=true (none = the one that CAMVAULT_IDENTITY names)")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb("Totals since READY: units, bytes-in, chunks, content-bytes, envelope-bytes, suspect-chunks, damaged-gops, dropped-units, units-before-keyframe")
                    .read_only()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut settings = lock(&self.settings);
        // GObject has checked the types.
        fn set<T: for<'a> glib::value::FromValue<'a> + 'static>(to: &mut T, value: &glib::Value) {
            if let Ok(value) = value.get_owned() {
                *to = value;
            }
        }
        match pspec.name() {
            "unit" => {
                let unit: Option<String> = value.get().unwrap_or_default();
                settings.unit = unit.unwrap_or_else(|| DEFAULT_UNIT.to_string());
            }
            "target-chunk-bytes" => set(&mut settings.target_chunk_bytes, value),
            "max-chunk-bytes" => set(&mut settings.max_chunk_bytes, value),
            "max-chunk-time" => set(&mut settings.max_chunk_time, value),
            "damaged" => set(&mut settings.damaged, value),
            "seal" => set(&mut settings.seal, value),
            "domain-secret-file" => {
                let path: Option<String> = value.get().unwrap_or_default();
                settings.domain_secret_file =
                    path.filter(|path| !path.is_empty()).map(PathBuf::from);
            }
            "identity" => settings.identity = value.get().unwrap_or_default(),
            name => gst::warning!(CAT, imp = self, "Property {name} is not known"),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = lock(&self.settings);
        match pspec.name() {
            "unit" => settings.unit.to_value(),
            "target-chunk-bytes" => settings.target_chunk_bytes.to_value(),
            "max-chunk-bytes" => settings.max_chunk_bytes.to_value(),
            "max-chunk-time" => settings.max_chunk_time.to_value(),
            "damaged" => settings.damaged.to_value(),
            "seal" => settings.seal.to_value(),
            "domain-secret-file" => settings
                .domain_secret_file
                .as_ref()
                .map(|path| path.display().to_string())
                .to_value(),
            "identity" => settings.identity.to_value(),
            "stats" => structure(&lock(&self.stats)).to_value(),
            _ => pspec.default_value().clone(),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        for pad in [&self.sinkpad, &self.srcpad] {
            if obj.add_pad(pad).is_err() {
                gst::error!(CAT, imp = self, "Pad {} cannot be added", pad.name());
            }
        }
    }
}

fn structure(stats: &Stats) -> gst::Structure {
    gst::Structure::builder("camvault-stats")
        .field("units", stats.units)
        .field("bytes-in", stats.bytes_in)
        .field("chunks", stats.chunks)
        .field("content-bytes", stats.content_bytes)
        .field("envelope-bytes", stats.envelope_bytes)
        .field("suspect-chunks", stats.suspect)
        .field("damaged-gops", stats.damaged)
        .field("dropped-units", stats.dropped)
        .field("units-before-keyframe", stats.before_keyframe)
        .build()
}

impl GstObjectImpl for RceDedupPay {}

impl ElementImpl for RceDedupPay {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "RCE deduplication payloader",
                "Codec/Payloader",
                "Cuts a stream into chunks that every recorder of it cuts alike, and derives their keys",
                "The camvault developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let chunks = gst::Caps::builder(carrier::MEDIA_TYPE)
                .field("suite", SUITE)
                .build();
            [
                // Any stream; of some media types only some forms, see support::media.
                ("sink", gst::PadDirection::Sink, gst::Caps::new_any()),
                ("src", gst::PadDirection::Src, chunks),
            ]
            .into_iter()
            .filter_map(|(name, direction, caps)| {
                gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).ok()
            })
            .collect()
        });
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            // Files are read once here, so that errors come before data.
            gst::StateChange::NullToReady => {
                let settings = lock(&self.settings).clone();
                Started::new(&settings).map_err(|e| {
                    self.post_error_message(e);
                    gst::StateChangeError
                })?;
            }
            gst::StateChange::ReadyToPaused => {
                let settings = lock(&self.settings).clone();
                let started = Started::new(&settings).map_err(|e| {
                    self.post_error_message(e);
                    gst::StateChangeError
                })?;
                *lock(&self.state) = State::Started(Box::new(started));
                *lock(&self.stats) = Stats::default();
            }
            _ => (),
        }
        let success = self.parent_change_state(transition)?;
        if transition == gst::StateChange::PausedToReady {
            *lock(&self.state) = State::Stopped;
        }
        Ok(success)
    }
}
