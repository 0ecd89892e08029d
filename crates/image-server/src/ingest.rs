//! Why an ingest failed, and what the caller is told.

use block_store::BlockStoreError;
use disk_convert::{ConvertError, SinkFault, SourceFault};
use disk_image::qcow2;
use image_api::{Code, rpc::Status};
pub(crate) use image_ingest::Ingested;
use image_ingest::without_query;

use crate::{catalog::CatalogError, pool::PoolError, worker::IngestWork};

/// Why the content of an image did not come to be, or not go away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IngestError {
    /// The ingest itself.
    #[error(transparent)]
    Ingest(image_ingest::IngestError),
    /// The store of blocks failed outside of a conversion.
    #[error(transparent)]
    Store(BlockStoreError),
    /// The folder has no room for what the image stores. Nothing was written.
    #[error(
        "folder {folder_id} stores {used} bytes and its quota is {quota}: there is no room for {needed} more"
    )]
    Quota { folder_id: String, used: u64, needed: u64, quota: u64 },
    /// What the image is made of is not there any more.
    #[error("{kind} {id} not found")]
    NoSource { kind: &'static str, id: String },
    /// What is pooled has no copy.
    #[error(transparent)]
    Pool(PoolError),
    /// The content has no qcow2 form.
    #[error("the image cannot be laid out as qcow2")]
    Layout { source: qcow2::LayoutError },
    /// The catalog failed.
    #[error(transparent)]
    Catalog(CatalogError),
    /// The caller, or whoever stops the server.
    #[error("cancelled")]
    Cancelled,
    /// The ingest panicked.
    #[error("the ingest failed; this is a defect of the server")]
    Panicked,
}

impl From<PoolError> for IngestError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Copy { source: ConvertError::Cancelled } => Self::Cancelled,
            error => Self::Pool(error),
        }
    }
}

impl From<image_ingest::IngestError> for IngestError {
    fn from(error: image_ingest::IngestError) -> Self {
        match error {
            image_ingest::IngestError::Cancelled => Self::Cancelled,
            error => Self::Ingest(error),
        }
    }
}

