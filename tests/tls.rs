// SPDX-License-Identifier: MPL-2.0
//! A vault over TLS, and enrolment with a token.

mod common;

use common::serve::Program;
use common::{camvault, camvault_with, ffmpeg};
use std::path::Path;

const FILM: &str =
    "-f lavfi -i testsrc=size=320x180:rate=25 -t 3 -pix_fmt yuv420p -c:v libx264 -g 25";

struct Place {
    server: Program,
    dir: tempfile::TempDir,
}

impl Place {
    /// With a certificate of its own for a name.
    fn tls(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let (cert, key) = (cert.display().to_string(), key.display().to_string());
        let tls = ["--tls-cert", &cert, "--tls-key", &key];
        let server = Program::start(&dir.path().join("data"), &tls);
        Self { server, dir }
    }

    fn at(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn identity(&self, name: &str) -> String {
        let identity = self.at(name);
        assert_eq!(camvault(&["keygen", "--out", &identity]).0, 0);
        identity
    }
}

#[test]
fn recorded_and_played_over_tls() {
    let place = Place::tls("127.0.0.1");
    assert!(place.server.url.starts_with("https://"));
    let (me, cert) = (place.identity("me"), place.at("cert.pem"));
    let trusting = |arguments: &[&str]| {
        let (code, value) = camvault_with(arguments, &[("CAMVAULT_CA_FILE", &cert)]);
        assert_eq!(code, 0, "{arguments:?}: {value}");
        value
    };
    let vault = place.server.url.as_str();
    let url = format!("camvaults://{}/door", place.server.authority());
    trusting(&["enroll", "--vault", vault, "--identity", &me]);
    let (film, out) = (place.at("film.mp4"), place.at("out.mp4"));
    ffmpeg(FILM, Path::new(&film));
    trusting(&["put", "--identity", &me, &film, &url]);
    trusting(&["verify", "--identity", &me, &url]);
    trusting(&["get", "--identity", &me, &url, "--out", &out]);
    assert!(Path::new(&out).metadata().unwrap().len() > 10_000);
    let list = trusting(&["ls", "--identity", &me, vault]);
    assert_eq!(list[0]["name"], "door");
    assert_eq!(trusting(&["stats", vault])["recordings"], 1);
    trusting(&["scrub", vault]);

    // Who does not know the certificate is told what to do.
    let distrusts = |arguments: &[&str], environment: &[(&str, &str)], code: i32| {
        let (exit, value) = camvault_with(arguments, environment);
        assert_eq!(exit, code, "{arguments:?}: {value}");
        let said = value["error"].as_str().unwrap();
        assert!(said.contains("CAMVAULT_CA_FILE"), "{arguments:?}: {said}");
    };
    for command in [
        &["ls", "--identity", &me, vault][..],
        &["verify", "--identity", &me, &url],
        &["put", "--identity", &me, &film, &url],
        &["enroll", "--identity", &me, "--vault", vault],
        &["stats", vault],
        &["scrub", vault],
    ] {
        distrusts(command, &[], 4);
    }
    let none = [("CAMVAULT_CA_FILE", "/none.pem")];
    distrusts(&["stats", vault], &none, 1);
    distrusts(&["scrub", vault], &none, 1);
    std::fs::write(place.at("empty.pem"), "nothing").unwrap();
    let empty = place.at("empty.pem");
    distrusts(&["stats", vault], &[("CAMVAULT_CA_FILE", &empty)], 1);

    // In the clear nothing is said to it.
    let clear = vault.replacen("https", "http", 1);
    let (exit, _) = camvault_with(&["stats", &clear], &[]);
    assert_eq!(exit, 4);
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let place = Place::tls("vault.example");
    let cert = place.at("cert.pem");
    let environment = [("CAMVAULT_CA_FILE", cert.as_str())];
    let (exit, value) = camvault_with(&["stats", &place.server.url], &environment);
    assert_eq!(exit, 4, "{value}");
    assert!(value["error"].as_str().unwrap().contains("name"), "{value}");
}

#[test]
fn a_vault_that_others_reach_wants_its_token() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Program::listen("0.0.0.0:0", &data, &[]);
    let place = Place { server, dir };
    let vault = place.server.url.replacen("0.0.0.0", "127.0.0.1", 1);
    let me = place.identity("me");
    let enroll = ["enroll", "--vault", &vault, "--identity", &me];
    for token in [&[][..], &["--token", "wrong"], &["--token", ""]] {
        let (code, value) = camvault(&[&enroll[..], token].concat());
        assert_eq!(code, 5, "{token:?}: {value}");
        let said = value["error"].as_str().unwrap();
        assert!(said.contains("enroll.token"), "{token:?}: {said}");
    }
    assert_eq!(camvault(&["ls", "--identity", &me, &vault]).0, 5);
    let token = std::fs::read_to_string(data.join("secrets/enroll.token")).unwrap();
    let right = ["--token", token.trim()];
    assert_eq!(camvault(&[&enroll[..], &right].concat()).0, 0);
    assert_eq!(camvault(&["ls", "--identity", &me, &vault]).0, 0);
}
