// SPDX-License-Identifier: MPL-2.0
/**
 * SECTION:element-dedupsink
 *
 * Stores what `rcededuppay` cut as a recording in a vault: chunks that the vault has are checked
 * and joined, others are encrypted and uploaded, and every segment is committed with a manifest
 * that only the owner can read. Each request pad is a track. EOS is posted when all tracks are at
 * their end and everything is durable.
 *
 * While the vault cannot be reached, chunks wait in memory and then, encrypted, in `spool-dir`.
 * If there is no more room, a live stream loses whole groups of pictures (counted, and announced
 * by a warning), another one waits.
 *
 * Messages: `camvault-segment` for every committed segment, `camvault-network` when the vault is
 * lost and found again.
 *
 * ## Example
 * ```text
 * gst-launch-1.0 -e rtspsrc location=rtsp://camera/stream ! rtph264depay ! h264parse \
 *     ! rcededuppay ! dedupsink uri=camvault://127.0.0.1:7420/yard identity=id
 * ```
 * Picture and sound:
 * ```text
 * gst-launch-1.0 dedupsink name=vault uri=camvault://127.0.0.1:7420/test identity=id \
 *     videotestsrc num-buffers=300 ! x264enc ! h264parse ! rcededuppay ! vault.sink_0 \
 *     audiotestsrc num-buffers=430 ! avenc_aac ! aacparse ! rcededuppay ! vault.sink_1
 * ```
 */
use super::settings::{self, Settings};
use super::track::{Position, Track, Verdict};
use crate::client;
use crate::client::recorder::{Event, Push, Recorder, Stats, StreamChunk};
use crate::client::transport;
use crate::elements::support::{carrier, lock};
use crate::identity::AeadKey;
use crate::rce::SUITE;
use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, LazyLock, Mutex, PoisonError};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "dedupsink",
        gst::DebugColorFlags::empty(),
        Some("Recorder into a vault"),
    )
});

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Tracks go on.
    Open,
    /// All tracks are at their end; the rest is on its way.
    Finishing,
    /// All is durable, EOS may be posted.
    Durable(gst::Seqnum),
    /// An ERROR was posted.
    Failed,
}

/// From READY→PAUSED to PAUSED→READY.
struct Session {
    recorder: Arc<Recorder>,
    transport: AeadKey,
    playing: bool,
    /// PAUSED→READY has begun.
    stopping: bool,
    end: End,
    /// STREAM_START was posted.
    announced: bool,
    /// Stream time of the last chunk taken.
    position: Option<gst::ClockTime>,
}

#[derive(Default)]
struct State {
    tracks: BTreeMap<u32, Track>,
    session: Option<Session>,
    /// Of the session before.
    stats: Stats,
}

/// Implementation of `dedupsink`.
#[derive(Default)]
pub struct DedupSink {
    settings: Mutex<Settings>,
    // After `settings`; never held while the recorder works, a message is posted or a pad is called.
    state: Mutex<State>,
    /// `playing`, `stopping`, `flushing` or `end` has changed.
    changed: Condvar,
}

