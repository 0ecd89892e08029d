//! Makes the parts of an output within a memory budget, from any byte source to any sink.

mod error;
mod sink;
mod source;

pub use error::{ConvertError, SinkError, SinkFault, SourceError, SourceFault};
pub use sink::{FilledPart, Part, PartRules, PartSize, Payload, PutNow, Sink, Zeroes};
pub use source::{ByteSource, ReadAt, SourceShape};
