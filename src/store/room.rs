// SPDX-License-Identifier: MPL-2.0
//! Keeps a part of the disk free, so that running out is met before a write and not within it.

use super::Error;
use std::path::{Path, PathBuf};

/// A directory's file system and the bytes of it that stay free.
#[derive(Clone, Debug)]
pub struct Room {
    dir: PathBuf,
    reserve: u64,
}

impl Room {
    /// Keeps `reserve` bytes free on the file system of `dir`.
    pub fn new(dir: &Path, reserve: u64) -> Self {
        let dir = dir.to_owned();
        Self { dir, reserve }
    }

    /// Bytes that can be written before the reserve is reached.
    pub fn free(&self) -> Result<u64, Error> {
        let stat =
            rustix::fs::statvfs(&self.dir).map_err(|e| Error::io(self.dir.display(), e.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        Ok(free.saturating_sub(self.reserve))
    }

    /// [`Error::Full`] if `bytes` more would touch the reserve.
    pub fn check(&self, bytes: u64) -> Result<(), Error> {
        match self.free()? > bytes {
            true => Ok(()),
            false => Err(Error::Full),
        }
    }
}
