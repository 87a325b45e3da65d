// SPDX-License-Identifier: MPL-2.0
//! The leak gate: what GStreamer's `leaks` tracer finds alive when a process has shut it down.

use std::process::Command;

const CHILD: &str = "CAMVAULT_TEST_CHILD";

/// Runs `work` in a process of its own, which the test `name` starts by running itself again, and
/// checks that nothing of GStreamer is alive at its end.
pub fn nothing_is_alive_after(name: &str, work: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some() {
        work();
        // SAFETY: nothing of GStreamer is used after it.
        unsafe { gst::deinit() };
        return;
    }
    let out = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .envs([
            (CHILD, "1"),
            ("GST_TRACERS", "leaks"),
            ("GST_DEBUG", "GST_TRACER:7"),
            ("GST_DEBUG_NO_COLOR", "1"),
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{text}");
    assert!(text.contains("GST_TRACER"), "the tracer spoke");
    let alive: Vec<_> = text
        .lines()
        .filter(|line| line.contains("TRACER :0:: object-alive,"))
        .collect();
    assert!(alive.is_empty(), "{alive:#?}");
}
