// SPDX-License-Identifier: MPL-2.0

/// Why the vault could not be used, or what it gave could not be accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, a broken one, or no answer in time: worth trying again.
    #[error(
        "vault {vault}: {reason}: check that `camvault serve` runs there and that the network is up"
    )]
    Network {
        /// Base URL.
        vault: String,
        /// What failed.
        reason: String,
    },
    /// The server shows a certificate that is not accepted.
    #[error(
        "vault {vault}: its certificate is not accepted: {reason}: set CAMVAULT_CA_FILE to a PEM file with the authority that signed it"
    )]
    Untrusted {
        /// Base URL.
        vault: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server refused.
    #[error("vault {vault} refused {what}: {message}")]
    Refused {
        /// Base URL.
        vault: String,
        /// Method and path.
        what: String,
        /// Kind of refusal.
        code: crate::protocol::Code,
        /// The server's explanation.
        message: String,
        /// How long it asks the client to wait before it comes again.
        retry_after: Option<std::time::Duration>,
    },
    /// The server's answer is not of the protocol.
    #[error("vault {vault}: {what}: the answer is not understood: {reason}")]
    Answer {
        /// Base URL.
        vault: String,
        /// Method and path.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No such recording for this identity.
    #[error("no recording {0:?} for this identity: `camvault ls` lists what there is")]
    NoRecording(String),
    /// No such archive at the gateway.
    #[error("no archive {0:?} under this contract: `camvault retrieve --list` shows what there is")]
    NoArchive(String),
    /// A stored chunk is gone, changed or exchanged; its bytes are not handed out.
    #[error("segment {seq}, chunk {chunk}: {reason}")]
    Damaged {
        /// Segment.
        seq: u64,
        /// Index of the chunk in its track.
        chunk: usize,
        /// What is wrong.
        reason: String,
    },
    /// A sealed manifest, head or summary does not open, or segments do not follow each other.
    #[error("segment {seq}: {source}")]
    Manifest {
        /// Segment.
        seq: u64,
        /// What is wrong.
        #[source]
        source: crate::manifest::Error,
    },
    /// A segment is missing or is not the one its successor names.
    #[error(
        "segment {0} is missing or was exchanged: the server does not give back what it acknowledged"
    )]
    Chain(u64),
    /// A list of recordings that does not go on from page to page.
    #[error("the list of recordings {0}: the server does not answer as it should")]
    List(&'static str),
    /// An identity file or a sealed message for this identity.
    #[error(transparent)]
    Identity(#[from] crate::identity::Error),
    /// A recording or vault URL.
    #[error(transparent)]
    Url(#[from] crate::protocol::UrlError),
    /// A chunk could not be sealed.
    #[error(transparent)]
    Rce(#[from] crate::rce::Error),
    /// The spool directory.
    #[error("spool {path}: {source}: free some space or give another spool-dir")]
    Spool {
        /// File or directory.
        path: String,
        /// What failed.
        #[source]
        source: std::io::Error,
    },
    /// Every copy of a chunk at the vault is wrong, one among them that this identity added.
    #[error(
        "every stored copy of a chunk is wrong, this identity's own too: run `camvault scrub` on the vault"
    )]
    NoGoodCopy,
    /// The vault let go of chunks before their segment was committed; their content is no longer
    /// here. It holds them for 48 hours, so this takes an outage of that length or a server that
    /// lost data.
    #[error("segment {seq}: the vault no longer holds {chunks} of its chunks; the segment is lost")]
    NotHeld {
        /// Segment.
        seq: u64,
        /// How many.
        chunks: usize,
    },
    /// A recorder ended before all that it had taken was durable.
    #[error("{chunks} chunks ({bytes} bytes) were not stored: {reason}")]
    NotStored {
        /// Chunks.
        chunks: u64,
        /// Their bytes.
        bytes: u64,
        /// Why.
        reason: String,
    },
    /// The operating system gave no threads for the network.
    #[error("no threads for the network: {0}")]
    Threads(String),
    /// The file of trusted certificates.
    #[error("certificates to trust, {path}: {reason}: set CAMVAULT_CA_FILE to a PEM file")]
    Certificates {
        /// The file, or the system's.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A document of the third party, or one that it should sign.
    #[error(transparent)]
    Document(#[from] crate::protocol::DocumentError),
    /// Homomorphic encryption: a cloud's key without proof, or ciphertexts that are none.
    #[error(transparent)]
    Homomorphic(#[from] crate::homomorphic::Error),
    /// A ticket or a sealed stream.
    #[error(transparent)]
    Sealed(#[from] crate::sealed::stream::Error),
    /// A log of deletions that is not one chain.
    #[error(
        "the third party's log of deletions was changed: receipt {0} does not follow the one before"
    )]
    Deletions(u64),
    /// Stopped by the caller.
    #[error("stopped before it was done")]
    Cancelled,
}

impl Error {
    /// Whether the same request may succeed later: no connection, or a server that is overloaded,
    /// full, shutting down or failing.
    pub fn is_transient(&self) -> bool {
        use crate::protocol::Code;
        match self {
            Self::Network { .. } => true,
            Self::Refused { code, .. } => {
                matches!(code, Code::Busy | Code::Full | Code::Slow | Code::Internal)
            }
            _ => false,
        }
    }

    /// Whether the server had too much to do, or was stopping, and did nothing about the request.
    pub fn is_busy(&self) -> bool {
        use crate::protocol::Code;
        let codes = [Code::Busy, Code::Slow];
        matches!(self, Self::Refused { code, .. } if codes.contains(code))
    }

    /// How long the server asks to wait, if it does.
    pub(crate) fn retry_after(&self) -> std::time::Duration {
        match self {
            Self::Refused { retry_after, .. } => retry_after.unwrap_or_default(),
            _ => std::time::Duration::ZERO,
        }
    }

    /// The word by which a recorder counts its retries; `None` where it gives up. It is more
    /// patient than [`Error::is_transient`]: an answer that is not of the protocol may come from
    /// a proxy in front of a server that is being restarted, and clocks and tokens get renewed.
    pub(crate) fn retry_reason(&self) -> Option<&'static str> {
        use crate::protocol::Code;
        Some(match self {
            Self::Network { .. } => "network",
            // A renewed certificate ends it; meanwhile a camera's footage is kept.
            Self::Untrusted { .. } => "certificate",
            Self::Answer { .. } => "answer",
            Self::Cancelled => "cancelled",
            Self::Refused { code, .. } => match code {
                Code::Busy => "busy",
                Code::Full => "full",
                Code::Slow => "slow",
                Code::Internal => "server",
                Code::Clock => "clock",
                Code::Replay => "replay",
                Code::Capability => "capability",
                _ => return None,
            },
            _ => return None,
        })
    }
}
