//! Canonical proto3 JSON of the messages, from the embedded descriptors.
//!
//! Source: <https://protobuf.dev/programming-guides/json/>. Names are lowerCamel (proto names are read too), int64 are
//! strings, times RFC 3339, an Any carries `@type`, fields with their default are not written. Unknown fields and
//! types are refused by [`from_json`] and skipped by [`from_json_lenient`]. A message goes through its wire form and
//! back: some microseconds, nothing that a REST call would notice.

use prost::Name;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor};
use serde_json::Value;

use crate::descriptors::{descriptor, pool};

/// Why text is not a message, or a message has no JSON.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The text is not JSON, or not JSON of this message.
    #[error("not the JSON of {message}")]
    Read {
        /// The message that was expected.
        message: String,
        /// What is wrong and where.
        source: serde_json::Error,
    },
    /// An Any holds a type that the descriptors do not know, or a time is out of range.
    #[error("{message} has no JSON form")]
    Write {
        /// The message that was to be written.
        message: String,
        /// What has no form.
        source: serde_json::Error,
    },
    /// The wire form of a value does not fit the message; only possible where an Any lies about its type.
    #[error("the wire form of {message} is damaged")]
    Wire {
        /// The message.
        message: String,
        /// What the decoder found.
        source: prost::DecodeError,
    },
}

/// Canonical JSON text of a message.
pub fn to_json<M: Name>(message: &M) -> Result<String, JsonError> {
    to_json_value(message).map(|value| value.to_string())
}

/// Whether the JSON of a message has a field of this name.
pub fn has_json_field<M: Name>(name: &str) -> bool {
    descriptor::<M>().get_field_by_json_name(name).is_some()
}

/// Canonical JSON of a message as a tree.
pub fn to_json_value<M: Name>(message: &M) -> Result<Value, JsonError> {
    let mut dynamic = DynamicMessage::new(descriptor::<M>());
    dynamic.transcode_from(message).map_err(|source| JsonError::Wire { message: M::full_name(), source })?;
    serde_json::to_value(&dynamic).map_err(|source| JsonError::Write { message: M::full_name(), source })
}

/// A message from canonical JSON; unknown fields and types are errors, as a server must see them.
pub fn from_json<M: Name + Default>(text: &[u8]) -> Result<M, JsonError> {
    finish(read_strictly(descriptor::<M>(), text))
}

/// What [`from_json`] reads, of a message that is known by its descriptor only.
pub(crate) fn read_strictly(
    message: MessageDescriptor,
    text: &[u8],
) -> Result<DynamicMessage, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let dynamic = DynamicMessage::deserialize(message, &mut reader)?;
    reader.end().map(|()| dynamic)
}

/// A message from canonical JSON of a server that may be newer: unknown fields are skipped, and so is an Any of a type
/// that is not known here.
pub fn from_json_lenient<M: Name + Default>(text: &[u8]) -> Result<M, JsonError> {
    let read = serde_json::from_slice::<Value>(text).and_then(|mut value| {
        drop_unknown_types(&mut value);
        let options = DeserializeOptions::new().deny_unknown_fields(false);
        DynamicMessage::deserialize_with_options(descriptor::<M>(), value, &options)
    });
    finish(read)
}

fn finish<M: Name + Default>(read: Result<DynamicMessage, serde_json::Error>) -> Result<M, JsonError> {
    let dynamic = read.map_err(|source| JsonError::Read { message: M::full_name(), source })?;
    dynamic.transcode_to().map_err(|source| JsonError::Wire { message: M::full_name(), source })
}

fn drop_unknown_types(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.iter_mut().for_each(drop_unknown_types);
            items.retain(|item| !item.is_null());
        }
        Value::Object(fields) => {
            let unknown = fields.get("@type").and_then(Value::as_str).is_some_and(|url| {
                let name = url.rsplit('/').next().unwrap_or(url);
                pool().get_message_by_name(name).is_none()
            });
            if unknown {
                *value = Value::Null;
            } else {
                fields.values_mut().for_each(drop_unknown_types);
            }
        }
        _ => {}
    }
}
