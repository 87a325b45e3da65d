// SPDX-License-Identifier: MPL-2.0
//! A camera's life with a gateway, as its owner runs it: contract, sealed stream, retrieval,
//! forgetting.

mod common;

use common::serve::Program;
use common::{Pipeline, camvault, ffmpeg};
use gstcamvault::identity::Identity;
use gstcamvault::protocol::NAME_INFO;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(180);
const FRAMES: usize = 30;
const SIZE: usize = 320 * 240 * 3 / 2;
/// 20 frames a second, and tickets of a second.
const SCENE: &str = "videotestsrc pattern=zone-plate kx2=6 ky2=4 kt=2 num-buffers=30 \
    ! video/x-raw,format=I420,width=320,height=240,framerate=20/1";

/// A vault with a third party, and a gateway that archives there.
struct World {
    vault: Program,
    gateway: Program,
    dir: tempfile::TempDir,
}

impl World {
    fn new(encoder: &str) -> Self {
        common::init();
        let dir = tempfile::tempdir().unwrap();
        let vault = Program::start(&dir.path().join("vault"), &[]);
        let url = vault.url.clone();
        let arguments = ["--role", "gateway", "--paillier-bits", "2048"];
        let places = ["--ttp", &url, "--vault", &url, "--encoder", encoder];
        let ports = ["--sealed-listen", "127.0.0.1:0"];
        let arguments = [&arguments[..], &places, &ports].concat();
        let gateway = Program::start(&dir.path().join("gateway"), &arguments);
        let world = Self {
            vault,
            gateway,
            dir,
        };
        let identity = world.at("owner.id");
        assert_eq!(camvault(&["keygen", "--out", &identity]).0, 0);
        world
    }

