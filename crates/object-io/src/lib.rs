//! Speaks to object stores: a bucket's verbs, ranged GET of a pre-signed URL, multipart upload, pre-signing.
//!
//! - [`Store`]: the verbs of one S3-compatible store, configured by the conventions of the AWS tools ([`StoreConfig`]).
//! - [`MultipartSink`]: one object, uploaded in parts as they are made; with a [`Journal`], by one process after the other.
//! - [`HttpSource`]: the bytes behind a URL, read by ranges, pinned to the object that was opened.
//! - [`PresignedUrl`]: permission to GET one object for a while; a secret.
//!
//! The AWS SDK lives here and nowhere else. Where stores differ, a [`StoreProfile`] says how. Retries are made here, in one layer;
//! callers add none. Every remote verb takes a [`CancellationToken`](tokio_util::sync::CancellationToken) last;
//! after a cancelled verb the store may or may not have carried it out.

mod clock;
mod config;
mod error;
mod google;
mod http;
pub mod limits;
mod link;
mod multipart;
mod presign;
mod profile;
mod retry;
mod store;
mod trust;
mod uri;

pub use config::{Credentials, StoreConfig};
pub use error::{Answer, ObjectError, Verb};
pub use google::{TokenFuture, Tokens};
pub use http::{
    AddressPolicy, Bearer, HostRule, HostRuleError, HttpFault, HttpOptions, HttpSource, Resolver,
    SystemResolver, TimeLimits, Traffic,
};
pub use multipart::{
    Begun, Done, Journal, JournalError, MultipartOptions, MultipartSink, PartPlan, Progress, Restart,
    Resumed, SourceIdentity, UploadOf, UploadedObject, zeroes_key,
};
pub use presign::{PresignedUrl, without_signature};
pub use profile::{Address, Checksum, Etag, Payload, StoreKind, StoreProfile, StoreProfileError};
pub use retry::RetryOptions;
pub use store::{Listed, ObjectInfo, Page, PageToken, PutOptions, Store, Stored, Upload};
pub use uri::{BucketUri, ObjectUri, Scheme, UriError};
