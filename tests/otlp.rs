// SPDX-License-Identifier: MPL-2.0
//! Spans reach a collector: a small one that takes them over HTTP.

mod common;

use common::serve::Program;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The path and body of a request, answered with 200 and an empty message.
fn take(stream: TcpStream) -> Option<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let (mut length, mut kind) = (0, String::new());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim().to_lowercase();
        match line.split_once(": ") {
            Some(("content-length", value)) => length = value.parse().ok()?,
            Some(("content-type", value)) => kind = value.to_owned(),
            Some(_) => (),
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n\
                  content-length: 0\r\nconnection: close\r\n\r\n";
    reader.get_mut().write_all(answer.as_bytes()).ok()?;
    assert_eq!(kind, "application/x-protobuf");
    Some((first, body))
}

fn contains(all: &[u8], part: &[u8]) -> bool {
    all.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_request_is_a_span_below_its_callers_with_the_engines_below_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let collector = format!("http://{}", listener.local_addr().unwrap());
    let (sender, spans) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Some(request) = take(stream) {
                let _ = sender.send(request);
            }
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path(), &["--otlp", &collector]);
    let authority = program.authority().to_owned();
    let mut stream = TcpStream::connect(&authority).unwrap();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    write!(
        stream,
        "GET /v1/stats HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\
         traceparent: 00-{trace}-b7ad6b7169203331-01\r\n\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    // The end sends what waits.
    program.terminate();
    assert_eq!(program.exit_code(), Some(0));
    let bytes = |hex: &str| -> Vec<u8> {
        let digits = hex.as_bytes().chunks(2);
        digits
            .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
            .collect()
    };
    let end = Instant::now() + Duration::from_secs(10);
    let mut all = Vec::new();
    let wanted = [
        b"GET /v1/stats".to_vec(),
        b"camvault".to_vec(),
        b"engine".to_vec(),
        b"metadata".to_vec(),
        bytes(trace),
        bytes("b7ad6b7169203331"),
    ];
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        let Ok((first, body)) = spans.recv_timeout(left) else {
            break;
        };
        assert!(first.starts_with("POST /v1/traces "), "{first}");
        all.extend(body);
        if wanted.iter().all(|part| contains(&all, part)) {
            return;
        }
    }
    panic!("no such spans: {}", String::from_utf8_lossy(&all));
}
