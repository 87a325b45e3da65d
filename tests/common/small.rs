// SPDX-License-Identifier: MPL-2.0
//! A disk that can be filled.
#![allow(dead_code)]

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A small file system in memory, unmounted at the end.
pub struct Small(tempfile::TempDir);

impl Small {
    /// `None`, said past the test harness, where none can be mounted.
    pub fn mount(megabytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        let words = format!("\nNOT TESTED: {test}: only root can mount a file system to fill\n");
        std::io::stderr().write_all(words.as_bytes()).unwrap();
        None
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes the very last byte with a file of its own.
    pub fn fill(&self) -> PathBuf {
        let ballast = self.path().join("ballast");
        let mut file = File::create(&ballast).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        ballast
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}