impl IngestError {
    /// The canonical code: whose fault it is, and whether the same call may work later.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Ingest(error) => ingest_code(error),
            Self::Store(error) if error.is_retryable() => Code::Unavailable,
            Self::Store(BlockStoreError::Store { .. }) | Self::Catalog(CatalogError::Database { .. }) => {
                Code::Unavailable
            }
            Self::Quota { .. } => Code::ResourceExhausted,
            Self::NoSource { .. } => Code::NotFound,
            Self::Pool(PoolError::None | PoolError::Full { .. }) => Code::ResourceExhausted,
            // Both ends are our own: what would be the caller's elsewhere is a defect or damage here.
            Self::Pool(PoolError::Copy { source }) => match convert_code(source) {
                code @ (Code::Unavailable | Code::Cancelled) => code,
                _ => Code::Internal,
            },
            Self::Pool(PoolError::Folder { .. }) => Code::Unavailable,
            Self::Pool(PoolError::Catalog(error)) if error.is_outage() => Code::Unavailable,
            Self::Pool(PoolError::Catalog(_) | PoolError::Foreign) => Code::Internal,
            Self::Store(_) | Self::Layout { .. } | Self::Catalog(_) | Self::Panicked => Code::Internal,
            Self::Cancelled => Code::Cancelled,
        }
    }

    /// Whether the same work may succeed later without a change.
    pub(crate) fn is_retryable(&self) -> bool {
        self.code() == Code::Unavailable
    }

    /// Whether blocks may be in the store that no manifest lists.
    pub(crate) fn leaves_blocks(&self) -> bool {
        match self {
            Self::Ingest(error) => error.may_have_written(),
            Self::Quota { .. } | Self::NoSource { .. } => false,
            Self::Pool(PoolError::None | PoolError::Full { .. }) => false,
            _ => true,
        }
    }

    /// The limit that ended it, by the name of its option.
    fn limit(&self) -> Option<&'static str> {
        match self {
            Self::Ingest(error) => error.limit(),
            Self::Quota { .. } => Some("folder-quota"),
            Self::Pool(PoolError::None | PoolError::Full { .. }) => Some("pool-quota"),
            _ => None,
        }
    }

    /// What the caller is told: the whole chain in one line, without anything that the source's query holds.
    pub(crate) fn status(&self, work: &IngestWork) -> Status {
        let mut message = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        if let Some(limit) = self.limit() {
            message = format!("{message} (limit {limit})");
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

fn ingest_code(error: &image_ingest::IngestError) -> Code {
    match error {
        image_ingest::IngestError::Open(error) | image_ingest::IngestError::Convert(error) => {
            convert_code(error)
        }
        image_ingest::IngestError::TooLong { .. } => Code::DeadlineExceeded,
        error if error.is_refusal() => Code::InvalidArgument,
        _ => Code::Internal,
    }
}

fn convert_code(error: &ConvertError) -> Code {
    match error {
        ConvertError::Open { .. }
        | ConvertError::Decode { .. }
        | ConvertError::Reference { .. }
        | ConvertError::TooManyParts { .. } => Code::InvalidArgument,
        ConvertError::Source(error) => source_code(error.fault),
        ConvertError::Sink(error) => sink_code(error.fault),
        ConvertError::Cancelled => Code::Cancelled,
        _ => Code::Internal,
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
    use disk_convert::{SinkError, SourceError};
    use disk_image::Span;
    use image_ingest::{IngestError as Failed, Limit, SourceUri};

    use super::*;

    fn work() -> IngestWork {
        IngestWork {
            image_id: "fd8".to_owned(),
            attempt: crate::catalog::Attempt { image_id: "fd8".to_owned(), epoch: 1 },
            source: SourceUri::trusted("https://s/b/k?X-Amz-Signature=secret".to_owned()),
            wanted_disk_size: 0,
            pooled: false,
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
            assert_eq!(IngestError::from(Failed::Convert(error.into())).code(), code, "{fault:?}");
        }
        for (fault, code) in [
            (SinkFault::Unavailable, Code::Unavailable),
            (SinkFault::NoSpace, Code::Unavailable),
            (SinkFault::Checksum, Code::Internal),
            (SinkFault::Denied, Code::Internal),
        ] {
            let error = SinkError::new("x", None, fault);
            assert_eq!(IngestError::from(Failed::Convert(error.into())).code(), code, "{fault:?}");
        }
        for (fault, code) in [
            (SourceFault::NotFound, Code::Internal),
            (SourceFault::Changed, Code::Internal),
            (SourceFault::Unavailable, Code::Unavailable),
        ] {
            let source = SourceError::new("x", Span::new(0, 0), fault).into();
            assert_eq!(IngestError::from(PoolError::Copy { source }).code(), code, "{fault:?} of a copy");
        }
        assert!(matches!(IngestError::from(Failed::Cancelled), IngestError::Cancelled));
        let ledger = block_store::LedgerError("the database restarts".into());
        assert!(IngestError::Store(ledger.into()).is_retryable(), "what is gone for a moment ends nothing");
        let large = Failed::TooLarge { limit: Limit::VirtualSize, found: 2, allowed: 1 };
        let status = IngestError::from(large).status(&work());
        assert_eq!(status.canonical_code(), Code::InvalidArgument);
        assert!(status.message.ends_with("(limit max-virtual-size)"), "{}", status.message);
        let quota = IngestError::Quota { folder_id: "f".to_owned(), used: 1, needed: 2, quota: 2 };
        assert_eq!((quota.code(), quota.leaves_blocks()), (Code::ResourceExhausted, false));
        assert!(quota.status(&work()).message.ends_with("(limit folder-quota)"));
    }

    #[test]
    fn a_message_never_holds_the_signature() {
        let leak = std::io::Error::other("GET https://s/b/k?X-Amz-Signature=secret: reset");
        let source =
            SourceError::new("https://s/b/k", Span::new(0, 1), SourceFault::Unavailable).because(leak);
        let status = IngestError::from(Failed::Convert(source.into())).status(&work());
        assert!(!status.message.contains("secret"), "{}", status.message);
        assert!(status.message.ends_with("GET https://s/b/k: reset"), "{}", status.message);
    }
}
