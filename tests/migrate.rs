// SPDX-License-Identifier: MPL-2.0
//! `camvault migrate`: an embedded vault moves to PostgreSQL and a bucket.

mod common;
#[path = "common/postgres.rs"]
mod postgres;
#[path = "common/s3.rs"]
mod s3;

use common::serve::Program;
use common::{camvault_with, walk};
use postgres::PostgresServer;
use s3::{Service, VARIABLES};
use std::path::Path;

const BLOBS: &str = "s3://vault/moved";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_vault_moves_to_engines_and_is_served_from_there() {
    let (service, database) = (Service::start(), PostgresServer::start());
    let url = database.database("vault");
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (data, me, file) = (at("vault"), at("me.id"), at("in.bin"));
    let content: String = (0..400_000).map(|i| format!("line {i}\n")).collect();
    std::fs::write(&file, &content).unwrap();
    let owner = |arguments: &[&str]| {
        let all = [arguments, &["--identity", text(&me)]].concat();
        let (code, answer) = camvault_with(&all, &[]);
        assert_eq!(code, 0, "{arguments:?}: {answer}");
        answer
    };
    assert_eq!(camvault_with(&["keygen", "--out", text(&me)], &[]).0, 0);
    let program = Program::start(&data, &[]);
    let vault = format!("http://{}", program.authority());
    owner(&["enroll", "--vault", &vault]);
    let recording =
        |program: &Program, name: &str| format!("camvault://{}/{name}", program.authority());
    owner(&["put", text(&file), &recording(&program, "one")]);
    owner(&["put", text(&file), &recording(&program, "two")]);

    // Not while it is served.
    let move_to = |metadata: &str| {
        let places = ["--to-metadata", metadata, "--to-blobs", BLOBS];
        let endpoint = ["--to-s3-endpoint", &service.url()];
        let arguments = [&["migrate", text(&data)], &places[..], &endpoint].concat();
        camvault_with(&arguments, &VARIABLES)
    };
    let (code, answer) = move_to(&url);
    assert_eq!(code, 1, "{answer}");
    program.terminate();
    assert_eq!(program.exit_code(), Some(0));

    let (code, answer) = move_to(&url);
    assert_eq!(code, 0, "{answer}");
    assert_eq!(answer["missing"].as_array().unwrap().len(), 0);
    assert_eq!(answer["blobs_copied"], answer["variants"], "{answer}");
    assert_eq!(answer["counts_mended"], 0, "{answer}");
    assert!(!data.join("metadata").exists() && data.join("metadata.migrated").exists());

    // Served from the new places, it has all.
    for blob in walk(&data.join("blobs")) {
        std::fs::remove_file(blob).unwrap();
    }
    let endpoint = service.url();
    let places = [
        "--metadata",
        &url,
        "--blobs",
        BLOBS,
        "--s3-endpoint",
        &endpoint,
    ];
    let program = Program::listen_with("127.0.0.1:0", &data, &places, &VARIABLES);
    let out = at("out.bin");
    owner(&["verify", &recording(&program, "two")]);
    owner(&["get", &recording(&program, "one"), "--out", text(&out)]);
    assert!(std::fs::read(&out).unwrap() == content.as_bytes());
    // A third copy adds nothing, a forgotten one goes.
    let stored = |program: &Program| {
        let vault = format!("http://{}", program.authority());
        camvault_with(&["stats", &vault], &[]).1["bytes_stored"]
            .as_u64()
            .unwrap()
    };
    let before = stored(&program);
    owner(&["put", text(&file), &recording(&program, "three")]);
    assert_eq!(stored(&program), before);
    owner(&["forget", &recording(&program, "one")]);
    owner(&["verify", &recording(&program, "three")]);
    // What is there is not written over.
    let (code, answer) = move_to(&url);
    assert_eq!(code, 1, "{answer}");
}
