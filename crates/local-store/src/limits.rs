//! What the protocol allows, and what one request may cost.
//!
//! The protocol's numbers are those of "Amazon S3 multipart upload limits" and of the operations' own pages;
//! all in bytes unless the name says otherwise.

use std::time::Duration;

/// Longest object key, in bytes of UTF-8.
pub(crate) const MAX_KEY: usize = 1024;

/// Largest body of one PutObject or UploadPart, and largest source of one CopyObject or UploadPartCopy.
pub(crate) const MAX_PUT: u64 = 5 << 30;

/// Smallest part of an upload, the last one excepted.
pub(crate) const MIN_PART: u64 = 5 << 20;

/// Part numbers run from 1 to this.
pub(crate) const MAX_PART_NUMBER: u16 = 10_000;

/// Most entries in one page of a listing, and most keys in one DeleteObjects.
pub(crate) const MAX_PAGE: usize = 1000;

/// All names and values of user metadata together.
pub(crate) const MAX_METADATA: usize = 2048;

/// Longest life of a pre-signed URL: seven days, in seconds.
pub(crate) const MAX_PRESIGN_SECONDS: u32 = 7 * 24 * 3600;

/// How long a request's body may pause. A client that is gone without a word would else hold its connection
/// and its half-written file until the next start.
pub(crate) const BODY_IDLE: Duration = Duration::from_secs(60);

/// How much of a refused request's body is read and thrown away, so that its client, which may still be
/// sending, gets to read the refusal: more than the parts that uploads are usually made of.
pub(crate) const DRAIN: u64 = 16 << 20;

/// How long that may take.
pub(crate) const DRAIN_TIME: Duration = Duration::from_secs(5);

/// Bytes of a request body that are hashed and written as one job: large enough that handing it to the
/// blocking pool (some 10 us) is noise beside hashing it (some 1.5 ms), small enough that two of them a
/// request cost nothing.
pub(crate) const WRITE_BATCH: usize = 1 << 20;

/// Bytes of a response body that are read as one job; a response holds two.
pub(crate) const READ_CHUNK: u64 = 512 << 10;
