// SPDX-License-Identifier: MPL-2.0
//! Arbitration as its user runs it: a leaked clip, a third party as a process, a judge with nothing
//! but the third party's public identity.

mod common;
#[path = "common/parties.rs"]
mod parties;

use common::serve::Program;
use common::{Pipeline, camvault, ffmpeg};
use gstcamvault::identity::{Identity, PublicId};
use gstcamvault::protocol::{Contract, Signed, Verdict};
use parties::Parties;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(180);

struct World {
    ttp: Program,
    parties: Parties,
    _data: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        common::init();
        let data = tempfile::tempdir().unwrap();
        let ttp = Program::start(data.path(), &["--role", "ttp", "--search-time", "1"]);
        let runtime = gstcamvault::client::runtime().unwrap();
        let parties = runtime.block_on(Parties::at(&ttp.url, 60_000));
        Self {
            ttp,
            parties,
            _data: data,
        }
    }

    fn at(&self, name: &str) -> String {
        self.parties.file(name).display().to_string()
    }

    fn ttp_id(&self) -> String {
        PublicId::from(&self.parties.agreed.contract.ttp).to_string()
    }

    /// The scene as the cloud has it, through an encoder: `leak.mp4`; and without mark:
    /// `innocent.mp4`.
    fn film(&self) {
        let picture = self.at("scene.y4m");
        ffmpeg(
            "-f lavfi -i mandelbrot=size=640x360:rate=12 -t 2 -pix_fmt yuv420p",
            Path::new(&picture),
        );
        let source = format!("filesrc location={picture} ! y4mdec");
        let (mark, open) = (self.parties.mark(), self.parties.open());
        let encode = "videoconvert ! x264enc pass=qual quantizer=28 speed-preset=veryfast ! h264parse ! mp4mux";
        Pipeline::launch(&format!(
            "{source} ! {mark} ! {open} ! {encode} ! filesink location={}",
            self.at("leak.mp4")
        ))
        .run(LONG)
        .unwrap();
        Pipeline::launch(&format!(
            "{source} ! {encode} ! filesink location={}",
            self.at("innocent.mp4")
        ))
        .run(LONG)
        .unwrap();
    }

    fn arbitrate(&self, file: &str, out: &str, more: &[&str]) -> (i32, Value) {
        let (file, out) = (self.at(file), self.at(out));
        // Anyone registered may ask; the program registers.
        let (url, identity) = (&self.ttp.url, self.at("judge.id"));
        let arguments = ["arbitrate", &file, "--ttp", url, "--out", &out];
        camvault(&[&arguments[..], &["--identity", &identity], more].concat())
    }
}

