//! Why an ingest failed.

use std::fmt;
use std::time::Duration;

use disk_convert::{ConvertError, SinkError, SinkFault};
use object_io::HttpFault;

use crate::UriRefusal;

/// Why an ingest failed. Nothing in it holds the query of the URL.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// The policy does not let the URI in.
    #[error("the URI is not read: {0}")]
    Uri(UriRefusal),
    /// The source or the image in it was refused, before the first block.
    #[error(transparent)]
    Open(ConvertError),
    /// The image, its source or the sink failed on the way.
    #[error(transparent)]
    Convert(ConvertError),
    /// The caller wants a smaller disk than the guest needs. The sentence is the cloud's own.
    #[error("Minimal disk size should be greater or equal than {needed}")]
    DiskTooSmall {
        /// What the guest needs, bytes.
        needed: u64,
        /// What the caller wants, bytes.
        wanted: u64,
    },
    /// The image is above a limit of the policy; nothing was written.
    #[error("{what} is {found} bytes, expected at most {allowed}", what = limit.what())]
    TooLarge {
        /// Which limit.
        limit: Limit,
        /// What the image has, bytes.
        found: u64,
        /// What it may have, bytes.
        allowed: u64,
    },
    /// The source is too slow for its size.
    #[error("the ingest took longer than {}", Hours(*limit))]
    TooLong {
        /// What it may take.
        limit: Duration,
    },
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// A limit on the size of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// [`crate::Policy::max_virtual_size`].
    VirtualSize,
    /// [`crate::Policy::max_metadata`].
    Metadata,
    /// [`crate::Policy::max_storage_size`].
    StorageSize,
}

impl Limit {
    fn what(self) -> &'static str {
        match self {
            Self::VirtualSize => "the virtual size",
            Self::Metadata => "the map of the image",
            Self::StorageSize => "what the image stores",
        }
    }

    /// As configurations call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::VirtualSize => "max-virtual-size",
            Self::Metadata => "max-metadata",
            Self::StorageSize => "max-storage-size",
        }
    }
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

    /// What the engine said, if it was the engine.
    pub fn convert_error(&self) -> Option<&ConvertError> {
        match self {
            Self::Open(error) | Self::Convert(error) => Some(error),
            _ => None,
        }
    }

    /// The limit that ended the ingest, by the name that configurations have for it, if one did.
    pub fn limit(&self) -> Option<&'static str> {
        match self {
            Self::TooLarge { limit, .. } => Some(limit.name()),
            Self::TooLong { .. } => Some("ingest-time"),
            _ => {
                let Some(ConvertError::Source(error)) = self.convert_error() else { return None };
                match error.cause.as_ref()?.downcast_ref::<HttpFault>()?.time_limit()? {
                    "connect" => Some("http-connect-timeout"),
                    "first_byte" => Some("http-first-byte-timeout"),
                    "idle" => Some("http-idle-timeout"),
                    _ => Some("http-min-rate"),
                }
            }
        }
    }

    /// True if the sink may have taken something.
    pub fn may_have_written(&self) -> bool {
        matches!(self, Self::Convert(_) | Self::TooLong { .. } | Self::Cancelled)
    }

    /// True if the image or its URL is at fault: the same again will not do.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Uri(_) | Self::DiskTooSmall { .. } | Self::TooLarge { .. } => true,
            _ => self.convert_error().is_some_and(ConvertError::is_refusal),
        }
    }
}

impl From<UriRefusal> for IngestError {
    fn from(refusal: UriRefusal) -> Self {
        Self::Uri(refusal)
    }
}

/// A duration as operators give it.
struct Hours(Duration);

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            seconds if seconds >= 3600 && seconds % 3600 == 0 => write!(f, "{} hours", seconds / 3600),
            _ => write!(f, "{} seconds", self.0.as_secs_f32()),
        }
    }
}

#[cfg(test)]
mod tests {
    use disk_convert::{SourceError, SourceFault};
    use disk_image::Span;

    use super::*;

    #[test]
    fn limits_have_names() {
        let slow = HttpFault::Slow { found: 1, expected: 2, window: Duration::from_secs(60) };
        let source = SourceError::new("x", Span::new(0, 1), SourceFault::Stalled).because(slow);
        assert_eq!(IngestError::converting(source.into()).limit(), Some("http-min-rate"));
        let silent = HttpFault::Silent { after: Duration::from_secs(30) };
        let source = SourceError::new("x", Span::new(0, 1), SourceFault::Stalled).because(silent);
        assert_eq!(IngestError::opening(source.into()).limit(), Some("http-idle-timeout"));
        let large = IngestError::TooLarge { limit: Limit::VirtualSize, found: 2, allowed: 1 };
        assert_eq!(large.limit(), Some("max-virtual-size"));
        assert_eq!(large.to_string(), "the virtual size is 2 bytes, expected at most 1");
        assert_eq!(IngestError::Cancelled.limit(), None);
    }

    #[test]
    fn times_are_said_as_they_were_given() {
        let long = |seconds| IngestError::TooLong { limit: Duration::from_millis(seconds) }.to_string();
        assert_eq!(long(24 * 3600 * 1000), "the ingest took longer than 24 hours");
        assert_eq!(long(1500), "the ingest took longer than 1.5 seconds");
    }

    #[test]
    fn a_cancel_is_a_cancel_wherever_it_shows() {
        assert!(matches!(IngestError::opening(ConvertError::Cancelled), IngestError::Cancelled));
        let sink = SinkError::new("x", None, SinkFault::Cancelled);
        assert!(matches!(IngestError::converting(sink.into()), IngestError::Cancelled));
    }
}
