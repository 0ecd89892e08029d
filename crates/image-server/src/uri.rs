//! The source URI of a Create, and which are read: [`image_ingest`]'s.

pub(crate) use image_ingest::{SourceUri, UriPolicy, without_query};
