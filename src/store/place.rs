// SPDX-License-Identifier: MPL-2.0
//! Where blobs are kept.

use super::{Blobs, Bucket, Directory, Error, Room, S3};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

/// A place that blobs can be kept in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobPlace {
    /// A directory; made if it is not there.
    Directory(PathBuf),
    /// A bucket of an S3 service.
    Bucket(Bucket),
}

impl BlobPlace {
    /// Opens the store there. Of a directory's disk `reserve` bytes stay free.
    pub async fn open(&self, reserve: u64) -> Result<Arc<dyn Blobs>, Error> {
        match self.clone() {
            Self::Bucket(bucket) => Ok(Arc::new(S3::open(bucket).await?)),
            Self::Directory(dir) => {
                let open = move || Directory::open(&dir, Room::new(&dir, reserve));
                let opened = tokio::task::spawn_blocking(open).await;
                let directory = opened.map_err(|e| Error::Engine(e.to_string()))??;
                Ok(Arc::new(directory))
            }
        }
    }
}

impl fmt::Display for BlobPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(dir) => write!(f, "{}", dir.display()),
            Self::Bucket(bucket) => write!(f, "{bucket}"),
        }
    }
}

impl FromStr for BlobPlace {
    type Err = String;

    /// Reads `s3://BUCKET[/PREFIX]` or a directory's path.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.contains("://") {
            true => text.parse().map(Self::Bucket),
            false => Ok(Self::Directory(text.into())),
        }
    }
}
