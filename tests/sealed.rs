// SPDX-License-Identifier: MPL-2.0
//! Sealed streams through pipelines: from the owner's `dmqimmark` to the cloud's `dmqimopen`.

mod common;
#[path = "common/parties.rs"]
mod parties;

use common::{Pipeline, Place};
use parties::Parties;
use std::path::Path;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(120);
const SIZE: usize = 320 * 240 * 3 / 2;
const FRAMES: usize = 40;

fn scene(frames: usize) -> String {
    format!(
        "videotestsrc pattern=zone-plate kx2=6 ky2=4 kt=2 num-buffers={frames} \
         ! video/x-raw,format=I420,width=320,height=240,framerate=20/1"
    )
}

fn parties(place: &Place, ticket_ms: u64) -> Parties {
    place.vault.block(Parties::at(&place.vault.url, ticket_ms))
}

/// Tickets of the segments that were opened.
fn tickets(messages: &[gst::Message]) -> Vec<u64> {
    let of = |message: &gst::Message| {
        let structure = message.structure()?;
        let is_segment = structure.name() == "camvault-ticket";
        is_segment.then(|| structure.get("ticket").unwrap())
    };
    messages.iter().filter_map(of).collect()
}

/// Mean squared difference of luma; chroma must be equal.
fn difference(original: &Path, marked: &Path, frames: usize) -> f64 {
    let [a, b] = [original, marked].map(|path| std::fs::read(path).unwrap());
    assert_eq!(a.len(), frames * SIZE);
    assert_eq!(a.len(), b.len());
    let luma = 320 * 240;
    let (mut sum, mut count) = (0.0, 0.0);
    for (a, b) in a.chunks(SIZE).zip(b.chunks(SIZE)) {
        assert!(a[luma..] == b[luma..], "chroma is as it was");
        for (a, b) in a[..luma].iter().zip(&b[..luma]) {
            sum += (f64::from(*a) - f64::from(*b)).powi(2);
            count += 1.0;
        }
    }
    sum / count
}

fn seal(parties: &Parties, mode: &str, frames: usize) {
    let [raw, sealed] = ["raw", "sealed"].map(|name| parties.file(name));
    Pipeline::launch(&format!(
        "{} ! tee name=t ! queue ! filesink location={} \
         t. ! queue ! {} mode={mode} ! filesink location={}",
        scene(frames),
        raw.display(),
        parties.mark(),
        sealed.display()
    ))
    .run(LONG)
    .unwrap();
}

fn open(parties: &Parties, source: &str) -> Result<Vec<gst::Message>, String> {
    let opened = parties.file("opened");
    Pipeline::launch(&format!(
        "{source} ! application/x-dmqim-sealed ! {} ! filesink location={}",
        parties.open(),
        opened.display()
    ))
    .run(LONG)
}

#[test]
fn the_cloud_opens_marked_frames_whatever_the_portions() {
    let place = Place::new();
    let parties = parties(&place, 1000);
    // Without optimisation a packed frame takes a second or more.
    for (mode, blocksize, frames, expected) in
        [("oblivious", 1000, FRAMES, 2), ("packed", 1 << 20, 4, 1)]
    {
        seal(&parties, mode, frames);
        let sealed = parties.file("sealed");
        let source = format!(
            "filesrc location={} blocksize={blocksize}",
            sealed.display()
        );
        let messages = open(&parties, &source).unwrap();
        assert_eq!(
            tickets(&messages).len(),
            expected,
            "a ticket a second: {mode}"
        );
        let mse = difference(&parties.file("raw"), &parties.file("opened"), frames);
        let psnr = 10.0 * (255.0 * 255.0 / mse).log10();
        println!("{mode}: {psnr:.1} dB");
        // A picture so small has three marks in 16 blocks, 44 dB, more or less by their places, and
        // something is lost of all that is noise: 41.8 and 41.6 dB.
        assert!((40.8..44.0).contains(&psnr), "{mode}: {psnr}");
    }
}

#[test]
fn a_stream_that_was_changed_or_cut_is_not_taken() {
    let place = Place::new();
    let parties = parties(&place, 60_000);
    seal(&parties, "oblivious", FRAMES);
    let sealed = parties.file("sealed");
    let source = format!("filesrc location={}", sealed.display());
    let good = std::fs::read(&sealed).unwrap();
    for at in [3, 500, good.len() / 2, good.len() - 5] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&sealed, bad).unwrap();
        let error = open(&parties, &source).unwrap_err();
        println!("{at}: {error}");
    }
    std::fs::write(&sealed, &good[..good.len() / 2]).unwrap();
    let messages = open(&parties, &source).unwrap();
    let warned = |message: &gst::Message| message.type_() == gst::MessageType::Warning;
    assert!(
        messages.iter().any(warned),
        "it says that something is missing"
    );
    // Another cloud, another contract.
    let others = place.vault.block(Parties::at(&place.vault.url, 60_000));
    std::fs::write(&sealed, &good).unwrap();
    open(&others, &source).unwrap_err();
}

#[test]
fn sealed_streams_go_through_tcp_and_through_a_vault() {
    let place = Place::new();
    let parties = parties(&place, 60_000);
    seal(&parties, "oblivious", FRAMES);
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let source = format!("tcpserversrc host=127.0.0.1 port={port}");
    let cloud = Pipeline::launch(&format!(
        "{source} ! application/x-dmqim-sealed ! {} ! filesink location={}",
        parties.open(),
        parties.file("opened").display()
    ));
    cloud.play();
    std::thread::sleep(Duration::from_millis(500));
    let raw = parties.file("raw");
    Pipeline::launch(&format!(
        "{} ! {} ! tcpclientsink host=127.0.0.1 port={port}",
        scene(FRAMES),
        parties.mark()
    ))
    .run(LONG)
    .unwrap();
    cloud.wait(LONG).unwrap();
    assert!(difference(&raw, &parties.file("opened"), FRAMES) < 5.4);

    let recording = place.element("dedupsink", "sealed");
    Pipeline::launch(&format!(
        "{} ! {} ! rcededuppay seal=true identity={} ! {recording}",
        scene(FRAMES),
        parties.mark(),
        place.identity.display()
    ))
    .run(LONG)
    .unwrap();
    let source = place.element("dedupsrc", "sealed");
    open(&parties, &source).unwrap();
    assert!(difference(&raw, &parties.file("opened"), FRAMES) < 5.4);
}
