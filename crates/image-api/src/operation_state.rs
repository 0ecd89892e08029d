//! What an Operation says about its end, and what its Any fields hold.

use prost::Name;
use prost_types::Any;

use crate::{
    Code, Operation,
    operation::operation::Result as Ending,
    rpc::{BadRequest, Status, bad_request::FieldViolation},
};

/// Why an Any could not be opened as the expected message.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// It holds another type.
    #[error("found {found}, expected {expected}")]
    Type {
        /// Type URL that was found.
        found: String,
        /// Name of the message that was expected.
        expected: String,
    },
    /// Its bytes are not a message of the type that it names.
    #[error("the bytes of {message} are damaged")]
    Wire {
        /// Name of the message.
        message: String,
        /// What the decoder found.
        source: prost::DecodeError,
    },
}

/// Wraps a message, with its type.
pub fn any_of<M: Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// Opens an Any that must hold an `M`.
pub fn unpack<M: Name + Default>(any: &Any) -> Result<M, PackError> {
    if any.type_url.rsplit('/').next() != Some(M::full_name().as_str()) {
        return Err(PackError::Type { found: any.type_url.clone(), expected: M::full_name() });
    }
    M::decode(any.value.as_slice()).map_err(|source| PackError::Wire { message: M::full_name(), source })
}

/// How far an operation is.
#[derive(Clone, Debug, PartialEq)]
pub enum OperationOutcome {
    /// Not finished. An error may be known already, while the server takes back what it did.
    Running,
    /// Finished with this error.
    Failed(Status),
    /// Finished; what it made, where the call makes something.
    Succeeded(Option<Any>),
}

impl Operation {
    /// How far the operation is; only `done` counts as an end.
    pub fn outcome(&self) -> OperationOutcome {
        match (self.done, &self.result) {
            (false, _) => OperationOutcome::Running,
            (true, Some(Ending::Error(status))) => OperationOutcome::Failed(status.clone()),
            (true, Some(Ending::Response(any))) => OperationOutcome::Succeeded(Some(any.clone())),
            (true, None) => OperationOutcome::Succeeded(None),
        }
    }

    /// The message of type `M` that the operation works on, such as `CreateImageMetadata`.
    pub fn metadata_as<M: Name + Default>(&self) -> Option<M> {
        self.metadata.as_ref().and_then(|any| unpack(any).ok())
    }
}

impl Status {
    /// A status without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), details: Vec::new() }
    }

    /// The code as an enum.
    pub fn canonical_code(&self) -> Code {
        Code::from(self.code)
    }

    /// The fields that break the contract, from every `BadRequest` among the details.
    pub fn field_violations(&self) -> Vec<FieldViolation> {
        let bad = self.details.iter().filter_map(|any| unpack::<BadRequest>(any).ok());
        bad.flat_map(|request| request.field_violations).collect()
    }
}
