// SPDX-License-Identifier: MPL-2.0
//! Sealed streams from the network into the vault: a pipeline for each connection.

use super::{Counts, Inner, STREAMS, lock, new_name};
use crate::client::patience::until_it_arrives;
use crate::client::runtime;
use crate::protocol::{Signed, decode};
use crate::store::{unhex, write_whole};
use gst::prelude::*;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long what was taken may take to reach the vault after a stream has failed or is to stop.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// Takes connections until the process ends.
pub fn listen(inner: &Arc<Inner>, listener: &TcpListener) {
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                let inner = inner.clone();
                if inner.stopping.load(Ordering::Relaxed) {
                    return;
                }
                if lock(&inner.live).len() >= STREAMS {
                    tracing::warn!(%peer, "too many sealed streams at once: closed");
                    continue;
                }
                std::thread::spawn(move || {
                    let ended = archive(&inner, &stream);
                    inner.counts.ended.fetch_add(1, Ordering::Relaxed);
                    if let Err(why) = ended {
                        inner.counts.failed.fetch_add(1, Ordering::Relaxed);
                        tracing::warn!(%peer, %why, "a sealed stream failed");
                    }
                });
            }
            Err(e) => {
                tracing::error!(error = %e, "taking a sealed stream");
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    }
}

/// A stream's place among the live ones.
struct Live<'a> {
    inner: &'a Inner,
    name: String,
    stop: Arc<AtomicBool>,
}

impl<'a> Live<'a> {
    fn new(inner: &'a Inner, name: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        lock(&inner.live).insert(name.clone(), stop.clone());
        Self { inner, name, stop }
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        lock(&self.inner.live).remove(&self.name);
    }
}

struct Running(gst::Element);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
    }
}

fn archive(inner: &Arc<Inner>, stream: &TcpStream) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let name = new_name().map_err(|e| text(&e))?;
    let live = Live::new(inner, name.clone());
    // A connection that is dead without saying so ends its stream some day.
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .map_err(|e| text(&e))?;
    let description = format!(
        "fdsrc name=in ! application/x-dmqim-sealed ! dmqimopen name=open \
         open.src ! queue ! {} ! rcededuppay ! dedupsink name=out \
         open.remainder ! queue ! rcededuppay ! out.",
        inner.settings.encoder.description()
    );
    let pipeline = Running(gst::parse::launch(&description).map_err(|e| text(&e))?);
    let bin = pipeline.0.downcast_ref::<gst::Bin>();
    let element = |name| {
        let found = bin.and_then(|bin| bin.by_name(name));
        found.ok_or_else(|| format!("the pipeline has no element {name}"))
    };
    let source = element("in")?;
    source.set_property("fd", stream.as_raw_fd());
    let open = element("open")?;
    count(inner, &source, |counts, buffer| {
        counts
            .bytes
            .fetch_add(buffer.size() as u64, Ordering::Relaxed);
    });
    count(inner, &open, |counts, _| {
        counts.frames.fetch_add(1, Ordering::Relaxed);
    });
    open.set_property("key-file", inner.path("gateway.paillier"));
    open.set_property("identity", inner.path("gateway.identity"));
    open.set_property("contracts", inner.path("contracts"));
    open.set_property("tickets", inner.path("tickets"));
    open.set_property("max-pixels", inner.settings.max_pixels);
    let out = element("out")?;
    let uri = inner.recording(&name).map_err(|e| text(&e))?;
    out.set_property("uri", uri.to_string());
    out.set_property("identity", inner.path("gateway.identity"));
    run(inner, &pipeline, &live)
}

/// Counts what leaves an element by its pad `src`.
fn count(
    inner: &Arc<Inner>,
    element: &gst::Element,
    add: impl Fn(&Counts, &gst::BufferRef) + Send + Sync + 'static,
) {
    let inner = inner.clone();
    if let Some(pad) = element.static_pad("src") {
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(buffer) = info.buffer() {
                add(&inner.counts, buffer);
            }
            gst::PadProbeReturn::Ok
        });
    }
}

/// Runs to the end of the stream. After an error, and when it is to stop, what has come still reaches
/// the vault.
fn run(inner: &Inner, pipeline: &Running, live: &Live<'_>) -> Result<(), String> {
    let bus = pipeline.0.bus().ok_or("the pipeline has no bus")?;
    let started = pipeline.0.set_state(gst::State::Playing);
    let mut ending: Option<(Result<(), String>, Instant)> = None;
    loop {
        if ending.is_none() && live.stop.load(Ordering::Relaxed) {
            pipeline.0.send_event(gst::event::Eos::new());
            ending = Some((Ok(()), Instant::now()));
        }
        let message = bus.timed_pop(gst::ClockTime::from_mseconds(200));
        if let Some((result, since)) = &ending
            && since.elapsed() > LAST_WORDS
        {
            let late = "what came last did not reach the vault in time".into();
            return Err(result.clone().err().unwrap_or(late));
        }
        let Some(message) = message else {
            if started.is_err() {
                return Err("the pipeline did not start".into());
            }
            continue;
        };
        match message.view() {
            gst::MessageView::Eos(_) => {
                return ending.map_or(Ok(()), |(result, _)| result);
            }
            gst::MessageView::Error(e) => {
                let why = e.error().to_string();
                let of_vault = e.src().is_some_and(|src| src.name() == "out");
                if of_vault || started.is_err() {
                    return Err(why);
                }
                ending.get_or_insert_with(|| (Err(why), Instant::now()));
            }
            gst::MessageView::Warning(w) => {
                tracing::warn!(warning = %w.error(), "a sealed stream");
            }
            gst::MessageView::Element(e) => {
                let Some(structure) = e.structure() else {
                    continue;
                };
                match structure.name().as_str() {
                    "camvault-ticket" => note(inner, &live.name, structure)?,
                    "camvault-receipt" => tell(inner, structure)?,
                    _ => (),
                }
            }
            _ => (),
        }
    }
}

/// Lists the archive under its contract.
fn note(inner: &Inner, name: &str, structure: &gst::StructureRef) -> Result<(), String> {
    let contract = structure.get::<&str>("contract").ok();
    let contract = contract
        .and_then(unhex)
        .ok_or("a segment without a contract")?;
    let dir = inner.archive_dir(&contract);
    let file = dir.join(name);
    if file.exists() {
        return Ok(());
    }
    let started: u64 = structure.get("started").map_err(|e| e.to_string())?;
    let write = |file: &Path| {
        std::fs::create_dir_all(&dir)?;
        write_whole(file, format!("{started}\n").as_bytes())
    };
    write(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    inner.counts.archives.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Tells the third party what the owner has signed of a segment, without waiting. An owner that told
/// it something else is found out there.
fn tell(inner: &Inner, structure: &gst::StructureRef) -> Result<(), String> {
    let end = structure.get::<gst::glib::Bytes>("end");
    let end: Signed = decode(&end.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    let ttp = inner.ttp.clone();
    let runtime = runtime().map_err(|e| e.to_string())?;
    runtime.spawn(async move {
        if let Err(e) = until_it_arrives(|| ttp.receipt(end.clone())).await {
            tracing::warn!(error = %e, "the third party was not told of a segment");
        }
    });
    Ok(())
}
