// SPDX-License-Identifier: MPL-2.0
//! Which tickets were used, in a directory that outlives the process: a sealed stream that comes
//! again is refused.

use crate::protocol::hex;
use crate::sealed::stream::Opened;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Tickets after which those that have expired are forgotten.
const TIDY_EVERY: u64 = 64;
/// How long they are remembered beyond, in case the clock is set back.
const BEYOND_MS: u64 = 24 * 3600 * 1000;

/// The directory: an empty file `CONTRACT/NUMBER-EXPIRY` for each ticket.
pub struct Taken(pub PathBuf);

impl Taken {
    /// Takes a ticket, once. It is on the disk before this returns.
    pub fn take(&self, opened: &Opened, now_ms: u64) -> Result<(), gst::ErrorMessage> {
        let dir = self.0.join(hex(&opened.contract));
        let file = dir.join(format!("{}-{}", opened.ticket, opened.expires_ms));
        let take = || {
            std::fs::create_dir_all(&dir)?;
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&file)?;
            file.sync_all()?;
            for dir in [&dir, &self.0] {
                File::open(dir)?.sync_all()?;
            }
            Ok(())
        };
        match take() {
            Err(e) if ErrorKind::AlreadyExists == io::Error::kind(&e) => Err(gst::error_msg!(
                gst::StreamError::Decrypt,
                (
                    "Ticket {} of contract {} was used before: a sealed stream is taken once",
                    opened.ticket,
                    hex(&opened.contract)
                )
            )),
            Err(e) => Err(gst::error_msg!(
                gst::ResourceError::Write,
                ("{}: {e}", file.display())
            )),
            Ok(()) => {
                if opened.ticket.is_multiple_of(TIDY_EVERY) {
                    tidy(&dir, now_ms);
                }
                Ok(())
            }
        }
    }
}

/// Forgets what has expired: no stream with it is taken any more. What cannot be removed now is
/// later.
fn tidy(dir: &Path, now_ms: u64) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let expiry = name.to_str().and_then(|name| name.split_once('-'));
        let expiry = expiry.and_then(|(_, expiry)| expiry.parse::<u64>().ok());
        if expiry.is_some_and(|expiry| expiry.saturating_add(BEYOND_MS) < now_ms) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{ChromaKind, Video};

    #[test]
    fn a_ticket_is_taken_once_and_forgotten_when_it_has_long_expired() {
        let dir = tempfile::tempdir().unwrap();
        let opened = |ticket, expires_ms| Opened {
            contract: [7; 32],
            ticket,
            video: Video {
                width: 64,
                height: 64,
                chroma: ChromaKind::None,
                rate: (1, 1),
            },
            started_ms: 0,
            expires_ms,
        };
        let taken = || Taken(dir.path().join("tickets"));
        taken().take(&opened(1, 100), 50).unwrap();
        taken().take(&opened(2, 100 + BEYOND_MS), 50).unwrap();
        let refused = taken().take(&opened(1, 100), 60).unwrap_err();
        assert!(format!("{refused:?}").contains("used before"));
        taken().take(&opened(64, 200), 101 + BEYOND_MS).unwrap();
        let left = std::fs::read_dir(dir.path().join("tickets").join(hex(&[7; 32])));
        assert_eq!(left.unwrap().count(), 2);
    }
}
