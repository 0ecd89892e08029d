//! The contract both ends share: Image, Operation and Create messages, their validation, and the client.
//!
//! The messages are those of the cloud's public API (packages `yandex.cloud.compute.v1` and `yandex.cloud.operation`,
//! `google.rpc.Status` for errors): the same field numbers, JSON names, paths and codes, so that what is written for
//! the cloud talks to `image-server` and the reverse. The `.proto` files are ours and hold what the contract needs.
//!
//! - [`google`]: the images of Compute Engine's API, which a server can speak too.
//! - [`compute`], [`operation`], [`access`], [`endpoint`], [`iam`], [`rpc`]: messages, from `proto/` by prost; sizes are bytes.
//! - [`to_json`], [`from_json`]: canonical proto3 JSON. A server refuses unknown fields, a client skips them.
//! - [`Validate`]: the rules of the fields, from one table; reports every violation, not the first.
//! - [`Code`]: the canonical codes and what HTTP calls them.
//! - [`Method`]: the methods of the services and their HTTP forms, for whoever serves or calls them by name.
//! - [`openapi`]: methods, messages and rules as an OpenAPI document.
//! - [`Client`]: the calls over REST or gRPC, with bounded retries and cancellation; [`ComputeEngine`]: those of Google's API.
//! - [`Credentials`]: where their bearer token comes from, and how it is renewed.
//!
//! No code is made from the services: both transports carry the bytes of messages, and the descriptors say the rest.

mod client;
mod code;
mod credentials;
mod descriptors;
mod google_state;
mod json;
mod method;
mod openapi;
mod operation_state;
mod token;
mod validate;

pub use client::{
    ApiError, Client, ClientOptions, ComputeEngine, Retry, Skew, StatusError, Transport, TransportError,
    Uuid, WaitOptions, reach,
};
pub use code::Code;
pub use credentials::{Credentials, GoogleKey, KeyError, METADATA_ADDRESS, ServiceAccountKey};
pub use descriptors::DESCRIPTORS;
pub use json::{JsonError, from_json, from_json_lenient, has_json_field, to_json, to_json_value};
pub use method::{Binding, HttpCall, HttpRequest, Method, Route};
pub use openapi::{message_schema, openapi};
pub use operation_state::{OperationOutcome, PackError, any_of, unpack};
pub use token::Token;
pub use validate::{Validate, Violations};

// `operation.operation` is how prost names the oneofs of `Operation`.
#[allow(missing_docs, unreachable_pub, clippy::module_inception)]
mod messages {
    include!(concat!(env!("OUT_DIR"), "/messages.rs"));
}

/// Messages of `yandex.cloud.compute.v1`.
pub mod compute {
    pub use crate::messages::yandex::cloud::compute::v1::*;
}

/// Messages of `yandex.cloud.access`.
pub mod access {
    pub use crate::messages::yandex::cloud::access::*;
}

/// Messages of `yandex.cloud.endpoint`.
pub mod endpoint {
    pub use crate::messages::yandex::cloud::endpoint::*;
}

/// Messages of `yandex.cloud.iam.v1`.
pub mod iam {
    pub use crate::messages::yandex::cloud::iam::v1::*;
}

/// Messages of `yandex.cloud.operation`.
pub mod operation {
    pub use crate::messages::yandex::cloud::operation::*;
}

/// Messages of `google.cloud.compute.v1`: Compute Engine's images.
pub mod google {
    pub use crate::messages::google::cloud::compute::v1::*;
}

/// Messages of `google.rpc`.
pub mod rpc {
    pub use crate::messages::google::rpc::*;
}

pub use compute::{CreateImageRequest, Image};
pub use operation::Operation;
pub use prost_types::{Any, Duration, FieldMask, Timestamp};