#[test]
fn a_leaked_clip_is_named_and_the_verdict_stands_before_a_judge() {
    let world = World::new();
    world.film();
    let (code, _) = camvault(&["keygen", "--out", &world.at("judge.id")]);
    assert_eq!(code, 0);
    let contract = world.at("camera.contract");
    let id = gstcamvault::protocol::hex(&world.parties.agreed.id);

    let ttp_id = world.ttp_id();
    let (code, said) = world.arbitrate("leak.mp4", "leak", &["--ttp-id", &ttp_id]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(said["leak"]["contract"], id.as_str(), "{said}");
    assert!(said["leak"]["errors"].as_u64().unwrap() < 20, "{said}");
    assert_eq!(said["leak"]["deleted"], Value::Null);
    assert_eq!(said["bits"].as_array().unwrap().len(), 128);
    let left = |name: &str| world.parties.file("leak").join(name);
    for name in ["verdict.json", "suspect.png", "bits.svg", "contract.signed"] {
        assert!(left(name).metadata().unwrap().len() > 100, "{name}");
    }
    let json: Value =
        serde_json::from_slice(&std::fs::read(left("verdict.json")).unwrap()).unwrap();
    assert_eq!(json, said);
    let report = std::fs::read_to_string(left("report.html")).unwrap();
    assert!(
        report.contains(&id) && report.contains("suspect.png"),
        "{report}"
    );

    // A judge.
    let verdict = left("verdict.signed").display().to_string();
    let named = left("contract.signed").display().to_string();
    let leak = world.at("leak.mp4");
    let all = ["--ttp-id", &ttp_id, "--contract", &named, "--file", &leak];
    let check =
        |file: &str, more: &[&str]| camvault(&[&["verdict", "check", file][..], more].concat());
    let (code, said) = check(&verdict, &all);
    assert_eq!((code, &said["leak"]["contract"]), (0, &id.as_str().into()));
    assert_eq!(
        check(&verdict, &["--ttp-id", &ttp_id, "--contract", &contract]).0,
        0
    );
    let other = world.parties.owner.identity().public().to_string();
    assert_eq!(check(&verdict, &["--ttp-id", &other]).0, 3);
    let innocent = world.at("innocent.mp4");
    let wrong = ["--ttp-id", &ttp_id, "--file", &innocent];
    assert_eq!(check(&verdict, &wrong).0, 3);
    assert_eq!(check(&verdict, &[]).0, 2);
    // Changed: other numbers under the same signature, or signed by another.
    let text = std::fs::read_to_string(&verdict).unwrap();
    let good = Signed::from_text::<Verdict>(&text).unwrap();
    let mut changed: Verdict = good.unverified().unwrap();
    changed.leak.as_mut().unwrap().errors = 0;
    let forged = Signed::new(&changed).sign::<Verdict>(world.parties.owner.identity());
    let mut spoiled = text.trim_end().to_owned().into_bytes();
    let middle = spoiled.len() / 2;
    spoiled[middle] = if spoiled[middle] == b'A' { b'B' } else { b'A' };
    for text in [
        forged.to_text::<Verdict>(),
        String::from_utf8(spoiled).unwrap(),
        "nothing".into(),
        world.parties.agreed.signed.to_text::<Contract>(),
    ] {
        let file = world.at("changed.signed");
        std::fs::write(&file, text).unwrap();
        assert_eq!(check(&file, &["--ttp-id", &ttp_id]).0, 3);
    }
    // Another contract of the same parties is not the one that is named.
    let cloud = Identity::load(&world.parties.file("cloud.id")).unwrap();
    let mut contract: Contract = world.parties.agreed.signed.unverified().unwrap();
    contract.created_ms += 1;
    let signed = Signed::new(&contract)
        .sign::<Contract>(world.parties.owner.identity())
        .sign::<Contract>(&cloud);
    let runtime = gstcamvault::client::runtime().unwrap();
    let second = runtime
        .block_on(world.parties.owner.contract(signed))
        .unwrap();
    let file = world.at("second.contract");
    std::fs::write(&file, second.signed.to_text::<Contract>()).unwrap();
    assert_eq!(
        check(&verdict, &["--ttp-id", &ttp_id, "--contract", &file]).0,
        3
    );

    // No verdict is overwritten, and nobody else is taken for the third party.
    assert_eq!(world.arbitrate("leak.mp4", "leak", &[]).0, 1);
    let (code, said) = world.arbitrate("leak.mp4", "else", &["--ttp-id", &other]);
    assert_eq!(code, 3, "{said}");

    // Forgotten at the third party, and found all the same.
    let receipt = world.at("receipt");
    let camera = world.at("camera.contract");
    let owner = world.at("owner.id");
    let forget = ["forget", "--contract", &camera, "--ttp", &world.ttp.url];
    let forget = [&forget[..], &["--receipt", &receipt, "--identity", &owner]].concat();
    let (code, said) = camvault(&forget);
    assert_eq!(code, 0, "{said}");
    assert_eq!(said["gateway_told"], false);
    assert!(Path::new(&receipt).exists());
    assert_eq!(camvault(&forget).0, 1, "the receipt is not overwritten");
    let (code, said) = world.arbitrate("leak.mp4", "again", &["--contract", &camera]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(said["leak"]["deleted"]["index"], 0);

    // No mark.
    let (code, said) = world.arbitrate("innocent.mp4", "innocent", &[]);
    assert_eq!((code, &said["named"]), (3, &false.into()), "{said}");
    let left = |name: &str| world.parties.file("innocent").join(name);
    assert!(left("report.html").exists() && !left("contract.signed").exists());
    let verdict = left("verdict.signed").display().to_string();
    assert_eq!(
        check(&verdict, &["--ttp-id", &ttp_id, "--file", &innocent]).0,
        0
    );
    assert_eq!(
        check(&verdict, &["--ttp-id", &ttp_id, "--contract", &named]).0,
        3
    );

    // What is no video, and nobody there.
    std::fs::write(world.at("text.mp4"), "nothing to see").unwrap();
    assert_eq!(world.arbitrate("text.mp4", "text", &[]).0, 1);
    let mut world = world;
    world.ttp.kill();
    assert_eq!(world.arbitrate("leak.mp4", "away", &[]).0, 4);
}

#[test]
fn paillier_keys_are_files_of_their_user_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cloud.paillier").display().to_string();
    let make = ["keygen", "--paillier", "--bits", "2048", "--out", &file];
    let (code, said) = camvault(&make);
    assert_eq!((code, &said["bits"]), (0, &2048.into()), "{said}");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let key = gstcamvault::homomorphic::packed::read_secret_key(Path::new(&file)).unwrap();
    assert_eq!(key.public().modulus_bits(), 2048);
    assert_eq!(camvault(&make).0, 1, "never overwritten");
    let other = dir.path().join("small").display().to_string();
    let small = ["keygen", "--paillier", "--bits", "1024", "--out", &other];
    assert_eq!(camvault(&small).0, 1);
    assert_eq!(
        camvault(&["keygen", "--bits", "2048", "--out", &other]).0,
        2
    );
    assert!(!Path::new(&other).exists());
}
