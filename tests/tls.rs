// SPDX-License-Identifier: MPL-2.0
//! A vault over TLS, and enrolment with a token.

mod common;

use common::serve::Program;
use common::{camvault, camvault_with, ffmpeg, walk};
use std::path::Path;
use std::time::{Duration, Instant};

const FILM: &str =
    "-f lavfi -i testsrc=size=320x180:rate=25 -t 3 -pix_fmt yuv420p -c:v libx264 -g 25";

struct Place {
    server: Program,
    dir: tempfile::TempDir,
}

/// A certificate for a name, and its key.
fn certificate(dir: &Path, prefix: &str, name: &str) -> [String; 2] {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let files = ["cert.pem", "key.pem"].map(|file| dir.join(format!("{prefix}{file}")));
    std::fs::write(&files[0], made.cert.pem()).unwrap();
    std::fs::write(&files[1], made.signing_key.serialize_pem()).unwrap();
    files.map(|file| file.display().to_string())
}

impl Place {
    /// With a certificate of its own for a name.
    fn tls(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [cert, key] = certificate(dir.path(), "", name);
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

/// Each role in a process of its own with a certificate of its own: the metadata server speaks to
/// the storage server over TLS, too.
#[test]
fn two_roles_with_tls_between_them() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("link.secret").display().to_string();
    let start = |role: &str, more: &[&str], variables: &[(&str, &str)]| {
        let [cert, key] = certificate(dir.path(), role, "127.0.0.1");
        let own = ["--role", role, "--link-secret", &secret];
        let tls = ["--tls-cert", &cert, "--tls-key", &key];
        let arguments = [&own[..], &tls, more].concat();
        let data = dir.path().join(format!("{role} {}", variables.len()));
        Program::listen_with("127.0.0.1:0", &data, &arguments, variables)
    };
    let storage = start("storage", &[], &[]);
    assert!(storage.url.starts_with("https://"));
    let at_storage = ["--storage-url", &storage.url];
    let certificate_of = |role: &str| dir.path().join(format!("{role}cert.pem"));
    let trusted = certificate_of("storage").display().to_string();
    let server = start("metadata", &at_storage, &[("CAMVAULT_CA_FILE", &trusted)]);
    let both = ["storage", "metadata"].map(|role| std::fs::read(certificate_of(role)).unwrap());
    let bundle = dir.path().join("both.pem").display().to_string();
    std::fs::write(&bundle, both.concat()).unwrap();

    let blobs = dir.path().join("storage 0/blobs");
    let distrusting = start("metadata", &at_storage, &[]);
    let place = Place { server, dir };
    let (me, film, out) = (
        place.identity("me"),
        place.at("film.mp4"),
        place.at("out.mp4"),
    );
    let runs = |arguments: &[&str], file: &str| {
        let (code, value) = camvault_with(arguments, &[("CAMVAULT_CA_FILE", file)]);
        (code, value.to_string(), value)
    };
    let done = |arguments: &[&str]| {
        let (code, text, value) = runs(arguments, &bundle);
        assert_eq!(code, 0, "{arguments:?}: {text}");
        value
    };
    let vault = place.server.url.as_str();
    let url = format!("camvaults://{}/door", place.server.authority());
    done(&["enroll", "--vault", vault, "--identity", &me]);
    ffmpeg(FILM, Path::new(&film));
    let stored = || walk(&blobs).len() as u64;
    done(&["put", "--identity", &me, &film, &url]);
    assert_eq!(done(&["stats", vault])["blobs"], stored());
    assert!(stored() > 0);
    done(&["verify", "--identity", &me, &url]);
    done(&["get", "--identity", &me, &url, "--out", &out]);
    assert!(Path::new(&out).metadata().unwrap().len() > 10_000);
    // Both of these make the metadata server ask the storage server.
    assert_eq!(done(&["scrub", vault])["variants"], stored());
    done(&["forget", "--identity", &me, &url]);
    let until = Instant::now() + Duration::from_secs(20);
    while stored() > 0 {
        assert!(Instant::now() < until, "{} blobs are left", stored());
        std::thread::sleep(Duration::from_millis(100));
    }

    // A client that trusts one of them only is told so by the other.
    let (code, text, _) = runs(
        &["put", "--identity", &me, &film, &url],
        &place.at("metadatacert.pem"),
    );
    assert!(code == 4 && text.contains("CAMVAULT_CA_FILE"), "{text}");
    // As is the metadata server.
    let (code, text, _) = runs(&["scrub", &distrusting.url], &bundle);
    assert!(code != 0 && text.contains("CAMVAULT_CA_FILE"), "{text}");
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
