// SPDX-License-Identifier: MPL-2.0
//! `camvault migrate`: an embedded vault moves to PostgreSQL and a bucket, a third party to
//! PostgreSQL.

mod common;
#[path = "common/parties.rs"]
mod parties;
#[path = "common/postgres.rs"]
mod postgres;
#[path = "common/s3.rs"]
mod s3;

use common::serve::Program;
use common::{camvault_with, walk};
use gstcamvault::client::Ttp;
use gstcamvault::protocol::{Mode, TicketRequest};
use parties::Parties;
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
    for kept in ["metadata", "ttp"] {
        assert!(!data.join(kept).exists(), "{kept}");
        assert!(data.join(format!("{kept}.migrated")).exists(), "{kept}");
    }

    // Interrupted just before the end: it is served from neither place, and goes on.
    let aside = |kept: &str| data.join(format!("{kept}.migrated"));
    for kept in ["metadata", "ttp"] {
        std::fs::rename(aside(kept), data.join(kept)).unwrap();
    }
    let said = Program::refused(&data, &[]);
    assert!(said.contains("PostgreSQL"), "{said}");
    let said = Program::refused(&data, &["--metadata", &url]);
    assert!(said.contains("camvault migrate"), "{said}");
    let (code, answer) = move_to(&url);
    assert_eq!(code, 0, "{answer}");

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
    program.terminate();
    assert_eq!(program.exit_code(), Some(0));
    for put_back in [false, true] {
        if put_back {
            std::fs::rename(aside("metadata"), data.join("metadata")).unwrap();
        }
        let (code, answer) = move_to(&url);
        assert_eq!(code, 1, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_party_moves_and_goes_on() {
    let database = PostgresServer::start();
    let url = database.database("ttp");
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("ttp");
    let program = Program::start(&data, &["--role", "ttp"]);
    let parties = Parties::at(&program.url, 60_000).await;
    let agreed = &parties.agreed;
    let request = TicketRequest {
        contract: agreed.id.into(),
        mode: Mode::Oblivious,
        width: 640,
        height: 360,
        feature: Some(7),
        count: 1,
    };
    let key = parties.owner.contract_key(agreed).await.unwrap();
    let before = parties.owner.tickets(agreed, &key, &request).await.unwrap();
    assert_eq!(before[0].head.number, 0);
    program.terminate();
    assert_eq!(program.exit_code(), Some(0));

    // It is not begun anew in the database.
    let said = Program::refused(&data, &["--role", "ttp", "--metadata", &url]);
    assert!(said.contains("camvault migrate"), "{said}");

    let moved = ["migrate", text(&data), "--to-metadata", &url];
    let (code, answer) = camvault_with(&moved, &[]);
    assert_eq!(code, 0, "{answer}");
    assert!(answer["registry_rows"].as_u64().unwrap() > 5, "{answer}");
    let program = Program::start(&data, &["--role", "ttp", "--metadata", &url]);
    let owner = Ttp::connect(&program.url, parties.owner.identity().clone()).unwrap();
    assert_eq!(&owner.get_contract(&agreed.id).await.unwrap(), agreed);
    let after = owner.tickets(agreed, &key, &request).await.unwrap();
    assert_eq!(after[0].head.number, 1);
    let (deletion, _) = owner.delete(agreed).await.unwrap();
    assert_eq!((deletion.index, deletion.tickets), (0, 2));
    let ttp = *agreed.contract.ttp.sign;
    assert_eq!(owner.deletion_log(&ttp).await.unwrap(), [deletion]);
}
