// SPDX-License-Identifier: MPL-2.0
/**
 * SECTION:element-dmqimopen
 *
 * Opens the sealed stream of a `dmqimmark contract=…` at the cloud: marked frames come out. What was
 * changed, repeated, left out, or belongs to a contract or cloud of others, is an error.
 *
 * The pad `remainder`, if it is asked for, gives for every frame what its owner needs to get the
 * original back, sealed to the owner, with the frame's timestamp: store it beside the frames.
 *
 * Where a new ticket begins, the encoder behind is asked for a keyframe. A message
 * `camvault-ticket` with `contract` (64 hexadecimal digits), `ticket` and `started` (Unix
 * milliseconds, by the owner's clock) says so. Where all of a segment has come, a message
 * `camvault-receipt` has `end` (bytes): what the owner signed of it, for the third party.
 *
 * With `tickets`, a directory, every ticket is taken once, also by another process: a stream that
 * comes again is an error.
 *
 * Bytes of the stream may come in any portions.
 *
 * ## Example
 * ```text
 * gst-launch-1.0 tcpserversrc port=7421 ! application/x-dmqim-sealed \
 *     ! dmqimopen key-file=cloud.paillier identity=cloud.id contracts=contracts/ \
 *     ! x264enc ! h264parse ! mp4mux ! filesink location=marked.mp4
 * ```
 */
use super::REMAINDER_TYPE;
use super::taken::Taken;
use crate::elements::dmqimmark::MEDIA_TYPE;
use crate::elements::support::{files, lock, pictures};
use crate::homomorphic::packed::read_secret_key;
use crate::protocol::{Contract, Signed, encode, hex};
use crate::sealed::Picture;
use crate::sealed::stream::message::{self, Kind};
use crate::sealed::stream::{Error, Opened, Opener};
use crate::store::now_ms;
use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_video::{VideoFrameRef, VideoInfo};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "dmqimopen",
        gst::DebugColorFlags::empty(),
        Some("Sealed streams at the cloud"),
    )
});

#[derive(Clone, Debug)]
struct Settings {
    key_file: Option<PathBuf>,
    identity: Option<String>,
    contracts: Option<PathBuf>,
    tickets: Option<PathBuf>,
    max_pixels: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            key_file: None,
            identity: None,
            contracts: None,
            tickets: None,
            max_pixels: DEFAULT_MAX_PIXELS,
        }
    }
}

/// What is there from start to stop.
struct Stream {
    opener: Opener,
    contracts: PathBuf,
    taken: Option<Taken>,
    /// Bytes that are no whole message yet.
    bytes: Vec<u8>,
    info: Option<VideoInfo>,
    segments: u32,
    /// A time segment was pushed.
    timed: bool,
    /// The earliest time that the next frame may have, in nanoseconds.
    earliest: u64,
}

/// Pixels of a frame by default: 8192 × 4320.
pub const DEFAULT_MAX_PIXELS: u64 = 8192 * 4320;

/// The latest time of a frame, in nanoseconds.
const LATEST: u64 = i64::MAX as u64;
/// Nanoseconds from one frame to the next at least.
const LEAST_APART: u64 = 2_000_000;
/// … and at most, where the owner gives no times.
const MOST_APART: u64 = 1_000_000_000;

/// Implementation of `dmqimopen`.
pub struct DmQimOpen {
    sink: gst::Pad,
    src: gst::Pad,
    remainder: Mutex<Option<gst::Pad>>,
    settings: Mutex<Settings>,
    // Held by the streaming thread while it opens; never while it pushes or posts.
    stream: Mutex<Option<Stream>>,
}

/// What follows from a message.
enum Output {
    Segment(Opened, Option<Box<VideoInfo>>),
    Frame {
        frame: gst::Buffer,
        remainder: gst::Buffer,
    },
    End(Signed),
}

fn wrong(error: &Error) -> gst::ErrorMessage {
    gst::error_msg!(gst::StreamError::Decrypt, ("{error}"))
}