impl DedupSink {
    /// Waits until data may pass, as sinks do in PAUSED.
    fn gate(&self, number: u32) -> Result<Arc<Recorder>, gst::FlowError> {
        let mut state = lock(&self.state);
        loop {
            let State {
                tracks,
                session: Some(session),
                ..
            } = &*state
            else {
                return Err(gst::FlowError::Flushing);
            };
            match tracks.get(&number) {
                None => return Err(gst::FlowError::Flushing),
                Some(track) if session.stopping || track.flushing => {
                    return Err(gst::FlowError::Flushing);
                }
                Some(track) if track.eos => return Err(gst::FlowError::Eos),
                Some(_) => (),
            }
            match session.end {
                End::Open if session.playing => return Ok(session.recorder.clone()),
                End::Open => (),
                End::Failed => return Err(gst::FlowError::Error),
                End::Finishing | End::Durable(_) => return Err(gst::FlowError::Eos),
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn chain(
        &self,
        pad: &gst::Pad,
        number: u32,
        buffer: gst::Buffer,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let recorder = self.gate(number)?;
        let position = stream_time(pad, buffer.pts());
        let Some((mut chunk, live)) = self.take(pad, number, buffer, &recorder)? else {
            return Ok(gst::FlowSuccess::Ok);
        };
        chunk.track = number;
        let told = (chunk.caps.clone(), chunk.time, chunk.tags.clone());
        let bytes = chunk.content.len() as u64;
        loop {
            match recorder.push(chunk) {
                Push::Accepted => break,
                Push::Full(_) if live => {
                    recorder.dropped(1, bytes);
                    self.with_track(number, Track::skip)?;
                    return Ok(gst::FlowSuccess::Ok);
                }
                Push::Full(back) => {
                    chunk = *back;
                    let cancelled = self.with_track(number, |track| track.cancelled.clone())?;
                    recorder.wait_room(&cancelled);
                    self.gate(number)?;
                }
                Push::Closed => return Err(gst::FlowError::Error),
            }
        }
        self.with_track(number, |track| track.told(told))?;
        if let Some(session) = &mut lock(&self.state).session {
            session.position = position.or(session.position);
        }
        Ok(gst::FlowSuccess::Ok)
    }

    fn with_track<T>(
        &self,
        number: u32,
        f: impl FnOnce(&mut Track) -> T,
    ) -> Result<T, gst::FlowError> {
        let mut state = lock(&self.state);
        let track = state.tracks.get_mut(&number);
        track.map(f).ok_or(gst::FlowError::Flushing)
    }

    /// The chunk of a buffer, if it can follow what is there; and whether upstream is live.
    fn take(
        &self,
        pad: &gst::Pad,
        number: u32,
        buffer: gst::Buffer,
        recorder: &Recorder,
    ) -> Result<Option<(StreamChunk, bool)>, gst::FlowError> {
        let live = self.with_track(number, |track| track.live)?;
        let live = live.unwrap_or_else(|| {
            let mut latency = gst::query::Latency::new();
            pad.peer_query(&mut latency) && latency.result().0
        });
        let opened = match carrier::carries(&buffer) {
            true => Some(self.carried(buffer)?),
            false => self.open(number, &buffer)?,
        };
        let Some((position, mut chunk)) = opened else {
            return Ok(None);
        };
        let (verdict, is_first) = self.with_track(number, |track| {
            let is_first = track.live.replace(live).is_none();
            let verdict = track.judge(position, chunk.gop_start);
            track.describe(&mut chunk);
            (verdict, is_first)
        })?;
        if is_first {
            let state = lock(&self.state);
            let any = state.tracks.values().any(|track| track.live == Some(true));
            drop(state);
            recorder.set_live(any);
        }
        match verdict {
            Verdict::Take => Ok(Some((chunk, live))),
            Verdict::Skip => {
                gst::debug!(CAT, obj = pad, "Left out up to the next group of pictures");
                recorder.dropped(1, chunk.content.len() as u64);
                Ok(None)
            }
            Verdict::Again => {
                gst::warning!(CAT, obj = pad, "A sealed chunk came again; left out");
                Ok(None)
            }
        }
    }

    /// The clear chunk that hangs on a buffer.
    fn carried(&self, buffer: gst::Buffer) -> Result<(Position, StreamChunk), gst::FlowError> {
        let known = |offset: u64| (offset != u64::MAX).then_some(offset);
        let ends = known(buffer.offset()).zip(known(buffer.offset_end()));
        let Some(chunk) = carrier::take(buffer) else {
            gst::element_imp_error!(
                self,
                gst::StreamError::WrongType,
                ("Chunk without content: only with seal=true on rcededuppay may chunks leave its process")
            );
            return Err(gst::FlowError::Error);
        };
        Ok((Position::Offset(ends), chunk))
    }

    /// Opens a sealed chunk. The first has to open; one that was damaged later is left out.
    fn open(
        &self,
        number: u32,
        buffer: &gst::BufferRef,
    ) -> Result<Option<(Position, StreamChunk)>, gst::FlowError> {
        let key = match &lock(&self.state).session {
            Some(session) => session.transport.clone(),
            None => return Err(gst::FlowError::Flushing),
        };
        let bytes = buffer.map_readable().map_err(|_| {
            gst::element_imp_error!(self, gst::ResourceError::Read, ("Buffer cannot be read"));
            gst::FlowError::Error
        })?;
        match transport::open(&key, &bytes) {
            Ok((place, chunk)) => Ok(Some((Position::Sealed(place), chunk))),
            Err(e) if self.with_track(number, |track| track.begun)? => {
                gst::element_imp_warning!(
                    self,
                    gst::StreamError::Decrypt,
                    ("{e}; left out up to the next group of pictures")
                );
                self.with_track(number, Track::skip)?;
                Ok(None)
            }
            Err(e) => {
                gst::element_imp_error!(self, gst::StreamError::Decrypt, ("{e}"));
                Err(gst::FlowError::Error)
            }
        }
    }

    fn sink_event(&self, pad: &gst::Pad, number: u32, event: gst::Event) -> bool {
        use gst::EventView;
        gst::log!(CAT, obj = pad, "Event {event:?}");
        match event.view() {
            EventView::StreamStart(start) => {
                self.announce(start.group_id(), event.seqnum());
                true
            }
            EventView::Caps(caps) => {
                let structure = caps.caps().structure(0);
                let suite = structure.and_then(|s| s.get::<&str>("suite").ok());
                if suite != Some(SUITE) {
                    gst::error!(CAT, obj = pad, "Suite {suite:?} is not known");
                }
                suite == Some(SUITE)
            }
            EventView::Eos(_) => self.eos(number, event.seqnum()),
            EventView::FlushStart(_) => {
                let _ = self.with_track(number, Track::flush);
                self.changed.notify_all();
                true
            }
            EventView::FlushStop(_) => {
                let _ = self.with_track(number, Track::restart);
                true
            }
            _ => gst::Pad::event_default(pad, Some(&*self.obj()), event),
        }
    }

    fn announce(&self, group: Option<gst::GroupId>, seqnum: gst::Seqnum) {
        match &mut lock(&self.state).session {
            Some(session) if !session.announced => session.announced = true,
            _ => return,
        }
        let mut message = gst::message::StreamStart::builder()
            .src(&*self.obj())
            .seqnum(seqnum);
        if let Some(group) = group {
            message = message.group_id(group);
        }
        self.post_message(message.build());
    }

    fn eos(&self, number: u32, seqnum: gst::Seqnum) -> bool {
        let recorder = match self.gate(number) {
            Ok(recorder) => recorder,
            // An end that came before, or a failure, has been told.
            Err(e) => return e != gst::FlowError::Flushing,
        };
        recorder.end_track(number);
        let _ = self.with_track(number, |track| track.eos = true);
        self.finish_if_all_ended(seqnum);
        true
    }

    /// Finishes the recording, outside the streaming thread, once every track is at its end.
    fn finish_if_all_ended(&self, seqnum: gst::Seqnum) {
        let recorder = {
            let mut state = lock(&self.state);
            let ended = !state.tracks.is_empty() && state.tracks.values().all(|track| track.eos);
            match &mut state.session {
                Some(session) if ended && session.end == End::Open && !session.stopping => {
                    session.end = End::Finishing;
                    session.recorder.clone()
                }
                _ => return,
            }
        };
        let weak = self.obj().downgrade();
        let thread = std::thread::Builder::new()
            .name("dedupsink-end".into())
            .spawn(move || {
                let result = recorder.finish();
                if let Some(sink) = weak.upgrade() {
                    sink.imp().finished(&recorder, seqnum, result);
                }
            });
        if let Err(e) = thread {
            self.fail(gst::error_msg!(
                gst::ResourceError::Failed,
                ("No thread to finish the recording: {e}")
            ));
        }
    }

    fn finished(
        &self,
        recorder: &Arc<Recorder>,
        seqnum: gst::Seqnum,
        result: Result<(), client::Error>,
    ) {
        let playing = {
            let mut state = lock(&self.state);
            let Some(session) = state
                .session
                .as_mut()
                .filter(|session| Arc::ptr_eq(&session.recorder, recorder))
            else {
                return;
            };
            if result.is_ok() && session.end == End::Finishing {
                session.end = End::Durable(seqnum);
            }
            session.playing && !session.stopping
        };
        self.changed.notify_all();
        match result {
            Ok(()) if playing => self.post_eos(seqnum),
            Ok(()) => (),
            Err(e) => self.fail(settings::error_message(&e)),
        }
    }

    fn post_eos(&self, seqnum: gst::Seqnum) {
        let message = gst::message::Eos::builder()
            .src(&*self.obj())
            .seqnum(seqnum)
            .build();
        self.post_message(message);
    }

    /// Posts an error, once in a session.
    fn fail(&self, error: gst::ErrorMessage) {
        match &mut lock(&self.state).session {
            Some(session) if session.end != End::Failed && !session.stopping => {
                session.end = End::Failed;
            }
            _ => return,
        }
        self.changed.notify_all();
        self.post_error_message(error);
    }

    /// What the recorder tells, in one of its threads.
    fn recorder_event(&self, name: &str, event: Event) {
        let message = match event {
            Event::Segment(segment) => gst::Structure::builder("camvault-segment")
                .field("recording", name)
                .field("seq", segment.seq)
                .field(
                    "running-time",
                    gst::ClockTime::from_nseconds(segment.running_time),
                )
                .field("utc", segment.utc)
                .field("duration", gst::ClockTime::from_nseconds(segment.duration))
                .field("chunks", segment.chunks)
                .field("new-bytes", segment.new_bytes)
                .field("duplicate-bytes", segment.duplicate_bytes)
                .build(),
            Event::Offline(reason) => {
                gst::element_imp_warning!(self, gst::ResourceError::Busy, ("{reason}"));
                gst::Structure::builder("camvault-network")
                    .field("online", false)
                    .field("reason", reason)
                    .build()
            }
            Event::Online => gst::Structure::builder("camvault-network")
                .field("online", true)
                .build(),
            Event::Dropped { chunks, bytes } => {
                gst::element_imp_warning!(
                    self,
                    gst::ResourceError::NoSpaceLeft,
                    ("No room for new chunks; {chunks} ({bytes} bytes) dropped so far: the vault is slow or away, or spool-max-bytes and max-size-bytes are small")
                );
                return;
            }
            Event::Warning(words) => {
                gst::element_imp_warning!(self, gst::ResourceError::Failed, ("{words}"));
                return;
            }
            Event::Failed(e) => return self.fail(settings::error_message(&e)),
        };
        self.post_message(
            gst::message::Element::builder(message)
                .src(&*self.obj())
                .build(),
        );
    }

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let (config, eos_timeout) = {
            let settings = lock(&self.settings);
            (settings.config()?, settings.eos_timeout())
        };
        let transport = config.identity.transport_key();
        let name = config.url.to_string();
        let weak = self.obj().downgrade();
        let on_event = move |event| {
            if let Some(sink) = weak.upgrade() {
                sink.imp().recorder_event(&name, event);
            }
        };
        let recorder =
            Recorder::open(config, Box::new(on_event)).map_err(|e| settings::error_message(&e))?;
        recorder.set_finish_timeout(eos_timeout);
        let mut state = lock(&self.state);
        for track in state.tracks.values_mut() {
            *track = Track::default();
        }
        state.stats = Stats::default();
        state.session = Some(Session {
            recorder: Arc::new(recorder),
            transport,
            playing: false,
            stopping: false,
            end: End::Open,
            announced: false,
            position: None,
        });
        Ok(())
    }

    /// Commits what is open, or lets it go, in bounded time.
    fn stop(&self) {
        let Some((recorder, end)) = lock(&self.state)
            .session
            .as_ref()
            .map(|session| (session.recorder.clone(), session.end))
        else {
            return;
        };
        if matches!(end, End::Open | End::Finishing) {
            let ended = match lock(&self.settings).commit_on_stop() {
                true => recorder.abort(),
                false => recorder.discard(),
            };
            if let Err(e) = ended {
                gst::warning!(CAT, imp = self, "Stopped before all was durable: {e}");
            }
        }
        let session = {
            let mut state = lock(&self.state);
            state.stats = recorder.stats();
            state.session.take()
        };
        // Without the lock: a recorder that did not end in time speaks when it is dropped.
        drop(session);
    }

    fn unlock(&self) {
        let mut state = lock(&self.state);
        state.tracks.values().for_each(Track::cancel);
        if let Some(session) = &mut state.session {
            session.stopping = true;
        }
        self.changed.notify_all();
    }

    fn set_playing(&self, playing: bool) -> Option<gst::Seqnum> {
        let end = {
            let mut state = lock(&self.state);
            let session = state.session.as_mut()?;
            session.playing = playing;
            session.end
        };
        self.changed.notify_all();
        match end {
            End::Durable(seqnum) if playing => Some(seqnum),
            _ => None,
        }
    }

    fn query_latency(&self, query: &mut gst::query::Latency) -> bool {
        let (mut live, mut min, mut max) = (false, gst::ClockTime::ZERO, gst::ClockTime::NONE);
        for pad in self.obj().sink_pads() {
            let mut one = gst::query::Latency::new();
            if pad.peer_query(&mut one) && one.result().0 {
                let (_, one_min, one_max) = one.result();
                live = true;
                min = min.max(one_min);
                max = max.into_iter().chain(one_max).min();
            }
        }
        query.set(live, min, max);
        true
    }
}

fn stream_time(pad: &gst::Pad, pts: Option<gst::ClockTime>) -> Option<gst::ClockTime> {
    let segment = pad.sticky_event::<gst::event::Segment>(0)?;
    segment
        .segment()
        .downcast_ref::<gst::ClockTime>()?
        .to_stream_time(pts)
}

#[glib::object_subclass]
impl ObjectSubclass for DedupSink {
    const NAME: &'static str = "GstDedupSink";
    type Type = super::DedupSink;
    type ParentType = gst::Element;
}

impl ObjectImpl for DedupSink {
    fn properties() -> &'static [glib::ParamSpec] {
        settings::properties()
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        if !lock(&self.settings).set(pspec.name(), value) {
            gst::warning!(CAT, imp = self, "Property {} is not known", pspec.name());
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        if pspec.name() == "stats" {
            let state = lock(&self.state);
            let stats = match &state.session {
                Some(session) => session.recorder.stats(),
                None => state.stats.clone(),
            };
            return settings::structure(&stats).to_value();
        }
        let value = lock(&self.settings).get(pspec.name());
        value.unwrap_or_else(|| pspec.default_value().clone())
    }

    fn constructed(&self) {
        self.parent_constructed();
        self.obj().set_element_flags(gst::ElementFlags::SINK);
    }
}

impl GstObjectImpl for DedupSink {}

impl ElementImpl for DedupSink {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Deduplicating recorder",
                "Sink/Network",
                "Stores chunks, encrypted and deduplicated, as a recording in a vault",
                "The camvault developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let caps = gst::Caps::builder(carrier::MEDIA_TYPE)
                .field("suite", SUITE)
                .build();
            gst::PadTemplate::new(
                "sink_%u",
                gst::PadDirection::Sink,
                gst::PadPresence::Request,
                &caps,
            )
            .into_iter()
            .collect()
        });
        &TEMPLATES
    }

    fn request_new_pad(
        &self,
        templ: &gst::PadTemplate,
        name: Option<&str>,
        _caps: Option<&gst::Caps>,
    ) -> Option<gst::Pad> {
        let wanted = name
            .and_then(|name| name.strip_prefix("sink_"))
            .and_then(|number| number.parse::<u32>().ok());
        let number = {
            let mut state = lock(&self.state);
            let number = match wanted {
                Some(number) if state.tracks.contains_key(&number) => return None,
                Some(number) => number,
                None => (0..).find(|number| !state.tracks.contains_key(number))?,
            };
            state.tracks.insert(number, Track::default());
            number
        };
        let pad = gst::Pad::builder_from_template(templ)
            .name(format!("sink_{number}"))
            .chain_function(move |pad, parent, buffer| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |this| this.chain(pad, number, buffer),
                )
            })
            .event_function(move |pad, parent, event| {
                Self::catch_panic_pad_function(
                    parent,
                    || false,
                    |this| this.sink_event(pad, number, event),
                )
            })
            .build();
        match self.obj().add_pad(&pad) {
            Ok(()) => Some(pad),
            Err(_) => {
                lock(&self.state).tracks.remove(&number);
                None
            }
        }
    }

    fn release_pad(&self, pad: &gst::Pad) {
        let number = pad.name().strip_prefix("sink_").map(str::parse::<u32>);
        let Some(Ok(number)) = number else {
            return;
        };
        let recorder = {
            let mut state = lock(&self.state);
            let open = state.tracks.remove(&number).is_some_and(|track| {
                track.cancel();
                !track.eos
            });
            state
                .session
                .as_ref()
                .filter(|_| open)
                .map(|session| session.recorder.clone())
        };
        self.changed.notify_all();
        // Gone already if the element is on its way out.
        let _ = pad.set_active(false);
        let _ = self.obj().remove_pad(pad);
        if let Some(recorder) = recorder {
            recorder.end_track(number);
            self.finish_if_all_ended(gst::Seqnum::next());
        }
    }

    fn send_event(&self, event: gst::Event) -> bool {
        let pads = self.obj().sink_pads();
        let upstream = event.is_upstream() && !event.is_downstream();
        pads.iter().fold(false, |sent, pad| {
            let one = match upstream {
                true => pad.push_event(event.clone()),
                false => pad.send_event(event.clone()),
            };
            one || sent
        })
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        use gst::QueryViewMut;
        match query.view_mut() {
            QueryViewMut::Latency(latency) => self.query_latency(latency),
            QueryViewMut::Position(position) if position.format() == gst::Format::Time => {
                let now = lock(&self.state).session.as_ref().and_then(|s| s.position);
                if let Some(now) = now {
                    position.set(now);
                }
                now.is_some()
            }
            _ => self.parent_query(query),
        }
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        let checked = match transition {
            gst::StateChange::NullToReady => lock(&self.settings).config().map(drop),
            gst::StateChange::ReadyToPaused => self.start(),
            gst::StateChange::PausedToReady => {
                self.unlock();
                Ok(())
            }
            gst::StateChange::PlayingToPaused => {
                self.set_playing(false);
                Ok(())
            }
            _ => Ok(()),
        };
        checked.map_err(|e| {
            self.post_error_message(e);
            gst::StateChangeError
        })?;
        let success = self.parent_change_state(transition);
        match transition {
            gst::StateChange::PausedToPlaying if success.is_ok() => {
                if let Some(seqnum) = self.set_playing(true) {
                    self.post_eos(seqnum);
                }
            }
            gst::StateChange::PausedToReady => self.stop(),
            gst::StateChange::ReadyToPaused if success.is_err() => self.stop(),
            _ => (),
        }
        success
    }
}
