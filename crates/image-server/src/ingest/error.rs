//! Why an ingest failed, and what the caller is told.

use std::time::Duration;

use block_store::BlockStoreError;
use disk_convert::{ConvertError, SinkError, SinkFault, SourceFault};
use image_api::{Code, rpc::Status};

use crate::{uri::without_query, worker::IngestWork};

/// Why an ingest failed.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The source or the image in it was refused, before the first block.
    #[error(transparent)]
    Open(ConvertError),
    /// The image, its source or the store of blocks failed on the way.
    #[error(transparent)]
    Convert(ConvertError),
    /// The store of blocks failed outside of a conversion.
    #[error(transparent)]
    Store(BlockStoreError),
    /// The caller wants a smaller disk than the guest needs. The sentence is the cloud's own.
    #[error("Minimal disk size should be greater or equal than {needed}")]
    DiskTooSmall {
        /// What the guest needs.
        needed: u64,
        /// What the caller wants.
        wanted: u64,
    },
    /// The source is too slow for its size.
    #[error("the ingest took longer than {} hours", limit.as_secs() / 3600)]
    TooLong {
        /// What it may take.
        limit: Duration,
    },
    /// The caller, or whoever stops the server.
    #[error("cancelled")]
    Cancelled,
    /// The ingest panicked.
    #[error("the ingest failed; this is a defect of the server")]
    Panicked,
}

impl IngestError {
    /// A failure before the first block.
    pub(crate) fn opening(error: ConvertError) -> Self {
        if matches!(error, ConvertError::Cancelled) { Self::Cancelled } else { Self::Open(error) }
    }

    /// A failure on the way.
    pub(crate) fn converting(error: ConvertError) -> Self {
        match error {
            ConvertError::Cancelled | ConvertError::Sink(SinkError { fault: SinkFault::Cancelled, .. }) => {
                Self::Cancelled
            }
            error => Self::Convert(error),
        }
    }

    /// The canonical code: whose fault it is, and whether the same call may work later.
    pub fn code(&self) -> Code {
        match self {
            Self::Open(error) | Self::Convert(error) => match error {
                ConvertError::Open { .. }
                | ConvertError::Decode { .. }
                | ConvertError::Reference { .. }
                | ConvertError::TooManyParts { .. } => Code::InvalidArgument,
                ConvertError::Source(error) => source_code(error.fault),
                ConvertError::Sink(error) => sink_code(error.fault),
                ConvertError::Cancelled => Code::Cancelled,
                _ => Code::Internal,
            },
            Self::Store(error) if error.is_retryable() => Code::Unavailable,
            Self::Store(BlockStoreError::Store { .. }) => Code::Unavailable,
            Self::Store(_) | Self::Panicked => Code::Internal,
            Self::DiskTooSmall { .. } => Code::InvalidArgument,
            Self::TooLong { .. } => Code::DeadlineExceeded,
            Self::Cancelled => Code::Cancelled,
        }
    }

    /// Whether the same work may succeed later without a change.
    pub fn is_retryable(&self) -> bool {
        self.code() == Code::Unavailable
    }

    /// Whether blocks may be in the store that no manifest lists.
    pub(crate) fn leaves_blocks(&self) -> bool {
        !matches!(self, Self::Open(_) | Self::DiskTooSmall { .. })
    }

    /// What the caller is told: the whole chain in one line, without anything that the source's query holds.
    pub(crate) fn status(&self, work: &IngestWork) -> Status {
        let mut message = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        // Below us every URL is redacted already. A library that forgets it once must not publish a signature.
        let whole = work.source.expose();
        let query = whole.strip_prefix(without_query(whole)).unwrap_or(whole);
        if query.len() > 1 {
            message = message.replace(query, "").replace(&query[1..], "(redacted)");
        }
        Status::new(self.code(), message)
    }
}

/// What the caller named is the caller's to put right, unless the network between us and it failed.
fn source_code(fault: SourceFault) -> Code {
    match fault {
        SourceFault::Stalled | SourceFault::Unavailable => Code::Unavailable,
        SourceFault::Io => Code::Internal,
        _ => Code::FailedPrecondition,
    }
}

/// Our store is our fault.
fn sink_code(fault: SinkFault) -> Code {
    match fault {
        SinkFault::Unavailable | SinkFault::NoSpace | SinkFault::Busy => Code::Unavailable,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use disk_convert::SourceError;
    use disk_image::Span;

    use super::*;
    use crate::uri::SourceUri;

    fn work() -> IngestWork {
        IngestWork {
            image_id: "fd8".to_owned(),
            manifest: "fd8.1".to_owned(),
            source: SourceUri::trusted("https://s/b/k?X-Amz-Signature=secret".to_owned()),
            wanted_disk_size: 0,
        }
    }

    #[test]
    fn codes_of_faults() {
        for (fault, code) in [
            (SourceFault::NotFound, Code::FailedPrecondition),
            (SourceFault::Denied, Code::FailedPrecondition),
            (SourceFault::Expired, Code::FailedPrecondition),
            (SourceFault::Changed, Code::FailedPrecondition),
            (SourceFault::Shrunk, Code::FailedPrecondition),
            (SourceFault::NoRanges, Code::FailedPrecondition),
            (SourceFault::Unavailable, Code::Unavailable),
        ] {
            let error = SourceError::new("x", Span::new(0, 0), fault);
            assert_eq!(IngestError::converting(error.into()).code(), code, "{fault:?}");
        }
        for (fault, code) in [
            (SinkFault::Unavailable, Code::Unavailable),
            (SinkFault::NoSpace, Code::Unavailable),
            (SinkFault::Checksum, Code::Internal),
            (SinkFault::Denied, Code::Internal),
            (SinkFault::Cancelled, Code::Cancelled),
        ] {
            let error = SinkError::new("x", None, fault);
            assert_eq!(IngestError::converting(error.into()).code(), code, "{fault:?}");
        }
        assert!(matches!(IngestError::opening(ConvertError::Cancelled), IngestError::Cancelled));
    }

    #[test]
    fn a_message_never_holds_the_signature() {
        let leak = std::io::Error::other("GET https://s/b/k?X-Amz-Signature=secret: reset");
        let source =
            SourceError::new("https://s/b/k", Span::new(0, 1), SourceFault::Unavailable).because(leak);
        let status = IngestError::converting(source.into()).status(&work());
        assert!(!status.message.contains("secret"), "{}", status.message);
        assert!(status.message.ends_with("GET https://s/b/k: reset"), "{}", status.message);
    }
}