/// The contract of an id, from its file, or from the directory of all.
fn find_contract(path: &Path, id: &[u8; 32]) -> Option<Contract> {
    let file = match path.is_dir() {
        true => path.join(format!("{}.contract", hex(id))),
        false => path.to_owned(),
    };
    let signed = files::contract(&file).ok()?;
    (signed.id::<Contract>() == *id)
        .then(|| signed.unverified().ok())
        .flatten()
}

impl Stream {
    /// Takes the next whole message from the bytes.
    fn next(&mut self) -> Result<Option<Output>, gst::ErrorMessage> {
        let bytes = std::mem::take(&mut self.bytes);
        let next =
            message::read_within(&bytes, |kind| self.opener.room(kind)).map_err(|e| wrong(&e));
        let output = match next? {
            None => {
                self.bytes = bytes;
                return Ok(None);
            }
            Some(message) => {
                let length = message.length;
                let output = self.take(message.kind, message.payload)?;
                self.bytes = bytes;
                self.bytes.drain(..length);
                output
            }
        };
        Ok(Some(output))
    }

    fn take(&mut self, kind: Kind, payload: &[u8]) -> Result<Output, gst::ErrorMessage> {
        match kind {
            Kind::Segment => self.segment(payload),
            Kind::Frame => self.frame(payload),
            Kind::End => {
                let end = self.opener.end(payload).map_err(|e| wrong(&e))?;
                Ok(Output::End(end))
            }
        }
    }

    fn segment(&mut self, payload: &[u8]) -> Result<Output, gst::ErrorMessage> {
        let contracts = &self.contracts;
        let find = |id: &[u8; 32]| find_contract(contracts, id);
        let opened = self.opener.segment(payload, find, now_ms());
        let opened = opened.map_err(|e| wrong(&e))?;
        if let Some(taken) = &self.taken {
            taken.take(&opened, now_ms())?;
        }
        let video = opened.video;
        let chroma = video.chroma.into();
        let rate = [video.rate.0, video.rate.1].map(|n| i32::try_from(n).unwrap_or(0));
        let info = VideoInfo::builder(pictures::format(chroma), video.width, video.height)
            .fps(gst::Fraction::new(rate[0], rate[1].max(1)))
            .build()
            .map_err(|e| gst::error_msg!(gst::StreamError::Format, ("{e}")))?;
        let changed = self.info.as_ref() != Some(&info);
        self.info = Some(info.clone());
        Ok(Output::Segment(opened, changed.then(|| Box::new(info))))
    }

    fn frame(&mut self, payload: &[u8]) -> Result<Output, gst::ErrorMessage> {
        let info = self.info.clone();
        let (picture, header, remainder) = self.opener.frame(payload).map_err(|e| wrong(&e))?;
        // The owner's times, but that they ascend: by its time a frame is asked for later, and which
        // ticket's it is must not be in doubt.
        let pts = header.pts.unwrap_or(0).max(self.earliest).min(LATEST);
        let length = match header.pts {
            Some(_) => LEAST_APART,
            None => header.duration.unwrap_or(0).clamp(LEAST_APART, MOST_APART),
        };
        self.earliest = pts.saturating_add(length);
        let times = |buffer: &mut gst::BufferRef| {
            buffer.set_pts(gst::ClockTime::from_nseconds(pts));
            buffer.set_duration(header.duration.map(gst::ClockTime::from_nseconds));
        };
        let frame = info.and_then(|info| copy(picture, &info, times));
        let frame = frame.ok_or_else(|| {
            gst::error_msg!(
                gst::ResourceError::NoSpaceLeft,
                ("There is no memory for a frame")
            )
        })?;
        let mut remainder = gst::Buffer::from_mut_slice(encode(&remainder));
        if let Some(remainder) = remainder.get_mut() {
            times(remainder);
        }
        Ok(Output::Frame { frame, remainder })
    }
}

