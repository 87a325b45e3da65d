// SPDX-License-Identifier: MPL-2.0
//! What goes to the third party while footage is sealed, reported and taken back: everything that
//! the owner sends is recorded between the two. (What a cloud sees is in
//! `src/sealed/stream/secrecy.rs`.)

mod common;
#[path = "common/parties.rs"]
mod parties;

use common::{Pipeline, Place};
use gstcamvault::client::Ttp;
use gstcamvault::identity::Identity;
use gstcamvault::protocol::*;
use gstcamvault::watermark::{Key, Layout};
use parties::Parties;
use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(120);
const SIZE: [usize; 2] = [320, 240];
const FRAMES: usize = 20;

/// A connection that goes through here, and what its client has sent.
struct Tap {
    url: String,
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Tap {
    fn before(url: &str) -> Self {
        let to = url.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let sent = Arc::new(Mutex::new(Vec::new()));
        let all = sent.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(&to)) else {
                    continue;
                };
                let which = {
                    let mut all = all.lock().unwrap();
                    all.push(Vec::new());
                    all.len() - 1
                };
                let (from, mut into) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || drop(std::io::copy(&mut &from, &mut into)));
                let all = all.clone();
                std::thread::spawn(move || {
                    let (mut client, mut server) = (client, server);
                    let mut buffer = [0; 4096];
                    while let Ok(count @ 1..) = client.read(&mut buffer) {
                        all.lock().unwrap()[which].extend_from_slice(&buffer[..count]);
                        if server.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self { url, sent }
    }

    /// Paths and bodies of all requests, and all bytes.
    fn requests(&self) -> (Vec<(String, Vec<u8>)>, Vec<u8>) {
        let sent = self.sent.lock().unwrap().clone();
        let mut requests = Vec::new();
        for mut bytes in sent.iter().map(Vec::as_slice) {
            while let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
                let length = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    let is = name.eq_ignore_ascii_case("content-length");
                    is.then(|| value.trim().parse::<usize>().unwrap())
                });
                let body = end + 4..end + 4 + length.unwrap_or(0);
                let path = head.split(' ').nth(1).unwrap().to_owned();
                requests.push((path, bytes[body.clone()].to_vec()));
                bytes = &bytes[body.end..];
            }
            assert!(bytes.is_empty(), "a request that was not understood");
        }
        (requests, sent.concat())
    }
}

#[test]
fn the_third_party_is_sent_no_pixels() {
    // What audits show is another matter (docs/security.md).
    let place = Place::with(|config| config.audit = 0);
    let tap = Tap::before(&place.vault.url);
    let mut parties = place.vault.block(Parties::at(&place.vault.url, 60_000));
    // Samples of which no eight in a row come twice.
    let mut state = 0x1234_5678_9abc_def1u64;
    let mut samples = Vec::with_capacity(FRAMES * SIZE[0] * SIZE[1] * 3 / 2);
    while samples.len() < FRAMES * SIZE[0] * SIZE[1] * 3 / 2 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        samples.extend(state.to_be_bytes());
    }
    let raw = parties.file("raw");
    std::fs::write(&raw, &samples).unwrap();
    parties.url = tap.url.clone();
    Pipeline::launch(&format!(
        "filesrc location={} ! rawvideoparse format=i420 width={} height={} framerate=10/1 \
         ! {} ! filesink location={}",
        raw.display(),
        SIZE[0],
        SIZE[1],
        parties.mark(),
        parties.file("sealed").display()
    ))
    .run(LONG)
    .unwrap();
    // And back.
    let identity = Identity::load(&parties.file("owner.id")).unwrap();
    let owner = Ttp::connect(&tap.url, Arc::new(identity)).unwrap();
    let ask = |signs: Vec<u8>| RetrievalRequest {
        contract: parties.agreed.id.into(),
        ticket: 0,
        mode: Mode::Oblivious,
        key: None,
        frames: vec![signs.into(); 2],
    };
    // How many marks there are depends on a key that is not known here: nearly always these.
    let marks = (0..=255u8).map(|n| {
        let key = Key::from_bytes([n; 32]);
        let layout = Layout::new(&key, 0, &parties.agreed.settings, SIZE[0], SIZE[1]);
        layout.marks().len().div_ceil(4)
    });
    let lengths: HashSet<usize> = marks.collect();
    let asked = lengths.iter().any(|&bytes| {
        let ask = ask(vec![0; bytes]);
        place.vault.block(owner.retrieval(&ask)).is_ok()
    });
    assert!(asked);

    let (requests, bytes) = tap.requests();
    let mut kinds = Vec::new();
    for (path, body) in &requests {
        println!("{path}: {} bytes", body.len());
        let most = match path.as_str() {
            "/v1/ttp/tickets" => {
                let sent: TicketRequest = decode(body).unwrap();
                assert_eq!((sent.width, sent.height), (320, 240));
                assert_eq!(encode(&sent), *body, "these fields and no others");
                70
            }
            "/v1/ttp/features" => {
                let sent: Features = decode(body).unwrap();
                assert_eq!(sent.frames, FRAMES as u64);
                assert!((1..=MAX_FEATURES).contains(&sent.hashes.len()));
                assert_eq!(encode(&sent), *body, "these fields and no others");
                110 + 9 * sent.hashes.len()
            }
            "/v1/ttp/retrievals" => {
                let sent: RetrievalRequest = decode(body).unwrap();
                assert_eq!(encode(&sent), *body, "these fields and no others");
                60 + sent.frames.iter().map(|f| f.len() + 4).sum::<usize>()
            }
            _ => 0,
        };
        assert!(body.len() <= most, "{path}: {} bytes", body.len());
        kinds.push(path.as_str());
    }
    for path in ["tickets", "features", "retrievals"].map(|name| format!("/v1/ttp/{name}")) {
        assert!(kinds.contains(&path.as_str()), "{path}");
    }
    let windows: HashSet<&[u8]> = samples.windows(6).collect();
    let found = bytes.windows(6).filter(|window| windows.contains(window));
    // Of random bytes a few of 2^48 may agree by chance: not one of these is expected.
    assert_eq!(found.count(), 0, "samples of the picture were sent");
    assert!(bytes.len() < samples.len() / 100);
}
