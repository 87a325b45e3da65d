// SPDX-License-Identifier: MPL-2.0
//! Real clips come back bit for bit, among them some that the camera itself has signed.

mod common;

use common::{Pipeline, TestVault, camvault, units_at};
use gst::prelude::*;
use std::path::Path;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// Hashes and times of a file's video as the parser delivers it.
fn parsed(file: &Path) -> Vec<common::Unit> {
    // A parsebin with the same caps behind it as `rcededuppay` asks for.
    let pipeline = Pipeline::launch(&format!(
        "filesrc location={} ! parsebin ! rcededuppay name=pay ! fakesink",
        file.display()
    ));
    let units = units_at(&pipeline.element("pay").static_pad("sink").unwrap());
    pipeline.run(MINUTE).unwrap();
    units.lock().unwrap().clone()
}

fn played(url: &str, identity: &str) -> Vec<common::Unit> {
    let pipeline = Pipeline::launch(&format!(
        "dedupsrc uri={url} identity={identity} ! fakesink name=end"
    ));
    let units = units_at(&pipeline.element("end").static_pad("sink").unwrap());
    pipeline.run(MINUTE).unwrap();
    units.lock().unwrap().clone()
}

#[test]
fn clips_come_back_bit_for_bit() {
    let Some(folder) = common::footage() else {
        return;
    };
    let vault = TestVault::start();
    let owner = vault.owner("owner").display().to_string();
    let mut clips = 0;
    for file in std::fs::read_dir(folder)
        .unwrap()
        .map(|f| f.unwrap().path())
    {
        if !file.extension().is_some_and(|e| e == "mp4" || e == "mkv") {
            continue;
        }
        let url = vault.recording(file.file_stem().unwrap().to_str().unwrap());
        assert_eq!(
            camvault(&[
                "put",
                "--identity",
                &owner,
                &file.display().to_string(),
                &url
            ])
            .0,
            0
        );
        let (before, after) = (parsed(&file), played(&url, &owner));
        assert!(
            before.len() > 50,
            "{}: {} units",
            file.display(),
            before.len()
        );
        assert_eq!(before.len(), after.len(), "{}", file.display());
        for (i, (before, after)) in before.iter().zip(&after).enumerate() {
            assert_eq!(before, after, "{}: unit {i}", file.display());
        }
        let (code, report) = camvault(&["verify", "--identity", &owner, &url]);
        assert_eq!(
            (code, report["errors"].as_array().map(Vec::len)),
            (0, Some(0))
        );
        clips += 1;
    }
    assert!(clips > 0, "no clips in the footage folder");
}