fn copy(
    picture: &Picture,
    info: &VideoInfo,
    times: impl Fn(&mut gst::BufferRef),
) -> Option<gst::Buffer> {
    let mut buffer = gst::Buffer::with_size(info.size()).ok()?;
    let writable = buffer.get_mut()?;
    times(writable);
    let mut frame = VideoFrameRef::from_buffer_ref_writable(writable, info).ok()?;
    pictures::write(picture, &mut frame)?;
    drop(frame);
    Some(buffer)
}

impl DmQimOpen {
    fn chain(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let posted = |e: gst::ErrorMessage| {
            self.post_error_message(e);
            gst::FlowError::Error
        };
        {
            let bytes = buffer.map_readable().map_err(|_| {
                posted(gst::error_msg!(
                    gst::ResourceError::Read,
                    ("A buffer cannot be read")
                ))
            })?;
            let mut stream = lock(&self.stream);
            let stream = stream.as_mut().ok_or(gst::FlowError::Flushing)?;
            stream.bytes.extend_from_slice(&bytes);
        }
        loop {
            let output = {
                let mut stream = lock(&self.stream);
                let stream = stream.as_mut().ok_or(gst::FlowError::Flushing)?;
                stream.next()
            };
            match output.map_err(posted)? {
                None => return Ok(gst::FlowSuccess::Ok),
                Some(Output::End(end)) => self.ended(&end),
                Some(Output::Segment(opened, info)) => self.begin(&opened, info.as_deref()),
                Some(Output::Frame { frame, remainder }) => {
                    let pad = lock(&self.remainder).clone();
                    if let Some(pad) = pad {
                        match pad.push(remainder) {
                            Ok(_) | Err(gst::FlowError::NotLinked) => (),
                            Err(e) => return Err(e),
                        }
                    }
                    self.src.push(frame)?;
                }
            }
        }
    }

    /// Says what comes: caps if they are other ones, and that a keyframe is wanted.
    fn begin(&self, opened: &Opened, info: Option<&VideoInfo>) {
        let (first, timed) = {
            let mut stream = lock(&self.stream);
            let Some(stream) = stream.as_mut() else {
                return;
            };
            stream.segments += 1;
            (
                stream.segments == 1,
                std::mem::replace(&mut stream.timed, true),
            )
        };
        let remainder = lock(&self.remainder).clone();
        if let Some(caps) = info.and_then(|info| info.to_caps().ok()) {
            let group = gst::GroupId::next();
            let start = |pad: &gst::Pad, caps: &gst::Caps, name: &str| {
                if first {
                    let id = pad.create_stream_id(&*self.obj(), Some(name));
                    let start = gst::event::StreamStart::builder(&id).group_id(group);
                    pad.push_event(start.build());
                }
                pad.push_event(gst::event::Caps::new(caps));
                if !timed {
                    let segment = gst::FormattedSegment::<gst::ClockTime>::new();
                    pad.push_event(gst::event::Segment::new(&segment));
                }
            };
            start(&self.src, &caps, "video");
            if let Some(pad) = &remainder {
                start(
                    pad,
                    &gst::Caps::new_empty_simple(REMAINDER_TYPE),
                    "remainder",
                );
            }
        }
        if !first {
            let event = gst_video::DownstreamForceKeyUnitEvent::builder()
                .all_headers(true)
                .build();
            self.src.push_event(event);
        }
        let structure = gst::Structure::builder("camvault-ticket")
            .field("contract", hex(&opened.contract))
            .field("ticket", opened.ticket)
            .field("started", opened.started_ms)
            .build();
        let message = gst::message::Element::builder(structure).src(&*self.obj());
        self.post_message(message.build());
    }

