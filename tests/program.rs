// SPDX-License-Identifier: MPL-2.0
//! The program as its user runs it.

mod common;

use common::serve::Program;
use common::{blobs, camvault, ffmpeg};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A server process and a folder for everything else.
struct Place {
    server: Program,
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Program::start(&dir.path().join("data"), &[]);
        Self { server, dir }
    }

    fn at(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn url(&self, name: &str) -> String {
        format!("camvault://{}/{name}", self.server.authority())
    }

    fn owner(&self, name: &str) -> Owner {
        let identity = self.at(name);
        let (code, made) = camvault(&["keygen", "--out", &identity]);
        assert_eq!(code, 0);
        let owner = Owner {
            identity,
            public: text(&made["public"]),
        };
        let (code, _) = owner.runs(&["enroll", "--vault", &self.server.url]);
        assert_eq!(code, 0);
        owner
    }

    /// An H.264 and AAC file with B-frames.
    fn film(&self, name: &str, source: &str) -> String {
        let out = self.at(name);
        let sound = "-f lavfi -i sine=frequency=300:sample_rate=44100";
        let code = "-pix_fmt yuv420p -threads 1 -c:v libx264 -g 25 -bf 2 -c:a aac";
        let all = format!("-f lavfi -i {source} {sound} -t 6 {code}");
        ffmpeg(&all, Path::new(&out));
        out
    }
}

/// An identity file.
struct Owner {
    identity: String,
    public: String,
}

impl Owner {
    fn runs(&self, arguments: &[&str]) -> (i32, Value) {
        let (command, rest) = arguments.split_first().unwrap();
        camvault(&[&[*command, "--identity", &self.identity], rest].concat())
    }

    fn done(&self, arguments: &[&str]) -> Value {
        let (code, value) = self.runs(arguments);
        assert_eq!(code, 0, "{arguments:?}: {value}");
        value
    }

    /// The exit code and what is said.
    fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let (code, value) = self.runs(arguments);
        assert_ne!(code, 0, "{arguments:?}: {value}");
        (code, text(&value["error"]))
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value}")).into()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value}"))
}

const SCENE: &str = "mandelbrot=size=320x180:rate=25";