    fn at(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn owner(&self, arguments: &[&str]) -> (i32, Value) {
        camvault(&[arguments, &["--identity", &self.at("owner.id")]].concat())
    }

    fn contract(&self, more: &[&str]) -> (i32, Value) {
        let out = self.at("camera.contract");
        let make = ["contract", "--gateway", &self.gateway.url, "--out", &out];
        let numbers = ["--name", "back door", "--ticket", "1"];
        self.owner(&[&make[..], &numbers, more].concat())
    }

    fn retrieve(&self, more: &[&str]) -> (i32, Value) {
        let contract = self.at("camera.contract");
        let get = ["retrieve", &self.gateway.url, "--contract", &contract];
        self.owner(&[&get[..], more].concat())
    }

    /// Sends the clip, and waits until it is archived. Its raw frames are the answer.
    fn send(&self, port: u64) -> Vec<u8> {
        let [raw, contract, identity] =
            ["raw", "camera.contract", "owner.id"].map(|name| self.at(name));
        Pipeline::launch(&format!(
            "{SCENE} ! tee name=t ! queue ! filesink location={raw} \
             t. ! queue ! dmqimmark ttp={} contract={contract} identity={identity} \
             ! tcpclientsink host=127.0.0.1 port={port}",
            self.vault.url
        ))
        .run(LONG)
        .unwrap();
        for _ in 0..600 {
            let (code, list) = self.retrieve(&["--list"]);
            assert_eq!(code, 0, "{list}");
            if list[0]["live"] == false {
                let raw = std::fs::read(raw).unwrap();
                assert_eq!(raw.len(), FRAMES * SIZE);
                return raw;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("nothing was archived");
    }
}

/// The frames of a y4m file, without what is around them.
fn frames(file: &str) -> Vec<u8> {
    let bytes = std::fs::read(file).unwrap();
    let head = bytes.iter().position(|&b| b == b'\n').unwrap();
    let line = String::from_utf8_lossy(&bytes[..head]).into_owned();
    assert_eq!(line, "YUV4MPEG2 W320 H240 F20:1 Ip A1:1 C420jpeg");
    let all = bytes[head + 1..].chunks(SIZE + 6);
    all.flat_map(|frame| frame.strip_prefix(b"FRAME\n").unwrap().to_vec())
        .collect()
}

fn psnr(a: &[u8], b: &[u8]) -> f64 {
    let squares = a.iter().zip(b);
    let squares = squares.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    10.0 * (255.0 * 255.0 * a.len() as f64 / squares.sum::<f64>()).log10()
}

#[test]
fn without_loss_the_frames_that_came_come_back() {
    let world = World::new("lossless");
    let (code, made) = world.contract(&["--loss", "0", "--per-block", "5"]);
    assert_eq!(code, 0, "{made}");
    let raw = world.send(made["streams_port"].as_u64().unwrap());
    let out = world.at("all.y4m");
    let (code, said) = world.retrieve(&["--exact", "--out", &out]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(said["exact_frames"], 30);
    assert!(frames(&out) == raw, "bit for bit");
}

#[test]
fn footage_comes_back_bit_for_bit_and_is_forgotten() {
    let mut world = World::new("lossless");
    let (code, made) = world.contract(&[]);
    assert_eq!(code, 0, "{made}");
    let port = made["streams_port"].as_u64().unwrap();
    let (cloud, third) = (
        made["cloud"].as_str().unwrap(),
        made["ttp"].as_str().unwrap(),
    );
    assert_eq!(world.contract(&[]).0, 1, "a contract is never overwritten");
    // The name is the owner's own.
    let text = std::fs::read_to_string(world.at("camera.contract")).unwrap();
    let signed = gstcamvault::protocol::Signed::from_text::<gstcamvault::protocol::Contract>(&text);
    let agreed = gstcamvault::protocol::Agreed::check(signed.unwrap()).unwrap();
    let owner = Identity::load(Path::new(&world.at("owner.id"))).unwrap();
    let name = owner.open(NAME_INFO, &agreed.contract.name).unwrap();
    assert_eq!(name.as_slice(), b"back door");
    // Somebody else answers.
    let out = world.at("other.contract");
    let make = ["contract", "--gateway", &world.gateway.url, "--out", &out];
    let make = [&make[..], &["--name", "x"]].concat();
    for (more, expected) in [
        (["--cloud-id", third], 3),
        (["--ttp-id", cloud], 3),
        (["--step", "99"], 2),
        (["--density", "1000"], 2),
        (["--threshold", "64"], 2),
        (["--per-block", "6"], 2),
        (["--loss", "16"], 2),
        (["--ttp-id", third], 0),
    ] {
        let (code, said) = world.owner(&[&make[..], &more].concat());
        assert_eq!(code, expected, "{more:?}: {said}");
    }
    let (code, said) = world.retrieve(&["--out", &world.at("early.y4m")]);
    assert_eq!(code, 6, "{said}");

    let raw = world.send(port);
    let out = world.at("all.y4m");
    let (code, said) = world.retrieve(&["--exact", "--out", &out]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(
        (&said["frames"], &said["exact_frames"]),
        (&30.into(), &30.into())
    );
    // What was sealed, bit for bit: that is a little off what came.
    let sealed = frames(&out);
    let off = psnr(&raw, &sealed);
    println!("sealed at {off:.1} dB");
    assert!(sealed != raw && off > 40.0, "{off}");

    // A part, across two tickets, in both modes.
    let part = ["--from", "0.9", "--to", "1.1"];
    let out = world.at("part.y4m");
    let (code, said) = world.retrieve(&[&part[..], &["--out", &out]].concat());
    assert_eq!(code, 0, "{said}");
    assert!(frames(&out) == sealed[18 * SIZE..23 * SIZE]);
    let packed = ["--mode", "packed", "--bits", "2048", "--exact"];
    let out = world.at("packed.y4m");
    let (code, said) = world.retrieve(&[&part[..], &packed, &["--out", &out]].concat());
    assert_eq!(code, 0, "{said}");
    assert!(frames(&out) == sealed[18 * SIZE..23 * SIZE]);

    // Other kinds of file hold the same pictures.
    for ending in ["mkv", "mp4", "ts"] {
        let out = world.at(&format!("all.{ending}"));
        let (code, said) = world.retrieve(&["--out", &out]);
        assert_eq!(code, 0, "{said}");
        let decoded = world.at("decoded");
        ffmpeg(
            &format!("-i {out} -f rawvideo -pix_fmt yuv420p"),
            Path::new(&decoded),
        );
        assert!(std::fs::read(decoded).unwrap() == sealed, "{ending}");
    }
    for (more, expected) in [
        (&["--out", "x.avi"][..], 2),
        (&["--archive", "none", "--out", "x.y4m"], 6),
        (&["--archive", "../x", "--out", "x.y4m"], 6),
        (&["--from", "100", "--out", "x.y4m"], 6),
        (&["--mode", "packed", "--bits", "1000", "--out", "x.y4m"], 2),
        (&[], 2),
    ] {
        let (code, said) = world.retrieve(more);
        assert_eq!(code, expected, "{more:?}: {said}");
    }
    assert!(!Path::new("x.y4m").exists() && !Path::new("x.y4m.part").exists());
    // Not the owner.
    let other = world.at("other.id");
    camvault(&["keygen", "--out", &other]);
    let contract = world.at("camera.contract");
    let get = ["retrieve", &world.gateway.url, "--contract", &contract];
    let get = [&get[..], &["--list", "--identity", &other]].concat();
    assert_eq!(camvault(&get).0, 1);

    let receipt = world.at("receipt");
    let forget = ["forget", "--contract", &contract, "--receipt", &receipt];
    assert_eq!(world.owner(&forget).0, 2, "who is to forget it?");
    let forget = [&forget[..], &["--gateway", &world.gateway.url]].concat();
    let (code, said) = world.owner(&forget);
    assert_eq!(code, 0, "{said}");
    assert_eq!(
        (&said["gateway_told"], &said["tickets"]),
        (&true.into(), &said["tickets"])
    );
    assert_eq!(world.retrieve(&["--list"]).0, 6);
    assert_eq!(camvault(&["stats", &world.vault.url]).1["recordings"], 0);
    // Again, for another copy of the receipt.
    let again = world.at("receipt 2");
    let gateway = &world.gateway.url;
    let forget = ["forget", "--contract", &contract, "--receipt", &again];
    let (code, said) = world.owner(&[&forget[..], &["--gateway", gateway]].concat());
    assert_eq!(code, 0, "{said}");
    assert!(std::fs::read(again).unwrap() == std::fs::read(receipt).unwrap());
    world.gateway.kill();
    assert_eq!(world.retrieve(&["--list"]).0, 4);
}

#[test]
fn a_compressed_archive_comes_back_as_well_as_it_is_and_says_so() {
    let world = World::new("x264");
    let (code, made) = world.contract(&[]);
    assert_eq!(code, 0, "{made}");
    let raw = world.send(made["streams_port"].as_u64().unwrap());
    let out = world.at("all.y4m");
    let (code, said) = world.retrieve(&["--exact", "--out", &out]);
    assert_eq!(code, 3, "{said}");
    assert!(!Path::new(&out).exists());
    let (code, said) = world.retrieve(&["--out", &out]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(said["exact_frames"], 0);
    let got = frames(&out);
    let psnr = psnr(&raw, &got);
    println!("{psnr:.1} dB");
    assert!(psnr > 35.0, "{psnr}");
}