    /// Says what the owner signed of a segment.
    fn ended(&self, end: &Signed) {
        let structure = gst::Structure::builder("camvault-receipt")
            .field("end", glib::Bytes::from_owned(encode(end)))
            .build();
        let message = gst::message::Element::builder(structure).src(&*self.obj());
        self.post_message(message.build());
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        match event.view() {
            // This element's own follow from the stream.
            gst::EventView::StreamStart(_)
            | gst::EventView::Caps(_)
            | gst::EventView::Segment(_) => true,
            gst::EventView::Eos(_) => {
                let cut = lock(&self.stream)
                    .as_ref()
                    .is_some_and(|stream| stream.opener.is_open() || !stream.bytes.is_empty());
                if cut {
                    gst::element_imp_warning!(
                        self,
                        gst::StreamError::Decode,
                        ("The sealed stream ends in the middle of a segment: its owner's process or the network stopped; frames may be missing")
                    );
                }
                self.forward(&event)
            }
            gst::EventView::FlushStop(_) => {
                if let Some(stream) = lock(&self.stream).as_mut() {
                    stream.bytes.clear();
                }
                self.forward(&event)
            }
            _ => self.forward(&event),
        }
    }

    fn forward(&self, event: &gst::Event) -> bool {
        if let Some(pad) = &*lock(&self.remainder) {
            pad.push_event(event.clone());
        }
        self.src.push_event(event.clone())
    }

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let settings = lock(&self.settings).clone();
        let needed = |name: &str| {
            gst::error_msg!(
                gst::LibraryError::Settings,
                ("The property {name} is needed")
            )
        };
        let key_file = settings.key_file.ok_or_else(|| needed("key-file"))?;
        let contracts = settings.contracts.ok_or_else(|| needed("contracts"))?;
        let identity = files::identity(settings.identity.as_deref())?;
        let secret = read_secret_key(&key_file)
            .map_err(|e| gst::error_msg!(gst::ResourceError::OpenRead, ("{e}")))?;
        *lock(&self.stream) = Some(Stream {
            opener: Opener::new(identity, secret.into(), settings.max_pixels),
            contracts,
            taken: settings.tickets.map(Taken),
            bytes: Vec::new(),
            info: None,
            segments: 0,
            timed: false,
            earliest: 0,
        });
        Ok(())
    }
}

#[glib::object_subclass]
impl ObjectSubclass for DmQimOpen {
    const NAME: &'static str = "GstDmQimOpen";
    type Type = super::DmQimOpen;
    type ParentType = gst::Element;

    fn with_class(class: &Self::Class) -> Self {
        let pad = |name| {
            let template = class.pad_template(name);
            template.unwrap_or_else(|| unreachable!("templates are below"))
        };
        let sink = gst::Pad::builder_from_template(&pad("sink"))
            .chain_function(|pad, parent, buffer| {
                let failed = || Err(gst::FlowError::Error);
                Self::catch_panic_pad_function(parent, failed, |this| {
                    gst::trace!(CAT, obj = pad, "{buffer:?}");
                    this.chain(&buffer)
                })
            })
            .event_function(|_, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |this| this.sink_event(event))
            })
            .build();
        let src = gst::Pad::builder_from_template(&pad("src"))
            .flags(gst::PadFlags::FIXED_CAPS)
            .build();
        Self {
            sink,
            src,
            remainder: Mutex::default(),
            settings: Mutex::default(),
            stream: Mutex::default(),
        }
    }
}

