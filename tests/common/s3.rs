// SPDX-License-Identifier: MPL-2.0
//! An S3 service of the tests' own, and a network to it that can be bad.
#![allow(dead_code)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What a server needs in its environment.
pub const VARIABLES: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "tests"),
    ("AWS_SECRET_ACCESS_KEY", "a secret of the tests"),
    ("AWS_REGION", "us-east-1"),
];

/// moto, with one bucket named `vault`.
pub struct Service {
    child: Child,
    pub address: SocketAddr,
}

impl Service {
    pub fn start() -> Self {
        let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/moto/bin/moto_server");
        let program = std::env::var_os("CAMVAULT_MOTO").unwrap_or(installed.into());
        let started = Command::new(&program)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = started.unwrap_or_else(|e| {
            panic!("{program:?}, the S3 service of the tests: {e}. ./tests/run.sh installs it")
        });
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, url) = line.split_once("Running on http://")?;
            url.trim().parse().ok()
        });
        // It must not wait for somebody to read what it says.
        thread::spawn(move || lines.for_each(drop));
        let address = address.expect("moto says where it listens: run ./tests/run.sh");
        let service = Self { child, address };
        assert_eq!(service.request("PUT", "/vault", b"").0, 200);
        service
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Status and body of an answer; moto wants no signature.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut socket = TcpStream::connect(self.address).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: AWS4-HMAC-SHA256 \
             Credential=tests/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, \
             Signature=0\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        socket.write_all(head.as_bytes()).unwrap();
        socket.write_all(body).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        let status = std::str::from_utf8(&answer[9..12]).unwrap().parse();
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        (status.unwrap(), answer[end + 4..].to_vec())
    }

    /// Path of a blob below a prefix.
    pub fn blob(&self, prefix: &str, d1: &[u8]) -> String {
        let name: String = d1.iter().map(|b| format!("{b:02x}")).collect();
        let prefix = if prefix.is_empty() {
            ""
        } else {
            &format!("{prefix}/")
        };
        format!("/vault/{prefix}{}/{name}", &name[..2])
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    Good,
    /// Every third connection gets nothing but 500 or 503; every other one breaks somewhere or is
    /// slow.
    Bad,
    /// Nobody listens behind it, and what was open is closed.
    Down,
}

/// Stands before a service.
pub struct Network {
    pub address: SocketAddr,
    state: Arc<AtomicU8>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    /// Connections that were spoiled.
    pub spoiled: Arc<AtomicU64>,
}

impl Network {
    pub fn to(service: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let network = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::default(),
            open: Arc::default(),
            spoiled: Arc::default(),
        };
        let (state, open) = (network.state.clone(), network.open.clone());
        let spoiled = network.spoiled.clone();
        thread::spawn(move || {
            for (number, near) in (0..).zip(listener.incoming()) {
                let near = near.unwrap();
                let way = match state.load(Ordering::SeqCst) {
                    s if s == State::Good as u8 => Way::default(),
                    s if s == State::Down as u8 => continue,
                    _ => {
                        spoiled.fetch_add(1, Ordering::SeqCst);
                        Way::spoiled(number)
                    }
                };
                open.lock().unwrap().push(near.try_clone().unwrap());
                thread::spawn(move || way.lead(near, service));
            }
        });
        network
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn set(&self, state: State) {
        self.state.store(state as u8, Ordering::SeqCst);
        for socket in self.open.lock().unwrap().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// What becomes of one connection.
#[derive(Clone, Copy, Default)]
struct Way {
    /// Answers this instead of the service.
    refuses: Option<&'static str>,
    /// Breaks after so many bytes there or back.
    breaks: [Option<usize>; 2],
    /// Waits before every piece.
    waits: Duration,
}

impl Way {
    fn spoiled(number: u64) -> Self {
        let hash = blake3::hash(&number.to_be_bytes());
        let [a, b, c, ..] = *hash.as_bytes();
        let length = usize::from(a) * 400;
        let mut way = Self::default();
        match number % 3 {
            0 if b < 128 => way.refuses = Some("503 Slow Down"),
            0 => way.refuses = Some("500 Internal Server Error"),
            _ => match c % 3 {
                0 => way.breaks[0] = Some(length),
                1 => way.breaks[1] = Some(length / 10),
                _ => way.waits = Duration::from_millis(u64::from(b)),
            },
        }
        way
    }

    fn lead(self, mut near: TcpStream, service: SocketAddr) {
        if let Some(status) = self.refuses {
            // Some of the request is read, so that the answer is not lost in a reset.
            let _ = near.set_read_timeout(Some(Duration::from_millis(50)));
            let mut piece = [0; 65536];
            while near.read(&mut piece).is_ok_and(|n| n > 0) {}
            let head =
                format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            let _ = near.write_all(head.as_bytes());
            return;
        }
        let Ok(far) = TcpStream::connect(service) else {
            return;
        };
        let back = (far.try_clone().unwrap(), near.try_clone().unwrap());
        let there = thread::spawn(move || self.carry(near, far, self.breaks[0]));
        self.carry(back.0, back.1, self.breaks[1]);
        let _ = there.join();
    }

    fn carry(self, mut from: TcpStream, mut to: TcpStream, breaks: Option<usize>) {
        let mut left = breaks.unwrap_or(usize::MAX);
        let mut piece = [0; 16384];
        while let Ok(n @ 1..) = from.read(&mut piece) {
            thread::sleep(self.waits);
            let n = n.min(left);
            if to.write_all(&piece[..n]).is_err() {
                break;
            }
            left -= n;
            if left == 0 {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