fn ffprobe(arguments: &[&str], file: &str) -> String {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-of", "csv=p=0"])
        .args(arguments)
        .arg(file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{file}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Packets of the video track.
fn packets(file: &str) -> usize {
    let packet = "packet=size";
    let found = ffprobe(&["-select_streams", "v:0", "-show_entries", packet], file);
    found.lines().filter(|l| !l.trim().is_empty()).count()
}

/// Hash of every decoded picture.
fn pictures(file: &str) -> Vec<String> {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-i", file, "-map", "0:v"])
        .args(["-f", "framemd5", "-vsync", "passthrough", "-"])
        .output()
        .unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{file}: {output:?}"
    );
    let lines = String::from_utf8(output.stdout).unwrap();
    let hashes = lines.lines().filter(|l| !l.starts_with('#'));
    hashes
        .map(|l| l.rsplit(',').next().unwrap().trim().to_owned())
        .collect()
}

#[test]
fn identities() {
    let place = Place::new();
    let owner = place.owner("me");
    let before = std::fs::read(&owner.identity).unwrap();
    let (code, said) = camvault(&["keygen", "--out", &owner.identity]);
    assert_eq!(code, 1);
    assert!(text(&said["error"]).contains(&owner.identity), "{said}");
    assert_eq!(std::fs::read(&owner.identity).unwrap(), before);

    let vault = ["enroll", "--vault", &place.server.url];
    let leaf = number(&owner.done(&vault)["leaf"]);
    assert_eq!(number(&owner.done(&vault)["leaf"]), leaf);
    assert_ne!(number(&place.owner("other").done(&vault)["leaf"]), leaf);
}

#[test]
fn a_film_goes_in_and_comes_out() {
    let place = Place::new();
    let (owner, other) = (place.owner("me"), place.owner("other"));
    let (film, url) = (place.film("film.mp4", SCENE), place.url("film"));
    let put = owner.done(&["put", &film, &url]);
    assert!(number(&put["new_bytes"]) > 50_000, "{put}");

    let list = owner.done(&["ls", &place.server.url]);
    let entry = &list[0];
    assert_eq!(entry["name"], "film");
    let start: jiff::Timestamp = text(&entry["start_utc"]).parse().unwrap();
    let age = jiff::Timestamp::now().duration_since(start);
    assert!((0..120).contains(&age.as_secs()), "{start}");
    let seconds = number(&entry["duration_ns"]) as f64 / 1e9;
    assert!((5.9..6.2).contains(&seconds), "{seconds}");
    let tracks: Vec<String> = entry["tracks"]
        .as_array()
        .unwrap()
        .iter()
        .map(text)
        .collect();
    assert!(
        tracks.iter().any(|t| t.starts_with("video/x-h264")),
        "{tracks:?}"
    );
    assert!(
        tracks.iter().any(|t| t.starts_with("audio/mpeg")),
        "{tracks:?}"
    );
    assert!(number(&entry["bytes"]) > 50_000);

    for name in ["out.mp4", "out.mkv", "out.ts"] {
        let out = place.at(name);
        owner.done(&["get", &url, "--out", &out]);
        assert_eq!(packets(&out), packets(&film), "{name}");
        assert_eq!(pictures(&out), pictures(&film), "{name}: not re-encoded");
        let codecs = ffprobe(&["-show_entries", "stream=codec_name"], &out);
        assert!(
            codecs.contains("h264") && codecs.contains("aac"),
            "{codecs}"
        );
        let left = Path::new(&out).with_file_name(format!("{name}.part"));
        assert!(!left.exists());
    }
    let types = ["-select_streams", "v:0", "-show_entries", "frame=pict_type"];
    assert_eq!(
        ffprobe(&types, &place.at("out.mp4")),
        ffprobe(&types, &film)
    );
    assert!(ffprobe(&types, &film).contains('B'));

    let out = place.at("part.mp4");
    owner.done(&["get", &format!("{url}?from=2&to=4"), "--out", &out]);
    let part = packets(&out);
    assert!((49..=56).contains(&part), "{part}");

    let late = owner.fails(&[
        "get",
        &format!("{url}?from=100"),
        "--out",
        &place.at("late.mp4"),
    ]);
    assert!(late.1.contains("nothing was recorded"), "{late:?}");
    assert!(!Path::new(&place.at("late.mp4")).exists());

    let stats = camvault(&["stats", &place.server.url]).1;
    for (what, least) in [
        ("bytes_logical", 50_000),
        ("bytes_stored", 50_000),
        ("chunks", 6),
        ("variants", 6),
        ("blobs", 6),
        ("recordings", 1),
        ("owners", 2),
    ] {
        assert!(number(&stats[what]) >= least, "{what}: {stats}");
    }

    // Another owner's copy costs nothing; a second file is put behind.
    let put = other.done(&["put", &film, &url]);
    let (new, all) = (number(&put["new_bytes"]), number(&put["duplicate_bytes"]));
    assert!(new * 100 < all, "{put}");
    let second = place.film("second.mp4", "testsrc=size=320x180:rate=25");
    other.done(&["put", &second, &film, &url]);
    let list = other.done(&["ls", &place.server.url]);
    let seconds = number(&list[0]["duration_ns"]) as f64 / 1e9;
    assert!((17.5..60.0).contains(&seconds), "{seconds}");
    let out = place.at("three.mkv");
    other.done(&["get", &url, "--out", &out]);
    assert_eq!(packets(&out), 2 * packets(&film) + packets(&second));
    other.done(&["verify", &url]);
}

/// Streams recorded in one form come out in the other, and every container says what it cannot do.
#[test]
fn containers() {
    let place = Place::new();
    let owner = place.owner("me");
    let x265 = "libx265 -x265-params log-level=error:pools=1";
    for (name, code, endings) in [
        ("h264.ts", "libx264", &["mp4", "mkv", "ts"][..]),
        ("h265.ts", x265, &["mp4", "mkv", "ts"]),
        ("h265.mp4", x265, &["ts"]),
        ("mjpeg.mkv", "mjpeg", &["mkv"]),
        ("vp8.webm", "libvpx", &["mkv"]),
    ] {
        let (film, url) = (place.at(name), place.url(name));
        let scene = format!("-f lavfi -i {SCENE} -t 2 -pix_fmt yuv420p -c:v {code}");
        ffmpeg(&scene, Path::new(&film));
        owner.done(&["put", &film, &url]);
        for ending in ["mp4", "mkv", "ts"] {
            let out = place.at(&format!("out {name}.{ending}"));
            let get = ["get", &url, "--out", &out];
            if endings.contains(&ending) {
                owner.done(&get);
                assert_eq!(pictures(&out), pictures(&film), "{out}");
            } else if endings.len() == 1 && name != "h265.mp4" {
                let (code, said) = owner.fails(&get);
                assert!(code == 1 && said.contains("another ending"), "{said}");
                assert!(!Path::new(&out).exists());
            }
        }
    }
    // The stream changes in the middle.
    let (small, url) = (place.at("h264.ts"), place.url("mixed"));
    let large = place.film("large.mp4", "testsrc=size=640x360:rate=25");
    owner.done(&["put", &small, &large, &url]);
    let out = place.at("mixed.ts");
    owner.done(&["get", &url, "--out", &out]);
    assert_eq!(packets(&out), packets(&small) + packets(&large));
    let out = place.at("mixed.mp4");
    owner.done(&["get", &url, "--out", &out]);
    assert_eq!(packets(&out), packets(&small) + packets(&large));
    let (_, said) = owner.fails(&["get", &url, "--out", &place.at("mixed.mkv")]);
    assert!(said.contains("changes in the middle"), "{said}");
    // Bytes stay bytes.
    let (bytes, out) = (place.at("bytes"), place.at("bytes.mp4"));
    std::fs::write(&bytes, blake3::hash(b"x").as_bytes().repeat(5000)).unwrap();
    owner.done(&["put", &bytes, &place.url("bytes")]);
    owner.done(&["get", &place.url("bytes"), "--out", &out]);
    assert!(std::fs::read(&bytes).unwrap() == std::fs::read(&out).unwrap());
    // So do those that only begin as media do: with a mark that no parser here can use, …
    let noise = blake3::hash(b"noise").as_bytes().repeat(20_000);
    let noise: Vec<u8> = noise.iter().map(|byte| byte & 0x7f).collect();
    let adts = |len: u32| {
        let head = 0xff_f150_8000_00fc_u64 | u64::from(len) << 13 | 0x1f00;
        head.to_be_bytes()[1..].to_vec()
    };
    // … or with two frames of sound.
    let frames = [&adts(400)[..], &noise[..393], &adts(400), &noise].concat();
    for (name, content) in [("mark", [b"ADIF", &noise[..]].concat()), ("frames", frames)] {
        let url = place.url(name);
        std::fs::write(&bytes, &content).unwrap();
        owner.done(&["put", &bytes, &url]);
        let (out, said) = (place.at("back"), owner.done(&["verify", &url]));
        owner.done(&["get", &url, "--out", &out]);
        assert!(content == std::fs::read(&out).unwrap(), "{name}: {said}");
    }
    std::fs::write(&bytes, "").unwrap();
    let (_, said) = owner.fails(&["put", &bytes, &place.url("bytes")]);
    assert!(said.contains("empty"), "{said}");
}

#[test]
fn nothing_is_left_of_what_does_not_work() {
    let mut place = Place::new();
    let owner = place.owner("me");
    let (film, url) = (place.film("film.mp4", SCENE), place.url("film"));
    owner.done(&["put", &film, &url]);
    let files = || {
        let mut names: Vec<_> = std::fs::read_dir(place.dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let before = files();
    for name in ["film.avi", "film", "film.txt"] {
        let (code, said) = owner.fails(&["get", &url, "--out", &place.at(&format!("out-{name}"))]);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(".mp4, .mkv or .ts"), "{said}");
    }
    let (code, said) = owner.fails(&["get", &url, "--out", &place.at("none/film.mp4")]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("none"), "{said}");
    let (code, _) = owner.fails(&["get", &place.url("gone"), "--out", &place.at("gone.mp4")]);
    assert_eq!(code, 6);
    let (code, said) = owner.fails(&["put", &place.at("nothing"), &url]);
    assert_eq!(code, 1);
    assert!(said.contains("nothing"), "{said}");
    assert_eq!(files(), before);

    // A stranger.
    let stranger = Owner {
        identity: place.at("stranger"),
        public: String::new(),
    };
    camvault(&["keygen", "--out", &stranger.identity]);
    let out = place.at("out.mp4");
    for command in [
        &["ls", &place.server.url][..],
        &["put", &film, &url],
        &["get", &url, "--out", &out],
        &["verify", &url],
        &["forget", &url],
        &["share", &url, "--to", &owner.public],
    ] {
        let (code, said) = stranger.fails(command);
        assert_eq!(code, 5, "{command:?}: {said}");
        assert!(said.contains("camvault enroll"), "{command:?}: {said}");
    }
    // Wrong usage.
    for command in [
        &["ls"][..],
        &["ls", "nonsense"],
        &["frobnicate"],
        &["verify", "camvault://h/x?since=1"],
        &["verify", "http://h/x"],
        &["share", &url, "--to", "me"],
        &["put", &film, &url, "--verify", "never"],
        &["put", &film, &url, "--unit", "frames"],
    ] {
        assert_eq!(owner.runs(command).0, 2, "{command:?}");
    }
    let (code, said) = camvault(&["verify", &url, "--identity", &place.at("no.id")]);
    assert_eq!(code, 1);
    assert!(text(&said["error"]).contains("no.id"), "{said}");

    place.server.kill();
    for command in [
        &["ls", &place.server.url][..],
        &["get", &url, "--out", &out],
        &["verify", &url],
        &["forget", &url],
        &["put", &film, &url],
        &["enroll", "--vault", &place.server.url],
    ] {
        let (code, said) = owner.fails(command);
        assert_eq!(code, 4, "{command:?}: {said}");
        assert!(said.contains("camvault serve"), "{command:?}: {said}");
    }
    assert_eq!(camvault(&["stats", &place.server.url]).0, 4);
    assert_eq!(camvault(&["scrub", &place.server.url]).0, 4);
    assert!(!Path::new(&out).exists());
}

#[test]
fn shared_and_forgotten() {
    let place = Place::new();
    let (owner, other) = (place.owner("me"), place.owner("other"));
    let reader = place.owner("reader");
    let (film, url) = (place.film("film.mp4", SCENE), place.url("film"));
    owner.done(&["put", &film, &url]);
    other.done(&["put", &film, &url]);

    assert_eq!(reader.fails(&["verify", &url]).0, 6);
    owner.done(&["share", &url, "--to", &reader.public]);
    let list = reader.done(&["ls", &place.server.url]);
    assert_eq!(list[0]["name"], "film");
    assert!(list[0]["shared_by"].is_string(), "{list}");
    reader.done(&["verify", &url]);
    let out = place.at("shared.mp4");
    reader.done(&["get", &url, "--out", &out]);
    assert_eq!(packets(&out), packets(&film));
    owner.done(&["share", &url, "--to", &reader.public, "--revoke"]);
    let (code, said) = reader.fails(&["verify", &url]);
    assert!(code == 5 || code == 6, "{code}: {said}");
    assert_eq!(
        reader.done(&["ls", &place.server.url]),
        serde_json::json!([])
    );

    owner.done(&["forget", &url]);
    assert_eq!(owner.fails(&["verify", &url]).0, 6);
    assert_eq!(owner.fails(&["forget", &url]).0, 6);
    assert_eq!(owner.fails(&["share", &url, "--to", &reader.public]).0, 6);
    other.done(&["verify", &url]);
    other.done(&["forget", &url]);
    let stats = camvault(&["stats", &place.server.url]).1;
    assert_eq!(stats["recordings"], 0);
}

#[test]
fn damage_is_found() {
    let mut place = Place::new();
    let owner = place.owner("me");
    let (film, url) = (place.film("film.mp4", SCENE), place.url("film"));
    owner.done(&["put", &film, &url]);
    owner.done(&["verify", &url]);
    let (code, report) = camvault(&["scrub", &place.server.url]);
    assert_eq!(code, 0, "{report}");

    let all = blobs(&place.data());
    let largest = all
        .iter()
        .max_by_key(|p| p.metadata().unwrap().len())
        .unwrap();
    let good = std::fs::read(largest).unwrap();
    let mut bad = good.clone();
    bad[100] ^= 1;
    std::fs::write(largest, bad).unwrap();
    let (code, report) = owner.runs(&["verify", &url]);
    assert_eq!(code, 3, "{report}");
    assert!(text(&report["errors"][0]).contains("segment 0"), "{report}");
    let (code, said) = owner.fails(&["get", &url, "--out", &place.at("out.mp4")]);
    assert_eq!(code, 3, "{said}");
    assert!(!Path::new(&place.at("out.mp4")).exists());
    std::fs::write(largest, good).unwrap();
    owner.done(&["verify", &url]);

    std::fs::remove_file(largest).unwrap();
    let (code, report) = camvault(&["scrub", &place.server.url]);
    assert_eq!(code, 3);
    assert_eq!(report["missing"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(owner.runs(&["verify", &url]).0, 3);
    place.server.terminate();
    place.server.child.wait().unwrap();
    let data = place.at("data");
    assert_eq!(camvault(&["scrub", &data]).0, 3);

    // What nobody spoiled, without a server.
    let place = Place::new();
    place.owner("me").done(&["put", &film, &place.url("film")]);
    place.server.terminate();
    let data = place.at("data");
    assert_eq!(place.server.exit_code(), Some(0));
    let (code, report) = camvault(&["scrub", &data]);
    assert_eq!(code, 0, "{report}");
    let none = place.dir.path().join("none");
    let (code, said) = camvault(&["scrub", &none.display().to_string()]);
    assert_ne!(code, 0, "{said}");
    assert!(text(&said["error"]).contains("none"), "{said}");
    assert!(!none.exists(), "scrub makes no vault");
}