impl ObjectImpl for DmQimOpen {
    fn constructed(&self) {
        self.parent_constructed();
        for pad in [&self.sink, &self.src] {
            if let Err(e) = self.obj().add_pad(pad) {
                gst::error!(CAT, imp = self, "{e}");
            }
        }
    }

    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let file = |name, nick, blurb| {
                glib::ParamSpecString::builder(name)
                    .nick(nick)
                    .blurb(blurb)
                    .mutable_ready()
                    .build()
            };
            vec![
                file(
                    "key-file",
                    "Key file",
                    "The cloud's secret Paillier key, as `camvault keygen --paillier` writes it",
                ),
                file(
                    "identity",
                    "Identity",
                    "The cloud's identity file (none = the environment's CAMVAULT_IDENTITY)",
                ),
                file(
                    "contracts",
                    "Contracts",
                    "A contract, or the directory of contracts that the cloud has signed, each in a file ID.contract",
                ),
                file(
                    "tickets",
                    "Tickets",
                    "Directory that remembers tickets, so that none is taken twice (none = streams may come again)",
                ),
                glib::ParamSpecUInt64::builder("max-pixels")
                    .nick("Max pixels")
                    .blurb("Pixels of a frame, at most; larger frames are an error before there is memory for them")
                    .minimum(1)
                    .default_value(DEFAULT_MAX_PIXELS)
                    .mutable_ready()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        // GObject has checked the types.
        let text = value.get::<Option<String>>().ok().flatten();
        let text = text.filter(|text| !text.is_empty());
        let mut settings = lock(&self.settings);
        match pspec.name() {
            "key-file" => settings.key_file = text.map(Into::into),
            "identity" => settings.identity = text,
            "contracts" => settings.contracts = text.map(Into::into),
            "tickets" => settings.tickets = text.map(Into::into),
            "max-pixels" => settings.max_pixels = value.get().unwrap_or(DEFAULT_MAX_PIXELS),
            name => gst::warning!(CAT, imp = self, "Property {name} is not known"),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = lock(&self.settings);
        let path = |path: &Option<PathBuf>| path.as_ref().map(|p| p.display().to_string());
        match pspec.name() {
            "key-file" => path(&settings.key_file).to_value(),
            "contracts" => path(&settings.contracts).to_value(),
            "tickets" => path(&settings.tickets).to_value(),
            "max-pixels" => settings.max_pixels.to_value(),
            _ => settings.identity.to_value(),
        }
    }
}

impl GstObjectImpl for DmQimOpen {}

impl ElementImpl for DmQimOpen {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Sealed stream opener",
                "Decryptor/Video",
                "Opens sealed streams of marked frames at the cloud",
                "The camvault developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            use gst::PadDirection::{Sink, Src};
            use gst::PadPresence::{Always, Request};
            let pads = [
                (
                    "sink",
                    Sink,
                    Always,
                    gst::Caps::new_empty_simple(MEDIA_TYPE),
                ),
                ("src", Src, Always, pictures::caps()),
                (
                    "remainder",
                    Src,
                    Request,
                    gst::Caps::new_empty_simple(REMAINDER_TYPE),
                ),
            ];
            pads.into_iter()
                .filter_map(|(name, direction, presence, caps)| {
                    gst::PadTemplate::new(name, direction, presence, &caps).ok()
                })
                .collect()
        });
        &TEMPLATES
    }

    fn request_new_pad(
        &self,
        template: &gst::PadTemplate,
        _name: Option<&str>,
        _caps: Option<&gst::Caps>,
    ) -> Option<gst::Pad> {
        let pad = {
            let mut remainder = lock(&self.remainder);
            if remainder.is_some() {
                gst::warning!(CAT, imp = self, "There is one pad remainder only");
                return None;
            }
            let pad = gst::Pad::builder_from_template(template)
                .name("remainder")
                .flags(gst::PadFlags::FIXED_CAPS)
                .build();
            *remainder = Some(pad.clone());
            pad
        };
        self.obj().add_pad(&pad).ok().map(|()| pad)
    }

    fn release_pad(&self, pad: &gst::Pad) {
        *lock(&self.remainder) = None;
        if let Err(e) = self.obj().remove_pad(pad) {
            gst::warning!(CAT, imp = self, "{e}");
        }
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::ReadyToPaused
            && let Err(e) = self.start()
        {
            self.post_error_message(e);
            return Err(gst::StateChangeError);
        }
        let done = self.parent_change_state(transition);
        if transition == gst::StateChange::PausedToReady {
            *lock(&self.stream) = None;
        }
        done
    }
}
